"""Attacks on strings: what each does, that strength is a share and nested, and what a score loses by it."""

import re
import unicodedata
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sklearn.metrics import roc_auc_score

from n3r.estimate import NOT_ENOUGH
from n3r.evaluation.attacks import (
    ATTACKS,
    CONFUSABLES,
    INVISIBLE,
    applicable,
    attack_curve,
    perturb,
    sample_for_attack,
)
from n3r.identity.mail import address_fields
from n3r.metrics import auc_ci, paired_auc, recall_at_fpr
from n3r.schema import TEXT

MAIL, NAMES = "mail", ["billing", "customer", "holder"]
FIELDS = [MAIL, *NAMES]
WIDE = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})

samples = st.sampled_from(["Ana Smith", "ß", "Иван Петров", "山田", "a.b", "", "[MISSING]", "a\u0301", "ǆ"])
word = st.one_of(st.none(), st.text(max_size=8), samples)
user = st.text(st.characters(exclude_characters="@", exclude_categories=("Cs",)), max_size=8)
mail = st.one_of(st.none(), user.map(lambda text: f"{text}@post.example"))
known = st.just(("ana.b@post.example", "Ana Bell", None, "A Bell"))  # so that there is an address field
frames = st.tuples(st.lists(st.tuples(mail, word, word, word), max_size=5), known).map(
    lambda parts: frame_of([*parts[0], parts[1]]).with_columns(amount=1.5)
)
attacks, strengths = st.sampled_from(list(ATTACKS)), st.floats(0, 1)


def frame_of(rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, dict.fromkeys(FIELDS[: len(rows[0])], pl.String), orient="row")


def one(attack: str, *texts: str | None, strength: float = 1.0, seed: int = 0) -> tuple[str | None, ...]:
    """The only row of a frame under attack."""
    frame = frame_of([texts])
    return perturb(frame, frame.columns, attack, strength, seed).row(0)


def orders(n: int, seed: int = 0) -> pl.DataFrame:
    """Addresses and names, a third of them of frauds, with a score that knows a little of it."""
    rng = np.random.default_rng(seed)
    given, family = rng.choice(["ana", "lenka", "joseph"], n), rng.choice(["smith", "perez", "hoa"], n)
    label = (rng.random(n) < 1 / 3).astype(int)
    names = [f"{g} {f}".title() for g, f in zip(given, family, strict=True)]
    users = [f"{g}.{f}@post.example" for g, f in zip(given, family, strict=True)]
    frame = pl.DataFrame({MAIL: users, **dict.fromkeys(NAMES, names), "label": label})
    return frame.with_columns(base=pl.Series(rng.normal(label, 1)))


def score(frame: pl.DataFrame) -> np.ndarray:
    """A score that falls by what is not plain in the customer's name."""
    return (frame["base"] - 0.3 * frame["customer"].str.count_matches("[^A-Za-z ]").fill_null(9)).to_numpy()


# ---- what each attack does


@pytest.mark.parametrize(
    ("attack", "row", "attacked"),
    [
        ("dots", ("an.ab@x.yz", "Ana Bell"), ("a.n.a.b@x.yz", "Ana Bell")),
        ("dots", ("a\nb@x.yz",), ("a.\n.b@x.yz",)),
        ("swaps", ("an.abc@x.yz", "Ana Bell"), ("na.bac@x.yz", "nAa eBll")),
        ("doubling", ("an.7@x.yz", "Ana Bél"), ("aann.7@x.yz", "AAnnaa BBééll")),
        ("case", ("Ana.b@x.yz", "Ana ßI"), ("aNA.B@x.yz", "aNA ßi")),
        ("full-width", ("ana.7@x.yz", "Ana Bé|"), ("ana.7".translate(WIDE) + "@x.yz", "Ana".translate(WIDE))),
        ("dropped fields", ("ana.b@x.yz", "Ana Bell"), (None, None)),
        ("dropped fields", (None, ""), (None, None)),
        ("field order", ("a@x.yz", "Ana", "Bell"), ("a@x.yz", "Bell", "Ana")),
        ("field order", ("a@x.yz", "Ana", None, "Bell"), ("a@x.yz", "Bell", None, "Ana")),
        ("field order", ("a@x.yz", "Ana"), ("a@x.yz", "Ana")),
    ],
)
def test_attacks_worked_by_hand(attack, row, attacked):
    if attack == "full-width":
        attacked = (attacked[0], attacked[1] + " " + "B".translate(WIDE) + "é" + "|".translate(WIDE))
    assert one(attack, *row) == attacked


