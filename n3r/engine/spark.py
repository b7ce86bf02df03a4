"""The engine of many machines where Spark is.

Decisions:
- Of Spark its tasks alone: rows move in files of the folder that all machines see, as disk.py has them, so it
  needs neither SQL nor Arrow, and no machine that is lost takes any with it.
- Settings are made in Java when it runs: whoever is on a machine can read a command line, and secrets in it.
- What tasks return, Spark may write to its disks: it is encrypted, and on this machine in the private folder.
  Java's own output goes there, too.
"""

import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from py4j.java_gateway import JavaGateway
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway

from n3r.engine import cluster
from n3r.engine.cluster import ANSWER, START
from n3r.engine.disk import Disk, Told
from n3r.files.manifest import versions

JAVA = 17  # the oldest that Spark runs on
SCHEME = "spark://"
SETTINGS = {
    "spark.app.name": "n3r",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.eventLog.enabled": "false",
    "spark.io.encryption.enabled": "true",
    "spark.driver.maxResultSize": "0",
    "spark.executorEnv.POLARS_MAX_THREADS": "1",
}
UNLESS_SAID = {"spark.authenticate": "true", "spark.network.crypto.enabled": "true"}
warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)  # not used
SECRET = "spark.authenticate.secret"
HEAP = 2**29  # bytes; with less Spark does not start


class Spark(Disk):
    """Tasks of a standalone cluster of Spark, or this machine alone where there is no address."""

    def __init__(self, folder: Path, memory: int, address: str | None = None, n: int | None = None):
        host = _reach(address) if address else "127.0.0.1"
        _check_java()
        if SparkContext._active_spark_context:
            raise ValueError("Spark runs in this process already: stop it, or use another process")
        super().__init__(folder, memory, n)
        self.close = weakref.finalize(self, _end, self.folder)
        try:
            conf = _conf(self.folder, memory, host)
            conf.setMaster(address or "local[*,4]")  # a task is tried four times, as on a cluster
            self.context = _enter(conf, address)
            self.n_cpus = self.context.defaultParallelism
            if address:
                self.n_cpus = _check_workers(self.context, address, self.folder)
        except BaseException:
            self.close()
            raise

    def run(self, work: Callable[[list[Any]], Told], given: list[list[Any]]) -> Iterable[Told]:
        """What `work` tells of each, in their order, from tasks of all machines."""
        tasks = self.context.parallelize(given, max(1, len(given))).map(partial(cluster.answered, work=work))
        with _told():
            return map(cluster.answer, tasks.collect())


def _reach(address: str) -> str:
    """This machine's address towards a master; ValueError in a sentence where nothing answers there."""
    try:
        if not address.startswith(SCHEME):
            raise ValueError(address)
        return cluster.reach(address.removeprefix(SCHEME))
    except (OSError, ValueError):
        raise ValueError(
            f"no Spark cluster answers at {address!r} within {ANSWER} s: give {SCHEME}HOST:PORT of its master"
        ) from None


def _check_java() -> None:
    """Raise ValueError where there is no Java, or one that is too old for Spark."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    found = "none"
    if java:
        told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
        number = re.search(r'version "(?:1\.)?(\d+)', told)
        if number and int(number[1]) >= JAVA:
            return
        found = f"Java {number[1]}" if number else "one that does not run"
    raise ValueError(
        f"the engine spark needs Java {JAVA} or newer, and {home or 'PATH'} has {found}: install one, such "
        f"as openjdk-{JAVA}-jre-headless, or say in JAVA_HOME where it is"
    )


def _conf(folder: Path, memory: int, host: str) -> SparkConf:
    """Start Java, and Spark's settings in it."""
    heap = f"--driver-memory {max(HEAP, memory // 4) >> 20}m pyspark-shell"
    places = {"SPARK_LOCAL_IP": host, "SPARK_LOCAL_DIRS": str(folder), "PYSPARK_SUBMIT_ARGS": heap}
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # of workers
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    log = folder / "log"
    with log.open("wb") as file, cluster.environment(**places):
        try:
            gateway = launch_gateway(popen_kwargs={"stdout": file, "stderr": file})
        except Exception:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2][:200]
            raise ValueError(f"Spark does not start: {last}") from None
    SparkContext._gateway, SparkContext._jvm = gateway, gateway.jvm
    conf = SparkConf()
    for name, value in SETTINGS.items():
        conf.set(name, value)
    for name, value in UNLESS_SAID.items():
        conf.setIfMissing(name, value)
    return conf.set("spark.driver.host", host).set("spark.driver.bindAddress", host)


