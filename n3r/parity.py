"""The legacy trained beside a bundle, on the same rows at the same dimensions, and the two compared.

Decisions:
- The legacy gets what it had as published: its own tokenizer, its -1 fill, its optimiser and schedule. It
  shares with the bundle the rows, the dimensions, the epochs, the batch size, the rate and the seed.
- Both are compared on the same test rows by the paired DeLong interval and two one-sided tests.
"""

import ast
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from safetensors.torch import save_file

from n3r.bundle import Bundle
from n3r.legacy import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTextDataset,
    LegacyTokenizer,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
    legacy_tabular,
    predict_legacy,
    train_legacy,
)
from n3r.metrics import equivalence, paired_auc, paired_by_segment
from n3r.model import ModelConfig

NAMES = ("n3r", "legacy")
TAG = "NOTE" + "[DIFF]"  # in two parts, so that this line is no departure


class LegacyRun(NamedTuple):
    """The legacy trained on a bundle's rows."""

    model: torch.nn.Module
    history: list[dict[str, float]]
    n_parameters: int
    orders_per_second: float  # in training, its evaluation of the test rows after each epoch left out
    predictions: dict[str, pl.DataFrame]  # of each split but train


def train_beside(bundle: Bundle, splits: dict[str, pl.DataFrame], progress: bool = True) -> LegacyRun:
    """Train the legacy of the bundle's model class on `splits["train"]`; score the other splits.

    Prepared frames come in, as the bundle was trained on them.
    """
    config = bundle.train_config
    columns = bundle.column_map.numeric
    tokenizer = LegacyTokenizer(seed=config.seed).train(splits["train"]["text"].to_list())
    datasets = {
        name: LegacyTextDataset(
            frame["text"].to_list(),
            legacy_tabular(frame, columns),
            frame["label"].to_numpy(),
            tokenizer,
        )
        for name, frame in splits.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = legacy_model(bundle.model.config, tokenizer.vocab_size, len(columns))
    n_train = len(datasets["train"])
    history = train_legacy(
        model,
        datasets["train"],
        datasets["test"],
        epochs=config.epochs,
        batch_size=workable_batch_size(n_train, config.batch_size, config.epochs),
        lr=config.lr,
        seed=config.seed,
        progress=progress,
    )
    known = [bundle.column_map.id, "segment", "time", "label", "oracle_p"]
    predictions = {
        name: splits[name]
        .select(column for column in known if column in splits[name].columns)
        .with_columns(score=pl.Series(predict_legacy(model, datasets[name])))
        for name in splits
        if name != "train" and len(splits[name])
    }
    seconds = sum(epoch["seconds"] for epoch in history)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return LegacyRun(model, history, n_parameters, n_train * len(history) / seconds, predictions)


def legacy_model(config: ModelConfig, vocab_size: int, n_features: int) -> torch.nn.Module:
    """A new legacy model of the same class and dimensions."""
    shared = {
        "embedding_size": config.embedding_size,
        "dropout_rate": config.dropout_rate,
        "hidden_size": config.hidden_size,
        "n_tab_features": n_features,
        "n_embed": vocab_size,
    }
    if config.model_class == "lstm2risk":
        return LegacyLSTM2Risk(LegacyLSTMConfig(**shared, n_lstm_layers=config.n_lstm_layers))
    if config.model_class == "transformer2risk":
        own = {"n_blocks": config.n_blocks, "n_heads": config.n_heads, "block_size": config.block_size}
        return LegacyTransformer2Risk(LegacyTransformerConfig(**shared, **own))
    raise ValueError(f"the legacy has no {config.model_class}; it has lstm2risk and transformer2risk")


def workable_batch_size(n_rows: int, batch_size: int, epochs: int) -> int:
    """The largest batch size up to `batch_size` that the legacy can train with.

    It fails on a last batch of one row and on ten steps in all (defect 23).
    """
    for size in range(batch_size, 1, -1):
        if n_rows % size != 1 and epochs * -(-n_rows // size) != 10:
            return size
    raise ValueError(f"the legacy cannot train {epochs} epochs on {n_rows} rows")


def save_legacy(run: LegacyRun, folder: Path) -> None:
    """Keep the legacy's weights (safetensors) and history (JSON) in a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: t.contiguous() for name, t in run.model.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "history.json").write_text(json.dumps(run.history, indent=1) + "\n")


def compare(ours: pl.DataFrame, legacy: pl.DataFrame, margin: float = 0.01) -> dict[str, Any]:
    """Difference of two models' AUC on the same test rows, overall and by segment, with a verdict.

    `auc_a`, `difference` > 0 and "n3r better" speak for `ours`; `low` and `high` bound the difference at
    95 %. Raises ValueError when the two tables do not hold the same rows in the same order.
    """
    if not ours[:, 0].equals(legacy[:, 0]):
        raise ValueError("the two prediction tables hold other rows or another order: score the same split")
    y, a, b = ours["label"].to_numpy(), ours["score"].to_numpy(), legacy["score"].to_numpy()
    paired = paired_auc(y, a, b)
    verdict = equivalence(paired, margin, NAMES)
    segments: list[dict] = []
    if ours["segment"].n_unique() > 1:
        segment = ours["segment"].fill_null("(none)").to_numpy()
        segments = paired_by_segment(segment, y, a, b, margin, names=NAMES).to_dicts()
    return {
        **asdict(paired),
        "margin": margin,
        "verdict": verdict.kind,
        "sentence": verdict.sentence,
        "segments": segments,
    }


def departures(package: Path = Path(__file__).parent) -> list[dict[str, str]]:
    """Every departure tag in the package's comments and docstrings: `where` it stands, `what` it says."""
    found = []
    for path in sorted(Path(package).glob("*.py")):
        for paragraph in _paragraphs(path.read_text()):
            tag, _, note = paragraph.partition(TAG)
            if tag != paragraph:
                found.append({"where": path.name, "what": note.strip()})
    return found


def _paragraphs(source: str) -> list[str]:
    """Docstrings' paragraphs and runs of comment lines, each as one line of text."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, nodes)]
    comments = re.findall(r"(?:^[ \t]*#.*\n)+", source, re.MULTILINE)
    blocks = "\n\n".join([*docs, *(re.sub(r"^[ \t]*# ?", "", c, flags=re.MULTILINE) for c in comments)])
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", blocks)]
