"""Damages recordings and files of other programs, in a process with limits of memory and time.

    python -m fuzzing FOLDER KIND... --flips 1000 --cuts 4096

For each kind it makes a recording, flips bits in it and truncates its files, and lets ``check``,
``repair``, ``open_rollouts`` and ``import_rollouts`` have each damaged one. They must end with a
clear error or with values that are true. A crash, a hang, or memory beyond the limit ends the
process. It prints the numbers as JSON.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import logging
import resource
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
from damaged_files import Undamaged, cut, damaged, files_of, flip, read_all, record
from data_worlds import World, same

from mjlab_rec.data import export_rollouts, import_rollouts, open_rollouts
from mjlab_rec.data.checking import check, repair
from mjlab_rec.data.formats import format_named, writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.rewriting import OutputOptions
from mjlab_rec.data.schema import DataError

OWN = {
    "hdf5": ("hdf5", "run.h5", {}),
    "hdf5 gzip": ("hdf5", "run.h5", {"compression": "gzip"}),
    "hdf5 blocks": ("hdf5", "run.h5", {}),
    "robomimic": ("robomimic", "demo.h5", {}),
    "npz": ("npz", "run", {}),
    "npz file": ("npz", "run.npz", {}),
    "csv": ("csv", "run.csv", {}),
    "parquet": ("parquet", "run_parquet", {}),
}
# Formats whose exports an import reads, without what was kept of the recording or with it.
EXPORTS = ("minari", "lerobot", "webdataset", "torchrl")
FOREIGN = (
    *("from robomimic", "from isaaclab", "from maniskill", "from minari"),
    *("from minari arrow", "from minari parquet"),
    *(f"from an export to {target}" for target in EXPORTS),
)
KINDS = (*OWN, *FOREIGN)

OVERWRITE = OutputOptions(if_exists="overwrite")
LIMIT_S = 60  # for one damaged file; hundreds of them take a second on an idle machine
LIMIT_BYTES = 512 << 20  # of address space, more than before
GROWTH_BYTES = 96 << 20  # of memory, more than with undamaged files

Key = tuple[int, int]


def main() -> None:
    """Try the kinds that the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--flips", type=int, default=3)
    parser.add_argument("--cuts", type=int, default=0, help="bytes; 0: half of a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this time")
    args = parser.parse_args()
    logging.disable()
    args.folder.mkdir(parents=True, exist_ok=True)
    last = args.folder / "last.txt"
    found: dict[str, dict[str, int]] = {}
    failures: list[str] = []
    start = time.monotonic()
    for kind in args.kinds:
        folder = args.folder / kind.replace(" ", "_")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        fuzz = Foreign(kind, folder) if kind in FOREIGN else Own(kind, folder)
        fuzz.attempt(whole=True)
        limit_memory()
        before = peak()
        for victim, what, change in changes(fuzz.files, args.flips, args.cuts, args.seed):
            if time.monotonic() - start > args.seconds:
                break
            last.write_text(f"{kind}, {victim.name}: {what}")  # a crash would say nothing else
            fuzz.tried["cuts" if "cut" in what else "flips"] += 1
            with damaged(victim, change):
                faulthandler.dump_traceback_later(LIMIT_S, exit=True)
                try:
                    fuzz.attempt(truncated="cut" in what)
                except Exception:
                    failures.append(f"{last.read_text()}\n{traceback.format_exc()}")
                faulthandler.cancel_dump_traceback_later()
        grown = peak() - before
        assert grown < GROWTH_BYTES, f"{kind}: the memory grew by {grown >> 20} MB"
        found[kind] = {**fuzz.tried, "grown MB": grown >> 20}
        shutil.rmtree(folder)
    print(json.dumps(found))
    if failures:
        sys.exit("\n".join(failures[:10]) + f"\n{len(failures)} failures")


