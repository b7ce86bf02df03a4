"""The engine of a table that does not fit into memory: buckets in files of one folder.

Decisions:
- Work is done in tasks: each takes what it is given, and returns where its rows lie. Here they run one after
  another, as polars itself uses all processors; ray.py and spark.py run them on many machines, all of which
  see the folder.
- A bucket is worked on whole, and so small that it, and what becomes of it, fit into the given memory.
- A task that spreads rows writes one file, in which each bucket's rows have their places. Files go once what
  is made of them is written, as a task may be done again.
- The folder is this user's alone, for names are in it, and is deleted at exit; what a kill left of it is
  deleted by the next engine there.
"""

import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar
from uuid import uuid4

import polars as pl

from n3r.engine import OnFrame, private
from n3r.files.atomic import writing

SHARE = 12  # a bucket's part of the memory: its rows are copied when they are sorted and joined
PENDING = 16  # the part of the memory in which rows wait until they are worth being spread
GROUPS = 8  # tasks of a processor that spread rows
_BUCKET = "n3r:bucket"
Make = Callable[[list[Any]], Iterator[pl.DataFrame]]
Told = TypeVar("Told")


class Place(NamedTuple):
    """Where a frame lies."""

    path: Path
    start: int
    stop: int


class Tasks(NamedTuple):
    """What each task is given, an item or places of a bucket's rows, and the frames that it makes of it."""

    given: list[list[Any]]
    make: Make
    stage: Path | None = None  # the folder of the places

    def then(self, fn: OnFrame | None) -> "Tasks":
        """The tasks that give what `fn` makes of each frame."""
        return self if fn is None else self._replace(make=partial(_then, make=self.make, fn=fn))

    def end(self) -> None:
        """Delete what the tasks are given."""
        if self.stage:
            shutil.rmtree(self.stage, ignore_errors=True)


class Disk:
    """Frames in files of a private folder; all that is at work is to fit into `memory` bytes."""

    n_cpus = 1  # tasks at a time

    def __init__(self, folder: Path, memory: int, n: int | None = None):
        self.folder, self.memory, self.n = Path(folder).absolute(), memory, n
        self._stages = count()
        private(self.folder)
        self.close = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def run(self, work: Callable[[list[Any]], Told], given: list[list[Any]]) -> Iterable[Told]:
        """What `work` tells of each, in their order; it may be done more than once."""
        return map(work, given)

    def read(self, items: Iterable[Any], fn: Callable[[Any], pl.DataFrame]) -> Tasks:
        """`fn` of each item, when it is asked for."""
        return Tasks([[item] for item in items], partial(_read, fn=fn))

    def exchange(self, data: Tasks, fn: OnFrame | None, n: int = 0, by: pl.Expr | None = None) -> Tasks:
        """Buckets in files; without `n` the function waits until they are asked for."""
        if not n:
            return data.then(fn)
        stage, room = self._stage(), self.memory // self.n_cpus // PENDING
        size = -(-len(data.given) // (GROUPS * self.n_cpus))
        groups = [data.given[i : i + size] for i in range(0, len(data.given), size)]
        work = partial(_spread, make=data.make, n=n, by=by, room=room, stage=stage)
        told = list(self.run(work, groups))
        data.end()
        buckets = Tasks([list(chain(*own)) for own in zip(*told, strict=True)], _whole, stage)
        if fn is None:
            return buckets
        kept = self._stage()
        told = list(self.run(partial(_keep, make=buckets.then(fn).make, stage=kept), buckets.given))
        buckets.end()
        return Tasks(told, _whole, kept)

    def gather(self, data: Tasks, fn: OnFrame | None = None) -> pl.DataFrame:
        """All as one."""
        return pl.concat(chain.from_iterable(self.run(partial(_frames, make=data.then(fn).make), data.given)))

    def buckets(self, n_bytes: float) -> int:
        """So many that a bucket has its share of the memory, and that no processor is idle."""
        return self.n or max(self.n_cpus, -int(-n_bytes * self.n_cpus * SHARE // self.memory))

    def _stage(self) -> Path:
        stage = self.folder / f"{next(self._stages):03d}"
        with writing(stage):
            stage.mkdir()
        return stage


def _spread(
    group: list[list[Any]], make: Make, n: int, by: pl.Expr, room: int, stage: Path
) -> list[list[Place]]:
    """Write the frames of a group as parts of buckets; the places of each bucket's."""
    places: list[list[Place]] = [[] for _ in range(n)]
    path, waiting, n_bytes = stage / uuid4().hex, [], 0
    with _opened(path) as file:
        for frame in chain.from_iterable(map(make, group)):
            waiting.append(frame)
            n_bytes += frame.estimated_size()
            del frame  # which would stand beside what the next one is made of
            if n_bytes > room:
                _append_parts(file, path, waiting, by % n, room / n_bytes, places)
                n_bytes = 0
        if waiting:
            _append_parts(file, path, waiting, by % n, 1.0, places)
    return places


def _append_parts(
    file: BinaryIO,
    path: Path,
    waiting: list[pl.DataFrame],
    by: pl.Expr,
    share: float,
    places: list[list[Place]],
) -> None:
    """Write frames, which then wait no more, by buckets, a share of them at a time, as each is copied."""
    frame = pl.concat(waiting)
    waiting.clear()
    if frame.is_empty():  # whose columns would be lost
        places[0].append(_append(file, path, frame))
    for some in frame.iter_slices(max(1, int(frame.height * share))):
        parts = some.with_columns(by.alias(_BUCKET)).partition_by(_BUCKET, as_dict=True, include_key=False)
        for (bucket,), own in parts.items():
            places[bucket].append(_append(file, path, own))


def _keep(given: list[Any], make: Make, stage: Path) -> list[Place]:
    """Write the frames of a bucket; their places."""
    path = stage / uuid4().hex
    with _opened(path) as file:
        return [_append(file, path, frame) for frame in make(given)]


def _opened(path: Path) -> BinaryIO:
    with writing(path):
        return path.open("xb")


def _append(file: BinaryIO, path: Path, frame: pl.DataFrame) -> Place:
    start = file.tell()
    with writing(path):
        file.write(_packed(frame))
        file.flush()
    return Place(path, start, file.tell())


def _packed(frame: pl.DataFrame) -> bytes:
    content = BytesIO()
    # As offsets: a view of texts may hold on to, and write, those of all other rows. As they are: lz4 takes
    # four times the time for two thirds of the room.
    frame.write_ipc(content, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return content.getvalue()


def _frames(given: list[Any], make: Make) -> list[pl.DataFrame]:
    """The frames that a task tells, which hold on to no more of a bucket."""
    return [pl.read_ipc(_packed(frame)) for frame in make(given)]


def _read(items: list[Any], fn: Callable[[Any], pl.DataFrame]) -> Iterator[pl.DataFrame]:
    return map(fn, items)


def _whole(places: list[Place]) -> Iterator[pl.DataFrame]:
    """A bucket in one piece; nothing where no rows have gone there."""
    if places:
        yield pl.concat(map(_at, places), rechunk=True)


def _at(place: Place) -> pl.DataFrame:
    with place.path.open("rb") as file:
        file.seek(place.start)
        return pl.read_ipc(file.read(place.stop - place.start))


def _then(given: list[Any], make: Make, fn: OnFrame) -> Iterator[pl.DataFrame]:
    return map(fn, make(given))
