"""What viewers and recorders ask of an environment, answered from a recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import mujoco
import torch

from mjlab_rec.sim.viewer_config import ViewerConfig
from mjlab_rec.utils.plain_data import build

_SPACING = 2.5


class RecordedTerms:
    """Stands for a manager without terms, and shows recorded values.

    Args:
        values: Returns the numbers of one environment, by name.
    """

    active_terms: Sequence[str] = ()
    group_obs_term_dim: Mapping[str, Any] = {}
    group_obs_concatenate: Mapping[str, bool] = {}

    def __init__(self, values: Callable[[int], dict[str, list[float]]] = lambda env: {}) -> None:
        self._values = values

    def get_active_iterable_terms(self, env_idx: int) -> list[tuple[str, list[float]]]:
        """Recorded values of one environment."""
        return list(self._values(env_idx).items())

    def get_visualizable_terms(self) -> list[tuple[str, Any]]:
        """Nothing can draw."""
        return []


class RecordedObservations(RecordedTerms):
    """Stands for an observation manager."""

    active_terms: Mapping[str, Any] = {}  # pyright: ignore[reportIncompatibleVariableOverride]


class RecordedActions(RecordedTerms):
    """Stands for an action manager: the recorded actions.

    Args:
        width: Numbers of an action.
        num_envs: Number of environments.
        device: Where they are.
        names: A name for each number of an action.
    """

    def __init__(self, width: int, num_envs: int, device: str, names: Sequence[str]) -> None:
        super().__init__()
        self.action = torch.zeros(num_envs, width, device=device)
        self.active_terms = ("recorded",) if width else ()
        self.action_term_dim = (width,) if width else ()
        self._names = tuple(names) if len(names) == width else ()

    def get_term(self, name: str) -> Any:
        """What stands for the only term."""
        return SimpleNamespace(
            target_names=self._names, raw_action=self.action, processed_actions=self.action
        )


class RecordedRewards(RecordedTerms):
    """Stands for a reward manager: the recorded reward terms, as rates.

    Args:
        names: Names of the terms.
        num_envs: Number of environments.
        device: Where they are.
        values: Returns what to show of one environment.
    """

    def __init__(
        self,
        names: Sequence[str],
        num_envs: int,
        device: str,
        values: Callable[[int], dict[str, list[float]]],
    ) -> None:
        super().__init__(values)
        self.active_terms = tuple(names)
        self.step_reward = torch.zeros(num_envs, len(names), device=device)


class RecordedScene:
    """Stands for a scene: the bodies of the model, by the prefixes of their names."""

    terrain = None
    env_spacing = _SPACING

    def __init__(self, model: mujoco.MjModel, num_envs: int, device: str) -> None:
        self.sensors: dict[str, Any] = {}
        self.entities: dict[str, Any] = {}
        self.env_origins = torch.zeros(num_envs, 3, device=device)
        bodies: dict[str, list[tuple[int, str]]] = {}
        for body in range(1, model.nbody):
            prefix, slash, name = model.body(body).name.partition("/")
            if slash:
                bodies.setdefault(prefix, []).append((body, name))
        for prefix, found in bodies.items():
            ids = [body for body, _ in found]
            self.entities[prefix] = SimpleNamespace(
                body_names=[name for _, name in found],
                data=SimpleNamespace(),
                indexing=SimpleNamespace(root_body_id=ids[0], body_ids=ids),
            )


def viewer_config(about: Mapping[str, Any], scene: RecordedScene) -> ViewerConfig:
    """The viewer's settings of the recording, as far as they suit what is known of it."""
    env_cfg = about.get("env_cfg")
    saved = env_cfg.get("viewer") if isinstance(env_cfg, Mapping) else None
    cfg = ViewerConfig()
    for name, value in saved.items() if isinstance(saved, Mapping) else ():
        if name in ("env_idx", "debug_vis", "renderer", "origin_type"):
            continue
        try:
            setattr(cfg, name, getattr(build(ViewerConfig, {name: value}), name))
        except (ValueError, TypeError, AttributeError):
            continue  # Of another version, or damaged: the default will do.
    kinds = ViewerConfig.OriginType
    origin = saved.get("origin_type") if isinstance(saved, Mapping) else None
    if isinstance(origin, str) and origin in kinds.__members__:
        cfg.origin_type = kinds[origin]
    entity = scene.entities.get(cfg.entity_name or "")
    if cfg.origin_type in (kinds.ASSET_ROOT, kinds.ASSET_BODY) and (
        entity is None
        or (cfg.origin_type is kinds.ASSET_BODY and cfg.body_name not in entity.body_names)
    ):
        cfg.origin_type = kinds.AUTO
    return cfg
