"""The files of the agent: read once, so that the same agent plays all shards of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mjlab_rec.collecting.plan import hash_of
from mjlab_rec.collecting.sources import source_hashes
from mjlab_rec.rl.run_folders import AGENT


@dataclass(frozen=True)
class AgentFiles:
    """What plays, and the content of its files.

    A training may replace model_best.pt, or write a newer checkpoint, while episodes are collected.
    """

    name: str
    """The path of the agent's file, or its name if it has none."""
    hash: str
    """Hash of the files, of the function's source file, or of the name."""
    content: Mapping[str, bytes] = field(repr=False)
    """The agent's file, first, and the others that belong to it, by their names."""

    @classmethod
    def read(cls, name: str, make_policy: Any, path: Path | None) -> AgentFiles:
        """Read the files.

        Args:
            name: As the user gave it.
            make_policy: The function that makes the policy.
            path: The agent's file, if it has one.
        """
        if path is None:
            return cls(name, hash_of(source_hashes(make_policy) or name), {})
        # An ONNX file may have its weights in model.onnx.data or the like.
        more = path.parent.glob(f"{path.name}?data") if path.suffix == ".onnx" else ()
        files = [path, *sorted(more), *[f for f in (path.parent / AGENT,) if f.is_file()]]
        content = {file.name: file.read_bytes() for file in files}
        weights = [data for file, data in content.items() if file != AGENT]
        return cls(str(path), hash_of(b"".join(weights)), content)

    @contextmanager
    def unpacked(self) -> Iterator[str]:
        """Write the files into a temporary folder; yields what to give as --agent instead."""
        if not self.content:
            yield self.name
            return
        with tempfile.TemporaryDirectory(prefix="mjlab_rec_agent_") as folder:
            for file, data in self.content.items():
                (Path(folder) / file).write_bytes(data)
            yield str(Path(folder) / next(iter(self.content)))
