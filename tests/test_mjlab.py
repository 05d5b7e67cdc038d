"""Recorders in mjlab itself: ``make test-mjlab``, since mjlab needs other versions than we do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

mjlab = pytest.importorskip("mjlab", reason="mjlab is not installed: make test-mjlab")

import mujoco  # noqa: E402
from mjlab.envs import ManagerBasedRlEnv  # noqa: E402
from mjlab.managers.observation_manager import ObservationTermCfg  # noqa: E402
from mjlab.tasks.registry import load_env_cfg  # noqa: E402

from mjlab_rec.adapters.mjlab import for_mjlab  # noqa: E402
from mjlab_rec.data import open_rollouts  # noqa: E402
from mjlab_rec.recorders import (  # noqa: E402
    CsvRecorderCfg,
    EpisodeLogRecorderCfg,
    FlightRecorderCfg,
    Hdf5RecorderCfg,
    MemoryRecorderCfg,
    NpzRecorderCfg,
    ParquetRecorderCfg,
    RerunRecorderCfg,
    VideoRecorderCfg,
    at_steps,
)

NUM_ENVS, STEPS = 16, 110
TASKS = ["Mjlab-Cartpole-Balance", "Mjlab-Velocity-Flat-Unitree-Go1"]
CHANNELS = (
    *("obs", "action", "reward", "terminated", "truncated", "next_obs", "state"),
    *("command", "reward_terms", "ctrl"),
)


def cfg_of(task: str, history: bool = False) -> Any:
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed = NUM_ENVS, 1
    cfg.episode_length_s = 7 * cfg.decimation * cfg.sim.mujoco.timestep
    if history:
        for name, term in list(cfg.observations["actor"].terms.items())[:2]:
            kwargs = {**vars(term), "history_length": 3, "delay_max_lag": 2}
            cfg.observations["actor"].terms[name] = ObservationTermCfg(**kwargs)
    return cfg


class LoggedEnv(ManagerBasedRlEnv):
    """Computes the final observations of the critic plainly; its terms keep nothing."""

    finals: torch.Tensor | None = None
    ended: Any = None
    stepping = False

    def step(self, action: torch.Tensor) -> Any:
        self.finals, self.stepping = None, True
        result = super().step(action)
        self.stepping = False
        return result

    def _reset_idx(self, env_ids: Any = None) -> None:
        if self.stepping:
            self.sim.forward()
            for sensor in self.scene.sensors.values():
                sensor._invalidate_cache()
            self.sim.sense()
            self.finals = self.observation_manager.compute_group("critic").clone()
            self.ended = env_ids, self.sim.data.qpos[env_ids].clone()
            self.ended += (self.sim.data.qvel[env_ids].clone(),)
        super()._reset_idx(env_ids)


def run(env: Any, steps: int = STEPS) -> list[dict[str, Any]]:
    """Take steps with fixed actions, and note all that happens."""
    torch.manual_seed(11)
    env.reset()
    generator = torch.Generator().manual_seed(3)
    # Starts of episodes differ, so that there are ends in most steps.
    env.episode_length_buf[:] = torch.arange(env.num_envs) % 5
    size = env.action_manager.total_action_dim
    log = []
    for _ in range(steps):
        action = 2.0 * torch.rand(env.num_envs, size, generator=generator) - 1.0
        names = env.command_manager.active_terms
        row: dict[str, Any] = {
            **{f"obs/{k}": v.clone() for k, v in env.obs_buf.items()},
            **{f"command/{n}": env.command_manager.get_command(n).clone() for n in names},
            "qpos": env.sim.data.qpos[...].clone(),
            "action": action,
        }
        obs, reward, terminated, truncated, _ = env.step(action)
        row |= {"reward": reward.clone(), "terminated": terminated.clone()}
        row |= {"truncated": truncated.clone(), "random": torch.rand(1)}
        row |= {f"following/{k}": v.clone() for k, v in obs.items()}
        if getattr(env, "finals", None) is not None:
            row["final"], row["ended"] = env.finals, env.ended
        log.append(row)
    return log


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    names = [n for n, v in one[0].items() if isinstance(v, torch.Tensor) and n != "final"]
    return all(torch.equal(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in names)


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_true_and_the_rollout_is_untouched(task: str, tmp_path: Path) -> None:
    plain = run(ManagerBasedRlEnv(cfg_of(task), device="cpu"))
    logged = LoggedEnv(cfg_of(task), device="cpu")
    log = run(logged)
    assert same(plain, log)
    cfg = cfg_of(task)
    video = VideoRecorderCfg(
        path=str(tmp_path / "clips"), trigger=at_steps(0), length=5, width=64, height=48
    )
    channels = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
    cfg.recorders["all"] = for_mjlab(
        {
            "hdf5": Hdf5RecorderCfg(path=str(tmp_path / "run.h5"), channels=CHANNELS),
            "csv": CsvRecorderCfg(path=str(tmp_path / "run.csv"), channels=channels),
            "npz": NpzRecorderCfg(path=str(tmp_path / "npz"), channels=channels),
            "parquet": ParquetRecorderCfg(path=str(tmp_path / "parquet"), channels=channels),
            "video": video,
            "rerun": RerunRecorderCfg(path=str(tmp_path / "run.rrd"), channels=("reward",)),
            "log": EpisodeLogRecorderCfg(path=str(tmp_path / "episodes.jsonl")),
            "flight": FlightRecorderCfg(
                path=str(tmp_path / "flight"), on_terminations=("time_out",), max_dumps=1
            ),
        },
        task=task,
    )
    env = ManagerBasedRlEnv(cfg, device="cpu")
    recorded = run(env)
    env.close()
    assert same(plain, recorded)
    ends = check(tmp_path / "run.h5", log, logged)
    assert ends > 150
    with open_rollouts(tmp_path / "run.h5") as rollouts:
        count, rows = len(rollouts), rollouts.rows
        assert rows == NUM_ENVS * STEPS
        assert rollouts.info.about["task"] == task and rollouts.attachments["model.mjb"]
    for name in ("run.csv", "npz", "parquet"):
        with open_rollouts(tmp_path / name) as rollouts:
            assert (len(rollouts), rollouts.rows) == (count, rows)
    assert [f.name for f in (tmp_path / "clips").iterdir()] == [f"{task}-step-0.mp4"]
    assert (tmp_path / "run.rrd").stat().st_size > 10_000
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) >= ends
    assert (next((tmp_path / "flight").iterdir()) / "rollout.npz").exists()


def check(path: Path, log: list[dict[str, Any]], env: Any) -> int:
    """Compare a recording with a log; returns the number of ends that were compared."""
    ends = 0
    with open_rollouts(path) as rollouts:
        table = rollouts.episodes.select("env", "start", "rows").rows()
        for (env_id, start, count), episode in zip(table, rollouts, strict=True):
            rows = log[start : start + count]
            for name in episode.keys() & log[0].keys():
                want = np.array([row[name][env_id].numpy() for row in rows])
                np.testing.assert_array_equal(episode[name], want, err_msg=name)
            nq = env.sim.mj_model.nq
            qpos = np.array([row["qpos"][env_id].numpy() for row in rows])
            np.testing.assert_array_equal(episode["state"][:, 1 : 1 + nq], qpos)
            terms = sum(v for k, v in episode.items() if k.startswith("reward_terms/"))
            np.testing.assert_allclose(terms, episode["reward"], atol=1e-5)
            for group in ("actor", "critic"):
                following = np.array([r[f"following/{group}"][env_id].numpy() for r in rows])
                next_obs = episode[f"next_obs/{group}"]
                np.testing.assert_array_equal(next_obs[:-1], following[:-1])
            last = rows[-1]
            if not (last["terminated"] | last["truncated"])[env_id]:
                np.testing.assert_array_equal(next_obs[-1], following[-1])
                continue
            ends += 1
            np.testing.assert_array_equal(next_obs[-1], last["final"][env_id].numpy())
            of_c = from_mujoco(env, last, env_id)
            np.testing.assert_allclose(next_obs[-1][: len(of_c)], of_c, atol=2e-4)
    return ends


def from_mujoco(env: Any, row: dict[str, Any], env_id: int) -> np.ndarray:
    """The beginning of a critic's final observation, from C MuJoCo and the state alone."""
    ids, qpos, qvel = row["ended"]
    at = ids.tolist().index(env_id)
    model = env.sim.mj_model
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos[at].numpy(), qvel[at].numpy()
    mujoco.mj_forward(model, data)
    if model.nu == 1:
        x, angle = data.qpos
        return np.array([x, np.cos(angle), np.sin(angle), *data.qvel])
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, data.qpos[3:7])
    default = env.scene["robot"].data.default_joint_pos[env_id].numpy()
    return np.concatenate(
        [
            data.sensor("robot/imu_lin_vel").data,
            data.sensor("robot/imu_ang_vel").data,
            turn.reshape(3, 3).T @ (0.0, 0.0, -1.0),
            *(data.qpos[7:] - default, data.qvel[6:]),
            row["action"][env_id].numpy(),
            row["command/twist"][env_id].numpy(),
        ]
    )


