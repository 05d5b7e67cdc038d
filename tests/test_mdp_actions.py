"""Action terms: what the policy's numbers become in targets and in ctrl."""

from __future__ import annotations

from functools import partial
from typing import Any

import mujoco
import pytest
import torch
from mdp_worlds import ARM, arm_cfg, make_env, spec

from mjlab_rec.actuator import (
    BuiltinMotorActuatorCfg,
    BuiltinPositionActuatorCfg,
    BuiltinVelocityActuatorCfg,
    IdealPdActuatorCfg,
    TransmissionType,
    XmlActuatorCfg,
)
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.sim import MujocoCfg, SimulationCfg

JOINTS = ("shoulder", "elbow")


def arm_env(action: Any, **kwargs: Any) -> ManagerBasedRlEnv:
    return make_env(2, entities={"arm": arm_cfg()}, actions={"a": action}, **kwargs)


def ctrl_after(env: ManagerBasedRlEnv, action: list[list[float]]) -> torch.Tensor:
    env.step(torch.tensor(action))
    return env.sim.data.ctrl.clone()


def position(**kwargs: Any) -> mdp.JointPositionActionCfg:
    return mdp.JointPositionActionCfg(entity_name="arm", actuator_names=JOINTS, **kwargs)


def test_position_targets_start_at_the_default_positions():
    env = arm_env(position(scale=0.5))
    ctrl = ctrl_after(env, [[0.0, 0.0], [1.0, -2.0]])
    expected = torch.tensor([[0.3, -0.4], [0.3 + 0.5, -0.4 - 1.0]])
    torch.testing.assert_close(ctrl[:, :2], expected)


def test_scale_offset_and_clip_by_name_apply_in_this_order():
    env = arm_env(
        position(
            use_default_offset=False,
            scale={"elbow": 10.0},
            offset={"shoulder": 0.25},
            clip={"el.*": (-3.0, 4.0)},
        )
    )
    ctrl = ctrl_after(env, [[1.0, 0.2], [2.0, 1.0]])
    torch.testing.assert_close(ctrl[:, :2], torch.tensor([[1.25, 2.0], [2.25, 4.0]]))


