"""The command train: run folders, options, presets, resumes, signals, and several processes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import train_tasks
from ports import free_port
from training_worlds import assert_same, training
from waiting import PATIENCE_S

pytest.importorskip("rsl_rl")

from mjlab_rec import cli  # noqa: E402
from mjlab_rec.commands import train  # noqa: E402
from mjlab_rec.data import open_rollouts  # noqa: E402
from mjlab_rec.registry import list_tasks, load_env_cfg, load_rl_cfg  # noqa: E402
from mjlab_rec.rl import checkpoints  # noqa: E402
from mjlab_rec.rl.run_folders import as_plain  # noqa: E402

ROOT = Path(__file__).parent.parent
TRAIN = ("--task", "train-me", "--task-module", "train_tasks", "--device", "cpu")


def run_train(*words: Any) -> None:
    train.main([*TRAIN, *map(str, words)])


def newest(root: Path) -> Path:
    """The folder of the newest run."""
    return max(root.glob("train-me/*"), key=lambda run: run.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six iterations, recorded in all forms that are cheap."""
    root = tmp_path_factory.mktemp("logs")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_train("--log-root", root, "--seed", 3, "--record", "hdf5", "--record", "flight")
    return root


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


# What a run leaves.


@training
def test_a_run_leaves_checkpoints_cfgs_curves_and_recordings(logs: Path):
    run = newest(logs)
    names = {path.name for path in run.iterdir()}
    assert {f"model_{n}.pt" for n in (0, 2, 4, 5)} | {"model_best.pt", "state_5.pt"} <= names
    assert {"agent.json", "env.json", "rollouts"} <= names and "git" not in names
    assert not {name for name in names if name.startswith("state_")} - {"state_5.pt"}
    about = json.loads((run / "agent.json").read_text())
    assert about["task"] == "train-me" and about["agent"]["seed"] == 3
    with open_rollouts(run / "rollouts" / "hdf5.h5") as rollouts:
        assert rollouts.rows == 6 * 5 * 8


@training
def test_curves_have_rsl_rls_names(logs: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(newest(logs)))
    curves.Reload()
    names = set(curves.Tags()["scalars"])
    assert {
        "Train/mean_reward",
        "Train/mean_episode_length",
        "Loss/value",
        "Loss/surrogate",
    } <= names
    assert {"Loss/learning_rate", "Policy/mean_std", "Perf/total_fps", "Perf/physics"} <= names
    assert {"Episode_Reward/smooth", "Episode_Termination/time_out"} <= names
    assert [point.step for point in curves.Scalars("Loss/value")] == list(range(6))
    length = curves.Scalars("Train/mean_episode_length")[-1].value
    assert 1.0 < length <= 10.0


# Resuming.


def assert_equal_checkpoints(one: Path, other: Path) -> None:
    left, right = checkpoints.read(one), checkpoints.read(other)
    assert_same(left, right)


@training
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    logs: Path, tmp_path: Path, run_script: Any, monkeypatch: pytest.MonkeyPatch
):
    # The module's fixture is the same run, without interruption.
    monkeypatch.setenv(train_tasks.SIGNAL, "KILL:23")
    words = (*TRAIN, "--seed", "3", "--log-root", str(tmp_path))
    killed = run_script("train.py", *words, cwd=ROOT / "tests")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    monkeypatch.delenv(train_tasks.SIGNAL)
    run = newest(tmp_path)
    assert {path.name for path in run.glob("model_[0-9]*")} == {"model_0.pt", "model_2.pt"}
    run_train("--log-root", tmp_path, "--resume", "latest", "--record", "hdf5")
    assert newest(tmp_path) == run
    for name in ("model_5.pt", "model_best.pt"):
        assert_equal_checkpoints(run / name, newest(logs) / name)
    with open_rollouts(run / "rollouts" / "hdf5.h5") as rollouts:
        resumed = rollouts.arrays("action")
    with open_rollouts(newest(logs) / "rollouts" / "hdf5.h5") as rollouts:
        whole = rollouts.arrays("action")
    assert resumed.shape == (15 * 8, 1) and whole.shape == (30 * 8, 1)
    assert set(resumed.flat) <= set(whole.flat)  # They are in another order, by episode.


