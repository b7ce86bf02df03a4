"""From raw rows to the train, val and test splits, with a report of every row that was dropped.

Decisions:
- A step never removes rows: it marks those it drops with its own code, and only rows that no earlier step
  marked. The whole report is then a count of the codes.
- Marks, duplicates, first orders and the split are decided on the key columns alone (ids, times, label,
  segment). The wide columns are read once, after that, and only for the rows that are kept.
- Every choice is made on rows in (time, id) order, and rows that are equal in both are ordered by their
  content, so that the order of the input rows changes nothing.
- Times are parsed, never compared as text (defect 29). Rows with an unreadable time are dropped and
  reported; more than `max_bad_dates` of them mean a wrong format, an error.
- Features are Float32, as the legacy's are; NaN, infinity and numbers beyond Float32 become null and are
  counted. Filling nulls is for the features fitted on train, not for this module.
- The frame is read twice and must give the same rows in the same order both times, as files do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from n3r.files.json_io import MAX_TOLD
from n3r.rows.accounts import (
    DROP,
    DUPLICATE,
    INTERNAL,
    LATER,
    NO_ID,
    NO_LABEL,
    NO_TIME,
    OTHER_LABEL,
    SPLIT,
    Report,
    count_kept,
    count_splits,
    count_steps,
    ends_of,
    why_few,
)
from n3r.rows.amounts import worth
from n3r.rows.labels import outside
from n3r.rows.plausible import doubts, owners, unless_blank
from n3r.rows.times import advice, is_mixed, parse_time
from n3r.rows.times import doubts as time_doubts
from n3r.rows.values import as_text, as_typed
from n3r.schema import (
    FILE_COLUMN,
    KEY,
    LABEL,
    MAX_SHAPE,
    ORACLE,
    OWN,
    ROW,
    SEGMENT,
    SPLITS,
    TEXT,
    TIME,
    ColumnMap,
    check,
    joined_text,
    mask,
)

ENTITY, ENTITY_TIME, RAW_LABEL, TIE = (OWN + name for name in ("entity", "entity_time", "raw_label", "tie"))
LOOKED_AT = 1000  # rows without a time, for a format that reads them
SIDE_BY_SIDE = 6  # wide columns that are read at a time


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

    splits: dict[str, pl.DataFrame]  # train, val, test, each in (time, id) order
    report: Report
    column_map: ColumnMap  # "*" written out


def prepare(
    frame: pl.LazyFrame,
    column_map: ColumnMap,
    config: PrepareConfig | None = None,
    n_rows: int | None = None,
) -> Prepared:
    """Split raw rows into train, val and test.

    Raises ValueError where the columns do not fit the map, labels or times do not fit their formats, a step
    leaves no row, a split is empty or of one class, or the rows are not `n_rows`, as their reader counted.
    """
    config = config or PrepareConfig()
    check(frame, column_map)
    column_map = column_map.resolve_numeric(frame.collect_schema())
    marked = mark_rows(frame, column_map)
    files = [FILE_COLUMN] if column_map.split_files else []
    keys = marked.select(ROW, DROP, KEY, ENTITY, TIME, ENTITY_TIME, SEGMENT, LABEL, *files)
    keys = keys.collect(engine="streaming")
    if n_rows not in (None, keys.height):
        raise ValueError(f"{n_rows} rows were read and {keys.height} arrived: did a file change meanwhile?")
    _check_labels(marked, keys, column_map)
    check_times(frame, keys, column_map, config)
    warnings = _of_keys(keys, column_map, config)
    if any(is_mixed(frame, name, form) for name, form in column_map.times):
        warnings.append("some times give an offset and others none: those are taken for UTC")
    keys = mark_duplicates(in_order(keys, frame, column_map))
    if column_map.entity and config.first_order_only:
        keys = mark_later_orders(keys)
    steps, n_rows = count_steps(keys, _taken(column_map, config), column_map), keys.height
    kept = count_kept(keys, steps)
    keys = keys.filter(pl.col(DROP).is_null())
    no_entity = keys[ENTITY].null_count() if column_map.entity else 0
    keys = keys.drop(DROP, ENTITY, ENTITY_TIME).with_columns(split_rows(keys, column_map, config))
    keys = keys.sort(SPLIT, maintain_order=True)
    table, not_finite = _read_kept(frame, n_rows, keys, column_map)
    warnings += doubts(table, no_entity, column_map)
    splits = _cut(table, keys[SPLIT], column_map, config, why_few(steps, column_map))
    report = Report(steps, kept, count_splits(keys), ends_of(splits), not_finite, no_entity, warnings)
    return Prepared(splits, report, column_map)


def _taken(column_map: ColumnMap, config: PrepareConfig) -> dict[int, bool]:
    """The reasons that only some maps and configs know."""
    has_entity = column_map.entity is not None and config.first_order_only
    return {
        INTERNAL: bool(column_map.internal_domains),
        NO_TIME: column_map.time is not None,
        LATER: has_entity,
    }


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


def _of_keys(keys: pl.DataFrame, m: ColumnMap, config: PrepareConfig) -> list[str]:
    """Warnings of ids, entities and their times, of the rows that no step has dropped yet."""
    alive = keys.filter(pl.col(DROP).is_null())
    warnings = owners(alive[KEY], "id", m.id, "only the earliest of them is kept")
    if m.entity:
        kept = "only the first of them is kept" if config.first_order_only else "all of them are kept"
        warnings += owners(alive[ENTITY], "entity", m.entity, kept)
    if m.entity_time:
        warnings += time_doubts(alive[ENTITY_TIME], m.entity_time)
    return warnings


def _is_internal(column_map: ColumnMap) -> pl.Expr:
    """Whether a row's e-mail domain has a label that is an internal name.

    amazon.co.uk and mail.amazon.com have the label "amazon"; myamazonx.net has not.

    NOTE[DIFF] the legacy drops what matches the regex `amazon.`: amazonia-travel.org too, but not a plain
    "amazon"; and it drops orders without a domain (defect 38). Those are kept here.
    """
    if not column_map.internal_domains:
        return pl.lit(False)
    names = [f".{name.strip('. ').lower()}." for name in column_map.internal_domains]
    domain = "." + as_text(column_map.email_domain).str.strip_chars().str.to_lowercase() + "."
    return domain.str.contains_any(names)


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


def in_order(keys: pl.DataFrame, frame: pl.LazyFrame, column_map: ColumnMap) -> pl.DataFrame:
    """Keys by time then id; where both agree, by the content of the rows."""
    keys = _gathered(keys, keys.select(TIME, KEY, ROW).sort(TIME, KEY)[ROW])
    same = pl.all_horizontal(pl.col(TIME, KEY).eq_missing(pl.col(TIME, KEY).shift(1)))
    tied = keys.filter((same | same.shift(-1, fill_value=False)) & pl.col(DROP).is_null())
    if tied.is_empty():
        return keys
    # NOTE[DIFF] of two such rows the legacy keeps whichever the reader brings first.
    m = column_map
    used = [
        *m.roles.values(),
        *m.all_text,
        *m.categorical,
        *m.groups,
        *m.numeric,
        m.amount,
        m.oracle,
        FILE_COLUMN,
    ]
    names = [name for name in frame.collect_schema() if name in used]
    rows = _only(frame.with_row_index(ROW), keys.height, tied).select(ROW, *names)
    ranks = rows.collect(engine="streaming").sort(names).with_row_index(TIE)
    return keys.join(ranks.select(ROW, TIE), on=ROW, how="left").sort(TIME, KEY, TIE).drop(TIE)


def mark_duplicates(keys: pl.DataFrame) -> pl.DataFrame:
    """Mark all rows of an id but the first; keys in order."""
    own = keys.select(pl.when(pl.col(DROP).is_null()).then(KEY)).to_series()
    return keys.pipe(_mark, ~_first(own), DUPLICATE)


def mark_later_orders(keys: pl.DataFrame) -> pl.DataFrame:
    """Mark all orders of an entity but its first by entity time, of equals the first in order.

    Rows without an entity stay. If the entity time is null, `time` takes its place.
    """
    own = keys.select(ENTITY, pl.coalesce(ENTITY_TIME, TIME).alias(ENTITY_TIME)).with_row_index(ROW)
    own = own.filter(keys[DROP].is_null() & keys[ENTITY].is_not_null())
    own = own.sort(ENTITY_TIME, maintain_order=True, nulls_last=True)
    later = np.zeros(keys.height, dtype=bool)
    later[own.filter(~own[ENTITY].is_first_distinct())[ROW].to_numpy()] = True
    return keys.pipe(_mark, pl.Series(later), LATER)


def split_rows(kept: pl.DataFrame, column_map: ColumnMap, config: PrepareConfig) -> pl.Series:
    """Position in (train, val, test) of each row; rows in order, cut by position.

    Files that bring a split keep it. Their train rows are then cut into train and val, unless a file is val.
    """
    codes, train, val = np.zeros(kept.height, dtype=np.int8), config.train, config.val
    if column_map.split_files:
        codes = _file_splits(kept[FILE_COLUMN], column_map.split_files)
        if "val" in column_map.split_files.values():
            return pl.Series(SPLIT, codes)
        train, val = train / (train + val), val / (train + val)
    rows = np.flatnonzero(codes == SPLITS.index("train"))
    if column_map.split_by == "random":
        rows = np.random.default_rng(config.seed).permutation(rows)
    first, second = round(len(rows) * train), round(len(rows) * (train + val))
    codes[rows[first:second]] = SPLITS.index("val")
    codes[rows[second:]] = SPLITS.index("test")
    return pl.Series(SPLIT, codes)


def _file_splits(files: pl.Series, patterns: Mapping[str, str]) -> np.ndarray:
    """Position in (train, val, test) of each row by its file's name."""
    found = {}
    for name in files.unique().sort():
        found[name] = next((SPLITS.index(s) for p, s in patterns.items() if fnmatchcase(name, p)), None)
        if found[name] is None:
            raise ValueError(f"the file {name} matches no pattern of split_files: {list(patterns)}")
    return files.replace_strict(found, return_dtype=pl.Int8).to_numpy().copy()


