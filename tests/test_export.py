"""Exported policies: run without this package, they act as the network; what they say of it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mdp_worlds import arm_cfg, make_env
from rl_worlds import NETWORKS, learner_cfg, make_runner, save
from rl_worlds import make_env as make_cart

from mjlab_rec.actuator import BuiltinPositionActuatorCfg, IdealPdActuatorCfg
from mjlab_rec.commands import export as command
from mjlab_rec.entity import EntityArticulationInfoCfg
from mjlab_rec.envs import mdp
from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg, SceneEntityCfg
from mjlab_rec.rl import RslRlModelCfg
from mjlab_rec.rl.agents import load_agent

pytest.importorskip("rsl_rl", reason="needs rsl-rl-lib: pip install 'mjlab_rec[train]'")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def exported(env: Any, cfg: Any, folder: Path) -> tuple[Any, Path, Path]:
    """RSL-RL's own network, and the files of its checkpoint."""
    from mjlab_rec.rl.export import export_agent

    runner = make_runner(env, cfg)
    path = save(runner, folder / "model_7.pt", agent=json.loads(json.dumps(asdict(cfg))))
    onnx, script = export_agent(load_agent(path, env, "t"), env, folder, "policy", task_id="t")
    return runner.alg.get_policy().eval(), onnx, script


def state_feed(described: dict[str, Any], batch: int) -> dict[str, np.ndarray]:
    return {
        f"{name}_in": np.zeros((layers, batch, width), np.float32)
        for name, (layers, width) in described["state_shapes"].items()
    }


@torch.no_grad()
def compare(
    actor: Any, onnx: Path, script: Path, obs: dict[str, torch.Tensor], limit: float
) -> None:
    """Run both files as a robot's program would, 5 steps from the start of an episode."""
    batch = len(next(iter(obs.values())))
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    module = torch.jit.load(str(script))
    described = json.loads(session.get_modelmeta().custom_metadata_map["mjlab_rec"])
    names = [node.name for node in session.get_inputs()]
    assert names == list(described["inputs"])
    states = state_feed(described, batch)
    script_states = [torch.from_numpy(state) for state in states.values()]
    actor.reset()
    seen = 0.0
    for step in range(5):
        now = {name: value * (1.0 + step) for name, value in obs.items()}
        expected = actor(now).clamp(-limit, limit)
        vectors = [now[group] for group in described["observation_groups"] if now[group].ndim == 2]
        tensors = {"obs": torch.cat(vectors, dim=-1)} if vectors else {}
        tensors |= {name: value for name, value in now.items() if value.ndim == 4}
        feed = {name: value.numpy() for name, value in tensors.items()} | states
        action, *after = session.run(None, feed)
        states = dict(zip(states, after, strict=True))
        np.testing.assert_allclose(action, expected.numpy(), atol=2e-6)
        found = module(*(tensors[name] for name in names if name in tensors), *script_states)
        if script_states:
            found, *script_states = found
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
        seen += float((expected.abs() < limit).float().mean())
    assert 0 < seen < 5  # Some at the limit, and some not.


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_files_act_as_the_network_for_any_batch(network, batch, tmp_path):
    with make_cart(1) as env:
        cfg = learner_cfg(network, clip_actions={"mlp": 2.0, "lstm": 0.05, "gru": 0.12}[network])
        actor, onnx, script = exported(env, cfg, tmp_path)
        size = env.get_observations()["actor"].shape[1]
    torch.manual_seed(1)
    compare(actor, onnx, script, {"actor": torch.randn(batch, size)}, cfg.clip_actions or 0.0)


