from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from n3r import tables
from n3r.evaluation.baselines import BASELINES, baseline_scores, fit_baseline
from n3r.preprocess import prepare
from n3r.rows import parts
from n3r.schema import LABEL, ColumnMap

TEXT, BOOSTING = BASELINES
FIELDS = ["email", "billing", "holder"]
TWITTER = Path(__file__).parents[3] / "shared/data/twitter_bots"


def a_map(text=("email", "billing", "holder"), numeric=(), categorical=(), classes=2) -> ColumnMap:
    return ColumnMap(
        id="id",
        text=list(text),
        label="outcome",
        label_values={str(c): c for c in range(classes)},
        numeric=list(numeric),
        categorical=list(categorical),
        split_by="random",
    )


def auc(frame: pl.DataFrame, name: str, column_map: ColumnMap) -> float:
    """AUC on the second half of the rows of what has learned from the first."""
    half = frame.height // 2
    scores = fit_baseline(name, frame[:half], column_map).predict(frame[half:])
    assert scores.dtype == np.float64 and ((scores >= 0) & (scores <= 1)).all()
    return roc_auc_score(frame[LABEL][half:], scores)


# --- learning


def planted(names, n=1200):
    """Names, and columns that a label can be made of."""
    rng = np.random.default_rng(1)
    return names(n).with_columns(
        amount=pl.Series(rng.normal(size=n)).cast(pl.Float32),
        shop=pl.Series(rng.choice(["north", "east", "south", "west"], n)),
    )


SIGNALS = {
    "a name": (pl.col("billing").str.contains("Lenka|Farqua"), TEXT),
    "digits in the address": (pl.col("email").str.count_matches(r"\d") > 2, BOOSTING),
    "the holder is missing": (pl.col("holder").is_null(), BOOSTING),
    "a domain of few rows": (pl.col("email").str.contains("@box"), BOOSTING),
    "an odd category": (pl.col("shop").is_in(["north", "south"]), BOOSTING),
    "a number": (pl.col("amount") > 0.5, BOOSTING),
}


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_planted_signal_is_found(signal, names):
    rule, name = SIGNALS[signal]
    few = pl.when(pl.int_range(pl.len()) % 4 > 0).then(pl.col("email").str.replace("@box", "@post"))
    frame = (
        planted(names).with_columns(email=few.otherwise("email")).with_columns(**{LABEL: rule.cast(pl.Int8)})
    )
    assert auc(frame, name, a_map(numeric=["amount"], categorical=["shop"])) > 0.95


def test_names_that_fit_each_other_are_told_from_others(names):
    rng = np.random.default_rng(0)
    frame = names(2000).with_columns(**{LABEL: pl.Series(rng.integers(0, 2, 2000))})
    other = pl.when(pl.col(LABEL) == 1).then(names(2000, seed=9)["billing"]).otherwise("holder")
    assert auc(frame.with_columns(holder=other), BOOSTING, a_map()) > 0.9


@pytest.mark.parametrize("name", BASELINES)
def test_shuffled_labels_are_not_learned(name, names):
    label = np.random.default_rng(3).integers(0, 2, 2000)
    frame = planted(names, 2000).with_columns(**{LABEL: pl.Series(label)})
    # The standard error with 1,000 rows is 0.018.
    assert abs(auc(frame, name, a_map(numeric=["amount"], categorical=["shop"])) - 0.5) < 0.06


def test_a_training_row_does_not_count_itself():
    # Values that three rows share are risky. A later row whose value two training rows had is the third.
    codes = [f"{i:04d}" for i in range(1000, 1600)]
    frame = pl.DataFrame({"code": codes[:400] * 2 + codes[400:500] * 3, LABEL: [0] * 800 + [1] * 300})
    fitted = fit_baseline(BOOSTING, frame, a_map(text=["code"]))
    again, new = (fitted.predict(pl.DataFrame({"code": part})) for part in (codes[:400], codes[500:]))
    assert again.mean() > 0.9 and new.mean() < 0.1


# --- what rows may hold


def test_rare_and_unseen_categories_are_one(names):
    n = 3000
    rng = np.random.default_rng(0)
    shops = [f"shop {k}" for k in range(400)]  # more than scikit-learn takes
    kind = rng.integers(0, 400, n)
    common = rng.random(n) < 0.5
    shop = [shops[k % 3] if c else shops[k] for k, c in zip(kind, common, strict=True)]
    frame = names(n).with_columns(shop=pl.Series(shop), **{LABEL: pl.Series(common.astype(int))})
    fitted = fit_baseline(BOOSTING, frame, a_map(categorical=["shop"]))
    row = frame[:1]
    rare, unseen, usual = (
        fitted.predict(row.with_columns(shop=pl.lit(s))) for s in (shops[390], "new", shops[1])
    )
    assert rare == unseen and rare < 0.5 < usual


