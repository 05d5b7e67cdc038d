"""Videos as other projects make them: their default schedule, one file, last clips, a camera."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from colour_world import HEIGHT, WIDTH, Painter, board_cfg, decode, episode, recorder_of, steps

from mjlab_rec import recorders
from mjlab_rec.data import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import (
    MemoryRecorderCfg,
    at_episodes,
    at_start,
    capped_cubic_episodes,
    manual,
    triggers,
)
from mjlab_rec.recorders.presets import Preset, load_preset
from mjlab_rec.recorders.video import VideoRecorderCfg
from mjlab_rec.sim.viewer_config import ViewerConfig
from mjlab_rec.viewer.recording import toggle_recorder

ROOT = Path(__file__).parent.parent


# -- the tables for those who come from elsewhere --------------------------------------------------


def advice() -> list[str]:
    """What the page on recorders says to write in place of other projects' arguments."""
    page = (ROOT / "mjlab_rec" / "recorders" / "README.md").read_text()
    tables = page.partition("| `RecordVideo` of Gymnasium")[2].partition("| `LogRerun`")[0]
    cells = [line.rstrip("| ").rpartition(" | ")[2] for line in tables.splitlines()]
    return [words for cell in cells for words in re.findall(r"`([^`]+)`", cell)]


def test_what_the_tables_say_is_possible():
    fields = {field.name for field in dataclasses.fields(VideoRecorderCfg)}
    names = {name: getattr(recorders, name) for name in triggers._KINDS}
    others = {"VideoRecorderCfg", "start()", "stop()", "capped_cubic_episodes"}
    tried = 0
    for words in advice():
        if words in fields or words in others:
            continue
        call = words.replace("(...)", "(0, 7)")
        given = eval(f"dict({call})" if "=" in call.partition("(")[0] else call, dict(names))
        given = given if isinstance(given, dict) else {"trigger": given}
        VideoRecorderCfg(**given).check()
        if "trigger" in given:
            triggers.trigger_from(given["trigger"])
        tried += 1
    page = (ROOT / "mjlab_rec" / "recorders" / "README.md").read_text()
    for named in re.findall(r"`VideoRecorderCfg\(([a-z_]+=, [^)]*)\)`", page):
        for name in named.split(", "):
            assert name.removesuffix("=") in fields
            tried += 1
    assert tried >= 14


# -- when clips begin ------------------------------------------------------------------------------


def clips_of(studio: Any, env: Any, count: int) -> dict[str, Any]:
    """What the clips of some steps show."""
    env.reset()
    steps(env, count)
    env.close()
    return studio.all_seen()


