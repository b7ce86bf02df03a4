"""In which format a column's texts are times, and which of several is meant.

Decisions:
- What reads a text is the reader's own `parse_time`, so that a proposed format reads what a run reads.
- Where day and month may be either way round, the rows decide: by a day after the 12th, then by the order
  of the file, then as the other times of the file are. Else the format is in doubt.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from n3r.rows.time_formats import candidates
from n3r.rows.times import most_read, parse_time

EPOCH = "epoch"
_SECONDS = (631_152_000, 4_102_444_800)  # 1990 to 2100
ENOUGH = 0.99  # of the texts that a format must read: the reader tolerates 1 % of bad times
_MOST, _SOME = 0.8, 0.3  # of the texts, for a closer look, and for a column of several forms
_FEW, _MANY = 25, 1000  # texts that all formats are tried on, and those that read these
_STEPS = 20  # between different times, for a statement on the order of the rows


class Times(NamedTuple):
    """The formats that read a column: of None a date or ISO 8601."""

    formats: list[str | None]  # that read enough of the texts; the first is the best guess
    reason: str  # why the first, in words, where others read them too
    is_open: bool  # whether nothing tells which is meant


def time_formats(texts: pl.Series) -> list[str | None]:
    """The formats by which nearly all of some texts are times, one of those that read the same times."""
    texts = texts.drop_nulls().str.strip_chars()
    more = _spread(texts.filter(texts != "").unique(maintain_order=True), _MANY)
    if more.is_empty():
        return []
    if more.str.contains(r"^-?\d+(\.\d+)?$").mean() > ENOUGH:
        return _of_digits(more)
    some, found = _spread(more, _FEW), []
    for time_format in (None, *candidates(some.gather_every(_FEW // 3).to_list())):
        if _share(some, time_format) < _MOST:
            continue
        times = read(more, time_format)
        is_enough = times.null_count() <= (1 - ENOUGH) * len(more)
        if is_enough and not any(times.equals(other) for _, other in found):
            found.append((time_format, times))
    return [time_format for time_format, _ in found]


def partly_times(texts: pl.Series) -> str:
    """In words, which format reads the most of texts that are times of several forms; else nothing."""
    more = _spread(texts.drop_nulls().unique(maintain_order=True), _MANY)
    if more.is_empty() or more.str.contains(r"^-?\d+([.,]\d+)?$").mean() > 1 - _MOST:
        return ""
    time_format, share = most_read(more)
    if share < _SOME:
        return ""
    return (
        f"times of several forms, of which {time_format or 'ISO 8601'!r} reads {share:.0%}: write them alike"
    )


def _of_digits(texts: pl.Series) -> list[str | None]:
    """The formats of times that have no other sign than digits: seconds since 1970, and 20251103140000."""
    if texts.str.contains(r"^\d{9,10}(\.\d+)?$").all():
        return [EPOCH] if texts.cast(pl.Float64).is_between(*_SECONDS).all() else []
    whole = (
        ("%Y%m%d", "%Y%m%d%H%M%S") if texts.str.contains(r"^(19[7-9]\d|20\d\d)\d{4}(\d{6})?$").all() else ()
    )
    return [time_format for time_format in whole if _share(texts, time_format) >= ENOUGH]


def read(texts: pl.Series, time_format: str | None) -> pl.Series:
    """Texts as times, as a run reads them."""
    frame = texts.alias("time").to_frame()
    return frame.select(parse_time("time", time_format, frame.schema)).to_series()


def _share(texts: pl.Series, time_format: str | None) -> float:
    return 1 - read(texts, time_format).null_count() / len(texts)


def _spread(texts: pl.Series, n: int) -> pl.Series:
    return texts.gather_every(max(1, len(texts) // n)).head(n + 1)


def choose(texts: pl.Series, formats: Sequence[str | None], others: Iterable[str | None]) -> Times:
    """Which of some formats is meant, by the rows' order and by the formats of the file's other times."""
    formats = list(formats)
    if len(formats) < 2:
        return Times(formats, "", False)
    in_order = {form: _order(read(texts, form)) for form in formats}
    best = max(formats, key=in_order.__getitem__)
    rest = max(in_order[form] for form in formats if form != best)
    if in_order[best] > 0.98 and rest < 0.95:
        return Times([best, *(f for f in formats if f != best)], "the rows are in its order", False)
    first = {_day_first(form) for form in others} - {None}
    alike = [form for form in formats if _day_first(form) in first]
    if len(first) == 1 and len(alike) == 1:
        rest = [form for form in formats if form != alike[0]]
        return Times([*alike, *rest], "as the other times of the file", False)
    return Times(formats, "", True)


def _order(times: pl.Series) -> float:
    """The share of steps between different times that go forward, or backward; 0 of few."""
    steps = times.drop_nulls().to_physical().diff().drop_nulls()
    steps = steps.filter(steps != 0)
    if len(steps) < _STEPS:
        return 0.0
    forward = (steps > 0).mean()
    return max(forward, 1 - forward)


def _day_first(time_format: str | None) -> bool | None:
    """Whether the day stands before the month, where both are numbers and the year is not before them."""
    places = [(time_format or "").find(code) for code in ("%d", "%m")]
    return None if -1 in places or "%Y" in time_format[: min(places)] else places[0] < places[1]
