"""What is collected: shards of a fixed size, which do not depend on who collects them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from mjlab_rec.data.schema import DataError
from mjlab_rec.recorders.about import as_json

FORMAT = 2
_SEEDS = (1 << 31) - 1
_STRIDE = 0x9E3779B1  # Odd, so that no two shards have the same seed.
_MOST_SHARDS = 1_000_000
# Fields of cfgs that may differ between workers, because they do not change what is recorded.
_OF_A_WORKER = {"env_cfg": ("recorders", "seed"), "recorder": ("path", "if_exists")}


class PlanError(DataError):
    """Two plans, or a plan and a worker, do not fit together."""


@dataclass(frozen=True)
class Shard:
    """A share of the episodes, which one worker plays in one environment object."""

    number: int
    """From 0."""
    envs: int
    """Recorded environments: the first ones."""
    per_env: int
    """Episodes of each of them, its first ones."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"shard-{self.number:05d}"

    @property
    def episodes(self) -> int:
        """How many episodes it has."""
        return self.envs * self.per_env


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides what is collected. It is the same for all workers.

    The work is divided into shards that depend only on this. So the same episodes are collected,
    whatever the number of workers, and a shard that is lost can be played again.
    """

    task: str
    """Id of the task."""
    config: str = "train"
    """Which of its cfgs: "train" or "play"."""
    agent: str
    """What plays, as it was given."""
    policy_hash: str
    """Hash of the agent's files, of its function's source file, or of its name."""
    device: str
    """"cpu" or "cuda"."""
    seed: int
    """Seed of all episodes."""
    episodes: int
    """How many episodes are collected."""
    num_envs: int
    """Environments of each worker."""
    per_env: int
    """Episodes that each of them plays in a shard."""
    versions: Mapping[str, str]
    """Versions of the packages that a rollout depends on."""
    env_cfg: Mapping[str, Any]
    """The environment's cfg, as plain data."""
    recorder: Mapping[str, Any]
    """The recorder's cfg, as plain data."""
    sources: Mapping[str, str]
    """Hashes of the source files of the task's own functions, by module."""
    format: int = FORMAT
    """Version of this description."""

    @cached_property
    def cfg_hash(self) -> str:
        """Hash of the environment's cfg."""
        return hash_of(self.env_cfg)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shares of the work.

        All have ``num_envs`` x ``per_env`` episodes, except up to two at the end, which have the
        rest: fewer episodes of each environment, and one episode of some environments.
        """
        whole, rest = divmod(self.episodes, self.num_envs * self.per_env)
        per_env, some = divmod(rest, self.num_envs)
        sizes = [(self.num_envs, self.per_env)] * whole
        sizes += [(self.num_envs, per_env)] if per_env else []
        sizes += [(some, 1)] if some else []
        return tuple(Shard(number, *size) for number, size in enumerate(sizes))

    def seed_of(self, shard: Shard) -> int:
        """The seed of a shard; no two shards of a plan have the same."""
        start = int.from_bytes(hashlib.sha256(str(self.seed).encode()).digest()[:4], "big")
        return (start + shard.number * _STRIDE) & _SEEDS

    def check(self) -> None:
        """Raise if there is nothing to do, or more than folders can hold."""
        for name in ("episodes", "num_envs", "per_env"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, got {getattr(self, name)}.")
        count = -(-self.episodes // (self.num_envs * self.per_env))
        if count > _MOST_SHARDS:
            raise PlanError(
                f"{self.episodes} episodes in shards of {self.num_envs * self.per_env} are {count}"
                f" shards, more than {_MOST_SHARDS}. Give a larger --num-envs or --per-env."
            )

    def to_json(self) -> bytes:
        """As the content of a file."""
        more = {"cfg_hash": self.cfg_hash, "shards": len(self.shards)}
        return (json.dumps({**asdict(self), **more}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Plan:
        """Read the content of a file.

        Args:
            content: What ``to_json`` returned.
            where: The file, for messages.
        """
        try:
            data = json.loads(content)
            if data["format"] != FORMAT:
                raise PlanError(
                    f"'{where}' has the format {data['format']!r}; this version reads {FORMAT}."
                )
            return cls(**{each.name: data[each.name] for each in fields(cls)})
        except (ValueError, KeyError, TypeError) as error:
            raise PlanError(f"'{where}' is not a plan of `mjlab-rec collect`: {error!r}.") from None

    def check_same(self, planned: Plan, where: str) -> None:
        """Raise if this differs from the plan that a folder was begun with.

        Args:
            planned: That plan.
            where: The folder.
        """
        ours, theirs = (json.loads(plan.to_json()) for plan in (self, planned))
        # The name of an agent may differ, such as "latest" and a path. The hash says what it is.
        for plan in (ours, theirs):
            del plan["agent"], plan["shards"], plan["cfg_hash"]
        found = _difference(ours, theirs)
        if found is None:
            return
        path, now, was = found
        field, _, module = path.partition(".")
        cure = "Give the same options and install the same versions to go on with it"
        if field == "policy_hash" and self.agent == planned.agent:
            what = f"The content of the agent {self.agent} has changed since '{where}' was begun."
            cure = "Restore it to go on"
        elif field == "policy_hash":
            what = (
                f"'{where}' was begun with another agent: {planned.agent} there, {self.agent} now."
            )
        elif field == "sources":
            what = f"The file of the module {module}, whose functions the task uses, has changed"
            what += f" since '{where}' was begun."
            cure = "Restore it to go on"
        else:
            what = f"'{where}' was begun with another {path}: {_text(was)} there, {_text(now)} now."
        raise PlanError(f"{what} {cure}, or collect into another folder.")


def plain_cfg(cfg: Any, kind: str) -> dict[str, Any]:
    """A cfg as plain data, without what may differ between workers.

    Args:
        cfg: The cfg.
        kind: "env_cfg" or "recorder".
    """
    data = as_json(cfg)
    for name in _OF_A_WORKER[kind]:
        data.pop(name, None)
    if kind == "env_cfg":
        data["sim"].pop("num_threads", None)
    return json.loads(json.dumps(data))


def hash_of(data: Any) -> str:
    """A hash of plain data, or of bytes."""
    if not isinstance(data, bytes):
        data = json.dumps(data, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _difference(now: Any, was: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The dotted path of the first difference and both values; None if there is none."""
    if not (isinstance(now, dict) and isinstance(was, dict)):
        return None if now == was else (path, now, was)
    for name in [*now, *(name for name in was if name not in now)]:
        inner = f"{path}.{name}" if path else name
        if found := _difference(now.get(name), was.get(name), inner):
            return found
    return None


def _text(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:100]}..."
