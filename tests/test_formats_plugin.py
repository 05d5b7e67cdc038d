"""Formats of other packages, and the example format in data/formats/README.md."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from data_worlds import World, episodes_of, same
from worlds import actions, cart_cfg

from mjlab_rec.data.formats import Format, format_named, formats, register_format, writer_class
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.registry import _known, recognise
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import MemoryRecorderCfg, RolloutRecorderCfg
from mjlab_rec.recorders.presets import Preset, load_preset, preset_names

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "mjlab_rec" / "data" / "formats" / "README.md"
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


def install(site: Path, package: str, entry_points: str, **files: str) -> None:
    """Write a package as pip installs it."""
    about = site / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    for name, text in files.items():
        (site / package).mkdir(exist_ok=True)
        (site / package / f"{name}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, in which formats are searched again."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules = set(sys.modules)
    _known.cache_clear()
    yield site
    _known.cache_clear()
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(site)):
            del sys.modules[name]


@pytest.fixture
def raw(site: Path) -> Path:
    """The package of the page, installed."""
    declared = FILES["pyproject.toml"].replace('[project.entry-points."mjlab_rec.formats"]', "")
    install(
        site,
        "mjlab_rec_raw",
        "[mjlab_rec.formats]\n" + declared.replace('"', ""),
        __init__=FILES["mjlab_rec_raw/__init__.py"],
        files=FILES["mjlab_rec_raw/files.py"],
    )
    return site


def write(name: str, world: World, path: Path, close: bool = True, **options) -> Writer:
    writer = writer_class(name)(world.info, WriterOptions(path=str(path), **options))
    for episode in episodes_of(world):
        writer.write_episode(episode)
    if close:
        writer.gaps = 3
        writer.close()
    return writer


def check(rollouts: Rollouts, world: World, runs: int = 1) -> None:
    """Compare with what happened, as often as it was recorded."""
    expected = sorted(world.episodes, key=lambda e: (e.env, e.number))
    each = max(e.number for e in expected) + 1
    found = {(r["env"], r["number"]): i for i, r in enumerate(rollouts.episodes.to_dicts())}
    assert len(rollouts) == runs * len(expected)
    for run in range(runs):
        for episode in expected:
            index = found[episode.env, episode.number + run * each]
            arrays = rollouts[index]
            assert set(arrays) == {"step", *rollouts.channels}
            assert arrays["step"].tolist() == [row.step for row in episode.rows]
            for name in rollouts.channels:
                assert same(arrays[name], np.stack([row.values[name] for row in episode.rows]))
            for name, value in episode.model.items():
                assert same(rollouts.model(index)[name], value)


# -- the format on the page ------------------------------------------------------------------------


def test_the_format_on_the_page_records_an_environment(raw, tmp_path):
    cfg = cart_cfg(
        recorders={
            "raw": RolloutRecorderCfg(format="raw", path=str(tmp_path / "run")),
            "memory": MemoryRecorderCfg(),
        }
    )
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for action in actions(40):
            env.step(action)
        env.recorder_manager.get_term("raw").stop()
        env.recorder_manager.get_term("memory").stop()
        kept = env.recorder_manager.get_term("memory").rollouts
        with open_rollouts(tmp_path / "run") as rollouts:
            assert rollouts.finished and rollouts.verify() == []
            assert len(kept) > 4
            assert rollouts.episodes.equals(kept.episodes.select(rollouts.episodes.columns))
            assert rollouts.channels == kept.channels and rollouts.info.about["engine"]
            for one, other in zip(rollouts, kept, strict=True):
                assert all(same(one[name], other[name]) for name in kept.names(None))


@pytest.mark.parametrize("durability", ["kill", "power"])
def test_the_format_on_the_page_stores_everything(durability, raw, tmp_path):
    world = World(model=True, activity="rows")
    write("raw", world, tmp_path / "run", durability=durability)
    with open_rollouts(tmp_path / "run") as rollouts:
        check(rollouts, world)
        assert rollouts.attachments == world.info.attachments
        assert rollouts.gaps == 3
        with pytest.raises(DataError, match="Did you mean 'action'"):
            rollouts.read(0, ["acton"])


def test_the_format_on_the_page_survives_a_kill_and_appends(raw, tmp_path):
    world = World()
    path = tmp_path / "run"
    unfinished = write("raw", world, tmp_path / "other", close=False)
    shutil.copytree(tmp_path / "other", path)
    unfinished.close()
    for file in ("index.jsonl", "rows.bin"):
        with open(path / file, "ab") as stream:
            stream.write(b"{half")
    with open_rollouts(path) as rollouts:
        assert not rollouts.finished
        check(rollouts, world)
    write("raw", World(), path, if_exists="append")
    with open_rollouts(path) as rollouts:
        assert rollouts.finished and rollouts.verify() == []
        check(rollouts, world, runs=2)


def test_the_format_on_the_page_finds_damage_and_reads_the_rest(raw, tmp_path):
    world, path = World(), tmp_path / "run"
    write("raw", world, path)
    data, index = path / "rows.bin", path / "index.jsonl"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1  # "step" of the last episode
    data.write_bytes(content)
    with open_rollouts(path) as rollouts:
        (damage,) = rollouts.verify()
        assert re.search(r"rows.bin', 'step' of episode \d+ of .* \d+ rows are damaged", damage)
        (bad,) = [i for i in range(len(rollouts)) if _fails(lambda i=i: rollouts[i])]
        assert set(rollouts.read(bad, ["action"])) == {"action"}
    with open_rollouts(path, check=False) as rollouts:
        assert len(list(rollouts)) == len(world.episodes)
    data.write_bytes(content[:-4])
    with open_rollouts(path, check=False) as rollouts:
        assert "'step' of episode" in rollouts.verify()[0]
        assert "the file ends before it" in rollouts.verify()[0]
    index.write_bytes(index.read_bytes().replace(b'"env": 2', b'"env": 3', 1))
    with open_rollouts(path) as rollouts:
        assert len(rollouts) == len(world.episodes) - 1
        assert "index.jsonl', line 1: The text was changed" in rollouts.verify()[0]
    data.unlink()
    with open_rollouts(path) as rollouts, pytest.raises(DataError, match="No such file"):
        rollouts[0]


def _fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except DataError:
        return True
    return False


def test_the_format_on_the_page_refuses_other_channels_and_releases_the_path(raw, tmp_path):
    write("raw", World(), tmp_path / "run")
    other = World(every=2)
    with pytest.raises(DataError, match="Cannot append to"):
        write("raw", other, tmp_path / "run", if_exists="append")
    write("raw", World(), tmp_path / "run", if_exists="overwrite")


def test_a_preset_and_the_command_line_know_an_installed_format(raw, tmp_path):
    assert "raw" in preset_names()
    cfg = load_preset("raw", path="run")
    assert type(cfg) is RolloutRecorderCfg and cfg.format == "raw"
    built = Preset("raw").build(folder=tmp_path)
    assert built.path == str(tmp_path / "raw") and built.if_exists == "number"
    file = tmp_path / "mine.toml"
    file.write_text('recorder = "robomimic"\nenvs = 3\n')
    assert load_preset(file).format == "robomimic"
    with pytest.raises(ValueError, match="Did you mean 'raw'"):
        load_preset("rwa")


# -- formats by name -------------------------------------------------------------------------------


def test_an_unknown_format_gets_a_suggestion(raw, tmp_path):
    with pytest.raises(ValueError, match="Unknown format 'parket'. Did you mean 'parquet'"):
        writer_class("parket")
    with pytest.raises(ValueError, match="Unknown format 'rwa'. Did you mean 'raw'"):
        RolloutRecorderCfg(format="rwa").check()


def test_a_package_that_fails_to_load_affects_only_its_format(site, tmp_path, caplog):
    points = "[mjlab_rec.formats]\nbad = broken_formats:FORMAT\nodd = broken_formats:ODD\n"
    install(site, "broken_formats", points, __init__="ODD = 3\n")
    with caplog.at_level(logging.ERROR):
        with pytest.raises(ValueError, match="Failed to load: bad, odd"):
            format_named("badd")
        with pytest.raises(DataError, match="Failed to load: bad, odd"):
            (tmp_path / "a.xyz").write_text("hello")
            open_rollouts(tmp_path / "a.xyz")
    assert len(caplog.records) == 2  # once, not at each look
    assert "A file format must be a Format, got 3" in caplog.text
    assert format_named("csv").suffixes == (".csv",)


def test_a_notebook_registers_its_format_itself(site):
    mine = Format(name="mine", writer="a.b:C", reader="a.b:D", suffixes=(".mine",))
    register_format(mine)
    register_format(mine)  # a cell may run twice
    assert format_named("mine") is mine
    with pytest.raises(ValueError, match="There already is a format 'mine', written by 'a.b:C'"):
        register_format(Format(name="mine", writer="other:C", reader="a.b:D", suffixes=(".m",)))
    with pytest.raises(ValueError, match="There already is a format 'csv'"):
        register_format(Format(name="csv", writer="other:C"))
    with pytest.raises(TypeError, match="got 'mine'"):
        register_format("mine")  # pyright: ignore[reportArgumentType]


def test_missing_code_is_named_when_the_format_is_used(site, tmp_path):
    register_format(Format(name="m", writer="no_such:C", reader="json:Nothing", suffixes=(".m",)))
    with pytest.raises(DataError, match="'m' cannot be used: loading 'no_such:C' failed: No mod"):
        writer_class("m")
    (tmp_path / "a.m").touch()
    with pytest.raises(DataError, match="'m' cannot be used: loading 'json:Nothing' failed"):
        open_rollouts(tmp_path / "a.m")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"writer": "json"}, "'json' must have the form 'package.module:name'"),
        ({"reader": ":C", "suffixes": (".m",)}, "':C' must have the form"),
        ({"suffixes": ("m",)}, r"suffixes must begin with a dot, got \['m'\]"),
        (
            {"reader": "a:B"},
            "nothing to recognise its recordings by: give it suffixes, a mark or magic bytes",
        ),
    ],
)
def test_an_invalid_format_is_refused_at_once(fields, message):
    with pytest.raises(ValueError, match=message):
        Format(**{"name": "m", "writer": "a:B", **fields})


def test_listing_formats_imports_no_library_of_theirs():
    code = (
        "import sys; from mjlab_rec.data.formats import formats, format_named\n"
        "print(len(formats()), {'h5py', 'polars', 'torch', 'mujoco'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split(maxsplit=1)[1].strip() == "set()"


# -- formats recognised by content -----------------------------------------------------------------

PATHS = {"csv": "a.csv", "hdf5": "a.h5", "robomimic": "b.hdf5", "npz": "a.npz", "parquet": "a"}


@pytest.mark.parametrize("name", PATHS)
def test_each_of_our_formats_is_recognised_as_itself(name, tmp_path):
    write(name, World(steps=9), tmp_path / PATHS[name])
    assert recognise([tmp_path / PATHS[name]]) is format_named(name)
    if name in ("hdf5", "robomimic", "npz"):
        (tmp_path / PATHS[name]).rename(tmp_path / "renamed.dat")
        with open_rollouts(tmp_path / "renamed.dat") as rollouts:
            assert rollouts.rows == 27


def test_a_npz_folder_is_recognised_by_its_mark(tmp_path):
    write("npz", World(steps=9), tmp_path / "a")
    assert recognise([tmp_path / "a"]) is format_named("npz")
    assert {f.name for f in formats()} == {*PATHS, "memory"}


def says_yes(path: Path) -> bool:
    return True


def is_big(path: Path) -> bool:
    if path.name == "unknown.zip":
        raise OSError("damaged")
    return path.stat().st_size > 10


def test_recognises_decides_between_formats_with_the_same_magic(site, tmp_path):
    register_format(
        Format(
            name="big", writer="a:B", reader="a:B", magic=b"PK\x03\x04",
            recognises=f"{__name__}:is_big",
        )
    )  # fmt: skip
    register_format(Format(name="zip", writer="a:B", reader="a:B", magic=b"PK", suffixes=(".zip",)))

    def name_of(*files: str) -> str | None:
        format = recognise([tmp_path / file for file in files])
        return format and format.name

    for file in ("small.zip", "small.npz", "small.dat", "unknown.zip"):
        (tmp_path / file).write_bytes(b"PK\x03\x04")
    (tmp_path / "big.zip").write_bytes(b"PK\x03\x04" + bytes(10))
    (tmp_path / "other.zip").write_bytes(b"other" + bytes(10))
    (tmp_path / "empty.npz").touch()
    assert name_of("big.zip") == "big"
    assert name_of("small.zip") == "zip"  # has the suffix
    assert name_of("small.npz") == "npz"
    assert name_of("small.dat") == "npz"  # the first
    assert name_of("other.zip") is None
    assert name_of("empty.npz", "other.zip", "big.zip") == "big"  # parts
    assert name_of("unknown.zip", "big.zip") == "big"  # the next part decides
    assert name_of("unknown.zip") == "zip"
    assert name_of("unknown.zip", "small.npz") == "npz"


def test_a_suffix_is_enough_without_magic(site, tmp_path):
    register_format(Format(name="m", writer="a:B", reader="a:B", suffixes=(".tar.m",)))
    register_format(
        Format(
            name="n", writer="a:B", reader="a:B", suffixes=(".csv",),
            recognises=f"{__name__}:says_yes",
        )
    )  # fmt: skip
    for file in ("a.TAR.M", "a.m", ".tar.m", "a.csv"):
        (tmp_path / file).touch()
    assert recognise([tmp_path / "a.TAR.M"]) is format_named("m")
    assert recognise([tmp_path / "a.m"]) is None
    assert recognise([tmp_path / ".tar.m"]) is None
    assert recognise([tmp_path / "a.csv"]) is format_named("n")


# -- paths that would not be recognised -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        (
            "csv",
            "out.txt",
            "not be recognised as .* csv, whose files end in .csv. Name it out.csv.",
        ),
        ("csv", "out", "whose files end in .csv. Name it out.csv"),
        ("csv", "out.h5", "has the suffix of the format hdf5, but the recorder writes csv"),
        ("hdf5", "out.csv", "has the suffix of the format csv, .* Name it out.h5."),
        ("hdf5", "out.NPZ", "has the suffix of the format npz"),
        ("robomimic", "out.csv", "has the suffix of the format csv"),
        ("npz", "out.h5", "has the suffix of the format hdf5, .* Name it out.npz."),
        ("parquet", "out.csv", "has the suffix of the format csv, .* Omit the suffix."),
    ],
)
def test_a_path_with_a_suffix_that_would_not_be_recognised_is_refused(
    name, path, message, tmp_path
):
    with pytest.raises(DataError, match=message):
        write(name, World(steps=3), tmp_path / path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("csv", "out.CSV"),
        ("hdf5", "out.dat"),
        ("hdf5", "out"),
        ("robomimic", "out.v1"),
        ("npz", "out.v1"),
        ("parquet", "out.parquet"),
    ],
)
def test_other_names_are_read_back(name, path, tmp_path):
    write(name, World(steps=3), tmp_path / path)
    with open_rollouts(tmp_path / path) as rollouts:
        assert rollouts.rows == 9


def test_formats_without_files_take_any_path():
    write("memory", World(steps=3), Path("out.csv"))
