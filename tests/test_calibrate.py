"""Calibrated probabilities beat raw ones on unseen rows, and percentiles keep the published shares."""

import json
import timeit

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from n3r.calibrate import (
    MAX_KNOTS,
    PERCENTILES,
    RESOLUTION,
    Calibration,
    Isotonic,
    Platt,
    fit_calibration,
    share_above,
)

scores_of_any_kind = hnp.arrays(
    np.float64,
    st.integers(1, 300),
    elements=st.one_of(
        st.sampled_from([0.0, 5e-324, 1e-300, 0.25, 0.5, float(np.float32(0.1)), 1 - 2**-53, 1.0]),  # ties
        st.floats(0, 1),
        st.floats(0, 1, width=32),
        st.floats(0, 1).map(lambda s: s**8),  # skewed
    ),
)


def binary(score):
    score = np.asarray(score)
    return np.stack([1 - score, score], axis=1)


def power_of_truth(n, power, seed=0, a=0.6, b=6.0):
    """Labels, float32 scores that are the true posterior to a power, and the posterior; base rate 9 %."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(a, b, n)
    return (rng.random(n) < truth).astype(np.int8), (truth**power).astype(np.float32), truth


def log_loss(label, p):
    return float(-np.log(np.clip(p[np.arange(len(label)), label], 1e-16, 1)).mean())


def percentiles_of(score):
    """A calibration of these scores whose labels are all unknown."""
    return fit_calibration(np.full(len(score), -1), binary(score))


def isotonic_only(y, score):
    calibration = fit_calibration(y, binary(score))
    assert calibration.method == "isotonic", calibration.log_loss
    return calibration


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_a_known_distortion_is_undone(power):
    """Out of sample, 3,000 rows to fit: raw loses 0.06 to 0.25 nats per row, calibrated less than 0.004."""
    y, score, _ = power_of_truth(3000, power)
    calibration = fit_calibration(y, binary(score))
    y_new, new, truth = power_of_truth(100_000, power, seed=1)
    raw, calibrated = log_loss(y_new, binary(new)), log_loss(y_new, calibration.calibrated(binary(new)))
    attainable = log_loss(y_new, binary(truth))
    assert raw - attainable > 0.05
    assert calibrated - attainable < 0.004
    assert calibrated < raw
    # Both are estimates of the same loss: 3,000 rows have a standard error of 0.009.
    assert abs(calibration.log_loss[calibration.method] - calibrated) < 0.03
    assert abs(calibration.calibrated(binary(new))[:, 1].mean() / truth.mean() - 1) < 0.1


def test_true_probabilities_are_left_alone():
    y, score, _ = power_of_truth(3000, 1.0, seed=1)
    calibration = fit_calibration(y, binary(score))
    assert calibration.method == "none"
    assert "model's own probabilities" in calibration.reason
    assert set(calibration.log_loss) == {"raw", "platt", "isotonic"}
    assert (calibration.calibrated(binary(score)) == binary(score)).all()


def test_the_lowest_loss_out_of_fold_chooses():
    """A logit with half the slope is Platt's own family; one that saturates is not."""
    rng = np.random.default_rng(0)
    truth = rng.beta(0.6, 6, 5000)
    y = rng.random(5000) < truth
    flattened = 1 / (1 + ((1 - truth) / truth) ** 0.5)
    stepped = np.where(truth < 0.2, truth * 0.1, 0.9 + truth * 0.1)
    chosen = [fit_calibration(y, binary(score)) for score in (flattened, stepped)]
    assert [c.method for c in chosen] == ["platt", "isotonic"]
    for calibration in chosen:
        assert calibration.log_loss[calibration.method] == min(calibration.log_loss.values())
    assert isinstance(chosen[0].maps[0], Platt)
    assert chosen[0].maps[0].slope == pytest.approx(2, rel=0.15)


def test_worked_example_of_isotonic():
    """20 rows at 0.2 without an event, 20 at 0.6 with ten, 20 at 0.4 with twelve, which are out of order.

    0.4 and 0.6 pool at their mean score 0.5, 22 events in 40 rows. The base rate is 22/60; it would
    make (0 + 0.367) / 21 of the block at 0.2, less than half an event, which is the floor.
    """
    score = np.repeat([0.2, 0.4, 0.6], 20)
    y = np.concatenate([np.zeros(20), np.arange(20) < 12, np.arange(20) < 10])
    calibration = isotonic_only(y, score)
    low, high = 0.5 / 21, (22 + 22 / 60) / 41
    np.testing.assert_allclose(calibration.maps[0].score, [0.2, 0.5])
    np.testing.assert_allclose(calibration.maps[0].probability, [low, high])
    risk = calibration.calibrated(binary([0.0, 0.2, 0.35, 0.5, 1.0]))[:, 1]
    np.testing.assert_allclose(risk, [low, low, (low + high) / 2, high, high])


