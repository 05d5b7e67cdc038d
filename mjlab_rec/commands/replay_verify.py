"""Simulate recorded steps again, and print which ones came out differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.data.progress import progress_bar
from mjlab_rec.utils.plain_data import json_text

if TYPE_CHECKING:
    from mjlab_rec.commands.replay import ReplayArgs
    from mjlab_rec.replay import Verification

_MOST_LINES = 20


def run(args: ReplayArgs) -> int:
    """Verify the recording; returns 1 if something differs."""
    from mjlab_rec.data.rollouts import open_rollouts
    from mjlab_rec.replay import verify
    from mjlab_rec.replay.episodes import chosen_episodes

    if args.json is not None and not args.json.absolute().parent.is_dir():
        cli.fail(f"--json: there is no folder {args.json.absolute().parent}.")
    console = Console(highlight=False, soft_wrap=True)
    with open_rollouts(args.path) as rollouts, progress_bar("Simulating") as progress:
        found = verify(
            rollouts,
            episodes=chosen_episodes(rollouts, args.episode, args.env),
            tolerance=args.tolerance,
            engine=args.engine,
            device=args.device,
            num_worlds=args.num_worlds,
            progress=progress,
        )
    console.print("\n".join(lines(found)), markup=False)
    if args.json is not None:
        args.json.write_text(f"{json_text(found.to_json(), indent=2)}\n", encoding="utf-8")
        console.print(f"Wrote {args.json}", markup=False)
    return 0 if found.ok else 1


def lines(found: Verification) -> list[str]:
    """The results in words: episodes that differ, then a summary."""
    bad = [episode for episode in found.episodes if episode.differing]
    text = [str(episode) for episode in bad[:_MOST_LINES]]
    if len(bad) > _MOST_LINES:
        text.append(f"... and {len(bad) - _MOST_LINES} more episodes. --json FILE lists all.")
    how = f"with a tolerance of {found.tolerance:g}" if found.tolerance else "bit for bit"
    if found.why_tolerance:
        how += f", because {found.why_tolerance}"
    rate = found.steps / found.seconds if found.seconds else 0.0
    text += [
        f"Simulated {found.steps:,} steps of {len(found.episodes)} episodes with"
        f" {found.engine} on {found.device} in {found.seconds:.1f} s ({rate:,.0f} a second).",
        f"Compared {found.checked:,} of them {how}.",
        *found.notes,
    ]
    if found.ok:
        text.append("All are the same.")
    elif bad:
        text.append(f"{len(bad)} of {len(found.episodes)} episodes differ.")
    else:
        text.append("Nothing could be compared.")
    return text
