"""Rollouts as blocks, files and episodes; knows no environment and no simulator."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.description import describe as describe
from mjlab_rec.data.rollouts import Rollouts as Rollouts
from mjlab_rec.data.rollouts import open_rollouts as open_rollouts
from mjlab_rec.data.schema import DataError as DataError

if TYPE_CHECKING:
    from mjlab_rec.data.export import export_rollouts as export_rollouts
    from mjlab_rec.data.importing import import_rollouts as import_rollouts

# Imported when they are used.
_LATER = {
    "export": ("export_rollouts",),
    "importing": ("import_rollouts",),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
