"""Identity features: of many orders at once, and of one order given as a dict.

    python -m benchmarks.identity [--rows 1000000]

One JSON line: seconds on the wall and of the processor, the process's peak memory (Linux) and what the rows
and features alone take of it, and milliseconds of one order. Orders are synthetic, repeated from 50,000.
"""

import argparse
import json
import re
import statistics
import time
from pathlib import Path

import polars as pl

from n3r.identity.features import IdentityFeatures
from n3r.preprocess import prepare
from n3r.schema import ColumnMap
from n3r.synthetic.orders import generate_orders

COLUMNS = Path(__file__).resolve().parent.parent / "configs" / "orders.json"


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def main() -> None:
    """Time the features and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    n_rows = parser.parse_args().rows
    prepared = prepare(generate_orders(min(n_rows, 50_000)).lazy(), ColumnMap.from_file(COLUMNS))
    train = prepared.splits["train"]
    features = IdentityFeatures().fit(train, prepared.column_map)
    rows = pl.concat([train.select(features.columns)] * (n_rows // len(train) + 1))[:n_rows]
    started, used = time.perf_counter(), time.process_time()
    found = features.transform(rows)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
    print(
        json.dumps(
            {
                "case": "identity",
                "rows": n_rows,
                "features": found.shape[1],
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "peak_mb": _peak_mb(),
                "held_mb": (found.nbytes + rows.estimated_size()) / 2**20,
                "p50_ms": _one(features, rows),
            }
        )
    )


def _one(features: IdentityFeatures, rows: pl.DataFrame) -> float:
    """Milliseconds of one order, the median of 500."""
    times = []
    for row in rows[:500].iter_rows(named=True):
        started = time.perf_counter()
        features.transform_row(row)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


if __name__ == "__main__":
    main()
