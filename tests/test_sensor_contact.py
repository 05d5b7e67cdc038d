"""Contact sensors."""

from __future__ import annotations

import re
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from entity_worlds import ARM, DOG, build, entity, reference

from mjlab_rec.sensor import ContactMatch, ContactSensorCfg
from mjlab_rec.sensor.air_time import AirTime
from mjlab_rec.terrains import TerrainEntityCfg

FEET = ContactMatch("geom", ".*_foot", "dog")
GROUND = ContactMatch("body", "terrain")
EVERYTHING = ("found", "force", "torque", "dist", "pos", "normal", "tangent")


def standing(*sensors: ContactSensorCfg, num_envs: int = 3, **options: Any) -> Any:
    """The dog on the plane, in the last world high above it, after a few physics steps."""
    scene, sim = build(
        num_envs=num_envs,
        terrain=TerrainEntityCfg(),
        entities={"dog": entity(DOG)},
        sensors=sensors,
        **options,
    )
    state = scene["dog"].data.default_root_state.clone()
    state[:, 2] = 0.335
    state[-1, 2] = 5.0
    state[0, 3:7] = torch.tensor([0.9975, 0.0, 0.0706, 0.0]).to(state)
    scene["dog"].write_root_state_to_sim(state)
    for _ in range(15):
        sim.step()
        scene.update(0.005)
    sim.forward()
    return scene, sim


def contacts_of(sim: Any, world: int, geom: str) -> list[dict[str, Any]]:
    """The contacts of a geom in plain MuJoCo, with forces on the geom's partner's side turned."""
    model, data = sim.mj_model, reference(sim, world)
    wanted, found = model.geom(geom).id, []
    for i, contact in enumerate(data.contact):
        if wanted not in contact.geom:
            continue
        wrench = np.zeros(6)
        mujoco.mj_contactForce(model, data, i, wrench)
        # MuJoCo's frame points from the first geom to the second.
        sign = 1.0 if contact.geom[0] == wanted else -1.0
        frame = contact.frame.reshape(3, 3)
        found.append(
            {
                "dist": contact.dist,
                "pos": contact.pos.copy(),
                "normal": sign * frame[0],
                "force_w": sign * frame.T @ wrench[:3],
                "magnitude": np.linalg.norm(wrench[:3]),
            }
        )
    return found


