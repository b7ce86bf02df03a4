"""n3r alone on a machine and beside one busy program a processor, as shipped and by the libraries' defaults.

    python -m benchmarks.company train     LSTM2Risk at quick size, orders a second
    python -m benchmarks.company score     the same from its bundle, rows a second in batches

Each figure is of a process of its own, and the two settings take turns. Beside one busy program a processor a
fair share is half the speed alone. Prints one JSON line a round and one with the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks import score, train
from n3r import runtime
from n3r.model import RiskModel, model_select
from n3r.process import processors, settled_anew
from n3r.score import Scorer

SIZES = {"hidden_size": 32, "n_lstm_layers": 1}
N_WARM = 5
DEFAULTS = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own; it outweighs the policy


def rows_a_second(run: Callable[[], int], seconds: float) -> float:
    """Rows a second of a function that gives how many it has gone through."""
    for _ in range(N_WARM):
        run()
    n_rows, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        n_rows += run()
    return n_rows / (time.perf_counter() - started)


def training(seconds: float) -> float:
    """Orders a second of a training."""
    data = train.rows("names", train.N_BATCHES * train.BATCH)
    torch.manual_seed(0)
    sizes = {"vocab_size": train.VOCAB, "n_tab_features": train.N_FEATURES, **SIZES}
    model = RiskModel(model_select("lstm2risk", **sizes).config).train()
    steps = train.n3r_steps(model, data, 256, "float32")
    return rows_a_second(lambda: next(steps), seconds)


def scoring(seconds: float) -> float:
    """Rows a second of a bundle's graph."""
    if DEFAULTS.items() <= os.environ.items():
        runtime.SPIN = "default"  # no number: onnxruntime takes its own
    with tempfile.TemporaryDirectory() as folder:
        score.bundle("lstm2risk", Path(folder) / "bundle", **SIZES)
        scorer, rows = Scorer(Path(folder) / "bundle"), score.orders(1000, seed=2)
        return rows_a_second(lambda: len(scorer.score(rows)), seconds)


CASES = {"train": training, "score": scoring}


@contextmanager
def company(n: int) -> Iterator[None]:
    """Within it `n` programs keep a processor busy each."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def measured(case: str, seconds: float, settings: dict[str, str]) -> float:
    """What a new process says of a case."""
    environment = {**settled_anew(), **settings}
    command = [sys.executable, "-m", "benchmarks.company", case, "--seconds", str(seconds), "--here"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print one JSON line a round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--here", action="store_true", help="measure in this process, as it is")
    arguments = parser.parse_args()
    if arguments.here:
        print(CASES[arguments.case](arguments.seconds))
        return
    n, rounds = processors(), []
    for _ in range(arguments.pairs):
        found = {}
        for where, n_busy in (("alone", 0), ("in_company", n)):
            with company(n_busy):
                for who, settings in (("n3r", {}), ("defaults", DEFAULTS)):
                    found[f"{who}_{where}"] = measured(arguments.case, arguments.seconds, settings)
        shares = {
            "alone_ratio": found["n3r_alone"] / found["defaults_alone"],
            "n3r_of_fair_share": 2 * found["n3r_in_company"] / found["n3r_alone"],
            "defaults_of_fair_share": 2 * found["defaults_in_company"] / found["defaults_alone"],
        }
        rounds.append({**found, **shares})
        print(json.dumps({key: round(value, 2) for key, value in rounds[-1].items()}), flush=True)
    medians = {key: round(statistics.median(one[key] for one in rounds), 2) for key in rounds[0]}
    described = {"case": f"{arguments.case} in company", "model": SIZES, "batch": 256, "dtype": "float32"}
    print(json.dumps({**described, "threads": n, "rows": 1000, "seconds": arguments.seconds, **medians}))


if __name__ == "__main__":
    main()
