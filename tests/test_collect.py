"""Collecting with many workers: the same episodes whoever plays them, and nothing lost or twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import collect_tasks
import numpy as np
import pytest
import torch
from ports import free_port
from waiting import PATIENCE_S, until

from mjlab_rec.collecting import Folder, Plan
from mjlab_rec.collecting.folder import CollectError, download
from mjlab_rec.collecting.queue import ShardQueue
from mjlab_rec.collecting.work import do_shard
from mjlab_rec.commands import collect as command
from mjlab_rec.data import open_rollouts
from mjlab_rec.data.comparing import diff
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.rl.policies import random_policy

ROOT = Path(__file__).parent.parent
TASK = ("--task", "collect-me", "--task-module", "collect_tasks", "--agent", "random")
SIZE = ("--episodes", "23", "--num-envs", "4", "--per-env", "2", "--seed", "5", "--device", "cpu")
# 23 = 2 x (4 x 2) + 4 x 1 + 3 x 1


def words(folder: Any, *more: Any) -> list[str]:
    where = ("--record", "hdf5", "--record.path", folder)
    return [str(word) for word in (*TASK, *SIZE, *where, *more)]


def collect(folder: Any, *more: Any, **options: Any) -> None:
    command.collect(words(folder, *more), **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one undisturbed worker collects."""
    folder = tmp_path_factory.mktemp("collect") / "alone"
    collect(folder)
    return folder


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of orders to kill workers."""
    folder = tmp_path / "orders"
    folder.mkdir()
    monkeypatch.setenv(collect_tasks.KILL, str(folder))
    return folder


def plan_of(folder: Path) -> Plan:
    plan = Folder(folder).plan()
    assert plan is not None
    return plan


def assert_same(folder: Path, alone: Path) -> None:
    """The data set is equal to that of one undisturbed worker, and nothing else is left."""
    found = diff(alone, folder)
    assert found.same, found
    assert found.equal == plan_of(alone).episodes
    names = {"collect.json", *(shard.name for shard in plan_of(alone).shards)}
    assert {path.name for path in folder.iterdir()} == names
    for shard in plan_of(folder).shards:
        about = json.loads((folder / shard.name / "worker.json").read_text())
        assert about["finished"] and about["episodes"] == about["planned_episodes"]
        assert about["episodes"] == shard.episodes and about["shard"] == shard.number


# The episodes


def test_the_episodes_are_the_first_ones_of_each_environment(alone):
    """Compared with environments that nothing records, whose episodes are followed by hand."""
    expected = []
    plan = plan_of(alone)
    for shard in plan.shards:
        cfg = load_env_cfg("collect-me")
        cfg.scene.num_envs, cfg.seed = 4, 5
        with ManagerBasedRlEnv(cfg) as env:
            env.seed(plan.seed_of(shard))
            generator = torch.Generator().manual_seed(plan.seed_of(shard))
            env.reset(seed=plan.seed_of(shard))
            episodes: list[list[tuple[int, float]]] = [[] for _ in range(4)]
            length, total = np.zeros(4, int), np.zeros(4)
            for _ in range(20 * shard.per_env):
                action = torch.rand(4, 1, generator=generator) * 2 - 1
                _, reward, terminated, truncated, _ = env.step(action)
                length += 1
                total += reward.double().numpy()
                for index in (terminated | truncated).nonzero().flatten().tolist():
                    episodes[index].append((int(length[index]), float(total[index])))
                    length[index], total[index] = 0, 0.0
        expected += [e for each in episodes[: shard.envs] for e in each[: shard.per_env]]
    with open_rollouts(alone) as rollouts:
        table = rollouts.episodes
        found = list(zip(table["length"].to_list(), table["return"].to_list(), strict=True))
        assert len({length for length, _ in found}) > 5  # Else nothing is tested.
        assert sorted(length for length, _ in found) == sorted(length for length, _ in expected)
        np.testing.assert_allclose(sorted(r for _, r in found), sorted(r for _, r in expected))
        assert (table["length"] == table["rows"]).all()


def test_the_number_of_workers_changes_nothing(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in "201":
        monkeypatch.setenv("RANK", rank)
        collect(tmp_path / "many")
    assert_same(tmp_path / "many", alone)
    ranks = [Folder(tmp_path / "many").worker(s)["rank"] for s in plan_of(alone).shards]
    assert ranks == [0, 1, 2, 0]


def test_a_slurm_array_collects_the_same(alone, tmp_path, monkeypatch, capsys):
    for name, text in (("MIN", "1"), ("MAX", "2"), ("COUNT", "2")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", text)
    for number in "12":
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", number)
        collect(tmp_path / "array")
        if number == "1":
            out = capsys.readouterr().out
            assert "Worker 0 of 2 (SLURM): 2 shards to do" in out and "12 of 23 episodes" in out
    assert_same(tmp_path / "array", alone)


def test_other_seeds_give_other_episodes(alone, tmp_path):
    command.collect([*words(tmp_path / "other"), "--seed=6"])
    found = diff(alone, tmp_path / "other")
    assert found.equal == 0


# Interruptions


def test_what_is_missing_is_played_again_and_nothing_else(alone, tmp_path, capsys):
    folder = tmp_path / "resumed"
    shutil.copytree(alone, folder)
    shutil.rmtree(folder / "shard-00001")
    (folder / ".shard-00001.left").mkdir()  # By a worker that was killed.
    (folder / ".shard-00001.left" / "hdf5.h5").write_bytes(b"half")
    with open_rollouts(folder) as rollouts:
        assert len(rollouts) == 23 - 8  # What is being played is not read.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*/*")}
    new: list[str] = []
    collect(folder, on_shard=new.append)
    assert new == [str(folder / "shard-00001")]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_same(folder, alone)
    assert "where 3 shards are finished" in capsys.readouterr().out
    collect(folder, on_shard=new.append)
    assert len(new) == 1


def test_the_shard_of_a_killed_process_is_played_again(alone, tmp_path, orders, capsys):
    plan = plan_of(alone)
    (orders / str(plan.seed_of(plan.shards[1]))).write_text("3")
    new: list[str] = []
    collect(tmp_path / "killed", "--workers", 2, on_shard=new.append)
    assert not any(orders.iterdir())
    out = capsys.readouterr().out
    assert "because it was killed by SIGKILL; shard-00001 is played again" in out
    assert sorted(new) == [str(tmp_path / "killed" / shard.name) for shard in plan.shards]
    assert_same(tmp_path / "killed", alone)


def test_the_agent_may_be_replaced_while_it_plays(tmp_path, monkeypatch, capsys):
    """As a training does with model_best.pt."""
    path, played = tmp_path / "model_best.pt", []
    path.write_bytes(b"1")

    def maker_of(agent: str, task: str, log_root: str) -> Any:
        def make(env: Any) -> Any:
            played.append(Path(agent).read_bytes())
            return random_policy(env)

        return make, Path(agent)

    monkeypatch.setattr(command, "maker_of", maker_of)
    more = ("--agent", path, "--episodes=2", "--num-envs=1", "--per-env=1")
    collect(tmp_path / "run", *more, on_shard=lambda shard: path.write_bytes(b"2"))
    assert played == [b"1", b"1"]
    assert plan_of(tmp_path / "run").agent == str(path)
    with pytest.raises(SystemExit):
        collect(tmp_path / "run", *more)
    assert f"content of the agent {path} has changed" in capsys.readouterr().err


def test_an_error_of_the_callers_function_is_not_hidden(tmp_path):
    def on_shard(path: str) -> None:
        raise ValueError("of the caller")

    with pytest.raises(RuntimeError, match=r"on_shard failed for .*shard-00000.*of the caller"):
        collect(tmp_path / "run", "--episodes=2", "--num-envs=1", on_shard=on_shard)
    assert Folder(tmp_path / "run").finished() == {0}


def test_an_error_in_a_process_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        collect(tmp_path / "x", "--workers", 2, "--episodes=4", "--env.auto-reset", "False")
    assert "needs an environment that resets what has ended" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"collect.json"}


def test_workers_that_die_before_they_play_are_not_started_for_ever():
    shards = collect_tasks.a_plan(episodes=2, num_envs=1, per_env=1).shards
    queue = ShardQueue(shards, most_losses=2)
    queue.unready("of this")
    assert queue.take() is not None  # Another one could play.
    queue.unready("of this")
    with pytest.raises(CollectError, match="2 workers in a row died .* because of that"):
        queue.unready("of that")


def test_a_shard_that_kills_every_worker_ends_the_run():
    first, second, third = collect_tasks.a_plan(episodes=3, num_envs=1, per_env=1).shards
    queue = ShardQueue([first, second, third], most_losses=3)
    assert queue.take() == first and queue.take() == second
    queue.lost(first, "of this")
    assert queue.take() == first and queue.take() == third and queue.take() is None
    queue.lost(third, "of that")
    queue.lost(first, "of this")
    queue.done()
    assert (len(queue), queue.waiting) == (2, 2) and queue.take() == first
    with pytest.raises(CollectError, match="3 workers died while they played shard-00000.* of it"):
        queue.lost(first, "of it")


def test_two_workers_may_play_the_same_shard(alone, tmp_path):
    folder = Folder(tmp_path / "twice")
    work = command.work_from(words(tmp_path / "twice"))
    folder.claim(work.plan)
    shard = work.plan.shards[2]
    twin = command.work_from(words(tmp_path / "twice"))
    called = []

    def tell(episodes: int, steps: int) -> None:
        if not called:
            called.append(do_shard(twin, folder, shard, lambda episodes, steps: None))
            folder.clean()  # Also removes what this one is writing.

    about = do_shard(work, folder, shard, tell)
    assert called and about["finished"] and about == folder.worker(shard)
    assert folder.finished() == {2}
    assert {path.name for path in (tmp_path / "twice").iterdir()} == {"collect.json", shard.name}
    assert diff(alone / shard.name, tmp_path / "twice" / shard.name).same


@pytest.mark.long
def test_eight_workers_three_of_which_are_killed(tmp_path, orders):
    """Against eight logs that were written without any interruption."""
    size = ["--episodes=128", "--num-envs=8", "--per-env=1"]
    undisturbed = tmp_path / "undisturbed"
    for rank in range(8):
        command.collect([*words(undisturbed, "--rank", rank, "--ranks", 8), *size])
    plan = plan_of(undisturbed)
    assert len(plan.shards) == 16

    chosen = np.random.default_rng()
    numbers = chosen.choice(8, 3, replace=False) + 8 * chosen.integers(0, 2, 3)
    kills = {int(number): int(chosen.integers(1, 5)) for number in numbers}
    print("Workers are killed in the shards, at the steps:", kills)
    for number, step in kills.items():
        (orders / str(plan.seed_of(plan.shards[number]))).write_text(str(step))
    script = [sys.executable, str(ROOT / "scripts" / "collect.py"), *words(tmp_path / "killed")]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}

    def run() -> list[int]:
        """The exit codes of eight workers."""
        more = [[*size, "--rank", str(rank), "--ranks", "8"] for rank in range(8)]
        started = [subprocess.Popen([*script, *each], env=env) for each in more]
        return [process.wait(PATIENCE_S) for process in started]

    codes = run()
    assert sorted(codes) == [-9] * 3 + [0] * 5
    lost = {s.number for s in Folder(tmp_path / "killed").missing(plan)}
    assert set(kills) <= lost <= {n for k in kills for n in (k, k + 8)}
    assert run() == [0] * 8
    assert_same(tmp_path / "killed", undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_nothing_half_done(tmp_path, workers, number):
    script = [sys.executable, str(ROOT / "scripts" / "collect.py"), *words(tmp_path / "run")]
    script += ["--episodes=40000", "--per-env=1000", "--workers", str(workers)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen(script, env=env, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: any((tmp_path / "run").glob(".shard-*/hdf5.h5")) or process.poll())
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not any(name.startswith(".") for name in names)


@pytest.mark.long
def test_torchrun_with_four_processes(alone, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4"]
    launch += ["--master-port", str(free_port())]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    script = str(ROOT / "scripts" / "collect.py")
    subprocess.run([*launch, script, *words(tmp_path / "four")], env=env, check=True)
    assert_same(tmp_path / "four", alone)
    ranks = [Folder(tmp_path / "four").worker(s)["rank"] for s in plan_of(alone).shards]
    assert ranks == [0, 1, 2, 3]


# Refusals


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--seed=6",), "another seed: 5 there, 6 now"),
        (("--episodes=24",), "another episodes: 23 there, 24 now"),
        (("--env.episode-length-s=2",), "another env_cfg.episode_length_s: 1.0 there, 2.0 now"),
        (("--agent=zero",), "another agent: random there, zero now"),
        (("--record.compression=gzip",), "another recorder.compression: null there"),
    ],
)
def test_another_plan_is_refused_and_the_field_named(alone, option, message, capsys):
    with pytest.raises(SystemExit):
        command.collect([*words(alone), *option])
    assert message in capsys.readouterr().err


def test_other_versions_are_refused(alone, monkeypatch, capsys):
    versions = command._versions()
    monkeypatch.setattr(command, "_versions", lambda: {**versions, "mujoco": "9.9"})
    with pytest.raises(SystemExit):
        collect(alone)
    assert f'another versions.mujoco: "{versions["mujoco"]}" there' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--record.trigger", "at_episodes(0)"), "--record.trigger cannot be used with collect"),
        (("--record.overflow=drop",), "--record.overflow drop cannot be used with collect"),
        (("--record.on-error=disable",), "--record.on-error disable cannot be used with collect"),
        (("--record.autostart=False",), "--record.autostart False cannot be used with collect"),
        (("--record", "csv"), "with one recorder, such as --record hdf5, but 2 were given"),
        (("--record.path=b",), "--record.path is the one folder of all workers"),
        (("--num-envs=0",), "--num-envs must be at least 1, got 0"),
        (("--workers=0",), "--workers must be at least 1, got 0"),
        (("--env.scene.num_envs=8",), "Give --num-envs instead of --env.scene.num-envs"),
        (("--episodes=0",), "--episodes must be at least 1, got 0"),
        (("--ranks=2",), "both --rank and --ranks"),
        (("--record.path",), "--record.path: a value is missing"),
    ],
)
def test_options_that_do_not_fit_are_refused(more, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.collect([*words(tmp_path / "a"), *more])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_shard_without_worker_json_is_not_complete(alone, tmp_path):
    shutil.copytree(alone, tmp_path / "copied")
    (tmp_path / "copied/shard-00002/worker.json").unlink()
    with pytest.raises(CollectError, match=r"shard-00002' has no worker\.json"):
        Folder(tmp_path / "copied").finished()


# URLs


@pytest.fixture
def flaky() -> Iterator[type]:
    """A file system in memory, which fails at the upload with the number ``fails_at``."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class Flaky(MemoryFileSystem):
        protocol = "flaky"
        store: dict[str, Any] = {}
        pseudo_dirs = [""]
        fails_at = -1
        uploads: list[str] = []

        def put_file(self, lpath: Any, rpath: Any, *args: Any, **options: Any) -> None:
            type(self).uploads.append(rpath)
            if len(self.uploads) == self.fails_at:
                with self.open(rpath, "wb") as file:
                    file.write(b"half of it")
                raise OSError("the connection broke")
            super().put_file(lpath, rpath, *args, **options)

    fsspec.register_implementation("flaky", Flaky, clobber=True)
    yield Flaky