def test_contacts_are_those_of_mujoco():
    scene, sim = standing(
        ContactSensorCfg("feet", FEET, GROUND, EVERYTHING),
        ContactSensorCfg("world", FEET, GROUND, EVERYTHING, global_frame=True),
        ContactSensorCfg("net", FEET, GROUND, ("found", "force"), reduce="netforce", num_slots=3),
    )
    data, world_frame, net = scene["feet"].data, scene["world"].data, scene["net"].data
    assert scene["feet"].primary_names == ["fl_foot", "fr_foot", "rl_foot", "rr_foot"]
    assert data.found.shape == data.dist.shape == (3, 4)
    assert data.force.shape == data.normal.shape == net.force.shape == (3, 4, 3)
    touching = 0
    for world in range(3):
        for i, foot in enumerate(scene["feet"].primary_names):
            contacts = contacts_of(sim, world, f"dog/{foot}")
            assert data.found[world, i] == net.found[world, i] == len(contacts)
            if not contacts:
                assert not data.force[world, i].any() and not world_frame.force[world, i].any()
                continue
            touching += 1
            (contact,) = contacts
            near = pytest.approx(contact["dist"], abs=1e-5)
            assert data.dist[world, i].item() == near
            assert data.pos[world, i].tolist() == pytest.approx(contact["pos"], abs=1e-4)
            assert data.normal[world, i].tolist() == pytest.approx(contact["normal"], abs=1e-5)
            # On the contact's axes, of which the first is the normal.
            assert data.force[world, i].norm().item() == pytest.approx(
                contact["magnitude"], rel=1e-3
            )
            assert data.force[world, i, 0].item() == pytest.approx(
                contact["force_w"] @ contact["normal"], rel=1e-3
            )
            force_w = pytest.approx(contact["force_w"], rel=1e-3, abs=1e-2)
            assert world_frame.force[world, i].tolist() == force_w
            assert net.force[world, i].tolist() == force_w
    assert 2 <= touching <= 8
    assert data.found[2].tolist() == [0.0] * 4


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_both_engines_show_the_same(device: str):
    cfg = ContactSensorCfg("feet", FEET, GROUND, EVERYTHING, track_air_time=True, history_length=2)
    expected, _ = standing(cfg)
    scene, _ = standing(cfg, engine="warp", device=device)
    shown = vars(scene["feet"].data)
    for name, value in vars(expected["feet"].data).items():
        torch.testing.assert_close(
            shown[name].cpu(), value, rtol=1e-3, atol=1e-2, msg=lambda m, n=name: f"{n}: {m}"
        )
    for name in ("root_link_pose_w", "body_link_vel_w", "geom_pose_w", "joint_acc"):
        value = getattr(expected["dog"].data, name)
        shown_value = getattr(scene["dog"].data, name).cpu()
        torch.testing.assert_close(
            shown_value, value, rtol=1e-2, atol=1e-2, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("order", [("lower", "upper"), ("upper", "lower")])
def test_forces_are_turned_into_the_world_at_an_oblique_contact(order: tuple[str, str]):
    ball = """<mujoco><worldbody><body name="b"><freejoint/>
      <geom name="g" type="sphere" size="0.1"/></body></worldbody></mujoco>"""
    fields = ("found", "force", "normal", "tangent")
    watched = ContactMatch("geom", "g", "upper")
    scene, sim = build(
        num_envs=1,
        entities={name: entity(ball) for name in order},
        sensors=(ContactSensorCfg("touch", watched, fields=fields, global_frame=True),),
    )
    state = scene["upper"].data.default_root_state.clone()
    state[:, :3] = torch.tensor([0.03, -0.07, 0.17])
    state[:, 7:10] = torch.tensor([1.0, -0.5, -2.0])
    scene["upper"].write_root_state_to_sim(state)
    sim.forward()
    (contact,) = contacts_of(sim, 0, "upper/g")
    force = scene["touch"].data.force[0, 0]
    assert force.abs().min() > 1.0
    expected = torch.tensor(contact["force_w"], dtype=torch.float32)
    torch.testing.assert_close(force, expected, rtol=1e-3, atol=1e-2)


def test_several_contacts_of_one_primary_fill_its_slots():
    box = (
        '<mujoco><worldbody><body name="b"><freejoint/><geom name="g" type="box" size=".1 .1 .1"/>'
    )
    box += "</body></worldbody></mujoco>"
    scene, sim = build(
        num_envs=2,
        terrain=TerrainEntityCfg(),
        entities={"box": entity(box), "other": entity(box)},
        sensors=(
            ContactSensorCfg(
                "slots",
                ContactMatch("geom", "g", "box"),
                fields=("found", "dist"),
                reduce="mindist",
                num_slots=3,
                track_air_time=True,
            ),
        ),
    )
    state = scene["box"].data.default_root_state.clone()
    state[:, 2] = 0.0995
    scene["box"].write_root_state_to_sim(state)
    state[:, 0], state[:, 2] = 3.0, 5.0
    scene["other"].write_root_state_to_sim(state)
    sim.forward()
    scene.update(0.01)
    data = scene["slots"].data
    assert data.found.shape == data.dist.shape == (2, 3)
    assert (data.dist < 0.0).all() and (data.found[:, 0] == 4.0).all()
    assert data.current_contact_time.shape == (2, 1)
    assert data.current_contact_time[:, 0].tolist() == pytest.approx([0.01, 0.01])


def test_bodies_subtrees_and_secondaries():
    scene, _ = standing(
        ContactSensorCfg("shanks", ContactMatch("body", ".*_shank", "dog"), fields=("found",)),
        ContactSensorCfg(
            "legs", ContactMatch("subtree", "f._thigh", "dog"), GROUND, fields=("found",)
        ),
        ContactSensorCfg(
            "self",
            FEET,
            ContactMatch("subtree", "trunk", "dog"),
            fields=("found",),
        ),
        ContactSensorCfg(
            "named", ContactMatch("geom", ("terrain",)), fields=("found",), secondary_policy="any"
        ),
    )
    feet_down = scene["shanks"].data.found[:2].sum()
    assert feet_down >= 2 and scene["named"].data.found[:2].sum() == feet_down
    assert scene["legs"].primary_names == ["fl_thigh", "fr_thigh"]
    assert torch.equal(scene["legs"].data.found, scene["shanks"].data.found[:, :2])
    assert not scene["self"].data.found.any()


def test_excluded_names_are_skipped():
    def names(*exclude: str) -> list[str]:
        match = ContactMatch("geom", ".*", "dog", exclude=exclude)
        scene, _ = standing(ContactSensorCfg("s", match), num_envs=1)
        return scene["s"].primary_names

    assert names("trunk", ".*_thigh") == ["fl_foot", "fr_foot", "rl_foot", "rr_foot"]
    assert "trunk" in names("trun", ".*_thigh")


def test_only_fields_asked_for_are_there():
    scene, _ = standing(ContactSensorCfg("feet", FEET, fields=("dist",)))
    data = scene["feet"].data
    assert data.dist is not None and data.found is None and data.current_air_time is None


def test_data_is_a_copy():
    timed = ContactSensorCfg("feet", FEET, GROUND, track_air_time=True, history_length=2)
    scene, sim = standing(timed)
    kept = {k: v for k, v in vars(scene["feet"].data).items() if v is not None}
    copies = {k: v.clone() for k, v in kept.items()}
    assert len(kept) == 7
    scene["dog"].write_root_state_to_sim(scene["dog"].data.default_root_state)
    for _ in range(30):
        sim.step()
        scene.update(0.005)
    for name, value in kept.items():
        assert torch.equal(value, copies[name]), name


def test_air_time_counts_flights_and_contacts():
    timer = AirTime(2, 1, "cpu")

    def after(*steps: bool) -> tuple[float, ...]:
        timer.reset()
        for contact in steps:
            timer.update(torch.tensor([[contact], [not contact]]), 0.1)
        times = (
            timer.current_air_time,
            timer.last_air_time,
            timer.current_contact_time,
            timer.last_contact_time,
        )
        return tuple(round(t[0, 0].item(), 4) for t in times)

    assert after(False) == (0.1, 0.0, 0.0, 0.0)
    assert after(False, False, False) == (0.3, 0.0, 0.0, 0.0)
    # The flight lasted until the step in which it ended.
    assert after(False, False, True) == (0.0, 0.3, 0.1, 0.0)
    assert after(True, True, False) == (0.1, 0.0, 0.0, 0.3)
    assert after(False, True, True, False) == (0.1, 0.2, 0.0, 0.3)
    assert timer.first_air(0.1, 1e-6).tolist() == [[True], [False]]
    assert timer.first_contact(0.1, 1e-6).tolist() == [[False], [True]]
    timer.update(torch.tensor([[False], [False]]), 0.1)
    assert timer.first_air(0.1, 1e-6).tolist() == [[False], [True]]


def test_a_landing_is_timed_and_reset_world_by_world():
    cfg = ContactSensorCfg("feet", FEET, GROUND, track_air_time=True, history_length=3)
    scene, sim = standing(cfg)
    sensor = scene["feet"]
    data = sensor.data
    torch.testing.assert_close(data.current_air_time[2], torch.full((4,), 0.075))
    landed = data.current_contact_time > 0
    assert landed[:2].any() and not landed[2].any()
    assert (data.last_air_time[landed] + data.current_contact_time[landed] < 0.081).all()
    assert (data.force_history[landed].norm(dim=-1) > 0)[:, 0].all()
    touched = landed & (data.current_contact_time < 0.0051)
    assert torch.equal(sensor.compute_first_contact(0.005), touched)
    assert sensor.compute_first_contact(0.1)[landed].all()
    scene.reset(torch.tensor([0]))
    data = sensor.data
    assert not data.current_contact_time[0].any() and data.current_contact_time[1].any()
    assert not data.force_history[0].any() and data.force_history[1].any()


def test_history_holds_the_newest_step_first():
    cfg = ContactSensorCfg("feet", FEET, GROUND, ("found", "force", "dist"), history_length=3)
    scene, sim = standing(cfg)
    seen = []
    for _ in range(3):
        sim.step()
        scene.update(0.005)
        seen.insert(0, scene["feet"].data)
    data = scene["feet"].data
    assert data.force_history.shape == (3, 4, 3, 3) and data.dist_history.shape == (3, 4, 3)
    assert data.torque_history is None
    for age, then in enumerate(seen):
        assert torch.equal(data.force_history[:, :, age], then.force)
        assert torch.equal(data.dist_history[:, :, age], then.dist)
    assert not torch.equal(seen[0].force, seen[1].force)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": ("fond",)}, "unknown field 'fond'. Did you mean 'found'?"),
        ({"reduce": "maxfroce"}, "unknown reduce 'maxfroce'. Did you mean 'maxforce'?"),
        ({"num_slots": 0}, "num_slots must be at least 1, got 0."),
        ({"history_length": -1}, "history_length must not be negative."),
        ({"track_air_time": True, "fields": ("force",)}, "track_air_time=True needs ['found']"),
        ({"global_frame": True}, "global_frame=True needs ['normal', 'tangent']"),
    ],
)
def test_impossible_settings_are_an_error(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(f"Contact sensor 'feet': {message}")):
        ContactSensorCfg("feet", FEET, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"primary": ContactMatch("geom", "foot", "dog")}, "Looking for geoms of entity 'dog': No"),
        ({"primary": ContactMatch("geom", ".*", "dgo")}, "no entity 'dgo'. Did you mean 'dog'?"),
        (
            {"primary": ContactMatch("geom", "trunk", "dog", exclude=("tr.*",))},
            "exclude=('tr.*',) leaves nothing of ['trunk']",
        ),
        (
            {"primary": FEET, "secondary": FEET, "secondary_policy": "error"},
            "the secondary '.*_foot' matches several: ['fl_foot',",
        ),
    ],
)
def test_patterns_that_do_not_fit_are_an_error(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(entities={"dog": entity(DOG)}, sensors=(ContactSensorCfg("feet", **options),))


def test_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="unknown mode 'geoms'. Did you mean 'geom'?"):
        ContactMatch("geoms", "x")  # type: ignore[arg-type]


def test_timing_without_tracking_is_an_error():
    scene, _ = build(
        entities={"arm": entity(ARM)},
        sensors=(ContactSensorCfg("hand", ContactMatch("geom", "fore", "arm")),),
    )
    for what in ("compute_first_contact", "compute_first_air"):
        with pytest.raises(RuntimeError, match=rf"{what}\(\) needs .*track_air_time=True"):
            getattr(scene["hand"], what)(0.1)
