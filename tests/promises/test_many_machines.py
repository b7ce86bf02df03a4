"""Many machines: nodes, processes and drivers that die, disks that are full, nodes that do not fit."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from n3r.files.manifest import verify
from n3r.schema import SPLITS
from n3r.synthetic.orders import generate_orders
from n3r.tables import read_split, write

pytestmark = pytest.mark.slow
PROMISE = "many machines"
ROOT = Path(__file__).parents[2]
N3R = [sys.executable, "-m", "n3r.cli"]
CANARY = "Zanzibarius Quillfeather"
ADDRESS = "127.0.0.1:6379"


class Cluster:
    """Ray on made-up machines of two processors each, and commands beside it."""

    def __init__(self, folder: Path):
        self.folder, self.home = folder, folder / "home"
        self.place = Path(tempfile.mkdtemp(prefix="n3r-"))  # short: sockets have names of 107 bytes
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        n3r = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "N3R_HOME": str(self.home)}
        self.environment = {**os.environ, **ray, **n3r}
        self.nodes: list[subprocess.Popen] = []
        head = ("--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={self.place / 'r'}")
        self.add(*head, "--node-ip-address=127.0.0.1")

    def add(self, *options: str, within: str = "true", **environment: str) -> subprocess.Popen:
        """A node that is ready; `within`: what a shell does before, in a view of the disks of its own."""
        options = options or (f"--address={ADDRESS}", "--node-ip-address=127.0.0.1")
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
        command = [*ray, "--num-cpus=2", "--object-store-memory=80000000", *options]
        shell = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount"]  # no node outlives the tests
        shell += ["sh", "-c", f'{within} && exec "$@"', "node"]
        node = subprocess.Popen(
            [*shell, *command],
            env={**self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.nodes.append(node)
        told = []
        for line in node.stdout:
            told.append(line)
            if "block forever" in line:
                return node
        raise RuntimeError("".join(told))

    def kill(self, node: subprocess.Popen) -> None:
        """All processes of a node at once, as where a machine stops."""
        for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()
        self.nodes.remove(node)

    def leave(self, node: subprocess.Popen) -> None:
        """A node goes, and the others know."""
        node.terminate()
        node.wait(60)
        self.nodes.remove(node)

    def at_work(self, node: subprocess.Popen, what: str = "") -> list[psutil.Process]:
        """The workers of a node at a task, whose name begins so, but the one that looks at the node."""
        found = []
        for process in psutil.Process(node.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                name = process.name()
                works = name.startswith(f"ray::{what}") and name not in ("ray::IDLE", "ray::_seen")
                found += [process] if works else []
        return found

    def start(self, *arguments: object) -> subprocess.Popen:
        command = [*N3R, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, **pipes)

    def run(self, *arguments: object, status: int = 0) -> str:
        """What a command says; a mistake is one sentence."""
        return ended(self.start(*arguments), status)

    def of_run(self, name: str) -> Path:
        return self.home / "runs" / name

    def close(self) -> None:
        for node in list(self.nodes):
            self.kill(node)
        shutil.rmtree(self.place, ignore_errors=True)


def ended(process: subprocess.Popen, status: int = 0) -> str:
    out = process.communicate(timeout=400)[0]
    assert process.returncode == status, out
    assert "Traceback" not in out and CANARY not in out, out
    return out


def wait_for(what: Callable[[], Any], process: subprocess.Popen) -> Any:
    """What came to be while the process ran."""
    while process.poll() is None:
        if found := what():
            return found
        time.sleep(0.005)
    raise AssertionError(process.communicate()[0])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, own_network: None) -> Iterator[Cluster]:
    """A head node, and eight files of orders with a made-up name in each row."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'n3r[ray]'")
    if shutil.which("setpriv") is None or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("Ray's nodes have disks of their own, which cannot be made here (unshare --mount)")
    folder = tmp_path_factory.mktemp("cluster")
    for number, part in enumerate(generate_orders(20_000, seed=1).iter_slices(2_500)):
        named = part.with_columns(customerName=CANARY + " " + part["customerName"].fill_null(""))
        write(named, folder / "raw" / f"{number}.parquet")
    small = folder / "home" / "runs" / "full"  # a run on a disk of its own, which all nodes see
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    found = Cluster(folder)
    yield found
    found.close()
    subprocess.run(["umount", small], check=True)


