import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from n3r import metrics

RANKING = ("auroc", "auroc_low", "auroc_high", "average_precision", "recall_at_fpr_1", "recall_at_fpr_5")


def tied(draw_max: int = 6):
    """Labels of both classes with scores in tenths, so that ties are common."""
    row = st.tuples(st.integers(0, 1), st.integers(0, draw_max).map(lambda k: k / 10))
    rows = st.lists(row, min_size=2, max_size=40).filter(lambda rs: len({y for y, _ in rs}) == 2)
    return rows.map(lambda rs: tuple(np.array(column) for column in zip(*rs, strict=True)))


def draw(
    n: int, seed: int, rate: float = 0.2, shift: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two correlated scores of equal quality, in [0, 1]."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rate).astype(int)
    shared = rng.normal(0, 1, n) + shift * y
    a, b = (shared + rng.normal(0, 0.7, n) for _ in range(2))
    return y, 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))


def components(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The structural components by their definition, over every pair."""
    x, z = p[y == 1][:, None], p[y == 0][None, :]
    wins = (x > z) + 0.5 * (x == z)
    return wins.mean(axis=1), wins.mean(axis=0)


def standard_error(auc: metrics.Estimate) -> float:
    """What the logit interval was made of."""
    logits = [math.log(end / (1 - end)) for end in (auc.low, auc.high)]
    return (logits[1] - logits[0]) / 2 / 1.959963984540054 * auc.value * (1 - auc.value)


# --- auc_ci


@given(tied())
def test_auc_is_sklearns_with_ties(data):
    y, p = data
    assert metrics.auc_ci(y, p).value == pytest.approx(roc_auc_score(y, p), abs=1e-12)


@given(tied())
def test_standard_error_is_delongs_by_definition(data):
    y, p = data
    v10, v01 = components(y, p)
    auc = metrics.auc_ci(y, p)
    if min(v10.size, v01.size) < 2:
        assert (auc.low, auc.high) == (None, None)
        return
    assert 0 <= auc.low <= auc.value <= auc.high <= 1
    variance = v10.var(ddof=1) / v10.size + v01.var(ddof=1) / v01.size
    if 0 < auc.value < 1:
        assert standard_error(auc) == pytest.approx(math.sqrt(variance), abs=1e-9)


def test_published_example():
    # Hanley & McNeil 1982: 109 CT images rated 1 to 5. Stata's `roctab` prints, by DeLong's method,
    # 0.8932, standard error 0.0307 and the plain interval 0.83295 to 0.95339.
    counts = [33, 6, 6, 11, 2, 3, 2, 2, 11, 33]
    y, rating = np.repeat([0] * 5 + [1] * 5, counts), np.repeat([1, 2, 3, 4, 5] * 2, counts)
    auc = metrics.auc_ci(y, rating)
    assert (round(auc.value, 4), round(standard_error(auc), 4)) == (0.8932, 0.0307)
    assert str(auc) == "0.893 [0.816, 0.940]"


def test_interval_covers_the_truth():
    truth = 0.5 * (1 + math.erf(1 / math.sqrt(1 + 0.49) / 2))  # of `draw`'s scores
    intervals = [metrics.auc_ci(*draw(400, seed)[:2]) for seed in range(300)]
    assert 0.92 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.98


@given(tied(), st.floats(0.5, 0.9))
def test_swapping_the_classes_mirrors_the_interval(data, level):
    y, p = data
    auc, mirror = metrics.auc_ci(y, p, level), metrics.auc_ci(1 - y, p, level)
    assert mirror.value == pytest.approx(1 - auc.value)
    if auc.low is not None:
        assert (mirror.low, mirror.high) == (pytest.approx(1 - auc.high), pytest.approx(1 - auc.low))


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_separation_is_not_certainty(sign):
    # An AUC of A orders k independent pairs rightly with probability A^k: .025^(1/5) = 0.478.
    auc = metrics.auc_ci([1] * 5 + [0] * 9, sign * np.arange(14, 0, -1))
    bounds = (auc.low, auc.high) if sign > 0 else (1 - auc.high, 1 - auc.low)
    assert auc.value == (1 if sign > 0 else 0)
    assert bounds == (pytest.approx(0.025**0.2), pytest.approx(1))


def test_constant_scores_are_exactly_a_half():
    auc = metrics.auc_ci([1, 1, 0, 0, 0], np.full(5, 0.3))
    assert (auc.value, auc.low, auc.high) == (0.5, 0.5, 0.5)


# --- paired_auc


@given(tied(), st.randoms(use_true_random=False))
def test_paired_variance_is_delongs_by_definition(data, random):
    y, a = data
    b = np.array([random.randrange(6) for _ in y])
    pair = metrics.paired_auc(y, a, b)
    (a10, a01), (b10, b01) = components(y, a), components(y, b)
    if min(a10.size, a01.size) < 2:
        assert pair.se is None
        return
    variance = (a10 - b10).var(ddof=1) / a10.size + (a01 - b01).var(ddof=1) / a01.size
    assert pair.se == pytest.approx(math.sqrt(variance), abs=1e-7)
    assert pair.difference.value == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b), abs=1e-12)


def test_p_values_are_uniform_when_nothing_differs():
    p = np.sort([metrics.paired_auc(*draw(300, seed)).p_value for seed in range(300)])
    distance = np.abs(p - (np.arange(300) + 0.5) / 300).max()
    assert distance < 1.63 / math.sqrt(300)  # Kolmogorov's 1 % point
    assert 0.02 <= np.mean(p < 0.05) <= 0.09


def test_paired_interval_reads_the_level():
    pair = metrics.paired_auc(*draw(300, 1), level=0.9)
    assert pair.interval(0.9) == (pair.difference.low, pair.difference.high)
    assert pair.difference.low == pytest.approx(pair.difference.value - 1.644854 * pair.se)
    z = abs(pair.difference.value) / pair.se
    assert pair.p_value == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_defect_48_comparison_sees_quality_not_a_shift_of_the_mean():
    # t and Wilcoxon tests on the raw scores call these two very different: every score is halved.
    y, a, b = draw(400, 2)
    assert metrics.paired_auc(y, a, a / 2).p_value == 1
    # And they see nothing here: the same scores, so the same mean, on the wrong rows.
    shuffled = np.random.default_rng(0).permutation(b)
    assert metrics.paired_auc(y, a, shuffled).p_value < 1e-4


# --- paired_auc over several trainings


def trainings(seed, n=300, n_seeds=3, spread=0.0):
    """Labels, and scores (S, N) of two models whose true quality varies by `spread` from seed to seed."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.3
    signal = y + rng.normal(size=n)
    return y, *(
        np.stack([signal * (1 + spread * rng.normal()) + rng.normal(size=n) for _ in range(n_seeds)])
        for _ in "ab"
    )


def test_one_training_is_the_plain_test():
    y, a, b = trainings(0, n_seeds=1)
    one, plain = metrics.paired_auc(y, a, b), metrics.paired_auc(y, a[0], b[0])
    assert one == plain
    assert (plain.df, plain.by_seed) == (None, (plain.difference.value,))


def test_variance_over_seeds_by_definition():
    y, a, b = trainings(1, spread=0.5)
    pair = metrics.paired_auc(y, a, b)
    on_rows = 0.0
    for i in (0, 1):
        mean = np.mean([components(y, p)[i] - components(y, q)[i] for p, q in zip(a, b, strict=True)], axis=0)
        on_rows += mean.var(ddof=1) / mean.size
    differences = [roc_auc_score(y, p) - roc_auc_score(y, q) for p, q in zip(a, b, strict=True)]
    between = np.var(differences, ddof=1) / 3
    assert pair.by_seed == pytest.approx(differences)
    assert pair.difference.value == pytest.approx(np.mean(differences))
    assert pair.se == pytest.approx(math.sqrt(on_rows + between))
    assert pair.df == pytest.approx(2 * (on_rows + between) ** 2 / between**2)
    low, high = stats.t.interval(0.95, pair.df, pair.difference.value, pair.se)
    assert (pair.difference.low, pair.difference.high) == pytest.approx((low, high))
    assert pair.p_value == pytest.approx(2 * stats.t.sf(abs(pair.difference.value) / pair.se, pair.df))


@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_interval_over_seeds_covers_other_rows_and_other_seeds(spread):
    pairs = [metrics.paired_auc(*trainings(seed, 200, spread=spread)) for seed in range(300)]
    covered = np.mean([pair.difference.low <= 0 <= pair.difference.high for pair in pairs])
    assert covered >= 0.92  # three standard errors below 95 %


def test_equivalence_over_seeds_says_so():
    y, a, _ = trainings(2, n=4000)
    pair = metrics.paired_auc(y, a, a + 1e-3 * trainings(3, n=4000)[1])
    verdict = metrics.equivalence(pair, 0.02)
    assert verdict.kind == "equivalent"
    assert "90 % interval over 3 seeds" in verdict.sentence


def test_as_many_trainings_of_each_are_asked_for():
    y, a, b = trainings(4)
    with pytest.raises(ValueError, match="p_a and p_b hold 3 and 2 trainings"):
        metrics.paired_auc(y, a, b[:2])
    with pytest.raises(ValueError, match="p_a and p_b hold 0 and 0 trainings"):
        metrics.paired_auc(y, a[:0], b[:0])


def test_segments_over_seeds_are_the_paired_auc_of_each():
    y, a, b = trainings(5, spread=0.3)
    segment = np.where(np.arange(300) < 180, "US", "DE")
    table = metrics.paired_by_segment(segment, y, a, b)
    pair = metrics.paired_auc(y[180:], a[:, 180:], b[:, 180:])
    row = table.filter(group="DE").row(0, named=True)
    assert row.items() >= pair.columns().items()


# --- equivalence


def test_identical_scores_are_equivalent_exactly():
    y, a, _ = draw(60, 3)
    pair = metrics.paired_auc(y, a, a)
    assert (pair.difference.value, pair.difference.low, pair.difference.high, pair.p_value) == (0, 0, 0, 1)
    verdict = metrics.equivalence(pair)
    assert verdict == ("equivalent", "equivalent: no pair of rows tells the two scores apart")


def test_identical_perfect_scores_are_equivalent_but_two_perfect_scores_are_not_shown():
    y, a = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 2, 3, 7, 8, 9])
    b = np.array([3, 1, 2, 9, 8, 7])
    assert metrics.equivalence(metrics.paired_auc(y, a, a)).kind == "equivalent"
    pair = metrics.paired_auc(y, a, b)
    assert (pair.difference.value, pair.se, pair.p_value) == (0, 0, 1)
    bound = 1 - 0.025 ** (1 / 3)
    assert (pair.difference.low, pair.difference.high) == pytest.approx((-bound, bound))
    assert metrics.equivalence(pair).kind == "not shown"


