"""Spellings of one identity are read alike, by whatever reads tokenizer.json and by the shorter way."""

import sys
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from n3r.evaluation.attacks import perturb
from n3r.spelling import CONFUSABLES, LATIN, ONE_SPELLING, WORDS, spelled, words_of
from n3r.tokenizer import NameTokenizer

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


def test_confusables_are_folded_near_a_latin_letter_alone(tokenizer):
    assert read_as(tokenizer, "\u0430" * 40 + "b") == "\u0430" * 9 + "a" * 31 + "b"
    assert read_as(tokenizer, "b" + "\u0430" * 40) == "b" + "a" * 31 + "\u0430" * 9


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


@given(st.lists(st.text(max_size=12) | st.sampled_from(["Ana Bell", "Дарья", "Аna"]), max_size=12))
def test_texts_are_spelled_as_the_library_does(texts):
    assert list(spelled(texts)) == [ONE_SPELLING.normalize_str(text) for text in texts]


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
