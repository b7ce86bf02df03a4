"""Two scores compared: each figure against another computation of it."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from n3r import metrics
from n3r.evaluation import comparison


def draw(n=500, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.2
    shared = rng.normal(size=n) + y
    return y, shared + rng.normal(size=n), 5 * (shared + rng.normal(size=n)) - 3


def table(y, p, **more):
    return pl.DataFrame(
        {"order": [f"o{i}" for i in range(len(y))], "label": y.astype(int), "score": p, **more}
    )


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_agreement_counted_row_by_row(fpr):
    y, a, b = draw()
    found = comparison.agreement(y, a, b, fpr)
    flags_a, flags_b = (
        [p >= found[key] for p in scores] for key, scores in (("threshold_a", a), ("threshold_b", b))
    )
    rows = list(zip(y, flags_a, flags_b, strict=True))
    for flagged in (flags_a, flags_b):
        assert sum(s and not label for s, label in zip(flagged, y, strict=True)) <= fpr * (~y).sum()
    assert (
        found["n_flips"]
        == sum(p != q for _, p, q in rows)
        == found["n_fraud_flips"] + found["n_legitimate_flips"]
    )
    assert found["flip_share"] == found["n_flips"] / len(y)
    assert found["n_flagged_both"] == sum(p and q for _, p, q in rows)
    assert found["n_only_a_right"] == sum(p == label != q for label, p, q in rows)
    assert found["n_only_b_right"] == sum(q == label != p for label, p, q in rows)
    assert found["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial(only_a, only_b):
    n, low = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(low + 1)) / 2**n
    assert comparison.mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_worked_example():
    # 12 rows tell the two apart, 10 of them for a: 2 * (1 + 12 + 66) / 4096.
    assert comparison.mcnemar(10, 2) == pytest.approx(158 / 4096)
    assert comparison.mcnemar(0, 0) == 1


def test_identical_scores_flip_nothing():
    y, a, _ = draw()
    found = comparison.agreement(y, a, 2 * a + 1)
    assert (found["n_flips"], found["mcnemar_p"], found["spearman"]) == (0, 1, pytest.approx(1))


def test_defect_42_what_has_no_value_is_none():
    y, a, _ = draw()
    constant = comparison.agreement(y, a, np.full(len(y), 0.5))
    assert constant["spearman"] is None and constant["n_flagged_b"] == 0
    one_class = comparison.agreement(np.zeros(9), np.arange(9), np.arange(9))
    assert one_class["spearman"] == pytest.approx(1)
    assert one_class["n_flips"] is one_class["mcnemar_p"] is one_class["threshold_a"] is None
    with pytest.raises(ValueError, match="scores b: 1 of 500 are NaN"):
        comparison.agreement(y, a, np.where(np.arange(500) == 7, np.nan, a))


def test_compare_is_made_of_the_metrics():
    y, a, b = draw()
    segment = np.where(np.arange(500) < 300, "US", "DE")
    found = comparison.compare(
        table(y, a, segment=segment), table(y, b, segment=segment), 0.02, names=("new", "old")
    )
    paired = metrics.paired_auc(y, a, b)
    assert found.items() >= paired.columns().items()
    assert found["sentence"] == metrics.equivalence(paired, 0.02, ("new", "old")).sentence
    assert [row["group"] for row in found["segments"]] == ["US", "DE"]
    assert found["agreement"] == [comparison.agreement(y, a, b)]


def test_compare_over_seeds():
    y, a, b = draw()
    found = comparison.compare([table(y, a), table(y, b)], [table(y, b), table(y, a)])
    assert found["difference"] == pytest.approx(0) and len(found["by_seed"]) == len(found["agreement"]) == 2
    assert found["df"] is not None and found["segments"] == []


def test_other_rows_are_refused():
    y, a, b = draw()
    with pytest.raises(ValueError, match="other rows or another order"):
        comparison.compare(table(y, a), table(y, b).reverse())
    with pytest.raises(ValueError, match="other rows or another order"):
        comparison.compare(table(y, a), table(y, b).head(9))


def test_three_classes_are_compared_as_class_0_against_the_rest():
    y, a, b = draw()
    kinds = y * (1 + np.arange(len(y)) % 2)

    def three(p):
        risk = stats.norm.cdf(p / 10)
        scores = {"score_0": 1 - risk, "score_1": risk / 3, "score_2": 2 * risk / 3}
        return table(kinds, risk, **scores).drop("score").rename({"order": "id"})

    content, scores = comparison.compare_models({"m": three(a)}, {"m": three(b)}, ("one", "other"))
    expected = comparison.compare(table(y, stats.norm.cdf(a / 10)), table(y, stats.norm.cdf(b / 10)))
    assert content["comparisons"][0]["difference"] == pytest.approx(expected["difference"])
    assert (scores["one"]["one"][0] == y).all()
