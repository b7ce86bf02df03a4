"""The engine of many machines: Ray Data.

Decisions:
- Names are in Ray's store and in what it spills: a cluster that is started here lies in a private folder,
  deleted at exit, and answers to nobody but this machine. Its workers' output goes nowhere.
- Tokens are asked for: whoever reaches a node's port could run code there.
- Ray Data moves rows between workers. What is read and only gathered needs none: plain tasks, which start
  seconds sooner, as Ray Data has two processes of its own and a worker imports it for two seconds.
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
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from n3r.engine import OnFrame, cluster, private
from n3r.engine.cluster import ANSWER, START, Row
from n3r.files.atomic import writing
from n3r.files.manifest import versions

TOKEN = Path.home() / ".ray" / "auth_token"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # By default 1 GiB wait for a shuffle: 10 M orders took 7 times as long and 1.6 GB more.
    "RAY_DATA_SHUFFLE_INPUT_BATCH_BYTES": str(1 << 27),
}
for name, value in SETTINGS.items():  # which Ray reads when it is imported
    os.environ.setdefault(name, value)
if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() and not TOKEN.is_file():
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of what is started here

import ray  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

PLACE = "ray"  # in the engine's folder, a link to where Ray has its own files
BUCKET, ROWS = "bucket", "rows"
SCHEMA = pa.schema([(BUCKET, pa.int64()), (ROWS, pa.large_binary())])
WHOLE = {"batch_size": None, "batch_format": "pyarrow"}
RETRIES = 10  # of a task whose worker dies


class _Read(NamedTuple):
    """Items, and what reads each when it is asked for."""

    items: list[Any]
    fn: Callable[[Any], pl.DataFrame]


class Ray:
    """Ray Data of a cluster, or of this machine alone where there is no address."""

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
            _check_nodes(self.folder / PLACE)
        logging.getLogger("ray").setLevel(logging.CRITICAL)

    def read(self, items: Iterable[Any], fn: Callable[[Any], pl.DataFrame]) -> Any:
        """`fn` of each item, on any machine, when it is asked for."""
        return _Read(list(items), fn)

    def exchange(self, data: Any, fn: OnFrame | None, n: int = 0, by: pl.Expr | None = None) -> Any:
        """Buckets in Ray's store, which spills to disk; without `n` the function waits."""
        data = _in_ray_data(data) if isinstance(data, _Read) else data
        if not n:
            return data if fn is None else _work(data, cluster.each, fn=fn)
        data = _work(data, cluster.spread, n=n, by=by)
        with _told():
            return _work(data.repartition(n, keys=[BUCKET]), cluster.merged, fn=fn).materialize()

    def gather(self, data: Any, fn: OnFrame | None = None) -> pl.DataFrame:
        """All as one, here."""
        with _told():
            if isinstance(data, _Read):
                with closing(_in_tasks(data, fn)) as rows:
                    return cluster.gathered(rows)
            rows = _work(data, cluster.each, fn=fn).take_all()
        return cluster.gathered((row[BUCKET], row[ROWS]) for row in rows)

    def buckets(self, n_bytes: float) -> int:
        """As many as workers and their memory ask for."""
        return self.n or cluster.n_buckets(n_bytes, self.n_cpus, self.memory)


def _start(place: Path, memory: int) -> None:
    """Start Ray here, in the main thread: its processes end with the thread that started them."""
    (place / "spill").mkdir()
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


def _in_tasks(data: _Read, then: OnFrame | None) -> Iterator[Row]:
    """The rows of all items, in their order; tasks that are not done then end with it."""
    task, fns = ray.remote(_of_item).options(max_retries=RETRIES), ray.put((data.fn, then))
    waiting = deque(task.remote(item, fns) for item in data.items)
    try:
        while waiting:
            yield from ray.get(waiting[0])
            waiting.popleft()
    finally:
        for one in waiting:
            ray.cancel(one)


def _of_item(item: Any, fns: tuple[Callable[[Any], pl.DataFrame], OnFrame | None]) -> list[Row]:
    fn, then = fns
    return list(cluster.each(cluster.packed((0, fn(one)) for one in [item]), then))


def _in_ray_data(data: _Read) -> Any:
    """The rows of all items in Ray Data, a block an item."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    every, fn = ray.put(data.items), data.fn

    def one(batch: dict[str, Any]) -> pa.Table:
        return _table(cluster.packed((0, fn(ray.get(every)[i])) for i in batch["id"].tolist()))

    found = ray.data.range(len(data.items), override_num_blocks=len(data.items))
    return found.map_batches(one, batch_size=1, batch_format="numpy")


def _work(data: Any, work: Callable[..., Iterator[Row]], **options: Any) -> Any:
    return data.map_batches(partial(_on_table, work=work, options=options), **WHOLE)


def _on_table(table: pa.Table, work: Callable[..., Iterator[Row]], options: dict[str, Any]) -> pa.Table:
    rows = zip(table[BUCKET], table[ROWS], strict=True)
    return _table(work(((bucket.as_py(), content.as_py()) for bucket, content in rows), **options))


def _table(rows: Iterable[Row]) -> pa.Table:
    """Rows as Ray holds them."""
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], []], schema=SCHEMA)
