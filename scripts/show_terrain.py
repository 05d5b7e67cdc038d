"""Show generated ground in a viewer, or draw a picture of it."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import terrain

if __name__ == "__main__":
    cli.run(terrain.main)
