"""HDF5 files in the layout of robomimic and Isaac Lab: a group for each episode.

Learners read them as they are. They suit small runs: an episode costs a flush and several objects,
and a process that is killed while an episode is being written may take the whole file with it. The
format "hdf5" has neither fault and can be exported to this one.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data import files
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Reader, Writer, WriterOptions
from mjlab_rec.data.formats.hdf5_file import Disk, content, place, put_text, reason
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo
from mjlab_rec.utils.string import nearest

_LOG = logging.getLogger(__name__)

# Channels that have a name of their own in this layout.
_NAMES = {"action": "actions", "reward": "rewards", "state": "states", "step": "steps"}
# What every episode has besides its channels.
_OWN = ("dones", "model_fields")
_OBJECT = 8 << 10  # bytes that a dataset takes besides its values, at most
_GYM = 2  # robomimic's number for environments that are made by name


class RobomimicWriter(Writer):
    """Writes ``data/demo_<i>`` with obs, next_obs, actions, rewards, dones and states.

    A file whose process is killed while an episode is written may be lost.
    """

    by_episode = True
    compressions = ("gzip", "lzf")

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self._files: list[Path] = []
        self._failed = False
        self._run = uuid.uuid4().hex
        self._paths = _paths(info)
        self._claim = files.Claim(options.path, options.if_exists)
        try:
            self._open()
        except OSError as error:
            self._claim.release()
            raise DataError(f"Cannot record to '{options.path}': {reason(error)}.") from error
        except BaseException:
            self._claim.release()
            raise

    @property
    def files(self) -> list[Path]:  # noqa: D102
        return list(self._files)

    @property
    def nbytes(self) -> int:  # noqa: D102
        return sum(file.stat().st_size for file in self._files)

    def write_episode(self, episode: Episode) -> None:  # noqa: D102
        if not episode.rows:
            return
        try:
            if self._demos and self._file.id.get_filesize() >= self.options.roll_over_bytes:
                self._file.close()
                self._open()
            self._reserve(episode)
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._put(episode)
            self._file.flush()
        except BaseException as error:
            self._failed = True
            Disk(self._file).leave()
            self._file.close()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise

    def close(self) -> None:  # noqa: D102
        try:
            if self._file:
                self._file.close()
        except (OSError, RuntimeError) as error:
            # What failed before is known already, and that is why closing fails.
            if not self._failed:
                raise self._failure(error) from error
            _LOG.warning("Could not finish '%s': %s.", self._files[-1], reason(error))
        finally:
            self._claim.release()

    def _open(self) -> None:
        path = self._claim.next_part()
        self._file = place(path, content(0, self._fill))
        self._files.append(path)
        self._data: Any = self._file["data"]
        self._demos = self._rows = 0

    def _fill(self, file: h5py.File) -> None:
        file.attrs["run"] = self._run
        data = file.create_group("data")
        data.attrs["total"] = 0
        name = str(self.info.about.get("task", ""))
        arguments = {"env_name": name, "type": _GYM, "env_kwargs": {}}
        data.attrs["env_args"] = json.dumps(arguments)
        own = file.create_group("mjlab_rec")  # beside data, where only demos are looked for
        put_text(own, "info", json.dumps(self.info.to_json()))
        for name, attached in self.info.attachments.items():
            own.create_dataset(f"attachments/{name}", data=np.frombuffer(attached, np.uint8))

    def _reserve(self, episode: Episode) -> None:
        """Make sure that the disk has room; if it has not, the file stays as it is."""
        values = [*episode.arrays.values(), *episode.model.values(), np.zeros(episode.rows, bool)]
        more = sum(value.nbytes + _OBJECT for value in values)
        Disk(self._file).reserve(self._file.id.get_filesize() + more + _OBJECT)

    def _put(self, episode: Episode) -> None:
        demo = self._data.create_group(f"demo_{self._demos}")
        for name, values in episode.arrays.items():
            demo.create_dataset(self._paths[name], data=values, **self._filters(values))
        dones = np.zeros(episode.rows, np.uint8)
        dones[-1] = not episode.cut
        demo.create_dataset("dones", data=dones)
        for name, value in episode.model.items():
            demo.create_dataset(f"model_fields/{name}", data=value)
        attrs = {
            "num_samples": episode.rows,
            "env": int(episode.env),
            "episode": int(episode.number),
            "start": int(episode.start),
            "length": int(episode.length),
            "return": float(episode.total),
            "recorded_return": float(episode.recorded),
            "terminated": bool(episode.terminated),
            "truncated": bool(episode.truncated),
            "partial": bool(episode.partial),
        }
        if episode.success is not None:
            attrs["success"] = bool(episode.success)
        if isinstance(self.info.about.get("seed"), int):
            attrs["seed"] = self.info.about["seed"]
        demo.attrs.update(attrs)
        self._demos += 1
        self._rows += episode.rows
        self._data.attrs.modify("total", self._rows)

    def _filters(self, values: np.ndarray) -> dict[str, Any]:
        if self.options.compression is None or not values.size:
            return {}
        return {"compression": self.options.compression}

    def _failure(self, error: Exception) -> DataError:
        self._failed = True
        return DataError(
            f"Writing '{self._files[-1]}' failed: {reason(error)}. The episodes written before can"
            " be read."
        )


class RobomimicReader(Reader):
    """Reads files of this layout, also those of Isaac Lab and robomimic themselves."""

    def __init__(self, path: Path, check: bool = True) -> None:
        path = Path(path)
        self.check = check
        paths = files.parts(path)
        if not paths:
            raise DataError(f"There is no recording at '{path}'.")
        self._files: list[h5py.File] = []
        try:
            for each in paths:
                self._files.append(_opened(each))
            self.info = _info(self._files[0])
            found = [
                (number, _row(demo), demo)
                for number, file in enumerate(self._files)
                for demo in _demos(file)
            ]
        except BaseException:
            self.close()
            raise
        self._paths = _paths(self.info) if "mjlab_rec" in self._files[0] else _NAMES
        # Runs that were appended come after each other, the parts of one run are one.
        runs = {number: file.attrs.get("run", "") for number, file in enumerate(self._files)}
        order = list(dict.fromkeys(runs.values()))
        found.sort(key=lambda e: (order.index(runs[e[0]]), e[1]["env"], e[1]["number"]))
        self._demos = [demo for _, _, demo in found]
        self.episodes = episode_table.table(row for _, row, _ in found)

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:  # noqa: D102
        demo = self._demos[index]
        arrays = {}
        for name in channels:
            path = self._paths.get(name, name)
            if path in demo:
                arrays[name] = np.asarray(demo[path][()])
            elif name == "step":
                arrays[name] = np.arange(self.episodes["rows"][index], dtype=np.int32)
            else:
                known = ["step", *(spec.name for spec in self.info.channels)]
                raise DataError(f"Unknown channel '{name}'. {nearest(name, known)}")
        return arrays

    def model(self, index: int) -> dict[str, np.ndarray]:  # noqa: D102
        demo = self._demos[index]
        if "model_fields" not in demo:
            return {}
        return {name: np.asarray(item[()]) for name, item in demo["model_fields"].items()}

    def close(self) -> None:  # noqa: D102
        for file in self._files:
            file.close()
        self._files.clear()


def dataset_path(channel: str) -> str:
    """Where a channel should lie in an episode's group; keys of observations are flat there."""
    group, _, key = channel.partition("/")
    if group in ("obs", "next_obs") and key:
        return f"{group}/{key.replace('/', '_')}"
    return _NAMES.get(channel, channel)


