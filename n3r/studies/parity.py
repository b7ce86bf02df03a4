"""n3r compared with the legacy: the same function from given weights, and what the report says of both.

Decisions:
- The same weights give the same probabilities, apart from the deviations (`function_parity`).
- A deviation is described by a tag in the code where it is made; `deviations` collects them.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from n3r import metrics, notebook, tables
from n3r.bundle import Bundle
from n3r.data import OrderDataset
from n3r.legacy.trainer import LegacyTokenizer, legacy_lstm_collate, legacy_transformer_collate
from n3r.legacy.weights import to_n3r
from n3r.model import RiskModel
from n3r.multiclass import against_rest, measure
from n3r.predictions import prediction_table
from n3r.rows.parts import Rows, rows_at, whole
from n3r.schema import LABEL, ORACLE, probabilities
from n3r.spelling import Spelling
from n3r.studies import ablation
from n3r.studies.beside import LegacyRun, Splits
from n3r.studies.parts import parts_without
from n3r.tokenizer import NameTokenizer
from n3r.train import collate_for
from n3r.vocabulary import truncate

MOVED = 1e-6  # float32 rounds two ways to the same probability by less
NAMES = ("n3r", "legacy")
GIVEN_WEIGHTS = {  # what a set of deviations is to the legacy's weights
    ablation.NONE: "n3r's model with the legacy's weights, token ids and numbers",
    ablation.ALL: "what n3r makes of a legacy model that is handed to it",
    "tokenizer": "the legacy's vocabulary, but fields one by one: typed bars and special tokens are text",
    "max_tokens": "longer texts are cut",
    "imputation": "the training rows' median instead of -1; the weights have no input for an indicator",
    "pool": "padding weighs nothing",
}
Predictions = dict[tuple[str, str], pl.DataFrame]  # by model and split
TAG = "NOTE" + "[DIFF]"  # in two parts, so that this line is no deviation


def function_parity(
    run: LegacyRun,
    bundle: Bundle,
    rows: Rows,
    n_batches: int = 20,
    batch_size: int = 64,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """How far n3r's model with the legacy's weights is from the legacy's probabilities.

    Random batches of prepared rows are scored by both. A row of the result is a set of deviations
    that are on: none, each that can be switched for given weights, all of those. `largest` and `mean` are of
    the absolute differences, `n_rows` is how many there are, `n_moved` how many exceed 1e-6, `note` says what
    the set is here. Other deviations follow with null figures and, as `note`, why they cannot be switched.
    Raises ValueError where the two do not read the same columns and where there are no rows.
    """
    if run.columns != bundle.features.numeric or run.model_class != bundle.model.config.model_class:
        raise ValueError("the legacy was trained beside another bundle: class or feature columns differ")
    if not len(rows):
        raise ValueError("no rows to compare the two on")
    rng = np.random.default_rng(seed)
    size = min(batch_size, len(rows))
    drawn = np.stack([rng.choice(len(rows), size, replace=False) for _ in range(n_batches)])
    places, batches = np.unique(drawn, return_inverse=True)
    frame, batches = rows_at(rows, places), batches.reshape(drawn.shape).tolist()
    expected = _legacy_probabilities(run, frame, batches)
    made = ablation.made_by(bundle)
    free = tuple(name for name in made if not ablation.DEVIATIONS[name].given_weights)
    found = []
    for on in dict.fromkeys([(), *((name,) for name in free), free]):
        apart = np.abs(_our_probabilities(on, run, bundle, frame, batches) - expected)
        figures = {"largest": float(apart.max()), "mean": float(apart.mean()), "n_rows": apart.size}
        figures["n_moved"] = int((apart > MOVED).sum())
        name = ablation.label(on, free)
        found.append({"deviation": name, **figures, "note": GIVEN_WEIGHTS.get(name, "")})
    unknown = dict.fromkeys(("largest", "mean", "n_rows", "n_moved"))
    fixed = {n: ablation.DEVIATIONS[n].given_weights for n in made if n not in free}
    return found + [
        {"deviation": n, **unknown, "note": why} for n, why in {**fixed, **ablation.ALWAYS_ON}.items()
    ]


def _our_probabilities(
    on: tuple[str, ...], run: LegacyRun, bundle: Bundle, frame: pl.DataFrame, batches: list[list[int]]
) -> np.ndarray:
    """(n_batches * batch_size,) of n3r's model with the legacy's weights and the deviations `on`."""
    own = replace(
        bundle, tokenizer=_unspellable(run.tokenizer), texts=bundle.texts.model_copy(update={"steps": []})
    )
    features = ablation.features_with(on, bundle.features)
    text = ablation.texts(on, own, frame, run.tokenizer)
    sizes = {"vocab_size": run.tokenizer.vocab_size, "n_tab_features": len(run.columns)}
    config = bundle.model.config.model_copy(update={**sizes, "n_tab_bins": 0, "tab_gain_power": 0})
    off = () if "pool" in on or run.model_class == "lstm2risk" else ("pool",)
    with torch.random.fork_rng():
        model = RiskModel(config, parts_without(off)).eval()
    model.load_state_dict(to_n3r(run.model.state_dict(), run.model_class))
    pad_token = run.tokenizer.pad_token
    collate = collate_for(config, pad_token)
    dataset = OrderDataset(text, features.transform(frame))

    def score(batch: dict[str, Tensor]) -> Tensor:
        if "tokenizer" not in on and run.model_class == "transformer2risk":
            batch["attn_mask"] &= batch["text"] != pad_token  # the legacy takes a typed [PAD] for padding
        return model(batch).softmax(dim=1)[:, 1]

    return _in_batches(score, (collate(dataset[rows]) for rows in batches))


def _legacy_probabilities(run: LegacyRun, frame: pl.DataFrame, batches: list[list[int]]) -> np.ndarray:
    collate = legacy_lstm_collate(run.tokenizer.pad_token)
    if run.model_class == "transformer2risk":
        collate = legacy_transformer_collate(run.tokenizer.pad_token, run.model.config.block_size)
    dataset = run.dataset(frame)
    read = (collate([dataset[i] for i in rows]) for rows in batches)
    return _in_batches(lambda batch: run.model(batch).squeeze(1), read)


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
    own.normalizer = Spelling(lower_case=False, fold_confusables=False).normalizer
    return NameTokenizer(own)


def deviations(package: Path = Path(__file__).parents[1]) -> list[dict[str, str]]:
    """Every deviation tag in the package's comments and docstrings: `where` it stands, `what` it says."""
    found = []
    for path in sorted(Path(package).rglob("*.py")):
        for paragraph in _paragraphs(path.read_text(encoding="utf-8")):
            tag, _, note = paragraph.partition(TAG)
            if tag != paragraph:
                found.append({"where": path.relative_to(package).as_posix(), "what": note.strip()})
    return found


