"""One pass over all rows of some files, by the reader itself: what a sample cannot be sure of.

Decisions:
- Ids and customers are counted by hashes of 64 bits, so that a million of them take 8 MB.
- A cell that is no number or time is told by its row and its shape, never as it stands.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import polars as pl

from n3r.files.records import Batch
from n3r.proposal.dates import read as read_times
from n3r.proposal.files import Files
from n3r.proposal.numbers import read as read_numbers
from n3r.rows.numbers import NumberFormat
from n3r.rows.values import is_value, texts_of
from n3r.schema import MAX_SHAPE, mask

MAX_LABELS = 1000  # different values of a label that are counted


@dataclass
class Bad:
    """Cells of a column that are not what they should be."""

    n: int = 0
    first: str = ""  # where, and of which shape

    def add(self, rows: Sequence[int], cells: pl.Series, at: pl.Series, file: str) -> None:
        """Count the cells at some places of a batch."""
        if len(at) and not self.n:
            self.first = f"row {rows[at[0]]} of {file}, of the shape {mask(cells[at[0]][:MAX_SHAPE])!r}"
        self.n += len(at)


@dataclass
class Counts:
    """What all rows are like in the columns that were looked at."""

    n_rows: int = 0
    lost: list[str] = field(default_factory=list)  # the first rows that cannot be read, and why
    n_lost: int = 0
    labels: Counter[str | None] = field(default_factory=Counter)
    numbers: dict[str, Bad] = field(default_factory=dict)
    times: dict[tuple[str, str | None], Bad] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)  # rows with a value of each key
    different: dict[str, int] = field(default_factory=dict)  # different values of each key


@dataclass(frozen=True)
class Looked:
    """What to look at in every row."""

    label: str
    numbers: list[str]
    form: NumberFormat | None
    times: Mapping[str, Sequence[str | None]]  # column -> formats
    keys: list[str]

    @property
    def names(self) -> list[str]:
        """Each column once."""
        return list(dict.fromkeys([self.label, *self.numbers, *self.times, *self.keys]))


def count(files: Files, looked: Looked) -> Counts:
    """Read all rows; raises ValueError as the reader does for a file that cannot be read."""
    found = Counts(filled=dict.fromkeys(looked.keys, 0), numbers={name: Bad() for name in looked.numbers})
    found.times = {(name, form): Bad() for name, forms in looked.times.items() for form in forms}
    hashes: dict[str, list[pl.Series]] = {name: [] for name in looked.keys}
    with ThreadPoolExecutor(1) as pool:  # the next rows are read while these are counted
        last = pool.submit(lambda: None)
        for path, batch in files.batches(looked.names):
            last.result()
            last = pool.submit(_add, found, hashes, batch, looked, path.name)
        last.result()
    found.different = {name: pl.concat(parts).n_unique() for name, parts in hashes.items() if parts}
    return found


def _add(
    found: Counts, hashes: Mapping[str, list[pl.Series]], batch: Batch, looked: Looked, file: str
) -> None:
    frame = batch.frame
    found.n_rows += frame.height + len(batch.lost)
    found.n_lost += len(batch.lost)
    found.lost += [f"row {row} of {file} {reason}" for row, reason in batch.lost[:3]]
    if is_value(frame.schema.get(looked.label, pl.Object())) and len(found.labels) <= MAX_LABELS:
        values = texts_of(frame[looked.label]).value_counts(name="n")
        found.labels.update(dict(values.iter_rows()))
    texts = {name: series for name, series in frame.to_dict().items() if series.dtype == pl.String}
    for name in found.numbers.keys() & texts:
        at = _no_numbers(texts[name], looked.form)
        found.numbers[name].add(batch.rows, texts[name], at, file)
    for (name, form), bad in found.times.items():
        if name in texts:
            at = _unread(texts[name], read_times(texts[name], form))
            bad.add(batch.rows, texts[name], at, file)
    for name, parts in hashes.items():
        if name in frame.columns:
            known = frame[name].drop_nulls()
            known = known.filter(known.str.strip_chars() != "") if known.dtype == pl.String else known
            found.filled[name] += len(known)
            parts.append(known.hash())


def _no_numbers(cells: pl.Series, form: NumberFormat | None) -> pl.Series:
    """The places of filled cells that are no numbers."""
    # What has no mark but the decimal one is told by a pattern, which takes a tenth of the time.
    point = "," if form in ("de", "fr") else r"\."
    odd = (~cells.str.contains(rf"^-?\d+({point}\d+)?$")).arg_true()
    return odd.gather(_unread(cells.gather(odd), read_numbers(cells.gather(odd), form)))


def _unread(cells: pl.Series, values: pl.Series) -> pl.Series:
    """The places of filled cells without a value."""
    return (values.is_null() & (cells.str.strip_chars() != "")).arg_true()
