"""Robots of MuJoCo Menagerie by name."""

from __future__ import annotations

from typing import Any

from mjlab_rec.entity.config import EntityCfg
from mjlab_rec.entity.from_file import entity_from_file
from mjlab_rec.utils.extras import require
from mjlab_rec.utils.string import nearest


def menagerie_entity(name: str, entry: str | None = None, **kwargs: Any) -> EntityCfg:
    """An entity of a robot in MuJoCo Menagerie, ready for ``SceneCfg.entities``.

    The first use of a robot downloads it into a cache (``MENAGERIE_CACHE_DIR``), unless
    ``MENAGERIE_ROOT`` names a folder that has it.

    Args:
        name: Name of the robot's folder: "unitree_go1".
        entry: Which of its models: the name of an XML file without ``.xml``. None takes the robot
            alone.
        kwargs: Arguments of ``entity_from_file``, such as ``keyframe`` or any field of EntityCfg.
    """
    menagerie = require("mujoco_menagerie", "robots", "menagerie_entity")
    if name not in menagerie.names():
        raise ValueError(
            f"MuJoCo Menagerie has no robot '{name}'. {nearest(name, menagerie.names())}"
        )
    robot = menagerie.get(name)
    if entry is not None and entry not in robot.entry_names:
        raise ValueError(
            f"The robot '{name}' has no model '{entry}'. {nearest(entry, list(robot.entry_names))}"
        )
    try:
        path = robot.xml(entry or robot.default_model)
    except menagerie.MenagerieError as error:
        raise RuntimeError(
            f"Cannot get the robot '{name}': {error}. It is downloaded on first use. Without "
            "network: run 'mujoco-menagerie prefetch' elsewhere and copy its cache to the folder "
            "in MENAGERIE_CACHE_DIR, or set MENAGERIE_ROOT to a checkout of MuJoCo Menagerie."
        ) from error
    return entity_from_file(path, **kwargs)
