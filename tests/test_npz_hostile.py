"""Malicious NumPy archives lead to an error, quickly and with little memory."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import record
from data_worlds import World

from mjlab_rec.data.formats import checks, episode_table
from mjlab_rec.data.formats.npz import NpzReader
from mjlab_rec.data.schema import DataError

SECRET = b"must not be read"


@pytest.fixture
def folder(tmp_path) -> Path:
    return record("npz", tmp_path / "run", World(num_envs=2, steps=12, model=True))


@pytest.fixture
def file(tmp_path) -> Path:
    return record("npz", tmp_path / "run.npz", World(num_envs=2, steps=12, model=True))


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_bytes(SECRET)
    return path


def read_all(path: Path, check: bool = True) -> None:
    """Read everything with little memory; raises the first damage."""
    tracemalloc.start()
    try:
        reader = NpzReader(path, check)
        for index in range(len(reader.episodes)):
            reader.read(index, ["step", *(spec.name for spec in reader.info.channels)])
            reader.model(index)
        assert SECRET not in b"".join(reader.info.attachments.values())
        damages = reader.verify()
        assert SECRET.decode() not in str(damages)
        if damages:
            raise DataError(damages[0])
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 100 << 20


def refused(path: Path, reported: str) -> None:
    with pytest.raises(DataError, match=reported) as caught:
        read_all(path)
    assert len(str(caught.value)) < 1000


def rewrite(file: Path, change: Callable[[dict[str, bytes]], None], kind: int = 0) -> None:
    """Change the members of an archive, with right checksums."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array: Any, **kwargs: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **kwargs)
    return stream.getvalue()


def header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


def edit_lines(folder: Path, change: Callable[[dict[str, Any]], Any], count: int = 1) -> None:
    """Change lines of the table, with right checksums."""
    table = folder / "episodes.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for row in rows:
        del row["crc32"]
    for row in rows[:count]:
        change(row)
    table.write_text("".join(episode_table.seal(json.dumps(row)) + "\n" for row in rows))


def edit_meta(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((folder / "meta.json").read_text())
    del data["crc32"]
    change(data)
    (folder / "meta.json").write_text(episode_table.seal(json.dumps(data)))


def test_the_recordings_of_this_file_can_be_read(folder, file):
    read_all(folder)
    read_all(file)
    edit_lines(folder, lambda row: row)
    edit_meta(folder, lambda data: None)
    rewrite(folder / "episode_000000.npz", lambda members: None)
    rewrite(file, lambda members: None)
    read_all(folder)
    read_all(file)


# -- links and paths -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["attachments/notes.txt", "meta.json", "episodes.jsonl"])
def test_links_to_other_files_are_not_followed(where, folder, secret):
    (folder / where).unlink()
    (folder / where).symlink_to(secret)
    refused(folder, "link")


def test_a_link_in_the_place_of_an_episode_is_not_followed(folder, tmp_path):
    moved = (folder / "episode_000000.npz").rename(tmp_path / "elsewhere.npz")
    (folder / "episode_000000.npz").symlink_to(moved)
    refused(folder, "is a link to another file. Links are not followed")


def test_a_folder_of_attachments_that_is_a_link_is_not_followed(folder, tmp_path):
    moved = tmp_path / "other"
    shutil.move(folder / "attachments", moved)
    (folder / "attachments").symlink_to(moved)
    refused(folder, "is a link to another file")


def test_files_that_were_not_attached_are_ignored(folder, secret):
    (folder / "attachments" / "more.txt").symlink_to(secret)
    read_all(folder)
    assert set(NpzReader(folder).info.attachments) == {"model.mjb", "notes.txt"}


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "a/../../secret.txt", ""])
def test_names_of_attachments_cannot_leave_the_folder(name, folder, secret):
    reported = {name: [len(SECRET), zlib.crc32(SECRET)]}
    edit_meta(folder, lambda data: data.update(attached=reported))
    refused(folder, "attached file")


@pytest.mark.parametrize(
    "name",
    ["../../outside.npz", "/tmp/x.npz", "", None, 3, ["episode_000001.npz"], "episode_٠٠٠٠٠١.npz"],
)
def test_names_of_episodes_cannot_leave_the_folder(name, folder):
    edit_lines(folder, lambda row: row.update(file=name))
    refused(folder, "does not name an episode's file")


