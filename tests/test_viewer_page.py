"""The web page of a process: who shares it, when it ends, and who can reach it."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections import deque
from collections.abc import Iterator

import pytest
from ports import free_port
from waiting import PATIENCE_S, until

from mjlab_rec.utils.page import Page, ThreadsafeEvent, open_page


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def pages() -> Iterator[list[Page]]:
    pytest.importorskip("viser", reason="needs viser")
    opened: list[Page] = []
    yield opened
    for page in opened:
        page.close()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as reply:
            return reply.status == 200
    except OSError:
        return False


def test_two_users_share_a_server_and_the_last_close_stops_it(pages, port):
    first, second = open_page("a test", port), open_page("another", port)
    pages += [first, second]
    assert first.server is second.server
    assert first.shared
    assert answers(first.url)
    first.close()
    first.close()  # Must not count twice.
    assert not second.shared
    assert answers(second.url)
    second.close()
    until(lambda: not answers(second.url))


def test_after_the_last_close_a_new_page_is_made(pages, port):
    first = open_page("a test", port)
    first.close()
    second = open_page("a test", port)
    pages.append(second)
    assert second.server is not first.server
    assert answers(second.url)


def test_a_page_is_reached_from_this_machine_only(pages, port):
    page = open_page("a test", port)
    pages.append(page)
    assert page.server.get_host() == "127.0.0.1"
    assert page.url.startswith("http://localhost:")
    # Linux answers at all of 127.0.0.0/8, so a server that listens everywhere would answer here.
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", page.server.get_port()))


def test_the_next_free_port_is_used(pages, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        page = open_page("a test", port)
        pages.append(page)
        assert page.server.get_port() > port
        assert answers(page.url)


def test_threads_send_while_the_loop_changes_who_waits(pages, port):
    pages.append(open_page("a test", port))
    event = pages[0].server._websock_server._broadcast_buffer.message_event
    assert isinstance(event, ThreadsafeEvent)

    class Waiting:
        """Leaves as soon as it is woken, as the loop's thread may make it do."""

        woken = False

        def done(self) -> bool:
            return self.woken

        def set_result(self, result: bool) -> None:
            self.woken = result
            waiting.remove(self)

    everyone = [Waiting() for _ in range(3)]
    event = ThreadsafeEvent()
    event._waiters = waiting = deque(everyone)
    event.set()
    assert event.is_set() and all(one.woken for one in everyone)


def test_nothing_is_printed_and_other_output_is_unchanged(port):
    pytest.importorskip("viser", reason="needs viser")
    code = (
        "import sys, rich; from mjlab_rec.utils.page import open_page\n"
        f"page = open_page('a test', {port}); rich.print('between'); page.close()\n"
        "rich.print('after')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert run.stdout.split() == ["between", "after"], run.stderr
    assert run.stderr == ""


def test_a_missing_viser_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ImportError, match=r"The web viewer needs .*mjlab_rec\[web\]"):
        open_page("The web viewer")
