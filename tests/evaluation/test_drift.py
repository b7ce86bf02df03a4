"""PSI against its definition, its chance level against simulation, and what each kind of column shows."""

from itertools import pairwise
from math import inf, log, nan

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r import evaluation
from n3r.estimate import NOT_ENOUGH
from n3r.evaluation.drift import Psi, drift, psi
from n3r.rows import parts

numbers = st.lists(
    st.one_of(st.none(), st.floats(allow_nan=True), st.sampled_from([0.0, 1.0, inf, -inf])),
    min_size=15,
    max_size=80,
)
words = st.lists(
    st.one_of(st.none(), st.sampled_from("abcdefg"), st.text(max_size=3)), min_size=15, max_size=80
)


def by_definition(expected, actual):
    """PSI of counts a bin, half a row added to each."""
    shares = [[(c + 0.5) / (sum(side) + 0.5 * len(side)) for c in side] for side in (expected, actual)]
    return sum((a - e) * log(a / e) for e, a in zip(*shares, strict=True))


def test_worked_example_by_hand():
    """50.5 / 101 = 0.5 and 0.5 of the expected; 20.5 / 101 = 0.203 and 0.797 of the actual."""
    found = psi([0] * 50 + [1] * 50, [0] * 20 + [1] * 80)
    by_hand = (20.5 / 101 - 0.5) * log(20.5 / 50.5) + (80.5 / 101 - 0.5) * log(80.5 / 50.5)
    assert found.value == pytest.approx(by_hand, rel=1e-12)
    assert found.value == pytest.approx(0.4062, abs=1e-4)
    chi_square = 3.841459  # its table, 1 degree of freedom
    assert found.null_level == pytest.approx((1 / 100 + 1 / 100) * chi_square, rel=1e-6)
    assert (found.n_expected, found.n_actual, found.n_bins, found.verdict) == (100, 100, 2, "shifted")


def test_quantile_bins_against_counting_one_by_one():
    rng = np.random.default_rng(0)
    expected, actual = rng.normal(size=1000), rng.normal(0.4, 1.3, size=437)
    ordered = [-inf, *(sorted(expected)[i] for i in range(99, 900, 100)), inf]  # every 100th value ends a bin
    counts = [
        [sum(low < v <= high for v in side) for low, high in pairwise(ordered)] for side in (expected, actual)
    ]
    assert counts[0] == [100] * 10
    found = psi(expected, actual)
    assert found.n_bins == 10
    assert found.value == pytest.approx(by_definition(*counts), rel=1e-12)


@pytest.mark.parametrize("n_bins", [3, 7, 10, 20])
def test_bins_are_of_equal_size_for_any_number(n_bins):
    """Equal shares on both sides: the only shift is the one planted in the last bin."""
    expected = np.arange(n_bins * 40)
    actual = np.concatenate([expected, np.full(500, 10**9)])
    counts = [40] * n_bins, [40] * (n_bins - 1) + [540]
    assert psi(expected, actual, n_bins).value == pytest.approx(by_definition(*counts), rel=1e-12)


@pytest.mark.parametrize(
    ("expected", "actual", "counts"),
    [
        ([0] * 90 + [1, 2, 3, 4] * 5, [0] * 60 + [3] * 40, ([90, 10, 10], [60, 0, 40])),  # most are the least
        ([5] * 90 + [1, 2] * 10, [5] * 60 + [1] * 30 + [9] * 10, ([20, 90, 0], [30, 60, 10])),  # the largest
        ([1] * 20 + [5] * 90 + [9] * 20, [0] * 50 + [5] * 25 + [6] * 25, ([20, 90, 20], [50, 25, 25])),
        ([2.5] * 60, [2.5] * 50 + [2.6] * 10, ([60, 0], [50, 10])),  # constant, and a new value above it
        ([2.5] * 60, [2.5] * 50 + [2.4] * 10, ([0, 60], [10, 50])),
        ([1, 2] * 50, [1] * 50 + [None, nan] * 10, ([50, 50, 0], [50, 0, 20])),  # missing is a bin
        ([None] * 60, [1.0] * 30 + [2.0] * 30, ([0, 60], [60, 0])),
        ([False] * 98 + [True] * 2, [True] * 60, ([98, 2], [0, 60])),
        ([inf] * 50 + [-inf] * 50, [inf] * 100, ([50, 50], [0, 100])),
        (["a"] * 50 + ["b"] * 50, ["a"] * 50 + ["new"] * 50, ([50, 50, 0], [50, 0, 50])),
        (["a"] * 50 + [None] * 50, ["a"] * 60, ([50, 50], [60, 0])),
        # rare ones in one bin; empty is not missing
        (["a"] * 90 + ["x", "y", "z"] * 2, ["a"] * 90 + ["v", "w"], ([90, 6], [90, 2])),
        (["a"] * 50 + [""] * 50, ["a"] * 50 + [None] * 50, ([50, 50, 0], [50, 0, 50])),
    ],
)
def test_what_falls_into_which_bin(expected, actual, counts):
    found = psi(expected, actual)
    assert found.n_bins == len(counts[0])
    assert found.value == pytest.approx(by_definition(*counts), rel=1e-12)


