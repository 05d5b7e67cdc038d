"""Values in nested cfgs are reached, listed and replaced by their path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from mjlab_rec.utils.cfg_paths import CfgPathError, leaves, update

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers


@dataclass(frozen=True)
class Gain:
    stiffness: float = 1.0
    """Stiffness in Nm/rad."""
    damping: float = 0.1


@dataclass(kw_only=True)
class Base:
    num_envs: int = 1
    """How many
    environments."""


@dataclass(kw_only=True)
class Cfg(Base):
    gains: tuple[Gain, ...] = (Gain(), Gain(2.0))
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0, "a.b_c": 2.0, ".*": 3.0})
    params: dict[str, Any] = field(default_factory=lambda: {"std": 0.5, "gain": Gain(5.0)})
    func: Callable[[], int] = int
    late: OnlyForTypeCheckers | None = None
    limits: tuple[float, float] = (0.0, 1.0)
    _private: int = 0


def seen_by_update(cfg, path):
    """The leaf that update hands to its caller."""
    found = []
    update(cfg, path, lambda leaf: found.append(leaf) or leaf.value)
    return found[0]


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("num_envs", 1, int),
        ("num-envs", 1, int),
        ("limits", (0.0, 1.0), tuple[float, float]),
        ("gains.1.stiffness", 2.0, float),
        ("weights.a", 1.0, float),
        ("weights.a.b-c", 2.0, float),
        ("weights..*", 3.0, float),
        ("params.std", 0.5, Any),
        ("params.gain.stiffness", 5.0, float),
        ("late", None, Any),
    ],
)
def test_a_path_gives_value_and_type(path, value, hint):
    leaf = seen_by_update(Cfg(), path)
    assert (leaf.value, leaf.hint) == (value, hint)


def test_update_changes_only_the_field_of_the_path():
    cfg, expected = Cfg(), Cfg()
    for path in ("num_envs", "gains.1.damping", "weights.a", "params.gain.damping"):
        update(cfg, path, lambda leaf: 7)
    expected.num_envs = 7
    expected.gains = (Gain(), Gain(2.0, 7))
    expected.weights["a"] = 7
    expected.params["gain"] = Gain(5.0, 7)
    assert cfg == expected
    assert Gain() == Gain(1.0, 0.1)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("num_env", "There is no 'num_env' at the top. Did you mean 'num_envs'?"),
        ("gains.0.stifness", "There is no 'stifness' in 'gains.0'. Did you mean 'stiffness'?"),
        ("gains.2.damping", "There is no '2' in 'gains'. Known: 0, 1."),
        ("weights.b", "There is no 'b' in 'weights'."),
        ("num_envs.x", "'num_envs' is a single value: there is no 'x' in it."),
        ("_private", "There is no '_private' at the top."),
    ],
)
def test_wrong_path_is_explained(path, message):
    with pytest.raises(CfgPathError) as caught:
        update(Cfg(), path, lambda leaf: 0)
    assert str(caught.value).startswith(message)


def test_leaves_are_all_fields_and_the_given_params():
    assert [leaf.path for leaf in leaves(Cfg())] == [
        "num_envs",
        "gains.0.stiffness",
        "gains.0.damping",
        "gains.1.stiffness",
        "gains.1.damping",
        "weights.a",
        "weights.a.b_c",
        "weights..*",
        "params.std",
        "params.gain.stiffness",
        "late",
        "limits",
    ]


def test_a_leaf_has_the_docstring_of_its_field():
    docs = {leaf.path: leaf.doc for leaf in leaves(Cfg())}
    assert docs["num_envs"] == "How many environments."
    assert docs["gains.0.stiffness"] == "Stiffness in Nm/rad."
    assert docs["limits"] == ""