def test_homoglyphs_look_like_latin_and_are_not():
    for letter, others in CONFUSABLES.items():
        assert letter.isascii() and letter.isalpha()
        for other in others:
            assert not other.isascii()
            assert unicodedata.normalize("NFKC", other) == other
            assert unicodedata.category(other) == unicodedata.category(letter) or other == "Ꭺ"
    plain = "ABCEHIJKMNOPSTUXYZacdeghijlnopqsuvwxy"
    assert "".join(CONFUSABLES) == plain
    attacked = one("homoglyphs", f"{plain}bz@x.yz", plain)
    assert all(a in CONFUSABLES[b] for a, b in zip(attacked[1], plain, strict=True))
    assert attacked[0].endswith("bz@x.yz")


def test_zero_width_characters_are_invisible_and_between_the_others():
    assert all(unicodedata.category(character) == "Cf" for character in INVISIBLE)
    for text in one("zero-width", "ana@x.yz", "Ana Bell"):
        assert re.sub(f"[{INVISIBLE}]", "", text) in ("ana@x.yz", "Ana Bell")
    assert re.fullmatch(f"A[{INVISIBLE}]n[{INVISIBLE}]a", one("zero-width", "Ana")[0])
    assert one("zero-width", "A", "") == ("A", "")


def test_digits_end_words_and_the_user_name():
    attacked = one("digits", "ana.b@x.yz", "Ana  Bell", "")
    assert re.fullmatch(r"ana\.b\d{1,3}@x\.yz", attacked[0])
    assert re.fullmatch(r"Ana\d{1,3}  Bell\d{1,3}", attacked[1])
    assert attacked[2] == ""


def test_a_tag_follows_the_user_name():
    attacked = one("plus-addressing", "ana.b@x.yz", "Ana Bell")
    assert re.fullmatch(r"ana\.b\+[a-z]{4}@x\.yz", attacked[0])
    assert attacked[1] == "Ana Bell"
    tags = {one("plus-addressing", "ana@x.yz", seed=seed)[0] for seed in range(50)}
    assert len(tags) > 45


def test_the_domain_is_what_follows_the_last_sign():
    frame = pl.DataFrame({MAIL: ["ana@x.yz", "bell@x.yz", "c@x.yz", '"a@b"@x.yz', "ana"]})
    louder = ["ANA@x.yz", "BELL@x.yz", "C@x.yz", '"A@B"@x.yz', "ANA"]
    assert perturb(frame, [MAIL], "case", 1, 0)[MAIL].to_list() == louder
    assert perturb(frame, [MAIL], "dots", 1, 0)[MAIL].to_list()[-1] == "ana"


def test_names_are_moved_among_themselves_and_every_way_round():
    ways = {one("field order", "a@x.yz", "1", "2", "3", seed=seed) for seed in range(40)}
    assert ways == {("a@x.yz", "2", "3", "1"), ("a@x.yz", "3", "1", "2")}


# ---- any text


@given(frames, attacks, st.integers(0, 99))
def test_no_strength_is_no_change(frame, attack, seed):
    assert_frame_equal(perturb(frame, FIELDS, attack, 0, seed), frame)