@pytest.mark.parametrize("groups", [("actor", "eye"), ("eye",)])
def test_pictures_are_inputs_of_their_own(groups, tmp_path):
    cfg = learner_cfg(obs_groups={"actor": groups, "critic": ("actor",)})
    actor_cfg = RslRlModelCfg(
        hidden_dims=(8,),
        class_name="mjlab_rec.rl.spatial_softmax:SpatialSoftmaxCNNModel",
        cnn_cfg={"output_channels": [3], "kernel_size": 3},
        obs_normalization="actor" in groups,
        distribution_cfg=cfg.actor.distribution_cfg,
    )
    with make_cart(3, pictures=True) as env:
        cfg = replace(cfg, actor=actor_cfg)
        actor, onnx, script = exported(env, cfg, tmp_path)
        env.reset(seed=0)
        obs = {group: env.get_observations()[group] for group in groups}
        compare(actor, onnx, script, obs, limit=0.1)
        for file in (onnx, script):
            torch.testing.assert_close(load_agent(file, env)(obs), actor(obs).clamp(-0.1, 0.1))


def test_the_description_has_what_a_robot_needs(tmp_path):
    arm = arm_cfg(
        articulation=EntityArticulationInfoCfg(
            actuators=(
                IdealPdActuatorCfg(
                    target_names_expr=("elbow",), stiffness=7.0, damping=0.7, effort_limit=4.0
                ),
                BuiltinPositionActuatorCfg(
                    target_names_expr=("shoulder", "wrist"),
                    stiffness=5.0,
                    damping=0.5,
                    effort_limit=6.0,
                ),
            )
        )
    )
    terms = {
        "pos": ObservationTermCfg(func=mdp.joint_pos_rel, scale=(2.0, 3.0, 4.0), clip=(-1.0, 1.0)),
        "one": ObservationTermCfg(
            func=mdp.joint_pos_rel,
            params={"asset_cfg": SceneEntityCfg("robot", joint_names=("e.*",))},
        ),
        "vel": ObservationTermCfg(func=mdp.joint_vel_rel, history_length=2, delay_max_lag=1),
        "action": ObservationTermCfg(func=mdp.last_action),
    }
    action = mdp.JointPositionActionCfg(
        entity_name="robot",
        actuator_names=("elbow", "shoulder", "wrist"),
        scale={"elbow": 0.5, "shoulder": 0.123456789},
        clip={"wrist": (-1.0, 2.0)},
        preserve_order=True,
    )
    env = make_env(
        entities={"robot": arm},
        actions={"joint_pos": action},
        observations={"actor": ObservationGroupCfg(terms)},
    )
    cfg = learner_cfg()
    _, onnx, script = exported(env, cfg, tmp_path / "a_run")
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    stored = session.get_modelmeta().custom_metadata_map
    # JSON has no infinity, and programs in other languages refuse it.
    described = json.loads(stored["mjlab_rec"], parse_constant=pytest.fail)
    with zipfile.ZipFile(script) as archive:
        name = next(name for name in archive.namelist() if name.endswith("mjlab_rec.json"))
        assert json.loads(archive.read(name)) == described

    robot = env.scene["robot"]
    assert described["format"] == 1 and described["task"] == "t"
    assert described["checkpoint"] == "model_7.pt" and described["iteration"] == 7
    assert described["run"] == "a_run" and described["clip_actions"] == 0.1
    assert described["control_frequency_hz"] == pytest.approx(1.0 / env.step_dt)
    assert described["inputs"] == {"obs": ["batch", 13]} and described["outputs"] == ["actions"]
    group = described["observation_groups"]["actor"]
    assert group["shape"] == [13]
    pos, one, vel, last = group["terms"]
    assert [term["name"] for term in group["terms"]] == ["pos", "one", "vel", "action"]
    assert [term["shape"] for term in group["terms"]] == [[3], [1], [6], [3]]
    assert pos["scale"] == [2.0, 3.0, 4.0] and pos["clip"] == [-1.0, 1.0]
    assert vel["history_length"] == 2 and vel["delay_steps"] == [0, 1] and vel["scale"] is None
    assert pos["function"] == "mjlab_rec.envs.mdp.observations:joint_pos_rel"
    assert last["history_length"] == 0 and one["entity"] == "robot" and one["joints"] == ["elbow"]
    (term,) = described["actions"]
    assert term["class"] == "JointPositionAction" and term["entity"] == "robot"
    assert term["targets"] == ["elbow", "shoulder", "wrist"] and term["size"] == 3
    assert term["scale"] == pytest.approx([0.5, 0.123456789, 1.0])
    assert term["offset"] == pytest.approx([-0.4, 0.3, 0.0])
    assert term["clip"] == {"wrist": [-1.0, 2.0]}
    entity = described["entities"]["robot"]
    assert entity["joint_names"] == list(robot.joint_names) == ["shoulder", "elbow", "wrist"]
    assert entity["default_joint_pos"] == pytest.approx([0.3, -0.4, 0.0])
    assert [None, None] in entity["joint_pos_limits"]  # Without limits.
    assert entity["actuated_joints"] == ["shoulder", "elbow", "wrist"]
    assert entity["stiffness"] == pytest.approx([5.0, 7.0, 5.0])
    assert entity["damping"] == pytest.approx([0.5, 0.7, 0.5])
    assert entity["effort_limits"] == [6.0, 4.0, 6.0]
    # What programs for mjlab's files look for.
    assert stored["joint_names"] == "shoulder,elbow,wrist"
    assert stored["joint_stiffness"] == "5.000,7.000,5.000"
    assert stored["observation_names"] == "pos,one,vel,action"
    env.close()