@pytest.mark.parametrize("fields", [{}, {"trigger": capped_cubic_episodes}])
def test_by_default_episodes_0_1_8_27_are_filmed(studio, fields):
    seen = clips_of(studio, studio.env(lengths=(2,), **{"trigger": "auto", **fields}), 58)
    # The board has four bits for the episode, and the next one is the environment's.
    assert seen == {
        f"board-episode-{n}-env-0": episode(n % 16, 1, 2, n // 16) for n in (0, 1, 8, 27)
    }


def test_the_default_schedule_may_have_shorter_clips(studio):
    seen = clips_of(studio, studio.env(trigger="auto", length=3, lengths=(5,)), 12)
    assert seen == {f"board-episode-{n}-env-0": episode(n, 1, 3) for n in (0, 1)}


def test_a_recording_that_begins_by_hand_is_filmed_at_once_and_to_its_stop(studio):
    env = studio.env(trigger="auto", autostart=False, lengths=(4,))
    env.reset()
    steps(env, 6)
    for _ in range(2):
        assert toggle_recorder(env, "video") is None
        steps(env, 5)
        assert toggle_recorder(env, "video") is None
        steps(env, 1)
    env.close()
    assert studio.all_seen() == {
        "board-step-6": episode(1, 3, 4) + episode(2, 1, 3),
        "board-step-12": episode(3, 1, 4) + episode(4, 1, 1),
    }


def test_the_schedule_gives_way_to_what_is_started_by_hand(studio):
    env = studio.env(trigger="auto", lengths=(4,))
    env.reset()
    steps(env, 10)
    toggle_recorder(env, "video")
    toggle_recorder(env, "video")
    steps(env, 3)
    env.close()
    assert studio.names() == [
        *("board-episode-0-env-0", "board-episode-1-env-0", "board-step-10"),
    ]


def test_start_recording_films_at_once(studio):
    env = studio.env(trigger="auto")
    early = recorder_of(env)
    late = env.start_recording(VideoRecorderCfg(path=str(studio.folder)))
    for recorder, trigger in ((early, capped_cubic_episodes()), (late, at_start())):
        assert recorder._runner is not None and recorder._runner.trigger == trigger


def test_a_bare_trigger_need_not_be_called(studio):
    env = studio.env(trigger=manual, length=2)
    env.reset()
    steps(env, 3)
    recorder_of(env).fire()
    steps(env, 3)
    env.close()
    assert studio.all_seen() == {"board-step-3": episode(0, 4, 5)}


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda step: step % 6 == 2, ["step-2-env-1", "step-2-env-2", "step-8-env-1"]),
        (lambda episode: episode == 1, ["episode-1-env-1", "episode-1-env-2"]),
        (lambda env: env.episode_length_buf == 4, ["step-4-env-2"]),
    ],
)
def test_functions_are_triggers(studio, function, names):
    studio.film(13, 3, (3, 3, 5), envs=[2, 1], length=2, trigger=function)
    expected = names + (["step-8-env-2"] if "step-8-env-1" in names else [])
    if "step-4-env-2" in names:
        expected.append("step-9-env-2")
    assert studio.names() == sorted(f"board-{name}" for name in expected)


def test_each_environment_counts_its_own_episodes_and_a_grid_those_of_its_first(studio):
    chosen: Any = lambda episode: episode in (0, 2)  # noqa: E731
    studio.film(11, 3, (5, 3, 100), envs=[1, 0, 2], trigger=chosen)
    assert studio.all_seen() == {
        "board-episode-0-env-0": episode(0, 1, 5, 0),
        "board-episode-0-env-1": episode(0, 1, 3, 1),
        "board-episode-0-env-2": episode(0, 1, 11, 2),
        "board-episode-2-env-0": episode(2, 1, 1, 0),
        "board-episode-2-env-1": episode(2, 1, 3, 1),
    }
    studio.film(11, 3, (5, 3, 100), envs=[1, 0, 2], trigger=chosen, name="g", layout="grid")
    assert [name for name in studio.names() if name[0] == "g"] == ["g-episode-0", "g-episode-2"]
    video = studio.video("g-episode-2")
    assert video.seen(0, 2) == episode(2, 1, 3, 1)
    assert video.seen(1, 2) == episode(1, 2, 4, 0)


# -- one file --------------------------------------------------------------------------------------


def test_a_path_that_is_a_file_shows_everything_from_start_to_stop(studio):
    env = studio.env(trigger="auto", path=str(studio.folder / "a" / "simulation.mp4"), lengths=(5,))
    env.reset()
    steps(env, 8)
    recorder_of(env).stop()
    steps(env, 1)
    file = studio.folder / "a" / "simulation.mp4"
    assert recorder_of(env).files == [file]
    assert studio.video("a/simulation").seen() == episode(0, 1, 5) + episode(1, 1, 3)
    recorder_of(env).start()  # Another recording, which leaves the first one alone.
    steps(env, 2)
    env.close()
    assert studio.video("a/simulation").seen() == episode(0, 1, 5) + episode(1, 1, 3)
    assert studio.video("a/simulation_1").seen() == episode(1, 5, 5) + episode(2, 1, 1)


