"""What one column alone tells of the label: how well it ranks, overall and over time; what it tells for sure.

Decisions:
- A sample of up to 20,000 rows of either class stands for the rows: an AUROC does not depend on the classes'
  shares, and its standard error is then below 0.004. Shares and rates weigh the classes back.
- A column is read as bins: 32 quantiles of a number, the values of a category, and "missing" as one more. A
  bin's rate of class 1 among one half of the rows scores the other half, so that a value that comes once
  tells nothing and a relation may have any shape.
- With more than two classes it is class 0 against the rest, as in reports.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from n3r.estimate import FEW_ROWS, Estimate, rank_auc
from n3r.evaluation.drift import edges
from n3r.evaluation.groups import time_slices
from n3r.metrics import auc_ci
from n3r.schema import LABEL, TIME

PER_CLASS = 20_000  # rows
N_BINS = 32  # of a number
N_SLICES = 4  # of time
SMOOTHING = 1.0  # rows of the base rate in each bin
FEWEST, SURE = 20, 0.98  # rows of the rarer class and its share, of values that tell it for sure


class Sample(NamedTuple):
    """Some rows of all splits, in order of time: columns and, by row, class, weight and slice of time."""

    rows: pl.DataFrame
    y: np.ndarray  # (N,) bool: another class than 0
    weight: np.ndarray  # (N,) rows that a row stands for
    slices: list[tuple[str, np.ndarray]]  # period -> rows; empty without times

    @property
    def rate(self) -> float:
        """The share of class 1."""
        return float(self.weight[self.y].sum() / self.weight.sum())


class Alone(NamedTuple):
    """How a column alone ranks class 1, and what its values tell for sure of the rarer class."""

    auroc: Estimate
    over_time: list[tuple[str, float | None]]  # period -> AUROC
    sure: float  # share of the rarer class's rows with values that hardly any other row has


def sample(rows: pl.DataFrame, seed: int = 0) -> Sample:
    """At most `PER_CLASS` rows of class 0 and as many of the others."""
    label = rows[LABEL].to_numpy() > 0
    rng, at, each = np.random.default_rng(seed), [], {}
    for c in (True, False):
        own = np.flatnonzero(label == c)
        at.append(rng.choice(own, PER_CLASS, replace=False) if len(own) > PER_CLASS else own)
        each[c] = len(own) / max(len(at[-1]), 1)
    chosen = rows[np.sort(np.concatenate(at))].sort(TIME, maintain_order=True)
    y, slices = chosen[LABEL].to_numpy() > 0, []
    if chosen[TIME].null_count() < len(chosen):
        names = time_slices(chosen[TIME], N_SLICES)
        periods = names.drop_nulls().unique(maintain_order=True)
        slices = [(period, (names == period).fill_null(False).to_numpy()) for period in periods]
    return Sample(chosen, y, np.where(y, each[True], each[False]), slices)


def alone(sample: Sample, column: pl.Series) -> Alone:
    """What a column of the sample's rows tells."""
    codes = code(column)
    risk = _held_out_risk(codes, sample.y)
    auroc = Estimate(n=len(codes))
    if min(sample.y.sum(), (~sample.y).sum()) >= FEW_ROWS:
        auroc = auc_ci(sample.y, risk)
    over_time = [(name, _auc(sample.y[rows], risk[rows])) for name, rows in sample.slices]
    # That there is a value may tell it, whatever it is.
    filled = column.is_not_null().cast(pl.Int64).to_numpy()
    return Alone(auroc, over_time, max(_sure(codes, sample), _sure(filled, sample)))


