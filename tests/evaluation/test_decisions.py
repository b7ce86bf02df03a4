"""Operating points, top shares, gains and costs, against brute force, sklearn and resampled rows."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, confusion_matrix

from n3r import metrics
from n3r.evaluation import decisions
from n3r.evaluation.decisions import Costs

COSTS = Costs(missed_fraud=100, false_alarm=7)
# Ten orders, scores falling from 0.9: frauds at ranks 1, 2, 4, 7, 10; the sixth and seventh are tied.
Y = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 1])
P = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4, 0.3, 0.2, 0.1])


def tied(least: int = metrics.FEW_ROWS):
    """Labels with at least so many rows of each class, scores in tenths."""
    row = st.tuples(st.integers(0, 1), st.integers(-3, 6).map(lambda k: k / 10))
    rows = st.lists(row, min_size=2 * least, max_size=60)
    rows = rows.filter(lambda rs: least <= sum(y for y, _ in rs) <= len(rs) - least)
    return rows.map(lambda rs: tuple(np.array(column) for column in zip(*rs, strict=True)))


def draw(n: int, seed: int, rate: float = 0.05, shift: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < rate
    return y.astype(int), rng.normal(0, 1, n) + shift * y


def brute_force(y: np.ndarray, p: np.ndarray) -> list[tuple[float | None, int, int, int, int]]:
    """(threshold, true and false positives, misses, legitimate orders let through) of every threshold."""
    rows = []
    for threshold in [None, *sorted(set(p.tolist()), reverse=True)]:
        flagged = np.zeros(len(p), bool) if threshold is None else p >= threshold
        (tn, fp), (fn, tp) = confusion_matrix(y, flagged, labels=[0, 1])
        rows.append((threshold, tp, fp, fn, tn))
    return rows


def per_1000(row, costs: Costs = COSTS) -> float:
    _, tp, fp, fn, tn = row
    return 1000 * (fn * costs.missed_fraud + fp * costs.false_alarm) / (tp + fp + fn + tn)


# --- operating points


@given(tied(), st.sampled_from([0.01, 0.2, 0.25, 0.29, 0.5, 0.99]))
def test_operating_point_is_the_best_allowed_threshold(data, rate):
    y, p = data
    row = decisions.operating_points(y, p, [rate]).row(0, named=True)
    allowed = [r for r in brute_force(y, p) if r[2] <= rate * (y == 0).sum() + 1e-9]
    threshold, tp, fp, fn, tn = allowed[-1]
    assert row["threshold"] == threshold
    assert row["recall"] == metrics.recall_at_fpr(y, p, rate) == pytest.approx(tp / (tp + fn))
    assert row["fpr_reached"] == pytest.approx(fp / (fp + tn))
    assert row["flagged"] == pytest.approx((tp + fp) / y.size)
    assert row["precision"] == (pytest.approx(tp / (tp + fp)) if tp + fp else None)
    if row["recall_low"] is not None:
        assert 0 <= row["recall_low"] <= row["recall"] <= row["recall_high"] <= 1
    if row["precision_low"] is not None:
        assert 0 <= row["precision_low"] <= row["precision"] <= row["precision_high"] <= 1


def test_a_rate_finer_than_one_false_alarm_has_no_interval():
    row = decisions.operating_points(Y, P, [0.1]).row(0, named=True)
    assert (row["recall"], row["precision"], row["fpr_reached"]) == (2 / 5, 1.0, 0.0)
    assert row["recall_low"] is row["recall_high"] is row["precision_low"] is row["precision_high"] is None
    assert row["note"] == "finer than one false alarm in 5 negatives"


def test_intervals_agree_with_a_bootstrap_of_the_rows():
    n = 20_000
    y, p = draw(n, seed=3)
    rng = np.random.default_rng(0)
    ours, tops = decisions.operating_points(y, p, [0.05]), decisions.top_shares(y, p, [0.02])
    order = np.argsort(-p)
    resampled = []
    for _ in range(400):
        w = np.bincount(rng.integers(0, y.size, y.size), minlength=y.size)[order]
        caught, flagged = np.cumsum(w * y[order]), np.cumsum(w)
        at = np.searchsorted(flagged - caught, 0.05 * (flagged[-1] - caught[-1]), "right") - 1
        top = np.interp(n // 50, flagged, caught)
        figures = (caught[at] / caught[-1], caught[at] / flagged[at])
        resampled.append((*figures, top / (n // 50), top / caught[-1], top / caught[-1] / 0.02))
    columns = [(ours, "recall"), (ours, "precision"), *((tops, c) for c in ("precision", "capture", "lift"))]
    for (table, column), values in zip(columns, np.array(resampled).T, strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        near = 0.12 * (high - low)
        assert table[f"{column}_low"][0] == pytest.approx(low, abs=near), column
        assert table[f"{column}_high"][0] == pytest.approx(high, abs=near), column


def test_precision_above_all_frauds_varies_as_the_base_rate():
    # 100 of 1,000 orders hold all 50 frauds: the share of frauds in the top tenth is ten times a base rate
    # whose standard error is sqrt(0.05 * 0.95 / 1000).
    row = decisions.top_shares([1] * 50 + [0] * 950, np.arange(1000, 0, -1), [0.1]).row(0, named=True)
    half = 1.959964 * 10 * math.sqrt(0.05 * 0.95 / 1000)
    assert row["precision_high"] - row["precision_low"] == pytest.approx(2 * half, rel=0.06)


def test_shares_of_whole_rows_are_not_lost_to_rounding():
    # 0.29 * 100 is 28.999...
    y, p = [1] * 50 + [0] * 100, np.arange(150) % 100
    assert decisions.operating_points(y, p, [0.29])["fpr_reached"][0] == 0.29
    assert decisions.top_shares(y[:100], p[:100], [0.29])["n_orders"][0] == 29


@pytest.mark.parametrize("step", [0, 0.5])
def test_intervals_cover_the_truth_with_few_positives_and_with_ties(step):
    # 2 % of 1,000 rows: about 20 frauds. With steps the threshold is the lowest that lets through 5 %.
    threshold = norm.isf(0.05) if step == 0 else math.ceil(norm.isf(0.05) / step) * step
    recall, fpr = norm.sf(threshold - 1.5), norm.sf(threshold)
    truth = {"recall": recall, "precision": 0.02 * recall / (0.02 * recall + 0.98 * fpr)}
    covered = []
    for seed in range(300):
        y, p = draw(1000, seed, rate=0.02)
        p = np.floor(p / step) * step if step else p
        row = decisions.operating_points(y, p, [0.05], seed=seed).row(0, named=True)
        covered.append([row[f"{k}_low"] <= v <= row[f"{k}_high"] for k, v in truth.items()])
    assert (np.mean(covered, axis=0) > 0.92).all(), np.mean(covered, axis=0)


def test_no_fraud_caught_still_has_an_upper_bound():
    row = decisions.operating_points([1] * 20 + [0] * 80, np.arange(100), [0.05]).row(0, named=True)
    assert (row["recall"], row["recall_low"], row["precision"]) == (0, 0, 0)
    # Jeffreys' 97.5 % bound of 0 in 20.
    assert row["recall_high"] == pytest.approx(0.117, abs=0.01)
    assert 0 < row["precision_high"] < 1


def test_constant_scores_flag_all_or_none():
    row = decisions.operating_points(Y, np.full(10, 0.5), [0.4]).row(0, named=True)
    assert (row["threshold"], row["recall"], row["precision"], row["precision_low"]) == (None, 0, None, None)
    top = decisions.top_shares(Y, np.full(10, 0.5), [0.2]).row(0, named=True)
    assert (top["precision"], top["capture"], top["lift"]) == (0.5, 0.2, 1.0)


def test_same_seed_same_digits_and_no_row_depends_on_another():
    y, p = draw(2000, seed=0)
    for statistic in (decisions.operating_points, decisions.top_shares):
        table = statistic(y, p, [0.01, 0.05])
        assert statistic(y, p, [0.01, 0.05]).equals(table)
        assert statistic(y, p, [0.05]).equals(table.tail(1))
        assert not statistic(y, p, [0.01, 0.05], seed=1).equals(table)


# --- top shares and gain


@given(tied(), st.sampled_from([0.1, 0.29, 0.5, 1.0]))
def test_top_share_is_the_mean_over_orders_of_the_tied(data, share):
    y, p = data
    row = decisions.top_shares(y, p, [share]).row(0, named=True)
    k = int(share * y.size + 1e-9)
    cut = np.sort(p)[-k]
    above, at = p > cut, p == cut
    hits = y[above].sum() + (k - above.sum()) * y[at].mean()
    assert row["n_orders"] == k
    assert row["precision"] == pytest.approx(hits / k)
    assert row["capture"] == pytest.approx(hits / y.sum())
    assert row["lift"] == pytest.approx(hits / k / y.mean())
    for name in ("precision", "capture", "lift"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_top_shares_by_hand():
    # The top 60 % ends between the two tied: frauds 1, 2, 4 and half of one.
    table = decisions.top_shares(Y, P, [0.05, 0.2, 0.6])
    rows = table.select("n_orders", "precision", "capture", "lift", "note")
    assert rows.row(0) == (0, None, None, None, metrics.NOT_ENOUGH)
    assert rows.row(1) == (2, 1.0, 0.4, 2.0, None)
    assert rows.row(2) == (6, pytest.approx(3.5 / 6), 0.7, pytest.approx(3.5 / 3), None)


def test_gain_curve_by_hand():
    table = decisions.gain_points(Y, P)
    assert table["flagged"].to_list() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 1]
    assert table["caught"].to_list() == [0, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8, 0.8, 1]
    assert table.schema["n"] == table.schema["n_positive"] == pl.Int64


@pytest.mark.parametrize("curve", [decisions.gain_points, lambda y, p: decisions.cost_points(y, p, COSTS)])
def test_curves_of_many_rows_keep_their_ends_and_enough_points(curve):
    y, p = draw(200_000, seed=2)
    table = curve(y, p)
    flagged = table["flagged"].to_numpy()
    assert 500 < len(table) <= metrics.MAX_POINTS
    assert (flagged[0], flagged[1], flagged[-1]) == (0, 1 / 200_000, 1)
    assert (np.diff(flagged) > 0).all() and np.diff(flagged).max() < 0.02
    hits = y[np.argsort(-p)][: round(flagged[300] * 200_000)].sum()
    if "caught" in table.columns:
        assert table["caught"][300] == hits / y.sum()


# --- thresholds and costs


@given(tied(), st.floats(0.01, 100), st.floats(0.01, 100))
def test_cheapest_is_the_least_of_all_thresholds(data, missed, alarm):
    y, p = data
    costs, rows = Costs(missed, alarm), brute_force(y, p)
    best = decisions.cheapest(y, p, costs)
    each = [per_1000(row, costs) for row in rows]
    assert best["cost_per_1000"] == pytest.approx(min(each))
    assert best["flag_none_per_1000"] == pytest.approx(each[0])
    assert best["flag_all_per_1000"] == pytest.approx(each[-1])
    [(_, tp, fp, fn, _)] = [row for row in rows if row[0] == best["threshold"]]
    assert (tp, fp, fn) == (best["n_caught"], best["n_false_alarms"], best["n_missed"])


@given(tied(), st.integers(0, 1000))
def test_frauds_weigh_by_their_amounts(data, seed):
    y, p = data
    amount = np.random.default_rng(seed).exponential(50, len(y)).round()
    flagged = [np.zeros(len(p), bool), *(p >= value for value in sorted(set(p.tolist()), reverse=True))]
    cost = [float((amount * y)[~f].sum() * COSTS.missed_fraud + COSTS.false_alarm * (f & (y == 0)).sum())
            for f in flagged]  # fmt: skip
    best = decisions.cheapest(y, p, COSTS, amount)
    assert best["cost_per_1000"] == pytest.approx(1000 * min(cost) / len(y))
    assert best["flag_none_per_1000"] == pytest.approx(1000 * cost[0] / len(y))
    assert best["amount_caught"] + best["amount_missed"] == pytest.approx((amount * y).sum())
    judged = decisions.at_threshold(y, p, best["threshold"], COSTS, amount)
    assert judged.items() <= best.items()
    curve = decisions.cost_points(y, p, COSTS, amount)["cost_per_1000"]
    assert curve.min() == pytest.approx(best["cost_per_1000"])
    alike = decisions.threshold_table(y, p, COSTS, amount=np.ones(len(y)))
    of_numbers = decisions.threshold_table(y, p, COSTS)
    assert alike.drop("amount_caught", "amount_missed").equals(
        of_numbers.drop("amount_caught", "amount_missed")
    )


def test_of_equal_costs_the_one_that_stops_fewest():
    # A fraud and a legitimate order by turns: each pair costs as much flagged as not.
    best = decisions.cheapest([0, 1] * 5, np.arange(10, 0, -1), Costs(1, 1))
    assert (best["threshold"], best["cost_per_1000"]) == (None, 500)


def test_thresholds_by_hand():
    table = decisions.threshold_table(Y, P, COSTS, shares=[0, 0.4, 0.6])
    # Flagging 60 % would part the tie at 0.4, so 50 % are flagged; letting one of five frauds through costs
    # 100 and five false alarms cost 35, so the cheapest flags all.
    columns = ("threshold", "n_flagged", "n_caught", "n_missed", "n_false_alarms", "is_cheapest")
    assert table.select(columns).rows() == [
        (None, 0, 0, 5, 0, False),
        (0.6, 4, 3, 2, 1, False),
        (0.5, 5, 3, 2, 2, False),
        (0.1, 10, 5, 0, 5, True),
    ]
    assert table["cost_per_1000"].to_list() == [50_000, 20_700, 21_400, 3_500]
    assert table["precision"].to_list() == [None, 0.75, 0.6, 0.5]
    assert table["recall"].to_list() == [0, 0.6, 0.6, 1]
    assert table["fpr"].to_list() == [0, 0.2, 0.4, 1]


def test_a_threshold_chosen_on_other_rows():
    # 0.45 flags what 0.5 flags, 2 nothing, -1 everything.
    rows = [decisions.at_threshold(Y, P, t, COSTS) for t in (0.45, 0.5, 2, None, -1)]
    assert [row["n_flagged"] for row in rows] == [5, 5, 0, 0, 10]
    assert [row["threshold"] for row in rows] == [0.45, 0.5, 2, None, -1]
    assert (rows[0]["cost_per_1000"], rows[0]["n"], rows[0]["n_positive"]) == (21_400, 10, 5)


def test_the_cheapest_threshold_costs_the_same_when_given():
    y, p = draw(3000, seed=5)
    best = decisions.cheapest(y, p, COSTS)
    assert decisions.at_threshold(y, p, best["threshold"], COSTS).items() <= best.items()
    table = decisions.threshold_table(y, p, COSTS).filter("is_cheapest")
    assert table.drop("is_cheapest").row(0, named=True).items() <= best.items()
    curve = decisions.cost_points(y, p, COSTS)
    assert curve["cost_per_1000"].min() >= best["cost_per_1000"]
    assert curve["cost_per_1000"][0] == best["flag_none_per_1000"]


# --- average precision


@given(tied())
def test_average_precision_is_sklearns(data):
    y, p = data
    ap = decisions.average_precision(y, p)
    assert ap.value == average_precision_score(y, p)
    assert 0 < ap.low <= ap.value <= ap.high <= 1


def test_average_precision_interval_by_hand():
    # Five frauds among six tied scores, above four legitimate orders: an average precision of 5 / 6.
    y, p = [1, 1, 1, 1, 0, 0, 0, 0, 0, 1], np.array([9, 9, 9, 9, 9, 1, 1, 1, 1, 9])
    found = decisions.average_precision(y, p)
    half = 1.959964 / math.sqrt(5 * (5 / 6) * (1 / 6))
    ends = [1 / (1 + math.exp(side - math.log(5))) for side in (half, -half)]
    assert (found.value, found.low, found.high) == pytest.approx((5 / 6, *ends), abs=1e-6)


def test_perfect_order_is_not_certainty():
    ap = decisions.average_precision([1] * 5 + [0] * 9, np.arange(14, 0, -1))
    assert (ap.value, ap.low, ap.high) == (pytest.approx(1), pytest.approx(0.025**0.2), 1)


# --- what the rows cannot show, and bad input


@pytest.mark.parametrize("y", [[], [0] * 10, [1] * 10, [1] * 4 + [0] * 90, [0] * 4 + [1] * 90])
def test_too_few_rows_of_a_class_are_not_enough_data(y):
    p = np.arange(len(y)) / 100
    points, tops = decisions.operating_points(y, p), decisions.top_shares(y, p)
    assert set(points["note"]) == set(tops["note"]) == {metrics.NOT_ENOUGH}
    assert points.drop("fpr", "n", "n_positive", "note").null_count().row(0) == (6,) * 9
    assert tops.drop("share", "n_orders", "n", "n_positive", "note").null_count().row(0) == (6,) * 9
    table = decisions.threshold_table(y, p, COSTS)
    assert set(table["note"]) == {metrics.NOT_ENOUGH}
    assert table["cost_per_1000"].is_null().all() and table["recall"].is_null().all()
    assert table["n_flagged"].null_count() == 0
    best = decisions.cheapest(y, p, COSTS)
    assert best["cost_per_1000"] is best["flag_none_per_1000"] is best["flag_all_per_1000"] is None
    assert (best["note"], best["n"]) == (metrics.NOT_ENOUGH, len(y))
    assert decisions.at_threshold(y, p, 0.05, COSTS)["precision"] is None
    assert decisions.cost_points(y, p, COSTS).is_empty()
    assert decisions.average_precision(y, p).value is None
    assert decisions.gain_points(y, p).is_empty() == (len(set(y)) < 2)


@pytest.mark.parametrize("cost", [0, -1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["missed_fraud", "false_alarm"])
def test_costs_are_positive_and_finite(name, cost):
    with pytest.raises(ValueError, match=f"cost {name} {cost}: expected a positive finite number"):
        Costs(**{"missed_fraud": 1, "false_alarm": 1, name: cost})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decisions.operating_points(Y, P, [0.1, 0, 1.5]), r"rates: 0, 1.5 not in \(0, 1\)"),
        (lambda: decisions.operating_points(Y, P, [math.nan]), "rates: nan"),
        (lambda: decisions.top_shares(Y, P, [0]), r"shares: 0 not in \(0, 1\]"),
        (lambda: decisions.threshold_table(Y, P, COSTS, [-0.1]), r"shares: -0.1 not in \[0, 1\]"),
        (lambda: decisions.at_threshold(Y, P, math.nan, COSTS), "threshold nan"),
        (lambda: decisions.cheapest(Y + 1, P, COSTS), "labels: 5 of 10 are not 0 or 1"),
        (lambda: decisions.cheapest(Y, P, COSTS, -P), "amount: expected 10 finite numbers from 0"),
        (lambda: decisions.cost_points(Y, P, COSTS, P[:3]), "amount: expected 10"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
