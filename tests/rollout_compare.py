"""Compare recordings with what the model says must be in them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
from rollout_examples import Rec
from rollout_model import ExpectedEpisode, Recording
from rollout_world import World

from mjlab_rec.data.formats.memory import MemoryReader, MemoryWriter
from mjlab_rec.data.rollouts import Rollouts, open_rollouts


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Something that is not as the rules say."""

    what: str  # a word: which part of a recording
    where: str
    text: str

    def __str__(self) -> str:
        return f"[{self.what}] {self.where}: {self.text}"


def compare(
    rec: Rec,
    world: World,
    where: str,
    wanted: list[Recording],
    files: list[Path],
    memory: list[MemoryWriter],
) -> Iterator[Deviation]:
    """Compare a recorder's recordings with those that it should have made."""
    kinds = ("successful", "failed") if rec.keep == "separate" else ("",)
    sources: list[Any] = memory
    if rec.format != "memory":
        sources = [file for file in files if ".part" not in file.name]
    groups = [sources[i : i + len(kinds)] for i in range(0, len(sources), len(kinds))]
    opened = []
    for group in groups:
        rollouts = [
            Rollouts(MemoryReader(s)) if isinstance(s, MemoryWriter) else open_rollouts(s)
            for s in group
        ]
        opened.append(list(zip(kinds, group, rollouts, strict=True)))
    real = [group for group in opened if any(len(r) for _, _, r in group)]
    due = [recording for recording in wanted if not recording.empty]
    if rec.append and due:
        due = [_joined(due)]
        for _, _, rollouts in real[0] if real else ():
            found = rollouts.episodes.select("env", "number").rows()
            if len(set(found)) < len(found):
                text = f"(env, number) is not unique: {found}"
                yield Deviation(what="repeated", where=where, text=text)
                return
    if len(real) != len(due):
        text = f"{len(real)} recordings with rows instead of {len(due)}"
        yield Deviation(what="recordings", where=where, text=text)
    for number, (group, recording) in enumerate(zip(real, due, strict=False)):
        for kind, source, rollouts in group:
            here = f"{where} recording {number} {kind}".rstrip()
            episodes = recording.files[kind]
            yield from _compare_file(rec, world, here, episodes, rollouts)
            rollouts.close()
            if isinstance(source, Path):
                yield from _compare_raw(rec, world, here, episodes, source)


def compare_early(
    rec: Rec, where: str, wanted: list[Recording], source: Path | MemoryWriter
) -> Iterator[Deviation]:
    """Compare a running recording with the expected one if it ended now."""
    if len(wanted) != 1 or rec.keep == "separate":
        return  # It is not known which recording this is.
    memory = isinstance(source, MemoryWriter)
    rollouts = Rollouts(MemoryReader(source)) if memory else open_rollouts(source)
    of_key = {(e.env, e.number): e for e in wanted[0].files[""]}
    by_block = rec.format in ("memory", "hdf5", "hdf5 gzip", "csv")
    by_block &= rec.keep == "all" and rec.trigger is None and rec.max_episodes is None
    seen = set()
    for index, row in enumerate(rollouts.episodes.iter_rows(named=True)):
        key = row["env"], row["number"]
        seen.add(key)
        if key not in of_key:
            yield Deviation(what="early episodes", where=where, text=f"there is no episode {key}")
            continue
        episode, arrays = of_key[key], rollouts[index]
        running = np.isinf(episode.ended[0])
        for name, truth in episode.table_row.items():
            value = row[name]
            if running and name not in ("start", "terminated", "truncated", "cut"):
                continue
            same = value == truth or (rec.format == "csv" and value is None)
            if isinstance(truth, float) and value is not None:
                same = bool(np.isclose(value, truth, rtol=1e-3))
            if not same:
                text = f"episode {key}: {name} is {value} instead of {truth}"
                yield Deviation(what=f"early {name}", where=where, text=text)
        steps = arrays["step"].tolist()
        if steps != episode.rows:
            text = f"episode {key}: steps are {steps} instead of {episode.rows}"
            yield Deviation(what="early step", where=where, text=text)
            continue
        for name in rollouts.channels:
            if not np.array_equal(arrays[name], _truth(rec, name, episode)):
                text = f"episode {key}: {name} is wrong"
                yield Deviation(what="early value", where=where, text=text)
    rollouts.close()
    if rec.format in ("npz file", "parquet"):
        return  # They hold back what they have.
    due = {key for key, e in of_key.items() if by_block or not np.isinf(e.ended[0])}
    if not due <= seen:
        text = f"episodes {sorted(due - seen)} are missing"
        yield Deviation(what="early episodes", where=where, text=text)


