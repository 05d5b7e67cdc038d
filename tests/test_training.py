"""The training loop: exact resumes, checkpoints that do not fit, values that are not finite."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from training_worlds import assert_same, flat_cart, make_runner, train_cfg, training

pytest.importorskip("rsl_rl")

from mjlab_rec.rl import RslRlModelCfg, RslRlPpoAlgorithmCfg, checkpoints  # noqa: E402
from mjlab_rec.rl.finite import NonFiniteError  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five iterations, with checkpoints 0, 2 and 4 and the state of the last one."""
    folder = tmp_path_factory.mktemp("run")
    runner = make_runner(folder)
    runner.learn(5, init_at_random_ep_len=True)
    runner.env.close()
    return folder


# Resuming.


@dataclasses.dataclass
class CuriousAlgorithmCfg(RslRlPpoAlgorithmCfg):
    """PPO with random network distillation."""

    rnd_cfg: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "weight": 5.0,
            "weight_schedule": {"mode": "step", "final_step": 25, "final_value": 3.0},
            "state_normalization": True,
            "reward_normalization": True,
            "num_outputs": 4,
            "predictor_hidden_dims": [8],
            "target_hidden_dims": [8],
        }
    )


def curious_cfg() -> Any:
    """A learner that is also rewarded for observations that it cannot predict."""
    groups = {"actor": ("actor",), "critic": ("critic",), "rnd_state": ("actor",)}
    algorithm = CuriousAlgorithmCfg(num_learning_epochs=2, num_mini_batches=2)
    return dataclasses.replace(train_cfg(), algorithm=algorithm, obs_groups=groups)


