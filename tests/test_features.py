"""Features: normal scores by rank, missing values visible, risks out of fold, fitted on training rows."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score as auc

from n3r.features import FeatureConfig, TabularFeatures
from n3r.files import arrays, ranges
from n3r.identity.selection import fit_features
from n3r.legacy.trainer import legacy_tabular
from n3r.precomputed import read_precomputed
from n3r.risk_tables import risk_table
from n3r.rows import parts
from n3r.rows.parts import RowsInParts
from n3r.schema import LABEL, TIME, ColumnMap
from n3r.tabular import QuantileMap

PLAIN = FeatureConfig(scaling="none")
LEGACY_FILL = FeatureConfig(scaling="none", imputation="minus_one")
PUBLISHED = FeatureConfig(scaling="none", count_threshold=0)  # of risk tables
# Beyond +-1e38, where the gap between two knots would be no float32, values are one; no amount is so large.
number = st.floats(-(2.0**126), 2.0**126, width=32)
numbers = st.lists(number, min_size=1, max_size=30)
categories = st.sampled_from(["a", "b", "", "NA", "None", None])
labels = st.sampled_from([0, 1, -1, None])


def fit(values, config: FeatureConfig | None = None) -> TabularFeatures:
    return TabularFeatures(config).fit(frame(values), ["x"])


def frame(values) -> pl.DataFrame:
    return pl.DataFrame({"x": pl.Series(list(values), dtype=pl.Float64)})


def read(features: TabularFeatures, rows: pl.DataFrame, **options) -> np.ndarray:
    """What the encoder of a network sees: the features, scaled."""
    found = torch.from_numpy(features.transform(rows, **options))
    return (found if features.knots is None else QuantileMap(features.knots)(found)).numpy()


def orders(categories, labels) -> pl.DataFrame:
    """A frame of one categorical column and labels."""
    return pl.DataFrame(
        {"c": pl.Series(list(categories), dtype=pl.String), LABEL: pl.Series(list(labels), dtype=pl.Int8)}
    )


def random_orders(n: int = 600, seed: int = 0, n_classes: int = 2) -> pl.DataFrame:
    """Two categorical and two numeric columns; the first of each has to do with the label."""
    rng = np.random.default_rng(seed)
    city = rng.integers(0, 5, n)
    label = (rng.random(n) * (1 + city / 2)).astype(int) % n_classes
    return pl.DataFrame(
        {
            "city": [None if c == 4 else f"city {c}" for c in city],
            "day": rng.choice(["Monday", "Friday"], n),
            "amount": label + rng.normal(size=n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 9, n)),
            LABEL: pl.Series(np.where(rng.random(n) < 0.1, -1, label), dtype=pl.Int8),
        }
    )


def fit_orders(config: FeatureConfig | None = None, **changes) -> TabularFeatures:
    train = random_orders(n_classes=changes.get("n_classes", 2))
    return TabularFeatures(config).fit(train, ["amount", "age"], ["city", "day"], **changes)


def test_worked_example():
    """Of 10, 20, 20, 40 the middle ranks are 1/8, 1/2, 1/2, 7/8; the normal score of 7/8 is 1.1503."""
    features = fit([10, 20, 20, 40])
    asked = frame([10, 20, 40, 30, 15, -7, 1e12])
    out = read(features, asked)[:, 0]
    z = 1.1503494
    np.testing.assert_allclose(out, [-z, 0, z, z / 2, -z / 2, -z, z], atol=1e-6)
    assert features.names == ["x"]
    assert features.transform(asked)[:, 0].tolist() == asked["x"].cast(pl.Float32).to_list()


@given(numbers)
def test_few_values_get_the_exact_normal_score_of_their_middle_rank(values):
    out = read(fit(values), frame(values))
    if len(set(values)) == 1:
        assert out.shape == (len(values), 0)
    else:
        expected = norm.ppf((rankdata(values) - 0.5) / len(values))
        np.testing.assert_allclose(out[:, 0], expected, atol=1e-6)


def test_many_values_are_placed_within_half_a_percent():
    values = np.random.default_rng(0).lognormal(sigma=3, size=20_000)
    features = fit(values)
    found = norm.cdf(read(features, frame(values))[:, 0])
    assert np.abs(found - (rankdata(values) - 0.5) / len(values)).max() < 0.005
    assert len(features.to_dict()["knots"]["x"]["value"]) <= 200


@given(numbers, st.integers(2, 6), numbers)
def test_never_falls_and_never_leaves_the_training_range(values, n_quantiles, asked):
    features = fit(values, FeatureConfig(n_quantiles=n_quantiles))
    out = read(features, frame(sorted(asked)))
    assert np.isfinite(out).all()
    if out.shape[1]:
        assert (np.diff(out[:, 0]) >= -1e-6).all()
        bound = norm.ppf(1 - 0.5 / len(values)) + 1e-6
        assert np.abs(out).max() <= bound


def test_heavy_tails_are_bounded():
    """10,000 rows: the farthest rank is 0.99995, whose score is 3.9, however large the value."""
    values = [*range(9_999), 10_000_000]
    out = read(fit(values), frame([1e7, 1e30, 3.4e38]))[:, 0]
    assert out.tolist() == pytest.approx([3.8906] * 3, abs=1e-3)
    assert np.abs(read(fit([-3e38, 0.0, 2e38, 3e38]), frame([-3e38, 3e38]))).max() < 2


def test_missing_is_the_median_and_an_indicator():
    train = frame([1, 2, 3, None])
    features = TabularFeatures().fit(train, ["x"])
    assert features.names == ["x", "x is missing"]
    assert len(features) == 2
    out = read(features, frame([None, math.nan, math.inf, -math.inf, 2, 3]))
    assert out[:4].tolist() == [[0, 1]] * 4
    assert out[4:].tolist() == [[0, 0], [pytest.approx(0.9674, abs=1e-4), 0]]


@pytest.mark.parametrize("hole", [None, math.nan, math.inf, -math.inf])
def test_every_kind_of_missing_is_one_kind_in_training(hole):
    assert fit([1, 2, 3, hole]).to_dict() == fit([1, 2, 3, None]).to_dict()


def test_a_value_missing_only_later_is_the_median_without_an_indicator():
    features = fit([1, 2, 3])
    assert features.names == ["x"]
    assert read(features, frame([None, math.inf])).tolist() == [[0], [0]]


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
    features = TabularFeatures().fit(train, train.columns)
    assert features.names == ["flag", "count", "known is missing"]
    assert features.transform(train)[:, 2].tolist() == [1, 0, 0]


def test_defect_39_columns_keep_the_given_order():
    train = pl.DataFrame({name: [1.0, 2.0] for name in "abcdef"})
    features = TabularFeatures().fit(train, ["d", "a", "f"])
    assert features.names == ["d", "a", "f"]
    shuffled = pl.DataFrame({"a": [1.0], "zz": [0.0], "d": [2.0], "f": [1.5]})
    z = norm.ppf(0.75)
    np.testing.assert_allclose(read(features, shuffled), [[z, -z, 0]], atol=1e-6)


@given(st.lists(st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False)), min_size=1))
def test_scaling_none_with_minus_one_is_the_legacys_fill(values):
    features = fit(values, LEGACY_FILL)
    assert features.names == ["x"]
    np.testing.assert_array_equal(features.transform(frame(values)), legacy_tabular(frame(values), ["x"]))


def test_defect_38_scaling_none_fills_nan_too():
    features = fit([1.0, 2.0], LEGACY_FILL)
    assert features.transform(frame([math.nan, math.inf, None, 3])).tolist() == [[-1], [-1], [-1], [3]]


@pytest.mark.parametrize(
    ("strategy", "value"), [("median", 2.5), ("mean", 4.0), ("mode", 1.0), ("minus_one", -1.0)]
)
def test_what_a_missing_value_becomes(strategy, value):
    """Of 1, 1, 4, 10 and holes; the mode of 9, 9, 1, 1 is the smaller."""
    features = fit([10, 1, None, 1, 4, math.nan], FeatureConfig(scaling="none", imputation=strategy))
    assert features.names == ["x"]
    assert features.transform(frame([None, math.inf, 7])).tolist() == [[value], [value], [7]]
    assert fit([9, 1, 9, 1], FeatureConfig(imputation="mode")).to_dict()["imputation"] == {"x": 1.0}


def test_all_missing_becomes_zero():
    for strategy in ("median", "mean", "mode"):
        features = fit([None, math.nan], FeatureConfig(scaling="none", imputation=strategy))
        assert features.transform(frame([None, 3])).tolist() == [[0], [3]]


def test_imputation_comes_before_scaling():
    """Of 1, 2, 3, 3, 3 the mode, 3, has the middle rank 7/10, and -1 the lowest, 1/10."""
    for strategy, score in (("mode", norm.ppf(0.7)), ("minus_one", norm.ppf(0.1))):
        features = fit([1, 2, 3, 3, 3, None], FeatureConfig(imputation=strategy))
        np.testing.assert_allclose(read(features, frame([None])), [[score, 1]], atol=1e-6)


def test_defect_26_the_fill_does_not_pollute_what_is_learned():
    """The legacy learns the mean of 9 % minus ones and 91 % of the values."""
    values = [None] * 9 + [2.0] * 91
    for strategy in ("mean", "median", "mode", "minus_one"):
        features = fit(values, FeatureConfig(imputation=strategy))
        filled = -1.0 if strategy == "minus_one" else 2.0
        assert features.to_dict()["imputation"] == {"x": filled}
        assert features.names == ["x is missing"]


@pytest.mark.parametrize("config", [None, PLAIN, LEGACY_FILL, FeatureConfig(n_quantiles=3)])
def test_defect_54_the_state_is_json(config):
    rng = np.random.default_rng(0)
    train = pl.DataFrame({"a": rng.normal(size=50), "b": [None, 1.0] * 25, "c": [0.1] * 50})
    features = TabularFeatures(config).fit(train, ["b", "a", "c"])
    again = TabularFeatures.from_dict(json.loads(json.dumps(features.to_dict())))
    asked = pl.DataFrame({"a": [0.3, None], "b": [5.0, math.nan], "c": [1.0, 2.0]})
    np.testing.assert_array_equal(again.transform(asked), features.transform(asked))
    assert again.names == features.names
    assert again.to_dict() == features.to_dict()


@given(st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=2, max_size=20))
def test_defect_26_a_row_has_the_same_values_alone_in_a_batch_and_in_training(values):
    for config in (None, PLAIN, LEGACY_FILL, FeatureConfig(n_quantiles=2)):
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
    features = TabularFeatures().fit(pl.DataFrame({"a": [1, None, 2]}), ["a"])
    assert features.fit(pl.DataFrame({"b": [1, 2]}), ["b"]).names == ["b"]


def test_defect_22_no_columns_are_a_matrix_without_columns():
    for config in (None, PLAIN):
        features = TabularFeatures(config).fit(frame([1, 2]), [])
        assert features.transform(frame([1, 2])).shape == (2, 0)


def test_no_rows():
    assert fit([1, 2, None]).transform(frame([])).shape == (0, 2)
    none = random_orders().clear()
    assert fit_orders().transform(none, out_of_fold=True).shape == (0, 5)
    assert TabularFeatures().fit(none, ["amount"], ["city"]).names == []


def test_a_column_called_like_an_indicator_keeps_its_place():
    train = pl.DataFrame({"x": [1, 2, None], "x is missing": [5, 6, 7]})
    features = TabularFeatures().fit(train, ["x", "x is missing"])
    assert features.transform(train).tolist() == [[1, 5, 0], [2, 6, 0], [1.5, 7, 1]]


def test_every_absent_column_is_named():
    train = pl.DataFrame({"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    features = TabularFeatures().fit(train, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"\['a', 'c'\]"):
        features.transform(train.select("b"))
    with pytest.raises(ValueError, match=r"\['age', 'day'\]"):
        fit_orders().transform(random_orders().drop("age", "day", LABEL))
    with pytest.raises(ValueError, match=rf"\['day', '{LABEL}'\]"):
        fit_orders().transform(random_orders().drop("day", LABEL), out_of_fold=True)
    with pytest.raises(ValueError, match=rf"\['z', 'y', '{LABEL}'\]"):
        TabularFeatures().fit(train, ["a", "z"], ["y"])


WRONG_SETTINGS = [
    {"scaling": "zscore"},
    {"n_quantiles": 1},
    {"imputation": "zero"},
    {"smooth_factor": -0.1},
    {"count_threshold": -1},
    {"n_folds": 1},
    {"seed": -1},
    {"bins": 3},
]


@pytest.mark.parametrize("wrong", WRONG_SETTINGS)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FeatureConfig(**wrong)


def test_risk_table_worked_example():
    """Six a with 2 hits, three b with 2, one c; m = int(10 * 0.1) = 1 row of the prior 0.5."""
    values = pl.Series(["a"] * 6 + ["b"] * 3 + ["c"])
    table = risk_table(values, np.array([1, 1, 0, 0, 0, 0, 1, 1, 0, 1]), 0.1, 2)
    assert table == {"bins": {"a": 2.5 / 7, "b": 2.5 / 4, "c": 0.5}, "default_bin": 0.5}


def test_risk_table_counts_labelled_rows_with_a_category():
    values = pl.Series(["a", "a", "a", None, "b", "a"])
    table = risk_table(values, np.array([1, 0, -1, 1, 0, 2]), 0.0, 0)
    assert table == {"bins": {"a": 0.5, "b": 0.0}, "default_bin": 1 / 3}


@pytest.mark.parametrize("values", [[], [None, None], ["a", "b"]])
def test_risk_table_without_usable_rows(values):
    table = risk_table(pl.Series(values, dtype=pl.String), np.full(len(values), -1), 0.1, 2)
    assert table == {"bins": {}, "default_bin": 0.5}


@given(st.lists(st.tuples(categories, labels), max_size=30), st.floats(0, 2), st.integers(0, 4))
def test_risks_are_the_published_formula(rows, smooth_factor, count_threshold):
    config = FeatureConfig(scaling="none", smooth_factor=smooth_factor, count_threshold=count_threshold)
    train = orders([c for c, _ in rows], [y for _, y in rows])
    used = [(c, y) for c, y in rows if c is not None and y in (0, 1)]
    prior = sum(y for _, y in used) / len(used) if used else 0.5
    m = int(len(used) * smooth_factor)
    asked = ["a", "b", "", "NA", "None", "unseen", None]
    expected = []
    for category in asked:
        hits = [y for c, y in used if c == category]
        rare = not hits or len(hits) < count_threshold
        expected.append(prior if rare else (sum(hits) + m * prior) / (len(hits) + m))
    features = TabularFeatures(config).fit(train, [], ["c"])
    found = features.transform(pl.DataFrame({"c": asked}))[:, 0]
    np.testing.assert_allclose(found, np.float32(expected), rtol=1e-6)


def test_rare_categories_are_not_stored():
    train = orders(["often"] * 40 + ["rare"] * 19, [1, 0, 0, 0] * 10 + [1] * 19)
    features = TabularFeatures(PLAIN).fit(train, [], ["c"])
    assert list(features.risk_tables_["c risk"]["bins"]) == ["often"]
    found = features.transform(pl.DataFrame({"c": ["often", "rare", "new", None]}))[:, 0]
    np.testing.assert_allclose(found, [0.25, 29 / 59, 29 / 59, 29 / 59], rtol=1e-6)


def test_categories_need_not_be_text():
    train = pl.DataFrame({"c": [1, 1, 2, 2, None], "flag": [True] * 5, LABEL: [1, 1, 0, 1, 1]})
    features = TabularFeatures(PUBLISHED).fit(train, [], ["c", "flag"])
    assert features.transform(train)[:, 0].tolist() == [1, 1, 0.5, 0.5, 0.75]


def test_every_class_but_the_first_has_a_risk():
    train = orders("aaaabb", [0, 1, 2, 2, 0, 1])
    features = TabularFeatures(PUBLISHED).fit(train, [], ["c"], n_classes=3)
    assert features.names == ["c risk of class 1", "c risk of class 2"]
    found = features.transform(orders("abz", [None] * 3))
    np.testing.assert_allclose(found, [[1 / 4, 1 / 2], [1 / 2, 0], [2 / 6, 2 / 6]], rtol=1e-6)


def test_names_and_order():
    assert fit_orders(PLAIN).names == ["amount", "age", "city risk", "day risk"]
    names = ["amount", "age", "city risk", "day risk", "age is missing"]
    assert fit_orders().names == names
    assert fit_orders().transform(random_orders(30)).shape == (30, 5)


def test_risks_are_scaled_by_the_ranks_of_training():
    """Categories of 60 and 140 rows: middle ranks near 0.3 / 2 and 0.3 + 0.7 / 2, spread by the folds."""
    train = orders(["low"] * 60 + ["high"] * 140, [0] * 60 + [1, 0] * 70)
    features = TabularFeatures().fit(train, [], ["c"])
    low, high, none = read(features, orders(["low", "high", None], [None] * 3))[:, 0]
    assert low == pytest.approx(norm.ppf(0.15), abs=1e-6)
    assert low < none < high
    assert norm.cdf(high) == pytest.approx(0.65, abs=0.15)


def test_one_category_is_a_constant():
    """In each fold it has another risk, which tells the fold and nothing else."""
    train = orders("a" * 103, np.random.default_rng(0).integers(0, 2, 103))
    assert TabularFeatures().fit(train, [], ["c"]).names == []
    assert TabularFeatures(PLAIN).fit(train, [], ["c"]).names == ["c risk"]


def test_out_of_fold_is_the_table_of_the_other_folds():
    train = random_orders()
    config = FeatureConfig(scaling="none", n_folds=3, seed=7)
    found = TabularFeatures(config).fit(train, [], ["city"]).transform(train, out_of_fold=True)[:, 0]
    whole = risk_table(train["city"], train[LABEL].to_numpy(), 0.0, 20)
    for fold in np.array_split(np.random.default_rng(7).permutation(len(train)), 3):
        others = np.delete(np.arange(len(train)), fold)
        table = risk_table(train["city"][others], train[LABEL].to_numpy()[others], 0.0, 20)
        expected = [table["bins"].get(city, whole["default_bin"]) for city in train["city"][fold]]
        np.testing.assert_allclose(found[fold], expected, rtol=1e-6)


def test_folds_are_the_same_for_the_same_rows_and_seed():
    train = random_orders()
    first, again = (fit_orders().transform(train, out_of_fold=True) for _ in range(2))
    other = fit_orders(FeatureConfig(seed=1)).transform(train, out_of_fold=True)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@given(st.lists(st.tuples(categories, st.sampled_from([0, 1])), min_size=2, max_size=30), st.data())
def test_defect_37_a_row_does_not_see_its_own_label(rows, data):
    """The label of one row turned round, its risk by the other folds stays."""
    row = data.draw(st.integers(0, len(rows) - 1))
    features = TabularFeatures(PUBLISHED).fit(orders([c for c, _ in rows], [y for _, y in rows]), [], ["c"])
    turned = [(c, 1 - y if i == row else y) for i, (c, y) in enumerate(rows)]
    before, after = (
        features.transform(orders([c for c, _ in some], [y for _, y in some]), out_of_fold=True)[row]
        for some in (rows, turned)
    )
    assert before.tolist() == after.tolist()


def test_defect_37_a_unique_value_does_not_return_its_own_label():
    rng = np.random.default_rng(0)
    label = (rng.random(2_000) < 0.1).astype(np.int8)
    train = orders([f"id {i}" for i in range(2_000)], label)
    published = TabularFeatures(PUBLISHED).fit(train, [], ["c"])
    assert auc(label, published.transform(train)[:, 0]) == 1.0
    assert auc(label, published.transform(train, out_of_fold=True)[:, 0]) == pytest.approx(0.5, abs=0.03)
    plain = TabularFeatures(PLAIN).fit(train, [], ["c"])
    assert auc(label, plain.transform(train)[:, 0]) == 0.5
    assert TabularFeatures().fit(train, [], ["c"]).names == []


def test_defect_37_few_rows_a_category_leak_nothing():
    """Four rows a category and no signal: in sample the AUC is 0.8, out of fold 0.5."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 4_000)
    train = orders(rng.integers(0, 1_000, 4_000).astype(str), label)
    features = TabularFeatures(FeatureConfig(count_threshold=0)).fit(train, [], ["c"])
    assert auc(label, features.transform(train)[:, 0]) > 0.75
    assert auc(label, features.transform(train, out_of_fold=True)[:, 0]) == pytest.approx(0.5, abs=0.04)


