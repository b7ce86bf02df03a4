"""Rows of one file, some at a time, as the file has them: text, or the types of Parquet and Excel.

Decisions:
- Parquet is decoded in slices of up to 131,072 rows or 32 MB: a slice of a row group costs as much as all
  before it. One row group of 1M rows takes 1.5 s that way, and 6.8 s with a slice for each batch of 16,384
  rows.
- A polars message may quote a cell, which may be a person's name, so none is passed on.
"""

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import polars as pl
from polars.exceptions import DuplicateError, PolarsError

from n3r.files.dialect import PLAIN, Dialect
from n3r.files.encoding import HeaderError
from n3r.files.formats import SEPARATORS, SUFFIXES, format_of
from n3r.files.json_lines import read_json_lines, refuse_array
from n3r.files.limits import check_parquet, opened_gzip
from n3r.files.records import ALL, BLOCK, Batch, read_separated
from n3r.files.workbook import read_workbook
from n3r.files.writer import POLARS_ERRORS

Schema = Mapping[str, pl.DataType]
Wanted = Callable[[Schema], Collection[str]]  # columns that are there -> those to read
_SLICE_ROWS, _SLICE_BYTES = 1 << 17, 1 << 25


def read_batches(  # noqa: PLR0913 - one argument an option
    path: Path,
    check: Callable[[Schema], None],
    wanted: Wanted,
    size: int,
    max_record: int,
    max_expansion: float,
    dialect: Dialect = PLAIN,
    stream: BufferedReader | None = None,
    part: slice = ALL,
) -> Iterator[Batch]:
    """Rows of one file as the file has them, at least one batch: text, or the types of Parquet and Excel.

    `dialect` is that of a CSV or TSV. A `stream` of text is read in the file's place, which names it. `part`
    is that of the batches that are given, which are the same whatever it is.
    """
    kind = _checked(path, size, stream is not None)
    checked: list[Schema] = []

    def columns(names: Sequence[str]) -> list[str]:
        schema = dict.fromkeys(names, pl.String())
        if names and not checked:
            check(schema)
            checked.append(schema)
        return list(wanted(schema))

    with reading(path):
        if kind in ("parquet", "xlsx"):
            read = _parquet if kind == "parquet" else _excel
            yield from read(path, check, wanted, size, max_expansion, part)
            return
        with _open(path, max_expansion) if stream is None else nullcontext(stream) as file:
            if kind == "jsonl":
                refuse_array(file.peek(1))
                yield from read_json_lines(file, columns, size, max_record, part)
            else:
                yield from read_separated(file, SEPARATORS[kind], columns, size, max_record, dialect, part)


def _checked(path: Path, size: int, is_open: bool = False) -> str:
    """The format of a file that is there, or open."""
    kind = format_of(path)
    if kind is None:
        raise ValueError(f"{path}: the name must end in {', '.join(SUFFIXES)}")
    if size < 1:
        raise ValueError(f"a chunk has at least one row, asked for {size}")
    if not is_open and not path.is_file():  # reading a pipe would wait for ever
        raise FileNotFoundError(f"no file {path}")
    return kind


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within it, whatever a damaged file brings about becomes a ValueError naming the file."""
    try:
        yield
    except HeaderError as error:
        raise ValueError(f"{path} {error}") from None
    except DuplicateError:
        raise ValueError(f"{path} has a column name twice: rename one of the columns") from None
    except (OSError, EOFError, zlib.error, *POLARS_ERRORS) as error:
        reason = getattr(error, "strerror", None) or "damaged, cut short or another format"
        raise ValueError(f"{path} cannot be read as {format_of(path)}: {reason}") from None


def _open(path: Path, max_expansion: float) -> BinaryIO:
    return opened_gzip(path, max_expansion) if path.name.lower().endswith(".gz") else path.open("rb")


def about_batches(path: Path, size: int) -> int:
    """How many batches a file has, about where it is text; of what is not read in parts, 1."""
    kind = _checked(path, size)
    with reading(path):
        if kind == "parquet":
            n_rows = scan_parquet(path).select(pl.len()).collect().item()
        elif kind == "xlsx" or path.name.lower().endswith(".gz"):
            return 1
        else:
            with path.open("rb") as file:
                head = file.read(BLOCK)
            n_rows = head.count(b"\n") * path.stat().st_size // max(len(head), 1)
    return max(1, -(-n_rows // size))


def _parquet(
    path: Path, check: Callable[[Schema], None], wanted: Wanted, size: int, max_expansion: float, part: slice
) -> Iterator[Batch]:
    table = scan_parquet(path)
    check(table.collect_schema())
    names = wanted(table.collect_schema())
    check_parquet(path, names, max_expansion)
    n_rows = table.select(pl.len()).collect().item()
    dense = _SLICE_BYTES * n_rows // path.stat().st_size  # rows in so many bytes
    step = max(min(_SLICE_ROWS, dense) // size, 1)
    starts = range(0, max(n_rows, 1), size)[part]
    for first in range(0, len(starts), step):
        own = starts[first : first + step]
        rows = table.select(names).slice(own.start, len(own) * size).collect(engine="streaming")
        if rows.height != min(len(own) * size, n_rows - own.start):
            raise PolarsError("fewer rows than the footer tells")
        for at in own:
            piece = rows.slice(at - own.start, size)
            yield Batch(piece, range(at + 1, at + 1 + piece.height))


def _excel(
    path: Path, check: Callable[[Schema], None], wanted: Wanted, size: int, max_expansion: float, part: slice
) -> Iterator[Batch]:
    table = read_workbook(path, max_expansion)
    check(table.schema)
    table = table.select(wanted(table.schema))
    for at in range(0, max(table.height, 1), size)[part]:
        piece = table.slice(at, size)
        yield Batch(piece, range(at + 1, at + 1 + piece.height))


def scan_parquet(path: Path) -> pl.LazyFrame:
    """A Parquet file as a lazy table; ValueError for a name that polars cannot hold."""
    if in_utf8(path) != str(path):
        raise ValueError(f"{path} has a name that is not UTF-8: rename it")
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def in_utf8(path: str | Path) -> str:
    """A file's name as a table can hold it."""
    return str(path).encode(errors="replace").decode()
