"""Run a task with an agent, watch it, record it, and print the returns and the speed."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import play

if __name__ == "__main__":
    cli.run(play.main)
