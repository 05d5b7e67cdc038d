"""The folder next to a recording with an mp4 file for the pictures of each of its episodes."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

VIDEOS = ".videos"

# What is written there: videos, and the locks that a killed process leaves.
_OURS = re.compile(r"demo_\d{6,9}\.mp4|\.demo_\d{6,9}\.mp4\.lock", re.ASCII)


def video_folder(file: Path) -> Path:
    """The folder with the videos of a file: run.h5.videos."""
    return file.with_name(f"{file.name}{VIDEOS}")


def video_path(channel: str, demo: int) -> str:
    """The path of a video in that folder, given the name of the channel's folder."""
    return f"{channel}/demo_{demo:06d}.mp4"


def videos(file: Path) -> list[Path]:
    """The videos of a file that exist, in order, without following links."""
    return [each for each in _contents(file) if each.suffix == ".mp4"]


def other_files(file: Path) -> list[Path]:
    """What else is in the folder: files that no recorder wrote there."""
    ours = set(_contents(file))
    found = (Path(at, name) for at, _, names in os.walk(video_folder(file)) for name in names)
    return sorted(each for each in found if each not in ours)


def remove_videos(file: Path) -> None:
    """Remove the videos of a file, and the folder unless it contains something else."""
    folder = video_folder(file)
    for each in _contents(file):
        each.unlink()
    if folder.is_dir() and not folder.is_symlink():
        for each in (*folder.iterdir(), folder):
            with contextlib.suppress(OSError):  # It has other files, or is one.
                each.rmdir()


def _contents(file: Path) -> list[Path]:
    found: list[Path] = []
    for channel in _entries(video_folder(file)):
        found += [each for each in _entries(channel) if _OURS.fullmatch(each.name)]
    return [each for each in found if each.is_symlink() or each.is_file()]


def _entries(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(folder / name for name in os.listdir(folder))
