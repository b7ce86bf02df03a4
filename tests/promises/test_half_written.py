"""Nothing half-written: a full disk gives one clear error, what was there stays, half a file is no file."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import torch

from n3r import notebook, pipeline, tables
from n3r.bundle import Bundle
from n3r.custom_transformer.language_model import LanguageModel, LanguageModelConfig, train_language_model
from n3r.custom_transformer.model import CustomTransformerConfig, CustomTransformerWrapper
from n3r.export import export_onnx, export_torchscript
from n3r.files.manifest import verify
from n3r.files.writer import writer
from n3r.legacy.layouts import write_sagemaker
from n3r.model import configure
from n3r.report.page import Page, write_page
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.tokenizer import NameTokenizer
from n3r.train import TrainConfig, fit

PROMISE = "half-written"
N3R = [sys.executable, "-m", "n3r.cli"]
ROWS = pl.DataFrame({"id": [f"o{i}" for i in range(30_000)], "score": [i / 30_000 for i in range(30_000)]})


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """As on a disk with so much room for each file: writing more is an error of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_rows(kind: str) -> Callable[..., None]:
    def write(place: Path, small) -> None:
        with writer(place / f"scores.{kind}", kind) as out:
            for start in range(0, len(ROWS), 5000):
                out.write(ROWS[start : start + 5000])

    return write


def score_orders(place: Path, small) -> None:
    orders = place.parent / "orders.csv"
    if not orders.exists():
        with files_of_at_most(resource.RLIM_INFINITY):
            pl.concat([small.orders] * 3).with_row_index().with_columns(
                objectId=pl.format("{}-{}", "objectId", "index")
            ).drop("index").write_csv(orders)
    score_files(Scorer(small.folder), [orders], place / "scores.csv", progress=False)


def train(place: Path, planted) -> None:
    config = configure("lstm2risk", vocab_size=40, n_tab_features=3, hidden_size=8, embedding_size=8)
    rows = planted(60)
    fit(config, rows, rows, TrainConfig(epochs=1, batch_size=16, precision="float32"), place, pad_token=1)


def read_checkpoints(place: Path) -> list[list[str]]:
    """What the checkpoints hold; one that is not there is none."""
    files = sorted((place / "checkpoints").glob("*.ckpt"))
    return [sorted(torch.load(file, weights_only=True)["state_dict"]) for file in files]


def train_words(place: Path, small) -> None:
    settings = LanguageModelConfig(epochs=1, vocab_size=300, eval_every=5, n_blocks=1, d_model=16, n_heads=2)
    names = small.orders["customerName"].drop_nulls().to_list()
    train_language_model(settings, place / "lm", {"train": names[:200], "val": names[200:240]}, replace=True)


def page(place: Path, small) -> None:
    write_page(
        Page("A run", "It went well. " * 400, [], [], {}), {"figures": list(range(3000))}, place, "report"
    )


def read_page(place: Path) -> list[int]:
    sizes = {path.suffix: path.stat().st_size for path in place.glob("report.*")}
    assert len(sizes) in (0, 3), f"part of a report: {sorted(sizes)}"
    return json.loads((place / "report.json").read_text())["figures"]


def rows_in(name: str) -> Callable[[Path], list[tuple]]:
    read = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[name.rpartition(".")[2]]
    return lambda place: read(place / name).rows()


def write_splits(place: Path, small) -> None:
    tables.write_splits(place / "data", small.prepared.splits, small.prepared.column_map)


def read_splits(place: Path) -> list[int]:
    return [len(tables.read_split(place / "data", split)) for split in ("train", "val", "test")]


def save_transformer(place: Path, small) -> None:
    config = CustomTransformerConfig(n_blocks=1, d_model=16, n_heads=2)
    CustomTransformerWrapper(config).save_checkpoint(place / "c")


def read_words(place: Path) -> int:
    return LanguageModel.load(place / "lm").wrapper.get_model_info()["n_parameters"]


def finish_step(place: Path, small) -> None:
    notebook.finish_step(place, "01_preprocess", {"figures": list(range(3000))})


