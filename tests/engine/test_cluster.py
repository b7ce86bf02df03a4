"""Work on Ray and Spark, in a network in which nothing else is: the same to the byte, and private."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from n3r.engine import cluster, start
from n3r.synthetic.orders import generate_orders
from n3r.tables import write

ROOT = Path(__file__).parents[2]
CANARY = "Zanzibarius Quillfeather"
MASTER = "spark://127.0.0.1:7077"
# An engine, or a master of Spark and a worker, which are what docs/scale.md starts.
START = """
import atexit, json, os, subprocess, sys, threading, time
from contextlib import suppress
from pathlib import Path
import psutil
from n3r.engine import start
from n3r.engine.cluster import reach

folder, name, address = Path(sys.argv[1]), sys.argv[2], ""
if name == "cluster":
    from pyspark.find_spark_home import _find_spark_home
    (folder / "conf").mkdir(mode=0o700)
    said = ["authenticate true", "network.crypto.enabled true", "authenticate.secret " + "5" * 64]
    said.append("master.rest.enabled false")
    (folder / "conf" / "spark-defaults.conf").write_text("".join(f"spark.{one}\\n" for one in said))
    os.environ |= {"SPARK_CONF_DIR": str(folder / "conf"), "SPARK_LOCAL_IP": "127.0.0.1"}
    def of_spark(what, *arguments, **environment):
        command = [_find_spark_home() + "/bin/spark-class", "org.apache.spark.deploy." + what, *arguments]
        with (folder / "logs").open("ab") as log:
            one = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        atexit.register(one.wait)
        atexit.register(one.terminate)  # the last registered is the first to run
        return one
    name, address = "spark", "MASTER"
    cluster = [of_spark("master.Master", "--host", "127.0.0.1", "--port", "7077")]
    for _ in range(300):
        try:
            reach(address.removeprefix("spark://"))
            break
        except OSError:
            time.sleep(0.2)
    own = ["--cores", "2", "--memory", "2g", "--work-dir", str(folder / "logs of workers")]
    cluster.append(of_spark("worker.Worker", address, *own, **OTHERS))
BEFORE
on = start(name, folder / "engine", "600MB", address)
place = folder / "engine"
if name == "ray":
    from n3r.engine.ray import PLACE
    place = (place / PLACE).resolve()

def at_work(process):  # Ray's, one that Python's daemon of Spark has started, or an executor
    with suppress(psutil.Error):  # of one that has ended
        if name == "ray":
            return process.name().startswith("ray::answered")
        if address:
            return "org.apache.spark.executor.CoarseGrainedExecutorBackend" in process.cmdline()
        return "pyspark.daemon" in process.cmdline() and "pyspark.daemon" in process.parent().cmdline()

def workers():
    return [process for process in psutil.Process().children(recursive=True) if at_work(process)]
""".replace("MASTER", MASTER)
CODE = """
from functools import partial
from n3r.preprocess import prepare, prepare_source
from n3r.schema import SPLITS, ColumnMap
from n3r.tables import read_split, scan, write_splits

columns, what = ColumnMap.from_file("configs/orders.json"), sys.argv[3]
modes = [oct(path.stat().st_mode & 0o777) for path in (folder / "engine", place)]
source = scan(folder / "raw", columns, engine=on)
if what == "damage":
    path = source.files[3]
    path.write_bytes(path.read_bytes()[:-2000])
    with source.reading():
        prepare_source(source, columns, None, on)

def slow(rows, fn):
    time.sleep(3)
    return fn(rows)

def exchange(data, fn, *others):
    calls.append(fn)
    return exchanged(data, partial(slow, fn=fn) if what == "kill" and len(calls) == 5 else fn, *others)

def kill_worker():
    while len(calls) < 5:  # what came before is lost, too
        time.sleep(0.1)
    while not killed:
        time.sleep(0.5)
        killed.extend(workers()[:1])
    killed[0].kill()

calls, killed, exchanged, on.exchange = [], [], on.exchange, exchange
if what == "kill":
    threading.Thread(target=kill_worker, daemon=True).start()
found = prepare_source(source, columns, None, on)
write_splits(folder / "data", found.parts, found.column_map)
files = [(path, root) for root in (place, folder) for path in root.rglob("*") if path.is_file()]
logs = [path for path, root in files if any("log" in part for part in path.relative_to(root).parts)]
seen = [path.name for path in logs if sys.argv[4].encode() in path.read_bytes()]
on.close()
whole = scan(folder / "raw", columns)
expected = prepare(whole.frame, columns, None, whole.n_rows)
alike = {split: read_split(folder / "data", split).equals(expected.splits[split]) for split in SPLITS}
print(json.dumps({
    "alike": list(alike.values()), "report": found.report.to_dict() == expected.report.to_dict(),
    "modes": modes, "logs": len(logs), "seen": seen, "killed": len(killed),
    "left": [str(path) for path in (place, folder / "engine") if path.exists()],
}))
"""


SCORE = """
import signal
from n3r import score_tasks
from n3r.score import Scorer
from n3r.score_files import score_files