def changes(
    files: Sequence[Path], flips: int, cuts: int, seed: int
) -> Iterator[tuple[Path, str, Callable[[bytearray], None]]]:
    """What to do to which file. Three of four flips are in nonzero bytes."""
    rng = np.random.default_rng(seed)
    content = np.concatenate([np.fromfile(file, np.uint8) for file in files])
    sizes = [file.stat().st_size for file in files]
    ends, used = np.cumsum(sizes), np.flatnonzero(content)
    for turn in range(flips):
        place = int(rng.choice(used) if turn % 4 else rng.integers(len(content)))
        number, bit = int(np.searchsorted(ends, place, side="right")), int(rng.integers(8))
        at = place - int(ends[number]) + sizes[number]
        yield files[number], f"bit {bit} of byte {at} flipped", flip(at, bit)
    for file, size in list(zip(files, sizes, strict=True)) if cuts else [(files[0], sizes[0])]:
        places = {0, 1, 30, size - 1, *range(cuts, size, cuts)} if cuts else {size // 2}
        for at in sorted(places & set(range(size))):
            yield file, f"cut at {at}", cut(at)


def limit_memory() -> None:
    """Let the process have not much more address space than it has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def peak() -> int:
    """Most memory that the process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def clear(error: DataError, path: Path) -> None:
    """The error names the file or an episode."""
    assert any(word in str(error) for word in (str(path.parent), "pisode", "othing in")), error


class Own:
    """A recording of this package, whose checksums find every change."""

    def __init__(self, kind: str, folder: Path) -> None:
        format, name, options = OWN[kind]
        self.path, self.tried = folder / "it" / name, Counter[str]()
        self.path.parent.mkdir()
        self.out = folder / "out.h5"
        made = World(steps=10, special=False, model=True)
        if kind == "hdf5 blocks":
            self.path.parent.mkdir(exist_ok=True)
            options = WriterOptions(path=str(self.path), block_rows=7)
            writer = writer_class("hdf5")(made.info, options)
            for block in made.blocks():
                writer.write(block)
            writer.close()
        else:
            record(format, self.path, made, **options)
        self.files = files_of(self.path)
        reader = format_named(format).open(self.path)
        self.known = read_all(reader)
        reader.close()

    def attempt(self, whole: bool = False, truncated: bool = False) -> None:
        """Check, read and repair."""
        result = check(self.path)
        assert result.ok or not whole, result.findings
        good = 0
        try:
            with open_rollouts(self.path) as rollouts:
                assert len(rollouts) == len(result.good)
                names = ["step", *rollouts.channels]
                for index, key in enumerate(rollouts.episodes.select("env", "number").rows()):
                    try:
                        arrays = rollouts.read_many([index], names)
                        good += 1
                    except DataError as error:
                        clear(error, self.path)
                        assert not result.good[index]
                        continue
                    assert are_true(self.known, key, arrays)
            self.tried["read"] += 1
        except DataError as error:
            clear(error, self.path)
            assert not result.ok and not len(result.good)
            self.tried["errors"] += 1
            return
        if result.ok:
            self.tried["nothing lost"] += 1
            assert good == len(self.known.rows)
        keep_rows = bool(sum(self.tried.values()) % 2)
        try:
            repair(self.path, self.out, result, OVERWRITE, keep_rows=keep_rows)
        except DataError as error:
            clear(error, self.path)
            assert not result.good.any()
            return
        self.tried["repaired"] += 1
        with open_rollouts(self.out) as rollouts:
            names = ["step", *rollouts.channels]
            assert rollouts.rows >= result.good_rows
            for index, key in enumerate(rollouts.episodes.select("env", "number").rows()):
                assert are_true(self.known, key, rollouts.read_many([index], names))
        assert check(self.out).ok


def are_true(known: Undamaged, key: Key, arrays: dict[str, np.ndarray]) -> bool:
    """Whether rows are those that are known, at their steps."""
    steps = known.arrays[key]["step"].tolist()
    at = [steps.index(step) for step in arrays["step"].tolist()]
    return all(same(arrays[name], known.arrays[key][name][at]) for name in arrays)


class Foreign:
    """A file of another program. It has no checksums, so a changed value stays a value."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.path, self.tried = folder / "it" / "demo.h5", Counter[str]()
        self.path.parent.mkdir()
        self.out = folder / "out.h5"
        {
            "from robomimic": write_robomimic,
            "from maniskill": write_maniskill,
            "from minari": write_minari,
            "from isaaclab": write_isaaclab,
            "from minari arrow": partial(write_minari_tables, kind="arrow"),
            "from minari parquet": partial(write_minari_tables, kind="parquet"),
            **{f"from an export to {target}": partial(export, target=target) for target in EXPORTS},
        }[kind](self.path)
        if not self.path.exists():
            self.path = self.path.with_suffix("")
        self.files = files_of(self.path)
        import_rollouts(self.path, self.out)
        reader = format_named("hdf5").open(self.out)
        self.known = read_all(reader)
        reader.close()

    def attempt(self, whole: bool = False, truncated: bool = False) -> None:
        """Import, and open it as it is."""
        try:
            import_rollouts(self.path, self.out, if_exists="overwrite")
            with open_rollouts(self.out) as rollouts:
                names = ["step", *rollouts.channels]
                for index, key in enumerate(rollouts.episodes.select("env", "number").rows()):
                    arrays = rollouts.read_many([index], names)
                    if whole or truncated:
                        known = self.known.arrays[key]
                        assert are_true(
                            self.known, key, {n: arrays[n] for n in arrays if n in known}
                        )
            kinds = {finding.kind for finding in check(self.out).findings}
            assert not kinds & {"checksum", "structure", "unfinished"}, kinds
            self.tried["read"] += 1
        except DataError as error:
            clear(error, self.path)
            assert not whole, error
            self.tried["errors"] += 1
        if self.path.is_file():
            result = check(self.path)
            assert result.ok or result.findings


def write_robomimic(path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["total"] = 24
        for number in range(4):
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs["num_samples"] = 6
            _put(demo, rng, {"obs/eef": 3, "next_obs/eef": 3, "actions": 2, "rewards": 0}, 6)
            demo["dones"] = np.eye(6, dtype=np.int64)[5]


def write_maniskill(path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(4):
            group = file.create_group(f"traj_{number}")
            _put(group, rng, {"actions": 2, "rewards": 0}, 6)
            _put(group, rng, {"obs": 3, "env_states/actors/cube": 13}, 7)
            for name in ("terminated", "truncated", "success"):
                group[name] = np.arange(6) == 5
    episodes = [{"episode_id": number, "success": True} for number in range(4)]
    about = {"env_info": {"env_id": "PickCube-v1"}, "episodes": episodes}
    path.with_suffix(".json").write_text(json.dumps(about))


def write_minari(path: Path) -> None:
    folder, rng = path.with_suffix(""), np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number in range(4):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": 6, "seed": 0})
            _put(group, rng, {"actions": 2, "rewards": 0}, 6)
            _put(group, rng, {"observations": 3, "infos/more": 2}, 7)
            group["terminations"] = np.arange(6) == 5
            group["truncations"] = np.zeros(6, bool)
    about = {"dataset_id": "a/b-v0", "data_format": "hdf5", "total_episodes": 4}
    (folder / "data" / "metadata.json").write_text(json.dumps(about))


def write_minari_tables(path: Path, kind: str) -> None:
    folder, rng = path.with_suffix(""), np.random.default_rng(0)
    for number in range(4):
        frame = pl.DataFrame(
            {
                "observations": rng.standard_normal((7, 3)).astype(np.float32),
                "actions": rng.standard_normal((7, 2)),
                "rewards": rng.standard_normal(7),
                "terminations": np.arange(7) == 5,
                "truncations": np.zeros(7, bool),
            }
        )
        file = folder / "data" / str(number) / f"part-0.{kind}"
        file.parent.mkdir(parents=True)
        frame.write_ipc(file) if kind == "arrow" else frame.write_parquet(file)
    about = {"dataset_id": "a/b-v0", "data_format": kind, "total_episodes": 4}
    (folder / "data" / "metadata.json").write_text(json.dumps(about))


def write_isaaclab(path: Path) -> None:
    write_robomimic(path)
    rng, name = np.random.default_rng(1), "articulation/robot/root_pose"
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            _put(demo, rng, {f"states/{name}": 7}, 6)
            _put(demo, rng, {f"initial_state/{name}": 7}, 1)


def export(path: Path, target: str) -> None:
    """What this package exports, which an import restores."""
    own = record("hdf5", path.parent.parent / "own.h5", World(steps=10, special=False, model=True))
    options = {"dataset_id": "demo-v0"} if target == "minari" else {}
    export_rollouts(own, path.with_suffix(""), target, **options)


def _put(group: h5py.Group, rng: Any, sizes: dict[str, int], rows: int) -> None:
    for name, size in sizes.items():
        shape = (rows, size) if size else (rows,)
        group[name] = rng.standard_normal(shape).astype(np.float32)


if __name__ == "__main__":
    main()