@training
def test_resuming_the_best_or_an_earlier_checkpoint_begins_another_run(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_train("--log-root", tmp_path, "--resume", newest(logs) / "model_2.pt")
    branch = newest(tmp_path)
    assert {path.name for path in branch.glob("model_*")} >= {"model_4.pt", "model_5.pt"}
    assert not (branch / "model_0.pt").exists()
    assert "model_2.pt, with new episodes" in capsys.readouterr().out


@training
def test_a_run_that_is_complete_says_how_to_go_on(logs: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        run_train("--log-root", logs, "--resume", "latest")
    assert ended.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "has had 6 iterations already, and max_iterations is 6" in error
    assert "--agent.max-iterations 12" in error


@training
def test_a_resume_that_does_not_fit_leaves_the_run_as_it_was(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "train-me" / "with a space"
    shutil.copytree(newest(logs), run)
    before = {path.name: path.read_bytes() for path in run.glob("*.json")}
    with pytest.raises(SystemExit):
        run_train("--resume", run, "--agent.actor.hidden-dims", 3, "--agent.max-iterations", 9)
    assert "does not fit" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.glob("*.json")} == before


@training
def test_mjlabs_fields_to_resume_are_refused_with_the_option_that_does_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for words in (("--agent.resume", "True"), ("--agent.load-run", "2026.*")):
        with pytest.raises(SystemExit):
            run_train("--log-root", tmp_path, *words)
        assert "--resume RUN" in " ".join(capsys.readouterr().err.split())


# Signals.


@training
@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143)])
def test_signals_end_a_run_with_a_checkpoint_and_whole_recordings(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: int,
):
    monkeypatch.setenv(train_tasks.SIGNAL, f"{name}:7")
    tmp_path = tmp_path / "with a space"
    before = signal.getsignal(getattr(signal, f"SIG{name}"))
    with pytest.raises(SystemExit) as ended:
        run_train("--log-root", tmp_path, "--record", "hdf5")
    assert ended.value.code == code
    assert signal.getsignal(getattr(signal, f"SIG{name}")) is before
    run = newest(tmp_path)
    said = capsys.readouterr().out.partition("Go on with: ")[2].splitlines()[0]
    assert shlex.split(said)[-2:] == ["--resume", str(run)]
    assert {path.name for path in run.glob("model_[0-9]*")} == {"model_0.pt", "model_1.pt"}
    with open_rollouts(run / "rollouts" / "hdf5.h5") as rollouts:
        assert rollouts.rows == 2 * 5 * 8


# Options.


@training
def test_fields_of_the_learner_come_from_presets_and_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine.toml").write_text(
        "[env]\nscene.num_envs = 4\nepisode_length_s = 1\n"
        "[agent]\nmax_iterations = 9\nactor.hidden_dims = [4, 3]\n"
    )
    run_train(
        *("--log-root", tmp_path, "--preset", "mine.toml", "--agent.max-iterations", 1),
        *("--agent.algorithm.learning-rate", "1e-4", "--agent.experiment-name", "other"),
    )
    (run,) = (tmp_path / "other").iterdir()
    about = json.loads((run / "agent.json").read_text())
    agent = about["agent"]
    assert agent["actor"]["hidden_dims"] == [4, 3] and agent["max_iterations"] == 1
    assert agent["algorithm"]["learning_rate"] == 1e-4
    assert json.loads((run / "env.json").read_text())["env"]["scene"]["num_envs"] == 4
    monkeypatch.chdir(run)
    run_train("--log-root", tmp_path, "--resume", run, "--agent.max-iterations", 2)
    about = json.loads((run / "agent.json").read_text())
    assert about["agent"]["actor"]["hidden_dims"] == [4, 3]


