"""Settings of trainings by name, in TOML files with the tables ``[env]`` and ``[agent]``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from mjlab_rec.utils import cfg_paths
from mjlab_rec.utils.plain_data import fit
from mjlab_rec.utils.string import nearest

_TABLES = ("env", "agent")


def _presets() -> Path:
    """The folder of presets: inside an installed package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs" / "train"
    return installed if installed.is_dir() else package.parent / "configs" / "train"


PRESETS = _presets()
"""Folder of the project's presets."""


class TrainPreset:
    """Fields of an environment's and a learner's cfg.

    Args:
        source: Name of a preset in configs/train, or path of a TOML file.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.tables = _read(source)
        for name, table in self.tables.items():
            if name not in _TABLES or not isinstance(table, dict):
                raise ValueError(
                    f"Preset {source!r}: there is no table {name!r}. {nearest(name, _TABLES)}"
                )

    def apply(self, env_cfg: Any, agent_cfg: Any) -> None:
        """Set the fields; an unknown field or a value of a wrong type is an error."""
        for name, cfg in (("env", env_cfg), ("agent", agent_cfg)):
            for path, value in self.tables.get(name, {}).items():
                try:
                    _set(cfg, path, value)
                except ValueError as error:
                    raise ValueError(f"Preset {self.source!r}, [{name}]: {error}") from None


class _Group(Exception):
    """A table is meant for the fields of a group."""


def _set(cfg: Any, path: str, value: Any) -> None:
    def new(leaf: cfg_paths.Leaf) -> Any:
        old = leaf.value
        if is_dataclass(old) or (isinstance(old, dict) and old):
            if isinstance(value, Mapping):
                raise _Group
            raise ValueError("this is a group of fields, of which some may be set.")
        if callable(old):
            raise ValueError("this is a function, which a preset cannot set.")
        return fit(value, leaf.hint)

    try:
        cfg_paths.update(cfg, path, new)
    except _Group:
        for key, entry in value.items():
            _set(cfg, f"{path}.{key}", entry)
    except cfg_paths.CfgPathError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(source: str) -> dict[str, Any]:
    path = Path(source).expanduser() if source.endswith(".toml") else PRESETS / f"{source}.toml"
    if not path.is_file():
        known = sorted(file.stem for file in PRESETS.glob("*.toml"))
        raise ValueError(
            f"Unknown preset {source!r}. {nearest(source, known)} Or give the path of a TOML file."
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Preset {source!r}: {path} is not valid TOML: {error}") from None
