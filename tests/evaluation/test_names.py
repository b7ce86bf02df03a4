"""Scripts and locale groups of names: what decides them, and how often they are right on names never seen."""

import subprocess
import sys
import unicodedata
import zlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.evaluation import names as origin
from n3r.synthetic import orders as synth

BY_UNICODE_NAME = {"HIRAGANA": "Kana", "KATAKANA": "Kana", "CJK": "Han"} | {
    script.upper(): script for script in origin.SCRIPTS
}


@pytest.fixture(scope="module")
def model() -> origin.LocaleModel:
    return origin.fit(origin.name_lists())


def scripts(*names: str | None) -> list[str]:
    return origin.script_of(pl.Series(names, dtype=pl.String)).to_list()


def groups(*names: str | None) -> list[str]:
    return origin.locale_group(pl.Series(names, dtype=pl.String)).to_list()


# ---- scripts


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("Ivan Petrov", "Latin"),
        ("José Łukasz Müller", "Latin"),
        ("Иван Петров", "Cyrillic"),
        ("محمد علي", "Arabic"),
        ("王伟", "Han"),
        ("佐々木", "Han"),
        ("アキラ", "Kana"),
        ("山田 あきら", "Kana"),
        ("김민준", "Hangul"),
        ("अभय शर्मा", "Devanagari"),
        ("அகரன்", "Tamil"),
        ("Γιώργος", "Greek"),
        ("דוד", "Hebrew"),
        ("ሰላም", "other"),
        ("ሰላም Selam", "mixed"),
        ("Ivаn Petrov", "mixed"),  # a Cyrillic letter among Latin ones
        ("Ｉｖａｎ", "Latin"),
        ("ｱｷﾗ", "Kana"),
        ("𝐉𝐨𝐡𝐧", "Latin"),
        ("123 - .", "none"),
        ("٣٤", "none"),
        ("", "none"),
        (None, "none"),
    ],
)
def test_script_of_a_name(name, script):
    assert scripts(name) == [script]


@given(st.characters(categories=["Lu", "Ll", "Lo"]))
def test_a_letters_script_is_in_its_unicode_name(letter):
    plain = unicodedata.normalize("NFKC", letter)
    words = {unicodedata.name(c, "").split(" ")[0] for c in plain if unicodedata.category(c)[0] == "L"}
    if len(words) == 1 and (script := BY_UNICODE_NAME.get(*words)):
        assert scripts(letter) == [script]


def test_scripts_keep_the_order_of_the_rows():
    assert scripts("王伟", "Ann", None, "Иван", "Ann", "王伟") == [
        *("Han", "Latin", "none"),
        *("Cyrillic", "Latin", "Han"),
    ]


def test_the_scripts_of_synthetic_names_are_those_of_their_locales():
    orders = synth.generate_orders(3000).select("customerName", "locale").drop_nulls()
    script = origin.script_of(orders["customerName"])
    native = {"ru_RU": "Cyrillic", "uk_UA": "Cyrillic", "ar_AA": "Arabic", "zh_CN": "Han", "ko_KR": "Hangul"}
    native |= {"hi_IN": "Devanagari", "ta_IN": "Tamil", "ja_JP": "Han"}
    for locale, wanted in native.items():
        seen = set(script.filter(orders["locale"] == locale))
        assert wanted in seen <= {wanted, "Latin", *(["Kana"] if locale == "ja_JP" else [])}


# ---- locale groups


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("Giuseppe Ferrari", "Italian"),
        ("Hans Müller", "German"),
        ("María García", "Spanish/Portuguese"),
        ("MARIA GARCIA", "Spanish/Portuguese"),
        ("Jean-Pierre Dupont", "French"),
        ("Ayşe Yılmaz", "Turkish"),
        ("Olena Kovalenko", "Slavic"),
        ("Katarzyna Wiśniewska", "Slavic"),
        ("Priya Sharma", "South Asian"),
        ("John Smith", "English"),
        ("Sato Akira", "East Asian"),
        ("Иван", "Slavic"),
        ("محمد", "Arabic"),
        ("김민준", "East Asian"),
        ("அகரன்", "South Asian"),
        ("Γιώργος", "other script"),
        ("Ivаn Petrov", "uncertain"),
        ("J", "uncertain"),
        (None, "none"),
        ("42", "none"),
    ],
)
def test_group_of_a_name(name, group):
    assert groups(name) == [group]


def test_groups_keep_the_order_of_the_rows_with_missing_and_wordless_names_among_them():
    names = [None, "J", "Hans Müller", "Ivаn", "", "Hans Müller", "王伟", "J", "Giuseppe Ferrari"]
    expected = ["none", "uncertain", "German", "uncertain", "none", "German"]
    assert groups(*names) == [*expected, "East Asian", "uncertain", "Italian"]


