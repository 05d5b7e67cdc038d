"""Write what is in a recording as one web page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from mjlab_rec.data.description import describe
from mjlab_rec.data.discovery import Source
from mjlab_rec.data.export.place import placed
from mjlab_rec.data.files import local_path
from mjlab_rec.data.reporting.clips import Clip, ClipMaker, recorded_frames
from mjlab_rec.data.reporting.gathering import gather
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError


def report(
    source: Rollouts | Source | Sequence[Source],
    out: str | Path,
    *,
    if_exists: Literal["error", "overwrite", "number"] = "error",
    clip: ClipMaker | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a web page about a recording: one file, without scripts, that needs no network.

    The recording is read once, in pieces. The file appears when it is complete.

    Args:
        source: A recording, or what ``open_rollouts`` takes.
        out: The file, whose name ends in .html.
        if_exists: What to do if it exists: raise, replace it, or use the next free name.
        clip: Makes a clip of an episode. Without one, or if it returns None, recorded pictures are
            shown if there are any.
        progress: Called with the rows that are read, and all of them.

    Returns:
        Path of the file.
    """
    path = local_path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"A report is a web page, so its name must end in .html, got '{out}'.")
    if not isinstance(source, Rollouts):
        with open_rollouts(source) as rollouts:
            return report(rollouts, out, if_exists=if_exists, clip=clip, progress=progress)
    from mjlab_rec.data.reporting.page import page

    with placed(path, if_exists, source=source.path) as (staged, final):
        try:
            found = gather(source, progress)
        except DataError as error:
            raise DataError(
                f"{error} No report was written. 'mjlab-rec data check PATH --repair OUT' copies"
                " what is good, which can be reported."
            ) from error
        clips: dict[int, Clip] = {}
        for rank in ("worst", "best", "only"):
            index = next((each.index for each in found.shown if each.rank == rank), None)
            made = None if index is None else _clip(source, index, clip)
            if index is not None and made is not None:
                clips[index] = made
        text = page(source, describe(source), found, clips)
        staged.write_bytes(text.encode("utf-8", "replace"))
    return final


def _clip(rollouts: Rollouts, index: int, clip: ClipMaker | None) -> Clip | None:
    made = clip(rollouts, index) if clip is not None else None
    return made or recorded_frames(rollouts, index)