what, rows, bundle = sys.argv[3], *map(Path, sys.argv[4:])
score_tasks.PART = 1  # of two chunks, a task each
asked, killed, read = [], [], on.read

def counted(items, fn):
    asked.append(len(items))
    return read(items, fn)

def kill():
    while not any((folder / "apart" / ".scored").glob("*/record.json")):
        time.sleep(0.01)
    if what == "driver":
        os.kill(os.getpid(), signal.SIGKILL)
    killed.append(workers()[0])
    killed[0].kill()

on.read = counted
if what != "whole":
    threading.Thread(target=kill, daemon=True).start()
counts = score_tasks.score_tasks(on, bundle, [str(rows)], folder / "apart")
on.close()
alone = score_files(Scorer(bundle, 1), [rows], folder / "alone", progress=False)
names = sorted(path.name for path in (folder / "alone").iterdir())
alike = [(folder / "alone" / name).read_bytes() == (folder / "apart" / name).read_bytes() for name in names]
left = sorted(path.name for path in (folder / "apart").iterdir())
print(json.dumps([counts == alone, alike, left == names, asked, len(killed)]))
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, own_network: None) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    orders = generate_orders(20_000, seed=1)
    for number, part in enumerate(orders.iter_slices(2_500)):
        named = part.with_columns(customerName=CANARY + " " + part["customerName"].fill_null(""))
        write(named, folder / f"{number}.parquet")
    return folder


def require(engine: str) -> None:
    """Skip a test where an engine is not there."""
    package = "ray" if engine == "ray" else "pyspark"
    pytest.importorskip(package, reason=f"{package} is an extra: pip install 'n3r[{engine}]'")
    if package == "pyspark" and not shutil.which("java"):
        pytest.skip("Spark runs on Java, which is not there")


def run(code: str, *arguments: object, before: str = "", **others: str) -> subprocess.CompletedProcess[str]:
    """A program on an engine that it starts; `others` is the environment of Spark's worker."""
    code = START.replace("OTHERS", repr(others)).replace("BEFORE", before) + code
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


def prepared(folder: Path, raw: Path, engine: str, what: str) -> subprocess.CompletedProcess[str]:
    require(engine)
    shutil.copytree(raw, folder / "raw")
    return run(CODE, folder, engine, what, CANARY)


ENGINES = ("ray", "spark", "cluster")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["whole", "kill"])
def test_preparation_is_the_same_and_private_though_a_worker_is_killed(tmp_path, raw, engine, what):
    done = prepared(tmp_path, raw, engine, what)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["alike"] == [True] * 3 and found["report"] and found["killed"] == (what == "kill")
    assert found["modes"] == ["0o700", "0o700"] and found["left"] == []
    assert found["logs"] and found["seen"] == [] and CANARY not in done.stdout + done.stderr
    assert engine == "ray" or done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_was_cut_short_meanwhile_is_named_in_a_sentence(tmp_path, raw, engine):
    done = prepared(tmp_path, raw, engine, "damage")
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ValueError: damaged, write anew: {tmp_path / 'raw' / '3.parquet'}"
    assert not (tmp_path / "engine").exists() and not (tmp_path / "data").exists()


def scored(folder: Path, raw: Path, small, engine: str, what: str) -> subprocess.CompletedProcess[str]:
    """Score two files and two that are divided."""
    require(engine)
    if not (folder / "rows").exists():
        orders = pl.read_parquet(raw)
        for name, rows in (("0.parquet", 2_500), ("1.csv", 2_500), ("2.parquet", 20_000), ("3.csv", 20_000)):
            (folder / "rows").mkdir(exist_ok=True)
            write(orders[:rows], folder / "rows" / name)
    return run(SCORE, folder, engine, what, folder / "rows", small.folder)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["whole", "worker"])
