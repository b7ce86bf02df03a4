"""Where rows are cut: exact ranks over all buckets, and parts of about one size, without a sort of all rows.

Decisions:
- A rank is found in two passes: every `STEP`-th value of each bucket is a mark, and only the values between
  the two marks that a rank must lie between are looked at. What is gathered is small.
- Rows are cut by comparison with the values at the cuts, so that a bucket needs to know no other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from n3r.schema import KEY, OWN, TIME

STEP = 5_000  # rows of a bucket from one mark to the next
_VALUE, _N, _SPAN = (OWN + name for name in ("value", "n", "span"))
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # a row without a time is the first
Place = tuple[int, int]  # a value, and how many rows lie below it


class Cut(NamedTuple):
    """A place in an order of rows: before the row that has this value and id."""

    value: int
    id: str


END = Cut(_LAST, "")


def axis(name: str) -> pl.Expr:
    """A column of times or of whole numbers as Int64, null first."""
    return pl.col(name).to_physical().cast(pl.Int64).fill_null(_FIRST).alias(_VALUE)


class Ranked(NamedTuple):
    """Rows of each bucket, and the Int64 value by which they are ranked."""

    rows: Callable[[pl.LazyFrame], pl.LazyFrame]  # lazy: columns that nobody asks for are not copied
    value: pl.Expr

    def marks(self, bucket: pl.DataFrame) -> pl.DataFrame:
        """Some values of a bucket, the least among them, and how many it has: one row."""
        values = np.sort(self._values(bucket))  # a quarter of polars' time
        return pl.DataFrame({_VALUE: [pl.Series(values[::STEP])], _N: [len(values)]})

    def near(self, bucket: pl.DataFrame, spans: Sequence[tuple[int, int]]) -> pl.DataFrame:
        """How often each value of a span comes in a bucket, and how many rows lie below it, under null."""
        values = self._values(bucket)
        found = [pl.DataFrame(schema={_VALUE: pl.Int64, _N: pl.Int64, _SPAN: pl.Int32})]
        for number, (low, high) in enumerate(spans):
            own = values.filter(values.is_between(low, high)).value_counts(name=_N)
            below = pl.DataFrame({_VALUE: [None], _N: [(values < low).sum()]}, schema=own.schema)
            found += [counts.with_columns(pl.lit(number).alias(_SPAN)) for counts in (own, below)]
        return pl.concat(found, how="vertical_relaxed")

    def ids_at(self, bucket: pl.DataFrame, values: Sequence[int]) -> pl.DataFrame:
        """The rows of a bucket that have one of some values: it and their id."""
        rows = self.rows(bucket.lazy()).filter(self.value.is_in(list(values)))
        return rows.select(self.value, KEY).collect()

    def _values(self, bucket: pl.DataFrame) -> pl.Series:
        return self.rows(bucket.lazy()).select(self.value).collect().to_series()


def n_ranked(marks: pl.DataFrame) -> int:
    """How many rows there are in all buckets, by their marks."""
    return marks[_N].sum()


def spans(marks: pl.DataFrame, ranks: Sequence[int]) -> list[tuple[int, int]]:
    """The least and the largest value that may be at each rank from 0, by the marks of all buckets."""
    every = marks[_VALUE].explode().drop_nulls().sort()
    # Below the mark of number i lie at most i * STEP rows, up to it at least (i + 1 - buckets) * STEP.
    at = [(min(rank // STEP, len(every) - 1), rank // STEP + marks.height) for rank in ranks]
    return [(every[low], every[high] if high < len(every) else _LAST) for low, high in at]


def at_ranks(near: pl.DataFrame, ranks: Sequence[int]) -> list[Place]:
    """The values at the ranks of the spans, each with the number of rows below it."""
    found = []
    counts = near.group_by(_SPAN, _VALUE).agg(pl.sum(_N)).sort(_VALUE, nulls_last=False)
    for number, rank in enumerate(ranks):
        own = counts.filter(pl.col(_SPAN) == number)
        ends = own[_N].cum_sum()
        at = int((ends <= rank).sum())
        found.append((own[_VALUE][at], int(ends[at] - own[_N][at])))
    return found


def cuts_of(ids: pl.DataFrame, places: Sequence[Place], ranks: Sequence[int]) -> list[Cut]:
    """The rows at ranks of the order by value then id; ids come once."""
    found = []
    for (value, below), rank in zip(places, ranks, strict=True):
        own = ids.filter(pl.col(_VALUE) == value)[KEY].sort()
        found.append(Cut(value, own[rank - below]))
    return found


def is_before(value: pl.Expr, cut: Cut) -> pl.Expr:
    """Whether a row comes before a cut."""
    return (value < cut.value) | ((value == cut.value) & (pl.col(KEY) < cut.id))


def order_marks(rows: pl.DataFrame) -> pl.DataFrame:
    """Some rows of a bucket that is in (time, id) order."""
    return rows.gather_every(STEP).select(axis(TIME), KEY)


def part_edges(marks: pl.DataFrame, n_rows: int) -> list[Cut]:
    """Cuts of all rows by time then id into parts of about `n_rows`, by the marks of all buckets."""
    return [Cut(*row) for row in marks.sort(_VALUE, KEY)[:: max(1, n_rows // STEP)].rows()][1:]


def part_numbers(rows: pl.DataFrame, edges: Sequence[Cut]) -> pl.Series:
    """The number of the part, from 0, of each row of a bucket that is in (time, id) order."""
    times, ends = rows.select(axis(TIME)).to_series(), []
    for edge in edges:
        low, high = (int(times.search_sorted(edge.value, side=side)) for side in ("left", "right"))
        ends.append(low + int(rows[KEY][low:high].search_sorted(edge.id)))
    return pl.Series(np.searchsorted(ends, np.arange(rows.height), side="right"), dtype=pl.Int64)
