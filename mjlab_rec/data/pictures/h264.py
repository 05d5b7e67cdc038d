"""Consecutive pictures as short H.264 streams, by ffmpeg.

A stream has at most ``GROUP`` pictures and begins with a whole one, so it can be decoded alone.
Streams one after another are a valid stream. Pictures only refer to earlier ones, so decoding one
needs only what comes before it. Colours have full resolution (yuv444p).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import numpy as np

from mjlab_rec.data.mp4 import find_ffmpeg, memory_file
from mjlab_rec.data.pictures.codec import as_pictures, into_values, size_of
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.extras import UnavailableError

GROUP = 4
MOST = 16  # pictures of a stream that can be read, as a command must not be too long
_DELIMITER = b"\0\0\0\1\x09"  # begins each picture
_LEAST = 16  # pixels: the side of a block
_QUIET = "-hide_banner -loglevel error -nostdin -y -filter_threads 1".split()


def load(user: str) -> str:
    """The path of ffmpeg; raises if there is none."""
    return find_ffmpeg(user)


def encode(clips: Sequence[np.ndarray], crf: int, ffmpeg: str) -> list[list[bytes]]:
    """For each clip (n, *shape) of uint8 the streams of its pictures, ``GROUP`` in each."""
    height, width, _ = size_of(clips[0].shape[1:])
    rows, columns = _padded(height), _padded(width)
    counts = [-(-len(clip) // GROUP) for clip in clips]
    raw = np.empty((sum(counts) * GROUP, rows, columns, 3), np.uint8)
    at = 0
    for clip, count in zip(clips, counts, strict=True):
        room = raw[at : at + count * GROUP]
        room[: len(clip), :height, :width] = as_pictures(clip)  # Grey becomes three equal colours.
        room[: len(clip), height:, :width] = room[: len(clip), height - 1 : height, :width]
        room[: len(clip), :, width:] = room[: len(clip), :, width - 1 : width]
        room[len(clip) :] = room[len(clip) - 1]
        at += count * GROUP
    source = f"-f rawvideo -pixel_format rgb24 -video_size {columns}x{rows} -framerate 25 -i pipe:0"
    # Other presets make files that are up to half as large, and take two to three times as long.
    codec = f"-c:v libx264 -preset ultrafast -crf {crf} -pix_fmt yuv444p -threads 1"
    groups = f"-g {GROUP} -keyint_min {GROUP} -sc_threshold 0 -bf 0"
    params = "slices=1:repeat-headers=1:open-gop=0:aud=1"
    command = [
        *(ffmpeg, *_QUIET, *source.split(), "-vf", _conversion("out")),
        *(*codec.split(), *groups.split(), "-x264-params", params, "-f", "h264", "pipe:1"),
    ]
    content = _run(command, [raw])
    starts = [*_pictures(content), len(content)]
    if len(starts) != len(raw) + 1:
        raise DataError(f"ffmpeg returned {len(starts) - 1} pictures instead of {len(raw)}.")
    streams, at = [], 0
    for clip, count in zip(clips, counts, strict=True):
        ends = [min(first + GROUP, len(clip)) for first in range(0, len(clip), GROUP)]
        firsts = range(at, at + count * GROUP, GROUP)
        streams.append(
            [content[starts[i] : starts[at + end]] for i, end in zip(firsts, ends, strict=True)]
        )
        at += count * GROUP
    return streams


def decode(
    streams: Sequence[bytes], frames: Sequence[np.ndarray], out: np.ndarray, ffmpeg: str
) -> None:
    """Write the pictures of these numbers in each stream to values (n, *shape).

    Raises ValueError if a stream does not have them.
    """
    height, width, channels = size_of(out.shape[1:])
    rows, columns = _padded(height), _padded(width)
    pieces, counts = [], []
    for stream, numbers in zip(streams, frames, strict=True):
        starts = _pictures(stream)
        count = int(max(numbers)) + 1
        if count > MOST:
            raise ValueError(f"it is picture {count} of a video, which can have {MOST}")
        if not starts or starts[0] != 0 or len(starts) < count:
            raise ValueError(f"it has {len(starts)} pictures instead of {count}")
        # What comes after the last picture that is needed is not decoded.
        end = starts[count] if len(starts) > count else len(stream)
        pieces.append(np.frombuffer(stream, np.uint8, end))
        counts.append(count)
    before = np.cumsum(counts) - counts
    chosen = np.concatenate([at + numbers for at, numbers in zip(before, frames, strict=True)])
    wanted, place = np.unique(chosen, return_inverse=True)
    total, size = len(wanted), rows * columns * 3
    filters = _conversion("in")
    if total < sum(counts):
        # Anything after the last one is returned, too, because it must not be there.
        chosen_by = f"if(lt(n,{wanted[-1]}),{_selection(wanted.tolist())},1)"
        filters = f"select='{chosen_by}',{filters}"
    command = [
        *(ffmpeg, *_QUIET, "-threads", "1", "-max_pixels", str(max(rows * columns, 1 << 14))),
        *("-f", "h264", "-i", "pipe:0", "-vf", filters, "-fps_mode", "passthrough"),
        *("-frames:v", str(total + 1), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"),
    ]
    try:
        content = _run(command, pieces, total * size + size)
    except DataError as error:
        raise ValueError(str(error)) from None
    if len(content) != total * size:
        raise ValueError(f"it gives {len(content) / size:g} pictures instead of {total}")
    pictures = np.frombuffer(content, np.uint8).reshape(total, rows, columns, 3)
    into_values(pictures[place][:, :height, :width, :channels], out)


def _padded(side: int) -> int:
    """Pixels of a side as it is encoded, where the encoder needs an even number."""
    return max(_LEAST, side + side % 2)


def _pictures(stream: bytes) -> list[int]:
    """Where each picture begins in a stream."""
    starts, at = [], stream.find(_DELIMITER)
    while at >= 0:
        starts.append(at)
        at = stream.find(_DELIMITER, at + len(_DELIMITER))
    return starts


def _conversion(side: str) -> str:
    """The filter between RGB and the encoder's colours."""
    return f"scale={side}_color_matrix=bt709:{side}_range=pc"


def _selection(numbers: Sequence[int]) -> str:
    """An expression of ffmpeg that is true for pictures of these numbers, in few comparisons."""
    if len(numbers) == 1:
        return f"eq(n,{numbers[0]})"
    half = len(numbers) // 2
    return f"if(lt(n,{numbers[half]}),{_selection(numbers[:half])},{_selection(numbers[half:])})"


def _run(command: Sequence[str], pieces: Sequence[np.ndarray], most: int | None = None) -> bytes:
    """Run ffmpeg on some bytes, and return what it wrote, at most this many bytes.

    Through files in memory: a child that is forked meanwhile would keep the end of a pipe open, and
    ffmpeg would wait for it.
    """
    with memory_file() as source, memory_file() as result, memory_file() as messages:
        for piece in pieces:
            rest = piece.reshape(-1).data
            while rest:
                rest = rest[source.write(rest) :]
        source.seek(0)
        try:
            process = subprocess.run(
                command, stdin=source, stdout=result, stderr=messages, start_new_session=True
            )
        except OSError as error:
            raise UnavailableError(f"Cannot start ffmpeg, '{command[0]}': {error}.") from error
        if process.returncode:
            messages.seek(0)
            text = messages.read(2000).decode(errors="replace").strip() or "it gave no reason"
            raise DataError(f"ffmpeg ended with code {process.returncode}: {text}")
        result.seek(0)
        return result.read() if most is None else result.read(most)
