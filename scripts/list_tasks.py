"""List the tasks that can be run."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import list as list_tasks

if __name__ == "__main__":
    cli.run(list_tasks.main)
