"""Read an export with Minari, and compare it with what was recorded."""

import os
import sys
from pathlib import Path

import numpy as np
from truth import check, done, stretches

folder = Path(sys.argv[1])
os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")

import minari  # noqa: E402

truth, count = stretches(folder), 0
dataset = minari.load_dataset("made-up/test-v0")
moved = minari.MinariDataset(folder / "minari" / "made-up" / "test-v0" / "data")
assert len(dataset) == dataset.total_episodes == moved.total_episodes == len(truth)
assert dataset.total_steps == sum(len(rows["step"]) for rows in truth)
assert dataset.observation_space.shape == (3,) and dataset.action_space.shape == (2,)
assert [episode.id for episode in dataset] == list(range(len(truth)))
for from_id, from_path, rows in zip(dataset, moved, truth, strict=True):
    for episode in (from_id, from_path):
        steps = len(rows["step"])
        assert len(episode) == steps and len(episode.observations) == steps + 1
        check(episode.observations[:-1], rows["obs/actor"], "observations")
        check(episode.observations[-1], rows["next_obs/actor"][-1], "the last observation")
        check(episode.observations[1:], rows["next_obs/actor"], "the next observations")
        check(episode.actions, rows["action"], "actions")
        check(episode.rewards, rows["reward"], "rewards")
        check(episode.terminations, rows["terminated"], "terminations")
        check(episode.truncations, rows["truncated"], "truncations")
        for name in ("state", "file", "flag", "camera"):
            check(episode.infos[name], rows[name], f"infos {name}")
        check(episode.infos["obs"]["critic"], rows["obs/critic"], "infos obs/critic")
        assert dataset.observation_space.contains(episode.observations[0])
        count += 12
long = dataset.filter_episodes(lambda episode: len(episode) > 3)
assert len(long) == sum(len(rows["step"]) > 3 for rows in truth)
several = minari.load_dataset("made-up/several-v0")
for episode, rows in zip(several, truth, strict=True):
    for group in ("actor", "critic"):
        check(episode.observations[group][:-1], rows[f"obs/{group}"], group)
        check(episode.observations[group][-1], rows[f"next_obs/{group}"][-1], group)
        count += 2
# Datasets that are split by Minari itself have the same episodes.
parts = minari.split_dataset(dataset, sizes=[2, len(truth) - 2], seed=1)
ids = np.concatenate([part.episode_indices for part in parts])
assert sorted(ids.tolist()) == list(range(len(truth)))
done(count, "minari", "h5py")
