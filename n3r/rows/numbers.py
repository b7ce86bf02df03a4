"""Numbers as people write them: thousands and decimal marks, currencies, percent signs, parentheses.

Decisions:
- Without a format only plain numbers are read, as programs write them: "1,234" may be either of two numbers.
- With one, thousands marks stand where they belong or the cell is no number: "1.23" is none in "de", not 123.
- Signs and codes of currencies and "%" say nothing that the column's name does not: they are read away.
  Parentheses and a minus behind the number, as accountants write, make it negative.
- What is a number in a file's own type, of Parquet or JSON, never passes through a format.
"""

from functools import partial
from typing import Literal, get_args

import polars as pl

NumberFormat = Literal["en", "de", "fr", "ch", "plain"]
FORMATS = ("plain", *(form for form in get_args(NumberFormat) if form != "plain"))
TRUE, FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
# Format -> (decimal mark, whole numbers with thousands marks), as regular expressions.
_WRITTEN = {
    "plain": (r"\.", r"[0-9]+"),
    "en": (r"\.", r"[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}|[0-9]+"),  # 12,34,567 in India
    "de": (",", r"[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+"),
    "fr": (",", r"[0-9]{1,3}(?:[ \u00a0\u2009\u202f][0-9]{3})+|[0-9]+"),
    "ch": (r"\.", r"[0-9]{1,3}(?:['’][0-9]{3})+|[0-9]+"),
}
_THOUSANDS = "[ \u00a0\u2009\u202f,.'’]"
_SPACE = "[ \u00a0\u2009\u202f\t]*"
_CODES = """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
    CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
    GNF GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD
    KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK
    NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD
    SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF
    XCD XOF XPF YER ZAR ZMW ZWG
"""
_SIGNS = r"(?:[A-Z]{1,3})?\p{Sc}|S?Fr\.?|[Kk]r\.?|zł|Kč|Ft|[Ll]ei|лв\.?|руб\.?|Rs\.?|Rp\.?|RM|TL|[Ee]uros?"
_CURRENCY = f"(?:{_SIGNS}|{'|'.join(_CODES.split())})"
_MINUS = "-\u2212"
_POINT = "d"  # stands for the decimal mark while thousands marks are taken out


def number(name: str, form: NumberFormat | None = None) -> pl.Expr:
    """Column of text as Float64, true and false as 1 and 0, anything else null."""
    read = partial(_numbers, form=form)
    return pl.col(name).map_batches(read, pl.Float64, is_elementwise=True).alias(name)


def _numbers(texts: pl.Series, form: NumberFormat | None) -> pl.Series:
    """Most cells are plain numbers: only the others are looked at for blanks, words and marks."""
    if form is not None and _WRITTEN[form][0] == ",":
        return _spelled(texts, form)
    numbers = texts.cast(pl.Float64, strict=False)
    others = (numbers.is_null() & (texts != "")).arg_true()
    return numbers.scatter(others, _spelled(texts.gather(others), form)) if len(others) else numbers


def _spelled(texts: pl.Series, form: NumberFormat | None) -> pl.Series:
    text = pl.col(texts.name).str.strip_chars()
    # Membership, not a replacement table: that took 2.7 times as long on 34 columns of numbers.
    words = pl.when(text.is_in(TRUE)).then(1.0).when(text.is_in(FALSE)).then(0.0)
    # What has no mark but the decimal one needs no regular expression, which takes 20 times as long.
    bare = _with_point(text) if form is not None and _WRITTEN[form][0] == "," else text
    plain = pl.coalesce(bare.cast(pl.Float64, strict=False), words)
    if form is not None:
        read = partial(_read, form=form)
        marked = pl.when(plain.is_null()).then(text).map_batches(read, pl.Float64, is_elementwise=True)
        plain = pl.coalesce(plain, marked)
    return texts.to_frame().select(plain).to_series()


def plain_numbers(frame: pl.DataFrame, form: NumberFormat | None = None) -> pl.DataFrame:
    """The columns of text in which each cell is a plain number or none, read side by side."""
    if form is not None and _WRITTEN[form][0] == ",":
        return frame.select()
    numbers = frame.select(pl.all().cast(pl.Float64, strict=False))
    before, after = frame.null_count().row(0), numbers.null_count().row(0)
    return numbers.select(name for name, *n in zip(frame.columns, before, after, strict=True) if n[0] == n[1])


def unread(texts: pl.Series, numbers: pl.Series) -> pl.Series:
    """The places of cells that are filled and, of `numbers` made of them, null."""
    left = (numbers.is_null() & (texts != "")).arg_true()
    return left.filter(texts.gather(left).str.strip_chars() != "") if len(left) else left


def form_of(kind: str | None, form: NumberFormat | None) -> NumberFormat | None:
    """The format of texts in files of a kind: JSON has one of its own, in which its numbers are written."""
    return None if kind == "jsonl" else form


def _with_point(text: pl.Expr) -> pl.Expr:
    """A text whose only mark may be a comma, with a point in its place; null for others."""
    is_bare = ~text.str.contains(".", literal=True) & ~text.str.ends_with(",")
    return pl.when(is_bare).then(text.str.replace(",", ".", literal=True))


def fitting(texts: pl.Series) -> list[NumberFormat]:
    """The formats that read all filled texts, of those that read the same numbers the first."""
    frame, found, seen = texts.to_frame("text").filter(pl.col("text").str.strip_chars() != ""), [], []
    for form in FORMATS:
        numbers = frame.select(number("text", form)).to_series()
        if len(numbers) and not numbers.null_count() and not any(numbers.equals(other) for other in seen):
            found.append(form)
            seen.append(numbers)
    return found


def _read(texts: pl.Series, form: NumberFormat) -> pl.Series:
    """Numbers with marks, currencies and the like; null for all else."""
    different = texts.drop_nulls().unique()  # amounts come again
    if different.is_empty():
        return texts.cast(pl.Float64)
    return texts.replace_strict(different, _parsed(different, form), return_dtype=pl.Float64)


def _parsed(texts: pl.Series, form: NumberFormat) -> pl.Series:
    point, whole = _WRITTEN[form]
    written = (
        rf"^{_SPACE}([{_MINUS}])?\+?{_SPACE}(?:{_CURRENCY})?{_SPACE}([{_MINUS}])?\+?{_SPACE}"
        rf"({whole})?(?:{point}([0-9]+))?([eE][+-]?[0-9]+)?{_SPACE}(?:%|{_CURRENCY})?{_SPACE}$"
    )
    text = pl.col(texts.name)
    text = text.str.replace(r"^([^()0-9]*)\(([^()]*)\)([^()0-9]*)$", "-${1}${2}${3}")
    text = text.str.replace(rf"^([^{_MINUS}]*[0-9][^{_MINUS}]*)[{_MINUS}]{_SPACE}$", "-${1}")
    parts = pl.when(text.str.contains(written)).then(
        text.str.replace(written, f"${{1}}${{2}}${{3}}{_POINT}${{4}}${{5}}")
    )
    parts = parts.str.replace_all(_THOUSANDS, "").str.replace(_POINT, ".", literal=True)
    parts = parts.str.replace_all("\u2212", "-", literal=True)
    return texts.to_frame().select(parts.cast(pl.Float64, strict=False)).to_series()
