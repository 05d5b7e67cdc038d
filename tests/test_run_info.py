"""The description of a recording is read back, or refused with a clear error."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from data_worlds import World
from hypothesis import given, settings
from hypothesis import strategies as st

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

INFO = World().info
GOOD = json.loads(json.dumps(INFO.to_json()))


def load(data: Any) -> RunInfo:
    info, _ = episode_table.load_info(json.dumps(data), "run.json")
    return info


def changed(**values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **values}


def with_channel(**values: Any) -> dict[str, Any]:
    """A description with one more channel that has these values."""
    good = {
        "name": "extra", "dtype": "<f4", "shape": [3], "elements": [], "when": "after",
        "units": "", "next_of": "",
    }  # fmt: skip
    data = copy.deepcopy(GOOD)
    data["channels"].append({**good, **values})
    return data


def test_a_dumped_description_is_loaded():
    text = episode_table.dump_info(INFO, attachments=True, gaps=3)
    info, data = episode_table.load_info(text, "run.json")
    assert info == INFO
    assert data["gaps"] == 3
    assert RunInfo.from_json(INFO.to_json()).channels == INFO.channels
    assert json.loads(text)["about"] == INFO.about


def test_a_description_without_checksum_is_loaded_too():
    assert load(GOOD).channels == INFO.channels
    assert load(with_channel()).channels[-1].shape == (3,)


@pytest.mark.parametrize("version", [1, 3, 0, -2, 2.0, "2", None, True, [2]])
def test_other_versions_are_refused(version):
    with pytest.raises(DataError, match="format version .*, but this mjlab_rec reads version 2"):
        load(changed(version=version))


@pytest.mark.parametrize(
    "values, told",
    [
        ({"format": "other"}, "not recorded by mjlab_rec"),
        ({"channels": 3}, "'channels' is 3, but it must be a list"),
        ({"channels": [3]}, "A channel is 3, but it must be an object"),
        ({"channels": {}}, "must be a list"),
        ({"envs": [0, 0]}, "'envs' lists an environment twice"),
        ({"envs": [-1]}, "'envs' must be whole numbers of at least 0"),
        ({"envs": [True]}, "'envs' must be whole numbers"),
        ({"envs": [1 << 40]}, "'envs' must be whole numbers"),
        ({"envs": "01"}, "must be a list"),
        ({"step_dt": float("nan")}, "'step_dt' is nan"),
        ({"step_dt": float("inf")}, "'step_dt' is inf"),
        ({"step_dt": -1}, "'step_dt' is -1"),
        ({"step_dt": 10**400}, "'step_dt' is"),
        ({"step_dt": "1"}, "'step_dt' is '1', but it must be a float"),
        ({"every": 0}, "'every' is 0, but it must be a whole number of at least 1"),
        ({"every": 1.5}, "'every' is 1.5, but it must be a whole number"),
        ({"every": True}, "'every' is True"),
        ({"about": []}, "'about' is .*must be a dict"),
        ({"gaps": -1}, "number of lost rows is"),
        ({"gaps": "many"}, "number of lost rows is"),
        ({"attachments": ["a"]}, "must be files with names"),
        ({"attachments": {"a": "?"}}, "attached file 'a' is damaged"),
        ({"attachments": {"a": 3}}, "attached file 'a' is damaged"),
        ({"attachments": {"../a": ""}}, r"cannot be called '../a'"),
        ({"about": {"a": "\ud800"}}, "not valid Unicode"),
        ({"about": {"\ud800": 1}}, "not valid Unicode"),
    ],
)
def test_a_wrong_description_is_refused_and_the_error_says_why(values, told):
    with pytest.raises(DataError, match=f"(?s)'run.json' is not a recording.*{told}"):
        load(changed(**values))


@pytest.mark.parametrize("key", ["version", "channels", "envs", "step_dt", "every", "about"])
def test_an_incomplete_description_is_refused(key):
    data = changed()
    del data[key]
    with pytest.raises(DataError, match=f"'{key}'|format version None"):
        load(data)


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a/./b", "a\0b", "x" * 2000, "\ud800"],
)
def test_channel_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(DataError, match="(cannot be called|The name of a channel|Unicode)"):
        RunInfo.from_json(with_channel(name=name))


@pytest.mark.parametrize("name", ["obs/a.b", "..a", "a b", "größe", "obs/actor/x"])
def test_other_channel_names_are_possible(name):
    assert RunInfo.from_json(with_channel(name=name)).channels[-1].name == name


@pytest.mark.parametrize(
    "values, told",
    [
        ({"name": "action"}, "Channel 'action' occurs twice"),
        ({"name": 3}, "'name' is 3, but it must be a str"),
        ({"dtype": "O"}, "Channel 'extra' has the dtype 'O'. Possible:"),
        ({"dtype": "<f16"}, "has the dtype"),
        ({"dtype": "S10"}, "has the dtype"),
        ({"dtype": "(100000,100000)f4"}, "has the dtype"),
        ({"dtype": "f4,f4"}, "has the dtype"),
        ({"dtype": "M8"}, "has the dtype"),
        ({"dtype": "nothing"}, "has the dtype"),
        ({"dtype": 4}, "must be a str"),
        ({"shape": [-1]}, "is impossible"),
        ({"shape": [1.0]}, "is impossible"),
        ({"shape": ["2"]}, "is impossible"),
        ({"shape": [1] * 50}, "is impossible"),
        ({"shape": [10**30]}, "is impossible"),
        ({"shape": [1 << 20, 1 << 20]}, "more than 1 GiB"),
        ({"shape": [1 << 20, 1 << 20, 0]}, "more than 1 GiB"),
        ({"shape": 3}, "must be a list"),
        ({"elements": ["a"]}, "has 1 names of elements, but 3 elements"),
        ({"elements": [1, 2, 3]}, "must be strings"),
        ({"when": "later"}, "'when' is 'later'"),
        ({"units": None}, "'units' is None"),
        ({"next_of": "nothing"}, "has next_of 'nothing', not a channel"),
        ({"next_of": "action"}, "has next_of 'action', but that must be"),
        ({"next_of": "extra"}, "has next_of 'extra', but that must be"),
        ({"next_of": "obs/actor", "shape": [2]}, "has next_of 'obs/actor', but that must be"),
    ],
)
def test_a_wrong_channel_is_refused_and_the_error_says_why(values, told):
    with pytest.raises(DataError) as caught:
        load(with_channel(**values))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' * 80 + b"1" + b"}" * 80,
        b'{"a": ' + b"1" * 10_000 + b"}",
        b'{"a": [' + b"[]," * 3_000_000 + b"[]]}",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(DataError, match="'run.json' is not a recording"):
        episode_table.load_info(text, "run.json")


def test_a_huge_text_is_refused_without_parsing(monkeypatch):
    monkeypatch.setattr(episode_table, "MOST_TEXT", 2 << 20)
    with pytest.raises(DataError, match="The text has 3 MB; at most 2 MB are possible"):
        episode_table.load_info(b"x" * (3 << 20), "run.json")
    info = World().info
    info.attachments["model.mjb"] = bytes(3 << 20)
    with pytest.raises(DataError, match=r"4 MB with its attachments model.mjb, .* at most 2"):
        episode_table.dump_info(info, attachments=True)


def test_a_description_that_cannot_be_read_back_is_not_written():
    spec = ChannelSpec(name="../x", dtype=np.dtype("f4"))
    with pytest.raises(DataError, match="cannot be called '../x'"):
        episode_table.dump_info(RunInfo(channels=(spec,), envs=(0,), step_dt=1.0), attachments=True)


def test_no_byte_of_a_description_changes_unnoticed():
    text = episode_table.dump_info(INFO, attachments=True, gaps=3).encode()
    wanted = episode_table.load_info(text, "run.json")
    refused = 0
    for at in range(len(text)):
        for bit in (0, 3, 6):
            damaged = text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :]
            try:
                found = episode_table.load_info(damaged, "run.json")
                assert found[0] == wanted[0]
                assert wanted[1].items() <= found[1].items()
            except DataError:
                refused += 1
    assert refused > 2.9 * len(text)
    changed = text.replace(b'"gaps": 3', b'"gaps": 4')
    with pytest.raises(DataError, match="wrong checksum"):
        episode_table.load_info(changed, "run.json")
    assert episode_table.load_info(changed, "run.json", check=False)[1]["gaps"] == 4


# -- any JSON --------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["obs/actor", "<f4", "O", "before", "..", "a//b", "mjlab_rec", 2, 1 << 70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(data: Any) -> list[tuple[Any, Any]]:
    """All containers with each of their keys."""
    keys = data.keys() if isinstance(data, dict) else range(len(data))
    found = [(data, key) for key in keys]
    for key in keys:
        if isinstance(data[key], dict | list):
            found += places(data[key])
    return found


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_change_of_a_description_loads_or_is_refused(data):
    tree = copy.deepcopy(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(tree)))
        how = data.draw(st.sampled_from(["set", "remove", "double"]))
        if how == "set":
            container[key] = data.draw(ANYTHING)
        elif how == "remove":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
    try:
        info = load(tree)
    except DataError as error:
        assert len(str(error)) < 500
    else:
        check(info)


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
def test_any_json_loads_or_is_refused(data):
    for read in (RunInfo.from_json, ChannelSpec.from_json, load):
        try:
            read(data)
        except DataError as error:
            assert len(str(error)) < 500


def check(info: RunInfo) -> None:
    """Loaded values have the types of their annotations."""
    assert len({spec.name for spec in info.channels}) == len(info.channels)
    for spec in info.channels:
        assert isinstance(spec, ChannelSpec)
        assert spec.dtype.kind in "biuf"
        assert 0 <= spec.nbytes <= 1 << 30
        assert not spec.elements or len(spec.columns()) == spec.size
        assert not spec.next_of or spec.next_of in {other.name for other in info.stored}
    assert all(isinstance(env, int) and env >= 0 for env in info.envs)
    assert info.every >= 1
    assert np.isfinite(info.step_dt)
    json.dumps(info.to_json())
