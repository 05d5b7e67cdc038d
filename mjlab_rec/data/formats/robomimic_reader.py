"""Read HDF5 files in the layout of robomimic and Isaac Lab, their own files included."""

from __future__ import annotations

import math
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mjlab_rec.data.files import parts
from mjlab_rec.data.formats import episode_table, robomimic_layout
from mjlab_rec.data.formats.checks import check_size, damage
from mjlab_rec.data.formats.episode_reader import EpisodeReader, row_bytes
from mjlab_rec.data.formats.hdf5_checks import attribute, find, find_group, read_values
from mjlab_rec.data.formats.robomimic_layout import NAMES, OWN
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo, check_name, check_shape

T = TypeVar("T")

_DEMO = re.compile(r"demo_(\d{1,9})", re.ASCII)
_GROWING_S = 2.0  # a file that was written to within this time may still be growing
_TRIES = 20
_PAUSE_S = 0.02
_MOST_DEPTH = 16
_MOST_ITEMS = 1000


class RobomimicReader(EpisodeReader):
    """Reads files of this layout, also those of Isaac Lab and robomimic themselves.

    Files may still grow: what cannot be read because it is being written is read again. Each
    process opens the files for itself.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        path = Path(path)
        self.check = check
        self._damages: list[str] = []
        self._files: list[_File] = []
        paths = parts(path)
        if not paths:
            raise DataError(f"There is no recording at '{path}'.")
        try:
            for each in paths:
                self._add(each, alone=len(paths) == 1)
            if not self._files:
                raise DataError(f"Nothing in '{path}' can be read. {self._damages[0]}")
            first = self._files[0]
            self.info, self.ours = first.info, first.ours
            rows = [row for file in self._files for row in file.rows]
            if not self.ours:
                _distinguish(rows)
            self._paths = robomimic_layout.paths(self.info) if self.ours else NAMES
            self._take(episode_table.ordered(rows, path), path)
        except BaseException:
            self.close()
            raise

    def _add(self, path: Path, *, alone: bool) -> None:
        try:
            file = _File(path, self.check)
            self._files.append(file)
            first = self._files[0]
            if file.ours != first.ours:
                raise DataError(f"'{path}' and '{first.path}' are not of one recording.")
            if file.ours:
                episode_table.check_same_run(first.info, file.info, path)
            for row in file.rows:
                row["part"] = file
            self._damages += file.damages
        except DataError as error:
            if alone:
                raise
            if self._files and self._files[-1].path == path:
                self._files.pop().close()
            self._damages.append(str(error))

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:  # noqa: D102
        episode_table.check_names(channels, [spec.name for spec in self.info.channels])
        row = self._rows[index]
        file: _File = row["part"]

        def values(demo: Any, name: str) -> np.ndarray:
            path = self._paths.get(name, name)
            if name == "step" and not self.ours:
                return np.arange(row["rows"], dtype=np.int32)
            dtype, shape = self._kinds[name]
            at = list(self._kinds).index(name) + 1 if name != "step" else 0
            crc = row["checksums"][at] if self.ours else None
            return file.values(demo, path, dtype, (row["rows"], *shape), crc)

        def all_values() -> dict[str, np.ndarray]:
            demo = file.demo(row["demo"])
            return {name: values(demo, name) for name in channels}

        with self._episode(row):
            return file.patiently(all_values)

    def model(self, index: int) -> dict[str, np.ndarray]:  # noqa: D102
        row = self._rows[index]
        file: _File = row["part"]
        if not row["model"]:
            return {}

        def values() -> dict[str, np.ndarray]:
            demo = file.demo(row["demo"])
            crcs = zip(row["model"].items(), row["model_checksums"], strict=True)
            return {
                name: file.values(demo, f"model_fields/{name}", dtype, shape, crc)
                for (name, (dtype, shape)), crc in crcs
            }

        with self._episode(row):
            return file.patiently(values)

    def verify(self) -> list[str]:  # noqa: D102
        self.close()  # HDF5 remembers what it read before, and some errors only once
        return super().verify()

    @property
    def finished(self) -> bool:  # noqa: D102
        return self._files[-1].last

    def close(self) -> None:  # noqa: D102
        for file in self._files:
            file.close()


class _File:
    """A file, opened by each process for itself, and what it says about its episodes."""

    info: RunInfo
    ours: bool
    last: bool  # whether the recording was closed with this file
    rows: list[dict[str, Any]]
    damages: list[str]

    def __init__(self, path: Path, check: bool) -> None:
        self.path = path
        self.check = check
        self._handle: Any = None
        self._process = -1
        try:
            for _ in range(_TRIES):
                self.patiently(self._load)
                if not self.damages or not self._grows():
                    break
                self.close()
                time.sleep(_PAUSE_S)
        except BaseException as error:
            self.close()
            if isinstance(error, DataError) and str(path) not in str(error):
                raise DataError(f"'{path}' cannot be read. {error}") from error
            raise

    def close(self) -> None:
        """Close the file in this process."""
        if self._handle is not None and self._process == os.getpid():
            with damage(f"'{self.path}'"):
                self._handle.close()
        self._handle = None

    def patiently(self, work: Callable[[], T]) -> T:
        """Do some work; if it fails while the file grows, open the file again and repeat it."""
        for _ in range(_TRIES):
            try:
                with damage(f"'{self.path}'"):
                    return work()
            except DataError:
                if not self._grows():
                    raise
                time.sleep(_PAUSE_S)
                self.close()
        with damage(f"'{self.path}'"):
            return work()

    def _grows(self) -> bool:
        try:
            return time.time() - self.path.stat().st_mtime < _GROWING_S
        except OSError:
            return False

    def demo(self, name: str) -> h5py.Group:
        """An episode's group."""
        return find_group(self._opened(), f"data/{name}")

    def values(
        self, demo: Any, path: str, dtype: np.dtype, shape: tuple[int, ...], crc: int | None
    ) -> np.ndarray:
        """A dataset of an episode, compared with its checksum if there is one."""
        what = f"'{path}' of '{demo.name}' in '{self.path}'"
        with damage(what):
            array = read_values(find(demo, path), dtype, shape, self._size, what)
            if crc is not None and self.check and zlib.crc32(array.data) != crc:
                last = shape[0] - 1 if shape else 0
                raise DataError(f"{what} is damaged: wrong checksum of the rows 0 to {last}.")
            return array

    def _opened(self) -> Any:
        if self._handle is None or self._process != os.getpid():
            about = self.path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise DataError(f"'{self.path}' is not a plain file.")
            try:
                self._handle = h5py.File(self.path, "r", locking=False)
            except OSError as error:
                told = str(error).partition("\n")[0]
                raise DataError(
                    f"'{self.path}' is no HDF5 file that can be read: {told}."
                ) from error
            self._process, self._size = os.getpid(), about.st_size
        return self._handle

    def _load(self) -> None:
        file = self._opened()
        if "data" not in file:
            raise DataError(
                f"'{self.path}' does not have the layout of robomimic: it has no group 'data'."
            )
        data = find_group(file, "data")
        self.ours, self.last, self.damages, self.rows = OWN in file, True, [], []
        names = list(data)
        demos = sorted((n for n in names if _DEMO.fullmatch(n)), key=lambda n: int(n[5:]))
        if self.ours:
            self._load_own(find_group(file, OWN), len(demos))
            more = len(names) - len(demos)
            if more:
                self.damages.append(f"'{self.path}' has {more} episodes whose name is damaged.")
        for name in demos:
            try:
                with damage(f"'{name}' in '{self.path}'"):
                    demo = find_group(data, name)
                    row = self._own_row(demo) if self.ours else self._foreign_row(demo)
                    self.rows.append({**row, "demo": name})
            except DataError as error:
                told = str(error)
                if str(self.path) not in told:
                    told = f"'{name}' in '{self.path}' cannot be read. {told}"
                self.damages.append(told)
        if not self.ours:
            self.info = self._foreign_info(data)
        each = row_bytes(self.info)
        for row in self.rows:
            what = f"'{row['demo']}' in '{self.path}'"
            check_size(row["rows"] * each, self._size, what)

    # -- files of ours -----------------------------------------------------------------------------

    def _load_own(self, own: h5py.Group, count: int) -> None:
        text = self._text(find(own, "info"), episode_table.MOST_TEXT)
        self.info, about = episode_table.load_info(text, self.path, check=self.check)
        self.info.attachments, self.damages = episode_table.read_attached(
            about.get("attached"),
            lambda name, size: self._attached(own, name, size),
            self.path,
            check=self.check,
        )
        state = episode_table.load_json(attribute(own, "mark"), check=self.check, sealed=True)
        self.last = bool(state.get("finished")) and bool(state.get("last"))
        if count < int(state["episodes"]):
            self.damages.append(
                f"'{self.path}' has {count} episodes, but {state['episodes']} were written."
            )

    def _attached(self, own: Any, name: str, size: int) -> bytes:
        what = f"The attached file '{name}' in '{self.path}'"
        with damage(what):
            item = find(own, f"attachments/{name}")
            return read_values(item, np.dtype("u1"), (size,), self._size, what).tobytes()

    def _text(self, item: Any, most: int) -> bytes:
        dtype = item.dtype if isinstance(item, h5py.Dataset) else np.dtype("f4")
        if dtype.kind != "S" or dtype.itemsize > most:
            raise DataError(f"'{self.path}' does not describe itself in a text.")
        return read_values(item, dtype, (), self._size, f"The text of '{self.path}'").item()

    def _own_row(self, demo: Any) -> dict[str, Any]:
        text = attribute(demo, OWN)
        if text is None:
            raise DataError("It was not written to its end, or it is damaged.")
        row = episode_table.load_json(text, check=self.check, sealed=True)
        (row,) = episode_table.ordered([row], self.path)
        row["model"] = episode_table.model_kinds(row.get("model"), self.path)
        sums, model = row.get("checksums"), row.get("model_checksums")
        if not (
            isinstance(sums, list)
            and isinstance(model, list)
            and (len(sums), len(model)) == (1 + len(self.info.channels), len(row["model"]))
        ):
            raise DataError(f"'{self.path}' is damaged: an episode does not say its checksums.")
        return row

    # -- files of others ---------------------------------------------------------------------------

    def _foreign_row(self, demo: Any) -> dict[str, Any]:
        """An episode's row of the table. What another program did not write is guessed."""
        if attribute(demo, OWN) is not None:
            raise DataError("It was recorded by mjlab_rec, but its file is damaged.")
        rows = attribute(demo, "num_samples")
        actions: Any = find(demo, "actions") if "actions" in demo or rows is None else None
        if rows is None:
            rows = len(actions)
        if type(rows) is not int or not 0 <= rows < 1 << 31:
            raise ValueError(f"its num_samples is {str(rows)[:40]}, but must be a count")
        if actions is not None and (actions.shape or ())[:1] != (rows,):
            raise ValueError(f"it has {rows} samples, but actions of the shape {actions.shape}")
        env = _told(demo, "env")
        total = None
        if "rewards" in demo:
            rewards = find(demo, "rewards")
            if rewards.dtype.kind in "biuf" and rewards.shape == (rows,):
                what = f"'rewards' of '{demo.name}' in '{self.path}'"
                values = read_values(rewards, rewards.dtype, (rows,), self._size, what)
                total = float(np.sum(values, dtype=np.float64))
        success = _told(demo, "success")
        row = {
            "env": env if type(env) is int and 0 <= env < 1 << 31 else 0,
            "number": int(demo.name.rpartition("_")[2]),
            "start": 0,
            "length": rows,
            "rows": rows,
            "return": total,
            "recorded_return": total,
            "terminated": bool(_told(demo, "terminated")),
            "truncated": bool(_told(demo, "truncated")),
            "success": None if success is None else bool(success),
            "partial": False,
            "model": {},
        }
        return episode_table.ordered([row], self.path)[0]

    def _foreign_info(self, data: Any) -> RunInfo:
        try:
            text = attribute(data, "env_args")
            about = {} if text is None else episode_table.load_json(text)
        except (DataError, TypeError, ValueError):
            about = {}
        sim = about.get("sim_args")
        sim = sim if isinstance(sim, dict) else {}
        steps = sim.get("dt", 0.0), sim.get("decimation", 1)
        good = all(type(n) in (int, float) and 0 <= n < 1e6 for n in steps)
        return RunInfo(
            channels=self._foreign_channels(data),
            envs=tuple(sorted({row["env"] for row in self.rows} or {0})),
            step_dt=float(math.prod(steps)) if good else 0.0,
            about={"task": str(about.get("env_name", "")), "env_args": about},
        )

    def _foreign_channels(self, data: Any) -> tuple[ChannelSpec, ...]:
        """The channels of the first episode in which they can be found."""
        for row in list(self.rows):
            try:
                with damage(f"'{row['demo']}' in '{self.path}'"):
                    return tuple(_channels(find_group(data, row["demo"]), row["rows"]))
            except DataError as error:
                self.rows.remove(row)
                self.damages.append(str(error))
        return ()


