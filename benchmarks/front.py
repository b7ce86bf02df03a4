"""The front door: seconds of `n3r.fit`, of decisions with reasons beside plain scoring, of `n3r monitor`.

    python -m benchmarks.front       20,000 rows fitted, 100,000 decided on, a million monitored
    python -m benchmarks.front --only decide --folder FOLDER     one of them, on the model that FOLDER keeps

`n3r.fit` has its defaults: the best recipe, in this process. Plain scoring, and decisions with three reasons
for the flagged one of a hundred rows, take turns, three times. `n3r monitor` runs in a process of its own on
Parquet. Orders are synthetic, with 44 columns. Prints a JSON line each; the last has all figures, and seconds
of the processors, which other programs' work on them moves less.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

import n3r
from benchmarks.report import PEAK
from n3r import tables
from n3r.score import Scorer
from n3r.synthetic.orders import generate_orders
from n3r.thresholds import Rule

MAP = Path(__file__).resolve().parent.parent / "configs" / "orders.json"
PART = 100_000  # orders that are made at a time
PAIRS = 3


def orders(n: int, seed: int) -> pl.DataFrame:
    """So many orders, ids and customers of each part its own."""
    parts = [generate_orders(min(PART, n - start), seed + start) for start in range(0, n, PART)]
    keys = pl.col("objectId", "customerId")
    return pl.concat([part.with_columns(keys + f"-{seed}-{i}") for i, part in enumerate(parts)])


def fit(folder: Path, rows: int) -> dict[str, Any]:
    """A model of `n3r.fit`, kept in the folder as a run keeps one."""
    known = orders(2 * rows, 0).filter(pl.col("status").is_in(["F", "I", "N"]))
    frame = known.unique("customerId", keep="first", maintain_order=True).head(rows)
    started, busy = time.perf_counter(), time.process_time()
    model = n3r.fit(frame, MAP)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    model.save(folder / "best")
    tables.write_splits(folder / "data", model.splits, model.scorer.column_map)
    held = model.blend.predictions(model.blend.held, model.blend.held_probs)
    tables.write(held, folder / "predictions" / "best_val.parquet")
    kept = sum(map(len, model.splits.values()))
    return {"fit_rows": kept, "fit_seconds": round(seconds, 1), "fit_cpu_seconds": round(busy, 1)}


def decide(folder: Path, rows: int) -> dict[str, Any]:
    """Decisions and reasons beside plain scores."""
    scorer, frame = Scorer(folder / "best"), orders(rows, 10_000_000)
    highest = scorer.score(frame)["score"].top_k(rows // 100)
    rule = Rule(threshold=float(highest.min()))
    calls: dict[str, Callable[[], pl.DataFrame]] = {
        "score": lambda: scorer.score(frame),
        "decide": lambda: scorer.decide(frame, rule, 3),
    }
    found = calls["decide"]()  # once, unmeasured
    clocks = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
    taken: dict[str, list[float]] = {f"{name}_{clock}": [] for clock in clocks for name in calls}
    for _ in range(PAIRS):
        for name, call in calls.items():
            started = {clock: read() for clock, read in clocks.items()}
            call()
            for clock, read in clocks.items():
                taken[f"{name}_{clock}"].append(read() - started[clock])
    medians = {key: round(statistics.median(values), 2) for key, values in taken.items()}
    for clock, key in (("seconds", "decide_ratio"), ("cpu_seconds", "decide_cpu_ratio")):
        pairs = zip(taken[f"score_{clock}"], taken[f"decide_{clock}"], strict=True)
        medians[key] = round(statistics.median(b / a for a, b in pairs), 2)
    return {"decided": rows, "flagged": int((found["decision"] == "flag").sum()), **medians}


def monitor(folder: Path, rows: int) -> dict[str, Any]:
    """`n3r monitor` of new orders, read from parts of Parquet."""
    (folder / "new").mkdir(exist_ok=True)
    for start in range(0, rows, PART):
        path = folder / "new" / f"{start:09d}.parquet"
        if not path.is_file():
            orders(min(PART, rows - start), 20_000_000 + start).write_parquet(path)
    command = ["monitor", str(folder / "new"), "--bundle", str(folder / "best"), "-o", str(folder / "page")]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    peak = round(int(done.stderr.split()[-1]) / 1024)
    return {"monitored": rows, "monitor_seconds": round(seconds, 1), "monitor_peak_mb": peak}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=("fit", "decide", "monitor"))
    parser.add_argument("--folder", type=Path, help="that keeps the model")
    parser.add_argument("--rows", type=int, nargs=3, default=(20_000, 100_000, 1_000_000))
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        for case, rows in zip((fit, decide, monitor), options.rows, strict=True):
            if options.only in (None, case.__name__):
                found |= case(folder, rows)
                print(json.dumps(found))


if __name__ == "__main__":
    main()
