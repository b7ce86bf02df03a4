"""The engine of many machines: Ray.

Decisions:
- Names are in Ray's store and in what it spills: a cluster that is started here lies in a private folder,
  deleted at exit, and answers to nobody but this machine. Its workers' output goes nowhere.
- Tokens are asked for: whoever reaches a node's port could run code there.
- Plain tasks, of which Ray keeps the results, spills them and makes lost ones anew. An exchange is two
  of them: one that spreads rows, whose results are a part of each bucket, and one that takes all parts of a
  bucket. Ray Data does the same by actors, which took ten seconds more an exchange to start.
- An exchange begins at once and is not waited for: what takes its buckets waits.
"""

import logging
import os
import secrets
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from n3r.engine import OnFrame, cluster, private
from n3r.engine.cluster import ANSWER, START, Frames, Row
from n3r.files.atomic import writing
from n3r.files.manifest import versions

TOKEN = Path.home() / ".ray" / "auth_token"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}
for name, value in SETTINGS.items():  # which Ray reads when it is imported
    os.environ.setdefault(name, value)
if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() and not TOKEN.is_file():
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of what is started here

import ray  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

PLACE = "ray"  # in the engine's folder, a link to where Ray has its own files
RETRIES = 10  # of a task whose worker dies


class _Tasks(NamedTuple):
    """What each task is given, an item or parts that Ray keeps, and the frames it makes of it when asked."""

    given: list[list[Any]]
    make: Callable[[list[Any]], Frames]

    def then(self, fn: OnFrame | None) -> "_Tasks":
        """The tasks that give what `fn` makes of each frame."""
        return self if fn is None else self._replace(make=partial(cluster.then, make=self.make, fn=fn))

    def start(self) -> list[Any]:
        """Where their rows will be."""
        task, make = _task(_rows), ray.put(self.make)
        return [task.remote(make, *own) for own in self.given]