def _joined(recordings: list[Recording]) -> Recording:
    """The expected content of a file with several appended recordings."""
    files: dict[str, list[ExpectedEpisode]] = {}
    for recording in recordings:
        for kind, episodes in recording.files.items():
            there = files.setdefault(kind, [])
            offset = 1 + max((episode.number for episode in there), default=-1)
            there += [replace(e, number=e.number + offset) for e in episodes]
    for episodes in files.values():
        episodes.sort(key=lambda e: (e.env, e.number))
    return Recording(files=files)


def _compare_file(
    rec: Rec, world: World, where: str, episodes: list[ExpectedEpisode], rollouts: Rollouts
) -> Iterator[Deviation]:
    def deviation(what: str, text: str) -> Deviation:
        return Deviation(what=what, where=where, text=text)

    channels = world.channels(rec.channels)
    if len(rollouts) and sorted(rollouts.channels) != sorted(channels):
        yield deviation("channels", f"{sorted(rollouts.channels)} instead of {sorted(channels)}")
        return
    table = list(rollouts.episodes.iter_rows(named=True))
    found = [(row["env"], row["number"]) for row in table]
    keys = [(e.env, e.number) for e in episodes]
    if found != sorted(found):
        yield deviation("order", f"episodes are not ordered by env and number: {found}")
    if sorted(found) != keys:
        yield deviation("episodes", f"(env, number) of episodes are {found} instead of {keys}")
    of_key = dict(zip(keys, episodes, strict=True))
    for index, row in enumerate(table):
        episode = of_key.get((row["env"], row["number"]))
        if episode is None:
            continue
        here = f"episode {(episode.env, episode.number)}"
        for name, truth in episode.table_row.items():
            value = row[name]
            if rec.format == "csv" and value is None:
                continue
            same = value == truth
            if isinstance(truth, float) and value is not None:
                # A table of rows knows the rewards only as it stores them.
                coarse = rec.format == "csv" and rec.dtype == "float16"
                same = bool(np.isclose(value, truth, rtol=1e-3 if coarse else 1e-9, atol=1e-12))
            if not same:
                yield deviation(name, f"{here}: {name} is {value} instead of {truth}")
        arrays = rollouts[index]
        if arrays["step"].tolist() != episode.rows:
            text = f"{here}: steps are {arrays['step'].tolist()} instead of {episode.rows}"
            yield deviation("step", text)
            continue
        for name in channels:
            truth = _truth(rec, name, episode)
            value = arrays[name]
            if value.shape != truth.shape or value.dtype != truth.dtype:
                text = f"{value.dtype} {value.shape} instead of {truth.dtype} {truth.shape}"
                yield deviation("type", f"{here}: {name} is {text}")
            elif not np.array_equal(value, truth):
                rows = np.flatnonzero((value != truth).reshape(len(truth), -1).any(axis=1))
                text = f"{here}: {name} is wrong in rows {rows.tolist()} of {len(truth)}"
                yield deviation(name.split("/")[0], text)
        if rec.format != "csv" and "state" in rec.channels:
            model = rollouts.model(index)
            truth_of = {k: v[episode.env] for k, v in episode.recorded[0].fields.items()}
            if sorted(model) != sorted(truth_of):
                text = f"{here}: model fields are {sorted(model)} instead of {sorted(truth_of)}"
                yield deviation("model", text)
            elif any(not np.array_equal(model[k], v) for k, v in truth_of.items()):
                yield deviation("model", f"{here}: model fields are {model} instead of {truth_of}")


def _truth(rec: Rec, name: str, episode: ExpectedEpisode) -> np.ndarray:
    truth = np.stack([step.values[name][episode.env] for step in episode.recorded])
    exact = name == "state" or name.startswith("model/")
    if rec.dtype is not None and truth.dtype.kind == "f" and not exact:
        truth = truth.astype(rec.dtype)
    return truth


