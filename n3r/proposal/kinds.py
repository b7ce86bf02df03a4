"""What kind of thing each column of a table holds, by its values first and its name second.

Decisions:
- A name of a person is known by its company: its words stand in the e-mail address of the row, or in
  another column of names. A column's name alone tells one only if the values are words of letters.
- A number that names something, such as a postcode, a telephone number or a customer's number, is a code:
  it has leading zeros, or its column's name says so.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
from anyascii import anyascii

from n3r.proposal.dates import partly_times
from n3r.proposal.dialect import EMAIL
from n3r.proposal.words import means
from n3r.rows.columns import COUNTED
from n3r.rows.values import is_text, typed_texts

MOST = 0.8  # of the cells, for a kind that a typing mistake does not change
NEARLY = 0.98  # for one that every cell should be of
# Different values of a category: some, or a share of the rows, and at most.
FEW, FEW_SHARE, MANY = 60, 0.1, 1000
_LOOKED_AT = 400  # rows, for words that two columns share
_SHARED = 0.25  # of the rows, for columns that speak of one person
_LETTERS = r"^[\p{L}\p{M}][\p{L}\p{M}'’`´.,\- ]*$"
_PATTERNS = {
    "an IP address": r"^(\d{1,3}\.){3}\d{1,3}$|^[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{0,4}){2,7}$",
    "a UUID or hash": r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$|^[0-9a-f]{40}$|^[0-9a-f]{64}$",
    "an IBAN": r"^[A-Z]{2}\d{2}( ?[A-Z0-9]{4}){3,7} ?[A-Z0-9]{0,4}$",
    "a card's number": r"^(\d{4}|[*xX]{4})[ -]?(\d{4}|[*xX]{4})[ -]?(\d{4}|[*xX]{4})[ -]?\d{4}$",
    "a telephone number": r"^(\+|00)\d[\d ()/.\-]{5,}$|^\(?0\d{1,5}\)?[ /\-][\d ()/.\-]{4,}$",
    "a web address": r"^(https?://|www\.)\S+$",
}
_NAMED = {"phone": "a telephone number", "ip": "an IP address", "account": "an account's or card's number"}


@dataclass(frozen=True)
class Column:
    """A column of a sample: its cells as texts, null where there is none, and what they are."""

    name: str
    texts: pl.Series
    # email, time, times of several forms, number, person,
    # category, code, address, prose, words, one value or nothing
    kind: str
    n_values: int  # different ones
    what: str = ""  # of a code, in words
    formats: list[str | None] = field(default_factory=list)  # of times
    is_typed: bool = False  # a number or time by its file's own types

    @property
    def n_filled(self) -> int:
        """Cells with a value."""
        return len(self.texts) - self.texts.null_count()

    @property
    def counts_rows(self) -> bool:
        """Whether it holds whole numbers that rise from row to row by one, or each of a range once."""
        if self.kind != "number" or not self.is_unique or len(self.texts) < COUNTED:
            return False
        numbers = self.texts.str.replace(r"\.0$", "").cast(pl.Int64, strict=False)
        if numbers.null_count():
            return False
        by_one = (numbers.head(_LOOKED_AT).diff() == 1).mean() or 0
        return by_one > MOST or numbers.max() - numbers.min() == len(numbers) - 1

    @property
    def is_unique(self) -> bool:
        """Whether nearly every row has a value of its own."""
        return self.n_filled > 0.999 * len(self.texts) and self.n_values > 0.99 * self.n_filled

    def counts(self) -> Mapping[str | None, int]:
        """How many rows have each value."""
        table = self.texts.value_counts(sort=True, name="n")
        return dict(table.iter_rows())


def columns_of(
    frame: pl.DataFrame, numbers: Collection[str], times: Mapping[str, list[str | None]]
) -> list[Column]:
    """The columns of a sample, of which some texts can be read as numbers, and some as times in formats."""
    cells = {series.name: filled(series) for series in frame}
    found = {
        name: _kind(name, texts, frame.schema[name], name in numbers, times.get(name, []))
        for name, texts in cells.items()
    }
    people = _people(found)
    return [
        Column(**{**vars(column), "kind": "person"}) if name in people else column
        for name, column in found.items()
    ]


def filled(series: pl.Series) -> pl.Series:
    """The cells as stripped texts, null where they are blank or stand for nothing."""
    texts = typed_texts(series).str.strip_chars()
    return texts.set(texts == "", None)


def _kind(
    name: str, texts: pl.Series, kind: pl.DataType, is_number: bool, formats: list[str | None]
) -> Column:
    known = texts.drop_nulls()
    n_values = known.n_unique() if len(known) else 0

    def column(kind: str, what: str = "", **more: object) -> Column:
        return Column(name, texts, kind, n_values, what, **more)

    if n_values < 2:
        return column("one value" if n_values else "nothing")
    if kind.is_temporal():
        return column("time", formats=[None], is_typed=True)
    if is_text(kind):
        if formats and not means(name, "postcode"):
            return column("time", formats=formats)
        return _of_text(column, name, known, is_number)
    return column(*_number(name, known), is_typed=True)


def _of_text(column: Callable[..., Column], name: str, known: pl.Series, is_number: bool) -> Column:
    if (known.str.contains(EMAIL).mean() or 0) > MOST:
        return column("email")
    if what := _pattern(name, known):
        return column("code", what)
    if is_number:
        return column(*_number(name, known))
    if what := partly_times(known):
        return column("times of several forms", what)
    return column(*_text(name, known, known.n_unique()))


def _number(name: str, known: pl.Series) -> tuple[str, str]:
    """Whether numbers measure something or name it."""
    is_whole = known.str.contains(r"^\d+(\.0)?$").all()
    if is_whole and known.str.contains(r"^0\d+$").any():
        return "code", "a code with leading zeros"
    if is_whole and means(name, "postcode"):
        return "code", "a postcode"
    names = means(name, "customer") or means(name, "order") or means(name, "id")
    is_long = known.str.len_chars().max() >= 4 or known.n_unique() > 0.9 * len(known)
    if is_whole and names and is_long and not means(name, "measure") and known.n_unique() > 0.05 * len(known):
        return "code", "a number that names something"
    return "number", ""


def _pattern(name: str, known: pl.Series) -> str:
    for what, pattern in _PATTERNS.items():
        if (known.str.contains(pattern).mean() or 0) > MOST:
            return what
    has_digits = (known.str.contains(r"\d{4}").mean() or 0) > MOST
    return next((what for role, what in _NAMED.items() if has_digits and means(name, role)), "")


def _text(name: str, known: pl.Series, n_values: int) -> tuple[str, str]:
    few = n_values <= FEW and n_values <= 0.5 * len(known)
    if few or n_values <= min(MANY, FEW_SHARE * len(known)):
        return "category", ""
    has_digit = known.str.contains(r"\d").mean()
    words = (known.str.count_matches(r"\s+") + 1).mean()
    if has_digit > (0.5 if means(name, "address") else MOST) and 1.5 < words < 8:
        return "address", ""
    if words < 1.5 and has_digit > 0.5:
        return "code", "a code"
    if words > 6:
        return "prose", ""
    return "words", ""


def _people(columns: Mapping[str, Column]) -> list[str]:
    """The columns of people's names."""
    may_be = {
        name: column
        for name, column in columns.items()
        if column.kind in ("words", "category", "prose")
        and column.n_values > (5 if _is_called_first_or_last(column) else min(FEW / 2, 0.3 * column.n_filled))
        and (column.texts.drop_nulls().str.contains(_LETTERS).mean() or 0) > MOST
        and (column.texts.drop_nulls().str.len_chars().mean() or 0) < 40
    }
    words = {name: _words(column.texts) for name, column in may_be.items()}
    mails = [
        _words(column.texts.str.split("@").list.first())
        for column in columns.values()
        if column.kind == "email"
    ]
    found = [name for name in may_be if _is_called_so(columns[name]) or _in_company(words[name], mails)]
    while more := [
        name
        for name in may_be
        if name not in found and any(_share(words[name], words[other]) > 2 * _SHARED for other in found)
    ]:
        found += more
    if not found:  # without addresses: two columns that have the same words in many rows
        found = [
            name
            for name in may_be
            if columns[name].kind == "words"
            and any(_share(words[name], words[other]) > _SHARED for other in may_be if other != name)
        ]
    return found