def test_a_name_is_the_sum_of_its_words(model):
    given_name, family_name = model.evidence(["hans", "müller"]).to_numpy()
    p = np.exp(given_name + family_name)
    alone = [np.exp(logit).max() / np.exp(logit).sum() for logit in (given_name, family_name)]
    assert p.max() / p.sum() > max(*alone, origin.FLOOR)
    assert model.regression.classes_[p.argmax()] == groups("Hans Müller")[0] == "German"


@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=8))
def test_any_text_has_one_known_group(names):
    known = {*origin.LOCALE_GROUPS.values(), "uncertain", "none", "other script"}
    found = groups(*names)
    assert len(found) == len(names)
    assert set(found) <= known
    assert [script == "none" for script in scripts(*names)] == [group == "none" for group in found]


def test_every_locale_has_a_group_and_the_model_knows_all_of_them(model):
    assert sorted(origin.LOCALE_GROUPS) == sorted(synth.LOCALES)
    assert model.regression.classes_.tolist() == sorted(set(origin.LOCALE_GROUPS.values()))


def test_lists_weigh_the_same_whatever_their_length():
    names = origin.name_lists()
    sums = names.group_by("locale", "part").agg(pl.col("weight").sum(), n=pl.len())
    assert sums["weight"].to_list() == pytest.approx([1] * 2 * len(synth.LOCALES))
    assert sums["n"].max() > 10 * sums["n"].min()
    assert names["latin"].str.contains("^[a-z]{2,}$").all()


def test_names_never_seen_are_told_as_often_as_the_module_says():
    names = origin.name_lists()
    unseen = pl.Series([zlib.crc32(word.encode()) % 4 == 0 for word in names["latin"]])
    model = origin.fit(names.filter(~unseen))
    full = full_names(names.filter(unseen), per_locale=200)
    guess = origin.locale_group(full["name"], model)
    told = guess != origin.UNCERTAIN
    assert told.mean() == pytest.approx(0.81, abs=0.03)
    assert (guess == full["group"]).filter(told).mean() == pytest.approx(0.89, abs=0.02)


def full_names(names: pl.DataFrame, per_locale: int) -> pl.DataFrame:
    """Random full names in Latin letters, half as listed and half romanised, with their group."""
    rng, rows = np.random.default_rng(0), []
    for locale in synth.LOCALES:
        parts = [names.filter(locale=locale, part=part) for part in ("given", "family")]
        for i in range(per_locale):
            words = [part["native" if i % 2 else "latin"][int(rng.integers(part.height))] for part in parts]
            rows.append((" ".join(words).title(), origin.LOCALE_GROUPS[locale]))
    full = pl.DataFrame(rows, schema=["name", "group"], orient="row").unique(maintain_order=True)
    return full.filter(origin.script_of(full["name"]) == "Latin")


def test_groups_are_the_same_in_another_process():
    names = ["Maria Silva", "Tomasz Nowak", "Emma Martin", "Ali Khan", "Chen Li", "Anna Rossi", "Peter Ade"]
    code = (
        "import polars as pl, sys; from n3r.evaluation import names as origin; "
        "print(origin.locale_group(pl.Series(sys.argv[1:])).to_list())"
    )
    run = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(groups(*names))


def test_importing_the_module_is_light():
    code = "import sys, n3r.evaluation.names; print('sklearn' in sys.modules, 'faker' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


# ---- agreement, name_of


def test_agreement_counts_each_guess():
    truth = pl.Series(["English", "English", "English", "French", None])
    guess = pl.Series(["English", "French", "uncertain", "French", "none"])
    table = origin.agreement(guess, truth)
    assert table.rows() == [
        ("English", 3, 1, 1 / 3, 1 / 3, 1, 1, 0, 1),
        ("French", 1, 1, 1.0, 0.0, 0, 1, 0, 0),
        ("none", 1, 1, 1.0, 0.0, 0, 0, 1, 0),
    ]
    assert table.columns[5:] == ["English", "French", "none", "uncertain"]
    with pytest.raises(ValueError, match="guess has 1 values, truth has 5"):
        origin.agreement(guess.head(1), truth)


def test_name_of_takes_the_first_that_is_there():
    frame = pl.DataFrame(
        {
            "customer": ["Ann", None, "  ", None],
            "holder": ["Bob", "Eve", None, ""],
            "billing": ["x", "y", "z", None],
        }
    )
    names = origin.name_of(frame, ["customer", "holder", "billing"])
    assert names.to_list() == ["Ann", "Eve", "z", None]
    assert origin.name_of(frame, ["holder"]).to_list() == ["Bob", "Eve", None, None]
    with pytest.raises(ValueError, match="no columns email; the frame has customer, holder, billing"):
        origin.name_of(frame, ["customer", "email"])