def _enter(conf: SparkConf, address: str | None) -> SparkContext:
    """Spark started here or the cluster entered; ValueError in a sentence where that fails."""
    if address and conf.get("spark.authenticate") == "true" and not conf.contains(SECRET):
        raise ValueError(
            f"{SECRET} of the cluster at {address} is not known: say it in spark-defaults.conf of the folder "
            "SPARK_CONF_DIR, or there that spark.authenticate is false"
        )
    try:
        # In a thread of its own: in the first one Spark would take Ctrl-C over.
        return cluster.within(START, partial(SparkContext, conf=conf))
    except RuntimeError as error:
        if not address:
            raise ValueError(f"Spark does not start ({_why(error)})") from None
        raise ValueError(
            f"the Spark cluster at {address} does not let n3r in ({_why(error)}): are {SECRET} and Spark's "
            "version the same there?"
        ) from None


def _check_workers(context: SparkContext, address: str, folder: Path) -> int:
    """The number of processors; ValueError where there are none, or on a machine that does not fit."""
    mark = folder / uuid4().hex  # which a folder of the same name elsewhere has not
    mark.touch()
    status, before, end = context._jsc.sc(), 0, time.monotonic() + START
    while not 1 < status.getExecutorMemoryStatus().size() == before:  # the driver is one of them
        if time.monotonic() > end:
            raise ValueError(
                f"the Spark cluster at {address} has no free worker within {START} s: is one started, with "
                f"the same {SECRET}, and not at other work?"
            )
        before = status.getExecutorMemoryStatus().size()
        time.sleep(1)
    n = context.defaultParallelism
    try:  # as a barrier: all processors have a task at a time
        found = context.parallelize(range(n), n).barrier().mapPartitions(partial(_there, mark=mark)).collect()
    except Py4JError as error:
        raise ValueError(
            f"the workers at {address} cannot run n3r ({_why(error)}): install n3r[spark] on all, the same "
            f"Python at {os.environ['PYSPARK_PYTHON']}, or say in PYSPARK_PYTHON where it is"
        ) from None
    for name, there, sees in found:
        cluster.check_node(name, there, sees, mark.parent)
    return n


def _there(_: Iterator[int], mark: Path) -> Iterator[tuple[str, dict[str, str], bool]]:
    yield platform.node(), versions(), mark.exists()


def _why(error: BaseException) -> str:
    """The last of what Java or Python tells of an error, without their stacks."""
    while error.__cause__:
        error = error.__cause__
    told = re.findall(r"\w+(?:Error|Exception): .*", str(error)) or [str(error).strip().partition("\n")[0]]
    return told[-1][:200]


def _end(folder: Path) -> None:
    """End Spark and its Java, and delete the folder: first of all, as whoever ends this may not wait."""
    shutil.rmtree(folder, ignore_errors=True)
    gateway: JavaGateway | None = SparkContext._gateway
    with suppress(Exception), warnings.catch_warnings():  # of Java that has ended
        warnings.simplefilter("ignore")
        SparkContext._active_spark_context.stop()
        gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    if gateway:
        gateway.proc.terminate()
        try:
            gateway.proc.wait(30)
        except subprocess.TimeoutExpired:
            gateway.proc.kill()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _told() -> Iterator[None]:
    """Within it, what Spark itself cannot do is told in a sentence."""
    try:
        yield
    except (Py4JError, OSError) as error:
        if "No space left on device" in str(error):
            raise ValueError("a machine's disk is full of what Spark keeps: make room") from None
        why = re.search(r"^: [\w.]+: (.{,200})", str(error), re.MULTILINE)
        raise ValueError(
            f"Spark gave up ({why[1] if why else 'its Java has ended'}): give more memory if workers want it"
        ) from None
