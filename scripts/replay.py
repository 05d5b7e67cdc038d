"""Show recorded episodes, simulate them again, compare a policy, or play them in another task."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import replay

if __name__ == "__main__":
    cli.run(replay.main)
