"""A test that hangs fails, with the tracebacks of all threads, and the others go on."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Generator
from typing import Any

import pytest
from long_runs import LONG

HANGS_AFTER_S = 0 if LONG or os.environ.get("MJLAB_REC_EXAMPLES") else 600
"""In `make test` the longest test takes a minute; what it waits for gets five (see waiting)."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    def fail(*_: Any) -> None:
        faulthandler.dump_traceback(2)  # Into the test's output.
        pytest.fail(f"It hangs: it has taken {HANGS_AFTER_S} s.")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(HANGS_AFTER_S)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
