"""Interrupted work is not lost: the same command goes on, and ends as a run that was never interrupted."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from n3r import pipeline, tables
from n3r.files.manifest import verify
from n3r.tokenizer import NameTokenizer

N3R = [sys.executable, "-m", "n3r.cli", "run"]
# Everything that `n3r run` does, as small as it may be.
SMALL = [
    "--size=dev",
    *("-pn_orders=1200", "-p03.epochs=4", "-p04.epochs=2", "-psizes=[250]"),
    *('-pdeviations=["bins"]', "-pn_attacked=20", "-pn_slices=2"),
]
MODELS = ("lstm2risk", "transformer2risk", "best")


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A run's folder, whose name is the run's."""
    path = pipeline.ROOT / "runs" / f"test-{os.getpid()}-{request.node.name.partition('[')[0][-20:]}"
    yield path
    for run in (path, path.with_name(f"{path.name}-whole")):
        for place in (run, pipeline.reports_folder(run)):
            shutil.rmtree(place, ignore_errors=True)


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [*N3R, "--name", folder.name, *arguments]
    return subprocess.Popen(
        command, cwd=pipeline.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> str:
    out = process.communicate(timeout=900)[0]
    assert process.returncode == 0, out
    return out


def wait_for(what: Callable[[], bool], process: subprocess.Popen, seconds: float = 300) -> bool:
    """Whether it came to be while the process ran."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.0005)
    return False


# ---- stopped


SAID = "the same command goes on from what is finished: n3r run --name"


def stop(process: subprocess.Popen) -> tuple[str, float]:
    """What a run says that a terminal's Ctrl-C stops, and after how many seconds it ended."""
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)  # a terminal sends it to the runner alone: kernels are a group apart
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and SAID in out and "Traceback" not in out, out
    return out, time.monotonic() - asked


@pytest.mark.slow
def test_a_run_that_is_disturbed_says_so_and_goes_on(folder, tally):
    """A second runner, a kernel that is killed, Ctrl-C: one sentence each, and the same command finishes."""
    command = ["02", "--size", "dev", "-p", "n_orders=40000"]  # seconds, for a second runner to come into
    first = start(folder, *command)
    assert wait_for(lambda: bool(kernels_of(folder)), first)
    second = start(folder, *command)
    out = second.communicate(timeout=60)[0]
    assert second.returncode == 2 and f"is in use by the process {first.pid}" in out
    assert "Traceback" not in out
    tally("interruption", "second runs of the same name refused, the first unharmed")
    for pid in kernels_of(folder):
        os.kill(pid, signal.SIGKILL)
    out = first.communicate(timeout=60)[0]
    # While the second runner started, the first may have come to its next step.
    assert first.returncode == 1 and re.search("the kernel of 0[12]_[a-z]+ was killed", out), out
    assert "Traceback" not in out
    tally("interruption", "kernels killed, as when memory runs out: told in a sentence")
    third = start(folder, *command)
    assert wait_for((folder / "notebooks/02_tokenizer.ipynb").is_file, third)
    assert wait_for(lambda: bool(kernels_of(folder)), third)
    out, _ = stop(third)
    assert f"{SAID} {folder.name} 02" in out and not kernels_of(folder)
    assert "01_preprocess unchanged, skipped" in finish(start(folder, *command))
    tally("interruption", "runs stopped by Ctrl-C: gone on with what is not finished")


DROPPED = """
import signal, time, typer
from n3r.terminal import resumable

class Goes:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

try:
    with resumable():
        Goes()
        time.sleep(30)
except typer.Exit as end:
    print("ended with", end.exit_code)
"""


def test_ctrl_c_is_not_lost_in_a_finalizer(run_fresh, tally):
    """Python drops an error that comes while an object goes, a Ctrl-C as well."""
    assert run_fresh(DROPPED) == "ended with 130\n"
    tally("interruption", "Ctrl-C where Python drops errors: heard all the same")


@pytest.mark.slow
def test_ctrl_c_stops_a_training_at_once(folder, tally):
    command = ["03", "--size", "dev", "-p", "n_orders=900", "-p", "03.epochs=400", "-p", "patience=400"]
    process = start(folder, *command)
    assert wait_for((folder / "training/lstm2risk/checkpoints/last.ckpt").is_file, process)
    _, took = stop(process)
    assert not kernels_of(folder)
    assert took < 2, f"Ctrl-C took {took:.1f} s"
    tally("interruption", f"Ctrl-C: trainings stopped in {took:.1f} s, with a word on how to go on")
    out = finish(start(folder, *[word.replace("=400", "=1") for word in command]))
    assert "01_preprocess unchanged, skipped" in out and "02_tokenizer unchanged, skipped" in out


