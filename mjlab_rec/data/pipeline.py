"""Pass blocks to a format's writer, as they are or as whole episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mjlab_rec.data.episodes import EpisodeAssembler
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.schema import Block, Episode, RunInfo

Keep = Literal["all", "successful", "failed", "separate"]


class Pipeline:
    """Writes blocks, or the episodes in them, in the writer's thread.

    Args:
        writer: Makes a writer of the format.
        info: What is recorded.
        options: How to write; with `keep` "separate" the path gets a suffix for each kind.
        keep: Which episodes to keep, by their success.
        by_episode: Write whole episodes even if the format can write blocks.
        max_episodes: Keep at most this many episodes, if whole episodes are written.
    """

    def __init__(
        self,
        writer: Callable[[RunInfo, WriterOptions], Writer],
        info: RunInfo,
        options: WriterOptions,
        keep: Keep = "all",
        by_episode: bool = False,
        max_episodes: int | None = None,
    ) -> None:
        from mjlab_rec.data.formats.episode_table import check_channels  # Loads polars.

        check_channels(info)
        self.episodes = 0
        """Episodes that were kept; with `keep` "all", those that ended."""
        self.rows = 0
        """Rows that were written, of all environments together."""
        self._keep = keep
        self._max_episodes = max_episodes
        self._assembler = EpisodeAssembler(info) if by_episode or keep != "all" else None
        self._writers: list[Writer] = []
        try:
            for path in _paths(options.path, keep):
                options_here = WriterOptions(**{**vars(options), "path": path})
                self._writers.append(writer(info, options_here))
        except BaseException:
            self._close_writers()
            raise

    @property
    def writers(self) -> list[Writer]:
        """The writers: one, or with `keep` "separate" one of successes and one of failures."""
        return self._writers

    @property
    def files(self) -> list[Path]:
        """Files written so far."""
        return [file for writer in self._writers for file in writer.files]

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return sum(writer.nbytes for writer in self._writers)

    @property
    def full(self) -> bool:
        """Whether `max_episodes` were kept."""
        return self._max_episodes is not None and self.episodes >= self._max_episodes

    def write(self, block: Block) -> None:
        """Write a block."""
        if self._assembler is None:
            self.episodes += len(block.ends)
            self._writers[0].write(block)
            self.rows += block.rows * block.num_envs
        else:
            for episode in self._assembler.add(block):
                self._write_episode(episode)

    def close(self) -> None:
        """Write the running episodes as cut, and close the files."""
        try:
            if self._assembler is not None:
                for episode in self._assembler.finish():
                    self._write_episode(episode)
                for writer in self._writers:
                    writer.gaps = self._assembler.gaps
        finally:
            self._close_writers()

    def _write_episode(self, episode: Episode) -> None:
        success = bool(episode.success)
        if self.full or (self._keep == "successful" and not success):
            return
        if self._keep == "failed" and success:
            return
        failed = self._keep == "separate" and not success
        self._writers[failed].write_episode(episode)
        self.episodes += 1
        self.rows += episode.rows

    def _close_writers(self) -> None:
        errors = []
        for writer in self._writers:
            try:
                writer.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup("Closing failed.", errors)


def _paths(path: str, keep: Keep) -> list[str]:
    if keep != "separate" or not path:
        return [path] * (1 + (keep == "separate"))
    base = Path(path)
    return [
        str(base.with_name(f"{base.stem}_{kind}{base.suffix}")) for kind in ("successful", "failed")
    ]
