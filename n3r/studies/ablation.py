"""Each deviation from the legacy alone: what it does to the AUC and to the speed of training.

Decisions:
- Off is the legacy's way and on is the bundle's. The base has every deviation off, so a row shows what one
  deviation adds to the legacy. Some work only together: bins are made for scaled features.
- Faults and slow parts of the legacy are no options of the product: a model is built of those in parts.py.
- A seed sets weights, order and dropout. Rows, tokenizers and features are the same for all seeds.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from n3r.bundle import Bundle
from n3r.data import OrderDataset
from n3r.estimate import Estimate, bounded
from n3r.features import TabularFeatures
from n3r.files import kept
from n3r.legacy.trainer import LegacyTokenizer
from n3r.metrics import paired_auc
from n3r.model import ModelConfig
from n3r.presets import off
from n3r.rows.parts import portions, sample, whole
from n3r.schema import LABEL, TEXT
from n3r.studies.beside import Splits, check_binary, legacy_tokenizer
from n3r.studies.parts import parts_without
from n3r.token_arrays import TokenizedText
from n3r.train import TrainConfig, fit, predict, resolve_precision

NONE, ALL = "none", "all"
BATCH_SIZE = 512  # that the legacy scores in; where padding is pooled, scores depend on it


class Deviation(NamedTuple):
    """Something n3r does otherwise than the legacy between prepared rows and a score."""

    what: str
    note: str  # words of its note in the code, and of no other note
    made_by: Callable[[Bundle], bool] = lambda bundle: True
    given_weights: str = "changes the training alone"  # why it has no effect on given weights, or ""


def _is_lstm(bundle: Bundle) -> bool:
    return bundle.model.config.encoder == "lstm"


def _has_dropout(bundle: Bundle) -> bool:
    c = bundle.model.config
    return c.dropout_rate > 0 and (c.n_lstm_layers or 2) > 1  # one LSTM layer has none between


def _imputes(bundle: Bundle) -> bool:
    features = bundle.features
    return bool(features.indicators_ or (features.numeric and features.config.imputation != "minus_one"))


_REQUIRES = "weights are learned for it"

DEVIATIONS = {
    "tokenizer": Deviation(
        "spellings made alike, fields one by one, no text spells a special token; its own vocabulary size",
        "a typed bar or special token is one",
        given_weights="",
    ),
    "max_tokens": Deviation(
        "texts are cut to a number of tokens", "reads texts of any length", _is_lstm, given_weights=""
    ),
    "imputation": Deviation(
        "a missing number becomes its column's median, and a column says that it was missing",
        "the legacy fills -1",
        _imputes,
        given_weights="",
    ),
    "scaling": Deviation(
        "numbers become normal scores of their ranks; constant columns are left out",
        "reads numbers as they are",
        lambda bundle: bundle.features.config.scaling == "quantile",
        _REQUIRES,
    ),
    "bins": Deviation(
        "each feature is also seen through bins, and has a weight",
        "pass through bins first",
        lambda bundle: bundle.model.config.n_tab_bins + bundle.model.config.tab_gain_power > 0,
        _REQUIRES,
    ),
    "risk_tables": Deviation(
        "each category is read as its risk",
        "read no categories",
        lambda bundle: bool(bundle.features.risk_tables_),
        _REQUIRES,
    ),
    "identity": Deviation(
        "features of identity strings and of their relations are read",
        "reads identity strings as texts alone",
        lambda bundle: bundle.features.identity is not None,
        _REQUIRES,
    ),
    "pool": Deviation(
        "padding weighs nothing in the pool",
        "pools over padding too",
        lambda bundle: not _is_lstm(bundle),
        given_weights="",
    ),
    "kernels": Deviation(
        "fused kernels on padded rows, all heads at once",
        "the legacy packs rows",
        given_weights="the same numbers",
    ),
    "dropout": Deviation(
        "dropout masks are cut from random bytes", "draws a Bernoulli number an element", _has_dropout
    ),
    "logits": Deviation(
        "a logit of each class instead of one for the sigmoid",
        "a logit a class, for any number of them",
        lambda bundle: bundle.model.config.n_classes == 2,
        given_weights="the same numbers",
    ),
    "batches": Deviation("batches of near-equal length", "batches are random rows"),
    "decay": Deviation(
        "only matrices of linear and recurrent layers decay",
        "decays every parameter",
        lambda bundle: bundle.train_config.decay == "matrices" and bundle.train_config.weight_decay > 0,
    ),
    "clipping": Deviation(
        "gradients are clipped",
        "does not clip",
        lambda bundle: bundle.train_config.gradient_clip is not None,
    ),
    "best_epoch": Deviation(
        "the best epoch on the validation rows is kept, and training stops early", "keeps its last epoch"
    ),
    "precision": Deviation(
        "training in bfloat16",
        "trains in float32",
        lambda bundle: resolve_precision(bundle.train_config) == "bfloat16",
    ),
}
ALWAYS_ON = {  # what cannot be switched off: there would be another loop
    "batch sizes": "batches of near-equal size for a small last one; on in every training",
}


class Trained(NamedTuple):
    """A training with some deviations on."""

    scores: np.ndarray  # (N,) probabilities of the test rows
    orders_per_second: float  # of the training steps


class _AsTheyCome(OrderDataset):
    """Rows that all count as equally long, so that no batch is made by length."""

    @property
    def lengths(self) -> np.ndarray:
        return np.ones(len(self), np.int64)


def made_by(bundle: Bundle) -> tuple[str, ...]:
    """The names of the deviations that a bundle of an `lstm2risk` or `transformer2risk` makes."""
    if bundle.model.config.model_class not in ("lstm2risk", "transformer2risk"):
        raise ValueError(
            f"the legacy has no {bundle.model.config.model_class}; it has lstm2risk and transformer2risk"
        )
    return tuple(name for name, deviation in DEVIATIONS.items() if deviation.made_by(bundle))


def train_with(
    on: Iterable[str],
    bundle: Bundle,
    splits: Splits,
    folder: Path,
    seed: int,
    tokenizer: LegacyTokenizer,
) -> Trained:
    """Train a model of the bundle's config with only the deviations `on`, and score the test rows.

    `folder` keeps checkpoints, and a finished training in it is not run again: give each set of deviations
    and seed its own. `tokenizer` is the legacy's, for the sets without n3r's. Raises ValueError naming the
    deviations that the bundle does not make and those that it makes.
    """
    on, made = tuple(on), made_by(bundle)
    _check_names(on, made)
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    train = dataset(on, bundle, splits["train"], tokenizer, True)
    vocab_size = (bundle.tokenizer if "tokenizer" in on else tokenizer).vocab_size
    model_config = _model_config(on, bundle.model.config, vocab_size, train.tabular.shape[1])
    config = _train_config(on, bundle.train_config, seed)
    val = None
    if "best_epoch" in on and "val" in splits:
        val = dataset(on, bundle, sample(splits["val"])[0], tokenizer, False)
    parts = parts_without(name for name in made if name not in on)
    knots = features_with(on, bundle.features).knots
    fitted = fit(model_config, train, val, config, folder, tokenizer.pad_token, parts, knots)
    test = (dataset(on, bundle, part, tokenizer, False) for part in portions(splits["test"]))
    scores = [predict(fitted.model, part, tokenizer.pad_token, BATCH_SIZE)[:, 1] for part in test]
    return Trained(np.concatenate(scores), fitted.orders_per_second)


def dataset(
    on: Sequence[str], bundle: Bundle, frame: pl.DataFrame, tokenizer: LegacyTokenizer, training: bool
) -> OrderDataset:
    """Prepared rows as they are read with the deviations `on`."""
    kind = OrderDataset if "batches" in on else _AsTheyCome
    label = frame[LABEL].to_numpy()
    return kind(texts(on, bundle, frame, tokenizer), tabular(on, bundle, frame, training), label)


def texts(
    on: Sequence[str], bundle: Bundle, frame: pl.DataFrame, tokenizer: LegacyTokenizer
) -> TokenizedText:
    """Token ids by n3r's tokenizer, field by field, or by the legacy's, of the joined text.

    Of n3r's a row that is too long keeps a share of each field, of the legacy's its first tokens.
    """
    longest = bundle.texts.max_tokens if "max_tokens" in on or not _is_lstm(bundle) else sys.maxsize
    if "tokenizer" in on:
        fields = [frame[name].to_list() for name in bundle.column_map.all_text]
        config = bundle.texts.model_copy(update={"max_tokens": longest})
        return bundle.tokenizer.read(fields, bundle.texts.steps, config)
    rows = [tokenizer.encode(text)[:longest] for text in frame[TEXT]]
    offsets = np.cumsum([0, *map(len, rows)])
    return TokenizedText(np.array([i for row in rows for i in row], np.int32), offsets)


def tabular(on: Sequence[str], bundle: Bundle, frame: pl.DataFrame, training: bool) -> np.ndarray:
    """(N, F) float32 features; the last ones say what was missing, where imputation is on."""
    found = features_with(on, bundle.features).transform(frame, out_of_fold=training)
    if "imputation" not in on or "scaling" in on:
        return found
    numbers = [frame[name].cast(pl.Float64).fill_null(np.nan) for name in bundle.features.indicators_]
    missing = [~np.isfinite(column.to_numpy()) for column in numbers]
    return np.column_stack([found, *missing]).astype(np.float32)


def features_with(on: Sequence[str], features: TabularFeatures) -> TabularFeatures:
    """Fitted features with only the deviations `on`; without scaling they have no indicators."""
    state = features.to_dict()
    if "imputation" not in on:
        state["imputation"] = dict.fromkeys(state["imputation"], -1.0)
    if "scaling" not in on:
        state["config"] = state["config"] | off("scaling")
    if "imputation" not in on or "scaling" not in on:
        state["indicators"] = []
    gone = [] if "risk_tables" in on else list(state["risk_tables"])
    if "identity" not in on and features.identity:
        state["identity"], gone = None, gone + features.identity.names
    for part in ("imputation", "risk_tables", "knots"):
        state[part] = {name: entry for name, entry in state[part].items() if name not in gone}
    return TabularFeatures.from_dict(state)


def ablate(
    bundle: Bundle,
    splits: Splits,
    seeds: Sequence[int],
    folder: Path,
    sets: Iterable[Sequence[str]] | None = None,
) -> pl.DataFrame:
    """`table` of what `trainings` found of these sets of deviations."""
    runs = trainings(bundle, splits, seeds, folder, sets)
    return table(runs, whole(splits["test"], [LABEL])[LABEL].to_numpy(), made_by(bundle))


def trainings(
    bundle: Bundle,
    splits: Splits,
    seeds: Sequence[int],
    folder: Path,
    sets: Iterable[Sequence[str]] | None = None,
) -> dict[tuple[str, ...], list[Trained]]:
    """Train with each set of deviations and seed: set -> a training of each seed.

    `sets` are by default each deviation of the bundle alone and all together; the base is always there.
    `folder` keeps trainings, finished ones and one that was interrupted. Raises ValueError as `train_with`.
    """
    check_binary(bundle)
    made = made_by(bundle)
    sets = [*((name,) for name in made), made] if sets is None else [*map(tuple, sets)]
    for on in sets:
        _check_names(on, made)
    tokenizer = cache(lambda: legacy_tokenizer(splits["train"], bundle.train_config.seed))
    plan = kept.plan(__name__, splits, bundle.settings)

    def trained(on: tuple[str, ...], seed: int) -> Trained:
        place = Path(folder) / label(on, made) / str(seed)

        def train() -> kept.Result:
            scores, speed = train_with(on, bundle, splits, place, seed, tokenizer())
            return kept.Result({"scores": scores}, {"training": {"orders_per_second": speed}})

        result = kept.kept(place / "kept", f"{plan} {on} {seed}", train)
        return Trained(result.arrays["scores"], result.texts["training"]["orders_per_second"])

    return {on: [trained(on, seed) for seed in seeds] for on in dict.fromkeys([(), *sets])}


def table(
    runs: Mapping[tuple[str, ...], Sequence[Trained]], y: np.ndarray, made: Sequence[str]
) -> pl.DataFrame:
    """What each set of deviations does, against the set () of the same seeds, in a row.

    Columns: deviation, what, n_seeds, n, n_positive, auc (mean over seeds), difference of it to the base with
    its 95 % interval, _low and _high (for other rows and, with several seeds, other seeds),
    orders_per_second in training, speed_ratio to the base. Differences are null with fewer than two rows of
    a class.
    """
    base = runs[()]
    base_speed = np.mean([run.orders_per_second for run in base])
    rows = []
    for on, trained in runs.items():
        paired = paired_auc(y, *(np.stack([run.scores for run in side]) for side in (trained, base)))
        difference = paired.difference if on else Estimate()
        speed = float(np.mean([run.orders_per_second for run in trained]))
        rows.append(
            {
                "deviation": label(on, made),
                "what": _what(on, made),
                "n_seeds": len(trained),
                "n": paired.difference.n,
                "n_positive": paired.n_positive,
                "auc": paired.auc_a,
                **difference.columns("difference"),
                "orders_per_second": speed,
                "speed_ratio": float(speed / base_speed),
            }
        )
    kinds = dict.fromkeys(("deviation", "what"), pl.String)
    kinds |= dict.fromkeys(("n_seeds", "n", "n_positive"), pl.Int64)
    return pl.DataFrame(rows, schema={name: kinds.get(name, pl.Float64) for name in rows[0]})


def label(on: Sequence[str], made: Sequence[str]) -> str:
    """A set of deviations in words: none, all, all but one, or their names."""
    off = [name for name in made if name not in on]
    if not on or not off:
        return ALL if on else NONE
    return f"all but {off[0]}" if len(off) == 1 < len(on) else " + ".join(on)


def effects(notes: Sequence[Mapping], tables: Mapping[str, pl.DataFrame]) -> list[dict]:
    """Deviation notes (`parity.deviations`), each with what `tables` of model classes measured of it.

    Adds `deviation`, its name here or None, and for each key of `tables` `<key>_difference` with _low and
    _high and `<key>_speed_ratio`, None where it was not measured.
    """
    measured = {key: {row["deviation"]: row for row in table.to_dicts()} for key, table in tables.items()}
    figures = (*bounded("difference"), "speed_ratio")
    found = []
    for note in notes:
        name = next((name for name, deviation in DEVIATIONS.items() if deviation.note in note["what"]), None)
        shown = {f"{key}_{f}": rows.get(name, {}).get(f) for key, rows in measured.items() for f in figures}
        found.append({**note, "deviation": name, **shown})
    return found


def _check_names(on: Sequence[str], made: Sequence[str]) -> None:
    if unknown := [name for name in on if name not in made]:
        raise ValueError(f"no deviations {unknown} of this bundle; it makes {', '.join(made)}")


def _what(on: Sequence[str], made: Sequence[str]) -> str:
    if len(on) == 1:
        return DEVIATIONS[on[0]].what
    return {NONE: "n3r with every deviation off", ALL: "n3r as it is"}.get(label(on, made), "")


def _model_config(on: Sequence[str], config: ModelConfig, vocab_size: int, n_features: int) -> ModelConfig:
    own = {"vocab_size": vocab_size, "n_tab_features": n_features}
    return config.model_copy(update=own if "bins" in on else own | off("bins"))


def _train_config(on: Sequence[str], config: TrainConfig, seed: int) -> TrainConfig:
    own = {"seed": seed, "processes": 1}
    for name in ("decay", "clipping", "precision"):
        own |= {} if name in on else off(name)
    return TrainConfig(**config.model_dump() | own)