@pytest.fixture
def second(cluster: Cluster) -> Iterator[subprocess.Popen]:
    """A second node, which may be killed."""
    node = cluster.add()
    yield node
    if node in cluster.nodes:
        cluster.leave(node)


# ---- preparation

ON_RAY = ("--engine", "ray", "--address", ADDRESS, "--memory", "600MB")


@pytest.fixture(scope="module")
def whole(cluster: Cluster) -> dict[str, Any]:
    """The splits, and what is said of them, of a preparation in memory."""
    cluster.run("run", "01", "--name", "whole", "--data", cluster.folder / "raw")
    return prepared(cluster.of_run("whole"))


def prepared(run: Path) -> dict[str, Any]:
    said = json.loads((run / "steps" / "01_preprocess" / "metrics.json").read_text())["preparation"]
    rows = {split: read_split(run / "data", split).to_dicts() for split in SPLITS}
    return {**rows, **{name: said[name] for name in ("steps", "splits", "times")}}


# When a node or the driver is killed: the engine's private folder and the second node say.
MOMENTS: dict[str, Callable[[Cluster, Path, subprocess.Popen], Any]] = {
    "at its first task": lambda cluster, private, node: cluster.at_work(node),
    "while rows move": lambda cluster, private, node: list(private.glob("002/*")),
    "while parts are written": lambda cluster, private, node: list(private.glob("parts/*/*part-*")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_node_that_is_killed_in_preparation_changes_nothing(moment, cluster, second, whole, tally):
    name = f"node-{len(moment)}"
    driver = cluster.start("run", "01", "--name", name, "--data", cluster.folder / "raw", *ON_RAY)
    private = cluster.of_run(name) / ".preparing"
    wait_for(lambda: MOMENTS[moment](cluster, private, second), driver)
    cluster.kill(second)
    ended(driver)
    assert prepared(cluster.of_run(name)) == whole and not private.exists()
    tally(PROMISE, "kill -9 of a node in preparation: the same rows and counts")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_that_is_killed_leaves_nothing_half_and_the_next_is_right(
    moment, cluster, second, whole, tally
):
    name = f"driver-{len(moment)}"
    command = ("run", "01", "--name", name, "--data", cluster.folder / "raw", *ON_RAY)
    driver, run = cluster.start(*command), cluster.of_run(name)
    wait_for(lambda: MOMENTS[moment](cluster, run / ".preparing", second), driver)
    kill_all(driver)
    assert not (run / "data").exists() or prepared(run) == whole
    tally(PROMISE, "kill -9 of the driver in preparation: nothing half-written has its name")
    cluster.run(*command)
    assert prepared(run) == whole and not (run / ".preparing").exists()
    tally(PROMISE, "runs after a driver's end: right, and the earlier one's private folder is gone")


def kill_all(driver: subprocess.Popen) -> None:
    """The command and its kernel."""
    for process in [*psutil.Process(driver.pid).children(recursive=True), psutil.Process(driver.pid)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    driver.communicate()


# ---- training

TRAINING = ("run", "03", "--name", "training", "-p", "processes=3", "-p", "03.epochs=4")
OF_RAY = ("-p", "03.engine=ray", "-p", f"03.address={ADDRESS}")


@pytest.fixture(scope="module")
def trained(cluster: Cluster) -> bytes:
    """The weights of three processes that one machine starts."""
    cluster.run(*TRAINING, "--data", cluster.folder / "raw" / "0.parquet")
    return weights(cluster)


def weights(cluster: Cluster) -> bytes:
    verify(cluster.of_run("training") / "lstm2risk")
    return (cluster.of_run("training") / "lstm2risk" / "model.safetensors").read_bytes()


def train_on_ray(cluster: Cluster) -> subprocess.Popen:
    """The training anew, of the same prepared rows."""
    run = cluster.of_run("training")
    for place in ("lstm2risk", "training", "steps/03_train_lstm2risk"):
        shutil.rmtree(run / place, ignore_errors=True)
    return cluster.start(*TRAINING, *OF_RAY, "--data", cluster.folder / "raw" / "0.parquet")


def is_under_way(cluster: Cluster) -> Callable[[], bool]:
    return (cluster.of_run("training") / "training" / "lstm2risk" / "checkpoints" / "last.ckpt").is_file


def test_processes_on_two_nodes_train_what_those_of_one_machine_do(cluster, second, trained, tally):
    out = ended(train_on_ray(cluster))
    assert weights(cluster) == trained and "epoch 4 of 4" in out
    run = cluster.of_run("training")
    left = sorted(path.name for path in (run / "training" / "lstm2risk").iterdir())
    assert left == ["checkpoints", "tensorboard"] and not (run / ".training").exists()
    tally(PROMISE, "trainings on two nodes: bit for bit the weights of one machine")


@pytest.mark.parametrize("what", ["a process", "a node"])
def test_a_training_that_loses_a_process_or_a_node_ends_in_the_same_weights(
    what, cluster, second, trained, tally
):
    third = cluster.add()
    try:
        driver = train_on_ray(cluster)
        wait_for(is_under_way(cluster), driver)
        (process, *_) = wait_for(lambda: cluster.at_work(second, "_process"), driver)
        cluster.kill(second) if what == "a node" else process.kill()
        out = ended(driver)
    finally:
        cluster.leave(third)
    assert "begin again" in out and weights(cluster) == trained
    tally(PROMISE, f"kill -9 of {what} in training: the same weights, from the last epoch on")


def test_a_training_without_the_nodes_that_it_needs_goes_on_when_they_are_back(cluster, trained, tally):
    second = cluster.add()
    driver = train_on_ray(cluster)
    wait_for(is_under_way(cluster), driver)
    cluster.kill(second)
    out = ended(driver, status=2)
    assert "3 processes need a processor each, and the cluster has 2: add nodes, or set processes" in out
    assert not (cluster.of_run("training") / "lstm2risk").exists()
    tally(PROMISE, "too few processors, at once or after a node's end: a sentence")
    back = cluster.add()
    try:
        out = cluster.run(*TRAINING, *OF_RAY, "--data", cluster.folder / "raw" / "0.parquet")
    finally:
        cluster.leave(back)
    assert "epoch 1 of 4" not in out and weights(cluster) == trained
    tally(PROMISE, "trainings when the nodes are back: from the last epoch on, the same weights")


# ---- nodes and addresses that do not fit

# What comes to Ray as soon as anything does.
SCORING = ("score", "raw", "--bundle", "bundle", "-o", "home/scores", "--engine", "ray", "--address", ADDRESS)


@contextmanager
def joined(cluster: Cluster, **options: str) -> Iterator[None]:
    node = cluster.add(**options)
    try:
        yield
    finally:
        cluster.leave(node)


def test_a_node_of_other_versions_is_named(cluster, tmp_path, tally):
    """It has a copy of n3r, of another number, and says that its polars is older."""
    shutil.copytree(ROOT / "n3r", tmp_path / "n3r")
    for library, number in (("n3r", "0.0.9"), ("polars", "1.9.0")):
        place = tmp_path / f"{library}-{number}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: {number}\n")
    with joined(cluster, PYTHONPATH=str(tmp_path)):
        out = cluster.run(*SCORING, status=2)
    assert "has n3r 0.0.9, polars 1.9.0, this one n3r " in out and "install the same on all" in out
    tally(PROMISE, "nodes of other versions, or without n3r: named in a sentence")


def test_a_node_without_n3r_is_named(cluster, tmp_path, tally):
    (tmp_path / "n3r.py").write_text("raise ImportError")
    with joined(cluster, PYTHONPATH=str(tmp_path)):
        out = cluster.run(*SCORING, status=2)
    assert "the node 127.0.0.1 cannot run n3r: install the same on all" in out
    tally(PROMISE, "nodes of other versions, or without n3r: named in a sentence")


def test_a_node_that_does_not_share_the_folder_is_named(cluster, tally):
    with joined(cluster, within=f"mount -t tmpfs tmpfs {cluster.home}"):
        out = cluster.run(*SCORING, status=2)
    assert "the node 127.0.0.1 does not see " in out and "give a folder that all share" in out
    tally(PROMISE, "nodes that do not share the folder: named in a sentence")


@pytest.mark.parametrize("command", ["run", "score"])
def test_an_address_where_no_cluster_is_is_named_within_seconds(command, cluster, tally):
    given = {"run": ("run", "01", "--name", "refused", "--size", "dev", *ON_RAY), "score": SCORING}[command]
    out = cluster.run(*("127.0.0.1:1" if word == ADDRESS else word for word in given), status=2)
    assert "no Ray cluster answers at '127.0.0.1:1' within 5 s: give HOST:PORT of its head node" in out
    tally(PROMISE, "wrong addresses, silent ports, wrong tokens: a sentence")


@pytest.mark.parametrize("what", ["silence", "another token"])
def test_who_does_not_let_n3r_in_is_named(what, cluster, monkeypatch, tally):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}" if what == "silence" else ADDRESS
        if what == "another token":
            monkeypatch.setitem(cluster.environment, "RAY_AUTH_TOKEN", secrets.token_hex(32))
        out = cluster.run(*(address if word == ADDRESS else word for word in SCORING), status=2)
    assert f"the Ray cluster at {address} does not let n3r in" in out and "RAY_AUTH_TOKEN?" in out
    tally(PROMISE, "wrong addresses, silent ports, wrong tokens: a sentence")


# ---- files and disks


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_that_is_cut_short_is_named(kind, cluster, tmp_path, tally):
    for number in range(2):
        rows = pl.read_parquet(cluster.folder / "raw" / f"{number}.parquet")
        write(rows, tmp_path / "raw" / f"{number}.{kind}")
    cut = tmp_path / "raw" / f"1.{kind}"
    cut.write_bytes(cut.read_bytes()[:-2000])
    out = cluster.run("run", "01", "--name", f"cut-{kind}", "--data", tmp_path / "raw", *ON_RAY, status=2)
    assert f"1.{kind}" in out and not (cluster.of_run(f"cut-{kind}") / "data").exists()
    tally(PROMISE, "files that are cut short: named")


def test_a_full_disk_is_a_sentence_and_with_room_the_same_command_ends(cluster, second, tmp_path, tally):
    """Names as long as a page, for which there is no room."""
    rng = np.random.default_rng(0)
    for number in range(8):
        rows = pl.read_parquet(cluster.folder / "raw" / f"{number}.parquet")
        long = pl.Series([rng.bytes(1000).hex() for _ in range(len(rows))])
        write(rows.with_columns(customerName=long), tmp_path / "raw" / f"{number}.parquet")
    command = ("run", "01", "--name", "full", "--data", tmp_path / "raw", *ON_RAY)
    out, run = cluster.run(*command, status=2), cluster.of_run("full")
    assert f"into {run}" in out and "No space left on device" in out and not (run / "data").exists()
    subprocess.run(["mount", "-o", "remount,size=400m", run], check=True)
    cluster.run(*command)
    tally(PROMISE, "a full disk while rows move: a sentence, and with room the same command ends")


# ---- privacy


def test_no_name_is_left_with_the_cluster(cluster, second, trained, tally):
    """After scoring and training: in no log and nothing spilled, nor in the store of a node that is new."""
    out = cluster.home / "scored"
    raw, bundle = cluster.folder / "raw", cluster.of_run("training") / "lstm2risk"
    cluster.run("score", raw, "--bundle", bundle, "-o", out, "--engine", "ray", "--address", ADDRESS)
    ended(train_on_ray(cluster))
    files = [path for path in cluster.place.rglob("*") if path.is_file()]
    processes = psutil.Process(second.pid).children(recursive=True)
    (raylet,) = (process.pid for process in processes if process.name() == "raylet")
    stores = [fd for fd in Path(f"/proc/{raylet}/fd").iterdir() if "plasma" in str(fd.readlink())]
    assert stores and [path for path in (*files, *stores) if CANARY.encode() in path.read_bytes()] == []
    left = [path.name for place in (out, cluster.of_run("training")) for path in place.glob(".*")]
    assert any("worker" in path.name for path in files) and left == [".lock"]
    tally(PROMISE, "logs, store and spill searched for names after scoring and training: none")