def test_each_clip_replaces_the_one_before_it_in_the_file(studio):
    path = str(studio.folder / "last.mp4")
    for name in ("last", "last_1"):  # A file of an earlier run gets no clip of this one.
        env = studio.env(path=path, trigger="every_n_episodes(2)", lengths=(4,))
        env.reset()
        steps(env, 9)
        recorder_of(env).flush()
        assert recorder_of(env).files[0].stem == name
        steps(env, 5)
        env.close()
        assert recorder_of(env).files == [studio.folder / f"{name}.mp4"]
        assert studio.seen(name) == episode(2, 1, 4)
    assert studio.names() == ["last", "last_1"]


def test_no_clip_begins_while_another_is_recorded_into_the_file(studio):
    studio.film(
        14, path=str(studio.folder / "a.mp4"), trigger="every_n_steps(4)", length=6, name=""
    )
    assert studio.all_seen() == {"a": episode(0, 9, 14)}


def test_a_file_that_is_there_is_treated_as_declared(studio):
    path = studio.folder / "a.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(DataError, match="'.*a.mp4' already exists.* such as a_1.mp4"):
        studio.film(3, path=str(path), if_exists="error")
    studio.film(3, path=str(path), trigger=at_episodes(5))  # No clip, so no file.
    assert path.read_bytes() == b"precious"
    studio.film(3, path=str(path), if_exists="overwrite")
    assert studio.all_seen() == {"a": episode(0, 1, 3)}


def test_one_file_cannot_hold_several_environments_apart(studio):
    path = str(studio.folder / "a.MP4")
    with pytest.raises(ValueError, match='2 environments are to be shown. Use layout="grid"'):
        studio.env(2, path=path, envs=2)
    studio.film(3, 2, path=path, envs=2, layout="grid")
    assert decode(studio.folder / "a.MP4", recorder_ffmpeg()).seen(1, 2) == episode(0, 1, 3, 1)
    with pytest.raises(ValueError, match="name is for clips in a folder"):
        studio.env(path=path, name="x")


def recorder_ffmpeg() -> str:
    from mjlab_rec.data.mp4 import find_ffmpeg

    return find_ffmpeg("This test")


def test_the_presets_path_may_be_a_file(tmp_path):
    preset = Preset("video")
    preset.set("path", ["out.mp4"])
    cfg: Any = preset.build(folder=tmp_path)
    assert cfg.path == "out.mp4" and cfg.chosen_trigger(by_hand=False) == at_start()
    cfg = Preset("video").build(folder=tmp_path)
    assert cfg.chosen_trigger(by_hand=False) == capped_cubic_episodes()


# -- last clips with a trigger ---------------------------------------------------------------------


def test_a_trigger_and_a_last_clip_give_both_kinds_of_clips(studio, painter):
    studio.film(16, lengths=(7,), length=3, trigger="at_episodes(0, 1)", last_clip=("end",))
    assert studio.all_seen() == {
        **{f"board-episode-{n}-env-0": episode(n, 1, 3) for n in (0, 1)},
        **{f"board-episode-{n}-last-env-0": episode(n, 5, 7) for n in (0, 1)},
    }
    assert painter.made[0].drawn == 4 * 3 + 1  # And once at the first reset.


def test_the_final_episode_is_added_to_the_schedule(studio):
    schedule = {"trigger": capped_cubic_episodes(), "last_clip": ("close",)}
    studio.film(11, lengths=(3,), **schedule)
    assert studio.all_seen() == {
        **{f"board-episode-{n}-env-0": episode(n, 1, 3) for n in (0, 1)},
        "board-episode-3-last-env-0": episode(3, 1, 2),
    }


