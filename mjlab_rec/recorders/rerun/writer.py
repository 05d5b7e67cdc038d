"""Writing blocks of rows to Rerun: one column per entity and block, never a call per frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.data.files import PathLock
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.schema import Block, DataError, Episode, RunInfo
from mjlab_rec.recorders.rerun import scene as scene
from mjlab_rec.recorders.rerun.blueprint import default_blueprint
from mjlab_rec.recorders.rerun.clips import FEW, Clips, own_timelines
from mjlab_rec.recorders.rerun.columns import Columns, Frames, origin
from mjlab_rec.recorders.rerun.poses import PREFIX, ForwardKinematics, Poses, joined, unmoved
from mjlab_rec.recorders.rerun.series import (
    STATISTICS,
    SUMMARY,
    line_colors,
    series,
    statistics,
    summary_colors,
)
from mjlab_rec.recorders.rerun.shapes import RerunShapes, ShapesOfSteps

logger = logging.getLogger(__name__)

_FLUSH_S = 60.0
_CANNOT = "Rerun cannot write the recording: {error}"


@dataclass(kw_only=True)
class RerunTarget:
    """Where a recording is sent, and what it shows."""

    stream: Any = None
    """The user's ``rerun.RecordingStream``; None creates one."""

    urls: Sequence[str] = ()
    """URLs of the viewers to send to."""

    model: mujoco.MjModel
    per_world: Sequence[str] = ()
    """Model fields that differ between worlds."""

    looks: dict[str, np.ndarray] = field(default_factory=dict)
    """Of these fields that decide which mesh each environment shows: geom_dataid, geom_rgba and
    geom_matid, those that differ between worlds (num_envs, ngeom, ...)."""

    origins: np.ndarray
    """Offsets that are added to the environments' positions (num_envs, 3)."""

    groups: Sequence[int] = (0, 1, 2)
    contacts: bool = False
    shapes: ShapesOfSteps | None = None
    """What terms, sensors and the terrain drew in each step; None if that is not shown."""

    cameras: bool = True
    blueprint: Any = None
    clips: Clips
    """The clips, which have timelines of their own."""

    viewers_may_end: bool = True
    """Whether recording goes on if a viewer ends, for example because the user closed it."""


