"""Where a training step's time goes: the operations that take most of it, at the published size.

    python -m benchmarks.profile lstm2risk names
    python -m benchmarks.profile transformer2risk bots --top 12
    python -m benchmarks.profile lstm2risk names --system legacy

One JSON line per operation: its share of the time that operations take by themselves, milliseconds per step,
calls per step. The legacy's step is what n3r's was before any of its speed paths.
"""

import argparse
import json
from contextlib import nullcontext

from torch.profiler import ProfilerActivity, profile

from benchmarks.train import BATCH, speed, steps_of
from n3r.kernels import keep_memory


def main() -> None:
    """Print one JSON line per operation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_class", choices=["lstm2risk", "transformer2risk"])
    parser.add_argument("case", choices=["names", "bots"])
    parser.add_argument("--system", choices=["n3r", "legacy"], default="n3r")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=BATCH, help="rows of a batch")
    parser.add_argument("--top", type=int, default=10)
    arguments = parser.parse_args()
    steps = steps_of(arguments.system, arguments.model_class, arguments.case, arguments.batch)
    with keep_memory() if arguments.system == "n3r" else nullcontext():
        speed(steps, arguments.steps)  # warm-up
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            speed(steps, arguments.steps)
    found = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in found)
    for event in found[: arguments.top]:
        line = {
            "operation": event.key,
            "share": round(event.self_cpu_time_total / total, 3),
            "ms": round(event.self_cpu_time_total / 1000 / arguments.steps, 2),
            "calls": round(event.count / arguments.steps, 1),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
