"""RSL-RL: configs without it, the wrapper, checkpoints, a short training, exported policies."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mdp_worlds import arm_cfg, make_env, robot_cfg
from worlds import actions, cart_cfg

from mjlab_rec.actuator import (
    BuiltinPdActuatorCfg,
    BuiltinPositionActuatorCfg,
    IdealPdActuatorCfg,
)
from mjlab_rec.entity import EntityArticulationInfoCfg
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg
from mjlab_rec.rl.exporter_utils import get_base_metadata, list_to_csv_str

RSL_RL = pytest.mark.skipif(
    bool(__import__("importlib.util").util.find_spec("rsl_rl") is None),
    reason="needs rsl-rl-lib: pip install 'mjlab_rec[train]'",
)


# Without RSL-RL.


def test_configs_need_no_rsl_rl_and_the_rest_names_the_extra():
    code = """
import sys
sys.modules["rsl_rl"] = None
from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg
import mjlab_rec.rl.exporter_utils
print(RslRlOnPolicyRunnerCfg(max_iterations=7).max_iterations)
for line in ("from mjlab_rec.rl import MjlabOnPolicyRunner",
             "from mjlab_rec.rl import RslRlVecEnvWrapper",
             "import mjlab_rec.rl.runner"):
    try:
        exec(line)
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *errors = done.stdout.splitlines()
    assert first == "7"
    for error, name in zip(errors, ("MjlabOnPolicyRunner", "RslRlVecEnvWrapper"), strict=False):
        assert error.startswith(f"{name} needs the package 'rsl_rl': pip install")
        assert error.endswith("'mjlab_rec[train]'")
    assert len(errors) == 3


def test_unknown_names_are_an_ordinary_error():
    import mjlab_rec.rl

    with pytest.raises(AttributeError, match="no attribute 'RslRlWrapper'"):
        _ = mjlab_rec.rl.RslRlWrapper


def test_configs_are_plain_data():
    first, second = RslRlOnPolicyRunnerCfg(), RslRlOnPolicyRunnerCfg()
    assert first.actor.distribution_cfg is not second.actor.distribution_cfg
    plain = dataclasses.asdict(RslRlOnPolicyRunnerCfg(actor=RslRlModelCfg((64, 64))))
    assert plain["actor"]["hidden_dims"] == (64, 64)
    assert plain["algorithm"]["class_name"] == "PPO"


# The environment.


def wrap(env: ManagerBasedRlEnv, **kwargs: Any) -> Any:
    from mjlab_rec.rl import RslRlVecEnvWrapper

    return RslRlVecEnvWrapper(env, **kwargs)


def flat(obs: Any) -> dict[str, torch.Tensor]:
    """Copies of all tensors of nested dicts or a TensorDict, by their path."""
    found = {}
    for name, value in obs.items():
        inner = {"": value} if isinstance(value, torch.Tensor) else flat(value)
        found |= {f"{name}/{key}": tensor.clone() for key, tensor in inner.items()}
    return found


def assert_same(left: Any, right: Any) -> None:
    left, right = flat(left), flat(right)
    assert left.keys() == right.keys() and left
    assert all(torch.equal(left[name], right[name]) for name in left)


@RSL_RL
def test_steps_are_those_of_the_environment():
    plain, wrapped = ManagerBasedRlEnv(cart_cfg()), wrap(ManagerBasedRlEnv(cart_cfg()))
    obs, _ = plain.reset()
    assert wrapped.num_envs == 4 and wrapped.num_actions == plain.action_manager.total_action_dim
    ended = torch.zeros(4)
    for action in actions(12):
        for _ in range(2):  # Looking twice changes nothing.
            packed = wrapped.get_observations()
            assert packed.batch_size == torch.Size([4])
            assert_same(packed, obs)
        obs, reward, terminated, truncated, _ = plain.step(action)
        packed, *rest, extras = wrapped.step(action)
        assert_same(packed, obs)
        assert torch.equal(rest[0], reward)
        assert rest[1].dtype == torch.long
        assert torch.equal(rest[1], (terminated | truncated).long())
        assert torch.equal(extras["time_outs"], truncated) and "log" in extras
        ended += rest[1]
    assert bool(ended.any())
    plain.close()
    wrapped.close()