@given(frames, attacks, strengths, st.integers(0, 99))
def test_null_rows_columns_and_domains_stay(frame, attack, strength, seed):
    attacked = perturb(frame, FIELDS, attack, strength, seed)
    assert attacked.columns == frame.columns
    assert attacked["amount"].equals(frame["amount"])
    assert_frame_equal(attacked, perturb(frame, FIELDS, attack, strength, seed))
    for name in FIELDS:
        for before, after in zip(frame[name], attacked[name], strict=True):
            assert after is None if before is None else (after is not None or attack == "dropped fields")
            if name == MAIL and after is not None:
                assert after.endswith("@post.example")
    if ATTACKS[attack].needs == "address":
        assert_frame_equal(attacked.select(NAMES), frame.select(NAMES))


@given(frames, attacks, strengths, strengths)
def test_changes_at_a_lower_strength_are_among_those_at_a_higher_one(frame, attack, one_, other):
    low, high = (perturb(frame, FIELDS, attack, s, 3) for s in sorted((one_, other)))
    for name in FIELDS:
        for before, less, more in zip(frame[name], low[name], high[name], strict=True):
            if before is None or more is None:
                continue
            if attack in ("zero-width", "dots", "doubling"):  # what is put in is put in twice
                assert is_within(before, less) and is_within(less, more)
            elif attack == "field order":
                assert less in (before, more)
            elif attack in ("digits", "plus-addressing"):
                parts = zip(*(re.split(r"(\s+|@)", text) for text in (before, less, more)), strict=True)
                assert all(b in (a, c) for a, b, c in parts)
            else:
                assert len(before) == len(less) == len(more)
                assert all(b in (a, c) for a, b, c in zip(before, less, more, strict=True))


def is_within(short: str, long: str) -> bool:
    rest = iter(long)
    return all(character in rest for character in short)


def test_dropped_fields_are_nested():
    frame = orders(200)
    less, more = (
        perturb(frame, FIELDS, "dropped fields", s, 0).select(pl.col(FIELDS).is_null()).to_numpy()
        for s in (0.2, 0.5)
    )
    assert (less <= more).all()
    assert (less.mean(), more.mean()) == pytest.approx((0.2, 0.5), abs=0.05)


@pytest.mark.parametrize("attack", ["homoglyphs", "swaps", "case", "full-width"])
def test_strength_is_the_share_of_places(attack):
    text = "acemny" * 2000
    places = 2 if attack == "swaps" else 1
    changed = sum(a != b for a, b in zip(one(attack, text, strength=0.3)[0], text, strict=True))
    full = sum(a != b for a, b in zip(one(attack, text)[0], text, strict=True))
    assert changed / full == pytest.approx(0.3, abs=0.02)
    assert full >= len(text) * 2 / 3 // places


@given(frames, attacks, st.integers(0, 2), word)
def test_a_row_does_not_depend_on_other_rows(frame, attack, at, text):
    at = min(at, len(frame) - 1)
    other = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == at).then("holder").otherwise(pl.lit(text)).alias("holder")
    )
    a, b = (perturb(f, FIELDS, attack, 0.5, 1).row(at) for f in (frame, other))
    assert a == b


def test_seeds_rows_and_fields_differ():
    frame = frame_of([("ana.bell@x.yz", *["Ana Bell Perez"] * 3)] * 2)
    a, b = (perturb(frame, FIELDS, "homoglyphs", 0.5, seed) for seed in (0, 1))
    strings = [text for changed in (a, b) for name in NAMES for text in changed[name]]
    assert len(set(strings)) == len(strings)


def test_the_joined_text_is_made_anew():
    frame = frame_of([("a@x.yz", "Ana", None, "Bell"), (None, "A", "B", "C")])
    frame = frame.with_columns(pl.Series(TEXT, ["a@x.yz|Ana|[MISSING]|Bell", "[MISSING]|A|B|C"]))
    assert_frame_equal(perturb(frame, FIELDS, "case", 0, 0), frame)
    louder = ["A@x.yz|aNA|[MISSING]|bELL", "[MISSING]|a|b|c"]
    assert perturb(frame, FIELDS, "case", 1, 0)[TEXT].to_list() == louder
    dropped = perturb(frame, FIELDS, "dropped fields", 1, 0)
    assert dropped[TEXT].to_list() == ["|".join(["[MISSING]"] * 4)] * 2


