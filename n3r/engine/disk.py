"""The engine of a table that does not fit into memory, on one machine: buckets on its disk.

Decisions:
- A bucket is worked on whole, one after another: polars itself uses all processors. Buckets are so small that
  one, and what becomes of it, fit into the memory that is given.
- Rows on their way to a bucket wait until they are worth a file.
- The folder is this user's alone, for names are in it, and is deleted at exit; what a kill left of it is
  deleted by the next engine there.
"""

import shutil
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

from n3r.engine import private
from n3r.files.atomic import writing
from n3r.files.writer import POLARS_ERRORS

SHARE = 12  # a bucket's part of the memory: its rows are copied when they are sorted and joined
PENDING = 8  # the part of the memory in which rows wait for their files
_BUCKET = "n3r:bucket"


@dataclass(frozen=True)
class Task:
    """What gives a frame, and the files that it is made of."""

    make: Callable[[], pl.DataFrame]
    files: Sequence[Path] = ()

    def then(self, fn: Callable[[pl.DataFrame], pl.DataFrame] | None) -> "Task":
        """The task that gives what `fn` makes of the frame."""
        return self if fn is None else Task(lambda: fn(self.make()), self.files)

    def take(self) -> pl.DataFrame:
        """The frame, its files deleted."""
        frame = self.make()
        for path in self.files:
            path.unlink()
        return frame


class Disk:
    """Frames in files of a private folder, which all are to fit into `memory` bytes; data are tasks."""

    def __init__(self, folder: Path, memory: int, n: int | None = None):
        self.folder, self.memory, self.n = Path(folder), memory, n
        self._stages = count()
        private(self.folder)
        self.close = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def read(self, items: Iterable[Any], fn: Callable[[Any], pl.DataFrame]) -> list[Task]:
        """`fn` of each item, when it is asked for."""
        return [Task(partial(fn, item)) for item in items]

    def exchange(
        self,
        data: list[Task],
        fn: Callable[[pl.DataFrame], pl.DataFrame] | None,
        n: int = 0,
        by: pl.Expr | None = None,
    ) -> list[Task]:
        """Buckets in files; without `n` the function waits until they are asked for."""
        if not n:
            return [task.then(fn) for task in data]
        stage = self.folder / f"{next(self._stages):03d}"
        buckets = self._spread(data, n, by, stage)
        if fn is None:
            return buckets
        found = []
        for number, bucket in enumerate(buckets):
            frame, path = fn(bucket.take()), stage / f"{number}.done"
            _write(frame, path)
            found.append(_kept([path], frame.clear()))
        return found

    def gather(
        self, data: list[Task], fn: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    ) -> pl.DataFrame:
        """All as one."""
        return pl.concat([task.then(fn).make() for task in data])

    def buckets(self, n_bytes: float) -> int:
        """As many as have the share of the memory that one may take."""
        return self.n or max(1, -int(-n_bytes * SHARE // self.memory))

    def _spread(self, data: list[Task], n: int, by: pl.Expr, stage: Path) -> list[Task]:
        """The rows of all tasks in files, some a bucket; the tasks' own go."""
        paths: list[list[Path]] = [[] for _ in range(n)]
        waiting: list[list[pl.DataFrame]] = [[] for _ in range(n)]
        n_bytes = 0
        for number, task in enumerate(data):
            frame = task.take()
            empty = frame.clear()
            n_bytes += frame.estimated_size()
            placed = frame.with_columns((by % n).alias(_BUCKET))
            for (bucket,), rows in placed.partition_by(_BUCKET, as_dict=True, include_key=False).items():
                waiting[bucket].append(rows)
            if n_bytes > self.memory // PENDING or number == len(data) - 1:
                for bucket, frames in enumerate(waiting):
                    if frames:
                        paths[bucket].append(stage / f"{bucket}-{number}")
                        _write(pl.concat(frames), paths[bucket][-1])
                        frames.clear()
                n_bytes = 0
        return [_kept(own, empty) for own in paths]


def _write(frame: pl.DataFrame, path: Path) -> None:
    with writing(path, *POLARS_ERRORS):
        path.parent.mkdir(exist_ok=True)
        # As offsets: a view of texts may hold on to, and write, those of all other buckets. As they are: lz4
        # takes four times the time for two thirds of the room.
        frame.write_ipc(path, compression="uncompressed", compat_level=pl.CompatLevel.oldest())


def _kept(paths: list[Path], empty: pl.DataFrame) -> Task:
    return Task(partial(_read, paths, empty), paths)


def _read(paths: list[Path], empty: pl.DataFrame) -> pl.DataFrame:
    """The rows of some files, in one piece."""
    if not paths:
        return empty
    return pl.concat([pl.read_ipc(path.read_bytes()) for path in paths], rechunk=True)
