"""The engine and device of a replay, and whether they give the same bits as in the recording."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import Any

import torch

from mjlab_rec.replay.recorded_model import RecordedModel
from mjlab_rec.sim.simulation import resolve_device
from mjlab_rec.utils.cpu import cpu_name
from mjlab_rec.utils.string import nearest

_WORLDS = {"mjbatch": 512, "warp": 256, "cuda": 4096}


def choose_engine(recorded: RecordedModel, engine: str | None, device: str | None) -> str:
    """Set the engine, and return the device; None means those of the recording, if they are here.

    Args:
        recorded: What to simulate; its cfg gets the engine.
        engine: "mjbatch" or "warp".
        device: "cpu", "cuda" or "cuda:1".
    """
    known = ("mjbatch", "warp")
    if engine is not None and engine not in known:
        raise ValueError(f"Unknown engine {engine!r}. {nearest(engine, known)}")
    engine = engine or recorded.cfg.engine
    if device is None:
        on_gpu = recorded.device == "cuda" and engine != "mjbatch" and torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
    device = str(resolve_device(device))
    has_mjbatch = importlib.util.find_spec("mjbatch") is not None and device == "cpu"
    if engine == "auto" or (engine == "mjbatch" and not has_mjbatch):
        engine = "mjbatch" if has_mjbatch else "warp"
    recorded.cfg.engine = engine  # pyright: ignore[reportAttributeAccessIssue]
    return device


def usual_worlds(engine: str, device: str) -> int:
    """A number of worlds that are simulated well at the same time."""
    return _WORLDS[engine if device == "cpu" else "cuda"]


def why_not_exact(about: Mapping[str, Any], recorded: RecordedModel, device: str) -> str:
    """Why the same bits as in the recording cannot be expected; empty if they can."""
    engine = recorded.cfg.engine
    if about.get("engine") != engine:
        return f"it was recorded with the engine {about.get('engine')}, and this is {engine}"
    if recorded.device != "cpu" or device != "cpu":
        return "on a GPU the same step may give slightly different numbers each time"
    packages = ("mujoco", "mjbatch") if engine == "mjbatch" else ("mujoco-warp", "warp-lang")
    versions = about.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    for package in packages:
        here, there = importlib.metadata.version(package), versions.get(package)
        if here != there:
            return f"it was recorded with {package} {there}, and this is {here}"
    if about.get("cpu") != cpu_name():
        return f"it was recorded on the CPU {about.get('cpu')}, and this is {cpu_name()}"
    return ""
