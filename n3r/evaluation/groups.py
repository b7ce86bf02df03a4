"""Whom a score serves worse: its quality and error rates by marketplace, time slice, script or locale group.

Decisions:
- A rate is shown only where at least `min_per_class` rows of the class under its bar exist; otherwise it is
  null. NOTE[DIFF] the legacy turns what it cannot measure into 0.0 (defect 42), and so do fairlearn's own
  recall and false-positive rate without a row of the class; fairlearn gets only groups that have enough.
- Intervals of rates are Wilson's: they keep inside [0, 1] and have a width at 0 and at 1.
- Observed over expected frauds is the fraud rate by the mean score, and so is its interval. Frauds of unequal
  risk vary less than Wilson allows for, so that interval is wide rather than narrow.
- The smallest and the largest of many groups lie apart by chance alone, so each ratio comes with the one that
  groups without a difference would show: group labels shuffled within each class, which keeps base rates.
- The interval of a ratio of two rates joins theirs (MOVER-R): unlike that of the log ratio it exists where a
  rate is 0, and has a width where both are 1. It is of those two groups, as if they had been named before.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r import metrics
from n3r.metrics import ALPHA, FEW_ROWS, NOT_ENOUGH

if TYPE_CHECKING:
    from fairlearn.metrics import MetricFrame

NO_GROUP = "(none)"
NOT_IN_TRAINING = "not in training"
ALL_ZERO = "0 in every group"
N_DRAWS = 2000
# rate -> the classes of rows that it is a share of
RATES = {"recall": (1,), "false-positive rate": (0,), "alert rate": (0, 1)}
INTERVALS = ("alert_rate", "fpr", "recall", "fraud_rate", "ratio")  # each with _low and _high
FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S%.6f")

Figures = tuple[float, float, float] | tuple[None, None, None]


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
    columns = {"group": "segment", "auroc": "auroc", "auroc_low": "low", "auroc_high": "high"}
    auc = metrics.by_segment(_names(group), y, p, min_per_class).select(**columns)
    schema = [name + end for name in INTERVALS for end in ("", "_low", "_high")]
    figures = [_figures(*row, few=min_per_class) for row in counts.drop("group").iter_rows()]
    rates = pl.DataFrame(figures, schema=dict.fromkeys(schema, pl.Float64), orient="row")
    table = auc.join(counts.hstack(rates), on="group", how="left", maintain_order="left")
    table = table.with_columns(n=pl.sum_horizontal("n_0", "n_1"), n_positive="n_1")
    shown = ["auroc", "auroc_low", "auroc_high", *schema[:9], "mean_score", *schema[9:]]
    few = pl.when(pl.any_horizontal(pl.col(shown).is_null())).then(pl.lit(NOT_ENOUGH))
    table = table.with_columns(note=few)
    if known is not None:
        new = pl.when(~pl.col("group").is_in(_names(list(known)).implode())).then(pl.lit(NOT_IN_TRAINING))
        both = pl.concat_str("note", new, separator="; ", ignore_nulls=True)
        table = table.with_columns(note=pl.when(both != "").then(both))
    return table.select("group", "n", "n_positive", *shown, "note")


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
    smallest, largest_group, largest, difference, ratio (smallest / largest) with low and high, chance_ratio
    (the median when groups do not differ), p_value (how often chance gives such a ratio or a smaller one; of
    2,000 seeded shuffles), p_holm (for three rates) and note. By fairlearn's MetricFrame. Raises ValueError
    as `by_group`. Source of the 95 % interval (MOVER-R): Donner & Zou 2012.
    """
    counts = _counts(group, y, p, threshold, min_per_class)
    names, rng = counts["group"].to_numpy(), np.random.default_rng(seed)
    n = [counts[f"n_{c}"].to_numpy() for c in (0, 1)]
    flagged = [counts[f"flagged_{c}"].to_numpy() for c in (0, 1)]
    chance = [_shuffled(rng, *pair) for pair in zip(n, flagged, strict=True)]
    rows = []
    for rate, classes in RATES.items():
        sums = (sum(parts[c] for c in classes) for parts in (n, flagged, chance))
        rows.append({"rate": rate, **_disparity(names, *sums, few=min_per_class)})
    table = pl.DataFrame(rows, schema=_disparity_schema())
    tested = table["p_value"].is_not_null()
    corrected = pl.Series(metrics.holm(table["p_value"].drop_nulls().to_numpy()))
    p_holm = table["p_value"].scatter(tested.arg_true(), corrected)
    return table.with_columns(p_holm=p_holm).select(*table.columns[:-1], "p_holm", "note")


