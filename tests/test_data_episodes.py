"""Assembling episodes from blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_worlds import LoggedEpisode, World, same

from mjlab_rec.data.episodes import EpisodeAssembler
from mjlab_rec.data.schema import Episode

WORLDS = {
    "plain": {},
    "one environment": {"num_envs": 1, "block_rows": 1},
    "blocks of one row": {"block_rows": 1},
    "one block": {"block_rows": 100},
    "partial blocks": {"partial": True},
    "no ends": {"ends": False},
    "every third step": {"every": 3, "steps": 90},
    "every third step, short blocks": {"every": 3, "steps": 90, "block_rows": 2, "partial": True},
    "some rows": {"activity": "rows", "partial": True},
    "some episodes": {"activity": "episodes"},
    "no rows": {"activity": "none"},
    "gaps": {"gaps": (1, 2, 5, 8), "steps": 80},
    "first block lost": {"gaps": (0,)},
    "gaps of empty blocks": {"gaps": (1, 4, 6), "partial": True, "every": 2, "steps": 80},
    "model": {"model": True},
    "nothing": {"steps": 0},
}


def assert_same_episode(episode: Episode, logged: LoggedEpisode) -> None:
    assert (episode.env, episode.number) == (logged.env, logged.number)
    assert episode.start == logged.rows[0].at
    assert episode.length == logged.length
    assert episode.total == pytest.approx(logged.total, rel=1e-12)
    assert (episode.terminated, episode.truncated) == (logged.terminated, logged.truncated)
    assert episode.success is logged.success
    assert episode.rows == len(logged.rows)
    assert same(episode.arrays["step"], np.array([row.step for row in logged.rows], np.int32))
    assert set(episode.arrays) == {*logged.rows[0].values, "step"}
    for name in logged.rows[0].values:
        assert same(episode.arrays[name], np.stack([r.values[name] for r in logged.rows])), name
    assert set(episode.model) == set(logged.model)
    for name, value in logged.model.items():
        assert same(episode.model[name], value)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_episodes_are_correct_and_in_the_order_of_their_ends(world, seed):
    world = World(seed=seed, **world)
    assembler = EpisodeAssembler(world.info)
    episodes = [episode for block in world.blocks() for episode in assembler.add(block)]
    episodes += assembler.finish()
    assert len(episodes) == len(world.episodes)
    for episode, logged in zip(episodes, world.episodes, strict=True):
        assert_same_episode(episode, logged)
    assert assembler.gaps == world.lost


def test_blocks_are_dropped_when_no_running_episode_needs_them():
    world = World(steps=200)
    assembler = EpisodeAssembler(world.info)
    for number, block in enumerate(world.blocks()):
        assembler.add(block)
        running = [e for e in world._running]
        longest = max(episode.steps for episode in running)
        assert len(assembler._blocks) <= -(-longest // world.block_rows) + 1, number


def test_environments_without_a_row_that_counts_are_not_copied():
    world = World(activity="none")
    assembler = EpisodeAssembler(world.info)
    for block in world.blocks():
        assembler.add(block)
        assert assembler._blocks == []


def test_finishing_twice_gives_the_running_episodes_once():
    world = World(ends=False)
    assembler = EpisodeAssembler(world.info)
    for block in world.blocks():
        assembler.add(block)
    assert len(assembler.finish()) == world.num_envs
    assert assembler.finish() == []


@pytest.mark.parametrize("every", [1, 2])
def test_the_schemas_own_numbering_agrees_with_the_log(every):
    world = World(every=every, partial=True, steps=80)
    seen = []
    for block in world.blocks():
        number, step = block.numbering()
        for row in range(block.rows):
            for env_index, env in enumerate(world.info.envs):
                seen.append((env, int(number[row, env_index]), int(step[row, env_index])))
    assert seen == [(row.env, row.number, row.step) for row in world.rows]


def test_an_episode_that_ended_in_a_gap_at_the_end_of_the_recording_is_cut():
    world = World(ends=False, steps=8, block_rows=4)
    assembler = EpisodeAssembler(world.info)
    blocks = iter(world.blocks())
    assert assembler.add(next(blocks)) == []
    block = next(blocks)
    nothing = {name: values[:0] for name, values in block.arrays.items()}
    number = block.first_episode + 1
    lost = replace(block, rows=0, gap=4, step=block.step[:0], arrays=nothing, first_episode=number)
    cut = assembler.add(lost)
    assert [episode.rows for episode in cut] == [4] * world.num_envs
    assert not any(episode.terminated or episode.truncated for episode in cut)
    assert assembler.add(replace(lost, gap=0)) == assembler.finish() == []
