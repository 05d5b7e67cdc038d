"""The Python examples in README.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mjlab_rec import registry

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_readme_has_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry.list_tasks()  # What an example registers is forgotten after it; the rest is kept.
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    exec(compile(example, "<example>", "exec"), {"__name__": "readme"})
