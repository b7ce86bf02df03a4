"""From raw rows to the train, val and test splits, with a report of every row that was dropped.

Decisions:
- All of it is functions of pieces of the table and of whole buckets of rows, given to the three verbs of an
  engine (engine/): what comes out is the same in memory, on disk and on many machines, whatever the buckets.
- A step never removes rows: it marks those it drops with its own code, and only rows that no earlier step
  marked. The whole report is then a count of the codes.
- Marks, duplicates, first orders and the split are decided on the key columns alone (ids, times, label,
  segment). The wide columns are read once, after that, and only for the rows that are kept.
- Rows with an unreadable time are dropped and reported; more than `max_bad_dates` of them mean a wrong
  format, an error.
- Features are Float32, as the legacy's are; NaN, infinity and numbers beyond Float32 become null and are
  counted. Filling nulls is for the features fitted on train, not for this module.
- The table is read twice and must give the same rows in the same order both times, as files do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from n3r.engine import Data, Engine, gather_all
from n3r.engine.memory import Memory
from n3r.files.json_io import MAX_TOLD
from n3r.rows import times
from n3r.rows.accounts import (
    DROP,
    ENTITY_TIME,
    INTERNAL,
    KNOWN,
    LATER,
    NO_TIME,
    OTHER_LABEL,
    Report,
    cells,
    count_kept,
    count_splits,
    count_steps,
    ends_of,
    split_cells,
    why_few,
)
from n3r.rows.customers import Customers
from n3r.rows.cuts import END, Cut, Ranked, at_ranks, axis, cuts_of, n_ranked, order_marks, part_edges, spans
from n3r.rows.keys import ENTITY, RAW_LABEL, Piece, mark_rows, read_keys, select_wide
from n3r.rows.labels import outside
from n3r.rows.plausible import count_owners, doubts, owner_doubts, owners
from n3r.rows.precedence import (
    TIE,
    mark_duplicates,
    mark_later_orders,
    rank_content,
    read_content,
    ties,
)
from n3r.rows.splitting import Splitting, check_splits, with_parts
from n3r.rows.values import as_text
from n3r.rows.wide import OF_PART, Kept, Parts, Written, blank, finish, piece_of, read_kept
from n3r.schema import KEY, LABEL, MAX_SHAPE, ROW, TIME, ColumnMap, check, mask
from n3r.tables import Source

LOOKED_AT = 1000  # rows without a time, for a format that reads them
KEY_BYTES = 250  # of a row's key columns
PART_ROWS = 1 << 18  # about as many at most are a part
SAMPLED = 200_000  # rows, about, that stand for splits that were written
_NOT_DROPPED = pl.col(DROP).fill_null(KNOWN) == KNOWN
_REACHED = pl.col(DROP).is_null() | (pl.col(DROP) == LATER)  # the choice of an entity's first order
Splits = dict[str, pl.DataFrame]


class PrepareConfig(BaseModel):
    """How rows are kept and split; the shares sum to 1, and val or test may be 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(0.70, gt=0, le=1)
    val: float = Field(0.15, ge=0, lt=1)  # the legacy: 0.95, 0, 0.05
    test: float = Field(0.15, ge=0, lt=1)
    seed: int = Field(0, ge=0)  # of the random split
    first_order_only: bool = True  # where the map has an entity
    max_bad_dates: float = Field(0.01, ge=0, le=1)  # share of unreadable times that is tolerated

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError("the shares train, val and test must sum to 1")
        return self


@dataclass(frozen=True)
class Prepared:
    """Splits of one make: id, text fields, features, categorical and canonical columns."""

    splits: dict[str, pl.DataFrame]  # train, val, test, each in (time, id) order; of `parts` a sample
    report: Report
    column_map: ColumnMap  # "*" written out
    parts: Parts | None = None  # the whole splits, where they were written as they came


