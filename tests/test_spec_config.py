"""Configs that edit a robot's model: what they set, what they leave, what they refuse."""

from __future__ import annotations

import logging
from typing import Any

import mujoco
import numpy as np
import pytest
from entity_worlds import build, entity

from mjlab_rec.entity import Entity
from mjlab_rec.utils.spec_config import (
    CameraCfg,
    CollisionCfg,
    GeomCfg,
    LightCfg,
    MaterialCfg,
    MeshCfg,
    TextureCfg,
)

ROBOT = """
<mujoco>
  <default><geom friction="0.9 0.02 0.003" solref="0.03 0.8"/></default>
  <asset>
    <mesh name="shell" vertex="0 0 0  1 0 0  0 1 0  0 0 1  1 1 1  1 1 0"/>
    <mesh name="lid" vertex="0 0 0  1 0 0  0 1 0  0 0 1  1 1 1  1 1 0"/>
  </asset>
  <worldbody>
    <body name="trunk">
      <freejoint/>
      <geom name="trunk" size="0.2"/>
      <geom size="0.1"/>
      <geom name="shell" type="mesh" mesh="shell"/>
      <geom name="lid" type="mesh" mesh="lid"/>
      <body name="left"><geom name="left_foot1" size="0.1"/></body>
      <body name="right"><geom name="right_foot1" size="0.1"/></body>
    </body>
  </worldbody>
</mujoco>
"""
GEOMS = ("trunk", "", "shell", "lid", "left_foot1", "right_foot1")
FEET = {"contype": 2, "conaffinity": 3, "condim": 6, "priority": 1}


def compiled(**editors: Any) -> mujoco.MjModel:
    """The robot, edited by an entity's config and compiled."""
    return Entity(entity(ROBOT, **editors)).compile()


def of_geoms(model: mujoco.MjModel, field: str) -> dict[str, Any]:
    """A field of all geoms, by name."""
    return dict(zip(GEOMS, getattr(model, f"geom_{field}").tolist(), strict=True))


def test_collisions_set_the_structure_and_switch_all_other_geoms_off():
    model = compiled(collisions=(CollisionCfg((".*_foot",), **FEET, margin=0.01),))
    on, off = {"left_foot1", "right_foot1"}, {"trunk", "", "shell", "lid"}
    for field, value in FEET.items():
        values = of_geoms(model, field)
        assert {values[name] for name in on} == {value}
        default = {"contype": 0, "conaffinity": 0, "condim": 3, "priority": 0}[field]
        assert {values[name] for name in off} == {default}
    assert [of_geoms(model, "margin")[name] for name in ("trunk", "left_foot1")] == [0, 0.01]


def test_collisions_can_keep_other_geoms():
    model = compiled(collisions=(CollisionCfg(("left",), 0, 0, 1, 0, disable_other_geoms=False),))
    assert of_geoms(model, "contype") == {**dict.fromkeys(GEOMS, 1), "left_foot1": 0}
    assert of_geoms(model, "condim") == {**dict.fromkeys(GEOMS, 3), "left_foot1": 1}


def test_the_first_pattern_that_matches_gives_a_geom_its_value():
    values = {"left_": 4, ".*_foot": 6, ".*": 1}
    model = compiled(collisions=(CollisionCfg((".*",), 1, 1, values, {"trunk$": 2, ".*": 0}),))
    expected = {**dict.fromkeys(GEOMS, 1), "left_foot1": 4, "right_foot1": 6}
    assert of_geoms(model, "condim") == expected
    assert of_geoms(model, "priority") == {**dict.fromkeys(GEOMS, 0), "trunk": 2}


def test_patterns_match_the_beginning_of_a_name_and_the_empty_name_of_a_geom_without():
    assert of_geoms(compiled(geoms=(GeomCfg(("left",), group=3),)), "group")["left_foot1"] == 3
    assert of_geoms(compiled(geoms=(GeomCfg(("^$",), group=3),)), "group")[""] == 3
    with pytest.raises(ValueError, match="no name begins with 'foot'"):
        compiled(geoms=(GeomCfg(("foot",), group=3),))


def test_what_is_left_out_of_friction_and_the_like_stays_as_in_the_xml():
    model = compiled(geoms=(GeomCfg(("trunk",), friction=(0.6,), solimp={"tru": (0.8, 0.9)}),))
    assert of_geoms(model, "friction")["trunk"] == [0.6, 0.02, 0.003]
    assert of_geoms(model, "friction")["lid"] == [0.9, 0.02, 0.003]
    assert of_geoms(model, "solimp")["trunk"][:3] == [0.8, 0.9, 0.001]
    assert of_geoms(model, "solref")["trunk"] == [0.03, 0.8]


