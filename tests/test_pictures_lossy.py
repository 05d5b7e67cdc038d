"""JPEG and H.264: pictures change only a little, and every one is in its place."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
import pytest
from picture_worlds import PictureWorld, scene
from test_data_formats import KINDS, read, record

from mjlab_rec.data import open_rollouts
from mjlab_rec.data.pictures import h264, jpeg
from mjlab_rec.data.pictures.codec import as_pictures, parse
from mjlab_rec.data.pictures.crew import Crew
from mjlab_rec.data.pictures.encoding import ENTRY_DTYPE, PictureCoder
from mjlab_rec.data.schema import ChannelSpec, DataError

pytest.importorskip("PIL.Image")  # An independent reader.
pytest.importorskip("simplejpeg")
pytest.importorskip("imageio_ffmpeg")

CODECS = pytest.mark.parametrize("codec", ["jpeg:90", "h264:18"])
KINDS_OF_PICTURES = {
    "obs/eye": ("uint8", (33, 21, 3)),
    "obs/first": ("uint8", (3, 24, 32)),
    "obs/grey": ("uint8", (24, 24)),
    "obs/scaled": ("float32", (3, 24, 24)),
}


def coder(codec: str, shape: tuple[int, ...], dtype: str = "uint8") -> PictureCoder:
    spec = ChannelSpec(name="obs/eye", dtype=np.dtype(dtype), shape=shape, codec=str(parse(codec)))
    return PictureCoder(spec, "The test")


def decode(coder: PictureCoder, content: bytes, entries: np.ndarray, out: np.ndarray) -> None:
    def read(place: int) -> bytes:
        at, size = int(entries["at"][place]), int(entries["size"][place])
        return content[at : at + size]

    def failure(place: int, why: str) -> DataError:
        return DataError(f"picture {place}: {why}")

    sources = np.zeros(len(entries), int)
    coder.decode(entries, sources, read, out, Crew("test", threads=2), failure)


def numbered(count: int, shape: tuple[int, int, int] = (24, 32, 3)) -> np.ndarray:
    """Pictures that show their number in bits, as bright or dark areas."""
    height, width, _ = shape
    pictures = np.full((count, *shape), 40, np.uint8)
    for number in range(count):
        for bit in range(8):
            if number >> bit & 1:
                pictures[number, :, bit * width // 8 : (bit + 1) * width // 8] = 200
    return pictures


def numbers(pictures: np.ndarray) -> list[int]:
    """The numbers that pictures show."""
    width = pictures.shape[2]
    bright = [
        pictures[:, :, bit * width // 8 : (bit + 1) * width // 8].mean(axis=(1, 2, 3)) > 120
        for bit in range(8)
    ]
    return sum(flag.astype(int) << bit for bit, flag in enumerate(bright)).tolist()  # type: ignore[union-attr]


@CODECS
def test_every_picture_is_found_at_its_place_in_any_order(codec):
    clips = [numbered(60)[:13], numbered(60)[13:14], numbered(60)[14:60]]
    one = coder(codec, (24, 32, 3))
    encoded = one.encode(clips, Crew("test", threads=2))
    assert [len(entries) for entries in encoded.entries] == [13, 1, 46]
    entries, content = np.concatenate(encoded.entries), b"".join(encoded.pieces)
    order = np.random.default_rng(0).permutation(60)
    chosen = np.concatenate([order, order[:7]])  # Some of them twice.
    out = np.empty((len(chosen), 24, 32, 3), np.uint8)
    decode(one, content, entries[chosen], out)
    assert numbers(out) == chosen.tolist()
    if codec.startswith("h264"):
        assert len(np.unique(entries["at"])) == 4 + 1 + 12  # Streams of four pictures.


@CODECS
def test_a_better_quality_is_closer_and_larger(codec):
    rng, shape = np.random.default_rng(0), (40, 40, 3)
    clip = np.stack([scene(rng, shape) for _ in range(8)])
    found = []
    for quality in ("jpeg:30", "jpeg:95") if codec.startswith("jpeg") else ("h264:35", "h264:10"):
        one = coder(quality, shape)
        encoded = one.encode([clip], Crew("test", threads=1))
        out = np.empty_like(clip)
        decode(one, b"".join(encoded.pieces), encoded.entries[0], out)
        found.append((np.abs(out.astype(int) - clip).mean(), encoded.nbytes))
    (far, small), (near, large) = found
    assert near < 0.6 * far and near < 3 and small < large < clip.nbytes


@CODECS
@pytest.mark.parametrize("name", ["hdf5", "hdf5 by episodes"])
def test_lossy_pictures_of_all_shapes_are_close_to_what_was_recorded(name, codec, tmp_path):
    kind = KINDS[name]
    world = PictureWorld(codec=codec, kinds=KINDS_OF_PICTURES, noise=False, steps=10)
    with read(record(kind, tmp_path, world)) as rollouts:
        assert rollouts.verify() == [] and rollouts.rows == len(world.rows)
        assert rollouts.channels["obs/eye"].codec == codec
        truth = {(row.env, row.number, row.step): row.values for row in world.rows}
        for index, row in enumerate(rollouts.episodes.iter_rows(named=True)):
            found = rollouts[index]
            for at, step in enumerate(found["step"].tolist()):
                values = truth[row["env"], row["number"], step]
                for name in KINDS_OF_PICTURES:
                    scale = 255 if name == "obs/scaled" else 1
                    for each in (name, f"next_{name}"):
                        off = scale * np.abs(found[each][at].astype(float) - values[each])
                        assert off.mean() < 6, (each, at)


def test_other_programs_read_the_files(tmp_path):
    from PIL import Image

    kind = KINDS["hdf5"]
    world = PictureWorld(codec="jpeg:95", kinds={"obs/eye": ("uint8", (16, 24, 3))}, noise=False)
    record(kind, tmp_path, world)
    with h5py.File(tmp_path / kind.path) as file:
        entry: Any = file["blocks/obs/eye"][0, 0, 2]  # type: ignore[index]
        content: Any = file["encoded/obs/eye"][entry["at"] : entry["at"] + entry["size"]]  # type: ignore[index]
        image = Image.open(io.BytesIO(content.tobytes()))
        assert (image.format, image.size) == ("JPEG", (24, 16))


@CODECS
def test_what_is_not_the_channels_picture_is_refused(codec):
    one, other = coder(codec, (24, 32, 3)), coder(codec, (48, 32, 3))
    encoded = other.encode([numbered(3, (48, 32, 3))], Crew("test", threads=1))
    out = np.empty((3, 24, 32, 3), np.uint8)
    with pytest.raises(DataError, match="picture 0: it"):
        decode(one, b"".join(encoded.pieces), encoded.entries[0], out)
    entries = np.zeros(3, ENTRY_DTYPE)
    entries["size"] = 50
    with pytest.raises(DataError, match="picture .: it"):
        decode(one, bytes(range(100)), entries, out)


def test_a_video_with_fewer_pictures_than_its_entry_says_is_refused():
    one = coder("h264", (24, 32, 3))
    encoded = one.encode([numbered(4)], Crew("test", threads=1))
    entries = encoded.entries[0].copy()
    out = np.empty((4, 24, 32, 3), np.uint8)
    entries["frame"][3] = 7
    with pytest.raises(DataError, match="it has 4 pictures instead of 8"):
        decode(one, encoded.pieces[0], entries, out)
    entries["frame"][3] = 65535
    with pytest.raises(DataError, match="it is picture 65536 of a video, which can have 16"):
        decode(one, encoded.pieces[0], entries, out)


def test_a_video_with_more_or_fewer_pictures_than_it_seems_to_have_is_refused():
    one = coder("h264", (24, 32, 3))
    encoded = one.encode([numbered(4), numbered(4)], Crew("test", threads=1))
    first, second = encoded.pieces
    entries = np.concatenate(encoded.entries)[[3, 7]]
    out = np.empty((2, 24, 32, 3), np.uint8)
    decode(one, first + second, entries, out)
    assert numbers(out) == [3, 3]
    starts = [at for at in range(len(first)) if first[at : at + 5] == b"\0\0\0\1\x09"]
    # A picture whose beginning cannot be seen, and one that cannot be decoded.
    hidden = first[: starts[3]] + b"\0\0\0\1\x0c" + first[starts[3] + 5 :]
    broken = first[: starts[2] + 6] + bytes(starts[3] - starts[2] - 6) + first[starts[3] :]
    entries["frame"][0] = 2
    for content, frame in ((hidden, 2), (broken, 3)):
        entries["frame"][0] = frame
        with pytest.raises(DataError, match="picture 0: it gives . pictures instead of"):
            decode(one, content + second, entries, out)


@CODECS
def test_floats_outside_of_0_to_1_are_refused(codec):
    one = coder(codec, (16, 16, 3), "float32")
    clip = np.full((2, 16, 16, 3), 0.5, np.float32)
    clip[1, 3, 3] = 1.5
    with pytest.raises(DataError, match="'obs/eye' has values outside of 0 to 1"):
        one.encode([clip], Crew("test", threads=1))
    clip[1, 3, 3] = np.nan
    with pytest.raises(DataError, match="outside of 0 to 1"):
        one.encode([clip], Crew("test", threads=1))


def test_an_error_of_ffmpeg_is_passed_on(tmp_path):
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho no such codec >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(DataError, match="ffmpeg ended with code 3: no such codec"):
        h264.encode([numbered(2)], 18, str(script))


@CODECS
def test_a_damaged_file_is_named(codec, tmp_path):
    kind = KINDS["hdf5"]
    world = PictureWorld(codec=codec, kinds={"obs/eye": ("uint8", (16, 24, 3))}, ends=False)
    record(kind, tmp_path, replace(world, noise=False))
    path = tmp_path / kind.path
    with h5py.File(path, "r+") as file:
        entry: Any = file["blocks/obs/eye"][1, 2, 3]  # type: ignore[index]
        file["encoded/obs/eye"][int(entry["at"]) + 40] ^= 1  # type: ignore[index]
    with open_rollouts(path) as rollouts:
        with pytest.raises(DataError, match="block 1 .*a picture of 'obs/eye' .* wrong checksum"):
            rollouts.read(2, ["obs/eye"])
        rollouts.read(1, ["obs/eye"])
        assert len(rollouts.verify()) == 1


@pytest.mark.parametrize("shape", [(33, 21, 3), (24, 24), (3, 24, 32)], ids=str)
def test_jpeg_files_are_as_another_program_reads_them_or_are_refused(shape):
    from PIL import Image

    values = np.stack([scene(np.random.default_rng(seed), shape) for seed in range(3)])
    files = jpeg.encode(values, 90)
    found = np.empty_like(values)
    jpeg.decode(files, found)
    assert np.abs(found.astype(int) - values).mean() < 3
    for file, picture in zip(files, as_pictures(found), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), picture.squeeze())
    for damaged in (b"", files[0][:40], files[0][:-100]):
        with pytest.raises(ValueError, match="it cannot be decoded"):
            jpeg.decode([damaged], np.empty_like(values[:1]))
    with pytest.raises(ValueError, match=r"it is a picture of \(\d+, \d+\) and"):
        jpeg.decode(files[:1], np.empty((1, 8, 8, 3), np.uint8))
