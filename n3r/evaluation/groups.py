"""Whom a score serves worse: its quality and error rates by marketplace, time slice, script or locale group.

Decisions:
- A rate is shown only where at least `min_per_class` rows of the class under its bar exist; otherwise it is
  null. NOTE[DIFF] the legacy turns what it cannot measure into 0.0 (defect 42).
- Intervals of rates are Wilson's: they stay inside [0, 1] and have a width at 0 and at 1.
- Observed over expected frauds is the fraud rate divided by the mean score, and so is its interval. Frauds
  of unequal risk vary less than Wilson allows for, so that interval is wide rather than narrow.
- The smallest and the largest of many groups differ by chance alone, so each ratio comes with its null
  level: the ratio when group labels are shuffled within each class, which keeps base rates.
- The interval of a ratio combines those of its two rates (MOVER-R): unlike that of the log ratio it exists
  where a rate is 0, and has a width where both are 1. It treats the two groups as if they had been named
  before.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r import metrics
from n3r.estimate import (
    FEW_ROWS,
    NO_GROUP,
    NOT_ENOUGH,
    Estimate,
    bounded,
    checked,
    group_names,
    holm,
    table,
    wilson,
)
from n3r.metrics import ALPHA

NOT_IN_TRAINING = "not in training"
ALL_ZERO = "0 in every group"
N_DRAWS = 2000
# rate -> the classes of rows that it is a share of
RATES = {"recall": (1,), "false-positive rate": (0,), "alert rate": (0, 1)}
FIGURES = (
    *(end for rate in ("alert_rate", "fpr", "recall") for end in bounded(rate)),
    *("mean_score", *bounded("fraud_rate"), *bounded("ratio")),
)
FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S%.6f")


def by_group(
    group: ArrayLike,
    y: ArrayLike,
    p: ArrayLike,
    threshold: float,
    min_per_class: int = FEW_ROWS,
    known: Iterable[str] | None = None,
) -> pl.DataFrame:
    """Quality, error rates and calibration of probabilities in each group, the largest first.

    Columns: group, n, n_positive, auroc, alert_rate, fpr, recall, mean_score, fraud_rate, ratio (frauds to
    the sum of the scores) and note; all but counts and mean_score with 95 % limits in _low and _high. Rows
    at or above `threshold` are alerts. Rows without a group are "(none)"; groups that are not in `known`, the
    groups of training, are noted. A ratio needs `min_per_class` frauds, observed or expected.
    Raises ValueError on bad labels or scores, and lengths that differ.
    """
    counts = _counts(group, y, p, threshold, min_per_class)
    quality = metrics.by_segment(group, y, p, min_per_class).drop("note")
    new = set() if known is None else {*counts["group"]} - {NO_GROUP if g is None else str(g) for g in known}
    shown, rows = (*quality.columns, *FIGURES), []
    for row in quality.join(counts, on="group", how="left", maintain_order="left").iter_rows(named=True):
        row |= _rates(row, min_per_class)
        notes = [NOT_ENOUGH] if None in (row[name] for name in shown[3:]) else []
        notes += [NOT_IN_TRAINING] if row["group"] in new else []
        rows.append(row | {"note": "; ".join(notes) or None})
    return table(rows, (*shown, "note"))


def disparities(
    group: ArrayLike,
    y: ArrayLike,
    p: ArrayLike,
    threshold: float,
    min_per_class: int = FEW_ROWS,
    seed: int = 0,
) -> pl.DataFrame:
    """How far recall, false-positive rate and alert rate lie apart between groups; one row each.

    Columns: rate, overall (of all rows), n_groups (compared), n_left_out (with too few rows), smallest_group,
    smallest, largest_group, largest, difference, ratio (smallest / largest) with _low and _high, null_ratio
    (the median when groups do not differ), p_value (how often chance gives such a ratio or a smaller one; of
    2,000 seeded shuffles), p_holm (for three rates) and note. Raises ValueError as `by_group`. Source of the
    95 % interval (MOVER-R): Donner & Zou 2012.
    """
    counts = _counts(group, y, p, threshold, min_per_class)
    names, rng = counts["group"].to_list(), np.random.default_rng(seed)
    n, flagged = ([counts[f"{what}_{c}"].to_numpy() for c in (0, 1)] for what in ("n", "flagged"))
    chance = [_shuffled(rng, *pair) for pair in zip(n, flagged, strict=True)]
    rows = []
    for rate, of in RATES.items():
        sums = (sum(parts[c] for c in of) for parts in (n, flagged, chance))
        rows.append({"rate": rate, **_disparity(names, *sums, min_rows=min_per_class)})
    for row, p_holm in zip(rows, holm(row.get("p_value") for row in rows), strict=True):
        row["p_holm"] = p_holm
    ends = ("smallest_group", "smallest", "largest_group", "largest", "difference", *bounded("ratio"))
    columns = ("rate", "overall", "n_groups", "n_left_out", *ends, "null_ratio", "p_value", "p_holm", "note")
    return table(rows, columns, words=("rate", "smallest_group", "largest_group"))


def conclusion(found: pl.DataFrame, by: str) -> str:
    """Two sentences on a table of `disparities`: what was seen `by` a grouping, and what it does not show."""
    rows = found.to_dicts()
    tested = [r for r in rows if r["p_holm"] is not None]
    told = {
        "differs beyond chance": [r for r in tested if r["p_holm"] < ALPHA],
        "no difference beyond chance is shown": [r for r in tested if r["p_holm"] >= ALPHA],
        NOT_ENOUGH: [r for r in rows if r["note"] == NOT_ENOUGH],
        ALL_ZERO: [r for r in rows if r["note"] == ALL_ZERO],
    }
    seen = "; ".join(f"{what}: {', '.join(map(_extremes, those))}" for what, those in told.items() if those)
    left_out = max(r["n_left_out"] for r in rows)
    few = f", of which up to {left_out} have too few rows for a rate," if left_out else ""
    return (
        f"By {by}, {seen}. This says nothing of people's origin, which neither a name nor a marketplace is, "
        f"nor of causes: groups{few} differ in base rate and in what their data hold, a gap can come from "
        "either, and a gap that is not shown is no proof of fairness."
    )


def time_slices(time: pl.Series, n: int = 6) -> pl.Series:
    """Labels such as "2025-04-30 to 2025-05-04" of at most `n` slices with equal numbers of rows.

    Rows of one time share a slice, so that slices may be unequal or fewer. Labels have the hour if days do
    not distinguish the slices. A null time has no label. Raises ValueError if values are no dates or times.
    """
    if not time.dtype.is_temporal() or time.dtype in (pl.Duration, pl.Time):
        raise ValueError(f"times: expected dates or times, found {time.dtype}")
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1 slice")
    at = pl.col("time")
    place = (at.rank("average") - 0.5) * n / at.count()
    rows = time.to_frame("time").cast({"time": pl.Datetime("us", getattr(time.dtype, "time_zone", None))})
    rows = rows.with_columns(slice=place.floor())
    bounds = rows.drop_nulls().group_by("slice").agg(first=at.min(), last=at.max())
    for form in FORMATS:
        first, last = (pl.col(name).dt.strftime(form) for name in ("first", "last"))
        one = pl.when(first == last).then(first).otherwise(pl.format("{} to {}", first, last))
        labels = bounds.select("slice", label=one)
        if labels["label"].is_unique().all():
            break
    return rows.join(labels, on="slice", how="left", maintain_order="left")["label"].alias("slice")


def _counts(
    group: ArrayLike, y: ArrayLike, p: ArrayLike, threshold: float, min_per_class: int
) -> pl.DataFrame:
    """Rows and alerts of each class (n_0, n_1, flagged_0, flagged_1) and the mean score of each group."""
    y, p = checked(y, probability=True, p=p)
    names = group_names(group, y.size)
    if np.isnan(threshold):
        raise ValueError("threshold is NaN; expected a number")
    if min_per_class < 1:
        raise ValueError(f"min_per_class is {min_per_class}; expected at least 1")
    sums = {f"n_{c}": y == c for c in (0, 1)} | {f"flagged_{c}": (y == c) & (p >= threshold) for c in (0, 1)}
    rows = pl.DataFrame({"group": names, "p": p, **sums})
    return (
        rows.group_by("group")
        .agg(pl.col(*sums).sum().cast(pl.Int64), mean_score=pl.col("p").mean())
        .sort("group")
    )


def _rates(row: Mapping[str, Any], min_rows: int) -> dict[str, float | None]:
    """The rates of one group, from its counts."""
    n, n_flagged = row["n_0"] + row["n_1"], row["flagged_0"] + row["flagged_1"]
    fraud_rate, expected = wilson(row["n_1"], n, min_rows), row["mean_score"] * n
    ratio = Estimate(n=n)
    if n >= min_rows and expected > 0 and max(row["n_1"], expected) >= min_rows:
        ends = (fraud_rate.value, fraud_rate.low, fraud_rate.high)
        ratio = Estimate(*(end / row["mean_score"] for end in ends), n)
    return {
        **wilson(n_flagged, n, min_rows).columns("alert_rate"),
        **wilson(row["flagged_0"], row["n_0"], min_rows).columns("fpr"),
        **wilson(row["flagged_1"], row["n_1"], min_rows).columns("recall"),
        **fraud_rate.columns("fraud_rate"),
        **ratio.columns("ratio"),
    }


def _shuffled(rng: np.random.Generator, n: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """(draws, groups) alerts of each group when group labels are shuffled among the rows of a class."""
    if not n.size:
        return np.zeros((N_DRAWS, 0), dtype=np.int64)
    return rng.multivariate_hypergeometric(n, flagged.sum(), N_DRAWS, method="marginals")


def _disparity(
    names: list[str], n: np.ndarray, flagged: np.ndarray, chance: np.ndarray, min_rows: int
) -> dict[str, Any]:
    """One row of `disparities` but its name and p_holm.

    chance: (draws, groups) alerts when groups do not differ.
    """
    enough = np.flatnonzero(n >= min_rows)
    overall = float(flagged.sum() / n.sum()) if n.sum() >= min_rows else None
    row = {"overall": overall, "n_groups": enough.size, "n_left_out": n.size - enough.size}
    if enough.size < 2:
        return row | {"note": NOT_ENOUGH}
    rates = flagged[enough] / n[enough]
    # The last of the largest, for of two groups at one rate the smallest is one and the largest the other.
    smallest, largest = enough[rates.argmin()], enough[rates.size - 1 - rates[::-1].argmax()]
    for end, at in (("smallest", smallest), ("largest", largest)):
        row |= {f"{end}_group": names[at], end: float(flagged[at] / n[at])}
    row["difference"] = row["largest"] - row["smallest"]
    if row["largest"] == 0:
        return row | {"note": ALL_ZERO}
    by_chance = _smallest_to_largest(chance[:, enough] / n[enough])
    ratio = _ratio(*(wilson(flagged[at], n[at]) for at in (smallest, largest)))
    # The same counts must tie whatever their rounding.
    as_far = int((by_chance <= ratio.value * (1 + 1e-9)).sum())
    null = {"null_ratio": float(np.median(by_chance)), "p_value": (1 + as_far) / (1 + N_DRAWS)}
    return row | ratio.columns("ratio") | null


def _smallest_to_largest(rates: np.ndarray) -> np.ndarray:
    """(draws,) ratios from rates (draws, groups); 1 where all are zero, and so alike."""
    smallest, largest = rates.min(axis=1), rates.max(axis=1)
    return np.divide(smallest, largest, out=np.ones_like(largest), where=largest > 0)


def _ratio(a: Estimate, b: Estimate) -> Estimate:
    """A / b with its MOVER-R limits; b is not 0."""
    product = a.value * b.value

    def plus_root(x: float, y: float) -> float:
        return product + float(np.sqrt(max(product**2 - x * y, 0.0)))

    x, y = a.low * (2 * a.value - a.low), b.high * (2 * b.value - b.high)
    low = x / plus_root(x, y) if a.value else 0.0
    x, y = a.high * (2 * a.value - a.high), b.low * (2 * b.value - b.low)
    return Estimate(a.value / b.value, low, plus_root(x, y) / y, a.n + b.n)


def _extremes(row: dict) -> str:
    """The two ends of a rate in words."""
    if row["smallest"] is None or row["note"]:
        return row["rate"]
    ends = (f"{row[end + '_group']} {row[end]:.1%}" for end in ("smallest", "largest"))
    p_value = f"p = {row['p_holm']:.3f}" if row["p_holm"] >= 0.001 else "p < 0.001"
    ratios = f"ratio {row['ratio']:.2f}, by chance {row['null_ratio']:.2f}, {p_value}"
    return f"{row['rate']} ({' to '.join(ends)}, {ratios})"
