"""A position in recorded steps, which viewers show as a seek bar."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A stretch of the timeline, such as an episode."""

    name: str
    """What a viewer says about it."""

    length: int
    """Number of states."""


class Timeline:
    """Sections one after another, and a position in them. Any thread may read it.

    Args:
        sections: The sections; there must be one at least.
        loop: Go on at the other end when an end is reached, rather than stop.
        backwards: Go towards the beginning.
    """

    def __init__(
        self, sections: Sequence[Section], *, loop: bool = False, backwards: bool = False
    ) -> None:
        if not sections or any(section.length < 1 for section in sections):
            raise ValueError("A timeline needs sections, of at least one state each.")
        self.sections = tuple(sections)
        self.loop = loop
        self.backwards = backwards
        self.starts = [0]
        """Position at which each section begins."""
        for section in self.sections[:-1]:
            self.starts.append(self.starts[-1] + section.length)
        self.length = self.starts[-1] + self.sections[-1].length
        """Number of states in all sections."""
        self._position = self.length - 1 if backwards else 0

    @property
    def position(self) -> int:
        """The state that is shown, from 0."""
        return self._position

    @property
    def section(self) -> int:
        """Number of the section that is shown."""
        return bisect.bisect_right(self.starts, self._position) - 1

    @property
    def at_end(self) -> bool:
        """Whether there is no further state in this direction."""
        last = 0 if self.backwards else self.length - 1
        return not self.loop and self._position == last

    def seek(self, position: int) -> None:
        """Go to a position, or to the nearest one that exists."""
        self._position = min(max(position, 0), self.length - 1)

    def advance(self, steps: int = 1) -> None:
        """Go on in the direction of play; a negative number goes against it."""
        position = self._position + (-steps if self.backwards else steps)
        if self.loop:
            position %= self.length
        self.seek(position)

    def jump(self, by: int) -> int:
        """Position of a neighbouring section's first state, or of this one's if by is 0.

        Going back from the middle of a section leads to its first state.
        """
        section = self.section
        if by < 0 and self._position > self.starts[section]:
            by += 1
        return self.starts[min(max(section + by, 0), len(self.sections) - 1)]

    @property
    def section_end(self) -> int:
        """Position of the last state of the section that is shown."""
        section = self.section
        return self.starts[section] + self.sections[section].length - 1

    def describe(self) -> str:
        """What is shown, in a line."""
        section = self.section
        here = self.sections[section]
        step = self._position - self.starts[section] + 1
        return f"{here.name}: state {step:,} of {here.length:,}"
