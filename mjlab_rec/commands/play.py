"""Run a task with an agent, watch it, record it, and print the returns and the speed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from mjlab_rec import cli, registry
from mjlab_rec.commands.agents import agent_text, maker_of

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
    from mjlab_rec.envs.manager_based_rl_env import StepReturn
    from mjlab_rec.rl.policies import Policy
    from mjlab_rec.rl.returns import Returns
    from mjlab_rec.viewer.checkpoints import Checkpoints
    from mjlab_rec.viewer.playback import Viewer

_STEPS = 1000


@dataclass(kw_only=True)
class PlayArgs(cli.RecordArgs):
    """Options of ``play``."""

    agent: str = "zero"
    """zero: all actions are 0. random: uniform in the bounds of the action space, or in [-1, 1]
    without bounds. package.module:function: your function, which takes the environment and returns
    a policy. latest or best: a checkpoint of the task's last training. Or the file of a checkpoint,
    a TorchScript or ONNX file, or the folder of a run."""
    log_root: str = "logs"
    """Folder of the training runs, for latest and best."""
    config: Literal["play", "train"] = "play"
    """Which cfg of the task: play, its cfg for watching, if it has one, often without noise, pushes
    and time limit; or train, that of train, collect and evaluate."""
    steps: int | None = None
    """Stop after this many control steps of every environment. Without --steps, --episodes and
    --seconds: after 1000, when the viewer is closed, or with Ctrl-C if there is a web page."""
    episodes: int | None = None
    """Stop after this many finished episodes, of all environments together."""
    seconds: float | None = None
    """Stop after this much simulated time."""
    viewer: Literal["auto", "native", "web", "none"] = "none"
    """native: a window. web: a browser. auto: a window if there is a display, otherwise the
    browser. With a viewer the task runs in real time; change the speed in the viewer."""
    camera: str | None = None
    """Name or number of a camera in the model, for videos and viewers."""
    debug_vis: bool = False
    """Show what terms, sensors and the terrain draw, such as arrows of commands, in viewers and
    recordings. Viewers can switch it on and off."""
    real_time: bool = False
    """Run in real time, or slower if the machine is too slow."""
    no_terminations: bool = False
    """Remove all terminations, so that no episode ends."""
    replay_dump: str | None = None
    """Folder that a flight recorder or the NaN guard wrote: show the states in it instead of
    running the task. Without --viewer a video is written into the folder."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, run the task and print the summary.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    started = time.perf_counter()
    args, env_cfg = cli.parse(PlayArgs, __doc__ or "", argv, prog=prog)
    check(args)
    apply(args, env_cfg)
    if args.replay_dump is not None:
        replay(args, env_cfg)
        return

    from mjlab_rec.envs import ManagerBasedRlEnv

    with cli.explained(args):
        make_policy, path = maker_of(args.agent, args.task, args.log_root)
        env = ManagerBasedRlEnv(env_cfg, device=args.device)
        recorders = {n: env.recorder_manager.get_term(n) for n in env.recorder_manager.active_terms}
        try:
            with env:
                policy = make_policy(env)
                finished = run(env, policy, args, started, checkpoints_of(env, policy, args))
        finally:
            cli.print_recordings(recorders)
    if not finished:
        raise SystemExit(130)


def check(args: PlayArgs) -> None:
    """End the script if options are invalid."""
    limits = {"--steps": args.steps, "--episodes": args.episodes, "--seconds": args.seconds}
    given = [name for name, limit in limits.items() if limit is not None]
    if len(given) > 1:
        cli.fail(f"{' and '.join(given)} are mutually exclusive. Give only one of them.")
    for name, limit in limits.items():
        if limit is not None and not 0 < limit < math.inf:
            cli.fail(f"{name} must be a finite number above 0, got {limit}.")
    if args.episodes is not None and args.no_terminations:
        cli.fail(
            "--episodes has no effect with --no-terminations, because no episode ends. Use --steps."
        )


def apply(args: PlayArgs, cfg: ManagerBasedRlEnvCfg) -> None:
    """Set the fields of the cfg that have an option."""
    if args.no_terminations:
        cfg.terminations = {}
    if args.debug_vis:
        cfg.viewer.debug_vis = True
    if args.camera is not None:
        cfg.viewer.camera = int(args.camera) if args.camera.isdigit() else args.camera


def replay(args: PlayArgs, env_cfg: ManagerBasedRlEnvCfg) -> None:
    """Show the states in a dump."""
    from mjlab_rec.commands import replay_dump
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer import make_viewer

    with cli.explained(args):
        dump = replay_dump.read_dump(args.replay_dump or "")
        replay_dump.prepare(env_cfg, dump)
        with ManagerBasedRlEnv(env_cfg, device=args.device, render_mode="rgb_array") as env:
            replay_dump.run(env, dump, make_viewer(args.viewer, env))


