"""A spec as XML with all its files, in a folder or a zip file, that any MuJoCo loads."""

from __future__ import annotations

import io
import os
import struct
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.utils.xml import fix_spec_xml

_ASSETS = "assets"
_COLORSPACES = ("auto", "linear", "sRGB")
_FACES = "RLUDFB"  # The order of a cube's faces in memory.
_PNG_COLORS = {1: 0, 3: 2, 4: 6}  # Number of channels to PNG's color type.


def files_on_disk(spec: mujoco.MjSpec) -> dict[str, bytes]:
    """The files of a spec that are on the disk, by the names that it has for them."""
    found = {}
    for element, _, _, name in _files(spec):
        folder = spec.texturedir if _is_texture(element) else spec.meshdir
        path = Path(spec.modelfiledir, folder, name)
        if _asset(spec, name) is None and path.is_file():
            found[name] = path.read_bytes()
    return found


def use_absolute_paths(spec: mujoco.MjSpec) -> None:
    """Give the files of a spec by their full paths, where they are on the disk.

    A spec that another one is attached to does not know the folders of the other one's files.
    """
    for element, attribute, index, name in _files(spec):
        folder = (
            spec.texturedir if attribute == "cubefiles" or _is_texture(element) else spec.meshdir
        )
        path = Path(spec.modelfiledir, folder, name)
        if _asset(spec, name) is None and path.is_file():
            _set_file(element, attribute, index, str(path.resolve()))


def export_spec(spec: mujoco.MjSpec, output_dir: str | Path, *, zip: bool = False) -> None:
    """Write a spec as ``scene.xml`` with its files in ``assets/``.

    The spec does not change. Numbers in the XML have six digits.

    Args:
        spec: The spec.
        output_dir: The folder, created if needed.
        zip: Write one file, ``<output_dir>.zip``, instead.
    """
    files = packed(spec, "scene.xml")
    output_dir = Path(output_dir)
    if zip:
        is_zip = output_dir.suffix == ".zip"
        write_zip(files, output_dir if is_zip else output_dir.with_name(output_dir.name + ".zip"))
    else:
        write_files(files, output_dir)


def write_zip(files: dict[str, bytes], path: Path) -> None:
    """Write files, by name, into a zip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_of(files))


def zip_of(files: dict[str, bytes]) -> bytes:
    """A zip file of files, by name."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return memory.getvalue()


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write files, by name, into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def packed(spec: mujoco.MjSpec, xml_name: str) -> dict[str, bytes]:
    """The XML of a spec and every file that it needs, by name."""
    copy = spec.copy()
    files: dict[str, bytes] = {}
    for element, attribute, index, name in _files(copy):
        if not element.name:
            element.name = PurePosixPath(name).stem  # As MuJoCo would; the file may get another.
        data = _content(spec, element, name)
        _set_file(element, attribute, index, _store(files, PurePosixPath(name).name, data))
    for texture in copy.textures:
        if texture.data:
            _move_pixels_to_files(texture, files)
    copy.meshdir = copy.texturedir = _ASSETS
    copy.assets = {f"{_ASSETS}/{name}": data for name, data in files.items()}
    xml = fix_spec_xml(_with_texture_formats(copy.to_xml(), copy.textures))
    return {xml_name: xml.encode(), **{f"{_ASSETS}/{name}": d for name, d in files.items()}}


def _files(spec: mujoco.MjSpec) -> Iterator[tuple[Any, str, int, str]]:
    """Every file that a spec names: the element, its attribute, the index there, and the name."""
    for element in (*spec.meshes, *spec.hfields, *spec.skins, *spec.textures):
        if element.file:
            yield element, "file", 0, element.file
        for index, name in enumerate(element.cubefiles if _is_texture(element) else ()):
            if name:
                yield element, "cubefiles", index, name


def _is_texture(element: Any) -> bool:
    return isinstance(element, mujoco.MjsTexture)


def _set_file(element: Any, attribute: str, index: int, name: str) -> None:
    if attribute == "file":
        element.file = name
    else:
        element.cubefiles[index] = name


def _asset(spec: mujoco.MjSpec, name: str) -> bytes | None:
    """The content of a file that the spec holds in memory; keys may have folders in front."""
    wanted = name.replace(os.sep, "/")
    for key, data in spec.assets.items():
        key = key.replace("\\", "/")
        if key == wanted or key.endswith("/" + wanted):
            return data
    return None


def _content(spec: mujoco.MjSpec, element: Any, name: str) -> bytes:
    data = _asset(spec, name)
    if data is not None:
        return data
    folders = (spec.texturedir if _is_texture(element) else spec.meshdir, "")
    for folder in folders:
        path = Path(spec.modelfiledir, folder, name)
        if path.is_file():
            return path.read_bytes()
    raise ValueError(
        f"Cannot write the model: the file '{name}' of '{element.name}' is neither in the spec's "
        "assets nor on the disk. Name files by full paths, or build the model with an Entity."
    )


def _store(files: dict[str, bytes], name: str, data: bytes) -> str:
    """Add a file, under another name if there is a different one of that name."""
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    number = 2
    while files.get(name, data) != data:
        name = f"{stem}_{number}{suffix}"
        number += 1
    files[name] = data
    return name


def _move_pixels_to_files(texture: mujoco.MjsTexture, files: dict[str, bytes]) -> None:
    """Put pixels that are only in memory, which XML cannot hold, into PNG files."""
    pixels = np.frombuffer(texture.data, np.uint8)
    pixels = pixels.reshape(texture.height, texture.width, texture.nchannel)
    stem = texture.name.replace("/", "_") or "texture"
    texture.data = b""
    if texture.type != mujoco.mjtTexture.mjTEXTURE_2D:
        texture.gridsize = [6, 1]
        for i, face in enumerate(_FACES):
            texture.gridlayout[i] = face
        # Cubes are opaque, and MuJoCo reads no fourth channel from their files.
        pixels = pixels[:, :, :3]
        texture.nchannel = pixels.shape[2]
    texture.file = _store(files, f"{stem}.png", png(pixels))


def png(pixels: np.ndarray) -> bytes:
    """Encode pixels (height, width, channels)."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    # Each row begins with its filter: none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLORS[channels], 0, 0, 0)
    start, end = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header), chunk(b"IEND", b"")
    return start + chunk(b"IDAT", zlib.compress(rows.tobytes())) + end


def _with_texture_formats(xml: str, textures: list[mujoco.MjsTexture]) -> str:
    """Say how textures are stored, which MuJoCo leaves out or writes wrongly."""
    by_name = {texture.name: texture for texture in textures}
    root = ET.fromstring(xml)
    for element in root.iter("texture"):
        texture = by_name.get(element.get("name", ""))
        if texture is not None:
            element.set("colorspace", _COLORSPACES[int(texture.colorspace)])
            element.set("nchannel", str(texture.nchannel))
        layout = element.get("gridlayout")
        if layout is not None:
            rows, columns = map(int, element.get("gridsize", "1 1").split())
            element.set("gridlayout", layout[: rows * columns])
    return ET.tostring(root, encoding="unicode")
