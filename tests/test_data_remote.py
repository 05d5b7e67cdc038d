"""Recordings at a URL: opened, and followed while their files are uploaded."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_worlds import World
from test_data_following import NAMES, Clock, by_episode, check_same, writing

from mjlab_rec.data import DataError, follow, open_rollouts

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["memory", "file", "s3"])
def bucket(request, tmp_path, monkeypatch) -> Iterator[str]:
    """A URL, at which there is nothing."""
    with contextlib.ExitStack() as stack:
        if request.param == "s3":
            stack.enter_context(s3_server(monkeypatch))
        url = (
            f"file://{tmp_path}/bucket" if request.param == "file" else f"{request.param}://bucket"
        )
        yield url
        store, place = fsspec.url_to_fs(url)
        if store.exists(place):
            store.rm(place, recursive=True)


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server on this machine that speaks like Amazon's S3, with an empty bucket."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield
    server.stop()


def upload(path: Path, url: str) -> None:
    """Upload a file, or a folder with all that is in it."""
    store, place = fsspec.url_to_fs(url)
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            target = place if file == path else f"{place}/{file.relative_to(path).as_posix()}"
            store.makedirs(target.rpartition("/")[0], exist_ok=True)
            store.put_file(str(file), target)


def left_in(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("mjlab_rec-")]


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Iterator[None]:
    """A folder for temporary files, in which nothing is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    assert not left_in(str(tmp_path))


def test_parts_that_are_uploaded_one_by_one_are_followed(tmp_path, bucket):
    path = tmp_path / "run.h5"

    def uploading() -> Iterator[None]:
        for _ in writing(path, World(steps=30, block_rows=7), roll_over_bytes=1):
            for part in tmp_path.glob("run*.h5"):
                upload(part, f"{bucket}/{part.name}")
            yield

    clock = Clock(uploading())
    follower = clock.follow(f"{bucket}/run.h5", timeout_s=20)
    items = list(follower)
    assert len(list(tmp_path.glob("run*.h5"))) > 2
    assert follower.finished and [each.name for each in follower.paths] == ["run.h5"]
    assert clock.now >= 2 * len(items) > 6, "It looks every two seconds."
    check_same(by_episode(items), path)


def test_a_file_that_is_uploaded_again_and_again_is_followed(tmp_path, bucket):
    path = tmp_path / "run.h5"

    def uploading() -> Iterator[None]:
        for _ in writing(path, World(steps=30, block_rows=7)):
            upload(path, f"{bucket}/runs/run.h5")
            yield

    follower = Clock(uploading()).follow(f"{bucket}/runs", ["reward"], batch_size=10)
    items = list(follower)
    assert follower.finished
    assert list(items[0]) == ["recording", "env", "episode", "step", "reward"]
    check_same(by_episode(items, "recording"), path, (0,))


@pytest.mark.parametrize("format", ["hdf5", "npz"])
def test_finished_shards_of_a_collection_are_followed(tmp_path, bucket, format):
    shards = [tmp_path / f"shard-0000{number}" for number in (1, 0, 2)]
    for number, shard in enumerate(shards):
        list(writing(shard / NAMES[format], World(steps=15, seed=number), format, blocks=False))
        about = {"shard": number, "shards": 3, "rank": 0, "finished": True}
        (shard / "worker.json").write_text(json.dumps(about))

    def uploading() -> Iterator[None]:
        store, place = fsspec.url_to_fs(bucket)
        store.makedirs(f"{place}/run", exist_ok=True)
        store.pipe_file(f"{place}/run/collect.json", b'{"shards": 3, "episodes": 9}')
        for shard in shards:
            whole = sorted(file for file in shard.rglob("*") if file.is_file())
            for file in sorted(whole, key=lambda file: file.name == "worker.json"):
                upload(file, f"{bucket}/run/{file.relative_to(tmp_path).as_posix()}")
                yield

    follower = Clock(uploading()).follow(f"{bucket}/run")
    items = []
    for rows in follower:
        items.append(rows)
        copies = [path for path in follower.paths if path.exists()]
        assert len(copies) <= 1, "What was read is removed."
    assert follower.finished
    assert [path.parent.name for path in follower.paths] == [shard.name for shard in shards]
    found = by_episode(items, "recording")
    for number, shard in enumerate(shards):
        check_same(found, shard / NAMES[format], (number,))
    with open_rollouts(f"{bucket}/run") as rollouts:
        assert len(rollouts) == len(found)


def test_refreshing_reads_the_shards_that_were_finished_since(tmp_path, bucket):
    for number in range(2):
        shard = tmp_path / f"run/shard-0000{number}"
        list(writing(shard / "run.h5", World(steps=15, seed=number)))
        (shard / "worker.json").write_text("{}")
    (tmp_path / "run/collect.json").write_text("{}")
    upload(tmp_path / "run/collect.json", f"{bucket}/run/collect.json")
    upload(tmp_path / "run/shard-00000", f"{bucket}/run/shard-00000")
    with open_rollouts(f"{bucket}/run") as rollouts:
        before = rollouts.rows
        upload(tmp_path / "run/shard-00001/run.h5", f"{bucket}/run/shard-00001/run.h5")
        assert rollouts.refresh() == 0, "It is not finished."
        upload(tmp_path / "run/shard-00001/worker.json", f"{bucket}/run/shard-00001/worker.json")
        assert rollouts.refresh() == before == rollouts.rows // 2
        assert rollouts.refresh() == 0


def test_what_never_appears_at_a_url_is_a_clear_error(bucket):
    with pytest.raises(DataError, match="nothing new in '.*none.h5' for 9 seconds"):
        list(Clock().follow(f"{bucket}/none.h5", timeout_s=9))
    follow(f"{bucket}/none.h5").close()
    with pytest.raises(DataError, match="'nosuch://a' is not the URL of a file system"):
        follow("nosuch://a")