@pytest.mark.parametrize("count", [3, 5, 6])
def test_an_episode_that_a_clip_shows_whole_is_not_filmed_twice(studio, painter, count):
    studio.film(count, lengths=(3,), trigger="every_n_episodes(1)", last_clip=("end", "close"))
    assert studio.names() == [f"board-episode-{n}-env-0" for n in range(-(-count // 3))]
    assert painter.made[0].drawn == count + 1


def test_the_final_episode_can_be_in_the_same_file(studio):
    studio.film(
        *(11, 1, (3,)),
        path=str(studio.folder / "last.mp4"),
        trigger=capped_cubic_episodes,
        last_clip=("close",),
    )
    assert studio.all_seen() == {"last": episode(3, 1, 2)}


def test_the_moments_before_an_end_leave_a_running_clip_in_the_file_alone(studio):
    studio.film(
        *(8, 1, (3,)),
        path=str(studio.folder / "a.mp4"),
        trigger=at_start,
        last_clip=("end",),
        length=5,
    )
    assert studio.all_seen() == {"a": episode(1, 1, 3)}


# -- which environments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("envs", "shown"), [(3, [0, 1, 2]), ([3], [3]), ((3,), [3]), ([1, 3], [1, 3])]
)
def test_a_number_means_the_first_and_a_list_these(studio, envs, shown):
    studio.film(1, 4, envs=envs, trigger=at_episodes(0))
    assert studio.names() == [f"board-episode-0-env-{i}" for i in shown]
    assert list(MemoryRecorderCfg(envs=envs).env_ids(4)) == shown


@pytest.mark.parametrize(
    ("words", "shown"), [("3", (0, 1, 2)), ("3,", (3,)), ("[3]", (3,)), ("1 3", (1, 3))]
)
def test_environments_on_the_command_line(words, shown):
    preset = Preset("video")
    preset.set("envs", words.split())
    cfg: Any = preset.build()
    assert cfg.env_ids(4) == shown


# -- the camera and the picture --------------------------------------------------------------------


def drawn_camera(view: ViewerConfig) -> mujoco.MjvGLCamera:
    """Where MuJoCo puts a free camera."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom size='1'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = view.lookat
    camera.distance, camera.azimuth, camera.elevation = view.distance, view.azimuth, view.elevation
    scene = mujoco.MjvScene(model, maxgeom=10)
    mujoco.mjv_updateScene(
        *(model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), camera),
        *(int(mujoco.mjtCatBit.mjCAT_ALL), scene),
    )
    left, right = scene.camera
    left.pos[:] = (left.pos + right.pos) / 2
    return left


@pytest.mark.parametrize(
    ("position", "lookat"),
    [
        ((3.0, 0.0, 2.0), (0.0, 0.0, 0.5)),
        ((-1.0, 2.0, -1.5), (1.0, 1.0, 1.0)),
        ((0.5, -4.0, 1.0), (0.5, 2.0, 1.0)),
    ],
)
def test_a_camera_is_where_it_was_put_and_looks_where_it_should(position, lookat):
    cfg = VideoRecorderCfg(camera_pos=position, camera_lookat=lookat, fovy=30.0)
    cfg.check()
    base = ViewerConfig(camera="front", fovy=60.0)
    view = cfg.view(base)
    camera = drawn_camera(view)
    np.testing.assert_allclose(camera.pos, position, atol=1e-3)
    ahead = np.subtract(lookat, position)
    np.testing.assert_allclose(camera.forward, ahead / np.linalg.norm(ahead), atol=1e-5)
    assert (view.camera, view.fovy) == (None, 30.0)
    assert view.origin_type is ViewerConfig.OriginType.WORLD
    assert base == ViewerConfig(camera="front", fovy=60.0)


def test_both_renderers_put_the_camera_there():
    warp = pytest.importorskip("mjlab_rec.sim.warp_renderer")
    view = ViewerConfig().seen_from((3.0, 1.0, 2.0), (0.0, 0.5, 0.5))
    axes, offset = warp._free_view(view)
    np.testing.assert_allclose(offset + torch.tensor(view.lookat), (3.0, 1.0, 2.0), atol=1e-5)
    camera = drawn_camera(view)
    np.testing.assert_allclose(-axes[:, 2], camera.forward, atol=1e-5)
    np.testing.assert_allclose(axes[:, 1], camera.up, atol=1e-5)


def test_a_camera_from_above_looks_down():
    view = ViewerConfig().seen_from((1.0, 1.0, 6.0), (1.0, 1.0, 1.0))
    assert (view.distance, view.elevation) == (5.0, -90.0)


def test_a_camera_is_put_relative_to_the_environments_origin(painter, tmp_path, ffmpeg):
    def make(**fields: Any) -> ManagerBasedRlEnv:
        cfg = VideoRecorderCfg(path=str(tmp_path), camera_pos=(0.0, 0.0, 9.0), **fields)
        world = board_cfg(4, recorders={"video": cfg})
        world.scene = copy.copy(world.scene)
        from mjlab_rec.terrains import TerrainEntityCfg

        world.scene.terrain, world.scene.env_spacing = TerrainEntityCfg(), 3.0
        return ManagerBasedRlEnv(world)

    with make(envs=[2]) as env:
        origin = env.scene.env_origins[2].tolist()
        assert max(map(abs, origin)) > 1.0
        assert painter.made[0].cfg.lookat == tuple(origin)
        assert painter.made[0].cfg.distance == 9.0
    with pytest.raises(ValueError, match=r"camera_pos is one place, but .*\(0, 1\).* Use follow"):
        make(envs=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"camera_pos": (1.0, 0.0, 0.0), "camera": 0}, "camera and camera_pos are mutually excl"),
        ({"camera_pos": (1.0, 0.0, 0.0), "follow": "board"}, "follow and camera_pos are mutually"),
        ({"camera_lookat": (1.0, 0.0, 0.0)}, "camera_lookat needs camera_pos"),
        ({"camera_pos": (0.0, 0.0, 0.0)}, "cannot look at .* give two different points"),
        ({"camera_pos": (0.0, 1.0)}, "of three numbers each"),
        ({"fovy": 0.0}, "fovy must be a number above 0"),
    ],
)
def test_wrong_cameras_are_explained(fields, message):
    with pytest.raises(ValueError, match=message):
        VideoRecorderCfg(**fields).check()


def test_one_size_is_the_default_everywhere():
    for view in (ViewerConfig(), VideoRecorderCfg().view(ViewerConfig())):
        assert (view.width, view.height) == (640, 480)
    preset: Any = load_preset("video")
    assert (preset.width, preset.height) == (None, None)


@pytest.mark.parametrize(
    ("count", "fields", "size"),
    [
        (1, {}, (640, 480)),
        (9, {}, (640, 480)),
        (10, {}, (480, 360)),
        (16, {}, (480, 360)),
        (16, {"columns": 2}, (320, 240)),
        (100, {}, (192, 144)),
        (100, {"width": 640, "height": 480}, (640, 480)),
    ],
)
def test_a_grids_pictures_shrink_until_it_fits(count, fields, size):
    view = VideoRecorderCfg(layout="grid", **fields).view(ViewerConfig(), count)
    assert (view.width, view.height) == size


def test_a_small_grid_keeps_the_viewers_size(studio):
    studio.film(2, 4, envs=4, layout="grid")
    assert studio.video("board-step-0").images.shape == (2, 2 * HEIGHT, 2 * WIDTH, 3)
    assert Painter.made[0].cfg.width == WIDTH


# -- more pictures than steps ----------------------------------------------------------------------


def test_more_frames_than_control_steps_are_explained(studio, caplog):
    with caplog.at_level(logging.WARNING):
        studio.film(4, fps=60.0)
    assert studio.video("board-step-0").rate == 50
    (said,) = caplog.messages
    assert said == (
        "VideoRecorderCfg: fps is 60, but at speed 1 there are 50 control steps a second; the video"
        " has a frame for each, and 50 frames per second. For more, lower the environment's"
        " decimation, or the speed."
    )


def test_more_rows_than_control_steps_are_explained(caplog):
    assert MemoryRecorderCfg(hz=100.0).stride(0.02) == 1
    (said,) = caplog.messages
    assert said == (
        "MemoryRecorderCfg: hz is 100, but there are 50 control steps a second; each of them is"
        " recorded. For more, lower the environment's decimation."
    )
