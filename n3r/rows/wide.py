"""The kept rows of whole buckets with their wide columns, as they are handed on: a frame a split, or parts.

Decisions:
- A part is written aside and renamed, and again where an engine does its work again: it is there whole or
  not at all.
- What was written is told in counts alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import uuid4

import numpy as np
import polars as pl

from n3r.files.formats import part_path
from n3r.files.writer import write
from n3r.rows.keys import Piece, read_wide
from n3r.rows.precedence import draws, in_order
from n3r.schema import KEY, LABEL, OWN, ROW, SEGMENT, SPLITS, TEXT, TIME, ColumnMap, joined_text

PART = OWN + "part"  # the split's place in SPLITS, and `len(SPLITS)` times the part's number
OF_PART = (pl.col(PART) // len(SPLITS)).cast(pl.UInt64)
SAMPLE = "sample"  # the folder of rows that stand for all
_KEYS = {
    ROW: pl.Int64,
    KEY: pl.String,
    TIME: pl.Datetime("us"),
    SEGMENT: pl.String,
    LABEL: pl.Int8,
    PART: pl.Int64,
}


class Parts(NamedTuple):
    """Whole splits in a folder of prepared data, but for its columns.json."""

    folder: Path
    format: str
    schema: pl.Schema
    n_rows: Mapping[str, Mapping[int, int]]  # split -> number of a part, in order -> its rows


class Slice(NamedTuple):
    """Where the rows of a part lie in a bucket."""

    part: int  # as PART
    start: int
    n_rows: int


class Sink(Protocol):
    """What takes finished parts."""

    def __call__(self, rows: pl.DataFrame, slices: Sequence[Slice]) -> None:
        """Take the parts of a bucket."""


class Kept:
    """Parts kept as frames; in one process."""

    def __init__(self) -> None:
        self.parts: dict[int, pl.DataFrame] = {}
        self.empty = pl.DataFrame()

    def __call__(self, rows: pl.DataFrame, slices: Sequence[Slice]) -> None:
        self.empty = rows.clear()
        self.parts |= {part: rows.slice(start, n_rows) for part, start, n_rows in slices}

    @property
    def splits(self) -> dict[str, pl.DataFrame]:
        """The whole splits."""
        return {split: self.parts.get(number, self.empty) for number, split in enumerate(SPLITS)}


@dataclass(frozen=True)
class Written:
    """Parts written into a folder, and of each a share of its rows, drawn by id, into the folder `SAMPLE`."""

    folder: Path
    format: str
    id: str
    share: float
    seed: int

    def __call__(self, rows: pl.DataFrame, slices: Sequence[Slice]) -> None:
        for part, start, n_rows in slices:
            own, split, number = rows.slice(start, n_rows), SPLITS[part % len(SPLITS)], part // len(SPLITS)
            self._write(own, part_path(self.folder, split, number, self.format))
            drawn = own.filter(draws(own[self.id], self.seed) < self.share * 2.0**63)
            self._write(drawn, part_path(self.folder / SAMPLE, split, number, "parquet"))

    def _write(self, rows: pl.DataFrame, path: Path) -> None:
        """Write a file under a name of this attempt, as the last one may still be at work elsewhere."""
        aside = path.with_name(f"{uuid4().hex}-{path.name}")
        write(rows, aside)
        aside.replace(path)

    def parts(self, told: pl.DataFrame, schema: pl.Schema) -> Parts:
        """What there is, by what `finish` told."""
        sizes = dict(told.select(pl.col("part", "n").explode()).drop_nulls().sort("part").rows())
        n_rows = {
            split: {part // len(SPLITS): n for part, n in sizes.items() if part % len(SPLITS) == number}
            for number, split in enumerate(SPLITS)
        }
        return Parts(self.folder, self.format, schema, n_rows)

    def sample(self, parts: Parts) -> dict[str, pl.DataFrame]:
        """The rows that stand for all."""
        found = {}
        for split, numbers in parts.n_rows.items():
            paths = [part_path(self.folder / SAMPLE, split, number, "parquet") for number in numbers]
            found[split] = pl.concat([pl.DataFrame(schema=parts.schema), *map(pl.read_parquet, paths)])
        return found


def piece_of(pieces: Sequence[Piece]) -> pl.Expr:
    """The place of the piece that a row comes from."""
    return pl.col(ROW).map_batches(lambda rows: _place(rows, pieces), pl.UInt64, is_elementwise=True)


def _place(rows: pl.Series, pieces: Sequence[Piece]) -> pl.Series:
    places = np.searchsorted([piece.start for piece in pieces], rows, side="right") - 1
    return pl.Series(places, dtype=pl.UInt64)


def read_kept(rows: pl.DataFrame, pieces: Sequence[Piece], column_map: ColumnMap) -> pl.DataFrame:
    """All kept rows of some pieces with their wide columns; of a table in one piece in their order."""
    if len(pieces) == 1:
        return _beside(in_order(rows, PART), pieces[0], column_map)
    place = _place(rows[ROW], pieces)
    found = [_beside(rows.filter(place == i).sort(ROW), pieces[i], column_map) for i in place.unique()]
    return pl.concat(found) if found else _beside(rows, pieces[0].empty, column_map)


def _beside(rows: pl.DataFrame, piece: Piece, column_map: ColumnMap) -> pl.DataFrame:
    return rows.select(list(_KEYS)).hstack(read_wide(piece, rows[ROW], column_map))


def finish(rows: pl.DataFrame, column_map: ColumnMap, sink: Sink) -> pl.DataFrame:
    """Whole parts as they are trained on, handed to the sink; one row of what there is to tell of them.

    Columns: part and n (of each part), nulls (of each wide column) and bad (of each feature: numbers that
    were not finite), all in lists.
    """
    m = column_map
    rows = in_order(rows, PART)
    runs = rows[PART].rle().struct.unnest().cast(pl.Int64)
    names = [name for name in rows.columns if name not in _KEYS]
    # NOTE[DIFF] the legacy fills null only, and NaN reaches the network (defect 38).
    bad = rows.select((~pl.col(m.numeric).is_finite()).sum()).row(0) if m.numeric else ()
    finite = [name for name, n in zip(m.numeric, bad, strict=True) if n]
    rows = rows.with_columns(pl.when(pl.col(name).is_finite()).then(name) for name in finite)
    rows = rows.select(pl.col(KEY).alias(m.id), TIME, SEGMENT, LABEL, *names)
    rows = rows.hstack(rows.lazy().select(joined_text(m.text)).collect(engine="streaming"))
    rows = rows.select(m.id, TIME, SEGMENT, LABEL, TEXT, *names)
    starts = runs["len"].cum_sum() - runs["len"]
    sink(rows, [Slice(*run) for run in zip(runs["value"], starts, runs["len"], strict=True)])
    nulls = rows.select(pl.col(names).null_count()).row(0) if names else ()
    told = {"part": runs["value"], "n": runs["len"], "nulls": nulls, "bad": bad}
    return pl.DataFrame({name: [pl.Series(values, dtype=pl.Int64)] for name, values in told.items()})


def blank(piece: Piece, column_map: ColumnMap) -> pl.Schema:
    """The columns that finished parts have."""
    kept = Kept()
    finish(read_kept(pl.DataFrame(schema=_KEYS), [piece.empty], column_map), column_map, kept)
    return kept.empty.schema
