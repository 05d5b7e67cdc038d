"""Two packages in two interpreters, timed in alternating rounds."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

_SIDE = Path(__file__).with_name("side.py")


class Side:
    """A process that steps one package's environments on request, and otherwise sleeps."""

    def __init__(self, python: str, package: str, script: Path = _SIDE) -> None:
        self.package = package
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._log.seek(0)
            last_words = "".join(self._log.readlines()[-30:])
            raise RuntimeError(f"The process of {self.package} ended:\n{last_words}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._log.close()


def compare(
    peer_python: str,
    counts: tuple[int, ...],
    steps: int,
    rounds: int,
    device: str,
    engine: str,
    threads: int | None,
) -> Iterator[tuple[int, list[float], list[float]]]:
    """Return, per env count, the step times (s) of mjlab_rec and mjlab, one of each per round."""
    ours = Side(sys.executable, "mjlab_rec")
    peer = Side(peer_python, "mjlab")
    try:
        for count in counts:
            for side in (ours, peer):
                if threads is not None:
                    side.ask(threads=threads)
                side.ask(
                    make={
                        "package": side.package,
                        "num_envs": count,
                        "device": device,
                        "engine": engine,
                    }
                )
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds):
                times[0].append(ours.ask(steps=steps))
                times[1].append(peer.ask(steps=steps))
            yield count, *times
    finally:
        ours.close()
        peer.close()


def ratios(ours: list[float], peers: list[float]) -> tuple[float, float, float]:
    """Return median, lowest and highest ratio of the rounds: how many times slower the peer is."""
    each = [peer / our for our, peer in zip(ours, peers, strict=True)]
    return median(each), min(each), max(each)
