"""Read HDF5 files in the layout of robomimic and Isaac Lab, including files of theirs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mjlab_rec.data.checksum import array_crc32
from mjlab_rec.data.formats import episode_table, robomimic_layout
from mjlab_rec.data.formats.checks import check_size, damage
from mjlab_rec.data.formats.episode_reader import EpisodeReader
from mjlab_rec.data.formats.hdf5_checks import attribute, find, find_group, read_values
from mjlab_rec.data.formats.parts import open_parts
from mjlab_rec.data.formats.plain_files import opened, reason
from mjlab_rec.data.formats.robomimic_guess import guessed_info, guessed_row, renumber_duplicates
from mjlab_rec.data.formats.robomimic_layout import OWN, Place
from mjlab_rec.data.schema import DataError, RunInfo, bytes_of

T = TypeVar("T")

_DEMO = re.compile(r"demo_(\d{1,9})", re.ASCII)
_GROWING_S = 2.0  # a file that was changed within this time may still grow
_TRIES = 20
_PAUSE_S = 0.02


class RobomimicReader(EpisodeReader):
    """Reads files of this layout, also files written by Isaac Lab and robomimic.

    Files may grow meanwhile: if data is just being written, reading is tried again. Each process
    opens the files itself.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        super().__init__(path, check)
        self._files: list[_File] = []
        self._files = open_parts(self.path, self._open_part, self.damages)
        try:
            first = self._files[0]
            self.info, self.ours, self.finished = first.info, first.ours, self._files[-1].last
            self.damages += [damage for file in self._files for damage in file.damages]
            rows = [{**row, "part": file} for file in self._files for row in file.rows]
            if not self.ours:
                renumber_duplicates(rows)
            self._places = first.places
            self._set_rows(rows)
        except BaseException:
            self.close()
            raise

    def _open_part(self, path: Path, before: Sequence[_File]) -> _File:
        file = _File(path, self.check)
        try:
            if before and file.ours != before[0].ours:
                raise DataError(f"'{path}' and '{before[0].path}' are not parts of one recording.")
            if before and file.ours:
                episode_table.check_same_run(before[0].info, file.info, path)
        except DataError:
            file.close()
            raise
        return file

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        row = self._rows[index]
        file: _File = row["part"]

        def values(demo: Any, name: str) -> np.ndarray:
            if name == "step" and not self.ours:
                return np.arange(row["rows"], dtype=np.int32)
            place = self._places[name]
            dtype, shape = self._kinds[name]
            at = list(self._kinds).index(name) + 1 if name != "step" else 0
            crc = row["checksums"][at] if self.ours else None
            rows = row["rows"]
            found = file.values(demo, place.path, dtype, (rows - place.missing, *shape), crc)
            if place.initial:
                first = file.values(demo, place.initial, dtype, (1, *shape), None)
                found = np.concatenate([first, found])[:rows]
            return found

        def all_values() -> dict[str, np.ndarray]:
            demo = file.demo(row["demo"])
            return {name: values(demo, name) for name in channels}

        with self._episode(row):
            return file.retry(all_values)

    def model(self, index: int) -> dict[str, np.ndarray]:
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
            return file.retry(values)

    def verify(self) -> list[str]:
        self.close()  # HDF5 caches data, and reports some errors only once
        return super().verify()

    def close(self) -> None:
        for file in self._files:
            file.close()


class _File:
    """A file, which each process opens itself, and its table of episodes."""

    info: RunInfo
    ours: bool
    places: dict[str, Place]  # of channels in an episode's group
    last: bool  # whether the recording was closed with this file
    rows: list[dict[str, Any]]
    damages: list[str]

    def __init__(self, path: Path, check: bool) -> None:
        self.path = path
        self.check = check
        self._handle: Any = None
        self._process = -1
        try:
            with damage(f"'{path}'", path):
                for _ in range(_TRIES):
                    self.retry(self._load)
                    if not self.damages or not self._grows():
                        break
                    self.close()
                    time.sleep(_PAUSE_S)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file in this process."""
        if self._handle is not None and self._process == os.getpid():
            with damage(f"'{self.path}'"):
                self._handle.close()
        self._handle = None

    def retry(self, work: Callable[[], T]) -> T:
        """Do work; if it fails while the file grows, open the file again and retry."""
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
            if crc is not None and self.check and array_crc32(array) != crc:
                last = shape[0] - 1 if shape else 0
                raise DataError(f"{what} is damaged: wrong checksum of the rows 0 to {last}.")
            return array

    def _opened(self) -> Any:
        if self._handle is None or self._process != os.getpid():
            os.close(opened(self.path))  # raises for a pipe
            try:
                self._handle = h5py.File(self.path, "r", locking=False)
            except OSError as error:
                raise DataError(
                    f"'{self.path}' cannot be read as an HDF5 file: {reason(error)}."
                ) from error
            self._process, self._size = os.getpid(), self.path.stat().st_size
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
                self.damages.append(f"'{self.path}' has {more} episodes with a damaged name.")
        for name in demos:
            try:
                with damage(f"'{name}' in '{self.path}'", self.path):
                    demo = find_group(data, name)
                    row = (
                        self._own_row(demo)
                        if self.ours
                        else guessed_row(demo, self._size, self.path)
                    )
                    self.rows.append({**row, "demo": name})
            except DataError as error:
                self.damages.append(str(error))
        if not self.ours:
            self.info, self.places = guessed_info(data, self.rows, self.damages, self.path)
        each = bytes_of(self.info.kinds.values())
        for row in self.rows:
            what = f"'{row['demo']}' in '{self.path}'"
            check_size(row["rows"] * each, self._size, what)

    def _load_own(self, own: h5py.Group, count: int) -> None:
        text = self._text(find(own, "info"), episode_table.MOST_TEXT)
        self.info, about = episode_table.load_info(text, self.path, check=self.check)
        self.info.attachments = episode_table.read_attached(
            about.get("attached"),
            lambda name, size: self._attached(own, name, size),
            self.path,
            self.damages,
            check=self.check,
        )
        self.places = {n: Place(path) for n, path in robomimic_layout.paths(self.info).items()}
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
            raise DataError(f"'{self.path}' is damaged: its description is not a text.")
        return read_values(item, dtype, (), self._size, f"The text of '{self.path}'").item()

    def _own_row(self, demo: Any) -> dict[str, Any]:
        text = attribute(demo, OWN)
        if text is None:
            raise DataError("It is incomplete or damaged.")
        row = episode_table.load_json(text, check=self.check, sealed=True)
        (row,) = episode_table.checked([row], self.path)
        row["model"] = episode_table.model_kinds(row.get("model"), self.path)
        sums, model = row.get("checksums"), row.get("model_checksums")
        if not (
            isinstance(sums, list)
            and isinstance(model, list)
            and (len(sums), len(model)) == (1 + len(self.info.channels), len(row["model"]))
        ):
            raise DataError(f"'{self.path}' is damaged: an episode has no checksums.")
        return row