@pytest.mark.parametrize(
    ("expected", "actual", "note"),
    [
        ([7] * 60, [7] * 60, "constant"),
        (["a"] * 60, ["a"] * 60, "constant"),
        ([None] * 60, [None] * 60, "no value in train and test"),
        ([None, nan] * 30, [nan] * 60, "no value in train and test"),
        ([1.0] * 60, [None] * 60, "no value in test"),
        ([None] * 60, ["a"] * 60, "no value in train"),
        ([f"id{i}" for i in range(60)], [f"new{i}" for i in range(60)], "every category is rare"),
    ],
)
def test_notes(expected, actual, note):
    found = psi(expected, actual)
    assert found.note == note
    nothing_moves = "test" not in note or note == "no value in train and test"
    assert (found.value == 0 and found.null_level == 0) == (nothing_moves and found.n_bins == 1)
    assert np.isfinite(found.value)


def test_a_new_category_counts_by_its_size():
    """With 1,000 rows each, one of 15 rows stands below the mean share of 1 % and one of 25 above it."""
    train = ["a"] * 500 + ["b"] * 500
    assert psi(train, ["a"] * 500 + ["b"] * 485 + [f"rare{i}" for i in range(15)]).n_bins == 3
    assert psi(train, ["a"] * 490 + ["b"] * 485 + ["new"] * 25).n_bins == 3
    few = ["a"] * 490 + ["b"] * 470 + ["new"] * 25 + [f"rare{i}" for i in range(15)]
    assert psi(train, few).n_bins == 4


@pytest.mark.parametrize(("n", "m"), [(50, 50), (1000, 200), (200, 4000)])
def test_chance_level_is_passed_by_one_pair_of_like_samples_in_twenty(n, m):
    rng = np.random.default_rng(1)
    found = [psi(rng.normal(size=n), rng.normal(size=m)) for _ in range(600)]
    assert 0.015 < np.mean([f.value > f.null_level for f in found]) < 0.075  # 0.05 +- 2.8 standard errors


def test_chance_level_of_categories():
    """Zipf's law, so that some categories are pooled and some not."""
    rng = np.random.default_rng(2)
    share = 1 / np.arange(1, 60)
    draws = rng.choice(59, (400, 1500), p=share / share.sum()).astype("U2")
    found = [psi(row[:1000], row[1000:]) for row in draws]
    assert 0.015 < np.mean([f.value > f.null_level for f in found]) < 0.085


@pytest.mark.parametrize(
    ("value", "null_level", "verdict"),
    [
        (0.02, 0.01, "stable"),  # above chance and still small
        (0.1, 0.01, "stable"),
        (0.11, 0.01, "some shift"),
        (0.25, 0.01, "some shift"),
        (0.26, 0.01, "shifted"),
        (0.26, 0.68, "stable"),  # 50 rows against 50
        (0.2, 0.19, "some shift"),
        (None, None, NOT_ENOUGH),
    ],
)
def test_the_rule_of_the_verdict(value, null_level, verdict):
    found = Psi(50, 50, 10, value, null_level)
    assert found.verdict == verdict
    assert str(found).endswith(verdict)


@pytest.mark.parametrize(("n", "m"), [(49, 1000), (1000, 49), (0, 0), (0, 100)])
def test_few_rows_are_not_enough(n, m):
    found = psi(np.arange(n), np.arange(m))
    assert (found.value, found.null_level, found.note, found.verdict) == (None, None, NOT_ENOUGH, NOT_ENOUGH)
    assert (found.n_expected, found.n_actual) == (n, m)
    assert psi(np.arange(50), np.arange(50)).value is not None


@pytest.mark.parametrize(
    ("expected", "actual", "message"),
    [
        ([1.0] * 60, ["secret"] * 60, "text on one side, numbers on the other"),
        ([True] * 60, ["secret"] * 60, "text on one side, numbers on the other"),
        ([1, "secret"] * 30, [1] * 60, "text on one side, numbers on the other"),
        ({"secret": 1}, [1], "expected: expected one column"),
        ([1], np.ones((2, 2)), "expected numbers, booleans or text"),
        ([["secret"]] * 60, [1] * 60, "expected numbers, booleans or text"),
        (pl.Series([{"a": "secret"}]), [1], "expected numbers, booleans or text"),
    ],
)
def test_bad_values_are_refused_without_their_content(expected, actual, message):
    with pytest.raises(ValueError, match=message) as error:
        psi(expected, actual)
    assert "secret" not in str(error.value)


def test_bad_number_of_bins():
    with pytest.raises(ValueError, match="n_bins 1"):
        psi([1] * 60, [1] * 60, n_bins=1)


@given(numbers, numbers)
def test_numbers_of_any_kind(expected, actual):
    expected, actual = (pl.Series(side, dtype=pl.Float64) for side in (expected, actual))
    found = psi(expected, actual, n_bins=3)
    assert found.value >= 0
    assert np.isfinite([found.value, found.null_level]).all()
    assert 1 <= found.n_bins <= 3 + 2 + 1 + 1  # a tied value is set apart on both sides; missing
    assert psi(expected, expected, 3).value == 0
    assert psi(expected.reverse(), actual.shuffle(0), 3) == found  # rows have no order


