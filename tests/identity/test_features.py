"""Identity features: figures of fields and pairs, counts and risks without leakage, one row as a million."""

import json
import re
import time
from itertools import groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score as auc

from n3r.features import TabularFeatures
from n3r.identity.features import IdentityFeatures
from n3r.schema import LABEL, TIME, ColumnMap

FIELDS = ["email", "billing", "holder"]


def a_map(text=(), numeric=(), by_time=False, n_classes=2) -> ColumnMap:
    roles = {"split_by": "time", "time": "at"} if by_time else {"split_by": "random"}
    text = list(text) or ["unused"]
    labels = {str(c): c for c in range(n_classes)}
    return ColumnMap(id="id", text=text, label="y", label_values=labels, numeric=list(numeric), **roles)


def fit(columns: dict, numeric=(), by_time=False, n_classes=2, label=None, order=None):
    """Features fitted on columns of text and number, and the training rows."""
    frame = pl.DataFrame(
        columns, schema_overrides={name: pl.String for name in columns if name not in numeric}
    )
    n = len(frame)
    label = pl.Series(np.arange(n) % n_classes if label is None else label, dtype=pl.Int8)
    at = pl.Series(np.arange(n) if order is None else order).cast(pl.Datetime("us"))
    frame = frame.with_columns(label.alias(LABEL), at.alias(TIME))
    text = [name for name in columns if name not in numeric]
    return IdentityFeatures().fit(frame, a_map(text, numeric, by_time, n_classes)), frame


def named(features: IdentityFeatures, rows: np.ndarray) -> dict[str, list[float]]:
    return dict(zip(features.names, rows.T.tolist(), strict=True))


def one(features: IdentityFeatures, **values) -> dict[str, float]:
    return dict(zip(features.names, features.transform_row(values)[0].tolist(), strict=True))


