"""A Rerun viewer in a separate process, reachable only from this machine.

Rerun's own functions for this listen on all addresses of the machine; its program can be limited
to one. It lets browsers pass its data only to pages from this machine and rerun.io, but does not
check the Host header: a site that points its own name to this machine (DNS rebinding) can read the
recording and add to it. The page cannot control the simulation.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.extras import require

LOOPBACK = "127.0.0.1"

# A shell that waits for the end of its input, which comes when this process ends in any way.
_GUARD = "read _; kill {pid} 2>/dev/null"
_PATIENCE_S = 60.0


class RerunViewer:
    """Starts Rerun's program and waits until it listens.

    Args:
        kind: A "web" page, which closes with ``close()`` or with this process; or a "native"
            window, which stays open.
        web_port: Port of the page; if it is taken, the next free one is used.
    """

    def __init__(self, kind: Literal["web", "native"], web_port: int = 9090) -> None:
        self.page = ""
        """Address of the page; empty for a window."""
        self._guard: subprocess.Popen[bytes] | None = None
        self._stays = kind == "native"
        with contextlib.ExitStack() as reserved:
            self.port = _free_port(9876, reserved)
            options = ["--bind", LOOPBACK, "--port", str(self.port)]
            if kind == "web":
                web_port = _free_port(web_port, reserved, but=self.port)
                options += ["--serve-web", "--web-viewer-port", str(web_port)]
                self.page = f"http://{LOOPBACK}:{web_port}/?url={quote(self.url, safe='')}"
            self._process = _started([program(), *options], subprocess.DEVNULL)
            try:
                if kind == "web":
                    guard = ["sh", "-c", _GUARD.format(pid=self._process.pid)]
                    self._guard = _started(guard, subprocess.PIPE)
                for port in [self.port, web_port] if kind == "web" else [self.port]:
                    self._wait_for(port)
            except BaseException:
                self._stays = False
                self.close()
                raise

    @property
    def url(self) -> str:
        """URL to send recordings to."""
        return f"rerun+http://{LOOPBACK}:{self.port}/proxy"

    def close(self) -> None:
        """End the viewer, unless it is a window. Idempotent."""
        if self._stays:
            return
        self._process.terminate()
        self._process.wait()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not listens(LOOPBACK, port):
            code = self._process.poll()
            if code is not None:
                raise DataError(
                    f"The Rerun viewer ended immediately, with code {code}. A window needs a"
                    " display; without one, use serve=True for a web page."
                )
            if time.monotonic() > deadline:
                raise DataError(f"The Rerun viewer did not start within {_PATIENCE_S:.0f} s.")
            time.sleep(0.02)


def _started(command: list[str], stdin: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A Ctrl-C in the terminal is for the simulation, which closes the viewer.
        start_new_session=True,
    )


def program() -> str:
    """Path of Rerun's program; its launcher would not forward the signal to end."""
    folder = Path(str(require("rerun_cli", "rerun", "RerunViewer").__file__)).parent
    for name in ("rerun", "Rerun.app/Contents/MacOS/Rerun"):
        if (folder / name).exists():
            return str(folder / name)
    raise DataError(f"Rerun's program is not in {folder}. Install rerun-sdk again.")


def listens(host: str, port: int) -> bool:
    """Whether a server accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def _free_port(wanted: int, reserved: contextlib.ExitStack, but: int | None = None) -> int:
    """This port, or the next free one; as long as it is reserved, no other call returns it."""
    for port in range(wanted, min(wanted + 1000, 1 << 16)):
        if port == but or not _reserve(port, reserved) or listens(LOOPBACK, port):
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    raise DataError(f"No port from {wanted} on is free.")


def _reserve(port: int, reserved: contextlib.ExitStack) -> bool:
    """Whether a port was reserved: two processes may look for one before a viewer listens there."""
    if sys.platform != "linux":
        return True  # Only Linux has sockets with names that end with their process.
    mark = reserved.enter_context(socket.socket(socket.AF_UNIX))
    try:
        mark.bind(f"\0mjlab_rec viewer {port}")
    except OSError:
        return False
    return True