@given(words, words)
def test_text_of_any_kind(expected, actual):
    expected, actual = (pl.Series(side, dtype=pl.String) for side in (expected, actual))
    found, back = psi(expected, actual, n_bins=3), psi(actual, expected, n_bins=3)
    assert found.value >= 0
    assert found.value == pytest.approx(back.value, rel=1e-9)  # categories have no training side
    assert psi(expected, expected, 3).value == 0


def frames():
    rng = np.random.default_rng(5)
    train = pl.DataFrame(
        {
            "same": rng.normal(size=900),
            "moved": rng.normal(size=900),
            "flag": rng.random(900) < 0.5,
            "country": rng.choice(["US", "DE", "JP"], 900),
            "constant": np.ones(900),
            "nothing": pl.Series([None] * 900),
        }
    )
    test = pl.DataFrame(
        {
            "same": rng.normal(size=600),
            "moved": pl.Series(rng.normal(3, 1, size=600)).set(pl.Series(np.arange(600) < 60), None),
            "flag": (rng.random(600) < 0.5).astype(int),
            "country": rng.choice(["US", "DE", "BR"], 600),
            "constant": np.ones(600, np.int8),
            "nothing": pl.Series([None] * 600, dtype=pl.String),
        }
    )
    return train, test


def test_drift_ranks_the_columns():
    train, test = frames()
    table = drift(train, test, train.columns)
    shown = ["column", "kind", "psi", "null_level", "verdict", "missing_train", "missing_test", "note"]
    assert table.columns == shown
    assert table["column"].to_list()[:2] == ["moved", "country"]
    rows = {row["column"]: row for row in table.to_dicts()}
    assert rows["moved"]["verdict"] == rows["country"]["verdict"] == "shifted"
    assert rows["same"]["verdict"] == rows["flag"]["verdict"] == rows["constant"]["verdict"] == "stable"
    assert {name: row["kind"] for name, row in rows.items()} == {
        "same": "number",
        "moved": "number",
        "flag": "number",  # boolean in one table, 0 and 1 in the other
        "country": "text",
        "constant": "number",
        "nothing": "text",
    }
    assert (rows["moved"]["missing_train"], rows["moved"]["missing_test"]) == (0, 0.1)
    assert rows["constant"]["note"] == "constant"
    assert rows["nothing"]["note"] == "no value in train and test"
    assert rows["nothing"]["missing_test"] == 1
    assert rows["same"]["psi"] == psi(train["same"], test["same"]).value
    assert table["psi"].is_sorted(descending=True)


def test_drift_of_few_rows_and_of_no_columns():
    train, test = frames()
    table = drift(train, test.head(10), ["same", "country"])
    assert table["psi"].to_list() == [None, None]
    assert table["verdict"].to_list() == table["note"].to_list() == [NOT_ENOUGH] * 2
    empty = drift(train.clear(), test, ["same"]).row(0, named=True)
    assert (empty["psi"], empty["missing_train"], empty["missing_test"]) == (None, None, 0)
    assert drift(train, test, []).height == 0


@given(st.integers(0, 900), st.integers(0, 600), st.integers(1, 700), st.integers(1, 900))
def test_drift_of_rows_in_parts_is_that_of_the_whole(cut, other, slice_size, n_sampled):
    train, test = frames()
    with pytest.MonkeyPatch.context() as small:
        small.setattr(parts, "SLICE", slice_size)
        small.setattr(parts, "SAMPLE", n_sampled)
        small.setattr(evaluation.drift, "SIDE_BY_SIDE", 4)
        whole = drift(train, test, train.columns)
        divided = (parts.joined(rows[:at], rows[at:]) for rows, at in ((train, cut), (test, other)))
        assert drift(*divided, train.columns).equals(whole)
    assert (
        whole.select("column", "missing_train")
        .sort("column")
        .equals(drift(train, test, train.columns).select("column", "missing_train").sort("column"))
    )


def test_drift_of_categoricals_is_that_of_their_text():
    train, test = frames()
    as_category = [frame.with_columns(pl.col("country").cast(pl.Categorical)) for frame in (train, test)]
    assert drift(*as_category, ["country"]).equals(drift(train, test, ["country"]))


def test_drift_names_every_column_at_fault():
    train, test = frames()
    train = train.with_columns(gone=1, day=pl.lit("2025-01-01").str.to_date(), code=pl.lit("secret"))
    test = test.with_columns(new=1, day=pl.lit("2025-01-01").str.to_date(), code=7)
    with pytest.raises(ValueError, match="columns to compare") as error:
        drift(train, test, ["same", "gone", "new", "never", "day", "code"])
    for part in (
        "'gone' is missing from test",
        "'new' is missing from train",
        "'never' is missing from train and test",
        "'day' (train Date, test Date): expected numbers, booleans or text",
        "'code' (train String, test Int32): text on one side, numbers on the other",
    ):
        assert part in str(error.value)
    assert "secret" not in str(error.value) and "same" not in str(error.value)