def test_platt_is_the_maximum_of_its_likelihood():
    """Against scipy's minimiser on the same targets."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(3)
    truth = rng.beta(0.6, 6, 2000)
    y = rng.random(2000) < truth
    score = 1 / (1 + ((1 - truth) / truth) ** 0.4)
    calibration = fit_calibration(y, binary(score))
    assert calibration.method == "platt"
    x = np.log(score / (1 - score))
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    found = minimize(lambda w: (np.logaddexp(0, w[0] * x + w[1]) - target * (w[0] * x + w[1])).mean(), [1, 0])
    np.testing.assert_allclose(calibration.maps[0][:2], found.x, rtol=1e-3)


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0, 6.0])
def test_jitter_of_float32_does_not_jump_a_step(power):
    """1e-7 in a score moves a probability by 3e-5 at most with power 2, 2e-4 with 3, 9e-4 with 6."""
    for seed in range(10):
        y, score, _ = power_of_truth(1000, power, seed)
        calibration = fit_calibration(y, binary(score))
        grid = np.sort(np.concatenate([score.astype(np.float64), np.linspace(0, 1, 20_001)]))
        jittered = binary(np.clip(grid + 1e-7, 0, 1))
        moved = calibration.calibrated(jittered) - calibration.calibrated(binary(grid))
        assert abs(moved).max() < 2e-3, (seed, calibration.method)


@given(
    scores_of_any_kind.filter(lambda s: len(s) >= 20),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.2, 0.5]),
)
def test_any_scores_give_probabilities_that_never_fall(score, seed, share):
    rng = np.random.default_rng(seed)
    y = rng.random(len(score)) < share
    y[:10], y[10:20] = True, False
    calibration = fit_calibration(y, binary(score))
    grid = np.sort(np.concatenate([score, np.linspace(0, 1, 501), score + 1e-9])).clip(0, 1)
    p = calibration.calibrated(binary(grid))
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (np.diff(p[:, 1]) >= -1e-15).all()
    assert np.isfinite(list(calibration.log_loss.values())).all()
    if calibration.method != "none":
        assert 0 < p[:, 1].min() <= p[:, 1].max() < 1
    if calibration.method == "isotonic":
        knots = calibration.maps[0]
        assert len(knots.score) <= MAX_KNOTS
        assert (np.diff(knots.score) >= RESOLUTION).all()


def test_knots_stay_few():
    """301 groups of 300 rows, each with one event more than the last, would make 301 knots."""
    rate = np.repeat(np.arange(301) / 300, 300)
    y = np.tile(np.arange(300), 301) < rate * 300 - 0.5
    score = np.where(rate < 0.5, rate * 0.1, 0.9 + rate * 0.1)
    calibration = isotonic_only(y, score)
    assert len(calibration.maps[0].score) == MAX_KNOTS
    np.testing.assert_allclose(calibration.calibrated(binary(score))[:, 1], rate, atol=0.005)


def test_float32_zero_and_one_cost_no_infinite_loss():
    y = np.tile([0, 1], 50)
    score = np.where(y == 1, 1, 0).astype(np.float32)
    score[:2] = score[1], score[0]  # one event at score 0, one non-event at score 1
    calibration = fit_calibration(y, binary(score))
    assert all(0 < loss < 1 for loss in calibration.log_loss.values())
    p = calibration.calibrated(binary(np.float32([0, 1])))
    assert 0 < p[0, 1] < 0.1 < 0.9 < p[1, 1] < 1


def test_one_event_beyond_a_pure_block_costs_little():
    """500 rows without and 500 with events: at half an event of 1,000 rows it costs 7.6 nats at most."""
    score = np.linspace(0, 1, 1000)
    calibration = fit_calibration(score > 0.5, binary(score))
    p = calibration.calibrated(binary([0.0, 1.0]))
    assert -np.log(p.min()) < 7.61


def test_a_model_that_ranks_backwards_is_not_turned_round():
    score = np.linspace(0.01, 0.99, 400)
    p = fit_calibration(score < 0.5, binary(score)).calibrated(binary(score))
    np.testing.assert_allclose(p, 0.5, atol=0.01)


def test_more_than_two_classes():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([0.5, 1.0, 2.0], 4000)
    label = np.array([rng.choice(3, p=row) for row in truth])
    raw = truth**3 / (truth**3).sum(axis=1, keepdims=True)
    fitted, new = slice(0, 2000), slice(2000, None)
    calibration = fit_calibration(label[fitted], raw[fitted])
    p = calibration.calibrated(raw[new])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert log_loss(label[new], p) < log_loss(label[new], raw[new]) - 0.1
    assert log_loss(label[new], p) < log_loss(label[new], truth[new]) + 0.02
    assert len(calibration.maps) == 3
    assert calibration.thresholds is None and calibration.percentile(raw[:, 1]) is None


@pytest.mark.parametrize(("n_positive", "reason"), [(0, "0 of class 1"), (9, "9 of class 1")])
def test_too_few_rows_of_a_class_are_left_raw_with_the_reason(n_positive, reason):
    y, score = np.arange(100) < n_positive, np.linspace(0, 1, 100)
    calibration = fit_calibration(y, binary(score))
    assert calibration.method == "none" and reason in calibration.reason
    assert (calibration.calibrated(binary(score)) == binary(score)).all()
    assert calibration.log_loss is None
    assert calibration.percentile([1.0])[0] > 0


def test_no_rows_and_only_unknown_labels():
    empty = fit_calibration([], np.empty((0, 2)))
    assert (empty.method, empty.n_rows, empty.thresholds) == ("none", 0, None)
    assert empty.percentile([0.3]) is None
    assert empty.calibrated(np.empty((0, 2))).shape == (0, 2)
    unknown = percentiles_of(np.linspace(0, 1, 50))
    assert (unknown.method, unknown.n_rows, unknown.n_labelled) == ("none", 50, 0)
    assert unknown.percentile([0.0, 0.99]).tolist() == [0, pytest.approx(0.55, abs=0.02)]


def test_unknown_labels_count_for_percentiles_only():
    y, score, _ = power_of_truth(2000, 2.0)
    known = fit_calibration(y[:1000], binary(score[:1000]))
    y[1000:] = -1
    both = fit_calibration(y, binary(score))
    assert (both.n_rows, both.n_labelled) == (2000, 1000)
    assert both.log_loss == known.log_loss
    assert both.to_dict()["maps"] == known.to_dict()["maps"]
    assert both.percentile(score).tolist() == percentiles_of(score).percentile(score).tolist()


@pytest.mark.parametrize(
    ("label", "p", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([0], [[0.5]], "C at least 2"),
        ([0, 1], [[0.5, 0.5], [np.nan, np.nan]], "1 of 2 rows are not in"),
        ([0, 1], [[0.5, 0.5], [-1.0, 2.0]], "logits"),
        ([0, 2], [[0.5, 0.5]] * 2, "1 of 2 are not -1"),
        ([0, np.nan], [[0.5, 0.5]] * 2, "1 of 2 are not -1"),
        ([0, 0.5], [[0.5, 0.9]] * 2, "not -1 .*; .*2 of 2 rows do not sum to 1"),
    ],
)
def test_bad_input_is_named(label, p, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(label, p)


def test_the_same_seed_gives_the_same_calibration():
    y, score, _ = power_of_truth(500, 2.0)
    first, again, other = (fit_calibration(y, binary(score), seed) for seed in (0, 0, 1))
    assert first.to_dict() == again.to_dict()
    assert first.log_loss["raw"] == other.log_loss["raw"]
    assert first.log_loss["isotonic"] != other.log_loss["isotonic"]


@given(scores_of_any_kind)
@example(np.array([0.5]))
@example(np.zeros(300))
@example(np.ones(300))
@example(np.array([0.0, 5e-324, 1e-323]))  # nothing lies midway between neighbouring floats
def test_percentiles_keep_the_published_shares(score):
    calibration = percentiles_of(score)
    thresholds, n = calibration.thresholds, len(score)
    assert np.isfinite(thresholds).all() and (np.diff(thresholds) >= 0).all()
    percentile = calibration.percentile(score)
    share = np.array([(percentile >= s).mean() for s in PERCENTILES])
    assert (share <= share_above(PERCENTILES) + 1e-12).all()
    if len(np.unique(score)) == n:
        assert (share >= share_above(PERCENTILES) - 1 / n - 1e-12).all()
    # As near as the rows allow: the next lower score would let in more than the share.
    below = [score[score < t].max() if (score < t).any() else 0.0 for t in thresholds]
    assert all((score >= b).mean() > f for b, f in zip(below, share_above(PERCENTILES) - 1e-12, strict=True))


def test_thresholds_stand_midway():
    score = np.arange(1, 11) / 20  # 0.05, 0.10, .. 0.50
    thresholds = percentiles_of(score).thresholds
    possible = np.append((score[:-1] + score[1:]) / 2, 0.75)  # beyond the largest: midway to 1
    assert np.isclose(thresholds[:, None], possible).any(axis=1).all()
    assert thresholds[-1] == 0.75
    jittered = percentiles_of(score).percentile(score + 1e-7)
    assert jittered.tolist() == percentiles_of(score).percentile(score).tolist()


def test_the_published_shares():
    np.testing.assert_allclose(share_above([0.1, 0.5, 0.9]), [0.590799, 0.031717, 0.000109], atol=3e-6)
    assert share_above(0) == 1 and share_above(1) == 0


def test_defect_45_percentiles_of_skewed_scores():
    """The published map reads a thinned ROC curve: a straight line from the lowest to the highest score."""
    from sklearn.exceptions import UndefinedMetricWarning
    from sklearn.metrics import roc_curve

    score = np.random.default_rng(0).beta(0.5, 10, 10_000)
    calibration = percentiles_of(score)
    threshold = calibration.thresholds[499]
    assert threshold == pytest.approx(np.quantile(score, 1 - share_above(0.5)), abs=1e-3)
    assert (score >= threshold).mean() == pytest.approx(0.0317, abs=1e-4)
    assert not np.isnan(calibration.thresholds).any()
    with pytest.warns(UndefinedMetricWarning):
        _, share, threshold = roc_curve(np.ones(10_000), score)
    assert len(share) == 3 and np.isinf(threshold[0])
    published = np.interp(share_above(PERCENTILES), share[1:], threshold[1:])
    ours = np.array([(score >= t).mean() for t in calibration.thresholds])
    theirs = np.array([(score >= t).mean() for t in published])
    assert abs(ours - share_above(PERCENTILES)).max() <= 1e-4
    assert abs(theirs - share_above(PERCENTILES)).max() > 0.3


@given(scores_of_any_kind.map(lambda s: s**20))
def test_defect_46_small_numbers_keep_their_exponents(score):
    calibration = percentiles_of(score)
    loaded = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict(), allow_nan=False)))
    assert loaded.thresholds.tolist() == calibration.thresholds.tolist()
    assert loaded.to_dict() == calibration.to_dict()
    assert share_above(0.907) == pytest.approx(1e-4, rel=1e-3)
    assert (np.diff(share_above(PERCENTILES)) < 0).all()


@given(scores_of_any_kind, scores_of_any_kind)
def test_defect_47_bisection_equals_a_linear_scan(score, asked):
    calibration = percentiles_of(score)
    table = list(zip(calibration.thresholds, PERCENTILES, strict=True))
    scanned = [max((s for threshold, s in table if threshold <= x), default=0.0) for x in asked.tolist()]
    assert calibration.percentile(asked).tolist() == scanned


def test_defect_47_losses_are_out_of_fold():
    """Labels without any signal: on its own rows isotonic seems to gain, out of fold it does not."""
    rng = np.random.default_rng(0)
    score, y = rng.random(400), rng.random(400) < 0.3
    calibration = fit_calibration(y, binary(score))
    chance = log_loss(np.int64(y), np.tile([1 - y.mean(), y.mean()], (400, 1)))
    assert calibration.log_loss["isotonic"] > chance - 0.002
    assert calibration.log_loss["platt"] > chance - 0.002


@pytest.mark.parametrize("p", [[[0.2, np.nan]], [[-0.1, 1.1]], [[0.2, 0.3, 0.5]], [0.2, 0.8], [[3.0, 4.0]]])
@pytest.mark.parametrize("method", ["isotonic", "platt", "none"])
def test_defect_47_errors_raise_and_never_give_raw_scores(method, p):
    maps = {"isotonic": (Isotonic(np.array([0.5]), np.array([0.1])),), "platt": (Platt(1.0, 0.0, 9.0),)}
    calibration = Calibration(method, 2, 1, 1, maps=maps.get(method, ()))
    with pytest.raises(ValueError, match="probabilities"):
        calibration.calibrated(p)
    with pytest.raises(ValueError, match="NaN"):
        calibration.percentile([0.5, np.nan])


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_defect_54_a_calibration_is_plain_data(power):
    y, score, _ = power_of_truth(2000, power)
    calibration = fit_calibration(y, binary(score))
    loaded = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict(), allow_nan=False)))
    assert loaded.to_dict() == calibration.to_dict()
    assert (loaded.calibrated(binary(score)) == calibration.calibrated(binary(score))).all()
    assert (loaded.percentile(score) == calibration.percentile(score)).all()


def good(**changes):
    state = Calibration("platt", 2, 5, 5, maps=(Platt(1.0, 0.0, 9.0),), thresholds=PERCENTILES).to_dict()
    return {**state, **changes}


PLATT = {"slope": 1.0, "intercept": 0.0, "limit": 9.0}
ISOTONIC = {"score": [0.1, 0.2], "probability": [0.3, 0.4]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object"),
        ({}, "'method': .*'reason': .*'n_classes': .*'percentile_thresholds': "),
        (good(extra=1), "unknown key 'extra'"),
        (good(method="gam"), "'method': expected 'isotonic', 'platt' or 'none'"),
        (good(n_classes=1, n_rows=-1, n_labelled=True), "'n_classes': .*'n_rows': .*'n_labelled': "),
        (good(reason=5), "'reason': "),
        (good(log_loss={"raw": float("nan")}), "'log_loss.raw': "),
        (good(maps=[]), "expected 1 of method platt"),
        (good(maps=[ISOTONIC]), "expected 1 of method platt"),
        (good(n_classes=3), "expected 3 of method platt"),
        (good(method="none"), "expected 0 of method none"),
        (good(maps=[{**PLATT, "slope": -1.0}]), "maps.0.platt.slope': "),
        (good(maps=[{**PLATT, "slope": 10**400}]), "maps.0.platt.slope': "),
        (good(method="isotonic", maps=[{**ISOTONIC, "score": [0.2, 0.2]}]), "one probability for each"),
        (good(method="isotonic", maps=[{**ISOTONIC, "score": []}]), "maps.0.isotonic.score': "),
        (good(method="isotonic", maps=[{**ISOTONIC, "probability": [0.4, 0.3]}]), "expected ascending"),
        (good(method="isotonic", maps=[{**ISOTONIC, "probability": [0.4, 1.3]}]), "expected ascending"),
        (good(method="isotonic", maps=[{**ISOTONIC, "probability": ["a", "b"]}]), "probability.0': "),
        (good(maps=[7]), "maps.0"),
        (good(percentile_thresholds=[0.1] * 998), "at least 999"),
        (good(percentile_thresholds=[0.1] * 998 + [0.0]), "'percentile_thresholds': expected ascending"),
        (good(percentile_thresholds=[0.1] * 998 + [float("inf")]), "'percentile_thresholds.998': "),
    ],
)
def test_a_state_that_is_none_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict(content)
    assert Calibration.from_dict(good()).method == "platt"


def test_applying_needs_no_scikit_learn_and_microseconds(run_fresh, tmp_path):
    """Measured: 6 to 12 microseconds for a row's probabilities, 4 for its percentile."""
    y, score, truth = power_of_truth(2000, 1.0)
    calibration = isotonic_only(y, np.where(truth < 0.2, truth * 0.1, 0.9 + truth * 0.1))
    (tmp_path / "calibration.json").write_text(json.dumps(calibration.to_dict()))
    code = (
        "import json, sys; from n3r.calibrate import Calibration; "
        "c = Calibration.from_dict(json.load(open(sys.argv[1]))); "
        "print(repr(float(c.calibrated([[0.7, 0.3]])[0, 1])), float(c.percentile([0.3])[0]), "
        "[m for m in ('sklearn', 'scipy', 'torch', 'polars') if m in sys.modules])"
    )
    risk, percentile, *modules = run_fresh(code, tmp_path / "calibration.json").split()
    assert float(risk) == calibration.calibrated([[0.7, 0.3]])[0, 1]
    assert float(percentile) == calibration.percentile([0.3])[0]
    assert modules == ["[]"]
    row = binary([0.3])
    both = min(
        timeit.repeat(lambda: (calibration.calibrated(row), calibration.percentile(row[:, 1])), number=500)
    )
    assert both / 500 < 100e-6  # five times the aim, for busy machines