def test_finished_shards_are_uploaded_whole_and_downloaded(alone, tmp_path, flaky, capsys):
    flaky.fails_at = 3  # The rows of the second shard.
    with pytest.raises(SystemExit):
        collect("flaky://run")
    assert "Cannot upload shard-00001 to 'flaky://run'" in capsys.readouterr().err
    assert Folder("flaky://run").finished() == {0}
    new = download("flaky://run", tmp_path / "here")
    assert new == [tmp_path / "here" / "shard-00000"]
    collect("flaky://run")
    assert [path.rpartition("/")[2] for path in flaky.uploads[-2:]] == ["hdf5.h5", "worker.json"]
    assert len(download("flaky://run", tmp_path / "here")) == 3
    assert download("flaky://run", tmp_path / "here") == []
    assert_same(tmp_path / "here", alone)


def test_a_url_of_files_is_a_folder(alone, tmp_path):
    pytest.importorskip("fsspec")
    collect(f"file://{tmp_path}/there")
    assert_same(tmp_path / "there", alone)


def test_an_unknown_url_is_an_error(capsys):
    with pytest.raises(SystemExit):
        collect("nowhere://run")
    assert "'nowhere://run' is not the URL of a file system" in capsys.readouterr().err
    with pytest.raises(CollectError, match=r"There is no collection at 'memory://nothing'"):
        download("memory://nothing", "x")
