"""Policies from checkpoints, TorchScript and ONNX files: what they do, and what is refused."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_worlds import NETWORKS, learner_cfg, make_env, make_runner, save

from mjlab_rec.managers import CurriculumTermCfg
from mjlab_rec.rl import RslRlModelCfg
from mjlab_rec.rl.agents import agent_maker, load_agent
from mjlab_rec.rl.checkpoints import CheckpointError
from mjlab_rec.rl.run_folders import NoCheckpointError, write_cfgs
from mjlab_rec.utils.extras import MissingExtraError

pytest.importorskip("rsl_rl", reason="needs rsl-rl-lib: pip install 'mjlab_rec[train]'")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

TASK = "cart"


@pytest.fixture(scope="module")
def env():
    with make_env() as env:
        env.reset()
        yield env


def plain(cfg: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(cfg)))


def alone(actor: Any, observations: list[Any], dones: list[torch.Tensor], limit: float) -> Any:
    """Actions of RSL-RL's network for one environment after the other, (steps, envs, n)."""
    columns = []
    for index in range(len(dones[0])):
        actor.reset()
        column = []
        for obs, done in zip(observations, dones, strict=True):
            action = actor({group: value[index : index + 1] for group, value in obs.items()})
            column.append(action.detach().clamp(-limit, limit))
            if done[index]:
                actor.reset()
        columns.append(torch.cat(column))
    actor.reset()
    return torch.stack(columns, dim=1)


def play(env: Any, agents: list[Any], steps: int = 14) -> tuple[list[Any], ...]:
    """Step with the first agent; what all saw, what ended, and what each did."""
    obs, _ = env.reset(seed=4)
    observations, dones, actions = [], [], []
    for agent in agents:
        agent.reset()
    for _ in range(steps):
        observations.append({"actor": obs["actor"]})
        actions.append([agent(obs) for agent in agents])
        obs, _, terminated, truncated, _ = env.step(actions[-1][0])
        dones.append(terminated | truncated)
        for agent in agents:
            agent.reset(dones[-1])
    return observations, dones, actions


@pytest.mark.parametrize("network", NETWORKS)
def test_all_formats_do_what_the_network_does_for_each_environment_alone(network, env, tmp_path):
    pytest.importorskip("onnxruntime")
    from mjlab_rec.rl.export import export_agent

    cfg = learner_cfg(network)
    runner = make_runner(env, cfg)
    path = save(runner, tmp_path / "model_7.pt", agent=plain(cfg), task=TASK)
    agents = [load_agent(path, env, TASK)]
    agents += [load_agent(file, env, TASK) for file in export_agent(agents[0], env, tmp_path)]
    # Those of RSL-RL are made for one robot, and remember its episode themselves.
    runner.export_policy_to_jit(str(tmp_path), "theirs.pt")
    runner.export_policy_to_onnx(str(tmp_path), "theirs.onnx")
    theirs = [tmp_path / "theirs.pt", tmp_path / "theirs.onnx"]
    agents += [load_agent(file, env, TASK, rl_cfg=cfg) for file in theirs]
    assert [agent.is_recurrent for agent in agents] == [network != "mlp"] * 5

    observations, dones, actions = play(env, agents)
    assert sum(int(done.sum()) for done in dones) > 4
    actor = runner.alg.get_policy().eval()
    expected = alone(actor, observations, dones, limit=0.1)
    assert float(expected.std()) > 0.02 and float(expected.abs().max()) == pytest.approx(0.1)
    for number, agent in enumerate(agents):
        found = torch.stack([step[number] for step in actions])
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5, msg=repr(agent))


def test_an_episode_that_ends_is_forgotten_in_its_environment_only(env, tmp_path):
    cfg = learner_cfg("gru")
    path = save(make_runner(env, cfg), tmp_path / "model_7.pt", agent=plain(cfg))
    agent, fresh = load_agent(path, env), load_agent(path, env)
    obs = env.get_observations()
    for _ in range(3):
        agent(obs)
    agent.reset(torch.tensor([False, True, False, True]))
    differs = (agent(obs) != fresh(obs)).any(dim=1)
    assert differs.tolist() == [True, False, True, False]
    agent.reset()
    assert torch.equal(agent(obs), load_agent(path, env)(obs))


def test_the_network_is_described_by_the_file_its_folder_or_the_task(env, tmp_path):
    cfg = learner_cfg()
    runner = make_runner(env, cfg)
    run = tmp_path / "cart" / "2026-01-02_00-00-00"
    bare = save(runner, run / "model_7.pt")
    with pytest.raises(CheckpointError, match="does not describe its network.*register_task"):
        load_agent(bare, env, TASK)
    by_task = load_agent(bare, env, TASK, rl_cfg=cfg)
    write_cfgs(run, TASK, cfg, {})
    wrong = replace(cfg, actor=RslRlModelCfg(hidden_dims=(3,)))
    by_folder = load_agent(run, env, TASK, rl_cfg=wrong)
    full = save(runner, tmp_path / "alone" / "model_7.pt", agent=plain(cfg), task=TASK)
    by_file = load_agent(full, env, TASK, rl_cfg=wrong)
    obs = env.get_observations()
    assert by_file.iteration == 7
    for agent in (by_folder, by_file):
        assert torch.equal(agent(obs), by_task(obs))
    assert load_agent("latest", env, TASK, root=tmp_path).path == run / "model_7.pt"
    best = save(runner, run / "model_best.pt")
    assert load_agent("best", env, TASK, root=tmp_path).path == best