def prepare(
    frame: pl.LazyFrame,
    column_map: ColumnMap,
    config: PrepareConfig | None = None,
    n_rows: int | None = None,
) -> Prepared:
    """Split raw rows into train, val and test, in memory.

    Raises ValueError where the columns do not fit the map, labels or times do not fit their formats, a step
    leaves no row, a split is empty or of one class, or the rows are not `n_rows`, as their reader counted.
    """
    n_rows = frame.select(pl.len()).collect().item() if n_rows is None else n_rows
    check(frame, column_map)
    return _Plan(Memory(), frame, [Piece(frame, 0, n_rows)], column_map, config or PrepareConfig()).run()


def prepare_source(
    source: Source,
    column_map: ColumnMap,
    config: PrepareConfig | None = None,
    engine: Engine | None = None,
    customers: Customers | None = None,
) -> Prepared:
    """`prepare` of files on an engine; one with a folder of its own writes the splits there, in parts.

    Of `customers`, known from other days, no later order is kept; `customers.keep()` then adds the new ones.
    """
    check(source.frame, column_map)
    config = config or PrepareConfig()
    if customers and (column_map.entity is None or not config.first_order_only):
        raise ValueError("known customers are for first orders: name `entity` in the column map")
    plan = _Plan(engine or Memory(), source.frame, source.pieces, column_map, config, customers)
    return plan.run(source.format)


