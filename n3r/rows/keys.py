"""The columns by which rows are kept, split and put in order, and the wide ones that a model reads.

Decisions:
- A row has a number in its table, whatever piece of the table it comes with.
- Times are parsed, never compared as text (defect 29).
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from n3r.rows.accounts import DROP, ENTITY, ENTITY_TIME, INTERNAL, NO_ID, NO_LABEL, NO_TIME, OTHER_LABEL
from n3r.rows.amounts import worth
from n3r.rows.columns import AT_ONCE
from n3r.rows.plausible import unless_blank
from n3r.rows.times import parse_time
from n3r.rows.values import as_text, as_typed
from n3r.schema import FILE_COLUMN, KEY, LABEL, ORACLE, OWN, ROW, SEGMENT, TIME, ColumnMap

RAW_LABEL = OWN + "raw_label"
SIDE_BY_SIDE = 6  # wide columns that are read at a time, or more of few rows


class Piece(NamedTuple):
    """Some rows of a table, which follow one another; read twice, they are the same ones."""

    frame: pl.LazyFrame
    start: int  # the number of its first row
    n_rows: int

    @property
    def empty(self) -> "Piece":
        """A piece of the same columns without a row."""
        return Piece(self.frame.head(0), 0, 0)

    def only(self, rows: pl.Series) -> pl.LazyFrame:
        """Those of some numbers, in the piece's order."""
        wanted = np.zeros(self.n_rows, dtype=bool)
        wanted[rows.to_numpy() - self.start] = True
        # Side by side and filtered: a join on the row number takes 15 % more memory for no less time.
        column = pl.Series(DROP, wanted).to_frame().lazy()
        return pl.concat([self.frame, column], how="horizontal").filter(DROP).drop(DROP)


