"""Tags of Weights & Biases runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any


def add_wandb_tags(tags: Sequence[str]) -> None:
    """Add tags to the current run, or to the next one of this process if there is none.

    Without the package wandb nothing happens.
    """
    if not tags or importlib.util.find_spec("wandb") is None:
        return
    wandb: Any = importlib.import_module("wandb")
    if wandb.run is not None:
        wandb.run.tags = tuple(dict.fromkeys((*(wandb.run.tags or ()), *tags)))
        return
    known = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
    os.environ["WANDB_TAGS"] = ",".join(sorted({*known, *tags}))
