"""A training step of the hand-written transformer beside the same model in nn.Modules with autograd.

    python -m benchmarks.custom_transformer
    python -m benchmarks.custom_transformer --pairs 1 --steps 1 --small     (a smoke run)

Both are made with the same weights, and their first losses are compared. A step is forward, backward and
Adam's update (autograd's is torch's fused one) of 8 rows of 256 random tokens; d_model 256, 4 blocks, 4
heads, d_ffn 1024, float32. One JSON line per pair of timings, interleaved in one process; then the medians.
Memory is the peak of a process that trains, less that of one that only imports.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n3r.custom_transformer.model import CustomTransformerConfig, CustomTransformerWrapper

RATE = 1e-3
SIZES = {"d_model": 256, "n_blocks": 4, "n_heads": 4, "d_ffn": 1024, "max_seq_len": 256}
SMALL = {"d_model": 16, "n_blocks": 1, "n_heads": 2, "d_ffn": 16, "max_seq_len": 8}
BATCH = 8


class Block(nn.Module):
    """A pre-norm block of torch's own layers."""

    def __init__(self, config: CustomTransformerConfig):
        super().__init__()
        n = config.d_model
        self.n_heads = config.n_heads
        self.norm1, self.norm2 = nn.LayerNorm(n), nn.LayerNorm(n)
        self.project, self.output = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.feed_forward = nn.Sequential(nn.Linear(n, config.d_ffn), nn.ReLU(), nn.Linear(config.d_ffn, n))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(self.norm1(x)).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        return x + self.feed_forward(self.norm2(x))


class AutogradTransformer(nn.Module):
    """The same function as `CustomTransformer`, differentiated by autograd."""

    def __init__(self, config: CustomTransformerConfig):
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.d_model)
        self.place = nn.Embedding(config.max_seq_len, config.d_model)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_blocks)))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place.weight[: ids.shape[1]]
        return self.head(self.norm(self.blocks(x)))

    def copy_from(self, parameters: dict[str, Tensor]) -> "AutogradTransformer":
        """Take the weights of a `CustomTransformer`, whose matrices stand on the right."""
        names = {"embedding.token": "token.weight", "embedding.place": "place.weight"}
        state = {}
        for name, tensor in parameters.items():
            name = names.get(name, name)
            for old, new in RENAMED.items():
                name = name.replace(old, new)
            is_matrix = tensor.ndim == 2 and not name.startswith(("token", "place"))
            state[name] = tensor.T if is_matrix else tensor
        self.load_state_dict(state)
        return self


RENAMED = {
    "attention.project": "project",
    "attention.output": "output",
    "feed_forward.hidden": "feed_forward.0",
    "feed_forward.output": "feed_forward.2",
    "gain": "weight",
}


def written(config: CustomTransformerConfig, ids: Tensor) -> Callable[[], float]:
    """A training step of the hand-written transformer."""
    wrapper = CustomTransformerWrapper(config)
    return lambda: wrapper.train_step(ids, ids, RATE)["loss"]


def autograd(config: CustomTransformerConfig, ids: Tensor) -> Callable[[], float]:
    """A training step of the same model in nn.Modules."""
    model = AutogradTransformer(config).copy_from(CustomTransformerWrapper(config).model.parameters)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)

    def step() -> float:
        logits = model(ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


SYSTEMS = {"written": written, "autograd": autograd}


def seconds(step: Callable[[], float], n_steps: int) -> float:
    """Seconds of one step, of several in a row."""
    started = time.perf_counter()
    for _ in range(n_steps):
        step()
    return (time.perf_counter() - started) / n_steps


def peak_mb(system: str) -> float:
    """Peak memory of a process of its own that trains a system, or with "none" only imports what it needs."""
    command = [sys.executable, "-m", "benchmarks.custom_transformer", *sys.argv[1:], "--process", system]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_peak_mb() -> float:
    """Peak memory of this process, on Linux; getrusage's starts at that of the process that started it."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) / 1024


def compare(config: CustomTransformerConfig, ids: Tensor, n_pairs: int, n_steps: int) -> None:
    """Print one JSON line per pair of timings, and the medians with the memory."""
    steps = {name: make(config, ids) for name, make in SYSTEMS.items()}
    losses = {name: step() for name, step in steps.items()}  # and a warm-up
    pairs = []
    for _ in range(n_pairs):
        pairs.append({name: seconds(step, n_steps) * 1000 for name, step in steps.items()})
        pairs[-1]["ratio"] = pairs[-1]["written"] / pairs[-1]["autograd"]
        print(json.dumps({key: round(value, 2) for key, value in pairs[-1].items()}))
    peaks = [{name: peak_mb(name) for name in (*SYSTEMS, "none")} for _ in range(n_pairs)]
    described = {
        "case": "training step, ms",
        **config.model_dump(include={"vocab_size", "dtype", *SIZES}),
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "loss_difference": abs(losses["written"] - losses["autograd"]),
        **{key: round(statistics.median(pair[key] for pair in pairs), 2) for key in pairs[0]},
        "peak_mb": {
            name: round(statistics.median(peak[name] - peak["none"] for peak in peaks), 1) for name in SYSTEMS
        },
    }
    print(json.dumps(described))


def main() -> None:
    """Read the arguments; compare, or be a process whose memory is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each in a pair")
    parser.add_argument("--vocab", type=int, default=512, help="size of the vocabulary")
    parser.add_argument("--d-ffn", type=int, default=1024, help="width of the feed-forward layers")
    parser.add_argument("--small", action="store_true", help="tiny dimensions, to see that it runs")
    parser.add_argument("--process", choices=[*SYSTEMS, "none"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = SMALL if arguments.small else {**SIZES, "d_ffn": arguments.d_ffn}
    config = CustomTransformerConfig(vocab_size=arguments.vocab, **sizes)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (BATCH, config.max_seq_len), generator=generator)
    if arguments.process is None:
        compare(config, ids, arguments.pairs, arguments.steps)
        return
    if arguments.process != "none":
        seconds(SYSTEMS[arguments.process](config, ids), 3)
    print(own_peak_mb())


if __name__ == "__main__":
    main()
