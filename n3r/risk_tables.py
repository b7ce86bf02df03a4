"""Risk tables: a category becomes the rate of a class among its training rows.

Decisions:
- The published formula and layout, as plain data: the risks of a column's categories, and a default for
  missing, unseen and rare ones.
- Training rows are encoded out of fold: a row never sees its own label.
- A table knows how many of the training rows' categories have a risk of their own: where far fewer of the
  scored rows' have one, they are written in another way, or the world has changed.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic takes that of typing from Python 3.12 on
)

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from n3r.rows.values import text_of, texts_of
from n3r.schema import LABEL

NO_LABEL = -1
MIN_KNOWN = 10  # rows that training leads one to expect, so that chance does not halve them: below 1 %
Risk = Annotated[float, Field(ge=0, le=1)]


def _risks_alone(bins: dict[str, Any]) -> dict[str, Any]:
    """Checked as a whole: pydantic would name the category at fault, which may be an identity."""
    if not all(type(risk) in (int, float) and 0 <= risk <= 1 for risk in bins.values()):
        raise ValueError("expected risks in [0, 1]")
    return bins


class RiskTable(TypedDict):
    """The published layout: the risk of each category, and that of missing and unseen ones."""

    bins: Annotated[dict[str, Any], AfterValidator(_risks_alone)]
    default_bin: Risk


LearnedTable = TypedDict(
    "LearnedTable",
    # known: share of training rows with a category whose category has a risk; older bundles lack it
    {**RiskTable.__annotations__, "column": str, "class": int, "known": NotRequired[Risk]},
)


def risk_columns(categorical: Sequence[str], n_classes: int) -> dict[str, tuple[str, int]]:
    """Output column -> (categorical column, class), for the classes from 1."""
    suffix = "" if n_classes == 2 else " of class {}"
    classes = range(1, n_classes)
    return {f"{name} risk{suffix.format(c)}": (name, c) for name in categorical for c in classes}


def class_hits(frame: pl.DataFrame, c: int) -> np.ndarray:
    """(N,) 1 where the label is class `c`, 0 where it is another, NO_LABEL where there is none."""
    label = frame[LABEL].fill_null(NO_LABEL).to_numpy()
    return np.where(label < 0, NO_LABEL, label == c)


def risk_table(
    values: pl.Series,
    label: np.ndarray,
    smooth_factor: float,
    count_threshold: int,
    prior: float | None = None,
) -> RiskTable:
    """The published risk table of one column; its default is the prior.

    Of N rows with a category and a `label` of 0 or 1, a category's n rows with k ones have the risk
    (k + m * prior) / (n + m), m = int(N * smooth_factor), or the prior where n < `count_threshold`.
    Unless given, the prior is the mean label, or 0.5 if there are no such rows.
    """
    rows = pl.DataFrame({"category": texts_of(values), "hit": np.asarray(label, np.float64)})
    rows = rows.filter(pl.col("category").is_not_null(), pl.col("hit").is_in([0.0, 1.0]))
    if prior is None:
        prior = rows["hit"].mean() if len(rows) else 0.5
    m = int(len(rows) * smooth_factor)
    n, k = pl.len(), pl.col("hit").sum()
    risk = pl.when(n >= count_threshold).then((k + m * prior) / (n + m)).otherwise(prior)
    bins = rows.group_by("category").agg(risk.alias("risk")).sort("category")
    return {"bins": dict(bins.iter_rows()), "default_bin": prior}


def without_default(table: RiskTable) -> RiskTable:
    """The table less the categories whose risk is the default's; it gives the same risks.

    NOTE[DIFF] the legacy stores every value it saw, though rare ones read like unseen ones; of a
    column such as the postal address these would be the customers' own.
    """
    default = table["default_bin"]
    return {
        "bins": {key: risk for key, risk in table["bins"].items() if risk != default},
        "default_bin": default,
    }


def by_value(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with a risk for each value: tables made elsewhere may have "3.0" for 3 (rows/values.py)."""
    bins = table["bins"]
    own = {key: risk for key, risk in bins.items() if text_of(key) == key}
    return {**table, "bins": {text_of(key): risk for key, risk in bins.items()} | own}


def look_up(values: pl.Series, table: Mapping[str, Any]) -> np.ndarray:
    """(N,) risks; missing and unseen categories get the default."""
    texts, default = texts_of(values), table["default_bin"]
    distinct = texts.drop_nulls().unique()  # of a chunk's rows: a table may have a million categories
    risks = pl.Series([table["bins"].get(one, default) for one in distinct], dtype=pl.Float64)
    return texts.replace_strict(distinct, risks, default=default).cast(pl.Float64).to_numpy()


def row_risks(tables: Iterable[Mapping[str, Any]], row: Mapping[str, Any]) -> np.ndarray:
    """(1, tables) float32 risks of one row, column -> category."""
    risks = [table["bins"].get(text_of(row[table["column"]]), table["default_bin"]) for table in tables]
    return np.array([risks], np.float32)


def count_known(tables: Iterable[dict[str, Any]], train: pl.DataFrame) -> None:
    """Write into each table how many of the training rows' categories have a risk of their own."""
    for table in tables:
        n_rows, n_known = _known(train[table["column"]], table)
        table["known"] = n_known / max(n_rows, 1)


def _known(values: pl.Series, table: Mapping[str, Any]) -> tuple[int, int]:
    """Rows with a category, and those whose category has a risk of its own."""
    texts, counts = texts_of(values).drop_nulls().alias("text").value_counts()
    return sum(counts), sum(n for one, n in zip(texts, counts, strict=True) if one in table["bins"])


class Unseen:
    """Counts scored rows whose categories training did not see, to say so in a sentence a column."""

    def __init__(self, tables: Iterable[Mapping[str, Any]]):
        self.tables = {table["column"]: table for table in tables if "known" in table}
        self.counts = dict.fromkeys(self.tables, (0, 0))

    def count(self, frame: pl.DataFrame) -> None:
        """Count these rows, too."""
        for column, table in self.tables.items():
            found = zip(self.counts[column], _known(frame[column], table), strict=True)
            self.counts[column] = tuple(a + b for a, b in found)

    def warn(self) -> None:
        """Warn of each column of which fewer than half as many rows are known as in training."""
        for column, (n_rows, n_known) in self.counts.items():
            expected = n_rows * self.tables[column]["known"]
            if expected >= MIN_KNOWN and n_known < expected / 2:
                warnings.warn(
                    f"column {column!r}: {n_rows - n_known:,} of {n_rows:,} rows have a category that has no "
                    f"risk of its own, in training {1 - self.tables[column]['known']:.0%} had: are they "
                    "written as the training rows' are?",
                    stacklevel=3,
                )


def fold_risks(
    values: pl.Series,
    hits: np.ndarray,
    learn: Callable[[pl.Series, np.ndarray], RiskTable],
    n_folds: int,
    seed: int,
) -> np.ndarray:
    """(N,) risks, each by the table that `learn` makes of the other folds.

    `learn` gives all folds the whole split's prior: one of the other folds is high where a fold's own rate
    is low, and would tell it.
    NOTE[DIFF] the legacy encodes the training rows by the table they made themselves (defect 37).
    """
    risks = np.empty(len(values))
    order = np.random.default_rng(seed).permutation(len(values))
    for fold in np.array_split(order, n_folds):
        others = hits.copy()
        others[fold] = NO_LABEL
        risks[fold] = look_up(values[fold], learn(values, others))
    return risks
