"""What a check of a recording found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal[
    "structure",  # a file, a part or the table of episodes is damaged, missing or contradictory
    "checksum",  # stored values cannot be read or differ from what was written
    "unfinished",  # the recording was not closed
    "rows",  # an episode has more or fewer rows than its line in the table says
    "steps",  # the steps of an episode have a gap or are not in order
    "flags",  # the end flags of the rows contradict each other or the table
    "return",  # the rewards do not add up to the recorded return
    "nan",  # a value is NaN or infinite
    "duplicate",  # an episode is there twice
    "note",  # nothing is wrong
]


@dataclass(kw_only=True)
class Finding:
    """One thing that is wrong, and where."""

    kind: Kind
    text: str
    """A sentence about it."""
    file: str = ""
    """The file, where it is known."""
    channel: str = ""
    """The channel; "" if it concerns all or none."""
    env: int | None = None
    """The environment of the episode."""
    number: int | None = None
    """The number of the episode in its environment."""
    rows: tuple[int, int] | None = None
    """First and last row of the episode that are concerned."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(kw_only=True)
class CheckResult:
    """What is wrong with a recording, and what is still good."""

    path: str
    format: str = ""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong, and notes."""
    good: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """For each episode of the table, whether nothing is wrong with it, (episodes,)."""
    bad_rows: dict[int, np.ndarray | None] = field(default_factory=dict)
    """For each other episode which of its rows are not good, (rows,); None: it may be any."""
    rows: int = 0
    """Rows of all episodes."""
    good_rows: int = 0
    """Rows of the good episodes."""
    nbytes: int = 0
    """Size of the files."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.kind == "note" for finding in self.findings)

    @property
    def good_parts(self) -> dict[int, np.ndarray]:
        """The good rows of episodes that are not good, but have some: (rows,)."""
        found = {index: ~bad for index, bad in self.bad_rows.items() if bad is not None}
        return {index: good for index, good in sorted(found.items()) if good.any()}

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind, without notes."""
        counted = Counter(finding.kind for finding in self.findings)
        del counted["note"]
        return dict(counted)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "path": self.path,
            "format": self.format,
            "ok": self.ok,
            "episodes": len(self.good),
            "good_episodes": int(self.good.sum()),
            "rows": self.rows,
            "good_rows": self.good_rows,
            "bytes": self.nbytes,
            "counts": self.counts,
            "findings": [finding.to_json() for finding in self.findings],
        }