def _paragraphs(source: str) -> list[str]:
    """Docstrings' paragraphs and runs of comment lines, each as one line of text."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, nodes)]
    comments = re.findall(r"(?:^[ \t]*#.*\n)+", source, re.MULTILINE)
    blocks = "\n\n".join([*docs, *(re.sub(r"^[ \t]*# ?", "", c, flags=re.MULTILINE) for c in comments)])
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", blocks)]


def predictions(
    bundles: Mapping[str, Bundle], legacy: Mapping[str, LegacyRun], names: Mapping[str, str], splits: Splits
) -> Predictions:
    """Tables of both systems' scores of each split but train; `names` are the models' by key."""
    found = {}
    for key, bundle in bundles.items():
        for split in (split for split in splits if split != "train"):
            found[names[key], split] = bundle.predictions(splits[split])
    for key, run in legacy.items():
        for split in (split for split in splits if split != "train"):
            rows, id = splits[split], bundles[key].column_map.id
            found[f"legacy {names[key]}", split] = prediction_table(rows, id, run.predict(rows))
    return found


def write_predictions(found: Predictions, run: Path) -> None:
    """Write tables of scores into a run's folder, in the format of its data."""
    kind = tables.prepared_format(run / "data")
    for (model, split), table in found.items():
        tables.write(table, run / "predictions" / f"{model.lower().replace(' ', '_')}_{split}.{kind}")


def curves(found: Predictions, splits: Splits) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Labels and scores by split and model, of test rows the oracle's too, where they are synthetic.

    Of more than two classes, class 0 stands against the rest, and there is no oracle.
    """
    by_split: dict[str, dict] = {split: {} for split in splits if split != "train"}
    for (model, split), table in found.items():
        by_split[split][model] = against_rest(table["label"], probabilities(table))
    known = whole(splits["test"], [LABEL, ORACLE])
    if ORACLE in known.columns and known[LABEL].max() < 2:
        by_split["test"]["oracle"] = tuple(known[name].to_numpy() for name in (LABEL, ORACLE))
    return by_split


def model_records(
    recorded: Mapping[str, Mapping[str, Any]],
    legacy: Mapping[str, LegacyRun],
    drawn: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    baselines: Mapping[str, Mapping[str, np.ndarray]],
    splits: Splits,
) -> list[dict[str, Any]]:
    """What the report's tables tell of each model: as steps recorded it, the legacy, baselines, the oracle.

    `drawn` are `curves`, `baselines` probabilities by model and split.
    """
    models = [{**entry["model"], **entry["timing"]} for entry in recorded.values()]
    for key, run in legacy.items():
        name, dimensions = (recorded[key]["model"][what] for what in ("name", "dimensions"))
        measured = {split: metrics.evaluate(*by_model[f"legacy {name}"]) for split, by_model in drawn.items()}
        known = {"n_parameters": run.n_parameters, "dimensions": dimensions, "epochs": len(run.history)}
        known |= {"orders_per_second": run.orders_per_second, "precision": "float32"}
        models.append({"name": f"legacy {name}", "system": "legacy", **known, **measured})
    for name, by_split in baselines.items():
        measured = {split: measure(whole(splits[split], [LABEL])[LABEL], p) for split, p in by_split.items()}
        models.append({"name": name, "system": "baseline", **measured})
    if "oracle" in drawn["test"]:
        measured = metrics.evaluate(*drawn["test"]["oracle"])
        models.append({"name": "oracle", "system": "oracle", "test": measured})
    return models


def report_content(
    run: Path, models: list[dict[str, Any]], found: dict[str, Any], effects: Mapping[str, pl.DataFrame]
) -> dict[str, Any]:
    """The report's JSON: what steps 01, 02 and 09 recorded, models, what parity `found`, deviations."""
    return {
        "name": run.name,
        **notebook.read_metrics(run, "01_preprocess"),
        **notebook.read_metrics(run, "02_tokenizer"),
        "models": models,
        "members": notebook.read_metrics(run, "09_best")["members"],
        "parity": {**found, "ablation": {key: table.to_dicts() for key, table in effects.items()}},
        "deviations": ablation.effects(deviations(), effects),
    }
