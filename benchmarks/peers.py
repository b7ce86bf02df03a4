"""The best recipe of a run beside AutoGluon, CatBoost, LightGBM and skrub, on the same rows.

    make peers                              runs/quick; `make peers RUNS="quick bots"` for several
    python -m benchmarks.peers quick        the same, where `.peers` is installed
    python -m benchmarks.peers --smoke      a few synthetic orders; no page

The peers are installed in `.peers`, a virtual environment of their own, with the versions of peers.txt. Each
is fitted in a process of its own (peer_fit.py) on the run's training and validation rows, with separate
columns, and scores its test rows. What it found is kept in runs/<name>/peers until the rows change or you
remove it: a second call only writes the table anew, with n3r's best where the run has one by then. A peer
that is not installed or fails is named in the table, by the kind of its error alone: messages of libraries
can quote rows.

Prints one JSON line a run and peer and writes reports/peers.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.__main__ import processor, shown
from n3r import metrics, tables
from n3r.evaluation.scored import read_scored
from n3r.files.json_io import read_json, write_json
from n3r.files.manifest import versions
from n3r.notebook import read_metrics
from n3r.preprocess import prepare
from n3r.schema import KEY, LABEL, ORACLE, SCORE, SPLITS, ColumnMap
from n3r.score import Scorer
from n3r.synthetic.orders import generate_orders

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".peers" / "bin" / "python"
PEERS = {
    "autogluon": "AutoGluon",
    "catboost": "CatBoost, text features",
    "lightgbm": "LightGBM, n-grams",
    "skrub": "skrub",
}
BEST, ATTAINABLE = "n3r, best recipe", "best attainable"
SHOWN = {
    "auc": "AUROC",
    "n3r_ahead": "n3r ahead",
    "recall_at_fpr_1": "recall",
    "fit_seconds": "fit",
    "ms_a_row": "ms a row",
    "ms_alone": "alone",
    "megabytes": "MB",
    "threads": "threads",
}
STEP = "09_best"
LONGEST = 3600  # seconds of a peer, whatever its own limit says
ONE = 50  # rows scored alone

Found = dict[str, Any]  # of a model: scores and costs, or why there are none ("failed")


def fit_peer(peer: str, run: Path, options: argparse.Namespace) -> Found:
    """What a peer finds on a run's rows, kept or fitted now; "failed" says why where it finds nothing."""
    data, place = run / "data", run / "peers" / f"{peer}.json"
    rows = tables.fingerprint(part for split in SPLITS for part in sorted((data / split).iterdir()))
    if place.is_file() and (kept := read_json(place))["rows"] == rows:
        return kept
    if options.only and peer not in options.only:
        return {"failed": "not run"}
    if not PYTHON.is_file():
        return {"failed": "not installed: make peers"}
    print(f"{run.name}: {peer} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_task(data, Path(folder), options)
        found = in_process(peer, Path(folder), options)
    if "failed" not in found:
        found |= {"rows": rows, "threads": options.threads, "date": str(date.today())}
        place.parent.mkdir(exist_ok=True)
        write_json(place, found)
    return found


def write_task(data: Path, folder: Path, options: argparse.Namespace) -> None:
    """Write what peer_fit.py reads."""
    columns = tables.read_column_map(data)
    kinds = {
        "text": [*columns.text, *columns.secondary_text],
        "numeric": columns.numeric,
        "categorical": columns.categorical,
    }
    for split in SPLITS:
        frame = tables.read_split(data, split, [*(name for names in kinds.values() for name in names), LABEL])
        frame.write_parquet(folder / f"{split}.parquet")
    write_json(
        folder / "task.json",
        kinds | {"label": LABEL, "seconds": options.seconds, "threads": options.threads},
    )


def in_process(peer: str, folder: Path, options: argparse.Namespace) -> Found:
    """Fit a peer in its own environment and a process of its own."""
    command = [PYTHON, Path(__file__).with_name("peer_fit.py"), peer, folder]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
    own = os.environ | threads | {"PYTHONPATH": ""}
    try:
        done = subprocess.run(
            command, cwd=folder, env=own, capture_output=True, text=True, errors="replace", timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LONGEST} s"}
    if options.show:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr, flush=True)
    place = folder / "found.json"
    return read_json(place) if place.is_file() else {"failed": f"ended with status {done.returncode}"}


def find_best(run: Path, test: pl.DataFrame, threads: int) -> Found:
    """n3r's best recipe of a run; "failed" says so where the run has none."""
    data, place = run / "data", run / "best"
    predictions = run / "predictions" / f"best_test.{tables.prepared_format(data)}"
    if not predictions.is_file() or not place.is_dir():
        return {"failed": "not run"}
    scored = read_scored(predictions)
    if scored[KEY].to_list() != test[tables.read_column_map(data).id].to_list():
        return {"failed": "its rows are not the test rows: run it again"}
    members = read_metrics(run, STEP)["members"]
    weighed = sorted((row for row in members if row["weight"]), key=lambda row: -row["weight"])
    scorer, orders = Scorer(place, threads), test.head(ONE).to_dicts()
    scorer.score(test.head(100))
    started = time.perf_counter()
    scorer.score(test)
    ms_a_row = 1000 * (time.perf_counter() - started) / len(test)
    times = []
    for order in orders:
        started = time.perf_counter()
        scorer.score_one(order)
        times.append(1000 * (time.perf_counter() - started))
    return {
        "scores": scored[SCORE].to_list(),
        "fit_seconds": sum(row["seconds"] for row in members),
        "ms_a_row": ms_a_row,
        "ms_alone": statistics.median(times),
        "megabytes": sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6,
        "threads": threads,
        "settings": ", ".join(f"{row['member']} {row['weight']:.0%}" for row in weighed),
        "versions": {name: versions()[name] for name in ("n3r", "scikit-learn", "torch", "onnxruntime")},
    }


