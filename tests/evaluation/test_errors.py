"""Traits by hand and against synthetic orders' signals, ratios as published, shapes that leak nothing."""

from collections import Counter
from itertools import groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from n3r.estimate import NOT_ENOUGH, holm
from n3r.evaluation.errors import EMPTY, HEAD, collapsed, mis_ranked, shapes, traits
from n3r.schema import MISSING, mask
from n3r.synthetic import orders as synth

TEXT = ["emailAddress", "billingAddressName", "customerName", "paymentAccountHolderName"]
ORDERS = synth.generate_orders(3000)
LABEL = (np.random.default_rng(0).random(3000) < ORDERS["oracle_p"].to_numpy() * 3).astype(int)
SCORE = ORDERS["oracle_p"].to_numpy()
TRAITS = traits(ORDERS, TEXT)
anything = st.lists(
    st.tuples(*[st.one_of(st.none(), st.text(max_size=12), st.sampled_from(["a.b1@c.de", "Ana Bo"]))] * 3),
    max_size=8,
)
STAND_INS = set("AaЯяΩω漢あア한عאअกXx9*@.-|:/_+,' ")


def people(email=None, a=None, b=None):
    """A frame of one person with the fields mail, a and b, under two whose mail is well formed."""
    rows = {"mail": ["ana.bo@c.de", "li.wu@c.de", email], "a": [None, None, a], "b": [None, None, b]}
    return pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.String))


def of_person(**fields):
    """The traits of this one person, apart from those of length, which are of the field."""
    row = traits(people(**fields), ["mail", "a", "b"]).row(-1, named=True)
    return [name for name, holds in row.items() if holds and "2 %" not in name]


# ---- traits


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        ("ana.bo@c.de", []),
        (None, ["missing"]),
        ("", ["empty", "not one @"]),
        ("  ", ["empty", "not one @"]),
        ("ana.bo", ["not one @"]),
        ("a@b@c", ["not one @"]),
        ("ana7@c.de", ["digits at the end of the user name"]),
        ("ana@c7.de7", []),  # not in the user name
        ("7ana+shop@c.de", ["a plus tag in the user name"]),
        ("ana2025@c.de", ["digits at the end of the user name", "4 or more digits in the user name"]),
        ("a1n2a@c.de", ["digits between letters of the user name"]),
        ("1a.2b.3c.4d@c.de", ["4 or more digits in the user name"]),
        ("anschlss@c.de", ["5 consonants in a row in the user name"]),
        ("bcdf@c.de", ["no vowel in the user name"]),
        ("b.c-d_F@c.de", ["no vowel in the user name"]),
        ("bcd@c.de", []),  # too short to say
        ("bcdé@c.de", []),  # a vowel like any other
        ("ANA.BO@C.DE", ["all capitals"]),
        ("anа@c.de", ["letters outside the Latin script", "letters of several scripts"]),  # a Cyrillic а
    ],
)
def test_traits_of_an_email(email, expected):
    assert of_person(email=email) == [f"mail: {name}" for name in expected] + ["a: missing", "b: missing"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ana Bo", []),
        ("ANA BO", ["all capitals"]),
        ("A. bo", []),
        ("Ana Bo 2", ["a digit in it"]),
        ("Ana", ["a single word"]),
        ("Иван Петров", ["letters outside the Latin script"]),
        ("Aнa Bo", ["letters outside the Latin script", "letters of several scripts"]),
        ("Ωλγα Петров", ["letters outside the Latin script", "letters of several scripts"]),
        ("高橋 さくら カレー", ["letters outside the Latin script"]),  # one way of writing, its long mark too
        ("राम தமிழ்", ["letters outside the Latin script"]),
        ("José Ñandú", []),
        ("\u3000", ["empty"]),
    ],
)
def test_traits_of_a_name(name, expected):
    found = [trait for trait in of_person(email="ana.bo@c.de", a=name) if trait.startswith("a: ")]
    assert found == [f"a: {trait}" for trait in expected]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("Ana Bo", "bo, ANA", []),  # neither order, case nor comma counts
        ("Ana Bo", " ana bo", ["identical"]),
        ("Ana Bo", "Ivo Bo", []),
        ("Ana Bo", "Ivo Wu", ["share no word"]),
        ("Ana Bo", "Anabo Cu", ["share no word"]),
        ("Ana Bo", None, []),
        ("Ana Bo", ".", []),
        (None, None, []),
    ],
)
def test_traits_of_two_names(a, b, expected):
    found = [name.removeprefix("a and b ") for name in of_person(a=a, b=b) if name.startswith("a and b")]
    assert [name.removeprefix("are ") for name in found] == expected


