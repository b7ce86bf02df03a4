"""Scored rows with all that the raw orders of the same ids say, typed as in training.

Decisions:
- Labels are those of the raw orders through their column map, as in training; rows without one are left out.
- Orders are read piece by piece: of all rows the keys, of those that are scored the other columns. On an
  engine with a folder these lie there, in parts and in the order of the scores: the same rows as in memory.
- An id is found by its hash and then compared, so that no two are mistaken for each other.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from n3r.engine import Engine, start
from n3r.engine.memory import Memory
from n3r.evaluation.scored import is_of_class, n_classes, named
from n3r.files.formats import find_files, part_path
from n3r.files.reader import scan_parquet
from n3r.files.writer import write
from n3r.preprocess import PrepareConfig, check_times
from n3r.rows.accounts import cells
from n3r.rows.keys import Piece, read_keys, select_wide
from n3r.rows.parts import Rows, RowsInParts
from n3r.schema import CALIBRATED, KEY, LABEL, OWN, ROW, SCORE, SEGMENT, TIME, ColumnMap, check
from n3r.tables import scan

PLACE = OWN + "place"  # of a row among the scored ones
LARGE = 1 << 26  # bytes of files of orders that are not kept in memory
LABELLED = "labelled"  # the folder of the parts
LOOKED_AT = 1000  # rows that tell how large one is


def engine_for(orders: Sequence[str | Path], folder: Path) -> Engine:
    """In memory or, where the files are large, on disk, in a folder of its own."""
    n_bytes = sum(path.stat().st_size for path in find_files(orders))
    return start("disk" if n_bytes > LARGE else "memory", folder)


def with_labels(
    scored: pl.DataFrame,
    orders: Sequence[str | Path],
    column_map: ColumnMap,
    engine: Engine | None = None,
    wide: bool = True,
) -> Rows:
    """Scored rows with the columns of their orders, in their order; those without a label are left out.

    By default in memory; without `wide` label, segment and time alone. Raises ValueError when an id has no
    order or several, and for times that training would refuse.
    """
    engine = engine or Memory()
    scored, source = named(scored), scan(orders, column_map, engine=engine)
    check(source.frame, column_map)
    m = column_map.resolve_numeric(source.frame.collect_schema())
    with source.reading():
        counts, keys = _scored_keys(scored[KEY], source.pieces, m)
        check_times(source.frame, pl.concat(counts), m, PrepareConfig(first_order_only=False))
        _check_matched(pl.concat(own[PLACE] for own in keys), scored, m)
        kept = [own.filter(pl.col(LABEL).is_not_null()) for own in keys]
        known = pl.concat(own.select(PLACE, LABEL, SEGMENT, TIME) for own in kept).sort(PLACE)
        if known.is_empty():
            raise ValueError(f"none of the {scored.height} scored orders has a label of the column map")
        own = [name for name in scored.columns if name in (KEY, SCORE, CALIBRATED) or is_of_class(name)]
        rows = scored.select(own)[known[PLACE]].hstack(known.drop(PLACE))
        if not wide:
            return rows
        asked = [own.select(ROW, _among(own[PLACE], known[PLACE])) for own in kept]
        others = _wide([*zip(source.pieces, asked, strict=True)], m, rows.height, engine)
    return rows.hstack(others) if isinstance(others, pl.DataFrame) else others.hstack(rows)


def _scored_keys(
    ids: pl.Series, pieces: Sequence[Piece], m: ColumnMap
) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """Of each piece what `check_times` takes and, of its scored rows, the keys with their places."""
    found, counts, keys = _Ids(ids), [], []
    for piece in pieces:
        own = read_keys(piece, m)
        counts.append(cells(own))
        place = found.places(own[KEY])
        own = own.select(ROW, place, LABEL, SEGMENT, TIME).filter(place >= 0)
        keys.append(own.sort(ROW))
    return counts, keys


class _Ids:
    """Ids, no two alike, to be found."""

    def __init__(self, ids: pl.Series):
        hashes = ids.hash().to_numpy()
        self.ids, self.order = ids, np.argsort(hashes)
        self.hashes = hashes[self.order]
        self.n_alike = int(np.unique(self.hashes, return_counts=True)[1].max(initial=1))

    def places(self, given: pl.Series) -> pl.Series:
        """The place of each given id, -1 where there is none."""
        at, found = np.searchsorted(self.hashes, given.hash().to_numpy()), np.full(len(given), -1)
        for step in range(self.n_alike if len(self.ids) else 0):  # ids of one hash are side by side
            place = self.order[np.minimum(at + step, len(self.ids) - 1)]
            is_it = (self.ids[place] == given).fill_null(False).to_numpy()
            found[is_it] = place[is_it]
        return pl.Series(PLACE, found)


def _check_matched(places: pl.Series, scored: pl.DataFrame, m: ColumnMap) -> None:
    """Raise ValueError for scored ids of several orders or of none, and for scores of other classes."""
    n_found = np.count_nonzero(np.bincount(places.to_numpy(), minlength=1))
    if twice := len(places) - n_found:
        raise ValueError(f"{twice} orders have an id that an earlier one has")
    if lost := scored.height - n_found:
        raise ValueError(f"{lost} of {scored.height} scored ids are not among the orders given")
    if (n := n_classes(scored)) != m.n_classes:
        raise ValueError(f"there are scores of {n} classes, and the column map has {m.n_classes}")


def _among(places: pl.Series, known: pl.Series) -> pl.Series:
    """The numbers of places among those known, which ascend."""
    return pl.Series(PLACE, np.searchsorted(known.to_numpy(), places.to_numpy()))


def _wide(asked: Sequence[tuple[Piece, pl.DataFrame]], m: ColumnMap, n_rows: int, engine: Engine) -> Rows:
    """The wide columns of the rows asked for, in the order of their places, 0 to `n_rows`."""
    read = partial(_read_wide, m=m)
    some = read((asked[0][0], asked[0][1].head(LOOKED_AT)))
    n_bytes = some.estimated_size() / max(1, some.height)
    n = engine.buckets(n_rows * n_bytes)
    size = -(-n_rows // n)
    data, by = engine.read(asked, read), (pl.col(PLACE) // size).cast(pl.UInt64)
    if engine.folder is None:
        return engine.gather(engine.exchange(data, _in_order, n, by))
    to = partial(_written, folder=engine.folder, size=size)
    engine.gather(engine.exchange(data, to, n, by))
    read = partial(_read_parts, engine, -(-n_rows // size))  # the folder is there as long as its engine
    return RowsInParts(read, some.drop(PLACE).columns, n_rows)


def _read_wide(asked: tuple[Piece, pl.DataFrame], m: ColumnMap) -> pl.DataFrame:
    """The wide columns of some rows of a piece, and their places."""
    piece, rows = asked
    wide = piece.only(rows[ROW]).pipe(select_wide, m).collect(engine="streaming")
    return wide.hstack(rows.select(PLACE))


def _in_order(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.sort(PLACE).drop(PLACE)


def _written(rows: pl.DataFrame, folder: Path, size: int) -> pl.DataFrame:
    """Write a part; how many rows it has."""
    if rows.height:
        number = rows[PLACE].min() // size
        write(_in_order(rows), part_path(folder, LABELLED, number, "parquet"))
    return pl.DataFrame({"n": [rows.height]})


def _read_parts(engine: Engine, n_parts: int, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    for number in range(n_parts):
        path = part_path(engine.folder, LABELLED, number, "parquet")
        yield scan_parquet(path).select(columns).collect(engine="streaming")