def test_defect_37_one_categorical_column_works():
    train = random_orders(2_000)
    features = TabularFeatures().fit(train, [], ["city"])
    assert features.names == ["city risk"]
    later = random_orders(1_000, seed=1).filter(pl.col(LABEL) >= 0)
    assert auc(later[LABEL], features.transform(later)[:, 0]) > 0.6


def test_labels_of_later_rows_change_nothing():
    features, later = fit_orders(), random_orders(seed=1)
    found = features.transform(later)
    for label in (later[LABEL].reverse(), pl.Series("label", [None] * len(later), dtype=pl.Int8)):
        np.testing.assert_array_equal(features.transform(later.with_columns(label)), found)
    np.testing.assert_array_equal(features.transform(later.drop(LABEL)), found)


@given(
    n_classes=st.sampled_from([2, 3]),
    scaling=st.sampled_from(["quantile", "none"]),
    strategy=st.sampled_from(["median", "mean", "mode", "minus_one"]),
    seed=st.integers(0, 99),
)
def test_defect_54_the_state_of_all_kinds_of_columns_is_json(n_classes, scaling, strategy, seed):
    config = FeatureConfig(scaling=scaling, imputation=strategy, seed=seed, count_threshold=seed)
    features = fit_orders(config, n_classes=n_classes)
    state = json.loads(json.dumps(features.to_dict(), allow_nan=False))
    again = TabularFeatures.from_dict(state)
    assert again.to_dict() == features.to_dict() == state
    assert again.names == features.names
    asked = random_orders(50, seed, n_classes)
    for out_of_fold in (False, True):
        np.testing.assert_array_equal(
            again.transform(asked, out_of_fold), features.transform(asked, out_of_fold)
        )


