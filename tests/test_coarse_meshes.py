"""Detailed meshes: fewer faces in images, and which renderer draws them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from render_worlds import need_gl

from mjlab_rec.sim import Simulation, SimulationCfg, gl, gl_renderer
from mjlab_rec.sim.coarse_meshes import coarsen_meshes, drawn_faces, merge_size
from mjlab_rec.sim.gl_renderer import GlRenderer
from mjlab_rec.sim.renderer import make_renderer
from mjlab_rec.viewer import ViewerConfig

SCENE: Any = SimpleNamespace(env_origins=torch.zeros(1, 3), entities={})
CFG: dict[str, Any] = dict(distance=2.0, elevation=-20.0, max_extra_envs=0)


def statue(rings: int = 100) -> mujoco.MjModel:
    """A detailed ball of radius 0.3 that can move, next to a small simple one that cannot."""

    def ball(rings: int) -> dict[str, np.ndarray]:
        polar = np.linspace(0.01, np.pi - 0.01, rings)
        turn = np.arange(2 * rings) * np.pi / rings
        a, b = (grid.ravel() for grid in np.meshgrid(polar, turn, indexing="ij"))
        points = 0.3 * np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)], axis=1)
        index = np.arange(len(points)).reshape(rings, -1)
        right = np.roll(index, -1, axis=1)
        faces = [
            np.stack([index[:-1], index[1:], right[1:]], axis=-1).reshape(-1, 3),
            np.stack([index[:-1], right[1:], right[:-1]], axis=-1).reshape(-1, 3),
        ]
        return dict(uservert=points.ravel(), userface=np.concatenate(faces).ravel())

    spec = mujoco.MjSpec()
    spec.worldbody.add_light(pos=(0, -2, 3), dir=(0, 0.5, -1))
    spec.worldbody.add_camera(name="near", pos=(0, -1, 0), xyaxes=(1, 0, 0, 0, 0, 1))
    for name, count in (("fine", rings), ("simple", 8)):
        spec.add_mesh(name=name, **ball(count))
    body = spec.worldbody.add_body(name="fine")
    body.add_freejoint()
    mesh: Any = dict(type=mujoco.mjtGeom.mjGEOM_MESH, contype=0, conaffinity=0)
    body.add_geom(meshname="fine", rgba=(0.8, 0.3, 0.2, 1), **mesh)
    spec.worldbody.add_geom(meshname="simple", pos=(1, 0, 0), rgba=(0.2, 0.3, 0.8, 1), **mesh)
    return spec.compile()


def simulate(model: mujoco.MjModel) -> Simulation:
    return Simulation(1, SimulationCfg(engine="mjbatch"), model)


def test_close_vertices_are_merged_and_flat_faces_dropped() -> None:
    model = statue()
    coarse = copy.copy(model)
    coarsen_meshes(coarse, 0.05)
    fine, simple = model.mesh("fine").id, model.mesh("simple").id
    assert coarse.mesh_facenum[fine] < model.mesh_facenum[fine] / 4
    assert coarse.mesh_facenum[simple] == model.mesh_facenum[simple]
    faces = coarse.mesh_face[: coarse.mesh_facenum[fine]]
    assert (np.sort(faces, axis=1)[:, :-1] != np.sort(faces, axis=1)[:, 1:]).all()
    corners = coarse.mesh_vert[faces]
    assert np.abs(np.linalg.norm(corners, axis=-1) - 0.3).max() < 0.01
    # Still closed, and outside out: the volume is that of the ball.
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.02)
    # Faces keep the normals of their own corners.
    normals = coarse.mesh_normal[coarse.mesh_facenormal[: len(faces)]]
    directions = corners / np.linalg.norm(corners, axis=-1, keepdims=True)
    assert np.einsum("ijk,ijk->ij", normals, directions).min() > 0.95


def test_nothing_is_merged_without_a_size() -> None:
    model = statue()
    coarse = copy.copy(model)
    coarsen_meshes(coarse, 0.0)
    assert (coarse.mesh_facenum == model.mesh_facenum).all()
    assert (coarse.mesh_vert == model.mesh_vert).all()


def test_a_mesh_smaller_than_the_size_stays() -> None:
    model = statue()
    coarsen_meshes(model, 10.0)
    assert model.mesh_facenum[0] > 0


def test_what_is_merged_is_about_a_pixel() -> None:
    model = statue()
    pixel = 2 * (2.0 - model.geom_rbound[0]) * np.tan(np.radians(model.vis.global_.fovy / 2)) / 480
    cfg = ViewerConfig(**CFG)
    assert merge_size(model, cfg, followed=1) == pytest.approx(2 * pixel, rel=0.02)
    small = ViewerConfig(**(CFG | dict(height=120)))
    assert merge_size(model, small, followed=1) == pytest.approx(8 * pixel, rel=0.02)
    assert merge_size(model, ViewerConfig(camera="near"), followed=1) == 0.0
    model.vis.global_.orthographic, model.vis.global_.fovy = 1, 2.4
    assert merge_size(model, cfg, followed=1) == pytest.approx(2 * 2.4 / 480)


def test_images_look_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    need_gl()
    sim = simulate(statue(200))
    images, faces = [], []
    for enough in (0, 10**9):
        monkeypatch.setattr(gl_renderer, "_MANY_FACES", enough)
        renderer = GlRenderer(sim, ViewerConfig(width=320, height=240, **CFG), SCENE)
        faces.append(drawn_faces(renderer._posed.model, ViewerConfig()))
        images.append(renderer.render().astype(int))
        renderer.close()
    assert faces[0] < faces[1] / 2
    difference = np.abs(images[0] - images[1]).max(axis=-1)
    assert (difference > 30).mean() < 5e-4
    assert difference.mean() < 0.5
    assert sim.mj_model.mesh_facenum.sum() == faces[1]  # The simulation's own did not change.


def test_small_models_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    need_gl()
    monkeypatch.setattr(gl_renderer, "coarsen_meshes", lambda *_: pytest.fail("not needed"))
    GlRenderer(simulate(statue(50)), ViewerConfig(**CFG), SCENE).close()


@pytest.mark.parametrize(
    ("software", "many", "fields", "chosen"),
    [
        (True, True, {}, "WarpRenderer"),
        (False, True, {}, "GlRenderer"),
        (True, False, {}, "GlRenderer"),
        (True, True, dict(renderer="gl"), "GlRenderer"),
        (True, True, dict(geom_group=(0, 1, 1, 0, 0, 0)), "GlRenderer"),
        (True, True, dict(width=2000, height=2000), "GlRenderer"),
    ],
)
def test_auto_takes_what_is_faster(
    monkeypatch: pytest.MonkeyPatch, software: bool, many: bool, fields: Any, chosen: str
) -> None:
    need_gl()
    monkeypatch.setattr(gl_renderer, "is_software", lambda backend: software)
    sim = simulate(statue(60))
    # The camera of the model may come close: its meshes stay as they are.
    cfg = ViewerConfig(**(dict(camera="near", width=32, height=24) | fields))
    if not many:
        monkeypatch.setattr(gl_renderer, "drawn_faces", lambda *_: 700)
    renderer = make_renderer(sim, cfg, SCENE)
    assert type(renderer).__name__ == chosen
    renderer.close()


def test_shadows_and_reflections_draw_faces_again() -> None:
    need_gl()
    model = statue(60)
    faces, pixels = int(model.mesh_facenum.sum()), 100
    sim = simulate(model)

    def is_slow(**fields: Any) -> bool:
        cfg = ViewerConfig(camera="near", width=pixels, height=faces * 3 // 4 // pixels, **fields)
        return GlRenderer(sim, cfg, SCENE).is_slow

    if not gl.is_software(gl.find_backend()):
        pytest.skip("there is a graphics card")
    assert not is_slow(enable_shadows=False)
    assert is_slow()
