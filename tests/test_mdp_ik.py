"""The inverse-kinematics action, against MuJoCo's Jacobians and an independent model in numpy."""

from __future__ import annotations

import re
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from entity_worlds import DOG, build, entity, reference, scramble
from test_mdp_no_waits import check

from mjlab_rec.actuator import BuiltinPositionActuatorCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import DifferentialIKAction, DifferentialIKActionCfg, observations
from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg

ENGINES = ["mjbatch", "warp"]
_AXES = ("0 0 1", "0 1 0", "0 0 1", "0 1 0", "0 0 1", "0 1 0", "0 0 1")


def _arm() -> str:
    """A robot arm of seven joints with a hand, a lid on its base, and a flag on its pole."""
    bodies = "".join(
        f"""<body name="link{i}" pos="0.02 0 0.15">
          <joint name="joint{i}" axis="{axis}" range="-1.5 1.5" damping="1" armature="0.1"/>
          <geom name="geom{i}" size="0.03" mass="0.2" contype="0" conaffinity="0"/>"""
        for i, axis in enumerate(_AXES)
    )
    hand = """<site name="hand" pos="0.1 0 0.05" euler="0.4 -0.3 0.9"/>
      <geom name="palm" type="box" pos="0.05 0.02 0" euler="0.2 0.5 0.1" size="0.02 0.03 0.04"
            mass="0.1" contype="0" conaffinity="0"/>"""
    return f"""<mujoco>
      <compiler angle="radian"/>
      <worldbody>
        <body name="base">
          <geom name="foot" type="box" size="0.1 0.1 0.02" contype="0" conaffinity="0"/>
          {bodies}{hand}{"</body>" * len(_AXES)}
          <body name="lid" pos="0 0.3 0">
            <joint name="lid" axis="1 0 0"/><geom size="0.02" contype="0" conaffinity="0"/>
          </body>
        </body>
      </worldbody>
    </mujoco>"""


ARM = _arm()
FRAMES = [("body", "link6"), ("site", "hand"), ("geom", "palm")]
JOINTS = ("joint.*",)
SERVO = BuiltinPositionActuatorCfg(
    target_names_expr=("joint.*", "lid"), stiffness=200.0, damping=20.0
)


def make_env(num_envs: int = 3, engine: Any = "mjbatch", decimation: int = 2, **cfg: Any) -> Any:
    """An environment whose arm is moved by one IK term."""
    values: dict[str, Any] = {
        "entity_name": "robot",
        "actuator_names": JOINTS,
        "frame_type": "site",
        "frame_name": "hand",
    }
    joints = ObservationTermCfg(func=observations.joint_pos)
    env = ManagerBasedRlEnv(
        ManagerBasedRlEnvCfg(
            decimation=decimation,
            seed=0,
            scene=SceneCfg(num_envs=num_envs, entities={"robot": entity(ARM, SERVO, soft=0.5)}),
            sim=SimulationCfg(
                engine=engine, mujoco=MujocoCfg(timestep=0.005, gravity=(0.0, 0.0, 0.0))
            ),
            observations={"actor": ObservationGroupCfg({"pos": joints})},
            actions={"ik": DifferentialIKActionCfg(**(values | cfg))},
        )
    )
    env.reset()
    return env


def term_of(env: ManagerBasedRlEnv) -> DifferentialIKAction:
    term = env.action_manager.get_term("ik")
    assert isinstance(term, DifferentialIKAction)
    return term