def test_perfect_against_reversed_has_a_bounded_p_value():
    y = np.repeat([0, 1], 8)
    pair = metrics.paired_auc(y, np.arange(16), -np.arange(16))
    assert (pair.difference.value, pair.p_value) == (1, pytest.approx(2 * 0.5**8))
    bounds = 2 * 0.025 ** (1 / 8) - 1, 1
    assert (pair.difference.low, pair.difference.high) == pytest.approx(bounds)
    assert metrics.equivalence(pair).sentence.startswith("different: A better by 1.0000")


def pair_of(difference: float, se: float) -> metrics.PairedAUC:
    p = math.erfc(abs(difference) / se / math.sqrt(2))
    return metrics.PairedAUC(metrics.Estimate(difference, n=1000), 100, se=se, p_value=p)


@pytest.mark.parametrize(
    ("difference", "se", "kind", "says"),
    [
        (0.001, 0.002, "equivalent", "0.01: difference +0.0010, 90 % interval [-0.0023, +0.0043]"),
        (0.006, 0.001, "equivalent", "equivalent within 0.01"),  # significant, and too small to matter
        (0.050, 0.010, "different", "different: new better by 0.0500"),
        (-0.050, 0.010, "different", "different: old better by 0.0500"),
        (0.002, 0.020, "not shown", "is wider than the margin ±0.01"),
        (0.006, 0.0035, "not shown", "reaches past ±0.01"),
    ],
)
def test_verdicts(difference, se, kind, says):
    verdict = metrics.equivalence(pair_of(difference, se), 0.01, ("new", "old"))
    assert verdict.kind == kind
    assert says in verdict.sentence