@pytest.mark.parametrize("where", ["meta.json", "episodes.jsonl", "episode_000000.npz"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_pipes_and_folders_are_refused(kind, where, folder):
    (folder / where).unlink()
    os.mkfifo(folder / where) if kind == "pipe" else (folder / where).mkdir()
    refused(folder, f"{where}' is not a plain file")


def test_a_single_file_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "run.npz")
    refused(tmp_path / "run.npz", "is not a plain file")


# -- the table and the description -----------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value",
    [
        ("env", -1),
        ("env", "0"),
        ("env", None),
        ("env", 1 << 40),
        ("number", True),
        ("number", 1.0),
        ("start", -5),
        ("start", 1 << 70),
        ("length", [3]),
        ("rows", -3),
        ("rows", 10**9),
        ("return", "much"),
        ("return", 10**400),
        ("recorded_return", {}),
        ("terminated", 1),
        ("truncated", None),
        ("success", "yes"),
        ("success", 7),
        ("partial", "no"),
    ],
)
def test_wrong_values_in_the_table_are_refused(key, value, folder):
    edit_lines(folder, lambda row: row.update({key: value}))
    refused(folder, f"'{key}'|episode of .* steps has .* rows")


@pytest.mark.parametrize("key", ["file", "env", "rows", "return", "success", "partial", "model"])
def test_an_incomplete_line_is_refused(key, folder):
    edit_lines(folder, lambda row: row.pop(key))
    refused(folder, f"'{key}'|does not name an episode's file|list of model fields")


def test_unknown_returns_may_be_null_or_nan(folder):
    edit_lines(folder, lambda row: row.update({"return": None, "recorded_return": float("nan")}))
    table = NpzReader(folder).episodes
    assert table["return"].null_count() == table["recorded_return"].null_count() == 1


def test_too_many_rows_are_refused_before_memory_is_allocated(folder):
    edit_lines(folder, lambda row: row.update(rows=2**31 - 1, length=2**31 - 1))
    refused(folder, "times the size of the file")


def test_a_table_that_does_not_match_its_files_is_refused(folder):
    edit_lines(folder, lambda row: row.update(rows=row["rows"] + 1, length=row["length"] + 1))
    refused(folder, "has the type .* and the shape")


@pytest.mark.parametrize(
    "model",
    [
        None,
        [],
        {"m": 3},
        {"m": ["O", [1]]},
        {"m": ["<f4", [-1]]},
        {"m": ["<f4", [1 << 40]]},
        {"../m": ["<f4", [1]]},
        {"m": ["<f4", 3]},
        {"m": [3, [3]]},
        {"nothing": ["<f4", [3]]},
    ],
)
def test_wrong_model_fields_are_refused(model, folder):
    edit_lines(folder, lambda row: row.update(model=model))
    refused(folder, "model|has the (dtype|shape)|must be")


@pytest.mark.parametrize("text", [b"[" * 50_000, b'{"a":' * 500, b"\xff", b"", b"{}", b"null"])
def test_lines_of_nonsense_are_refused(text, folder):
    (folder / "episodes.jsonl").write_bytes((text + b"\n") * 3000)
    refused(folder, "is not a table of episodes|Nothing in")
    (folder / "meta.json").write_bytes(text)
    refused(folder, "meta.json' is not a recording")


def test_a_line_without_end_is_refused_with_little_memory(folder):
    os.truncate(folder / "episodes.jsonl", 1 << 36)  # takes no room
    refused(folder, "is not a table of episodes")
    os.truncate(folder / "meta.json", 1 << 36)
    refused(folder, "MB are possible")


def test_wrong_values_in_the_description_are_refused(folder):
    for key, value in {"attached": 3, "gaps": -1, "lines": "many"}.items():
        whole = (folder / "meta.json").read_bytes()
        edit_meta(folder, lambda data, key=key, value=value: data.update({key: value}))
        refused(folder, "attached|lost|complete lines")
        (folder / "meta.json").write_bytes(whole)


# -- arrays ----------------------------------------------------------------------------------------