def test_files_scored_are_those_of_one_process_to_the_byte(tmp_path, raw, small, engine, what):
    done = scored(tmp_path, raw, small, engine, what)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [True, [True] * 4, True, [6, 2], int(what == "worker")]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_a_driver_that_was_killed_is_gone_on_with(tmp_path, raw, small, engine):
    assert scored(tmp_path, raw, small, engine, "driver").returncode == -9
    finished = len(list((tmp_path / "apart" / ".scored").glob("*/record.json")))
    early = {path.name: path.read_bytes() for path in (tmp_path / "apart").glob("[0-9]*")}
    done = scored(tmp_path, raw, small, engine, "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    *alike, (left, divided), _ = json.loads(done.stdout.splitlines()[-1])
    assert alike == [True, [True] * 4, True] and divided == 2
    assert 0 < left <= 6 - finished < 6  # what was at work may have ended behind the driver
    assert all((tmp_path / "alone" / name).read_bytes() == content for name, content in early.items())


# What does not fit, in the worker's Python or in the settings, and what is told of it.
UNFIT = {
    "other versions": ("", "has polars 0.1, this one polars .*: install the same on all$"),
    "no n3r": (
        "",
        r"the workers at .* cannot run n3r \(ImportError: gone\): install n3r\[spark\] on all, the same",
    ),
    "another secret": (
        'os.environ["SPARK_CONF_DIR"] = str(folder / "other")\n(folder / "other").mkdir()\n'
        '(folder / "other" / "spark-defaults.conf").write_text("spark.authenticate.secret other")',
        r"the Spark cluster at .* does not let n3r in \(.+\): are spark.authenticate.secret and .* the same",
    ),
    "no secret": (
        'os.environ.pop("SPARK_CONF_DIR")',
        "spark.authenticate.secret of the cluster at .* is not known: say it in spark-defaults.conf",
    ),
    "no worker": ("cluster[1].kill()", "the Spark cluster at .* has no free worker within 60 s"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", UNFIT)
def test_a_cluster_that_does_not_fit_is_told(tmp_path, raw, what):
    require("spark")
    place = tmp_path / "fake"
    (place / "polars-0.1.dist-info").mkdir(parents=True)
    if what == "other versions":
        metadata = "Metadata-Version: 2.1\nName: polars\nVersion: 0.1\n"
        (place / "polars-0.1.dist-info" / "METADATA").write_text(metadata)
    if what == "no n3r":
        (place / "n3r.py").write_text("raise ImportError('gone')")
    before, told = UNFIT[what]
    done = run("", tmp_path, "cluster", before=before, PYTHONPATH=f"{place}:{ROOT}")
    *stack, last = done.stderr.strip().splitlines()
    assert re.search(told, last) and last.startswith("ValueError: ") and "5" * 64 not in done.stderr
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"])
@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_a_wrong_address_is_a_sentence_within_seconds(tmp_path, engine, address):
    require(engine)
    for scheme in ["", "spark://"][: 1 + (engine == "spark")]:
        told = f"no {engine.title()} cluster answers at '{scheme}{address}' within 5 s: give .*HOST:PORT"
        with pytest.raises(ValueError, match=told):
            start(engine, tmp_path / "engine", address=scheme + address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ray_that_does_not_start_is_told(tmp_path, own_network):
    require("ray")
    (tmp_path / ("long" * 30)).mkdir()  # as sockets cannot be named
    code = f"from n3r.engine import start\nstart('ray', {str(tmp_path / 'engine')!r})"
    environment = {**os.environ, "TMPDIR": str(tmp_path / ("long" * 30)), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: Ray does not start here: ") and "107 bytes" in last
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize(("java", "told"), [(None, "none"), ("1.8.0_392", "Java 8"), ("16.0.2", "Java 16")])
def test_java_that_is_missing_or_too_old_is_told(tmp_path, monkeypatch, java, told):
    pytest.importorskip("pyspark", reason="pyspark is an extra: pip install 'n3r[spark]'")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if java:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{java}\"' >&2\n")
        (tmp_path / "bin" / "java").chmod(0o700)
    with pytest.raises(ValueError, match=f"needs Java 17 or newer, and {tmp_path} has {told}: install one"):
        start("spark", tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("damaged: orders.csv"), ValueError("damaged: orders.csv")),
        (FileNotFoundError("no orders.csv"), ValueError("no orders.csv")),
        (pl.exceptions.ComputeError(CANARY), pl.exceptions.ComputeError("on a worker")),
        (UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY), RuntimeError("UnicodeDecodeError")),
        (OSError(28, "No space left on device", CANARY), RuntimeError("No space left on device")),
        (KeyError(CANARY), RuntimeError("KeyError")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_worker_is_told_without_a_cell(error, told):
    def fails(frame: pl.DataFrame) -> pl.DataFrame:
        raise error

    with pytest.raises(type(told), match=str(told)) as caught:
        cluster.answer(cluster.answered(pl.DataFrame(), fails))
    assert CANARY not in str(caught.value)
