"""The video recorder: clips of some environments, drawn next to the simulation."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mjlab_rec.data.files import PathExistsError, local_path, make_folder
from mjlab_rec.data.mp4 import Mp4Writer, find_ffmpeg
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.cfg_fields import typed
from mjlab_rec.recorders.row_clock import RowClock
from mjlab_rec.recorders.shutdown import close_at_exit
from mjlab_rec.recorders.trigger_runners import TriggerRunner
from mjlab_rec.recorders.video.clip_writer import Capture, ClipWriter, DrawRequest
from mjlab_rec.recorders.video.clips import Clip, Episodes, LastSteps, View
from mjlab_rec.recorders.video.overlay import Overlay
from mjlab_rec.sim.debug_visualizer import shapes_of
from mjlab_rec.sim.renderer import Renderer, make_renderer
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.video.cfg import VideoRecorderCfg


class VideoRecorder(RowClock):
    """Records videos of environments: one frame per control step, of the state after the step.

    A clip of N steps has exactly N frames, and the last frame of an episode shows its true last
    state, from before the reset. A step only copies the few numbers that a frame is drawn from,
    and nothing at all while no clip is being recorded.

    Each environment counts its own episodes, from 0, and a clip of its own follows them; a grid's
    clips follow those of its first environment. Steps are counted by the environment's
    ``common_step_counter``.
    """

    cfg: VideoRecorderCfg
    cfg_type: ClassVar[type[RecorderTermCfg]]

    rows_unit = "frames"

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        self.cfg = typed(cfg, self.cfg_type)
        cfg = self.cfg
        super().__init__(cfg, env, autostart=cfg.autostart)
        self.dropped_rows = 0
        """Frames lost, which is always 0."""
        self._ffmpeg = find_ffmpeg(type(self).__name__)
        self._env_ids = cfg.env_ids(env.num_envs)
        self._length = cfg.steps(env.step_dt)
        self._frame_every, self._rate = cfg.stride(env.step_dt)
        self._shows_debug_vis = getattr(cfg.view(env.cfg.viewer), "debug_vis", False)
        self._overlay = Overlay(env, self._env_ids, cfg.overlay)
        self._runner = _runner(cfg, env, by_hand=not cfg.autostart)
        self.draws_random_numbers = (
            self._runner is not None and self._runner.trigger.predicate is not None
        )
        if cfg.is_file and cfg.layout == "separate" and len(self._env_ids) > 1:
            raise cfg.error(
                "path",
                f"is the file {cfg.path!r}, but {len(self._env_ids)} environments are to be shown."
                ' Use layout="grid" to show them in one picture, or give a folder.',
            )
        groups = [self._env_ids] if cfg.layout == "grid" else [(i,) for i in self._env_ids]
        self._views = [
            View(
                group,
                LastSteps[Capture](self._length, self._frame_every) if cfg.last_clip else None,
            )
            for group in groups
        ]
        self._reasons = _reasons(cfg, env)
        begun = env.common_step_counter - self.counters.length
        self._episodes = Episodes(self._env_ids, self.counters.episode.tolist(), begun.tolist())
        task = cfg.name or getattr(env.cfg, "task", None) or "video"
        self._name = re.sub(r"[^\w.-]+", "-", task)
        self._clips = 0  # Clips begun so far.
        self._asked_step = -1  # The step for which the trigger was checked last,
        self._begun: list[View] = []  # and the views whose clips begin with it.
        self._names: set[str] = set()  # Names of the clips.
        self._file: Path | None = None  # If the path is a file: the one of this recording.
        self._writer: ClipWriter | None = None
        self._past: tuple[list[Path], int, float] = [], 0, 0.0  # From closed writers.
        # Created now, so that missing requirements are reported before anything else.
        self._renderer: Renderer | None = self._make_renderer()

    # -- moments -----------------------------------------------------------------------------------

    def record_pre_step(self) -> None:
        """A step begins: store the command for the overlay."""
        super().record_pre_step()
        if self._busy:
            self._overlay.before()

    def on_step(self, ended: torch.Tensor) -> None:
        """Capture the step for the clips that show it."""
        if self._writer is not None:
            self._writer.check()
        self._overlay.after()
        if self._busy:
            self._capture_step(ended.tolist())

    def on_episodes_end(self, env_ids: torch.Tensor, cut: bool, in_row: bool) -> None:
        """Handle episodes that the user's reset ends; other ends are handled with their step."""
        if cut:
            self._cut(set(env_ids.tolist()).intersection(self._env_ids))

    def on_episodes_begin(self, env_ids: torch.Tensor) -> None:
        """Begin clips with the new episodes if triggered."""
        self._warm_up()
        chosen = set(env_ids.tolist()).intersection(self._env_ids)
        step = self._env.common_step_counter
        for env_id in chosen:
            later = 0 if self._pending is None else int(self._pending[env_id])
            self._episodes.begin(env_id, step, step + later)
        self._overlay.restart(sorted(chosen))
        for view in self._views:
            if view.leader in chosen:
                view.over = False
                self._ask_episode(view)

    def on_open(self) -> None:
        """Prepare the drawing."""
        self._warm_up()
        if self._runner is not None:
            self._runner.start()

    def on_rows_start(self) -> None:
        """Check the trigger for episodes that begin with the first recorded step."""
        for view in self._views:
            if self._episodes.length(view.leader, self._env.common_step_counter) <= 0:
                self._ask_episode(view)

    def on_row_begins(self, has_row: bool) -> None:
        """Begin clips with the next step if triggered."""
        if has_row and self._runner is not None:
            self._ask_step(self._runner)

    def on_fire(self) -> None:
        """Begin a clip with the next step."""
        assert self._runner is not None
        self._runner.fire()

    def wait_until_written(self, timeout: float | None) -> None:
        """Wait until all frames are drawn and the files of finished clips are complete."""
        if self._writer is not None:
            self._writer.wait(timeout)

    def on_finish(self) -> None:
        """Finish all clips, cut short if necessary, and wait for them."""
        self._asked_step = -1
        writer = self._writer
        if writer is not None and not writer.forked:
            self._wrap_up(writer)
            writer.wait()
        for view in self._views:
            view.asked, view.clip_episode, view.waiting = -1, -1, False
        if self.cfg.is_file:
            self._file = None
            self._names.clear()
        if self.cfg.trigger == "auto":
            self._runner = _runner(self.cfg, self._env, by_hand=True)

    def close(self) -> None:
        """Finish all clips and free the graphics."""
        try:
            super().close()
        finally:
            self._close_writer()

    def fire(self) -> None:
        """Begin a clip with the next step, if the trigger is ``manual()``."""
        if self._runner is None:
            raise RuntimeError("There is no trigger to fire; give the recorder trigger=manual().")
        if self._runner.trigger.kind != "manual":
            self._runner.fire()  # Raises with the reason.
        self._request("fire")

    # -- figures -----------------------------------------------------------------------------------

    @property
    def files(self) -> list[Path]:
        """The clips so far, those being written included."""
        files = self._past[0] + ([] if self._writer is None else self._writer.files)
        return list(dict.fromkeys(files))

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._past[1] + (0 if self._writer is None else self._writer.nbytes)

    @property
    def stalled_s(self) -> float:
        """Seconds that the simulation waited for frames to be drawn."""
        return self._past[2] + (0.0 if self._writer is None else self._writer.stalled_s)

    @property
    def _busy(self) -> bool:
        """Whether a clip is being recorded, paused or not."""
        keeps = bool(self.cfg.last_clip) and not self._full
        return keeps or any(view.clips for view in self._views)

    # -- frames ------------------------------------------------------------------------------------

    def _capture_step(self, ended: Collection[int]) -> None:
        """Capture the step that was just taken."""
        request, step = DrawRequest(), self._env.common_step_counter
        # A step that only resets a leader is no step of an episode, and has no frame.
        views = [view for view in self._views if self._episodes.length(view.leader, step) > 0]
        if not self._due:
            for view in self._views:
                if view.leader in ended:
                    view.end_episode(step)
                request.done += view.take_done()
        elif self.cfg.last_clip:
            for view in views:
                clips = view.step(view.leader in ended)
                if not clips and self._full:
                    continue
                capture = self._capture(view.env_ids)
                if clips:
                    request.frames.append((capture, clips))
                    self.rows += len(clips)
                assert view.last_steps is not None
                view.last_steps.append(
                    capture, self._episodes.number[view.leader], view.leader in ended
                )
            request.done += [clip for view in self._views for clip in view.take_done()]
        else:
            due = [(view, view.step(view.leader in ended)) for view in views]
            due = [(view, clips) for view, clips in due if clips]
            if len(due) == len(self._views):
                request.frames.append(
                    (self._capture(self._env_ids), [c for _, cs in due for c in cs])
                )
            else:
                request.frames += [(self._capture(view.env_ids), clips) for view, clips in due]
            self.rows += sum(len(clips) for _, clips in due)
            request.done += [clip for view in self._views for clip in view.take_done()]
        if request.frames or request.done:
            self._open_writer().submit(request)
        if self._due:
            for view in self._views:
                if view.leader in ended and any(reason(view.leader) for reason in self._reasons):
                    self._write_last_steps(view)

    def _capture(self, env_ids: tuple[int, ...]) -> Capture:
        """Capture the current state of some environments."""
        self._open_writer()
        assert self._renderer is not None
        note = None
        if self._overlay:
            step, episodes = self._env.common_step_counter, self._episodes
            note = self._overlay.note(
                [(i, episodes.number[i], episodes.length(i, step)) for i in env_ids]
            )
        if not self._shows_debug_vis:
            return Capture(env_ids, self._renderer.capture(env_ids), note)
        shapes = [shapes_of(self._env, [env_id]) for env_id in env_ids]
        return Capture(env_ids, self._renderer.capture(env_ids, shapes), note)

    def _cut(self, env_ids: Collection[int]) -> None:
        """End the episodes that the user's reset cuts."""
        done, step = [], self._env.common_step_counter
        cut = [
            view
            for view in self._views
            if view.leader in env_ids and self._episodes.length(view.leader, step) > 0
        ]
        for view in cut:
            view.end_episode(step)
            done += view.take_done()
        if done:
            self._open_writer().submit(DrawRequest(done=done))
        if self.state == "recording" and "end" in self.cfg.last_clip:
            for view in cut:
                self._write_last_steps(view)

    def _write_last_steps(self, view: View) -> None:
        """Write a clip of the last steps, unless another clip shows them or occupies the file."""
        last_steps = view.last_steps
        assert last_steps is not None
        captures = last_steps.take()
        if captures and not self._full and not (self.cfg.is_file and view.clips):
            clip = self._new_clip(view, f"episode-{last_steps.episode}-last", by_episode=True)
            self.rows += len(captures)
            self._open_writer().submit(
                DrawRequest([(capture, [clip]) for capture in captures], [clip])
            )

    def _wrap_up(self, writer: ClipWriter) -> None:
        """Finish all clips."""
        done = [clip for view in self._views for clip in view.take_done(everything=True)]
        writer.submit(DrawRequest(done=done))
        for view in self._views:
            if "close" in self.cfg.last_clip:
                self._write_last_steps(view)
            elif view.last_steps is not None:
                view.last_steps.take()

    # -- clips -------------------------------------------------------------------------------------

    def _ask_episode(self, view: View) -> None:
        """Begin a clip with the leader's new episode if triggered."""
        episode = self._episodes.number[view.leader]
        if self.state != "recording" or view.asked == episode:
            return
        view.asked = episode
        fired, view.waiting = view.waiting, False
        if self._runner is not None and self._runner.scope == "episode":
            fired = bool(self._runner.episodes(torch.tensor([episode]))[0])
        if fired:
            self._begin_clip(view)

    def _ask_step(self, runner: TriggerRunner) -> None:
        """Begin clips with the next step if triggered."""
        step = self._env.common_step_counter
        if step != self._asked_step:  # Otherwise it was checked already, before a reset.
            self._asked_step = step
            self._begun.clear()
        fired = runner.step(step) if runner.scope == "step" else False
        if isinstance(fired, torch.Tensor):
            which = fired.tolist()
            views = [v for v in self._views if any(which[i] for i in v.env_ids)]
        else:
            views = self._views if fired else []
        for view in views:
            if view in self._begun:
                continue
            self._begun.append(view)
            if self.cfg.episodes is None or self._episodes.length(view.leader, step) <= 0:
                self._begin_clip(view)
            else:
                view.waiting = True

    def _begin_clip(self, view: View) -> None:
        if self._full or (self.cfg.is_file and view.clips):
            return
        by_episode = self.cfg.episodes is not None or (
            self._runner is not None and self._runner.scope == "episode"
        )
        if by_episode:
            episode = self._episodes.number[view.leader]
            if view.clip_episode == episode:
                return  # Requested twice, once before it began.
            view.clip_episode = episode
            name = f"episode-{episode}"
        else:
            name = f"step-{self._env.common_step_counter}"
        view.clips.append(self._new_clip(view, name, by_episode))

    def _new_clip(self, view: View, name: str, by_episode: bool) -> Clip:
        if self.cfg.layout == "separate" and (by_episode or len(self._views) > 1):
            name += f"-env-{view.leader}"
        path = self._path(f"{self._name}-{name}")
        name = path.stem
        again = name in self._names
        if self.cfg.if_exists == "error" and path.exists() and not again:
            raise PathExistsError(path, f"{path.stem}_1.mp4", can_append=False)
        self._clips += 1
        self._names.add(name)
        at_start = self._runner is not None and self._runner.trigger.kind == "at_start"
        to_the_end = None if at_start else 1
        return Clip(
            name=name,
            begun=self._env.common_step_counter,
            again=again,
            env_ids=view.env_ids,
            every=self._frame_every,
            length=self._length,
            episodes=self.cfg.episodes or to_the_end,
        )

    @property
    def _full(self) -> bool:
        return self.cfg.max_clips is not None and self._clips >= self.cfg.max_clips

    # -- clip writer -------------------------------------------------------------------------------

    def _make_renderer(self) -> Renderer:
        frames = getattr(self._env, "frames", None)
        if frames is not None:  # The environment draws itself.
            self.cfg.check_drawn_elsewhere()
            return frames
        view = self.cfg.view(self._env.cfg.viewer, len(self._env_ids))
        if self.cfg.camera_pos is not None:
            origins = self._env.scene.env_origins[list(self._env_ids)].tolist()
            if origins != origins[:1] * len(origins):
                raise self.cfg.error(
                    "camera_pos",
                    f"is one place, but environments {self._env_ids} have different origins. Use"
                    " follow, or show a single environment.",
                )
            x, y, z = (a + b for a, b in zip(view.lookat, origins[0], strict=True))
            view.lookat = x, y, z
        return make_renderer(self._env.sim, view, self._env.scene, self.cfg.renderer)

    def _open_writer(self) -> ClipWriter:
        if self._writer is None:
            self._renderer = self._renderer or self._make_renderer()
            self._writer = ClipWriter(
                self._renderer,
                self._overlay,
                self._open_file,
                self.cfg.columns,
                self.cfg.max_pending,
                type(self).__name__,
            )
            close_at_exit(self)
        return self._writer

    def _warm_up(self) -> None:
        """Draw a frame for no clip, so that the first one delays no step and errors show early."""
        if self._writer is not None:
            return
        make_folder(self._path("").parent)
        writer = self._open_writer()
        assert self._renderer is not None
        capture = Capture(self._env_ids, self._renderer.capture(self._env_ids), note=None)
        writer.submit(DrawRequest([(capture, [])]))
        writer.wait()
        close_at_exit(self)  # Again: OpenGL is loaded only now, and must still work at exit.

    def _close_writer(self) -> None:
        writer = self._writer
        if writer is None:
            if self._renderer is not None:
                self._renderer.close()
                self._renderer = None
            return
        if writer.forked:
            return
        try:
            writer.close()
        finally:
            files, nbytes, stalled_s = self._past
            self._past = (
                *(files + writer.files, nbytes + writer.nbytes, stalled_s + writer.stalled_s),
            )
            self._writer = self._renderer = None  # The writer has closed the renderer.

    def _open_file(self, clip: Clip, width: int, height: int) -> Mp4Writer:
        path, if_exists = self._path(clip.name), self.cfg.if_exists
        if self._file is not None:  # Each clip of a recording replaces the one before it.
            path, if_exists = self._file, "overwrite"
        elif clip.again and not self.cfg.is_file:
            if_exists = "number"
        args = path, width, height, self._rate, self._ffmpeg, self.cfg.crf, if_exists
        writer = Mp4Writer(*args)
        if self.cfg.is_file:
            self._file = writer.path
        return writer

    def _path(self, name: str) -> Path:
        path = local_path(self.cfg.path)
        return path if self.cfg.is_file else path / f"{name}.mp4"


def _runner(cfg: VideoRecorderCfg, env: ManagerBasedRlEnv, by_hand: bool) -> TriggerRunner | None:
    trigger = cfg.chosen_trigger(by_hand)
    if trigger is None:
        return None
    # Episodes are counted on the host, where clips are started.
    host: Any = SimpleNamespace(device="cpu")
    return trigger.build(host if trigger.scope == "episode" else env)


def _reasons(cfg: VideoRecorderCfg, env: Any) -> list[Any]:
    """Tests of whether an episode's end means that its last clip is kept."""
    manager = env.termination_manager
    known = ["end", "close", *manager.active_terms]
    for name in cfg.last_clip:
        if name not in known:
            raise ValueError(
                f"{type(cfg).__name__}.last_clip: there is no termination term {name!r}."
                f" {nearest(name, known)}"
            )
    if "end" in cfg.last_clip:
        return [lambda env_id: True]
    names = [name for name in cfg.last_clip if name != "close"]
    return [lambda env_id, name=name: bool(manager.get_term(name)[env_id]) for name in names]
