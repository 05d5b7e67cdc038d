"""Show recorded episodes, simulate them again, compare a policy, or play them in another task."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mjlab_rec import cli
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.extras import MissingExtraError, UnavailableError


@dataclass(kw_only=True)
class ReplayArgs:
    """Options of ``replay``."""

    path: tyro.conf.Positional[str] = ""
    """The recording: a file or a folder. It must have states: --record replay records what all of
    this needs."""
    episode: tuple[int, ...] = ()
    """Only these episodes, by their places in the recording, from 0."""
    env: tuple[int, ...] = ()
    """Only episodes of these environments."""
    viewer: Literal["auto", "native", "web"] = "auto"
    """native: a window. web: a browser. auto: a window if there is a display, otherwise
    the browser. Both have a seek bar."""
    grid: int = 1
    """Number of episodes shown at the same time."""
    speed: float | None = None
    """Recorded seconds per second. None: 1."""
    loop: bool = False
    """Begin again at the end; viewers can switch it."""
    backwards: bool = False
    """Begin at the end, and go back; viewers can switch it."""
    camera: str | None = None
    """Name or number of a camera in the model, for viewers and videos."""
    steps: int | None = None
    """Stop after showing this many steps."""
    video: Path | None = None
    """Write an mp4 file instead of opening a viewer."""
    rerun: Path | None = None
    """Write a file for the Rerun viewer (.rrd) instead of opening a viewer."""
    overwrite: bool = False
    """Replace files that exist."""
    verify: bool = False
    """Simulate each step again from the recorded state, and compare the results. The exit code is 1
    if they differ."""
    tolerance: float | None = None
    """With --verify: the largest difference of a number, relative to numbers greater than 1.
    0 compares every bit. None: 0 with the same engine, versions and CPU as in the recording, else
    0.001. With --policy: the largest difference of a number of an action; None: 0.0001. With
    --task: the largest difference of a joint position with which an episode holds; None: 0.01."""
    engine: Literal["mjbatch", "warp"] | None = None
    """With --verify: the engine. None: that of the recording."""
    device: str | None = None
    """With --verify: cpu or cuda. None: that of the recording, if there is one. With --policy:
    where the policy is; None: a GPU if there is one."""
    num_worlds: int | None = None
    """With --verify: number of worlds that are simulated at the same time."""
    json: Path | None = None
    """With --verify: also write the results to this JSON file."""
    policy: str | None = None
    """Ask this agent for actions at the recorded observations, and compare them with the recorded
    ones: latest, best, a checkpoint or exported file, or package.module:function. The exit code is
    1 if they differ."""
    task: str | None = None
    """Play the recorded actions in this task, from the recorded first states, and record what comes
    of it with --record. Set fields of the task with --env.PATH VALUE. With --policy: the task of
    the policy; None: that of the recording."""
    use: Literal["actions", "states"] = "actions"
    """With --task: play the actions only, or also put each recorded state into the environment,
    after the step's reward."""
    record: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With --task: record with a preset (hdf5, replay, ...), a TOML file or package.module:Class.
    May be repeated. --record.FIELD VALUE sets a field of the recorder before it."""
    task_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Module to import first, which registers your own tasks. May be repeated."""
    log_root: str = "logs"
    """Folder of the training runs, for latest and best."""
    verbose: bool = False
    """Show tracebacks of errors."""

    @property
    def rollouts(self) -> Path:
        """Folder of recordings without a path."""
        return Path("rollouts") / (self.task or "replay")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, and do what it asks for.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words, overrides = cli.split_options(words, cli.ENV_PREFIX)
    words, fields = cli.split_options(words, cli.RECORD_PREFIX)
    args = tyro.cli(
        ReplayArgs,
        args=words,
        prog=prog,
        description=__doc__,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not args.path:
        cli.fail("Which recording? Give the path of a file or folder: mjlab-rec replay PATH.")
    try:
        code = run(args, overrides, fields)
    except (DataError, ValueError, MissingExtraError, UnavailableError) as error:
        if args.verbose:
            raise
        cli.fail(str(error))
    if code:
        raise SystemExit(code)


def run(
    args: ReplayArgs, overrides: Sequence[cli.Setting] = (), fields: Sequence[cli.Setting] = ()
) -> int:
    """Do what the options ask for; returns the exit code.

    Args:
        args: The options.
        overrides: Fields of the task's cfg.
        fields: Fields of recorders.
    """
    from mjlab_rec.commands import replay_into, replay_policy, replay_show, replay_verify
    from mjlab_rec.replay.episodes import recording_path

    args.path = str(recording_path(args.path))
    _check_options(args, bool(overrides or fields or args.record))
    if args.verify:
        return replay_verify.run(args)
    if args.policy is not None:
        return replay_policy.run(args)
    if args.task is None:
        return replay_show.run(args)
    recorders = {}
    if args.record or fields:
        recorders = cli.requested_recorders(args, list(fields), set())
    return replay_into.run(args, recorders, list(overrides))


def _check_options(args: ReplayArgs, needs_task: bool) -> None:
    """End the command if an option has no effect."""
    if args.verify and args.policy is not None:
        cli.fail("--verify and --policy are mutually exclusive. Give only one of them.")
    needs = {"engine": "--verify", "num_worlds": "--verify", "json": "--verify"}
    needs |= dict.fromkeys(("tolerance", "device"), "--verify, --policy or --task")
    for name, mode in needs.items():
        allowed = args.verify or ("policy" in mode and (args.policy or args.task))
        if getattr(args, name) is not None and not allowed:
            cli.fail(f"--{name.replace('_', '-')} needs {mode}.")
    mode = next((m for m in ("verify", "policy", "task") if getattr(args, m)), None)
    showing = ("video", "rerun", "camera", "speed", "steps", "loop", "backwards")
    useless = [name for name in showing if getattr(args, name) not in (None, False)]
    useless += ["grid"] if args.grid != 1 else []
    if mode is not None and useless:
        cli.fail(f"--{useless[0]} has no effect with --{mode}, which shows nothing. Leave it out.")
    if args.use != "actions" and args.task is None:
        cli.fail(f"--use {args.use} needs --task.")
    if needs_task and (args.task is None or args.policy is not None):
        cli.fail("--record and --env.* need --task, without --policy.")
