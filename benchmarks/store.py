"""Memory of training from token stores that are larger than memory should be.

    python -m benchmarks.store 1000000 10000000 30000000
    python -m benchmarks.store 3000 --steps 2     (a smoke run)

For each number of rows a store of random token ids (26 a row) and 40 features is written directly, in
parts; then `fit` trains LSTM2Risk at the published size for some steps in a process of its own, and stops.
Prints a JSON line each: bytes of the store; seconds of writing, until the first batch (checks, weighing of
features, the epoch's order), and of a step in the median; the peak of memory that the system cannot take back
(anonymous) and of all (pages of mapped files, too, which it takes back where it needs them), both in MB and
beyond those of the same training of 20,000 rows. Then one with the peaks of all.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.train import PAD, VOCAB
from n3r.data import OrderDataset, open_store, write_store
from n3r.model import configure
from n3r.token_arrays import TokenizedText, offsets_of
from n3r.train import TrainConfig, fit

N_FEATURES, N_TOKENS, PART, FEW = 40, 26, 250_000, 20_000


class Enough(Exception):
    """The steps that are measured are done."""


class Measured(OrderDataset):
    """Notes when batches are asked for, and ends the training behind some."""

    def __init__(self, data: OrderDataset, n_steps: int):
        super().__init__(data.text, data.tabular, data.label, data.secondary, data.store)
        self.n_steps, self.times = n_steps, []

    def __getitem__(self, rows: list[int]) -> dict:
        self.times.append(time.perf_counter())
        if len(self.times) > self.n_steps:
            raise Enough
        return super().__getitem__(rows)


class Peak(threading.Thread):
    """The largest memory of this process by kind, in kB, looked at all the time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.kinds = {"RssAnon": 0, "VmRSS": 0}

    def run(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text("utf-8").splitlines():
                name, _, value = line.partition(":")
                if name in self.kinds:
                    self.kinds[name] = max(self.kinds[name], int(value.split()[0]))
            time.sleep(0.002)


def parts(n_rows: int) -> Iterator[OrderDataset]:
    """Random rows, some at a time."""
    for start in range(0, n_rows, PART):
        n, rng = min(PART, n_rows - start), np.random.default_rng(start)
        offsets = offsets_of(np.full(n, N_TOKENS))  # batches alike, so that steps take the same memory
        text = TokenizedText(rng.integers(7, VOCAB, offsets[-1], dtype=np.int32), offsets)
        tabular = rng.standard_normal((n, N_FEATURES), dtype=np.float32)
        yield OrderDataset(text, tabular, rng.integers(0, 2, n))


def train(store: Path, n_steps: int) -> None:
    """Train for some steps; print what it took."""
    peak = Peak()
    peak.start()
    started = time.perf_counter()
    config = configure("lstm2risk", vocab_size=VOCAB, n_tab_features=N_FEATURES)
    data = Measured(open_store(store), n_steps)
    with suppress(Enough):
        fit(config, data, None, TrainConfig(epochs=1), store.parent / "training", PAD)
    steps = np.diff(data.times)
    found = {"first_batch": data.times[0] - started, "step": statistics.median(steps)}
    print(json.dumps(found | {name: kb / 1024 for name, kb in peak.kinds.items()}))


def measure(n_rows: int, n_steps: int, place: str | None) -> dict[str, float]:
    """Write a store and train from it in a new process."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        started, store = time.perf_counter(), Path(folder) / "store"
        write_store(store, parts(n_rows))
        written = time.perf_counter() - started
        n_bytes = sum(path.stat().st_size for path in store.iterdir())
        options = ["--steps", str(n_steps), "--store", str(store)]
        command = [sys.executable, "-m", "benchmarks.store", "0", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return {"gigabytes": n_bytes / 1e9, "written": written} | json.loads(done.stdout)


def main() -> None:
    """Print a JSON line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="+")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--folder", help="where the stores are written; by default the temporary folder")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.store:
        train(arguments.store, arguments.steps)
        return
    few, peaks = measure(FEW, arguments.steps, arguments.folder), {}
    for n_rows in arguments.rows:
        found = measure(n_rows, arguments.steps, arguments.folder)
        for kind, name in (("RssAnon", "anonymous_mb"), ("VmRSS", "all_mb")):
            found[name] = found.pop(kind) - few[kind]
        shown = {key: round(value, 3) for key, value in found.items()}
        print(json.dumps({"rows": n_rows, **shown}), flush=True)
        for name in ("anonymous_mb", "all_mb"):
            peaks.setdefault(name, {})[n_rows] = round(found[name])
    print(json.dumps({"case": "store", "rows": max(arguments.rows), **peaks}))


if __name__ == "__main__":
    main()
