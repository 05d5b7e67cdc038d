"""Look at recordings, check them and make new ones of them."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import data

if __name__ == "__main__":
    cli.run(data.main)