def _compare_raw(
    rec: Rec, world: World, where: str, episodes: list[ExpectedEpisode], path: Path
) -> Iterator[Deviation]:
    """Look into a file with nothing of ours."""
    if rec.append:
        return
    if rec.format == "csv":
        wrong = _raw_csv(rec, world, episodes, path)
    elif rec.format == "hdf5 episodes":
        wrong = _raw_robomimic(rec, episodes, path)
    elif rec.format in ("hdf5", "hdf5 gzip"):
        wrong = _raw_hdf5(rec, world, episodes, path)
    else:
        return
    for text in wrong:
        yield Deviation(what="raw", where=where, text=text)


def _raw_csv(rec: Rec, world: World, episodes: list[ExpectedEpisode], path: Path) -> Iterator[str]:
    files = [path, *sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))]
    frame = pl.concat([pl.read_csv(file, infer_schema_length=None) for file in files])
    frame = frame.sort("env", "episode", "step")
    keys = [(e.env, e.number, k) for e in episodes for k in e.rows]
    found = list(frame.select("env", "episode", "step").iter_rows())
    if found != keys:
        yield f"rows (env, episode, step) are {found} instead of {keys}"
        return
    if not keys:
        return
    times = [round(k * 0.01, 9) for _, _, k in keys]
    if frame["time"].to_list() != times:
        yield f"time is {frame['time'].to_list()} instead of {times}"
    for name in world.channels(rec.channels):
        columns = [c for c in frame.columns if c == name or c.startswith(name + "[")]
        truth = np.concatenate([_truth(rec, name, e).reshape(len(e.rows), -1) for e in episodes])
        value = frame.select(columns).to_numpy()
        if value.shape != truth.shape or not np.array_equal(value.astype(truth.dtype), truth):
            yield f"column {name} is {value.tolist()} instead of {truth.tolist()}"


def _raw_hdf5(rec: Rec, world: World, episodes: list[ExpectedEpisode], path: Path) -> Iterator[str]:
    """Read blocks as the attribute `how_to_read` of a file explains."""
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    ended: dict[tuple[int, int], dict[str, Any]] = {}
    packed = False
    for each in (path, *sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))):
        file = _Arrays(each)
        if "ends" not in file.arrays:
            continue  # It has no rows.
        packed = bool(file.attrs["packed"])
        yield from _padding(file)
        blocks = file["index/blocks"]
        ends = file["ends"][: blocks["ends"].sum()]
        for end in ends:
            names = (n for n in ends.dtype.names if n not in ("block", "env_index", "row", "key"))
            ended[end["env"].item(), end["number"].item()] = {n: end[n].item() for n in names}
        for block in np.flatnonzero(blocks["done"]).tolist():
            _read_block(file, block, packed, found)
    if packed:
        found = {key: rows for key, rows in found.items() if key in ended}
    yield from _check_hdf5(rec, world, episodes, found, ended)


