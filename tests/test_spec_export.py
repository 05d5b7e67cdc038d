"""Models written to files: complete, and equal when plain MuJoCo loads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import mujoco
import numpy as np
import pytest
from entity_worlds import ARM, DOG, entity

from mjlab_rec.actuator import BuiltinPositionActuatorCfg
from mjlab_rec.entity import EntityCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.utils.spec import export_spec
from mjlab_rec.utils.spec_export import png
from mjlab_rec.utils.xml import fix_spec_xml

# Not numbers of the model: its name, and where files were.
PLACES = {"names", "names_map", "paths", "_sizes"}


def assert_equal(model: mujoco.MjModel, other: mujoco.MjModel, *besides: str) -> None:
    """Check that all arrays are equal, apart from the digits that XML leaves out."""
    for field in dir(model):
        values = getattr(model, field)
        is_place = field.endswith("adr") or field in PLACES or field in besides
        if not isinstance(values, np.ndarray) or is_place:
            continue
        again = getattr(other, field)
        assert values.shape == again.shape, field
        if values.dtype.kind == "f":
            np.testing.assert_allclose(again, values, rtol=1e-4, atol=2e-6, err_msg=field)
        else:
            assert np.array_equal(values, again), field


def write_mesh(path: Path, size: float) -> None:
    corners = [(x, y, z) for x in (0, size) for y in (0, size) for z in (0, size)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"v {x} {y} {z}\n" for x, y, z in corners) + "f 1 3 2\nf 5 6 7\n")


def robot_in_files(folder: Path, size: float, with_name: bool = True) -> Path:
    """A robot whose model includes another file, with meshes, pictures and a height field."""
    write_mesh(folder / "meshes" / "part.obj", size)
    pixels = np.random.default_rng(int(size * 100)).integers(0, 255, (6, 4, 3), dtype=np.uint8)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "skin.png").write_bytes(png(pixels))
    for face in range(6):
        square = pixels[:4] // (face + 1)
        (folder / "pictures" / f"face{face}.png").write_bytes(png(square))
    heights = np.linspace(0, 1, 6).astype(np.float32).reshape(2, 3)
    header = np.array(heights.shape, np.int32).tobytes()
    (folder / "meshes" / "hills.bin").write_bytes(header + heights.tobytes())
    name = 'name="part" ' if with_name else ""
    sides = ("right", "left", "up", "down", "front", "back")
    faces = " ".join(f'file{side}="face{i}.png"' for i, side in enumerate(sides))
    (folder / "assets.xml").write_text(
        f"""<mujoco><asset>
          <mesh {name}file="part.obj"/>
          <texture name="skin" type="2d" file="skin.png"/>
          <texture name="box" type="cube" {faces}/>
          <material name="skin" texture="skin"/><material name="box" texture="box"/>
        </asset></mujoco>"""
    )
    (folder / "robot.xml").write_text(
        """<mujoco><compiler meshdir="meshes" texturedir="pictures" angle="radian"/>
        <include file="assets.xml"/>
        <asset><hfield name="hills" file="hills.bin" size="1 1 0.2 0.1"/></asset>
        <default><default class="part"><geom type="mesh" material="skin"/></default></default>
        <worldbody><body name="base"><freejoint/>
          <geom class="part" mesh="part"/>
          <body name="arm" pos="0 0 1"><joint name="hinge" axis="0 1 0" range="-1 1"/>
            <geom size="0.1" material="box"/><geom type="hfield" hfield="hills" contype="0"/>
          </body></body></worldbody></mujoco>"""
    )
    return folder / "robot.xml"


def of_file(path: Path) -> EntityCfg:
    return EntityCfg(spec_fn=lambda: mujoco.MjSpec.from_file(str(path)))


def scene_of_files(tmp_path: Path) -> Scene:
    one, two = (
        robot_in_files(tmp_path / name, size) for name, size in (("one", 0.2), ("two", 0.3))
    )
    servo = BuiltinPositionActuatorCfg(target_names_expr=(".*_hip",), stiffness=20.0, damping=1.0)
    entities = {"one": of_file(one), "two": of_file(two), "dog": entity(DOG, servo)}
    entities["arm"] = entity(ARM)
    return Scene(SceneCfg(terrain=TerrainEntityCfg(), entities=entities))


def test_a_scene_of_several_robots_is_complete_and_equal_when_loaded(tmp_path: Path):
    scene = scene_of_files(tmp_path)
    model = scene.compile()
    files = [(mesh.name, mesh.file) for mesh in scene.spec.meshes]
    scene.write(tmp_path / "out")
    assert_equal(model, mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "scene.xml")))
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    # Two files of one name, with different content.
    assert {"scene.xml", "assets/part.obj", "assets/part_2.obj"} <= names
    assert [(mesh.name, mesh.file) for mesh in scene.spec.meshes] == files


def test_a_zip_file_holds_the_same_and_leaves_a_folder_of_that_name_alone(tmp_path: Path):
    scene = scene_of_files(tmp_path)
    (tmp_path / "out.v2").mkdir()
    (tmp_path / "out.v2" / "mine.txt").write_text("keep")
    scene.write(tmp_path / "out.v2", zip=True)
    scene.to_zip(tmp_path / "again.zip")
    assert (tmp_path / "out.v2" / "mine.txt").read_text() == "keep"
    zipfile.ZipFile(tmp_path / "out.v2.zip").extractall(tmp_path / "unpacked")
    assert_equal(
        scene.compile(), mujoco.MjModel.from_xml_path(str(tmp_path / "unpacked" / "scene.xml"))
    )
    first, second = (tmp_path / name for name in ("out.v2.zip", "again.zip"))
    assert zipfile.ZipFile(first).namelist() == zipfile.ZipFile(second).namelist()


@pytest.mark.parametrize("with_name", [True, False])
def test_an_entity_alone_is_complete_and_equal_when_loaded(tmp_path: Path, with_name: bool):
    robot = of_file(robot_in_files(tmp_path / "robot", 0.2, with_name)).build()
    robot.write_xml(tmp_path / "out" / "robot.xml")
    assert_equal(robot.compile(), mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "robot.xml")))
    robot.to_zip(tmp_path / "robot.zip")
    assert "entity.xml" in zipfile.ZipFile(tmp_path / "robot.zip").namelist()


@pytest.mark.parametrize(("channels", "faces"), [(1, 1), (3, 1), (4, 1), (1, 6), (3, 6)])
def test_pixels_in_memory_become_pictures(tmp_path: Path, channels: int, faces: int):
    kinds = mujoco.mjtTexture
    spec = mujoco.MjSpec()
    texture = spec.add_texture(name="a/b", width=4, height=4 * faces, nchannel=channels)
    texture.type = kinds.mjTEXTURE_CUBE if faces == 6 else kinds.mjTEXTURE_2D
    pixels = np.random.default_rng(channels).integers(0, 255, 16 * faces * channels, np.uint8)
    texture.data = pixels.tobytes()
    material = spec.add_material(name="m")
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "a/b"
    spec.worldbody.add_geom(size=[1, 0, 0], material="m")
    export_spec(spec, tmp_path)
    # What is automatic in memory becomes linear in files.
    loaded = mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml"))
    assert_equal(spec.compile(), loaded, "tex_colorspace")
    assert texture.data == pixels.tobytes()


def test_repeated_default_classes_are_merged_and_only_unused_ones_removed():
    fixed = fix_spec_xml(
        """<mujoco><default><default class="a"><geom size="1" group="2"/>
        <default class="a"><geom size="3"/><joint damping="1"/></default></default>
        <default class="used"/><default class="unused"/></default>
        <worldbody><geom class="used" size="1"/><geom class="a"/></worldbody></mujoco>""",
        meshdir="parts",
    )
    model = mujoco.MjModel.from_xml_string(fixed)
    assert model.geom_size[1, 0] == 3 and model.geom_group[1] == 2
    assert "unused" not in fixed and 'meshdir="parts"' in fixed
    assert "default" not in fix_spec_xml("<mujoco><default/><worldbody/></mujoco>")


def test_files_in_memory_are_written_and_only_those_that_are_used(tmp_path: Path):
    write_mesh(tmp_path / "part.obj", 0.2)
    spec = mujoco.MjSpec.from_string(
        """<mujoco><asset><mesh name="m" file="sub/part.obj"/></asset><worldbody>
        <geom type="mesh" mesh="m"/></worldbody></mujoco>"""
    )
    content = (tmp_path / "part.obj").read_bytes()
    spec.assets = {"../../x/sub/part.obj": content, "../evil.stl": b"unused"}
    out = tmp_path / "deep" / "out"
    try:
        export_spec(spec, out)
    finally:
        written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert written == {"part.obj", "deep/out/scene.xml", "deep/out/assets/part.obj"}


def test_a_file_that_is_missing_is_named(tmp_path: Path):
    spec = mujoco.MjSpec()
    spec.add_mesh(name="m", file="gone.stl")
    with pytest.raises(ValueError, match="'gone.stl' of 'm' is neither in the spec's assets nor"):
        export_spec(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()
