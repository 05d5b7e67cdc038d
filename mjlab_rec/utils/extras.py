"""Optional packages, imported where they are used, and errors for what is missing."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError):
    """A feature needs a package that is not installed, or a newer version of it."""


class UnavailableError(RuntimeError):
    """This machine lacks what a feature needs, such as OpenGL or a display."""


def require(module: str, extra: str | None, user: str, package: str | None = None) -> Any:
    """Import an optional package.

    Args:
        module: What to import, such as "imageio_ffmpeg".
        extra: The extra of this package that installs it, such as "video"; None if there is none.
        user: What needs it, for the message: "VideoRecorder".
        package: The name to install it by, if it is not that of the module and there is no extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # The package is installed, but something that it needs is not.
        target = f"'mjlab_rec[{extra}]'" if extra else package or top
        raise MissingExtraError(f"{user} needs the package {top!r}: pip install {target}") from None
