"""Check the recording of a killed process against the same rollout, known independently."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.crash_run import actions, make_env
from mjlab_rec.data.files import parts
from mjlab_rec.data.rollouts import Rollouts, open_rollouts


class Truth:
    """The true rollout, taken in this process and stored by plain Python."""

    def __init__(self, num_envs: int) -> None:
        self.env = make_env(num_envs, {})
        self.env.cfg.final_obs = True
        self._actions = actions(self.env)
        self._rows: dict[str, list[np.ndarray]] = {}
        self._joined: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def rows(self, steps: int) -> dict[str, np.ndarray]:
        """Return every channel of at least this many first steps, each (steps, num_envs, ...)."""
        taken = len(self._joined.get("reward", ()))
        if taken < steps:
            for _ in range(2 * steps - taken):
                self._step()
            self._joined = {name: np.stack(rows) for name, rows in self._rows.items()}
        return self._joined

    def _step(self) -> None:
        env, action = self.env, next(self._actions)
        row: dict[str, Any] = {f"obs/{group}": value for group, value in env.obs_buf.items()}
        row["state"] = env.sim.get_state()
        row["entity/cartpole/joint_pos"] = env.scene["cartpole"].data.joint_pos
        row["action"] = action
        copies = {name: value.numpy().copy() for name, value in row.items()}
        _, reward, terminated, truncated, extras = env.step(action)
        after = {f"next_obs/{group}": value for group, value in extras["final_obs"].items()}
        after |= {"reward": reward, "terminated": terminated, "truncated": truncated}
        copies |= {name: value.numpy().copy() for name, value in after.items()}
        for name, value in copies.items():
            self._rows.setdefault(name, []).append(value)


def refusal(path: Path) -> str:
    """Return why a part cannot be read with the format's usual library; "" if all can."""
    read = _read_hdf5 if path.suffix == ".h5" else _read_csv
    for part in parts(path):
        try:
            read(part)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            return f"'{part.name}': {type(error).__name__}: {error}"
    return "" if parts(path) else "there is no file"


def walks(path: Path) -> bool:
    """Return whether tools that inspect each object, such as h5ls, find no incomplete one."""
    import h5py

    try:
        for part in parts(path):
            with h5py.File(part, "r") as file:
                file.visit(lambda _: None)
    except RuntimeError:
        return False
    return True


def _read_hdf5(part: Path) -> None:
    import h5py

    def read(group: h5py.Group, blocks: int) -> None:
        for item in group.values():
            if isinstance(item, h5py.Group):
                read(item, blocks)
            else:
                item[:blocks]

    with h5py.File(part, "r") as file:
        if "blocks" in file:  # Otherwise it was killed before the first block.
            index: Any = file["index/blocks"]
            read(file["blocks"], int(np.count_nonzero(index["done"])))  # type: ignore[arg-type]


def _read_csv(part: Path) -> None:
    with part.open(newline="") as file:
        widths = [len(row) for row in csv.reader(file)]
    if not widths or any(width != widths[0] for width in widths[:-1]):
        raise ValueError("Lines differ in length.")


def check(path: Path, truth: Truth, steps_written: int) -> tuple[int, int, list[str]]:
    """Compare a recording with the truth.

    Args:
        path: The recording.
        truth: What happened.
        steps_written: Steps that were certainly written.

    Returns:
        How many steps of all environments can be read, how many rows are wrong, and what else is
        wrong.
    """
    with open_rollouts(path) as rollouts:
        table = rollouts.episodes
        counts = np.bincount(table["env"], table["rows"], minlength=truth.env.num_envs)
        steps = int(counts.min())
        problems = []
        if steps < steps_written:
            problems.append(f"{steps_written} steps had been written, {steps} can be read")
        # In a text table the last step may be there for some environments only.
        within = counts.max() - steps <= (path.suffix == ".csv")
        if not within or (np.diff(counts) > 0).any():
            problems.append(f"environments have different numbers of rows: {counts.tolist()}")
        if rollouts.gaps:
            problems.append(f"{rollouts.gaps} rows are marked as dropped")
        wrong, odd = _compare(rollouts, truth.rows(max(1, int(counts.max()))))
        return steps, wrong, problems + odd


def _compare(rollouts: Rollouts, truth: dict[str, np.ndarray]) -> tuple[int, list[str]]:
    """Return rows that differ from the truth in any bit, and errors in the table of episodes."""
    missing = truth.keys() ^ rollouts.channels.keys()
    odd = [f"channels differ: {sorted(missing)}"] if missing else []
    # Episodes are sorted by environment, then by time, and so are rows.
    wrong, env, at, number = 0, -1, 0, 0
    for index, row in enumerate(rollouts.episodes.iter_rows(named=True)):
        if row["env"] != env:
            env, at, number = row["env"], 0, 0
        rows = rollouts[index]
        count = row["rows"]
        true = {name: values[at : at + count, env] for name, values in truth.items()}
        bad = rows["step"] != np.arange(count)
        for name in truth.keys() & rows.keys():
            differs = _bits(rows[name]) != _bits(true[name])
            bad = bad | differs.reshape(count, -1).any(axis=1)
        wrong += int(bad.sum())
        done = true["terminated"] | true["truncated"]
        expected = {
            "number": number,
            "length": count,
            "terminated": bool(true["terminated"][-1]),
            "truncated": bool(true["truncated"][-1]),
            "cut": not done[-1],
        }
        said = {name: row[name] for name in expected}
        if said != expected or done[:-1].any():
            odd.append(f"environment {env} has the episode {said}, expected {expected}")
        total = true["reward"].astype(np.float64).sum()
        if not np.isclose(row["return"], total, rtol=1e-9):
            odd.append(f"environment {env}, episode {number}: return {row['return']}, not {total}")
        if row["start"] not in (None, at):
            odd.append(f"environment {env}, episode {number} starts at {row['start']}, not {at}")
        at, number = at + count, number + 1
    return wrong, odd


def _bits(values: np.ndarray) -> np.ndarray:
    """Return floats as integers with the same bits, so that NaN == NaN and 0 != -0."""
    values = np.ascontiguousarray(values)
    return values.view(f"u{values.itemsize}") if values.dtype.kind == "f" else values