def _first(texts: pl.Series) -> pl.Series:
    """Whether each is the first of its kind; only texts whose hash comes again are compared, for speed."""
    hashes = texts.hash()
    first = hashes.is_first_distinct()
    again = hashes.is_in(hashes.filter(~first).implode())
    return first.scatter(again.arg_true(), texts.filter(again).is_first_distinct())


def _gathered(frame: pl.DataFrame, places: pl.Series) -> pl.DataFrame:
    """The rows at some places, all columns side by side; in one piece they are read 2 to 5 times as fast."""
    return frame.rechunk().lazy().select(pl.all().gather(places)).collect()


def _mark(keys: pl.DataFrame, hit: pl.Series, code: int) -> pl.DataFrame:
    """Give rows that no earlier step marked, and that are hit, this code."""
    return keys.with_columns(pl.coalesce(DROP, pl.when(hit).then(pl.lit(code, dtype=pl.UInt8))))


def _only(frame: pl.LazyFrame, n_rows: int, rows: pl.DataFrame) -> pl.LazyFrame:
    """The rows of the frame whose number is in `rows`, in the frame's order."""
    wanted = np.zeros(n_rows, dtype=bool)
    wanted[rows[ROW].to_numpy()] = True
    # Side by side and filtered: a join on the row number takes 15 % more memory for no less time.
    column = pl.Series(DROP, wanted).to_frame().lazy()
    return pl.concat([frame, column], how="horizontal").filter(DROP).drop(DROP)


