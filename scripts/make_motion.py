"""Make a motion file from an example, a table of positions, a recording, or another motion file."""

from __future__ import annotations

from mjlab_rec import cli
from tasks.tracking import make_motion

if __name__ == "__main__":
    cli.run(make_motion.main)
