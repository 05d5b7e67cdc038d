"""Curves on Weights & Biases, in addition to those of TensorBoard."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from mjlab_rec.rl.run_folders import as_plain
from mjlab_rec.utils.extras import require

_LogWriter: Any = require("rsl_rl.utils.log_writer", "train", "WandbWriter").LogWriter

logger = logging.getLogger(__name__)


class WandbWriter(SummaryWriter, _LogWriter):
    """Sends each point to Weights & Biases, too; without a key it is stored, to be sent later.

    Args:
        log_dir: Folder of the run, whose name the run gets.
        first_iteration: Where the curves begin.
        env_cfg: The environment's cfg.
        train_cfg: The learner's cfg as a dict.
    """

    def __init__(
        self, log_dir: str, first_iteration: int, env_cfg: Any, train_cfg: dict[str, Any]
    ) -> None:
        self._wandb = require("wandb", None, 'logger "wandb"')
        SummaryWriter.__init__(self, log_dir, purge_step=first_iteration, flush_secs=10)
        mode = os.environ.get("WANDB_MODE")
        if mode is None and not self._wandb.api.api_key:
            mode = "offline"  # It would ask for a key.
            logger.warning(
                "Weights & Biases has no key here, so the run is stored in %s/wandb. Send it later"
                " with `wandb sync`, or log in first with `wandb login`.",
                log_dir,
            )
        self._wandb.init(
            project=train_cfg.get("wandb_project"),
            entity=os.environ.get("WANDB_USERNAME"),
            name=Path(log_dir).name,
            dir=log_dir,
            mode=mode,
            tags=list(train_cfg.get("wandb_tags", ())),
            config={"train_cfg": as_plain(train_cfg), "env_cfg": as_plain(env_cfg)},
        )

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, **kwargs: Any
    ) -> None:
        """Add a point to a curve."""
        SummaryWriter.add_scalar(self, tag, scalar_value, global_step, **kwargs)
        if not tag.endswith("/time"):  # There, steps are seconds.
            self._wandb.log({tag: scalar_value}, step=global_step)

    def store_config(self, env_cfg: Any, train_cfg: dict[str, Any]) -> None:
        """Configs are sent at the beginning."""

    def save_model(self, model_path: str, it: int) -> None:
        """Send a checkpoint."""
        self._wandb.save(model_path, base_path=os.path.dirname(model_path))

    def save_file(self, path: str) -> None:
        """Send a file."""
        self._wandb.save(path, base_path=os.path.dirname(path))

    def save_video(self, video: Path, it: int) -> None:
        """Send a clip."""
        self._wandb.log({"video": self._wandb.Video(str(video), format="mp4")}, step=it)

    def stop(self) -> None:
        """Send what is left."""
        self._wandb.finish()
