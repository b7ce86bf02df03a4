"""Numeric features: normal scores by rank, missing values visible, fitted on training rows only."""

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from n3r.features import FeatureConfig, NumericFeatures
from n3r.legacy import legacy_tabular

PLAIN = FeatureConfig(scaling="none")
# At +-1e308 the distance of two values is no float any more; no amount is nearly that large.
number = st.floats(-1e300, 1e300)
numbers = st.lists(number, min_size=1, max_size=30)


def fit(values, config: FeatureConfig | None = None) -> NumericFeatures:
    return NumericFeatures(config).fit(frame(values), ["x"])


def frame(values) -> pl.DataFrame:
    return pl.DataFrame({"x": pl.Series(list(values), dtype=pl.Float64)})


def test_worked_example():
    """Of 10, 20, 20, 40 the middle ranks are 1/8, 1/2, 1/2, 7/8; the normal score of 7/8 is 1.1503."""
    features = fit([10, 20, 20, 40])
    out = features.transform(frame([10, 20, 40, 30, 15, -7, 1e12]))[:, 0]
    z = 1.1503494
    np.testing.assert_allclose(out, [-z, 0, z, z / 2, -z / 2, -z, z], atol=1e-6)
    assert features.names == ["x"]
    assert out.dtype == np.float32


@given(numbers)
def test_few_values_get_the_exact_normal_score_of_their_middle_rank(values):
    out = fit(values).transform(frame(values))
    if len(set(values)) == 1:
        assert out.shape == (len(values), 0)
    else:
        expected = norm.ppf((rankdata(values) - 0.5) / len(values))
        np.testing.assert_allclose(out[:, 0], expected, atol=1e-6)


def test_many_values_are_placed_within_half_a_percent():
    values = np.random.default_rng(0).lognormal(sigma=3, size=20_000)
    features = fit(values)
    found = norm.cdf(features.transform(frame(values))[:, 0])
    assert np.abs(found - (rankdata(values) - 0.5) / len(values)).max() < 0.005
    assert len(features.to_dict()["knots"]["x"]["value"]) <= 200


@given(numbers, st.integers(2, 6), numbers)
def test_never_falls_and_never_leaves_the_training_range(values, n_quantiles, asked):
    features = fit(values, FeatureConfig(n_quantiles=n_quantiles))
    out = features.transform(frame(sorted(asked)))
    assert np.isfinite(out).all()
    if out.shape[1]:
        assert (np.diff(out[:, 0]) >= -1e-6).all()
        bound = norm.ppf(1 - 0.5 / len(values)) + 1e-6
        assert np.abs(out).max() <= bound


def test_heavy_tails_are_bounded():
    """10,000 rows: the farthest rank is 0.99995, whose score is 3.9, however large the value."""
    values = [*range(9_999), 10_000_000]
    out = fit(values).transform(frame([1e7, 1e30]))[:, 0]
    assert out.tolist() == pytest.approx([3.8906, 3.8906], abs=1e-3)


def test_missing_is_the_median_and_an_indicator():
    train = frame([1, 2, 3, None])
    features = NumericFeatures().fit(train, ["x"])
    assert features.names == ["x", "x is missing"]
    assert len(features) == 2
    out = features.transform(frame([None, math.nan, math.inf, -math.inf, 2, 3]))
    assert out[:4].tolist() == [[0, 1]] * 4
    assert out[4:].tolist() == [[0, 0], [pytest.approx(0.9674, abs=1e-4), 0]]


@pytest.mark.parametrize("hole", [None, math.nan, math.inf, -math.inf])
def test_every_kind_of_missing_is_one_kind_in_training(hole):
    assert fit([1, 2, 3, hole]).to_dict() == fit([1, 2, 3, None]).to_dict()


def test_a_value_missing_only_later_is_the_median_without_an_indicator():
    features = fit([1, 2, 3])
    assert features.names == ["x"]
    assert features.transform(frame([None, math.inf])).tolist() == [[0], [0]]