# ---- what applies, and what is refused


def test_addresses_are_found_by_their_values():
    frame = orders(9)
    assert address_fields(frame, FIELDS) == [MAIL]
    assert applicable(frame, FIELDS) == list(ATTACKS)
    assert address_fields(frame.with_columns(pl.col(MAIL) + "@"), FIELDS) == []
    handles = pl.DataFrame({"screen_name": ["@ana", "bell", "@@"], "location": [None, "x", "y"]})
    of_addresses = ("plus-addressing", "dots")
    assert applicable(handles, handles.columns) == [n for n in ATTACKS if n not in of_addresses]
    assert "field order" not in applicable(frame, [MAIL, "holder"])
    nothing = pl.DataFrame({"name": [None, None]}, {"name": pl.String})
    assert applicable(nothing, ["name"]) == applicable(nothing[:0], ["name"])


@pytest.mark.parametrize("attack", ["plus-addressing", "dots"])
def test_without_addresses_attacks_on_them_change_nothing(attack):
    frame = orders(9).drop(MAIL)
    assert_frame_equal(perturb(frame, NAMES, attack, 1, 0), frame)


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_no_rows_are_no_rows(attack):
    frame = orders(9)[:0]
    assert_frame_equal(perturb(frame, FIELDS, attack, 1, 0), frame)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf")])
def test_strengths_outside_0_to_1_are_refused(strength):
    with pytest.raises(ValueError, match=r"strength .*\[0, 1\]"):
        perturb(orders(3), FIELDS, "case", strength, 0)
    with pytest.raises(ValueError, match=r"strength .*\[0, 1\]"):
        attack_curve(score, orders(30), FIELDS, "label", ["case"], [0.1, strength])


def test_unknown_attacks_and_missing_fields_are_named():
    with pytest.raises(ValueError, match="'homoglyph' .did you mean 'homoglyphs'.*full-width") as error:
        perturb(orders(3), FIELDS, "homoglyph", 0.5, 0)
    assert all(name in str(error.value) for name in ATTACKS)
    with pytest.raises(ValueError, match="unknown attack 'sql'"):
        attack_curve(score, orders(30), FIELDS, "label", ["case", "sql"])
    with pytest.raises(ValueError, match="lacks the text fields payer"):
        perturb(orders(3), [*FIELDS, "payer"], "case", 0.5, 0)
    with pytest.raises(ValueError, match="attacked 'good'"):
        attack_curve(score, orders(30), FIELDS, "label", attacked="good")


# ---- what a score loses


@pytest.mark.parametrize("attacked", ["fraud", "all"])
def test_the_curve_against_scikit_learn(attacked):
    frame = orders(400)
    y, clean = frame["label"].to_numpy(), score(frame)
    curve = attack_curve(score, frame, FIELDS, "label", ["case", "homoglyphs"], [0, 0.4, 1], 5, attacked)
    assert curve["attack"].to_list() == ["case"] * 3 + ["homoglyphs"] * 3
    assert curve["strength"].to_list() == [0, 0.4, 1] * 2
    for got in curve.iter_rows(named=True):
        changed = score(perturb(frame, FIELDS, got["attack"], got["strength"], 5))
        p = changed if attacked == "all" else np.where(y == 1, changed, clean)
        assert got["auroc"] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
        assert got["difference"] == pytest.approx(roc_auc_score(y, p) - roc_auc_score(y, clean), abs=1e-12)
        assert got.items() >= auc_ci(y, p).columns("auroc").items()
        paired = paired_auc(y, p, clean)
        assert got.items() >= paired.difference.columns("difference").items()
        cut = np.sort(clean[y == 0])[::-1][int(0.01 * (y == 0).sum())]
        caught = (clean > cut) & (y == 1)
        assert caught.sum() == round(recall_at_fpr(y, clean, 0.01) * y.sum()) > 0
        assert got["still_caught"] == (p[caught] > cut).mean()
        assert (got["n"], got["n_positive"], got["note"]) == (400, y.sum(), None)
    assert curve.filter(pl.col("strength") == 0)["difference"].to_list() == [0, 0]
    losses = curve.filter(attack="homoglyphs")["difference"]
    assert losses[2] < losses[1] < 0 if attacked == "fraud" else True