@pytest.mark.parametrize(
    ("email", "a", "b", "strange"),
    [
        ("ana.bo@c.de", "Ana Bo", None, False),
        ("b.anast@c.de", "Ana Bo", "Ivo Wu", False),
        ("ivo@c.de", "Ana Bo", "Ivo Wu", False),  # any name will do
        ("sunnyfox@c.de", "Ana Bo", "Ivo Wu", True),
        ("sunnybo@c.de", "Ana Bo", None, True),  # two letters are not enough
        ("j.o.s.e@c.de", "José Ñandú", None, False),
        ("nandu@c.de", "José Ñandú", None, False),
        ("anax@c.de", "Joana Bo", None, True),  # within a word, not where it begins
        ("ema@c.de", "Annemarie Bo", None, True),
        ("sunny@c.de", "李 伟", None, False),  # nothing to look for
        ("sunny@c.de", None, None, False),
        (None, "Ana Bo", None, False),
        ("x", "Ana Bo", None, False),
    ],
)
def test_whether_an_email_has_to_do_with_the_names(email, a, b, strange):
    name = "mail: the user name holds the first 3 letters of no name"
    assert (name in of_person(email=email, a=a, b=b)) == strange


def test_long_and_short_are_those_of_the_field():
    lengths = [2, 3, *[10] * 96, 20, 30]
    table = traits(pl.DataFrame({"name": ["x" * n for n in lengths] + [None]}), ["name"])
    assert table["name: among the longest 2 %"].arg_true().to_list() == [98, 99]
    assert table["name: among the shortest 2 %"].arg_true().to_list() == [0, 1]
    same = traits(pl.DataFrame({"name": ["same"] * 50}), ["name"])
    assert not same.select(r"^.*2 %$").to_numpy().any()


def test_random_user_names_are_those_that_synth_plants():
    found = TRAITS["emailAddress: digits between letters of the user name"]
    found = found | TRAITS["emailAddress: 5 consonants in a row in the user name"]
    planted = synth.mechanism_signals(ORDERS)["randomUser"]
    assert planted.sum() > 50
    assert found.to_list() == planted.to_list()


def test_fields_go_by_what_they_hold_not_by_their_names():
    other = dict(zip(TEXT, ["s1", "s2", "s3", "s4"], strict=True))
    renamed = traits(ORDERS.rename(other), list(other.values()))
    assert renamed.height == 3000
    expected = TRAITS.columns
    for name, new in other.items():
        expected = [trait.replace(name, new) for trait in expected]
    assert renamed.columns == expected
    assert renamed.to_numpy().tolist() == TRAITS.to_numpy().tolist()


def test_fields_without_any_text():
    table = traits(
        pl.DataFrame({"a": [None, None], "b": ["", None]}, schema={"a": pl.Null, "b": pl.String}), ["a", "b"]
    )
    assert [name for name in table.columns if table[name].any()] == ["a: missing", "b: missing", "b: empty"]
    assert traits(ORDERS.clear(), TEXT).height == 0
    as_category = ORDERS.with_columns(pl.col("customerName").cast(pl.Categorical))
    assert traits(as_category, TEXT).equals(TRAITS)


@given(anything)
def test_traits_of_arbitrary_text(rows):
    frame = pl.DataFrame(rows, schema=dict.fromkeys("abc", pl.String), orient="row")
    table = traits(frame, ["a", "b", "c"])
    assert set(table.dtypes) == {pl.Boolean}
    assert table.height == frame.height
    assert table.null_count().to_numpy().sum() == 0
    for field in "abc":
        missing = frame[field].is_null()
        assert table[f"{field}: missing"].to_list() == missing.to_list()
        own = (f"{field}: ", f"{field} and ")
        about = table.select(t for t in table.columns if t.startswith(own) or f"and {field} " in t)
        assert about.filter(missing).to_numpy().sum() == missing.sum()


# ---- mis-ranked rows


def counted(*groups):
    """Labels, scores (0 or 1) and the trait of groups (n, label, score, trait)."""
    y, p, trait = (np.repeat([g[i] for g in groups], [g[0] for g in groups]) for i in (1, 2, 3))
    return pl.DataFrame({"trait": trait.astype(bool)}), y, p