def measure(label: np.ndarray, found: Found, best: Found) -> Found:
    """What a table shows of a model: quality, the difference to n3r's best, and costs without the scores."""
    if "failed" in found:
        return found
    scores = np.asarray(found["scores"])
    row = {key: value for key, value in found.items() if key not in ("scores", "rows")}
    row |= {
        "auc": str(metrics.auc_ci(label, scores)),
        "recall_at_fpr_1": metrics.recall_at_fpr(label, scores, 0.01),
    }
    if found is not best and "failed" not in best:
        paired = metrics.paired_auc(label, best["scores"], scores).difference
        row["n3r_ahead"] = f"{paired.value:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]"
    return row


def compare(run: Path, options: argparse.Namespace) -> dict[str, Found]:
    """n3r's best and every peer on a run's test rows; ValueError for runs of three or more classes."""
    columns = tables.read_column_map(run / "data")
    if columns.n_classes != 2:
        raise ValueError(f"{run.name} has {columns.n_classes} classes; peers are compared on two")
    test = tables.read_split(run / "data", "test")
    label = test[LABEL].to_numpy()
    best = find_best(run, test, options.threads)
    found = {BEST: best} | {name: fit_peer(peer, run, options) for peer, name in PEERS.items()}
    rows = {name: measure(label, one, best) for name, one in found.items()}
    if ORACLE in test.columns:
        rows[ATTAINABLE] = measure(label, {"scores": test[ORACLE].to_list()}, best)
    for name, row in rows.items():
        print(json.dumps({"case": "peers", "run": run.name, "model": name, **row}), flush=True)
    return rows


def section(run: Path, rows: Mapping[str, Found]) -> list[str]:
    """A run's table and settings in Markdown."""
    size = {split: tables.read_split(run / "data", split, [LABEL])[LABEL] for split in SPLITS}
    n_train, n_val, n_test = (len(size[split]) for split in SPLITS)
    text = [
        "",
        f"## {run.name}",
        "",
        f"{n_train:,} training and {n_val:,} validation rows to fit on, {n_test:,} test rows",
        f"({size['test'].sum():,} of class 1).",
        "",
        f"| {' | '.join(('', *SHOWN.values()))} |",
        "|---" * (len(SHOWN) + 1) + "|",
    ]
    for name, row in rows.items():
        cells = [row.get("failed", ""), *[""] * (len(SHOWN) - 1)]
        if "failed" not in row:
            cells = [shown(row.get(key, "")) for key in SHOWN]
        text.append(f"| {' | '.join((name, *cells))} |")
    text.append("")
    for name, row in rows.items():
        if "settings" in row:
            libraries = ", ".join(f"{library} {version}" for library, version in row["versions"].items())
            text.append(f"- {name}: {row['settings']}. {libraries}.")
    return text


def page(sections: Sequence[str]) -> str:
    """reports/peers.md."""
    text = [
        "# n3r beside its peers",
        "",
        f"{date.today()}, {processor()}, {os.cpu_count()} cores. Written by `make peers`.",
        "",
        "Test AUROC with its 95 % interval. `n3r ahead` is the difference of n3r's best recipe to a peer on",
        "the same rows, with DeLong's 95 % interval; `recall` is that at 1 % false positives. `fit` is in",
        "seconds, of n3r those of all its members' fits. `ms a row` is that of the test rows at once,",
        "`alone` the median of rows given one by one, `MB` the saved model, `threads` what a model was given",
        "(n3r: to score). Every peer reads the same columns as n3r, one by one, and is fitted on training",
        "and validation rows. Times were measured beside other programs: a machine that does nothing else",
        "is faster.",
    ]
    return "\n".join([*text, *sections, ""])


def smoke_run(folder: Path) -> Path:
    """A run of a few synthetic orders, prepared."""
    columns = ColumnMap.from_file(ROOT / "configs" / "orders.json")
    prepared = prepare(generate_orders(3000).lazy(), columns)
    tables.write_splits(folder / "smoke" / "data", prepared.splits, prepared.column_map)
    return folder / "smoke"


def main() -> None:
    """Fit what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", default=["quick"], help="names of folders in runs/, or folders")
    parser.add_argument("--only", nargs="+", choices=PEERS, help="fit these alone; others as they were kept")
    parser.add_argument("--seconds", type=float, default=600, help="AutoGluon's time limit")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--show", action="store_true", help="what peers print, which can quote rows")
    parser.add_argument("--smoke", action="store_true", help="tiny, and no page")
    options = parser.parse_args()
    if options.smoke:
        options.seconds = 20
        with tempfile.TemporaryDirectory() as folder:
            run = smoke_run(Path(folder))
            print("\n".join(section(run, compare(run, options))), file=sys.stderr)
        return
    runs = [Path(name) if Path(name).is_dir() else ROOT / "runs" / name for name in options.runs]
    sections = [line for run in runs for line in section(run, compare(run, options))]
    (ROOT / "reports" / "peers.md").write_text(page(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
