"""Rates, quality and calibration by group, and how far groups lie apart: against counts by hand and scipy."""

from datetime import UTC, date, datetime, timedelta
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats.contingency import relative_risk
from sklearn.metrics import confusion_matrix, roc_auc_score

from n3r import metrics
from n3r.evaluation import groups

WITH_LIMITS = ("auroc", "alert_rate", "fpr", "recall", "fraud_rate", "ratio")


def sample(n: int, seed: int = 0, n_groups: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of unequal size, labels and scores that know nothing of the groups."""
    rng = np.random.default_rng(seed)
    group = np.array([f"g{i}" for i in range(n_groups)])[(n_groups * rng.random(n) ** 2).astype(int)]
    y = (rng.random(n) < 0.3).astype(int)
    return group, y, 1 / (1 + np.exp(1 - y - rng.normal(size=n)))


rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]), st.integers(0, 1), st.integers(0, 5).map(lambda k: k / 5)
    ),
    max_size=40,
)


# ---- by_group


def test_worked_example():
    #        alerts:  fraud 2 of 3, legitimate 1 of 3    fraud 0 of 1, legitimate 0 of 1
    y, p = [1, 1, 1, 0, 0, 0, 1, 0], [0.9, 0.8, 0.2, 0.7, 0.1, 0.3, 0.2, 0.2]
    table = groups.by_group([*"aaaaaa", None, None], y, p, threshold=0.5, min_per_class=1)
    a, none = table.to_dicts()
    assert (a["group"], a["n"], a["n_positive"]) == ("a", 6, 3)
    assert (a["recall"], a["fpr"], a["alert_rate"]) == (2 / 3, 1 / 3, 0.5)
    assert (a["mean_score"], a["fraud_rate"]) == (pytest.approx(0.5), 0.5)
    assert a["ratio"] == pytest.approx(1.0)  # 3 frauds, and scores that add up to 3
    assert (none["group"], none["n"], none["auroc"]) == ("(none)", 2, 0.5)
    assert (none["recall"], none["fpr"]) == (
        0.0,
        0.0,
    )  # measured: no alert on one fraud and one legitimate order
    assert none["ratio"] == pytest.approx(1 / 0.4)


def test_every_figure_is_that_of_the_groups_rows_alone():
    group, y, p = sample(2000)
    table = groups.by_group(group, y, p, threshold=0.4)
    assert table["n"].is_sorted(descending=True)
    for row in table.iter_rows(named=True):
        own = group == row["group"]
        tn, fp, fn, tp = confusion_matrix(y[own], p[own] >= 0.4).ravel().tolist()
        assert (row["n"], row["n_positive"], row["note"]) == (own.sum(), tp + fn, None)
        assert row["auroc"] == pytest.approx(roc_auc_score(y[own], p[own]))
        assert row["auroc_high"] == metrics.auc_ci(y[own], p[own]).high
        shares = {"recall": (tp, tp + fn), "fpr": (fp, fp + tn), "fraud_rate": (tp + fn, own.sum())}
        shares["alert_rate"] = (tp + fp, own.sum())
        for name, (k, n) in shares.items():
            wilson = binomtest(int(k), int(n)).proportion_ci(method="wilson")
            figures = [row[name + end] for end in ("", "_low", "_high")]
            assert figures == pytest.approx([k / n, wilson.low, wilson.high])
        limits = [row[f"fraud_rate{end}"] * own.sum() / p[own].sum() for end in ("", "_low", "_high")]
        assert [row[f"ratio{end}"] for end in ("", "_low", "_high")] == pytest.approx(limits)


def test_defect_42_what_a_group_cannot_show_is_null_and_never_zero():
    group = ["good only"] * 20 + ["fraud only"] * 15 + ["few"] * 4
    y = [0] * 20 + [1] * 15 + [0, 1, 0, 1]
    good, fraud, few = groups.by_group(group, y, np.linspace(0.1, 0.9, 39), 0.5).to_dicts()
    assert (good["recall"], good["recall_low"], good["auroc"]) == (None, None, None)
    assert good["fpr"] is not None and good["fraud_rate"] == 0.0 and good["fraud_rate_high"] > 0.1
    assert (fraud["fpr"], fraud["auroc"]) == (None, None)
    assert fraud["recall"] is not None
    assert [few[name] for name in WITH_LIMITS] == [None] * 6
    assert few["mean_score"] is not None
    assert {r["note"] for r in (good, fraud, few)} == {"not enough data"}
    table = groups.disparities(group, y, np.linspace(0.1, 0.9, 39), 0.5)
    recall, fpr, _ = table.to_dicts()
    for row in (recall, fpr):
        assert (row["n_groups"], row["n_left_out"], row["note"]) == (1, 2, "not enough data")
        assert [row[name] for name in ("smallest", "largest", "ratio", "ratio_low", "p_value")] == [None] * 5


@given(rows)
def test_any_rows_have_figures_or_the_note(data):
    group, y, p = zip(*data, strict=True) if data else ((), (), ())
    table = groups.by_group(group, y, p, 0.4, min_per_class=2)
    assert table["n"].sum() == len(data)
    for row in table.iter_rows(named=True):
        assert (row["note"] == "not enough data") == any(row[name] is None for name in WITH_LIMITS)
        for name in WITH_LIMITS:
            value, low, high = (row[name + end] for end in ("", "_low", "_high"))
            assert (value is None) == (low is None) == (high is None)
            assert value is None or low - 1e-12 <= value <= high + 1e-12
    spread = groups.disparities(group, y, p, 0.4, min_per_class=2)
    for row in spread.drop_nulls("ratio").iter_rows(named=True):
        assert row["ratio_low"] <= row["ratio"] * (1 + 1e-9)
        assert row["ratio"] <= row["ratio_high"] * (1 + 1e-9)
        assert 0 < row["p_value"] <= row["p_holm"] <= 1
    assert (spread["note"].is_null() == spread["ratio"].is_not_null()).all()
    assert groups.conclusion(spread, "script").startswith("By script, ")


@pytest.mark.parametrize("score", [0.0, 0.2, 1.0])
def test_constant_scores(score):
    group, y, _ = sample(200)
    table = groups.by_group(group, y, np.full(200, score), 0.5)
    assert table["auroc"].to_list() == [0.5] * 3
    assert set(table["recall"]) == set(table["fpr"]) == {float(score >= 0.5)}
    assert table["ratio"].is_null().all() == (score == 0)  # no fraud was expected at all


def test_frauds_where_next_to_none_were_expected_are_told():
    table = groups.by_group(["a"] * 100, [1] * 30 + [0] * 70, [0.001] * 100, 0.5)
    assert table["ratio"][0] == pytest.approx(300)
    unlikely = groups.by_group(["a"] * 100, [1] + [0] * 99, [0.001] * 100, 0.5)
    assert (unlikely["ratio"][0], unlikely["note"][0]) == (None, "not enough data")


def test_groups_that_training_did_not_have_are_noted():
    group = ["DE"] * 20 + ["FR"] * 12 + ["XX"] * 3 + [None] * 2
    y, p = np.arange(37) % 2, np.linspace(0.1, 0.9, 37)
    table = groups.by_group(group, y, p, 0.5, known={"DE", "JP"})
    few = "not enough data"
    expected = [None, "not in training", f"{few}; not in training", f"{few}; not in training"]
    assert table["note"].to_list() == expected
    table = groups.by_group(group, y, p, 0.5, known=["DE", "FR", "XX", None])
    assert table["note"].to_list() == [None, None, few, few]


def test_groups_may_be_numbers_dates_or_a_categorical():
    y, p = [0, 1] * 6, [0.2, 0.8] * 6
    for values in ([2] * 12, np.repeat([2], 12), pl.Series(["2"] * 12, dtype=pl.Categorical)):
        assert groups.by_group(values, y, p, 0.5).select("group", "n").rows() == [("2", 12)]
    assert groups.by_group([date(2025, 4, 30)] * 12, y, p, 0.5)["group"].to_list() == ["2025-04-30"]


def test_no_rows():
    assert groups.by_group([], [], [], 0.5).height == 0
    table = groups.disparities([], [], [], 0.5)
    assert table["note"].to_list() == ["not enough data"] * 3
    assert table["overall"].to_list() == [None] * 3


@pytest.mark.parametrize("statistic", [groups.by_group, groups.disparities])
@pytest.mark.parametrize(
    ("group", "y", "p", "threshold", "few", "message"),
    [
        (["a"], [0, 1], [0.1, 0.2], 0.5, 5, "group has 1 values, labels have 2"),
        (["a", "b"], [0, 1], [0.1, 3.0], 0.5, 5, r"scores p: 1 of 2 are outside \[0, 1\]"),
        (["a", "b"], [0, 1], [0.1, 0.2], np.nan, 5, "threshold is NaN"),
        (["a", "b"], [0, 1], [0.1, 0.2], 0.5, 0, "min_per_class is 0; expected at least 1"),
    ],
)
def test_bad_input(statistic, group, y, p, threshold, few, message):
    with pytest.raises(ValueError, match=message):
        statistic(group, y, p, threshold, few)


# ---- disparities


def test_the_extremes_are_those_of_the_table_by_group():
    group, y, p = sample(3000, n_groups=6)
    table, spread = groups.by_group(group, y, p, 0.4), groups.disparities(group, y, p, 0.4)
    overall = {"recall": (p >= 0.4)[y == 1], "fpr": (p >= 0.4)[y == 0], "alert_rate": p >= 0.4}
    assert spread["rate"].to_list() == ["recall", "false-positive rate", "alert rate"]
    for name, row in zip(overall, spread.iter_rows(named=True), strict=True):
        ordered = table.sort(name)
        assert (row["smallest_group"], row["largest_group"]) == (ordered["group"][0], ordered["group"][-1])
        low, high = ordered[name][0], ordered[name][-1]
        figures = [row[key] for key in ("smallest", "largest", "difference", "ratio", "overall")]
        assert figures == pytest.approx([low, high, high - low, low / high, overall[name].mean()])
        assert (row["n_groups"], row["n_left_out"], row["note"]) == (6, 0, None)
    assert spread["p_holm"].to_list() == pytest.approx(metrics.holm(spread["p_value"]))


def test_the_same_seed_gives_the_same_table_whatever_the_order_of_the_rows():
    group, y, p = sample(500)
    order = np.random.default_rng(1).permutation(500)
    table = groups.disparities(group, y, p, 0.4, seed=3)
    assert table.equals(groups.disparities(group[order], y[order], p[order], 0.4, seed=3))
    assert not table.equals(groups.disparities(group, y, p, 0.4, seed=4))


def two_groups(k: int, n: int, m: int, of: int) -> dict:
    """The row of the recall of group a, k of n, and b, m of `of`."""
    p = [*[0.9] * k, *[0.1] * (n - k), *[0.9] * m, *[0.1] * (of - m)]
    return groups.disparities(["a"] * n + ["b"] * of, [1] * (n + of), p, 0.5).to_dicts()[0]


def test_the_interval_of_a_ratio_is_that_of_the_log_ratio_where_rows_are_many():
    row, katz = two_groups(300, 1000, 450, 1200), relative_risk(300, 1000, 450, 1200)
    limits = katz.confidence_interval()
    assert row["ratio"] == pytest.approx(katz.relative_risk)
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((limits.low, limits.high), rel=0.005)


def test_the_interval_of_a_ratio_has_a_width_at_zero_and_at_one():
    none = two_groups(0, 20, 10, 20)
    assert (none["ratio"], none["ratio_low"]) == (0.0, 0.0)
    assert 0.2 < none["ratio_high"] < 0.6
    every = two_groups(20, 20, 30, 30)
    low = binomtest(20, 20).proportion_ci(method="wilson").low
    other = binomtest(30, 30).proportion_ci(method="wilson").low
    assert (every["smallest_group"], every["largest_group"]) == ("a", "b")
    assert (every["ratio"], every["ratio_low"], every["ratio_high"]) == pytest.approx((1.0, low, 1 / other))


def test_chance_is_every_shuffle_of_the_groups_within_a_class():
    # 8 frauds, 4 of them alerts, in groups of 3 and 5: all shuffles counted out
    alerts = [1, 1, 1, 0, 1, 0, 0, 0]
    p = [0.9 if alert else 0.1 for alert in alerts]
    row = groups.disparities([*"aaabbbbb"], [1] * 8, p, 0.5, 3).to_dicts()[0]
    ratios = []
    for shuffled in set(permutations(alerts)):
        rates = sum(shuffled[:3]) / 3, sum(shuffled[3:]) / 5
        ratios.append(min(rates) / max(rates))
    assert row["ratio"] == pytest.approx(0.2)
    assert row["p_value"] == pytest.approx(np.mean(np.array(ratios) <= 0.2 + 1e-9), abs=0.03)
    assert row["null_ratio"] == pytest.approx(np.median(ratios))


def test_chance_finds_what_is_there_and_little_else():
    apart = []
    for seed in range(40):
        group, y, p = sample(400, seed, n_groups=8)
        apart.append(groups.disparities(group, y, p, 0.5)["p_holm"].min() < 0.05)
    assert np.mean(apart) <= 0.12
    group, y, p = sample(4000, n_groups=4)
    worse = np.where((group == "g1") & (y == 1), 0.6 * p, p)
    recall, fpr, _ = groups.disparities(group, y, worse, 0.4).to_dicts()
    assert (recall["smallest_group"], recall["p_holm"] < 0.01, fpr["p_holm"] > 0.05) == ("g1", True, True)


def test_unequal_base_rates_alone_are_no_disparity_of_alerts():
    rng = np.random.default_rng(0)
    group = np.repeat(["a", "b"], 3000)
    y = (rng.random(6000) < np.where(group == "a", 0.1, 0.4)).astype(int)
    p = np.where(rng.random(6000) < np.where(y == 1, 0.7, 0.1), 0.9, 0.1)
    alerts = groups.disparities(group, y, p, 0.5).to_dicts()[2]
    assert alerts["ratio"] < 0.55
    assert alerts["null_ratio"] == pytest.approx(alerts["ratio"], abs=0.06)
    assert alerts["p_value"] > 0.05


def test_no_alert_anywhere_has_no_ratio():
    group, y, p = sample(300)
    table = groups.disparities(group, y, p, 1.1)
    assert table["largest"].to_list() == table["difference"].to_list() == [0.0] * 3
    assert table["note"].to_list() == ["0 in every group"] * 3
    assert table["ratio"].is_null().all()


# ---- conclusion


def test_the_conclusion_says_what_was_seen_and_what_does_not_follow():
    group, y, p = sample(4000, n_groups=4)
    worse = np.where((group == "g1") & (y == 1), 0.6 * p, p)
    group[:2] = "tiny"
    table = groups.disparities(group, y, worse, 0.4)
    text = groups.conclusion(table, "script of the name")
    recall = table.to_dicts()[0]
    assert text.startswith(
        f"By script of the name, differs beyond chance: recall (g1 {recall['smallest']:.1%} to "
        f"{recall['largest_group']} {recall['largest']:.1%}, ratio {recall['ratio']:.2f}, by chance "
    )
    assert "no difference beyond chance is shown: false-positive rate (" in text
    assert "of which up to 1 have too few rows for a rate" in text
    for words in ("origin", "base rate", "no proof of fairness"):
        assert words in text
    assert text.count(". ") == 1


def test_the_conclusion_names_what_could_not_be_compared():
    text = groups.conclusion(groups.disparities([*"aabb" * 5], [0] * 20, [0.1] * 20, 0.5), "marketplace")
    assert text.startswith(
        "By marketplace, not enough data: recall; 0 in every group: false-positive rate, alert"
    )


# ---- time_slices


def test_slices_have_equal_numbers_of_rows_and_readable_labels():
    days = pl.Series([date(2025, 4, 30) + timedelta(d) for d in range(12)])
    slices = groups.time_slices(days.reverse(), 4)
    assert slices.to_list()[::-3] == [
        "2025-04-30 to 2025-05-02",
        "2025-05-03 to 2025-05-05",
        "2025-05-06 to 2025-05-08",
        "2025-05-09 to 2025-05-11",
    ]


@given(st.lists(st.one_of(st.none(), st.integers(0, 200)), max_size=60), st.integers(1, 8))
def test_equal_times_share_a_slice_and_slices_follow_each_other(hours, n):
    start = datetime(2025, 4, 30)
    times = pl.Series([None if h is None else start + timedelta(hours=h) for h in hours], dtype=pl.Datetime)
    table = pl.DataFrame({"time": times, "slice": groups.time_slices(times, n)})
    assert (table["slice"].is_null() == times.is_null()).all()
    known = table.drop_nulls()
    assert known["slice"].n_unique() <= n
    assert known["time"].n_unique() == known.unique().height
    ordered = known.sort("time")["slice"]
    assert ordered.is_sorted()
    if times.drop_nulls().n_unique() == len(hours):
        sizes = known.group_by("slice").len()["len"]
        assert len(sizes) == min(n, len(hours))
        assert not len(sizes) or sizes.max() - sizes.min() <= 1


def test_slices_within_a_day_are_told_apart_by_the_hour():
    hours = pl.Series([datetime(2025, 4, 30, h, tzinfo=UTC) for h in range(4)])
    assert groups.time_slices(hours, 2).to_list()[::3] == [
        "2025-04-30 00:00 to 2025-04-30 01:00",
        "2025-04-30 02:00 to 2025-04-30 03:00",
    ]
    instants = pl.Series([datetime(2025, 4, 30) + timedelta(microseconds=i) for i in range(2)])
    assert groups.time_slices(instants, 2).to_list() == [
        "2025-04-30 00:00:00.000000",
        "2025-04-30 00:00:00.000001",
    ]


def test_one_time_is_one_slice():
    assert groups.time_slices(pl.Series([date(2025, 4, 30)] * 5)).to_list() == ["2025-04-30"] * 5


def test_bad_times():
    with pytest.raises(ValueError, match="times: expected dates or times, found String"):
        groups.time_slices(pl.Series(["2025-04-30"]))
    with pytest.raises(ValueError, match="n is 0; expected at least 1 slice"):
        groups.time_slices(pl.Series([date(2025, 4, 30)]), 0)
