"""Show recorded episodes, simulate them again, or compare a policy with them."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import replay

if __name__ == "__main__":
    cli.run(replay.main)