def code(column: pl.Series) -> np.ndarray:
    """The bin of each value (N,), from 0; that of a missing one is the last."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        values = column.cast(pl.Float64).to_numpy()
        known = values[~np.isnan(values)]
        ends = edges(known, N_BINS)
        return np.where(np.isnan(values), len(ends) + 1, ends.searchsorted(values)).astype(np.int64)
    ranks = column.rank("dense").cast(pl.Int64)
    return (ranks.fill_null((ranks.max() or 0) + 1) - 1).to_numpy()


def _held_out_risk(codes: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The rate of class 1 in each row's bin (N,), among the rows of the other half."""
    half = np.zeros(len(y), dtype=bool)
    for is_class in (y, ~y):  # every other row of either class, so that both halves have one base rate
        half[np.flatnonzero(is_class)[::2]] = True
    risk, base, n_bins = np.empty(len(y)), y.mean(), codes.max(initial=0) + 1
    for own in (half, ~half):
        n = np.bincount(codes[~own], minlength=n_bins)
        positive = np.bincount(codes[~own & y], minlength=n_bins)
        risk[own] = ((positive + SMOOTHING * base) / (n + SMOOTHING))[codes[own]]
    return risk


def _auc(y: np.ndarray, risk: np.ndarray) -> float | None:
    return rank_auc(y, risk) if min(y.sum(), (~y).sum()) >= FEW_ROWS else None


def _sure(codes: np.ndarray, sample: Sample) -> float:
    """The share of the rarer class's rows in bins of which it has nearly all rows."""
    rare = sample.y if sample.rate <= 0.5 else ~sample.y
    n_rare = np.bincount(codes[rare], minlength=codes.max(initial=0) + 1)
    total = np.bincount(codes, sample.weight)
    own = np.bincount(codes[rare], sample.weight[rare], minlength=len(total))
    sure = (n_rare >= FEWEST) & (own >= SURE * total)
    return float(n_rare[sure].sum() / max(n_rare.sum(), 1))


def histogram(sample: Sample, column: pl.Series, n_bars: int = 12) -> dict[str, object]:
    """A column's distribution: for each bar the share of rows and their rate of class 1.

    Numbers fall into bars of one width between the 2nd and the 98th percentile, of their logarithm where they
    have a long tail; what lies beyond is in the outer bars. Of texts it is the length. Categories have a bar
    for each of the most common and one for the others. The last bar, `missing`, may hold nothing.
    """
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        values, scale = column.cast(pl.Float64).to_numpy(), ""
    else:
        values, scale = column.str.len_chars().cast(pl.Float64).to_numpy(), "characters"
    missing = np.isnan(values)
    known = values[~missing]
    if known.size:
        low, middle, high = np.quantile(known, (0.02, 0.5, 0.98))
        if low >= 0 and high > 20 * max(middle, 1e-9):
            known, (low, high), scale = np.log1p(known), np.log1p((low, high)), "log scale"
        n_bars = min(n_bars, max(len(np.unique(known[:1000])), 1))
        inner = np.linspace(low, high, n_bars + 1)[1:-1]
        codes = np.full(len(values), n_bars)
        codes[~missing] = np.searchsorted(inner, known, "right")
    else:
        n_bars, codes = 0, np.zeros(len(values), dtype=np.int64)
    return {"bars": list(_bars(codes, n_bars + 1, sample)), "scale": scale}


def categories(sample: Sample, column: pl.Series, n_bars: int = 11) -> dict[str, object]:
    """`histogram` of a column of categories, the most common first."""
    values = column.alias("value")  # a user's column may be called as those below
    counts = values.drop_nulls().value_counts(name="n").sort("n", "value", descending=[True, False])
    shown = counts["value"].head(n_bars)
    places = pl.DataFrame({"value": shown, "at": range(len(shown))}, {"value": pl.String, "at": pl.Int64})
    found = values.to_frame().join(places, on="value", how="left", maintain_order="left")["at"]
    codes = found.fill_null(len(shown)).zip_with(
        column.is_not_null(), pl.Series([len(shown) + 1], dtype=pl.Int64)
    )
    *bars, others, missing = _bars(codes.to_numpy(), len(shown) + 2, sample)
    return {"bars": [*bars, *([others] if others["share"] else []), missing], "scale": "most common first"}


def _bars(codes: np.ndarray, n: int, sample: Sample) -> Iterator[dict[str, float | None]]:
    total = np.bincount(codes, sample.weight, minlength=n)
    positive = np.bincount(codes[sample.y], sample.weight[sample.y], minlength=n)
    for rows, hits in zip(total, positive, strict=True):
        yield {"share": float(rows / total.sum()), "rate": float(hits / rows) if rows else None}
