"""Write a trained policy as ONNX and TorchScript files, for a robot's own program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.agents import agent_text, maker_of

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
    from mjlab_rec.rl.checkpoint_agent import CheckpointAgent

_ENVS = 8
_STEPS = 20


@dataclass(kw_only=True)
class ExportArgs(cli.TaskArgs):
    """Options of ``export``."""

    agent: str = "latest"
    """latest or best: a checkpoint of the task's last training. Or the file of a checkpoint, or
    the folder of a run."""
    format: tyro.conf.UseAppendAction[tuple[Literal["onnx", "torchscript"], ...]] = ()
    """onnx or torchscript. May be repeated. Without it both are written."""
    output: Path | None = None
    """Folder for the files. None: the folder "exported" next to the checkpoint."""
    name: str = "policy"
    """Name of the files, without a suffix."""
    log_root: str = "logs"
    """Folder of the training runs, for latest and best."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, write the files and compare them with the policy.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    args, env_cfg = cli.parse(ExportArgs, __doc__ or "", argv, prog=prog)
    if args.num_envs is None:
        env_cfg.scene.num_envs = _ENVS
    with cli.explained(args):
        run(args, env_cfg)


def run(args: ExportArgs, env_cfg: ManagerBasedRlEnvCfg) -> None:
    """Write the files, and print how much their actions differ from those of the policy."""
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl.checkpoint_agent import CheckpointAgent
    from mjlab_rec.rl.export import FORMATS, export_agent

    console = Console(highlight=False, soft_wrap=True)
    make_policy, path = maker_of(args.agent, args.task, args.log_root)
    env_cfg.recorders = {}
    with ManagerBasedRlEnv(env_cfg, device=args.device) as env:
        agent = make_policy(env) if path is not None else None
        if not isinstance(agent, CheckpointAgent):
            raise ValueError(
                f"--agent {args.agent} is no checkpoint of a training, so there is nothing to"
                " export. Give a model_<iteration>.pt, the folder of a run, latest or best."
            )
        console.print(f"{args.task}: {agent_text(args.agent, agent)}", markup=False)
        folder = args.output or agent.path.parent / "exported"
        files = export_agent(agent, env, folder, args.name, args.format or FORMATS, args.task)
        for file in files:
            said = check(agent, file, env, args.task)
            console.print(f"Wrote {file}: {said}", markup=False)


def check(agent: CheckpointAgent, file: Path, env: ManagerBasedRlEnv, task_id: str) -> str:
    """Play the policy, and say how much the file's actions differ from its actions."""
    from mjlab_rec.rl.agents import load_agent
    from mjlab_rec.utils.extras import MissingExtraError

    try:
        exported = load_agent(file, env, task_id)
    except MissingExtraError as error:
        return f"not compared with the policy, because that {str(error).partition(':')[0]}"
    obs, _ = env.reset(seed=0)
    agent.reset()
    worst = largest = 0.0
    for _ in range(_STEPS):
        action = agent(obs)
        worst = max(worst, float((exported(obs) - action).abs().max()))
        largest = max(largest, float(action.abs().max()))
        obs, _, terminated, truncated, _ = env.step(action)
        agent.reset(terminated | truncated)
        exported.reset(terminated | truncated)
    if worst > 1e-3 * max(largest, 1.0):
        raise ValueError(
            f"{file} does not do what the policy does: actions differ by up to {worst:.2g}, where"
            f" the largest is {largest:.2g}. Does the network keep something between steps?"
        )
    return f"its actions differ by at most {worst:.1g} in {_STEPS} steps of {env.num_envs} robots"
