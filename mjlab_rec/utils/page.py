"""The web page of this process, which live plots and the viewer share."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from typing import Any

from mjlab_rec.utils.extras import require

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_open: dict[tuple[str, int], Page] = {}


@dataclass
class Page:
    """A web page served by viser, for as long as somebody uses it."""

    server: Any
    """The ``viser.ViserServer``."""

    _key: tuple[str, int]
    _users: int = 0

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = self.server.get_host()
        return f"http://{'localhost' if host == _LOOPBACK else host}:{self.server.get_port()}"

    def close(self) -> None:
        """Say that one user is done with it; the last one stops the server."""
        self._users -= 1
        if self._users == 0:
            _open.pop(self._key, None)
            with contextlib.redirect_stdout(io.StringIO()):
                self.server.stop()


def open_page(user: str, port: int = 8080, host: str = _LOOPBACK) -> Page:
    """The page of this process, made if it is not there yet. Each user closes it once.

    Args:
        user: Who needs it, for the message if viser is missing.
        port: Where to serve it; if that is taken, the next free port is used.
        host: Address to listen at. The default is reached from this machine only; "0.0.0.0" opens
            it, and all its buttons, to everybody who reaches the machine.
    """
    viser = require("viser", "web", user)
    key = host, port
    if key not in _open:
        server = viser.ViserServer(host=host, port=port, label="mjlab_rec", verbose=False)
        _open[key] = Page(server, key)
        logger.info("Web page: %s", _open[key].url)
    page = _open[key]
    page._users += 1
    return page
