"""Set-up shared by all tests."""

from __future__ import annotations

import contextlib
import signal

import pytest
import torch
from browser import browser as browser
from browser import keep_screenshot as keep_screenshot
from browser import screenshot as screenshot
from browser import visit as visit
from colour_world import ffmpeg as ffmpeg
from colour_world import painter as painter
from colour_world import studio as studio
from damaged_files import watch as watch
from hangs import pytest_runtest_protocol as pytest_runtest_protocol
from long_runs import LONG, skip_long
from script_runs import run_script as run_script
from script_runs import runner as runner

# A program that a script starts in the background ignores Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Ops on small tensors get slower, not faster, with more threads.
torch.set_num_threads(1)

with contextlib.suppress(ImportError):  # `make test-newest` works without hypothesis.
    from hypothesis import HealthCheck, settings

    # No test fails because the machine is busy, and only long runs find what others did not.
    settings.register_profile(
        "tests",
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_long(items)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)
