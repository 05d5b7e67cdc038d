"""Train a task with PPO, show the progress, and save checkpoints, curves and recordings."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mjlab_rec import cli, registry

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg
    from mjlab_rec.rl.stopping import StopSignals
    from mjlab_rec.rl.training import Training


@dataclass(kw_only=True)
class TrainArgs(cli.LearnArgs):
    """Options of ``train``."""

    minutes: float | None = None
    """Stop after this many minutes, as if Ctrl-C were pressed. --agent.max-iterations limits the
    number of iterations."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line and train.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    args, env_cfg = cli.parse(TrainArgs, __doc__ or "", argv, prog=prog)
    if args.minutes is not None and not args.minutes > 0.0:
        cli.fail(f"--minutes must be above 0, got {args.minutes}.")
    from mjlab_rec.rl import distributed
    from mjlab_rec.rl.stopping import StopSignals

    console = Console(highlight=False, soft_wrap=True, quiet=not distributed.ranks().is_first)
    signals = StopSignals(lambda number: _say_stopping(console, number))
    with cli.explained(args), signals:
        try:
            train(args, env_cfg, console, signals)
        finally:
            distributed.disconnect()
    if signals.exit_code is not None:
        raise SystemExit(signals.exit_code)


def train(
    args: TrainArgs, env_cfg: ManagerBasedRlEnvCfg, console: Console, signals: StopSignals
) -> None:
    """Train until all iterations are done, time is up, or a signal comes."""
    from mjlab_rec.rl import distributed
    from mjlab_rec.rl.run_folders import as_plain, write_cfgs
    from mjlab_rec.rl.training import prepared, recorders_of_rank

    device = distributed.choose_device(args.device)
    distributed.connect(device)
    is_first = distributed.ranks().is_first
    run = distributed.from_first(str(_folder(args)) if is_first else "")
    configured = as_plain(env_cfg)
    env_cfg.recorders = recorders_of_rank(env_cfg.recorders, Path(run), cli.RUN_FOLDER)
    recorders: dict[str, Any] = {}
    try:
        with prepared(
            env_cfg,
            args.agent_cfg,
            run=Path(run),
            device=device,
            checkpoint=args.checkpoint,
            runner_cls=registry.load_runner_cls(args.task),
        ) as training:
            recorders = training.recorders
            if is_first:  # Not before: a run that does not go on keeps its options.
                write_cfgs(Path(run), args.task, args.agent_cfg, configured, args.options)
            _learn(training, args, run, console, signals)
            with console.status("Finishing the recordings"):
                training.env.close()
    finally:
        if is_first:
            cli.print_recordings(recorders)
            _say_others(recorders, console)


def _say_others(recorders: dict[str, Any], console: Console) -> None:
    """Say where other processes have recorded."""
    from mjlab_rec.rl import distributed

    last = distributed.ranks().world_size - 1
    paths = [str(getattr(recorder.cfg, "path", "")) for recorder in recorders.values()]
    if last > 0 and any("_rank0" in path for path in paths):
        files = "_rank1" if last == 1 else f"_rank1 to _rank{last}"
        console.print(
            "\nThis is what process 0 recorded. The others wrote the same of their environments,"
            f" with {files} in the names of the files."
        )


def _learn(
    training: Training, args: TrainArgs, run: str, console: Console, signals: StopSignals
) -> None:
    from mjlab_rec.rl.training_progress import TrainingProgress
    from mjlab_rec.viewer.terminal import recorders_line

    env, runner = training.env, training.runner
    console.print(_announcement(training, args, run), markup=False)
    until = None if args.minutes is None else time.monotonic() + args.minutes * 60.0
    runner.should_stop = lambda: (
        signals.received is not None or (until is not None and time.monotonic() >= until)
    )
    began = time.monotonic()
    with TrainingProgress(
        args.task, console, lambda: recorders_line(env.recorder_manager)
    ) as shown:
        runner.on_iteration = shown.update
        training.run()
    best = "no whole episode yet" if runner.best_return is None else f"{runner.best_return:,.2f}"
    console.print(
        f"{runner.iterations_done} iterations, {time.monotonic() - began:,.1f} s; best mean return:"
        f" {best}.\nCheckpoints: {run}",
        markup=False,
    )
    if signals.received is not None:
        console.print(
            f"Go on with: mjlab-rec train --task {args.task} --resume {shlex.quote(run)}",
            markup=False,
        )


def _folder(args: TrainArgs) -> Path:
    """The folder of the run: that of the run whose last checkpoint is resumed, or a new one."""
    from mjlab_rec.rl.run_folders import checkpoints, new_run_folder

    resumed = args.checkpoint
    if resumed is not None and resumed in checkpoints(resumed.parent)[-1:]:
        return resumed.parent
    agent = args.agent_cfg
    return new_run_folder(agent.experiment_name or args.task, agent.run_name, args.log_root)


def _announcement(training: Training, args: TrainArgs, run: str) -> str:
    from mjlab_rec.rl import distributed

    env, count = training.env, distributed.ranks().world_size
    where = f"{env.num_envs} environments"
    if count > 1:
        where = f"{count} processes with {where} each"
    where += f", engine {env.sim.engine_name} on {env.device}"
    said = f"{args.task}: {where}, seed {args.agent_cfg.seed}\nRun: {run}"
    if args.checkpoint is not None:
        how = "exactly where it was" if training.continues else "with new episodes"
        said += f"\nGoing on after {args.checkpoint}, {how}"
    return said


def _say_stopping(console: Console, number: int) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    console.print(
        f"{name}: the run ends after this iteration, with a checkpoint. Ctrl-C ends it at once,"
        " without."
    )