def test_worked_example():
    features, _ = fit({"email": ["a@b.example"] * 3, "holder": ["c"] * 3})
    found = one(features, email="Jo.Lenka7x042@Gmail.com", holder="JÓ  Lenk99")
    expected = {
        "email missing": 0,
        "email length": 13,  # Jo.Lenka7x042: the user name alone
        "email words": 1,
        "email longest word": 13,
        "email capitals": 2 / 13,
        "email digits": 4 / 13,
        "email symbols": 1 / 13,
        "email non-ASCII": 0,
        "email numbers": 2,
        "email longest number": 3,
        "email digits at the end": 3,
        "email distinct characters": 13 / 13,
        "email vowels": 3 / 12,
        "email consonants in a row": 2,
        "email letter-digit switches": 3,
        "email zero before the last number": 1,
        "email free": 1,
        "email disposable": 0,
        "holder capitals": 3 / 10,
        "holder words": 2,
        "holder non-ASCII": 1 / 10,
        "holder distinct characters": 8 / 10,  # two blanks and two nines
        "holder vowels": 2 / 8,  # blanks and accents are no characters of their own
        "holder digits at the end": 2,
        # of jolenka7x042 _jo jol ole len enk nka ka7 a7x 7x0 x04 042 42_, of jolenk99 _jo .. enk nk9 k99 99_
        "email ~ holder trigrams": 5 / 15,
        "email ~ holder containment": 5 / 8,
        "email ~ holder prefix": 6 / 8,
        "email ~ holder inside": 0,
        "email ~ holder user name": 1,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert features.emails_ == ["email"]


@pytest.mark.parametrize(
    ("user", "fits"),
    [
        ("anina.belto", 4),
        ("belto-anina77", 4),
        ("abelto", 3),
        ("anina.b", 3),
        ("xx_belto_xx", 2),
        ("aniy81", 1),
        ("q8zr", 0),
    ],
)
def test_user_names_are_made_of_names(user, fits):
    features, _ = fit({"email": ["a@b.example"], "name": ["x"]})
    assert (
        one(features, email=f"{user}@mail.example", name="Anína van BELTO")["email ~ name user name"] == fits
    )
    assert features.words("email ~ name user name", fits).startswith("name ")
    assert (
        "not occur in the" in features.words("email ~ name user name", fits).replace("in email", "in the")
    ) == (fits == 0)


def test_strings_of_other_scripts_are_compared_as_they_are_spelled():
    features, _ = fit({"a": ["x"], "b": ["y"]})
    found = one(features, a="Иван Петров", b="IVAN PETROV")
    assert found["a ~ b trigrams"] == found["a ~ b inside"] == found["a ~ b Jaro-Winkler"] == 1


def test_what_a_value_cannot_have_is_nan():
    features, _ = fit({"a": ["Ab"], "b": ["Ab"]})
    rows = pl.DataFrame({"a": [None, "", "?!", "Ab"], "b": ["Ab", "Ab", "Ab", "a-B"]})
    found = named(features, features.transform(rows))
    assert found["a missing"] == [1, 1, 0, 0]
    assert found["a length"] == [pytest.approx(np.nan, nan_ok=True)] * 2 + [2, 2]
    for figure in ("trigrams", "containment", "inside", "Jaro-Winkler", "prefix"):
        assert np.isnan(found[f"a ~ b {figure}"][:3]).all()
    assert found["a ~ b inside"][3] == found["a ~ b trigrams"][3] == 1


def longest(value: str, of: str) -> int:
    runs = [len(list(run)) for inside, run in groupby(value, lambda character: character in of) if inside]
    return max(runs, default=0)


def by_hand(value: str) -> dict[str, float]:
    """The figures of a value whose characters are those of the test below, in plain Python."""
    value = value.strip()
    n = len(value)
    plain = re.sub("[^a-z07]", "", value.translate(str.maketrans("ABÉé٣", "abee3")))
    return {
        "length": n,
        "words": len(value.split()),
        "longest word": max(map(len, value.split()), default=0),
        "numbers": len(re.findall("[07]+", value)),
        "longest number": longest(value, "07"),
        "digits at the end": len(re.search("[07]*$", value)[0]),
        "consonants in a row": longest(plain, "bcfz"),
        "letter-digit switches": len(re.findall("(?<=[a-z])(?=[07])|(?<=[07])(?=[a-z])", plain)),
        "zero before the last number": float(bool(re.search("(?:^|[a-z])0[07]+$", plain))),
        "capitals": sum(c in "ABÉ" for c in value) / n,
        "digits": sum(c in "07" for c in value) / n,
        "symbols": sum(c in "._" for c in value) / n,
        "non-ASCII": sum(ord(c) > 127 for c in value) / n,
        "distinct characters": len(set(value)) / n,
    }


@example("aaaaa")
@given(st.text("aabbcfzéABÉ07._ ", min_size=1, max_size=14).filter(str.strip))
def test_figures_are_those_of_plain_python(value):
    features, _ = fit({"a": ["x"]})
    found = one(features, a=value)
    assert {figure: found[f"a {figure}"] for figure in by_hand(value)} == pytest.approx(by_hand(value))


ANY = (
    st.none()
    | st.text(max_size=8)
    | st.sampled_from(["a.b@gmail.com", "Ann Bell", "x" * 100_000, "\0\n", "👩🏻 é"])
)


@given(st.lists(st.tuples(ANY, ANY, st.none() | st.floats(0, 2.0**100, width=32)), min_size=1, max_size=6))
def test_a_row_is_the_same_alone_and_beside_others(rows):
    rows = [(a, b, x) for a, b, x in rows if not any(re.search("[\ud800-\udfff]", v or "") for v in (a, b))]
    train = {"a": ["a.b@x.example"] * 4, "b": ["Ann", "Ann", "Bo", "B"], "m": [1, 2, 3, 4], "n": [4, 1, 3, 9]}
    features, _ = fit(train, numeric=["m", "n"])
    schema = {"a": pl.String, "b": pl.String, "m": pl.Float32, "n": pl.Float32}
    frame = pl.DataFrame([(a, b, x, x) for a, b, x in rows], schema=schema, orient="row")
    together = features.transform(frame)
    for i, row in enumerate(frame.iter_rows(named=True)):
        np.testing.assert_array_equal(features.transform(frame[i : i + 1])[0], together[i])
        np.testing.assert_array_equal(features.transform_row(row)[0], together[i])


def test_chunks_change_nothing(names, monkeypatch):
    train = names(60).with_columns(pl.lit(0).cast(pl.Int8).alias(LABEL))
    features = IdentityFeatures().fit(train, a_map(FIELDS))
    whole = features.transform(train)
    monkeypatch.setattr("n3r.identity.features.CHUNK", 100)
    np.testing.assert_array_equal(features.transform(train), whole)


@pytest.mark.parametrize("by_time", [True, False])
def test_counts_and_risks_of_training_rows(by_time):
    emails = ["q@one.example", "q@one.example", "r@one.example", "q7@one.example", "q@one.example"]
    at = [1, 2, 2, 3, 3]
    features, train = fit({"e": emails}, by_time=by_time, label=[1, 1, 0, 1, 0], order=at)
    found = named(features, features.transform_training(train))
    if by_time:  # strictly earlier rows, from two on
        assert found["e equal values"] == [0, 0, 0, 0, 2]
        assert found["e near-equal values"] == [0, 0, 0, 2, 2]
        assert found["e domain count"] == [0, 0, 0, 3, 3]
        # (hits + 20 * prior) / (rows + 20); the prior of 3 earlier rows with 2 hits is (2 + 1) / (3 + 2)
        risks = [0.5, 2 / 3, 2 / 3, (2 + 20 * 0.6) / 23, (2 + 20 * 0.6) / 23]
        assert found["e domain risk"] == pytest.approx(risks)
    else:  # the other rows
        assert found["e equal values"] == [2, 2, 0, 0, 2]
        assert found["e domain count"] == [4] * 5
        # folds of one row each; all share the prior 0.6
        others = [2, 2, 3, 2, 3]
        assert found["e domain risk"] == pytest.approx([(k + 12) / 24 for k in others])
    later = one(features, e="q@one.example")
    assert (later["e equal values"], later["e near-equal values"], later["e domain count"]) == (3, 4, 5)
    assert later["e domain risk"] == pytest.approx((3 + 12) / 25)
    assert one(features, e="r@one.example")["e equal values"] == 0  # of one training row: not kept
    assert features.words("e equal values", 3) == "3 training rows have the same e"


@given(
    st.lists(st.tuples(st.sampled_from("aab"), st.integers(0, 4), st.integers(0, 1)), min_size=8, max_size=20)
)
def test_later_rows_change_no_earlier_row(rows):
    rows.sort(key=lambda row: row[1])
    fitted = []
    for part in (rows, [row for row in rows if row[1] < 3]):
        columns = {"e": [f"{name}@{name}.example" for name, _, _ in part], "f": [name for name, _, _ in part]}
        features, train = fit(
            columns, by_time=True, label=[y for *_, y in part], order=[at for _, at, _ in part]
        )
        fitted.append(features.transform_training(train) if part else np.empty((0, len(features.names))))
    whole, early = fitted
    if len(early):
        np.testing.assert_array_equal(whole[: len(early)], early)


def people(names, n, seed=0):
    return names(n, seed).with_columns(
        pl.Series(LABEL, np.random.default_rng(seed).integers(0, 2, n), pl.Int8)
    )


def boosted(train: np.ndarray, label: np.ndarray, rows: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=30, random_state=0, early_stopping=False)
    return model.fit(np.nan_to_num(train, nan=-1), label).predict_proba(np.nan_to_num(rows, nan=-1))[:, 1]


@pytest.mark.parametrize("by_time", [True, False])
def test_random_labels_are_not_learned(names, by_time):
    """What a training row says of its own label, if anything, the boosting would learn."""
    train, later = people(names, 1500), people(names, 1500, seed=1)
    train = train.with_columns(
        pl.Series(TIME, np.arange(1500)).cast(pl.Datetime("us")),
        email=pl.format("mail@own{}.example", pl.int_range(1500)),  # a domain of its own: an id
    )
    features = IdentityFeatures().fit(train, a_map(FIELDS, by_time=by_time))
    risk = named(features, features.transform_training(train))["email domain risk"]
    assert 0.35 < auc(train[LABEL], risk) < 0.65
    found = boosted(features.transform_training(train), train[LABEL].to_numpy(), features.transform(later))
    assert 0.43 < auc(later[LABEL], found) < 0.57


def test_a_planted_relation_is_learned(names):
    train, later = people(names, 800), people(names, 800, seed=1)

    def planted(rows):
        holder = rows["holder"].fill_null("x")
        return rows.with_columns(
            holder=pl.when(rows[LABEL] == 1).then(holder.shuffle(seed=3)).otherwise(holder)
        )

    train, later = planted(train), planted(later)
    features = IdentityFeatures().fit(train, a_map(FIELDS))
    found = boosted(features.transform_training(train), train[LABEL].to_numpy(), features.transform(later))
    assert auc(later[LABEL], found) > 0.8


def test_three_classes_have_a_risk_each():
    emails = ["a@x.example"] * 6 + ["a@y.example"] * 6
    label = [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0]
    features, train = fit({"e": emails}, n_classes=3, label=label)
    assert {"e domain risk of class 1", "e domain risk of class 2"} <= set(features.names)
    found = one(features, e="b@x.example")
    assert found["e domain risk of class 1"] > found["e domain risk of class 2"]
    assert features.transform_training(train).shape == (12, len(features.names))


@pytest.mark.parametrize(
    ("columns", "numeric"),
    [
        ({"a": ["x"] * 10}, []),
        ({"a": [None] * 10, "b": [""] * 10}, []),
        ({"a": ["x"] * 10, "m": [None] * 10, "n": [1.0] * 10}, ["m", "n"]),
        ({"a": ["\0", "👍", "\u202e", "\n", "|", "@", "@@", "a@b@c", " ", "\ufffd"]}, []),
        ({"a": ["x@y"] * 10, "m": [-1.0, np.nan, np.inf, 0, 1, 2, 3, 4, 5, 6], "n": range(10)}, ["m", "n"]),
    ],
)
def test_odd_columns_do_no_harm(columns, numeric):
    features, train = fit(columns, numeric)
    tabular = TabularFeatures().fit(train, numeric, identity=features)
    for out_of_fold in (True, False):
        assert np.isfinite(tabular.transform(train, out_of_fold)).all()
    nothing = dict.fromkeys(tabular.columns)
    assert tabular.transform_row(nothing).shape == (1, len(tabular))
    assert features.transform(train[:0]).shape == (0, len(features.names))


def test_half_a_character_does_no_harm():
    features, _ = fit({"a": ["x"]})
    assert one(features, a="\ud800x")["a length"] == 2


def test_ratios_of_numbers():
    rng = np.random.default_rng(0)
    m, n, label = rng.lognormal(size=(2, 400)).tolist() + [None]
    label = (np.array(m) > np.array(n)).astype(int)
    features, _ = fit({"a": ["x"] * 400, "m": m, "n": n, "c": [1.0] * 400}, ["m", "n", "c"], label=label)
    assert features.ratios_ == [("m", "n")]
    assert one(features, a="", m=3, n=1)["m / n"] == pytest.approx(np.log(2))
    assert np.isnan(one(features, a="", m=-3, n=1)["m / n"])
    assert features.columns == ["a", "m", "n"]


def test_every_feature_says_something_in_words():
    numbers = {"m": range(40), "n": [1] + [0] * 39}
    email = {"e": ["ann@mail.example"] * 40, "f": ["Ann"] * 40}
    for n_classes in (2, 3):
        features, _ = fit(email | numbers, ["m", "n"], n_classes=n_classes)
        for name in features.names:
            for value in (0.0, 2.0, 0.5, np.nan):
                said = features.words(name, value)
                assert "{" not in said and any(column in said for column in (*email, *numbers)), name
    assert features.words("m / n", np.log(3)) == "m is 3 times n (each plus 1)"
    assert features.words("e digits", 0.25) == "25% of e are digits"
    assert features.words("e consonants in a row", 5) == "e has 5 consonants in a row"
    assert features.words("e free", 0) == "e is not of a large free provider"
    assert features.words("e domain risk of class 2", 0.125) == "domain risk of class 2 of e: 0.125"


def test_features_join_the_tabular_ones(names):
    train = people(names, 300).with_columns(pl.Series("amount", range(300)).cast(pl.Float32))
    identity = IdentityFeatures().fit(train, a_map(FIELDS, ["amount"]))
    features = TabularFeatures().fit(train, ["amount"], identity=identity)
    assert features.columns == ["amount", *FIELDS]
    assert features.numeric == ["amount"]
    assert features.names[0] == "amount"
    assert not [name for name in features.names if name.endswith("is missing")]
    state = json.loads(json.dumps(features.to_dict()))
    again = TabularFeatures.from_dict(state)
    assert again.to_dict() == features.to_dict()
    np.testing.assert_array_equal(again.transform(train, True), features.transform(train, True))
    np.testing.assert_array_equal(
        again.transform_row(train.row(0, named=True)), features.transform(train[:1])
    )
    assert not [name for name in train["billing"] if name in json.dumps(state)]
    of_before = TabularFeatures().fit(train, ["amount"]).to_dict()
    del of_before["identity"]
    assert TabularFeatures.from_dict(of_before).identity is None


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("counts", {"keys": "?", "numbers": [], "default": 0.0}, "counts"),
        ("emails", ["payer"], "e-mail fields"),
        ("risks", [], "risks for each class"),
        ("text", None, "text"),
    ],
)
def test_a_wrong_state_is_named(key, value, told):
    features, _ = fit({"e": ["a@b.example"] * 3})
    with pytest.raises(ValueError, match=told):
        IdentityFeatures.from_dict(features.to_dict() | {key: value})


@pytest.mark.slow
def test_a_hundred_thousand_rows_run_in_seconds(names):
    frame = pl.concat([names(1000)] * 100).with_columns(pl.lit(0).cast(pl.Int8).alias(LABEL))
    features = IdentityFeatures().fit(frame[:1000], a_map(FIELDS))
    start = time.process_time()
    assert features.transform(frame).shape == (100_000, len(features.names))
    assert time.process_time() - start < 20  # 4 s here
    row, seconds = frame.row(0, named=True), []
    for _ in range(200):
        start = time.perf_counter()
        features.transform_row(row)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.005  # 0.0003 here


def test_a_field_that_is_missing_is_named(names):
    with pytest.raises(ValueError, match=r"lack the columns \['payer'"):
        IdentityFeatures().fit(people(names, 5), a_map(["email", "payer"]))
    features = IdentityFeatures().fit(people(names, 5), a_map(FIELDS))
    with pytest.raises(ValueError, match=r"\['email'\]"):
        features.transform(names(5).drop("email"))
