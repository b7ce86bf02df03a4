"""The files of a proposal: their one dialect, a sample of their rows, and a pass over all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from n3r.files.dialect import UTF_8, Dialect
from n3r.files.formats import find_files, format_of
from n3r.files.limits import MAX_EXPANSION
from n3r.files.reader import Wanted, read_batches
from n3r.files.records import MAX_RECORD, Batch
from n3r.proposal.sample import dialect_of, read_text, rows_of

SEPARATED = ("csv", "tsv")
CHUNK = 1 << 16  # rows at a time
_KEYS = ("separator", "encoding", "quote", "header")


@dataclass(frozen=True)
class Files:
    """Files of one format and of one dialect."""

    regions: Mapping[Path, str | None]  # file -> the region that it is given for
    kind: str  # one of FORMATS
    dialect: Dialect  # the default where the format has none

    def sample(self) -> tuple[pl.DataFrame, list[str]]:
        """Rows of all files, of the columns that they share, and the other columns."""
        frames = [rows_of(path, names_of(path, self.dialect), self.dialect) for path in self.regions]
        frames = [frame for frame in frames if frame.height]
        if not frames:
            raise ValueError(" and ".join(f"{path} has no rows" for path in self.regions))
        every = dict.fromkeys(name for frame in frames for name in frame.columns)
        shared = [name for name in every if all(name in frame.columns for frame in frames)]
        if not shared:
            raise ValueError("the files have no column in common: make a map of each")
        sample = pl.concat([frame.select(shared) for frame in frames], how="vertical_relaxed")
        return sample, [name for name in every if name not in shared]

    def batches(self, names: Sequence[str]) -> Iterator[tuple[Path, Batch]]:
        """All rows of some columns, in pieces, as the reader reads them."""
        wanted = set(names)
        for path in self.regions:
            for batch in _read(path, self.dialect, lambda schema: [n for n in schema if n in wanted], CHUNK):
                yield path, batch


def open_files(data: Sequence[str], given: Mapping[str, Any]) -> Files:
    """The files that some items mean, and how they are written; `given` are keys of it that are known.

    Raises FileNotFoundError, or ValueError for files that cannot be read or that differ.
    """
    regions = find_files(data)
    kinds = {format_of(path): path for path in regions}
    if len(kinds) > 1:
        raise ValueError(f"one map is of one format, found {' and '.join(map(str, kinds.values()))}")
    (kind,) = kinds
    if kind not in SEPARATED:
        return Files(regions, kind, Dialect())
    found, is_ascii = {}, {}
    for path in regions:
        text = read_text(path)
        found[path] = dialect_of(path, text)
        is_ascii[path] = found[path].encoding == UTF_8 and all(map(str.isascii, (text.head, *text.rest)))
    others = [dialect.encoding for path, dialect in found.items() if not is_ascii[path]]
    alike = {path: {"encoding": others[0]} if others and is_ascii[path] else {} for path in found}
    found = {path: dialect.model_copy(update=alike[path]) for path, dialect in found.items()}
    return Files(regions, kind, Dialect(**_the_same(found) | dict(given)))


def names_of(path: Path, dialect: Dialect) -> list[str]:
    """The names of a file's columns; raises ValueError as the reader does where it cannot be read."""
    names: list[str] = []

    def note(schema: Mapping[str, pl.DataType]) -> list[str]:
        names.extend(name for name in schema if name not in names)
        return names[:1]

    for _ in _read(path, dialect, note, 1000):
        if format_of(path) != "jsonl" or len(names):
            break
    return names


def _the_same(found: Mapping[Path, Dialect]) -> dict[str, Any]:
    """The dialect that all files have; ValueError naming two that differ."""
    (first, dialect), *others = found.items()
    for path, other in others:
        for key in _KEYS:
            mine, theirs = getattr(dialect, key), getattr(other, key)
            if mine != theirs:
                raise ValueError(
                    f"{first} and {path} are written in two ways, their {key} is {mine!r} and {theirs!r}: "
                    "save them alike, or make a map of each"
                )
    return dialect.model_dump()


def _read(path: Path, dialect: Dialect, wanted: Wanted, size: int) -> Iterator[Batch]:
    return read_batches(path, lambda _: None, wanted, size, MAX_RECORD, MAX_EXPANSION, dialect)
