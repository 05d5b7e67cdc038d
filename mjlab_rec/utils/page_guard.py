"""Who may use the web page of this process: whoever opened it by its address, and no other site."""

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

_PATIENCE_S = 10.0


class PageGuard:
    """Tells which requests come from the page itself, by their headers.

    A browser lets every web site connect to any address, but sends the site's address along
    (Origin): it has to be the one that was asked (Host). A site may also make its own name lead to
    this machine (DNS rebinding), so the name that was asked has to be one that leads here anyway.
    Ports are not compared with the port served, because ``ssh -L`` changes them.

    Args:
        host: Where the page listens. This name is accepted, and so are loopback names. If it is
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
        """Why a request is refused, or nothing if it is not.

        Args:
            hosts: Its Host headers.
            origins: Its Origin headers. What is not a browser sends none.
        """
        if len(hosts) != 1 or not self._leads_here(hosts[0].lower()):
            ways = "localhost or an IP address" if self._open else "localhost"
            return f"The page was asked for as {', '.join(hosts)!r}. Ask for it as {ways}."
        own = {f"{scheme}://{hosts[0]}".lower() for scheme in ("http", "https")}
        if foreign := [origin for origin in origins if origin.lower() not in own]:
            return f"The page at {hosts[0]!r} was asked by {foreign[0]!r}. It answers itself only."
        return ""

    def _leads_here(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host).strip("[]")
        return name in self._names or _is_loopback(name) or (self._open and _is_address(name))

    def install(self, server: Any) -> None:
        """Let a ``viser.ViserServer`` refuse such requests with status 403."""
        from websockets.asyncio.server import Server

        async def install() -> bool:
            # viser neither takes a check of requests nor hands out its server of websockets, which
            # reads `process_request` for each connection. The task that serves holds it.
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
                f"No page is served: with {versions}, other web sites could use it."
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
            # Once, because a site that is refused may try again for ever.
            logger.log(logging.DEBUG if self._warned else logging.WARNING, "Refused: %s", why)
            self._warned = True
            return connection.respond(HTTPStatus.FORBIDDEN, f"{why}\n")

        server.process_request = checked
        # Whoever came earlier was not checked. The page itself connects again.
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
