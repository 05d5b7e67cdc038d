"""Draw channels over time, episodes over each other, and returns; of one or several recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mjlab_rec.commands.data.options import DataArgs, Recordings, need_paths, say_written
from mjlab_rec.commands.data.progress import progress_bar


@dataclass(kw_only=True)
class PlotArgs(DataArgs):
    """Options of ``data plot``."""

    paths: Recordings = ()
    """A recording; or several, which are compared."""
    out: Path = Path("plot.png")
    """The picture: .png, .svg or .pdf."""
    channels: tuple[str, ...] | None = None
    """What to draw, a panel for each: names of channels, and return or length of episodes. None:
    returns, reward, actions and the policy's observations."""
    episodes: tuple[int, ...] | None = None
    """Only these episodes, by their places in the recording, from 0. None: all, or 256 of them."""
    band: Literal["auto", "on", "off"] = "auto"
    """Draw the mean of the episodes, and a band from the 10th to the 90th percentile, rather than
    each episode. auto: if no episodes are given and there are more than four."""
    elements: int = 8
    """Most elements of a channel to draw: those that vary most."""
    title: str | None = None
    """Title of the picture. None: the names of the recordings."""
    if_exists: Literal["error", "overwrite", "number"] = "error"
    """What to do if the picture exists: end with an error, replace it, or write to the next free
    name, such as plot_1.png."""


def main(args: PlotArgs) -> None:
    """Draw the picture."""
    from mjlab_rec.data.plotting import plot

    need_paths(args.paths)
    paths = list(args.paths)
    with progress_bar("Drawing"):
        path = plot(
            labelled(paths) if len(paths) > 1 else paths[0],
            args.out,
            channels=args.channels,
            episodes=args.episodes,
            band={"auto": None, "on": True, "off": False}[args.band],
            elements=args.elements,
            title=args.title,
            if_exists=args.if_exists,
        )
    say_written([path])


def labelled(paths: Sequence[str]) -> dict[str, str]:
    """Recordings by their names, or by their paths where names are the same."""
    names = [Path(path).name for path in paths]
    short = len(set(names)) == len(names)
    return dict(zip(names if short else paths, paths, strict=True))
