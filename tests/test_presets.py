"""Recorder presets: those of the project, those of users, fields set from outside, refusals."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders import Channel, CsvRecorderCfg, Hdf5RecorderCfg
from mjlab_rec.recorders.presets import KINDS, PRESETS, Preset, load_preset, preset_names
from mjlab_rec.recorders.triggers import at_steps, every_n_episodes, every_n_steps

PROJECT_PRESETS = sorted(path.stem for path in PRESETS.glob("*.toml"))


class Own(RecorderTerm):
    """A user's recorder."""


@dataclass(kw_only=True)
class OwnCfg(RecorderTermCfg):
    """A user's cfg with a field that must be given."""

    func: Any = Own
    path: str
    weight: float = 1.0


class NotARecorder:
    """Something else."""


def height(env: Any) -> torch.Tensor:
    """A channel that a preset can name."""
    return torch.zeros(env.num_envs)


def preset_file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


# The one writes only if something goes wrong, the other shows a page.
WITHOUT_FILES = ("flight", "live_plot")
# Objects that exist in Python only.
OBJECTS = ("recording_stream", "blueprint")


@pytest.mark.parametrize("name", PROJECT_PRESETS)
def test_every_preset_of_the_project_builds_and_explains_its_lines(name):
    assert isinstance(load_preset(name, path="somewhere"), RecorderTermCfg)
    lines = (PRESETS / f"{name}.toml").read_text().splitlines()
    assert lines[0].startswith("# ")
    settings = sum(" = " in line and not line.startswith("#") for line in lines)
    assert sum(line.startswith("# ") for line in lines) >= settings - 2


@pytest.mark.parametrize("name", [n for n in PROJECT_PRESETS if n != "flight"])
def test_every_preset_of_the_project_numbers_what_exists_on_purpose(name):
    cfg: Any = load_preset(name, path="somewhere")
    assert cfg.if_exists == "number"
    assert tomllib.loads((PRESETS / f"{name}.toml").read_text())["if_exists"] == "number"


@pytest.mark.parametrize("name", [n for n in PROJECT_PRESETS if n not in WITHOUT_FILES])
def test_every_preset_of_the_project_records_a_rollout(name, tmp_path):
    preset = Preset(name)
    cfg = cart_cfg(recorders={"it": preset.build(folder=tmp_path)})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for action in actions(12):
            env.step(action)
    assert env.recorder_manager.get_term("it").files
    assert list(tmp_path.glob(f"{name}*"))


def test_a_recorders_own_name_is_a_preset_with_its_defaults():
    cfg = load_preset("memory")
    assert type(cfg).__name__ == "MemoryRecorderCfg"
    assert set(preset_names()) >= {"hdf5_full_state", *KINDS}


def test_fields_of_a_file_reach_the_cfg_in_their_types(tmp_path):
    text = """
        recorder = "hdf5"
        path = "run.h5"
        channels = [
            "obs", {name = "height", func = "test_presets:height", when = "after", units = "m"},
        ]
        envs = [0, 2]
        hz = 25
        trigger = {kind = "every_n_episodes", n = 10}
        success = "test_presets:height"
        on_error = "disable"
    """
    cfg = load_preset(preset_file(tmp_path, text))
    assert isinstance(cfg, Hdf5RecorderCfg)
    assert (cfg.path, cfg.envs, cfg.hz, cfg.on_error) == ("run.h5", (0, 2), 25.0, "disable")
    assert isinstance(cfg.hz, float) and cfg.trigger == every_n_episodes(10)
    assert callable(cfg.success)
    obs, own = cfg.channels
    assert obs == "obs" and isinstance(own, Channel) and (own.name, own.units) == ("height", "m")
    assert callable(own.func)


def test_fields_can_be_set_in_python():
    cfg = load_preset("csv", path="x.csv", envs=None, trigger="every_n_steps(5)")
    assert isinstance(cfg, CsvRecorderCfg)
    assert (cfg.path, cfg.envs, cfg.trigger) == ("x.csv", None, every_n_steps(5))


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("path out.h5", "out.h5"),
        ("path 12", "12"),
        ("envs 3", 3),
        ("envs 0 2", (0, 2)),
        ("envs None", None),
        ("channels obs action", ("obs", "action")),
        ("channels obs", ("obs",)),
        ("hz 25", 25.0),
        ("autostart false", False),
        ("max-bytes 1_000", 1000),
        ("trigger every_n_episodes(10)", every_n_episodes(10)),
        ("if-exists overwrite", "overwrite"),
    ],
)
def test_command_line_words_set_fields(words, value):
    preset = Preset("hdf5")
    field, *rest = words.split()
    preset.set(field, rest)
    assert getattr(preset.build(), field.replace("-", "_")) == value


