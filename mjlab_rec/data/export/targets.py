"""What recordings can be exported to."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.string import nearest

_HERE = "mjlab_rec.data.export"
_SOURCE = ("source", "path", "final_path")  # arguments that are not options


@dataclass(frozen=True, kw_only=True)
class Target:
    """A format that another program reads."""

    write: str
    """The function that writes it, as "package.module:function". Its arguments are a ``Source``,
    the path to write to, perhaps the path where that will be, and its options."""

    marks: tuple[str, ...] = ()
    """Files of which one is in each folder of this format; () if it is a file."""

    suffix: str = ""
    """Suffix of its files."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Options that belong to the target."""

    def function(self) -> Callable[..., None]:
        """The function, imported."""
        module, _, name = self.write.partition(":")
        return functools.partial(getattr(importlib.import_module(module), name), **self.fixed)

    def options(self) -> list[str]:
        """The names of its options."""
        parameters = inspect.signature(self.function()).parameters
        return [name for name in parameters if name not in (*_SOURCE, *self.fixed)]

    def check_options(self, options: Mapping[str, Any], target: str) -> None:
        """Raise for options that it does not have."""
        known = self.options()
        for name in options:
            if name not in known:
                raise DataError(
                    f"An export to {target} has no option '{name}'."
                    f" {nearest(name, known) if known else 'It has none.'}"
                )


def _own(format: str, suffix: str = "", marks: tuple[str, ...] = ()) -> Target:
    return Target(
        write=f"{_HERE}.own:write_own", fixed={"format": format}, suffix=suffix, marks=marks
    )


TARGETS: dict[str, Target] = {
    "robomimic": Target(write=f"{_HERE}.robomimic:write_robomimic", suffix=".hdf5"),
    "isaaclab": Target(write=f"{_HERE}.isaaclab:write_isaaclab", suffix=".hdf5"),
    "minari": Target(write=f"{_HERE}.minari:write_minari", marks=("data/metadata.json",)),
    "lerobot": Target(write=f"{_HERE}.lerobot:write_lerobot", marks=("meta/info.json",)),
    "torchrl": Target(write=f"{_HERE}.torchrl:write_torchrl", marks=("mjlab_rec_export.parquet",)),
    "webdataset": Target(
        write=f"{_HERE}.webdataset:write_webdataset", marks=("mjlab_rec_export.parquet",)
    ),
    "hdf5": _own("hdf5", ".h5"),
    "npz": _own("npz", marks=("meta.json",)),
    "csv": _own("csv", ".csv"),
    "parquet": _own("parquet", marks=("mjlab_rec.parquet",)),
}
"""The targets, by name."""


def target_named(name: str) -> Target:
    """A target by its name."""
    if name not in TARGETS:
        raise DataError(f"Unknown format '{name}' to export to. {nearest(name, list(TARGETS))}")
    return TARGETS[name]
