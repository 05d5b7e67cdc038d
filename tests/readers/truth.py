"""What was recorded, as arrays per stretch, for readers that do not have mjlab_rec."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np


def stretches(folder: str | Path, name: str = "truth") -> list[dict[str, np.ndarray]]:
    """The arrays of each stretch: channels, "step", and "env" and "number" of its episode."""
    files = sorted((Path(folder) / name).glob("*.npz"))
    assert files, f"There is nothing in {folder}."
    return [{key[1:]: values for key, values in np.load(file).items()} for file in files]


def rows_of(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Channels and "step" of all rows, one stretch after another."""
    names = [name for name, values in parts[0].items() if values.shape]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def check(found: object, expected: np.ndarray, what: str) -> None:
    """Raise if values differ in type, shape or any bit."""
    values = np.asarray(found)
    if values.shape == (*expected.shape, 1):
        values = values[..., 0]
    assert values.dtype == expected.dtype, f"{what}: {values.dtype} instead of {expected.dtype}"
    assert values.shape == expected.shape, f"{what}: {values.shape} instead of {expected.shape}"
    assert values.tobytes() == expected.tobytes(), f"{what} differs"


def done(count: int, *packages: str) -> None:
    """Say what was compared, and with which versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{count} arrays are equal, read with {versions}")
