"""Write a trained policy as ONNX and TorchScript files, for a robot's own program."""

from __future__ import annotations

from mjlab_rec import cli
from mjlab_rec.commands import export

if __name__ == "__main__":
    cli.run(export.main)
