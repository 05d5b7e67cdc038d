"""The tracking task: motions and their sources, the command that plays them, rewards and ends."""

from __future__ import annotations

import contextlib
import copy
import math
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.data import open_rollouts
from mjlab_rec.entity import EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.state import load_state, save_state
from mjlab_rec.managers import TerminationTermCfg
from mjlab_rec.recorders import Hdf5RecorderCfg
from mjlab_rec.registry import load_env_cfg, load_rl_cfg
from mjlab_rec.sim.debug_visualizer import shapes_of
from mjlab_rec.utils.math import quat_from_angle_axis, quat_from_euler_xyz, quat_mul
from tasks.robots.biped import biped_cfg
from tasks.tracking import make_motion, mdp
from tasks.tracking.examples import EXAMPLES
from tasks.tracking.kinematics import Robot
from tasks.tracking.mdp.sampling import FailureBins
from tasks.tracking.motion import ARRAYS, Motion, MotionError
from tasks.tracking.sources import load_motion, motion_from_rollout

REWARDS = (
    "motion_global_root_pos",
    "motion_global_root_ori",
    "motion_body_pos",
    "motion_body_ori",
    "motion_body_lin_vel",
    "motion_body_ang_vel",
)


@pytest.fixture(scope="module")
def robot() -> Robot:
    return Robot(biped_cfg())


@pytest.fixture(scope="module")
def squat(robot) -> Motion:
    return EXAMPLES["squat"](robot)


def env_cfg(num_envs: int = 1, motion: str = "step", play: bool = True) -> ManagerBasedRlEnvCfg:
    cfg = load_env_cfg("tracking-biped", play=play)
    cfg.scene.num_envs, cfg.scene.env_spacing, cfg.seed = num_envs, 3.0, 0
    cfg.sim.engine = "mjbatch"
    cfg.commands["motion"].motion_file = str(motion)
    return cfg


def command_of(env: ManagerBasedRlEnv) -> mdp.MotionCommand:
    return env.command_manager.get_term("motion")  # pyright: ignore[reportReturnType]


def rate(env: ManagerBasedRlEnv, name: str) -> torch.Tensor:
    term = env.reward_manager.get_term_cfg(name)
    return term.func(env, **term.params)


def put(env: ManagerBasedRlEnv, frame: int) -> mdp.MotionCommand:
    """Put all robots exactly into a frame that they should have."""
    command = command_of(env)
    command.reset_to_frame(torch.arange(env.num_envs), frame)
    env.sim.forward()
    return command


def moved(env: ManagerBasedRlEnv, pos=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)) -> None:
    """Move and turn all robots, without changing their joints."""
    data = env.scene["robot"].data
    quat = quat_from_euler_xyz(*torch.tensor(turn)).expand(env.num_envs, 4)
    pose = torch.cat(
        (data.root_link_pos_w + torch.tensor(pos), quat_mul(quat, data.root_link_quat_w)), dim=1
    )
    env.scene["robot"].write_root_link_pose_to_sim(pose)
    env.sim.forward()


def no_action(env: ManagerBasedRlEnv) -> torch.Tensor:
    return torch.zeros(env.num_envs, 29)


def equal(left: Motion, right: Motion, atol: float = 1e-5) -> None:
    assert left.joint_names == right.joint_names and left.body_names == right.body_names
    for name in ARRAYS:
        torch.testing.assert_close(
            getattr(left, name), getattr(right, name), atol=atol, rtol=1e-5, msg=name
        )


# Motions


def test_velocities_are_those_of_the_positions(squat):
    step = 1.0 / squat.fps
    for what in ("body_pos_w", "joint_pos"):
        speed = "body_lin_vel_w" if what == "body_pos_w" else "joint_vel"
        moved = (getattr(squat, what)[2:] - getattr(squat, what)[:-2]) / (2 * step)
        torch.testing.assert_close(getattr(squat, speed)[1:-1], moved, atol=2e-2, rtol=0.0)
    assert squat.joint_vel.abs().max() > 1.0


