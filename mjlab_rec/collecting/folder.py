"""The folder of a collection: a folder for each finished shard, and no other shared state.

    DIR/collect.json                 the plan, written once
    DIR/shard-00007/worker.json      who played the shard
    DIR/shard-00007/hdf5.h5          what was recorded
    DIR/.shard-00007.x3f/            a shard that is being played, or was when its worker was killed

A shard is written into a hidden folder and appears when it is complete. In an object store its
files are uploaded when it is complete, worker.json last. So there is no lock: if two workers play
a shard, both have the same episodes, and the first one's are kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from mjlab_rec.collecting.plan import Plan, Shard
from mjlab_rec.data.files import local_path
from mjlab_rec.data.formats.plain_files import reason, sync_to_disk
from mjlab_rec.data.remote import is_url, store_of
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.workers import PLAN as PLAN
from mjlab_rec.data.workers import WORKER as WORKER

_SHARD = re.compile(r"shard-(\d{5,})")
_HIDDEN = re.compile(r"\.(shard-\d{5,}|collect\.json)\..+")


class CollectError(DataError):
    """Something is wrong with the folder of a collection."""


class Folder:
    """A folder of a collection, which many processes may use at once.

    Args:
        where: A path, or a URL of a file system that fsspec knows, such as ``s3://bucket/run``.
    """

    def __init__(self, where: str | Path) -> None:
        self._store: _Disk | _Remote
        if is_url(str(where)):
            self._store = _Remote(str(where))
        else:
            self._store = _Disk(local_path(where).absolute())
        self.where = self._store.where
        """The absolute path, or the URL."""

    @property
    def is_remote(self) -> bool:
        """Whether it is not in this machine's file system."""
        return isinstance(self._store, _Remote)

    def plan(self) -> Plan | None:
        """The plan that the folder was begun with; None if it was not."""
        content = self._store.read(PLAN)
        return None if content is None else Plan.from_json(content, f"{self.where}/{PLAN}")

    def claim(self, plan: Plan) -> None:
        """Begin with a plan, or go on with the same plan; raises if the folder has another."""
        if (planned := self.plan()) is None:
            if finished := self.finished():
                raise CollectError(
                    f"'{self.where}' has {len(finished)} finished shards but no {PLAN}, so what"
                    " they are is unknown. Restore that file, or collect into another folder."
                )
            self._store.create(PLAN, plan.to_json())
            planned = self.plan()
        if planned is None:
            raise CollectError(f"'{self.where}/{PLAN}' was written, but cannot be found.")
        plan.check_same(planned, self.where)

    def finished(self) -> set[int]:
        """Numbers of the shards that are complete."""
        return {int(match[1]) for name in self._store.shards() if (match := _SHARD.fullmatch(name))}

    def missing(self, plan: Plan) -> list[Shard]:
        """The shards that are not complete."""
        names = set(self._store.shards())
        missing = [shard for shard in plan.shards if shard.name not in names]
        if len(names) != len(plan.shards) - len(missing):
            strange = min(names - {shard.name for shard in plan.shards})
            raise CollectError(
                f"'{self.where}/{strange}' is none of the {len(plan.shards)} shards of this"
                " collection. Move it elsewhere: readers of the folder would read it, too."
            )
        return missing

    def clean(self) -> None:
        """Remove what is left of workers that were killed while they played a finished shard.

        One that still plays it finds it finished, and ends without an error.
        """
        self._store.clean()

    def path_of(self, shard: Shard) -> str:
        """Path or URL of a shard's folder."""
        return f"{self.where}/{shard.name}"

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[Path]:
        """Yield an empty folder; what is in it afterwards is the shard, unless an error occurs."""
        with self._store.scratch(shard) as path:
            yield path
            self._store.publish(path, shard)

    def worker(self, shard: Shard) -> dict[str, Any]:
        """What worker.json says about a shard; empty if it is not complete."""
        content = self._store.read(f"{shard.name}/{WORKER}")
        return json.loads(content) if content else {}


