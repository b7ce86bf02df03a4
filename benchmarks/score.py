"""Scoring from a bundle beside the legacy's eager model, at the published sizes, interleaved in one process.

    python -m benchmarks.score lstm2risk latency     one order, dict to calibrated score, 1 thread
    python -m benchmarks.score lstm2risk batch       rows per second, 2 threads, with tokenising and features
    python -m benchmarks.score lstm2risk cold        import to first score, in new processes
    python -m benchmarks.score lstm2risk memory      peak memory of scoring files of more and more rows

Several cases share a bundle; `--small` takes a small model, `--rows` and `--pairs` less of all.
Prints one JSON line per pair and one with the medians. Orders are synthetic, 100 feature columns, texts of 26
tokens in the mean; the weights are random, which costs the same. The legacy tokenises, fills and scores as
published, with n3r's tokenizer, whose texts are as long. `n3r int8` has 8-bit weights, `n3r small` few
dimensions: what they cost LSTM2Risk in AUC measures `dimensions`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from n3r.bundle import Bundle
from n3r.calibrate import fit_calibration
from n3r.features import TabularFeatures
from n3r.legacy.trainer import (
    LegacyTextDataset,
    legacy_lstm_collate,
    legacy_tabular,
    legacy_transformer_collate,
    predict_legacy,
)
from n3r.model import model_select
from n3r.schema import LABEL, ColumnMap, joined_text
from n3r.score import Scorer
from n3r.studies.beside import legacy_model
from n3r.synthetic.orders import generate_orders
from n3r.tokenizer import NameTokenizer
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

N_FEATURES, VOCAB = 100, 4000
TEXT = ["emailAddress", "billingAddressName", "customerName", "paymentAccountHolderName"]
COLUMNS = ColumnMap(
    id="objectId",
    text=TEXT,
    label="status",
    label_values={"N": 0, "F": 1, "I": 1},
    numeric=[f"x{i}" for i in range(N_FEATURES)],
    split_by="random",
)
SMALL = {
    "lstm2risk": {"hidden_size": 32, "n_lstm_layers": 1},
    "transformer2risk": {"embedding_size": 32, "hidden_size": 32, "n_blocks": 1, "n_heads": 4},
}


def orders(n_rows: int, seed: int = 0) -> pl.DataFrame:
    """Ids, identity strings and features, a tenth of these missing."""
    frame = generate_orders(n_rows, seed=seed).select("objectId", *TEXT)
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0, 2, (len(frame), N_FEATURES)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    return frame.with_columns(pl.Series(f"x{i}", values[:, i]).fill_nan(None) for i in range(N_FEATURES))


def a_tokenizer(train: pl.DataFrame) -> NameTokenizer:
    """A vocabulary of the published size."""
    config = TokenizerConfig(max_vocab=VOCAB, min_frequency=2, target_compression=2.33)
    return train_tokenizer(train.select(TEXT), config)[0]


def bundle(model_class: str, folder: Path, **dimensions: Any) -> Bundle:
    """A saved bundle of random weights with both graphs."""
    train = orders(2_000 if dimensions else 20_000, seed=1)
    tokenizer = a_tokenizer(train)
    features = TabularFeatures().fit(train, COLUMNS.numeric)
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "n_tab_features": len(features), "knots": features.knots, **dimensions}
    rng = np.random.default_rng(0)
    risk = rng.random(5000)
    calibration = fit_calibration(rng.random(5000) < risk**2, np.column_stack([1 - risk, risk]))
    model = model_select(model_class, **sizes).eval()
    made = Bundle(tokenizer, features, COLUMNS, TrainConfig(), model=model, calibration=calibration)
    label = pl.Series(LABEL, rng.integers(0, 2, 200), dtype=pl.Int8)
    made.save(folder, int8_rows=train[:200].with_columns(label))
    return made


class LegacyText:
    """n3r's tokenizer as the legacy calls one: a joined text at a time."""

    def __init__(self, tokenizer: NameTokenizer):
        self.tokenizer, self.pad_token = tokenizer.tokenizer, tokenizer.pad_token

    def encode(self, text: str) -> list[int]:
        """Token ids of a joined text."""
        return self.tokenizer.encode(text).ids


