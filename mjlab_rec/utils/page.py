"""The web page of this process, which live plots and the viewer share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from mjlab_rec.utils.extras import require
from mjlab_rec.utils.page_guard import PageGuard

logger = logging.getLogger(__name__)

COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
"""Colours of the lines in charts, in order."""

_LOOPBACK = "127.0.0.1"
_STOPS_WITHIN_S = 10
_users: dict[tuple[str, int], int] = {}
_servers: dict[tuple[str, int], Any] = {}


class Page:
    """One user's share of a web page, which is served as long as it has users."""

    def __init__(self, server: Any, key: tuple[str, int]) -> None:
        self.server: Any = server
        """The ``viser.ViserServer``."""
        self._key = key
        self._closed = False

    @property
    def url(self) -> str:
        """Address of the page for a browser."""
        host = self.server.get_host()
        return f"http://{'localhost' if host == _LOOPBACK else host}:{self.server.get_port()}"

    @property
    def shared(self) -> bool:
        """Whether it has other users."""
        return _users[self._key] > 1

    def close(self) -> None:
        """Give up this user's share; the last one stops the server. Idempotent."""
        if self._closed:
            return
        self._closed = True
        _users[self._key] -= 1
        if _users[self._key] == 0:
            del _users[self._key], _servers[self._key]
            _stop(self.server)


def open_page(user: str, port: int = 8080, host: str = _LOOPBACK) -> Page:
    """Return the page of this process, which the first call makes. Each user closes it once.

    Args:
        user: Who needs it, for the message if viser is missing.
        port: Where to serve it; if that is taken, the next free port is used.
        host: Address to listen on. By default only this machine reaches it; "0.0.0.0" opens it, and
            all its buttons, to everyone who reaches the machine. ``PageGuard`` refuses other web
            sites in the same browser.
    """
    viser = require("viser", "web", user)
    key = host, port
    if key not in _servers:
        import rich

        # viser prints a banner whatever `verbose` is. This captures only what this thread prints
        # through rich's console.
        with rich.get_console().capture():
            server = viser.ViserServer(host=host, port=port, label="mjlab_rec", verbose=False)
        try:
            PageGuard(host).install(server)
        except BaseException:
            _stop(server)
            raise
        _let_threads_send(server)
        # The share button would make the page public through a third party's server.
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        _servers[key], _users[key] = server, 0
        logger.info("Web page: http://%s:%s", server.get_host(), server.get_port())
    _users[key] += 1
    return Page(_servers[key], key)


class ThreadsafeEvent(asyncio.Event):
    """An event of a loop that other threads set, too."""

    def set(self) -> None:
        """Wake those who wait, also if the loop changes who they are in the meantime."""
        for _ in range(100):
            try:
                return super().set()
            except (RuntimeError, asyncio.InvalidStateError):
                self.clear()


def _let_threads_send(server: Any) -> None:
    """Make a ``viser.ViserServer`` accept messages from every thread.

    With viser 1.1.1 a thread that sets a value fails, rarely, because it sets an event of the loop.
    Nothing waits for that event before the first client has come.
    """
    buffer: Any = getattr(getattr(server, "_websock_server", None), "_broadcast_buffer", None)
    if isinstance(getattr(buffer, "message_event", None), asyncio.Event):
        buffer.message_event = ThreadsafeEvent()


def _stop(server: Any) -> None:
    """Stop a server, and wait until it no longer listens."""
    loop = server.get_event_loop()
    with _rich_is_quiet():
        server.stop()
        # viser waits only for a second, which is too short on a busy machine.
        for _ in range(_STOPS_WITHIN_S * 100):
            if loop.is_closed():
                break
            time.sleep(0.01)


@contextlib.contextmanager
def _rich_is_quiet() -> Iterator[None]:
    """Silence viser's message that it stops, which it prints from its own thread with rich.

    Other consoles, such as those of progress bars, and sys.stdout do not change.
    """
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