@pytest.mark.parametrize("task", TASKS[:1])
def test_histories_and_delays_go_on_as_if_nothing_had_been_computed(task: str) -> None:
    plain = run(ManagerBasedRlEnv(cfg_of(task, history=True), device="cpu"), 40)
    cfg = cfg_of(task, history=True)
    cfg.recorders["all"] = for_mjlab(MemoryRecorderCfg())
    env = ManagerBasedRlEnv(cfg, device="cpu")
    assert same(plain, run(env, 40))
    env.close()
    rollouts = env.recorder_manager.get_term("all").recorder.rollouts
    assert len(rollouts) > 50 and not env.recorder_manager.get_term("all")._host._finals.notes
    for episode, done in zip(rollouts, rollouts.episodes["truncated"], strict=True):
        if done and len(episode["action"]) > 1:
            # The history moved on by one: its older two frames were the newer two before.
            before, last = episode["obs/actor"][-1], episode["next_obs/actor"][-1]
            np.testing.assert_array_equal(last[0:2], before[1:3])


def test_without_automatic_resets_mjlab_returns_the_same_final_observation(tmp_path: Path) -> None:
    """Until the first end, a run that does not reset by itself is the same run."""
    for seed in range(3):
        cfg = cfg_of(TASKS[0])
        cfg.seed, path = seed, str(tmp_path / f"{seed}.h5")
        cfg.recorders["all"] = for_mjlab(Hdf5RecorderCfg(path=path))
        env = ManagerBasedRlEnv(cfg, device="cpu")
        run(env, 8)
        env.close()
        cfg = cfg_of(TASKS[0])
        cfg.seed, cfg.auto_reset = seed, False
        log = run(ManagerBasedRlEnv(cfg, device="cpu"), 3)
        ended = log[-1]["truncated"].nonzero().flatten().tolist()
        assert ended
        with open_rollouts(path) as rollouts:
            number = rollouts.episodes["env"].to_list()
            for env_id in ended:
                final = rollouts[number.index(env_id)]["next_obs/critic"][-1]
                np.testing.assert_array_equal(final, log[-1]["following/critic"][env_id].numpy())


