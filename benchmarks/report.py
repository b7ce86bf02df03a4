"""Time and memory of the evaluation report of a million scored rows.

    python -m benchmarks.report                  1,000,000 rows, three runs
    python -m benchmarks.report --rows 2000 --runs 1     (a smoke run)

Each run is `n3r evaluate` in its own process: scores and raw orders read from Parquet and matched by id,
every part of the report computed, HTML, Markdown and JSON written. Orders are synthetic, with 44 columns; the
score is the known risk with noise; stability is compared with a tenth as many more rows.
Prints one JSON line per run and one with the medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from n3r.synthetic.orders import generate_orders

PEAK = """
import sys, n3r.cli
sys.argv = ["n3r", *sys.argv[1:]]
try:
    n3r.cli.main()
except SystemExit as done:
    assert done.code in (None, 0, 3, 4), done.code  # those that a scheduler reads, too
status = open("/proc/self/status").read()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), file=sys.stderr)
"""


def write_rows(n_rows: int, folder: Path) -> list[str]:
    """Orders and scores of `n_rows` rows and a tenth as many more; the command's arguments."""
    orders = generate_orders(int(1.05 * 1.1 * n_rows), seed=0).filter(pl.col("status").is_in(["F", "I", "N"]))
    orders = orders.head(n_rows + n_rows // 10)
    orders.write_parquet(folder / "orders.parquet")
    p = orders["oracle_p"].to_numpy()
    z = np.log(p / (1 - p)) + np.random.default_rng(1).normal(size=len(p))
    scores = orders.select("objectId").with_columns(score=pl.Series(1 / (1 + np.exp(-z))))
    scores.head(n_rows).write_parquet(folder / "scores.parquet")
    scores.tail(n_rows // 10).write_parquet(folder / "reference.parquet")
    options = {"--orders": "orders.parquet", "--reference": "reference.parquet", "-o": "report"}
    named = [text for key, name in options.items() for text in (key, str(folder / name))]
    return ["evaluate", str(folder / "scores.parquet"), *named]


def main() -> None:
    """Run the command and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", PEAK, *write_rows(arguments.rows, Path(place))]
        for _ in range(arguments.runs):
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - started
            runs.append({"seconds": round(seconds, 1), "peak_mb": round(int(done.stderr.split()[-1]) / 1024)})
            print(json.dumps(runs[-1]))
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    print(json.dumps({"case": "report", "rows": arguments.rows, **medians}))


if __name__ == "__main__":
    main()
