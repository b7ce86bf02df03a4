"""What the notebooks that train share: configs from parameters, the record of a model, one order followed.

Decisions:
- Parameters are fields of the configs by name: a config takes those that it has from `vars()`.
- What a notebook shows of one order is masked: shapes of letters and digits, of the row and of its tokens.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from pydantic import BaseModel, ValidationError

from n3r import metrics
from n3r.blend.config import BlendConfig
from n3r.blend.members import NETWORKS
from n3r.blend.recipe import Alone, Blend
from n3r.blend.weights import blended
from n3r.branches import BERT_DIMENSIONS, TEXTS
from n3r.bundle import Bundle, Recipe, train_bundle
from n3r.checkpoints import started_by
from n3r.data import make_loader
from n3r.engine import starter
from n3r.estimate import Estimate
from n3r.features import FeatureConfig, TabularFeatures
from n3r.files.json_io import explain
from n3r.fusion import HIDDEN
from n3r.identity import selection
from n3r.multiclass import measure
from n3r.precomputed import read_precomputed
from n3r.predictions import write_predictions
from n3r.presets import check_tokenizer
from n3r.registry import MODEL_CLASSES, configure, registered
from n3r.rows.parts import Rows, whole
from n3r.schema import LABEL, ColumnMap, mask, probabilities
from n3r.score import Scorer
from n3r.tokenizer import BertTokenizer, NameTokenizer, Reader, TextConfig
from n3r.train import Fitted, TrainConfig, collate_for
from n3r.vocabulary import TokenizerConfig, train_tokenizer, train_wordpiece

Splits = Mapping[str, pl.DataFrame]


def fields(config: type[BaseModel], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a config class has as fields."""
    return {name: parameters[name] for name in config.model_fields if name in parameters}


