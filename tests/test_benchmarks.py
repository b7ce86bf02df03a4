"""The benchmark programs run and print what they promise; they are not timed here."""

import json
import subprocess
import sys
from pathlib import Path


def test_training_benchmark_prints_a_line_a_pair_and_the_median():
    command = [sys.executable, "-m", "benchmarks.train", "lstm2risk", "names"]
    command += ["--pairs", "1", "--steps", "1", "--legacy-steps", "1"]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    pair, median = map(json.loads, done.stdout.splitlines())
    assert pair["ratio"] > 0
    assert median["median_ratio"] == pair["ratio"]
    assert 25 < median["mean_tokens"] < 27