def test_a_state_with_parts_missing_is_refused():
    state = fit_orders().to_dict()
    del state["imputation"], state["knots"]
    with pytest.raises(ValueError, match="'imputation': it is missing; key 'knots': it is missing"):
        TabularFeatures.from_dict(state)


def test_precomputed_values_are_used(tmp_path):
    (tmp_path / "impute.json").write_text(json.dumps({"amount": 5, "age": -3.5}))
    tables = {"city": {"bins": {"city 0": 0, "city 1": 1}, "default_bin": 0.5}}
    (tmp_path / "risk.json").write_text(json.dumps(tables))
    features = TabularFeatures(PLAIN).fit(
        random_orders().drop(LABEL),
        ["amount", "age"],
        ["city"],
        imputation=read_precomputed(tmp_path / "impute.json"),
        risk_tables=read_precomputed(tmp_path / "risk.json"),
    )
    asked = pl.DataFrame(
        {"amount": [None, 1.0, 2.0], "age": [None, 0.0, math.nan], "city": ["city 0", "city 1", "elsewhere"]}
    )
    expected = [[5, -3.5, 0], [1, 0, 1], [2, -3.5, 0.5]]
    assert features.transform(asked).tolist() == expected
    assert features.transform(asked, out_of_fold=True).tolist() == expected
    again = TabularFeatures.from_dict(json.loads(json.dumps(features.to_dict())))
    assert again.transform(asked, out_of_fold=True).tolist() == expected


