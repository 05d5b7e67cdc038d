"""Actuators computed by a network: its inputs, its limits, resets, and files that do not fit."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from entity_worlds import ARM, build, entity, scramble
from test_mdp_no_waits import check
from torch import nn

from mjlab_rec.actuator import LearnedMlpActuator, LearnedMlpActuatorCfg
from mjlab_rec.actuator.dc_actuator import dc_motor_clip

JOINTS = ("shoulder", "elbow")


def save(path: Path, network: nn.Module) -> str:
    """Write a network as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))
    return str(path)


def mlp(width: int, out: int = 1) -> nn.Module:
    """A small network with reproducible weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 8), nn.Softsign(), nn.Linear(8, out))


def learned(file: str | Path, **fields: Any) -> LearnedMlpActuatorCfg:
    values: dict[str, Any] = {
        "target_names_expr": JOINTS,
        "network_file": str(file),
        "pos_scale": 2.0,
        "vel_scale": 0.3,
        "torque_scale": 40.0,
        "saturation_effort": 30.0,
        "velocity_limit": 8.0,
        "effort_limit": 10.0,
    }
    return LearnedMlpActuatorCfg(**(values | fields))


class Model:
    """The same actuator, one joint and world at a time, from the definition."""

    def __init__(self, network: nn.Module, cfg: LearnedMlpActuatorCfg) -> None:
        self.network, self.cfg = network, cfg
        self.errors: dict[tuple[int, int], list[float]] = {}
        self.speeds: dict[tuple[int, int], list[float]] = {}

    def torque(self, world: int, joint: int, error: float, speed: float) -> float:
        cfg, key = self.cfg, (world, joint)
        for history, value in ((self.errors, error), (self.speeds, speed)):
            if key not in history:
                history[key] = [value] * cfg.history_length
            history[key] = [value, *history[key][:-1]]
        errors = [cfg.pos_scale * value for value in self.errors[key]]
        speeds = [cfg.vel_scale * value for value in self.speeds[key]]
        row = errors + speeds if cfg.input_order == "pos_vel" else speeds + errors
        with torch.no_grad():
            torque = self.network(torch.tensor([row])).item() * cfg.torque_scale
        limits = [torch.tensor(v) for v in (30.0, 8.0, 10.0)]
        return dc_motor_clip(torch.tensor(torque), *limits, torch.tensor(speed)).item()

    def forget(self, world: int) -> None:
        for history in (self.errors, self.speeds):
            for key in [key for key in history if key[0] == world]:
                del history[key]


@pytest.mark.parametrize("order", ["pos_vel", "vel_pos"])
@pytest.mark.parametrize("length", [1, 3])
def test_torques_equal_the_definition_also_after_a_reset(tmp_path: Path, order: Any, length: int):
    network = mlp(2 * length)
    file = save(tmp_path / "net.pt", network)
    cfg = learned(file, input_order=order, history_length=length)
    scene, sim = build(num_envs=3, entities={"robot": entity(ARM, cfg)})
    robot, model = scene["robot"], Model(network, cfg)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        if step == 4:
            robot.reset(torch.tensor([1]))
            model.forget(1)
        if step == 5:
            robot.reset(slice(2, 3))
            model.forget(2)
        scramble(sim, scene, seed=step)
        target = 4.0 * torch.rand(3, 2, generator=generator) - 2.0
        robot.set_joint_position_target(target)
        robot.write_data_to_sim()
        q, v = robot.data.joint_pos, robot.data.joint_vel
        expected = [
            [model.torque(i, j, (target - q)[i, j].item(), v[i, j].item()) for j in range(2)]
            for i in range(3)
        ]
        torch.testing.assert_close(sim.data.ctrl, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_all_joints_and_worlds_are_one_call(tmp_path: Path):
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.register_buffer("rows", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1.0
            self.rows += float(x.shape[0])
            return x[:, :1]

    cfg = learned(save(tmp_path / "net.pt", Counting()))
    scene, _ = build(num_envs=5, entities={"robot": entity(ARM, cfg)})
    network = scene["robot"].actuators[0].network
    before = network.calls.item(), network.rows.item()
    scene.write_data_to_sim()
    assert (network.calls.item() - before[0], network.rows.item() - before[1]) == (1.0, 10.0)


def test_the_limits_are_those_of_the_dc_motor(tmp_path: Path):
    class Strong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(x.shape[0], 1, device=x.device)

    cfg = learned(save(tmp_path / "net.pt", Strong()), torque_scale=1000.0)
    scene, sim = build(num_envs=3, entities={"robot": entity(ARM, cfg)})
    sim.data.qvel.copy_(torch.tensor([[0.0], [8.0], [7.0]]).expand(3, 2))
    scene.write_data_to_sim()
    expected = torch.tensor([[10.0], [0.0], [30.0 / 8.0]]).expand(3, 2)
    torch.testing.assert_close(sim.data.ctrl, expected, rtol=1e-5, atol=1e-5)


def test_the_command_can_be_delayed(tmp_path: Path):
    class First(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1]

    file = save(tmp_path / "net.pt", First())
    cfg = learned(file, pos_scale=1.0, torque_scale=1.0, delay_min_lag=1, delay_max_lag=1)
    scene, sim = build(num_envs=2, entities={"robot": entity(ARM, cfg)})
    seen = []
    for target in (0.1, 0.2, 0.3):
        scene["robot"].data.joint_pos_target.fill_(target)
        scene.write_data_to_sim()
        seen.append(sim.data.ctrl[0, 0].item())
    assert seen == pytest.approx([0.1, 0.1, 0.2])


@pytest.mark.parametrize("shape", [(4, 1), (6, 2)])
def test_a_network_of_the_wrong_shape_is_an_error_at_construction(
    tmp_path: Path, shape: tuple[int, int]
):
    file = save(tmp_path / "net.pt", mlp(*shape))
    with pytest.raises(ValueError, match=r"It must map \(rows, 6\) to \(rows, 1\)") as error:
        entity(ARM, learned(file)).build()
    given = "first layer takes 4 numbers" if shape[0] == 4 else "returns (3, 2) for 3 rows"
    assert given in str(error.value) and file in str(error.value)


def test_files_that_are_no_network_are_an_error_at_construction(tmp_path: Path):
    missing = tmp_path / "missing.pt"
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(missing))}' does not exist"):
        entity(ARM, learned(missing)).build()
    with pytest.raises(FileNotFoundError, match="is a folder"):
        entity(ARM, learned(tmp_path)).build()
    weights, text = tmp_path / "weights.pt", tmp_path / "text.pt"
    torch.save(mlp(6).state_dict(), weights)
    text.write_text("hello")
    for path in (weights, text):
        with pytest.raises(ValueError, match="is not a TorchScript file .* Save the network with"):
            entity(ARM, learned(path)).build()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"history_length": 0}, "history_length must be positive, got 0"),
        ({"input_order": "vel"}, "input_order must be 'pos_vel' or 'vel_pos', got 'vel'"),
        ({"velocity_limit": 0.0}, "saturation_effort and velocity_limit must be positive"),
    ],
)
def test_impossible_settings_are_an_error(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        learned("net.pt", **fields)


def test_a_gpu_would_not_have_to_wait(tmp_path: Path):
    cfg = learned(save(tmp_path / "net.pt", mlp(6)))
    scene, _ = build(entities={"robot": entity(ARM, cfg)})
    check(scene["robot"].write_data_to_sim)
    rows = torch.tensor([0, 2])

    def reset_and_write() -> None:
        scene["robot"].reset(rows)
        scene["robot"].write_data_to_sim()

    check(reset_and_write)


def test_it_is_computed_in_every_physics_step(tmp_path: Path):
    cfg = learned(save(tmp_path / "net.pt", mlp(6)))
    scene, _ = build(entities={"robot": entity(ARM, cfg)})
    actuator = scene["robot"].actuators[0]
    assert isinstance(actuator, LearnedMlpActuator)
    assert not scene["robot"].constant_between_substeps