def test_geom_edits_change_only_matching_geoms():
    edit = GeomCfg((".*_foot",), condim={"left": 1, "trunk": 4}, gap=0.5, solmix=0.25, margin=0.75)
    model = compiled(geoms=(edit,))
    assert of_geoms(model, "condim") == {**dict.fromkeys(GEOMS, 3), "left_foot1": 1}
    assert of_geoms(model, "contype") == dict.fromkeys(GEOMS, 1)
    for field, value, default in (("gap", 0.5, 0), ("solmix", 0.25, 1), ("margin", 0.75, 0)):
        expected = {"left_foot1": value, "right_foot1": value}
        assert of_geoms(model, field) == {**dict.fromkeys(GEOMS, default), **expected}


def test_collisions_override_edits_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        model = compiled(
            geoms=(GeomCfg((".*_foot", "trunk"), group=4, condim=4, contype=8),),
            collisions=(CollisionCfg((".*_foot",), **FEET),),
        )
    assert of_geoms(model, "condim")["left_foot1"] == 6 and of_geoms(model, "contype")["trunk"] == 0
    assert of_geoms(model, "condim")["trunk"] == of_geoms(model, "group")["left_foot1"] == 4
    (text,) = caplog.messages
    assert "left_foot1.condim" in text and "trunk.contype" in text
    assert "group" not in text and "trunk.condim" not in text


def test_a_later_collision_that_switches_off_an_earlier_ones_geoms_is_warned_of(caplog):
    left, right = CollisionCfg(("left",), **FEET), CollisionCfg(("right",), **FEET)
    right_only = CollisionCfg(("right",), **FEET, disable_other_geoms=False)
    with caplog.at_level(logging.WARNING):
        model = compiled(collisions=(left, right_only))
        assert of_geoms(model, "contype")["left_foot1"] == 2 and not caplog.messages
        model = compiled(collisions=(left, right))
    assert of_geoms(model, "contype")["left_foot1"] == 0
    (text,) = caplog.messages
    assert "switches off left_foot1.conaffinity, left_foot1.contype," in text
    assert "disable_other_geoms=False" in text

    caplog.clear()
    one_sided = CollisionCfg(("left",), **{**FEET, "contype": 0})
    both = CollisionCfg((".*_foot",), **FEET)
    with caplog.at_level(logging.WARNING):
        compiled(collisions=(left, right, both))
        assert not caplog.messages
        compiled(collisions=(one_sided, right))
    assert "conaffinity" in caplog.text and "contype" not in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condim": 2}, r"CollisionCfg.condim must be 1, 3, 4 or 6, got 2"),
        ({"condim": {".*": 5}}, r"CollisionCfg.condim\['.\*'\] must be 1, 3, 4 or 6, got 5"),
        ({"contype": -1}, "contype must be a whole number that is not negative, got -1"),
        ({"priority": 0.5}, "priority must be a whole number that is not negative, got 0.5"),
        ({"conaffinity": None}, "conaffinity must not be None. GeomCfg can"),
        ({"margin": -0.1}, "margin must be a number that is not negative, got -0.1"),
        ({"solmix": 1.5}, "solmix must be a number from 0 to 1, got 1.5"),
        ({"friction": 0.6}, "friction must be a tuple of 1 to 3 numbers, got 0.6"),
        ({"solref": (1, 2, 3)}, r"solref must be a tuple of 1 to 2 numbers, got \(1, 2, 3\)"),
        ({"solimp": {".*": (1,) * 6}}, r"solimp\['.\*'\] must be a tuple of 1 to 5 numbers"),
        ({"condim": {"left": 3}}, "condim has no value for the geoms right_foot1. .*'left'; add '"),
        ({"condim": {"lift_foot": 3, ".*": 1}}, "'lift_foot'. Did you mean 'left_foot1'. Known: t"),
        ({"geom_names_expr": ("lefft_foot",)}, "geom_names_expr: .*Did you mean 'left_foot1'"),
        ({"geom_names_expr": ("*_foot",)}, r"'\*_foot' is not a regular expression: .*'.\*'"),
    ],
)
def test_wrong_collisions_are_errors_that_say_what_is_wrong(change, message):
    fields = {"geom_names_expr": (".*_foot",), **FEET, **change}
    with pytest.raises(ValueError, match=message):
        compiled(collisions=(CollisionCfg(**fields),))


