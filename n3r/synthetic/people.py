"""Made-up people: names in the scripts of many locales, native and romanised.

Decisions:
- Names come from Faker's locale lists, read once; Faker itself is never called.
- A romanisation need not be the official one (Arabic is a consonant skeleton); it only has to be a fixed
  function. readings.txt has the reading of each letter; one that ends in "_" is a token of its own.
"""

import importlib
import unicodedata
from functools import cache
from pathlib import Path
from re import findall, sub

import numpy as np
import polars as pl

LOCALES = [
    "en_US", "es_MX", "zh_CN", "en_IN", "ko_KR", "ru_RU", "fr_FR", "pt_BR", "ja_JP", "en_GB",
    "pl_PL", "ar_AA", "de_DE", "tr_TR", "uk_UA", "es_ES", "it_IT", "hi_IN", "ta_IN",
]  # fmt: skip
NAME_ORDERS = ["{g} {f}", "{f} {g}", "{f}{g}"]
EAST_ASIAN = {"ja_JP": 1, "zh_CN": 2, "ko_KR": 2}  # of NAME_ORDERS
READINGS = Path(__file__).with_name("readings.txt")
VOWEL_MARK = "\x01"  # placed before what replaces an Indic consonant's own "a"


def romanise(names: pl.Expr) -> pl.Expr:
    """Lower-case a-z tokens, one space between, of names in any script of `LOCALES`.

    A Han or Hangul character is a token of its own, except in the Japanese names that Faker gives a
    reading for; letters of other scripts vanish.
    """
    table = _romanisation()
    latin = names.str.to_lowercase().str.replace_many(table, leftmost=True)
    latin = latin.str.replace_all(f"a{VOWEL_MARK}", "", literal=True).str.normalize("NFKD")
    latin = latin.str.replace_all(r"[\u0300-\u036f]", "").str.replace_all("[^a-z]+", " ")
    return latin.str.strip_chars(" ")


@cache
def _romanisation() -> dict[str, str]:
    """Replacements of non-Latin letters; longer keys first, so that they win."""
    japanese = importlib.import_module("faker.providers.person.ja_JP").Provider
    pairs = [*japanese.first_name_pairs, *japanese.last_name_pairs]
    table = {native: f"{latin.lower()} " for native, _, latin in pairs}
    for line in READINGS.read_text(encoding="utf-8").splitlines():
        reading, letters = line.split(" ")
        table |= dict.fromkeys(letters, reading.replace("_", " ").strip("-"))
    for start, end in ((0xAC00, 0xD7A4), (0x900, 0x980), (0xB80, 0xC00)):  # Hangul, Hindi, Tamil
        table |= {chr(code): _sound(chr(code)) for code in range(start, end)}
    return dict(sorted(table.items(), key=lambda item: -len(item[0])))


def _sound(char: str) -> str:
    """Reading of a Hangul or Indic character by its Unicode name, doubled letters made single."""
    name = unicodedata.name(char, "")
    sound = sub(r"(.)\1+", r"\1", name.split(" ")[-1].lower())
    if "HANGUL" in name:
        return f"{sound} "
    if "VOWEL SIGN" in name or "VIRAMA" in name:
        return VOWEL_MARK + sound.replace("virama", "")
    return sound if "LETTER" in name else "n" * ("ANUSVARA" in name)


@cache
def _names() -> tuple[pl.DataFrame, np.ndarray]:
    """All names (`native`, `latin`), and each pool's place in them.

    Pool 2 * locale + gender is a row: given names' start and count, family names' start and count.
    """
    tables, spans, start = [], [], 0
    for locale in LOCALES:
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        for gender in ("female", "male"):
            for wanted in (
                [f"first_names_{gender}"],
                [f"last_names_{gender}", "unisex_last_names", "last_names"],
            ):
                listed = next(getattr(provider, a) for a in wanted if hasattr(provider, a))
                tables.append(_usable(list(dict.fromkeys(listed))))
                spans.append((start, tables[-1].height))
                start += tables[-1].height
    return pl.concat(tables), np.array(spans).reshape(-1, 4)


def _usable(names: list[str]) -> pl.DataFrame:
    """The names of one word with a romanisation of at least two letters."""
    latin = romanise(pl.col("native")).str.replace_all(" ", "")
    one_word = ~pl.col("native").str.contains(r"\s") & (pl.col("latin").str.len_chars() > 1)
    return pl.DataFrame({"native": names}).with_columns(latin=latin).filter(one_word)


def draw_people(rng: np.random.Generator, locale: np.ndarray) -> pl.DataFrame:
    """A random person a row: `native` and `latin` full names, romanised `given` and `family`."""
    table, spans = _names()
    pool = spans[2 * locale + rng.integers(0, 2, len(locale))]
    place = rng.random((len(locale), 2)) ** 1.6 * pool[:, 1::2]  # early names are commoner
    given, family = (table[pool[:, 2 * i] + place[:, i].astype(np.int64)] for i in (0, 1))
    parts = pl.DataFrame([given["native"].alias("g"), family["native"].alias("f")]).with_columns(
        given=given["latin"], family=family["latin"], locale=pl.Series(LOCALES).gather(locale)
    )
    style = parts["locale"].replace_strict(EAST_ASIAN, default=0)
    return parts.select(
        "locale",
        "given",
        "family",
        native=pick(style, *map(filled, NAME_ORDERS)),
        latin=filled("{given} {family}").str.to_titlecase(),
    )


def pick(which: pl.Series, *options: pl.Expr) -> pl.Expr:
    """The option that `which` (0, 1, ...) names on each row."""
    return pl.coalesce([pl.when(which == i).then(option) for i, option in enumerate(options)])


def filled(template: str) -> pl.Expr:
    """The template with columns in the places of their names."""
    return pl.format(sub(r"\w+(?=})", "", template), *findall(r"\{(\w+)", template))
