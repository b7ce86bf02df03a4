"""Reliability, calibration figures and the known posterior, against brute force, sklearn and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from n3r import metrics
from n3r.evaluation import calibration
from n3r.evaluation.calibration import against_posterior, calibration_summary, posterior_bins

scored = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(st.integers(0, 10).map(lambda k: k / 10), st.floats(0, 1))),
    min_size=1,
    max_size=60,
).map(lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True)))
enough = scored.filter(lambda data: metrics.FEW_ROWS <= data[0].sum() <= data[0].size - metrics.FEW_ROWS)


def draw(n: int, seed: int, power: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores that are the true probability to a power, and that probability; base rate 5 %."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(0.5, 9.5, n)
    return (rng.random(n) < truth).astype(int), truth**power, truth


# --- bins


@given(scored, st.integers(1, 12))
def test_bins_hold_every_row_once_and_no_tie_is_split(data, n_bins):
    y, p = data
    table = calibration.reliability(y, p, n_bins)
    assert len(table) <= n_bins
    assert (table["n"].sum(), table["n_positive"].sum()) == (y.size, y.sum())
    ends = np.cumsum(table["n"].to_numpy())[:-1]
    ordered = np.sort(p)
    assert (ordered[ends] > ordered[ends - 1]).all()
    assert (table["mean_score"] * table["n"]).sum() == pytest.approx(p.sum())
    for low, observed, high in table.select("observed_low", "observed", "observed_high").iter_rows():
        assert 0 <= low <= observed + 1e-12 and observed <= high + 1e-12 and high <= 1


@pytest.mark.parametrize(
    ("n", "sizes"), [(1000, [100] * 10), (13, [1, 1, 2, 1, 1, 1, 2, 1, 1, 2]), (3, [1] * 3)]
)
def test_bins_of_distinct_scores_have_equal_numbers_of_rows(n, sizes):
    p = np.random.default_rng(0).random(n)
    assert sorted(calibration.reliability(np.zeros(n), p)["n"]) == sorted(sizes)


def test_reliability_by_hand():
    # Two bins of five; Wilson's 95 % interval of 0 in 5 is 0 to 0.4345, of 3 in 5 0.2307 to 0.8824.
    y, p = [0, 0, 0, 0, 0, 1, 0, 1, 0, 1], [0, 0.1, 0.1, 0.2, 0.1, 0.5, 0.9, 0.6, 0.5, 1]
    low, high = calibration.reliability(y, p, n_bins=2).rows()
    assert low == (pytest.approx(0.1), 0, 0, pytest.approx(0.4345, abs=1e-4), 5, 0)
    bounds = pytest.approx(0.2307, abs=1e-4), pytest.approx(0.8824, abs=1e-4)
    assert high == (pytest.approx(0.7), 0.6, *bounds, 5, 3)


def test_tied_scores_go_where_the_middle_of_their_ranks_lies():
    # Seven tied at ranks 3 to 9 of 10: their middle is in the upper half.
    assert calibration.reliability([0] * 10, [0.1] * 2 + [0.2] * 7 + [0.3], n_bins=2)["n"].to_list() == [2, 8]


def test_no_row_has_no_bin():
    assert calibration.reliability([], []).is_empty()
    assert posterior_bins([], []).is_empty()
    assert against_posterior([], [])["mean_error"] is None


# --- summary


@given(enough)
def test_brier_and_ece_by_their_definitions(data):
    y, p = data
    summary = calibration_summary(y, p)
    assert summary["brier"] == pytest.approx(brier_score_loss(y, p))
    assert summary["brier_skill"] == pytest.approx(1 - summary["brier"] / (y.mean() * (1 - y.mean())))
    assert summary["brier_low"] <= summary["brier"] <= summary["brier_high"]
    table = calibration.reliability(y, p)
    gaps = (table["observed"] - table["mean_score"]).abs() * table["n"] / y.size
    assert summary["ece"] == pytest.approx(gaps.sum())
    assert 0 <= summary["ece_null"] <= 1
    if p.sum() > 0:
        assert summary["observed_expected"] == pytest.approx(y.sum() / p.sum())
    else:
        assert summary["observed_expected"] is None


def test_chance_is_the_ece_of_scores_that_are_right():
    # Labels drawn from the very scores, over and over, have the calibration error that is foretold.
    y, p, _ = draw(2000, seed=1)
    rng = np.random.default_rng(5)
    redrawn = [(rng.random(p.size) < p).astype(int) for _ in range(300)]
    errors = []
    for labels in redrawn:
        table = calibration.reliability(labels, p)
        errors.append(((table["observed"] - table["mean_score"]).abs() * table["n"]).sum() / p.size)
    summary = calibration_summary(y, p)
    assert summary["ece_null"] == pytest.approx(np.mean(errors), rel=0.06)
    assert summary["ece_null_high"] == pytest.approx(np.quantile(errors, 0.95), rel=0.1)
    assert calibration_summary(y, p**0.5)["ece"] > 5 * summary["ece_null_high"]


def test_intervals_by_hand():
    # Errors of 0.04 (ninety), 0.64 (five) and 0.04 (five): a mean of 0.07. Expected 18 + 1 + 4 = 23 frauds.
    y, p = np.repeat([0, 1, 1], [90, 5, 5]), np.repeat([0.2, 0.2, 0.8], [90, 5, 5])
    summary = calibration_summary(y, p)
    deviation = math.sqrt((95 * 0.03**2 + 5 * 0.57**2) / 99) / 10
    factor = math.exp(1.959964 * deviation / 0.07)
    assert summary["brier"] == pytest.approx(0.07)
    assert [summary["brier_low"], summary["brier_high"]] == pytest.approx([0.07 / factor, 0.07 * factor])
    assert summary["brier_skill"] == pytest.approx(1 - 0.07 / 0.09)
    ratio = 10 / 23
    rest = 90 * (0.2 * ratio) ** 2 + 5 * (1 - 0.2 * ratio) ** 2 + 5 * (1 - 0.8 * ratio) ** 2
    factor = math.exp(1.959964 * math.sqrt(rest) / 23 / ratio)
    assert summary["observed_expected"] == pytest.approx(ratio)
    bounds = [summary["observed_expected_low"], summary["observed_expected_high"]]
    assert bounds == pytest.approx([ratio / factor, ratio * factor])


def test_slope_by_hand():
    # Two scores: the regression goes through both observed rates, 5 in 95 at 0.2 and 5 in 10 at 0.8, so the
    # slope is the ratio of the logits' steps; its variance is the sum of 1 / (n q (1 - q)) over the step.
    y, p = np.repeat([0, 1, 0, 1], [90, 5, 5, 5]), np.repeat([0.2, 0.2, 0.8, 0.8], [90, 5, 5, 5])
    summary = calibration_summary(y, p)
    step = 2 * math.log(4)
    slope = math.log(18) / step
    half = 1.959964 * math.sqrt(1 / (95 * (5 / 95) * (90 / 95)) + 1 / (10 / 4)) / step
    assert summary["slope"] == pytest.approx(slope, rel=1e-5)
    assert summary["intercept"] == pytest.approx(-math.log(18) / 2, abs=1e-4)
    assert [summary["slope_low"], summary["slope_high"]] == pytest.approx(
        [slope - half, slope + half], rel=1e-4
    )


def test_true_probabilities_are_calibrated_and_others_are_not():
    y, truth, _ = draw(20_000, seed=2)
    right, wrong = calibration_summary(y, truth), calibration_summary(y, truth**2)
    assert right["slope_low"] < 1 < right["slope_high"]
    assert right["observed_expected_low"] < 1 < right["observed_expected_high"]
    assert right["ece"] < right["ece_null_high"] and right["brier_skill"] > 0
    assert wrong["slope_high"] < 1 < wrong["observed_expected_low"]
    assert wrong["ece"] > wrong["ece_null_high"]


@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([0] * 5 + [1] * 5, np.arange(10) / 10),  # separated
        ([1] * 5 + [0] * 5, np.arange(10) / 10),
        ([0] * 5 + [1] * 5, np.full(10, 0.5)),
        ([0] * 5 + [1] * 5, [0.1] * 4 + [0.5] * 2 + [0.9] * 4),  # but for one tie
    ],
)
def test_no_slope_where_none_is_finite(y, p):
    summary = calibration_summary(y, p)
    assert {summary[k] for k in ("slope", "slope_low", "slope_high", "intercept")} == {None}
    assert summary["brier"] is not None


def test_scores_that_are_the_labels():
    y = np.array([0, 1] * 5)
    summary = calibration_summary(y, y)
    assert (summary["brier"], summary["brier_skill"], summary["ece"], summary["ece_null"]) == (0, 1, 0, 0)
    assert summary["observed_expected"] == 1


@pytest.mark.parametrize("y", [[], [0] * 10, [1] * 10, [1] * 4 + [0] * 90])
def test_too_few_rows_of_a_class_are_not_enough_data(y):
    summary = calibration_summary(y, np.full(len(y), 0.1))
    known = {"n": len(y), "n_positive": sum(y), "note": metrics.NOT_ENOUGH}
    known |= {"base_rate": np.mean(y), "mean_score": pytest.approx(0.1)} if y else {}
    assert {k: v for k, v in summary.items() if v is not None} == known
    assert set(summary) == set(calibration_summary([0, 1] * 5, np.arange(10) / 10))


def test_same_seed_same_digits():
    y, p, _ = draw(500, seed=3)
    assert calibration_summary(y, p) == calibration_summary(y, p)
    assert calibration_summary(y, p, seed=1)["ece_null"] != calibration_summary(y, p)["ece_null"]
    order = np.random.default_rng(0).permutation(500)
    shuffled, kept = calibration_summary(y[order], p[order]), calibration_summary(y, p)
    assert shuffled == {k: v if v is None else pytest.approx(v) for k, v in kept.items()}


# --- the known posterior


def test_against_posterior_by_hand():
    figures = against_posterior([0.1, 0.5, 0.9], [0.2, 0.2, 0.9])
    assert figures == {
        "n": 3,
        "mean_absolute_error": pytest.approx(0.4 / 3),
        "root_mean_square_error": pytest.approx(math.sqrt(0.1 / 3)),
        "mean_error": pytest.approx(0.2 / 3),
    }


def test_posterior_bins_by_hand():
    # Ten rows from 0 to 0.9 and a bin of tied ones above; quantiles lie 10 % into the range.
    p = np.append(np.arange(10) / 100, [0.5] * 10)
    posterior = np.append(np.arange(10) / 10, [0.25] * 10)
    first, last = posterior_bins(p, posterior, n_bins=2).rows()
    assert first == (pytest.approx(0.045), pytest.approx(0.45), pytest.approx(0.09), pytest.approx(0.81), 10)
    assert last == (0.5, 0.25, 0.25, 0.25, 10)


def test_posterior_bins_are_those_of_reliability():
    y, p, truth = draw(5000, seed=4, power=0.7)
    bins, table = posterior_bins(p, truth), calibration.reliability(y, p)
    assert bins.select("mean_score", "n").equals(table.select("mean_score", "n"))
    inside = bins["mean_posterior"].is_between(table["observed_low"], table["observed_high"])
    assert inside.sum() >= 8
    assert against_posterior(truth, truth)["root_mean_square_error"] == 0


# --- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibration.reliability([0, 1], [0.5, 1.2]), r"scores p: 1 of 2 are outside \[0, 1\]"),
        (lambda: calibration.reliability([0, 1], [0.5, 0.5], n_bins=0), "n_bins 0"),
        (lambda: calibration_summary([0, 1], [0.5, -3]), "outside"),
        (lambda: against_posterior([0.5], [0.5, 0.5]), "scores have 1 values, posterior has 2"),
        (lambda: against_posterior([0.5], [2]), "scores posterior: 1 of 1 are outside"),
        (lambda: posterior_bins([math.nan], [0.5]), "scores p: 1 of 1 are NaN"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
