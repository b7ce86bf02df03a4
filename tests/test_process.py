"""Threads by affinity and quota, how they wait, and libraries that keep and send nothing."""

import os
import subprocess
import sys

import pytest

from n3r.process import SILENT, processors, settle, settled_anew


@pytest.fixture
def machine(tmp_path):
    """A folder of control groups and a load file, as this machine would show them."""

    def made(running: int = 1, **files: str):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (tmp_path / "load").write_text(f"0.1 0.1 0.1 {running}/99 7\n", encoding="utf-8")
        return {"cgroup": tmp_path / "cgroup", "running": tmp_path / "load"}

    return made


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("cpu.max", "max 100000", None),
        ("cpu.max", "100000 100000", 1),
        ("cpu.max", "50000 100000", 1),
        ("cpu.max", "150000 100000", 2),
        ("cpu.max", "90000000 100000", None),
        ("cpu.max", "nonsense", None),
        ("other", "1 2", None),
    ],
)
def test_a_quota_bounds_the_processors(machine, name, text, expected):
    here = len(os.sched_getaffinity(0))
    assert processors(machine(**{name: text})["cgroup"]) == min(here, expected or here)


def test_a_quota_of_the_first_version_counts_too(machine, tmp_path):
    place = machine(**{"cpu__cpu.cfs_quota_us": "100000", "cpu__cpu.cfs_period_us": "100000"})
    assert processors(place["cgroup"]) == 1
    machine(**{"cpu__cpu.cfs_quota_us": "-1"})
    assert processors(place["cgroup"]) == len(os.sched_getaffinity(0))


def test_a_container_of_one_processor_starts_one_thread(machine, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    environment = {}
    settle(environment, **machine(running=9, **{"cpu.max": "100000 100000"}))
    assert environment == {**SILENT, "OMP_NUM_THREADS": "1"}  # which never waits for another


@pytest.mark.parametrize(("running", "sleeps"), [(1, False), (2, True), (5, True)])
def test_threads_sleep_where_others_are_busy(machine, running, sleeps):
    environment = {"OMP_NUM_THREADS": "2"}
    settle(environment, **machine(running=running))
    assert ("OMP_WAIT_POLICY" in environment) == sleeps


def test_what_the_user_has_set_stays(machine):
    given = {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "7", "ORT_DISABLE_TELEMETRY": "0"}
    environment = dict(given)
    settle(environment, **machine(running=5, **{"cpu.max": "100000 100000"}))
    assert environment | given == environment
    assert "OMP_WAIT_POLICY" not in environment


def test_a_new_process_gets_what_the_user_set_and_settles_for_itself(monkeypatch):
    monkeypatch.setenv("SOME_SETTING", "1")
    environment = settled_anew()
    assert environment["SOME_SETTING"] == "1"
    assert environment | SILENT == environment


@pytest.mark.slow
def test_libraries_leave_nothing_in_the_home_folder(tmp_path):
    """What they would leave is in docs/promises.md."""
    code = """
import n3r.score, n3r.train, n3r.tokenizer, n3r.trees, huggingface_hub, transformers
from onnx import helper, TensorProto
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
n3r.score.Graph(model.SerializeToString(), 1, 0).session.run(None, {"x": __import__("numpy").ones(1, "f4")})
"""
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], env=home, check=True, timeout=120)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert [path for path in left if not path.startswith(".cache/matplotlib/fontlist")] == []
