"""Columns of several files, each made of one type, or refused where a column is of two kinds."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import polars as pl

from n3r.rows.times import in_utc
from n3r.rows.values import as_typed, is_text, is_value
from n3r.schema import is_number


def alike(
    schemas: Mapping[Path, pl.Schema], shared: Sequence[str], values: Collection[str]
) -> dict[Path, list[pl.Expr]]:
    """Each file's columns, each in one type; ValueError where one is, say, a number and text.

    Of `values` only what they are called matters: as texts, numbers, texts and days go together.
    """
    chosen: dict[Path, list[pl.Expr]] = {path: [] for path in schemas}
    for name in shared:
        types = {path: schema[name] for path, schema in schemas.items()}
        kinds = {kind_of(kind): path for path, kind in reversed(types.items()) if kind != pl.Null}
        differ = len(set(types.values())) > 1
        as_values = differ and name in values and all(map(is_value, types.values()))
        if len(kinds) > 1 and not as_values:
            found = ", ".join(f"{kind} in {path}" for kind, path in reversed(kinds.items()))
            raise ValueError(
                f"column {name!r} differs between files: {found}; make them agree or put it in "
                "the column map's `ignore`"
            )
        for path, kind in types.items():
            column = as_typed(name) if as_values else pl.col(name)
            if differ and "text" in kinds:
                column = column.cast(pl.String)
            elif differ and not as_values and kind.is_temporal():  # days, or times of several units or zones
                column = in_utc(name, kind)
            chosen[path].append(column)
    return chosen


def kind_of(kind: pl.DataType) -> str:
    """What a column of the type holds, in words that carry none of its data, as an Enum's type does."""
    if is_number(kind):
        return "a number"
    if is_text(kind):
        return "text"
    if kind == pl.Datetime and kind.time_zone is not None:
        return "a time with a zone"
    return "a time" if kind in (pl.Date, pl.Datetime) else str(kind.base_type())
