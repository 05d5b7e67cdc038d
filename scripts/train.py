"""Train a task with PPO, show the progress, and save checkpoints, curves and recordings."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import train

if __name__ == "__main__":
    cli.run(train.main)
