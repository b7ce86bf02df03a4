import math

import polars as pl
import pytest
from scipy.stats import binomtest

from n3r.estimate import Estimate, bounded, checked, group_names, holm, table, wilson


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(0.9121, 0.895, 0.926, 40), "0.912 [0.895, 0.926]"),
        (Estimate(0.5, n=2), "0.500"),
        (Estimate(n=1), "not enough data"),
    ],
)
def test_an_estimate_in_words_and_in_the_columns_of_its_metric(estimate, shown):
    assert str(estimate) == shown
    values = estimate.value, estimate.low, estimate.high
    assert estimate.columns("auroc") == dict(zip(("auroc", "auroc_low", "auroc_high"), values, strict=True))


def test_a_table_types_its_columns_by_their_names():
    columns = ("group", "n", "n_missed", *bounded("recall"), "trait", "note")
    row = {"group": "a", "n": 5, "n_missed": 2, **wilson(3, 5).columns("recall"), "trait": "x"}
    found = table([row], columns, words=("trait",))
    assert found.dtypes == [pl.String, *[pl.Int64] * 2, *[pl.Float64] * 3, *[pl.String] * 2]
    assert found["note"].to_list() == [None]
    assert table([], columns, words=("trait",)).schema == found.schema


def test_a_rate_has_wilsons_interval_where_rows_are_enough():
    low, high = binomtest(3, 5).proportion_ci(method="wilson")
    assert wilson(3, 5) == Estimate(0.6, low, high, 5)
    assert wilson(3, 4, min_rows=5) == Estimate(n=4)


def test_groups_are_text_as_many_as_rows():
    assert group_names([2, None], 2).to_list() == ["2", "(none)"]
    with pytest.raises(ValueError, match="group has 1 values, labels have 2"):
        group_names(["a"], 2)


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 1, 1], [0.1, math.nan, math.inf], "scores p: 2 of 3 are NaN or infinite"),
        ([0, 1], [0.1, 0.2, 0.3], "scores p have 3 values, labels have 2"),
        ([0, 2, -1], [0.1, 0.2, 0.3], "labels: 2 of 3 are not 0 or 1"),
        ([0, None], [0.1, 0.2], "labels: 1 of 2 are not 0 or 1"),
        ([0, 1], [-0.1, 1.2], r"scores p: 2 of 2 are outside \[0, 1\]"),
        ([0, 7], [0.1, 0.2, math.nan], r"labels: 1 of 2 .*; scores p have 3 .*; scores p: 1 of 3 are NaN"),
        ([[0], [1]], [0.1, 0.2], r"labels: expected one dimension, got shape \(2, 1\)"),
    ],
)
def test_bad_input_is_named_and_counted(y, p, message):
    with pytest.raises(ValueError, match=message):
        checked(y, probability=True, p=p)


def test_no_value_of_a_row_is_repeated():
    with pytest.raises(ValueError) as caught:
        checked(["ann@example.com", "0"], p=[0.1, 0.2])
    assert "ann" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and .04 may not be below .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.5]) == [1.0, None, 1.0]
    assert holm([]) == []