class Ray:
    """Ray of a cluster, or of this machine alone where there is no address."""

    def __init__(self, folder: Path, memory: int, address: str | None = None, n: int | None = None):
        self.folder, self.memory, self.n = Path(folder), memory, n
        if (self.folder / PLACE).is_symlink():  # of a driver that was killed
            shutil.rmtree((self.folder / PLACE).readlink(), ignore_errors=True)
        private(self.folder)
        with writing(self.folder):
            place = Path(tempfile.mkdtemp(prefix="n3r-"))  # 0700, and short: sockets have names of 107 bytes
            (self.folder / PLACE).symlink_to(place)
        self.close = weakref.finalize(self, _end, [self.folder, place])
        if address:
            _enter(address)
        else:
            _start(place, memory)
        with _told():
            self.n_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
            if address:
                _check_nodes(self.folder / PLACE)
        logging.getLogger("ray").setLevel(logging.CRITICAL)

    def read(self, items: Iterable[Any], fn: Callable[[Any], pl.DataFrame]) -> _Tasks:
        """`fn` of each item, on any machine, when it is asked for."""
        return _Tasks([[item] for item in items], partial(_read, fn=fn))

    def exchange(self, data: _Tasks, fn: OnFrame | None, n: int = 0, by: pl.Expr | None = None) -> _Tasks:
        """Buckets that Ray keeps, in parts where there is no function; without `n` the function waits."""
        if not n:
            return data.then(fn)
        task, how = _task(_parts, num_returns=n), ray.put((data.make, n, by))
        size = max(1, len(data.given) // n)  # so that parts are few where pieces are small
        groups = [data.given[i : i + size] for i in range(0, len(data.given), size)]
        parts = [task.remote(how, [len(own) for own in group], *chain(*group)) for group in groups]
        buckets = zip(*([own] if n == 1 else own for own in parts), strict=True)
        wholes = _Tasks([list(own) for own in buckets], _wholes)
        return wholes if fn is None else _Tasks([[own] for own in wholes.then(fn).start()], _kept)

    def gather(self, data: _Tasks, fn: OnFrame | None = None) -> pl.DataFrame:
        """All as one, here."""
        with _told(), closing(_done(data.then(fn).start())) as rows:
            return cluster.gathered(rows)

    def buckets(self, n_bytes: float) -> int:
        """As many as workers and their memory ask for."""
        return self.n or cluster.n_buckets(n_bytes, self.n_cpus, self.memory)


def _start(place: Path, memory: int) -> None:
    """Start Ray here, in the main thread: its processes end with the thread that started them."""
    (place / "spill").mkdir()
    try:
        with cluster.environment(POLARS_MAX_THREADS="1"):
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                object_store_memory=max(memory // 3, 80 * 10**6),
                object_spilling_directory=str(place / "spill"),
                _temp_dir=str(place / "r"),  # which Ray opens to all: the folder around it is closed
                _node_ip_address="127.0.0.1",
            )
    except Exception as error:  # of any kind, such as of a machine that is too busy to start it within 30 s
        raise ValueError(f"Ray does not start here: {str(error).strip().partition('. ')[0][:200]}") from None


def _enter(address: str) -> None:
    """Enter a cluster; ValueError in a sentence where nothing answers there, or not within `START`."""
    try:
        cluster.reach(address)
    except (OSError, ValueError):
        raise ValueError(
            f"no Ray cluster answers at {address!r} within {ANSWER} s: give HOST:PORT of its head node, as "
            "`ray start --head` tells it"
        ) from None
    start = partial(ray.init, address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    try:
        cluster.within(START, start)
    except RuntimeError as error:
        raise ValueError(
            f"the Ray cluster at {address} does not let n3r in ({error}): has it the token in RAY_AUTH_TOKEN?"
        ) from None


def _check_nodes(link: Path) -> None:
    """Raise ValueError naming a node that has other versions than this one, or does not see a link of it."""
    for node in (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")):
        name, at = node["NodeManagerAddress"], NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        try:
            there, seen = ray.get(ray.remote(_seen).options(scheduling_strategy=at).remote(link))
        except ray.exceptions.RayTaskError:
            raise ValueError(f"the node {name} cannot run n3r: install the same on all") from None
        except ray.exceptions.RayError:  # it has gone meanwhile
            continue
        cluster.check_node(name, there, seen == str(link.readlink()), link.parent)


def _seen(link: Path) -> tuple[dict[str, str], str]:
    """The versions of this node, and where it sees a link lead."""
    try:
        return versions(), str(link.readlink())
    except OSError:
        return versions(), ""


def _end(folders: list[Path]) -> None:
    ray.shutdown()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _told() -> Iterator[None]:
    """Within it, what Ray itself cannot do is told in a sentence."""
    try:
        yield
    except ray.exceptions.OutOfDiskError:
        raise ValueError("a node's disk is full of what Ray spills: make room, or give more memory") from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        raise ValueError("a worker died again and again at the same work: for want of memory?") from None


def _done(tasks: list[Any]) -> Iterator[Row]:
    """The rows of all tasks, in their order; those that are not done then end with it."""
    waiting = deque(tasks)
    try:
        while waiting:
            yield from ray.get(waiting[0])
            waiting.popleft()
    finally:
        for one in waiting:
            ray.cancel(one)


def _task(fn: Callable[..., Any], **options: Any) -> Any:
    return ray.remote(max_retries=RETRIES, **options)(fn)


def _rows(make: Callable[[list[Any]], Frames], *given: Any) -> list[Row]:
    """A task: the rows that are made of what it is given."""
    return list(cluster.packed(make(list(given))))


def _parts(how: tuple[Callable[[list[Any]], Frames], int, pl.Expr], sizes: list[int], *given: Any) -> Any:
    """A task: a part of each bucket; what is told of an error is in the first."""
    make, n, by = how
    parts: list[list[Row]] = [[] for _ in range(n)]
    left = iter(given)
    for size in sizes:
        for row in cluster.spread(make(list(islice(left, size))), n, by):
            parts[max(row[0], 0)].append(row)
    return parts if n > 1 else parts[0]


def _read(given: list[Any], fn: Callable[[Any], pl.DataFrame]) -> Frames:
    for item in given:
        yield 0, fn(item)


def _wholes(parts: list[list[Row]]) -> Frames:
    return cluster.wholes(chain(*parts))


def _kept(parts: list[list[Row]]) -> Frames:
    return cluster.frames(chain(*parts))
