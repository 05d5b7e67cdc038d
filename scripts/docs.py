"""Build the API reference from the docstrings, as web pages."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from pathlib import Path

# Imported before pdoc, which keeps modules from starting processes; mujoco starts one.
import mujoco  # noqa: F401
import pdoc.render
import tyro

import mjlab_rec


def main(
    folder: Path = Path("build/docs"), modules: tuple[str, ...] = ("mjlab_rec", "tasks")
) -> None:
    """Write the pages.

    Args:
        folder: Where to; begin with its index.html.
        modules: Packages and modules, each with all below it.
    """
    for package in pkgutil.walk_packages(mjlab_rec.__path__, "mjlab_rec."):
        if package.ispkg:
            show_imported(package.name)
    # Inherited dataclass fields keep the names of types that only their own module imports. The
    # pages show these names without a link.
    warnings.filterwarnings(
        "ignore", "Error parsing type|Cannot determine where|Suppressed", UserWarning
    )
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*modules, output_directory=folder)
    print(folder / "index.html")


def show_imported(package: str) -> None:
    """Let the page of a package show what it imports from its modules for users."""
    module = importlib.import_module(package)
    imported = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("mjlab_rec")
    ]
    modules = [info.name for info in pkgutil.iter_modules(module.__path__)]
    vars(module)["__all__"] = [*imported, *modules]


if __name__ == "__main__":
    tyro.cli(main)
