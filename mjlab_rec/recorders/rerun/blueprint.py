"""The default layout of a recording in Rerun: the scene, the rewards and the actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.recorders.rerun.scene import WORLD
from mjlab_rec.recorders.rerun.series import SUMMARY

_REWARDS = ("reward", "reward_terms")
_ACTIONS = ("action", "processed_action")
_NO_PLOT = ("terminated", "truncated")


def default_blueprint(
    model: mujoco.MjModel, channels: Sequence[str], width_m: float, many: bool
) -> Any:
    """A view of the scene with plots of the recorded channels next to it.

    Args:
        model: The compiled model, for the size of the scene.
        channels: Names of the recorded channels.
        width_m: Distance from the first environment to the last.
        many: Whether to show statistics of the environments; their own lines can be switched on.
    """
    import rerun.blueprint as rrb

    plots = []
    rest = [name.partition("/")[0] for name in channels]
    groups: dict[str, tuple[str, ...]] = {"Rewards": _REWARDS, "Actions": _ACTIONS}
    known = {*_REWARDS, *_ACTIONS, *_NO_PLOT}
    groups |= {top: (top,) for top in dict.fromkeys(rest) if top not in known}
    for title, tops in groups.items():
        lines = [f"/{top}" for top in tops if top in rest]
        if lines:
            shown = [f"{SUMMARY}{path}" for path in lines] if many else []
            hidden: Any = {path: rrb.EntityBehavior(visible=False) for path in lines if many}
            contents = [f"{path}/**" for path in [*shown, *lines]]
            plots.append(
                rrb.TimeSeriesView(name=title, origin="/", contents=contents, overrides=hidden)
            )
    scene = rrb.Spatial3DView(
        name="Scene", origin=WORLD, eye_controls=_eye(model, width_m), contents=[f"{WORLD}/**"]
    )
    layout = rrb.Horizontal(scene, rrb.Vertical(*plots), column_shares=[3, 2]) if plots else scene
    return rrb.Blueprint(
        layout,
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.TimePanel(state="collapsed", timeline="time"),
    )


def _eye(model: mujoco.MjModel, width_m: float) -> Any:
    """Look at the middle of the scene from far enough to see all of it."""
    import rerun.blueprint as rrb

    center = np.asarray(model.stat.center, float)
    away = 1.5 * float(model.stat.extent) + 0.8 * width_m
    return rrb.EyeControls3D(
        position=center + away * np.array([0.65, -0.65, 0.4]), look_target=center, eye_up=(0, 0, 1)
    )
