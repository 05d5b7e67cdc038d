"""Rollouts as blocks, files and episodes; knows no environment and no simulator."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.description import describe as describe
from mjlab_rec.data.files import LockedError as LockedError
from mjlab_rec.data.rollouts import Rollouts as Rollouts
from mjlab_rec.data.rollouts import open_rollouts as open_rollouts
from mjlab_rec.data.schema import DataError as DataError

if TYPE_CHECKING:
    from mjlab_rec.data.checking import CheckResult as CheckResult
    from mjlab_rec.data.checking import Finding as Finding
    from mjlab_rec.data.checking import check as check
    from mjlab_rec.data.checking import repair as repair
    from mjlab_rec.data.comparing import Difference as Difference
    from mjlab_rec.data.comparing import diff as diff
    from mjlab_rec.data.export import export_rollouts as export_rollouts
    from mjlab_rec.data.following import follow as follow
    from mjlab_rec.data.importing import import_rollouts as import_rollouts
    from mjlab_rec.data.plotting import plot as plot
    from mjlab_rec.data.reporting import report as report
    from mjlab_rec.data.rewriting import OutputOptions as OutputOptions
    from mjlab_rec.data.selecting import keep_where as keep_where
    from mjlab_rec.data.selecting import merge as merge
    from mjlab_rec.data.selecting import split as split

# Imported when they are used.
_LATER = {
    "checking": ("CheckResult", "Finding", "check", "repair"),
    "comparing": ("Difference", "diff"),
    "export": ("export_rollouts",),
    "following": ("follow",),
    "importing": ("import_rollouts",),
    "plotting": ("plot",),
    "reporting": ("report",),
    "rewriting": ("OutputOptions",),
    "selecting": ("keep_where", "merge", "split"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
