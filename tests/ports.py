"""Ports for servers of tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

# Below those that the system gives away by itself, and other ones in each process of the tests.
_FIRST, _EACH = 20_000, 100
_number = itertools.count()


def free_port() -> int:
    """A port of 127.0.0.1 that no server has, another one in each call."""
    for number in itertools.islice(_number, _EACH):
        port = _FIRST + os.getpid() % 120 * _EACH + number % _EACH
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
