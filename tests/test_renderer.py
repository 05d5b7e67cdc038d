"""What the offscreen renderer draws, where OpenGL works; and what it says where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.sim import Simulation, SimulationCfg, gl
from mjlab_rec.sim.gl_renderer import GlRenderer
from mjlab_rec.viewer import ViewerConfig

KINDS = ViewerConfig.OriginType

# A red ball that can move, on a black floor that cannot.
BALL = """
<mujoco>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <worldbody>
    <geom type="plane" size="50 50 1" rgba="0 0 0 1"/>
    <camera name="above" pos="0 0 4"/>
    <body name="robot/base">
      <freejoint/>
      <geom name="ball" size="0.3" rgba="1 0 0 1"/>
      <geom name="hidden" size="1" rgba="0 0 1 1" group="3"/>
      <body name="robot/arm" pos="0 0 0.7">
        <joint type="hinge"/>
        <geom size="0.2" rgba="0 1 0 1"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""

Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def working_gl() -> None:
    try:
        gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture
def sim() -> Simulation:
    model = mujoco.MjModel.from_xml_string(BALL)
    sim = Simulation(num_envs=3, cfg=SimulationCfg(engine="mjbatch"), model=model)
    for env in range(3):
        place(sim, env, 0.0, 0.0)
    return sim


@pytest.fixture
def draw(sim: Simulation) -> Iterator[Draw]:
    """Renders the scene once, as a config with these fields says."""
    renderers = []

    def draw(env_idx: int | None = None, **fields: Any) -> np.ndarray:
        options: dict[str, Any] = dict(width=64, height=48, max_extra_envs=0, elevation=-30.0)
        renderers.append(GlRenderer(sim, ViewerConfig(**(options | fields)), scene(sim)))
        return renderers[-1].render(env_idx)

    yield draw
    for renderer in renderers:
        renderer.close()


def scene(sim: Simulation) -> Any:
    """As much of a scene as the renderer looks at."""
    model = sim.mj_model
    robot = SimpleNamespace(
        body_names=("base", "arm"),
        indexing=SimpleNamespace(
            root_body_id=model.body("robot/base").id,
            body_ids=torch.tensor([model.body(f"robot/{n}").id for n in ("base", "arm")]),
        ),
    )
    return SimpleNamespace(env_origins=torch.zeros(sim.num_envs, 3), entities={"robot": robot})


def place(sim: Simulation, env: int, x: float, y: float) -> None:
    sim.data.qpos[env, :7] = torch.tensor([x, y, 1.0, 1.0, 0.0, 0.0, 0.0])


def middle(image: np.ndarray, channel: int) -> tuple[float, float] | None:
    """Mean row and column of what shows this colour, relative to the image's centre; or None."""
    others = [c for c in range(3) if c != channel]
    rows, columns = np.nonzero((image[..., channel] > 100) & (image[..., others] < 60).all(axis=-1))
    if not len(rows):
        return None
    height, width = image.shape[:2]
    return rows.mean() / (height - 1) - 0.5, columns.mean() / (width - 1) - 0.5


RED, GREEN, BLUE = range(3)


def test_image_has_the_configured_size(draw):
    image = draw(width=70, height=50)
    assert image.shape == (50, 70, 3)
    assert image.dtype == np.uint8


def test_camera_follows_the_moving_body(sim, draw):
    place(sim, 0, 3.0, -2.0)
    for fields in ({}, {"origin_type": KINDS.ASSET_ROOT}):
        row, column = middle(draw(**fields), RED) or (9, 9)
        assert abs(row) < 0.1 and abs(column) < 0.05
    fixed = draw(origin_type=KINDS.WORLD, lookat=(3.0, -2.0, 1.7))
    assert np.abs(middle(fixed, GREEN) or (9, 9)).max() < 0.1


def test_camera_can_follow_any_body(draw):
    image = draw(origin_type=KINDS.ASSET_BODY, entity_name="robot", body_name="arm")
    assert np.abs(middle(image, GREEN) or (9, 9)).max() < 0.05
    row, _ = middle(image, RED) or (-9, 0)
    assert row > 0.05, "the base lies below the arm"


def test_azimuth_zero_looks_along_x(sim, draw):
    place(sim, 0, 0.0, 0.5)
    _, column = middle(draw(origin_type=KINDS.WORLD, azimuth=0.0), RED) or (0, 9)
    assert column < 0.0, "+y is on the left"


def test_images_start_at_the_top(sim, draw):
    image = draw(origin_type=KINDS.WORLD, elevation=0.0, lookat=(0.0, 0.0, 0.0))
    row, _ = middle(image, GREEN) or (9, 0)
    assert row < 0.0, "what is above the point looked at comes first"


