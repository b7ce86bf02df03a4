"""The engine of many machines: Ray Data.

Decisions:
- Rows travel as polars' own bytes, a bucket's share of a piece in each: types stay what they were, and Ray
  moves, spills and makes anew what it need not understand.
- Names are in Ray's store and in what it spills: a cluster that is started here lies in a private folder,
  deleted at exit, and answers to nobody but this machine. Its workers' output goes nowhere.
- Tokens are asked for: whoever reaches a node's port could run code there.
- An error on a worker is a row of its own, which the next gather raises as it would be raised here: Ray would
  tell its stack, and of some errors the cells that brought them about.
"""

import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from n3r.files.atomic import writing
from n3r.files.manifest import versions
from n3r.files.writer import POLARS_ERRORS

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

ANSWER = 5  # seconds in which a cluster's address must answer
START = 60  # seconds in which it must let a driver in
PLACE = "ray"  # in the engine's folder, a link to where Ray has its own files
BUCKET, ROWS, PLACED = "bucket", "rows", "n3r:bucket"
FAILED = -1  # the bucket of what a worker tells of an error
SCHEMA = pa.schema([(BUCKET, pa.int64()), (ROWS, pa.large_binary())])
OnFrame = Callable[[pl.DataFrame], pl.DataFrame]
SHARE = 6  # a bucket's part of a worker's memory
WHOLE = {"batch_size": None, "batch_format": "pyarrow"}