# How something of the small bundle s is written into the folder p, and how it is read: a value, or an error.
WRITERS: dict[str, tuple[Callable[..., object], Callable[[Path], object]]] = {
    "a table in Parquet": (lambda p, s: tables.write(ROWS, p / "t.parquet"), rows_in("t.parquet")),
    "a table in CSV": (lambda p, s: tables.write(ROWS, p / "t.csv"), rows_in("t.csv")),
    "prepared splits": (write_splits, read_splits),
    "a tokenizer": (lambda p, s: s.bundle.tokenizer.save(p), lambda p: NameTokenizer.load(p).metadata),
    "a bundle": (lambda p, s: s.bundle.save(p / "b"), lambda p: verify(p / "b")),
    "an ONNX graph": (lambda p, s: export_onnx(s.bundle.model, p / "g"), lambda p: (p / "g").stat().st_size),
    "TorchScript": (
        lambda p, s: export_torchscript(s.bundle.model, p / "m.pt"),
        lambda p: torch.jit.load(p / "m.pt").code,
    ),
    "the published artefacts": (
        lambda p, s: write_sagemaker(s.folder, p / "s"),
        lambda p: sorted(path.name for path in (p / "s").iterdir()),
    ),
    "scored rows in Parquet": (write_rows("parquet"), rows_in("scores.parquet")),
    "scored rows in CSV": (write_rows("csv"), rows_in("scores.csv")),
    "scored rows in JSON lines": (write_rows("jsonl"), rows_in("scores.jsonl")),
    "scores of orders": (score_orders, rows_in("scores.csv")),
    "a report": (page, read_page),
    "a training": (train, read_checkpoints),
    "a language model": (train_words, read_words),
    "a hand-written transformer": (
        save_transformer,
        lambda p: CustomTransformerWrapper.from_checkpoint(p / "c").config,
    ),
    "a step's metrics": (finish_step, lambda p: notebook.read_metrics(p, "01_preprocess")),
}


GO_ON = ("a training", "a language model")  # from an earlier one, and then there is nothing to write


# They write by the same means as a neighbour, or take seconds.
SLOW = ("a bundle", "an ONNX graph", "TorchScript", "scored rows in JSON lines", "a hand-written transformer")


@pytest.mark.parametrize(
    "what", [pytest.param(w, marks=[pytest.mark.slow] if w in SLOW else []) for w in WRITERS]
)
def test_a_full_disk_leaves_what_was_there(what, small, planted, tmp_path, tally):
    given, (write, read) = planted if what == "a training" else small, WRITERS[what]
    place = tmp_path / "place"
    place.mkdir()
    write(place, given)
    largest = max(path.stat().st_size for path in place.rglob("*") if path.is_file())
    expected, n_files = read(place), sum(1 for _ in place.rglob("*"))
    if what not in GO_ON:
        fails_to_write(write, place, given, int(0.9 * largest))
        assert read(place) == expected
        assert sum(1 for _ in place.rglob("*")) == n_files, "something was left behind"
        tally(PROMISE, "writers on a full disk: one error, the earlier result is as it was")
    for share in (0, 0.5):
        shutil.rmtree(place)
        place.mkdir()
        fails_to_write(write, place, given, int(share * largest))
        if what == "a training":
            assert read(place) == []
        else:
            with pytest.raises((ValueError, FileNotFoundError)):
                read(place)
        tally(PROMISE, "writers on a full disk: one error, and nothing that a reader accepts")


def fails_to_write(write: Callable[..., object], place: Path, given: object, n_bytes: int) -> None:
    with files_of_at_most(n_bytes), pytest.raises((ValueError, RuntimeError, OSError)) as failed:
        write(place, given)
    assert 0 < len(str(failed.value)) < 2000


def test_a_folder_that_is_a_file_is_named(small, tmp_path, tally):
    (tmp_path / "file").write_text("mine")
    for write in (
        lambda place: small.bundle.save(place / "b"),
        lambda place: tables.write(ROWS, place / "t.csv"),
        lambda place: write_splits(place / "d", small),
        lambda place: score_files(
            Scorer(small.folder), [small.folder.parent / "data" / "test"], place / "o.csv"
        ),
    ):
        with pytest.raises(ValueError, match="file"):
            write(tmp_path / "file")
        tally(PROMISE, "folders that cannot be written: named, nothing changed")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_somebody_elses_is_not_replaced(small, tmp_path, tally):
    (tmp_path / "thesis.txt").write_text("mine")
    for write in (
        lambda: small.bundle.save(tmp_path),
        lambda: tables.write_splits(tmp_path, small.prepared.splits, small.prepared.column_map),
        lambda: write_sagemaker(small.folder, tmp_path),
        lambda: CustomTransformerWrapper(CustomTransformerConfig(n_blocks=1)).save_checkpoint(tmp_path),
    ):
        with pytest.raises(ValueError, match="new or (an )?empty folder"):
            write()
        tally(PROMISE, "folders that hold something else: not replaced")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "moment", ["the earlier one aside", pytest.param("the earlier one deleted", marks=pytest.mark.slow)]
)
def test_a_kill_between_two_renames_loses_nothing(moment, small, tmp_path, tally):
    """The only moment in which a folder has no name; the next writing or training puts it back."""
    shutil.copytree(small.folder, tmp_path / "b")
    earlier = tmp_path / ".b.earlier"
    if moment == "the earlier one aside":
        (tmp_path / "b").rename(earlier)
    else:
        shutil.copytree(tmp_path / "b", earlier)
        (earlier / "MANIFEST.json").unlink()
    small.bundle.save(tmp_path / "b")
    assert verify(tmp_path / "b") and [path.name for path in tmp_path.iterdir()] == ["b"]
    tally(PROMISE, "kills between the renames of a folder: nothing lost")