def test_each_env_is_drawn_by_its_index(sim, draw):
    place(sim, 2, 0.8, 0.0)
    at = [middle(draw(env_idx=i, origin_type=KINDS.WORLD), RED) for i in range(3)]
    assert at[0] == at[1] != at[2]
    assert middle(draw(env_idx=0, camera="above"), GREEN) is not None


def test_neighbours_are_drawn_too(sim, draw):
    place(sim, 1, 1.0, 0.0)
    place(sim, 2, -1.0, 0.0)
    reds = [
        (draw(origin_type=KINDS.WORLD, max_extra_envs=count)[..., 0] > 100).sum()
        for count in (0, 1, 2, 5)
    ]
    assert reds[0] < reds[1] < reds[2] == reds[3]


def test_per_world_model_fields_show(sim, draw):
    sim.expand_model_fields(["geom_rgba", "geom_pos"])
    ball = sim.mj_model.geom("ball").id
    sim.model.geom_rgba[1, ball] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert middle(draw(env_idx=0), BLUE) is None
    assert middle(draw(env_idx=1), BLUE) is not None
    before = middle(draw(env_idx=0), RED)
    sim.model.geom_pos[0, ball, 2] = -0.4
    after = middle(draw(env_idx=0), RED)
    assert before and after and after[0] > before[0]


def test_geom_groups_can_be_hidden(draw):
    assert middle(draw(), BLUE) is None
    assert middle(draw(geom_group=(0, 0, 0, 1, 0, 0)), BLUE) is not None


def test_field_of_view_narrows(draw):
    wide, narrow = ((draw(fovy=fovy)[..., 0] > 100).sum() for fovy in (60.0, 20.0))
    assert narrow > 2 * wide


def test_rendering_leaves_the_simulation_alone(sim, draw):
    sim.step(3)
    state = sim.get_state().clone()
    offset = sim.mj_model.vis.global_.offwidth
    draw(width=700)
    assert torch.equal(sim.get_state(), state)
    assert sim.mj_model.vis.global_.offwidth == offset


def test_two_renderers_do_not_disturb_each_other(sim):
    small = GlRenderer(sim, ViewerConfig(width=32, height=24), scene(sim))
    large = GlRenderer(sim, ViewerConfig(width=64, height=48), scene(sim))
    first = small.render()
    assert large.render().shape == (48, 64, 3)
    np.testing.assert_array_equal(small.render(), first)
    large.close()
    np.testing.assert_array_equal(small.render(), first)
    small.close()
    small.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env_idx": 3}, "env_idx is 3, but there are 3.*0 to 2"),
        ({"width": 0}, "0 x 48"),
        ({"max_extra_envs": -1}, "least is 0"),
        ({"camera": "abvoe"}, "Did you mean 'above'"),
        ({"origin_type": KINDS.ASSET_ROOT, "entity_name": "robto"}, "Did you mean 'robot'"),
        ({"origin_type": KINDS.ASSET_BODY, "body_name": "amr"}, "Did you mean 'arm'"),
    ],
)
def test_wrong_names_and_numbers_are_explained(draw, fields, message):
    with pytest.raises(ValueError, match=message):
        draw(**fields)


def only(*backends: str) -> Callable[[str], str | None]:
    """Stands in for trying a backend: only these work."""
    return lambda backend: None if backend in backends else "no such library"


@pytest.mark.skipif("sys.platform != 'linux'", reason="EGL and OSMesa are for Linux")
@pytest.mark.parametrize(
    ("variables", "working", "chosen"),
    [
        ({}, ["glfw", "egl", "osmesa"], "egl"),
        ({}, ["glfw", "osmesa"], "osmesa"),
        ({"DISPLAY": ":0"}, ["glfw", "egl"], "glfw"),
        ({"DISPLAY": ":0"}, ["egl"], "egl"),
        ({"MUJOCO_GL": "osmesa"}, ["egl", "osmesa"], "osmesa"),
        ({"MUJOCO_GL": "GLFW"}, ["egl", "glfw"], "glfw"),
    ],
)
def test_what_draws_is_chosen_by_variables_and_what_works(monkeypatch, variables, working, chosen):
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gl, "_why_not", only(*working))
    assert gl.find_backend() == chosen


def test_without_opengl_the_error_names_the_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(gl, "_why_not", only("osmesa"))
    message = "egl: no such library.*MUJOCO_GL=egl.*unset it.*libegl1.*libosmesa6"
    with pytest.raises(RuntimeError, match=message):
        gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16)


def test_a_backend_that_fails_says_why_and_harms_nothing(monkeypatch):
    gl._why_not.cache_clear()
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    reason = gl._why_not("egl")
    gl._why_not.cache_clear()
    assert reason is not None and "PYOPENGL_PLATFORM" in reason
    monkeypatch.undo()
    gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
