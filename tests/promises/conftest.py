"""What the tests of promises share: a run's results, and the table of what was tried and lost."""

import json
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from n3r.files.manifest import MANIFEST

CLOCK = ("timing", "seconds", "ms_a_row", "orders/s in training", "report")  # keys; the last is a path
TALLY = pytest.StashKey[dict[tuple[str, str], list[int]]]()


class Promise(NamedTuple):
    """What is promised, in words for the report."""

    key: str  # that tests give to `tally`
    title: str
    says: str


# Test file -> its promise.
PROMISES = {
    "test_interruption": Promise(
        "interruption",
        "Interrupted work is not lost",
        "A run that was killed or stopped goes on with the same command, from the last finished step or "
        "the last checkpoint of a training, and ends with the metrics of a run that was not, to the last "
        "digit. A step that was cut short begins anew. Loss of power is not tried: files are renamed, not"
        " synced.",
    ),
    "test_half_written": Promise(
        "half-written",
        "Nothing half-written",
        "On a full disk, in a folder that cannot be written, of an input that is gone: one error, the "
        "earlier result is still there, and what has its final name is whole.",
    ),
    "test_hostile_input": Promise(
        "hostile input",
        "Hostile input",
        "Whatever a file, a value, a config, a parameter, a bundle or a tokenizer holds, the answer is a "
        "score or a sentence: no crash, no NaN, no hang, no traceback. Rows in = rows scored + rows "
        "rejected with a reason.",
    ),
    "test_nothing_silently_wrong": Promise(
        "silently wrong",
        "Nothing is silently wrong",
        "Training, scoring, evaluation and language models read a file by one reader: every record is "
        "read, or rejected with its row and a reason, or the run is refused; rows in are rows kept and rows "
        "dropped for each reason. Times, ids and columns that are hard to believe are refused with what "
        "would mend them, or read and warned of. Each case has its right values.",
    ),
    "test_strangers_files": Promise(
        "strangers' files",
        "Nothing runs that was handed in",
        "No pickle, no YAML object, no code and no path in a file from a stranger is followed; sizes are "
        "compared before memory is set aside, and what holds far more than its size is refused. A graph "
        "computes what it computes: how long a stranger's model takes is not bounded.",
    ),
    "test_privacy": Promise(
        "privacy",
        "Private data stays private",
        "Identity strings are in the prepared data (`runs/<name>/data`, for synthetic orders also "
        "`orders`), and in vocabularies the pieces of names that come `min_frequency` times or more in "
        "training; nowhere else. Columns that the map calls segment, category, group or id are shown as "
        "what they are.",
    ),
    "test_same_out": Promise(
        "same out",
        "Same in, same out",
        "The same data, parameters and machine give the same metrics, predictions and bundles, whatever "
        "the hash seed, the process and the order of the rows. Times and speeds are left out.",
    ),
    "test_many_machines": Promise(
        "many machines",
        "Many machines",
        "On a Ray cluster of two or three nodes, which share this machine: whatever is killed, full or does "
        "not fit, rows and weights are those of one machine, or there is one sentence and nothing "
        "half-written, and the next run goes on where it can. Loss of the head node, which ends a cluster, "
        "is not tried.",
    ),
    "test_dependencies": Promise(
        "dependencies",
        "Dependencies",
        "The exact versions are those of constraints.txt; their licences are in [licences.md](licences.md).",
    ),
}


@pytest.fixture
def results() -> Callable[[Path], dict[str, Any]]:
    """All that a run says, but for the clock: metrics, predictions, checksums of its bundles, by name."""

    def read(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted((folder / "steps").glob("*/metrics.json")):
            found[path.parent.name] = _without_clock(json.loads(path.read_text()))
        for path in sorted((folder / "predictions").iterdir()):
            table = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
            found[path.name] = table.to_dicts()
        for model in ("lstm2risk", "transformer2risk"):
            found[model] = json.loads((folder / model / MANIFEST).read_text())["files"]
        return found

    return read


def _without_clock(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_clock(value) for key, value in content.items() if key not in CLOCK}
    return [_without_clock(value) for value in content] if isinstance(content, list) else content


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`tally(promise, what, tried, lost)` adds to the table that `make torture` writes."""

    def add(promise: str, what: str, tried: int = 1, lost: int = 0) -> None:
        row = request.config.stash[TALLY][promise, what]
        row[0], row[1] = row[0] + tried, row[1] + lost

    return add


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tally", type=Path, help="write the table of what was tried into this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = defaultdict(lambda: [0, 0])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.config.stash[TALLY][PROMISES[item.path.stem].key, f"FAILED: {item.name}"] = [1, 1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if path := config.getoption("--tally", None):
        skipped = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
        text = _page(config.stash[TALLY], skipped)
        path.write_text(text, encoding="utf-8")
        terminalreporter.write_line(text)


def _page(tally: dict[tuple[str, str], list[int]], skipped: list[str]) -> str:
    machine = f"{os.cpu_count()} processors, Python {platform.python_version()}, {platform.system()}"
    blocks = ["# What n3r promises, and how hard it was tried", f"`make torture` writes this; {machine}."]
    for promise in PROMISES.values():
        rows = [(what, *counts) for (key, what), counts in tally.items() if key == promise.key]
        lines = [f"| {what} | {tried:,} | {lost:,} |" for what, tried, lost in rows]
        blocks += [f"## {promise.title}", promise.says]
        blocks.append("\n".join(["| what was tried | times | lost |", "|---|--:|--:|", *lines]))
    if skipped:
        blocks += ["## Not tried", "\n".join(f"- {reason.removeprefix('Skipped: ')}" for reason in skipped)]
    return "\n\n".join(blocks) + "\n"
