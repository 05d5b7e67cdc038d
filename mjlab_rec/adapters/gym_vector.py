"""Recorders around any vector environment of Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from mjlab_rec.adapters.face import Autoreset
from mjlab_rec.adapters.facts import chain
from mjlab_rec.adapters.hosted import Recorders
from mjlab_rec.adapters.session import Recorded, first, same
from mjlab_rec.adapters.trees import native
from mjlab_rec.utils.string import nearest

_MODES: dict[Any, Autoreset] = {
    AutoresetMode.NEXT_STEP: "next_step",
    AutoresetMode.SAME_STEP: "same_step",
    AutoresetMode.DISABLED: "disabled",
}


class RecordVector(Recorded, VectorWrapper):
    """Records a vector environment: true rows, whatever it does when an episode ends.

    What ``reset`` and ``step`` return is what the environment returned, untouched. Observations
    are the channels ``obs/actor``, or below it for Dict and Tuple spaces.

    Args:
        env: The vector environment.
        recorders: The recorders by name, such as {"rows": Hdf5RecorderCfg(path="run.h5")}, or one.
        infos: Entries of infos to record as channels ``info/<name>``, such as "x_position" or
            "episode/r". Numbers; for arrays give {"goal": (3,)}, the shape of one environment's.
        success: Entry of infos that tells whether an episode succeeded, such as "is_success".
        task: Name of the task in descriptions and file names; "": the environment's id.
        step_dt: Seconds per step; None: those of the physics if they are known, else of the frame
            rate in the metadata, else 1.
        autoreset_mode: When environments are reset; None: as the environment's metadata says.
        device: Where recorders keep rows until they are written; None: where observations are if
            the environment says it, else the CPU.
    """

    def __init__(
        self,
        env: VectorEnv,
        recorders: Recorders | None = None,
        *,
        infos: Sequence[str] | Mapping[str, tuple[int, ...]] = (),
        success: str = "",
        task: str = "",
        step_dt: float | None = None,
        autoreset_mode: AutoresetMode | str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(env)
        if getattr(env, "is_async", False):
            raise ValueError(
                f"{type(env).__name__} steps only some environments at a time, which has no rows of"
                " all environments. Make it with batch_size equal to num_envs."
            )
        self._begin(
            env,
            (env.single_observation_space, env.single_action_space),
            recorders,
            autoreset=autoreset_of(env, autoreset_mode),
            render=env.render,
            step_dt=step_dt,
            task=task,
            num_envs=env.num_envs,
            device=device or _device_of(env),
            infos=infos,
            success=success,
        )

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Reset all environments, or those that ``options`` chooses as the environment allows."""
        face = self._session.face
        env_ids = _chosen(options, face.device)
        if seed is not None:
            face.cfg.seed = list(seed) if isinstance(seed, (list, tuple)) else seed
        inner: Any = self.env
        return self._session.reset(lambda: inner.reset(seed=seed, options=options), first, env_ids)

    def step(self, actions: Any) -> Any:
        """Step all environments."""
        return self._session.step(actions, lambda: self.env.step(actions), same)

    def close(self, **kwargs: Any) -> Any:
        """Close the recorders, which write what is left, and then the environment. Idempotent."""
        if not hasattr(self, "_session"):
            return None  # It could not be made, and the caller still has the environment.
        return self._session.close(lambda: self.env.close(**kwargs))


def autoreset_of(env: Any, given: AutoresetMode | str | None) -> Autoreset:
    """When an environment resets those whose episode ended.

    Args:
        env: The environment.
        given: What the user says; None: as the environment says itself.
    """
    if given is None:
        for each in chain(env):
            resets = vars(each).get("auto_reset") if hasattr(each, "__dict__") else None
            if isinstance(resets, bool):  # ManiSkill's, whose metadata say SAME_STEP in any case.
                return "same_step" if resets else "disabled"
            given = (getattr(each, "metadata", None) or {}).get("autoreset_mode")
            if given is not None:
                break
    if given is None:
        raise ValueError(
            f"{type(env).__name__} does not say when it resets environments whose episode ended:"
            " its metadata has no 'autoreset_mode'. Give autoreset_mode: 'NEXT_STEP' if the next"
            " step does, ignoring its action; 'SAME_STEP' if the step that ends the episode does;"
            " 'DISABLED' if your code does."
        )
    if isinstance(given, str):
        names = {mode.name.lower(): mode for mode in AutoresetMode}
        names |= {mode.value.lower(): mode for mode in AutoresetMode}
        if given.lower() not in names:
            known = [name.upper() for name in get_args(Autoreset)]
            raise ValueError(f"Unknown autoreset_mode {given!r}. {nearest(given.upper(), known)}")
        given = names[given.lower()]
    return _MODES[given]


def _chosen(options: Any, device: str) -> torch.Tensor | None:
    """The environments that the options of a reset choose; None: all."""
    if not isinstance(options, Mapping):
        return None
    mask, ids = options.get("reset_mask"), options.get("env_idx")  # The latter is ManiSkill's.
    if mask is not None:
        return torch.as_tensor(native(mask), device=device).bool().nonzero().flatten()
    if ids is not None:
        return torch.as_tensor(native(ids), device=device).long().unique()
    return None


def _device_of(env: Any) -> str:
    """The device of an environment's observations, if it says so."""
    for each in chain(env):
        device = getattr(each, "device", None)
        if isinstance(device, torch.device):
            return str(device)
    return "cpu"
