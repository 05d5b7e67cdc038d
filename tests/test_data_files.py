"""Locks on paths of recordings, and what happens to existing files."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mjlab_rec.data.files import PathLock, being_written, local_path, make_folder, parts, sidecar
from mjlab_rec.data.schema import DataError


def test_parent_folders_are_created_and_no_files_are_left(tmp_path):
    lock = PathLock(tmp_path / "a" / "b" / "rollout.h5", "error")
    assert [lock.next_part().name for _ in range(2)] == ["rollout.h5", "rollout.part001.h5"]
    lock.release()
    lock.release()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_an_existing_path_is_refused_with_the_choices(tmp_path):
    path = tmp_path / "rollout.h5"
    path.touch()
    with pytest.raises(DataError, match="overwrite.*append.*number.*rollout_1.h5"):
        PathLock(path, "error")
    with pytest.raises(DataError, match="must be one of: error, overwrite, append, number"):
        PathLock(path, "replace")  # pyright: ignore[reportArgumentType]


def test_the_next_free_name_is_taken(tmp_path):
    (tmp_path / "rollout.h5").touch()
    (tmp_path / "rollout_1.part001.h5").touch()
    first, second = (
        PathLock(tmp_path / "rollout.h5", "number"),
        PathLock(tmp_path / "rollout.h5", "number"),
    )
    assert (first.path.name, second.path.name) == ("rollout_2.h5", "rollout_3.h5")
    first.release()
    second.release()


def test_overwriting_removes_only_the_recording(tmp_path):
    path = tmp_path / "rollout.csv"
    for name in ("rollout.csv", "rollout.part001.csv", "rollout.part9.csv", "rollout.h5"):
        (tmp_path / name).touch()
    sidecar(path).write_text(json.dumps({"format": "mjlab_rec"}))
    lock = PathLock(path, "overwrite")
    lock.release()
    assert [file.name for file in tmp_path.iterdir()] == ["rollout.h5"]
    path.touch()
    sidecar(path).write_text("{}")  # not a recording
    PathLock(path, "overwrite").release()
    assert parts(path) == []
    assert sidecar(path).exists()


def test_appending_begins_after_the_last_part(tmp_path):
    for name in ("rollout.h5", "rollout.part003.h5"):
        (tmp_path / name).touch()
    lock = PathLock(tmp_path / "rollout.h5", "append")
    assert lock.next_part().name == "rollout.part004.h5"
    lock.release()


def test_other_folders_are_never_changed(tmp_path):
    folder = tmp_path / "rollout"
    folder.mkdir()
    PathLock(folder, "error", folder=True).release()  # an empty folder is no recording
    (folder / "thesis.tex").touch()
    for choice in ("overwrite", "append"):
        with pytest.raises(DataError, match="not a recording: it has no meta.json"):
            PathLock(folder, choice, folder=True)
    (folder / "meta.json").touch()
    PathLock(folder, "append", folder=True).release()
    assert (folder / "thesis.tex").exists()
    PathLock(folder, "overwrite", folder=True).release()
    assert list(folder.iterdir()) == []


def test_files_and_folders_are_not_confused(tmp_path):
    with pytest.raises(DataError, match="is a folder, but this format writes a file"):
        (tmp_path / "a").mkdir()
        PathLock(tmp_path / "a", "overwrite")
    with pytest.raises(DataError, match="is a file, but this format writes a folder"):
        (tmp_path / "b").touch()
        PathLock(tmp_path / "b", "overwrite", folder=True)
    with pytest.raises(DataError, match="Cannot record to"):
        PathLock(tmp_path / "b" / "c.h5", "error")
    with pytest.raises(DataError, match="No path"):
        PathLock("", "error")


def test_two_recorders_never_share_a_path(tmp_path):
    lock = PathLock(tmp_path / "rollout.h5", "overwrite")
    with pytest.raises(DataError, match="another recorder of this process"):
        PathLock(tmp_path / "." / "rollout.h5", "overwrite")
    code = (
        "import sys\n"
        "from mjlab_rec.data.files import PathLock\n"
        "for choice in ('overwrite', 'number'):\n"
        "    try:\n"
        "        print(PathLock(sys.argv[1], choice).path.name, flush=True)\n"
        "    except Exception as error:\n"
        "        print(error, flush=True)\n"
        "import os; os._exit(9)\n"  # dies without releasing it
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rollout.h5")], capture_output=True, text=True
    )
    refused, numbered = other.stdout.splitlines()
    assert "being written by another process" in refused
    assert numbered == "rollout_1.h5"
    lock.release()
    PathLock(tmp_path / "rollout_1.h5", "error").release()
    PathLock(tmp_path / "rollout.h5", "error").release()
    assert list(tmp_path.iterdir()) == []


# -- paths -----------------------------------------------------------------------------------------


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_folder("~/videos")
    assert (tmp_path / "videos").is_dir()
    lock = PathLock("~/runs/rollout.h5", "error")
    assert lock.path == tmp_path / "runs" / "rollout.h5"
    assert local_path("~/runs") == tmp_path / "runs"
    assert being_written(local_path("~/runs/rollout.h5"))
    lock.release()
    with pytest.raises(DataError, match="Cannot find the home folder of '~no_such_user/a.h5'"):
        PathLock("~no_such_user/a.h5", "error")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b.h5", "contains a NUL character"),
        ("x" * 300 + ".h5", "Cannot record to .*: File name too long"),
        ("", "No path was given"),
        (".", "Cannot record to '.': it does not end in a name"),
        ("/", "Cannot record to '/': it does not end in a name"),
    ],
)
@pytest.mark.parametrize("choice", ["error", "number"])
def test_an_impossible_path_is_refused(name, message, choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        PathLock(name, choice)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("choice", ["error", "overwrite", "append"])
def test_pipes_and_devices_are_never_replaced(choice, tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DataError, match="pipe.h5' is a named pipe, but a recording is a file"):
        PathLock(tmp_path / "pipe.h5", choice)
    (tmp_path / "null.h5").symlink_to("/dev/null")
    with pytest.raises(DataError, match="null.h5' is a device"):
        PathLock(tmp_path / "null.h5", choice)
    os.mkfifo(tmp_path / "a.part001.h5")
    with pytest.raises(DataError, match="a.part001.h5' is a named pipe"):
        PathLock(tmp_path / "a.h5", choice)
    assert stat.S_ISFIFO((tmp_path / "pipe.h5").stat().st_mode)
    assert (tmp_path / "null.h5").is_symlink()


def test_being_written_is_known_in_this_and_other_processes(tmp_path):
    path = tmp_path / "rollout.h5"
    (tmp_path / ".rollout.h5.lock").touch()  # left by a kill
    assert not being_written(path)
    code = (
        "import sys; from pathlib import Path\n"
        "from mjlab_rec.data.files import being_written\n"
        "print(being_written(Path(sys.argv[1])))"
    )

    def asked_elsewhere() -> str:
        ran = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        return ran.stdout.strip()

    lock = PathLock(path, "error")
    assert being_written(path)
    assert asked_elsewhere() == "True"
    with pytest.raises(DataError, match="another recorder of this process"):
        PathLock(path, "error")
    assert asked_elsewhere() == "True"  # Asking in this process did not release the lock.
    lock.release()
    assert not being_written(path)
    assert asked_elsewhere() == "False"
    assert not being_written(Path("/"))
