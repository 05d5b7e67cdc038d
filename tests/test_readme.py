"""The Python examples and the commands in README.md run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mjlab_rec import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# Without those that open a viewer, which goes on until somebody closes it.
COMMANDS = re.findall(
    r"^    \.venv/bin/python (scripts/(?!.*--viewer)[^#\n]*)", README, re.MULTILINE
)
EXTRAS = {"--video": "imageio_ffmpeg", "--rerun": "rerun"}


def test_readme_has_examples():
    assert EXAMPLES
    assert COMMANDS


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs_and_runs_again(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry.list_tasks()
    tasks = dict(registry._tasks)
    for _ in range(2):
        # What an example registers is forgotten after it; the rest is kept.
        monkeypatch.setattr(registry, "_tasks", dict(tasks))
        exec(compile(example, "<example>", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(command, tmp_path):
    script, *options = shlex.split(command)
    for option in EXTRAS.keys() & set(options):
        pytest.importorskip(EXTRAS[option])
    if "play" in script and "--help" not in options:  # Not to the end, to save time.
        options = shlex.split(re.sub(r"--episodes \d+", "", shlex.join(options)) + " --steps 3")
    # What records must run again.
    for _ in range(2 if "--record.path" in options and "--help" not in options else 1):
        ran = subprocess.run(
            [sys.executable, ROOT / script, *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr
