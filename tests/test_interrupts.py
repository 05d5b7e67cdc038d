"""How long the end of a process waits for threads that are in a step."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from waiting import PATIENCE_S

from mjlab_rec.utils import interrupts as module
from mjlab_rec.utils.interrupts import Interrupts


class Stepping:
    """A thread in a step, which ends after this many pauses of the thread that waits for it."""

    def __init__(self, pauses: int) -> None:
        self.state = Interrupts()
        self.pauses: list[float] = []
        self._ends_after = pauses
        self._stepping, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._stepping.wait(PATIENCE_S)

    def _run(self) -> None:
        self.state.begin_step()
        self._stepping.set()
        assert self._end.wait(PATIENCE_S)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self._ends_after:
            self.finish()

    def monotonic(self) -> float:
        """A clock that goes on as if the process had been stopped in the meantime."""
        return 1e6 * len(self.pauses)

    def finish(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def stepping(request, monkeypatch) -> Iterator[Stepping]:
    stepping = Stepping(request.param)
    monkeypatch.setattr(module, "time", stepping)
    yield stepping
    stepping.finish()


@pytest.mark.parametrize("stepping", [3], indirect=True)
def test_a_step_may_end_even_if_the_whole_process_was_stopped(stepping):
    stepping.state.wait_for_threads(1.0)
    assert len(stepping.pauses) == 3


@pytest.mark.parametrize("stepping", [100_000], indirect=True)
def test_a_step_that_does_not_end_is_not_waited_for_longer(stepping):
    stepping.state.wait_for_threads(1.0)
    assert sum(stepping.pauses) == pytest.approx(1.0)
