"""Features of identity strings and of their relations: what an analyst would count in them.

Decisions:
- An e-mail address is recognised by its own shape, not by its column; only its user name is read.
- On 30,000 synthetic orders boosting reaches an AUC of 0.841 from the numbers alone, 0.883 with the figures
  of each field, and 0.896 with those of each two fields. The entropy of characters added nothing to the share
  of distinct ones.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import polars as pl

EMAIL = r"^\s*([^@\s]+)@([^@\s]+)\s*$"  # user name, domain
SHARES = {
    "capitals": r"\p{Lu}",
    "digits": r"\d",
    "symbols": r"[^\p{L}\p{M}\d\s]",
    "non-ASCII": r"[^\x00-\x7F]",
}


def string_statistics(frame: pl.DataFrame, text: Sequence[str]) -> pl.DataFrame:
    """What an analyst would count in identity strings: figures of each field and of each two fields.

    A row for a row, Float64, columns such as "email digits" and "email ~ holder trigrams". Of an e-mail
    address only the user name is read. Capitals, digits and their like are shares of a value's
    characters. Of two fields, "words" is the share of the shared words in the value that has fewer,
    "trigrams" the Jaccard index of their runs of three characters, "equal" 0 or 1; case, accents and
    punctuation do not count. What a value that is missing, empty or only punctuation cannot have is null.
    Raises ValueError naming the fields that the frame lacks.
    """
    if absent := [name for name in text if name not in frame.columns]:
        raise ValueError(f"the rows lack the text fields {absent}")
    values = frame.lazy().select(_user_name(name) for name in text)
    folded = values.select(_folded(name) for name in text)
    plain = folded.select(pl.col(text).str.replace_all(r"[^\p{L}\d]", "").replace("", None))
    words = folded.select(_words(name) for name in text)
    trigrams = plain.select(_trigrams(name) for name in text)
    pairs = list(combinations(text, 2))
    figures = [
        values.select(figure for name in text for figure in _figures(name)),
        folded.select(figure for name in text for figure in _sounds(name)),
        words.select(_overlap(a, b).alias(f"{a} ~ {b} words") for a, b in pairs),
        trigrams.select(_jaccard(a, b).alias(f"{a} ~ {b} trigrams") for a, b in pairs),
        plain.select((pl.col(a) == pl.col(b)).alias(f"{a} ~ {b} equal") for a, b in pairs),
    ]
    return pl.concat(pl.collect_all(figures), how="horizontal").cast(pl.Float64)


def _user_name(name: str) -> pl.Expr:
    """The value, or the part of an e-mail address before the @."""
    value = pl.col(name).cast(pl.String)
    return pl.coalesce(value.str.extract(EMAIL, 1), value).alias(name)


def _folded(name: str) -> pl.Expr:
    """Without case and accents."""
    return pl.col(name).str.to_lowercase().str.normalize("NFKD").str.replace_all(r"\p{M}", "")


def _words(name: str) -> pl.Expr:
    """The distinct words; null without one."""
    words = pl.col(name).str.extract_all(r"[\p{L}\d]+").list.unique()
    return pl.when(words.list.len() > 0).then(words).alias(name)


def _trigrams(name: str) -> pl.Expr:
    """The distinct runs of three characters; of one or two, the value itself."""
    value = pl.col(name)
    runs = [value.str.slice(start).str.extract_all("...") for start in range(3)]
    return pl.concat_list(*runs, value.str.extract_all("^..?$")).list.unique().alias(name)


def _share(name: str, pattern: str) -> pl.Expr:
    """Matches per character; null for an empty value."""
    return _ratio(pl.col(name).str.count_matches(pattern), pl.col(name).str.len_chars())


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return part / pl.when(whole > 0).then(whole)


def _longest(name: str, pattern: str) -> pl.Expr:
    """Characters of the longest match, 0 without one."""
    lengths = pl.col(name).str.extract_all(pattern).list.eval(pl.element().str.len_chars())
    return pl.when(pl.col(name).is_not_null()).then(lengths.list.max().fill_null(0))


def _figures(name: str) -> Iterator[pl.Expr]:
    """What is counted in a value as it was typed."""
    value, length = pl.col(name), pl.col(name).str.len_chars()
    yield value.is_null().alias(f"{name} missing")
    yield length.alias(f"{name} length")
    yield value.str.count_matches(r"\S+").alias(f"{name} words")
    yield _longest(name, r"\S+").alias(f"{name} longest word")
    for figure, pattern in SHARES.items():
        yield _share(name, pattern).alias(f"{name} {figure}")
    yield value.str.count_matches(r"\d+").alias(f"{name} numbers")
    yield _longest(name, r"\d+").alias(f"{name} longest number")
    yield value.str.extract(r"(\d*)\s*$").str.len_chars().alias(f"{name} digits at the end")
    yield _ratio(value.str.split("").list.n_unique(), length).alias(f"{name} distinct characters")


def _sounds(name: str) -> Iterator[pl.Expr]:
    """What is counted in a folded value: random letters are hard to say."""
    yield _share(name, "[aeiou]").alias(f"{name} vowels")
    yield _longest(name, "[b-df-hj-np-tv-z]+").alias(f"{name} consonants in a row")


def _shared(a: str, b: str) -> pl.Expr:
    return pl.col(a).list.set_intersection(b).list.len().cast(pl.Int64)


def _overlap(a: str, b: str) -> pl.Expr:
    """What two lists share, of the shorter."""
    return _shared(a, b) / pl.min_horizontal(pl.col(a, b).list.len())


def _jaccard(a: str, b: str) -> pl.Expr:
    """What two lists share, of all that is in them."""
    return _shared(a, b) / (pl.col(a).list.len() + pl.col(b).list.len() - _shared(a, b))
