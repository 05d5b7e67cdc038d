"""How scenes look by default: one sun, a sky, and a floor that shadows do not make brighter."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
from entity_worlds import build, entity
from render_worlds import need_gl

from mjlab_rec.sim.renderer import make_renderer
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.utils.spec_config import LightCfg, TextureCfg
from mjlab_rec.viewer import ViewerConfig

# A ball with lights of its own, one of which has no name.
BALL = """
<mujoco>
  <worldbody>
    <light name="lamp" pos="0 -1 3" dir="0 0.3 -1"/>
    <body name="ball" pos="0 0 0.6">
      <freejoint/>
      <light pos="0 0 2" mode="trackcom"/>
      <geom name="ball" size="0.3" rgba="0.9 0.1 0.1 1"/>
    </body>
  </worldbody>
</mujoco>
"""
SKY = mujoco.mjtTexture.mjTEXTURE_SKYBOX
VIEW: dict[str, Any] = dict(
    width=128,
    height=96,
    distance=4.0,
    elevation=-20.0,
    origin_type=ViewerConfig.OriginType.WORLD,
    max_extra_envs=0,
)


@pytest.fixture(params=["gl", "warp"])
def name(request: pytest.FixtureRequest) -> str:
    """Both renderers."""
    if request.param == "gl":
        need_gl()
    return request.param


def scene(**fields: Any) -> Any:
    """A ball over the default ground, and whatever else is given."""
    fields = {"terrain": TerrainEntityCfg(), "entities": {"ball": entity(BALL)}, **fields}
    return build(**{"num_envs": 2, **fields})


def picture(world: Any, name: str, **fields: Any) -> np.ndarray:
    """The world as a renderer draws it."""
    found, sim = world
    renderer = make_renderer(sim, ViewerConfig(**{**VIEW, **fields}), found, name)  # type: ignore[arg-type]
    image = renderer.render(0).astype(float)
    renderer.close()
    return image


def floor(image: np.ndarray) -> float:
    """Mean brightness of the floor at the left, where no shadow falls."""
    return image[70:, :30].mean()


def shining(model: mujoco.MjModel) -> list[tuple[str, bool]]:
    """Name, and whether it casts shadows, of each light that is on."""
    on = [i for i in range(model.nlight) if model.light_active[i]]
    return [(model.light(i).name, bool(model.light_castshadow[i])) for i in on]


def test_one_sun_casts_shadows_whatever_lights_the_entities_files_have():
    _, sim = scene(entities={"a": entity(BALL), "b": entity(BALL)})
    model = sim.mj_model
    assert shining(model) == [("sun", True)]
    assert model.light("sun").type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    # The others are still there by name, for events that randomize them.
    assert model.nlight == 5 and model.light("a/lamp").id >= 0


def test_lights_that_were_asked_for_shine():
    ball = entity(BALL)
    ball.lights = (LightCfg("torch", castshadow=False),)
    found, sim = scene(entities={"ball": ball})
    assert shining(sim.mj_model) == [("sun", True), ("ball/torch", False)]
    assert found["ball"].find_lights("lamp|torch")[1] == ["lamp", "torch"]


def test_without_a_sun_the_first_entitys_lights_shine():
    _, sim = scene(
        terrain=TerrainEntityCfg(lights=()), entities={"a": entity(BALL), "b": entity(BALL)}
    )
    assert [light for light, _ in shining(sim.mj_model)] == ["a/lamp", ""]


def test_light_on_a_white_floor_is_not_cut_off():
    model = scene()[1].mj_model
    head, sun = model.vis.headlight, model.light("sun")
    assert (head.ambient + head.diffuse + sun.diffuse + sun.ambient <= 1.0 + 1e-6).all()


@pytest.mark.parametrize("elevation", [-15.0, -45.0, -80.0])
def test_floor_is_as_bright_with_shadows_as_without(name, elevation):
    world = scene()
    on, off = (
        picture(world, name, elevation=elevation, enable_shadows=shadows)
        for shadows in (True, False)
    )
    assert floor(off) > 60
    assert floor(on) == pytest.approx(floor(off), rel=0.03)
    dark = (on.mean(axis=-1) < 0.75 * off.mean(axis=-1)).mean()
    assert 0.003 < dark < 0.1, "the ball's shadow, and no other"


def test_the_floor_casts_no_specks_on_itself(name):
    world = scene()
    view: dict[str, Any] = dict(width=320, height=240, lookat=(20.0, 0.0, 0.0), fovy=80.0)
    on, off = (
        picture(world, name, elevation=-40.0, enable_shadows=shadows, **view)
        for shadows in (True, False)
    )
    assert ((off - on).max(axis=-1) > 15).sum() == 0


def test_both_renderers_light_the_scene_alike():
    need_gl()
    world = scene()
    gl, warp = (picture(world, name) for name in ("gl", "warp"))
    assert floor(gl) == pytest.approx(floor(warp), rel=0.03)
    # Not where GL's haze is.
    assert (np.abs(gl - warp).max(axis=-1)[45:] < 25).mean() > 0.97


@pytest.mark.parametrize("place", [(0.0, 0.0), (70.0, -30.0)])
def test_shadows_fall_wherever_the_camera_looks(name, place):
    found, sim = world = scene()
    sim.data.qpos[0, :2] = sim.data.qpos.new_tensor(place)
    fields: dict[str, Any] = dict(lookat=(*place, 0.0), elevation=-50.0)
    on, off = (picture(world, name, enable_shadows=shadows, **fields) for shadows in (True, False))
    dark = (on.mean(axis=-1) < 0.75 * off.mean(axis=-1)).mean()
    assert 0.01 < dark < 0.1


def test_sky_is_blue_and_brightest_at_the_horizon(name):
    image = picture(scene(), name, elevation=0.0, lookat=(0.0, 0.0, 1.0), fovy=100.0)
    top, horizon = image[0].mean(axis=0), image[35].mean(axis=0)
    assert (top > 60).all() and top[2] > top[0] + 40
    assert horizon.mean() > top.mean() + 10


def test_sky_of_ones_own_is_kept(name):
    red = TextureCfg("dusk", "skybox", "flat", rgb1=(1.0, 0.0, 0.0), width=8)
    xml = BALL.replace(
        "<worldbody>",
        '<asset><texture type="skybox" builtin="flat" rgb1="1 0 0" width="8" height="8"/></asset>'
        "<worldbody>",
    )

    def dusk(spec: mujoco.MjSpec) -> None:
        red.edit_spec(spec)

    for fields in (
        {"terrain": TerrainEntityCfg(textures=(*TerrainEntityCfg().textures, red))},
        {"entities": {"ball": entity(xml)}},
        {"spec_fn": dusk},
    ):
        world = scene(**fields)
        assert (world[1].mj_model.tex_type == SKY).sum() == 1
        top = picture(world, name, elevation=0.0)[:10]
        assert (top == (255, 0, 0)).mean() > 0.9


def test_a_scene_without_ground_has_a_sky_too():
    _, sim = scene(terrain=None)
    assert (sim.mj_model.tex_type == SKY).sum() == 1
