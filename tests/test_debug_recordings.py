"""Debug drawings in videos and in Rerun's files: what they show, and that they change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_world import decode
from debug_worlds import Goal, drawn_cfg, share, world_picture
from render_worlds import need_gl
from test_rerun import read
from worlds import actions

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import RerunRecorderCfg, VideoRecorderCfg
from mjlab_rec.sim.debug_shapes import ARROW, ELLIPSOID
from mjlab_rec.sim.debug_visualizer import shapes_of

STEPS = 12


def run(recorders: dict[str, Any], num_envs: int = 2, **cfg: Any) -> list[torch.Tensor]:
    """Take some steps, in which episodes end, and return the trace."""
    trace = []
    with ManagerBasedRlEnv(drawn_cfg(num_envs, recorders=recorders, **cfg)) as env:
        env.reset(seed=0)
        for action in actions(STEPS, num_envs):
            obs, *rest = env.step(action)
            trace += [obs["actor"].clone(), *rest[:3], env.sim.get_state().clone()]
    return trace


def test_a_video_has_the_drawings_if_asked(tmp_path, ffmpeg):
    need_gl()
    view = world_picture()
    shown = {}
    for on in (False, True):
        path = tmp_path / f"{on}.mp4"
        run({"video": VideoRecorderCfg(path=str(path), viewer=view, debug_vis=on)})
        shown[on] = [share(image, 0) for image in decode(path, ffmpeg).images]
    assert len(shown[True]) == STEPS and max(shown[False]) == 0.0
    assert min(shown[True]) > 0.001


def test_a_video_does_what_the_viewers_config_says():
    cfg = VideoRecorderCfg(path="x.mp4")
    on, off = world_picture(debug_vis=True), world_picture()
    assert cfg.view(on).debug_vis and not cfg.view(off).debug_vis
    assert not VideoRecorderCfg(debug_vis=False).view(on).debug_vis
    assert VideoRecorderCfg(debug_vis=True, viewer=off).view(off).debug_vis


def test_each_cell_of_a_grid_has_the_drawings_of_its_own_environment(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Goal, "_debug_vis_impl", lambda self, v: asked.append(v.get_env_indices(self.num_envs))
    )
    video = VideoRecorderCfg(
        path=str(tmp_path / "a.mp4"),
        envs=2,
        layout="grid",
        viewer=world_picture(debug_vis=True),
        length=3,
    )
    need_gl()
    run({"video": video}, num_envs=3)
    assert asked == [[0], [1]] * 3


@pytest.mark.parametrize("kind", ["video", "rerun"])
def test_drawings_change_no_bit_of_a_recorded_rollout(tmp_path, kind):
    if kind == "video":
        need_gl()
        recorder: Any = VideoRecorderCfg(path=str(tmp_path / "a.mp4"), debug_vis=True)
    else:
        pytest.importorskip("rerun", reason="rerun-sdk is not installed")
        recorder = RerunRecorderCfg(path=str(tmp_path / "a.rrd"), trigger=None, debug_vis=True)
    Goal.calls = 0
    drawn = run({"a": recorder})
    assert Goal.calls >= STEPS
    Goal.calls = 0
    assert all(torch.equal(a, b) for a, b in zip(drawn, run({}), strict=True))
    assert Goal.calls == 0


# -- Rerun -----------------------------------------------------------------------------------------


@pytest.fixture
def rerun_file(tmp_path: Path) -> Any:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")

    def rerun_file(num_envs: int = 2, **fields: Any) -> tuple[Any, list[Any]]:
        """Record, and give the file and what was drawn after each step without a reset."""
        path, truth = tmp_path / "run.rrd", []
        rerun = RerunRecorderCfg(
            **{
                **dict(path=str(path), trigger=None, debug_vis=True, block_steps=4, channels=()),
                **fields,
            }
        )
        with ManagerBasedRlEnv(
            drawn_cfg(num_envs, steps=(1000,), recorders={"rerun": rerun})
        ) as env:
            env.reset(seed=0)
            for action in actions(STEPS, num_envs):
                env.step(action)
                truth.append(shapes_of(env, list(range(num_envs))))
        return read(path), truth

    return rerun_file


def test_rerun_has_each_kind_as_an_entity_in_every_step(rerun_file):
    file, truth = rerun_file()
    centers, steps, _ = file["/world/debug/ellipsoids"].column("Ellipsoids3D:centers")
    if not centers:
        centers, steps, _ = file["/world/debug/ellipsoids"].column("InstancePoses3D:translations")
    assert steps == list(range(1, STEPS + 1))
    for found, shapes in zip(centers, truth, strict=True):
        np.testing.assert_allclose(found, shapes.pos[shapes.kind == ELLIPSOID], atol=1e-6)
    origins, *_ = file["/world/debug/arrows"].column("Arrows3D:origins")
    vectors, *_ = file["/world/debug/arrows"].column("Arrows3D:vectors")
    for start, vector, shapes in zip(origins, vectors, truth, strict=True):
        arrows = shapes.chosen(shapes.kind == ARROW)
        np.testing.assert_allclose(start, arrows.pos, atol=1e-6)
        np.testing.assert_allclose(vector, arrows.mat[:, :, 2] * arrows.size[:, 2:], atol=1e-6)
    for name in ("boxes", "cylinders"):
        assert len(file[f"/world/debug/{name}"].rows) > 0
        assert all(len(rows) == STEPS for rows in file[f"/world/debug/{name}"].rows.values())
    # Few calls, whatever there is to draw.
    assert not [path for path in file if path.startswith("/world/debug") and "env" in path]


def test_rerun_has_ghosts_as_meshes_with_an_instance_each(rerun_file):
    file, truth = rerun_file()
    ghosts = [path for path in file if path.startswith("/world/debug/ghosts/0/")]
    assert len(ghosts) == 2  # the cart and the pole
    places, steps, _ = file[ghosts[0]].column("InstancePoses3D:translations")
    scales, *_ = file[ghosts[0]].column("InstancePoses3D:scales")
    for place, scale, shapes in list(zip(places, scales, truth, strict=True)):
        at = [ghost.qpos[0] for ghost in shapes.ghosts]
        np.testing.assert_allclose(np.array(place)[:, 0], at, atol=1e-6)
        assert np.array(scale).tolist() == [[1.0] * 3] * 2
    assert file[ghosts[0]].static["Mesh3D:albedo_factor"]
    assert steps[-1] == STEPS


def test_rerun_moves_the_drawings_with_their_environment(rerun_file):
    near, truth = rerun_file()
    file, _ = rerun_file(spacing_m=3.0, if_exists="overwrite")

    def starts(of: Any) -> np.ndarray:
        return np.array(of["/world/debug/arrows"].column("Arrows3D:origins")[0])

    moved = starts(file) - starts(near)
    assert {tuple(np.abs(row).round(4)) for row in moved[:, ::3].reshape(-1, 3)} == {(1.5, 0, 0)}
    np.testing.assert_allclose(moved[:, 0], -moved[:, 3], atol=1e-5)


def test_rerun_hides_drawings_that_end(rerun_file, monkeypatch):
    draw = Goal._debug_vis_impl
    steps = iter(range(1000))

    def now_and_then(self: Any, visualizer: Any) -> None:
        if next(steps) // 2 % 3 == 1:  # Asked twice a step: by the recorder and by the test.
            draw(self, visualizer)

    monkeypatch.setattr(Goal, "_debug_vis_impl", now_and_then)
    file, truth = rerun_file(num_envs=1)
    counts = [int((shapes.kind == ARROW).sum()) for shapes in truth]
    assert set(counts) == {0, 3}
    (rows, at, _) = file["/world/debug/arrows"].column("Arrows3D:origins")
    first = counts.index(3) // 4 * 4  # The entity begins with the block that has the first one.
    assert at == list(range(first + 1, STEPS + 1))
    assert [len(row) for row in rows] == counts[first:]
    (ghost,) = (path for path in file if path.endswith("ghosts/0/0"))
    scales, at, _ = file[ghost].column("InstancePoses3D:scales")
    assert at[0] == 1 and scales[0] == [[0.0] * 3]
    shown = {step: scale[0][0] for step, scale in zip(at, scales, strict=True)}
    assert [shown.get(k + 1, 0.0) * 3 for k in range(STEPS)] == counts


def test_rerun_draws_nothing_unless_asked(rerun_file):
    Goal.calls = 0
    file, truth = rerun_file(debug_vis=None)
    assert not [path for path in file if path.startswith("/world/debug")]
    assert Goal.calls == len(truth)  # by this test


def test_rerun_draws_only_environments_that_are_recorded(rerun_file):
    file, _ = rerun_file(num_envs=3, envs=(1,))
    rows, *_ = file["/world/debug/arrows"].column("Arrows3D:origins")
    assert {len(row) for row in rows} == {3}