class _Plan:
    """How rows go through an engine: their keys, and those that are kept once more with all columns."""

    def __init__(
        self,
        engine: Engine,
        frame: pl.LazyFrame,
        pieces: Sequence[Piece],
        column_map: ColumnMap,
        config: PrepareConfig,
        customers: Customers | None = None,
    ):
        m = column_map.resolve_numeric(frame.collect_schema())
        self.engine, self.frame, self.pieces, self.map, self.config = engine, frame, pieces, m, config
        self.customers = customers
        self.n_read = sum(piece.n_rows for piece in pieces)
        self.n = engine.buckets((self.n_read + (customers.n_known if customers else 0)) * KEY_BYTES)
        self.first_only = m.entity is not None and config.first_order_only
        self.splitting = Splitting(m, config.train, config.val, config.seed)

    def run(self, format: str = "parquet") -> Prepared:
        """The splits, and what became of all rows."""
        engine, m = self.engine, self.map
        read = partial(_read_item, column_map=m, customers=self.customers, schema=self._key_schema())
        keys = engine.read([*self.pieces, *(self.customers.parts if self.customers else [])], read)
        keys = engine.exchange(keys, None, self.n, meeting(KEY))
        warnings, tied = self._check_keys(keys)
        keys = engine.exchange(keys, partial(mark_duplicates, ranks=self._ranks(tied)))
        if self.first_only and self.n > 1 and not self.customers:
            keys = engine.exchange(keys, mark_later_orders)  # so that the orders of one need not all meet
        first = partial(mark_later_orders, customers=self.customers) if self.first_only else None
        by_entity = partial(_of_entities, splitting=self.splitting, first=first)
        keys = engine.exchange(keys, by_entity, self.n, meeting(ENTITY, _NOT_DROPPED))
        counts, cuts, told = self._look(keys)
        steps = count_steps(counts, _taken(m, self.config), m)
        keys = engine.exchange(keys, partial(self.splitting.split, cuts=cuts))
        found = gather_all(engine, keys, {"cells": split_cells, "order": order_marks})
        of_splits = found["cells"]
        check_splits(of_splits, self._shares(), why_few(steps, m), m)
        n_kept = of_splits["n"].sum()
        edges = part_edges(found["order"], self._part_rows(n_kept)) if engine.folder else []
        keys = engine.exchange(keys, partial(with_parts, edges=edges))
        done, splits, parts = self._write(keys, format, n_kept, len(edges) + 1)
        not_finite, nulls = self._lost(done)
        no_entity = counts.filter(pl.col(DROP).is_null())[ENTITY].sum() if m.entity else 0
        warnings += told["entity"] + doubts(nulls, n_kept, no_entity, m) + told["time"]
        made = (count_kept(counts, steps), count_splits(of_splits), ends_of(of_splits))
        return Prepared(splits, Report(steps, *made, not_finite, no_entity, warnings), m, parts)

    def _key_schema(self) -> pl.Schema:
        return read_keys(self.pieces[0].empty, self.map).schema

    def _check_keys(self, keys: Data) -> tuple[list[str], pl.Series]:
        """Warnings of ids and of offsets, and the rows whose order their content decides.

        Raises ValueError for rows, labels and times that do not fit.
        """
        m, fns = self.map, {"cells": cells, "owners": partial(_owners, name=KEY), "ties": ties}
        found = gather_all(self.engine, keys, fns)
        counts = found["cells"]
        if (n_rows := counts["n"].sum()) != self.n_read:
            raise ValueError(
                f"{self.n_read} rows were read and {n_rows} arrived: did a file change meanwhile?"
            )
        self._check_labels(counts)
        check_times(self.frame, counts, m, self.config)
        alive = counts.filter(pl.col(DROP).is_null())["n"].sum()
        warnings = owner_doubts(found["owners"], alive, "id", m.id, "only the earliest of them is kept")
        return warnings + self._mixed_offsets(), found["ties"][ROW]

    def _mixed_offsets(self) -> list[str]:
        schema = self.frame.collect_schema()
        names = [name for name, form in self.map.times if form is None and schema[name] == pl.String]
        counted = [
            self.engine.gather(self.engine.read(self.pieces, partial(_offsets, name=n))) for n in names
        ]
        told = "some times give an offset and others none: those are taken for UTC"
        return [told] if any(map(times.are_mixed, counted)) else []

    def _ranks(self, tied: pl.Series) -> pl.DataFrame:
        """The order, by their content, of rows that are equal in time and id."""
        engine = self.engine
        if tied.is_empty():
            return pl.DataFrame(schema={ROW: pl.Int64, TIE: pl.UInt32})
        pieces = [(p, tied.filter(tied.is_between(p.start, p.start + p.n_rows, "left"))) for p in self.pieces]
        content = engine.read(
            [pair for pair in pieces if len(pair[1])], partial(read_content, column_map=self.map)
        )
        ranks = engine.exchange(
            content, rank_content, engine.buckets(len(tied) * self._row_bytes()), meeting(KEY)
        )
        return engine.gather(ranks)

    def _look(self, keys: Data) -> tuple[pl.DataFrame, list[Cut], dict[str, list[str]]]:
        """Counts of all rows; where the kept ones are cut into splits; warnings of times."""
        engine, m = self.engine, self.map
        asked = {"cut": Ranked(self.splitting.cut_rows, self.splitting.value)}
        asked |= {"time": Ranked(_kept, axis(TIME))} if m.time else {}
        asked |= {"entity_time": Ranked(_with_entity_time, axis(ENTITY_TIME))} if m.entity_time else {}
        fns = {"cells": cells, "owners": partial(_owners, name=ENTITY)}
        found = gather_all(engine, keys, fns | {name: ranked.marks for name, ranked in asked.items()})
        n = {name: n_ranked(found[name]) for name in asked}
        ranks = {name: [(n[name] - 1) // 2, n[name] // 2] for name in asked if n[name]}  # of the median
        ranks["cut"] = [rank for rank in self.splitting.ranks(n["cut"]) if rank < n["cut"]]
        near = {name: partial(asked[name].near, spans=spans(found[name], ranks[name])) for name in ranks}
        known = found["owners"]["value"].unique()
        near["owners"] = partial(_count_owners, name=ENTITY, known=known)
        near = gather_all(engine, keys, near)
        places = {name: at_ranks(near[name], ranks[name]) for name in ranks}
        fns = {"cut": partial(asked["cut"].ids_at, values=[value for value, _ in places["cut"]])}
        for name, column in (("time", TIME), ("entity_time", ENTITY_TIME)):
            if name in ranks:
                median = sum(value for value, _ in places[name]) / 2
                fns[name] = partial(_facts, ranked=asked[name], name=column, median=median)
        last = gather_all(engine, keys, fns)
        cuts = cuts_of(last["cut"], places["cut"], ranks["cut"])
        cuts += [END] * (len(self.splitting.ranks(n["cut"])) - len(cuts))
        told = {
            name: times.doubts(last[name], getattr(m, name))
            for name in ("time", "entity_time")
            if name in last
        }
        told["entity"] = self._entity_owners(found["cells"], near["owners"]) + told.pop("entity_time", [])
        return found["cells"], cuts, {"time": []} | told

    def _entity_owners(self, counts: pl.DataFrame, owners: pl.DataFrame) -> list[str]:
        if self.map.entity is None:
            return []
        kept = "only the first of them is kept" if self.config.first_order_only else "all of them are kept"
        reached = counts.filter(_REACHED)["n"].sum()
        return owner_doubts(owners, reached, "entity", self.map.entity, kept)

    def _row_bytes(self) -> float:
        """What a row takes in memory with all columns that are used."""
        some = self.pieces[0].frame.head(LOOKED_AT).pipe(select_wide, self.map).collect()
        return KEY_BYTES + some.estimated_size() / max(1, some.height)

    def _part_rows(self, n_kept: int) -> int:
        """How many rows a part may have."""
        return max(1, min(PART_ROWS, n_kept // self.engine.buckets(n_kept * self._row_bytes())))

    def _write(
        self, keys: Data, format: str, n_kept: int, n_parts: int
    ) -> tuple[pl.DataFrame, Splits, Parts | None]:
        """What `finish` tells of the kept rows, the splits, or samples of them, and their parts, if any."""
        engine, m = self.engine, self.map
        n = engine.buckets(n_kept * self._row_bytes())
        read = partial(read_kept, pieces=self.pieces, column_map=m)
        rows = engine.exchange(keys, None, min(n, len(self.pieces)), piece_of(self.pieces))
        rows = engine.exchange(rows, read)  # when they are asked for: wide rows are kept and moved once
        kept, written = Kept(), None
        if engine.folder:
            share = min(1.0, SAMPLED / n_kept)
            written = Written(engine.folder / "parts", format, m.id, share, self.config.seed)
        to = partial(finish, column_map=m, sink=written or kept)
        told = engine.gather(engine.exchange(rows, to, min(n, n_parts), OF_PART))
        if not written:
            return told, kept.splits, None
        parts = written.parts(told, blank(self.pieces[0], m))
        return told, written.sample(parts), parts

    def _lost(self, told: pl.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
        """How many cells of which columns were not finite, and are null."""
        m = self.map
        names = [name for name in self.frame.pipe(select_wide, m).collect_schema() if name != m.id]
        bad, nulls = (np.array(told[key].to_list(), dtype=np.int64).sum(axis=0) for key in ("bad", "nulls"))
        bad = dict(zip(m.numeric, bad.tolist(), strict=True))
        return {name: n for name, n in bad.items() if n}, dict(zip(names, nulls.tolist(), strict=True))

    def _shares(self) -> dict[str, float]:
        """The share of each split, 0 where it may be empty."""
        shares = {"train": self.config.train, "val": self.config.val, "test": self.config.test}
        if self.map.split_files:
            brought = self.map.split_files.values()
            shares |= {"test": float("test" in brought), "val": max(self.config.val, "val" in brought)}
        return shares

    def _check_labels(self, counts: pl.DataFrame) -> None:
        """Raise if a row's label is outside the map and the map does not say to drop such rows."""
        m = self.map
        if not (counts[DROP] == OTHER_LABEL).any() or m.other_labels == "drop":
            return
        marked = mark_rows(self.frame, m)
        other = marked.filter(pl.col(DROP) == OTHER_LABEL).select(RAW_LABEL, *map(as_text, m.all_text))
        rows = other.collect(engine="streaming")
        found = rows[RAW_LABEL].value_counts(name="n").sort("n", RAW_LABEL, descending=[True, False])
        told = found.head(MAX_TOLD)
        held = [rows[name].filter(rows[name].is_in(told[RAW_LABEL].implode())) for name in m.all_text]
        told, held = dict(told.iter_rows()), pl.concat(held).to_list()
        none_known = not counts.filter(pl.col(LABEL).is_not_null())["n"].sum()
        raise ValueError(outside(told, found.height, rows.height, held, none_known, m))


def check_times(frame: pl.LazyFrame, counts: pl.DataFrame, m: ColumnMap, config: PrepareConfig) -> None:
    """Raise if more of the labelled rows' times are null than config allows; counts: `accounts.cells`."""
    reached = counts.filter(pl.col(DROP).is_null() | (pl.col(DROP) >= NO_TIME))
    roles = ["time", *(["entity_time"] if config.first_order_only else [])]
    for role, key in zip(roles, (TIME, ENTITY_TIME), strict=False):
        column, n_bad, n_rows = getattr(m, role), reached[key].sum(), reached["n"].sum()
        if column is None or not n_bad or (n_bad <= config.max_bad_dates * n_rows and n_bad < n_rows):
            continue
        time_format, kind = getattr(m, f"{role}_format"), frame.collect_schema()[column]
        # polars breaks at the text of a date that no calendar has
        cell = pl.col(column).to_physical() if kind.is_temporal() else pl.col(column)
        rows = mark_rows(frame, m).filter(pl.col(DROP).is_null() | (pl.col(DROP) >= NO_TIME))
        some = rows.select(pl.col(key).is_null().alias("bad"), cell.cast(pl.String).alias("cell"))
        cells = some.filter("bad").head(LOOKED_AT).collect()["cell"]
        every = some.gather_every(max(1, n_rows // LOOKED_AT)).collect()["cell"]
        shape = mask((cells[0] or "")[:MAX_SHAPE])
        raise ValueError(
            f"column {column!r} ({role}): {n_bad} of {n_rows} rows have no time in the format "
            f"{time_format or 'ISO 8601'!r} (tolerated: {config.max_bad_dates:.2%}); the first of them looks "
            f"like {shape!r}; {times.advice(cells, role, every, time_format)}"
        )


def _taken(column_map: ColumnMap, config: PrepareConfig) -> dict[int, bool]:
    """The reasons that only some maps and configs know."""
    has_entity = column_map.entity is not None and config.first_order_only
    return {
        INTERNAL: bool(column_map.internal_domains),
        NO_TIME: column_map.time is not None,
        LATER: has_entity,
    }


def meeting(name: str, where: pl.Expr | None = None) -> pl.Expr:
    """Where rows of one value come together; those without one are spread, and those not `where` it is so."""
    meet = pl.col(name).is_not_null() if where is None else pl.col(name).is_not_null() & where
    return pl.coalesce(pl.when(meet).then(pl.col(name).hash()), pl.col(ROW).cast(pl.UInt64))


def _read_item(
    item: Piece | Path, column_map: ColumnMap, customers: Customers | None, schema: pl.Schema
) -> pl.DataFrame:
    """The keys of a piece of the table, or a part of the known customers."""
    if isinstance(item, Path):
        return customers.read(item, schema)
    keys = read_keys(item, column_map)
    return customers.hide(keys) if customers else keys


def _of_entities(
    keys: pl.DataFrame, splitting: Splitting, first: Callable[[pl.DataFrame], pl.DataFrame] | None
) -> pl.DataFrame:
    """Whole entities, their later orders marked."""
    keys = splitting.drawn(keys)
    return first(keys) if first else keys


def _kept(keys: pl.LazyFrame) -> pl.LazyFrame:
    return keys.filter(pl.col(DROP).is_null())


def _with_entity_time(keys: pl.LazyFrame) -> pl.LazyFrame:
    return keys.filter(_REACHED, pl.col(ENTITY_TIME).is_not_null())


def _owners(keys: pl.DataFrame, name: str) -> pl.DataFrame:
    return owners(_reached(keys, name))


def _count_owners(keys: pl.DataFrame, name: str, known: pl.Series) -> pl.DataFrame:
    return count_owners(_reached(keys, name), known)


def _reached(keys: pl.DataFrame, name: str) -> pl.Series:
    return keys.select(pl.col(name).filter(_REACHED)).to_series()


def _facts(keys: pl.DataFrame, ranked: Ranked, name: str, median: float) -> pl.DataFrame:
    return times.facts(ranked.rows(keys.lazy()).select(name).collect().to_series(), median)


def _offsets(piece: Piece, name: str) -> pl.DataFrame:
    return times.offsets(piece.frame, name)