def test_options_of_a_resume_override_all_of_the_earlier_ones(tmp_path: Path):
    from mjlab_rec.rl.run_folders import write_cfgs

    def parsed(*words: str, resume: bool = True) -> Any:
        resumed = ("--resume", str(tmp_path)) if resume else ()
        given = [*TRAIN, *resumed, *words]
        return cli.parse(train.TrainArgs, "", given)

    def keep(args: Any, env_cfg: Any) -> list[Any]:
        write_cfgs(tmp_path, "train-me", args.agent_cfg, env_cfg, args.options)
        agent = args.agent_cfg
        return [agent.max_iterations, agent.save_interval, agent.seed, env_cfg.scene.num_envs]

    (tmp_path / "model_0.pt").touch()
    (tmp_path / "mine.toml").write_text(
        "[env]\nscene.num_envs = 4\n[agent]\nmax_iterations = 9\nseed = 5\n"
    )
    first = ("--agent.max-iterations", "2", "--agent.save-interval", "3", "--num-envs", "6")
    assert keep(*parsed(*first, "--seed", "1", resume=False)) == [2, 3, 1, 6]
    assert keep(*parsed()) == [2, 3, 1, 6]
    assert keep(*parsed("--preset", str(tmp_path / "mine.toml"))) == [9, 3, 5, 4]
    assert keep(*parsed("--env.scene.num-envs", "7", "--seed", "0")) == [9, 3, 0, 7]
    assert keep(*parsed()) == [9, 3, 0, 7]
    # Runs of earlier versions have one layer, without a list around it.
    about = json.loads((tmp_path / "agent.json").read_text())
    about["options"] = {"agent": [["max-iterations", ["2"]]], "num_envs": 6, "seed": None}
    (tmp_path / "agent.json").write_text(json.dumps(about))
    assert keep(*parsed("--agent.save-interval", "8")) == [2, 8, 42, 6]
    assert keep(*parsed()) == [2, 8, 42, 6]


def test_the_number_of_environments_is_the_tasks_unless_the_user_gives_it(tmp_path: Path):
    def chosen(*words: str) -> int:
        return cli.parse(train.TrainArgs, "", ["--task", "gym-hopper", *words])[1].scene.num_envs

    preset = tmp_path / "two.toml"
    preset.write_text("[env]\nscene.num_envs = 2\n")
    assert chosen() == 64
    assert chosen("--preset", str(preset)) == 2
    assert chosen("--preset", str(preset), "--num-envs", "3") == 3
    assert chosen("--env.scene.num-envs", "4") == 4
    assert load_env_cfg("gym-hopper").scene.num_envs == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset quik", "Unknown preset 'quik'. Did you mean 'quick'? Known: "),
        ("--agent.max-iteration 3", "There is no 'max_iteration' at the top. Did you mean 'max_i"),
        ("--agent.algorithm.lerning-rate 3", "Did you mean 'learning_rate'?"),
        ("--agent.algorithm.schedule slow", "'slow' is not one of 'adaptive', 'fixed'"),
        ("--resume lates", "--resume: There is no checkpoint 'lates'. Give a file, the folder"),
        ("--resume latest", "No checkpoint of the task 'train-me' in"),
        ("--minutes 0", "--minutes must be above 0, got 0.0."),
        ("--preset bad.toml", "Preset 'bad.toml', [agent]: There is no 'actr' at the top. Did you"),
        ("--preset table.toml", "there is no table 'agnt'. Did you mean 'agent'?"),
        ("--preset type.toml", "max_iterations: 'many' is not a whole number."),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
):
    (tmp_path / "bad.toml").write_text("[agent]\nactr.hidden_dims = [1]\n")
    (tmp_path / "table.toml").write_text("[agnt]\nseed = 1\n")
    (tmp_path / "type.toml").write_text('[agent]\nmax_iterations = "many"\n')
    with pytest.raises(SystemExit) as ended:
        run_train("--log-root", tmp_path / "logs", *words.split())
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("preset", sorted((ROOT / "configs/train").glob("*.toml")), ids=str)
def test_presets_of_the_project_fit_a_task(preset: Path):
    from mjlab_rec.rl.presets import TrainPreset

    # Those of a family of tasks are named after it.
    family = preset.stem.partition("_")[0]
    task = next((task for task in list_tasks() if task.startswith(f"{family}-")), "train-me")
    env_cfg, agent_cfg = load_env_cfg(task), load_rl_cfg(task)
    before = as_plain([env_cfg, agent_cfg])
    TrainPreset(preset.stem).apply(env_cfg, agent_cfg)
    assert as_plain([env_cfg, agent_cfg]) != before


