"""Risk tables: a category becomes the rate of a class among its training rows.

Decisions:
- The published formula and layout, as plain data: the risks of a column's categories, and a default for
  missing, unseen and rare ones.
- Training rows are encoded out of fold: a row never sees its own label.
- A table knows how many of the training rows' categories have a risk of their own: where far fewer of the
  scored rows' have one, they are written in another way, or the world has changed.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic takes that of typing from Python 3.12 on
)

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from n3r.rows.parts import Rows, slices
from n3r.rows.values import text_of, texts_of
from n3r.schema import LABEL

NO_LABEL = -1
MANY = 16  # tables of counts that wait to be added up
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


def labels_of(frame: pl.DataFrame) -> np.ndarray:
    """(N,) the class of each row, NO_LABEL where there is none."""
    return frame[LABEL].fill_null(NO_LABEL).to_numpy()


def class_hits(label: np.ndarray, c: int) -> np.ndarray:
    """(N,) 1 where the label is class `c`, 0 where it is another, NO_LABEL where there is none."""
    return np.where(label < 0, NO_LABEL, label == c)


@dataclass(frozen=True)
class Smoothing:
    """How a rate of few rows is drawn to the prior, which counts for `factor` of all rows."""

    factor: float
    threshold: int  # categories of fewer rows get the prior

    def risk(self, n: pl.Expr, k: pl.Expr, n_all: pl.Expr, prior: float) -> pl.Expr:
        """The risk of a category of `n` rows, `k` of the class, of a column of `n_all` rows."""
        m = (n_all * self.factor).cast(pl.Int64)
        return pl.when((n > 0) & (n >= self.threshold)).then((k + m * prior) / (n + m)).otherwise(prior)


@dataclass(frozen=True)
class Counts:
    """How many training rows there are of each category of a column, in each fold.

    `table`: `category`, `fold`, `n`, of these `known` with a label, and `k1`, `k2`, .. of each class.
    """

    table: pl.DataFrame

    @classmethod
    def of(cls, values: pl.Series, label: np.ndarray, n_classes: int, fold: np.ndarray) -> "Counts":
        """Those of some rows."""
        rows = pl.DataFrame({"category": texts_of(values), "label": label, "fold": fold})
        hits = [(pl.col("label") == c).sum().cast(pl.Int64).alias(f"k{c}") for c in range(1, n_classes)]
        n, known = pl.len().cast(pl.Int64).alias("n"), (pl.col("label") >= 0).sum().cast(pl.Int64)
        rows = rows.filter(pl.col("category").is_not_null())
        return cls(rows.group_by("category", "fold").agg(n, known.alias("known"), *hits))

    @classmethod
    def sum(cls, counts: Sequence["Counts"]) -> "Counts":
        """Those of all rows, from those of parts of them."""
        tables = pl.concat([one.table for one in counts])
        return cls(tables.group_by("category", "fold").agg(pl.exclude("category", "fold").sum()))

    def table_of(self, c: int, smoothing: Smoothing, prior: float | None = None) -> RiskTable:
        """The risk table of class `c`; its default, the prior, is by default the rate of all rows."""
        total = self._total(c)
        n, k = total["known"].sum(), total["k"].sum()
        prior = prior if prior is not None else k / n if n else 0.5
        risk = smoothing.risk(pl.col("known"), pl.col("k"), pl.lit(n), prior)
        bins = total.filter(pl.col("known") > 0).select("category", risk.alias("risk")).sort("category")
        return {"bins": dict(bins.iter_rows()), "default_bin": prior}

    def fold_risks(
        self, values: pl.Series, fold: np.ndarray, c: int, smoothing: Smoothing, prior: float
    ) -> np.ndarray:
        """(n,) risks of training rows, each by the table of the other folds.

        All folds have the whole split's prior: one of the other folds is high where a fold's own rate is low,
        and would tell it.
        NOTE[DIFF] the legacy encodes the training rows by the table they made themselves (defect 37).
        """
        own = self.table.select("category", "fold", n_own="known", k_own=f"k{c}")
        total = self._total(c).with_columns(n_all=pl.col("known").sum())
        of_fold = own.group_by("fold").agg(n_fold=pl.col("n_own").sum())
        rows = pl.DataFrame({"category": texts_of(values), "fold": fold})
        for counts, on in ((total, ["category"]), (own, ["category", "fold"]), (of_fold, ["fold"])):
            rows = rows.join(counts, on, "left", maintain_order="left")
        rows = rows.with_columns(pl.exclude("category", "fold").fill_null(0))
        pairs = (("known", "n_own"), ("k", "k_own"), ("n_all", "n_fold"))
        n, k, n_all = (pl.col(all_folds) - pl.col(one) for all_folds, one in pairs)
        return rows.select(smoothing.risk(n, k, n_all, prior).alias("risk"))["risk"].to_numpy()

    def known_share(self, table: Mapping[str, Any]) -> float:
        """The share of rows with a category whose category has a risk of its own in a table."""
        found = self._total(1).select("category", "n").rows()
        return sum(n for one, n in found if one in table["bins"]) / max(sum(n for _, n in found), 1)

    def _total(self, c: int) -> pl.DataFrame:
        """By category: `n`, `known` and `k` of class `c`."""
        return self.table.group_by("category").agg(
            pl.col("n", "known").sum(), pl.col(f"k{c}").sum().alias("k")
        )


def count_categories(
    rows: Rows, categorical: Sequence[str], n_classes: int, fold: np.ndarray
) -> dict[str, Counts]:
    """The counts of each of some columns of the training rows, whose folds are `fold` (N,)."""
    found: dict[str, list[Counts]] = {name: [] for name in categorical}
    start = 0
    for part in slices(rows, [*categorical, LABEL]) if found else ():
        label = labels_of(part) if LABEL in part.columns else np.full(len(part), NO_LABEL)
        for name, counts in found.items():
            counts.append(Counts.of(part[name], label, n_classes, fold[start : start + len(part)]))
            if len(counts) > MANY:
                counts[:] = [Counts.sum(counts)]
        start += len(part)
    return {name: Counts.sum(counts) for name, counts in found.items()}


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
    label = np.where(np.isin(label, [0, 1]), label, NO_LABEL)
    counts = Counts.of(values, label, 2, np.zeros(len(label), np.int16))
    return counts.table_of(1, Smoothing(smooth_factor, count_threshold), prior)


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
        self.add({column: _known(frame[column], table) for column, table in self.tables.items()})

    def add(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Add the `counts` of other rows."""
        for column, found in counts.items():
            pairs = zip(self.counts[column], found, strict=True)
            self.counts[column] = tuple(a + b for a, b in pairs)

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
