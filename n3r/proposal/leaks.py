"""Which columns alone nearly tell the label, as those do that are filled in after the order."""

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl

from n3r.metrics import auc_ci
from n3r.proposal.kinds import Column
from n3r.proposal.numbers import read
from n3r.rows.numbers import NumberFormat

TELLS = 0.97  # AUROC of one column alone
_FEWEST = 10  # rows of each class


def leaks(columns: Iterable[Column], label: np.ndarray, form: NumberFormat | None) -> dict[str, float]:
    """The AUROC of each column that tells the label alone; `label` (N,) is 0, 1, or -1 for neither."""
    known = label >= 0
    if min((label == 0).sum(), (label == 1).sum()) < _FEWEST:
        return {}
    found = {}
    for column in columns:
        auc = max(_aucs(column, label, known, form))
        if auc >= TELLS:
            found[column.name] = auc
    return found


def _aucs(column: Column, label: np.ndarray, known: np.ndarray, form: NumberFormat | None) -> Iterator[float]:
    missing = column.texts.is_null().to_numpy()
    yield _auc(label[known], missing[known].astype(float))
    if column.kind == "number":
        numbers = read(column.texts, form).to_numpy()
        there = known & np.isfinite(numbers)
        yield _auc(label[there], numbers[there])
    else:
        yield _of_category(column.texts, label)


def _of_category(texts: pl.Series, label: np.ndarray) -> float:
    """The AUROC of a category's rate in every second row, judged by the others."""
    rows = pl.DataFrame({"text": texts.fill_null(""), "label": label, "half": np.arange(len(label)) % 2})
    rows = rows.filter(pl.col("label") >= 0)
    first, second = rows.filter(pl.col("half") == 0), rows.filter(pl.col("half") == 1)
    rates = first.group_by("text").agg(rate=(pl.col("label").sum() + 0.1) / (pl.len() + 1.0))
    judged = second.join(rates, on="text", how="left")
    return _auc(judged["label"].to_numpy(), judged["rate"].fill_null(first["label"].mean()).to_numpy())


def _auc(label: np.ndarray, score: np.ndarray) -> float:
    """The AUROC either way round, 0 of too few rows."""
    if min((label == 0).sum(), (label == 1).sum()) < _FEWEST:
        return 0.0
    value = auc_ci(label, score).value
    return max(value, 1 - value)