class RerunWriter(Writer):
    """Sends blocks to Rerun, and waits for each to arrive."""

    def __init__(self, info: RunInfo, options: WriterOptions, *, target: RerunTarget) -> None:
        super().__init__(info, options)
        import rerun

        self._rr = rerun
        self._target = target
        self._num_envs = len(info.envs)
        self._stream: Any = None
        self._viewer_is_gone = False
        self._path_lock = (
            PathLock(options.path, options.if_exists, can_append=False) if options.path else None
        )
        try:
            model = target.model
            self._geoms = scene.drawn_geoms(
                model, target.groups, target.per_world, target.looks.get("geom_dataid")
            )
            self._kinematics = ForwardKinematics(model, target.contacts)
            self._textures = scene.texture_means(model)
            self._looks: dict[int, np.ndarray] = {}  # size and colour last written for each geom
            self._shown = np.ones(self._num_envs, bool)  # those last written as shown
            self._hides = any(geom.envs is not None for geom in self._geoms)
            self._names: list[str] = []  # own timelines of the last frame
            self._stream = target.stream
            if target.stream is None:
                self._stream = self._rr.RecordingStream(info.about.get("task", "mjlab_rec"))
                self._stream.set_sinks(*self._sinks())
            self._columns = Columns(self._stream, info.step_dt)
            self._shapes = RerunShapes(self._stream, self._columns)
            plotted = [spec for spec in info.channels if not spec.name.startswith(PREFIX)]
            self._lines = {spec.name: series(spec) for spec in plotted}
            self._is_early = {spec.name: spec.when == "before" for spec in plotted}
            self._write_scene()
            self._flush()
        except RuntimeError as error:
            self.close()
            raise DataError(_CANNOT.format(error=error)) from error
        except BaseException:
            self.close()
            raise

    @property
    def files(self) -> list[Path]:
        """The file, if there is one."""
        return [] if self._path_lock is None else [self._path_lock.path]

    @property
    def nbytes(self) -> int:
        """Size of the file; 0 if there is none."""
        if self._path_lock is None or not self._path_lock.path.exists():
            return 0
        return self._path_lock.path.stat().st_size

    def write(self, block: Block) -> None:
        """Send a block's rows and the episodes that ended in it."""
        wanted = block.active
        if wanted is None:
            wanted = np.ones((block.rows, block.num_envs), bool)
        poses = self._kinematics.poses(block, wanted)
        values = {name: block.dense(name) for name in self._lines}
        shapes = None
        if self._target.shapes is not None:
            shapes = self._target.shapes.take(block.step[: block.rows].tolist())
        for frames in self._frames(block, wanted):
            self._write_poses(block, frames, poses, wanted)
            if shapes is not None:
                self._shapes.write(frames, [shapes[row] for row in frames.rows])
            for name in self._lines:
                self._write_channel(name, values[name], frames, wanted)
        self._write_ends(block, wanted)
        self._flush(self._target.viewers_may_end)

    def write_episode(self, episode: Episode) -> None:
        """Not used: environments share their entities, so blocks are written."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish the file; a user's stream stays open."""
        try:
            if self._target.stream is None and self._stream is not None:
                self._stream.disconnect()  # This also writes the file's footer.
        finally:
            if self._path_lock is not None:
                self._path_lock.release()

    # -- once --------------------------------------------------------------------------------------

    def _sinks(self) -> list[Any]:
        sinks: list[Any] = [self._rr.GrpcSink(url) for url in self._target.urls]
        if self._path_lock is not None:
            sinks.append(self._rr.FileSink(str(self._path_lock.path)))
        return sinks

    def _write_scene(self) -> None:
        rr, model, target = self._rr, self._target.model, self._target
        self._log(scene.WORLD, rr.ViewCoordinates.RIGHT_HAND_Z_UP)
        known = {key: self.info.about.get(key) for key in ("task", "seed", "engine")}
        self._log("/about", rr.AnyValues(**known, step_dt=self.info.step_dt))
        places, turns = unmoved(model)
        for geom in self._geoms:
            self._write_shape(geom)
            if not geom.moves:
                place, turn = self._repeated(geom, places[geom.index], turns[geom.index])
                self._log(geom.path, rr.InstancePoses3D(translations=place, quaternions=turn))
        if target.cameras:
            for camera in range(model.ncam):
                lens = rr.Pinhole(
                    **scene.camera_lens(model, camera),
                    camera_xyz=rr.ViewCoordinates.RUB,  # MuJoCo's cameras look along -z
                    image_plane_distance=0.05 * float(model.stat.extent),
                )
                self._log(self._camera_path(camera), lens)
        lines = chain.from_iterable(self._lines.values())
        for index, (path, label) in enumerate(lines):
            self._write_legend(index, path, label)
        if target.contacts:
            radius = 0.01 * float(model.stat.extent)
            dots = rr.Points3D.from_fields(radii=[radius], colors=[(255, 120, 0)])
            self._log(f"{scene.WORLD}/contacts", dots)
        apart = float(np.ptp(target.origins, axis=0).max())
        blueprint = target.blueprint or default_blueprint(
            model, list(self._lines), apart, self._num_envs > FEW
        )
        self._stream.send_blueprint(blueprint, make_active=target.stream is None)

    def _write_legend(self, index: int, path: str, label: str) -> None:
        """Write the names and colours of a series' lines."""
        names = [f"{label}, env {env}" for env in self.info.envs]
        colors = line_colors(self._num_envs, index)
        self._log(path, self._rr.SeriesLines(names=names, colors=colors))
        if self._num_envs > FEW:
            names = [f"{label}, {which}" for which in STATISTICS]
            colors = summary_colors(index)
            lines = self._rr.SeriesLines(names=names, colors=colors, widths=[2, 1, 1])
            self._log(f"{SUMMARY}{path}", lines)

    def _write_shape(self, geom: scene.Geom) -> None:
        """Write a geom's appearance; if it varies, only the constant part."""
        rr, model, index = self._rr, self._target.model, geom.index
        solid = rr.components.FillMode.Solid
        archetype = getattr(rr, geom.kind)
        if geom.varies:
            self._log(geom.path, archetype.from_fields(fill_mode=solid))
            return
        # For some shapes Rerun draws an instance per size, so each instance gets its own.
        count = self._num_envs if geom.moves else len(self._copies(geom))
        look = {name: getattr(model, name)[index] for name in ("geom_rgba", "geom_matid")}
        if geom.envs is not None:  # That of the first environment that has it.
            look |= {name: of[geom.envs[0], index] for name, of in self._target.looks.items()}
        color = scene.colors_of(
            look["geom_rgba"][None], look["geom_matid"][None], model.mat_rgba[None], self._textures
        )
        if geom.kind == "Mesh3D":
            mesh = scene.mesh_of(model, index, geom.mesh)
            shape = archetype(
                vertex_positions=mesh.vertices,
                vertex_normals=mesh.normals,
                triangle_indices=mesh.triangles,
                albedo_factor=color[0],
            )
        else:
            size = np.repeat(model.geom_size[index][None].astype(np.float32), count, axis=0)
            parts = scene.sizes_of(geom.kind, int(model.geom_type[index]), size)
            shape = archetype(**parts, colors=np.repeat(color, count, axis=0), fill_mode=solid)
        self._log(geom.path, shape)

    def _copies(self, geom: scene.Geom) -> np.ndarray:
        """Offsets of a fixed geom: a single one, unless the environments are spaced apart."""
        origins = self._target.origins
        is_ground = geom.kind == "Mesh3D" and self._target.model.geom_bodyid[geom.index] == 0
        return origins if origins.any() and not is_ground else origins[:1] * 0.0

    def _repeated(
        self, geom: scene.Geom, place: np.ndarray, turn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        copies = self._copies(geom)
        turns = np.repeat(turn[None], len(copies), axis=0)
        size = self._target.model.geom_size[geom.index].astype(np.float32)
        return origin(geom, place + copies, turns, size), turns

    # -- block by block ----------------------------------------------------------------------------

    def _frames(self, block: Block, wanted: np.ndarray) -> Iterator[Frames]:
        """The wanted rows, split where the timelines change."""
        rows = np.flatnonzero(wanted.any(axis=1))
        if not len(rows):
            return
        steps = block.step[rows]
        names, numbers = own_timelines(self._target.clips, block, rows, wanted[rows])
        has = numbers > 0
        changes = np.flatnonzero((has[1:] != has[:-1]).any(axis=1)) + 1
        for part in np.split(np.arange(len(rows)), changes):
            own = np.flatnonzero(has[part[0]])
            yield Frames(
                rows[part], steps[part] + 1, [(names[i], numbers[part, i]) for i in own.tolist()]
            )

    def _write_poses(self, block: Block, frames: Frames, poses: Poses, wanted: np.ndarray) -> None:
        rr, target, rows = self._rr, self._target, frames.rows
        wanted = wanted[rows]
        names = [name for name, _ in frames.timelines]
        fresh, self._names = names != self._names, names
        if fresh:  # A viewer knows only what is on the same timeline.
            self._looks.clear()
            self._hides = any(geom.envs is not None for geom in self._geoms)
        moving = [geom for geom in self._geoms if geom.moves]
        for geom in moving:
            place = poses.geom_pos[rows, :, geom.index] + target.origins
            turn = poses.geom_quat[rows, :, geom.index]
            place = origin(geom, place, turn, self._sizes(block, geom)[rows])
            columns = rr.InstancePoses3D.columns(
                translations=place.reshape(-1, 3), quaternions=turn.reshape(-1, 4)
            )
            self._columns.send(geom.path, frames, columns, self._num_envs)
        self._write_shown(frames, moving, wanted, fresh and block.active is not None)
        for geom in self._geoms:
            if geom.varies:
                self._write_looks(block, frames, geom)
        first = frames.chosen(wanted[:, 0])  # Cameras are those of the first environment.
        if target.cameras and len(first.rows):
            for camera in range(target.model.ncam):
                columns = rr.Transform3D.columns(
                    translation=poses.camera_pos[first.rows, camera] + target.origins[0],
                    quaternion=poses.camera_quat[first.rows, camera],
                )
                self._columns.send(self._camera_path(camera), first, columns, None)
        if target.contacts:
            found = [
                [points + target.origins[env_index] for env_index, points in poses.contacts[row]]
                for row in rows
            ]
            points, lengths = joined(found)
            columns = rr.Points3D.columns(positions=points)
            self._columns.send(f"{scene.WORLD}/contacts", frames, columns, lengths)

    def _write_shown(
        self, frames: Frames, geoms: list[scene.Geom], wanted: np.ndarray, fresh: bool
    ) -> None:
        """Write which environments are shown, at the frames where that changes, or at the first.

        An unwanted one gets scale 0, so that every instance keeps its index.
        """
        new = (wanted != np.concatenate([self._shown[None], wanted[:-1]])).any(axis=1)
        new[0] |= fresh or self._hides
        self._hides = False
        self._shown = wanted[-1].copy()
        if new.any():
            for geom in geoms:
                seen = wanted[new]
                if geom.envs is not None:
                    seen = seen & np.isin(np.arange(self._num_envs), geom.envs)
                scales = np.repeat(seen.reshape(-1, 1), 3, axis=1).astype(np.float32)
                columns = self._rr.InstancePoses3D.columns(scales=scales)
                self._columns.send(geom.path, frames.chosen(new), columns, self._num_envs)

    def _sizes(self, block: Block, geom: scene.Geom) -> np.ndarray:
        """A geom's size per row and environment (rows, num_envs, 3)."""
        recorded = block.arrays.get(PREFIX + "geom_size")
        if recorded is not None:
            return recorded[:, :, geom.index]
        size = self._target.model.geom_size[geom.index].astype(np.float32)
        return np.broadcast_to(size, (block.rows, block.num_envs, 3))

    def _write_looks(self, block: Block, frames: Frames, geom: scene.Geom) -> None:
        """Write a geom's size and colour at the frames where they change."""
        rr, model, index = self._rr, self._target.model, geom.index
        shape = block.rows, block.num_envs

        def values(name: str) -> np.ndarray:
            recorded = block.arrays.get(PREFIX + name)
            whole = getattr(model, name)
            if recorded is None:
                recorded = np.broadcast_to(whole, (*shape, *whole.shape))
            return recorded[frames.rows]

        size = values("geom_size")[:, :, index].astype(np.float32)
        count = len(frames.rows) * block.num_envs
        color = scene.colors_of(
            values("geom_rgba")[:, :, index].reshape(count, 4),
            values("geom_matid")[:, :, index].reshape(count).astype(int),
            values("mat_rgba").reshape(count, model.nmat, 4),
            self._textures,
        ).reshape(len(frames.rows), block.num_envs, 4)
        look = np.concatenate([size, color], axis=2)
        before = self._looks.get(index)
        first = np.full_like(look[:1], np.nan) if before is None else before[None]
        new = (look != np.concatenate([first, look[:-1]])).any(axis=(1, 2))
        self._looks[index] = look[-1].copy()
        if not new.any():
            return
        geom_type = int(model.geom_type[index])
        parts = scene.sizes_of(geom.kind, geom_type, size[new].reshape(-1, 3))
        columns = getattr(rr, geom.kind).columns(**parts, colors=color[new].reshape(-1, 4))
        self._columns.send(geom.path, frames.chosen(new), columns, self._num_envs)

    def _write_channel(
        self, name: str, values: np.ndarray, frames: Frames, wanted: np.ndarray
    ) -> None:
        """Write a line per environment for each element, at the time of its values.

        With many environments, their mean, minimum and maximum as well.
        """
        wanted = wanted[frames.rows]
        values = values[frames.rows].astype(np.float64).reshape(*wanted.shape, -1)
        values[~wanted] = np.nan
        summary = statistics(values, wanted) if self._num_envs > FEW else None
        # The policy saw the early values a step before.
        times = frames.earlier(1) if self._is_early[name] else frames
        for element, (path, _) in enumerate(self._lines[name]):
            columns = self._rr.Scalars.columns(scalars=values[:, :, element].reshape(-1))
            self._columns.send(path, times, columns, self._num_envs)
            if summary is not None:
                columns = self._rr.Scalars.columns(scalars=summary[:, :, element].reshape(-1))
                self._columns.send(f"{SUMMARY}{path}", times, columns, len(STATISTICS))

    def _write_ends(self, block: Block, wanted: np.ndarray) -> None:
        """Write a line of text for each shown episode that ended."""
        ends = block.ends
        here = ends.row >= 0
        is_shown = ~here  # For ends before this block it is not known; show them.
        is_shown[here] = wanted[ends.row[here], ends.env_index[here]]
        shown = np.flatnonzero(is_shown)
        if not len(shown):
            return
        envs = np.asarray(self.info.envs)[ends.env_index]
        texts = []
        for i in shown:
            how = "terminated" if ends.terminated[i] else "cut"
            how = "truncated" if ends.truncated[i] and not ends.terminated[i] else how
            texts.append(
                f"env {envs[i]}: episode {ends.episode[i]} {how} after {ends.length[i]} steps,"
                f" return {ends.total[i]:.6g}"
            )
        frames = Frames(ends.row[shown], ends.at[shown])
        self._columns.send("/episodes", frames, self._rr.TextLog.columns(text=texts), None)

    # -- to Rerun ----------------------------------------------------------------------------------

    def _camera_path(self, camera: int) -> str:
        name = self._target.model.camera(camera).name or f"camera_{camera}"
        return scene.entity_path(scene.WORLD, "cameras", name)

    def _log(self, path: str, archetype: Any) -> None:
        self._stream.log(path, archetype, static=True, strict=True)

    def _flush(self, viewers_may_end: bool = False) -> None:
        """Wait until everything is written, so that a kill cannot lose it; raise if that fails."""
        try:
            self._stream.flush(timeout_sec=_FLUSH_S)
        except (RuntimeError, ValueError) as error:
            if not (viewers_may_end and self._target.urls and "gRPC" in str(error)):
                raise DataError(_CANNOT.format(error=error)) from error
            if not self._viewer_is_gone:
                logger.warning("A Rerun viewer has ended; recording goes on without it. %s", error)
            self._viewer_is_gone = True
