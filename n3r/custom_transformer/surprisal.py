"""Surprisal at user names: how unlikely a language model finds them, as a feature of orders.

Decisions:
- A user name is the part of the e-mail address before the @; without an address it is the first text.
- Names that a model was trained on have a lower surprisal. The surprisal of a training row therefore comes
  from a model of other rows (`cross_fitted_surprisal`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from n3r.custom_transformer.language_model import (
    SURPRISAL,
    LanguageModel,
    LanguageModelConfig,
    train_language_model,
)
from n3r.identity.mail import address_fields
from n3r.metrics import PairedAUC
from n3r.schema import OWN, ColumnMap

FEATURES = [f"{OWN}surprisal_{what}" for what in SURPRISAL]
Frames = Mapping[str, pl.DataFrame]  # by split


def user_names(splits: Frames, columns: ColumnMap) -> tuple[str, dict[str, pl.Series]]:
    """The field that user names come from, and the name of each row by split."""
    field = (address_fields(splits["train"], columns.text) or columns.text)[0]
    name = pl.col(field).cast(pl.String).str.extract("^([^@]+)")
    return field, {split: frame.select(name).to_series() for split, frame in splits.items()}


def cross_fitted_surprisal(
    texts: Mapping[str, pl.Series], config: LanguageModelConfig, folder: Path
) -> tuple[dict[str, pl.DataFrame], list[LanguageModel]]:
    """Split -> `LanguageModel.surprisal` of its texts by models that were not trained on them; and these two.

    texts: train, val and more. The training rows are halved by the seed. A model of each half scores the
    other half, and the mean of both scores every other split; val decides when their training stops.
    """
    rows = np.random.default_rng(config.seed).permutation(len(texts["train"]))
    halves = [np.sort(rows[i::2]) for i in range(2)]
    val = texts["val"].drop_nulls().to_list()
    models, parts = [], []
    for i, (half, other) in enumerate([halves, halves[::-1]]):
        known = {"train": texts["train"][other].drop_nulls().to_list(), "val": val}
        models.append(train_language_model(config, folder / str(i), known, replace=True))
        parts.append(models[i].surprisal(texts["train"][half]).with_columns(row=pl.Series(half)))
    found = {"train": pl.concat(parts).sort("row").drop("row")}
    for split, series in texts.items():
        if split != "train":
            one, other = (model.surprisal(series) for model in models)
            found[split] = (one + other) / 2
    return found, models


def with_surprisal(splits: Frames, surprisal: Frames) -> dict[str, pl.DataFrame]:
    """The splits with their surprisal as columns FEATURES."""
    return {
        split: frame.with_columns(surprisal[split].rename(dict(zip(SURPRISAL, FEATURES, strict=True))))
        for split, frame in splits.items()
    }


def as_scores(surprisal: Frames) -> pl.DataFrame:
    """Surprisal of the test rows, a missing name as unlikely as the mean of training."""
    means = surprisal["train"].mean()
    return surprisal["test"].with_columns(pl.col(what).fill_null(means[what].item()) for what in SURPRISAL)


def sentence(added: PairedAUC) -> str:
    """What surprisal adds to LSTM2Risk, with its interval."""
    found = added.difference
    if found.low is None:
        return "Too few test rows of a class to say what surprisal adds."
    shown = "a difference" if found.low > 0 or found.high < 0 else "no difference"
    return (
        f"With surprisal LSTM2Risk reaches an AUROC of {added.auc_a:.3f}, without {added.auc_b:.3f}: "
        f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]; {shown} is shown."
    )
