"""Spellings of one identity are read alike, by whatever reads tokenizer.json and by the shorter way."""

import sys
import unicodedata
from itertools import product

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from n3r.evaluation.attacks import perturb
from n3r.identity.characters import fold
from n3r.spelling import CONFUSABLES, LATIN, ONE_SPELLING, WORDS, Spelling, without_spelling, words_of
from n3r.tokenizer import NameTokenizer
from n3r.vocabulary import TokenizerConfig, train_tokenizer

INVISIBLES = "\u00ad\u034f\u061c\u180b\u200b\u200c\u200d\u200e\u202e\u2060\u3164\ufe0f\ufeff\U000e0061"
WIDE = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})  # to full-width letters
OTHER_SCRIPTS = ["анна сорос", "ανα ρουσου", "анна belto", "оксана\tbelto", "山田花子", "한국"]  # stay


def read_as(tokenizer: NameTokenizer, text: str) -> str:
    return tokenizer.tokenizer.normalizer.normalize_str(text)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("An\u200bina \u2060Bel\u00adto\ufeff", "anina belto"),
        ("\u0410nin\u0430 \u0412\u0435lt\u043e", "anina belto"),  # Cyrillic
        ("\u0391n\u03b9n\u03b1 B\u0435lt\u03bf", "anina belto"),  # Greek and Cyrillic
        ("\u0430\u0440\u0435\u0445@post.example", "apex@post.example"),
        ("Anina Belto".translate(WIDE), "anina belto"),
        ("ANINA bELTO", "anina belto"),
        ("e\u200b\u0301", "\u00e9"),  # removed first, so that NFKC can put the two together
        ("b\u0435\u0301", "b\u00e9"),  # folded first
        ("J\u030c", "\u01f0"),  # a letter that has a small form alone
        *zip(OTHER_SCRIPTS, OTHER_SCRIPTS, strict=True),
    ],
)
def test_spellings_of_one_name_are_read_alike(tokenizer, typed, read):
    assert read_as(tokenizer, typed) == read
    assert tokenizer.encode([[typed]]).ids.tolist() == tokenizer.encode([[read]]).ids.tolist()


def test_confusables_are_folded_in_words_with_a_latin_letter_alone(tokenizer):
    assert read_as(tokenizer, "\u0430" * 400 + "b") == "a" * 400 + "b"
    assert read_as(tokenizer, "b\u0436" + "\u0430" * 400) == "b\u0436" + "a" * 400
    assert read_as(tokenizer, "\u0430" * 9 + " b " + "\u0430" * 9) == "\u0430" * 9 + " b " + "\u0430" * 9


def spellings(text: str) -> dict[str, str]:
    """Other spellings of a text that Unicode says are the same."""
    cases = {name: getattr(str, name)(text) for name in ("upper", "lower", "title", "casefold")}
    return cases | {form: unicodedata.normalize(form, text) for form in ("NFC", "NFD")}


CASES = [
    "\u0130brahim \u0130\u015f\u0131k", "i\u0307\u0323", "Stra\u00dfe STRASSE \u1e9e", "\u01c5",
    "\u0393\u03b9\u03ce\u03c1\u03b3\u03bf\u03c2", "\u1fb3 \u1f80", "\u0149 \u01f0 \u1e96", "\ufb03 \ufb17",
    "\u304c \ud55c", "e\u0323\u0302 \u1ec7", "\u0390 \u03b0", "\u0391\u0345", "\u0587", "\u1c80",
    "\u0451\u0439 \u0419", "\u04babc \u04bb\u0432\u0432c",
]  # fmt: skip


@pytest.mark.parametrize("text", CASES)
def test_every_spelling_of_a_name_has_one_form(text):
    [form] = ONE_SPELLING.of([text])
    assert {
        name: next(ONE_SPELLING.of([other])) for name, other in spellings(text).items() if other
    } == dict.fromkeys(spellings(text), form)
    assert fold([text])[:2] == fold([form])[:2]


# The capital of \u03bd and of \u03c5 looks like another letter than they do. The iota below a letter, \u0345,
# is a letter in capitals, so that a mark typed after it would be that letter's.
LETTERS = (
    "aI \u0130\u0131\u00df\u1e9e\u03c2\u03a3\u03b1\u0391\u0430\u0412\u043a\u0307\u0301\u0323"
    "\u200b\u00ad\u0431|.@9\uff21\ufb01\u1100\u1161"
)


EVERY = [Spelling(*switches) for switches in product((True, False), repeat=2)]


@given(st.sampled_from(EVERY), st.text(max_size=12) | st.text(LETTERS, max_size=12))
def test_normalising_twice_changes_nothing_and_both_ways_agree(spelling, text):
    [once] = spelling.of([text])
    normalize = spelling.normalizer.normalize_str
    assert normalize(text) == normalize(once) == next(spelling.of([once])) == once


