"""Recordings in object stores and other file systems that fsspec knows: copied, then opened."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mjlab_rec.data.schema import DataError
from mjlab_rec.data.video_folder import VIDEOS
from mjlab_rec.data.workers import PLAN, WORKER
from mjlab_rec.utils.extras import require

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::|://).+", re.IGNORECASE)


def is_url(source: object) -> bool:
    """Whether a source is a URL such as ``s3://bucket/run``, and not a path."""
    return isinstance(source, str) and bool(_URL.fullmatch(source))


def store_of(url: str) -> tuple[Any, str]:
    """The file system that a URL means, as fsspec has it, and the path in it."""
    fsspec = require("fsspec", None, f"The URL '{url}'")
    try:
        store, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"'{url}' cannot be opened: {error}") from error
    except ValueError as error:
        raise DataError(f"'{url}' is not the URL of a file system that is known: {error}") from None
    return store, place.rstrip("/")


class Mirror:
    """A copy of the recording at a URL, or of a folder of them, in a temporary folder.

    Of a collection, shards are copied that are finished: those whose worker.json is there.

    Args:
        url: The URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store, self._place = store_of(url)
        self._folder = tempfile.TemporaryDirectory(prefix="mjlab_rec-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name, posixpath.basename(self._place) or "recordings")
        """Where the copy is."""
        self._copied: dict[str, str] = {}  # what the store said about each file that was copied

    def update(self) -> int:
        """Copy the files that are new, or were replaced; returns how many there are by now."""
        try:
            for name, about in sorted(self._listed().items()):
                if self._copied.get(name) != str(about):
                    self._copy(about["name"], self.path.parent / name)
                    self._copied[name] = str(about)
        except Exception as error:  # Each file system has its own classes of errors.
            why = error or type(error).__name__
            raise DataError(f"Cannot download '{self.url}': {why}") from error
        return len(self._copied)

    def drop(self, recording: Path) -> None:
        """Remove the copy of a recording. It is not copied again."""
        shutil.rmtree(recording, ignore_errors=True)
        pattern = _files_of(recording.name)
        for file in recording.parent.glob("*"):
            if pattern.fullmatch(file.name) and not file.is_dir():
                file.unlink()
            elif pattern.fullmatch(file.name):
                shutil.rmtree(file)

    def close(self) -> None:
        """Remove the copy. May be called twice."""
        self._folder.cleanup()

    def _copy(self, place: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f".{target.name}.tmp")
        self._store.get_file(place, str(hidden))
        os.replace(hidden, target)

    def _listed(self) -> dict[str, dict[str, Any]]:
        """What is there, by the path from the folder that the copy is in."""
        self._store.invalidate_cache()
        base = posixpath.dirname(self._place)
        if self._store.isdir(self._place):
            found = self._store.find(self._place, detail=True).values()
        else:
            found = self._beside(base)
        files = {posixpath.relpath(about["name"], base): about for about in found}
        return {name: about for name, about in files.items() if _counts(name, files)}

    def _beside(self, base: str) -> list[dict[str, Any]]:
        """The files of a single recording."""
        pattern = _files_of(posixpath.basename(self._place))
        try:
            there = self._store.ls(base, detail=True)
        except FileNotFoundError:
            return []
        found = []
        for about in there:
            if not pattern.fullmatch(posixpath.basename(about["name"])):
                continue
            # Videos of episodes are in a folder.
            videos = about["name"].rstrip("/").endswith(VIDEOS)
            inside = self._store.find(about["name"], detail=True).values() if videos else [about]
            found += inside
        return found


def _files_of(name: str) -> re.Pattern[str]:
    """The names of a recording's files: its parts, and what is next to them under the same name."""
    stem, suffix = map(re.escape, posixpath.splitext(name))
    of_csv = rf"{stem}\.episodes{suffix}"
    return re.compile(rf"{stem}(\.part\d+)?{suffix}(\..+)?|{of_csv}")


def _counts(name: str, files: dict[str, Any]) -> bool:
    """Whether a file is neither hidden nor in the folder of a shard that is being uploaded."""
    pieces = name.split("/")
    if any(piece.startswith(".") for piece in pieces):
        return False
    folders = ["/".join(pieces[:count]) for count in range(1, len(pieces))]
    return all(
        f"{inner}/{WORKER}" in files
        for outer, inner in zip(folders, folders[1:], strict=False)
        if f"{outer}/{PLAN}" in files
    )