def conclusion(table: pl.DataFrame, by: str) -> str:
    """Two sentences on a table of `disparities`: what was seen `by` a grouping, and what it does not show."""
    rows = table.to_dicts()
    told = {
        "differs beyond chance": [r for r in rows if r["p_holm"] is not None and r["p_holm"] < ALPHA],
        "no difference beyond chance is shown": [
            r for r in rows if r["p_holm"] is not None and r["p_holm"] >= ALPHA
        ],
        NOT_ENOUGH: [r for r in rows if r["note"] == NOT_ENOUGH],
        ALL_ZERO: [r for r in rows if r["note"] == ALL_ZERO],
    }
    seen = "; ".join(f"{what}: {', '.join(map(_extremes, found))}" for what, found in told.items() if found)
    left_out = max(r["n_left_out"] for r in rows)
    few = f", of which up to {left_out} have too few rows for a rate," if left_out else ""
    return (
        f"By {by}, {seen}. This says nothing of people's origin, which neither a name nor a marketplace is, "
        f"nor of causes: groups{few} differ in base rate and in what their data hold, a gap can come from "
        "either, and a gap that is not shown is no proof of fairness."
    )


def time_slices(time: pl.Series, n: int = 6) -> pl.Series:
    """Labels such as "2025-04-30 to 2025-05-04" of at most `n` slices with equal numbers of rows.

    Rows of one time share a slice, so that slices may be unequal or fewer. The hour is told where days do not
    tell slices apart. A null time has no label. Raises ValueError where the values are no dates or times.
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


def _names(group: ArrayLike) -> pl.Series:
    return pl.Series("group", group).cast(pl.String).fill_null(NO_GROUP)


def _counts(
    group: ArrayLike, y: ArrayLike, p: ArrayLike, threshold: float, min_per_class: int
) -> pl.DataFrame:
    """Rows and alerts of each class (n_0, n_1, flagged_0, flagged_1) and the mean score of each group."""
    names, (y, p) = _names(group), metrics.checked(y, probability=True, p=p)
    if len(names) != y.size:
        raise ValueError(f"group has {len(names)} values, labels have {y.size}")
    if np.isnan(threshold):
        raise ValueError("threshold is NaN; expected a number")
    if min_per_class < 1:
        raise ValueError(f"min_per_class is {min_per_class}; expected at least 1")
    rows = pl.DataFrame([names, pl.Series("y", y), pl.Series("p", p)]).with_columns(flagged=p >= threshold)
    of = {0: ~pl.col("y"), 1: pl.col("y")}
    return (
        rows.group_by("group")
        .agg(
            **{f"n_{c}": is_c.sum().cast(pl.Int64) for c, is_c in of.items()},
            **{f"flagged_{c}": (is_c & pl.col("flagged")).sum().cast(pl.Int64) for c, is_c in of.items()},
            mean_score=pl.col("p").mean(),
        )
        .sort("group")
    )


def _figures(
    n_0: int, n_1: int, flagged_0: int, flagged_1: int, mean_score: float, few: int
) -> list[float | None]:
    """The figures of `INTERVALS`, each with its limits."""
    n = n_0 + n_1
    fraud_rate = _rate(n_1, n, few)
    expected = mean_score * n
    told = n >= few and expected > 0 and max(n_1, expected) >= few
    ratio = [rate / mean_score for rate in fraud_rate] if told else [None] * 3
    rates = (_rate(flagged_0 + flagged_1, n, few), _rate(flagged_0, n_0, few), _rate(flagged_1, n_1, few))
    return [value for figures in (*rates, fraud_rate, ratio) for value in figures]


def _rate(part: int, whole: int, few: int) -> Figures:
    """A rate and Wilson's 95 % interval; None for all three below `few` rows."""
    from scipy.stats import binomtest  # scipy.stats takes 0.7 s to import

    if whole < few:
        return None, None, None
    interval = binomtest(int(part), int(whole)).proportion_ci(method="wilson")
    return part / whole, float(interval.low), float(interval.high)


