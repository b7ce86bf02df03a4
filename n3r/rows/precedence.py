"""The order of rows, and which rows of an id and of an entity come first; of whole buckets of rows.

Decisions:
- Every choice is made on rows in (time, id) order, and rows that are equal in both are ordered by their
  content, so that neither the order of the input rows nor the bucket that they are in changes anything.
- What a random split draws for a row depends on the seed and the row's id alone: the same in any table.
"""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import polars as pl

from n3r.rows.accounts import DROP, DUPLICATE, ENTITY, ENTITY_TIME, KNOWN, LATER
from n3r.rows.customers import Customers
from n3r.rows.keys import Piece, gathered, mark_rows, numbered
from n3r.schema import FILE_COLUMN, KEY, OWN, ROW, TIME, ColumnMap

TIE, _AT = OWN + "tie", OWN + "at"


def in_order(keys: pl.DataFrame, *first: str) -> pl.DataFrame:
    """Rows by time then id, or by columns of whole numbers before these; as they are where that is so."""
    if _is_ordered(keys, first):
        return keys
    order = keys.select(*first, TIME, KEY).with_row_index(_AT).sort(*first, TIME, KEY)[_AT]
    return gathered(keys, order)


def _is_ordered(keys: pl.DataFrame, first: Sequence[str]) -> bool:
    """Whether rows are in order; ids are compared only where all else is equal, for speed."""
    equal = pl.lit(True)
    for name in (*first, TIME):
        value = pl.col(name).to_physical().cast(pl.Int64).fill_null(np.iinfo(np.int64).min)
        if keys.select((equal & (value < value.shift(1))).any()).item():
            return False
        equal = equal & (value == value.shift(1))
    again = keys.select(equal.fill_null(False).arg_true()).to_series()
    ids, before = keys[KEY].gather(again).fill_null(""), keys[KEY].gather(again - 1).fill_null("")
    return bool((ids >= before).all())


def ties(keys: pl.DataFrame) -> pl.DataFrame:
    """The numbers of rows, not dropped, that are equal in time and id."""
    again = keys.select(ROW, TIME, KEY)[_again(keys[KEY], keys[DROP].is_null())]
    return again.filter(again.select(TIME, KEY).is_duplicated()).select(ROW)


def read_content(tied: tuple[Piece, pl.Series], column_map: ColumnMap) -> pl.DataFrame:
    """What a map uses of the rows of some numbers, under their numbers and ids."""
    (piece, rows), m = tied, column_map
    # NOTE[DIFF] of two rows that are equal in time and id the legacy keeps whichever the reader brings first.
    used = {*m.roles.values(), *m.all_text, *m.categorical, *m.groups, *m.numeric}
    used |= {m.amount, m.oracle, FILE_COLUMN}
    names = [name for name in piece.frame.collect_schema() if name in used]
    marked = piece._replace(frame=mark_rows(piece.frame, m).drop(DROP)).only(rows)
    return numbered(marked.select(ROW, KEY, *names).collect(engine="streaming"), piece)


def rank_content(rows: pl.DataFrame) -> pl.DataFrame:
    """The rank of each row by its content."""
    return rows.sort(rows.columns[2:]).with_row_index(TIE).select(ROW, TIE)


def mark_duplicates(keys: pl.DataFrame, ranks: pl.DataFrame) -> pl.DataFrame:
    """Mark all rows of an id but the first in order, in which `ranks` order ties."""
    again = keys.select(ROW, TIME, KEY).with_row_index(_AT)[_again(keys[KEY], keys[DROP].is_null())]
    again = again.join(ranks, on=ROW, how="left").sort(TIME, KEY, TIE)
    return _mark(keys, again[_AT].filter(~again[KEY].is_first_distinct()), DUPLICATE)


def mark_later_orders(keys: pl.DataFrame, customers: Customers | None = None) -> pl.DataFrame:
    """Mark all orders of an entity but its first by entity time, of equals the first by time then id.

    Rows without an entity stay. If the entity time is null, `time` takes its place. Of entities that the
    table of known customers has, whose rows are in `keys` too, only its first order stays or an earlier one.
    """
    time = pl.coalesce(ENTITY_TIME, TIME).alias(ENTITY_TIME)
    own = keys.select(ENTITY, time, TIME, KEY).with_row_index(_AT)
    where = keys[DROP].is_null() & keys[ENTITY].is_not_null()
    own = own.filter(where) if customers else own[_again(keys[ENTITY], where)]
    later, known = np.zeros(keys.height, bool), keys.filter(pl.col(DROP) == KNOWN)
    later[own[_AT]] = True
    if known.height:
        own = customers.not_after(own, known)
    own = own.sort(ENTITY_TIME, TIME, KEY, nulls_last=[True, False, False])
    first = own.filter(own[ENTITY].is_first_distinct())
    if customers:
        customers.write(first, known)
    later[first[_AT]] = False
    return _mark(keys, pl.Series(later).arg_true(), LATER)


def draws(ids: pl.Series, seed: int) -> pl.Series:
    """A number from 0 to 2 ** 63 - 1 for each id, as if drawn at random."""
    bits = np.fromiter(map(crc32, ids.cast(pl.Binary)), np.uint64, len(ids))
    with np.errstate(over="ignore"):  # splitmix64, whose sums wrap
        bits += np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return pl.Series((bits >> np.uint64(1)).astype(np.int64))


def _again(texts: pl.Series, where: pl.Series) -> pl.Series:
    """The places, of those `where` it is so, at which texts may come again: their hashes do, for speed."""
    hashes = texts.hash().filter(where)
    ordered = np.sort(hashes)
    again = pl.Series(ordered[1:][ordered[1:] == ordered[:-1]]).unique()
    return where.arg_true().filter(hashes.is_in(again.implode()))


def _mark(keys: pl.DataFrame, at: pl.Series, code: int) -> pl.DataFrame:
    """Give the rows at some places, which no earlier step marked, this code."""
    return keys.with_columns(keys[DROP].scatter(at, code)) if len(at) else keys
