"""Damaged files of all formats: a clear error or true data, in bounded memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import KINDS
from long_runs import LONG

TESTS = Path(__file__).parent


def fuzz(folder: Path, kinds: list[str], *arguments: str) -> dict[str, dict[str, int]]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    ran = subprocess.run(
        [sys.executable, "-m", "fuzzing", str(folder), *kinds, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    last = (folder / "last.txt").read_text() if (folder / "last.txt").exists() else ""
    assert ran.returncode == 0, f"{last}\n{ran.stdout}\n{ran.stderr}"
    return json.loads(ran.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory from /proc")
@pytest.mark.parametrize("kinds", [[kind] for kind in KINDS] if LONG else [list(KINDS)])
def test_no_damage_crashes_hangs_or_changes_anything_unnoticed(kinds, tmp_path, record_property):
    size = ("--flips", "1000", "--cuts", "4096") if LONG else ("--flips", "1")
    found = fuzz(tmp_path / "it", kinds, *size)
    for kind in kinds:
        record_property(kind, json.dumps(found[kind]))
        assert found[kind]["flips"] and found[kind]["cuts"]
    assert sum(each.get("errors", 0) for each in found.values())