class _Arrays:
    """All datasets of an HDF5 file, read once: reading each row by itself takes minutes."""

    def __init__(self, path: Path) -> None:
        self.arrays: dict[str, Any] = {}
        with h5py.File(path, "r") as file:
            self.attrs = dict(file.attrs)
            file.visititems(self._read)

    def _read(self, path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            self.arrays[path] = item[()]

    def __getitem__(self, path: str) -> Any:
        return self.arrays[path]

    def below(self, group: str) -> list[str]:
        """Paths of the datasets of a group, from the group."""
        return [path.removeprefix(group) for path in self.arrays if path.startswith(group)]


def _padding(file: _Arrays) -> Iterator[str]:
    """Look for rows that hold values but do not count."""
    for path in file.below("blocks/"):
        values = file[f"blocks/{path}"]
        empty = np.zeros((), values.dtype) if values.dtype.kind != "f" else np.nan
        for block, rows in enumerate(file["index/blocks"]["rows"][: len(values)]):
            rest = values[block, :, rows:]
            if not np.array_equal(rest, np.broadcast_to(empty, rest.shape), equal_nan=True):
                yield f"block {block} of {path} has values after its {rows} rows"


def _read_block(
    file: _Arrays, block: int, packed: bool, found: dict[tuple[int, int], list[dict[str, Any]]]
) -> None:
    """Sort the rows of a block by episode."""
    envs = json.loads(file["info"])["envs"]
    count = file["index/blocks"]["rows"][block]
    all_ends = file["ends"][: file["index/blocks"]["ends"].sum()]
    names, tails = file.below("blocks/"), file.below("tail/")
    for env_index, first in enumerate(file["index/envs"]["first_episode"][block]):
        ends, at = (
            all_ends[all_ends["env_index"] == env_index],
            np.flatnonzero(all_ends["env_index"] == env_index),
        )
        key = int(first)
        for row in range(count):
            which = (envs[env_index], key)
            if packed:
                mine = ends[ends["key"] == key]
                if not len(mine):
                    break
                which = int(mine["env"][0]), int(mine["number"][0])
            values = {name: file[f"blocks/{name}"][block, env_index, row] for name in names}
            values["step"] = file["index/step"][block, row]
            over = (ends["block"] == block) & (ends["row"] == row)
            for name in tails:
                if over.any():
                    last = file[f"final/{name}"][at[over][0]]
                elif row == count - 1:
                    last = file[f"tail/{name}"][block, env_index]
                else:
                    last = file[f"blocks/{name}"][block, env_index, row + 1]
                values[f"next_{name}"] = last
            found.setdefault(which, []).append(values)
            if over.any():
                key = int(ends["key"][over].max()) + 1


def _check_hdf5(
    rec: Rec, world: World, episodes: list[ExpectedEpisode], found: Any, ended: Any
) -> Iterator[str]:
    keys = [(e.env, e.number) for e in episodes]
    if sorted(found) != keys:
        yield f"blocks hold the episodes {sorted(found)} instead of {keys}"
        return
    for episode, key in zip(episodes, keys, strict=True):
        steps = [int(values["step"]) for values in found[key]]
        if steps != [step.t for step in episode.recorded]:
            yield f"steps of {key} are {steps} instead of {[s.t for s in episode.recorded]}"
            continue
        for name in world.channels(rec.channels):
            value = np.stack([values[name] for values in found[key]])
            if not np.array_equal(value, _truth(rec, name, episode)):
                yield f"{name} of {key} is wrong"
        truth = episode.table_row
        for name, value in ended.get(key, {}).items():
            right = {"total": "return", "recorded": "recorded_return"}.get(name, name)
            if name == "success":
                value = None if value < 0 else bool(value)
            if right in truth and not _close(value, truth[right]):
                yield f"ends: {name} of {key} is {value} instead of {truth[right]}"
        if key not in ended and not truth["cut"]:
            yield f"{key} has no row in ends"


def _close(value: Any, truth: Any) -> bool:
    if truth is None and isinstance(value, float):
        return bool(np.isnan(value))
    if isinstance(truth, float):
        return bool(np.isclose(value, truth, rtol=1e-9, atol=1e-12))
    return value == truth


def _raw_robomimic(rec: Rec, episodes: list[ExpectedEpisode], path: Path) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        paths = [path, *path.parent.glob(f"{path.stem}.part*{path.suffix}")]
        files: list[Any] = [stack.enter_context(h5py.File(each, "r")) for each in paths]
        demos = [demo for file in files for demo in file["data"].values()]
        found = {(int(d.attrs["env"]), int(d.attrs["episode"])): d for d in demos}
        keys = [(e.env, e.number) for e in episodes]
        if sorted(found) != keys:
            yield f"demos are {sorted(found)} instead of {keys}"
            return
        for episode in episodes:
            demo = found[episode.env, episode.number]
            for name, at in (("action", "actions"), ("reward", "rewards"), ("state", "states")):
                if name in rec.channels:
                    if not np.array_equal(demo[at][()], _truth(rec, name, episode)):
                        yield f"{at} of {(episode.env, episode.number)} are wrong"
            dones = demo["dones"][()].tolist()
            if len(dones) != len(episode.rows) or any(dones[:-1]):
                yield f"dones of {(episode.env, episode.number)} are {dones}"
            # Whether an episode is done whose last step has no row is a matter of taste.
            whole = episode.rows[-1] == len(episode.steps) - 1
            if whole and dones[-1] != (episode.terminated or episode.truncated):
                yield f"the last of dones of {(episode.env, episode.number)} is {dones[-1]}"
