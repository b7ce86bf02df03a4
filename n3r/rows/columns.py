"""What "*" in a column map stands for: a table's columns of numbers, and why each other column is none.

Decisions:
- Columns without a name, those that hold the row numbers of a data frame, and those that count the rows are
  no features: they are chosen by a row's place.
- A column of text is a feature only if every cell is a number. One that is left out has its reason, with the
  share of cells that are no numbers: a column must not go missing for one cell unnoticed.
"""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl

from n3r.rows.inputs import number
from n3r.schema import EVERY_OTHER, MAX_SHAPE, ColumnMap, is_nameless, is_number, mask

COUNTED = 30  # rows: fewer may lie in an order by chance
_LOOKED_AT = 1000
Files = Sequence[tuple[Path, int]]  # files and their numbers of rows, in the table's order


def spread(
    frame: pl.LazyFrame, column_map: ColumnMap, files: Files, is_text: bool
) -> tuple[pl.LazyFrame, dict[str, str]]:
    """The table with its columns of numbers, read where they are text, and why each other column is none."""
    if EVERY_OTHER not in column_map.numeric:
        return frame, {}
    schema = frame.collect_schema()
    names = [name for name in schema if column_map.may_be_feature(name)]
    nameless = [name for name in names if is_nameless(name)]
    others = [name for name in names if name not in nameless]
    left_out = dict.fromkeys(nameless, "no name of its own, as row numbers have")
    if is_text:
        numbers, reasons = _read_numbers(frame.select(others).collect(), files)
        frame = frame.with_columns(numbers)
        left_out |= reasons
    else:
        left_out |= {name: _kind(schema[name]) for name in others if not is_number(schema[name])}
    features = [name for name in others if name not in left_out]
    counting = _counting(frame, features, files)
    left_out |= dict.fromkeys(counting, "it counts the rows")
    # Others are no numbers, and so no features, wherever the table goes.
    return frame.drop(nameless, counting), {name: left_out[name] for name in names if name in left_out}


def _read_numbers(frame: pl.DataFrame, files: Files) -> tuple[list[pl.Series], dict[str, str]]:
    """The columns of text that hold only numbers, as numbers, and the reasons of the others."""
    found, reasons = [], {}
    for column in frame:
        numbers = column.to_frame().select(number(column.name)).to_series()
        filled = column.str.strip_chars() != ""
        bad = (filled & numbers.is_null()).arg_true()
        n_filled = filled.sum() or 0
        if not n_filled:
            reasons[column.name] = "no row has a value"
        elif not len(bad):
            found.append(numbers)
        elif 2 * len(bad) > n_filled and not any(map(str.isdecimal, column[bad[0]])):
            reasons[column.name] = "text"
        else:
            shape = mask(column[bad[0]][:MAX_SHAPE])
            reasons[column.name] = (
                f"{len(bad):,} of {n_filled:,} cells are no numbers, the first {_place(bad[0], files)}, "
                f"which looks like {shape!r}"
            )
    return found, reasons


def _place(row: int, files: Files) -> str:
    ends = accumulate(n_rows for _, n_rows in files)
    (path, n_rows), end = next((file, end) for file, end in zip(files, ends, strict=True) if row < end)
    return f"in row {row - end + n_rows + 1} of {path.name}"


def _kind(kind: pl.DataType) -> str:
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if kind == pl.Null:
        return "no row has a value"
    return "times" if kind.is_temporal() else f"of the type {kind.base_type()}"


def _counting(frame: pl.LazyFrame, names: Sequence[str], files: Files) -> list[str]:
    """The columns that rise by one from row to row of each file, or hold each number of a range once."""
    n_rows = sum(n for _, n in files)
    if n_rows < COUNTED or not names:
        return []
    head = frame.select(pl.col(names).cast(pl.Float64)).head(_LOOKED_AT).collect()
    found = []
    for name in head.columns:
        if _counts(head[name], len(head), len(files)) or _is_whole(head[name]):
            column = frame.select(pl.col(name).cast(pl.Float64)).collect().to_series()
            found += [name] if _counts(column, n_rows, len(files)) else []
    return found


def _counts(column: pl.Series, n_rows: int, n_files: int) -> bool:
    by_one = (column.diff() == 1).sum()
    is_range = column.max() - column.min() == n_rows - 1 if column.count() == n_rows else False
    return by_one >= n_rows - n_files or (is_range and _is_whole(column))


def _is_whole(column: pl.Series) -> bool:
    """Whether a column holds different whole numbers."""
    return bool((column == column.floor()).all(ignore_nulls=False)) and column.n_unique() == len(column)
