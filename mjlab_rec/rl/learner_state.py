"""What a learner holds besides its weights between iterations: with it a run goes on exactly."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mjlab_rec.rl.checkpoints import NETWORKS


def learner_state(alg: Any, log: Any, device: str) -> dict[str, Any]:
    """Return random generators, recurrent states and running means as tensors and plain data."""
    numpy_state: Any = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None,
        "numpy": [numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]],
        "python": random.getstate(),
        "hidden": {name: network.get_hidden_state() for name, network in networks(alg).items()},
        "last_hidden": getattr(alg, "last_hidden_states", None),
        "curiosity": _curiosity(alg),
        "log": log.state(),
    }


def load_learner_state(alg: Any, log: Any, device: str, state: Mapping[str, Any]) -> None:
    """Go on from what ``learner_state`` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.startswith("cuda"):
        torch.cuda.set_rng_state(state["cuda"], device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    random.setstate(state["python"])
    for name, network in networks(alg).items():
        network.reset(hidden_state=_moved(state["hidden"][name], device))
    if state["last_hidden"] is not None:
        alg.last_hidden_states = _moved(state["last_hidden"], device)
    _load_curiosity(alg, state.get("curiosity"), device)
    log.load_state(state["log"])


def networks(alg: Any) -> dict[str, Any]:
    """The networks of an algorithm, by name."""
    return {name: getattr(alg, name) for name in NETWORKS if hasattr(alg, name)}


def make_writable(alg: Any) -> None:
    """Let running means be loaded after learning.

    Those of intrinsic rewards change in rollouts, which leaves tensors of inference mode.
    """
    curiosity = getattr(alg, "rnd", None)
    for module in [] if curiosity is None else curiosity.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_inference():
                setattr(module, name, buffer.clone())


def _curiosity(alg: Any) -> dict[str, Any] | None:
    """What random network distillation holds and RSL-RL's checkpoints leave out."""
    rnd = getattr(alg, "rnd", None)
    if rnd is None:
        return None
    returns = rnd.reward_normalizer.disc_avg.avg if rnd.reward_normalization else None
    return {"steps": rnd.update_counter, "returns": returns}


def _load_curiosity(alg: Any, state: Mapping[str, Any] | None, device: str) -> None:
    rnd = getattr(alg, "rnd", None)
    if state is None or rnd is None:
        return
    rnd.update_counter = state["steps"]
    if state["returns"] is not None:
        rnd.reward_normalizer.disc_avg.avg = state["returns"].to(device)


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_moved(part, device) for part in value)
    return value if value is None else value.to(device)