def _shuffled(rng: np.random.Generator, n: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """(draws, groups) alerts of each group when group labels are shuffled among the rows of a class."""
    if not n.size:
        return np.zeros((N_DRAWS, 0), dtype=np.int64)
    return rng.multivariate_hypergeometric(n, flagged.sum(), N_DRAWS, method="marginals")


def _disparity(names: np.ndarray, n: np.ndarray, flagged: np.ndarray, chance: np.ndarray, few: int) -> dict:
    """One row of `disparities`, without its name."""
    told = n >= few
    overall = float(flagged.sum() / n.sum()) if n.sum() >= few else None
    row = {"overall": overall, "n_groups": int(told.sum()), "n_left_out": int((~told).sum())}
    if told.sum() < 2:
        return row | {"note": NOT_ENOUGH}
    names, n, flagged, chance = names[told], n[told], flagged[told], chance[:, told]
    frame = _metric_frame(names, n, flagged)
    rates = frame.by_group
    # The last of the largest, for of two groups at one rate the smallest is one and the largest the other.
    ends = [names.tolist().index(name) for name in (rates.idxmin(), rates[::-1].idxmax())]
    row |= {
        "smallest_group": names[ends[0]],
        "smallest": float(frame.group_min()),
        "largest_group": names[ends[1]],
        "largest": float(frame.group_max()),
        "difference": float(frame.difference()),
    }
    if row["largest"] == 0:
        return row | {"note": ALL_ZERO}
    ratio, by_chance = float(frame.ratio()), _smallest_to_largest(chance / n)
    low, high = _ratio_interval(*(_rate(flagged[at], n[at], few) for at in ends))
    as_far = int((by_chance <= ratio * (1 + 1e-9)).sum())  # the same counts must tie whatever their rounding
    p_value = (1 + as_far) / (1 + N_DRAWS)
    chance_ratio = float(np.median(by_chance))
    return row | {"ratio": ratio, "low": low, "high": high, "chance_ratio": chance_ratio, "p_value": p_value}


def _metric_frame(names: np.ndarray, n: np.ndarray, flagged: np.ndarray) -> "MetricFrame":
    """Fairlearn's view of alerts by group, from counts as weights: a million rows are two cells a group."""
    from fairlearn.metrics import MetricFrame, selection_rate  # 1.5 s to import

    is_alert = np.repeat([1, 0], n.size)
    return MetricFrame(
        metrics=selection_rate,
        y_true=is_alert,  # not read: the rows are of the class under the rate's bar
        y_pred=is_alert,
        sensitive_features=np.tile(names, 2),
        sample_params={"sample_weight": np.concatenate([flagged, n - flagged])},
    )


def _smallest_to_largest(rates: np.ndarray) -> np.ndarray:
    """(draws,) ratios from rates (draws, groups); 1 where all are zero, and so alike."""
    smallest, largest = rates.min(axis=1), rates.max(axis=1)
    return np.divide(smallest, largest, out=np.ones_like(largest), where=largest > 0)


def _ratio_interval(a: Figures, b: Figures) -> tuple[float, float]:
    """MOVER-R limits of a / b from both rates and their limits; b is not 0."""
    (p, p_low, p_high), (q, q_low, q_high) = a, b
    product = p * q

    def root(x: float, y: float) -> float:
        return float(np.sqrt(max(product**2 - x * y, 0.0)))

    x, y = p_low * (2 * p - p_low), q_high * (2 * q - q_high)
    low = x / (product + root(x, y)) if p else 0.0
    x, y = p_high * (2 * p - p_high), q_low * (2 * q - q_low)
    return low, (product + root(x, y)) / y


def _disparity_schema() -> dict[str, pl.DataType]:
    figures = ("smallest", "largest", "difference", "ratio", "low", "high", "chance_ratio", "p_value")
    kinds = {"rate": pl.String, "overall": pl.Float64, "n_groups": pl.Int64, "n_left_out": pl.Int64}
    kinds |= {"smallest_group": pl.String, "smallest": pl.Float64, "largest_group": pl.String}
    return kinds | dict.fromkeys(figures, pl.Float64) | {"note": pl.String}


def _extremes(row: dict) -> str:
    """The two ends of a rate in words."""
    if row["smallest"] is None or row["note"]:
        return row["rate"]
    ends = (f"{row[end + '_group']} {row[end]:.1%}" for end in ("smallest", "largest"))
    p_value = f"p = {row['p_holm']:.3f}" if row["p_holm"] >= 0.001 else "p < 0.001"
    ratios = f"ratio {row['ratio']:.2f}, by chance {row['chance_ratio']:.2f}, {p_value}"
    return f"{row['rate']} ({' to '.join(ends)}, {ratios})"
