"""Recordings survive a kill, and the benchmark that tries it would notice if they did not."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import pytest
import torch

from mjlab_rec.data.formats.hdf5 import Hdf5Reader
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError

SCRIPTS = Path(__file__).parents[2] / "scripts"
NUM_ENVS, STEPS = 4, 50  # longer than the longest episode


@pytest.fixture(scope="module", autouse=True)
def scripts_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield


@pytest.fixture(scope="module")
def truth(scripts_on_path):
    from benchmarks.crash_check import Truth

    return Truth(NUM_ENVS)


@pytest.fixture(params=["hdf5", "csv"])
def recording(request, tmp_path) -> Path:
    """What a process records that is not killed."""
    from benchmarks.crash_run import CHANNELS, SUFFIXES, actions, make_env

    from mjlab_rec import recorders

    path = tmp_path / f"rollout{SUFFIXES[request.param]}"
    cfg_type = {"hdf5": recorders.Hdf5RecorderCfg, "csv": recorders.CsvRecorderCfg}[request.param]
    cfg = cfg_type(path=str(path), channels=CHANNELS, block_steps=4, roll_over_bytes=1 << 17)
    env = make_env(NUM_ENVS, {"recorder": cfg})
    with torch.no_grad():
        for _, action in zip(range(STEPS), actions(env), strict=False):
            env.step(action)
    env.close()
    return path


only_hdf5 = pytest.mark.parametrize("recording", ["hdf5"], indirect=True)


@pytest.mark.parametrize("format", ["hdf5", pytest.param("csv", marks=pytest.mark.long)])
def test_recordings_survive_kills(run_script, format):
    command = ["crash", "--kills", "2", "--within-s", "0.3"]
    command += ["--num-envs", "4", "--format", format]
    ran = run_script("bench.py", *command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for quantity, expected in (("opened by open_rollouts", 2), ("rows that differ", 0)):
        assert re.search(rf"│ {quantity} .*│ +{expected} │\n", ran.stdout), ran.stdout
    assert f"python {SCRIPTS / 'bench.py'} {' '.join(command)}" in ran.stdout


def test_what_was_recorded_is_what_happened(recording, truth):
    from benchmarks.crash_check import check, refusal

    assert not refusal(recording)
    assert check(recording, truth, STEPS) == (STEPS, 0, [])
    rows = truth.rows(STEPS)
    ends = rows["terminated"][:STEPS].sum(), rows["truncated"][:STEPS].sum()
    assert min(ends) > 0, "episodes do not end in both ways"


def test_a_lost_block_is_noticed(recording, truth):
    from benchmarks.crash_check import check

    _, _, problems = check(recording, truth, STEPS + 4)
    assert problems == [f"{STEPS + 4} steps had been written, {STEPS} can be read"]


@only_hdf5
@pytest.mark.parametrize("channel", ["obs/actor", "action", "reward", "state", "truncated"])
def test_a_wrong_value_is_noticed(recording, truth, channel, monkeypatch):
    from benchmarks import crash_check

    with h5py.File(recording, "r+") as file:
        values = file[f"blocks/{channel}"][...]
        at = (0, 2, 3, *(0,) * (values.ndim - 3))
        values[at] = not values[at] if values.dtype == bool else values[at] + 1e-3
        file[f"blocks/{channel}"][...] = values
    with pytest.raises(DataError, match=f"'blocks/{channel}' of environments .* is damaged"):
        crash_check.check(recording, truth, STEPS)
    unchecked = Rollouts(Hdf5Reader(recording, check=False), recording)
    monkeypatch.setattr(crash_check, "open_rollouts", lambda _: unchecked)
    _, wrong, _ = crash_check.check(recording, truth, STEPS)
    # An observation is also the next one of the row before.
    assert wrong == (2 if channel.startswith("obs") else 1)


@only_hdf5
def test_a_damaged_file_is_noticed(recording):
    from benchmarks.crash_check import refusal

    recording.write_bytes(recording.read_bytes()[:-5000])
    assert "'rollout.h5': OSError" in refusal(recording)


@only_hdf5
def test_a_failed_kill_fails_the_command_and_keeps_the_file(
    recording, tmp_path, monkeypatch, capsys
):
    from benchmarks import crash

    notes = {"steps": 90, "blocks_begun": 20, "blocks_written": 19, "steps_written": 76}
    kill = crash.Kill(number=0, block_steps=4, folder=recording.parent / "kill", notes=notes)
    kill.folder.mkdir()
    for part in recording.parent.glob("*.h5"):
        part.rename(kill.folder / part.name)
    monkeypatch.setattr(crash, "run", lambda *_: kill)
    with pytest.raises(SystemExit, match="1"):
        crash.main(crash.CrashArgs(kills=1, num_envs=NUM_ENVS, save=tmp_path / "kept"))
    assert (tmp_path / "kept" / "kill" / "rollout.h5").exists()
    said = capsys.readouterr().out
    assert "76 steps had been written, 50 can be read" in said
    assert "40 steps are lost, more than the 12 in memory" in said
