"""Collecting in a Ray cluster of two machines, one of which is taken away in the middle."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import collect_tasks
import numpy as np
import pytest
from test_collect import assert_same, collect, plan_of

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from mjlab_rec.collecting import RowStream, ray_actors  # noqa: E402
from mjlab_rec.collecting.folder import CollectError  # noqa: E402
from mjlab_rec.data import open_rollouts  # noqa: E402

# Ray's own threads and sockets warn when the cluster is shut down.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one undisturbed worker collects."""
    folder = tmp_path_factory.mktemp("collect") / "alone"
    collect(folder)
    return folder


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of orders to kill workers, for all machines of the cluster."""
    folder = tmp_path_factory.mktemp("orders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(collect_tasks.KILL, str(folder))
        yield folder


@pytest.fixture(scope="module")
def first(orders: Path) -> Iterator[Any]:
    """A cluster of one machine, with room for one worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        machine = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=machine)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def cluster(first) -> Iterator[Any]:
    """A cluster that has only its first machine."""
    yield first
    ray.shutdown()
    for machine in list(first.worker_nodes):
        first.remove_node(machine)


def test_no_cluster_is_an_error(tmp_path, capsys):
    # The first test: the others have a cluster.
    with pytest.raises(SystemExit):
        collect(tmp_path / "ray", "--ray", "auto")
    assert "`ray start --head` starts a cluster" in capsys.readouterr().err
    with pytest.raises(CollectError, match=r"Call ray\.init\(address\) before"):
        RowStream()


def test_a_machine_may_go_and_another_may_come(alone, tmp_path, cluster, capsys):
    second = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    done: list[str] = []

    def on_shard(path: str) -> None:
        done.append(path)
        if len(done) == 1:
            cluster.remove_node(second)
            cluster.add_node(num_cpus=1, object_store_memory=80 << 20)

    collect(tmp_path / "ray", "--ray", cluster.address, on_shard=on_shard)
    assert sorted(done) == [str(tmp_path / "ray" / s.name) for s in plan_of(alone).shards]
    assert_same(tmp_path / "ray", alone)
    out = capsys.readouterr().out
    assert "(23 of 23 episodes)" in out


def test_the_shard_of_a_killed_actor_is_played_again(
    alone, tmp_path, orders, cluster, capsys, monkeypatch
):
    plan = plan_of(alone)
    (orders / str(plan.seed_of(plan.shards[2]))).write_text("3")
    # As if the machines did not see the folder.
    whole = ray_actors.collect_in_ray
    monkeypatch.setattr(
        ray_actors, "collect_in_ray", lambda *args, **more: whole(*args, **more, shared=False)
    )
    collect(tmp_path / "ray", "--ray", cluster.address)
    assert not any(orders.iterdir())
    assert "its process or machine is gone" in capsys.readouterr().out
    assert_same(tmp_path / "ray", alone)


def keys_of(rows: dict[str, np.ndarray]) -> list[tuple[int, int, int]]:
    return list(zip(*(rows[n].tolist() for n in ("shard", "env", "episode")), strict=True))


def check_streamed(items: list[dict[str, np.ndarray]], folder: Path) -> None:
    """Each row of the collection has come once, in order."""
    found: dict[tuple[int, int, int], list[float]] = {}
    for rows in items:
        for key, reward in zip(keys_of(rows), rows["reward"], strict=True):
            found.setdefault(key, []).append(reward)
    for shard in plan_of(folder).shards:
        with open_rollouts(folder / shard.name) as rollouts:
            for at, key in enumerate(rollouts.episodes.select("env", "number").rows()):
                rewards = rollouts[at]["reward"]
                assert np.array_equal(np.array(found.pop((shard.number, *key))), rewards)
    assert not found


def test_a_learner_gets_each_row_once_though_a_worker_is_killed(
    alone, tmp_path, orders, cluster, monkeypatch
):
    # The worker of shard 1 dies after the learner has had rows of it.
    plan, learned = plan_of(alone), tmp_path / "learned"
    (orders / str(plan.seed_of(plan.shards[1]))).write_text(f"12 {learned}")
    whole = ray_actors.collect_in_ray
    monkeypatch.setattr(
        ray_actors, "collect_in_ray", lambda *args, **more: whole(*args, **more, shared=False)
    )
    ray.init(cluster.address, log_to_driver=False)
    stream = RowStream(["reward", "action"])
    often = ("--record.block-seconds", "0.001")
    collector = threading.Thread(
        target=collect,
        args=(tmp_path / "ray", "--ray", cluster.address, *often),
        kwargs={"stream": stream},
    )
    collector.start()
    items = []
    for rows in stream:
        rows["reward"] += 0  # It can be changed.
        if rows["shard"][0] == 1 and not learned.exists():
            assert not (tmp_path / "ray/shard-00001").exists(), "It came after its shard."
            learned.touch()
        items.append(rows)
    collector.join()
    assert learned.exists() and not any(orders.iterdir())
    assert list(items[0]) == ["shard", "env", "episode", "step", "reward", "action"]
    assert_same(tmp_path / "ray", alone)
    check_streamed(items, tmp_path / "ray")


def test_a_task_on_another_machine_learns_while_a_machine_goes(alone, tmp_path, cluster):
    second = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.add_node(num_cpus=0, resources={"learner": 1}, object_store_memory=80 << 20)
    ray.init(cluster.address, log_to_driver=False)

    @ray.remote(num_cpus=0, resources={"learner": 1})
    def learn(stream: RowStream) -> list[dict[str, np.ndarray]]:
        return list(stream)

    stream = RowStream(batch_size=16, memory_bytes=1)
    learner = learn.remote(stream)
    done: list[str] = []

    def on_shard(path: str) -> None:
        done.append(path)
        if len(done) == 1:
            cluster.remove_node(second)

    collect(tmp_path / "ray", "--ray", cluster.address, on_shard=on_shard, stream=stream)
    items = ray.get(learner)
    assert {len(rows["env"]) for rows in items[:-1]} == {16}
    assert_same(tmp_path / "ray", alone)
    check_streamed(items, tmp_path / "ray")


def test_an_error_of_the_collection_reaches_the_learner(tmp_path, cluster):
    ray.init(cluster.address, log_to_driver=False)
    stream = RowStream(["acton"])
    with pytest.raises(SystemExit):
        collect(tmp_path / "ray", "--ray", cluster.address, stream=stream)
    with pytest.raises(CollectError, match="before all was collected.*Unknown channel 'acton'"):
        next(stream)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        RowStream(batch_size=0)


def test_collecting_goes_on_without_a_learner_that_has_closed(alone, tmp_path, cluster):
    ray.init(cluster.address, log_to_driver=False)
    stream = RowStream(memory_bytes=1)
    stream.close()
    collect(tmp_path / "ray", "--ray", cluster.address, stream=stream)
    assert_same(tmp_path / "ray", alone)
    assert list(stream) == []
