"""Numbers as people write them, by each format."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.rows.numbers import FORMATS, fitting, number

POINT = {"plain": ".", "en": ".", "de": ",", "fr": ",", "ch": "."}
THOUSANDS = {"plain": [""], "en": [","], "de": ["."], "fr": [" ", "\u00a0", "\u202f"], "ch": ["'", "’"]}
AROUND = ["{}", "€{}", "{} €", "EUR {}", "{} CHF", "US${}", "{} kr", "{} zł", "{}%", "{} %", " {}\u00a0"]
NEGATIVE = ["-{}", "({})", "{}-", "\u2212{}", "$({})"]


def read(texts: list[str | None], form: str | None) -> list[float | None]:
    return pl.DataFrame({"x": texts}, {"x": pl.String}).select(number("x", form))["x"].to_list()


def written(value: float, form: str, mark: str) -> str:
    return f"{value:,.2f}".replace(".", "#").replace(",", mark).replace("#", POINT[form])


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), cents=st.lists(st.integers(0, 10**12), min_size=1, max_size=9))
def test_what_is_written_in_a_format_is_read_by_it(form, data, cents):
    values = [cent / 100 for cent in cents]
    mark = data.draw(st.sampled_from(THOUSANDS[form]))
    texts = [data.draw(st.sampled_from(AROUND)).format(written(value, form, mark)) for value in values]
    assert read(texts, form) == values
    negative = [data.draw(st.sampled_from(NEGATIVE)).format(written(value, form, mark)) for value in values]
    assert read(negative, form) == [-value for value in values]


@pytest.mark.parametrize(
    ("text", "numbers"),  # as None, plain, en, de, fr, ch read it
    [
        ("1234.5", (1234.5, 1234.5, 1234.5, None, None, 1234.5)),
        ("1234", (1234.0,) * 6),
        ("1,234.50", (None, None, 1234.5, None, None, None)),
        ("1.234,50", (None, None, None, 1234.5, None, None)),
        ("1.234", (1.234, 1.234, 1.234, 1234.0, None, 1.234)),
        ("1,234", (None, None, 1234.0, 1.234, 1.234, None)),
        ("1.23", (1.23, 1.23, 1.23, None, None, 1.23)),  # no thousands mark stands there
        ("12,34,567.5", (None, None, 1234567.5, None, None, None)),
        ("1'234.5", (None, None, None, None, None, 1234.5)),
        ("1e5", (1e5,) * 6),
        ("1,5E+05", (None, None, None, 1.5e5, 1.5e5, None)),
        ("true", (1.0,) * 6),
        ("€ 5", (None, *(5.0,) * 5)),
        ("TOP 10", (None, *(10.0,) * 5)),  # a code of a currency, too
        *((text, (None,) * 6) for text in ("", " ", "€", "%", "-", "A 5", "ART 5", "5 5 5", "1,2,3", "--5")),
        *((text, (None,) * 6) for text in ("(-5)", "5,", "5d", "d5", "12:30", "2025-01-01", "1.2.3", "٣")),
    ],
)
def test_each_format_reads_its_own(text, numbers):
    assert tuple(read([None, text], form)[1] for form in (None, *FORMATS)) == numbers


@pytest.mark.parametrize(
    ("texts", "forms"),
    [
        (["1,234.50", "7", "", None], ["en"]),
        (["62,09", "3"], ["de"]),
        (["1 234,5", "3"], ["fr"]),
        (["1.234", "5.678"], ["plain", "de"]),
        (["$5"], ["plain"]),
        (["1,234.5", "1.234,5"], []),
        (["web", "ios"], []),
        (["", None], []),
    ],
)
def test_the_formats_that_read_all_cells(texts, forms):
    assert fitting(pl.Series(texts)) == forms
