"""Read recordings while they are written: each row once, as soon as it is in the file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mjlab_rec.data.discovery import NoMatchError, Source, find
from mjlab_rec.data.formats.registry import recognise
from mjlab_rec.data.planned import Collection, read_collections
from mjlab_rec.data.remote import Mirror, is_url
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.tails import Tail
from mjlab_rec.data.union import check_same_channels

_LOG = logging.getLogger(__name__)

_PATIENCE_S = 60.0  # without a timeout: for a recording that does not exist, or without a lock
_POLL_S = 0.2
_POLL_URL_S = 2.0  # Listing costs money.
_SHARE = 0.1  # of the time that polling may take

Rows = dict[str, np.ndarray]


def follow(
    source: Source | Sequence[Source],
    channels: Sequence[str] | None = None,
    *,
    episodes: bool = False,
    batch_size: int | None = None,
    recordings: int | None = None,
    check: bool = True,
    poll_s: float | None = None,
    timeout_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Follower:
    """Rows of a recording while it is written, by this or another process, each row once.

    Of HDF5 recordings rows come block by block, as soon as the block is in the file; of other
    formats, and of HDF5 recordings of whole episodes, an episode comes once it is written. Rows of
    an environment come in order. Iterate over the result: each item is a dictionary of arrays with
    the channels and "env", "episode" and "step", and "recording" if there may be several. It ends
    when the recording has been closed, or when its process was killed; ``ends`` says which.

    Args:
        source: A recording, which need not exist yet, or a folder, pattern or list of recordings,
            in which others may appear. Or a URL of a file system that fsspec knows, such as
            "s3://bucket/run", for a recording or a folder whose files are uploaded when they are
            complete. They are copied to a temporary folder until they have been read.
        channels: Names of channels, by default all.
        episodes: Return whole episodes, one at a time. Those that were running at the end come
            last, as far as they were recorded.
        batch_size: Return exactly this many rows at a time; the last ones may be fewer.
        recordings: How many recordings there will be. None: as many as are there, and of a
            folder of `mjlab-rec collect` as many shards as are planned.
        check: Raise for damaged data; otherwise it is left out, or returned as it is.
        poll_s: Seconds between two looks at the files. None: 0.2, and 2 for a URL.
        timeout_s: Seconds without anything new. Then a recording whose process lives raises a
            DataError, and another one has ended. None: it waits as long as the process lives, and a
            minute for a recording that is not there, or that another machine may be writing. Shards
            of a collection are waited for without end, and after `timeout_s` those that are missing
            are only a warning.
        clock: Returns the time in seconds.
        pause: Waits for some seconds.
    """
    if batch_size is not None and (episodes or batch_size < 1):
        raise ValueError(
            "batch_size must be at least 1, and cannot be combined with episodes=True: an item is"
            f" either a batch or an episode. Got {batch_size}."
        )
    names = names_in(channels)
    mirror = Mirror(source) if isinstance(source, str) and is_url(source) else None
    if poll_s is None:
        poll_s = _POLL_S if mirror is None else _POLL_URL_S
    return Follower(
        _Source(source, recordings, mirror),
        names,
        episodes=episodes,
        batch_size=batch_size,
        check=check,
        poll_s=poll_s,
        timeout_s=timeout_s,
        clock=clock,
        pause=pause,
    )


@dataclass
class _Source:
    """Where recordings are, or will be."""

    source: Source | Sequence[Source]
    expected: int | None
    mirror: Mirror | None
    """The copy of what is at a URL."""
    collections: list[Collection] = field(init=False, default_factory=list)
    """The collections that are there now, if no number of recordings was given."""
    one: Path | None = field(init=False, default=None)
    """The path of the only recording, if it is one or nothing yet."""

    def find(self) -> list[Path]:
        """The recordings that are there now."""
        is_path, source = isinstance(self.source, str | Path), self.source
        if self.mirror is not None:
            self.mirror.update()
            source = self.mirror.path
        try:
            found = find(source)
        except NoMatchError:
            return []
        if self.expected is None:
            self.collections = read_collections(found.collections)
        if not (is_path and found.one):
            self.one = None
            return found.paths
        path = self.one = found.paths[0]
        # An empty folder may become a recording, or a folder of recordings.
        there = recognise([path]) is not None if path.is_dir() else Tail.exists(path)
        return [path] if there else []

    def has_read(self, path: Path) -> None:
        """A recording was read to its end."""
        if self.mirror is not None:
            self.mirror.drop(path)

    def close(self) -> None:
        """Remove what was copied."""
        if self.mirror is not None:
            self.mirror.close()


class Follower:
    """An iterator over new rows, see ``follow``."""

    def __init__(
        self,
        source: _Source,
        channels: list[str] | None,
        *,
        episodes: bool,
        batch_size: int | None,
        check: bool,
        poll_s: float,
        timeout_s: float | None,
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self.paths: list[Path] = []
        """The recordings that were found, in the order of their appearance."""
        self.ends: dict[Path, str] = {}
        """How each recording ended: "finished", "killed", or "unknown" if it was not closed and no
        process was seen that writes it."""
        self._source, self._channels = source, channels
        self._episodes, self._batch_size, self._check = episodes, batch_size, check
        self._poll_s, self._timeout_s = poll_s, timeout_s
        self._clock, self._pause = clock, pause
        self._tails: list[Tail] = []
        self._told: float | None = None  # the last news before it was told that nothing comes
        self._first: Tail | None = None
        self._same: set[Tail] = set()  # those with the channels of the first one
        self._rows = in_batches(self._all(), batch_size) if batch_size else self._all()

    @property
    def finished(self) -> bool:
        """Whether all recordings were closed and read to their end, and no shard is missing."""
        all_read = set(self.ends) == set(self.paths) and set(self.ends.values()) == {"finished"}
        return all_read and not self._missing

    def __iter__(self) -> Iterator[Rows]:
        return self

    def __next__(self) -> Rows:
        return next(self._rows)

    def close(self) -> None:
        """End early. What was not returned is not read."""
        self._rows.close()
        self._source.close()

    def _all(self) -> Generator[Rows]:
        news = self._clock()
        try:
            while True:
                begun = self._clock()
                self._look_for_recordings()
                for tail in [tail for tail in self._tails if tail.path not in self.ends]:
                    for rows in tail.rows(self._channels, self._episodes):
                        yield self._checked(tail, rows)
                        tail.news = news = self._clock()
                    if (how := self._end(tail)) is None:
                        continue
                    for rows in tail.rest(self._channels, self._episodes):
                        yield self._checked(tail, rows)
                    self.ends[tail.path] = how
                    self._source.has_read(tail.path)
                    news = self._clock()
                if self._over(news):
                    return
                # Looking takes a small part of the time, however many recordings there are.
                looked = self._clock() - begun if news < begun else 0.0
                self._pause(max(self._poll_s, looked * (1 - _SHARE) / _SHARE))
        finally:
            for tail in self._tails:
                tail.close()
            self._source.close()

    def _checked(self, tail: Tail, rows: Rows) -> Rows:
        """The rows of a recording, if its channels are those of the first one."""
        if self._first is None:
            self._first = tail
        elif tail not in self._same:
            first = self._first
            assert first.info is not None and tail.info is not None
            check_same_channels(first.info, tail.info, first.path, tail.path)
        self._same.add(tail)
        if self._source.one is not None:
            return rows
        number = np.full(len(rows["env"]), self._tails.index(tail), np.int32)
        return {"recording": number, **rows}

    def _look_for_recordings(self) -> None:
        known = set(self.paths)
        for path in self._source.find():
            if path not in known:
                self.paths.append(path)
                self._tails.append(Tail(path, self._check, self._clock()))

    def _end(self, tail: Tail) -> str | None:
        """How a recording has ended; None if it goes on."""
        if tail.finished:
            return "finished"
        silence, most = self._clock() - tail.news, self._timeout_s
        if tail.alive:
            if most is None or silence < most:
                return None
            raise DataError(
                f"Nothing was written to '{tail.path}' for {silence:g} seconds, though its process"
                " lives. Choose a larger timeout_s, or find out what it waits for."
            )
        if most is None:
            most = 0.0 if tail.was_alive else _PATIENCE_S
        if silence < most:
            return None
        how = "its process has ended" if tail.was_alive else "no process is known to write it"
        _LOG.warning("'%s' was not closed, and %s. What it contains was read.", tail.path, how)
        return "killed" if tail.was_alive else "unknown"

    @property
    def _missing(self) -> int:
        """Shards of collections that were not there yet."""
        return sum(each.missing(self.paths) for each in self._source.collections)

    def _shards_over(self, news: float) -> bool:
        """Whether it ends, though shards of collections are missing."""
        planned = sum(each.shards for each in self._source.collections)
        silence = self._clock() - news
        text = f"{self._missing} of {planned} shards in '{self._source.source}' are missing"
        if self._timeout_s is not None and silence >= self._timeout_s:
            _LOG.warning(
                "%s, and nothing came for %g seconds. What is there was read.", text, silence
            )
            return True
        if self._timeout_s is None and silence >= _PATIENCE_S and self._told != news:
            self._told = news
            _LOG.warning(
                "%s, and nothing came for %g seconds. It waits for them: is `mjlab-rec collect`"
                " running? timeout_s limits the wait, and recordings=%d takes only what is there.",
                text,
                silence,
                len(self._tails),
            )
        return False

    def _over(self, news: float) -> bool:
        """Whether all recordings have ended; raises if some never appear."""
        expected = self._source.expected or 1
        if len(self.ends) < len(self._tails):
            return False
        if self._missing:
            return self._shards_over(news)
        if len(self._tails) >= expected:
            self._look_for_recordings()
            return len(self.ends) == len(self._tails)
        most = _PATIENCE_S if self._timeout_s is None else self._timeout_s
        if self._clock() - news >= most:
            raise DataError(
                f"There is nothing new in '{self._source.source}' for {most:g} seconds, and there"
                f" are {len(self._tails)} of {expected} recordings. Check the path, or choose a"
                " larger timeout_s."
            )
        return False


def names_in(channels: Sequence[str] | None) -> list[str] | None:
    """Names of channels as a list; None means all."""
    if isinstance(channels, str):
        raise TypeError(
            f"channels is the string '{channels}', but it must be a list: ['{channels}']."
        )
    return None if channels is None else list(channels)


def in_batches(source: Iterable[Rows], size: int) -> Generator[Rows]:
    """The same rows, `size` at a time; the last ones may be fewer."""
    waiting: list[Rows] = []
    count = 0
    for rows in source:
        waiting.append(rows)
        count += len(rows["env"])
        if count < size:
            continue
        together = joined(waiting)
        whole = count - count % size
        for first in range(0, whole, size):
            yield {name: values[first : first + size] for name, values in together.items()}
        waiting = [{name: values[whole:] for name, values in together.items()}]
        count -= whole
    if count:
        yield joined(waiting)


def joined(rows: list[Rows]) -> Rows:
    """Rows one after another."""
    return {name: np.concatenate([some[name] for some in rows]) for name in rows[0]}