def legacy(made: Bundle) -> tuple[torch.nn.Module, Callable[[pl.DataFrame], LegacyTextDataset]]:
    """The legacy of the same class and sizes, and how it reads rows."""
    model = legacy_model(made.model.config, VOCAB, N_FEATURES).eval()
    text = LegacyText(made.tokenizer)

    def read(frame: pl.DataFrame) -> LegacyTextDataset:
        joined = frame.select(joined_text(TEXT)).to_series()
        tabular = legacy_tabular(frame, COLUMNS.numeric)
        return LegacyTextDataset(joined.to_list(), tabular, np.zeros(len(frame), np.float32), text)

    return model, read


def legacy_one(model: torch.nn.Module, tokenizer: NameTokenizer) -> Callable[[dict[str, Any]], float]:
    """How the legacy scores one order, given as a dict."""
    block, text = getattr(model.config, "block_size", None), LegacyText(tokenizer)
    collate = (
        legacy_transformer_collate(text.pad_token, block) if block else legacy_lstm_collate(text.pad_token)
    )

    def score(row: dict[str, Any]) -> float:
        joined = "|".join("[MISSING]" if row[name] is None else row[name] for name in TEXT)
        tabular = np.array([[-1.0 if row[n] is None else row[n] for n in COLUMNS.numeric]], np.float32)
        dataset = LegacyTextDataset([joined], tabular, np.zeros(1, np.float32), text)
        with torch.inference_mode():
            return model(collate([dataset[0]])).item()

    return score


def latency(made: Bundle, folder: Path, pairs: int, n_rows: int) -> dict[str, Any]:
    """Milliseconds per order, one at a time, of each system; medians and 95th percentiles."""
    torch.set_num_threads(1)
    scorers = {"n3r": Scorer(folder, threads=1), "n3r int8": Scorer(folder, threads=1, int8=True)}
    model, _ = legacy(made)
    frame = orders(n_rows, seed=2)
    rows = frame.to_dicts()
    systems: dict[str, Callable[[dict[str, Any]], float]] = {"legacy": legacy_one(model, made.tokenizer)}
    systems |= {name: lambda row, s=s: s.score_one(row, "p_calibrated") for name, s in scorers.items()}
    found: dict[str, list[float]] = {name: [] for name in systems}
    for pair in range(pairs + 1):  # the first warms up
        took = {name: [_seconds(lambda s=s, r=r: s(r)) * 1e3 for r in rows] for name, s in systems.items()}
        if pair:
            print(json.dumps({name: round(statistics.median(ms), 2) for name, ms in took.items()}))
            for name, ms in took.items():
                found[name] += ms
    p50 = {name: statistics.median(ms) for name, ms in found.items()}
    return {
        "p50_ms": {name: round(ms, 2) for name, ms in p50.items()},
        "p95_ms": {name: round(float(np.quantile(ms, 0.95)), 2) for name, ms in found.items()},
        "ratio": {name: round(p50["legacy"] / ms, 1) for name, ms in p50.items()},
        "mean_tokens": round(float(made.dataset(frame).text.lengths.mean()), 1),
        "threads": 1,
    }