class _Disk:
    """A folder in this machine's file system, which others may have mounted, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CollectError(f"Cannot read '{self.path / name}': {reason(error)}.") from error

    def create(self, name: str, content: bytes) -> None:
        """Write a file, unless it exists."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            hidden = self.path / f".{name}.{uuid4().hex}"
            try:
                hidden.write_bytes(content)
                sync_to_disk(hidden)
                try:
                    os.link(hidden, self.path / name)  # Fails if it exists, as a rename does not.
                except FileExistsError:
                    pass
                except OSError:  # Not all file systems have links.
                    if not (self.path / name).exists():
                        os.replace(hidden, self.path / name)
            finally:
                hidden.unlink(missing_ok=True)
        except OSError as error:
            raise CollectError(f"Cannot write to '{self.path}': {reason(error)}.") from error

    def shards(self) -> list[str]:
        try:
            names = [name for name in os.listdir(self.path) if _SHARD.fullmatch(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CollectError(f"Cannot read '{self.path}': {reason(error)}.") from error
        for name in names:
            if not os.path.exists(f"{self.path}/{name}/{WORKER}"):
                raise CollectError(
                    f"'{self.path / name}' has no {WORKER}, so it is not complete: perhaps it is"
                    " being copied. If not, remove it, and its shard is collected again."
                )
        return names

    @contextmanager
    def scratch(self, shard: Shard) -> Iterator[Path]:
        path = self.path / f".{shard.name}.{uuid4().hex}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise CollectError(f"Cannot write to '{self.path}': {reason(error)}.") from error
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, path: Path, shard: Shard) -> None:
        """Move a shard to its place, if it is not there yet."""
        target = self.path / shard.name
        try:
            for file in (*path.rglob("*"), path):
                sync_to_disk(file)
            os.rename(path, target)
            sync_to_disk(self.path)
        except OSError as error:
            if not (target / WORKER).is_file():
                raise CollectError(f"Cannot write '{target}': {reason(error)}.") from error

    def clean(self) -> None:
        for name in os.listdir(self.path):
            match = _HIDDEN.fullmatch(name)
            if match is None or not (self.path / match[1]).exists():
                continue
            if match[1] == PLAN:
                (self.path / name).unlink(missing_ok=True)
            else:
                shutil.rmtree(self.path / name, ignore_errors=True)


class _Remote:
    """A folder in a file system that fsspec knows, such as an object store."""

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        self._fs, self._path = store_of(self.where)

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # Each file system has its own classes of errors.
            raise CollectError(f"Cannot {what} '{self.where}': {error!r}.") from error

    def read(self, name: str) -> bytes | None:
        with self._reaching("read"):
            try:
                return self._fs.cat_file(f"{self._path}/{name}")
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> None:
        with self._reaching("write to"):
            self._fs.makedirs(self._path, exist_ok=True)
            self._fs.pipe_file(f"{self._path}/{name}", content)

    def shards(self) -> list[str]:
        with self._reaching("read"):
            self._fs.invalidate_cache()
            paths = self._fs.glob(f"{self._path}/shard-*/{WORKER}")
        return [path.split("/")[-2] for path in paths]

    @contextmanager
    def scratch(self, shard: Shard) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=f"{shard.name}.") as folder:
            yield Path(folder)

    def publish(self, path: Path, shard: Shard) -> None:
        """Upload a shard, if it is not there yet; worker.json, which says so, comes last."""
        target = f"{self._path}/{shard.name}"
        files = sorted(file for file in path.rglob("*") if file.is_file())
        files.sort(key=lambda file: file == path / WORKER)
        with self._reaching(f"upload {shard.name} to"):
            self._fs.invalidate_cache()
            if self._fs.exists(f"{target}/{WORKER}"):
                return
            for file in files:
                to = f"{target}/{file.relative_to(path).as_posix()}"
                self._fs.makedirs(to.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(file), to)

    def clean(self) -> None:
        """Do nothing: workers write to temporary folders of their machines."""

    def files(self, name: str) -> list[str]:
        """Names of the files of a shard, relative to its folder."""
        root = f"{self._path}/{name}"
        with self._reaching("read"):
            return [path[len(root) + 1 :] for path in self._fs.find(root)]

    def get(self, name: str, to: Path) -> None:
        with self._reaching("download from"):
            self._fs.get_file(f"{self._path}/{name}", str(to))


def download(url: str, folder: str | Path) -> list[Path]:
    """Copy the finished shards of a collection from a URL into a folder, to open them there.

    Call it again to get what has been finished since: what is in the folder is not copied again.

    Args:
        url: Where the collection is.
        folder: A folder of this machine.

    Returns:
        The folders of the new shards.
    """
    remote, here = _Remote(url), Folder(folder)
    content = remote.read(PLAN)
    if content is None:
        raise CollectError(f"There is no collection at '{url}': it has no {PLAN}.")
    plan = Plan.from_json(content, f"{url}/{PLAN}")
    here.claim(plan)
    there, new = set(remote.shards()), []
    for shard in here.missing(plan):
        if shard.name not in there:
            continue
        with here.writing(shard) as path:
            for name in remote.files(shard.name):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                remote.get(f"{shard.name}/{name}", path / name)
        new.append(Path(here.path_of(shard)))
    here.clean()
    return new
