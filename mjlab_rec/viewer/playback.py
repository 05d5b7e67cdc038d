"""The loop that plays a policy: it steps, pauses, keeps a speed and serves viewers' requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from mjlab_rec.sim.viewer_config import check_env_ids
from mjlab_rec.utils.threads import single_torch_thread

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.envs.manager_based_rl_env import StepReturn
    from mjlab_rec.viewer.checkpoints import Checkpoints
    from mjlab_rec.viewer.timeline import Timeline

# A smaller delay is made up by faster steps; after a larger one the schedule restarts.
_MOST_CAUGHT_UP_S = 0.2
_IDLE_S = 0.03


class Viewer(Protocol):
    """Shows an environment while it is played. The thread of ``run`` calls its methods.

    It passes its user's requests to the ``Playback``, from any thread.
    """

    @property
    def closed_by_user(self) -> bool:
        """Whether its user closed it, which ends the run."""
        ...

    def open(self, playback: Playback) -> None:
        """Called once, before the first step."""

    def update(self) -> None:
        """Called after every step, and every few milliseconds in pauses. Usually does nothing."""

    def close(self) -> None:
        """Close the window or page. Idempotent."""


class Playback:
    """Steps an environment with a policy, at the requested speed and with the given viewers.

    Only the thread that calls ``run`` uses the environment. All other methods may be called from
    any thread; their requests are carried out between two steps.

    Args:
        env: The environment. It is reset first if it never was.
        policy: Called with the observations, returns the action (num_envs, action_dim). If it has
            ``reset``, that is called with a mask of the episodes that ended, (num_envs,).
        viewers: The viewers that show it. ``close`` closes them.
        speed: Simulated seconds per second, 1.0 for real time; None for as fast as possible.
        clock: Returns the time in seconds.
        wait: Waits at most the given seconds. None waits that long, or until a request comes.
        checkpoints: Where the policy is from, so that viewers can play another checkpoint.
    """

    def __init__(
        self,
        env: ManagerBasedRlEnv,
        policy: Callable[[Any], torch.Tensor],
        *,
        viewers: Sequence[Viewer] = (),
        speed: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[float], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.env = env
        self.policy = policy
        self.checkpoints = checkpoints
        self.viewers = tuple(viewers)
        self.timeline: Timeline | None = getattr(env, "timeline", None)
        """Where it is in a recording, if it shows one; it pauses at the end."""
        self.steps = 0
        """Control steps taken."""
        self.clock = clock
        self._requests: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._wait = self._wait_for_request if wait is None else wait
        self._paused = False
        self._singles = 0
        self._shown = env.cfg.viewer.env_idx if viewers else 0
        check_env_ids([self._shown], env.num_envs)
        self._shows_all = False
        self._shows_debug_vis = bool(getattr(env.cfg.viewer, "debug_vis", False))
        self.debug_vis_hidden: set[str] = set()
        """Names in ``env.debug_vis_sources`` of what viewers do not draw."""
        self._due: float | None = None
        self._period: float | None = None
        self._opened = False
        self.speed = speed

    def __enter__(self) -> Playback:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def paused(self) -> bool:
        """Whether it is waiting for ``resume`` or ``single_step``."""
        return self._paused

    @property
    def speed(self) -> float | None:
        """Simulated seconds per second; None for as fast as possible."""
        return self._speed

    @speed.setter
    def speed(self, speed: float | None) -> None:
        if speed is not None and not 0.0 < speed < float("inf"):
            raise ValueError(
                f"The speed is {speed}; it must be positive, or None for as fast as possible."
            )
        self._speed = speed
        self._wake.set()

    @property
    def shown(self) -> int:
        """The environment that viewers show, or show in the middle."""
        return self._shown

    @property
    def shows_all(self) -> bool:
        """Whether viewers show the other environments too."""
        return self._shows_all

    @property
    def shows_debug_vis(self) -> bool:
        """Whether viewers show what terms, sensors and the terrain draw."""
        return self._shows_debug_vis

    @property
    def seconds(self) -> float:
        """Simulated time so far."""
        return self.steps * self.env.step_dt

    def pause(self) -> None:
        """Stop stepping."""
        self._paused = True

    def resume(self) -> None:
        """Continue after ``pause``; at the end of a recording, begin again."""
        if self.timeline is not None and self.timeline.at_end:
            self.reset()
        self._paused = False
        self._wake.set()

    def toggle_pause(self) -> None:
        """Pause, or continue."""
        if self._paused:
            self.resume()
        else:
            self.pause()

    def seek(self, find: Callable[[Timeline], int], pause: bool = False) -> None:
        """Show another state of a recording, before the next step.

        Args:
            find: Returns the position on the timeline.
            pause: Also pause.
        """
        timeline, env = self.timeline, self.env
        if timeline is None:
            return

        def go() -> None:
            self._paused |= pause
            env.seek(find(timeline))  # pyright: ignore[reportAttributeAccessIssue]

        self.request(go)

    def single_step(self) -> None:
        """Take one step at once, then pause."""
        self.request(self._add_single)

    def reset(self, env_ids: Sequence[int] | None = None, *, from_gui: bool = False) -> None:
        """Start new episodes in these environments; None: in all.

        Args:
            env_ids: The environments.
            from_gui: Let commands begin them in a state that was chosen on the web page.
        """
        self.request(lambda: self._reset(env_ids, from_gui))

    def reset_shown(self) -> None:
        """Start a new episode in the environment shown, or in all if all are."""
        self.reset(None if self._shows_all else [self._shown])

    def show(self, env_idx: int) -> None:
        """Make viewers show this environment."""
        if not 0 <= env_idx < self.env.num_envs:
            raise IndexError(
                f"There is no environment {env_idx}: there are {self.env.num_envs}, from 0."
            )
        self._shown = env_idx
        self._wake.set()

    def show_all(self, on: bool = True) -> None:
        """Make viewers show all environments, or only the chosen one."""
        self._shows_all = on
        self._wake.set()

    def show_debug_vis(self, on: bool = True) -> None:
        """Make viewers show what terms, sensors and the terrain draw, or not."""
        self._shows_debug_vis = on
        self._wake.set()

    def switch(self, name: str) -> None:
        """Play another checkpoint from here on; if it cannot be loaded, the run goes on as it is.

        Args:
            name: One of ``checkpoints.names()``.
        """
        self.request(lambda: self._switch(name))

    def request(self, func: Callable[[], None]) -> None:
        """Make the thread of ``run`` call this before its next step. An exception ends the run."""
        self._requests.append(func)
        self._wake.set()

    def run(
        self,
        done: Callable[[], bool] | None = None,
        on_step: Callable[[StepReturn], None] | None = None,
    ) -> Literal["done", "closed"]:
        """Step until it is done or until a user closes a viewer; returns which of the two.

        Args:
            done: Asked before every step, and every few milliseconds in pauses.
            on_step: Called after every step with what it returned.
        """
        self._due = None
        self._serve()  # The requests may include a reset; then no other one is needed.
        self._obs = self.env.get_observations() if self.env.obs_buf else self.env.reset()[0]
        self._open_viewers()
        with single_torch_thread(str(self.env.device)):  # Also for the policy.
            return self._loop(done, on_step)

    def _loop(
        self,
        done: Callable[[], bool] | None,
        on_step: Callable[[StepReturn], None] | None,
    ) -> Literal["done", "closed"]:
        while True:
            if self._requests:
                self._serve()
            if any(viewer.closed_by_user for viewer in self.viewers):
                return "closed"
            if done is not None and done():
                return "done"
            if self._singles:
                self._singles -= 1
            elif self._paused:
                self._due = None
                self._rest(_IDLE_S)
                continue
            elif self._speed is not None and not self._is_due(self._speed):
                continue
            self._step(on_step)

    def close(self) -> None:
        """Close all viewers, even if one fails."""
        errors = []
        for viewer in self.viewers:
            try:
                viewer.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("Some viewers failed to close.", errors)

    def _step(self, on_step: Callable[[StepReturn], None] | None) -> None:
        env = self.env
        with torch.no_grad():
            action = self.policy(self._obs)
        result = env.step(action)
        self._obs = result[0]
        self.steps += 1
        if on_step is not None:
            on_step(result)
        done = result[2] | result[3]
        if not env.cfg.auto_reset and len(over := done.nonzero().flatten()):
            self._obs = env.reset(env_ids=over)[0]
        self._reset_policy(done)
        if self.timeline is not None and self.timeline.at_end:
            self._paused = True
        for viewer in self.viewers:
            viewer.update()

    def _is_due(self, speed: float) -> bool:
        """Return whether it is time for the next step; if not, wait for it or for a request."""
        now, period = self.clock(), self.env.step_dt / speed
        late = self._due is not None and now - self._due > _MOST_CAUGHT_UP_S
        if self._due is None or period != self._period or late:
            self._due, self._period = now, period
        if now < self._due:
            self._rest(self._due - now)
            return False
        # Counted from when the last one was due, so that small delays do not add up.
        self._due += period
        return True

    def _rest(self, seconds: float) -> None:
        if self.viewers:
            # A request may change what is shown, such as another environment.
            for viewer in self.viewers:
                viewer.update()
            seconds = min(seconds, _IDLE_S)
        self._wait(seconds)

    def _wait_for_request(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _serve(self) -> None:
        for _ in range(len(self._requests)):
            self._requests.popleft()()

    def _add_single(self) -> None:
        self._paused = True
        self._singles += 1

    def _reset(self, env_ids: Sequence[int] | None, from_gui: bool) -> None:
        ids = None
        if env_ids is not None:
            ids = torch.tensor(list(env_ids), dtype=torch.long, device=self.env.device)
        options: dict[str, Any] = {"options": {"gui_reset": True}} if from_gui else {}
        self._obs = self.env.reset(env_ids=ids, **options)[0]
        done = torch.full((self.env.num_envs,), ids is None, device=self.env.device)
        if ids is not None:
            done[ids] = True
        self._reset_policy(done)

    def _reset_policy(self, done: torch.Tensor) -> None:
        """Let a recurrent policy forget these episodes."""
        reset = getattr(self.policy, "reset", None)
        if reset is not None:
            reset(done)

    def _switch(self, name: str) -> None:
        if self.checkpoints is not None:
            self.policy = self.checkpoints.load(name) or self.policy

    def _open_viewers(self) -> None:
        if not self._opened:
            self._opened = True
            for viewer in self.viewers:
                viewer.open(self)
