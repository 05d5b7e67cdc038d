"""Access control for the web page of this process, which keeps other web sites out."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import logging
import re
import socket
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from mjlab_rec.utils.extras import UnavailableError

logger = logging.getLogger(__name__)

_PATIENCE_S = 60.0


class PageGuard:
    """Decides by their headers which requests come from the page itself.

    A browser lets every web site connect to any address, but sends the site's address (Origin),
    which must equal the requested one (Host). A site may also make its own name resolve to this
    machine (DNS rebinding), so the requested name must be one that leads here anyway. Ports are not
    compared with the port served, because ``ssh -L`` changes them.

    Args:
        host: Address that the page listens on. It is accepted, and so are loopback names. If it is
            not loopback, so are the machine's name and all IP addresses, which no site can rebind.
    """

    def __init__(self, host: str) -> None:
        host = host.lower()
        self._open = not (host == "localhost" or _is_loopback(host))
        self._names = {"localhost", host}
        if self._open:
            self._names.add(socket.gethostname().lower())
        self._warned = False

    def refusal(self, hosts: list[str], origins: list[str]) -> str:
        """Return why a request is refused, or nothing if it is accepted.

        Args:
            hosts: Its Host headers.
            origins: Its Origin headers. Clients other than browsers send none.
        """
        if len(hosts) != 1 or not self._leads_here(hosts[0].lower()):
            ways = "localhost or an IP address" if self._open else "localhost"
            return f"The page was requested as {', '.join(hosts)!r}. Request it as {ways}."
        own = {f"{scheme}://{hosts[0]}".lower() for scheme in ("http", "https")}
        if foreign := [origin for origin in origins if origin.lower() not in own]:
            return f"The page at {hosts[0]!r} refuses requests from {foreign[0]!r}, another site."
        return ""

    def _leads_here(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host).strip("[]")
        return name in self._names or _is_loopback(name) or (self._open and _is_address(name))

    def install(self, server: Any) -> None:
        """Make a ``viser.ViserServer`` refuse such requests with status 403."""
        from websockets.asyncio.server import Server

        async def install() -> bool:
            # viser has no option for a check of requests and does not expose its websocket server,
            # which reads `process_request` for each connection. The serving task holds it.
            for task in asyncio.all_tasks():
                coroutine: Any = task.get_coro()
                for value in inspect.getcoroutinelocals(coroutine).values():
                    if isinstance(value, Server) and hasattr(value, "process_request"):
                        self._put_before(value)
                        return True
            return False

        found = asyncio.run_coroutine_threadsafe(install(), server.get_event_loop())
        if not found.result(_PATIENCE_S):
            versions = f"viser {version('viser')} and websockets {version('websockets')}"
            raise UnavailableError(
                f"The page is not served: with {versions}, other web sites could use it."
                " Install viser 1.1.1 and websockets 16.1.1."
            )

    def _put_before(self, server: Any) -> None:
        """Check requests before the server sees them."""
        answer = server.process_request

        def checked(connection: Any, request: Any) -> Any:
            headers = request.headers
            why = self.refusal(headers.get_all("Host"), headers.get_all("Origin"))
            if not why:
                return answer(connection, request)
            # Once, because a refused site may try again forever.
            logger.log(logging.DEBUG if self._warned else logging.WARNING, "Refused: %s", why)
            self._warned = True
            return connection.respond(HTTPStatus.FORBIDDEN, f"{why}\n")

        server.process_request = checked
        # Earlier connections were not checked. The page itself reconnects.
        for connection in list(server.handlers):
            connection.transport.abort()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
