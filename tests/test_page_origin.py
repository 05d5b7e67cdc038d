"""Web pages answer those who asked for them, and no other web site in the same browser."""

from __future__ import annotations

import base64
import http.server
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from ports import free_port
from waiting import PATIENCE_S

from mjlab_rec.utils import page_guard
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.utils.page import Page, open_page
from mjlab_rec.utils.page_guard import PageGuard

HOSTNAME = socket.gethostname()
EVIL = "http://evil.example"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def serve(port: int) -> Iterator[Callable[..., Page]]:
    pytest.importorskip("viser", reason="needs viser")
    opened: list[Page] = []

    def serve(host: str = "127.0.0.1") -> Page:
        opened.append(open_page("a test", port, host))
        return opened[-1]

    yield serve
    for page in opened:
        page.close()


def reply(port: int, *headers: str, websocket: bool = True) -> str:
    """What a request with these headers is answered: all of it if it is not a websocket."""
    import viser

    if websocket:
        key = base64.b64encode(bytes(16)).decode()
        headers += ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}")
        headers += (
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: viser-v{viser.__version__}",
        )
    text = "\r\n".join(["GET / HTTP/1.1", *headers, "", ""])
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        connection.sendall(text.encode())
        if websocket:
            return connection.recv(4096).decode("latin-1")
        return b"".join(iter(partial(connection.recv, 1 << 20), b"")).decode("latin-1")


def status(port: int, *headers: str, websocket: bool = True) -> int:
    return int(reply(port, *headers, websocket=websocket).split()[1])


def test_a_websocket_of_another_site_is_refused(serve):
    port = serve().server.get_port()
    here = f"Host: localhost:{port}"
    assert status(port, here, f"Origin: {EVIL}") == 403
    assert status(port, here, f"Origin: {EVIL}:{port}") == 403
    assert status(port, here, f"Origin: http://localhost:{port + 1}") == 403
    assert status(port, here, "Origin: http://localhost") == 403
    assert status(port, here, f"Origin: http://127.0.0.1:{port}") == 403
    assert status(port, here, f"Origin: http://localhost:{port}.evil.example") == 403
    assert status(port, here, "Origin: null") == 403
    assert status(port, here, f"Origin: http://localhost:{port}", f"Origin: {EVIL}") == 403


def test_a_websocket_of_the_page_and_of_what_is_no_browser_is_accepted(serve):
    port = serve().server.get_port()
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"127.1.2.3:{port}", f"[::1]:{port}"):
        assert status(port, f"Host: {host}", f"Origin: http://{host}") == 101
        assert status(port, f"Host: {host}") == 101
    # As `ssh -L 9999:localhost:8080` has it, and a proxy for https at its usual port.
    assert status(port, "Host: localhost:9999", "Origin: http://localhost:9999") == 101
    assert status(port, "Host: LocalHost", "Origin: https://localhost") == 101


def test_a_name_that_another_site_made_lead_here_is_refused(serve):
    port = serve().server.get_port()
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1"):
        asked = f"Host: {host}:{port}"
        assert status(port, asked, f"Origin: http://{host}:{port}") == 403
        assert status(port, asked) == 403
        assert status(port, asked, websocket=False) == 403
    assert status(port) == 403
    assert status(port, f"Host: localhost:{port}", "Host: evil.example") == 403
    assert status(port, f"Host: localhost:{port}", websocket=False) == 200


def test_a_refusal_says_what_was_asked_and_how_to_ask_and_warns_once(serve, caplog):
    port = serve().server.get_port()
    with caplog.at_level(logging.WARNING, logger=page_guard.__name__):
        text = reply(port, "Host: evil.example", websocket=False)
        reply(port, "Host: evil.example", websocket=False)
    assert text.endswith("The page was requested as 'evil.example'. Request it as localhost.\n")
    assert [record.message for record in caplog.records] == [
        "Refused: The page was requested as 'evil.example'. Request it as localhost."
    ]


