"""Where a training step's time goes: the operations that take most of it, at the published size.

    python -m benchmarks.profile lstm2risk names
    python -m benchmarks.profile transformer2risk bots --top 12

One JSON line an operation: its share of the time that operations take by themselves, milliseconds a step,
calls a step.
"""

import argparse
import json

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.train import BATCH, N_BATCHES, N_FEATURES, VOCAB, n3r_steps, rows, speed
from n3r import memory
from n3r.model import RiskModel, model_select
from n3r.train import TrainConfig, resolve_precision


def main() -> None:
    """Print one JSON line an operation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_class", choices=["lstm2risk", "transformer2risk"])
    parser.add_argument("case", choices=["names", "bots"])
    parser.add_argument("--steps", type=int, default=N_BATCHES)
    parser.add_argument("--top", type=int, default=10)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config = model_select(arguments.model_class, vocab_size=VOCAB, n_tab_features=N_FEATURES).config
    data = rows(arguments.case, N_BATCHES * BATCH)
    steps = n3r_steps(RiskModel(config).train(), data, resolve_precision(TrainConfig()))
    with memory.kept():
        speed(steps, 2)  # warm-up
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
