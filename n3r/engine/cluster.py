"""What the engines of many machines share, Ray and Spark: rows as bytes, errors as rows, a cluster reached.

Decisions:
- Rows travel as polars' own bytes, a bucket's share of a piece in each: types stay what they were, and an
  engine moves, spills and makes anew what it need not understand.
- An error on a worker is a row of its own, which the next gather raises as it would be raised here: an engine
  would tell its stack, and of some errors the cells that brought them about.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from n3r.engine import OnFrame
from n3r.files.manifest import versions
from n3r.files.writer import POLARS_ERRORS

ANSWER = 5  # seconds in which a cluster's address must answer
START = 60  # seconds in which it must let a driver in
SHARE = 6  # a bucket's part of a worker's memory
FAILED = -1  # the bucket of what a worker tells of an error
Row = tuple[int, bytes]  # a bucket, and a frame of rows of it
Frames = Iterator[tuple[int, pl.DataFrame]]  # of a task: what they hold, it packs once
_PLACED = "n3r:bucket"


class _FailedBeforeError(Exception):
    """What a worker told of an error, met again."""


def packed(frames: Iterable[tuple[int, pl.DataFrame]]) -> Iterator[Row]:
    """Frames and their buckets as rows; what failed, here or before, is the last of them."""
    try:
        for bucket, frame in frames:
            yield bucket, _bytes(frame)
    except _FailedBeforeError as error:
        yield FAILED, error.args[0]
    except Exception as error:
        yield FAILED, told(error)


def frames(rows: Iterable[Row]) -> Frames:
    """The frames of rows, for `packed` or `gathered`."""
    for bucket, content in rows:
        if bucket == FAILED:
            raise _FailedBeforeError(content)
        yield bucket, pl.read_ipc(content)


def wholes(rows: Iterable[Row]) -> Frames:
    """Whole buckets, of which these are all rows."""
    parts: dict[int, list[pl.DataFrame]] = {}
    for bucket, frame in frames(rows):
        parts.setdefault(bucket, []).append(frame)
    for bucket in sorted(parts):
        yield bucket, pl.concat(parts.pop(bucket), rechunk=True)


def then(given: Any, make: Callable[[Any], Frames], fn: OnFrame) -> Frames:
    """`fn` of each frame that is made of what is given."""
    for bucket, frame in make(given):
        yield bucket, fn(frame)


def spread(frames: Frames, n: int, by: pl.Expr) -> Iterator[Row]:
    """Frames by the buckets that their rows go to."""
    return packed(_parts(frames, n, by))


def gathered(rows: Iterable[Row]) -> pl.DataFrame:
    """All frames as one; raises the error that a worker told of."""
    try:
        return pl.concat([frame for _, frame in frames(rows)])
    except _FailedBeforeError as error:
        raise raised(error.args[0]) from None


def told(error: Exception) -> bytes:
    """What a driver is told of an error: the text of n3r's own alone, as others may quote a cell."""
    own = isinstance(error, ValueError | FileNotFoundError) and not isinstance(error, UnicodeError)
    kind = "own" if own else "polars" if isinstance(error, POLARS_ERRORS) else type(error).__name__
    text = str(error) if own else getattr(error, "strerror", None) or ""
    return json.dumps({"kind": kind, "text": text}, allow_nan=False).encode()


def raised(told: bytes) -> Exception:
    """The error that a worker told of."""
    found = json.loads(told)
    if found["kind"] == "own":
        return ValueError(found["text"])
    return (
        pl.exceptions.ComputeError("on a worker") if found["kind"] == "polars" else RuntimeError(str(found))
    )


def n_buckets(n_bytes: float, n_cpus: int, memory: int) -> int:
    """So many that a bucket fits into a worker's part of the memory, and that each worker has one."""
    return max(n_cpus, -int(-n_bytes * n_cpus * SHARE // memory))


def check_node(name: str, there: Mapping[str, str], sees: bool, folder: Path) -> None:
    """Raise ValueError naming a node that has other versions than this machine, or does not see a folder."""
    here = versions()
    if differ := [library for library in here if here[library] != there.get(library)]:
        told, mine = (", ".join(f"{one} {of.get(one)}" for one in differ) for of in (there, here))
        raise ValueError(f"the node {name} has {told}, this one {mine}: install the same on all")
    if not sees:
        raise ValueError(
            f"the node {name} does not see {folder} as this one does: give a folder that all share"
        )


def reach(address: str) -> str:
    """The address by which this machine reaches HOST:PORT; OSError or ValueError where nothing answers."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), ANSWER) as connection:
            return connection.getsockname()[0]
    except OverflowError as error:
        raise ValueError(port) from error


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` gives, in a thread of its own; RuntimeError where it fails or takes longer."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # of any kind: it is told in the other thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise RuntimeError(str(failed[0]).strip().partition("\n")[0][:200]) from failed[0]
    if not found:
        raise RuntimeError(f"no answer in {seconds} s")
    return found[0]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Within it, processes are started in another environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def _bytes(frame: pl.DataFrame) -> bytes:
    file = BytesIO()
    # As offsets: a view of texts may hold on to, and write, those of all other buckets. As they are: lz4
    # saves two fifths of the room, and takes as much of the processors' time in a preparation.
    frame.write_ipc(file, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return file.getvalue()


def _parts(frames: Frames, n: int, by: pl.Expr) -> Frames:
    for _, frame in frames:
        if frame.is_empty():  # whose columns would be lost
            yield 0, frame
        placed = frame.with_columns((by % n).alias(_PLACED))
        for (bucket,), own in placed.partition_by(_PLACED, as_dict=True, include_key=False).items():
            yield bucket, own
