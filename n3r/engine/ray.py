"""The engine of many machines: Ray.

Decisions:
- Names may be in Ray's store and in what it spills: a cluster that is started here lies in a private folder,
  deleted at exit, and answers to nobody but this machine. Its workers' output goes nowhere.
- Tokens are asked for: whoever reaches a node's port could run code there.
- Of Ray its tasks alone: rows move in files of the folder that all machines see, as disk.py has them, and no
  node that is lost takes any with it. Ray Data starts for ten seconds at each exchange, and a store of Ray's
  that is full waits for seconds (reports/LOG.md).
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
from typing import Any

from n3r.engine import cluster
from n3r.engine.cluster import ANSWER, START
from n3r.engine.disk import Disk, Told
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
STORE = 80 * 10**6  # bytes of what tasks are given and return, no rows


class Ray(Disk):
    """Tasks of a cluster, or of this machine alone where there is no address."""

    def __init__(self, folder: Path, memory: int, address: str | None = None, n: int | None = None):
        if (link := Path(folder) / PLACE).is_symlink():  # of a driver that was killed
            shutil.rmtree(link.readlink(), ignore_errors=True)
        super().__init__(folder, memory, n)
        with writing(self.folder):
            place = Path(tempfile.mkdtemp(prefix="n3r-"))  # 0700, and short: sockets have names of 107 bytes
            (self.folder / PLACE).symlink_to(place)
        self.close = weakref.finalize(self, _end, [self.folder, place])
        if address:
            _enter(address)
        else:
            _start(place)
        with _told():
            self.n_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
            if address:
                _check_nodes(self.folder / PLACE)
        logging.getLogger("ray").setLevel(logging.CRITICAL)

    def run(self, work: Callable[[list[Any]], Told], given: list[list[Any]]) -> Iterable[Told]:
        """What `work` tells of each, in their order, from tasks of all nodes."""
        task, work = ray.remote(max_retries=RETRIES)(cluster.answered), ray.put(work)
        with _told(), closing(_done([task.remote(own, work) for own in given])) as answers:
            yield from map(cluster.answer, answers)


def _start(place: Path) -> None:
    """Start Ray here, in the main thread: its processes end with the thread that started them."""
    (place / "spill").mkdir()
    try:
        with cluster.environment(POLARS_MAX_THREADS="1"):
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                object_store_memory=STORE,
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


def _done(tasks: list[Any]) -> Iterator[Any]:
    """What the tasks return, in their order; those that are not done then end with it."""
    waiting = deque(tasks)
    try:
        while waiting:
            yield ray.get(waiting[0])
            waiting.popleft()
    finally:
        for one in waiting:
            ray.cancel(one)
