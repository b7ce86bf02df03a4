"""In which form a table writes its numbers: decimal and thousands marks, by all of its columns together.

Decisions:
- A file has one form: that which reads the most columns. Of several the first counts that they all agree
  with; where two read different numbers and nothing tells which are meant, the choice is in doubt.
- A column of numbers may have some cells that are none: they are counted and named, and cost it its place.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import polars as pl

from n3r.rows.numbers import FORMATS, NumberFormat, number
from n3r.rows.plausible import NOBODY

# None, plain numbers alone, is tried first, and is what a map without the key means.
FORMS: tuple[NumberFormat | None, ...] = (None, *FORMATS)
EXAMPLES = {
    None: "plain numbers, 1234.56",
    "plain": "plain numbers with a currency, 1234.56",
    "en": "1,234.56",
    "de": "1.234,56",
    "fr": "1 234,56",
    "ch": "1'234.56",
}
NEARLY = 0.9  # of the cells that stand for a value, for a column of numbers
_LOOKED_AT = 2000  # different cells of a column


class NumberForm(NamedTuple):
    """How a file writes numbers."""

    form: NumberFormat | None
    others: list[NumberFormat | None]  # that read the same columns as other numbers


def read(texts: pl.Series, form: NumberFormat | None) -> pl.Series:
    """Texts as numbers, as a run reads them."""
    return texts.alias("number").to_frame().select(number("number", form)).to_series()


def find_form(columns: Iterable[pl.Series], separator: str | None) -> NumberForm:
    """The form of some columns of texts without blanks at their ends."""
    values = {series.name: _readings(series) for series in columns}
    values = {name: found for name, found in values.items() if found}
    n_read = {form: sum(form in found for found in values.values()) for form in FORMS}
    best = [form for form in FORMS if n_read[form] == max(n_read.values())]
    apart: list[NumberFormat | None] = []
    for form in best:
        if not any(_agree(values, form, other) for other in apart):
            apart.append(form)
    if len(apart) > 1:
        apart.sort(key=lambda form: _belief(values, form, separator), reverse=True)
        if _belief(values, apart[0], separator) > _belief(values, apart[1], separator) + 1:
            apart = apart[:1]
    return NumberForm(apart[0], apart[1:])


def number_columns(columns: Iterable[pl.Series], form: NumberFormat | None) -> list[str]:
    """The names of those that are numbers in a form, some cells apart."""
    return [series.name for series in columns if form in _readings(series, (form,))]


def _readings(
    series: pl.Series, forms: Iterable[NumberFormat | None] = FORMS
) -> dict[NumberFormat | None, pl.Series]:
    """The numbers of a column by each form that reads nearly all of its cells."""
    known = series.drop_nulls().unique(maintain_order=True)
    known = known.filter(~known.str.to_lowercase().is_in(NOBODY))
    known = known.gather_every(max(1, len(known) // _LOOKED_AT))
    if known.is_empty() or not known.str.contains(r"\d").any():
        return {}
    if known.str.contains(r"\d[eE][+-]?\d+$").mean() > 0.5:  # as programs write, who know no thousands marks
        forms = [form for form in forms if form is None]
    found = {form: read(known, form) for form in forms}
    return {
        form: numbers for form, numbers in found.items() if numbers.null_count() <= (1 - NEARLY) * len(known)
    }


def _agree(values: Mapping[str, Mapping], form: NumberFormat | None, other: NumberFormat | None) -> bool:
    """Whether two forms read every column as the same numbers."""
    both = [found for found in values.values() if form in found or other in found]
    return all(form in found and other in found and found[form].equals(found[other]) for found in both)


def _belief(values: Mapping[str, Mapping], form: NumberFormat | None, separator: str | None) -> float:
    """How likely a form is: it reads few cells wrong, and its file has its country's separator."""
    wrong = sum(found[form].null_count() for found in values.values() if form in found)
    usual = separator == ";" if form in ("de", "fr") else separator != ";"
    return -wrong + 0.5 * usual + 0.1 * (form in (None, "plain"))
