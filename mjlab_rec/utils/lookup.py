"""Find the object that a text such as `package.module:name` names."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from mjlab_rec.utils.string import nearest


def import_here(name: str) -> ModuleType:
    """Import a module; the current folder is also searched, last."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(name)


def look_up(target: str) -> Any:
    """Import the module before the colon, and return the object named after it."""
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise ValueError(f"{target!r} does not name anything. Write 'package.module:name'.")
    try:
        module = import_here(module_name)
    except ModuleNotFoundError as error:
        # If a module exists but imports one that does not, the user needs the original error.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{target!r}: {error}. Is it installed, or in the current folder?"
        ) from None
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ValueError(f"Module {module_name!r} has no {name!r}. {nearest(name, public)}")
    return getattr(module, name)
