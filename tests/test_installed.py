"""n3r installed from its wheel, outside a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from n3r.pipeline import STEPS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT)
    if "No matching distribution" in done.stderr:
        pytest.skip("no package index can be reached to build a wheel with")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("n3r-*.whl"))


def test_a_wheel_runs_where_it_is_called_from(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    assert {path.stem for path in (tmp_path / "site" / "n3r" / "notebooks").iterdir()} == {
        s.name for s in STEPS
    }
    here = tmp_path / "work"
    here.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    n3r = (sys.executable, "-m", "n3r.cli")
    done = run(*n3r, "run", "02", "--size", "dev", "--region", "EU", cwd=here, env=environment)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["reports", "runs"]
    assert (here / "runs" / "dev-EU" / "tokenizer" / "tokenizer.json").is_file()


def test_scoring_needs_neither_torch_nor_lightning(wheel, tmp_path, small):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = run(*pip, "-c", ROOT / "constraints.txt", f"{wheel}[score]")
    if "No matching distribution" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    packages = next((tmp_path / "venv" / "lib").glob("python3*")) / "site-packages"
    names = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert not names & {"torch", "lightning", "transformers", "scikit_learn", "matplotlib", "jupyterlab"}
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    assert size < 600e6
    small.prepared.splits["test"].write_parquet(tmp_path / "orders.parquet")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    n3r, orders, scores = (tmp_path / name for name in ("venv/bin/n3r", "orders.parquet", "scores.csv"))
    score = (n3r, "score", "--bundle", small.folder, orders, "-o", scores)
    done = run(*score, "--budget", "5%", "--reasons", "2", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert {"score", "decision", "reason_2"} <= set(pl.read_csv(scores).columns)
    done = run(n3r, "run", "--size", "dev", cwd=tmp_path, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is not installed" in done.stderr and "n3r[train]" in done.stderr