def test_more_common_categories_than_the_boosting_takes():
    shop = pl.Series([f"shop {k % 300}" for k in range(13_200)])  # 22 rows each in either half
    frame = pl.DataFrame({"email": "the same", "shop": shop, LABEL: shop.str.ends_with("7").cast(pl.Int8)})
    assert auc(frame, BOOSTING, a_map(text=["email"], categorical=["shop"])) > 0.9  # 0.75 as plain numbers


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    "text",
    [[None] * 10, [""] * 10, ["the same"] * 10, [f"{i}" for i in range(10)]],
    ids=["all null", "empty", "one value", "all different"],
)
def test_ten_rows(name, text):
    frame = pl.DataFrame({"email": text, LABEL: [0, 1] * 5})
    scores = fit_baseline(name, frame, a_map(text=["email"])).predict(frame)
    assert scores.shape == (10,) and np.isfinite(scores).all()


@pytest.mark.parametrize("gap", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_missing(gap, names):
    frame = planted(names, 400).with_columns(**{LABEL: (pl.col("amount") > 0).cast(pl.Int8)})
    gaps = frame.with_columns(amount=pl.when(pl.col("amount").abs() < 1).then("amount"))
    known, other = (
        fit_baseline(BOOSTING, train, a_map(numeric=["amount"])).predict(train)
        for train in (gaps, gaps.with_columns(pl.col("amount").fill_null(gap)))
    )
    assert np.array_equal(known, other)


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_but_gaps(name):
    frame = pl.DataFrame(
        {"email": [None] * 30, "amount": [None, float("nan"), float("inf")] * 10, LABEL: [0, 1] * 15},
        schema_overrides={"amount": pl.Float32},
    ).with_columns(shop=pl.lit(None, dtype=pl.String))
    fitted = fit_baseline(name, frame, a_map(text=["email"], numeric=["amount"], categorical=["shop"]))
    assert fitted.predict(frame) == pytest.approx(np.full(30, 0.5), abs=0.01)
    filled = frame[:1].with_columns(email=pl.lit("a@b.example"), amount=pl.lit(1.0), shop=pl.lit("x"))
    assert np.isfinite(fitted.predict(filled)).all()


# --- rows and seeds


@pytest.mark.parametrize("name", BASELINES)
def test_a_rows_score_depends_on_that_row_alone(name, names, monkeypatch):
    frame = planted(names, 200).with_columns(**{LABEL: (pl.col("amount") > 0).cast(pl.Int8)})
    fitted = fit_baseline(name, frame, a_map(numeric=["amount"], categorical=["shop"]))
    scores = fitted.predict(frame)
    assert len(np.unique(scores)) > 10
    assert np.array_equal(fitted.predict(frame[::-1]), scores[::-1])
    assert np.array_equal(fitted.predict(frame[5:6]), scores[5:6])
    assert fitted.predict(frame[:0]).shape == (0,)
    monkeypatch.setattr(parts, "SLICE", 7)
    assert np.array_equal(fitted.predict(frame), scores)


def test_the_same_to_the_last_digit_on_other_threads(run_fresh):
    # 25,000 n-grams: two threads add up that many products in another order, if they may.
    code = (
        "import hashlib, numpy as np, polars as pl; from n3r.evaluation.baselines import baseline_scores; "
        "from n3r.schema import ColumnMap; rng = np.random.default_rng(0); "
        "text = [''.join(map(chr, row)) for row in rng.integers(97, 111, (3000, 40))]; "
        "f = pl.DataFrame({'t': text, 'x': rng.normal(size=3000), 'n3r:label': rng.integers(0, 2, 3000)}); "
        "m = ColumnMap(id='i', text=['t'], label='y', label_values={'0': 0, '1': 1}, numeric=['x'], "
        "split_by='random'); found = baseline_scores({'train': f, 'test': f[:500]}, m, seed=5); "
        "print([hashlib.sha256(s['test'].tobytes()).hexdigest() for s in found.values()])"
    )
    runs = [
        run_fresh(code, OMP_NUM_THREADS=n, OPENBLAS_NUM_THREADS=n, POLARS_MAX_THREADS=n, PYTHONHASHSEED=n)
        for n in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_all_baselines_score_every_split_but_train(names):
    frame = planted(names, 300).with_columns(**{LABEL: (pl.col("amount") > 0).cast(pl.Int8)})
    splits = {"train": frame[:200], "val": frame[:0], "test": frame[200:], "later": frame[250:]}
    column_map = a_map(numeric=["amount"], categorical=["shop"])
    scores = baseline_scores(splits, column_map, seed=4)
    assert list(scores) == list(BASELINES)
    for name, by_split in scores.items():
        assert {split: len(p) for split, p in by_split.items()} == {"val": 0, "test": 100, "later": 50}
        alone = fit_baseline(name, frame[:200], column_map, seed=4).predict(frame[200:])
        assert np.array_equal(alone, by_split["test"])
    other = fit_baseline(BOOSTING, frame[:200], column_map, seed=5).predict(frame[200:])
    assert not np.array_equal(other, scores[BOOSTING]["test"])


@pytest.mark.parametrize("name", BASELINES)
def test_three_classes_of_which_one_has_no_rows(name, names):
    """Class 3 is in the map and not in the rows; the others are told apart by a name and a number."""
    frame = planted(names, 900)
    kind = (
        pl.when(pl.col("billing").str.contains("Lenka|Farqua")).then(1).when(pl.col("amount") > 0.8).then(2)
    )
    frame = frame.with_columns(kind.otherwise(0).alias(LABEL))
    columns = a_map(numeric=["amount"], classes=4)
    p = fit_baseline(name, frame[:600], columns).predict(frame[600:])
    assert p.shape == (300, 4) and (p[:, 3] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert roc_auc_score(frame[LABEL][600:] == 1, p[:, 1]) > 0.8
    assert fit_baseline(name, frame[:600], columns).predict(frame[:0]).shape == (0, 4)
    with pytest.raises(ValueError, match=r"\d+ of 900 rows are not 0 or 1, the classes of the column map"):
        fit_baseline(name, frame, a_map(numeric=["amount"]))


# --- bad input


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0] * 10, "not of two classes"),
        ([1] * 10, "not of two classes"),
        ([], "not of two classes"),
        ([0, 1, 2, 0, 1, 2], "2 of 6 rows are not 0 or 1"),
        ([0, 1, None, -1], "2 of 4 rows are not 0 or 1"),
        (["0", "yes"], "1 of 2 rows are not 0 or 1"),
    ],
)
def test_labels_that_are_not_of_two_classes(label, message):
    frame = pl.DataFrame({"email": ["private@person.example"] * len(label), LABEL: label})
    for name in BASELINES:
        with pytest.raises(ValueError, match=message) as error:
            fit_baseline(name, frame, a_map(text=["email"]))
        assert "private" not in str(error.value) and "yes" not in str(error.value)


