"""What has changed in files since their column map was made.

Decisions:
- What would stop a run, or lose rows of it, is a misfit; a new column or a repeated id is news.
- Files are read by the map's dialect, or where another is found by that, so that one change does not hide
  others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from n3r.files.dialect import Dialect
from n3r.files.formats import find_files
from n3r.proposal.counts import Counts, Looked, count
from n3r.proposal.dates import ENOUGH, time_formats
from n3r.proposal.files import SEPARATED, Files, names_of, open_files
from n3r.proposal.kinds import filled
from n3r.proposal.numbers import find_form
from n3r.rows.values import text_of
from n3r.schema import EVERY_OTHER, MAX_CLASSES, ColumnMap
from n3r.tables import REGION

_SHOWN = 20  # characters of a label's value


class Changes(NamedTuple):
    """What files have that their map does not say."""

    misfits: list[str]  # what would stop a run or lose its rows
    news: list[str]
    n_rows: int


def changes(data: Sequence[str], m: ColumnMap) -> Changes:
    """What has changed in some files; raises as a proposal does for files that cannot be read at all."""
    files = open_files(data, {})
    misfits = _dialect(files, m.csv) if files.kind in SEPARATED else []
    if files.kind in SEPARATED and not misfits:
        files = Files(files.regions, files.kind, m.csv)
    sample, lost = files.sample()
    news: list[str] = []
    have = [*sample.columns, *([REGION] if any(files.regions.values()) else [])]
    if m.label not in have:
        news.append(f"no {m.label!r}: the rows can be scored, and not trained on")
    needed = [*have, m.label] if news else have
    misfits += [f"the column {phrase}" for phrase in m.missing_from(needed)]
    news += [f"{name!r} is a column of some files only" for name in lost]
    news += _new_columns(sample.columns, m)
    looked = _looked(sample, m)
    counts = count(files, looked) if looked else Counts(n_rows=0)
    misfits += _labels(counts, m) + _numbers(counts, sample, files, m) + _times(counts, sample, m)
    misfits += [f"{counts.n_lost:,} rows cannot be read: {reason}" for reason in counts.lost[:1]]
    if m.id in counts.different and (repeated := counts.filled[m.id] - counts.different[m.id]):
        news.append(f"{repeated:,} of {counts.n_rows:,} rows repeat an {m.id!r}")
    return Changes(misfits, news, counts.n_rows)


def has_columns_of(data: Sequence[str], m: ColumnMap) -> bool:
    """Whether files have the columns that a map needs, as far as they can be read by its dialect."""
    regions = find_files(data)
    try:
        names = [names_of(path, m.csv) for path in regions]
    except ValueError:
        return False
    own = [REGION] if any(regions.values()) else []
    return not any(m.missing_from([*found, *own]) for found in names)


def _dialect(files: Files, old: Dialect) -> list[str]:
    """The keys of `csv` in which the files differ from their map."""
    found = files.dialect.model_dump()
    if Dialect(encoding=found["encoding"]).codec == old.codec or found["encoding"] == "utf-8":
        found.pop("encoding")  # ASCII reads the same by all that are written here
    before = old.model_dump()
    pairs = {key: (before[key], value) for key, value in found.items() if value != before[key]}
    if before["separator"] is None:
        pairs.pop("separator", None)
    return [f"`csv`: {key} is now {new!r}, in the map {was!r}" for key, (was, new) in pairs.items()]


def _new_columns(names: Sequence[str], m: ColumnMap) -> list[str]:
    if EVERY_OTHER in m.numeric:
        return []
    known = {*m.roles.values(), *m.all_text, *m.categorical, *m.groups, *m.numeric, *m.ignore}
    known |= {m.amount, m.oracle}
    return [f"{name!r} is a new column, which the map does not name" for name in names if name not in known]


def _looked(sample: pl.DataFrame, m: ColumnMap) -> Looked | None:
    """What to look at in all rows, of the columns that are there."""
    there = set(sample.columns)
    times = {name: [form] for name, form in m.times if name in there}
    numbers = [name for name in dict.fromkeys([*m.declared_numeric, m.amount]) if name in there]
    keys = [name for name in (m.id, m.entity) if name in there]
    return Looked(m.label, numbers, m.number_format, times, keys) if there else None


def _labels(counts: Counts, m: ColumnMap) -> list[str]:
    known = {text_of(value) for value in m.label_values}
    others = {value: n for value, n in counts.labels.items() if value and text_of(value) not in known}
    if not others or m.other_labels == "drop":
        return []
    n_rows = sum(others.values())
    shown = ", ".join(
        f"{value[:_SHOWN]!r}" for value in sorted(others, key=others.__getitem__, reverse=True)[:5]
    )
    many = len(others) > MAX_CLASSES or len(others) > 5
    shown = f"{len(others)} different values" if many else shown
    return [f"{n_rows:,} rows have a label that `label_values` lacks: {shown}"]


def _numbers(counts: Counts, sample: pl.DataFrame, files: Files, m: ColumnMap) -> list[str]:
    bad = {name: cells for name, cells in counts.numbers.items() if cells.n}
    if not bad:
        return []
    form = find_form([filled(sample[name]) for name in bad], files.dialect.separator).form
    hint = f"; `number_format` {form!r} reads more" if form != m.number_format else ""
    return [
        f"{name!r}: {cells.n:,} cells are no number, the first in {cells.first}{hint}"
        for name, cells in bad.items()
    ]


def _times(counts: Counts, sample: pl.DataFrame, m: ColumnMap) -> list[str]:
    found = []
    for (name, form), bad in counts.times.items():
        if bad.n > (1 - ENOUGH) * counts.n_rows:
            others = [other for other in time_formats(filled(sample[name])) if other != form]
            hint = f"; the format {' or '.join(map(repr, others))} reads them" if others else ""
            found.append(
                f"{name!r}: {bad.n:,} cells are no time in its format, the first in {bad.first}{hint}"
            )
    return found