# Jacobians.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("with_base", [False, True])
def test_jacobians_equal_those_of_mujoco(engine: str, with_base: bool):
    scene, sim = build(entities={"arm": entity(ARM, SERVO), "dog": entity(DOG)}, engine=engine)
    scramble(sim, scene)
    model = sim.mj_model
    body = model.body("dog/rl_shank" if with_base else "arm/link4").id
    jacobian = sim.jacobian(body)
    point = torch.rand(4, 3, generator=torch.Generator().manual_seed(2))
    shift, turn = jacobian.compute(point)
    assert shift.shape == turn.shape == (4, model.nv, 3)
    moving = set()
    for world in range(4):
        jacp, jacr = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        data = reference(sim, world)
        mujoco.mj_jac(model, data, jacp, jacr, point[world].double().numpy(), body)
        np.testing.assert_allclose(shift[world].numpy().T, jacp, atol=2e-6)
        np.testing.assert_allclose(turn[world].numpy().T, jacr, atol=2e-6)
        moving |= set(np.nonzero(np.abs(jacp).sum(0) + np.abs(jacr).sum(0))[0].tolist())
    assert moving == {i for i, moves in enumerate(jacobian.moving) if moves}
    chosen = [int(model.jnt_dofadr[j]) for j in range(model.njnt)][::-1]
    some, _ = sim.jacobian(body, chosen).compute(point)
    torch.testing.assert_close(some, shift[:, chosen])


@pytest.mark.parametrize("engine", ENGINES)
def test_jacobians_date_from_the_same_moment_as_positions(engine: str):
    scene, sim = build(num_envs=2, entities={"arm": entity(ARM, SERVO)}, engine=engine)
    scramble(sim, scene)
    sim.data.qvel.mul_(5.0)
    model = sim.mj_model
    body = model.body("arm/link6").id
    jacobian = sim.jacobian(body)
    before = [reference(sim, world) for world in range(2)]
    sim.step()
    point = sim.data.xpos[:, body].clone()
    shift, _ = jacobian.compute(point)
    for world, data in enumerate(before):
        np.testing.assert_allclose(point[world].numpy(), data.xpos[body], atol=2e-6)
        jacp = np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, jacp, None, data.xpos[body], body)
        np.testing.assert_allclose(shift[world].numpy().T, jacp, atol=5e-6)


# The action.


