"""A recording as an environment, which viewers and recorders show like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.managers.command_manager import NullCommandManager
from mjlab_rec.managers.recorder_manager import (
    NullRecorderManager,
    RecorderManager,
    RecorderTermCfg,
)
from mjlab_rec.replay.recorded_model import RecordedModel, WorldModels, stacked
from mjlab_rec.replay.same_bits import choose_engine
from mjlab_rec.replay.stand_ins import (
    RecordedActions,
    RecordedObservations,
    RecordedRewards,
    RecordedScene,
    RecordedTerms,
    viewer_config,
)
from mjlab_rec.viewer.timeline import Section, Timeline

_PAGES_IN_MEMORY = 4
_SHOWN = ("obs/", "command/", "action")


class RecordedEnv:
    """Shows the states of recorded episodes; it simulates nothing.

    The state before each action is a state of the timeline. With several worlds, as many episodes
    run at the same time; one that is over keeps its last state until the longest one is.

    Args:
        rollouts: A recording with states.
        episodes: Rows of the table of episodes, in the order in which they are shown.
        worlds: Number of episodes at the same time.
        loop: Begin again at the end.
        backwards: Show the states in reverse order.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        episodes: Sequence[int],
        worlds: int = 1,
        *,
        loop: bool = False,
        backwards: bool = False,
    ) -> None:
        if worlds < 1:
            raise ValueError(f"The number of episodes in a grid is {worlds}, but must be positive.")
        self._rollouts = rollouts
        recorded = RecordedModel.of(rollouts)
        self.device = choose_engine(recorded, None, "cpu")
        self.num_envs = min(worlds, len(episodes))
        self._pages = [
            list(episodes[i : i + self.num_envs]) for i in range(0, len(episodes), self.num_envs)
        ]
        self._lengths = rollouts.episodes["rows"].to_numpy()
        self.timeline = Timeline(
            [self._section(page) for page in self._pages], loop=loop, backwards=backwards
        )
        self._cache: dict[int, list[dict[str, np.ndarray]]] = {}

        info, model = rollouts.info, recorded.model
        self.sim = recorded.simulation(self.num_envs, self.device)
        self._models = WorldModels(recorded, self.sim)
        self.scene = RecordedScene(model, self.num_envs, self.device)
        self.step_dt = info.step_dt * info.every
        self.physics_dt = float(model.opt.timestep)
        self.cfg = SimpleNamespace(
            viewer=viewer_config(info.about, self.scene),
            auto_reset=True,
            task=info.about.get("task"),
            seed=None,
            final_obs=False,
            scale_rewards_by_dt=False,
        )
        self._ids = torch.arange(self.num_envs, device=self.device)
        flags = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self.reset_buf, self.reset_terminated, self.reset_time_outs = flags, flags, flags
        self._no_flags = flags
        self.reward_buf = torch.zeros(self.num_envs, device=self.device)
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self.common_step_counter = 0
        self.obs_buf: dict[str, torch.Tensor] = {}
        self.extras: dict[str, Any] = {"log": {}}
        self.closed = False
        self._names = self.recorded_channels = self._shown_channels()
        self._rewards = [n for n in rollouts.channels if n.startswith("reward_terms/")]
        self._make_managers()

    @property
    def debug_vis_sources(self) -> dict[str, Any]:
        """Nothing can draw: that takes the task's code."""
        return {}

    def update_visualizers(self, visualizer: Any) -> None:
        """Draw nothing."""

    def add_recorders(self, cfgs: Mapping[str, RecorderTermCfg]) -> None:
        """Record what is shown, from the next ``reset`` on."""
        self.recorder_manager = RecorderManager(dict(cfgs), self)  # pyright: ignore[reportArgumentType]

    def reset(self, *, env_ids: Any = None, **_: Any) -> tuple[dict[str, torch.Tensor], dict]:
        """Go to the first state; with some environments only, to that of the episodes shown."""
        timeline = self.timeline
        if env_ids is None:
            timeline.seek(timeline.length - 1 if timeline.backwards else 0)
        else:
            timeline.seek(timeline.section_end if timeline.backwards else timeline.jump(0))
        self.show()
        self.recorder_manager.record_post_reset(self._ids)
        return self.obs_buf, self.extras

    def step(self, action: Any = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Show the next state; from the last one of an episode it goes to the next episode."""
        timeline, recorders = self.timeline, self.recorder_manager
        before = timeline.section
        recorders.record_pre_step()
        self._take_results()
        self.common_step_counter += 1
        timeline.advance()
        if timeline.section == before:
            self.reset_buf = self._no_flags
            self.show()
        else:
            self.reset_buf = ~self._no_flags
            recorders.record_pre_reset(self._ids)
            self.show()
            recorders.record_post_reset(self._ids)
        recorders.record_post_step()
        return self.obs_buf, self.reward_buf, self._no_flags, self._no_flags, self.extras

    def seek(self, position: int) -> None:
        """Show another state of the timeline."""
        self.timeline.seek(position)
        self.show()

    def show(self) -> None:
        """Put the state at the timeline's position into the simulation."""
        number, rows = self._rows()
        page = self._page(number)
        states = np.stack([arrays["state"][row] for arrays, row in zip(page, rows, strict=True)])
        if number != getattr(self, "_written", None) or self._fields:
            self._write_models(number, page, rows)
        shown = torch.from_numpy(np.nan_to_num(states))
        if len(shown) < self.num_envs:  # The last page has fewer episodes.
            shown = torch.cat((shown, shown[-1:].expand(self.num_envs - len(shown), -1)))
        self.sim.set_state(shown)
        lengths = [int(a["step"][row]) for a, row in zip(page, rows, strict=True)]
        lengths += lengths[-1:] * (self.num_envs - len(lengths))
        self.episode_length_buf[:] = torch.tensor(lengths, device=self.device)
        self.obs_buf = {"state": shown}

    def get_observations(self) -> dict[str, torch.Tensor]:
        """The states."""
        return self.obs_buf

    def values(self, env_idx: int, prefixes: Sequence[str]) -> dict[str, list[float]]:
        """Recorded numbers at this position, by channel."""
        number, rows = self._rows()
        page = self._page(number)
        at = min(env_idx, len(page) - 1)
        return {
            name: np.ravel(values[rows[at]]).astype(float).tolist()
            for name, values in page[at].items()
            if name.startswith(tuple(prefixes))
        }

    def close(self) -> None:
        """Finish recordings. Idempotent."""
        if not self.closed:
            self.closed = True
            self.recorder_manager.close()

    def __enter__(self) -> RecordedEnv:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _make_managers(self) -> None:
        rewards = self._rewards or [n for n in self._names if n == "reward"]
        names = [name.partition("/")[2] or "reward" for name in rewards]
        self.reward_manager = RecordedRewards(
            *(names, self.num_envs, self.device),
            lambda env: (
                {n.partition("/")[2] or n: v for n, v in self.values(env, rewards).items()}
                if rewards
                else {}
            ),
        )
        self._reward_names = rewards
        self.observation_manager = RecordedObservations(
            lambda env: {n: v for n, v in self.values(env, _SHOWN).items() if v}
        )
        spec = self._rollouts.channels.get("action")
        self.action_manager = RecordedActions(
            *(spec.size if spec else 0, self.num_envs, self.device, spec.elements if spec else ())
        )
        self.command_manager = NullCommandManager()
        for kind in ("event", "termination", "curriculum", "metrics"):
            setattr(self, f"{kind}_manager", RecordedTerms())
        self.recorder_manager: RecorderManager = NullRecorderManager()

    def _shown_channels(self) -> list[str]:
        known = self._rollouts.channels
        self._fields = [name for name in known if name.startswith("model/")]
        kinds = {n: spec for n, spec in known.items() if spec.dtype.kind in "fiub"}
        plotted = [n for n in kinds if n.startswith((*_SHOWN, "reward")) and kinds[n].size <= 4096]
        return ["state", "step", *self._fields, *plotted]

    def _section(self, page: Sequence[int]) -> Section:
        table = self._rollouts.episodes
        length = int(self._lengths[list(page)].max())
        if len(page) > 1:
            return Section(f"Episodes {page[0]} to {page[-1]}", length)
        env, number = table["env"][page[0]], table["number"][page[0]]
        return Section(f"Episode {page[0]} (environment {env}, its episode {number})", length)

    def _rows(self) -> tuple[int, list[int]]:
        """Number of the page that is shown, and the row of each of its episodes."""
        timeline = self.timeline
        number = timeline.section
        step = timeline.position - timeline.starts[number]
        return number, [min(step, int(self._lengths[e]) - 1) for e in self._pages[number]]

    def _page(self, number: int) -> list[dict[str, np.ndarray]]:
        if number not in self._cache:
            if len(self._cache) >= _PAGES_IN_MEMORY:
                self._cache.pop(next(iter(self._cache)))
            self._cache[number] = [
                self._rollouts.read(episode, self._names) for episode in self._pages[number]
            ]
        return self._cache[number]

    def _write_models(
        self, number: int, page: list[dict[str, np.ndarray]], rows: Sequence[int]
    ) -> None:
        """Give the worlds the model fields of their episodes, and of these rows."""
        episodes = self._pages[number]
        fields = [dict(self._rollouts.model(episode)) for episode in episodes]
        for values, arrays, row in zip(fields, page, rows, strict=True):
            values |= {name.partition("/")[2]: arrays[name][row] for name in self._fields}
        self._models.write(stacked(fields), self._ids[: len(episodes)])
        self._written = number

    def _take_results(self) -> None:
        """Take over action and rewards of the step that begins at the position."""
        number, rows = self._rows()
        for world, (arrays, row) in enumerate(zip(self._page(number), rows, strict=True)):
            if "action" in arrays:
                action = torch.from_numpy(np.ravel(arrays["action"][row]).astype(np.float32))
                self.action_manager.action[world] = action
            if "reward" in arrays:
                self.reward_buf[world] = float(arrays["reward"][row])
            for column, name in enumerate(self._reward_names):
                self.reward_manager.step_reward[world, column] = float(arrays[name][row])
