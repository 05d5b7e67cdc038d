"""Collecting in a Ray cluster of two machines, one of which is taken away in the middle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_collect import assert_same, collect, plan_of
from test_collect import orders as orders  # A fixture.

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from mjlab_rec.collecting import ray_actors  # noqa: E402

# Ray's own threads and sockets warn when the cluster is shut down.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one undisturbed worker collects."""
    folder = tmp_path_factory.mktemp("collect") / "alone"
    collect(folder)
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster whose first machine has room for one worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20},
        )
        yield cluster
        ray.shutdown()
        cluster.shutdown()


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


def test_no_cluster_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        collect(tmp_path / "ray", "--ray", "auto")
    assert "`ray start --head` starts a cluster" in capsys.readouterr().err