def test_a_word_of_a_field_comes_before_what_else_a_text_can_mean():
    """Otherwise "auto" would be read as a trigger's name."""
    for name in ("rerun", "video"):
        preset = Preset(name)
        preset.set("trigger", ["every_n_episodes(2)"])
        preset.set("trigger", ["auto"])
        cfg: Any = preset.build()
        assert cfg.trigger == "auto"
    assert load_preset("rerun", trigger="at_steps(3)").trigger == at_steps(3)  # type: ignore


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pth x", "The recorder 'hdf5' has no field 'pth'. Did you mean 'path'"),
        ("func x", "has no field 'func'"),
        ("path.x y", "has no field 'path.x'"),
        ("envs", "a value is missing"),
        ("envs two", "'two' is not a whole number, a list of whole numbers or None"),
        ("every 1.5", "'1.5' is not a whole number"),
        ("if-exists ignore", "'ignore' is not one of 'error', "),
        ("trigger every_n_episode(1)", "Unknown trigger 'every_n_episode'. Did you mean"),
        ("trigger every_n_episodes(0)", "n must be a whole number of at least 1, got 0"),
    ],
)
def test_words_of_the_wrong_type_are_refused(words, message):
    field, *rest = words.split()
    with pytest.raises(ValueError, match=message):
        Preset("hdf5").set(field, rest)


def test_without_a_path_the_next_free_file_of_the_presets_name_is_taken(tmp_path):
    cfg: Any = Preset("hdf5_full_state").build(folder=tmp_path)
    assert cfg.path == str(tmp_path / "hdf5_full_state.h5") and cfg.if_exists == "number"
    preset = Preset("hdf5")
    preset.set("path", ["own.h5"])
    assert preset.build(folder=tmp_path).path == "own.h5"
    assert Preset("memory").build(folder=tmp_path).path == ""  # type: ignore[attr-defined]


def test_a_users_cfg_class_is_checked_in_the_same_way():
    cfg: Any = load_preset("test_presets:OwnCfg", path="p", weight=2)
    assert (type(cfg).__name__, cfg.path, cfg.weight) == ("OwnCfg", "p", 2.0)
    with pytest.raises(ValueError, match="OwnCfg': OwnCfg needs 'path'"):
        load_preset("test_presets:OwnCfg")
    with pytest.raises(ValueError, match="there is no field 'wieght'. Did you mean 'weight'"):
        load_preset("test_presets:OwnCfg", path="p", wieght=2)


def test_a_users_recorder_takes_params(tmp_path):
    text = 'recorder = "test_presets:Own"\n[params]\npath = "a.csv"'
    preset = Preset(preset_file(tmp_path, text))
    preset.set("params.every", ["5"])
    cfg = preset.build(folder=tmp_path)
    assert type(cfg) is RecorderTermCfg and cfg.func.__name__ == "Own"
    assert cfg.params == {"path": "a.csv", "every": 5}
    assert preset.name == "mine" and Preset("test_presets:Own").name == "Own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('recorder = "hdf6"', "Unknown recorder 'hdf6'. Did you mean 'hdf5'"),
        ('recorder = "hdf5"\nchanels = []', "no field 'chanels'. Did you mean 'channels'"),
        ('recorder = "hdf5"\nfunc = "x"', "there is no field 'func'"),
        ('recorder = "hdf5"\npath = 3', "path: 3 is not a text"),
        ('recorder = "hdf5"\nenvs = true', "envs: True is not a whole number, a list"),
        ('recorder = "hdf5"\nevery = 2.0', "every: 2.0 is not a whole number"),
        (
            'recorder = "hdf5"\nchannels = "obs"',
            "channels: 'obs' is not a list of texts or Channel",
        ),
        ('recorder = "hdf5"\nchannels = [{name = "x"}]', "channels: Channel needs 'func'"),
        ('recorder = "hdf5"\ntrigger = {n = 1}', "trigger: A trigger needs a kind"),
        (
            'recorder = "hdf5"\non_error = "ignore"',
            "on_error: 'ignore' is not one of 'raise', 'disable'",
        ),
        ('path = "x"', "names no recorder"),
        ("recorder = hdf5", "is not valid TOML"),
        ('recorder = "test_presets:NotARecorder"', "must be a subclass of RecorderTerm or"),
        ('recorder = "test_presets:Nothing"', "Module 'test_presets' has no 'Nothing'"),
        ('recorder = "no_such_module:X"', "No module named 'no_such_module'"),
    ],
)
def test_bad_files_are_refused_with_what_is_possible(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_preset(preset_file(tmp_path, text))


def test_an_unknown_preset_gets_a_suggestion():
    with pytest.raises(ValueError, match="Unknown recorder preset .*Did you mean 'hdf5'"):
        load_preset("hdf")


def test_a_file_that_does_not_exist_is_named_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        load_preset("mine.toml")
    assert str(caught.value).startswith(f"There is no file '{tmp_path / 'mine.toml'}'.")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_fields_of_every_recorder_have_types_that_data_can_be_checked_against(kind):
    preset = Preset(kind)
    hints = preset._hints()
    assert set(hints) == {f.name for f in fields(preset.cfg_class)} - {"func"}
    assert [name for name, hint in hints.items() if hint is Any and name not in OBJECTS] == []