def test_misfits_of_precomputed_values_are_named_at_once():
    with pytest.raises(ValueError) as caught:
        TabularFeatures().fit(
            random_orders(),
            ["amount", "age"],
            ["city", "day"],
            imputation={"age": math.inf, "other": 1.0},
            risk_tables={
                "city": {"bins": {"secret street": 1.5}, "default_bin": 0.5},
                "zip": {"bins": {}, "default_bin": 0.1},
            },
        )
    message = str(caught.value)
    for part in ("lack the columns ['amount']", "columns ['other']", "a finite number for ['age']"):
        assert part in message
    for part in ("lack the columns ['day']", "columns ['zip']", "risks in [0, 1] for ['city']"):
        assert part in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "text",
    ["", "\x80", "[1]", '{"a": NaN}', '{"a": true}', '{"a": "1"}', '{"b": 1, "a": {"bins": {}}}']
    + ['{"a": {"bins": {"x": -0.1}, "default_bin": 0.5}}', '{"a": {"bins": {}, "default_bin": 2}}'],
)
def test_a_malformed_file_is_named(tmp_path, text):
    path = tmp_path / "impute_dict.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="impute_dict.json.*(JSON|'a')"):
        read_precomputed(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        read_precomputed(tmp_path / "nowhere.json")


def test_classes_must_fit():
    with pytest.raises(ValueError, match="holds class 2"):
        TabularFeatures().fit(orders("ab", [0, 2]), [], ["c"])
    with pytest.raises(ValueError, match="n_classes=1"):
        TabularFeatures().fit(orders("ab", [0, 0]), [], ["c"], n_classes=1)
    with pytest.raises(ValueError, match="n_classes=3"):
        tables = {"c": {"bins": {}, "default_bin": 0.5}}
        TabularFeatures().fit(orders("ab", [0, 2]), [], ["c"], n_classes=3, risk_tables=tables)


def test_two_features_of_one_name_are_refused():
    train = orders("ab", [0, 1]).with_columns(pl.Series("c risk", [1, 2]))
    with pytest.raises(ValueError, match="'c risk'"):
        TabularFeatures().fit(train, ["c risk"], ["c"])


# ---- rows in parts


def in_parts(frame: pl.DataFrame, sizes: list[int]) -> RowsInParts:
    """The rows of a table in parts of these sizes, and the rest."""

    def read(columns):
        start = 0
        for size in [*sizes, len(frame)]:
            yield frame[start : start + size].select(columns)
            start += size

    return RowsInParts(read, frame.columns, len(frame))


@pytest.mark.parametrize("by_time", [True, False])
@given(st.lists(st.integers(0, 60), max_size=3), st.integers(20, 100), st.integers(9, 100))
def test_rows_in_parts_give_the_features_of_the_whole_to_the_last_bit(
    by_time, names, monkeypatch, sizes, slice_size, piece
):
    """Whatever the parts, the slices that are read and the ranges that are counted."""
    n, rng = 90, np.random.default_rng(0)
    rows = names(n).with_columns(
        number=pl.Series(rng.normal(size=n)),
        kind=pl.Series(rng.choice(["a", "b", None], n).tolist()),
        **{LABEL: pl.Series(rng.choice([0, 1, 2, None], n).tolist(), dtype=pl.Int8)},
        **{TIME: pl.Series(rng.integers(0, 9, n)).cast(pl.Datetime("us"))},
    )
    columns = ColumnMap(
        id="id", text=["email", "billing"], label="y", label_values={"0": 0, "1": 1, "2": 2},
        numeric=["number"], categorical=["kind"], split_by="time" if by_time else "random", time="t",
    )  # fmt: skip
    config = FeatureConfig(count_threshold=3, smooth_factor=0.01)
    expected = fit_features(rows, columns, config, identity=True)
    with monkeypatch.context() as small:
        small.setattr(parts, "SLICE", slice_size)
        small.setattr(ranges, "PIECE", piece)
        small.setattr(arrays, "ROOM", 64)
        found = fit_features(in_parts(rows, sizes), columns, config, identity=True)
        trained = [array for _, array in found.transform_training(in_parts(rows, sizes))]
    assert found.to_dict() == expected.to_dict()
    np.testing.assert_array_equal(np.concatenate(trained), expected.transform(rows, out_of_fold=True))


@given(st.lists(st.integers(0, 60), max_size=3), st.integers(1, 95))
def test_the_sample_is_the_same_whatever_the_parts_and_few_rows_are_their_own(monkeypatch, sizes, n_sampled):
    rows = pl.DataFrame({"a": range(90)})
    with monkeypatch.context() as small:
        small.setattr(parts, "SAMPLE", n_sampled)
        (found, places), (whole, _) = parts.sample(in_parts(rows, sizes)), parts.sample(rows)
    assert found["a"].to_list() == places.tolist() == whole["a"].to_list()
    assert len(set(places)) == min(90, n_sampled) and places.tolist() == sorted(places)
    # One of each block of rows.
    assert all(i * 90 // n_sampled <= place for i, place in enumerate(places))


@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 9), st.data())
def test_rows_in_parts_are_those_of_the_whole(sizes, slice_size, data):
    """Whole, beside others, behind others, and at any places."""
    rows = pl.DataFrame({"a": range(20), "b": [str(i) for i in range(20)]})
    places = data.draw(st.lists(st.integers(0, 19), max_size=30))
    with pytest.MonkeyPatch.context() as small:
        small.setattr(parts, "SLICE", slice_size)
        some, more = in_parts(rows, sizes), rows.select(c="a", d="b")
        assert parts.whole(some, ["b", "no", "a"]).equals(rows.select("b", "a"))
        assert parts.rows_at(some, places).equals(rows[places])
        beside = some.hstack(more)
        assert parts.whole(beside, ["d", "a"]).equals(rows.select(pl.col("b").alias("d"), "a"))
        assert parts.whole(beside, ["c"]).equals(more.select("c")) and len(beside) == 20
        assert parts.whole(parts.joined(some, rows), ["a"])["a"].to_list() == [*range(20), *range(20)]
        small.setattr(parts, "SAMPLE", 5)
        assert pl.concat(parts.portions(some)).equals(rows)
