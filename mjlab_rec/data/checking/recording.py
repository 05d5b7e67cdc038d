"""Check a recording of any format: structure, checksums, rows, steps, flags, values."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.checking.findings import CheckResult, Finding
from mjlab_rec.data.checking.rows import RowChecks, float_channels
from mjlab_rec.data.description import files_of
from mjlab_rec.data.discovery import find
from mjlab_rec.data.files import being_written, local_path
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.planned import incomplete, progress, read_collections
from mjlab_rec.data.rollouts import open_recording
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.workers import read_worker
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader

_MOST = 1000
_SMALL = ("terminated", "truncated", "reward")

Progress = Callable[[int, int], None]


def check(
    path: str | Path,
    *,
    allow_nan: Sequence[str] = (),
    most: int = _MOST,
    progress: Progress | None = None,
) -> CheckResult:
    """Check everything in a recording, past any damage.

    Args:
        path: A recording.
        allow_nan: Channels in which NaN and infinity are fine, such as "obs/*".
        most: Findings that are listed; episodes with more of them are still not good.
        progress: Called with what is done and what there is to do.
    """
    path = local_path(path)
    result = CheckResult(path=str(path))
    try:
        reader, result.format = open_recording(path, check=True)
    except DataError as error:
        result.findings.append(Finding(kind="structure", text=str(error), file=str(path)))
        return result
    try:
        _check(reader, path, result, allow_nan, most, progress or (lambda done, total: None))
    finally:
        reader.close()
    return result


def check_plans(sources: Sequence[str | Path], checked: Sequence[CheckResult]) -> CheckResult:
    """Whether all is there that collections and workers planned.

    Args:
        sources: Recordings, folders and patterns.
        checked: What was found in all of their recordings.
    """
    sources = list(map(local_path, sources))
    meant = find(sources)
    folders = dict.fromkeys([*meant.workers, *(path.parent for path in meant.paths)])
    workers = {folder: read_worker(folder) for folder in folders}
    for result in checked:
        worker = workers.get(Path(result.path).parent)
        if worker is not None:
            worker.recordings += 1
            worker.episodes += len(result.good)
    there = [worker for worker in workers.values() if worker is not None]
    collections = read_collections(meant.collections)
    texts = incomplete(there, collections, sources)
    if texts and collections:
        texts = [f"There are {progress(there, collections)}.", *texts]
    return CheckResult(
        path=", ".join(map(str, meant.collections or sources)),
        findings=[Finding(kind="unfinished", text=text) for text in texts],
    )


def _check(
    reader: Reader,
    path: Path,
    result: CheckResult,
    allow_nan: Sequence[str],
    most: int,
    progress: Progress,
) -> None:
    from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader

    result.findings += [Finding(kind="structure", text=why) for why in reader.damages]
    result.findings += _state(reader, path, result.format)
    result.nbytes = sum(file.stat(follow_symlinks=False).st_size for file in files_of(path))
    finite = _finite(reader, allow_nan)
    names = [spec.name for spec in reader.info.channels]
    # All values of blocks are checked as they lie on the disk.
    blocks = isinstance(reader, Hdf5Reader)
    small = [name for name in _SMALL if name in names]
    rows = (
        RowChecks(reader, small, [], most) if blocks else RowChecks(reader, names, finite, most, 1)
    )
    _check_table(reader, rows)
    if isinstance(reader, Hdf5Reader):
        result.findings += _ends(reader, path)
        for _ in rows.run(_check_blocks(reader, rows, finite, progress)):
            pass
    else:
        for done, total in rows.run():
            progress(done, total)
    _check_models(reader, rows)
    result.findings += rows.finish()
    if partial := int(reader.episodes["partial"].sum()):
        text = f"{partial} episodes have steps without a row, as they were recorded."
        result.findings.append(Finding(kind="note", text=text))
    table = reader.episodes["rows"].fill_null(0).to_numpy()
    result.good, result.bad_rows = rows.good, rows.bad_rows
    result.rows, result.good_rows = int(table.sum()), int(table[rows.good].sum())


def _check_blocks(
    reader: Hdf5Reader, rows: RowChecks, finite: Sequence[str], progress: Progress
) -> list[int] | None:
    """Check all values; returns the episodes that need a closer look, None if all of them do."""
    from mjlab_rec.data.checking.damaged_blocks import check_blocks
    from mjlab_rec.data.checking.screening import suspicious

    if any(run.index.packed for run in reader.runs):  # many blocks with few rows each
        check_blocks(reader, rows, finite, progress)
        return None
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(suspicious, reader, rows)
        check_blocks(reader, rows, finite, progress)
        return found.result().tolist()


def _finite(reader: Reader, allow_nan: Sequence[str]) -> list[str]:
    """The channels whose values must be finite."""
    names = float_channels(reader.info)
    for pattern in allow_nan:
        known = [spec.name for spec in reader.info.channels]
        if not fnmatch.filter(known, pattern):
            raise ValueError(
                f"allow_nan: there is no channel '{pattern}'. {nearest(pattern, known)}"
            )
        names = [name for name in names if not fnmatch.fnmatch(name, pattern)]
    return names


def _state(reader: Reader, path: Path, format: str) -> list[Finding]:
    """Findings about the recording as a whole."""
    found = []
    if being_written(path):
        found.append(Finding(kind="note", text=f"'{path}' is being written."))
    elif not reader.finished and not _by_hand(reader):
        found.append(
            Finding(
                kind="unfinished",
                text=f"'{path}' is not finished: its process was killed, or it was copied while"
                " being written. Its last rows may be missing.",
            )
        )
    if reader.gaps:
        text = f"{reader.gaps} rows of '{path}' were not written, because the disk was too slow."
        found.append(Finding(kind="note", text=text))
    if format == "csv":
        from mjlab_rec.data.formats.csv_files import companions

        found += [
            Finding(kind="note", text=f"'{file}' is missing: not everything could be checked.")
            for file in companions(path)
            if not file.exists()
        ]
    return found


def _ends(reader: Hdf5Reader, path: Path) -> list[Finding]:
    """Findings about files that end before what HDF5 takes for their end."""
    from mjlab_rec.data.formats import hdf5_header

    found = []
    for part in reader.parts if not being_written(path) else ():
        size = part.file.size
        end = hdf5_header.stored_end(part.file.read(0, min(hdf5_header.END, size)))
        if size < end < 1 << 60:
            text = (
                f"'{part.path}' was cut off: it has {size} of {end} bytes, and programs that use"
                " the HDF5 library cannot open it."
            )
            found.append(Finding(kind="structure", text=text, file=str(part.path)))
    return found


def _by_hand(reader: Reader) -> bool:
    """Whether a table was written by another program, so nothing says whether it is complete."""
    from mjlab_rec.data.formats.csv_reader import CsvReader

    return isinstance(reader, CsvReader) and reader.spans is None


def _check_table(reader: Reader, rows: RowChecks) -> None:
    """Episodes are there once, and have no more rows than steps."""
    table = reader.episodes
    for index in np.flatnonzero(table.select("env", "number").is_duplicated()).tolist():
        rows.add("duplicate", index, "", "The table of episodes has it more than once.")
    wrong = (table["rows"] > table["length"]).fill_null(False)  # the length may be unknown
    for index in np.flatnonzero(wrong).tolist():
        count, steps = table["rows"][index], table["length"][index]
        rows.add("rows", index, "", f"It has {count} rows, but only {steps} steps.")


def _check_models(reader: Reader, rows: RowChecks) -> None:
    """The model fields of every episode can be read that is good, or of which rows are."""
    for index in range(len(reader.episodes)) if reader.has_models else ():
        if index in rows.bad_rows and rows.bad_rows[index] is None:
            continue
        try:
            reader.model(index)
        except DataError as error:
            rows.add("checksum", index, "model_fields", str(error))
