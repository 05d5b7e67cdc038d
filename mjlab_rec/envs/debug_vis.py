"""What of an environment can draw shapes to explain itself: terms, sensors and the terrain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mjlab_rec.sensor.sensor import Sensor

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

_MANAGERS = (
    *("command", "event", "action", "observation", "reward", "termination", "curriculum"),
    "metrics",
)


def debug_vis_sources(env: ManagerBasedRlEnv) -> dict[str, Any]:
    """Return what can draw, by names such as "command twist" and "sensor feet".

    A command, a sensor or the terrain is among them if its cfg has ``debug_vis=True``; other terms
    if their class has a method ``debug_vis``.
    """
    return {name: source for name, source in _sources(env) if callable(source.debug_vis)}


def _sources(env: ManagerBasedRlEnv) -> Iterator[tuple[str, Any]]:
    for kind in _MANAGERS:
        for name, term in getattr(env, f"{kind}_manager").get_visualizable_terms():
            yield f"{kind} {name}", term
    for name, sensor in env.scene.sensors.items():
        draws = type(sensor).debug_vis is not Sensor.debug_vis
        if draws and getattr(getattr(sensor, "cfg", None), "debug_vis", True):
            yield f"sensor {name}", sensor
    terrain: Any = env.scene.terrain
    if hasattr(terrain, "debug_vis") and getattr(terrain.cfg, "debug_vis", False):
        yield "terrain", terrain