@training
@pytest.mark.parametrize("learner", ["PPO", "mjlab_rec.rl.ppo:PPO", "recurrent", "curious"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path, learner: str):
    cfg = train_cfg()
    if learner == "curious":
        cfg = curious_cfg()
    elif learner != "recurrent":
        cfg.algorithm.class_name = learner
    else:
        memory = {"rnn_type": "lstm", "rnn_hidden_dim": 5, "class_name": "RNNModel"}
        cfg.actor = dataclasses.replace(cfg.actor, **memory)
        cfg.critic = dataclasses.replace(cfg.critic, **memory)
    whole = make_runner(tmp_path, cfg=cfg)
    whole.learn(3, init_at_random_ep_len=True)
    assert [p.name for p in tmp_path.glob("state_*")] == ["state_2.pt"]
    resumed = make_runner(None, cfg=cfg, seed=123)
    resumed.env.step(torch.ones(6, 1))  # It has done other things before.
    assert resumed.resume(tmp_path / "model_2.pt")
    seen: list[list[Any]] = [[], []]
    for runner, iterations in ((whole, seen[0]), (resumed, seen[1])):
        runner.on_iteration = iterations.append
    # The two take turns with torch's global random numbers, so each gets the same ones.
    state = torch.get_rng_state()
    resumed.learn(3)
    torch.set_rng_state(state)
    whole.logger.log_dir = None
    whole.learn(3)
    for ours, theirs in zip(*seen, strict=True):
        assert ours.number == theirs.number
        assert ours.losses == theirs.losses and ours.mean_return == theirs.mean_return
        assert ours.log == theirs.log
    assert [i.number for i in seen[1]] == [3, 4, 5]
    assert_same(whole.alg.save(), resumed.alg.save())
    assert whole.env.unwrapped.common_step_counter == resumed.env.unwrapped.common_step_counter
    whole.env.close()
    resumed.env.close()


@training
def test_without_the_environments_state_counters_and_curricula_go_on(run: Path, tmp_path: Path):
    path = tmp_path / "model_4.pt"
    path.write_bytes((run / "model_4.pt").read_bytes())
    runner = make_runner(None)
    assert not runner.resume(path)
    assert runner.iterations_done == 5
    assert runner.env.unwrapped.common_step_counter == 30
    runner.env.close()


@training
def test_a_changed_environment_begins_new_episodes(run: Path, caplog: pytest.LogCaptureFixture):
    cfg = flat_cart()
    cfg.rewards["height"].weight = 2.0
    runner = make_runner(None, cfg)
    with caplog.at_level(logging.WARNING):
        assert not runner.resume(run / "model_4.pt")
    assert "configured differently" in caplog.text
    assert runner.logger.tot_timesteps == 5 * 6 * 6 and runner.logger.tot_time > 0.0
    assert runner.env.unwrapped.reward_manager.get_term_cfg("height").weight == 2.0
    runner.env.close()


def widen(env: Any, env_ids: Any) -> None:
    """A curriculum that changes a weight and a range after 12 steps."""
    if env.common_step_counter >= 12:
        env.reward_manager.get_term_cfg("height").weight = 5.0
        env.command_manager.get_term("goal").cfg.resampling_time_range = (0.1, 0.2)


@training
def test_what_curricula_changed_also_fits_another_number_of_environments(tmp_path: Path):
    from mjlab_rec.managers import CurriculumTermCfg

    def cfg(num_envs: int) -> Any:
        made = flat_cart(curriculum={"widen": CurriculumTermCfg(func=widen)})
        made.scene.num_envs = num_envs
        del made.terminations["end"]  # Its steps are for six environments.
        return made

    runner = make_runner(tmp_path, cfg(6))
    runner.learn(4)  # Episodes end after 10 and 20 steps.
    runner.env.close()
    other = make_runner(None, cfg(3))
    assert not other.resume(tmp_path / "model_3.pt")
    env = other.env.unwrapped
    assert env.reward_manager.get_term_cfg("height").weight == 5.0
    assert env.command_manager.get_term("goal").cfg.resampling_time_range == (0.1, 0.2)
    other.env.close()


# Checkpoints.


@training
def test_a_checkpoint_says_what_it_is_for_and_holds_only_plain_data(run: Path):
    checkpoint = checkpoints.read(run / "model_4.pt")
    infos = checkpoint["infos"]
    assert infos["task"] == "a-cart" and infos["num_actions"] == 1
    assert infos["obs"] == {"actor": [15], "critic": [15]}
    assert infos["obs_groups"]["actor"] == ["actor"]
    assert infos["agent"]["actor"]["hidden_dims"] == [8]
    assert infos["agent"]["actor"]["class_name"] == "MLPModel"
    assert checkpoint["iter"] == 4
    assert any("obs_normalizer" in key for key in checkpoint["actor_state_dict"])


@training
def test_the_best_policy_is_kept(run: Path, tmp_path: Path):
    best = checkpoints.read(run / "model_best.pt")
    assert best["infos"]["best_return"] is not None
    again = make_runner(tmp_path)
    again.resume(run / "model_4.pt")
    assert again.best_return == best["infos"]["best_return"]
    again.best_return = 1e9  # Nothing is better.
    again.learn(1)
    assert not (tmp_path / "model_best.pt").exists()
    again.env.close()


@training
def test_episodes_that_were_cut_short_at_the_beginning_are_never_the_best():
    cfg = flat_cart()
    cfg.episode_length_s = 4.0  # 100 steps; the environments begin somewhere in between.
    del cfg.terminations["end"]
    for term in cfg.rewards.values():
        term.weight = -1.0  # Longer episodes cost more.
    runner = make_runner(None, cfg, train_cfg(num_steps_per_env=25))
    seen: list[Any] = []
    runner.on_iteration = seen.append
    runner.learn(8, init_at_random_ep_len=True)
    runner.env.close()
    assert seen[0].mean_length is not None and seen[0].mean_length < 50
    # Until the fourth iteration, all that end began before the first one.
    first = next(iteration for iteration in seen if iteration.is_best)
    assert first.number >= 4
    assert runner.best_return < first.mean_return  # That mean is over all so far.


@training
def test_a_foreign_checkpoint_says_what_differs(run: Path):
    from mjlab_rec.registry import load_env_cfg

    runner = make_runner(None, load_env_cfg("cartpole-balance"))
    with pytest.raises(checkpoints.CheckpointError) as raised:
        runner.load(str(run / "model_4.pt"))
    text = str(raised.value)
    assert "of the task 'a-cart', this is 'cartpole-balance'" in text
    assert "observation group 'actor' is [15] there and [5] here" in text
    assert "actor mlp.0.weight is (8, 15) there and (8, 5) here" in text
    runner.env.close()


@training
def test_other_networks_say_what_differs(run: Path):
    cfg = train_cfg()
    cfg.actor.hidden_dims, cfg.critic.obs_normalization = (8, 9), False
    runner = make_runner(None, cfg=cfg)
    with pytest.raises(checkpoints.CheckpointError) as raised:
        runner.load(str(run / "model_4.pt"))
    text = str(raised.value)
    assert "actor mlp.2.weight is (1, 8) there and (9, 8) here" in text
    assert "critic obs_normalizer._mean is (1, 15) there and missing here" in text
    assert "observation group" not in text
    runner.env.close()


@training
def test_a_checkpoint_of_another_task_with_equal_shapes_can_be_loaded_but_not_resumed(run: Path):
    cfg = flat_cart()
    cfg.task = "b-cart"
    runner = make_runner(None, cfg)
    runner.load(str(run / "model_4.pt"))
    with pytest.raises(checkpoints.CheckpointError, match="of the task 'a-cart', and cannot be re"):
        runner.resume(run / "model_4.pt")
    runner.env.close()


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of the checkpoint ran')",)


def test_files_that_are_no_checkpoints_are_refused_and_nothing_runs(tmp_path: Path):
    files = {"trap": {"actor_state_dict": {}, "x": Trap()}, "plain": {"a": 1}}
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    for name, message in {
        "trap": "objects other than tensors and plain data",
        "plain": "is not a checkpoint of RSL-RL: it holds a, and no networks",
        "text": "cannot be read as a checkpoint",
        "empty": "cannot be read as a checkpoint",
        "absent": "There is no checkpoint",
    }.items():
        with pytest.raises(checkpoints.CheckpointError, match=message):
            checkpoints.read(tmp_path / name)


@training
def test_infos_that_could_not_be_read_back_are_refused(tmp_path: Path):
    runner = make_runner(None)
    with pytest.raises(TypeError, match=r"infos\['a'\]\[1\] is a Trap: checkpoints hold only"):
        runner.save(str(tmp_path / "model.pt"), {"a": [1, Trap()]})
    assert not list(tmp_path.iterdir())
    runner.env.close()


# What a kill, another machine and another process leave.


@training
def test_a_process_without_the_folder_still_waits_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The second machine of a run has no folder of it, if they do not share a disk.
    runner = make_runner(tmp_path / "only-on-the-first-machine")
    waits: list[int] = []
    monkeypatch.setattr(torch.distributed, "barrier", lambda: waits.append(1))
    runner.is_distributed, runner.gpu_global_rank = True, 1
    runner._save_all(0)
    there = len(waits)
    (tmp_path / "only-on-the-first-machine").mkdir()
    runner._save_all(0)
    assert there > 0 and len(waits) == 2 * there
    runner.env.close()


@training
def test_the_old_state_stays_until_the_checkpoint_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "state_0.pt").touch()
    runner = make_runner(tmp_path)
    seen: list[list[str]] = []
    monkeypatch.setattr(
        torch.distributed,
        "barrier",
        lambda: seen.append(sorted(path.name for path in tmp_path.glob("*.pt"))),
    )
    runner.is_distributed = True
    runner._save_all(3)
    assert seen == [["state_0.pt", "state_3.pt"], ["model_3.pt", "state_0.pt", "state_3.pt"]]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["model_3.pt", "state_3.pt"]
    runner.env.close()


