"""Recordings in object stores and other file systems that fsspec knows: downloaded, then opened."""

from __future__ import annotations

import itertools
import posixpath
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mjlab_rec.data.schema import DataError
from mjlab_rec.data.video_folder import VIDEOS
from mjlab_rec.utils.extras import require

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::|://).+", re.IGNORECASE)


def is_url(source: object) -> bool:
    """Whether a source is a URL such as ``s3://bucket/run``, and not a path."""
    return isinstance(source, str) and bool(_URL.fullmatch(source))


def downloaded(url: str) -> tuple[Path, Path]:
    """Download a recording, or a folder of them.

    Returns:
        The temporary folder, which the caller removes, and the path in it to open.
    """
    fsspec = require("fsspec", None, f"Opening the URL '{url}'")
    try:
        store, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"'{url}' cannot be opened: {error}") from error
    except ValueError as error:
        raise DataError(f"'{url}' is not the URL of a file system that is known: {error}") from None
    place = place.rstrip("/")
    name = posixpath.basename(place) or "recordings"
    folder = Path(tempfile.mkdtemp(prefix="mjlab_rec-"))
    try:
        if store.isdir(place):
            base, files = place, store.find(place)
        else:
            base, files = posixpath.dirname(place), _files_of(store, place)
        if not files:
            raise DataError(f"There is no recording at '{url}'.")
        for file in files:
            within = posixpath.relpath(file, base)
            if within.startswith("..") or any(part.startswith(".") for part in within.split("/")):
                continue
            target = folder / name / within if base == place else folder / within
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(file, str(target))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, DataError) or not isinstance(error, Exception):
            raise
        raise DataError(f"Cannot download '{url}': {error or type(error).__name__}") from error
    return folder, folder / name


def _files_of(store: Any, place: str) -> list[str]:
    """The files of a recording: its parts, and what is next to them under the same name."""
    stem, suffix = posixpath.splitext(posixpath.basename(place))
    part = re.compile(rf"{re.escape(stem)}(\.part\d+)?{re.escape(suffix)}(\..+)?")
    more = re.compile(rf"{re.escape(stem)}\.episodes{re.escape(suffix)}")  # of CSV
    try:
        names = store.ls(posixpath.dirname(place), detail=False)
    except FileNotFoundError:
        return []
    found = [
        name
        for name in names
        if part.fullmatch(posixpath.basename(name)) or more.fullmatch(posixpath.basename(name))
    ]
    # Videos of episodes are in a folder.
    inside = [store.find(name) if name.endswith(VIDEOS) else [name] for name in found]
    return list(itertools.chain(*inside))