def test_help_lists_the_fields_of_the_learner(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run_train("--help")
    shown = capsys.readouterr().out
    assert "--agent.algorithm.learning-rate 0.001" in shown
    assert "--env.scene.num-envs 8" in shown


# Several processes.


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch):
    from mjlab_rec.rl.distributed import choose_device

    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_device("auto") == choose_device("cuda") == "cuda:2"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="has 2 GPUs, and process 2 on it needs one of its own"):
        choose_device("auto")


def test_only_a_broken_connection_means_that_another_process_has_ended():
    from mjlab_rec.rl.distributed import LostProcessError, noticing_losses

    def raised(error: Exception) -> Exception:
        with pytest.raises(RuntimeError) as found, noticing_losses():
            raise error
        return found.value

    closed = RuntimeError("[/pytorch/third_party/gloo/pair.cc:553] Connection closed by peer")
    for error in (closed, torch.distributed.DistNetworkError("broken")):
        assert isinstance(raised(error), LostProcessError)
    other = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert raised(other) is other


def start_two(root: Path, *more: str, **variables: str) -> list[Any]:
    """Start a training in two processes, as torchrun does."""
    words = [sys.executable, ROOT / "scripts/train.py", *TRAIN, "--log-root", root, *more]
    words += ["--record", "hdf5", "--agent.algorithm.class-name", "mjlab_rec.rl.ppo:PPO"]
    processes, port = [], str(free_port())
    for rank in "01":
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        env |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **variables}
        processes.append(
            subprocess.Popen(
                list(map(str, words)), env={**os.environ, **env}, text=True, stdout=-1, stderr=-1
            )
        )
    return processes


def outputs(processes: list[Any]) -> list[tuple[str, str]]:
    """What processes printed until they ended."""
    try:
        return [process.communicate(timeout=PATIENCE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()


@training
def test_two_processes_make_one_training_and_one_data_set(tmp_path: Path):
    processes = start_two(tmp_path, "--agent.max-iterations", "3")
    said = outputs(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert "2 processes with 8 environments each, engine" in said[0][0] and said[1][0] == ""
    assert "with _rank1 in the names of the files" in " ".join(said[0][0].split())
    (run,) = (tmp_path / "train-me").iterdir()
    assert {path.name for path in run.glob("state_*")} == {"state_2.pt", "state_2_rank1.pt"}
    seeds, actions = [], []
    for rank in range(2):
        with open_rollouts(run / "rollouts" / f"hdf5_rank{rank}.h5") as rollouts:
            seeds.append(rollouts.info.about["seed"])
            actions.append(rollouts[0]["action"])
            assert rollouts.rows == 3 * 5 * 8
    assert seeds[1] == seeds[0] + 1
    assert not (actions[0][:5] == actions[1][:5]).all()
    weights = [(run / f"weights_{rank}.txt").read_text() for rank in range(2)]
    assert weights[0] == weights[1] and len(weights[0]) > 50
    for rank, suffix in enumerate(("", "_rank1")):
        state = torch.load(run / f"state_2{suffix}.pt", weights_only=True)
        assert state["world_size"] == 2 and f'"seed": {42 + rank}' in state["env_cfg"]


@training
def test_a_process_that_is_killed_ends_the_others_with_whole_recordings(tmp_path: Path):
    processes = start_two(tmp_path, **{train_tasks.SIGNAL: "KILL:18:1"})
    said = outputs(processes)
    assert [process.returncode for process in processes] == [2, -signal.SIGKILL], said
    assert "Another process of this training has ended" in " ".join(said[0][1].split())
    assert "Traceback" not in said[0][1]
    (run,) = (tmp_path / "train-me").iterdir()
    assert (run / "model_2.pt").exists() and not (run / "model_5.pt").exists()
    with open_rollouts(run / "rollouts" / "hdf5_rank0.h5") as rollouts:
        assert rollouts.rows == 4 * 5 * 8