@training
def test_a_state_of_another_engine_begins_new_episodes(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for name in ("model_4.pt", "state_4.pt"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    state = torch.load(tmp_path / "state_4.pt", weights_only=True)
    state["env"]["engine"] = "warp"  # As of a run on a GPU; the cfg says "auto" in both.
    torch.save(state, tmp_path / "state_4.pt")
    runner = make_runner(None)
    with caplog.at_level(logging.WARNING):
        assert not runner.resume(tmp_path / "model_4.pt")
    assert "begin new episodes" in caplog.text and "'warp' there" in caplog.text
    assert runner.iterations_done == 5
    runner.env.close()


@training
@pytest.mark.parametrize("cfg", [train_cfg, curious_cfg])
def test_a_checkpoint_can_be_loaded_after_learning(tmp_path: Path, cfg: Any):
    runner = make_runner(tmp_path, cfg=cfg())
    runner.learn(3)
    runner.load(str(tmp_path / "model_0.pt"))
    expected = checkpoints.read(tmp_path / "model_0.pt")["actor_state_dict"]
    assert_same(dict(runner.alg.actor.state_dict()), dict(expected))
    runner.learn(1)
    runner.env.close()


@training
def test_weights_alone_bring_no_best_return(run: Path):
    runner = make_runner(None)
    runner.load(str(run / "model_4.pt"), load_cfg={"actor": True})
    assert runner.best_return is None and runner.iterations_done == 0
    runner.env.close()


def cost(env: Any) -> torch.Tensor:
    """-1 in each step: the shorter an episode, the higher its return."""
    return -torch.ones(env.num_envs, device=env.device)


@training
def test_episodes_that_were_cut_short_at_the_start_are_not_the_best(tmp_path: Path):
    from mjlab_rec.managers import RewardTermCfg

    cfg = flat_cart(rewards={"cost": RewardTermCfg(func=cost, weight=1.0)})
    del cfg.terminations["end"]
    cfg.scale_rewards_by_dt = False
    runner = make_runner(tmp_path, cfg)
    whole = -float(runner.env.max_episode_length)
    means: list[Any] = []
    runner.on_iteration = lambda iteration: means.append(iteration.mean_return)
    runner.learn(12, init_at_random_ep_len=True)
    assert means[4] > whole + 1  # The first episodes of the six environments are in there.
    assert runner.best_return in (None, whole)
    runner.env.close()


@training
def test_an_error_in_a_step_is_written_once_by_the_flight_recorder(tmp_path: Path):
    from mjlab_rec.managers import RewardTermCfg
    from mjlab_rec.recorders.flight import FlightRecorderCfg

    def broken(env: Any) -> torch.Tensor:
        if env.common_step_counter == 3:
            raise RuntimeError("broken")
        return cost(env)

    cfg = flat_cart(recorders={"flight": FlightRecorderCfg(path=str(tmp_path / "flight"))})
    cfg.rewards["broken"] = RewardTermCfg(func=broken, weight=1.0)
    runner = make_runner(None, cfg)
    with pytest.raises(RuntimeError, match="broken"):
        runner.learn(1)
    assert len(list((tmp_path / "flight").iterdir())) == 1
    runner.env.close()


@training
def test_a_logger_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="Unknown logger 'neptune'. Known: tensorboard, wandb"):
        make_runner(None, cfg=train_cfg(logger="neptune"))


@training
def test_code_outside_of_any_repository_leaves_no_empty_folder(tmp_path: Path):
    runner = make_runner(tmp_path / "run")
    runner.add_git_repo_to_log(str(tmp_path))
    runner.learn(1)
    assert (tmp_path / "run" / "model_0.pt").exists()
    assert not (tmp_path / "run" / "git").exists()
    runner.env.close()


# Values that are not finite.


@training
def test_losses_that_are_not_finite_stop_the_run_with_the_flight_recorders_dump(tmp_path: Path):
    from mjlab_rec.recorders.flight import FlightRecorderCfg

    cfg = flat_cart(recorders={"flight": FlightRecorderCfg(path=str(tmp_path / "flight"))})
    runner = make_runner(None, cfg)

    def bad_update() -> dict[str, float]:
        return {"value": float("nan"), "surrogate": 0.5}

    runner.alg.update = bad_update
    with pytest.raises(NonFiniteError, match="Iteration 0: a loss is not a finite number: value ="):
        runner.learn(2)
    (dump,) = (tmp_path / "flight").iterdir()
    assert dump.name == "a-cart-step-6-exception-in-step"
    assert "NonFiniteError" in (dump / "reason.json").read_text()
    runner.env.close()


@training
def test_nan_in_observations_stops_the_run_before_the_networks_learn_from_it(tmp_path: Path):
    runner = make_runner(None)
    before = {k: v.clone() for k, v in runner.alg.actor.mlp.state_dict().items()}
    step = runner.env.step

    def bad_step(action: torch.Tensor) -> Any:
        obs, *rest = step(action)
        obs["critic"][2, 3] = float("nan")
        return obs, *rest

    runner.env.step = bad_step
    with pytest.raises(NonFiniteError, match="NaN or infinity in observation 'critic', so trai"):
        runner.learn(2)
    assert_same(before, dict(runner.alg.actor.mlp.state_dict()))
    runner.env.close()


# Networks.


@training
def test_a_teacher_is_distilled_into_a_student(run: Path, tmp_path: Path):
    from mjlab_rec.rl import RslRlDistillationRunnerCfg

    policy = train_cfg().actor
    memory = {"rnn_type": "gru", "rnn_hidden_dim": 4, "class_name": "RNNModel"}
    cfg = RslRlDistillationRunnerCfg(
        student=dataclasses.replace(policy, **memory),
        teacher=policy,
        num_steps_per_env=6,
        obs_groups={"student": ("actor",), "teacher": ("critic",)},
    )
    cfg.algorithm.gradient_length = 3
    runner = make_runner(tmp_path, cfg=cfg)
    with pytest.raises(ValueError, match="Distillation needs a teacher. Load the checkpoint"):
        runner.learn(1)
    runner.load(str(run / "model_4.pt"))
    assert runner.best_return is None  # That of the teacher does not count.
    before = {k: v.clone() for k, v in runner.alg.save()["teacher_state_dict"].items()}
    student = {k: v.clone() for k, v in runner.alg.student.rnn.state_dict().items()}
    runner.learn(3)
    assert_same(before, dict(runner.alg.save()["teacher_state_dict"]))
    after = runner.alg.student.rnn.state_dict()
    assert all(not torch.equal(student[k], after[k]) for k in student)
    again = make_runner(None, cfg=cfg)
    assert again.resume(tmp_path / "model_2.pt")
    assert again.alg.teacher_loaded
    runner.env.close()
    again.env.close()


@training
@pytest.mark.parametrize("encoder", ["CNNModel", "SpatialSoftmaxCNNModel"])
def test_pictures_are_encoded_by_convolutions(encoder: str):
    from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg

    cfg = flat_cart()
    picture = ObservationTermCfg(func=lambda env: torch.rand(env.num_envs, 1, 8, 8))
    cfg.observations["picture"] = ObservationGroupCfg({"eye": picture})
    cnn = {"output_channels": [2], "kernel_size": 3}
    if encoder.startswith("Spatial"):
        encoder = f"mjlab_rec.rl.spatial_softmax:{encoder}"
    actor = RslRlModelCfg(
        hidden_dims=(8,),
        class_name=encoder,
        cnn_cfg=cnn,
        distribution_cfg=train_cfg().actor.distribution_cfg,
    )
    runner = make_runner(
        None,
        cfg,
        train_cfg(
            actor=actor,
            obs_groups={"actor": ("actor", "picture"), "critic": ("critic",)},
        ),
    )
    before = {k: v.clone() for k, v in runner.alg.actor.cnns.state_dict().items()}
    runner.learn(2)
    after = runner.alg.actor.cnns.state_dict()
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))
    runner.env.close()
