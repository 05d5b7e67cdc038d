"""The ids under which Gymnasium finds the tasks: ``mjlab_rec/<task>-v0``.

``import mjlab_rec`` must stay quick, and so must ``import gymnasium``: tasks are registered there
only when an id that begins with ``mjlab_rec/`` is asked for.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl import NumpyVectorEnv

logger = logging.getLogger(__name__)

NAMESPACE = "mjlab_rec/"

_REGISTRATION = "gymnasium.envs.registration"


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
    """Make a task's vector environment; ``gymnasium.make_vec`` passes its arguments on to here.

    Args:
        task_id: Id of the task, such as "cartpole-balance".
        num_envs: Number of parallel environments.
        device: "cpu", "cuda", "cuda:<index>", or "auto" for a GPU if there is one.
        seed: Seed of all random numbers; None leaves it to the task.
        render_mode: "rgb_array" to draw pictures with ``render()``.
        numpy: Take and return numpy arrays, and give ``final_obs`` and ``final_info`` as
            Gymnasium's own vector environments do. Otherwise all arrays are torch tensors.
        play: Take the cfg that is meant for watching the task.
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


def register_tasks() -> None:
    """Register with Gymnasium every task that it does not know yet."""
    import gymnasium

    from mjlab_rec import registry

    for task_id in registry.list_tasks():
        gymnasium_id = f"{NAMESPACE}{task_id}-v0"
        if gymnasium_id in gymnasium.registry:
            continue
        try:
            gymnasium.register(
                gymnasium_id,
                vector_entry_point=f"{__name__}:{make_vector_env.__name__}",
                kwargs={"task_id": task_id},
            )
        except gymnasium.error.Error as error:
            logger.warning("Gymnasium does not take the task id %r: %s", task_id, error)


def install() -> None:
    """Have Gymnasium find our tasks, whether it is imported already, later or never."""
    if _REGISTRATION in sys.modules:
        _extend(sys.modules[_REGISTRATION])
    else:
        sys.meta_path.insert(0, _AwaitGymnasium())


class _AwaitGymnasium:
    """An import finder that extends Gymnasium's registration as soon as somebody imports it."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != _REGISTRATION:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_extend(module: ModuleType) -> None:
                execute(module)
                _extend(module)

            spec.loader.exec_module = execute_and_extend  # type: ignore[method-assign]
        return spec


def _extend(registration: ModuleType) -> None:
    """Look for our tasks before Gymnasium looks an id up.

    Gymnasium has no hook for this (its plugins went away with version 1.0), so its two look-up
    functions are wrapped: the one behind ``make_vec`` and ``make``, and ``spec``.
    """
    for name in ("_find_spec", "spec"):
        original = getattr(registration, name)
        wrapper = _registering_first(original)
        for holder in (_REGISTRATION, "gymnasium.envs", "gymnasium"):
            module = registration if holder == _REGISTRATION else sys.modules.get(holder)
            if getattr(module, name, None) is original:
                setattr(module, name, wrapper)


def _registering_first(look_up: Any) -> Any:
    @functools.wraps(look_up)
    def wrapper(env_id: str) -> Any:
        # The id may name a module to import first: "my_tasks:mjlab_rec/my-task-v0".
        module, _, name = env_id.rpartition(":")
        if name.startswith(NAMESPACE):
            if module:
                from mjlab_rec import registry

                registry.import_task_module(module)
            register_tasks()
        return look_up(env_id)

    return wrapper
