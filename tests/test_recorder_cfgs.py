"""Cfgs of recorders check their values by the annotations of their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from mjlab_rec.recorders import (
    CsvRecorderCfg,
    EpisodeLogRecorderCfg,
    LivePlotRecorderCfg,
    RerunRecorderCfg,
    VideoRecorderCfg,
)
from mjlab_rec.recorders.cfg_fields import Bounds, CheckedCfg, Count, Positive, env_ids


@dataclass(kw_only=True)
class Cfg(CheckedCfg):
    count: Count | None = None
    rate: Positive = 1.0
    share: Annotated[float, Bounds(0, 1)] = 0.5
    mode: Literal["a", "b"] = "a"
    maybe: Literal["a", "b"] | None = None
    names: tuple[str, ...] = ()
    flag: bool = False
    text: str = ""
    either: str | int | None = None
    anything: Any = None


@pytest.mark.parametrize(
    "values",
    [
        *({"count": 1}, {"count": None}, {"count": np.int64(3)}),
        *({"rate": 2}, {"rate": 0.1}, {"rate": np.float32(2.0)}, {"share": 0}, {"share": 1.0}),
        *({"mode": "b"}, {"maybe": None}, {"names": ("x",)}, {"names": ["x"]}),
        *({"either": "x"}, {"either": 3}, {"anything": "x"}, {"flag": True}),
    ],
)
def test_values_that_fit(values):
    Cfg(func=object, **values).check()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "Cfg.count must be a whole number of at least 1, got 0."),
        (
            {"count": np.int64(0)},
            "Cfg.count must be a whole number of at least 1, got np.int64(0).",
        ),
        ({"count": 2.5}, "Cfg.count must be a whole number of at least 1, got 2.5."),
        ({"count": "3"}, "Cfg.count must be a whole number of at least 1, got '3'."),
        ({"count": True}, "Cfg.count must be a whole number of at least 1, got True."),
        ({"share": None}, "Cfg.share must be a number from 0 to 1, got None."),
        ({"rate": 0}, "Cfg.rate must be a number above 0, got 0."),
        ({"rate": float("nan")}, "Cfg.rate must be a number above 0, got nan."),
        ({"rate": float("inf")}, "Cfg.rate must be a number above 0, got inf."),
        ({"share": 1.5}, "Cfg.share must be a number from 0 to 1, got 1.5."),
        ({"mode": "c"}, "Cfg.mode is 'c'. Possible: 'a', 'b'."),
        ({"mode": None}, "Cfg.mode is None. Possible: 'a', 'b'."),
        ({"maybe": "c"}, "Cfg.maybe is 'c'. Possible: None, 'a', 'b'."),
        ({"names": "x"}, "Cfg.names is a string; write ('x',) for a single value."),
        ({"flag": "no"}, "Cfg.flag must be True or False, got 'no'."),
        ({"text": 3}, "Cfg.text must be a string, got 3."),
    ],
)
def test_values_that_do_not_fit(values, message):
    with pytest.raises(ValueError) as caught:
        Cfg(func=object, **values).check()
    assert str(caught.value) == message


@pytest.mark.parametrize("cfg_type", [RerunRecorderCfg, VideoRecorderCfg, LivePlotRecorderCfg])
def test_append_is_offered_only_where_it_is_possible(cfg_type):
    with pytest.raises(ValueError, match="Possible: 'error', 'overwrite', 'number'.$"):
        cfg_type(path="a.png", if_exists="append").check()
    for appends in (CsvRecorderCfg, EpisodeLogRecorderCfg):
        appends(path="a", if_exists="append").check()


def test_which_environments_are_meant():
    assert env_ids(None, 3) == (0, 1, 2)
    assert env_ids(2, 3) == (0, 1)
    assert env_ids([2, 0], 3) == (2, 0)
    assert env_ids(np.arange(2), 3) == (0, 1)
    for wrong in (0, 4, -1, (), (1, 1), (3,), (0.5,), 1.5, "2"):
        with pytest.raises(ValueError, match="distinct indices from 0 to 2"):
            env_ids(wrong, 3)  # type: ignore[arg-type]
