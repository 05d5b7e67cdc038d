"""The source files of the functions that a task and an agent name, to compare their content."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mjlab_rec.collecting.plan import hash_of
from mjlab_rec.recorders.about import PACKAGES

# Their versions are compared.
_KNOWN = {name.replace("-", "_") for name in PACKAGES} | {"warp"} | sys.stdlib_module_names


def source_hashes(*values: Any) -> dict[str, str]:
    """Hashes of the source files of all functions and classes in cfgs, by module.

    Packages whose versions are compared, and what the modules import, are left out.

    Args:
        values: Cfgs or functions.
    """
    modules = sorted({module for value in values for module in _modules(value, 0)})
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
    return {name: hash_of(Path(file).read_bytes()) for name, file in files.items() if file}


def _modules(value: Any, depth: int) -> Iterable[str]:
    """Names of the modules of the functions and classes in a value."""
    if value is None or isinstance(value, bool | int | float | str) or depth > 30:
        return
    inner: Iterable[Any] = ()
    if isinstance(value, functools.partial):
        inner = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    elif is_dataclass(value) and not isinstance(value, type):
        inner = (getattr(value, each.name, None) for each in fields(value))
    for each in inner:
        yield from _modules(each, depth + 1)
    named = inspect.unwrap(value) if inspect.isroutine(value) else value
    of = named if isinstance(named, type) or inspect.isroutine(named) else type(named)
    module = getattr(of, "__module__", None)
    if isinstance(module, str) and module.partition(".")[0] not in _KNOWN:
        yield module
