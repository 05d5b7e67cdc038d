"""URDF files as MuJoCo reads them: meshes that it finds, and links that keep their names."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

_MESHES = (".stl", ".obj", ".msh")


def urdf_text(path: Path) -> str:
    """The text of a URDF file, with full paths of meshes and MuJoCo's settings for robots.

    Links that are fixed to others stay bodies, and geoms for the eye are kept.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(f"it is not XML: {error}") from error
    if root.tag != "robot":
        raise ValueError(f"a URDF file begins with <robot>, but this one with <{root.tag}>.")
    for parent in root.iter():
        for kind in ("visual", "collision"):
            for element in parent.findall(kind):
                _resolve(parent, element, path)
    extension = root.find("mujoco")
    if extension is None:
        extension = ET.SubElement(root, "mujoco")
    compiler = extension.find("compiler")
    if compiler is None:
        compiler = ET.SubElement(extension, "compiler")
    compiler.set("strippath", "false")
    for name in ("discardvisual", "fusestatic"):
        if compiler.get(name) is None:
            compiler.set(name, "false")
    return ET.tostring(root, encoding="unicode")


def _resolve(link: ET.Element, element: ET.Element, path: Path) -> None:
    """Give a mesh by its full path; what is only seen and cannot be read is left out."""
    for mesh in element.iter("mesh"):
        name = mesh.get("filename", "")
        readable = PurePosixPath(name).suffix.lower() in _MESHES
        if not readable and element.tag == "visual":
            link.remove(element)
            return
        if not readable:
            raise ValueError(
                f"the mesh '{name}' has a format that MuJoCo does not read. Convert it to "
                f"{', '.join(_MESHES)}."
            )
        mesh.set("filename", str(_find(name, path)))


def _find(name: str, urdf: Path) -> Path:
    """Look for a file relative to the URDF file, and in the folders above it by its package."""
    plain = name.removeprefix("file://").removeprefix("package://")
    parts = PurePosixPath(plain).parts
    folders = [urdf.parent, *urdf.parent.parents]
    # A package may have been copied without the folder of its name.
    tries = [plain] if len(parts) < 2 or "://" not in name else [plain, str(Path(*parts[1:]))]
    for folder in folders:
        for tried in tries:
            if (folder / tried).is_file():
                return folder / tried
    raise ValueError(
        f"the mesh '{name}' was found neither in {urdf.parent} nor in the folders above it."
    )