@RSL_RL
def test_returned_observations_stay_as_they_were():
    # RSL-RL stores the observation of a step after the next one has been taken.
    env = wrap(ManagerBasedRlEnv(cart_cfg()))
    obs = env.get_observations()
    for action in actions(8):
        kept = flat(obs)
        following, *_ = env.step(action)
        assert all(torch.equal(value, kept[name]) for name, value in flat(obs).items())
        obs = following
    env.close()


@RSL_RL
def test_a_finite_horizon_has_no_time_outs():
    env = wrap(ManagerBasedRlEnv(cart_cfg(is_finite_horizon=True)))
    assert "time_outs" not in env.step(actions(1)[0])[3]
    env.close()


@RSL_RL
def test_actions_are_clipped():
    env = wrap(ManagerBasedRlEnv(cart_cfg()), clip_actions=0.5)
    action = torch.full((4, env.num_actions), 3.0)
    env.step(action)
    assert torch.equal(env.unwrapped.action_manager.action, torch.full_like(action, 0.5))
    assert env.action_space.high.max() == 0.5 and env.action_space.shape == action.shape
    assert action.max() == 3.0
    env.close()


@RSL_RL
def test_episode_lengths_are_set_in_place():
    env = wrap(ManagerBasedRlEnv(cart_cfg()))
    buffer = env.unwrapped.episode_length_buf
    env.episode_length_buf = torch.tensor([3, 1, 0, 2])
    assert buffer.tolist() == [3, 1, 0, 2] and env.unwrapped.episode_length_buf is buffer
    env.close()


@RSL_RL
def test_impossible_wrappers_are_an_error():
    env = ManagerBasedRlEnv(cart_cfg(auto_reset=False))
    with pytest.raises(ValueError, match="RslRlVecEnvWrapper needs an environment that resets"):
        wrap(env)
    env.close()
    env = ManagerBasedRlEnv(cart_cfg())
    with pytest.raises(ValueError, match="clip_actions must be positive, got 0"):
        wrap(env, clip_actions=0.0)
    env.close()


# Training.


def make_runner(folder: Path, num_envs: int = 16, **fields: Any) -> Any:
    from mjlab_rec.rl import MjlabOnPolicyRunner

    cfg = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs = num_envs
    cfg.seed = 0
    group = next(iter(cfg.observations))
    train = RslRlOnPolicyRunnerCfg(
        num_steps_per_env=8,
        save_interval=2,
        logger="tensorboard",
        obs_groups={"actor": (group,), "critic": (group,)},
        actor=dataclasses.replace(RslRlOnPolicyRunnerCfg().actor, hidden_dims=(32, 32)),
        critic=RslRlModelCfg(hidden_dims=(32, 32)),
        **fields,
    )
    torch.manual_seed(0)
    env = wrap(ManagerBasedRlEnv(cfg))
    return MjlabOnPolicyRunner(env, dataclasses.asdict(train), log_dir=str(folder))