def test_ratio_and_interval_of_a_published_example():
    """Koopman 1984: 36 of 40 against 16 of 80 is 4.5, 95 % interval 2.94 to 7.15."""
    table, y, p = counted((36, 1, 0, 1), (4, 1, 1, 1), (16, 1, 0, 0), (64, 1, 1, 0), (50, 0, 0, 0))
    row = mis_ranked(table, y, p, 0.5).row(0, named=True)
    assert (row["n"], row["n_positive"], row["n_missed"], row["n_alarms"]) == (40, 40, 36, 0)
    assert row["missed_share"] == 36 / 52
    assert row["missed_ratio"] == pytest.approx(4.5)
    assert (round(row["missed_ratio_low"], 2), round(row["missed_ratio_high"], 2)) == (2.94, 7.15)
    names = ("share", "ratio", "ratio_low", "ratio_high", "p_holm")
    assert [row[f"alarms_{name}"] for name in names] == [None] * 5
    assert row["auroc"] is None and row["note"] == NOT_ENOUGH


def test_false_alarms_are_counted_against_good_rows():
    good = (30, 0, 1, 1), (70, 0, 0, 1), (40, 0, 1, 0), (860, 0, 0, 0)
    table, y, p = counted(*good, (20, 1, 1, 1), (30, 1, 0, 0), (9, 1, 1, 0))
    row = mis_ranked(table, y, p, 0.5).row(0, named=True)
    assert (row["n"], row["n_positive"], row["n_missed"], row["n_alarms"]) == (120, 20, 0, 30)
    relative = stats.contingency.relative_risk(30, 100, 40, 900)
    assert row["alarms_ratio"] == pytest.approx(relative.relative_risk)
    near = relative.confidence_interval()
    ends = row["alarms_ratio_low"], row["alarms_ratio_high"]
    assert ends == pytest.approx((near.low, near.high), rel=0.05)
    hypergeometric = stats.hypergeom(1000, 70, 100)
    at = hypergeometric.pmf(np.arange(71))
    assert row["alarms_p_holm"] == pytest.approx(at[at <= at[30] * (1 + 1e-9)].sum(), rel=1e-6)
    # No fraud with the trait is missed: a measured zero.
    assert (row["missed_ratio"], row["missed_ratio_low"]) == (0, 0)
    assert 0 < row["missed_ratio_high"] < 1
    assert row["auroc"] == pytest.approx(roc_auc_score(y[table["trait"]], p[table["trait"]]))


def test_a_score_at_the_threshold_is_an_alarm():
    table, y, p = counted((6, 1, 0.5, 1), (6, 1, 0.4, 0), (6, 0, 0.5, 1), (6, 0, 0.4, 0))
    row = mis_ranked(table, y, p, 0.5).row(0, named=True)
    assert (row["n_missed"], row["missed_share"], row["n_alarms"], row["alarms_share"]) == (0, 0, 6, 1)
    names = pl.DataFrame({"name": ["ana"] * 12 + ["7"] * 12})
    assert shapes(names, ["name"], y, p, 0.5).select("error", "shape", "n").rows() == [
        ("missed fraud", "a", 6),
        ("false alarm", "9", 6),
    ]


def test_failures_in_the_trait_alone():
    table, y, p = counted((5, 1, 0, 1), (5, 1, 1, 1), (100, 1, 1, 0), (50, 0, 0, 0))
    row = mis_ranked(table, y, p, 0.5).row(0, named=True)
    assert row["missed_ratio"] == pytest.approx((5.5 / 10.5) / (0.5 / 100.5))
    assert row["missed_ratio_low"] > 5
    assert row["missed_ratio_high"] is None