def test_the_pages_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parent.parent / "mjlab_rec/adapters/README.md"
    examples = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(next(code for code in examples if "import for_mjlab" in code), {})
    with open_rollouts("run.h5") as rollouts:
        assert rollouts.rows == 4 * 30
    assert list(Path("clips").glob("*.mp4"))


SCRIPT = """
import sys
from mjlab.tasks.registry import load_env_cfg, load_rl_cfg, register_mjlab_task
import mjlab.tasks
from mjlab_rec.adapters.mjlab import for_mjlab
from mjlab_rec.recorders import Hdf5RecorderCfg

def recorded(play):
    cfg = load_env_cfg("Mjlab-Cartpole-Balance", play=play)
    cfg.episode_length_s = 0.5
    cfg.recorders["all"] = for_mjlab(Hdf5RecorderCfg(path=sys.argv.pop(1)), task="recorded")
    return cfg

kind = sys.argv.pop(1)
env_cfg = recorded(play=kind == "play")
register_mjlab_task("Recorded", env_cfg, env_cfg, load_rl_cfg("Mjlab-Cartpole-Balance"))
if kind == "play":
    import mjlab.viewer, mjlab.scripts.play as script

    class Headless:
        def __init__(self, env, policy, checkpoint_manager=None):
            self.env, self.policy = env, policy

        def run(self):
            obs = self.env.get_observations()
            for _ in range(60):
                obs, *_ = self.env.step(self.policy(obs))

    script.ViserPlayViewer = Headless
else:
    import mjlab.scripts.train as script
script.main()
"""


@pytest.mark.parametrize(
    ("kind", "args", "steps"),
    [
        ("play", ["--agent", "random", "--num-envs", "4", "--viewer", "viser"], 60),
        (
            "train",
            ["--env.scene.num-envs", "8", "--agent.max-iterations", "2"]
            + [
                "--agent.logger",
                "tensorboard",
                "--agent.upload-model",
                "False",
                "--gpu-ids",
                "None",
            ],
            64,
        ),
    ],
)
def test_mjlabs_own_scripts_run_unchanged(
    kind: str, args: list[str], steps: int, tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    env = {**os.environ, "WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", SCRIPT, kind, str(path), "Recorded", *args]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    with open_rollouts(path) as rollouts:
        envs = 4 if kind == "play" else 8
        assert rollouts.finished and rollouts.rows == steps * envs
        assert rollouts.info.about["task"] == "recorded"
        assert (rollouts.episodes["length"].max() or 0) <= 25