def _check_labels(marked: pl.LazyFrame, keys: pl.DataFrame, column_map: ColumnMap) -> None:
    """Raise if a row's label is outside the map and the map does not say to drop such rows."""
    if not (keys[DROP] == OTHER_LABEL).any() or column_map.other_labels == "drop":
        return
    other = marked.filter(pl.col(DROP) == OTHER_LABEL).select(RAW_LABEL, *map(as_text, column_map.all_text))
    rows = other.collect(engine="streaming")
    counts = rows[RAW_LABEL].value_counts(name="n").sort("n", RAW_LABEL, descending=[True, False])
    told = counts.head(MAX_TOLD)
    held = [rows[name].filter(rows[name].is_in(told[RAW_LABEL].implode())) for name in column_map.all_text]
    told, held = dict(told.iter_rows()), pl.concat(held).to_list()
    none_known = not keys[LABEL].count()
    raise ValueError(outside(told, counts.height, rows.height, held, none_known, column_map))


def check_times(frame: pl.LazyFrame, keys: pl.DataFrame, m: ColumnMap, config: PrepareConfig) -> None:
    """Raise if more of the labelled rows' times are null than config allows."""
    reached = keys.filter(pl.col(DROP).is_null() | (pl.col(DROP) >= NO_TIME))
    roles = ["time", *(["entity_time"] if config.first_order_only else [])]
    for role, key in zip(roles, (TIME, ENTITY_TIME), strict=False):
        column, time_format = getattr(m, role), getattr(m, f"{role}_format")
        bad = reached.filter(pl.col(key).is_null())
        tolerable = bad.height <= config.max_bad_dates * reached.height and bad.height < reached.height
        if column is None or bad.is_empty() or tolerable:
            continue
        kind = frame.collect_schema()[column]  # polars breaks at the text of a date that no calendar has
        cell = pl.col(column).to_physical() if kind.is_temporal() else pl.col(column)
        looked_at = bad.head(LOOKED_AT), reached.gather_every(max(1, reached.height // LOOKED_AT))
        read = (_only(frame, keys.height, rows).select(cell.cast(pl.String)).collect() for rows in looked_at)
        cells, every = (found.to_series() for found in read)
        shape = mask((cells[0] or "")[:MAX_SHAPE])
        raise ValueError(
            f"column {column!r} ({role}): {bad.height} of {reached.height} rows have no time in the format "
            f"{time_format or 'ISO 8601'!r} (tolerated: {config.max_bad_dates:.2%}); the first of them looks "
            f"like {shape!r}; {advice(cells, role, every, time_format)}"
        )


def _read_kept(
    frame: pl.LazyFrame, n_rows: int, kept: pl.DataFrame, column_map: ColumnMap
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The prepared table in the order of `kept`, and cells that were not finite."""
    wide = _only(frame, n_rows, kept).pipe(select_wide, column_map)
    place = kept[ROW].rank("ordinal") - 1  # `wide` is in the frame's order
    table = kept.select(pl.col(KEY).alias(column_map.id), TIME, SEGMENT, LABEL)
    names = [name for name in wide.collect_schema().names() if name != column_map.id]
    not_finite = {}
    for start in range(0, len(names), SIDE_BY_SIDE):  # so that two whole tables never stand side by side
        part = _gathered(wide.select(names[start : start + SIDE_BY_SIDE]).collect(engine="streaming"), place)
        numbers = [name for name in part.columns if name in column_map.numeric]
        bad = part.select((~pl.col(numbers).is_finite()).sum())
        # NOTE[DIFF] the legacy fills null only, and NaN reaches the network (defect 38).
        not_finite |= {name: n for name, n in bad.row(0, named=True).items() if n} if numbers else {}
        finite = [pl.when(pl.col(name).is_finite()).then(name) for name in not_finite if name in numbers]
        table = table.hstack(part.with_columns(finite))
    table = table.hstack(table.lazy().select(joined_text(column_map.text)).collect(engine="streaming"))
    return table.select(column_map.id, TIME, SEGMENT, LABEL, TEXT, *names), not_finite


def _cut(
    table: pl.DataFrame, codes: pl.Series, column_map: ColumnMap, config: PrepareConfig, why: str
) -> dict[str, pl.DataFrame]:
    """Cut the table, whose splits lie one after the other; raises on an unusable split, saying why."""
    shares = {"train": config.train, "val": config.val, "test": config.test}
    if column_map.split_files:
        brought = column_map.split_files.values()
        shares |= {"test": float("test" in brought), "val": max(config.val, "val" in brought)}
    splits, start = {}, 0
    for code, (split, share) in enumerate(shares.items()):
        n_rows = (codes == code).sum()
        splits[split] = table.slice(start, n_rows)
        start += n_rows
        classes = splits[split][LABEL].unique()
        if share and not n_rows:
            raise ValueError(
                f"the split {split!r} of {table.height} rows is empty{why or '; give more rows'}"
            )
        if n_rows and len(classes) == 1:
            told = f"all {n_rows} rows of the split {split!r} have the class {classes[0]}"
            why = why or _where_others_are(table, classes[0], column_map)
            raise ValueError(f"{told}{why}")
    return splits


def _where_others_are(table: pl.DataFrame, c: int, m: ColumnMap) -> str:
    """Of rows of which a split has one class, how many others there are, and when."""
    others = table.filter(pl.col(LABEL) != c)[TIME]
    if not len(others):
        return f": label_values gives no row of {table.height} another; are its values those of {m.label!r}?"
    if m.splits_by_time:
        when = f"from {others.min():%Y-%m-%d} to {others.max():%Y-%m-%d}"
        advice = 'give more rows, other shares, or split_by "random"'
        return f": the {len(others)} rows of other classes are {when}; {advice}"
    return (
        f": there are {len(others)} rows of other classes in {table.height}; give more rows or other shares"
    )
