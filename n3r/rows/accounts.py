"""What became of the rows of raw files: the reasons for which they are dropped, and counts of every step.

Decisions:
- Rows in are rows kept and rows dropped for each reason; the counts come from the rows' own codes.
- A report holds counts and times only, no identity string.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from n3r.schema import LABEL, OWN, SEGMENT, SPLITS, TIME, ColumnMap, plain

DROP, SPLIT, ENTITY, ENTITY_TIME = (OWN + name for name in ("drop", "split", "entity", "entity_time"))

# Drop code - 1 -> (step, reason), in the order the steps are taken.
REASONS = (
    ("internal_domain", "e-mail of an internal domain"),
    ("label", "no label"),
    ("label", "label outside label_values"),
    ("time", "time missing or unreadable"),
    ("duplicate_id", "no id"),
    ("duplicate_id", "an earlier row has the same id"),
    ("first_order", "the entity has an earlier order"),
)
KNOWN = 0  # the code of what is no row: a known customer (customers.py)
INTERNAL, NO_LABEL, OTHER_LABEL, NO_TIME, NO_ID, DUPLICATE, LATER = range(1, len(REASONS) + 1)


@dataclass(frozen=True)
class Report:
    """What became of the rows; holds counts only, no identity string."""

    steps: pl.DataFrame  # step, reason, rows_in, rows_kept, rows_dropped: a row a reason, in order
    kept: pl.DataFrame  # step, segment, label, n: what the label step and each later one kept
    splits: pl.DataFrame  # split, segment, label, n
    times: pl.DataFrame  # split, first, last: ISO text, null where the map has no time
    not_finite: dict[str, int]  # feature -> NaN, infinite or too large cells made null, where any
    no_entity: int  # kept rows without an entity
    warnings: list[str]

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return {k: v.to_dicts() if isinstance(v, pl.DataFrame) else v for k, v in vars(self).items()}


def cells(keys: pl.DataFrame) -> pl.DataFrame:
    """How many rows have a code, segment and class, and how many of them lack which time or an entity."""
    nulls = (pl.col(name).null_count().cast(pl.Int64) for name in (TIME, ENTITY_TIME, ENTITY))
    counts = keys.lazy().group_by(DROP, SEGMENT, LABEL).agg(pl.len().cast(pl.Int64).alias("n"), *nulls)
    return counts.filter(pl.col(DROP).ne_missing(KNOWN)).collect(engine="streaming")


def count_steps(cells: pl.DataFrame, taken: Mapping[int, bool], column_map: ColumnMap) -> pl.DataFrame:
    """Rows in, kept and dropped for each reason, but those not `taken`; raises if a step leaves none."""
    dropped = dict(cells.group_by(DROP).agg(pl.sum("n")).iter_rows())
    rows, n_in, reached = [], cells["n"].sum(), {}
    columns = ["step", "reason", "rows_in", "rows_kept", "rows_dropped"]
    for code, (step, reason) in enumerate(REASONS, start=1):
        if not taken.get(code, True):
            continue
        reached.setdefault(step, n_in)
        n_out = n_in - dropped.get(code, 0)
        rows.append((step, reason, n_in, n_out, n_in - n_out))
        n_in = n_out
        if n_out == 0:
            told = f"no rows left after the step {step!r} ({reason}), which {reached[step]} rows reached"
            why = why_few(pl.DataFrame(rows, columns, orient="row"), column_map)
            raise ValueError(f"{told}{why or '; look at the column map or the input'}")
    return pl.DataFrame(rows, columns, orient="row")


def why_few(steps: pl.DataFrame, column_map: ColumnMap) -> str:
    """What to add to a message on too few rows: why most of them were dropped, where most were."""
    m, n_rows = column_map, steps["rows_in"].max() or 0
    reason, n = steps.sort("rows_dropped").select("reason", "rows_dropped").row(-1) if n_rows else ("", 0)
    if 2 * n <= n_rows:
        return ""
    why = {
        "e-mail of an internal domain": f"internal_domains names their {m.email_domain!r}: is it meant?",
        "no label": f"`label` is empty: is {m.label!r} the label?",
        "label outside label_values": f"label_values does not know their {m.label!r}: add its values there",
        "time missing or unreadable": f"`time` cannot be read: are {m.time!r} and time_format right?",
        "no id": f"`id` is empty: is {m.id!r} an id?",
        "an earlier row has the same id": f"`id` repeats; is {m.id!r} an id?",
        "the entity has an earlier order": f"`entity` repeats; is {m.entity!r} a customer?",
    }
    return f": {n:,} of {n_rows:,} dropped: {why[reason]}"


def count_kept(cells: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Rows per segment and label after the label step and each later one."""
    last = {step: code for code, (step, _) in enumerate(REASONS, start=1)}
    tables = []
    for step in steps["step"].unique(maintain_order=True):
        if last[step] >= OTHER_LABEL:
            alive = cells.filter(pl.col(DROP).is_null() | (pl.col(DROP) > last[step]))
            counts = alive.group_by(SEGMENT, LABEL).agg(pl.sum("n")).sort(SEGMENT, LABEL)
            tables.append(counts.select(pl.lit(step).alias("step"), SEGMENT, LABEL, "n").rename(plain))
    return pl.concat(tables)


def split_cells(kept: pl.DataFrame) -> pl.DataFrame:
    """How many kept rows a split, segment and class has, and their first and last time."""
    ends = (pl.col(TIME).min().alias("first"), pl.col(TIME).max().alias("last"))
    return kept.group_by(SPLIT, SEGMENT, LABEL).agg(pl.len().cast(pl.Int64).alias("n"), *ends)


def count_splits(cells: pl.DataFrame) -> pl.DataFrame:
    """Rows per split, segment and label."""
    names = pl.col(SPLIT).replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String)
    counts = cells.group_by(SPLIT, SEGMENT, LABEL).agg(pl.sum("n")).sort(SPLIT, SEGMENT, LABEL)
    return counts.select(names.alias("split"), SEGMENT, LABEL, "n").rename(plain)


def ends_of(cells: pl.DataFrame) -> pl.DataFrame:
    """The first and the last time of each split that has rows."""
    ends = cells.group_by(SPLIT).agg(pl.min("first"), pl.max("last")).sort(SPLIT)
    texts = [(SPLITS[split], *(None if t is None else str(t) for t in pair)) for split, *pair in ends.rows()]
    return pl.DataFrame(texts, {"split": pl.String, "first": pl.String, "last": pl.String}, orient="row")


def in_words(finding: Mapping[str, str]) -> str:
    """What a finding of a data check saw, and what to do about it."""
    return "; ".join(part for part in (finding["what"], finding["advice"]) if part)
