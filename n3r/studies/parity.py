"""The legacy trained beside a bundle, on the same rows at the same dimensions, and the two compared.

Decisions:
- The legacy gets what it had as published: its own tokenizer, its -1 fill, its optimiser and schedule. It
  shares with the bundle the rows, the dimensions, the epochs, the batch size, the rate and the seed.
- Another seed gives other weights, order and dropout; the tokenizers stay, on both sides.
- Where the weights are the same, so are the probabilities, but for the departures (`function_parity`).
"""

import ast
import copy
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from torch import Tensor

from n3r.bundle import Bundle, train_bundle
from n3r.data import OrderDataset
from n3r.files.atomic import atomic_folder
from n3r.files.json_io import read_json
from n3r.legacy.trainer import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTextDataset,
    LegacyTokenizer,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
    legacy_lstm_collate,
    legacy_tabular,
    legacy_transformer_collate,
    predict_legacy,
    to_n3r,
    train_legacy,
)
from n3r.model import ModelConfig, RiskModel
from n3r.schema import LABEL, SEPARATOR, TEXT
from n3r.studies import ablation
from n3r.tokenizer import NameTokenizer
from n3r.train import Fitted, collate_for
from n3r.vocabulary import truncate

LEGACY = {
    "lstm2risk": (LegacyLSTM2Risk, LegacyLSTMConfig),
    "transformer2risk": (LegacyTransformer2Risk, LegacyTransformerConfig),
}
FILES = ("model.safetensors", "tokenizer.json", "config.json", "history.json")  # of a legacy kept
MOVED = 1e-6  # float32 rounds two ways to the same probability by less
NAMES = ("n3r", "legacy")
GIVEN_WEIGHTS = {  # what a set of departures is to the legacy's weights
    ablation.NONE: "n3r's model with the legacy's weights, token ids and numbers",
    ablation.ALL: "what n3r makes of a legacy model that is handed to it",
    "tokenizer": "the legacy's vocabulary, but fields one by one: typed bars and special tokens are text",
    "max_tokens": "longer texts are cut",
    "imputation": "the training rows' median instead of -1; the weights have no input for an indicator",
    "pool": "padding weighs nothing",
}
TAG = "NOTE" + "[DIFF]"  # in two parts, so that this line is no departure