@pytest.mark.parametrize("n", [7, 50, 99, 100, 101, 250, 700])
def test_caught_is_what_recall_at_one_per_cent_counts(n):
    rng = np.random.default_rng(n)
    y, at = np.tile([0, 1], n), np.arange(2 * n)
    frame = orders(2 * n).with_columns(label=y, base=pl.Series((rng.integers(0, 300, 2 * n) + 100 * y) / 10))

    def falling(rows: pl.DataFrame) -> np.ndarray:  # under attack every second fraud falls to the bottom
        return np.where((at % 4 == 3) & (not rows.equals(frame)), -1.0, rows["base"])

    [share] = attack_curve(falling, frame, FIELDS, "label", ["case"], [1])["still_caught"]
    clean = frame["base"].to_numpy()
    n_caught = round(recall_at_fpr(y, clean, 0.01) * n)
    caught = [i for i in at if y[i] and (clean[i] <= clean[y == 0]).sum() <= int(n / 100)]
    assert len(caught) == n_caught
    assert share == np.mean([i % 4 == 1 for i in caught])


def test_only_frauds_are_changed_unless_all_are():
    frame, seen = orders(60), []

    def watching(rows: pl.DataFrame) -> np.ndarray:
        seen.append(rows)
        return rows["base"].to_numpy()

    good = frame["label"] == 0
    attack_curve(watching, frame, FIELDS, "label", ["doubling"], [1])
    assert_frame_equal(seen[0], frame)
    assert_frame_equal(seen[1].filter(good), frame.filter(good))
    assert (seen[1].filter(~good)["holder"] != frame.filter(~good)["holder"]).all()
    attack_curve(watching, frame, FIELDS, "label", ["doubling"], [1], attacked="all")
    assert (seen[3]["holder"] != frame["holder"]).all()


def test_attacks_that_do_not_apply_are_left_out():
    frame = orders(60)
    curve = attack_curve(score, frame.drop(MAIL), NAMES, "label", ["dots", "case"], [1])
    assert curve["attack"].to_list() == ["case"]
    empty = attack_curve(score, frame.drop(MAIL), NAMES, "label", ["dots"])
    assert empty.is_empty()
    assert empty.schema == attack_curve(score, frame, FIELDS, "label", ["dots"]).schema


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_not_enough_data(label):
    frame = orders(10).with_columns(label=label)
    curve = attack_curve(score, frame, FIELDS, "label", ["case"], [0.5])
    assert curve["note"].to_list() == [NOT_ENOUGH]
    assert curve.select("^auroc.*$", "^difference.*$", "still_caught").row(0) == (None,) * 7


def test_ten_rows_and_constant_scores_have_figures():
    frame = orders(10, seed=2)
    assert 2 <= frame["label"].sum() <= 8
    assert attack_curve(score, frame, FIELDS, "label", ["case"], [0.5])["auroc"].null_count() == 0
    flat = attack_curve(lambda rows: np.full(len(rows), 0.5), frame, FIELDS, "label", ["case"], [0.5])
    assert flat.select("auroc", "difference", "still_caught").row(0) == (0.5, 0.0, None)


@given(st.lists(st.integers(0, 1), max_size=40), st.integers(0, 12), st.integers(0, 3))
def test_a_sample_has_at_most_so_many_rows_of_each_class_in_order(labels, n, seed):
    frame = pl.DataFrame({"label": labels}, {"label": pl.Int64}).with_row_index("row")
    sample = sample_for_attack(frame, "label", n, seed)
    for c in (0, 1):
        assert sample.filter(label=c).height == min(n, labels.count(c))
    assert all(a < b for a, b in pairwise(sample["row"]))
    assert_frame_equal(sample, sample_for_attack(frame, "label", n, seed))
