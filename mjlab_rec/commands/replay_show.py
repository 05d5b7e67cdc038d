"""Show recorded episodes in a viewer, or write them as a video or for Rerun."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.data.progress import progress_bar

if TYPE_CHECKING:
    from mjlab_rec.commands.replay import ReplayArgs
    from mjlab_rec.replay.recorded_env import RecordedEnv


def run(args: ReplayArgs) -> int:
    """Show the recording as the options say."""
    from mjlab_rec.data.rollouts import open_rollouts
    from mjlab_rec.replay.episodes import chosen_episodes
    from mjlab_rec.replay.recorded_env import RecordedEnv

    for option, path, suffix in (("--video", args.video, ".mp4"), ("--rerun", args.rerun, ".rrd")):
        if path is not None and path.suffix.lower() != suffix:
            cli.fail(f"{option} writes a {suffix} file, so its name must end in it, got {path}.")
        if path is not None and not path.absolute().parent.is_dir():
            cli.fail(f"{option}: there is no folder {path.absolute().parent}.")
    if args.grid < 1:
        cli.fail(f"--grid must be at least 1, got {args.grid}.")
    if args.speed is not None and not 0.0 < args.speed < float("inf"):
        cli.fail(f"--speed must be a finite number above 0, got {args.speed}.")
    with open_rollouts(args.path) as rollouts:
        chosen = chosen_episodes(rollouts, args.episode, args.env)
        writes = args.video is not None or args.rerun is not None
        env = RecordedEnv(
            *(rollouts, chosen, args.grid),
            loop=args.loop and not writes,
            backwards=args.backwards,
        )
        with env:
            if args.camera is not None:
                env.cfg.viewer.camera = int(args.camera) if args.camera.isdigit() else args.camera
            if writes:
                write(env, args, len(chosen))
            else:
                watch(env, args)
    return 0


def write(env: RecordedEnv, args: ReplayArgs, episodes: int) -> None:
    """Write the timeline, from one end to the other, as a video or for Rerun.

    Args:
        env: The recording.
        args: The options.
        episodes: Number of episodes in it, for the message.
    """
    recorders: dict[str, Any] = {}
    everything = tuple(range(env.num_envs))
    if args.video is not None:
        from mjlab_rec.recorders.video import VideoRecorderCfg

        recorders["video"] = VideoRecorderCfg(
            path=str(args.video),
            envs=everything,
            layout="grid" if env.num_envs > 1 else "separate",
            trigger=None,
            speed=args.speed or 1.0,
            if_exists="overwrite" if args.overwrite else "error",
        )
    if args.rerun is not None:
        from mjlab_rec.recorders.rerun import RerunRecorderCfg

        names = [name for name in ("reward", "action") if name in env.recorded_channels]
        recorders["rerun"] = RerunRecorderCfg(
            path=str(args.rerun),
            channels=(*names, "reward_terms"),
            trigger=None,
            if_exists="overwrite" if args.overwrite else "error",
        )
    env.add_recorders(recorders)
    timeline = env.timeline
    total = timeline.length - 1
    total = total if args.steps is None else min(total, args.steps)
    console = Console(highlight=False, soft_wrap=True)
    fewer = " Choose fewer with --episode, --env or --steps." if episodes > 1 else ""
    console.print(f"Writing {total:,} steps of {episodes:,} episodes.{fewer}", markup=False)
    with progress_bar("Writing") as progress:
        progress(0, total)
        env.reset()
        shown = 0
        while not timeline.at_end and (args.steps is None or shown < args.steps):
            env.step()
            shown += 1
            progress(shown, total)
        env.close()
    for recorder in recorders:
        for file in env.recorder_manager.get_term(recorder).files:  # pyright: ignore[reportAttributeAccessIssue]
            console.print(f"Wrote {Path(file)}", markup=False)


def watch(env: RecordedEnv, args: ReplayArgs) -> None:
    """Show the timeline in a viewer until it is closed."""
    from mjlab_rec.viewer import make_viewer
    from mjlab_rec.viewer.playback import Playback

    shown: Any = env
    viewer = make_viewer(args.viewer, shown)
    if viewer is None:
        cli.fail(
            "There is no viewer here. Write a video with --video FILE.mp4, or simulate the steps"
            " again with --verify."
        )
    env.reset()
    playback = Playback(shown, lambda obs: obs, viewers=[viewer], speed=args.speed or 1.0)
    playback.show_all(env.num_envs > 1)
    with playback:
        if url := getattr(viewer, "url", ""):
            console = Console(highlight=False, soft_wrap=True)
            console.print(f"Watch it at {url}, until Ctrl-C", markup=False)
        playback.run(lambda: args.steps is not None and playback.steps >= args.steps)