def piece_sizes(groups: Sequence[int], most: int) -> list[int]:
    """How groups of rows, one after the other, are cut into pieces of `most` rows, as whole as may be.

    A slice of a Parquet row group costs as much as all of the group before it.
    """
    sizes: list[int] = []
    for n in groups:
        if sizes and sizes[-1] + n <= most:
            sizes[-1] += n
        else:
            n_pieces = -(-n // most)
            sizes += [n * (i + 1) // n_pieces - n * i // n_pieces for i in range(n_pieces)]
    return sizes


def numbered_pieces(frames: Iterable[tuple[pl.LazyFrame, int]], schema: pl.Schema) -> list[Piece]:
    """Frames and their numbers of rows as pieces, one after the other, of one schema."""
    pieces, start = [], 0
    for frame, n_rows in frames:
        pieces.append(Piece(frame.select(pl.col(n).cast(k) for n, k in schema.items()), start, n_rows))
        start += n_rows
    return pieces


def read_keys(piece: Piece, column_map: ColumnMap) -> pl.DataFrame:
    """The key columns of a piece and the code of the first step that drops a row by its own content."""
    files = [FILE_COLUMN] if column_map.split_files else []
    marked = mark_rows(piece.frame, column_map)
    keys = marked.select(ROW, DROP, KEY, ENTITY, TIME, ENTITY_TIME, SEGMENT, LABEL, *files)
    return numbered(keys.collect(engine="streaming").rechunk(), piece)  # gathers are then twice as fast


def numbered(rows: pl.DataFrame, piece: Piece) -> pl.DataFrame:
    """Rows of a piece, which are numbered from 0, under their numbers in the table."""
    return rows.with_columns(pl.col(ROW).cast(pl.Int64) + piece.start)


def mark_rows(frame: pl.LazyFrame, column_map: ColumnMap) -> pl.LazyFrame:
    """Add the key columns, and the code of the first step that drops a row by its own content."""
    drops = {
        INTERNAL: _is_internal(column_map),
        NO_LABEL: pl.col(RAW_LABEL).is_null(),
        OTHER_LABEL: pl.col(LABEL).is_null(),
        NO_TIME: pl.col(TIME).is_null() & (column_map.time is not None),
        NO_ID: pl.col(KEY).is_null(),
    }
    code = pl.coalesce(pl.when(hit).then(pl.lit(code, dtype=pl.UInt8)) for code, hit in drops.items())
    return frame.with_row_index(ROW).pipe(add_keys, column_map).with_columns(code.alias(DROP))


def add_keys(frame: pl.LazyFrame, column_map: ColumnMap) -> pl.LazyFrame:
    """Add id, entity, raw label, class, segment and both times under their own names, times parsed."""
    m, schema = column_map, frame.collect_schema()
    label = as_text(m.label)
    label = label.fill_null("") if "" in m.classes else label  # rows without a value may have a class
    return frame.with_columns(
        unless_blank(as_text(m.id)).alias(KEY),
        unless_blank(as_text(m.entity)).alias(ENTITY),
        label.alias(RAW_LABEL),
        label.replace_strict(m.classes, default=None, return_dtype=pl.Int8).alias(LABEL),
        (as_text(m.segment).fill_null("unknown") if m.segment else pl.lit("all")).alias(SEGMENT),
        parse_time(m.time, m.time_format, schema).alias(TIME),
        parse_time(m.entity_time, m.entity_time_format, schema).alias(ENTITY_TIME),
    )


def _is_internal(column_map: ColumnMap) -> pl.Expr:
    """Whether a row's e-mail domain has a label that is an internal name.

    amazon.co.uk and mail.amazon.com have the label "amazon"; myamazonx.net has not.

    NOTE[DIFF] the legacy drops what matches the regex `amazon.`: amazonia-travel.org too, but not a plain
    "amazon"; and it drops orders without a domain (defect 38). Those are kept here.
    """
    if not column_map.internal_domains:
        return pl.lit(False)
    names = [f".{name.strip('. ').lower()}." for name in column_map.internal_domains]
    return as_text(column_map.email_domain).map_batches(
        partial(_have_a_label, names=names), pl.Boolean, is_elementwise=True
    )


def _have_a_label(domains: pl.Series, names: list[str]) -> pl.Series:
    different = domains.unique()  # of which there are few
    bare = "." + different.str.strip_chars().str.to_lowercase() + "."
    hit = bare.to_frame().select(pl.first().str.contains_any(names)).to_series()
    return domains.is_in(different.filter(hit).implode())


def select_wide(frame: pl.LazyFrame, column_map: ColumnMap) -> pl.LazyFrame:
    """Text fields, categorical and group columns and features, in that order, typed."""
    # NOTE[DIFF] the legacy drops boolean features without a word; here they are 0 and 1.
    numbers = [pl.col(name).cast(pl.Float32) for name in column_map.numeric]
    schema = frame.collect_schema()
    if column_map.amount is not None:
        numbers.append(worth(column_map.amount))
    if column_map.oracle in schema:
        numbers.append(pl.col(column_map.oracle).cast(pl.Float64).alias(ORACLE))
    groups = [name for name in column_map.groups if name in schema]
    texts = dict.fromkeys([*column_map.all_text, *column_map.categorical, *groups])
    columns = (as_typed(name) if name in column_map.all_text else as_text(name) for name in texts)
    return frame.select(*columns, *numbers)


def read_wide(piece: Piece, rows: pl.Series, column_map: ColumnMap) -> pl.DataFrame:
    """The wide columns of the rows of some numbers, in the order of these; at once where they ascend."""
    wide = piece.only(rows).pipe(select_wide, column_map)
    names = [name for name in wide.collect_schema().names() if name != column_map.id]
    if rows.is_sorted():
        return wide.select(names).collect(engine="streaming")
    place = rows.rank("ordinal") - 1  # `wide` is in the piece's order
    n = max(SIDE_BY_SIDE, AT_ONCE // len(rows))
    some = (names[start : start + n] for start in range(0, len(names), n))

    def read(names: Sequence[str]) -> pl.DataFrame:
        return gathered(wide.select(names).collect(engine="streaming"), place)

    # Some columns at a time, so that two whole tables never stand side by side; while the ones are put in
    # order the next are read.
    with ThreadPoolExecutor(2) as pool:
        return pl.concat(pool.map(read, some), how="horizontal")


def gathered(frame: pl.DataFrame, places: pl.Series) -> pl.DataFrame:
    """The rows at some places, all columns side by side; in one piece they are read 2 to 5 times as fast."""
    return frame.rechunk()[places]  # an expression that holds the places takes minutes for 2,000 columns