def test_verdict_on_too_few_rows_and_a_bad_margin():
    pair = metrics.paired_auc([1, 0, 0], [1, 2, 3], [3, 2, 1])
    assert (pair.difference.n, pair.n_positive, pair.difference.value, pair.p_value) == (3, 1, None, None)
    assert metrics.equivalence(pair).kind == "not enough data"
    for margin in (0, -0.01, 1, math.nan):
        with pytest.raises(ValueError, match="margin"):
            metrics.equivalence(pair, margin)


def test_equivalence_errs_at_its_level():
    # Scores whose AUC differ by the margin itself are called equivalent in at most 5 % of samples.
    rng = np.random.default_rng(5)
    kinds = [metrics.equivalence(pair_of(d, 0.002), 0.01).kind for d in rng.normal(0.01, 0.002, 2000)]
    assert 0.035 <= np.mean([kind == "equivalent" for kind in kinds]) <= 0.065


# --- evaluate


@given(tied(10), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_evaluate_is_sklearns(data, threshold):
    y, p = data
    found, flagged = metrics.evaluate(y, p, threshold), p >= threshold
    assert found["auroc"] == pytest.approx(roc_auc_score(y, p))
    assert found["average_precision"] == pytest.approx(average_precision_score(y, p))
    assert found["accuracy"] == pytest.approx(accuracy_score(y, flagged))
    assert found["recall"] == pytest.approx(recall_score(y, flagged))
    assert found["f1"] == pytest.approx(f1_score(y, flagged))
    assert found["log_loss"] == pytest.approx(log_loss(y, p))
    assert found["brier"] == pytest.approx(np.mean((p - y) ** 2))
    if flagged.any():
        assert found["precision"] == pytest.approx(precision_score(y, flagged))
    else:
        assert found["precision"] is None
    assert all(value is None or type(value) in (int, float) for value in found.values())


@pytest.mark.parametrize(
    ("y", "p", "undefined"),
    [
        ([], [], {"base_rate", *RANKING, "f1", "precision", "recall", "accuracy", "log_loss", "brier"}),
        ([0, 0], [0.9, 0.1], {*RANKING, "f1", "recall"}),
        ([0, 0], [0.1, 0.1], {*RANKING, "f1", "recall", "precision"}),
        ([1, 1], [0.9, 0.1], set(RANKING)),
        ([1, 0], [0.2, 0.1], {"auroc_low", "auroc_high", "precision"}),
        ([1, 1, 0, 0], [0.9, 0.1, 0.3, 0.2], set()),
    ],
)
def test_defect_42_an_undefined_metric_is_none_and_never_zero(y, p, undefined):
    found = metrics.evaluate(y, p)
    assert {name for name, value in found.items() if value is None} == undefined


def test_confident_and_wrong_is_finite():
    assert metrics.evaluate([1, 0], [0.0, 1.0])["log_loss"] == pytest.approx(36.04, abs=0.01)


def test_inputs_of_any_make():
    expected = metrics.evaluate([1, 1, 0, 0], [0.9, 0.5, 0.25, 0.75])
    p = np.array([0.9, 0.5, 0.25, 0.75], np.float32)
    assert metrics.evaluate(pl.Series([True, True, False, False]), p) == pytest.approx(expected, abs=1e-7)
    assert metrics.evaluate(np.array([1.0, 1.0, 0.0, 0.0]), pl.Series(p)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    "call",
    [
        lambda y, p: metrics.evaluate(y, p, threshold=1.5),
        lambda y, p: metrics.recall_at_fpr(y, p, -0.1),
        lambda y, p: metrics.recall_at_fpr(y, p, math.nan),
        lambda y, p: metrics.auc_ci(y, p, level=95),
        lambda y, p: metrics.paired_auc(y, p, p, level=1.0),
    ],
)
def test_a_bad_setting_is_an_error(call):
    with pytest.raises(ValueError, match="expected a number in"):
        call([1, 1, 0, 0], [0.9, 0.4, 0.3, 0.2])


# --- recall_at_fpr


@given(tied(), st.integers(0, 100).map(lambda k: k / 100))
def test_recall_at_fpr_by_trying_every_threshold(data, fpr):
    y, p = data
    best = 0.0
    for threshold in [*p, np.inf]:
        flagged = p >= threshold
        if flagged[y == 0].mean() <= fpr + 1e-12:
            best = max(best, flagged[y == 1].mean())
    assert metrics.recall_at_fpr(y, p, fpr) == best


def test_recall_at_fpr_counts_false_alarms_exactly():
    # 0.29 * 100 is 28.999... in binary; the 29th false alarm is allowed, and is worth 0.5.
    y = np.r_[np.zeros(100), 1, 1]
    p = np.r_[np.arange(100), 71.5, 70.5]
    assert [metrics.recall_at_fpr(y, p, fpr) for fpr in (0.28, 0.29, 0.3)] == [0.5, 1.0, 1.0]


# --- segments


def segmented(n: int = 2000) -> tuple[np.ndarray, ...]:
    y, a, b = draw(n, 7)
    return np.random.default_rng(1).choice(["US", "DE", "JP"], n, p=[0.6, 0.3, 0.1]), y, a, b


def test_by_segment_is_auc_ci_of_each_segment():
    segment, y, a, _ = segmented()
    table = metrics.by_segment(segment, y, a)
    assert table.columns == ["group", "n", "n_positive", "auroc", "auroc_low", "auroc_high", "note"]
    assert table["group"].to_list() == ["US", "DE", "JP"]
    for row in table.iter_rows(named=True):
        auc = metrics.auc_ci(y[segment == row["group"]], a[segment == row["group"]])
        own = {"n": auc.n, "n_positive": y[segment == row["group"]].sum(), "note": None}
        assert row.items() >= (own | auc.columns("auroc")).items()


def test_by_model_is_auc_ci_of_each_model():
    y, a, b = draw(300, 3)
    table = metrics.by_model(pl.Series(y), {"y": a, "b": pl.Series(b)})
    expected = [{"model": n, **metrics.auc_ci(y, p).columns("auroc")} for n, p in (("y", a), ("b", b))]
    assert table.drop("n", "n_positive").to_dicts() == expected
    assert table.select("n", "n_positive").rows() == [(300, y.sum())] * 2


def test_small_segments_say_so():
    segment = ["a"] * 10 + ["b"] * 10 + ["c"] * 3 + [None] * 12
    y = [1] * 5 + [0] * 5 + [1] * 4 + [0] * 6 + [1, 0, 0] + [0] * 12
    p = np.linspace(0, 1, len(y))
    table = metrics.by_segment(segment, y, p)
    assert table["group"].to_list() == ["(none)", "a", "b", "c"]  # by n, then by name
    few = "not enough data"
    assert table["note"].to_list() == [few, None, few, few]
    assert table["auroc"].is_null().to_list() == [True, False, True, True]
    assert metrics.by_segment(segment, y, p, min_per_class=4)["note"].to_list()[2] is None
    paired = metrics.paired_by_segment(segment, y, p, p)
    assert paired["verdict"].to_list() == [few, "equivalent", few, few]
    assert paired["p_holm"].to_list() == [None, 1, None, None]


def test_paired_by_segment_corrects_for_the_number_of_segments():
    segment, y, a, b = segmented()
    worse = np.where(segment == "US", b / 9 + (1 - y) / 9, b)
    table = metrics.paired_by_segment(segment, y, a, worse, names=("new", "old"))
    for row in table.iter_rows(named=True):
        at = segment == row["group"]
        pair = metrics.paired_auc(y[at], a[at], worse[at])
        assert row.items() >= pair.columns().items()
        assert row["note"] == metrics.equivalence(pair, names=("new", "old"), p_value=row["p_holm"]).sentence
    assert table["p_holm"].to_list() == metrics.holm(table["p_value"])
    assert table["verdict"][0] == "different"
    assert table["note"][0].startswith("different: new better")


def test_a_difference_must_survive_holms_correction():
    y, a, b = draw(400, 0)
    seeds = [seed for seed in range(80) if 0.01 < metrics.paired_auc(*draw(400, seed)).p_value < 0.05]
    parts = [draw(400, seeds[0])] + [draw(400, seed) for seed in range(100, 105)]
    y, a, b = (np.concatenate(column) for column in zip(*parts, strict=True))
    table = metrics.paired_by_segment(np.repeat(list("abcdef"), 400), y, a, b, margin=0.001).sort("group")
    assert table["p_value"][0] < 0.05 < table["p_holm"][0]
    assert table["verdict"][0] == "not shown"


def test_segments_of_no_rows_and_of_another_length():
    for table in (metrics.by_segment([], [], []), metrics.paired_by_segment([], [], [], [])):
        assert table.shape[0] == 0
        assert table.schema["group"] == pl.String
    with pytest.raises(ValueError, match="group has 1 values, labels have 2"):
        metrics.by_segment(["a"], [0, 1], [0.1, 0.2])


# --- points


def test_points_are_sklearns_when_few():
    y, p, _ = draw(200, 8)
    fpr, tpr = metrics.roc_points(y, p)
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc_score(y, p))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    recall, precision = metrics.pr_points(y, p)
    assert (recall[0], precision[0]) == (1, pytest.approx(y.mean()))
    assert (recall[-1], precision[-1]) == (0, 1)


