"""How much the tests try: samples in ``make test``, everything in ``make test-long``.

``make test-long`` sets MJLAB_REC_LONG. Then tests with the marker ``long`` run too.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

LONG = bool(os.environ.get("MJLAB_REC_LONG"))


def some_long(*values: Any) -> Any:
    """Return values of ``parametrize`` whose test takes long."""
    return pytest.param(*values, marks=pytest.mark.long)


def skip_long(items: list[pytest.Item]) -> None:
    """Skip the tests with the marker ``long``, unless they were asked for."""
    skip = pytest.mark.skip(reason="takes long; `make test-long` runs it")
    for item in items:
        if "long" in item.keywords and not LONG:
            item.add_marker(skip)
