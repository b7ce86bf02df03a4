"""The columns that a model reads, and their values as preprocessing makes them, of a table or of one order.

Decisions:
- Columns are found by name; others, and their order, do not matter.
- Text and categories are text, one for each value (values.py); numbers are Float32, with NaN, infinity and
  numbers beyond Float32 null.
- One order given as a dict is typed without a table, which costs more than scoring it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from n3r.files.json_io import near
from n3r.files.json_lines import SURROGATE
from n3r.files.records import Cell
from n3r.rows.numbers import NumberFormat, number, unread
from n3r.rows.values import as_text, as_typed, is_text, is_value, text_of

NOT_A_NUMBER = "is not a number"
_TEXTS = frozenset((str, int, bool, type(None)))
_NUMBERS = frozenset((float, int, bool, type(None)))


class Inputs(NamedTuple):
    """Columns a model reads; one may stand in both text and categorical."""

    id: str | None
    text: list[str]
    numeric: list[str]
    categorical: list[str]
    number_format: NumberFormat | None = None  # of numbers in columns of text

    @property
    def names(self) -> list[str]:
        """Each column once: id, text, categorical, numeric."""
        names = [*self.text, *self.categorical, *self.numeric]
        return list(dict.fromkeys(names if self.id is None else [self.id, *names]))


def typed(frame: pl.DataFrame, inputs: Inputs) -> tuple[pl.DataFrame, list[Cell]]:
    """The columns of `inputs`, and by row the cells that are not numbers, which are null in the frame.

    The id stays as it is. Raises ValueError naming every column that is missing or of a type that cannot be
    read.
    """
    require(frame.schema, inputs)
    texts = (name for name in inputs.numeric if is_text(frame.schema[name]))
    frame, cells = to_numbers(frame, texts, inputs.number_format)
    columns = {} if inputs.id is None else {inputs.id: pl.col(inputs.id)}
    names = (*inputs.text, *inputs.categorical)
    columns |= {name: as_typed(name) if name in inputs.text else as_text(name) for name in names}
    columns |= {name: _finite(name) for name in inputs.numeric}
    return frame.select(**columns), cells


def to_numbers(
    frame: pl.DataFrame, names: Iterable[str], form: NumberFormat | None = None
) -> tuple[pl.DataFrame, list[Cell]]:
    """The table with these columns of text as Float64, and by row the cells that are not numbers."""
    cells, found = [], {}
    for name in names:
        texts = frame[name].cast(pl.String)
        found[name] = texts.to_frame().select(number(name, form)).to_series()
        cells += [(row, name, NOT_A_NUMBER) for row in unread(texts, found[name])]
    return frame.with_columns(**found), sorted(cells, key=lambda cell: cell[0])


def typed_row(row: Mapping[str, Any], inputs: Inputs) -> dict[str, str | float | None]:
    """The values of text, categories and numbers as `typed` makes them of a table of this one row.

    Raises ValueError naming every column that is missing or cannot be read; the id need not be there.
    """
    try:
        texts = {name: row[name] for name in (*inputs.text, *inputs.categorical)}
        numbers = [row[name] for name in inputs.numeric]
        if not (_TEXTS.issuperset(map(type, texts.values())) and _NUMBERS.issuperset(map(type, numbers))):
            raise TypeError
        with np.errstate(over="ignore"):
            found = np.array(numbers, np.float64).astype(np.float32)  # None becomes NaN
    except (KeyError, TypeError, OverflowError):  # a column is missing, or a table must tell its type
        return _typed_table(row, inputs._replace(id=None))
    texts = {name: _text(value) for name, value in texts.items()}
    texts |= {name: text_of(texts[name]) for name in inputs.categorical if name not in inputs.text}
    finite = np.isfinite(found).tolist()
    cells = zip(inputs.numeric, found.tolist(), finite, strict=True)
    return texts | {name: number if known else None for name, number, known in cells}


def require(schema: Mapping[str, pl.DataType], inputs: Inputs, where: str = "the table") -> None:
    """Raise ValueError naming every column that is missing or of no use."""
    problems = []
    for name in inputs.names:
        kind = schema.get(name)
        if kind is None:
            problems.append(f"{name!r} is missing{near(name, schema)}")
        elif not is_value(kind) or (kind == pl.Date and name in inputs.numeric):
            problems.append(f"{name!r} is {kind.base_type()}, expected text, a number or boolean")
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"{where} ({len(schema)} columns) does not fit the model:{listed}")


def _typed_table(row: Mapping[str, Any], inputs: Inputs) -> dict[str, str | float | None]:
    """`typed_row` of values that a table must tell the type of."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected a row as a dict, column -> value, found {type(row).__name__}")
    found = {name: row[name] for name in inputs.names if name in row}
    found |= {name: str(v) for name, v in found.items() if type(v) is int and name not in inputs.numeric}
    frame = pl.DataFrame({name: _cell(value) for name, value in found.items()})
    names = [name for name in row if isinstance(name, str)]
    require({**dict.fromkeys(names, pl.String()), **frame.schema}, inputs, "the row")
    frame, bad = typed(frame, inputs)
    if bad:
        raise ValueError("; ".join(f"column {column!r} {reason}" for _, column, reason in bad))
    return frame.row(0, named=True)


def _cell(value: Any) -> pl.Series:
    """A column of this one value, of the type Object where polars has none for it."""
    try:
        return pl.Series([_scalar(value)], strict=False)
    except Exception:  # what objects raise that polars takes apart is their own affair
        return pl.Series([value], dtype=pl.Object)


def _scalar(value: Any) -> Any:
    """A value that polars can hold: no half of a character, no integer beyond float64."""
    if isinstance(value, str):
        return value if value.isascii() else SURROGATE.sub("\ufffd", value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return float(value) if abs(value) < 2**1023 else math.inf
    return value


def _text(value: str | int | None) -> str | None:
    """A text, whole number or truth value as text."""
    if isinstance(value, str):
        return _scalar(value)
    return value if value is None else str(value).lower()


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float32)
    return pl.when(value.is_finite()).then(value)