def test_groups_go_to_five_and_numbers_may_be_of_numpy():
    edit = GeomCfg("trunk", group=np.int64(5), friction=np.array([0.5, 0.25]))  # type: ignore
    assert of_geoms(compiled(geoms=(edit,)), "group")["trunk"] == 5
    assert of_geoms(compiled(geoms=(edit,)), "friction")["trunk"] == [0.5, 0.25, 0.003]
    with pytest.raises(ValueError, match="GeomCfg.group must be a whole number from 0 to 5, got 6"):
        compiled(geoms=(GeomCfg(("trunk",), group=6),))


def test_meshes_are_found_by_their_own_names():
    model = compiled(meshes=(MeshCfg(("shell",), maxhullvert=4),))
    edges = [model.mesh_graph[adr] for adr in model.mesh_graphadr]
    assert edges == [4, 6]  # Corners of the hulls of shell and lid.
    edited = Entity(entity(ROBOT, meshes=(MeshCfg((".*",), {"lid": 5, ".*": -1}),))).spec
    assert [mesh.maxhullvert for mesh in edited.meshes] == [-1, 5]
    with pytest.raises(ValueError, match="no name begins with 'trunk'. Known: shell, lid"):
        compiled(meshes=(MeshCfg(("trunk",), 4),))
    with pytest.raises(ValueError, match="maxhullvert must be -1 .* above 3, got 3"):
        compiled(meshes=(MeshCfg((".*",), 3),))


def test_lights_and_cameras_are_fixed_to_bodies_and_turn_to_targets():
    light = LightCfg(
        name="lamp",
        body="left",
        mode="targetbodycom",
        target="right",
        type="directional",
        castshadow=False,
        pos=(1, 2, 3),
        diffuse=(0.5, 0.25, 0.125),
        active=False,
        attenuation=(1, 0.5, 0.25),
    )
    camera = CameraCfg("eye", "trunk", "targetbody", "left", 60.0, (0, 0, 1), (0, 1, 0, 0))
    model = compiled(lights=(LightCfg(), light), cameras=(camera,))
    lamp, eye = model.light("lamp"), model.camera("eye")
    assert model.nlight == 2 and model.light(0).bodyid == 0
    assert lamp.bodyid == model.body("left").id and lamp.targetbodyid == model.body("right").id
    assert lamp.mode == mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODYCOM
    assert lamp.type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    assert model.light(0).type == mujoco.mjtLightType.mjLIGHT_SPOT
    assert not lamp.castshadow and not lamp.active and model.light(0).castshadow
    assert lamp.pos.tolist() == [1, 2, 3] and lamp.diffuse.tolist() == [0.5, 0.25, 0.125]
    assert lamp.attenuation.tolist() == [1, 0.5, 0.25]
    assert model.light(0).diffuse.tolist() == pytest.approx([0.7] * 3)  # MuJoCo's default.
    assert eye.bodyid == model.body("trunk").id and eye.targetbodyid == model.body("left").id
    assert (eye.fovy, eye.pos.tolist(), eye.quat.tolist()) == (60, [0, 0, 1], [0, 1, 0, 0])


def test_a_texture_and_its_material_reach_the_geoms_in_a_scene():
    robot = entity(
        ROBOT,
        textures=(TextureCfg("dots", "2d", "flat", rgb1=(1, 0, 0), width=4, height=8),),
        materials=(
            MaterialCfg("skin", texture="dots", texrepeat=(2, 3), geom_names_expr=("l", "^$")),
            MaterialCfg("spare", rgba=(0, 0.5, 0, 1), texuniform=True, reflectance=0.5),
        ),
        cameras=(CameraCfg("eye"),),
    )
    _, sim = build(num_envs=1, entities={"robot": robot})
    model = sim.mj_model
    skin, spare = model.material("robot/skin"), model.material("robot/spare")
    material = of_geoms(model, "matid")
    assert {name for name, i in material.items() if i == skin.id} == {"lid", "left_foot1", ""}
    assert {i for i in material.values() if i != skin.id} == {-1}
    texture = model.texture("robot/dots")
    assert skin.texid[mujoco.mjtTextureRole.mjTEXROLE_RGB] == texture.id
    assert (texture.width, texture.height, texture.nchannel) == (4, 8, 3)
    assert model.tex_data[:3].tolist() == [255, 0, 0]
    assert skin.texrepeat.tolist() == [2, 3] and spare.rgba.tolist() == [0, 0.5, 0, 1]
    assert spare.texuniform and spare.reflectance == 0.5 and not skin.texuniform
    assert model.camera("robot/eye").bodyid == 0


