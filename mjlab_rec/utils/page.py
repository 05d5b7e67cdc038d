"""The web page of this process, which live plots and the viewer share."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from mjlab_rec.utils.extras import require
from mjlab_rec.utils.page_guard import PageGuard

logger = logging.getLogger(__name__)

COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
"""Of the lines in charts, in order."""

_LOOPBACK = "127.0.0.1"
_users: dict[tuple[str, int], int] = {}
_servers: dict[tuple[str, int], Any] = {}


class Page:
    """One user's part in a web page, which is served as long as it has users."""

    def __init__(self, server: Any, key: tuple[str, int]) -> None:
        self.server: Any = server
        """The ``viser.ViserServer``."""
        self._key = key
        self._closed = False

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = self.server.get_host()
        return f"http://{'localhost' if host == _LOOPBACK else host}:{self.server.get_port()}"

    @property
    def shared(self) -> bool:
        """Whether somebody else uses it too."""
        return _users[self._key] > 1

    def close(self) -> None:
        """Say that this user is done with it; the last one stops the server. Idempotent."""
        if self._closed:
            return
        self._closed = True
        _users[self._key] -= 1
        if _users[self._key] == 0:
            del _users[self._key], _servers[self._key]
            with _rich_is_quiet():
                self.server.stop()


def open_page(user: str, port: int = 8080, host: str = _LOOPBACK) -> Page:
    """The page of this process, made if it is not there yet. Each user closes it once.

    Args:
        user: Who needs it, for the message if viser is missing.
        port: Where to serve it; if that is taken, the next free port is used.
        host: Address to listen at. The default is reached from this machine only; "0.0.0.0" opens
            it, and all its buttons, to everybody who reaches the machine. Other web sites in the
            same browser are refused, as ``PageGuard`` says.
    """
    viser = require("viser", "web", user)
    key = host, port
    if key not in _servers:
        import rich

        # viser prints a banner whatever `verbose` says. Captured is what this thread prints by
        # rich's console, and nothing else.
        with rich.get_console().capture():
            server = viser.ViserServer(host=host, port=port, label="mjlab_rec", verbose=False)
        try:
            PageGuard(host).install(server)
        except BaseException:
            with _rich_is_quiet():
                server.stop()
            raise
        # The share button would make the page public by way of somebody else's server.
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        _servers[key], _users[key] = server, 0
        logger.info("Web page: http://%s:%s", server.get_host(), server.get_port())
    _users[key] += 1
    return Page(_servers[key], key)


@contextlib.contextmanager
def _rich_is_quiet() -> Iterator[None]:
    """Keep viser from saying that it stops, which it does by rich's console in a thread of its own.

    Other consoles, such as those of progress bars, and sys.stdout are left alone.
    """
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
