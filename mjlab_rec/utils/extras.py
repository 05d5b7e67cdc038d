"""Optional packages, imported where they are used, and errors for what is missing."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError):
    """A feature needs an optional package that is not installed."""


class UnavailableError(RuntimeError):
    """This machine lacks what a feature needs, such as OpenGL or a display."""


def require(module: str, extra: str, user: str) -> Any:
    """Import an optional package.

    Args:
        module: What to import, such as "imageio_ffmpeg".
        extra: The extra of this package that installs it, such as "video".
        user: What needs it, for the message: "VideoRecorder".
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # The package is installed, but something that it needs is not.
        raise MissingExtraError(
            f"{user} needs the package {top!r}: pip install 'mjlab_rec[{extra}]'"
        ) from None
