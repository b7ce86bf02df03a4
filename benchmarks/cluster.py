"""One file scored on an engine for many machines, beside one process with one thread.

    python -m benchmarks.cluster                   a million orders, Ray with a worker a processor
    python -m benchmarks.cluster --rows 200000 --pairs 1 --small

Each is a program of its own, in turns: a Parquet file of all rows into one of all scores, by an LSTM2Risk of
the dimensions of `--size quick` with random weights. Prints a JSON line a pair and one with the medians:
seconds of the whole program (`s`), until rows are asked for (`start`: imports, the model or the engine), of
scoring (`score`: of the engine with what its workers import), and in `ratio` what the engine is faster in
all, in `ratio_scoring` without its start. The two files are compared byte by byte. The engine runs in a
network of its own that has nothing but the loopback, where one can be made.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.score import SMALL, bundle, orders
from n3r.files.json_io import read_json

ROOT = Path(__file__).resolve().parent.parent
PART = 100_000  # orders that are made; more are these again
OWN_NETWORK = ["unshare", "--net", "bash", "-c", 'ip link set lo up && exec "$@"', "own"]
PROGRAMS = {
    "alone": """
from n3r.score import Scorer
from n3r.score_files import score_files
scorer = Scorer(bundle, threads=1)
asked = time.perf_counter()
counts = score_files(scorer, [rows], out, progress=False)
scored = time.perf_counter()
""",
    "engine": """
from n3r.engine import start
from n3r.score_tasks import score_tasks
engine = start(name, out.with_suffix(".engine"))
asked = time.perf_counter()
counts = score_tasks(engine, bundle, [str(rows)], out, progress=False)
scored = time.perf_counter()
engine.close()
""",
}
FRAME = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
name, (bundle, rows, out) = sys.argv[1], map(Path, sys.argv[2:])
{}
print(json.dumps({{"rows": counts.scored, "start": asked - began, "score": scored - asked}}))
"""


def measured(what: str, engine: str, folder: Path) -> dict[str, float]:
    """Seconds of one program."""
    own = OWN_NETWORK if what == "engine" and _can_be_alone() else []
    places = (folder / name for name in ("bundle", "rows.parquet", f"{what}.parquet"))
    command = [*own, sys.executable, "-c", FRAME.format(PROGRAMS[what]), engine, *map(str, places)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) | {"s": time.perf_counter() - started}


def _can_be_alone() -> bool:
    return subprocess.run([*OWN_NETWORK, "true"], capture_output=True).returncode == 0


def main() -> None:
    """Score in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--engine", default="ray")
    parser.add_argument("--small", action="store_true", help="a small model")
    arguments = parser.parse_args()
    sizes = read_json(ROOT / "configs" / "size_quick.json")["03_train_lstm2risk"]
    sizes = {key: sizes[key] for key in ("hidden_size", "n_lstm_layers")}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle("lstm2risk", folder / "bundle", **(SMALL["lstm2risk"] if arguments.small else sizes))
        part = orders(min(arguments.rows, PART), seed=2)
        rows = pl.concat([part] * -(-arguments.rows // len(part)))[: arguments.rows]
        rows.write_parquet(folder / "rows.parquet")
        pairs = []
        for _ in range(arguments.pairs):
            pairs.append({what: measured(what, arguments.engine, folder) for what in PROGRAMS})
            print(json.dumps(_rounded(pairs[-1])), flush=True)
        same = (folder / "alone.parquet").read_bytes() == (folder / "engine.parquet").read_bytes()
    print(json.dumps({"case": f"score on {arguments.engine}", **_rounded(_medians(pairs)), "same": same}))


def _medians(pairs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": pairs[0]["alone"]["rows"], "workers": os.cpu_count()}
    for what in ("s", "start", "score"):
        found[what] = {one: statistics.median(pair[one][what] for pair in pairs) for one in PROGRAMS}
    for ratio, what in (("ratio", "s"), ("ratio_scoring", "score")):
        found[ratio] = statistics.median(pair["alone"][what] / pair["engine"][what] for pair in pairs)
    return found


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    return round(found, 2) if isinstance(found, float) else found


if __name__ == "__main__":
    main()
