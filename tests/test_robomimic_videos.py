"""Pictures in robomimic's layout as mp4 files: every one in its place, and damage is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from test_camera_env import make
from video_demos import episode, info, pictures, record

from mjlab_rec.data import open_rollouts
from mjlab_rec.data.checking import check as check_recording
from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.export import export_rollouts
from mjlab_rec.data.export.place import placed
from mjlab_rec.data.files import PathExistsError
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.robomimic import RobomimicReader, RobomimicWriter
from mjlab_rec.data.mp4 import Mp4Writer
from mjlab_rec.data.pictures.h264 import run
from mjlab_rec.data.schema import DataError, Episode
from mjlab_rec.recorders import Hdf5RecorderCfg
from mjlab_rec.recorders.pictures import with_codecs

pytest.importorskip("imageio_ffmpeg")

EYE = "run.h5.videos/obs.eye"


def check(path: Path, expected: list[Episode], most: float = 12) -> None:
    """Compare a recording with its episodes, pictures roughly."""
    with open_rollouts(path) as rollouts:
        assert rollouts.verify() == []
        assert rollouts.episodes["rows"].to_list() == [each.rows for each in expected]
        for index, each in enumerate(expected):
            for name, values in rollouts[index].items():
                right = each.arrays[name]
                assert (values.dtype, values.shape) == (right.dtype, right.shape)
                if name.endswith("eye"):
                    assert np.abs(values.astype(int) - right).mean() < most
                else:
                    assert np.array_equal(values, right)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    record(tmp_path / "run.h5")
    return tmp_path / "run.h5"


def change_row(path: Path, change: Any) -> None:
    """Change what the first episode says about its video."""
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        row = json.loads(demo.attrs["mjlab_rec"])
        del row["crc32"]
        for video in row["videos"].values():
            change(video)
        demo.attrs["mjlab_rec"] = np.bytes_(episode_table.seal(json.dumps(row)))
    os.utime(path, (0, 0))


def test_an_episode_is_a_video_and_reads_back_as_arrays(tmp_path: Path):
    expected = record(tmp_path / "run.h5")
    check(tmp_path / "run.h5", expected)
    assert names(tmp_path) == ["run.h5", f"{EYE}/demo_000000.mp4", f"{EYE}/demo_000001.mp4"]
    with h5py.File(tmp_path / "run.h5") as file:
        demo = file["data/demo_1"]
        assert "obs/eye" not in demo and "actions" in demo
        told = json.loads(demo.attrs["videos"])
    content = (tmp_path / EYE / "demo_000001.mp4").read_bytes()
    assert told["obs/eye"] == {
        "path": f"{EYE}/demo_000001.mp4",
        "first": 0,
        "frames": 4,  # The one after the last row is that of next_obs.
        "bytes": len(content),
        "crc32": crc32(content),
        "codec": "h264:18",
    }
    assert told["next_obs/eye"] == {**told["obs/eye"], "first": 1}
    # The next picture is the picture of the next row, also after encoding.
    with open_rollouts(tmp_path / "run.h5") as rollouts:
        found = rollouts[1]
        assert np.array_equal(found["obs/eye"][1:], found["next_obs/eye"][:-1])
        found["obs/eye"][:] = 0
        assert found["next_obs/eye"].any()


@pytest.mark.parametrize("shape", [(15, 31, 3), (3, 16, 31), (16, 32), (16, 32, 1)], ids=str)
def test_shapes_of_pictures(shape: tuple[int, ...], tmp_path: Path):
    writer = RobomimicWriter(info(shape=shape), WriterOptions(path=str(tmp_path / "run.h5")))
    expected = episode(0, shape=shape)
    writer.write_episode(expected)
    writer.close()
    check(tmp_path / "run.h5", [expected])


def test_a_next_picture_of_its_own_is_another_video(tmp_path: Path):
    expected = episode(0)
    expected.arrays["next_obs/eye"] = pictures(20, 3)
    writer = RobomimicWriter(info(), WriterOptions(path=str(tmp_path / "run.h5")))
    writer.write_episode(expected)
    writer.close()
    check(tmp_path / "run.h5", [expected])
    assert f"{EYE.replace('obs', 'next_obs')}/demo_000000.mp4" in names(tmp_path)


def test_parts_and_appended_episodes_are_numbered_like_their_demos(tmp_path: Path):
    path = tmp_path / "run.h5"
    expected = record(path, roll_over_bytes=1)
    expected += record(path, range(2), if_exists="append")
    check(path, expected)
    part = "run.part001.h5.videos/obs.eye/demo_000000.mp4"
    assert {f"{EYE}/demo_000000.mp4", part} < set(names(tmp_path))
    assert len(names(tmp_path)) == 3 + 4
    with pytest.raises(DataError, match=r"other channels \(changed: obs/eye, next_obs/eye\)"):
        RobomimicWriter(info(codec="h264:20"), WriterOptions(path=str(path), if_exists="append"))


def test_videos_count_for_the_size_at_which_the_next_part_begins(tmp_path: Path):
    writer = RobomimicWriter(info(), WriterOptions(path=str(tmp_path / "run.h5")))
    before = writer.nbytes
    writer.write_episode(episode(0))
    videos = sum(p.stat().st_size for p in (tmp_path / EYE).iterdir())
    assert writer.nbytes - before >= videos > 1000
    writer.close()


def test_what_exists(path: Path):
    folder = path.parent
    with pytest.raises(PathExistsError):
        record(path)
    assert len(names(folder)) == 3
    (folder / "run.h5.videos/mine.txt").write_text("not a video")
    (folder / EYE / ".demo_000001.mp4.lock").touch()  # as a kill leaves it
    writer = RobomimicWriter(info(), WriterOptions(path=str(path), if_exists="number"))
    writer.write_episode(episode(0))
    writer.close()
    assert writer.files == [folder / "run_1.h5"]
    assert "run_1.h5.videos/obs.eye/demo_000000.mp4" in names(folder)
    # Only what a recorder wrote is removed, also by one that writes no videos.
    arrays = RobomimicWriter(info(codec=""), WriterOptions(path=str(path), if_exists="overwrite"))
    arrays.close()
    kept = [n for n in names(folder) if "_1" not in n]
    assert kept == ["run.h5", "run.h5.videos/mine.txt"]
    record(path, [5], if_exists="overwrite")
    check(path, [episode(5)])
    path.unlink()
    (folder / "run.h5.videos").rename(folder / "moved")
    (folder / "run.h5.videos").symlink_to(folder / "moved")
    with pytest.raises(DataError, match="is a link or a file"):
        record(path, if_exists="overwrite")
    assert "moved/obs.eye/demo_000000.mp4" in names(folder)


def test_a_video_of_another_program_is_not_replaced(tmp_path: Path):
    writer = RobomimicWriter(info(), WriterOptions(path=str(tmp_path / "run.h5")))
    other = tmp_path / EYE / "demo_000000.mp4"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"other")
    with pytest.raises(PathExistsError):
        writer.write_episode(episode(0))
    assert other.read_bytes() == b"other"
    writer.close()


def test_videos_without_their_file_are_not_replaced_unasked(path: Path):
    path.unlink()
    with pytest.raises(DataError, match=r"'.*run.h5.videos' has videos already, but there is no"):
        record(path)
    assert len(names(path.parent)) == 2
    writer = RobomimicWriter(info(), WriterOptions(path=str(path), if_exists="number"))
    assert writer.files[0].name == "run_1.h5"
    writer.close()
    check(path, record(path, [3], if_exists="overwrite"))
    assert len([n for n in names(path.parent) if "_1" not in n]) == 2


KILLED = """
import os, signal, sys
from video_demos import RobomimicWriter, WriterOptions, episode, info
writer = RobomimicWriter(info(), WriterOptions(path=sys.argv[1]))
writer.write_episode(episode(0))
writer._put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
writer.write_episode(episode(1))
"""


def test_a_kill_leaves_at_most_a_video_without_an_episode(tmp_path: Path):
    path = tmp_path / "run.h5"
    paths = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], env={**os.environ, "PYTHONPATH": paths}
    )
    assert ended.returncode == -signal.SIGKILL
    assert f"{EYE}/demo_000001.mp4" in names(tmp_path)
    check(path, [episode(0)])
    expected = record(path, [1], if_exists="append")
    check(path, [episode(0), *expected])


def test_a_video_that_cannot_be_written_can_be_tried_again(tmp_path: Path, monkeypatch):
    path = tmp_path / "run.h5"
    writer = RobomimicWriter(info(), WriterOptions(path=str(path)))
    writer.write_episode(episode(0))
    with monkeypatch.context() as patch:
        patch.setattr("mjlab_rec.data.mp4.Mp4Writer.close", failing_close())
        with pytest.raises(DataError, match="no room"):
            writer.write_episode(episode(1))
    assert f"{EYE}/demo_000001.mp4" not in names(tmp_path)
    writer.write_episode(episode(1))
    writer.close()
    check(path, [episode(0), episode(1)])


def failing_close() -> Any:
    close = Mp4Writer.close

    def failing(writer: Any) -> None:
        close(writer)
        raise DataError("no room")

    return failing


def test_a_damaged_video_is_noticed_and_the_rest_can_be_read(path: Path):
    first, second = sorted((path.parent / EYE).iterdir())
    whole, other = first.read_bytes(), second.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, why in [
        (whole[:-1], f"it has {len(whole) - 1} bytes instead of {len(whole)}"),
        (whole + b"x", f"more bytes instead of {len(whole)}"),
        (bytes(flipped), "wrong checksum"),
        (other.ljust(len(whole), b"\0")[: len(whole)], "wrong checksum"),
        (b"", "it has 0 bytes"),
    ]:
        first.write_bytes(content)
        with open_rollouts(path) as rollouts:
            found = rollouts.verify()
            assert len(found) == 2  # of the pictures, and of the next pictures
            assert why in found[0] and str(first) in found[0] and "'obs/eye'" in found[0]
            assert np.array_equal(rollouts.reader.read(0, ["reward"])["reward"], np.ones(3))
            assert rollouts[1]["obs/eye"].any()
        texts = [finding.text for finding in check_recording(path).findings]
        assert any(why in text for text in texts)


def test_a_missing_or_linked_video_is_an_error(path: Path):
    first, second = sorted((path.parent / EYE).iterdir())
    kept = first.read_bytes()
    first.unlink()
    with pytest.raises(DataError, match="is missing. Keep the folder 'run.h5.videos' next to"):
        read_first(path)
    first.symlink_to(second)
    with pytest.raises(DataError, match="Links are not followed"):
        read_first(path)
    first.unlink()
    first.write_bytes(kept)
    (path.parent / "run.h5.videos").rename(path.parent / "moved")
    (path.parent / "run.h5.videos").symlink_to(path.parent / "moved")
    with pytest.raises(DataError, match="Links are not followed"):
        read_first(path)


def read_first(path: Path, check: bool = True) -> np.ndarray:
    reader = RobomimicReader(path, check=check)
    try:
        return reader.read(0, ["obs/eye"])["obs/eye"]
    finally:
        reader.close()


@pytest.mark.parametrize(
    "fields, why",
    [
        ({"path": "/etc/hostname.mp4"}, "list of an episode's videos cannot be read"),
        ({"path": "../run.h5.videos/demo.mp4"}, "cannot be read"),
        ({"path": "run.h5.videos/../demo.mp4"}, "cannot be read"),
        ({"path": "run.h5.videos/obs.eye/demo.h5"}, "cannot be read"),
        ({"path": ["a"]}, "cannot be read"),
        ({"frames": 1 << 40}, "cannot be read"),
        ({"first": -1}, "must be a whole number"),
        ({"codec": "png"}, "cannot be read"),
        ({"bytes": 3}, "4 pictures cannot have 3 bytes"),
        ({"bytes": 1 << 40}, "4 pictures cannot have"),
        ({"more": 1}, "cannot be read"),
    ],
    ids=str,
)
def test_an_impossible_video_is_refused(fields: dict[str, Any], why: str, path: Path):
    change_row(path, lambda video: video.update(fields))
    reader = RobomimicReader(path)
    try:
        found = reader.verify()
    finally:
        reader.close()
    assert why in found[0]


def test_a_video_of_something_else_is_refused_without_checksums(path: Path, ffmpeg: str):
    video = path.parent / EYE / "demo_000000.mp4"

    def replaced(*options: str, count: int = 4, size: str = "32x16") -> None:
        video.unlink()
        raw = np.zeros(1 << 20, np.uint8)
        source = f"-f rawvideo -pixel_format rgb24 -video_size {size} -i pipe:0 -frames:v {count}"
        run([ffmpeg, "-loglevel", "error", "-y", *source.split(), *options, str(video)], [raw])
        change_row(path, lambda told: told.update(bytes=video.stat().st_size))

    with pytest.raises(DataError, match="wrong checksum"):
        replaced()
        read_first(path)
    assert not read_first(path, check=False).any()
    for options, fields in [
        ((), {"count": 3}),
        ((), {"count": 9}),
        ((), {"size": "16x16"}),
        ((), {"size": "320x160"}),
        (("-c:v", "mpeg4"), {}),
        (("-f", "matroska"), {}),
    ]:
        replaced(*options, **fields)
        with pytest.raises(DataError, match="is damaged"):
            read_first(path, check=False)


def test_export_and_results_that_are_put_in_place(path: Path, tmp_path: Path):
    export_rollouts(path, tmp_path / "blocks.h5", "hdf5")
    with open_rollouts(path) as first, open_rollouts(tmp_path / "blocks.h5") as second:
        assert np.abs(first[1]["obs/eye"].astype(int) - second[1]["obs/eye"]).mean() < 4
    export_rollouts(path, tmp_path / "demos.hdf5", "robomimic")
    with open_rollouts(path) as first, h5py.File(tmp_path / "demos.hdf5") as second:
        assert np.array_equal(first[1]["obs/eye"], second["data/demo_1/obs/eye"])
    with placed(path, "overwrite") as (staged, final):
        record(staged, [2])
    assert final == path
    check(path, [episode(2)])
    assert [n for n in names(tmp_path) if "run" in n] == ["run.h5", f"{EYE}/demo_000000.mp4"]
    (tmp_path / "run.h5.videos/mine.txt").write_text("not a video")
    with (
        pytest.raises(DataError, match="is not replaced: .* such as 'mine.txt'"),
        placed(path, "overwrite") as (staged, _),
    ):
        record(staged, [3])
    check(path, [episode(2)])
    with pytest.raises(KeyError), placed(tmp_path / "new.h5", "error") as (staged, _):
        record(staged)
        raise KeyError
    assert not [n for n in os.listdir(tmp_path) if "new" in n]


def test_a_recorder_writes_videos_only_where_asked(tmp_path: Path):
    channels = ("obs/eye/rgb", "next_obs/eye/rgb", "action", "terminated", "truncated")

    def cfg(name: str, pictures: Any) -> Hdf5RecorderCfg:
        path = str(tmp_path / f"{name}.h5")
        return Hdf5RecorderCfg(path=path, layout="episodes", channels=channels, pictures=pictures)

    env = make(recorders={"raw": cfg("raw", None), "video": cfg("video", {"obs/eye/rgb": "h264"})})
    env.reset(seed=0)
    for _ in range(3):
        env.step(torch.ones(4, 1))
    env.close()
    with open_rollouts(tmp_path / "raw.h5") as raw, open_rollouts(tmp_path / "video.h5") as video:
        assert video.channels["obs/eye/rgb"].codec == "h264:18"
        assert len(raw) == len(video) == 4
        for index in range(4):
            for name, values in raw[index].items():
                found = video[index][name]
                assert np.abs(values.astype(float) - found.astype(float)).mean() < 8
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["video.h5.videos"]
    with pytest.raises(ValueError, match="RobomimicWriter cannot .* Possible: 'raw', 'h264'"):
        with_codecs(info().channels, "png", RobomimicWriter.codecs, "RobomimicWriter", False)


def test_videos_are_downloaded_with_their_file(path: Path):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.put(f"{path.parent}/", "/with_videos/", recursive=True)
    try:
        for url in ("memory://with_videos/run.h5", "memory://with_videos"):
            with open_rollouts(url) as rollouts:
                assert rollouts.verify() == []
    finally:
        store.rm("/with_videos", recursive=True)