ARRAYS: dict[str, Callable[[np.ndarray], bytes]] = {
    "longer": lambda a: npy(np.concatenate([a, a])),
    "shorter": lambda a: npy(a[:-1]),
    "empty": lambda a: npy(a[:0]),
    "of another type": lambda a: npy(a.astype(np.float64)),
    "of another order of bytes": lambda a: npy(a.astype(">f4")),
    "of another shape": lambda a: npy(a[:, :1]),
    "a number": lambda a: npy(np.float32(1)),
    "by columns": lambda a: npy(np.asfortranarray(a)),
    "of objects": lambda a: npy(np.array([os.system], object), allow_pickle=True),
    "of texts": lambda a: npy(np.array(["x"])),
    "of records": lambda a: npy(np.zeros(3, "f4,f4")),
    "cut off": lambda a: npy(a)[:-3],
    "with more behind": lambda a: npy(a) + b"more",
    "no array": lambda a: b"hello",
    "nothing": lambda a: b"",
    "of negative length": lambda a: header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}\n"
    ),
    "of huge length": lambda a: header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000, 2)}\n"
    ),
    "of a type that is huge": lambda a: header(
        "{'descr': '(100000,100000)f4', 'fortran_order': False, 'shape': (1,)}\n"
    ),
    "with a nested header": lambda a: header("(" * 9000),
    "with an unfinished header": lambda a: header("{'descr': '''"),
    "with a long header": lambda a: header("{}" + " " * 50_000),
    "with a header that has no end": lambda a: header("x", 2)[:8] + b"\xff\xff\xff\xff",
    "of an unknown version": lambda a: header("{}", 9),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_do_not_match_the_table_are_refused(kind, folder, file):
    for path, archive in ((folder, folder / "episode_000000.npz"), (file, file)):
        for member in ("action.npy", "model_fields/gravity.npy"):
            whole = archive.read_bytes()

            def change(members: dict[str, bytes], member: str = member) -> None:
                array = np.load(io.BytesIO(members[member]))
                members[member] = ARRAYS[kind](np.atleast_2d(array).astype(np.float32))

            rewrite(archive, change)
            refused(path, member.removesuffix(".npy"))
            archive.write_bytes(whole)


@pytest.mark.parametrize("name", ["env", "rows", "success", "model", "crc32"])
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[:-1],
        lambda a: a.astype(np.float32),
        lambda a: a[:, None],
        lambda a: a - 5,
        lambda a: None,
    ],
)
def test_a_wrong_table_in_a_single_file_is_refused(name, change, file):
    def edit(members: dict[str, bytes]) -> None:
        member = f"episodes/{name}.npy"
        value = change(np.load(io.BytesIO(members.pop(member))))
        if value is not None:
            members[member] = npy(value)

    rewrite(file, edit)
    refused(file, "run.npz")


# -- bombs -----------------------------------------------------------------------------------------


def zeros(nbytes: int) -> bytes:
    """An array of two columns, all zero."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({nbytes // 8}, 2), }}\n"
    return header(text) + bytes(nbytes)


@pytest.mark.parametrize("deflated", [True, False])
def test_a_bomb_that_is_not_in_the_table_is_not_decompressed(deflated, folder):
    archive = folder / "episode_000000.npz"
    rewrite(archive, lambda members: members.update({"action.npy": zeros(40 << 20)}), 8 * deflated)
    refused(folder, "more than expected from the table of episodes")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_bomb_that_is_in_the_table_is_not_decompressed(kind, folder, file, monkeypatch):
    monkeypatch.setattr(checks, "_MODEST", 8 << 20)
    rows = 4 << 20

    def edit(members: dict[str, bytes]) -> None:
        members["action.npy"] = zeros(8 * rows)
        if "episodes/rows.npy" in members:
            counts = np.load(io.BytesIO(members["episodes/rows.npy"]))
            counts[0] = rows
            members["episodes/rows.npy"] = members["episodes/length.npy"] = npy(counts)

    if kind == "folder":
        edit_lines(folder, lambda row: row.update(rows=rows, length=rows))
    rewrite(folder / "episode_000000.npz" if kind == "folder" else file, edit, 8)
    refused(folder if kind == "folder" else file, "times the size of the file")


def test_an_archive_with_too_many_members_is_refused(file):
    with zipfile.ZipFile(file, "a") as archive:
        for number in range(11_000):
            archive.writestr(f"m{number}", b"")
    refused(file, "has more than 10000 members")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(kind, file):
    rewrite(file, lambda members: None, kind)
    refused(file, "compressed in an unknown way")


def test_an_encrypted_archive_is_refused(file):
    content = bytearray(file.read_bytes())
    at = content.index(b"PK\1\2")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\1\2", at + 1)
    file.write_bytes(content)
    refused(file, "encrypted")


def test_tiny_files_are_refused(tmp_path):
    file = tmp_path / "run.npz"
    for content in (b"", b"PK\3\4", b"PK\5\6" + bytes(18), b"PK\5\6" + b"\xff" * 18, bytes(100)):
        file.write_bytes(content)
        refused(file, "run.npz")
