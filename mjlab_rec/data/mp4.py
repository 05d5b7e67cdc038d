"""Mp4 files, written picture by picture; knows no environment."""

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
    """The ffmpeg program that comes with imageio-ffmpeg, or the one it is told to take.

    Args:
        user: What needs it, for the message if there is none.
    """
    package = require("imageio_ffmpeg", "video", user)
    try:
        return package.get_ffmpeg_exe()
    except RuntimeError as error:
        raise DataError(
            f"{user} needs ffmpeg, but the package imageio-ffmpeg brings none for this machine."
            " Install ffmpeg, or name it in the variable IMAGEIO_FFMPEG_EXE."
        ) from error


def frame_rate(frame_s: float, speed: float = 1.0) -> Fraction:
    """Frames per second of pictures that are this far apart, exact: 0.015 s give 200/3.

    Args:
        frame_s: Simulated seconds from a picture to the next.
        speed: Played this many times as fast as simulated.
    """
    # What is written as 0.015 is not quite that number; no more than six digits are meant.
    return Fraction(speed).limit_denominator(10**4) / Fraction(frame_s).limit_denominator(10**6)


class Mp4Writer:
    """Streams pictures into a file, whose encoder is a process of its own.

    The encoder ends the file when it hears no more of us, so that a kill costs only what it has
    not been given; and about a second more if it is killed as well, where ffmpeg is 7.1 or newer.
    No picture is left out or shown twice. A picture with an odd number of rows or columns, which
    the format cannot hold, gets a black one more.

    Args:
        path: The file; its folder is made if there is none.
        width: Columns of the pictures.
        height: Rows of the pictures.
        rate: Pictures per second.
        ffmpeg: The program, from ``find_ffmpeg``.
        crf: Quality, from 0 (lossless) to 51 (worst); 23 is x264's default.
        if_exists: What to do if the file exists: "error", "overwrite" or "number".
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
    ) -> None:
        self.frames = 0
        """Pictures written."""
        self._shape = (height, width, 3)
        self._path_lock = PathLock(path, if_exists, can_append=False)
        self.path = self._path_lock.path
        """The file, with a number in its name if that was asked for."""
        self._messages = _memory_file()
        try:
            # No fork in between, or the child would hold an end of the pipe that it does not know.
            with _no_fork:
                self._process = subprocess.Popen(
                    _command(ffmpeg, self.path, width, height, rate, crf),
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    # A file, not a pipe: no thread has to read it, and it does not need us.
                    stderr=self._messages,
                    # A Ctrl-C is for us; what we still have to write needs the encoder.
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
                f"'{self.path}' takes pictures of shape {self._shape} and dtype uint8, got"
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
        """Finish the file, and say so if the encoder failed. Idempotent."""
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
        """Tell the encoder that there is no more, and wait until it has written everything."""
        self._pipe.close()
        self._process.wait()
        if not self._messages.closed:
            self._messages.seek(0)
            self._said = self._messages.read().decode(errors="replace").strip().splitlines()
            self._messages.close()
        self._path_lock.release()

    def _failure(self) -> DataError:
        code = self._process.returncode
        ended = f"ended with code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                ended = f"was ended by {signal.Signals(-code).name}"
        said = " / ".join(self._said[-_MESSAGE_LINES:]) or "it gave no reason"
        return DataError(
            f"Cannot write '{self.path}': ffmpeg {ended} after {self.frames} pictures: {said}"
        )


def _command(
    ffmpeg: str, path: Path, width: int, height: int, rate: Fraction, crf: int
) -> list[str]:
    """How ffmpeg is called: raw pictures come in, H.264 that every player knows goes out."""
    source = f"-f rawvideo -pixel_format rgb24 -video_size {width}x{height} -framerate {rate}"
    # Padded and not resized, which would blur; and in the colours of high definition, by name,
    # since players guess them by the size otherwise.
    filters = "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709:out_range=tv"
    colours = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
    # Two threads are faster than any renderer here, and leave the others to the simulation.
    codec = f"-c:v libx264 -preset veryfast -crf {crf} -pix_fmt yuv420p -threads 2"
    # A file in pieces of a second, which can be played even if the encoder is killed as well; at
    # the end it becomes an ordinary file.
    pieces = "-flush_packets 1 -movflags +hybrid_fragmented -frag_duration 1000000"
    return [
        *(ffmpeg, *"-hide_banner -loglevel error -nostdin -y".split()),
        *(*source.split(), "-i", "pipe:0", "-vf", filters),
        *(*codec.split(), *colours.split(), *(pieces.split() if _knows_pieces(ffmpeg) else [])),
        *("-f", "mp4", f"file:{path}"),
    ]


@functools.lru_cache
def _knows_pieces(ffmpeg: str) -> bool:
    """Whether the program is new enough to write a file in pieces and join them in the end."""
    try:
        ran = subprocess.run(
            [ffmpeg, "-version"], stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False  # What is wrong with it will be said when it is to write.
    version = re.match(rb"ffmpeg version n?(\d+)\.(\d+)", ran.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= (7, 1)


def _memory_file() -> Any:
    """A file that takes no room on a disk, which may be what is full."""
    if hasattr(os, "memfd_create"):
        return io.FileIO(os.memfd_create("ffmpeg", os.MFD_CLOEXEC), "r+")
    return tempfile.TemporaryFile(buffering=0)


# A child that was forked holds our ends of the pipes too. Unless it closes them, no encoder would
# learn that we are done, and we would wait for it as long as the child lives.
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