@pytest.mark.slow
def test_a_language_model_that_is_stopped_or_killed_goes_on(tmp_path, tally):
    command = [sys.executable, "-m", "n3r.cli", "lm", "train", "--config", "configs/custom_transformer.json"]
    command += ["-p", "use_subset=true", "-p", "subset_size=1500", "-p", "eval_every=3", "-p", "patience=50"]
    histories = []
    for name, how in (("whole", None), ("stopped", signal.SIGINT), ("killed", signal.SIGKILL)):
        again = [*command, "-o", str(tmp_path / name)]
        process = subprocess.Popen(
            again, cwd=pipeline.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if how is not None:
            assert wait_for((tmp_path / name / "last" / "training.json").is_file, process)
            process.send_signal(how)
            out = process.communicate(timeout=60)[0]
            assert process.returncode == (130 if how == signal.SIGINT else -how), out
            process = subprocess.Popen(again, cwd=pipeline.ROOT, stdout=subprocess.PIPE, text=True)
        out = process.communicate(timeout=300)[0]
        assert process.returncode == 0, out
        histories.append(json.loads((tmp_path / name / "last" / "training.json").read_text())["history"])
        tally("interruption", "language models stopped or killed in training: the same to the last digit")
    assert histories[0] == histories[1] == histories[2]


def kernels_of(folder: Path) -> list[int]:
    """The processes that hold the lock file of the folder open, without the runner."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if b"ipykernel_launcher" in (process / "cmdline").read_bytes():
                found += [
                    int(process.name) for fd in (process / "fd").iterdir() if _leads_to(fd, folder / ".lock")
                ]
    return found


def _leads_to(link: Path, file: Path) -> bool:
    try:
        return link.readlink() == file
    except OSError:  # closed meanwhile
        return False


# ---- killed


# Files or folders of which one is to appear, then up to how many seconds later the kill comes.
REPORTS = "../../reports/{run}"
MOMENTS: dict[str, tuple[list[str], float]] = {
    "preprocessing": (["notebooks/01_preprocess.ipynb"], 4),
    "writing the splits": ([".data.partial"], 0.05),
    "training the tokenizer": (["notebooks/02_tokenizer.ipynb"], 3),
    "training": (["training/lstm2risk/checkpoints/last.ckpt"], 0.6),
    "writing a checkpoint": ([f"training/{model}/checkpoints/.last.ckpt.partial" for model in MODELS], 0.01),
    "writing the best checkpoint": (["training/transformer2risk/checkpoints/.best.ckpt.partial"], 0.01),
    "writing a bundle": ([".transformer2risk.partial"], 1),
    "fitting the best recipe": (["training/best/slow_boosting/fold_0"], 8),
    "comparing": (["notebooks/05_parity.ipynb"], 12),
    "writing the report": ([f"{REPORTS}/.report.json.partial", f"{REPORTS}/report.json"], 0.02),
    "evaluating": (["notebooks/08_evaluate.ipynb"], 20),
}


@pytest.mark.slow
def test_runs_killed_at_twenty_moments_end_as_one_that_was_not(folder, results, tally):
    whole = folder.with_name(f"{folder.name}-whole")
    finish(start(whole, *SMALL))
    expected = results(whole)
    rng = random.Random(20261127)
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        for moment, (names, delay) in MOMENTS.items():
            awaited = [folder / name.format(run=folder.name) for name in names]
            for path in awaited:  # of an earlier kill: what is awaited is to come anew
                path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
            process = start(folder, *SMALL)
            assert wait_for(partial(any_there, awaited), process), f"the run never came to {moment}"
            time.sleep(rng.uniform(0, delay))
            kernels = kernels_of(folder) if rng.random() < 0.5 else []
            for pid in (process.pid, *kernels):  # in half of the kills all ends at once, as with the machine
                os.kill(pid, signal.SIGKILL)
            process.communicate()
            whole_or_absent(folder)
            tally("interruption", f"kill -9 while {moment}")
        finish(start(folder, *SMALL))
        assert results(folder) == expected
        tally("interruption", "all kills: the run's results are equal to the last digit", len(MOMENTS))


@pytest.mark.slow
def test_preparation_out_of_core_that_is_killed_leaves_no_half_and_goes_on(folder, tally):
    """Kernel and runner killed at six moments: splits whole or absent; then done, the private folder gone."""
    command = ["01", "--size", "dev", "-p", "n_orders=20000", "-p", "engine=disk"]
    whole = folder.with_name(f"{folder.name}-whole")
    finish(start(whole, "01", "--size", "dev", "-p", "n_orders=20000"))
    rng, private = random.Random(7), folder / ".preparing"
    for _ in range(6):
        process = start(folder, *command)
        assert wait_for(private.is_dir, process), "the run never came to preparing"
        time.sleep(rng.uniform(0, 1.5))
        for pid in (*kernels_of(folder), process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
        assert not (folder / "data").exists() or (folder / "data" / "columns.json").is_file()
        whole_or_absent(folder)
        assert not private.exists() or private.stat().st_mode & 0o077 == 0
        shutil.rmtree(folder / "steps", ignore_errors=True)  # so that a run that was too quick runs again
        tally("interruption", "kill -9 while preparing out of core")
    finish(start(folder, *command))
    for split in ("train", "val", "test"):
        found, expected = (tables.read_split(run / "data", split) for run in (folder, whole))
        assert found.equals(expected)
    assert not private.exists()


def any_there(paths: list[Path]) -> bool:
    return any(path.exists() for path in paths)


def whole_or_absent(folder: Path) -> None:
    """Whatever has a final name after a kill is whole."""
    if (folder / "data" / "columns.json").is_file():
        for split in ("train", "val", "test"):
            assert len(tables.read_split(folder / "data", split))
    if (folder / "tokenizer" / "tokenizer.json").is_file():
        NameTokenizer.load(folder / "tokenizer")
    for model in MODELS:
        if (folder / model).exists():
            verify(folder / model)
