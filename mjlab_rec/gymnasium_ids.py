"""The entry points of the Gymnasium ids ``mjlab_rec/<task>-v0``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import gymnasium

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl import NumpyVectorEnv


def make_vector_env(
    task_id: str,
    num_envs: int = 1,
    device: str = "auto",
    seed: int | None = None,
    render_mode: str | None = None,
    numpy: bool = False,
    play: bool = False,
    **overrides: Any,
) -> ManagerBasedRlEnv | NumpyVectorEnv:
    """Make a task's vector environment; ``gymnasium.make_vec`` passes its arguments here.

    Args:
        task_id: Id of the task, such as "cartpole-balance".
        num_envs: Number of parallel environments.
        device: "cpu", "cuda", "cuda:<index>", or "auto" for a GPU if there is one.
        seed: Seed of all random numbers. None: as the task defines it.
        render_mode: "rgb_array" to draw pictures with ``render()``.
        numpy: Use numpy arrays, and return ``final_obs`` and ``final_info`` as Gymnasium's own
            vector environments do. Otherwise all arrays are torch tensors.
        play: Use the cfg for watching the task.
        overrides: Values for fields of the cfg: ``decimation=2``, or ``**{"sim.engine": "warp"}``.
    """
    from mjlab_rec import registry
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl import NumpyVectorEnv
    from mjlab_rec.utils import cfg_paths

    cfg = registry.load_env_cfg(task_id, play=play)
    cfg.scene.num_envs = num_envs
    if seed is not None:
        cfg.seed = seed
    for path, value in overrides.items():
        cfg_paths.update(cfg, path, lambda leaf, value=value: value)
    env = ManagerBasedRlEnv(cfg, device=device, render_mode=render_mode)
    return NumpyVectorEnv(env) if numpy else env


def refuse_single_env(task_id: str, **kwargs: Any) -> NoReturn:
    """Raise: ``gymnasium.make`` cannot make a vector environment."""
    raise gymnasium.error.Error(
        f"The task {task_id!r} is a vector environment, which gymnasium.make does not support. Use "
        f"gymnasium.make_vec('mjlab_rec/{task_id}-v0', num_envs=1), without vectorization_mode; "
        "numpy=True gives numpy arrays."
    )