def test_constants_are_dropped_but_their_holes_are_not():
    train = pl.DataFrame(
        {
            "same": [7.0, 7.0, 7.0],
            "void": pl.Series([None, None, None], dtype=pl.Float64),
            "known": [None, 5.0, 5.0],
            "flag": [True, False, True],
            "count": pl.Series([1, 2, 2], dtype=pl.Int32),
        }
    )
    features = NumericFeatures().fit(train, train.columns)
    assert features.names == ["flag", "count", "known is missing"]
    assert features.transform(train)[:, 2].tolist() == [1, 0, 0]


def test_defect_39_columns_keep_the_given_order():
    train = pl.DataFrame({name: [1.0, 2.0] for name in "abcdef"})
    features = NumericFeatures().fit(train, ["d", "a", "f"])
    assert features.names == ["d", "a", "f"]
    shuffled = pl.DataFrame({"a": [1.0], "zz": [0.0], "d": [2.0], "f": [1.5]})
    z = norm.ppf(0.75)
    np.testing.assert_allclose(features.transform(shuffled), [[z, -z, 0]], atol=1e-6)


@given(st.lists(st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False)), min_size=1))
def test_scaling_none_is_the_legacys_fill(values):
    features = fit(values, PLAIN)
    assert features.names == ["x"]
    np.testing.assert_array_equal(features.transform(frame(values)), legacy_tabular(frame(values), ["x"]))


def test_defect_38_scaling_none_fills_nan_too():
    features = fit([1.0, 2.0], PLAIN)
    assert features.transform(frame([math.nan, math.inf, None, 3])).tolist() == [[-1], [-1], [-1], [3]]


@pytest.mark.parametrize("config", [None, PLAIN, FeatureConfig(n_quantiles=3)])
def test_defect_54_the_state_is_json(config):
    rng = np.random.default_rng(0)
    train = pl.DataFrame({"a": rng.normal(size=50), "b": [None, 1.0] * 25, "c": [0.1] * 50})
    features = NumericFeatures(config).fit(train, ["b", "a", "c"])
    again = NumericFeatures.from_dict(json.loads(json.dumps(features.to_dict())))
    asked = pl.DataFrame({"a": [0.3, None], "b": [5.0, math.nan], "c": [1.0, 2.0]})
    np.testing.assert_array_equal(again.transform(asked), features.transform(asked))
    assert again.names == features.names
    assert again.to_dict() == features.to_dict()


@given(st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=2, max_size=20))
def test_defect_26_a_row_has_the_same_values_alone_in_a_batch_and_in_training(values):
    for config in (None, PLAIN, FeatureConfig(n_quantiles=2)):
        features = fit([3.0, 1.0, None, 2.0], config)
        together = features.transform(frame(values))
        alone = [features.transform(frame([value]))[0] for value in values]
        np.testing.assert_array_equal(together, np.stack(alone))


def test_fitting_sees_training_rows_only():
    features = fit([1, 2, 3, 4])
    before = json.dumps(features.to_dict())
    small = features.transform(frame([2.5]))
    large = features.transform(frame([2.5, 1e9, None, -1e9]))
    assert large[0].tolist() == small[0].tolist()
    assert json.dumps(features.to_dict()) == before


def test_inputs_are_left_as_they_are():
    train = frame([1, None, math.inf])
    fit(train["x"]).transform(train)
    assert train["x"].to_list() == [1, None, math.inf]


def test_fitting_again_forgets_the_first_fit():
    features = NumericFeatures().fit(pl.DataFrame({"a": [1, None, 2]}), ["a"])
    assert features.fit(pl.DataFrame({"b": [1, 2]}), ["b"]).names == ["b"]


def test_defect_22_no_columns_are_a_matrix_without_columns():
    for config in (None, PLAIN):
        features = NumericFeatures(config).fit(frame([1, 2]), [])
        assert features.transform(frame([1, 2])).shape == (2, 0)


def test_no_rows():
    assert fit([1, 2, None]).transform(frame([])).shape == (0, 2)


def test_every_absent_column_is_named():
    train = pl.DataFrame({"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    features = NumericFeatures().fit(train, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"\['a', 'c'\]"):
        features.transform(train.select("b"))


@pytest.mark.parametrize("wrong", [{"scaling": "zscore"}, {"n_quantiles": 1}, {"bins": 3}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FeatureConfig(**wrong)
