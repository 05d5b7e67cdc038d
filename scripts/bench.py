"""Measure speed on this machine, and compare it with other packages."""

from __future__ import annotations

import tyro
from benchmarks import (
    camera,
    checking,
    crash,
    export,
    gym_conformance,
    gym_throughput,
    learner,
    opening,
    pictures,
    rays,
    reading,
    record,
    rerun,
    step,
    terrain,
    time_to_solve,
    train_record,
    verify,
    video,
    wrap,
)

app = tyro.extras.SubcommandApp()
app.command(name="step")(step.main)
app.command(name="record")(record.main)
app.command(name="read")(reading.main)
app.command(name="open")(opening.main)
app.command(name="verify")(verify.main)
app.command(name="crash")(crash.main)
app.command(name="export")(export.main)
app.command(name="video")(video.main)
app.command(name="camera")(camera.main)
app.command(name="pictures")(pictures.main)
app.command(name="rerun")(rerun.main)
app.command(name="rays")(rays.main)
app.command(name="terrain")(terrain.main)
app.command(name="gym")(gym_throughput.main)
app.command(name="conformance")(gym_conformance.main)
app.command(name="train")(train_record.main)
app.command(name="learner")(learner.main)
app.command(name="solve")(time_to_solve.main)
app.command(name="check")(checking.main)
app.command(name="wrap")(wrap.main)

if __name__ == "__main__":
    app.cli(description=__doc__)