def test_many_points_are_thinned_without_bending_the_curve():
    y, p, _ = draw(60_000, 9)
    assert roc_curve(y, p)[0].size > 5000
    fpr, tpr = metrics.roc_points(y, p)
    recall, precision = metrics.pr_points(y, p)
    assert max(fpr.size, recall.size) <= 1000
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1], recall[0], recall[-1]) == (0, 0, 1, 1, 1, 0)
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc_score(y, p), abs=1e-3)
    assert -np.trapezoid(precision, recall) == pytest.approx(average_precision_score(y, p), abs=1e-2)
    assert (np.diff(fpr) + np.diff(tpr)).max() < 0.01


def test_points_of_one_class_are_none():
    assert metrics.roc_points([1, 1], [0.2, 0.3]) is None
    assert metrics.pr_points([0, 0], [0.2, 0.3]) is None


# ---- more than two classes


def many_classes(n: int, seed: int, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.choice(n_classes, n, p=np.array([6, 3, 1, 2][:n_classes]) / sum([6, 3, 1, 2][:n_classes]))
    scores = rng.normal(size=(n, n_classes))
    scores[np.arange(n), label] += 1
    return label, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_classes", [3, 4])
def test_class_auc_is_sklearns_mean_of_one_against_the_rest(n_classes):
    label, p = many_classes(400, 1, n_classes)
    auc = metrics.class_auc(label, p)
    assert auc.value == pytest.approx(roc_auc_score(label, p, multi_class="ovr"), abs=1e-12)
    assert auc.n == 400 and auc.n == 400


def test_class_auc_of_two_classes_is_the_plain_one():
    y, p, _ = draw(200, 3)
    assert metrics.class_auc(y, np.stack([1 - p, p], axis=1)) == metrics.auc_ci(y, p)


def test_class_auc_interval_has_the_spread_of_repeated_draws():
    """300 data sets of 300 rows: the standard error is theirs, the 95 % interval covers the truth."""
    truth = metrics.class_auc(*many_classes(100_000, 0)).value
    found = [metrics.class_auc(*many_classes(300, seed)) for seed in range(1, 301)]
    spread = np.std([auc.value for auc in found])
    assert np.mean([standard_error(auc) for auc in found]) == pytest.approx(spread, rel=0.12)
    assert 0.90 <= np.mean([auc.low <= truth <= auc.high for auc in found]) <= 0.99


def test_class_auc_says_when_a_class_is_too_small():
    label, p = many_classes(50, 1)
    assert str(metrics.class_auc(np.minimum(label, 1), p)) == metrics.NOT_ENOUGH
    with pytest.raises(ValueError, match=r"shape \(N, C\)"):
        metrics.class_auc(label, p[:, 0])


def test_class_auc_of_a_perfect_score_is_bounded_away_from_one():
    label = np.arange(30) % 3
    auc = metrics.class_auc(label, np.eye(3)[label])
    assert auc.value == 1 and 0.6 < auc.low < auc.high == 1
