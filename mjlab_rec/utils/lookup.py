"""Find what a text such as `package.module:name` names, and import packages in packages."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from mjlab_rec.utils.string import nearest


def import_here(name: str) -> ModuleType:
    """Import a module; the current folder is also searched, last."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(name)


def import_packages(
    package: ModuleType,
    skip: Sequence[str] = (),
    on_error: Callable[[str], None] | None = None,
) -> None:
    """Import each package inside a package, at any depth.

    Args:
        package: Where to start.
        skip: Packages whose full name contains one of these are left out, with all in them.
        on_error: Called with the name of a package whose import fails, instead of raising.
    """
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not found.ispkg or any(part in found.name for part in skip):
            continue
        try:
            inner = importlib.import_module(found.name)
        except Exception:
            if on_error is None:
                raise
            on_error(found.name)
        else:
            import_packages(inner, skip, on_error)


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
        public = [
            known
            for known, value in vars(module).items()
            if not known.startswith("_") and not isinstance(value, ModuleType)
        ]
        raise ValueError(f"Module {module_name!r} has no {name!r}. {nearest(name, public)}")
    return getattr(module, name)
