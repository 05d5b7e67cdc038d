"""One training run from cfgs: environment, networks, recordings, and its folder."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.rl import distributed
from mjlab_rec.rl.config import RslRlBaseRunnerCfg
from mjlab_rec.rl.distillation import MjlabDistillationRunner
from mjlab_rec.rl.run_folders import find_checkpoint
from mjlab_rec.rl.runner import MjlabOnPolicyRunner
from mjlab_rec.rl.vecenv_wrapper import RslRlVecEnvWrapper
from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.threads import choose_threads, torch_threads
from mjlab_rec.utils.torch import configure_torch_backends

_RESUME_FIELDS = ("resume", "load_run", "load_checkpoint")
_RUNNERS = {"OnPolicyRunner": MjlabOnPolicyRunner, "DistillationRunner": MjlabDistillationRunner}


@dataclasses.dataclass(kw_only=True)
class Training:
    """A run that is ready to begin."""

    runner: Any
    """The runner, a MjlabOnPolicyRunner."""
    env: ManagerBasedRlEnv
    """The environment."""
    recorders: dict[str, Any]
    """The recorders, by name."""
    continues: bool
    """Whether the environments go on in the middle of their episodes."""
    iterations: int
    """Number of iterations that are left."""

    def run(self) -> None:
        """Train until all iterations are done, or the runner's ``should_stop`` says so."""
        self.runner.learn(self.iterations, init_at_random_ep_len=not self.continues)


@contextlib.contextmanager
def prepared(
    env_cfg: ManagerBasedRlEnvCfg,
    agent_cfg: Any,
    *,
    run: Path | None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    runner_cls: Callable[..., Any] | None = None,
) -> Iterator[Training]:
    """Make everything that a run needs; at the end of the block all is closed.

    Args:
        env_cfg: The environment's cfg. It gets the seed of the learner's cfg.
        agent_cfg: The learner's cfg.
        run: Folder of the run; None writes nothing.
        device: Where to simulate and to train.
        checkpoint: What to go on with; ``max_iterations`` includes the iterations before.
        runner_cls: Class of the runner; None: as the cfg says.
    """
    _check_no_other_resume(agent_cfg)
    rank = distributed.ranks().rank
    configure_torch_backends()
    seed = agent_cfg.seed + rank  # Each process sees other episodes.
    torch.manual_seed(seed)
    env_cfg = copy.copy(env_cfg)
    env_cfg.sim = copy.copy(env_cfg.sim)
    env_cfg.seed = seed
    threads = choose_threads()
    if env_cfg.sim.num_threads is None:
        env_cfg.sim.num_threads = threads.engine
    recorders = {name: cfg for name, cfg in env_cfg.recorders.items() if cfg is not None}
    if checkpoint is not None:
        env_cfg.recorders = {}  # They begin when the environments are where they were.
    env = ManagerBasedRlEnv(env_cfg, device=device)
    with contextlib.ExitStack() as stack:
        stack.callback(env.close)
        if env.device == "cpu":
            stack.enter_context(torch_threads(threads.rollout))
        wrapped = RslRlVecEnvWrapper(env, clip_actions=agent_cfg.clip_actions)
        cls = runner_cls or _runner_class(agent_cfg.class_name)
        plain = dataclasses.asdict(agent_cfg)
        runner = cls(wrapped, plain, None if run is None else str(run), env.device)
        teacher = getattr(agent_cfg, "teacher_checkpoint", "")
        if teacher and checkpoint is None:
            runner.load(str(find_checkpoint(teacher, env_cfg.task or "")))
        continues = checkpoint is not None and runner.resume(checkpoint)
        if checkpoint is not None:
            for name, cfg in recorders.items():
                env.start_recording(_by_itself(cfg), name=name)
        names = env.recorder_manager.active_terms
        yield Training(
            runner=runner,
            env=env,
            recorders={name: env.recorder_manager.get_term(name) for name in names},
            continues=continues,
            iterations=_iterations_left(agent_cfg.max_iterations, runner.iterations_done),
        )


def recorders_of_rank(recorders: dict[str, Any], folder: Path, placeholder: Path) -> dict[str, Any]:
    """The cfgs of this process's recorders, with the run's folder in their paths.

    With several processes each writes its own files. What shows the run to people (videos, Rerun,
    plots) is recorded by the first one.

    Args:
        recorders: The cfgs, by name; they do not change.
        folder: Folder of the run.
        placeholder: What stands for it at the beginning of paths.
    """
    here = distributed.ranks()
    found = {}
    for name, cfg in recorders.items():
        path = getattr(cfg, "path", None)
        shows = type(cfg).__name__.startswith(("Video", "Rerun", "LivePlot"))
        if cfg is None or (shows and not here.is_first):
            continue
        if isinstance(path, (str, Path)) and str(path):
            path = _in_run(Path(path), folder, placeholder)
            if here.is_distributed and not shows:
                path = distributed.path_of_rank(path)
            cfg = dataclasses.replace(cfg, path=str(path))
        found[name] = cfg
    return found


def _in_run(path: Path, folder: Path, placeholder: Path) -> Path:
    if not path.is_relative_to(placeholder):
        return path
    inside = path.relative_to(placeholder)
    return folder / ("videos" if inside == Path("rollouts/video") else inside)


def _check_no_other_resume(cfg: Any) -> None:
    """Refuse the fields of mjlab's that name a run to go on with, which nothing here would read."""
    fields = {field.name: field.default for field in dataclasses.fields(RslRlBaseRunnerCfg)}
    given = [n for n in _RESUME_FIELDS if getattr(cfg, n, fields[n]) != fields[n]]
    if given:
        raise ValueError(
            f"The learner's cfg sets {', '.join(given)}, as mjlab's trainer takes it. Here a run"
            " goes on with --resume RUN on the command line, or checkpoint=... in Python, which"
            " mjlab_rec.utils.os.get_checkpoint_path(LOGS, load_run, load_checkpoint) finds."
        )


def _runner_class(name: str) -> Any:
    if name in _RUNNERS:
        return _RUNNERS[name]
    if ":" in name:
        return look_up(name)
    raise ValueError(
        f"Unknown runner {name!r}. Known: {', '.join(_RUNNERS)}, or your own as"
        " 'package.module:Class'."
    )


def _by_itself(cfg: Any) -> Any:
    """The cfg of a recorder that chooses itself what to record, although it is started by hand."""
    if getattr(cfg, "trigger", None) != "auto" or Path(getattr(cfg, "path", "")).suffix == ".mp4":
        return cfg
    from mjlab_rec.recorders.triggers import capped_cubic_episodes

    return dataclasses.replace(cfg, trigger=capped_cubic_episodes())


def _iterations_left(planned: int, done: int) -> int:
    if done < planned or planned == 0:
        return max(planned - done, 0)
    raise ValueError(
        f"The run has had {done} iterations already, and max_iterations is {planned}. Give more,"
        f" such as --agent.max-iterations {done + planned}."
    )
