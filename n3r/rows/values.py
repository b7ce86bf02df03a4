"""One text of each value, whatever type holds it: 3, 3.0 and "3" are one category, id, segment or label.

Decisions:
- A whole number has neither point nor exponent, however large it is; other numbers have no exponent.
- Truth values are "true" and "false", dates ISO, NaN is no value. Integers never pass through a float.
- A value of a text stays as it is ("007", "1.10", "3E5"), unless it is how programs write a whole float, a
  float with an exponent, or a truth value: "3.0", "1e+16", "1.5E7", "True". Files of text know no types.
- Identity strings are no values: what a customer typed is kept to the letter (`typed_texts`).
"""

import re
from decimal import Decimal
from math import isfinite

import polars as pl

# Python writes 1e+16 and 1e-05, polars 1e16 and 1e-7, Java 1.0E7; "3e5" may be the name of something.
_EXPONENT = (
    r"\.[0-9]+[eE][+-]?[0-9]{1,3}|e\+?(?:1[6-9]|[2-9][0-9]|[1-3][0-9]{2})|e-(?:0?[5-9]|[1-9][0-9]{1,2})"
)
_WHOLE = r"-?(?:0|[1-9][0-9]*)"
WRITTEN = rf"{_WHOLE}\.0+|-0|-?[1-9](?:{_EXPONENT})|True|TRUE|False|FALSE"
_WRITTEN = re.compile(WRITTEN)


def is_text(kind: pl.DataType) -> bool:
    """Whether a column of the type holds texts."""
    return kind in (pl.String, pl.Categorical, pl.Enum)


def is_value(kind: pl.DataType) -> bool:
    """Whether a column of the type can be read as texts, one for each value."""
    return is_text(kind) or kind in (pl.Boolean, pl.Date, pl.Null) or kind.is_numeric()


def as_text(name: str | None) -> pl.Expr:
    """The column as texts, one for each value; null where there is none."""
    if name is None:
        return pl.lit(None, dtype=pl.String)
    return pl.col(name).map_batches(texts_of, return_dtype=pl.String, is_elementwise=True)


def as_typed(name: str) -> pl.Expr:
    """The column as `typed_texts`."""
    return pl.col(name).map_batches(typed_texts, return_dtype=pl.String, is_elementwise=True)


def typed_texts(values: pl.Series) -> pl.Series:
    """Texts that people type, as they are; values of other types as `texts_of`."""
    return values.cast(pl.String) if is_text(values.dtype) else texts_of(values)


def texts_of(values: pl.Series) -> pl.Series:
    """A column of any plain type as texts, one for each value."""
    kind = values.dtype
    if kind.is_float():
        return _of_floats(values.fill_nan(None))
    texts = values.cast(pl.String)
    if kind.is_decimal() and kind.scale:
        return texts.str.strip_chars_end("0").str.strip_chars_end(".")
    if (
        not is_text(kind) or not texts.str.contains(f"^(?:{WRITTEN})$").any()
    ):  # looking costs a sixth of replacing
        return texts
    return _replaced(texts.str.replace(rf"^({_WHOLE})\.0+$", "${1}"), f"^(?:{WRITTEN})$")


def text_of(text: str | None) -> str | None:
    """A text as `texts_of` gives it."""
    if text is None or not _WRITTEN.fullmatch(text):
        return text
    if text[-1] in "eE":
        return text.lower()
    if not set(text) & set("eE"):
        whole = text.partition(".")[0]
        return "0" if whole == "-0" else whole
    number = float(text)
    if not isfinite(number):
        return text
    return str(int(number)) if number.is_integer() else format(Decimal(repr(number)), "f")


def _of_floats(values: pl.Series) -> pl.Series:
    whole = values.cast(pl.Int64, strict=False)
    texts = _replaced(values.cast(pl.String), "e")
    return whole.cast(pl.String).zip_with((whole == values).fill_null(False), texts)


def _replaced(texts: pl.Series, pattern: str) -> pl.Series:
    """The column with `text_of` of those that match."""
    odd = texts.filter(texts.str.contains(pattern)).unique()
    return texts.replace(odd, [text_of(text) for text in odd]) if len(odd) else texts