def test_a_turning_robot_has_its_angular_velocity_in_every_body(robot):
    time = torch.arange(51, dtype=torch.float64) / 50
    axis = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    axis /= axis.norm()
    quat = quat_from_angle_axis(2.0 * time, axis.expand(51, 3))
    pos = torch.stack((time, -0.5 * time, 0.0 * time + 1.0), dim=1)
    motion = robot.motion(50.0, pos, quat, torch.zeros(51, 29, dtype=torch.float64))
    wanted = (2.0 * axis).float().expand(51, 30, 3)
    torch.testing.assert_close(motion.body_ang_vel_w, wanted, atol=1e-4, rtol=0.0)
    arm = motion.body_pos_w - motion.body_pos_w[:, :1]
    linear = torch.tensor([1.0, -0.5, 0.0]) + torch.linalg.cross(wanted, arm)
    torch.testing.assert_close(motion.body_lin_vel_w, linear, atol=1e-3, rtol=0.0)


def test_resampling_keeps_time_and_turns_at_constant_speed(robot):
    time = torch.arange(31, dtype=torch.float64) / 30
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(31, 3)
    joints = time[:, None] * torch.linspace(0.0, 0.5, 29, dtype=torch.float64)
    motion = robot.motion(30.0, up, quat_from_angle_axis(3.0 * time, up), joints).resampled(50.0)
    assert len(motion) == 51 and motion.duration_s == pytest.approx(1.0)
    now = torch.arange(51, dtype=torch.float64) / 50
    wanted = quat_from_angle_axis(3.0 * now, up[:1].expand(51, 3)).float()
    torch.testing.assert_close(motion.body_quat_w[:, 0], wanted, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(motion.joint_pos[:, -1], (0.5 * now).float(), atol=1e-5, rtol=0.0)
    assert motion.resampled(50.0) is motion


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_keep_to_limits_and_their_feet_on_the_ground(name, robot):
    motion = EXAMPLES[name](robot)
    limits = torch.from_numpy(robot.model.jnt_range[1:]).float()
    middle, half = limits.mean(dim=1), 0.45 * (limits[:, 1] - limits[:, 0])
    assert ((motion.joint_pos - middle).abs() <= half).all()
    data = mujoco.MjData(robot.model)
    lowest = []
    for frame in range(0, len(motion), 5):
        data.qpos[:3], data.qpos[3:7] = motion.body_pos_w[frame, 0], motion.body_quat_w[frame, 0]
        data.qpos[7:] = motion.joint_pos[frame]
        mujoco.mj_forward(robot.model, data)
        assert data.ncon == 0, "the robot touches itself"
        lowest.append(min(data.site("left_foot").xpos[2], data.site("right_foot").xpos[2]))
    np.testing.assert_allclose(lowest, 0.0, atol=1e-6)


# Files


def table_of(motion: Motion) -> np.ndarray:
    """A motion as the rows of a CSV table."""
    quat = motion.body_quat_w[:, 0].roll(-1, dims=1)
    return torch.cat((motion.body_pos_w[:, 0], quat, motion.joint_pos), dim=1).numpy()


def write_csv(path, table: np.ndarray):
    np.savetxt(path, table, delimiter=",", fmt="%.9g")
    return path


def test_a_file_and_a_table_of_a_motion_give_the_motion_back(squat, tmp_path):
    squat.save(tmp_path / "squat.npz")
    equal(load_motion(tmp_path / "squat.npz", biped_cfg()), squat, atol=0.0)
    table = write_csv(tmp_path / "squat.csv", table_of(squat))
    equal(load_motion(table, biped_cfg(), csv_fps=50.0), squat, atol=1e-4)


def test_files_of_mjlab_which_have_no_names_are_read(squat, tmp_path):
    arrays = {name: getattr(squat, name).numpy() for name in ARRAYS}
    np.savez(tmp_path / "motion.npz", fps=[50], **arrays)
    equal(load_motion(tmp_path / "motion.npz", biped_cfg()), squat, atol=0.0)


def test_names_in_a_file_are_put_into_the_order_of_the_robot(squat, tmp_path):
    mixed = squat.of_robot(squat.joint_names[::-1], squat.body_names[::-1])
    mixed.save(tmp_path / "mixed.npz")
    equal(load_motion(tmp_path / "mixed.npz", biped_cfg()), squat, atol=0.0)


def test_the_script_cuts_and_resamples(tmp_path, capsys, squat):
    out = tmp_path / "part.npz"
    make_motion.main(["squat", str(out), "--start-s", "1", "--end-s", "3", "--fps", "25"])
    part = load_motion(out, biped_cfg())
    assert (part.fps, len(part)) == (25.0, 51)
    torch.testing.assert_close(part.joint_pos[0], squat.joint_pos[50])
    assert "2.00 s, 51 frames" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        make_motion.main(["sqat", str(out)])
    assert "Did you mean 'squat'?" in capsys.readouterr().err


def spoilt(table: np.ndarray, row: int, column: int, value: float) -> np.ndarray:
    table = table.copy()
    table[row, column] = value
    return table


BAD_TABLES = {
    "has 35 columns, but 36 are needed": lambda t: t[:, :-1],
    "too short: it has 2 frames": lambda t: t[:2],
    "in frame 7 the length differs from 1 by": lambda t: spoilt(t, 7, 6, 2.0),
    "not finite in frame 9, in the robot's joints": lambda t: spoilt(t, 9, 20, math.nan),
    "not finite in frame 4, in the root's position": lambda t: spoilt(t, 4, 1, math.inf),
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_bad_tables_are_refused(message, squat, tmp_path):
    path = write_csv(tmp_path / "bad.csv", BAD_TABLES[message](table_of(squat)))
    with pytest.raises(MotionError, match=message):
        load_motion(path, biped_cfg())


BAD_FILES = {
    "no joint 'left_hip_pitch_joint' .1 of 29 are missing.. Did you mean": {
        "joint_names": lambda v: np.array(["left_hip_pich_joint", *v[1:]])
    },
    "no body 'pelvis'": {"body_names": lambda v: np.array(["base", *v[1:]])},
    "'joint_pos' has the shape .401, 28., but 401 frames of 29 joints need": {
        "joint_pos": lambda v: v[:, 1:]
    },
    "'body_quat_w' has quaternions that are no rotations": {"body_quat_w": lambda v: 0.5 * v},
    "'joint_vel' has a number that is not finite, in frame 3": {
        "joint_vel": lambda v: spoilt(v, 3, 3, math.nan)
    },
    "fps must be a positive number": {"fps": lambda v: v * 0},
}


@pytest.mark.parametrize("message", BAD_FILES)
def test_bad_motion_files_are_refused(message, squat, tmp_path):
    squat.save(tmp_path / "bad.npz")
    arrays = dict(np.load(tmp_path / "bad.npz"))
    for name, change in BAD_FILES[message].items():
        arrays[name] = change(arrays[name])
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(MotionError, match=message):
        load_motion(tmp_path / "bad.npz", biped_cfg())


def test_motions_that_do_not_exist_or_do_not_fit_are_refused(tmp_path):
    with pytest.raises(MotionError, match="neither a file nor an example. Did you mean 'squat'"):
        load_motion("sqaut", biped_cfg())
    header = tmp_path / "header.csv"
    header.write_text("x,y,z\n1,2,3\n")
    with pytest.raises(MotionError, match="neither a motion file, nor a CSV table of numbers"):
        load_motion(header, biped_cfg())
    box = EntityCfg(spec_fn=lambda: mujoco.MjSpec.from_string(BOX))
    with pytest.raises(MotionError, match="need the joint 'left_hip_pitch_joint'"):
        load_motion("squat", box)
    fixed = EntityCfg(spec_fn=lambda: mujoco.MjSpec.from_string(BOX.replace("<freejoint/>", "")))
    with pytest.raises(MotionError, match="floating base"):
        load_motion("squat", fixed)


BOX = "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"


# Recordings


@pytest.mark.parametrize("kind", ["state", "entity"])
def test_a_recording_becomes_the_motion_that_it_shows(kind, tmp_path):
    fields = ("root_link_pose_w", "root_link_vel_w", "joint_pos", "joint_vel")
    channels = ["state"] if kind == "state" else [f"entity/robot/{name}" for name in fields]
    path = tmp_path / "run.h5"
    cfg = env_cfg(num_envs=2)
    cfg.terminations = {}
    seen = ["entity/robot/body_link_pose_w", "entity/robot/body_link_vel_w"]
    cfg.recorders = {"rollout": Hdf5RecorderCfg(path=str(path), channels=(*channels, *seen))}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for step in range(40):
            env.step(torch.full((2, 29), 0.3 * math.sin(0.5 * step)))
        origin = env.scene.env_origins[1].tolist()
    with open_rollouts(path) as rollouts:
        motion = motion_from_rollout(rollouts, Robot(biped_cfg()), episode=1, origin=origin)
        row = rollouts[1]
    pose, velocity = (torch.from_numpy(row[name]) for name in seen)
    assert motion.fps == pytest.approx(50.0)
    near = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(motion.body_pos_w, pose[..., :3] - torch.tensor(origin), **near)
    torch.testing.assert_close(motion.body_quat_w.abs(), pose[..., 3:].abs(), **near)
    torch.testing.assert_close(motion.body_lin_vel_w, velocity[..., :3], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(motion.body_ang_vel_w, velocity[..., 3:], atol=1e-3, rtol=1e-3)

    # The command plays it: the robot gets exactly into the recorded states.
    with ManagerBasedRlEnv(env_cfg(motion=str(path))) as env:
        env.reset()
        put(env, 25)
        data = env.scene["robot"].data
        start = torch.from_numpy(rollouts_start(path))
        expected = torch.from_numpy(first_episode(path)[seen[0]][25]) - start
        found = data.body_link_pose_w[0]
        torch.testing.assert_close(found[:, :3], expected[:, :3], **near)
        torch.testing.assert_close(found[:, 3:].abs(), expected[:, 3:].abs(), **near)


def first_episode(path) -> dict[str, np.ndarray]:
    with open_rollouts(path) as rollouts:
        return rollouts[0]


def rollouts_start(path) -> np.ndarray:
    """Where the root is in the first row, on the ground: the motion begins at the origin."""
    pose = first_episode(path)["entity/robot/body_link_pose_w"][0, 0]
    return np.array([pose[0], pose[1], 0, 0, 0, 0, 0], np.float32)


def test_recordings_that_do_not_tell_are_refused(tmp_path):
    cfg = env_cfg()
    path = tmp_path / "run.h5"
    cfg.recorders = {"rollout": Hdf5RecorderCfg(path=str(path), channels=("reward", "action"))}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for _ in range(5):
            env.step(no_action(env))
    with pytest.raises(MotionError, match="Record the channel 'state'.*It has: reward, action"):
        load_motion(path, biped_cfg())


# The command


def test_a_reference_that_is_tracked_exactly_gives_the_full_reward():
    with ManagerBasedRlEnv(env_cfg(num_envs=3)) as env:
        env.reset()
        for frame in (0, 150, 301):
            put(env, frame)
            for name in REWARDS:
                torch.testing.assert_close(rate(env, name), torch.ones(3), atol=1e-4, rtol=0.0)
            # Each robot is in the place of its environment.
            off = (
                env.scene["robot"].data.root_link_pos_w
                - command_of(env).motion.body_pos_w[frame, 0]
            )
            torch.testing.assert_close(off, env.scene.env_origins, atol=1e-5, rtol=0.0)
            assert env.scene.env_origins.unique(dim=0).shape[0] == 3


def test_drift_and_heading_cost_only_the_global_rewards():
    with ManagerBasedRlEnv(env_cfg(num_envs=2)) as env:
        env.reset()
        put(env, 150)
        moved(env, pos=(0.3, -0.4, 0.0), turn=(0.0, 0.0, 0.5))
        wanted = math.exp(-(0.5**2) / 0.3**2)
        assert rate(env, "motion_global_root_ori")[0] < 0.3
        # The anchor is almost above the root, about which the robot was turned.
        assert rate(env, "motion_global_root_pos")[0] == pytest.approx(wanted, abs=0.02)
        for name in ("motion_body_pos", "motion_body_ori"):
            torch.testing.assert_close(rate(env, name), torch.ones(2), atol=1e-3, rtol=0.0)
        moved(env, pos=(0.0, 0.0, 0.3))
        torch.testing.assert_close(
            rate(env, "motion_body_pos"), torch.full((2,), math.exp(-1.0)), atol=1e-3, rtol=0.0
        )


def test_episodes_step_through_the_motion_and_end_with_it():
    cfg = env_cfg(num_envs=2, motion="wave")
    cfg.terminations = {
        "motion_ended": TerminationTermCfg(
            func=mdp.motion_ended, time_out=True, params={"command_name": "motion"}
        )
    }
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        command, data = command_of(env), env.scene["robot"].data
        torch.testing.assert_close(data.joint_pos[0], command.motion.joint_pos[0])
        for frame in (*range(1, 6), *range(291, 301)):
            if frame == 291:
                put(env, 290)
                command.update(torch.tensor([], dtype=torch.long))
            # What is seen now is where the robot should be after the next step.
            assert command.time_steps.tolist() == [frame, frame]
            torch.testing.assert_close(command.command[1, :29], command.motion.joint_pos[frame])
            _, _, terminated, truncated, _ = env.step(no_action(env))
            assert truncated.all() == (frame == 300)
            assert not terminated.any()
        # The next episodes began in the same step.
        assert command.time_steps.tolist() == [1, 1]
        torch.testing.assert_close(data.joint_pos[0], command.motion.joint_pos[0])
        assert command.metrics["error_body_pos"].max() < 1e-3


def test_without_the_termination_the_last_frame_remains():
    cfg = env_cfg(motion="wave")
    cfg.terminations = {}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        command = put(env, 299)
        for _ in range(5):
            env.step(no_action(env))
        assert command.time_steps.item() == 300


def test_motions_play_at_the_control_rate(tmp_path, squat):
    squat.resampled(20.0).save(tmp_path / "slow.npz")
    with ManagerBasedRlEnv(env_cfg(motion=str(tmp_path / "slow.npz"))) as env:
        motion = command_of(env).motion
        assert len(motion) == 401 and motion.fps == pytest.approx(50.0)
        torch.testing.assert_close(motion.joint_pos, squat.joint_pos, atol=5e-3, rtol=0.0)


def test_starts_are_noisy_and_do_not_depend_on_other_environments():
    def starts(env_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        with ManagerBasedRlEnv(env_cfg(num_envs=6, play=False)) as env:
            env.reset()
            env.reset(env_ids=torch.tensor(env_ids))
            command = command_of(env)
            frames, joints = command.time_steps.clone(), env.scene["robot"].data.joint_pos.clone()
            off = (joints - command.motion.joint_pos[frames - 1]).abs()
            assert 0.05 < off.max() < 0.1001 and len(set(frames.tolist())) > 3
            data, begun = env.scene["robot"].data, frames - 1
            kick = data.root_link_lin_vel_w - command.motion.body_lin_vel_w[begun, 0]
            shift = data.root_link_pos_w - command.motion.body_pos_w[begun, 0]
            assert 0.1 < kick.abs().max() < 0.5001
            assert 0.01 < (shift - env.scene.env_origins).abs().max() < 0.0501
            return frames, joints

    few, many = starts([1, 4]), starts([0, 1, 2, 4, 5])
    for left, right in zip(few, many, strict=True):
        torch.testing.assert_close(left[[1, 3, 4]], right[[1, 3, 4]], rtol=0, atol=0)
        assert not torch.equal(left[0], right[0])


def test_noisy_starts_keep_within_the_soft_limits():
    cfg = env_cfg(num_envs=4, play=False)
    cfg.commands["motion"].joint_position_range = (-3.0, 3.0)
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        data = env.scene["robot"].data
        low, high = data.soft_joint_pos_limits.unbind(dim=-1)
        assert ((data.joint_pos > low - 1e-5) & (data.joint_pos < high + 1e-5)).all()
        assert ((data.joint_pos - low).abs() < 1e-5).any()


def test_a_command_that_expires_puts_the_robot_elsewhere_with_current_poses():
    cfg = env_cfg(motion="wave")
    cfg.commands["motion"].resampling_time_range = (0.1, 0.1)
    cfg.commands["motion"].sampling_mode = "uniform"
    with ManagerBasedRlEnv(cfg) as env:
        env.reset(seed=2)
        command = command_of(env)
        jumps = 0
        for _ in range(20):
            before = command.time_steps.item()
            env.step(no_action(env))
            if command.time_steps.item() != before + 1:
                jumps += 1
                wanted = command.motion.body_pos_w[command.time_steps - 1, :-1]
                torch.testing.assert_close(command.robot_body_pos_w, wanted, atol=1e-4, rtol=0.0)
        assert jumps == 4


def test_wrong_names_and_modes_are_refused():
    for field, value, message in (
        ("anchor_body_name", "torso", "anchor 'torso' must be one of body_names. Did you mean"),
        ("sampling_mode", "adaptve", "Unknown sampling_mode 'adaptve'. Did you mean 'adaptive'"),
        ("pose_range", {"w": (0.0, 1.0)}, "Unknown range 'w'"),
        ("adaptive_uniform_ratio", 0.0, "adaptive_uniform_ratio > 0"),
    ):
        cfg = env_cfg()
        setattr(cfg.commands["motion"], field, value)
        with pytest.raises((ValueError, KeyError), match=message):
            with ManagerBasedRlEnv(cfg) as env:
                env.reset()
    with (
        ManagerBasedRlEnv(env_cfg()) as env,
        pytest.raises(ValueError, match="'hand' is not track"),
    ):
        env.reset()
        mdp.motion_relative_body_position_error_exp(env, "motion", 0.3, ("hand",))


@pytest.mark.parametrize("mode", ["ghost", "frames"])
def test_the_motion_is_drawn(mode):
    cfg = env_cfg(num_envs=2)
    cfg.commands["motion"].viz.mode = mode
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        command = put(env, 40)
        state = env.sim.data.qpos[1].clone()
        moved(env, pos=(1.0, 0.0, 0.0))
        shapes = shapes_of(env, [1])
        if mode == "ghost":
            (ghost,) = shapes.ghosts
            np.testing.assert_allclose(ghost.qpos, state.numpy(), atol=1e-5)
        else:
            assert len(shapes) == 2 * 3 * len(command.cfg.body_names)
            wanted = command.body_pos_w[1, 0].numpy()
            assert np.abs(shapes.pos - wanted).sum(axis=1).min() < 1e-5


def test_the_web_page_chooses_a_frame_to_begin_at():
    clicks = []
    slider = SimpleNamespace(value=0)
    gui = SimpleNamespace(
        add_folder=lambda name: contextlib.nullcontext(),
        add_slider=lambda *args, **kwargs: slider,
        add_button=lambda name: SimpleNamespace(on_click=clicks.append),
    )
    asked = []
    with ManagerBasedRlEnv(env_cfg(num_envs=2)) as env:
        env.reset()
        command = command_of(env)
        env.command_manager.create_gui(
            SimpleNamespace(gui=gui), lambda: 0, request_action=lambda *action: asked.append(action)
        )
        slider.value = 77
        clicks[0](None)
        assert asked == [("CUSTOM", {"type": "gui_reset", "all_envs": True})]
        env.reset(options={"gui_reset": True})
        assert command.time_steps.tolist() == [78, 78]
        joints = env.scene["robot"].data.joint_pos
        torch.testing.assert_close(joints[1], command.motion.joint_pos[77])
        env.reset()
        assert command.time_steps.tolist() == [1, 1]


# Where episodes start


def bins(**kwargs) -> FailureBins:
    values = {"kernel_size": 1, "decay": 0.8, "uniform_ratio": 0.1, "alpha": 0.5, **kwargs}
    return FailureBins(500, 0.02, device="cpu", **values)


def test_starts_are_even_without_failures_and_go_where_failures_are():
    found = bins()
    even = found.draw(torch.linspace(0.0, 0.9999, 1000))
    torch.testing.assert_close(even, torch.linspace(0.0, 0.9999, 1000), atol=1e-5, rtol=0.0)
    assert found.entropy(found.probabilities()) == pytest.approx(1.0)
    count = len(found.failed)
    frames = torch.tensor([320, 321, 322, 10])
    for _ in range(10):
        found.count(frames, torch.tensor([True, True, True, False]))
    bad = 320 * count // 500
    assert found.probabilities().argmax() == bad
    starts = (
        found.draw(torch.rand(2000, generator=torch.Generator().manual_seed(0))) * count
    ).long()
    share = (starts == bad).float().mean()
    assert share == pytest.approx(3.0 / 3.1, abs=0.02)
    assert len(set(starts.tolist())) == count  # The rest is not forgotten.
    assert found.entropy(found.probabilities()) < 0.3
    found.count(frames, torch.zeros(4, dtype=torch.bool))
    assert found.failed.max() < 0.51 * 3.0  # What is no longer failed at is forgotten.


def test_a_kernel_spreads_starts_to_the_seconds_before():
    found = bins(kernel_size=3, decay=0.5, uniform_ratio=1e-6)
    found.count(torch.tensor([320]), torch.tensor([True]))
    bad = int(found.failed.argmax())
    chances = found.probabilities()
    torch.testing.assert_close(
        chances[bad - 2 : bad + 2], torch.tensor([1.0, 2.0, 4.0, 0.0]) / 7.0, atol=1e-4, rtol=0.0
    )


def test_robots_that_fail_in_one_second_start_there():
    def fails(env: ManagerBasedRlEnv) -> torch.Tensor:
        frame = command_of(env).time_steps
        return (frame >= 300) & (frame < 330)

    cfg = env_cfg(num_envs=64, play=False)
    cfg.terminations = {"fails": TerminationTermCfg(func=fails)}
    cfg.episode_length_s = 0.2
    cfg.commands["motion"].adaptive_alpha = 0.1
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        command = command_of(env)
        for _ in range(30):
            env.step(no_action(env))
        bad = 310 * len(command.failures.failed) // len(command.motion)
        assert abs(int(command.failures.failed.argmax()) - bad) <= 1
        env.reset()
        near = (command.time_steps - 310).abs() < 60
        assert near.float().mean() > 0.8
        assert command.metrics["sampling_top1_prob"][0] > 0.3


# Ends


@pytest.mark.parametrize(
    ("pos", "turn", "ends"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), set()),
        ((5.0, 0.0, 0.0), (0.0, 0.0, 2.0), set()),
        ((0.0, 0.0, -0.26), (0.0, 0.0, 0.0), {"anchor_pos", "ee_body_pos"}),
        ((0.0, 0.0, 0.0), (1.8, 0.0, 0.0), {"anchor_ori", "ee_body_pos"}),
    ],
)
def test_episodes_end_where_the_robot_lost_the_motion(pos, turn, ends):
    with ManagerBasedRlEnv(env_cfg()) as env:
        env.reset()
        put(env, 100)
        moved(env, pos=pos, turn=turn)
        found = {
            name
            for name, term in env.cfg.terminations.items()
            if name != "time_out" and term.func(env, **term.params).item()
        }
        assert found == ends


def test_a_lost_hand_ends_the_episode_alone():
    with ManagerBasedRlEnv(env_cfg(motion="squat")) as env:
        env.reset()
        put(env, 100)
        robot = env.scene["robot"]
        joints = robot.data.joint_pos
        joints[:, robot.joint_names.index("left_shoulder_pitch_joint")] -= 1.5
        robot.write_joint_position_to_sim(joints)
        env.sim.forward()
        ended = {
            name: bool(term.func(env, **term.params))
            for name, term in env.cfg.terminations.items()
            if name != "time_out"
        }
        assert ended == {
            "motion_ended": False,
            "anchor_pos": False,
            "anchor_ori": False,
            "ee_body_pos": True,
        }


# The task


def test_a_restored_environment_goes_on_with_the_same_frames_and_failures():
    def run(env: ManagerBasedRlEnv, steps: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        rows = [
            env.step(torch.randn(8, 29, generator=generator))[0]["critic"] for _ in range(steps)
        ]
        return torch.stack(rows)

    with ManagerBasedRlEnv(env_cfg(num_envs=8, play=False)) as env:
        env.reset()
        run(env, 30)
        saved = copy.deepcopy(save_state(env))
        after = run(env, 30)
        failed = command_of(env).failures.failed.clone()
        assert failed.max() > 0
    with ManagerBasedRlEnv(env_cfg(num_envs=8, play=False)) as env:
        env.reset()
        load_state(env, saved)
        torch.testing.assert_close(run(env, 30), after, rtol=0, atol=0)
        torch.testing.assert_close(command_of(env).failures.failed, failed, rtol=0, atol=0)


def test_the_task_runs_with_random_actions_and_has_a_learner():
    with ManagerBasedRlEnv(env_cfg(num_envs=16, play=False)) as env:
        obs, _ = env.reset()
        assert obs["actor"].shape == (16, 160) and obs["critic"].shape == (16, 286)
        ended = torch.zeros(16, dtype=torch.bool)
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            action = torch.randn(16, 29, generator=generator)
            obs, reward, terminated, truncated, _ = env.step(action)
            ended |= terminated
            assert reward.isfinite().all() and obs["critic"].isfinite().all()
        assert ended.any()
    cfg = load_rl_cfg("tracking-biped")
    assert cfg.actor.obs_normalization