class Model:
    """The same action for one world at a time, by MuJoCo's functions and numpy's least squares."""

    def __init__(self, env: ManagerBasedRlEnv, cfg: DifferentialIKActionCfg) -> None:
        self.env, self.cfg, self.model = env, cfg, env.sim.mj_model
        names = [f"robot/joint{i}" for i in range(len(_AXES))]
        self.joints = [self.model.joint(name).id for name in names]
        self.dofs = [int(self.model.jnt_dofadr[j]) for j in self.joints]
        kind, name = cfg.frame_type, f"robot/{cfg.frame_name}"
        self.frame = getattr(self.model, kind)(name).id
        self.body = (
            self.frame if kind == "body" else getattr(self.model, f"{kind}_bodyid")[self.frame]
        )

    def pose(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        prefix = {"body": "x", "site": "site_x", "geom": "geom_x"}[self.cfg.frame_type]
        pos = getattr(data, f"{prefix}pos")[self.frame].copy()
        return pos, getattr(data, f"{prefix}mat")[self.frame].reshape(3, 3).copy()

    def goal(self, world: int, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cfg, (pos, mat) = self.cfg, self.pose(reference(self.env.sim, world))
        if not cfg.use_relative_mode:
            if len(action) == 7:
                mat = np.zeros(9)
                mujoco.mju_quat2Mat(mat, action[3:] / np.linalg.norm(action[3:]))
                mat = mat.reshape(3, 3)
            return action[:3], mat
        if len(action) == 6:
            turn = action[3:] * cfg.delta_ori_scale
            quat, rotation = np.zeros(4), np.zeros(9)
            mujoco.mju_axisAngle2Quat(quat, turn / np.linalg.norm(turn), np.linalg.norm(turn))
            mujoco.mju_quat2Mat(rotation, quat)
            mat = rotation.reshape(3, 3) @ mat
        return pos + action[:3] * cfg.delta_pos_scale, mat

    def dq(self, world: int, goal: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        cfg, data = self.cfg, reference(self.env.sim, world)
        pos, mat = self.pose(data)
        jacp, jacr = np.zeros((3, self.model.nv)), np.zeros((3, self.model.nv))
        mujoco.mj_jac(self.model, data, jacp, jacr, pos, self.body)
        quat, turn = np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(quat, (goal[1] @ mat.T).ravel())
        mujoco.mju_quat2Vel(turn, quat, 1.0)
        q = data.qpos[[self.model.jnt_qposadr[j] for j in self.joints]]
        eye, n = np.eye(len(q)), len(q)
        hard = self.model.jnt_range[self.joints]
        middle, half = hard.mean(1), 0.5 * np.diff(hard)[:, 0]
        back = np.clip(q, middle - 0.5 * half, middle + 0.5 * half) - q
        preferred = np.zeros(n)
        for name, value in (cfg.posture_target or {}).items():
            for i in range(n):
                if re.fullmatch(name, f"joint{i}"):
                    preferred[i] = value
        blocks = [
            (cfg.position_weight, jacp[:, self.dofs], goal[0] - pos),
            (cfg.orientation_weight, jacr[:, self.dofs], turn),
            (cfg.joint_limit_weight, eye[back != 0.0], back[back != 0.0]),
            (cfg.posture_weight, eye, preferred - q),
            (cfg.damping, eye, np.zeros(n)),
        ]
        rows = np.concatenate([weight * jac for weight, jac, _ in blocks])
        side = np.concatenate([weight * error for weight, _, error in blocks])
        return np.clip(np.linalg.lstsq(rows, side)[0], -cfg.max_dq, cfg.max_dq)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    "fields",
    [
        {"delta_pos_scale": 0.3, "delta_ori_scale": 0.7},
        {"use_relative_mode": False},
        {"orientation_weight": 0.0},
        {"orientation_weight": 0.0, "use_relative_mode": False, "damping": 0.0},
        {"position_weight": 0.0, "orientation_weight": 0.4},
        {"joint_limit_weight": 3.0, "position_weight": 2.0},
        {"posture_weight": 0.5, "posture_target": {"joint[12]": 0.4}, "max_dq": 0.1},
    ],
)
def test_displacements_equal_an_independent_model(frame: tuple[Any, str], fields: dict[str, Any]):
    env = make_env(frame_type=frame[0], frame_name=frame[1], **fields)
    term = term_of(env)
    model = Model(env, term.cfg)
    generator = torch.Generator().manual_seed(4)
    env.sim.data.qpos.copy_(2.4 * torch.rand(env.sim.data.qpos.shape, generator=generator) - 1.2)
    env.sim.forward()
    action = 0.6 * torch.randn(3, term.action_dim, generator=generator)
    term.process_actions(action)
    goals = [model.goal(world, action[world].double().numpy()) for world in range(3)]
    for _ in range(2):
        dq = term.compute_dq()
        expected = np.stack([model.dq(world, goals[world]) for world in range(3)])
        np.testing.assert_allclose(dq.numpy(), expected, atol=2e-4, rtol=1e-3)
        # The goal stays where it is while the arm moves.
        env.scene["robot"].write_joint_position_to_sim(
            env.scene["robot"].data.joint_pos[:, term.target_ids] + dq, joint_ids=term.target_ids
        )
        env.sim.forward()
    env.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_hand_arrives_at_the_commanded_pose(engine: str):
    env = make_env(engine=engine, use_relative_mode=False, frame_type="body", frame_name="link6")
    robot, term = env.scene["robot"], term_of(env)
    goal_q = torch.tensor([0.3, 0.5, -0.4, 0.6, 0.2, -0.5, 0.1])
    start = robot.data.joint_pos.clone()
    robot.write_joint_position_to_sim(goal_q.expand(3, 7), joint_ids=term.target_ids)
    env.sim.forward()
    pos, quat = term.frame_pos.clone(), term.frame_quat.clone()
    robot.write_joint_position_to_sim(start)
    env.sim.forward()
    action = torch.cat((pos, 2.0 * quat), dim=1)  # Quaternions of any length will do.
    for _ in range(150):
        env.step(action)
    torch.testing.assert_close(term.frame_pos, pos, atol=2e-3, rtol=0.0)
    aligned = (term.frame_quat * quat).sum(-1).abs()
    torch.testing.assert_close(aligned, torch.ones(3), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(term.desired_quat.abs(), quat.abs(), atol=1e-5, rtol=0.0)
    env.close()


def test_targets_are_set_in_every_physics_step():
    env = make_env(decimation=4, use_relative_mode=False, orientation_weight=0.0)
    robot, term = env.scene["robot"], term_of(env)
    seen: list[torch.Tensor] = []
    write = robot.write_data_to_sim
    robot.write_data_to_sim = lambda: (seen.append(robot.data.joint_pos_target.clone()), write())
    env.step(term.frame_pos + 0.1)
    assert len(seen) == 4
    for earlier, later in zip(seen, seen[1:], strict=False):
        assert not torch.equal(earlier, later)
    # Joints outside the term keep their targets.
    lid = robot.joint_names.index("lid")
    assert all(bool((targets[:, lid] == 0.0).all()) for targets in seen)
    env.close()


def test_worlds_do_not_influence_each_other():
    moves = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    together, alone = make_env(num_envs=5), make_env(num_envs=1)
    for _ in range(5):
        together.step(moves)
        alone.step(moves[3:4])
    state = together.sim.data.qpos[3], alone.sim.data.qpos[0]
    torch.testing.assert_close(*state, rtol=0.0, atol=1e-6)
    together.close()
    alone.close()


def test_a_reset_forgets_the_action():
    env = make_env()
    term = term_of(env)
    env.step(torch.ones(3, 6))
    term.reset(torch.tensor([0, 2]))
    assert term.raw_action[:, 0].tolist() == [0.0, 1.0, 0.0]
    env.close()


def test_a_gpu_would_not_have_to_wait():
    for fields in (
        {"joint_limit_weight": 1.0, "posture_weight": 1.0},
        {"use_relative_mode": False},
        {"orientation_weight": 0.0},
    ):
        env = make_env(**fields)
        term = term_of(env)
        action = torch.ones(3, term.action_dim)
        check(lambda term=term, action=action: term.process_actions(action))
        check(term.apply_actions)
        env.close()


def test_singular_poses_and_no_damping_stay_finite():
    env = make_env(damping=0.0, delta_pos_scale=5.0)
    term = term_of(env)  # All links in one line, where many joints have the same effect.
    term.process_actions(torch.ones(3, 6))
    dq = term.compute_dq()
    assert bool(dq.isfinite().all()) and bool((dq.abs() <= 0.5).all()) and bool(dq.abs().any())
    env.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frame_name": "hnad"}, r"frame_name: Looking for sites .*'hnad'.*hand"),
        (
            {"frame_type": "geom", "frame_name": "geom.*"},
            "frame_name 'geom.*' matches several geoms",
        ),
        (
            {"frame_type": "body", "frame_name": "lid"},
            "none of the joints joint0, .* moves the body 'lid'. Choose a frame on the arm",
        ),
        (
            {"posture_weight": 1.0, "posture_target": {"elbow": 0.0}},
            "posture_target: No name matches 'elbow'",
        ),
    ],
)
def test_frames_that_cannot_be_moved_are_an_error(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"DifferentialIKActionCfg of .*'robot': {message}"):
        make_env(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frame_type": "joint"}, r"frame_type is 'joint'; it must be one of \('body', 'site'"),
        ({"posture_weight": -1.0}, "{'posture_weight': -1.0} must not be negative"),
        ({"position_weight": 0.0, "orientation_weight": 0.0}, "are both 0"),
        ({"max_dq": 0.0}, "max_dq must be positive, got 0.0"),
        ({"clip": {".*": (-1.0, 1.0)}}, "takes no clip"),
    ],
)
def test_impossible_settings_are_an_error(fields: dict[str, Any], message: str):
    values: dict[str, Any] = {"entity_name": "robot", "actuator_names": JOINTS}
    with pytest.raises(ValueError, match=message):
        DifferentialIKActionCfg(**({**values, "frame_name": "hand"} | fields))


def test_the_modules_have_the_names_that_tasks_import():
    from mjlab_rec.envs.mdp.actions import actions, differential_ik, joints

    assert actions.JointPositionAction is joints.JointPositionAction
    assert differential_ik.DifferentialIKAction is DifferentialIKAction
