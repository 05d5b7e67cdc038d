"""Policies that were learned, from files: RSL-RL's checkpoints, TorchScript and ONNX."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.rl.checkpoints import CheckpointError
from mjlab_rec.rl.policies import POLICIES, Policy, policy_maker
from mjlab_rec.rl.run_folders import ROOT, find_checkpoint

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

# The obs groups of actors by their usual names: mjlab's, and that of older libraries.
_USUAL_GROUPS = ("actor", "policy")
_SUFFIXES = (".pt", ".pth", ".jit", ".onnx")


@dataclass(frozen=True)
class AgentInputs:
    """What a policy takes from the observations: some groups as one vector, others as images."""

    vectors: tuple[str, ...]
    """Groups of shape (num_envs, n), concatenated in this order."""

    images: tuple[str, ...]
    """Groups of shape (num_envs, channels, height, width), each on its own."""

    shapes: dict[str, tuple[int, ...]]
    """Shape of each group for one environment."""

    @classmethod
    def of(cls, groups: Sequence[str], obs: Mapping[str, Any], who: str) -> AgentInputs:
        """Sort the groups that a policy sees; an error names groups that are not there.

        Args:
            groups: Names of the groups.
            obs: Observations of the environment.
            who: What sees them, for messages.
        """
        missing = [group for group in groups if not isinstance(obs.get(group), torch.Tensor)]
        if missing:
            raise CheckpointError(
                f"{who} sees the observation groups {list(groups)}, but as tensors the environment"
                f" has {[name for name, value in obs.items() if isinstance(value, torch.Tensor)]}."
                " Is it from another task?"
            )
        shapes = {group: tuple(obs[group].shape[1:]) for group in groups}
        odd = {group: shape for group, shape in shapes.items() if len(shape) not in (1, 3)}
        if odd:
            raise CheckpointError(
                f"{who} sees the observation groups {odd}, which are neither vectors nor images"
                " (channels, height, width). Flatten them."
            )
        vectors = tuple(group for group in groups if len(shapes[group]) == 1)
        images = tuple(group for group in groups if len(shapes[group]) == 3)
        return cls(vectors, images, shapes)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.shapes[group][0] for group in self.vectors)

    def vector(self, obs: Mapping[str, Any]) -> torch.Tensor:
        """Concatenate the groups that are vectors: (num_envs, size)."""
        return torch.cat([obs[group] for group in self.vectors], dim=-1)

    def tensors(self, obs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The vector, unless it is empty, and the images."""
        vector = [self.vector(obs)] if self.vectors else []
        return vector + [obs[group] for group in self.images]

    def describe(self) -> str:
        """The groups with their sizes, for messages."""
        sizes = {group: "x".join(map(str, shape)) for group, shape in self.shapes.items()}
        return ", ".join(f"{group} ({size})" for group, size in sizes.items())


class Agent:
    """A policy from a file: takes the observation groups, returns the action of every environment.

    A recurrent one remembers each environment's episode, so call ``reset`` where episodes end.
    ``Playback``, ``evaluate`` and ``mjlab-rec play`` do.

    Args:
        path: The file.
        inputs: What it sees.
        clip_actions: Greatest action in either direction; None does not clip.
    """

    is_recurrent = False
    """Whether it remembers earlier observations."""

    def __init__(self, path: Path, inputs: AgentInputs, clip_actions: float | None = None) -> None:
        self.path = path
        self.inputs = inputs
        self.clip_actions = clip_actions
        self.iteration: int | None = None
        """The training iteration that it is from, if the file says so."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    @torch.no_grad()
    def __call__(self, obs: Mapping[str, Any]) -> torch.Tensor:
        """Return the actions, (num_envs, action_dim), without exploring."""
        action = self._act(obs)
        limit = self.clip_actions
        return action if limit is None else action.clamp(-limit, limit)

    def reset(self, dones: torch.Tensor | None = None) -> None:
        """Forget the episodes of these environments.

        Args:
            dones: Which episodes have ended, (num_envs,); None means all.
        """

    def _act(self, obs: Mapping[str, Any]) -> torch.Tensor:
        raise NotImplementedError


def load_agent(
    source: str | Path,
    env: Any,
    task_id: str | None = None,
    *,
    rl_cfg: Any = None,
    root: str | Path = ROOT,
) -> Agent:
    """Load a policy for an environment. Nothing is unpickled.

    From a checkpoint the environment also takes how far training was, for curricula that depend on
    it.

    Args:
        source: A checkpoint of RSL-RL, a TorchScript or ONNX file, a run's folder (its last
            checkpoint), ``latest`` or ``best``.
        env: The environment, or a wrapper with ``unwrapped``.
        task_id: Id of the task; None: that of the environment's cfg.
        rl_cfg: The learner's cfg, for files that do not describe their network.
        root: Folder of all experiments.
    """
    env = env.unwrapped
    task: str = task_id or env.cfg.task or ""
    path = find_checkpoint(source, task, root)
    cfg: Any = asdict(rl_cfg) if is_dataclass(rl_cfg) else rl_cfg  # pyright: ignore[reportArgumentType]
    if path.suffix == ".onnx":
        from mjlab_rec.rl.exported_agents import OnnxAgent

        return OnnxAgent(path, env, cfg)
    if is_torchscript(path):
        from mjlab_rec.rl.exported_agents import TorchScriptAgent

        return TorchScriptAgent(path, env, cfg)
    from mjlab_rec.rl.checkpoint_agent import load_checkpoint_agent

    return load_checkpoint_agent(path, env, task, cfg)


def agent_maker(
    name: str, task_id: str, rl_cfg: Any = None, root: str | Path = ROOT
) -> tuple[Callable[[ManagerBasedRlEnv], Policy], Path | None]:
    """Return the function that makes a policy for an environment, and its file if it has one.

    Args:
        name: What ``policy_maker`` takes, or what ``load_agent`` takes.
        task_id: Id of the task.
        rl_cfg: As for ``load_agent``.
        root: As for ``load_agent``.
    """
    if not _means_a_file(name):
        return policy_maker(name), None
    path = find_checkpoint(name, task_id, root)
    return lambda env: load_agent(path, env, task_id, rl_cfg=rl_cfg, root=root), path


def _means_a_file(name: str) -> bool:
    """Whether a name means a checkpoint rather than one of ``policy_maker``."""
    path = Path(name).expanduser()
    if name in POLICIES:
        return False
    if name in ("latest", "best") or path.suffix in _SUFFIXES or path.exists():
        return True
    return "/" in name and ":" not in name


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of TorchScript, which has code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def groups_of(cfg: Mapping[str, Any] | None, obs: Mapping[str, Any], role: str) -> tuple[str, ...]:
    """The observation groups of an actor: those of the learner's cfg, or the usual ones.

    Args:
        cfg: The learner's cfg as a dict, or None.
        obs: Observations of the environment.
        role: "actor", or "student" after distillation.
    """
    groups = ((cfg or {}).get("obs_groups") or {}).get(role)
    if groups:
        return tuple(groups)
    usual = [name for name in (role, *_USUAL_GROUPS) if name in obs]
    return (usual[0],) if usual else tuple(obs)[:1]
