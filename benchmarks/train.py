"""Training speed of n3r beside the legacy, both at the published size, interleaved.

    python -m benchmarks.train lstm2risk names
    python -m benchmarks.train lstm2risk names --batch 16 --pairs 1     (a smoke run)

One JSON line per pair: orders per second of each over the same number of batches of 512 rows, data loading,
forward, backward and optimiser included, and their ratio; then the median ratio. Texts are random token ids
with the lengths of the case: `names` 26 +- 6 tokens; `bots` log-normal, mean 44, the longest 163, as the
twitter_bots texts are. The legacy trains in float32 on packed sequences, as published; n3r as `fit` does by
default. Each has a process of its own, and one waits while the other works: how memory is given back
(`n3r.kernels`) holds for a process, and the legacy's is as the system has it.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import torch
import torch.nn.functional as F

from n3r.data import Batch, OrderDataset, make_loader
from n3r.kernels import keep_memory
from n3r.legacy.models import LegacyTransformer2Risk
from n3r.legacy.trainer import legacy_lstm_collate, legacy_transformer_collate
from n3r.model import RiskModel, model_select
from n3r.studies.beside import legacy_model
from n3r.token_arrays import TokenizedText
from n3r.train import TrainConfig, collate_for, parameter_groups, resolve_precision

N_FEATURES, VOCAB, PAD, BATCH = 100, 4000, 1, 512
N_BATCHES = 8  # of an epoch: batches differ in length, so only whole epochs are comparable


def lengths(case: str, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Token counts of a case's texts."""
    if case == "names":
        return np.clip(rng.normal(26, 6, n_rows), 4, 60).round().astype(np.int64)
    return np.clip(rng.lognormal(np.log(38.5), 0.52, n_rows), 3, 163).round().astype(np.int64)


def rows(case: str, n_rows: int, seed: int = 0) -> OrderDataset:
    """Random rows with a case's lengths."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths(case, n_rows, rng))])
    text = TokenizedText(rng.integers(7, VOCAB, offsets[-1], dtype=np.int32), offsets)
    tabular = rng.standard_normal((n_rows, N_FEATURES), dtype=np.float32)
    return OrderDataset(text, tabular, rng.integers(0, 2, n_rows))


def n3r_steps(model: RiskModel, data: OrderDataset, batch_size: int, precision: str) -> Iterator[int]:
    """Train for ever; yields each step's number of rows."""
    config = TrainConfig()
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, fused=True)
    loader = make_loader(data, collate_for(model.config, PAD), batch_size, shuffle=True)
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(batch)
            F.cross_entropy(logits.float(), batch["label"]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            yield len(batch["label"])


def legacy_steps(model: torch.nn.Module, data: OrderDataset, batch_size: int) -> Iterator[int]:
    """Train for ever as the legacy does; yields each step's number of rows.

    Its tokenising on every access is left out, which favours the legacy.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    collate = legacy_lstm_collate(PAD)
    if isinstance(model, LegacyTransformer2Risk):
        collate = legacy_transformer_collate(PAD, model.config.block_size)
    rng = np.random.default_rng(0)
    for _ in itertools.count():
        for start in range(0, len(data) - batch_size + 1, batch_size):
            order = rng.permutation(len(data))[start : start + batch_size]
            batch: Batch = collate([_legacy_sample(data, row) for row in order])
            loss = F.binary_cross_entropy(model(batch), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield len(batch["label"])


def _legacy_sample(data: OrderDataset, row: int) -> dict:
    return {
        "text": torch.from_numpy(data.text.row(row).astype(np.int64)),
        "tabular": torch.from_numpy(data.tabular[row]),
        "label": torch.tensor([float(data.label[row])]),
        "row_id": torch.tensor(int(row)),
    }


def speed(steps: Iterator[int], n_steps: int) -> float:
    """Rows a second over the next steps."""
    started = time.perf_counter()
    n_rows = sum(next(steps) for _ in range(n_steps))
    return n_rows / (time.perf_counter() - started)


def steps_of(system: str, model_class: str, case: str, batch_size: int = BATCH) -> Iterator[int]:
    """A new training of one system, on the case's rows."""
    torch.manual_seed(0)
    data = rows(case, N_BATCHES * batch_size)
    config = model_select(model_class, vocab_size=VOCAB, n_tab_features=N_FEATURES).config
    if system == "n3r":
        return n3r_steps(RiskModel(config).train(), data, batch_size, resolve_precision(TrainConfig()))
    return legacy_steps(legacy_model(config, VOCAB, N_FEATURES).train(), data, batch_size)


def serve(place: tuple[str, str, str, int], n_warm: int, wanted: Connection) -> None:
    """Be one system's process: warm up, then for each number of steps that is wanted, send the speed."""
    steps = steps_of(*place)
    with keep_memory() if place[0] == "n3r" else nullcontext():  # as `fit` trains
        wanted.send(speed(steps, n_warm))
        while n_steps := wanted.recv():
            speed(steps, 1)  # what the other's turn drove out of the caches
            wanted.send(speed(steps, n_steps))


def main() -> None:
    """Print one JSON line per pair and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_class", choices=["lstm2risk", "transformer2risk"])
    parser.add_argument("case", choices=["names", "bots"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=N_BATCHES, help="batches of n3r a pair")
    parser.add_argument("--legacy-steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=BATCH, help="rows of a batch")
    arguments = parser.parse_args()
    systems = {"n3r": arguments.steps, "legacy": arguments.legacy_steps}
    context, ends = get_context("spawn"), {}
    for system, n_steps in systems.items():
        ends[system], other = context.Pipe()
        place = (system, arguments.model_class, arguments.case, arguments.batch)
        context.Process(target=serve, args=(place, n_steps, other), daemon=True).start()
        other.close()  # so that a process that failed ends this one too
        ends[system].recv()  # one warms up after the other
    pairs = []
    for _ in range(arguments.pairs):
        pair = {}
        for system, n_steps in systems.items():
            ends[system].send(n_steps)
            pair[system] = ends[system].recv()
        pairs.append({**pair, "ratio": pair["n3r"] / pair["legacy"]})
        print(json.dumps({key: round(value, 2) for key, value in pairs[-1].items()}), flush=True)
    for end in ends.values():
        end.send(0)
    text = rows(arguments.case, N_BATCHES * arguments.batch).text
    described = {
        "case": f"train {arguments.model_class} {arguments.case}",
        "mean_tokens": round(float(text.lengths.mean()), 1),
        "longest": int(text.lengths.max()),
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "dtype": {"n3r": resolve_precision(TrainConfig()), "legacy": "float32"},
        **{key: round(statistics.median(pair[key] for pair in pairs), 2) for key in pairs[0]},
    }
    print(json.dumps(described))


if __name__ == "__main__":
    main()
