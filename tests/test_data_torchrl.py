"""A recording as the storage of a TorchRL replay buffer."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from data_worlds import World, same

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.memory import MemoryReader, MemoryWriter
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.extras import MissingExtraError

INSTALLED = importlib.util.find_spec("torchrl") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="torchrl is not installed")


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    world = World(steps=60, special=False)
    writer = MemoryWriter(world.info, WriterOptions())
    for block in world.blocks():
        writer.write(block)
    return Rollouts(MemoryReader(writer))


@pytest.mark.skipif(INSTALLED, reason="torchrl is installed")
def test_without_torchrl_the_error_says_what_to_install(rollouts):
    with pytest.raises(MissingExtraError, match="TorchRL storage needs .*pip install torchrl"):
        rollouts.torchrl_storage()


@needed
@pytest.mark.parametrize("memory_bytes", [1, 1 << 20])
def test_rows_have_the_keys_of_torchrl(rollouts, memory_bytes):
    storage = rollouts.torchrl_storage(memory_bytes=memory_bytes)
    assert len(storage) == rollouts.rows == storage.max_size
    everything = storage[:]
    assert everything.batch_size == torch.Size([rollouts.rows])
    for key, name in {
        "observation": "obs/actor",
        ("next", "observation"): "next_obs/actor",
        ("obs", "critic"): "obs/critic",
        "action": "action",
        ("next", "reward"): "reward",
        "step_count": "step",
    }.items():
        values, wanted = everything[key].numpy(), rollouts.arrays(name)
        wanted = wanted if wanted.ndim > 1 else wanted[:, None]
        assert same(values, wanted.astype(values.dtype))
    ended = rollouts.arrays("terminated") | rollouts.arrays("truncated")
    assert np.array_equal(everything["next", "done"].numpy()[:, 0], ended)
    rows = rollouts.episodes["rows"].to_list()
    assert everything["episode"].tolist() == [i for i, n in enumerate(rows) for _ in range(n)]
    assert int(everything["is_init"].sum()) == len(rollouts)
    assert storage[-1]["episode"] == len(rollouts) - 1
    assert storage[torch.tensor([3, 1])]["step_count"].shape == (2, 1)


@needed
def test_a_replay_buffer_samples_rows_and_slices_of_episodes(rollouts):
    torchrl = pytest.importorskip("torchrl.data")
    ReplayBuffer, SliceSampler = torchrl.ReplayBuffer, torchrl.SliceSampler  # noqa: N806
    writer = torchrl.ImmutableDatasetWriter()
    storage = rollouts.torchrl_storage(["obs/actor", "action", "reward"])
    buffer = ReplayBuffer(
        storage=storage,
        sampler=torchrl.SamplerWithoutReplacement(drop_last=False),
        writer=writer,
        collate_fn=storage.collate,
        batch_size=16,
    )
    seen = torch.cat([batch["action"] for batch in buffer])
    assert sorted(map(tuple, seen.tolist())) == sorted(
        map(tuple, torch.from_numpy(rollouts.arrays("action")).tolist())
    )
    slices = ReplayBuffer(
        storage=storage,
        sampler=SliceSampler(num_slices=4, traj_key="episode", strict_length=False),
        writer=writer,
        collate_fn=storage.collate,
        batch_size=20,
    ).sample()
    same_episode = slices["episode"][1:] == slices["episode"][:-1]
    steps = slices["step_count"][:, 0].diff()
    assert (steps[same_episode & (steps > 0)] == 1).all()
    with pytest.raises(DataError, match="cannot be changed"):
        storage.set(0, storage[0])


@needed
def test_an_unknown_observation_is_refused(rollouts):
    with pytest.raises(DataError, match="no channel 'obs/actr'. Observations: obs/actor, obs/crit"):
        rollouts.torchrl_storage(observation="obs/actr")