def test_encoder_bias_is_taken_off_position_targets():
    env = arm_env(position())
    env.scene["arm"].data.encoder_bias[1, 0] = 0.05
    ctrl = ctrl_after(env, [[0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(ctrl[:, :2], torch.tensor([[0.3, -0.4], [0.25, -0.4]]))


def test_relative_targets_follow_the_joint_at_every_substep():
    cfg = mdp.RelativeJointPositionActionCfg(
        entity_name="arm", actuator_names=JOINTS, scale=0.1, clip={".*": (-0.05, 0.05)}
    )
    env = arm_env(cfg, decimation=1)
    before = env.scene["arm"].data.joint_pos[:, :2].clone()
    ctrl = ctrl_after(env, [[0.3, 9.0], [0.0, -9.0]])
    torch.testing.assert_close(ctrl[:, :2], before + torch.tensor([[0.03, 0.05], [0.0, -0.05]]))
    assert not env.action_manager.constant_between_substeps

    many = arm_env(cfg, decimation=5)
    one = arm_env(cfg, decimation=1)
    for _ in range(5):
        one.step(torch.full((2, 2), 0.3))
    many.step(torch.full((2, 2), 0.3))
    assert torch.equal(many.sim.data.qpos, one.sim.data.qpos)


def test_stock_terms_other_than_relative_are_constant_between_substeps():
    assert arm_env(position()).action_manager.constant_between_substeps


def test_effort_reaches_the_motor():
    env = arm_env(mdp.JointEffortActionCfg(entity_name="arm", actuator_names=("wrist",), scale=2.0))
    ctrl = ctrl_after(env, [[0.5], [-1.0]])
    torch.testing.assert_close(ctrl[:, 2], torch.tensor([1.0, -2.0]))


def test_velocity_targets_start_at_the_default_velocities():
    servo = BuiltinVelocityActuatorCfg(target_names_expr=("wrist",), damping=1.0)
    arm = arm_cfg(articulation=EntityArticulationInfoCfg(actuators=(servo,)))
    action = mdp.JointVelocityActionCfg(entity_name="arm", actuator_names=("wrist",), scale=3.0)
    env = make_env(2, entities={"arm": arm}, actions={"a": action})
    torch.testing.assert_close(ctrl_after(env, [[0.0], [1.0]]), torch.tensor([[0.1], [3.1]]))


def test_order_follows_the_model_unless_order_is_preserved():
    names = ("elbow", "shoulder")
    for preserve, expected in ((False, ["shoulder", "elbow"]), (True, ["elbow", "shoulder"])):
        cfg = mdp.JointPositionActionCfg(
            entity_name="arm", actuator_names=names, preserve_order=preserve
        )
        env = arm_env(cfg)
        assert env.action_manager.get_term("a").target_names == expected
        first = ctrl_after(env, [[1.0, 0.0], [1.0, 0.0]])[0, :2]
        moved = ["shoulder", "elbow"][int((first - torch.tensor([0.3, -0.4])).argmax())]
        assert moved == expected[0]


def test_tendon_and_site_actions_reach_their_actuators():
    thruster = ARM.replace('<site name="tip"/>', '<site name="tip"/><site name="jet"/>')
    arm = EntityCfg(
        spec_fn=spec(thruster),
        articulation=EntityArticulationInfoCfg(
            actuators=(
                BuiltinPositionActuatorCfg(
                    target_names_expr=("cord",),
                    transmission_type=TransmissionType.TENDON,
                    stiffness=1.0,
                    damping=0.1,
                ),
                BuiltinMotorActuatorCfg(
                    target_names_expr=("jet",),
                    transmission_type=TransmissionType.SITE,
                    effort_limit=5.0,
                ),
            )
        ),
    )
    actions = {
        "cord": mdp.TendonLengthActionCfg(entity_name="arm", actuator_names=("cord",), offset=0.5),
        "jet": mdp.SiteEffortActionCfg(entity_name="arm", actuator_names=("jet",), scale=2.0),
    }
    env = make_env(2, entities={"arm": arm}, actions=actions)
    assert env.sim.mj_model.actuator_trntype.tolist() == [
        mujoco.mjtTrn.mjTRN_TENDON,
        mujoco.mjtTrn.mjTRN_SITE,
    ]
    ctrl = ctrl_after(env, [[0.0, 1.0], [1.0, -1.0]])
    torch.testing.assert_close(ctrl, torch.tensor([[0.5, 2.0], [1.5, -2.0]]))


@pytest.mark.parametrize(
    ("cfg", "field"),
    [(mdp.TendonVelocityActionCfg, "tendon_vel"), (mdp.TendonEffortActionCfg, "tendon_effort")],
)
def test_tendon_velocity_and_effort_reach_their_targets(cfg: Any, field: str):
    motor = BuiltinMotorActuatorCfg(
        target_names_expr=("cord",), transmission_type=TransmissionType.TENDON, effort_limit=5.0
    )
    arm = arm_cfg(articulation=EntityArticulationInfoCfg(actuators=(motor,)))
    action = cfg(entity_name="arm", actuator_names=("cord",), scale=4.0)
    env = make_env(2, entities={"arm": arm}, actions={"a": action})
    env.step(torch.tensor([[0.5], [1.0]]))
    target = getattr(env.scene["arm"].data, f"{field}_target")
    torch.testing.assert_close(target[:, 0], torch.tensor([2.0, 4.0]))


def test_raw_action_is_kept_until_reset():
    env = arm_env(position(scale=0.5))
    env.step(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    term = env.action_manager.get_term("a")
    assert term.raw_action.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert mdp.last_action(env, "a").tolist() == [[1.0, 2.0], [3.0, 4.0]]
    env.reset(env_ids=torch.tensor([1]))
    assert term.raw_action.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def bounds(action: Any, *actuators: Any, **kwargs: Any) -> list[list[float]]:
    """Low and high of the action space of the arm with other actuators, or its own."""
    if actuators:
        arm = arm_cfg(articulation=EntityArticulationInfoCfg(actuators=actuators))
        env = make_env(2, entities={"arm": arm}, actions={"a": action}, **kwargs)
    else:
        env = arm_env(action, **kwargs)
    return [env.single_action_space.low.tolist(), env.single_action_space.high.tolist()]


INF = float("inf")


def test_bounds_of_an_effort_are_those_of_the_motor_as_the_action_is_scaled():
    effort = partial(mdp.JointEffortActionCfg, entity_name="arm", actuator_names=("wrist",))
    assert bounds(effort()) == [[-3.0], [3.0]]
    assert bounds(effort(scale=2.0, offset=1.0)) == [[-2.0], [1.0]]
    assert bounds(effort(scale=-2.0, offset=1.0)) == [[-1.0], [2.0]]
    assert bounds(effort(scale=2.0, clip={".*": (-1.0, 9.0)})) == [[-0.5], [1.5]]
    assert bounds(effort(scale=0.0, offset=5.0)) == [[-INF], [INF]]
    assert bounds(effort(clip={".*": (4.0, 5.0)})) == [[-INF], [INF]], "no action moves it"
    sim = SimulationCfg(engine="mjbatch", mujoco=MujocoCfg(disableflags=("clampctrl",)))
    assert bounds(effort(), sim=sim) == [[-INF], [INF]]


def test_position_targets_are_bounded_by_the_limits_of_the_joints():
    low, high = bounds(position(scale=0.5))
    assert low == pytest.approx([2 * (-2.0 - 0.3), 2 * (-1.0 + 0.4)]), "from the default positions"
    assert high == pytest.approx([2 * (2.0 - 0.3), 2 * (1.5 + 0.4)])
    wrist = partial(mdp.JointPositionActionCfg, entity_name="arm", actuator_names=("wrist",))
    assert bounds(wrist()) == [[-INF], [INF]], "the wrist has no limits"
    assert bounds(wrist(clip={".*": (-1.0, INF)})) == [[-1.0], [INF]]


def test_tendon_lengths_are_bounded_by_the_limits_of_the_tendon():
    servo = BuiltinPositionActuatorCfg(
        target_names_expr=("cord",),
        transmission_type=TransmissionType.TENDON,
        stiffness=1.0,
        damping=0.1,
    )
    action = mdp.TendonLengthActionCfg(entity_name="arm", actuator_names=("cord",), scale=-2.0)
    assert bounds(action, servo) == [[-INF], [INF]]
    limited = spec(ARM.replace('name="cord"', 'name="cord" range="-1 3"'))
    articulation = EntityArticulationInfoCfg(actuators=(servo,))
    arm = arm_cfg(spec_fn=limited, articulation=articulation)
    space = make_env(2, entities={"arm": arm}, actions={"a": action}).single_action_space
    assert (space.low.tolist(), space.high.tolist()) == ([-1.5], [0.5])


def test_velocity_targets_have_the_bounds_that_the_xml_gives():
    velocity = mdp.JointVelocityActionCfg(entity_name="arm", actuator_names=("wrist",))
    servo = BuiltinVelocityActuatorCfg(target_names_expr=("wrist",), damping=1.0)
    assert bounds(velocity, servo) == [[-INF], [INF]]
    xml = '<actuator><velocity joint="wrist" kv="9" ctrlrange="-2 3"/></actuator></mujoco>'
    arm = arm_cfg(
        spec_fn=spec(ARM.replace("</mujoco>", xml)),
        articulation=EntityArticulationInfoCfg(
            actuators=(XmlActuatorCfg(target_names_expr=(".*",)),)
        ),
    )
    env = make_env(2, entities={"arm": arm}, actions={"a": velocity})
    space = env.single_action_space
    assert (space.low.item(), space.high.item()) == pytest.approx((-2.1, 2.9)), "from 0.1"


@pytest.mark.parametrize("kind", [TransmissionType.SITE, TransmissionType.TENDON])
def test_efforts_of_sites_and_tendons_have_the_bounds_of_their_motors(kind: TransmissionType):
    at = "tip" if kind is TransmissionType.SITE else "cord"
    cfg = mdp.SiteEffortActionCfg if at == "tip" else mdp.TendonEffortActionCfg
    motor = BuiltinMotorActuatorCfg(
        target_names_expr=(at,), transmission_type=kind, effort_limit=5.0
    )
    action = cfg(entity_name="arm", actuator_names=(at,), scale=2.0)
    assert bounds(action, motor) == [[-2.5], [2.5]]


def test_tendon_velocities_have_no_bounds_but_a_clip():
    motor = BuiltinMotorActuatorCfg(
        target_names_expr=("cord",), transmission_type=TransmissionType.TENDON, effort_limit=5.0
    )
    cfg = partial(mdp.TendonVelocityActionCfg, entity_name="arm", actuator_names=("cord",))
    assert bounds(cfg(), motor) == [[-INF], [INF]]
    assert bounds(cfg(clip={".*": (-1.0, 2.0)}), motor) == [[-1.0], [2.0]]


@pytest.mark.parametrize(
    ("fields", "high"),
    [
        (dict(orientation_weight=0.0), [INF] * 3),
        (dict(delta_ori_scale=2.0), [INF] * 3 + [torch.pi / 2] * 3),
        (dict(delta_ori_scale=0.0), [INF] * 6),
        (dict(use_relative_mode=False), [INF] * 3 + [1.0] * 4),
    ],
)
def test_inverse_kinematics_bounds_orientations_only(fields: dict[str, Any], high: list[float]):
    cfg = mdp.DifferentialIKActionCfg(
        entity_name="arm", actuator_names=JOINTS, frame_type="site", frame_name="tip", **fields
    )
    low, found = bounds(cfg)
    assert found == pytest.approx(high) and low == pytest.approx([-value for value in high])


def test_targets_of_servos_are_bounded_by_the_clip_or_the_xml():
    clip = position(scale=0.5, clip={"elbow": (-1.4, 0.6)})
    low, high = bounds(clip)
    assert (low[1], high[1]) == pytest.approx((-1.2, 2.0)), "from -0.4, at half scale, limit -1"
    servo = '<actuator><position joint="shoulder" kp="9" ctrlrange="-1.7 2.3"/></actuator></mujoco>'
    arm = arm_cfg(
        spec_fn=spec(ARM.replace("</mujoco>", servo)),
        articulation=EntityArticulationInfoCfg(
            actuators=(XmlActuatorCfg(target_names_expr=(".*",)),)
        ),
    )
    action = mdp.JointPositionActionCfg(entity_name="arm", actuator_names=("shoulder",), scale=2.0)
    env = make_env(2, entities={"arm": arm}, actions={"a": action})
    space = env.single_action_space
    assert (space.low.item(), space.high.item()) == pytest.approx((-1.0, 1.0))
    within = ctrl_after(env, [[-1.0], [1.0]])
    torch.testing.assert_close(within, torch.tensor([[-1.7], [2.3]]))


def test_an_action_beyond_its_bounds_is_clipped():
    cfg = mdp.JointEffortActionCfg(entity_name="arm", actuator_names=("wrist",), scale=2.0)
    env = arm_env(cfg)
    assert env.single_action_space.high.tolist() == [1.5]
    env.step(torch.tensor([[1.5], [7.0]]))
    assert torch.equal(env.sim.data.qpos[0], env.sim.data.qpos[1])
    env.step(torch.tensor([[1.4], [1.5]]))
    assert not torch.equal(env.sim.data.qpos[0], env.sim.data.qpos[1])


def test_relative_targets_are_bounded_by_the_ways_between_limits_or_the_clip():
    relative = partial(mdp.RelativeJointPositionActionCfg, entity_name="arm")
    assert bounds(relative(actuator_names=JOINTS, scale=0.5)) == [[-8.0, -5.0], [8.0, 5.0]]
    clipped = relative(actuator_names=JOINTS, scale=0.5, clip={".*": (-1.0, 1.0)})
    assert bounds(clipped) == [[-2.0] * 2, [2.0] * 2]
    assert bounds(relative(actuator_names=("wrist",))) == [[-INF], [INF]]


def test_efforts_of_a_law_outside_of_mujoco_have_the_bounds_of_its_limit():
    law = IdealPdActuatorCfg(
        target_names_expr=("wrist",), stiffness=1.0, damping=1.0, effort_limit=3.0
    )
    effort = mdp.JointEffortActionCfg(entity_name="arm", actuator_names=("wrist",), scale=-2.0)
    assert bounds(effort, law) == [[-1.5], [1.5]]
    unlimited = IdealPdActuatorCfg(target_names_expr=("wrist",), stiffness=1.0, damping=1.0)
    assert bounds(effort, unlimited) == [[-INF], [INF]]


class Doubled(mdp.JointEffortAction):
    def apply_actions(self) -> None:
        target = 2.0 * self.processed_actions
        self._entity.set_joint_effort_target(target, joint_ids=self.target_ids)


class Squashed(mdp.JointEffortAction):
    def process_actions(self, actions: torch.Tensor) -> None:
        super().process_actions(actions.tanh())


@pytest.mark.parametrize("term", [Doubled, Squashed])
def test_terms_that_do_something_else_claim_no_bounds(term: Any):
    class Cfg(mdp.JointEffortActionCfg):
        def build(self, env: ManagerBasedRlEnv) -> mdp.JointEffortAction:
            return term(self, env)

    assert bounds(Cfg(entity_name="arm", actuator_names=("wrist",))) == [[-INF], [INF]]


def test_two_offsets_are_refused():
    with pytest.raises(ValueError, match="use_default_offset=False"):
        position(offset=0.1)


def test_offset_of_relative_targets_is_refused():
    with pytest.raises(ValueError, match="takes no offset, got 0.1"):
        mdp.RelativeJointPositionActionCfg(entity_name="arm", actuator_names=JOINTS, offset=0.1)


def test_unknown_name_in_scale_names_the_field_and_the_nearest():
    with pytest.raises(ValueError, match=r"JointPositionActionCfg.scale: .*Did you mean 'elbow'"):
        arm_env(position(scale={"elbov": 1.0}))


def test_scale_of_a_wrong_type_is_an_error():
    with pytest.raises(TypeError, match="scale must be a number or a dict"):
        arm_env(position(scale="big"))