@pytest.mark.parametrize("curricula", [True, False])
def test_a_checkpoint_is_played_as_its_curricula_left_the_terms_if_there_are_any(
    tmp_path, curricula
):
    def push(env: Any, env_ids: Any) -> None:
        if env.common_step_counter >= 480:
            env.reward_manager.get_term_cfg("effort").weight = -0.7

    path, terms = tmp_path / "model_7.pt", {"push": CurriculumTermCfg(func=push)}
    with make_env(curriculum=terms) as env:
        runner = make_runner(env, learner_cfg("gru"))
        env.common_step_counter = 480
        env.reset()
        runner.save(str(path))
        obs = env.get_observations()
        expected = runner.get_inference_policy()(obs).clamp(-0.1, 0.1)
    with make_env(curriculum=terms if curricula else {}) as env:
        weight = env.reward_manager.get_term_cfg("effort").weight
        agent = load_agent(path, env)
        assert env.common_step_counter == (480 if curricula else 0)
        left = env.reward_manager.get_term_cfg("effort").weight
        assert left == (-0.7 if curricula else weight) != 0.0
        assert agent.is_recurrent and torch.equal(agent(obs), expected)


def test_loading_draws_no_random_numbers(env, tmp_path):
    cfg = learner_cfg()
    path = save(make_runner(env, cfg), tmp_path / "model_7.pt", agent=plain(cfg))
    before = torch.get_rng_state()
    load_agent(path, env)
    assert torch.equal(before, torch.get_rng_state())


def test_a_student_of_a_distillation_is_played(env, tmp_path):
    cfg = learner_cfg()
    runner = make_runner(env, cfg)
    described = plain(cfg)
    described["student"] = described.pop("actor")
    described["obs_groups"] = {"student": ["actor"], "teacher": ["actor"]}
    weights = runner.alg.get_policy().state_dict()
    path = tmp_path / "model_3.pt"
    infos = {"agent": described}
    torch.save({"student_state_dict": weights, "iter": 3, "infos": infos}, path)
    obs = env.get_observations()
    whole = save(runner, tmp_path / "whole.pt", agent=plain(cfg))
    assert torch.equal(load_agent(path, env)(obs), load_agent(whole, env)(obs))


def test_a_checkpoint_of_an_older_rsl_rl_is_played(env, tmp_path):
    cfg = learner_cfg()
    runner = make_runner(env, replace(cfg, actor=replace(cfg.actor, obs_normalization=False)))
    actor = runner.alg.get_policy()
    rename = {"distribution.std_param": "std"}
    old = {rename.get(k, k.replace("mlp.", "actor.")): v for k, v in actor.state_dict().items()}
    path = tmp_path / "model_5.pt"
    torch.save({"model_state_dict": old, "iter": 5, "infos": None}, path)
    agent = load_agent(
        path, env, TASK, rl_cfg=replace(cfg, actor=replace(cfg.actor, obs_normalization=False))
    )
    obs = env.get_observations()
    torch.testing.assert_close(agent(obs), actor.eval()(obs).clamp(-0.1, 0.1))


# What is refused.


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_nothing_is_unpickled(env, tmp_path):
    path, touched = tmp_path / "model_1.pt", tmp_path / "touched"
    torch.save({"actor_state_dict": {}, "infos": Trap(touched)}, path)
    with pytest.raises(CheckpointError, match="Python objects other than tensors"):
        load_agent(path, env, TASK)
    assert not touched.exists()


@pytest.mark.parametrize("name", ["os:system", "subprocess.Popen", "rsl_rl.modules:MLP"])
def test_a_file_cannot_name_what_is_called(name, env, tmp_path):
    cfg = learner_cfg()
    runner = make_runner(env, cfg)
    described = plain(cfg)
    described["actor"]["distribution_cfg"]["class_name"] = name
    path = save(runner, tmp_path / "model_1.pt", agent=described)
    with pytest.raises(CheckpointError, match="which is no Distribution"):
        load_agent(path, env)
    described = plain(cfg)
    described["actor"]["class_name"] = "this_module_is_not_loaded.nets:Net"
    path = save(runner, tmp_path / "model_2.pt", agent=described)
    with pytest.raises(CheckpointError, match="Import 'this_module_is_not_loaded' first"):
        load_agent(path, env)


