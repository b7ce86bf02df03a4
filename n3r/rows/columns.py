"""What "*" in a column map stands for: a table's columns of numbers, and why each other column is none.

Decisions:
- Columns without a name, those that hold the row numbers of a data frame, and those that count the rows are
  no features: they are chosen by a row's place.
- A column of text is a feature only if every cell is a number. One that is left out has its reason, with the
  share of cells that are no numbers: a column must not go missing for one cell unnoticed.
"""

import re
from collections.abc import Sequence, Set
from itertools import accumulate, product
from pathlib import Path

import polars as pl

from n3r.files.dialect import Dialect
from n3r.files.encoding import setting
from n3r.rows.numbers import NumberFormat, fitting, form_of, number, plain_numbers, unread
from n3r.rows.values import is_text
from n3r.schema import EVERY_OTHER, MAX_SHAPE, ColumnMap, is_nameless, is_number, mask

COUNTED = 30  # rows: fewer may lie in an order by chance
AT_ONCE = 1 << 22  # cells that are read at once, where columns are read some at a time
_LOOKED_AT = 1000
_SEPARATORS = ",;\t|"
Files = Sequence[tuple[Path, int]]  # files and their numbers of rows, in the table's order


def spread(
    frame: pl.LazyFrame,
    column_map: ColumnMap,
    files: Files,
    kind: str,
    on_disk: bool = False,
) -> tuple[pl.LazyFrame, dict[str, str], list[str]]:
    """The table with its columns of numbers, read where they are text, these, and why other columns are none.

    `kind` is the format of the files. On disk text is read when the table is.
    """
    if EVERY_OTHER not in column_map.numeric:
        return frame, {}, []
    schema = frame.collect_schema()
    names = [name for name in schema if column_map.may_be_feature(name)]
    nameless = [name for name in names if is_nameless(name)]
    others = [name for name in names if name not in nameless]
    left_out = dict.fromkeys(nameless, "no name of its own, as row numbers have")
    texts = [name for name in others if kind != "parquet" and schema[name] == pl.String]
    form = form_of(kind, column_map.number_format)
    read, reasons = [], {}
    if texts and on_disk:
        at_once = max(1, AT_ONCE // sum(n_rows for _, n_rows in files))
        for start in range(0, len(texts), at_once):
            some = frame.select(texts[start : start + at_once]).collect()
            numbers, why = _read_numbers(some, files, form, kind)
            read, reasons = read + [column.name for column in numbers], reasons | why
        frame = frame.with_columns(number(name, form) for name in read)
    elif texts:
        table = frame.collect()
        numbers, reasons = _read_numbers(table.select(texts), files, form, kind)
        frame = table.with_columns(numbers).lazy()  # lets their texts go: 1.6 GB a million rows, not 2.1
    left_out |= reasons
    typed = [name for name in others if name not in texts]
    left_out |= {name: _kind(schema[name]) for name in typed if not is_number(schema[name])}
    features = [name for name in others if name not in left_out]
    counting = _counting(frame, features, files)
    left_out |= dict.fromkeys(counting, "it counts the rows")
    # Others are no numbers, and so no features, wherever the table goes.
    told = {name: left_out[name] for name in names if name in left_out}
    return frame.drop(nameless, counting), told, read


def _read_numbers(
    frame: pl.DataFrame, files: Files, form: NumberFormat | None, kind: str
) -> tuple[list[pl.Series], dict[str, str]]:
    """The columns of text that hold only numbers, as numbers, and the reasons of the others."""
    found, reasons = [], {}
    plain = plain_numbers(frame, form).to_dict()
    for column in frame:
        if column.name in plain:
            numbers, bad = plain[column.name], []
        else:
            numbers = column.to_frame().select(number(column.name, form)).to_series()
            bad = unread(column, numbers)
        n_filled = numbers.count() + len(bad)
        if not n_filled:
            reasons[column.name] = "no row has a value"
        elif not len(bad):
            found.append(numbers)
        elif 2 * len(bad) > n_filled and not any(map(str.isdecimal, column[bad[0]])):
            reasons[column.name] = "text"
        else:
            shape, is_one = mask(column[bad[0]][:MAX_SHAPE]), len(bad) == 1
            reasons[column.name] = (
                f"{len(bad):,} of {n_filled:,} cells {'is no number' if is_one else 'are no numbers'}, "
                f"{'' if is_one else 'the first '}{_place(bad[0], files)}, form {shape}"
                + _advice(column, bad, kind)
            )
    return found, reasons


def _advice(column: pl.Series, bad: pl.Series, kind: str | None) -> str:
    """The format that reads all cells of a column, some of which are no numbers, where there is one."""
    forms = fitting(column.gather(bad[:_LOOKED_AT])) and fitting(column)
    if not forms:
        return ""
    if kind == "jsonl":
        return "; write them as numbers of JSON"
    if len(forms) == 1:
        return f"; number_format {forms[0]!r} reads all"
    read_by = " and ".join(map(repr, forms))
    return f"; {read_by} all read them: set number_format to the one that is meant"


def told_numbers(column: pl.Series, row: int, kind: str | None, form: NumberFormat | None) -> str:
    """What to say besides of cells of a column of numbers that are none, the first of them in `row`."""
    numbers = column.to_frame().select(number(column.name, form)).to_series()
    bad = unread(column, numbers)
    return f"; the first has the form {mask(column[row][:MAX_SHAPE])}{_advice(column, bad, kind)}"


def _place(row: int, files: Files) -> str:
    ends = accumulate(n_rows for _, n_rows in files)
    (path, n_rows), end = next((file, end) for file, end in zip(files, ends, strict=True) if row < end)
    return f"in row {row - end + n_rows + 1} of {path.name}"


def _kind(kind: pl.DataType) -> str:
    if is_text(kind):
        return "text"
    if kind == pl.Null:
        return "no row has a value"
    return "times" if kind.is_temporal() else f"of the type {kind.base_type()}"


def _counting(frame: pl.LazyFrame, names: Sequence[str], files: Files) -> list[str]:
    """The columns that rise by one from row to row of each file, or hold each number of a range once."""
    n_rows = sum(n for _, n in files)
    if n_rows < COUNTED or not names:
        return []
    may_count = _that_count(frame.head(_LOOKED_AT), names, len(files), in_part=True)
    return [name for name in may_count if _that_count(frame, [name], len(files))]


def _that_count(frame: pl.LazyFrame, names: Sequence[str], n_files: int, in_part: bool = False) -> list[str]:
    """The columns that count the rows, or may where these are a part of all."""
    rows, value = frame.select(pl.col(names).cast(pl.Float64)).collect(), pl.all()
    looks = (
        (value.diff() == 1).sum(),
        value.max() - value.min(),
        (value == value.floor()).all(ignore_nulls=False),
        value.n_unique(),
    )
    found = []
    for name, *look in zip(names, *(rows.select(each).row(0) for each in looks), strict=True):
        by_one, size, is_whole, n_unique = look
        differ = bool(is_whole) and n_unique == rows.height  # different whole numbers
        if by_one >= rows.height - n_files or (differ and (in_part or size == rows.height - 1)):
            found.append(name)
    return found


def missing_columns(names: Sequence[str], wanted: Set[str], dialect: Dialect) -> str:
    """A line on what is wrong with a header that lacks `wanted` columns, where it is to be seen, or nothing.

    Names that may be a row of data are not shown.
    """
    if len(names) == 1 and len(re.split(r"[,;|\t]", names[0])) > 1:
        return "\nits lines stand in quotes as a whole, each as one cell: save it anew"
    pairs = product(_SEPARATORS, repeat=2)  # that it was split by, and might be
    splits = [(other, [cell.strip(' "') for cell in by.join(names).split(other)]) for by, other in pairs]
    other, cells = max(splits, key=lambda split: (len(wanted & {*split[1]}), len(split[1])))
    csv = {"separator": other} if len(cells) > len(names) else {}
    if csv and len(wanted & {*cells}) > len(wanted & {*names}):
        return f"\nits header has them between {other!r}: put {setting(**csv)} into the column map"
    if not dialect.header:
        return "\nthe column map says that it has no header: its columns are column_1, column_2, .."
    if not wanted & {*names} and sum(map(_is_data, cells)) > 1:
        put = setting(**csv, header=False)
        return f"\nits first row looks like data: {put} in the column map calls them column_1, column_2, .."
    return ""


def _is_data(name: str) -> bool:
    """Whether a column's name looks like the cell of a row: a number, a time or an address."""
    return re.fullmatch(r"[^@\s]+@[^@\s]+|[-+]?[\d.,' :/-]*\d[\d.,' :/T-]*Z?", name) is not None