def test_an_open_page_is_asked_for_by_address_or_by_the_name_of_the_machine(serve):
    port = serve("0.0.0.0").server.get_port()
    for host in ("192.0.2.1", "[2001:db8::1]", "0.0.0.0", "localhost", HOSTNAME):
        asked = f"Host: {host}:{port}"
        assert status(port, asked, f"Origin: http://{host}:{port}") == 101
        assert status(port, asked, f"Origin: {EVIL}") == 403
    assert status(port, f"Host: evil.example:{port}", f"Origin: {EVIL}:{port}") == 403
    assert status(port, f"Host: evil.example:{port}", websocket=False) == 403


@pytest.mark.parametrize(
    ("listens", "asked", "accepted"),
    [
        ("robot.example", "robot.example:80", True),
        ("robot.example", "192.0.2.1", True),
        ("robot.example", "evil.example", False),
        ("::", "[2001:db8::1]:8080", True),
        ("::", "evil.example", False),
        ("::1", "[::1]", True),
        ("::1", "[2001:db8::1]:8080", False),
        ("localhost", "127.0.0.1:1", True),
        ("localhost", HOSTNAME, False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "127.0.0.1@evil.example", False),
    ],
)
def test_names_depend_on_where_the_page_listens(listens, asked, accepted):
    assert (PageGuard(listens).refusal([asked], []) == "") is accepted


def test_who_came_before_the_guard_is_sent_away(port):
    viser = pytest.importorskip("viser", reason="needs viser")
    import rich
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    with rich.get_console().capture():
        server = viser.ViserServer(host="127.0.0.1", port=port, verbose=False)
        try:
            address = f"ws://localhost:{server.get_port()}"
            protocols = [Subprotocol(f"viser-v{viser.__version__}")]
            with connect(address, origin=Origin(EVIL), subprotocols=protocols) as client:
                PageGuard("127.0.0.1").install(server)
                with pytest.raises(ConnectionClosed):
                    while True:
                        client.recv(PATIENCE_S)
        finally:
            server.stop()


def test_no_page_is_served_where_it_cannot_be_guarded(port, monkeypatch):
    pytest.importorskip("viser", reason="needs viser")
    monkeypatch.setattr("inspect.getcoroutinelocals", lambda _: {})
    with pytest.raises(
        UnavailableError, match=r"^The page is not served: with viser .* Install viser"
    ):
        open_page("a test", port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE_S)


class _Site(http.server.BaseHTTPRequestHandler):
    """A web site with nothing on it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_in_a_browser_the_page_works_and_another_site_cannot_use_it(serve, site, visit):
    import viser

    page = serve()
    pressed = threading.Event()
    page.server.gui.add_button("Press").on_click(lambda _: pressed.set())
    own = visit(page.url)
    own.get_by_role("button", name="Press").click()
    assert pressed.wait(PATIENCE_S)

    script = """address => new Promise(done => {
        const socket = new WebSocket(address, "PROTOCOL");
        socket.onopen = () => done("opened");
        socket.onerror = () => done("refused");
    })""".replace("PROTOCOL", f"viser-v{viser.__version__}")
    address = page.url.replace("http", "ws")
    assert visit(site).evaluate(script, address) == "refused"
    assert own.evaluate(script, address) == "opened"


def test_reruns_page_is_for_this_machine_and_its_data_for_pages_of_this_machine():
    pytest.importorskip("rerun_cli", reason="needs rerun-sdk")
    from mjlab_rec.recorders.rerun.viewer import RerunViewer

    viewer = RerunViewer("web", 19090)
    try:
        web_port = int(viewer.page.split("/")[2].split(":")[1])
        for port in (web_port, viewer.port):
            with socket.socket() as other, pytest.raises(ConnectionRefusedError):
                other.connect(("127.0.0.2", port))
        path = "/rerun.sdk_comms.v1alpha1.MessageProxyService/ReadMessages"
        for origin, allowed in ((f"http://localhost:{web_port}", True), (EVIL, False)):
            question = f"OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n"
            question += "Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n"
            with socket.create_connection(("127.0.0.1", viewer.port), PATIENCE_S) as connection:
                connection.sendall(question.encode())
                text = connection.recv(4096).decode("latin-1").lower()
            assert text.startswith("http/1.1 200")
            assert (f"access-control-allow-origin: {origin}" in text) is allowed
    finally:
        viewer.close()