TRAIN = [
    RSL_RL,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def train_mark(function: Any) -> Any:
    for mark in TRAIN:
        function = mark(function)
    return function


@train_mark
def test_a_task_can_be_trained_and_continued(tmp_path: Path):
    runner = make_runner(tmp_path)
    before = {k: v.clone() for k, v in runner.alg.actor.state_dict().items()}
    runner.learn(num_learning_iterations=3, init_at_random_ep_len=True)
    after = runner.alg.actor.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert all(v.isfinite().all() for v in after.values())
    assert runner.env.unwrapped.common_step_counter == 24
    checkpoint = tmp_path / "model_2.pt"
    assert checkpoint.exists()
    again = make_runner(tmp_path / "again")
    again.load(str(checkpoint))
    assert again.current_learning_iteration == 2
    assert again.env.unwrapped.common_step_counter == 24
    loaded = again.alg.actor.state_dict()
    assert all(torch.equal(loaded[k], after[k]) for k in after)
    policy = again.get_inference_policy()
    with torch.inference_mode():
        obs = again.env.get_observations()
        again.env.step(policy(obs))
    runner.env.close()
    again.env.close()


@train_mark
def test_old_checkpoints_can_be_loaded(tmp_path: Path):
    runner = make_runner(tmp_path)
    actor = {k: v + 1.0 for k, v in runner.alg.actor.state_dict().items()}
    critic = runner.alg.critic.state_dict()
    rename = {"distribution.std_param": "std"}
    old = {rename.get(k, k.replace("mlp.", "actor.")): v for k, v in actor.items()}
    old |= {k.replace("mlp.", "critic."): v for k, v in critic.items()}
    checkpoint = {
        "model_state_dict": old,
        "optimizer_state_dict": runner.alg.optimizer.state_dict(),
        "iter": 5,
        "infos": None,
    }
    torch.save(checkpoint, tmp_path / "old.pt")
    runner.env.unwrapped.common_step_counter = 99
    assert runner.load(str(tmp_path / "old.pt")) is None
    assert runner.current_learning_iteration == 5
    assert runner.env.unwrapped.common_step_counter == 99
    new = runner.alg.actor.state_dict()
    assert all(torch.equal(new[k], actor[k]) for k in actor)
    runner.env.close()


@train_mark
def test_a_policy_is_exported_with_its_metadata(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from mjlab_rec.rl.exporter_utils import attach_metadata_to_onnx

    runner = make_runner(tmp_path)
    folder, name, path = runner._get_export_paths(str(tmp_path / "2026" / "model_3.pt"))
    assert (folder, name, path) == (tmp_path / "2026", "2026.onnx", folder / "2026.onnx")
    runner.export_policy_to_onnx(str(folder), name)
    attach_metadata_to_onnx(str(path), {"run_path": "a/b", "gains": [1.0, [2.0, 3.5]]})
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    stored = {prop.key: prop.value for prop in model.metadata_props}
    assert stored == {"run_path": "a/b", "gains": "1.000,2.000;3.500"}
    runner.env.close()


@train_mark
def test_a_tasks_own_runner_is_a_subclass(tmp_path: Path):
    from mjlab_rec.rl.runner import MjlabOnPolicyRunner

    class Saving(MjlabOnPolicyRunner):
        def save(self, path: str, infos: Any = None) -> None:
            super().save(path, {"mine": 3})

    runner = make_runner(tmp_path)
    runner.__class__ = Saving
    runner.logger.logger_type = "tensorboard"
    runner.save(str(tmp_path / "model.pt"))
    infos = runner.load(str(tmp_path / "model.pt"))
    assert infos["mine"] == 3 and infos["env_state"]["common_step_counter"] == 0
    runner.env.close()


# Image encoders.


@RSL_RL
def test_a_spatial_softmax_gives_the_place_of_a_spot():
    from mjlab_rec.rl.spatial_softmax import SpatialSoftmax

    channels = torch.zeros(2, 3, 5, 9)
    channels[0, 1, 0, 8] = channels[1, 2, 4, 4] = 100.0
    places = SpatialSoftmax(5, 9, temperature=0.5)(channels)
    assert places.shape == (2, 6)
    torch.testing.assert_close(places[0], torch.tensor([0.0, 0.0, 1.0, -1.0, 0.0, 0.0]))
    torch.testing.assert_close(places[1], torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]))


