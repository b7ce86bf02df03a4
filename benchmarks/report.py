"""Time and memory of the evaluation report of scored rows, by their number.

    python -m benchmarks.report 1000000 10000000
    python -m benchmarks.report 2000                     (a smoke run)

Each is `n3r evaluate` in its own process: scores and raw orders read from folders of Parquet and matched by
id, every part of the report computed, HTML, Markdown and JSON written. Orders are synthetic, with 44 columns;
the score is the known risk with noise; stability is compared with a tenth as many more rows.
Prints one JSON line per number of rows and one with all.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from n3r.synthetic.orders import generate_orders

PART = 500_000  # rows of a file
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
    for kind, n in (("scores", n_rows), ("reference", max(1, n_rows // 10))):
        for place, start in enumerate(range(0, n, PART)):
            _write_part(folder, kind, place, min(PART, n - start))
    options = {"--orders": "orders", "--reference": "reference", "-o": "report"}
    named = [text for key, name in options.items() for text in (key, str(folder / name))]
    return ["evaluate", str(folder / "scores"), *named]


def _write_part(folder: Path, kind: str, place: int, n_rows: int) -> None:
    """Orders that are labelled, and their scores."""
    seed = 2 * place + (kind == "reference")
    orders = generate_orders(int(1.1 * n_rows) + 100, seed).filter(pl.col("status").is_in(["F", "I", "N"]))
    orders = orders.head(n_rows).with_columns(objectId=pl.format("{}-{}", "objectId", pl.lit(seed)))
    p = orders["oracle_p"].to_numpy()
    z = np.log(p / (1 - p)) + np.random.default_rng(seed).normal(size=len(p))
    scores = orders.select("objectId", score=pl.Series(1 / (1 + np.exp(-z))))
    for name, table in (("orders", orders), (kind, scores)):
        (folder / name).mkdir(exist_ok=True)
        table.write_parquet(folder / name / f"{kind}-{place:03d}.parquet")


def measure(n_rows: int) -> dict[str, float]:
    """Seconds and peak memory of the command."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", PEAK, *write_rows(n_rows, Path(place))]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    peak_mb = int(done.stderr.split()[-1]) / 1024
    return {"rows": n_rows, "seconds": round(seconds, 1), "peak_mb": round(peak_mb)}


def main() -> None:
    """Run the command for each number of rows and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="*", default=[1_000_000])
    found = []
    for n_rows in parser.parse_args().rows:
        found.append(measure(n_rows))
        print(json.dumps(found[-1]), flush=True)
    by_rows = {key: {str(one["rows"]): one[key] for one in found} for key in ("seconds", "peak_mb")}
    print(json.dumps({"case": "report", **by_rows}))


if __name__ == "__main__":
    main()
