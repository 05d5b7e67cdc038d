"""Importing all packages inside a package, under mjlab's module name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from mjlab_rec.utils import lookup


def import_packages(package_name: str, blacklist_pkgs: Sequence[str] | None = None) -> None:
    """Import a package and each package inside it, at any depth, so that they register their tasks.

    Packages whose full name contains a text of ``blacklist_pkgs`` are left out. Errors are raised;
    ``mjlab_rec.registry.import_subpackages`` logs them instead.
    """
    package = importlib.import_module(package_name)
    lookup.import_packages(package, tuple(blacklist_pkgs or ()))