@RSL_RL
def test_images_can_be_encoded_as_places(capsys: pytest.CaptureFixture[str]):
    from tensordict import TensorDict  # pyright: ignore[reportMissingImports]

    from mjlab_rec.rl.spatial_softmax import SpatialSoftmaxCNNModel

    obs = TensorDict({"state": torch.rand(2, 5), "eye": torch.rand(2, 3, 16, 24)}, [2])
    groups = {"actor": ["state", "eye"], "critic": ["state", "eye"]}
    cnn = {"output_channels": [4, 6], "kernel_size": 3, "spatial_softmax_temperature": 0.7}
    model: Any = SpatialSoftmaxCNNModel(obs, groups, "actor", 2, cnn_cfg=cnn, hidden_dims=(8,))
    encoder = model.cnns["eye"]
    assert encoder.output_dim == 12 and encoder.spatial_softmax.temperature == 0.7
    assert capsys.readouterr().out == ""
    out = model(obs)
    assert out.shape == (2, 2)
    exported = model.as_onnx(verbose=False).eval()
    torch.testing.assert_close(exported(obs["state"], obs["eye"]), out)
    other: Any = SpatialSoftmaxCNNModel(obs, groups, "critic", 1, cnn_cfg={}, cnns=model.cnns)
    assert other.cnns["eye"] is encoder
    with pytest.raises(ValueError, match=r"cnn_cfg has the groups \['ear'\], but the image obs"):
        SpatialSoftmaxCNNModel(obs, groups, "actor", 2, cnn_cfg={"ear": cnn})


# Metadata.


def test_metadata_gives_the_gains_of_every_actuator():
    arm = arm_cfg(
        articulation=EntityArticulationInfoCfg(
            actuators=(
                IdealPdActuatorCfg(target_names_expr=("elbow",), stiffness=7.0, damping=0.7),
                BuiltinPdActuatorCfg(target_names_expr=("wrist",), stiffness=9.0, damping=0.9),
                BuiltinPositionActuatorCfg(
                    target_names_expr=("shoulder",), stiffness=5.0, damping=0.5
                ),
            )
        )
    )
    scaled = ObservationTermCfg(func=mdp.joint_pos, scale=(2.0, 3.0, 4.0), clip=(-1.0, 1.0))
    plain = ObservationTermCfg(func=mdp.joint_vel, history_length=2)
    action = mdp.JointPositionActionCfg(
        entity_name="robot", actuator_names=(".*",), scale={"elbow": 0.5}
    )
    env = make_env(
        entities={"robot": arm},
        actions={"joint_pos": action},
        observations={"actor": ObservationGroupCfg({"pos": scaled, "vel": plain})},
    )
    facts = get_base_metadata(env, "me/run")
    names = list(env.scene["robot"].joint_names)
    gains = {"shoulder": (5.0, 0.5), "elbow": (7.0, 0.7), "wrist": (9.0, 0.9)}
    assert facts["joint_names"] == names
    assert facts["joint_stiffness"] == pytest.approx([gains[name][0] for name in names])
    assert facts["joint_damping"] == pytest.approx([gains[name][1] for name in names])
    assert facts["run_path"] == "me/run" and facts["command_names"] == []
    assert facts["observation_names"] == ["pos", "vel"]
    assert facts["observation_terms_scale"] == [[2.0, 3.0, 4.0], 1.0]
    assert facts["observation_terms_clip"] == [[-1.0, 1.0], [-float("inf"), float("inf")]]
    assert facts["observation_terms_history_length"] == [0, 2]
    assert facts["action_scale"] == [0.5 if name == "elbow" else 1.0 for name in names]
    env.close()


def test_metadata_of_other_actions_is_an_error():
    effort = mdp.JointEffortActionCfg(entity_name="robot", actuator_names=(".*",))
    env = make_env(entities={"robot": robot_cfg()}, actions={"joint_pos": effort})
    with pytest.raises(TypeError, match="must be a JointPositionAction, not JointEffortAction"):
        get_base_metadata(env, "run")
    env.close()


def test_lists_become_text():
    assert list_to_csv_str([1.23456, 2, "a"]) == "1.235,2.000,a"
    assert list_to_csv_str([[1, 2], (float("inf"),)], decimals=1) == "1.0;2.0,inf"
