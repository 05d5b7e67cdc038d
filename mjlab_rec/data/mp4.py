"""Write mp4 files picture by picture."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import os
import re
import signal
import subprocess
import tempfile
import threading
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.files import IfExists, PathLock
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.extras import require

_PIPE_BYTES = 1 << 20
_MESSAGE_LINES = 5


def find_ffmpeg(user: str) -> str:
    """The ffmpeg program of imageio-ffmpeg: its own, or that of IMAGEIO_FFMPEG_EXE.

    Args:
        user: What needs it, for the message if there is none.
    """
    package = require("imageio_ffmpeg", "video", user)
    try:
        return package.get_ffmpeg_exe()
    except RuntimeError as error:
        raise DataError(
            f"{user} needs ffmpeg, but the package imageio-ffmpeg has none for this machine."
            " Install ffmpeg, or set the environment variable IMAGEIO_FFMPEG_EXE to its path."
        ) from error


def frame_rate(frame_s: float, speed: float = 1.0) -> Fraction:
    """Frames per second as an exact fraction: 0.015 s per picture give 200/3.

    Args:
        frame_s: Simulated seconds from a picture to the next.
        speed: Playback speed relative to simulated time.
    """
    # The float 0.015 is not exactly 0.015; assume at most six significant digits.
    return Fraction(speed).limit_denominator(10**4) / Fraction(frame_s).limit_denominator(10**6)


class Mp4Writer:
    """Writes pictures to a file through an encoder in a separate process.

    The encoder finishes the file when its pipe closes, so a kill of this process loses only
    pictures that were not yet sent. If the encoder is killed too, about one more second is lost
    with ffmpeg 7.1 or newer, and the whole file with older ones. No picture is skipped or repeated.
    The format needs even sizes: a picture with an odd number of rows or columns is padded with a
    black one.

    Args:
        path: The file; its folder is created if needed.
        width: Columns of the pictures.
        height: Rows of the pictures.
        rate: Pictures per second.
        ffmpeg: Path of the program, from ``find_ffmpeg``.
        crf: Quality, from 0 (lossless) to 51 (worst); 23 is x264's default.
        if_exists: What to do if the file exists: "error", "overwrite" or "number".
        group: Pictures from one that can be decoded alone to the next, for programs that read
            single ones; the first one is then at time 0. None: the encoder chooses.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        rate: Fraction,
        ffmpeg: str,
        crf: int = 23,
        if_exists: IfExists = "error",
        group: int | None = None,
    ) -> None:
        self.frames = 0
        """Pictures written."""
        self._shape = (height, width, 3)
        self._path_lock = PathLock(path, if_exists, can_append=False)
        self.path = self._path_lock.path
        """The file; with `if_exists` "number" its name may have a number."""
        self._messages = memory_file()
        try:
            # A child forked in between would keep an end of the pipe open.
            with _no_fork:
                self._process = subprocess.Popen(
                    _command(ffmpeg, self.path, width, height, rate, crf, group),
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    # A file, not a pipe: no thread has to read it.
                    stderr=self._messages,
                    # Ctrl-C must not end the encoder: there may still be pictures to write.
                    start_new_session=True,
                )
                assert self._process.stdin is not None
                self._pipe: Any = self._process.stdin
                _open_pipes.add(self._pipe)
        except BaseException as error:
            self._messages.close()
            self._path_lock.release()
            if isinstance(error, OSError):
                raise DataError(f"Cannot start ffmpeg, '{ffmpeg}': {error.strerror}.") from error
            raise
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # Some systems allow less.
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, image: np.ndarray) -> None:
        """Append a picture, (height, width, 3) of uint8."""
        if image.shape != self._shape or image.dtype != np.uint8:
            raise DataError(
                f"'{self.path}' needs pictures of shape {self._shape} and dtype uint8, got"
                f" {image.shape} and {image.dtype}."
            )
        rest = np.ascontiguousarray(image).data.cast("B")
        try:
            while rest:
                rest = rest[self._pipe.write(rest) :]
        except (BrokenPipeError, ValueError) as error:
            self._finish()
            raise self._failure() from error
        self.frames += 1

    def close(self) -> None:
        """Finish the file; raise if the encoder failed. May be called twice."""
        if not self._pipe.closed:
            self._finish()
            if self._process.returncode != 0:
                raise self._failure()

    @property
    def nbytes(self) -> int:
        """Size of the file so far."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _finish(self) -> None:
        """Close the pipe, and wait until the encoder has written everything."""
        self._pipe.close()
        self._process.wait()
        if not self._messages.closed:
            self._messages.seek(0)
            self._output = self._messages.read().decode(errors="replace").strip().splitlines()
            self._messages.close()
        self._path_lock.release()

    def _failure(self) -> DataError:
        code = self._process.returncode
        ended = f"ended with code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                ended = f"was ended by {signal.Signals(-code).name}"
        output = " / ".join(self._output[-_MESSAGE_LINES:]) or "it gave no reason"
        return DataError(
            f"Cannot write '{self.path}': ffmpeg {ended} after {self.frames} pictures: {output}"
        )


def _command(
    ffmpeg: str,
    path: Path,
    width: int,
    height: int,
    rate: Fraction,
    crf: int,
    group: int | None = None,
) -> list[str]:
    """The command line of ffmpeg: from raw pictures to H.264 that every player supports."""
    source = f"-f rawvideo -pixel_format rgb24 -video_size {width}x{height} -framerate {rate}"
    # Padded, because resizing would blur. The colour space is named: players would guess it from
    # the picture's size.
    # Programs that read single pictures, such as PyAV, ignore the name and expect that of BT.601.
    matrix, name = ("bt709", "bt709") if group is None else ("bt601", "smpte170m")
    filters = f"pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix={matrix}:out_range=tv"
    colours = f"-colorspace {name} -color_primaries bt709 -color_trc bt709 -color_range tv"
    # Two threads encode faster than any renderer draws, and leave the other cores to the
    # simulation.
    codec = f"-c:v libx264 -preset veryfast -crf {crf} -pix_fmt yuv420p -threads 2"
    if group is not None:  # Without pictures that depend on later ones, which delay the first one.
        codec += f" -g {group} -bf 0"
    # Fragments of one second, which can be played even if the encoder is killed. At the end they
    # are joined to an ordinary file.
    fragments = "-flush_packets 1 -movflags +hybrid_fragmented -frag_duration 1000000"
    return [
        *(ffmpeg, *"-hide_banner -loglevel error -nostdin -y".split()),
        *(*source.split(), "-i", "pipe:0", "-vf", filters),
        *(
            *codec.split(),
            *colours.split(),
            *(fragments.split() if _writes_fragments(ffmpeg) else []),
        ),
        *("-f", "mp4", f"file:{path}"),
    ]


@functools.lru_cache
def _writes_fragments(ffmpeg: str) -> bool:
    """Whether the program is new enough to write fragments and join them at the end."""
    try:
        ran = subprocess.run(
            [ffmpeg, "-version"], stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False  # Writing will raise the error.
    version = re.match(rb"ffmpeg version n?(\d+)\.(\d+)", ran.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= (7, 1)


def memory_file() -> Any:
    """A file in memory, because the disk may be full."""
    if hasattr(os, "memfd_create"):
        return io.FileIO(os.memfd_create("ffmpeg", os.MFD_CLOEXEC), "r+")
    return tempfile.TemporaryFile(buffering=0)


# A forked child holds our ends of the pipes too. Unless it closes them, the encoders would not see
# the end of their input, and we would wait for them until the child ends.
_open_pipes: weakref.WeakSet[Any] = weakref.WeakSet()
_no_fork = threading.RLock()


def _close_pipes_in_child() -> None:
    for pipe in list(_open_pipes):
        with contextlib.suppress(OSError):
            pipe.close()
    _no_fork.release()


os.register_at_fork(
    before=_no_fork.acquire,
    after_in_parent=_no_fork.release,
    after_in_child=_close_pipes_in_child,
)
