"""Measure how fast things are, on this machine and side by side with others."""

from __future__ import annotations

import tyro
from benchmarks import crash, record, step

app = tyro.extras.SubcommandApp()
app.command(name="step")(step.main)
app.command(name="record")(record.main)
app.command(name="crash")(crash.main)

if __name__ == "__main__":
    app.cli(description=__doc__)
