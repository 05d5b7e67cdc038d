"""Collect many episodes with many workers, on one or more machines, even if some are killed."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import collect

if __name__ == "__main__":
    cli.run(collect.main)
