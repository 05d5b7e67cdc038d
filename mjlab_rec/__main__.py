"""``python -m mjlab_rec`` is the command ``mjlab-rec``."""

from mjlab_rec import cli
from mjlab_rec.commands.main import main

if __name__ == "__main__":
    cli.run(main)
