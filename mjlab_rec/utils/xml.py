"""Corrections of the XML that ``MjSpec.to_xml()`` writes."""

from __future__ import annotations

import xml.etree.ElementTree as ET


def fix_spec_xml(xml: str, meshdir: str | None = None) -> str:
    """Make XML of a spec loadable, and tidy it.

    A spec that was attached may have a default class that contains one of the same name, which
    MuJoCo does not load; the inner one's settings move to the outer one. Empty classes that
    nothing uses are removed.

    Args:
        xml: What ``MjSpec.to_xml()`` returned.
        meshdir: The folder of mesh files to name in the XML; None keeps what it says.
    """
    root = ET.fromstring(xml)
    used = {e.get(a) for e in root.iter() for a in ("class", "childclass") if e.tag != "default"}
    for default in root.findall("default"):
        _merge_repeated(default)
        _remove_empty(default, used)
        if len(default) == 0:
            root.remove(default)
    if meshdir is not None:
        compiler = root.find("compiler")
        if compiler is None:
            compiler = ET.Element("compiler")
            root.insert(0, compiler)
        compiler.set("meshdir", meshdir)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _merge_repeated(default: ET.Element) -> None:
    """Merge classes into those around them that have the same name."""
    for child in list(default):
        if child.tag != "default":
            continue
        _merge_repeated(child)
        if child.get("class") is None or child.get("class") != default.get("class"):
            continue
        default.remove(child)
        for setting in child:
            outer = default.find(setting.tag) if setting.tag != "default" else None
            if outer is None:
                default.append(setting)
            else:
                outer.attrib.update(setting.attrib)


def _remove_empty(default: ET.Element, used: set[str | None]) -> None:
    for child in list(default):
        if child.tag == "default":
            _remove_empty(child, used)
            # MuJoCo 3.11 writes one without a name, which it does not load.
            name = child.get("class")
            if len(child) == 0 and (name is None or name not in used):
                default.remove(child)