def _told(demo: Any, name: str) -> Any:
    """An attribute that others may use for anything; None where it is no number."""
    try:
        value = attribute(demo, name)
    except ValueError:
        return None
    return value if isinstance(value, int | float) else None


def _distinguish(rows: list[dict[str, Any]]) -> None:
    """Give episodes that have the number of another one a number of their own."""
    taken: dict[int, set[int]] = {}
    for row in rows:
        numbers = taken.setdefault(row["env"], set())
        if row["number"] in numbers:
            row["number"] = max(numbers) + 1
        numbers.add(row["number"])


def _channels(demo: Any, rows: int) -> Iterator[ChannelSpec]:
    """A channel for each dataset that has numbers for every row."""
    ours = {path: name for name, path in NAMES.items() if name != "step"}
    waiting = [("", demo)]
    seen = 0
    while waiting:
        prefix, group = waiting.pop(0)
        for key in group:
            seen += 1
            if seen > _MOST_ITEMS or prefix.count("/") > _MOST_DEPTH:
                raise ValueError("it has too many objects, or a loop of them")
            name = check_name(f"{prefix}{key}", "dataset")
            item = find(group, key)
            if isinstance(item, h5py.Group):
                if name != "initial_state":  # Isaac Lab's, of before the first row
                    waiting.append((f"{name}/", item))
                continue
            if not isinstance(item, h5py.Dataset) or item.shape is None:
                continue
            if item.shape[:1] != (rows,) or item.dtype.kind not in "biuf":
                continue
            check_shape(item.shape[1:], item.dtype, f"'{name}' of '{demo.name}'")
            yield ChannelSpec(
                name=ours.get(name, name),
                dtype=item.dtype,
                shape=item.shape[1:],
                when="before" if name.startswith(("obs", "state")) else "after",
            )
