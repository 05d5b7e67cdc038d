"""What recorders need of an environment, as types: the one description that adapters follow.

An adapter gives recorders an object with these attributes and calls their hooks, through a
``RecorderManager`` of this package, at the moments that ``RecordableEnv`` describes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from mjlab_rec.recorders.channels import Source

Observations = Mapping[str, Any]
"""By group: a tensor (num_envs, ...), or a dict of them by term."""


class Terms(Protocol):
    """A manager, as far as recorders know it: its terms by name."""

    @property
    def active_terms(self) -> Sequence[str]:
        """Names of the terms."""
        ...


class Actions(Terms, Protocol):
    """The action manager."""

    @property
    def action(self) -> torch.Tensor:
        """The action of this step (num_envs, numbers), as the policy gave it."""
        ...

    @property
    def action_term_dim(self) -> Sequence[int]:
        """How many of these numbers each term has."""
        ...

    def get_term(self, name: str) -> Any:
        """A term, which may have ``processed_actions`` and ``target_names``."""
        ...


class ObservationGroups(Protocol):
    """The observation manager."""

    @property
    def active_terms(self) -> Mapping[str, Sequence[str]]:
        """Names of the terms of each group."""
        ...

    @property
    def group_obs_term_dim(self) -> Mapping[str, Sequence[tuple[int, ...]]]:
        """Shape of each term, without the environments."""
        ...

    @property
    def group_obs_concatenate(self) -> Mapping[str, bool]:
        """Whether a group is one tensor; otherwise it is a dict by term."""
        ...


class Commands(Terms, Protocol):
    """The command manager; without commands ``active_terms`` is empty."""

    def get_command(self, name: str) -> torch.Tensor:
        """The command that the environments follow now (num_envs, numbers)."""
        ...


class Rewards(Terms, Protocol):
    """The reward manager."""

    @property
    def step_reward(self) -> torch.Tensor:
        """What each term gave in this step (num_envs, terms), before ``step_dt``."""
        ...


class Terminations(Terms, Protocol):
    """The termination manager."""

    def get_term(self, name: str) -> torch.Tensor:
        """Where this term ended the episode in this step (num_envs,) bool."""
        ...


class Random(Protocol):
    """Keeps what recorders draw apart from the random numbers of the rollout."""

    def suspended(self) -> AbstractContextManager[None]:
        """Inside a step: random numbers drawn inside are not the rollout's."""
        ...

    def rewound(self) -> AbstractContextManager[None]:
        """Between steps: afterwards the rollout draws what it would have drawn anyway."""
        ...


class Simulated(Protocol):
    """The simulation, for the channels ``state`` and ``ctrl``, videos and 3D scenes.

    An environment that MuJoCo does not simulate has none of this, and none of these recordings.
    """

    @property
    def mj_model(self) -> Any:
        """The compiled ``mujoco.MjModel``."""
        ...

    @property
    def data(self) -> Any:
        """``data.qpos``, ``data.ctrl``, ...: tensors (num_envs, ...)."""
        ...

    @property
    def model(self) -> Any:
        """Model fields of which worlds have different values: tensors (num_envs, ...)."""
        ...

    @property
    def expanded_fields(self) -> set[str]:
        """Names of model fields that were given a value per world."""
        ...

    @property
    def per_world_fields(self) -> set[str]:
        """The same, and constants that were recomputed from them."""
        ...

    @property
    def state_layout(self) -> dict[str, slice]:
        """The columns of each field in the state."""
        ...

    def get_state(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Everything that the physics continues from (num_envs, numbers)."""
        ...


class RecordableEnv(Protocol):
    """What recorders read, and when it must be true.

    A step calls ``record_pre_step``, then ``record_pre_reset`` if episodes end and are reset inside
    the step, ``record_post_reset`` after that, and ``record_post_step`` last. A reset between two
    steps calls ``record_post_reset`` only, and a step that raises ``record_exception``. At

    - ``record_pre_reset``, and in a step without resets ``record_post_step``: ``action_manager``,
      ``reward_buf``, the flags, ``reward_manager`` and ``termination_manager`` are those of the
      step that was just taken, in all environments, and ``sim`` is what it led to.
    - ``record_post_reset`` and ``record_post_step``: ``obs_buf``, ``command_manager`` and ``sim``
      are what the next step begins with, in all environments.

    Tensors are on ``device``. They may be overwritten later: recorders copy them.
    """

    num_envs: int
    device: str
    step_dt: float
    """Seconds of a control step."""
    physics_dt: float
    """Seconds of a physics step."""

    cfg: Any
    """``seed`` (int or None). Optional: ``task``, its name; ``auto_reset``; ``final_obs``, which
    exists if final observations are provided; ``viewer``; ``events``; ``scale_rewards_by_dt``.
    Recordings hold all of it as JSON."""

    obs_buf: Observations
    """The latest observation; empty before the first reset."""

    reward_buf: torch.Tensor
    """Reward of the step (num_envs,)."""

    reset_buf: torch.Tensor
    """Which episodes the step ended (num_envs,) bool."""

    reset_terminated: torch.Tensor
    """Those that ended in a terminal state (num_envs,) bool."""

    reset_time_outs: torch.Tensor
    """Those that were truncated (num_envs,) bool."""

    episode_length_buf: torch.Tensor
    """Steps of each running episode (num_envs,), when a recorder is created."""

    common_step_counter: int
    """Steps so far. It counts a step before ``record_pre_reset`` and ``record_post_step``."""

    extras: Mapping[str, Any]
    """``final_obs``: an observation like ``obs_buf``, true where ``reset_buf`` is at
    ``record_pre_reset``, and everywhere at ``record_post_reset`` and ``record_post_step``. It is
    what the last action of an episode led to, before the reset."""

    action_manager: Actions
    observation_manager: ObservationGroups
    command_manager: Commands
    reward_manager: Rewards
    termination_manager: Terminations
    scene: Any
    """``sensors`` and ``entities``, by name, and ``env_origins`` (num_envs, 3)."""
    sim: Simulated


class OptionalParts(Protocol):
    """What an environment may have besides, which recorders ask for with ``getattr``."""

    rng: Random
    """Without it, functions of the user may change the rollout by drawing random numbers."""

    running_episodes: Any
    """Number and length of the running episodes, for recorders that are added later."""

    pending_resets: torch.Tensor
    """The environments that the next step only resets (num_envs,) bool, true at
    ``record_pre_reset`` of the step that ended their episode; ``record_post_reset`` comes in the
    step that resets. Steps that only reset have no row and do not count. Without it there are
    none."""

    has_pending_resets: bool
    """Whether there are any now; needed with ``pending_resets``."""

    frames: Any
    """Stands for a renderer, if the environment draws itself for videos."""

    def own_sources(self) -> Sequence[Source]:
        """More channels than those that are made of the managers."""
        ...

    recording_notes: Sequence[str]
    """Sentences for the description in each recording: what it cannot know."""

    def model_attachments(self) -> Mapping[str, bytes]:
        """More files that a recording with states holds, by name."""
        ...

    ends_steps_late: bool
    """Whether ``record_post_step`` comes when the next step has begun, so that results of the step
    must not be read there; the adapter then calls ``record_pre_reset`` in every step."""