def test_an_input_that_vanishes_is_named(small, tmp_path, tally):
    orders = tmp_path / "orders.parquet"
    small.orders.write_parquet(orders)
    source = tables.scan(orders, small.bundle.column_map)
    orders.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match="orders.parquet"), source.reading():
        source.frame.collect()
    command = [*N3R, "score", "--bundle", str(small.folder), str(orders), "-o", str(tmp_path / "out.csv")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=pipeline.ROOT)
    assert done.returncode == 2 and "orders.parquet" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.csv").exists()
    tally(PROMISE, "inputs that vanish: named", 2)


# ---- the whole run


@pytest.fixture
def disk() -> Iterator[Callable[[str], Path]]:
    """A run's folder on a disk of its own, mounted with options; skips where none can be mounted."""
    folder = pipeline.ROOT / "runs" / f"test-{os.getpid()}-disk"
    folder.mkdir(parents=True)

    def mount(options: str) -> Path:
        options += ",remount" if folder.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here: it takes a superuser")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so_and_goes_on_where_there_is_room(disk, tally):
    command = [*N3R, "run", "03", "--size", "dev", "-p", "n_orders=900"]
    for kilobytes in (40, 300, 500, 700, 900, 1200):
        folder = disk(f"size={kilobytes}k")
        done = subprocess.run(
            [*command, "--name", folder.name], cwd=pipeline.ROOT, capture_output=True, text=True
        )
        if done.returncode == 0:
            break
        told = done.stderr.strip().splitlines()[-8:]
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
        assert any("n3r: " in line for line in told), told
        if (folder / "lstm2risk").exists():
            verify(folder / "lstm2risk")
        tally(PROMISE, "runs on a full disk: one error")
    folder = disk("size=1g")
    subprocess.run([*command, "--name", folder.name], cwd=pipeline.ROOT, check=True, capture_output=True)
    Bundle.load(folder / "lstm2risk")
    tally(PROMISE, "runs on a disk that was full: gone on where there was room")
    disk("ro")
    done = subprocess.run(
        [*command, "--name", folder.name, "-p", "seed=1"], cwd=pipeline.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "Read-only file system" in done.stderr and "Traceback" not in done.stderr
    Bundle.load(folder / "lstm2risk")
    tally(PROMISE, "folders that cannot be written: named, nothing changed")


@pytest.mark.slow
def test_a_training_on_a_full_disk_says_so_and_goes_on_where_there_is_room(disk, tally):
    """So many kilobytes are left when it begins: for no token store, and for no checkpoint."""
    folder = disk("size=1g")
    command = [*N3R, "run", "03", "--size", "dev", "-p", "n_orders=900", "--name", folder.name]
    subprocess.run(command, cwd=pipeline.ROOT, check=True, capture_output=True)
    expected = (folder / "lstm2risk" / "model.safetensors").read_bytes()
    for kilobytes in (250, 500):
        for place in ("lstm2risk", "training", "steps/03_train_lstm2risk"):
            shutil.rmtree(folder / place, ignore_errors=True)
        state = os.statvfs(folder)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize // 1024
        disk(f"size={used + kilobytes}k")
        done = subprocess.run(command, cwd=pipeline.ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert re.search(
            "n3r: 03_train_lstm2risk failed: cannot write .* (No space left|a full disk)", done.stderr
        )
        assert not (folder / "lstm2risk").exists()
        tally(PROMISE, "trainings on a full disk: one error, no model")
        disk("size=1g")
        subprocess.run(command, cwd=pipeline.ROOT, check=True, capture_output=True)
        assert (folder / "lstm2risk" / "model.safetensors").read_bytes() == expected
        tally(PROMISE, "trainings where there is room again: the same weights")
