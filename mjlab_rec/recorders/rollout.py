"""The rollout recorder: exact rows of every environment, at full speed, in any format."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.pipeline import Pipeline
from mjlab_rec.data.schema import Block, DataError, RunInfo
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.pictures import with_codecs
from mjlab_rec.recorders.transitions import TransitionRecorder

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.cfg import RolloutRecorderCfg

logger = logging.getLogger(__name__)


class RolloutRecorder(TransitionRecorder):
    """Writes a row per environment and step: observation, action, reward and what followed.

    Values stay on the device until a block of rows is full; another thread writes it. Subclasses
    set ``format``, or override ``channels`` to record more.
    """

    cfg: RolloutRecorderCfg
    format: ClassVar[str] = "hdf5"
    """Name of the file format, unless the cfg sets another."""

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        if self.cfg.keep != "all" and not self.counters.knows_success:
            raise ValueError(
                f"{type(self.cfg).__name__}.keep is {self.cfg.keep!r}, but success is not"
                " defined. Set success to the name of a termination term or a function of the"
                " environment, or add a termination term named 'success'."
            )
        self._pipeline: Pipeline | None = None
        self._written: list[Path] = []  # files of finished recordings
        self._written_bytes = 0

    def writer(self) -> Callable[..., Any]:
        """The factory of the writer, called with a RunInfo and WriterOptions."""
        return writer_class(self.cfg.format or self.format)

    @property
    def files(self) -> list[Path]:
        """Files written so far."""
        return self._written + ([] if self._pipeline is None else self._pipeline.files)

    @property
    def nbytes(self) -> int:
        """Bytes written so far, stopped recordings included."""
        return self._written_bytes + (0 if self._pipeline is None else self._pipeline.nbytes)

    @property
    def full(self) -> bool:
        """Whether a limit of the cfg is reached."""
        most, pipeline = self.cfg.max_bytes, self._pipeline
        if super().full or (pipeline is not None and pipeline.full):
            return True
        return most is not None and pipeline is not None and pipeline.nbytes >= most

    def begin_recording(self, info: RunInfo, block_rows: int) -> None:
        """Open the file."""
        cfg, writer = self.cfg, self.writer()
        options = WriterOptions(
            path=cfg.path,
            # A second recording in this run gets its own name.
            if_exists="number" if self._written and cfg.if_exists != "append" else cfg.if_exists,
            compression=cfg.compression,
            roll_over_bytes=cfg.roll_over_bytes,
            block_rows=block_rows,
            durability=cfg.durability,
        )
        name, codecs = getattr(writer, "__name__", str(writer)), getattr(writer, "codecs", ())
        floats = getattr(writer, "encodes_floats", False)
        try:
            channels = with_codecs(info.channels, cfg.pictures, codecs, name, floats)
        except (ValueError, DataError) as error:
            raise ValueError(f"{type(cfg).__name__}: {error}") from None
        info = replace(info, channels=channels)
        # max_episodes and per-environment windows need whole episodes, whatever the format.
        by_episode = self._windows.per_env or cfg.max_episodes is not None
        self._pipeline = Pipeline(
            writer,
            info,
            options,
            keep=cfg.keep,
            by_episode=by_episode or getattr(writer, "by_episode", False),
            max_episodes=cfg.max_episodes,
        )

    def process(self, batch: Block) -> None:
        """Write a block, in the writer thread."""
        assert self._pipeline is not None
        self._pipeline.write(batch)

    def end_recording(self) -> None:
        """Finish the file."""
        pipeline = self._pipeline
        assert pipeline is not None
        try:
            pipeline.close()
        finally:
            self._pipeline = None
            self._written += pipeline.files
            self._written_bytes += pipeline.nbytes
        if not pipeline.rows and sys.exc_info()[0] is None:  # An error says more.
            where = f" '{self._written[-1]}'" if self._written else ""
            logger.warning("%s: the recording%s has no rows.", type(self).__name__, where)