def test_missing_columns_unknown_names_and_no_train_split(names):
    frame = names(40).with_columns(**{LABEL: pl.Series([0, 1] * 20)})
    for name in BASELINES:
        with pytest.raises(ValueError, match=r"lack the columns \['shop'\]"):
            fit_baseline(name, frame, a_map(categorical=["shop"]))
        fitted = fit_baseline(name, frame, a_map())
        with pytest.raises(ValueError, match=r"lack the columns \['email', 'holder'\]"):
            fitted.predict(frame.select("billing"))
    with pytest.raises(ValueError, match="no baseline 'forest', only"):
        fit_baseline("forest", frame, a_map())
    with pytest.raises(ValueError, match="learn from the split 'train', found"):
        baseline_scores({"test": frame}, a_map())


def test_a_baseline_shows_nothing_of_the_rows(names):
    frame = names(60).with_columns(**{LABEL: pl.Series([0, 1] * 30)})
    for name in BASELINES:
        shown = repr(fit_baseline(name, frame, a_map()))
        assert not [value for field in FIELDS for value in frame[field].drop_nulls() if value in shown]


def test_real_profiles():
    if not TWITTER.is_dir():
        pytest.skip("the data set twitter_bots is not beside the checkout")
    column_map = ColumnMap.from_file(Path(__file__).parents[2] / "configs" / "twitter_bots.json")
    prepared = prepare(tables.scan([TWITTER], column_map).frame, column_map)
    scores = baseline_scores(prepared.splits, prepared.column_map)
    reached = {name: roc_auc_score(prepared.splits["test"][LABEL], p["test"]) for name, p in scores.items()}
    assert reached[TEXT] > 0.8 and reached[BOOSTING] > 0.9