def test_motors_have_no_gains(tmp_path):
    with make_cart(1) as env:
        _, onnx, _ = exported(env, learner_cfg("lstm"), tmp_path)
    stored = onnxruntime.InferenceSession(str(onnx)).get_modelmeta().custom_metadata_map
    assert list(stored) == ["mjlab_rec"]  # mjlab's keys are for joint positions.
    described = json.loads(stored["mjlab_rec"])
    entity = described["entities"]["robot"]
    assert entity["actuated_joints"] == ["slider"]
    assert entity["stiffness"] == [0.0] and entity["damping"] == [0.0]
    assert described["state_shapes"] == {"h": [2, 8], "c": [2, 8]}
    assert described["outputs"] == ["actions", "h_out", "c_out"]
    assert described["inputs"]["c_in"] == [2, "batch", 8]
    commands = [t["command"] for t in described["observation_groups"]["actor"]["terms"]]
    assert commands == [None, None, None, "goal", None] and described["commands"] == ["goal"]


def test_the_command_writes_checked_files(tmp_path, capsys):
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.registry import load_env_cfg

    cfg = learner_cfg()
    with ManagerBasedRlEnv(load_env_cfg("cartpole-balance")) as env:
        infos = {"agent": json.loads(json.dumps(asdict(cfg))), "task": "cartpole-balance"}
        path = save(make_runner(env, cfg), tmp_path / "run" / "model_7.pt", **infos)
    command.main(["--task", "cartpole-balance", "--agent", str(path.parent)])
    said = capsys.readouterr().out
    assert (
        f"agent {path} (iteration 7)" in said and said.count("its actions differ by at most") == 2
    )
    names = sorted(p.name for p in (tmp_path / "run" / "exported").iterdir())
    assert names == ["policy.jit", "policy.onnx"]
    words = ["--task", "cartpole-balance", "--agent", str(path), "--format", "onnx"]
    command.main([*words, "--output", str(tmp_path / "out"), "--name", "mine"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.onnx"]
    capsys.readouterr()
    for agent in ("zero", str(tmp_path / "out" / "mine.onnx")):
        with pytest.raises(SystemExit):
            command.main(["--task", "cartpole-balance", "--agent", agent])
        assert "is no checkpoint of a training" in capsys.readouterr().err.replace("\n", " ")


def test_a_file_that_acts_differently_is_found(tmp_path):
    with make_cart(2) as env:
        _, onnx, _ = exported(env, learner_cfg(), tmp_path)
        agent = load_agent(tmp_path / "model_7.pt", env)
        with torch.no_grad():
            agent.model.mlp[0].weight.add_(0.3)
        with pytest.raises(ValueError, match="policy.onnx does not do what the policy does"):
            command.check(agent, onnx, env, "t")
