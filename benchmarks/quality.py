"""Test AUC of n3r beside the legacy after the same epochs on synthetic orders, one training of each per seed.

    python -m benchmarks.quality
    python -m benchmarks.quality --size dev --seeds 0     (a smoke run)

Runs the pipeline up to step 05, which trains both systems for each seed, n3r as it trains by default (length
buckets, bfloat16 if available) and the legacy in float32. Prints one JSON line per seed and model class,
and one with the mean AUC of both, their mean difference and its 95 % interval over rows and seeds.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from n3r.pipeline import read_metrics

ROOT = Path(__file__).resolve().parent.parent
MARGIN = 0.003  # AUC that n3r may lose for its speed


def main() -> None:
    """Run the pipeline and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="quick", choices=["dev", "quick", "full"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    parameters = {"seeds": arguments.seeds, "ablated": [], "margin": MARGIN}
    options = [word for name, value in parameters.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    name = f"quality-{arguments.size}"
    command = ["-m", "n3r.cli", "run", "05", "--size", arguments.size, "--name", name, *options]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=sys.stderr)
    found = read_metrics(ROOT / "runs" / name, "05_parity")["parity"]
    for row in found:
        for seed, difference in zip(arguments.seeds, row["by_seed"], strict=True):
            print(json.dumps({"model": row["model"], "seed": seed, "difference": round(difference, 4)}))
    figures = {"n3r": "auc_a", "legacy": "auc_b", "difference": "difference"}
    figures |= {"low": "difference_low", "high": "difference_high"}
    means = {name: {row["model"]: round(row[key], 4) for row in found} for name, key in figures.items()}
    print(json.dumps({"case": "quality", "rows": found[0]["n"], **means}))


if __name__ == "__main__":
    main()
