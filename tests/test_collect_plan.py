"""The plan of a collection, and which of its shards a worker plays."""

from __future__ import annotations

import pytest
from collect_tasks import a_plan
from hypothesis import given
from hypothesis import strategies as st
from test_collect import words

from mjlab_rec.collecting.plan import Plan, PlanError
from mjlab_rec.collecting.ranks import place
from mjlab_rec.commands import collect as command

SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_TASKS_PER_NODE": "4"}
SRUN |= {"SLURM_CPUS_ON_NODE": "8"}
ARRAY = dict(SLURM_ARRAY_TASK_ID="0", SLURM_ARRAY_TASK_MIN="0", SLURM_ARRAY_TASK_MAX="0")
ARRAY |= {"SLURM_ARRAY_TASK_COUNT": "1"}


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 5), st.integers(1, 9))
def test_shards_have_all_episodes_and_each_worker_has_its_own(episodes, num_envs, per_env, workers):
    plan = a_plan(episodes=episodes, num_envs=num_envs, per_env=per_env)
    shards = plan.shards
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert sum(shard.episodes for shard in shards) == episodes
    assert all(1 <= s.envs <= num_envs and 1 <= s.per_env <= per_env for s in shards)
    assert len({plan.seed_of(shard) for shard in shards}) == len(shards)
    shares = [place(rank, workers).share(shards) for rank in range(workers)]
    assert sorted((s for share in shares for s in share), key=lambda s: s.number) == list(shards)


def test_a_plan_is_read_as_it_was_written_and_a_difference_is_named():
    plan = a_plan(episodes=9, num_envs=4, per_env=1, env_cfg={"sim": {"dt": 0.1, "n": None}})
    assert Plan.from_json(plan.to_json(), "x") == plan
    other = a_plan(episodes=9, num_envs=4, per_env=1, env_cfg={"sim": {"dt": 0.2, "n": None}})
    with pytest.raises(PlanError, match=r"another env_cfg\.sim\.dt: 0\.1 there, 0\.2 now"):
        other.check_same(plan, "x")
    # Without --num-envs it depends on the device, which is what must be named.
    gpu = a_plan(episodes=9, num_envs=8, per_env=1, device="cuda", env_cfg=plan.env_cfg)
    with pytest.raises(PlanError, match='another device: "cpu" there, "cuda" now'):
        gpu.check_same(plan, "x")
    with pytest.raises(PlanError, match="'x' is not a plan"):
        Plan.from_json(b"{}", "x")


@pytest.mark.parametrize(
    ("said", "rank", "count"),
    [
        ({}, 0, 1),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, 2, 4),
        (dict(ID="5", MIN="0", MAX="7", COUNT="8"), 5, 8),
        (dict(ID="5", MIN="1", MAX="9", COUNT="3", STEP="4"), 1, 3),
        # Some tasks of an array, submitted again: they share all that is missing.
        (dict(ID="7", MIN="3", MAX="7", COUNT="2", STEP="4"), 1, 2),
        (dict(ID="9", MIN="9", MAX="9", COUNT="1", STEP="1"), 0, 1),
        (dict(ID="32", MIN="1", MAX="32", COUNT="32", STEP="1"), 31, 32),
        (dict(ID="30", MIN="0", MAX="30", COUNT="16", STEP="2"), 15, 16),
        # torchrun in a task of an array.
        ({"RANK": "1", "WORLD_SIZE": "2", **dict(ID="5", MIN="0", MAX="7", COUNT="8")}, 1, 2),
        # The batch script itself, whatever the number of tasks that srun would start.
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 0, 1),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, 3, 4),
        (
            {**dict(ID="1", MIN="0", MAX="2", COUNT="3")}
            | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"},
            *(7, 12),
        ),
    ],
)
def test_torchrun_and_slurm_say_which_worker_this_is(said, rank, count):
    short = ("ID", "MIN", "MAX", "COUNT", "STEP")
    environ = {f"SLURM_ARRAY_TASK_{n}" if n in short else n: text for n, text in said.items()}
    here = place(environ=environ)
    assert (here.rank, here.count) == (rank, count)


def test_given_ranks_override_slurms():
    environ = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_ARRAY_TASK_ID": "x"}
    here = place(2, 5, environ)
    assert (here.rank, here.count, here.launcher) == (2, 5, "--rank")


@pytest.mark.parametrize(
    ("said", "usable", "threads"),
    [
        (SRUN, 2, 2),  # Each of the four processes is bound to two of the job's eight cores,
        (SRUN, 8, 2),  # or may use all of them,
        (SRUN, 64, 2),  # or even those of other jobs.
        ({**ARRAY, "SLURM_CPUS_ON_NODE": "2"}, 2, 2),
        ({**ARRAY, "SLURM_CPUS_ON_NODE": "2"}, 64, 2),
        (ARRAY, 64, 64),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, 64, 16),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, 2, 1),
    ],
)
def test_a_worker_uses_its_share_of_the_cores(said, usable, threads, monkeypatch, tmp_path):
    monkeypatch.setattr("mjlab_rec.utils.threads.usable_cores", lambda: usable)
    work = command.work_from(words(tmp_path), place(environ=said))
    assert work.env_cfg.sim.num_threads == threads


def test_the_processes_of_a_worker_have_their_own_places():
    ranks = [place(rank, 3, {}).part(number, 2).rank for rank in range(3) for number in range(2)]
    assert ranks == list(range(6))
    here = place(
        environ={"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    )
    part = here.part(1, 3)
    assert (part.rank, part.count, part.local_rank, part.local_count) == (7, 12, 4, 6)


def uneven(*texts: str) -> dict[str, str]:
    """Variables of a SLURM array."""
    names = ("ID", "MIN", "MAX", "COUNT")
    return {f"SLURM_ARRAY_TASK_{name}": text for name, text in zip(names, texts, strict=True)}


@pytest.mark.parametrize(
    ("said", "options", "message"),
    [
        ({}, (3, 3), "worker 3 of 3 does not exist"),
        ({}, (3, None), "both --rank and --ranks"),
        ({"RANK": "x", "WORLD_SIZE": "4"}, (), "RANK is 'x', which is not a number"),
        (uneven("3", "3", "8", "3"), (), "not evenly spaced"),  # --array=3,4,8
        (uneven("2", "1", "5", "3"), (), "not evenly spaced"),  # --array=1,2,5
    ],
)
def test_a_place_that_is_not_clear_is_an_error(said, options, message):
    with pytest.raises(PlanError, match=message):
        place(*options, environ=said)