def _paths(info: RunInfo) -> dict[str, str]:
    """Where channels lie in an episode's group, in files of ours."""
    names = {"step": None, **dict.fromkeys(spec.name for spec in info.channels)}
    return dataset_paths(names, dataset_path, taken=_OWN)


def _opened(path: Path) -> h5py.File:
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DataError(f"'{path}' is no HDF5 file that can be read: {error}.") from error
    if not isinstance(file.get("data"), h5py.Group):
        file.close()
        raise DataError(f"'{path}' does not have the layout of robomimic: it has no group 'data'.")
    return file


def _demos(file: h5py.File) -> list[Any]:
    """The episodes of a file in the order of their numbers: demo_10 comes after demo_2."""
    data: Any = file["data"]
    names = [name for name in data if name.startswith("demo_") and name[5:].isdigit()]
    return [data[name] for name in sorted(names, key=lambda name: int(name[5:]))]


def _row(demo: Any) -> dict[str, Any]:
    """An episode's row of the table. What another program did not write is guessed."""
    attrs = demo.attrs
    if "num_samples" in attrs:
        rows = int(attrs["num_samples"])
    else:
        rows = len(demo["actions"])
    terminated = bool(attrs.get("terminated", False))
    truncated = bool(attrs.get("truncated", False))
    if "return" in attrs:
        total, recorded = float(attrs["return"]), float(attrs["recorded_return"])
    else:
        total = recorded = float(np.sum(demo["rewards"][()])) if "rewards" in demo else np.nan
    return {
        "env": int(attrs.get("env", 0)),
        "number": int(attrs.get("episode", demo.name.rpartition("_")[2])),
        "start": int(attrs.get("start", 0)),
        "length": int(attrs.get("length", rows)),
        "rows": rows,
        "return": None if np.isnan(total) else total,
        "recorded_return": None if np.isnan(recorded) else recorded,
        "terminated": terminated,
        "truncated": truncated,
        "cut": not (terminated or truncated),
        "success": None if "success" not in attrs else bool(attrs["success"]),
        "partial": bool(attrs.get("partial", False)),
    }


def _info(file: h5py.File) -> RunInfo:
    own: Any = file.get("mjlab_rec")
    if own is not None:
        info = RunInfo.from_json(json.loads(own["info"][()]))
        attached = own.get("attachments", {})
        info.attachments = {name: item[()].tobytes() for name, item in attached.items()}
        return info
    demos = _demos(file)
    data: Any = file["data"]
    try:
        about = json.loads(data.attrs.get("env_args", "{}"))
    except ValueError:
        about = {}
    sim = about.get("sim_args") or {}
    return RunInfo(
        channels=tuple(_foreign_channels(demos[0])) if demos else (),
        envs=(0,),
        step_dt=float(sim.get("dt", 0.0)) * float(sim.get("decimation", 1)),
        about={"task": about.get("env_name", ""), "env_args": about},
    )


def _foreign_channels(demo: Any, prefix: str = "") -> Iterator[ChannelSpec]:
    """A channel for each dataset that has a value for every row."""
    rows = _row(demo)["rows"]
    ours = {path: name for name, path in _NAMES.items()}

    def walk(group: Any, prefix: str) -> Iterator[ChannelSpec]:
        for key, item in group.items():
            name = f"{prefix}{key}"
            if isinstance(item, h5py.Group):
                yield from walk(item, f"{name}/")
            elif item.shape and item.shape[0] == rows:
                before = name.startswith(("obs", "state"))
                yield ChannelSpec(
                    name=ours.get(name, name),
                    dtype=item.dtype,
                    shape=item.shape[1:],
                    when="before" if before else "after",
                )

    yield from walk(demo, prefix)
