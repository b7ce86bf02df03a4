"""Rows that come in parts: a table, or a split that is larger than memory, read as often as it is asked for.

Decisions:
- Whoever reads rows reads slices of bounded size, whatever the parts; a table is one part.
- What needs values of all rows at once (medians, quantiles, byte pairs) takes one sample, the same whatever
  the parts: a row of each of `SAMPLE` blocks of equal size, in their order. Fewer rows are their own sample,
  so that a split of usual size gives what it gives in memory. All that can be counted is counted exactly.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import numpy as np
import polars as pl

SLICE = 1 << 16  # rows that are read at a time
SAMPLE = 500_000  # rows
SEED = 0


@dataclass(frozen=True)
class RowsInParts:
    """Rows in parts: `read(columns)` gives tables of these columns in their order, one at least."""

    read: Callable[[Sequence[str]], Iterable[pl.DataFrame]]
    columns: list[str]
    n_rows: int

    def __len__(self) -> int:
        return self.n_rows

    @property
    def schema(self) -> pl.Schema:
        """The types of the columns."""
        return next(iter(self.read(self.columns))).schema

    def select(self, columns: Sequence[str]) -> "RowsInParts":
        """The same rows with these columns alone."""
        return RowsInParts(self.read, list(columns), self.n_rows)

    def hstack(self, own: pl.DataFrame) -> "RowsInParts":
        """The same rows with more columns, which are in memory."""
        return RowsInParts(partial(_beside, self, own), [*self.columns, *own.columns], self.n_rows)


def _beside(rows: RowsInParts, own: pl.DataFrame, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    in_parts = [name for name in columns if name in rows.columns]
    start = 0
    for part in rows.read(in_parts) if in_parts else [pl.DataFrame(height=rows.n_rows)]:
        more = own.slice(start, part.height).select(name for name in columns if name in own.columns)
        yield part.hstack(more).select(columns)
        start += part.height


Rows = pl.DataFrame | RowsInParts


def slices(
    rows: Rows, columns: Sequence[str] | None = None, size: int | None = None
) -> Iterator[pl.DataFrame]:
    """All rows in their order, at most `size` at a time, one table at least; of `columns` those there.

    The size is by default `SLICE`.
    """
    wanted = [name for name in (rows.columns if columns is None else columns) if name in rows.columns]
    wanted = list(dict.fromkeys(wanted))
    for part in [rows.select(wanted)] if isinstance(rows, pl.DataFrame) else rows.read(wanted):
        yield from part.iter_slices(size or SLICE) if len(part) else [part]


def joined(*all_rows: Rows) -> RowsInParts:
    """Rows of the same columns, one table behind the other."""

    def read(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for rows in all_rows:
            yield from slices(rows, columns)

    return RowsInParts(read, list(all_rows[0].columns), sum(map(len, all_rows)))


def whole(rows: Rows, columns: Sequence[str]) -> pl.DataFrame:
    """All rows as one table of those of the columns that are there."""
    wanted = [name for name in dict.fromkeys(columns) if name in rows.columns]
    if isinstance(rows, pl.DataFrame):
        return rows.select(wanted)
    return pl.concat(rows.read(wanted)) if wanted else pl.DataFrame(height=len(rows))


def portions(rows: Rows) -> Iterator[pl.DataFrame]:
    """All rows in their order: at once where there are no more than in a sample, else `slices`."""
    return iter([whole(rows, rows.columns)]) if len(rows) <= SAMPLE else slices(rows)


def rows_at(rows: Rows, places: Sequence[int]) -> pl.DataFrame:
    """The rows of some numbers, in the order given."""
    places, found, start = np.asarray(places, np.int64), [], 0
    ascending = np.sort(places)
    for part in slices(rows):
        inside = ascending[np.searchsorted(ascending, start) : np.searchsorted(ascending, start + len(part))]
        found.append(part[inside - start])
        start += len(part)
    back = np.empty(len(places), np.int64)
    back[np.argsort(places, kind="stable")] = np.arange(len(places))
    return pl.concat(found)[back]


def sample(rows: Rows, columns: Sequence[str] | None = None) -> tuple[pl.DataFrame, np.ndarray]:
    """The sample and the numbers of its rows, ascending."""
    places, found, start = sample_places(len(rows)), [], 0
    for part in slices(rows, columns):
        inside = places[np.searchsorted(places, start) : np.searchsorted(places, start + len(part))]
        found.append(part if len(inside) == len(part) else part[inside - start])
        start += len(part)
    return pl.concat(found), places


def sample_of(splits: Mapping[str, Rows]) -> dict[str, pl.DataFrame]:
    """The sample of some splits together, divided as they are."""
    rows, places = sample(joined(*splits.values()))
    ends = np.searchsorted(places, np.cumsum([0, *map(len, splits.values())])).tolist()
    return {name: rows[start:end] for name, start, end in zip(splits, ends, ends[1:], strict=False)}


def rows_digest(rows: Rows) -> str:
    """A checksum of rows, the same whatever the parts."""
    total = sha256(json.dumps(rows.columns, allow_nan=False).encode())
    for part in slices(rows):
        total.update(part.hash_rows().to_numpy())
    return total.hexdigest()


def sample_places(n_rows: int) -> np.ndarray:
    """The numbers of the rows of the sample, ascending."""
    if n_rows <= SAMPLE:
        return np.arange(n_rows)
    ends = np.arange(SAMPLE + 1) * n_rows // SAMPLE
    inside = np.random.default_rng(SEED).random(SAMPLE)
    return ends[:-1] + (inside * np.diff(ends)).astype(np.int64)


def fold_numbers(n_rows: int, n_folds: int, seed: int) -> np.ndarray:
    """(N,) int16: which of folds of equal size, drawn by position, each row is in."""
    found = np.empty(n_rows, np.int16)
    for number, places in enumerate(np.array_split(np.random.default_rng(seed).permutation(n_rows), n_folds)):
        found[places] = number
    return found