@pytest.mark.parametrize("trait", ["digits at the end of the user name", "among the longest 2 %"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_planted_failure_comes_out_on_top(trait, label):
    """Scores that are right but for half of the rows of one class with one trait."""
    name = f"emailAddress: {trait}"
    rng = np.random.default_rng(1)
    y = (rng.random(3000) < 0.3).astype(int)
    p = np.where(rng.random(3000) < 0.05, 1 - y, y)
    wrong = TRAITS[name].to_numpy() & (y == label) & (rng.random(3000) < 0.5)
    p = np.where(wrong, 1 - y, p)
    table = mis_ranked(TRAITS, y, p, 0.5)
    assert table["trait"][0] == name
    side, other = ("missed", "alarms") if label else ("alarms", "missed")
    top = table.row(0, named=True)
    assert top[f"{side}_ratio"] > 4 and top[f"{side}_p_holm"] < 1e-3
    assert not top[f"{other}_p_holm"] < 0.01
    assert top["auroc"] < 0.8


def test_traits_that_mean_nothing_are_rarely_significant():
    rng = np.random.default_rng(2)
    y, p = (rng.random(3000) < 0.3).astype(int), rng.random(3000)
    table = mis_ranked(TRAITS, y, p, 0.5)
    assert not (table["missed_p_holm"] < 0.01).any()
    assert not (table["alarms_p_holm"] < 0.01).any()


def test_order_correction_and_counts_over_all_traits():
    table = mis_ranked(TRAITS, LABEL, SCORE, 0.2)
    assert sorted(table["trait"]) == sorted(TRAITS.columns)
    strength = table.select(pl.max_horizontal("missed_ratio_low", "alarms_ratio_low")).to_series()
    known = strength.drop_nulls()
    assert known.is_sorted(descending=True)
    assert strength[: len(known)].null_count() == 0  # what cannot be judged stands last
    alone = pl.concat(mis_ranked(TRAITS.select(name), LABEL, SCORE, 0.2) for name in table["trait"])
    for column in ("missed_p_holm", "alarms_p_holm"):
        single = alone[column].drop_nulls()
        assert table[column].drop_nulls().to_list() == pytest.approx(holm(single))
        assert table[column].is_null().to_list() == alone[column].is_null().to_list()
    missed = (LABEL == 1) & (SCORE < 0.2)
    assert table["n_missed"].to_list() == [int((TRAITS[t].to_numpy() & missed).sum()) for t in table["trait"]]
    assert (table["missed_share"] * missed.sum()).to_list() == pytest.approx(table["n_missed"].to_list())


def test_few_rows_and_one_class_are_not_enough():
    def judged(*groups):
        return mis_ranked(*counted(*groups), 0.5).row(0, named=True)

    assert judged((5, 1, 0, 1), (5, 0, 1, 1), (9, 1, 1, 0), (9, 0, 0, 0))["note"] is None
    few = judged((4, 1, 0, 1), (5, 0, 1, 1), (9, 1, 1, 0), (9, 0, 0, 0))
    assert few["missed_ratio"] is few["missed_p_holm"] is few["auroc"] is None
    assert few["note"] == NOT_ENOUGH and few["alarms_ratio"] is not None
    assert (few["n"], few["n_positive"], few["n_missed"], few["missed_share"]) == (9, 4, 4, 1)
    everything = judged((9, 1, 0, 1), (9, 1, 0, 0), (9, 0, 0, 1), (9, 0, 0, 0))
    assert (everything["n_missed"], everything["missed_ratio"], everything["alarms_share"]) == (9, None, None)
    assert mis_ranked(TRAITS, np.zeros(3000), SCORE, 0.5)["missed_ratio"].null_count() == TRAITS.width
    assert mis_ranked(TRAITS[:0], [], [], 0.5)["n"].sum() == 0
    two = pl.DataFrame({"t": [True, False]})
    assert mis_ranked(two, [1, 0], [1, 0], 0.5, min_rows=0)["note"][0] == NOT_ENOUGH


# ---- shapes


def shape_of(text):
    """A text's shape, character by character."""
    return "".join(key for key, _ in groupby("".join(mask(c) for c in text[:HEAD])))


def test_worked_shapes():
    texts = ["Ana Smith 71", "ana.smith77@mail.example", "McDonald", "李 伟", "O'Neil-Bo"]
    texts += ["", None, "a\0\0b", "é\u0301é"]
    expected = ["Aa Aa 9", "a.a9@a.a", "AaAa", "漢 漢", "A'Aa-Aa", "", None, "a*a", "a"]
    assert collapsed(pl.Series("x", texts)).to_list() == expected


@given(st.lists(st.one_of(st.none(), st.text(), st.text("\0\n ab", max_size=80)), max_size=8))
def test_shapes_hold_stand_ins_only_and_are_the_mask_with_runs_made_one(texts):
    found = collapsed(pl.Series("x", texts, dtype=pl.String))
    assert found.name == "x"
    assert found.to_list() == [None if text is None else shape_of(text) for text in texts]
    assert set("".join(found.drop_nulls())) <= STAND_INS


@given(anything, st.integers(0, 1))
def test_no_letter_of_an_input_comes_out(rows, label):
    rows = rows * 5  # so that every shape is shared
    frame = pl.DataFrame(rows, schema=dict.fromkeys("abc", pl.String), orient="row")
    table = shapes(frame, ["a", "b", "c"], [label] * len(rows), [1 - label] * len(rows), 0.5)
    special = {MISSING, EMPTY}
    assert set("".join(s for s in table["shape"] if s not in special)) <= STAND_INS
    assert set(table["field"]) <= set("abc")


def test_shapes_of_synthetic_orders_against_counting():
    table = shapes(ORDERS, TEXT, LABEL, SCORE, 0.1, top=4)
    missed, alarm = (LABEL == 1) & (SCORE < 0.1), (LABEL == 0) & (SCORE >= 0.1)
    assert missed.sum() > 20 and alarm.sum() > 20
    assert table["error"].unique(maintain_order=True).to_list() == ["missed fraud", "false alarm"]
    expected = []
    for failure, failed, of_class in (
        ("missed fraud", missed, LABEL == 1),
        ("false alarm", alarm, LABEL == 0),
    ):
        for field in TEXT:
            shape = [MISSING if text is None else shape_of(text) for text in ORDERS[field]]
            inside, whole, data = (
                Counter(s for s, is_in in zip(shape, rows, strict=True) if is_in)
                for rows in (failed, of_class, np.ones(3000))
            )
            listed = sorted((s for s in inside if data[s] >= 5), key=lambda s: (-inside[s], s))[:4]
            expected += [
                (failure, field, s, inside[s], inside[s] / failed.sum(), whole[s], whole[s] / of_class.sum())
                for s in listed
            ]
    assert table.rows() == expected
    assert table.columns == ["error", "field", "shape", "n", "share", "n_class", "class_share"]


def test_a_shape_needs_five_rows_of_the_data():
    names = ["Ana Bo"] * 5 + ["7-7-7"] * 4 + ["ivo"] * 5
    y, p = [1] * 5 + [1] * 4 + [1] + [0] * 4, [0] * 14
    table = shapes(pl.DataFrame({"name": names}), ["name"], y, p, 0.5)
    assert table["shape"].to_list() == ["Aa Aa", "a"]
    assert table["n"].to_list() == [5, 1]  # one missed fraud, whose shape four legitimate rows share
    assert table["share"].to_list() == [0.5, 0.1]


def test_missing_and_empty_texts_have_shapes_of_their_own():
    frame = pl.DataFrame({"name": [None] * 6 + [""] * 5 + ["[MISSING]"] * 5})
    table = shapes(frame, ["name"], [0] * 16, [1] * 16, 0.5)
    assert table["shape"].to_list() == [MISSING, EMPTY, "*A*"]
    assert shapes(ORDERS, TEXT, LABEL, np.where(LABEL, 1, 0), 0.5).is_empty()  # nothing fails
    assert shapes(ORDERS.clear(), TEXT, [], [], 0.5).is_empty()


# ---- bad input


@pytest.mark.parametrize(
    ("frame", "text", "message"),
    [
        (ORDERS, [], "expected at least one"),
        (ORDERS, ["customerName", "surname"], "'surname' is missing"),
        (ORDERS, ["orderAmount", "surname"], "'surname' is missing; 'orderAmount' is Float64, expected text"),
    ],
)
@pytest.mark.parametrize("use", [traits, lambda f, t: shapes(f, t, LABEL, SCORE, 0.5)])
def test_bad_fields(use, frame, text, message):
    with pytest.raises(ValueError, match=message):
        use(frame, text)


@pytest.mark.parametrize("use", [lambda *a: mis_ranked(TRAITS, *a), lambda *a: shapes(ORDERS, TEXT, *a)])
def test_bad_labels_and_thresholds(use):
    with pytest.raises(ValueError, match="the table has 3000 rows, labels have 9"):
        use(LABEL[:9], SCORE[:9], 0.5)
    with pytest.raises(ValueError, match="are not 0 or 1"):
        use(LABEL * 2, SCORE, 0.5)
    with pytest.raises(ValueError, match="threshold nan"):
        use(LABEL, SCORE, float("nan"))


def test_traits_must_be_boolean():
    table = pl.DataFrame({"good": [True, False], "holes": [True, None], "text": ["secret", "b"]})
    with pytest.raises(ValueError, match="not: holes, text"):
        mis_ranked(table, [0, 1], [0, 1], 0.5)
