"""Play whole episodes with a policy, and print and write what they say about it."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import evaluate

if __name__ == "__main__":
    cli.run(evaluate.main)