def test_what_differs_in_a_checkpoint_of_another_task_is_told(env, tmp_path):
    cfg = learner_cfg()
    runner = make_runner(env, cfg)
    runner._about["task"] = "sled"
    path = tmp_path / "model_1.pt"
    runner.save(str(path))
    size = env.get_observations()["actor"].shape[1]
    other = make_env(1)
    other_cfg = other.cfg
    del other_cfg.observations["actor"].terms["goal"]
    other.close()
    from mjlab_rec.envs import ManagerBasedRlEnv

    with ManagerBasedRlEnv(other_cfg) as other:
        message = (
            rf"does not fit the task 'cart': it is of the task 'sled'.*observation group 'actor' is"
            rf" \[{size}\] there and \[{size - 1}\] here.*mlp.0.weight is \(16, {size}\) there and"
            rf" \(16, {size - 1}\) here"
        )
        with pytest.raises(CheckpointError, match=message):
            load_agent(path, other, TASK)
    described = plain(cfg)
    described["obs_groups"]["actor"] = ["eyes"]
    path = save(make_runner(env, cfg), tmp_path / "model_2.pt", agent=described, task="sled")
    with pytest.raises(CheckpointError, match=r"'sled', sees the observation groups \['eyes'\]"):
        load_agent(path, env, TASK)
    described = plain(cfg)
    described["actor"]["hidden_dims"] = [16]
    path = save(make_runner(env, cfg), tmp_path / "model_3.pt", agent=described, task=TASK)
    with pytest.raises(
        CheckpointError, match=r"actor mlp.4.weight is \(1, 16\) there and missing here"
    ):
        load_agent(path, env, TASK)


def test_a_task_with_the_same_shapes_is_played_with_a_warning(env, tmp_path, caplog):
    cfg = learner_cfg()
    path = save(make_runner(env, cfg), tmp_path / "model_1.pt", agent=plain(cfg), task="sled")
    load_agent(path, env, TASK)
    assert "trained on 'sled' plays another task, 'cart'" in caplog.text


def test_files_that_are_no_policies_are_refused(env, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "x.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="x.pt cannot be read as a checkpoint"):
        load_agent(path, env, TASK)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="x.pt is not a checkpoint of RSL-RL: it holds list"):
        load_agent(path, env, TASK)
    torch.save({"weights": 1}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of RSL-RL: it holds weights"):
        load_agent(path, env, TASK)
    whole = save(make_runner(env, learner_cfg()), tmp_path / "model_1.pt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_agent(path, env, TASK)
    (tmp_path / "x.onnx").write_bytes(b"not onnx")
    with pytest.raises(CheckpointError, match="x.onnx cannot be read as ONNX"):
        load_agent(tmp_path / "x.onnx", env, TASK)
    with pytest.raises(NoCheckpointError, match="no checkpoint 'model_9.pt'"):
        load_agent("model_9.pt", env, TASK)


def test_exported_policies_of_another_task_are_refused(env, tmp_path):
    pytest.importorskip("onnxruntime")
    runner = make_runner(env, learner_cfg())
    runner.export_policy_to_onnx(str(tmp_path), "theirs.onnx")
    runner.export_policy_to_jit(str(tmp_path), "theirs.pt")
    with make_env(1) as template:
        other_cfg = template.cfg
    del other_cfg.observations["actor"].terms["goal"]
    from mjlab_rec.envs import ManagerBasedRlEnv

    with ManagerBasedRlEnv(other_cfg) as other:
        with pytest.raises(CheckpointError, match=r"inputs are {'obs': \[15\]}.*actor \(14\)"):
            load_agent(tmp_path / "theirs.onnx", other, TASK)
        with pytest.raises(CheckpointError, match=r"does not fit the environment.*actor \(14\)"):
            load_agent(tmp_path / "theirs.pt", other, TASK)


def test_an_onnx_file_for_another_number_of_robots_is_refused(env, tmp_path):
    pytest.importorskip("onnxruntime")
    actor = make_runner(env, learner_cfg()).alg.get_policy().as_onnx(verbose=False).eval()
    example, path = torch.zeros(16, 15), tmp_path / "sixteen.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(actor, (example,), str(path), dynamo=False)
    with pytest.raises(CheckpointError, match="takes 16 robots at a time, and there are"):
        load_agent(path, env, TASK)


def test_onnx_files_need_a_package_that_is_named(env, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = tmp_path / "x.onnx"
    path.touch()
    with pytest.raises(MissingExtraError, match="'onnxruntime': pip install onnxruntime"):
        load_agent(path, env, TASK)


def test_names_and_files_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zero").mkdir()  # The name of a policy means the policy.
    assert agent_maker("zero", TASK)[1] is None
    assert agent_maker("rl_worlds:make_runner", TASK)[1] is None
    (tmp_path / "model").touch()
    assert agent_maker("model", TASK)[1] == Path("model")
    for name in ("runs/model_1.pt", "best", "model.onnx", "some/run"):
        with pytest.raises(NoCheckpointError):
            agent_maker(name, TASK)
    with pytest.raises(ValueError, match="Unknown agent 'lastest'. Did you mean 'latest'?"):
        agent_maker("lastest", TASK)
