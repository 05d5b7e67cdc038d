"""The line that says how a run goes."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mjlab_rec.managers import NullRecorderManager
from mjlab_rec.recorders.progress import progress, size
from mjlab_rec.viewer.terminal import TerminalProgress


class Manager:
    def __init__(self, **terms: Any) -> None:
        self.active_terms = list(terms)
        self.get_term = terms.__getitem__


def recorder(**attributes: Any) -> Any:
    return SimpleNamespace(**{"state": "recording", **attributes})


def drawn(manager: Any, steps: int = 3, terminal: bool = True, width: int = 200) -> str:
    """What a terminal shows after steps of 16 environments, 0.2 s each."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    env = SimpleNamespace(num_envs=16, recorder_manager=manager)
    times = iter(i * 0.2 for i in range(100))
    with TerminalProgress(env, "steps", console, clock=lambda: next(times)) as bar:
        bar.expect(10)
        for done in range(1, steps + 1):
            bar.step(done)
        assert bar.steps == steps
    return out.getvalue()


def test_speed_is_that_of_all_environments():
    text = drawn(NullRecorderManager())
    assert "3/10" in text and "80 env-steps/s" in text


def test_recorders_show_what_they_wrote():
    text = drawn(
        Manager(
            csv=recorder(rows=12_000, rows_unit="steps", nbytes=3_140_000, dropped_rows=0),
            video=recorder(rows=5, state="stopped", dropped_rows=7),
            mine=recorder(rows=[1, 2]),
        )
    )
    assert "| csv 12,000 steps 3.1 MB | video" in text
    assert "video 5 rows 0 B 7 dropped! stopped" in text
    assert "mine 0 rows 0 B" in text


def test_on_a_narrow_terminal_only_recorders_give_way():
    manager = Manager(
        csv=recorder(rows=12_000, rows_unit="steps", nbytes=3_140_000),
        hdf5=recorder(rows=12_000, rows_unit="steps", nbytes=3_140_000),
        video=recorder(rows=500, rows_unit="pictures", nbytes=1_140_000),
    )
    text = drawn(manager, width=80)
    assert "3/10" in text and "80 env-steps/s" in text
    for words in ("csv 12,000", "hdf5 12,000", "video 500", "pictures"):
        assert words in " ".join(text.split())


def test_without_a_terminal_a_line_is_printed_every_five_seconds():
    manager = Manager(csv=recorder(rows=12_000, rows_unit="steps", nbytes=3_140_000))
    assert drawn(manager, steps=60, terminal=False, width=40).splitlines() == [
        "steps 25/10 80 env-steps/s | csv 12,000 steps 3.1 MB",
        "steps 50/10 80 env-steps/s | csv 12,000 steps 3.1 MB",
    ]
    assert drawn(NullRecorderManager(), steps=20, terminal=False) == ""


def test_it_is_redrawn_at_most_ten_times_a_second():
    asked = []
    manager = Manager(csv=recorder(rows=1))
    get = manager.get_term
    manager.get_term = lambda name: asked.append(name) or get(name)
    env = SimpleNamespace(num_envs=1, recorder_manager=manager)
    times = iter(i * 0.01 for i in range(1000))
    console = Console(file=io.StringIO(), force_terminal=True)
    with TerminalProgress(env, "steps", console, clock=lambda: next(times)) as bar:
        for done in range(101):
            bar.step(done)
    assert 9 <= len(asked) <= 11


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5_250_000, "5.2 MB"), (7e15, "7000.0 TB")],
)
def test_sizes_are_written_as_people_do(nbytes, text):
    assert size(int(nbytes)) == text


def test_progress_is_asked_of_any_recorder():
    said = progress(recorder(rows=3, nbytes=4, dropped_rows=1, files=[Path("a"), "b"]))
    assert (said.rows, said.nbytes, said.dropped, said.files) == (3, 4, 1, (Path("a"),))
    assert progress(recorder(page="http://localhost:8080")).page == "http://localhost:8080"
    assert progress(recorder(page=3)).page == ""
    said = progress(recorder(files="text", rows=None))
    assert (said.rows, said.files, said.state) == (0, (), "recording")