class LegacyRun(NamedTuple):
    """The legacy trained on a bundle's rows, and what it needs to score others."""

    model: torch.nn.Module
    history: list[dict[str, float]]
    n_parameters: int
    orders_per_second: float  # in training, its evaluation of the test rows after each epoch left out
    predictions: dict[str, pl.DataFrame]  # of each split but train; none of a legacy that was loaded
    tokenizer: LegacyTokenizer
    columns: list[str]  # its features, in order

    @property
    def model_class(self) -> str:
        """n3r's name of its class."""
        (name,) = (name for name, (kind, _) in LEGACY.items() if isinstance(self.model, kind))
        return name

    def dataset(self, frame: pl.DataFrame) -> LegacyTextDataset:
        """Prepared rows as the legacy reads them: their `text`, raw numbers, -1 where missing."""
        return _legacy_rows(frame, self.columns, self.tokenizer)

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Probabilities (N,) float32 of prepared rows, in their order."""
        return predict_legacy(self.model, self.dataset(frame))


def train_beside(
    bundle: Bundle, splits: dict[str, pl.DataFrame], progress: bool = True, seed: int | None = None
) -> LegacyRun:
    """Train the legacy of the bundle's model class on `splits["train"]`; score the other splits.

    Prepared frames come in, as the bundle was trained on them. `seed` is by default the bundle's.
    """
    config = bundle.train_config
    seed = config.seed if seed is None else seed
    columns = bundle.column_map.numeric
    tokenizer = ablation.legacy_tokenizer(splits["train"], config.seed)
    datasets = {name: _legacy_rows(frame, columns, tokenizer) for name, frame in splits.items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = legacy_model(bundle.model.config, tokenizer.vocab_size, len(columns))
    n_train = len(datasets["train"])
    history = train_legacy(
        model,
        datasets["train"],
        datasets["test"],
        epochs=config.epochs,
        batch_size=workable_batch_size(n_train, config.batch_size, config.epochs),
        lr=config.lr,
        seed=seed,
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
    speed = n_train * len(history) / sum(epoch["seconds"] for epoch in history)
    return LegacyRun(model, history, _n_parameters(model), speed, predictions, tokenizer, list(columns))


def train_again(
    bundle: Bundle, splits: dict[str, pl.DataFrame], seed: int, folder: Path
) -> tuple[Bundle, Fitted]:
    """Train the bundle's model anew from another seed, with the same tokenizer, features and configs.

    `folder` keeps the training's checkpoints. Raises ValueError as `train_bundle`.
    """
    config = bundle.train_config.model_copy(update={"seed": seed})
    parts = bundle._replace(model=None, train_config=config, metrics={}, calibration=None)
    empty = splits["train"].clear()
    return train_bundle(bundle.model.config, {"val": empty, **splits}, parts, folder)


def legacy_model(config: ModelConfig, vocab_size: int, n_features: int) -> torch.nn.Module:
    """A new legacy model of the same class and dimensions."""
    if config.model_class not in LEGACY:
        raise ValueError(f"the legacy has no {config.model_class}; it has {' and '.join(LEGACY)}")
    kind, dimensions = LEGACY[config.model_class]
    own = {"n_tab_features": n_features, "n_embed": vocab_size}
    shared = [name for name in dimensions.__dataclass_fields__ if name not in own]
    return kind(dimensions(**own, **{name: getattr(config, name) for name in shared}))


def _legacy_rows(
    frame: pl.DataFrame, columns: Sequence[str], tokenizer: LegacyTokenizer
) -> LegacyTextDataset:
    label = frame[LABEL].to_numpy() if LABEL in frame.columns else np.zeros(len(frame))
    return LegacyTextDataset(frame[TEXT].to_list(), legacy_tabular(frame, columns), label, tokenizer)


def _n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def workable_batch_size(n_rows: int, batch_size: int, epochs: int) -> int:
    """The largest batch size up to `batch_size` that the legacy can train with.

    It fails on a last batch of one row and on ten steps in all (defect 23).
    """
    for size in range(batch_size, 1, -1):
        if n_rows % size != 1 and epochs * -(-n_rows // size) != 10:
            return size
    raise ValueError(f"the legacy cannot train {epochs} epochs on {n_rows} rows")


def save_legacy(run: LegacyRun, folder: Path) -> None:
    """Keep the legacy in a folder, with what it takes to score later; `load_legacy` reads it."""
    config = {
        "model_class": run.model_class,
        "dimensions": asdict(run.model.config),
        "columns": run.columns,
        "orders_per_second": run.orders_per_second,
    }
    weights = {name: t.contiguous() for name, t in run.model.state_dict().items()}
    with atomic_folder(folder, "the legacy", FILES[0], SafetensorError) as aside:
        save_file(weights, aside / "model.safetensors")
        (aside / "tokenizer.json").write_text(run.tokenizer.tokenizer.to_str(), encoding="utf-8")
        for name, content in (("config", config), ("history", run.history)):
            (aside / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def load_legacy(folder: Path) -> LegacyRun:
    """Read what `save_legacy` wrote, its model on the CPU; it has no predictions.

    Raises FileNotFoundError naming the files that are not there.
    """
    folder = Path(folder)
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(absent)} of a legacy: train it again")
    config = read_json(folder / "config.json")
    kind, dimensions = LEGACY[config["model_class"]]
    with torch.random.fork_rng():
        model = kind(dimensions(**config["dimensions"]))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    tokenizer = LegacyTokenizer()
    tokenizer.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.vocab_size = tokenizer.tokenizer.get_vocab_size()
    (tokenizer.pad_token,), (tokenizer.cls_token,) = tokenizer.encode("[PAD]"), tokenizer.encode("[CLS]")
    history, speed = read_json(folder / "history.json"), config["orders_per_second"]
    return LegacyRun(model.eval(), history, _n_parameters(model), speed, {}, tokenizer, config["columns"])


def function_parity(
    run: LegacyRun,
    bundle: Bundle,
    frame: pl.DataFrame,
    n_batches: int = 20,
    batch_size: int = 64,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """How far n3r's model with the legacy's weights is from the legacy's probabilities.

    Random batches of `frame`, prepared rows, are scored by both. A row of the result is a set of departures
    that are on: none, each that can be switched for given weights, all of those. `largest` and `mean` are of
    the absolute differences, `n_rows` is how many there are, `n_moved` how many exceed 1e-6, `note` says what
    the set is here. Other departures follow with null figures and, as `note`, why they cannot be switched.
    Raises ValueError where the two do not read the same columns and where there are no rows.
    """
    if run.columns != list(bundle.features.imputation_) or run.model_class != bundle.model.config.model_class:
        raise ValueError("the legacy was trained beside another bundle: class or feature columns differ")
    if not len(frame):
        raise ValueError("no rows to compare the two on")
    rng = np.random.default_rng(seed)
    size = min(batch_size, len(frame))
    batches = [rng.choice(len(frame), size, replace=False).tolist() for _ in range(n_batches)]
    expected = _legacy_probabilities(run, frame, batches)
    made = ablation.made_by(bundle)
    free = tuple(name for name in made if not ablation.DEPARTURES[name].given_weights)
    rows = []
    for on in dict.fromkeys([(), *((name,) for name in free), free]):
        apart = np.abs(_our_probabilities(on, run, bundle, frame, batches) - expected)
        figures = {"largest": float(apart.max()), "mean": float(apart.mean()), "n_rows": apart.size}
        figures["n_moved"] = int((apart > MOVED).sum())
        name = ablation.label(on, free)
        rows.append({"departure": name, **figures, "note": GIVEN_WEIGHTS.get(name, "")})
    unknown = dict.fromkeys(("largest", "mean", "n_rows", "n_moved"))
    fixed = {n: ablation.DEPARTURES[n].given_weights for n in made if n not in free}
    return rows + [
        {"departure": n, **unknown, "note": why} for n, why in {**fixed, **ablation.ALWAYS_ON}.items()
    ]


def _our_probabilities(
    on: tuple[str, ...], run: LegacyRun, bundle: Bundle, frame: pl.DataFrame, batches: list[list[int]]
) -> np.ndarray:
    """(n_batches * batch_size,) of n3r's model with the legacy's weights and the departures `on`."""
    own = bundle._replace(
        tokenizer=_unspellable(run.tokenizer), texts=bundle.texts.model_copy(update={"steps": []})
    )
    features = ablation.features_with(on, bundle.features)
    text = ablation.texts(on, own, frame, run.tokenizer)
    config = bundle.model.config.model_copy(
        update={"vocab_size": run.tokenizer.vocab_size, "n_tab_features": len(run.columns), "n_tab_bins": 0}
    )
    off = () if "pool" in on or run.model_class == "lstm2risk" else ("pool",)
    with torch.random.fork_rng():
        model = RiskModel(config, ablation.parts_without(off)).eval()
    weights = {name: value.cpu() for name, value in run.model.state_dict().items()}
    model.load_state_dict(to_n3r(weights, run.model_class))
    pad_token = run.tokenizer.pad_token
    collate = collate_for(config, pad_token)
    dataset = OrderDataset(text, features.transform(frame))

    def score(batch: dict[str, Tensor]) -> Tensor:
        if "tokenizer" not in on and run.model_class == "transformer2risk":
            batch["attn_mask"] &= batch["text"] != pad_token  # the legacy takes a typed [PAD] for padding
        return model(batch).softmax(dim=1)[:, 1]

    return _in_batches(score, (collate(dataset[rows]) for rows in batches))


def _legacy_probabilities(run: LegacyRun, frame: pl.DataFrame, batches: list[list[int]]) -> np.ndarray:
    model = copy.deepcopy(run.model).cpu().eval()
    collate = legacy_lstm_collate(run.tokenizer.pad_token)
    if run.model_class == "transformer2risk":
        collate = legacy_transformer_collate(run.tokenizer.pad_token, model.config.block_size)
    dataset = run.dataset(frame)
    read = (collate([dataset[i] for i in rows]) for rows in batches)
    return _in_batches(lambda batch: model(batch).squeeze(1), read)


@torch.inference_mode()
def _in_batches(
    score: Callable[[dict[str, Tensor]], Tensor],
    batches: Iterable[dict[str, Tensor]],
) -> np.ndarray:
    """Probabilities of the rows of each batch, in the order of their numbers whatever the collate's."""
    found = []
    for batch in batches:
        found.append(score(batch)[batch["row_id"].argsort()].numpy())
    return np.concatenate(found)


def _unspellable(tokenizer: LegacyTokenizer) -> NameTokenizer:
    """The legacy's vocabulary in n3r's tokenizer: NFKC is inside, and no text spells a special token."""
    own = truncate(tokenizer.tokenizer, tokenizer.vocab_size)
    own.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(SEPARATOR, "¦")])
    return NameTokenizer(own)


def departures(package: Path = Path(__file__).parents[1]) -> list[dict[str, str]]:
    """Every departure tag in the package's comments and docstrings: `where` it stands, `what` it says."""
    found = []
    for path in sorted(Path(package).rglob("*.py")):
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