class Ray:
    """Ray Data of a cluster, or of this machine alone where there is no address."""

    def __init__(self, folder: Path, memory: int, address: str | None = None, n: int | None = None):
        self.folder, self.memory, self.n = Path(folder), memory, n
        with writing(self.folder):
            if (self.folder / PLACE).is_symlink():  # of a driver that was killed
                shutil.rmtree((self.folder / PLACE).readlink(), ignore_errors=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(mode=0o700, parents=True)
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
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)

    def read(self, items: Iterable[Any], fn: Callable[[Any], pl.DataFrame]) -> Any:
        """`fn` of each item, on any machine."""
        items = list(items)
        every = ray.put(items)

        def one(batch: dict[str, Any]) -> pa.Table:
            return _packed((0, fn(ray.get(every)[i])) for i in batch["id"].tolist())

        data = ray.data.range(len(items), override_num_blocks=len(items))
        return data.map_batches(one, batch_size=1, batch_format="numpy")

    def exchange(self, data: Any, fn: OnFrame | None, n: int = 0, by: pl.Expr | None = None) -> Any:
        """Buckets in Ray's store, which spills to disk; without `n` the function waits."""
        if not n:
            return data if fn is None else data.map_batches(partial(_each, fn=fn), **WHOLE)
        data = data.map_batches(partial(_spread, n=n, by=by), **WHOLE)
        with _told():
            data = data.repartition(n, keys=[BUCKET])
            return data.map_batches(partial(_merged, fn=fn), **WHOLE).materialize()

    def gather(self, data: Any, fn: OnFrame | None = None) -> pl.DataFrame:
        """All as one, here."""
        with _told():
            rows = data.map_batches(partial(_each, fn=fn), **WHOLE).take_all()
        for row in rows:
            if row[BUCKET] == FAILED:
                raise _raised(row[ROWS])
        return pl.concat([_frame(row[ROWS]) for row in rows])

    def buckets(self, n_bytes: float) -> int:
        """So many that a bucket fits into a worker's part of the memory, and that each worker has one."""
        return self.n or max(self.n_cpus, -int(-n_bytes * self.n_cpus * SHARE // self.memory))


def _start(place: Path, memory: int) -> None:
    """Start Ray here, in the main thread: its processes end with the thread that started them."""
    (place / "spill").mkdir()
    with _one_thread():
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
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except (OSError, ValueError, OverflowError):
        raise ValueError(
            f"no Ray cluster answers at {address!r} within {ANSWER} s: give HOST:PORT of its head node, as "
            "`ray start --head` tells it"
        ) from None
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except BaseException as error:  # of any kind: it is told in the other thread
            failed.append(error)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join(START)
    if failed or thread.is_alive():
        why = (str(failed[0]) if failed else "").strip().partition("\n")[0][:200] or f"no answer in {START} s"
        raise ValueError(
            f"the Ray cluster at {address} does not let n3r in ({why}): has it the token in RAY_AUTH_TOKEN?"
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within it, processes are started whose polars uses one processor each."""
    name, before = "POLARS_MAX_THREADS", os.environ.get("POLARS_MAX_THREADS")
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        os.environ.update({} if before is None else {name: before})


def _check_nodes(link: Path) -> None:
    """Raise ValueError naming a node that has other versions than this one, or does not see a link of it."""
    here, place = versions(), str(link.readlink())
    for node in (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")):
        name, at = node["NodeManagerAddress"], NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        try:
            there, seen = ray.get(ray.remote(_seen).options(scheduling_strategy=at).remote(link))
        except ray.exceptions.RayTaskError:
            raise ValueError(f"the node {name} cannot run n3r: install the same on all") from None
        if differ := [library for library in here if here[library] != there.get(library)]:
            told, mine = (", ".join(f"{one} {of.get(one)}" for one in differ) for of in (there, here))
            raise ValueError(f"the node {name} has {told}, this one {mine}: install the same on all")
        if seen != place:
            raise ValueError(
                f"the node {name} does not see {link.parent} as this one does: give a folder that all share"
            )


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


def _packed(frames: Iterable[tuple[int, pl.DataFrame]], failed: Sequence[bytes] = ()) -> pa.Table:
    """Frames and their buckets as Ray holds them; or what failed, here or before."""
    try:
        rows = [(FAILED, told) for told in failed] or [(bucket, _bytes(frame)) for bucket, frame in frames]
    except Exception as error:
        rows = [(FAILED, _what(error))]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], []], schema=SCHEMA)


def _what(error: Exception) -> bytes:
    """What a driver is told of an error: the text of n3r's own alone, as others may quote a cell."""
    own = isinstance(error, ValueError | FileNotFoundError) and not isinstance(error, UnicodeError)
    kind = "own" if own else "polars" if isinstance(error, POLARS_ERRORS) else type(error).__name__
    text = str(error) if own else getattr(error, "strerror", None) or ""
    return json.dumps({"kind": kind, "text": text}, allow_nan=False).encode()


def _raised(told: bytes) -> Exception:
    """The error that a worker told of."""
    found = json.loads(told)
    if found["kind"] == "own":
        return ValueError(found["text"])
    return (
        pl.exceptions.ComputeError("on a worker") if found["kind"] == "polars" else RuntimeError(str(found))
    )


def _bytes(frame: pl.DataFrame) -> bytes:
    file = BytesIO()
    # As offsets: a view of texts may hold on to, and write, those of all other buckets.
    frame.write_ipc(file, compression="lz4", compat_level=pl.CompatLevel.oldest())
    return file.getvalue()


def _frame(rows: bytes) -> pl.DataFrame:
    return pl.read_ipc(rows)


def _frames(table: pa.Table) -> Iterator[tuple[int, pl.DataFrame]]:
    for bucket, rows in zip(table[BUCKET], table[ROWS], strict=True):
        yield bucket.as_py(), _frame(rows.as_py())


def _failed(table: pa.Table) -> list[bytes]:
    return table.filter(pc.equal(table[BUCKET], FAILED))[ROWS].to_pylist()


def _each(table: pa.Table, fn: OnFrame | None) -> pa.Table:
    frames = ((bucket, fn(frame) if fn else frame) for bucket, frame in _frames(table))
    return _packed(frames, _failed(table))


def _spread(table: pa.Table, n: int, by: pl.Expr) -> pa.Table:
    """The frames by the buckets that their rows go to."""

    def parts() -> Iterator[tuple[int, pl.DataFrame]]:
        for _, frame in _frames(table):
            placed = frame.with_columns((by % n).alias(PLACED))
            for (bucket,), rows in placed.partition_by(PLACED, as_dict=True, include_key=False).items():
                yield bucket, rows

    return _packed(parts(), _failed(table))


def _merged(table: pa.Table, fn: OnFrame | None) -> pa.Table:
    """Whole buckets, of which a table holds some."""

    def buckets() -> Iterator[tuple[int, pl.DataFrame]]:
        parts: dict[int, list[pl.DataFrame]] = {}
        for bucket, frame in _frames(table):
            parts.setdefault(bucket, []).append(frame)
        for bucket, frames in parts.items():
            whole = pl.concat(frames, rechunk=True)
            yield bucket, fn(whole) if fn else whole

    return _packed(buckets(), _failed(table))
