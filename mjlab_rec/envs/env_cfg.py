"""Configuration of the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from mjlab_rec.envs.mdp.events import reset_scene_to_default
from mjlab_rec.managers.action_manager import ActionTermCfg
from mjlab_rec.managers.command_manager import CommandTermCfg
from mjlab_rec.managers.curriculum_manager import CurriculumTermCfg
from mjlab_rec.managers.event_manager import EventTermCfg
from mjlab_rec.managers.metrics_manager import MetricsTermCfg
from mjlab_rec.managers.observation_manager import ObservationGroupCfg
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.managers.reward_manager import RewardTermCfg
from mjlab_rec.managers.termination_manager import TerminationTermCfg
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import SimulationCfg
from mjlab_rec.sim.viewer_config import ViewerConfig


def _default_events() -> dict[str, EventTermCfg]:
    return {
        "reset_scene_to_default": EventTermCfg(func=reset_scene_to_default, mode="reset"),
    }


class FixedRecorders(dict[str, RecorderTermCfg]):
    """The recorders that an environment was built with; copies are plain dicts."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "The environment has been built with its recorders, so a change of its cfg.recorders"
            " would have no effect. Call env.start_recording(...) to record from now on, and"
            " env.stop_recording(...) to end that."
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse  # pyright: ignore

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


@dataclass(kw_only=True)
class ManagerBasedRlEnvCfg:
    """Everything that defines an environment: the scene, the physics and the terms.

    A control step takes ``sim.mujoco.timestep * decimation`` seconds. In every dict of terms an
    entry set to None is left out.
    """

    decimation: int
    """Physics steps per control step."""

    scene: SceneCfg
    """What is simulated, and in how many copies (``scene.num_envs``)."""

    observations: dict[str, ObservationGroupCfg] = field(default_factory=dict)
    """Observation groups, such as "actor" and "critic"."""

    actions: dict[str, ActionTermCfg] = field(default_factory=dict)
    """Action terms; the policy's action is the concatenation of their slices."""

    events: dict[str, EventTermCfg] = field(default_factory=_default_events)
    """Resets, randomization and disturbances. By default a reset puts every entity back into its
    initial state; your own dict replaces this."""

    task: str | None = None
    """Id of the task, which recordings store. The registry fills it in."""

    seed: int | None = None
    """Seed of all random numbers; None draws one. The environment's own ``cfg.seed`` holds it."""

    sim: SimulationCfg = field(default_factory=SimulationCfg)
    """Physics engine and solver settings."""

    viewer: ViewerConfig = field(default_factory=ViewerConfig)
    """Camera and image size for rendering."""

    episode_length_s: float = 0.0
    """Longest episode in seconds, for the ``time_out`` termination."""

    rewards: dict[str, RewardTermCfg] = field(default_factory=dict)
    """Reward terms."""

    terminations: dict[str, TerminationTermCfg] = field(default_factory=dict)
    """Reasons for an episode to end; without any, episodes never end."""

    commands: dict[str, CommandTermCfg] = field(default_factory=dict)
    """Goals that the policy is given."""

    curriculum: dict[str, CurriculumTermCfg] = field(default_factory=dict)
    """Changes to the task as training progresses."""

    metrics: dict[str, MetricsTermCfg] = field(default_factory=dict)
    """Numbers to log per episode, along with the reward."""

    recorders: dict[str, RecorderTermCfg] = field(default_factory=dict)
    """What to record of the rollouts. Without any, recording costs nothing. Once the environment is
    built, ``start_recording`` adds others."""

    is_finite_horizon: bool = False
    """Whether the time limit is part of the task, so that no reward follows it. A learner reads
    this to decide whether to bootstrap at a time-out."""

    auto_reset: bool = True
    """Reset an environment in the step that ends its episode. Otherwise ``step()`` returns the
    last observation and the caller resets with ``reset(env_ids=...)`` before the next step."""

    scale_rewards_by_dt: bool = True
    """Multiply rewards by the duration of a control step."""

    fresh_terms: bool = False
    """Bring what the physics derives from the state up to date before terminations, rewards,
    metrics and events, which then see body poses, velocities and sensors of the step's end. By
    default these are one physics step old there, as in mjlab. Costs a second forward pass only in
    steps that end episodes or apply events."""

    forward_after_step: bool = True
    """Bring what the physics derives from the state up to date before commands and observations.
    Without it they too see what the last physics step left, as in Gymnasium's environments; only
    environments that were reset are up to date. Saves a forward pass per step."""

    final_obs: bool = False
    """Provide ``extras["final_obs"]``: what each environment's action led to, even where an
    auto-reset replaced the observation. Costs a second observation in steps that end episodes."""

    def fix_recorders(self) -> None:
        """Refuse changes of ``recorders`` from now on, in this object but not in copies of it."""
        self.__dict__["recorders"] = FixedRecorders(self.recorders)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "recorders":
            fixed = self.__dict__.get(name)
            if isinstance(fixed, FixedRecorders):
                fixed._refuse()
            value = _free(value)
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: _free(value) for name, value in self.__dict__.items()}


def _free(value: Any) -> Any:
    """Return a plain dict in place of an environment's fixed recorders."""
    return dict(value) if isinstance(value, FixedRecorders) else value