@pytest.mark.parametrize(
    ("spelling", "read"),
    [
        (Spelling(True, True), "\u00e9va belto \u0451\u0436 x\u00a6y"),
        (Spelling(False, True), "\u00c9va Belto \u0401\u0436 x\u00a6y"),
        (Spelling(True, False), "\u00e9v\u0430 b\u0435l\u200bto \u0451\u0436 x\u00a6y"),
        (Spelling(False, False), "\u00c9v\u0430 B\u0435l\u200bto \u0401\u0436 x\u00a6y"),
    ],
    ids=lambda value: value.words if isinstance(value, Spelling) else "",
)
def test_case_and_confusables_are_a_switch_each(names, spelling, read):
    typed = "E\u0301v\u0430 B\u0435l\u200bto \u0401\u0436 x|\uff59"
    assert list(spelling.of([typed])) == [read] == [spelling.normalizer.normalize_str(typed)]
    config = TokenizerConfig(min_frequency=2, **spelling._asdict())
    tokenizer = train_tokenizer(names(60), config)[0]
    assert read_as(tokenizer, typed) == read and tokenizer.metadata["normalizer"] == spelling.words
    assert without_spelling(tokenizer.tokenizer)[1] == spelling


@given(st.text(LETTERS, max_size=12))
def test_case_and_composition_change_nothing(text):
    text = unicodedata.normalize("NFC", text)  # marks in their order: Python takes the case of each in place
    [form] = ONE_SPELLING.of([text])
    found = {name: next(ONE_SPELLING.of([other])) for name, other in spellings(text).items()}
    assert found == dict.fromkeys(found, form)


@pytest.mark.slow
def test_every_character_has_one_form_in_all_its_spellings():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    known = [one for one in characters if unicodedata.category(one) not in ("Cn", "Co")]
    texts = [text for one in known for text in (one, f"a{one}b")]
    forms = list(ONE_SPELLING.of(texts))
    assert list(ONE_SPELLING.of(forms)) == forms
    wrong = {
        (name, text)
        for form, text in zip(forms, texts, strict=True)
        for name, other in spellings(text).items()
        if other != text and next(ONE_SPELLING.of([other])) != form
    }
    greek = {
        text for _, text in wrong if {*unicodedata.normalize("NFKD", text)} & {*"\u03bd\u03c5\u039d\u03a5"}
    }
    # Python decomposes a vowel sign of 2020 that the tokenizers library does not know.
    assert {text for _, text in wrong if text not in greek and "\U00011938" not in text} == set()


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(INVISIBLES)), max_size=6))
def test_invisible_characters_change_nothing_anywhere(tokenizer, parts):
    hidden, plain = "".join(a + b for a, b in parts), "".join(a for a, _ in parts)
    assert read_as(tokenizer, hidden) == read_as(tokenizer, plain)


@pytest.mark.parametrize(("look", "letter"), [*zip(CONFUSABLES, LATIN, strict=True)])
def test_each_confusable_is_folded_on_either_side_of_a_latin_letter(tokenizer, look, letter):
    assert unicodedata.normalize("NFKC", look) == look
    assert unicodedata.name(look).split()[0] in ("CYRILLIC", "GREEK")
    assert letter.isascii() and look.isupper() == letter.isupper()
    assert read_as(tokenizer, f"{look}b b{look} {look}") == f"{letter}b b{letter} {look}".lower()


@pytest.mark.parametrize("attack", ["zero-width", "full-width", "case"])
def test_attacks_that_spelling_undoes(tokenizer, names, attack):
    fields = names(40)
    attacked = perturb(fields, fields.columns, attack, 1, 0)
    assert (attacked != fields).select(pl.all().any()).row(0) == (True,) * len(fields.columns)
    assert tokenizer.encode(attacked).ids.tolist() == tokenizer.encode(fields).ids.tolist()


@given(
    st.sampled_from(EVERY),
    st.lists(
        st.text(max_size=12) | st.sampled_from(["Ana Bell", "\u0414\u0430\u0440\u044c\u044f", "\u0410na"]),
        max_size=12,
    ),
)
def test_texts_are_spelled_as_the_library_does(spelling, texts):
    assert list(spelling.of(texts)) == [spelling.normalizer.normalize_str(text) for text in texts]


@given(st.lists(st.text(max_size=12) | st.text("aA1 .|аА\u0301\u200b", max_size=12), max_size=9))
def test_words_are_the_librarys(texts):
    words, numbers, offsets = words_of(texts)
    assert len(set(words)) == len(words)
    for i, text in enumerate(texts):
        expected = [word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)]
        assert [words[number] for number in numbers[offsets[i] : offsets[i + 1]]] == expected


@pytest.mark.slow
def test_every_character_is_to_both_of_one_kind():
    """Letters of a word, marks or space: two libraries with Unicode tables of their own."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    text = "".join(f"a{character}a " for character in characters)
    [found] = pl.Series([text]).str.extract_all(WORDS).to_list()
    assert found == [word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)]
