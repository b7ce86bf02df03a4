"""What a score does when a fraud team acts on it: operating points, top shares, gains and costs.

An order is flagged when its score is at or above a threshold, so tied scores are flagged together or not
at all. `flagged` is a share of orders everywhere, counts start with n_.

Decisions:
- Intervals are for the population threshold that lets through the stated rate. It is unknown: above it lie
  Binomial(n_negative, rate) negatives of the sample. Each draw takes such a threshold, then recall from
  Beta(hits + 1/2, misses + 1/2) (Jeffreys), and the base rate likewise. That is a Bayesian bootstrap (Rubin
  1981) of ranked rows that resamples none of them: 4,000 draws at six rates take 6 ms; a million rows are
  sorted in 120 ms, and one resample of those would take 6 to 28 ms.
- Classes are not stratified: the next month's base rate varies too, and precision, lift and the share
  flagged with it. Recall does not depend on it.
- With few hits a bootstrap of rows is too narrow; Jeffreys's half row corrects that. Normal scores 1 or 2.5
  standard deviations apart, 2 % or 5 % positive, 500 to 10,000 rows, rates and shares of 0.5 to 10 %, 300
  samples of each: the 95 % intervals covered recall in 94 to 100 % and precision, capture and lift in 94 to
  100 %, with scores rounded to half a standard deviation in 89 to 100 % of 120. Percentiles of a bootstrap
  of rows covered recall in 72 to 98 %.
- Where orders' amounts are given, a missed fraud costs `missed_fraud` times its amount.
- A rate that allows no false alarm in the sample has a recall but no interval: there 82 to 94 % were covered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy.special import expit, logit, ndtri

from n3r.estimate import FEW_ROWS, LEVEL, NOT_ENOUGH, Estimate, bounded, checked, classes, table
from n3r.metrics import MAX_POINTS

RATES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.10)
FLAGGED = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1)  # of `threshold_table`
DRAWS = 4000  # from seed to seed a bound moves by 1 to 2 % of the interval's width
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True)
class Costs:
    """What one wrong decision costs, in any currency; a right one costs nothing.

    missed_fraud: of a fraud or, where amounts are given, of each unit of its amount.
    Raises ValueError on costs that are not positive and finite.
    """

    missed_fraud: float
    false_alarm: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"cost {field.name} {value}: expected a positive finite number")

    def per_1000(self, missed: ArrayLike, n_false_alarms: ArrayLike, n: int) -> ArrayLike:
        """The cost of frauds or amounts missed and of false alarms in n orders, per 1,000 orders."""
        return (missed * self.missed_fraud + n_false_alarms * self.false_alarm) * 1000 / n


class _Ranking(NamedTuple):
    """Distinct scores (K,), highest first; orders, frauds, their amounts at or above the first i (K + 1,)."""

    score: np.ndarray
    flagged: np.ndarray
    caught: np.ndarray
    amount: np.ndarray | None = None

    @property
    def n(self) -> int:
        return int(self.flagged[-1])

    @property
    def n_positive(self) -> int:
        return int(self.caught[-1])

    @property
    def n_negative(self) -> int:
        return self.n - self.n_positive

    @property
    def false_alarms(self) -> np.ndarray:
        return self.flagged - self.caught

    @property
    def is_enough(self) -> bool:
        return min(self.n_positive, self.n_negative) >= FEW_ROWS

    @property
    def counts(self) -> dict[str, int]:
        return {"n": self.n, "n_positive": self.n_positive}


def operating_points(
    y: ArrayLike, p: ArrayLike, rates: Sequence[float] = RATES, seed: int = 0
) -> pl.DataFrame:
    """Recall and precision at the lowest threshold whose false-positive rate is at most each of `rates`.

    Columns: fpr (allowed), fpr_reached, threshold (null: nothing is flagged), flagged, recall and precision
    with _low and _high, n, n_positive, note. Recall is that of `metrics.recall_at_fpr`. A rate finer than one
    false alarm in the sample has null bounds and a note; fewer than `estimate.FEW_ROWS` rows of a class leave
    all figures null with the note "not enough data". Raises ValueError on bad labels or scores and on rates
    outside (0, 1).
    """
    _require("rates", rates, lambda rate: 0 < rate < 1, "(0, 1)")
    ranking = _ranked(y, p)
    unknown = {"note": NOT_ENOUGH}
    rows = [
        {
            "fpr": rate,
            **(_operating_point(ranking, rate, seed) if ranking.is_enough else unknown),
            **ranking.counts,
        }
        for rate in rates
    ]
    figures = ("fpr_reached", "threshold", "flagged", *bounded("recall"), *bounded("precision"))
    return table(rows, ("fpr", *figures, "n", "n_positive", "note"))


def top_shares(y: ArrayLike, p: ArrayLike, shares: Sequence[float] = RATES, seed: int = 0) -> pl.DataFrame:
    """Precision, capture (the share of all frauds) and lift over the base rate in the top shares of orders.

    Columns: share, n_orders (whole orders in it), precision, capture and lift with _low and _high, n,
    n_positive, note. Where tied scores straddle the cut the figures are their expected value over a random
    order of the tied. A share of less than one order, or fewer than `estimate.FEW_ROWS` rows of a class, has
    null figures and the note "not enough data". Raises ValueError on bad labels or scores and on shares
    outside (0, 1].
    """
    _require("shares", shares, lambda share: 0 < share <= 1, "(0, 1]")
    ranking = _ranked(y, p)
    rows = []
    for share in shares:
        n_orders = _whole(share * ranking.n)
        enough = ranking.is_enough and n_orders
        figures = _top_share(ranking, n_orders, seed) if enough else {"note": NOT_ENOUGH}
        rows.append({"share": share, "n_orders": n_orders, **figures, **ranking.counts})
    figures = (*bounded("precision"), *bounded("capture"), *bounded("lift"))
    return table(rows, ("share", "n_orders", *figures, "n", "n_positive", "note"))


def gain_points(y: ArrayLike, p: ArrayLike) -> pl.DataFrame:
    """The cumulative gain curve, at most `metrics.MAX_POINTS` points; no row with one class only.

    Columns: flagged, caught (the share of frauds), n, n_positive. The lift at a point is caught / flagged.
    """
    ranking = _ranked(y, p)
    at = _spread(ranking) if 0 < ranking.n_positive < ranking.n else np.arange(0)
    caught = ranking.caught[at] / max(ranking.n_positive, 1)
    return _points(ranking, flagged=ranking.flagged[at] / max(ranking.n, 1), caught=caught)


def threshold_table(
    y: ArrayLike,
    p: ArrayLike,
    costs: Costs,
    shares: Sequence[float] = FLAGGED,
    amount: ArrayLike | None = None,
) -> pl.DataFrame:
    """The lowest thresholds that flag at most each of `shares` of orders, and the cheapest: what each does.

    Columns: threshold (null: nothing is flagged), n_flagged, n_caught, n_missed, n_false_alarms, flagged,
    precision, recall, fpr, cost_per_1000 (orders), amount_caught, amount_missed, n, n_positive, note,
    is_cheapest. `amount`, (N,), is what orders are worth; without it those two are null. Fewer than
    `estimate.FEW_ROWS` rows of a class leave rates and costs null with the note "not enough data". Raises
    ValueError on bad labels, scores or amounts and on shares outside [0, 1].
    """
    _require("shares", shares, lambda share: 0 <= share <= 1, "[0, 1]")
    ranking = _ranked(y, p, amount)
    allowed = [_whole(share * ranking.n) for share in shares]
    best = [int(np.argmin(_costs(ranking, costs)))] if ranking.is_enough else []
    at = np.unique([*(np.searchsorted(ranking.flagged, allowed, side="right") - 1), *best]).tolist()
    found = table([_decision(ranking, i, costs) for i in at], _decision(ranking, 0, costs))
    return found.with_columns(is_cheapest=pl.Series([i in best for i in at], dtype=pl.Boolean))


def at_threshold(
    y: ArrayLike, p: ArrayLike, threshold: float | None, costs: Costs, amount: ArrayLike | None = None
) -> dict[str, Any]:
    """The row of `threshold_table` of one given threshold; None flags nothing.

    A threshold chosen on validation rows is judged by this on test rows.
    """
    ranking = _ranked(y, p, amount)
    if threshold is not None and not isfinite(threshold):
        raise ValueError(f"threshold {threshold}: expected a finite number, or None to flag nothing")
    at = 0 if threshold is None else np.searchsorted(-ranking.score, -threshold, side="right")
    return _decision(ranking, int(at), costs) | {"threshold": threshold}


def at_thresholds(
    y: ArrayLike, p: ArrayLike, thresholds: ArrayLike, amount: ArrayLike | None = None
) -> dict[str, Any]:
    """What lies at or above each of K thresholds, lists `flagged`, `caught` and, with amounts, `amount`.

    And of all rows: n, n_frauds, total, what the frauds are worth.
    """
    ranking = _ranked(y, p, amount)
    at = np.searchsorted(-ranking.score, -np.asarray(thresholds, np.float64), side="right")
    found = {"flagged": ranking.flagged[at].tolist(), "caught": ranking.caught[at].tolist()}
    found |= {"n": ranking.n, "n_frauds": ranking.n_positive}
    if ranking.amount is None:
        return found
    return {**found, "amount": ranking.amount[at].tolist(), "total": float(ranking.amount[-1])}


def cheapest(y: ArrayLike, p: ArrayLike, costs: Costs, amount: ArrayLike | None = None) -> dict[str, Any]:
    """The decision of least cost over all distinct thresholds, flagging none and flagging all among them.

    Keys: those of `at_threshold`, and flag_none_per_1000 and flag_all_per_1000, the cost of either. Of equal
    costs the one that flags fewest. The least cost of a sample flatters itself: judge its threshold with
    `at_threshold` on other rows.
    """
    ranking = _ranked(y, p, amount)
    if not ranking.is_enough:
        return _decision(ranking, 0, costs) | dict.fromkeys(("flag_none_per_1000", "flag_all_per_1000"))
    cost = _costs(ranking, costs)
    ends = {"flag_none_per_1000": float(cost[0]), "flag_all_per_1000": float(cost[-1])}
    return _decision(ranking, int(np.argmin(cost)), costs) | ends


def cost_points(y: ArrayLike, p: ArrayLike, costs: Costs, amount: ArrayLike | None = None) -> pl.DataFrame:
    """Cost per 1,000 orders over the share flagged, at most `metrics.MAX_POINTS` points.

    Columns: flagged, cost_per_1000, n, n_positive. Points lie dense where few orders are flagged, for a
    logarithmic axis. No row with fewer than `estimate.FEW_ROWS` rows of a class.
    """
    ranking = _ranked(y, p, amount)
    at = _spread(ranking) if ranking.is_enough else np.arange(0)
    cost = _costs(ranking, costs)[at] if ranking.n else np.zeros(0)
    return _points(ranking, flagged=ranking.flagged[at] / max(ranking.n, 1), cost_per_1000=cost)


def average_precision(y: ArrayLike, p: ArrayLike) -> Estimate:
    """Average precision with its logit interval; without a value for few rows.

    Source: Boyd, Eng & Page 2013. On normal scores of average precision 0.08 to 0.85, 2 % and 5 % positive,
    it covered the truth in 92 to 98 % of 1,500 samples of 500 rows (10 or 25 positives), in 94 to 99 % of
    2,000 and 10,000 rows. The delta method's was narrower and covered 86 to 95 % at 500 rows.
    """
    from sklearn.metrics import average_precision_score  # sklearn takes 1.3 s to import

    y, p = checked(y, p=p)
    n_positive = int(y.sum())
    if min(classes(y)) < FEW_ROWS:
        return Estimate(n=y.size)
    value = float(average_precision_score(y, p))
    if value >= 1 - 1e-12:  # each of n_positive draws was a perfect one
        return Estimate(value, TAILS[0] ** (1 / n_positive), 1.0, y.size)
    half = ndtri(TAILS[1]) / np.sqrt(n_positive * value * (1 - value))
    return Estimate(value, *(float(expit(logit(value) + side)) for side in (-half, half)), y.size)


def _ranked(y: ArrayLike, p: ArrayLike, amount: ArrayLike | None = None) -> _Ranking:
    y, p = checked(y, p=p)
    order = np.argsort(-p, kind="stable")
    score = p[order]
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if score.size else np.arange(0)
    caught = np.cumsum(y[order])[ends]
    ranking = _Ranking(score[ends], np.append(0, ends + 1), np.append(0, caught))
    if amount is None:
        return ranking
    worth = np.asarray(amount, np.float64)
    if worth.shape != y.shape or not (np.isfinite(worth) & (worth >= 0)).all():
        raise ValueError(f"amount: expected {y.size} finite numbers from 0")
    return ranking._replace(amount=np.append(0, np.cumsum((y * worth)[order])[ends]))


def _operating_point(ranking: _Ranking, rate: float, seed: int) -> dict[str, float | str | None]:
    n_positive, n_negative, false_alarms = ranking.n_positive, ranking.n_negative, ranking.false_alarms
    allowed = _whole(rate * n_negative)
    at = np.searchsorted(false_alarms, allowed, side="right") - 1
    hits, n_flagged = int(ranking.caught[at]), int(ranking.flagged[at])
    recall = Estimate(hits / n_positive, n=n_positive)
    precision = Estimate(hits / n_flagged if n_flagged else None, n=n_flagged)
    if allowed:
        rng = np.random.default_rng(seed)
        above = rng.binomial(n_negative, rate, DRAWS)
        drawn = np.searchsorted(false_alarms, above, side="right") - 1
        recalls = _jeffreys(rng, ranking.caught[drawn], n_positive)
        alarms = false_alarms[drawn]
        used = np.where(alarms == above, 1, _jeffreys(rng, alarms, above))  # ties may not fill the rate
        base = _jeffreys(rng, np.full(DRAWS, n_positive), ranking.n)
        precisions = base * recalls / (base * recalls + (1 - base) * (rate * used))
        recall, precision = _with_interval(recall, recalls), _with_interval(precision, precisions)
    return {
        "fpr_reached": (n_flagged - hits) / n_negative,
        "threshold": float(ranking.score[at - 1]) if at else None,
        "flagged": n_flagged / ranking.n,
        **recall.columns("recall"),
        **precision.columns("precision"),
        "note": None if allowed else f"finer than one false alarm in {n_negative:,} negatives",
    }


def _top_share(ranking: _Ranking, n_orders: int, seed: int) -> dict[str, float | None]:
    n, n_positive = ranking.n, ranking.n_positive
    share, base = n_orders / n, n_positive / n
    hits = float(np.interp(n_orders, ranking.flagged, ranking.caught))
    rng = np.random.default_rng(seed)
    above = rng.binomial(n, share, DRAWS)
    drawn = np.interp(above, ranking.flagged, ranking.caught)
    inside = _jeffreys(rng, drawn, above)
    total = share * inside + (1 - share) * _jeffreys(rng, n_positive - drawn, n - above)
    return {
        **_with_interval(Estimate(hits / n_orders, n=n_orders), inside).columns("precision"),
        **_with_interval(Estimate(hits / n_positive, n=n), share * inside / total).columns("capture"),
        **_with_interval(Estimate(hits / n_orders / base, n=n), inside / total).columns("lift"),
    }


def _jeffreys(rng: np.random.Generator, hits: np.ndarray, of: np.ndarray | int) -> np.ndarray:
    return rng.beta(hits + 0.5, of - hits + 0.5)


def _with_interval(estimate: Estimate, drawn: np.ndarray) -> Estimate:
    """The middle of the draws, stretched to the value: none of all is a bound of 0, not near it."""
    if (value := estimate.value) is None:
        return estimate
    low, high = np.quantile(drawn, TAILS)
    return replace(estimate, low=min(float(low), value), high=max(float(high), value))


def _costs(ranking: _Ranking, costs: Costs) -> np.ndarray:
    """(K + 1,) per 1,000 orders, from flagging none to flagging all."""
    caught = ranking.caught if ranking.amount is None else ranking.amount
    missed = caught[-1] - caught
    return costs.per_1000(missed, ranking.false_alarms, ranking.n)


def _decision(ranking: _Ranking, at: int, costs: Costs) -> dict[str, Any]:
    """What flagging the first `at` distinct scores does."""
    n, n_positive = ranking.n, ranking.n_positive
    n_flagged, n_caught = int(ranking.flagged[at]), int(ranking.caught[at])
    n_false_alarms, n_missed = n_flagged - n_caught, n_positive - n_caught
    rates = dict.fromkeys(("flagged", "precision", "recall", "fpr", "cost_per_1000"))
    worth, missed = dict.fromkeys(("amount_caught", "amount_missed")), n_missed
    if ranking.amount is not None:
        caught, missed = float(ranking.amount[at]), float(ranking.amount[-1] - ranking.amount[at])
        worth = {"amount_caught": caught, "amount_missed": missed}
    if ranking.is_enough:
        rates = {
            "flagged": n_flagged / n,
            "precision": n_caught / n_flagged if n_flagged else None,
            "recall": n_caught / n_positive,
            "fpr": n_false_alarms / ranking.n_negative,
            "cost_per_1000": costs.per_1000(missed, n_false_alarms, n),
        }
    return {
        "threshold": float(ranking.score[at - 1]) if at else None,
        "n_flagged": n_flagged,
        "n_caught": n_caught,
        "n_missed": n_missed,
        "n_false_alarms": n_false_alarms,
        **rates,
        **worth,
        **ranking.counts,
        "note": None if ranking.is_enough else NOT_ENOUGH,
    }


def _spread(ranking: _Ranking) -> np.ndarray:
    """At most MAX_POINTS of the K + 1 decisions, both ends among them, each 1.4 % further at a million."""
    last = ranking.score.size
    if last < MAX_POINTS:
        return np.arange(last + 1)
    return np.append(0, np.unique(np.geomspace(1, last, MAX_POINTS - 1).round().astype(np.int64)))


def _points(ranking: _Ranking, **columns: np.ndarray) -> pl.DataFrame:
    counts = (pl.lit(count, pl.Int64).alias(name) for name, count in ranking.counts.items())
    return pl.DataFrame(columns).with_columns(*counts)


def _whole(count: float) -> int:
    return int(count + 1e-9)  # 0.29 * 100 is 28.999...


def _require(what: str, values: Sequence[float], good: Callable[[float], bool], expected: str) -> None:
    if wrong := [value for value in values if not good(value)]:
        raise ValueError(f"{what}: {', '.join(map(str, wrong))} not in {expected}")
