"""Where work on whole tables runs: in memory, on the disk of one machine, or on many machines.

Decisions:
- An engine has three verbs, in which work is written once, and `buckets`. Nothing else of n3r knows which
  engine runs.
- A function given to a verb gives the same for the same input: an engine may call it again, elsewhere.
- Rows are placed by hashes that may differ between versions of polars: a place never shows in a result.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from n3r.files.atomic import writing

Data = Any  # frames on their way, in an engine's own form; an exchange uses them up
OnFrame = Callable[[pl.DataFrame], pl.DataFrame]


class Engine(Protocol):
    """The three verbs, and how many buckets hold so many bytes."""

    folder: Path | None  # a private one for what does not fit into memory, deleted at exit; None: nothing

    def read(self, items: Iterable[Any], fn: Callable[[Any], pl.DataFrame]) -> Data:
        """`fn(item)` of each, anywhere; frames of one schema."""

    def exchange(self, data: Data, fn: OnFrame | None, n: int = 0, by: pl.Expr | None = None) -> Data:
        """Bring rows of equal `by`, a UInt64, together in one of `n` buckets; `fn` of each whole bucket.

        Without `n` rows stay where they are. A bucket may be empty.
        """

    def gather(self, data: Data, fn: OnFrame | None = None) -> pl.DataFrame:
        """`fn` of each bucket, a small frame, all of them here as one."""

    def buckets(self, n_bytes: float) -> int:
        """How many buckets so many bytes of rows are to be spread over."""

    def close(self) -> None:
        """Delete what is left of the engine's own."""


ENGINES = ("memory", "disk", "ray", "spark")
SMALLEST = 200 * 10**6  # bytes of memory that n3r itself takes


def gather_all(engine: Engine, data: Data, fns: Mapping[str, OnFrame]) -> dict[str, pl.DataFrame]:
    """What each of several functions gives, gathered in one pass."""
    found = engine.gather(data, partial(_all, fns=fns))
    return {name: pl.concat([rows.struct.unnest() for rows in found[name]]) for name in fns}


def _all(rows: pl.DataFrame, fns: Mapping[str, OnFrame]) -> pl.DataFrame:
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda fn: fn(rows).to_struct(), fns.values())
        return pl.DataFrame({name: [told] for name, told in zip(fns, found, strict=True)})


def start(name: str, folder: Path, memory: str = "1GB", address: str = "") -> Engine:
    """The engine of a name; `folder` is where it may keep what does not fit into `memory`.

    `address` is that of a cluster, all machines of which see the folder: HOST:PORT of Ray's, or
    spark://HOST:PORT; without it Ray or Spark run on this machine. Raises ValueError for an unknown name or
    size, and where there is no such cluster.
    """
    from n3r.engine.disk import Disk
    from n3r.engine.memory import Memory

    _check(name, address)
    if name == "memory":
        return Memory()
    if name == "disk":
        return Disk(folder, in_bytes(memory))
    with _extra(name):
        if name == "ray":
            from n3r.engine.ray import Ray as Cluster
        else:
            from n3r.engine.spark import Spark as Cluster
    return Cluster(folder, in_bytes(memory), address)


def starter(name: str, folder: Path, address: str = "") -> Callable[[int, Callable], None] | None:
    """What starts processes of one group on an engine; None where that is this machine's work.

    Only Ray does. `folder` and `address`, and what is raised, are as of `start`.
    """
    _check(name, address)
    if name != "ray":
        return None
    with _extra(name):
        from n3r.engine.processes import run
    return partial(run, folder, address)


def _check(name: str, address: str) -> None:
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}, only {', '.join(ENGINES)}")
    if address and name not in ("ray", "spark"):
        raise ValueError(f"address is that of a cluster of Ray or Spark, and the engine is {name!r}")


@contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed, which the engine {name} needs: pip install 'n3r[{name}]'"
        ) from None


def private(folder: Path) -> None:
    """Make a folder of this user's alone, anew."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)


def in_bytes(size: str) -> int:
    """The bytes of a size such as "1GB" or "500MB"; ValueError for what is none."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    number, unit = size.strip()[:-2], size.strip()[-2:].upper()
    try:
        found = float(number) * units[unit]
    except (ValueError, KeyError):
        raise ValueError(f"memory: expected a size such as 1GB or 500MB, not {size!r}") from None
    if not SMALLEST <= found < float("inf"):
        raise ValueError(f"memory: {size} is less than {SMALLEST // 10**6}MB, which n3r itself takes")
    return int(found)