@pytest.mark.parametrize(
    ("editors", "message"),
    [
        ({"lights": LightCfg(body="trnk")}, "LightCfg '': body is unknown: 'trnk'. Did .*'trunk'"),
        ({"lights": LightCfg("a", target="lft")}, "'a': target is unknown: 'lft'. Did you.*'left'"),
        ({"lights": LightCfg(mode="trak")}, "mode is unknown: 'trak'. Did you mean 'track'"),
        ({"lights": LightCfg(type="spott")}, "type is unknown: 'spott'. Did you mean 'spot'"),
        ({"cameras": CameraCfg("c", mode="targetbody")}, "'c': mode 'targetbody' needs a target"),
        ({"cameras": CameraCfg("c", body="rigt")}, "'c': body is unknown: .*'right'"),
        ({"textures": TextureCfg("t", "cub")}, "'t': type is unknown: 'cub'. .*'cube'"),
        ({"textures": TextureCfg("t", "2d")}, "'t' is empty. Give it a builtin pattern, a file"),
        ({"textures": TextureCfg("t", "2d", "flat", width=4)}, "'flat' needs a height in pixels"),
        ({"textures": TextureCfg("t", "cube", "flat")}, "'flat' needs a width in pixels"),
        ({"textures": TextureCfg("t", "2d", "flat", width=0)}, "width must be positive, got 0"),
        ({"textures": TextureCfg("t", "cube", cubefiles=("a",))}, "must be six files, got 1"),
        ({"materials": MaterialCfg("m", texture="t")}, "'m': the model has no texture 't'. There"),
        ({"materials": MaterialCfg("m", texrepeat=(1, 0))}, r"positive, got \(1, 0\)"),
        ({"materials": MaterialCfg("m", geom_names_expr=("(",))}, "'m': geom.*not a regular"),
    ],
)
def test_wrong_looks_are_errors_that_say_what_is_wrong(editors: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        compiled(**{name: (editor,) for name, editor in editors.items()})


def test_a_materials_pattern_without_a_match_is_skipped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
):
    model = compiled(materials=(MaterialCfg("m", geom_names_expr=("trnk", "lid")),))
    assert model.geom("lid").matid == model.material("m").id
    assert "MaterialCfg 'm': geom_names_expr: no name begins with 'trnk'" in caplog.text
    assert "mean 'trunk'" in caplog.text and "skipped" in caplog.text


def test_every_field_of_a_texture_and_a_light_reaches_the_model():
    texture: dict[str, Any] = {
        "rgb2": [0.5, 0.25, 0.125],
        "markrgb": [0.25, 0.5, 0.75],
        "random": 0.5,
        "nchannel": 4,
        "file": "sky.png",
        "gridsize": [3, 4],
        "gridlayout": ".U..LFRB.D..",
        "hflip": 1,
        "vflip": 1,
    }
    light: dict[str, Any] = {
        "dir": [0, 1, 0],
        "cutoff": 30,
        "exponent": 5,
        "specular": [0.5, 0.25, 0.125],
        "ambient": [0.25, 0.5, 0.75],
    }
    faces = ("right", "left", "up", "down", "front", "back")
    spec = mujoco.MjSpec()
    TextureCfg("sky", "skybox", mark="cross", **texture).edit_spec(spec)
    TextureCfg("faces", "cube", cubefiles=faces).edit_spec(spec)
    LightCfg(**light).edit_spec(spec)
    sky, cube = spec.textures
    assert (sky.type, sky.mark) == (mujoco.mjtTexture.mjTEXTURE_SKYBOX, mujoco.mjtMark.mjMARK_CROSS)
    assert tuple(cube.cubefiles) == faces
    for made, fields in ((sky, texture), (spec.lights[0], light)):
        for field, value in fields.items():
            got = getattr(made, field)
            if field == "gridlayout":
                assert "".join(got).startswith(value)
            else:
                assert np.array_equal(got, value), field


def test_names_are_not_given_twice():
    flat = TextureCfg("t", "cube", "flat", width=4)
    for editors in (
        {"textures": (flat, flat)},
        {"materials": (MaterialCfg("m"), MaterialCfg("m"))},
        {"lights": (LightCfg("l"), LightCfg("l"))},
        {"cameras": (CameraCfg("c"), CameraCfg("c"))},
    ):
        with pytest.raises(ValueError, match="Cfg '.': the model already has one of that name"):
            compiled(**editors)
    assert compiled(textures=(flat,)).texture("t").height == 24