def checkpoints_of(env: ManagerBasedRlEnv, policy: Policy, args: PlayArgs) -> Checkpoints | None:
    """The checkpoints among which viewers can switch; None if the policy is not from one."""
    from mjlab_rec.rl.checkpoint_agent import CheckpointAgent
    from mjlab_rec.viewer.checkpoints import Checkpoints

    if not isinstance(policy, CheckpointAgent):
        return None
    return Checkpoints(
        policy.path, lambda path: maker_of(str(path), args.task, args.log_root)[0](env)
    )


def run(
    env: ManagerBasedRlEnv,
    policy: Policy,
    args: PlayArgs,
    started: float,
    checkpoints: Checkpoints | None = None,
) -> bool:
    """Step the environment and print the results; returns False after Ctrl-C."""
    from mjlab_rec.rl.returns import Returns
    from mjlab_rec.sim.viewer_config import camera_id
    from mjlab_rec.viewer import make_viewer
    from mjlab_rec.viewer.playback import Playback
    from mjlab_rec.viewer.terminal import TerminalProgress

    console = Console()
    if env.cfg.viewer.camera is not None:
        camera_id(env.cfg.viewer.camera, env.sim.mj_model)  # Raises if there is no such camera.
    viewer = make_viewer(args.viewer, env)
    console.print(
        f"{args.task}: {env.num_envs} environments, engine {env.sim.engine_name} on {env.device}, "
        f"seed {env.cfg.seed}, {agent_text(args.agent, policy)}",
        highlight=False,
        soft_wrap=True,
    )
    if args.config == "play" and registry.task_spec(args.task).play_env_cfg is not None:
        console.print(
            "With the task's config for watching, which may have no noise, pushes or time limit."
            " --config train takes that of train and collect.",
            soft_wrap=True,
        )
    returns = Returns(env)
    steps: int | None = None
    progress = TerminalProgress(env, "steps" if args.episodes is None else "episodes", console)

    def on_step(result: StepReturn) -> None:
        returns.add_step()
        progress.step(progress.steps + 1 if args.episodes is None else len(returns.finished))

    def done() -> bool:
        if args.episodes is not None:
            return len(returns.finished) >= args.episodes
        return progress.steps == steps

    speed = 1.0 if viewer is not None or args.real_time else None
    viewers = [viewer] if viewer else []
    playback = Playback(env, policy, viewers=viewers, speed=speed, checkpoints=checkpoints)
    completed, ready = True, started
    with playback, progress:
        try:
            env.reset()
            watched = pages(env, viewer)
            steps = step_limit(args, env.step_dt, endless=viewer is not None or bool(watched))
            progress.expect(args.episodes or steps)
            until = "" if args.episodes or steps or viewer else ", until Ctrl-C"
            for page in watched:
                console.print(f"Watch it at {page}{until}", highlight=False, soft_wrap=True)
            ready = time.perf_counter()
            playback.run(done, on_step)
        except KeyboardInterrupt:
            console.print(f"Stopped by Ctrl-C after {progress.steps} steps.")
            completed = False
    seconds = time.perf_counter() - ready
    console.print(summary(returns, progress.steps * env.num_envs, seconds, ready - started))
    with console.status("Finishing the recordings"):  # Pictures may still have to be drawn.
        env.close()
    return completed


def pages(env: ManagerBasedRlEnv, viewer: Viewer | None) -> list[str]:
    """Addresses of the web pages of the viewer and the recorders."""
    from mjlab_rec.recorders.progress import progress

    manager = env.recorder_manager
    found = [progress(manager.get_term(name)).page for name in manager.active_terms]
    # The viewer and the live plots share a page.
    return [page for page in dict.fromkeys([getattr(viewer, "url", ""), *found]) if page]


def step_limit(args: PlayArgs, step_dt: float, endless: bool) -> int | None:
    """Steps to run; None if there is another limit, or none."""
    if args.seconds is not None:
        return math.ceil(round(args.seconds / step_dt, 6))
    if args.steps is None and args.episodes is None and not endless:
        return _STEPS
    return args.steps


def summary(returns: Returns, env_steps: int, seconds: float, start_up: float) -> Table:
    """A table of returns and speed."""
    table = Table(show_header=False)
    table.add_row("Episodes finished", str(len(returns.finished)))
    if returns.finished:
        count = len(returns.finished)
        mean, low, high = (
            sum(returns.finished) / count,
            min(returns.finished),
            max(returns.finished),
        )
        table.add_row("Return, mean (lowest to highest)", f"{mean:.3f} ({low:.3f} to {high:.3f})")
        table.add_row("Length, mean", f"{sum(returns.lengths) / count:.1f} steps")
    else:
        table.add_row("Return so far, mean", f"{returns.running.mean().item():.3f}")
    table.add_row("Until the first step", f"{start_up:.2f} s")
    table.add_row("Speed", f"{env_steps / seconds:,.0f} env-steps/s")
    return table