def check_training(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError naming the step and the key where a step that trains one model would refuse a parameter."""
    for step, values in parameters.items():
        if "optimizer" not in values:  # other notebooks keep a training's settings in parts
            continue
        for config in (TrainConfig, FeatureConfig, TextConfig):
            try:
                config(**fields(config, values))
            except ValidationError as error:
                raise ValueError(f"{step}: {explain(error, config.model_fields)}") from None


def read_tokenizer(run: Path, preset: str) -> NameTokenizer:
    """The tokenizer of step 02; ValueError where the preset has another one."""
    tokenizer = NameTokenizer.load(run / "tokenizer")
    check_tokenizer(preset, tokenizer.metadata, str(run / "tokenizer"))
    return tokenizer


def fit_features(train: Rows, columns: ColumnMap, parameters: Mapping[str, Any]) -> TabularFeatures:
    """Features fitted on training rows; what `use_precomputed_..` names is read from its file instead.

    `identity` says whether the identity features are among them: "on", "off", or "auto", unless they hurt.
    """
    given = {
        name: read_precomputed(path)
        for name in ("imputation", "risk_tables")
        if (path := parameters[f"use_precomputed_{name}"])
    }
    config = FeatureConfig(**fields(FeatureConfig, parameters))
    identity = selection.reads_identity(parameters["identity"], train, columns, config)
    return selection.fit_features(train, columns, config, identity, **given)


def processes_on(engine: str, address: str, run: Path) -> AbstractContextManager[None]:
    """Within it the processes of a training run on an engine; raises as `starter`."""
    return started_by(starter(engine, run / ".training", address))


def blend_configs(parameters: Mapping[str, Any]) -> tuple[BlendConfig, FeatureConfig]:
    """How a blend is made and its features are fitted; `n_folds` is of the members, not of risk tables."""
    networks = {name: parameters[name] for name in NETWORKS if name in parameters}
    config = BlendConfig(**fields(BlendConfig, {**parameters, "networks": networks}))
    of_features = fields(FeatureConfig, parameters)
    of_features.pop("n_folds", None)
    return config, FeatureConfig(**of_features)


def follow(bundle: Bundle, row: pl.DataFrame) -> pl.DataFrame:
    """One prepared row on its way to a score: columns `step`, `shape`, `content`; text is masked."""
    (batch,) = make_loader(bundle.dataset(row), collate_for(bundle.model.config, bundle.pad_tokens), 1)
    with torch.no_grad():
        logits = bundle.model.eval()(batch)
    texts = [mask(cell or "") for cell in row.select(bundle.column_map.all_text).row(0)]
    spelled = bundle.tokenizer.tokenizer.id_to_token
    tokens = [mask(spelled(int(i))) for i in batch["text"][0].flatten()]
    steps = [("row", f"{len(texts)} text fields", " | ".join(texts))]
    steps += [("tokens", f"{len(tokens)} ids", " ".join(tokens))]
    steps += [(f"batch[{key!r}]", str(tuple(value.shape)), str(value.dtype)) for key, value in batch.items()]
    steps += [("logits", str(tuple(logits.shape)), ", ".join(f"{value:.4f}" for value in logits[0]))]
    p = [f"{value:.6f}" for value in logits.softmax(dim=1)[0]]
    steps += [("score", "a number", p[1]) if len(p) == 2 else ("scores", f"{len(p)} numbers", ", ".join(p))]
    return pl.DataFrame(steps, ["step", "shape", "content"], orient="row")


def calibration_losses(scorer: Scorer, label: pl.Series, served: pl.DataFrame) -> pl.DataFrame:
    """Log loss of each calibration out of fold on validation rows, and of what is served on test rows."""
    losses = {f"{way}, out of fold": loss for way, loss in (scorer.calibration.log_loss or {}).items()}
    for kind in ("score", "p_calibrated"):
        if {kind, f"{kind}_0"} & set(served.columns):
            losses[f"{kind}, test rows"] = measure(label, probabilities(served, kind))["log_loss"]
    return pl.DataFrame({"log loss of": losses.keys(), "nats": losses.values()})


def record(name: str, bundle: Bundle, fitted: Fitted, segments: pl.DataFrame, preset: str) -> dict[str, Any]:
    """What a training step records of its model: size, figures of each split, epochs, and its speed apart."""
    model = {
        "name": name,
        "system": "n3r",
        "preset": preset,
        "n_parameters": n_parameters(bundle),
        "dimensions": bundle.model.config.model_dump(exclude_none=True),
        "epochs": len(fitted.history),
        "precision": fitted.precision,
        **bundle.metrics,
        "segments": segments.to_dicts(),
        "history": fitted.history,
    }
    return {"model": model, "timing": {"orders_per_second": fitted.orders_per_second}}


def metric_table(measured: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """What `measure` gives of each split as text, a metric a row; fractions have three digits."""
    (first, *_) = measured.values()
    rows = [
        {"metric": key.replace("_", " "), **{split: _text(of[key]) for split, of in measured.items()}}
        for key in first
    ]
    return pl.DataFrame(rows)


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _auroc(measured: Mapping[str, Any]) -> Estimate:
    return Estimate(measured["auroc"], measured["auroc_low"], measured["auroc_high"], measured["n"])


def answer(name: str, measured: Mapping[str, Any]) -> str:
    """The answer of a training step in two sentences; `measured` is `measure` of the test rows."""
    auroc = _auroc(measured)
    orders, n_positive = f"{measured['n']:,} test orders", f"{measured['n_positive']:,}"
    if "n_classes" in measured:
        return (
            f"On {orders}, {n_positive} of the rarest class, {name} reaches an AUROC of {auroc} "
            "(95 % interval). It is the mean of each class against the rest."
        )
    return (
        f"On {orders} with {n_positive} frauds {name} reaches an AUROC of "
        f"{auroc} (95 % interval). At 1 % of legitimate orders flagged it catches "
        f"{100 * measured['recall_at_fpr_1']:.1f} % of the frauds."
    )


def member_records(blend: Blend, test: Rows, alone: Mapping[str, Alone]) -> list[dict[str, Any]]:
    """A row for each member tried: held out, in the blend, on test rows (`alone`), and what it costs."""
    label = whole(test, [LABEL])[LABEL].to_numpy()
    p = blended({name: found.p for name, found in alone.items()}, blend.weights) if alone else None
    rows = []
    for member in blend.tried:
        row = {
            "member": member.name,
            "weight": member.weight,
            "held_out": str(member.auroc),
            "adds": member.gain,
        }
        if found := alone.get(member.name):
            row["test"] = str(metrics.class_auc(label, found.p))
            if p.shape[1] == 2:
                paired = metrics.paired_auc(label, p[:, 1], found.p[:, 1]).difference
                row["blend_ahead"] = f"{paired.value:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"
            row |= {"ms_a_row": found.ms_a_row, "megabytes": found.megabytes}
        rows.append(row | {"seconds": member.seconds, "left_out": member.left_out})
    return rows


def blend_answer(blend: Blend, measured: Mapping[str, Any]) -> str:
    """The answer of the step of the best recipe in three sentences, or four: whether a sample was fitted."""
    weights = sorted(blend.weights.items(), key=lambda item: -item[1])
    made_of = ", ".join(f"{name} {weight:.0%}" for name, weight in weights)
    sampled = blend.recipe.data.get("n_fitted")
    told = f" It is fitted on a sample of {sampled:,} training and validation rows." if sampled else ""
    return f"{answer('the blend', measured)} It is made of {made_of}.{told}"


def n_parameters(bundle: Bundle) -> int:
    """How many numbers a model learns."""
    return sum(parameter.numel() for parameter in bundle.model.parameters())


def read_texts(train: pl.DataFrame, parameters: Mapping[str, Any]) -> dict[str, Reader]:
    """What reads the texts of each encoder, by kind of tokenizer ("bpe", "bert") or pretrained model.

    `train`: text columns of the training rows, which tokenizers learn from that are not pretrained.
    """
    chunks, cleaning = parameters["chunks"], parameters["steps"]
    given = [parameters["secondary"], parameters]
    models = [one[key] for one in given for key in ("pretrained", "embeddings") if one.get(key)]
    config = TokenizerConfig(min_frequency=parameters["min_frequency"], seed=parameters["seed"])
    tokenizers = {"bpe": train_tokenizer(train, config)[0], "bert": train_wordpiece(train)}
    tokenizers |= {name: BertTokenizer.from_pretrained(name) for name in models}
    bpe_steps = [*cleaning, "custom_bpe_tokenizer"]
    bert_steps = [*cleaning, *(["dialogue_chunker"] if chunks else []), "tokenizer"]
    longest, most = parameters["max_tokens"], parameters["max_chunks"]
    texts = {
        "bpe": TextConfig(steps=bpe_steps, max_tokens=longest * (most if chunks else 1)),
        "bert": TextConfig(steps=bert_steps, max_tokens=longest, max_chunks=most),
    }
    return {name: Reader(one, texts[one.kind]) for name, one in tokenizers.items()}


def _text_settings(
    given: Mapping[str, Any], readers: Mapping[str, Reader], parameters: Mapping[str, Any]
) -> tuple[dict[str, Any], Reader]:
    """The settings of a text's branch, `given` ones over the parameters, and what reads the text."""
    encoder = given["encoder"]
    if encoder not in TEXTS:
        raise ValueError(f"secondary: there is no encoder {encoder!r}, only {', '.join(TEXTS)}")
    source, sizes = "embeddings", ("embedding_size",)
    if encoder == "bert":
        source, sizes = "pretrained", tuple(BERT_DIMENSIONS)
    first = {source: parameters[source]} if source in TEXTS[encoder].optional else {}
    settings = {**first, **parameters[encoder.removesuffix("_ends")], **given}
    reader = readers[settings.get(source) or TEXTS[encoder].tokenizer]
    if settings.get(source):  # the sizes among the parameters are of what is new
        settings = {name: settings[name] for name in settings if name not in sizes or name in given}
        flat = reader.texts.model_copy(update={"flat": source == "embeddings"})
        reader = Reader(reader.tokenizer, flat)
    return {"vocab_size": reader.tokenizer.vocab_size, **settings}, reader


def train_class(
    model_class: str,
    readers: Mapping[str, Reader],
    features: TabularFeatures,
    columns: ColumnMap,
    splits: Splits,
    folder: Path,
    parameters: Mapping[str, Any],
) -> tuple[Bundle, Fitted]:
    """Train one class of the registry; `parameters` holds sizes by encoder, `readers` are of `read_texts`.

    What `secondary` says is of the second text alone, where the class reads one. With a pretrained model
    `pretrained_epochs` and `pretrained_lr` stand for `epochs` and `lr`.
    """
    row = registered(model_class)
    settings, reader = _text_settings({"encoder": row.encoder}, readers, parameters)
    texts, others = reader.texts, {}
    if row.n_texts == 2 and parameters["secondary"]:
        given = {"encoder": row.encoder, **parameters["secondary"]}
        settings["secondary"], own = _text_settings(given, readers, parameters)
        others = {} if own == reader else {"secondary": own}
    if row.n_texts == 2 and not others:
        texts = texts.model_copy(update={"secondary_steps": texts.steps})
    config = configure(
        model_class,
        n_tab_features=len(features) if row.tabular else 0,
        n_classes=columns.n_classes,
        **({"fusion_hidden_dim": parameters["fusion_hidden_dim"]} if _has_width(model_class) else {}),
        **settings,
    )
    training = fields(TrainConfig, parameters)
    if any(branch.pretrained for branch in config.of_texts.values()):
        training |= {"epochs": parameters["pretrained_epochs"], "lr": parameters["pretrained_lr"]}
    train_config = TrainConfig.for_model(config, **training)
    recipe = Recipe(reader.tokenizer, features, columns, train_config, texts, others=others)
    return train_bundle(config, splits, recipe, folder)


def train_all(
    readers: Mapping[str, Reader],
    features: TabularFeatures,
    columns: ColumnMap,
    splits: Splits,
    folder: Path,
    parameters: Mapping[str, Any],
) -> dict[str, tuple[Bundle, Fitted]]:
    """Train the `model_classes` of the parameters, or all, as `train_class` each; `folder` keeps checkpoints.

    Raises ValueError where a width of heads is given and none of the classes has such a head.
    """
    named = parameters["model_classes"]
    classes = list(MODEL_CLASSES) if named == ["all"] else named
    if parameters["fusion_hidden_dim"] is not None and not any(map(_has_width, classes)):
        having = ", ".join(filter(_has_width, MODEL_CLASSES))
        raise ValueError(f"fusion_hidden_dim is read by {having} alone, none of which is in model_classes")
    given = (readers, features, columns, splits)
    return {name: train_class(name, *given, folder / name, parameters) for name in classes}


def _has_width(model_class: str) -> bool:
    """Whether a class has a head of two layers."""
    return HIDDEN.get(registered(model_class).head) == "fusion_hidden_dim"


class Served(NamedTuple):
    """A saved model on test rows."""

    auroc: Estimate
    n_positive: int  # of the rarest class where there are more than two
    seconds: float  # of scoring the rows
    difference: float  # the largest, between the model and the scorer that reads its bundle


def save_and_serve(bundle: Bundle, test: pl.DataFrame, run: Path, test_result: bool = False) -> Served:
    """Save a trained class under the run with its test metrics and predictions; score from what was saved.

    `test_result`: `predictions.write_test_result` too.
    """
    model_class = bundle.model.config.model_class
    table = bundle.predictions(test)
    write_predictions({"test": table}, model_class, run, test_result)
    measured = measure(test[LABEL], probabilities(table))
    replace(bundle, metrics={"test": measured}).save(run / model_class)
    scorer = Scorer(run / model_class)
    started = time.perf_counter()
    served = scorer.score(test)[scorer.outputs[0]]
    seconds = time.perf_counter() - started
    return Served(
        _auroc(measured),
        measured["n_positive"],
        seconds,
        float((served - table[scorer.outputs[0]]).abs().max()),
    )


def class_records(
    trained: Mapping[str, tuple[Bundle, Fitted]], served: Mapping[str, Served], splits: Splits
) -> list[dict[str, Any]]:
    """A row a class: quality, size and speed."""
    return [
        {
            "model_class": name,
            "auroc_text": str(served[name].auroc),
            **served[name].auroc.columns("auroc"),
            "parameters": n_parameters(bundle),
            "epochs": len(fitted.history),
            "seconds_an_epoch": len(splits["train"]) / fitted.orders_per_second,
            "ms_a_row": 1000 * served[name].seconds / len(splits["test"]),
        }
        for name, (bundle, fitted) in trained.items()
    ]


def best_class(rows: Sequence[Mapping[str, Any]]) -> str:
    """The answer of the step that trains classes side by side."""
    best = max(rows, key=lambda row: row["auroc"])
    ranks = f"ranks best: test AUROC {best['auroc_text']} (95 % interval)"
    return f"Of {len(rows)} classes {best['model_class']} {ranks}."
