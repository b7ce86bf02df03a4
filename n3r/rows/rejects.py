"""Rows of files that cannot be read: what is said of each."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import polars as pl

from n3r.files.encoding import NOT_UTF8, SAVED
from n3r.files.reader import in_utf8
from n3r.files.records import Batch, Cell

_SHOWN = 5  # rows in a message


class Reject(NamedTuple):
    """A row that cannot be read."""

    file: str
    row: int  # from 1: data rows of CSV, TSV and Parquet, lines of JSON lines
    id: str | None
    column: str | None
    reason: str


def told(one: Reject) -> str:
    """Where a row is, and what is wrong with it."""
    return f"{one.file}, row {one.row}{f', column {one.column!r}' if one.column else ''}: {one.reason}"


def refusal(rejects: Sequence[Reject], advice: str) -> str:
    """A message that names the first rows that cannot be read."""
    shown = "".join(f"\n- {told(one)}" for one in rejects[:_SHOWN])
    advice += SAVED if any(r.reason.startswith(NOT_UTF8) for r in rejects) else ""
    more = f"\n- and {len(rejects) - _SHOWN} more at least" if len(rejects) > _SHOWN else ""
    return f"rows that cannot be read:{shown}{more}\n{advice}"


def rejected(path: str | Path, batch: Batch, cells: Iterable[Cell], id: str | None = None) -> list[Reject]:
    """The lost rows of a batch and those of bad cells, a reject a row."""
    file = in_utf8(path)
    rejects = [Reject(file, row, None, None, reason) for row, reason in batch.lost]
    for at, bad in groupby(sorted(cells, key=lambda cell: cell[0]), key=lambda cell: cell[0]):
        (_, column, reason), *others = bad
        names = ", ".join(dict.fromkeys(repr(name) for _, name, _ in others if name != column))
        reason += f"; other bad cells of the row: {names}" if names else ""
        broken = id is None or id in (column, *(name for _, name, _ in others))
        value = None if broken else batch.frame[id][at : at + 1].cast(pl.String)[0]
        rejects.append(Reject(file, batch.rows[at], value, column, reason))
    return sorted(rejects, key=lambda reject: reject.row)