def _is_called_first_or_last(column: Column) -> bool:
    return means(column.name, "first_name") or means(column.name, "last_name")


def _is_called_so(column: Column) -> bool:
    is_name = any(means(column.name, role) for role in ("first_name", "last_name", "holder", "name"))
    others = ("segment", "label", "outcome", "group", "time", "thing")
    return is_name and not any(means(column.name, role) for role in others)


def _in_company(words: Sequence[list[str]], mails: Sequence[Sequence[list[str]]]) -> bool:
    different = {word for row in words for word in row}
    return len(different) > 10 and any(_share(words, mail, within=True) > _SHARED for mail in mails)


def _words(texts: pl.Series) -> list[list[str]]:
    """The words of three letters and more of each of the first rows, in lower case without accents."""
    return [re.findall(r"[a-z]{3,}", anyascii(text or "").lower()) for text in texts.head(_LOOKED_AT)]


def _share(words: Sequence[list[str]], others: Sequence[list[str]], within: bool = False) -> float:
    """The share of rows with words in both where one of them is the same, or within one of the other."""
    pairs = [(mine, theirs) for mine, theirs in zip(words, others, strict=True) if mine and theirs]
    same = [
        any(any(word in other for other in theirs) if within else word in theirs for word in mine)
        for mine, theirs in pairs
    ]
    return sum(same) / len(same) if same else 0.0