def batch(made: Bundle, folder: Path, pairs: int, n_rows: int) -> dict[str, Any]:
    """Rows a second of each system; `n3r small` stands beside the legacy of the larger dimensions."""
    torch.set_num_threads(2)
    model, read = legacy(made)
    frame = orders(n_rows, seed=2)
    small = folder.with_name("small")
    bundle(made.model.config.model_class, small, **SMALL[made.model.config.model_class])
    scorers = {"n3r": Scorer(folder, threads=2), "n3r int8": Scorer(folder, threads=2, int8=True)}
    scorers["n3r small"] = Scorer(small, threads=2)
    systems: dict[str, Callable[[], Any]] = {"legacy": lambda: predict_legacy(model, read(frame))}
    systems |= {name: lambda s=s: s.score(frame) for name, s in scorers.items()}
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for pair in range(pairs + 1):
        took = {name: len(frame) / _seconds(system) for name, system in systems.items()}
        if pair:
            print(json.dumps({name: round(speed) for name, speed in took.items()}))
            for name, speed in took.items():
                speeds[name].append(speed)
    ratios = {
        name: statistics.median(a / b for a, b in zip(speeds[name], speeds["legacy"], strict=True))
        for name in scorers
    }
    return {
        "rows_a_second": {name: round(statistics.median(values)) for name, values in speeds.items()},
        "median_ratio": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "rows": len(frame),
        "threads": 2,
    }


COLD = """
import json, sys, time
started = time.perf_counter()
from n3r.score import Scorer
imported = time.perf_counter()
scorer = Scorer(sys.argv[1])
loaded = time.perf_counter()
scorer.score_one(json.loads(sys.argv[2]))
print(imported - started, loaded - imported, time.perf_counter() - loaded)
"""


def cold(made: Bundle, folder: Path, pairs: int, n_rows: int) -> dict[str, Any]:
    """Seconds from the first import to the first score."""
    row = json.dumps(orders(1000, seed=2).row(0, named=True))
    parts = []
    for _ in range(pairs):
        command = [sys.executable, "-c", COLD, str(folder), row]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        parts.append([float(part) for part in out.split()])
        print(json.dumps(dict(zip(("import", "load", "score"), parts[-1], strict=True))))
    return {"median_s": round(statistics.median(map(sum, parts)), 2)}


# VmHWM: getrusage's peak starts at that of the process that started this one.
MEMORY = """
import re, sys
from n3r.score import Scorer
from n3r.score_files import score_files
scorer = Scorer(sys.argv[1], threads=2)
print(score_files(scorer, [sys.argv[2]], sys.argv[3], progress=False).scored)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def memory(made: Bundle, folder: Path, pairs: int, n_rows: int) -> dict[str, Any]:
    """Peak memory of scoring Parquet files of growing numbers of rows, on Linux."""
    part = orders(min(n_rows, 100_000), seed=2)
    peaks = {}
    for size in sorted({n_rows // 100, n_rows // 10, n_rows}):
        file = folder.with_name("rows.parquet")
        pl.concat([part] * -(-size // len(part)))[:size].write_parquet(file)
        command = [sys.executable, "-c", MEMORY, str(folder), str(file), str(folder.with_name("out.parquet"))]
        started = time.perf_counter()
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        seconds = time.perf_counter() - started
        peaks[out[0]] = round(int(out[1]) / 1024)
        print(
            json.dumps(
                {
                    "rows": int(out[0]),
                    "seconds": round(seconds, 2),
                    "peak_mb": peaks[out[0]],
                    "rows_a_second": round(size / seconds),
                }
            )
        )
    return {"peak_mb": peaks}


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


CASES = {"latency": (latency, 300), "batch": (batch, 4000), "cold": (cold, 1), "memory": (memory, 1_000_000)}


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_class", choices=["lstm2risk", "transformer2risk"])
    parser.add_argument("cases", choices=CASES, nargs="+")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--small", action="store_true", help="a small model instead of the published size")
    arguments = parser.parse_args()
    sizes = SMALL[arguments.model_class] if arguments.small else {}
    described = {"model_class": arguments.model_class, "dimensions": sizes or "published"}
    with tempfile.TemporaryDirectory() as place:
        made = bundle(arguments.model_class, Path(place) / "bundle", **sizes)
        for case in arguments.cases:
            measure, n_rows = CASES[case]
            found = measure(made, Path(place) / "bundle", arguments.pairs, arguments.rows or n_rows)
            print(json.dumps({"case": case, **described, **found}))


if __name__ == "__main__":
    main()
