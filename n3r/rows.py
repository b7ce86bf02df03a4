"""Rows to score, out of files chunk by chunk, and scored rows into files.

Decisions:
- Columns are found by name; others, and their order, do not matter. Text and numbers are typed by the
  rules of preprocessing. A row that cannot be read becomes a `Reject`, which names the row, the
  column and the reason and never shows a cell; a file that cannot be read is a ValueError.
- Memory is bounded by the chunk, not by the file. Of Parquet, slices of up to 131,072 rows or 32 MB
  are decoded: a slice of a row group costs as much as all before it, so that one row group of 1M rows
  takes 1.5 s that way and 6.8 s were each chunk of 16,384 rows a slice of its own.
- CSV and TSV are split into records in `records.py`, and only good ones go to polars. All is read as
  text, so that customers called "NA" or "007" stay who they are (defect 33).
- JSON lines: each line is one object. Numbers and booleans in a text column keep the line's own
  writing; a key that a line leaves out is null, but one that no line of the first chunk has is a
  missing column. Of a key given twice the last counts. A lone surrogate becomes U+FFFD.
- Output is written aside and renamed. Parquet goes to one part a chunk, then into one file.
"""

import math
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from n3r.files.atomic import writing
from n3r.files.json_io import near
from n3r.files.limits import MAX_EXPANSION, check_parquet, opened_gzip
from n3r.files.records import Batch, Cell, Table, batches, lines, objects, records
from n3r.schema import ROW
from n3r.tables import (
    POLARS_ERRORS,
    REGION,
    SEPARATORS,
    SUFFIXES,
    find_files,
    format_of,
    number,
    scan_file,
)

ROW_SUFFIXES = SUFFIXES | dict.fromkeys((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), "jsonl")
KINDS = ("parquet", "csv", "tsv", "jsonl")
MAX_RECORD = 1 << 24  # bytes of one CSV record or JSON line
NOT_A_NUMBER, NESTED = "is not a number", "is a list or an object"
_SLICE_ROWS, _SLICE_BYTES = 1 << 17, 1 << 25
_FORMULA = r"^\s*[=+\-@\t\r\n＝＋－＠]"
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRINGS = frozenset((str, type(None)))
_NUMBERS = frozenset((float, int, bool, type(None)))


class Inputs(NamedTuple):
    """Columns a model reads; one may stand in both text and categorical."""

    id: str | None
    text: list[str]
    numeric: list[str]
    categorical: list[str]

    @property
    def names(self) -> list[str]:
        """Each column once: id, text, categorical, numeric."""
        names = [*self.text, *self.categorical, *self.numeric]
        return list(dict.fromkeys(names if self.id is None else [self.id, *names]))


class Reject(NamedTuple):
    """A row that cannot be scored."""

    file: str
    row: int  # from 1: data rows of CSV, TSV and Parquet, lines of JSON lines
    id: str | None
    column: str | None
    reason: str


class Chunk(NamedTuple):
    """Some rows of a file, in its order."""

    frame: pl.DataFrame  # good rows, as `typed` gives them
    rejects: list[Reject]  # by row, one each
    n_rows: int  # good and rejected


def expand(items: Sequence[str | Path]) -> list[tuple[Path, str | None]]:
    """(file, region) of files, folders, patterns and "NA=path", each file once.

    Parquet, CSV, TSV and JSON lines may be mixed. Raises FileNotFoundError where nothing is found,
    ValueError on another ending.
    """
    return list(find_files(items, ROW_SUFFIXES).items())


def typed(frame: pl.DataFrame, inputs: Inputs) -> tuple[pl.DataFrame, list[Cell]]:
    """The columns of `inputs` as preprocessing makes them, and cells that are no numbers.

    Text and categories are String; numbers Float32 with NaN, infinity and numbers beyond Float32
    null; the id stays as it is. Cells that are no numbers are null in the frame. Raises ValueError
    naming every column that is missing or of a type that cannot be read.
    """
    _require(frame.schema, inputs)
    columns = {} if inputs.id is None else {inputs.id: pl.col(inputs.id)}
    columns |= {name: pl.col(name).cast(pl.String) for name in (*inputs.text, *inputs.categorical)}
    spelled = [name for name in inputs.numeric if _is_text(frame.schema[name])]
    numbers = frame.select(pl.col(spelled).cast(pl.String)).with_columns(map(number, spelled))
    texts, frame = frame.select(spelled), frame.with_columns(numbers)
    columns |= {name: _finite(name) for name in inputs.numeric}
    return frame.select(**columns), _no_numbers(texts, numbers)


def typed_row(row: Mapping[str, Any], inputs: Inputs) -> dict[str, str | float | None]:
    """The values of text, categories and numbers as `typed` makes them of a table of this one row.

    Raises ValueError naming every column that is missing or cannot be read; the id need not be there.
    """
    try:
        texts = {name: row[name] for name in (*inputs.text, *inputs.categorical)}
        numbers = [row[name] for name in inputs.numeric]
        if not (_STRINGS.issuperset(map(type, texts.values())) and _NUMBERS.issuperset(map(type, numbers))):
            raise TypeError
        with np.errstate(over="ignore"):
            found = np.array(numbers, np.float64).astype(np.float32)  # None becomes NaN
    except (KeyError, TypeError, OverflowError):  # a column is missing, or a table must tell its type
        return _typed_table(row, inputs._replace(id=None))
    texts = {name: _scalar(text) for name, text in texts.items()}
    finite = np.isfinite(found).tolist()
    cells = zip(inputs.numeric, found.tolist(), finite, strict=True)
    return texts | {name: number if known else None for name, number, known in cells}


def _typed_table(row: Mapping[str, Any], inputs: Inputs) -> dict[str, str | float | None]:
    """`typed_row` of values that a table must tell the type of."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected a row as a dict, column -> value, found {type(row).__name__}")
    frame = pl.DataFrame({name: _cell(row[name]) for name in inputs.names if name in row})
    names = [name for name in row if isinstance(name, str)]
    _require({**dict.fromkeys(names, pl.String()), **frame.schema}, inputs, "the row")
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
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return float(value) if abs(value) < 2**1023 else math.inf
    return value


def read_chunks(
    path: str | Path,
    inputs: Inputs,
    size: int = 16384,
    *,
    region: str | None = None,
    max_record: int = MAX_RECORD,
    max_expansion: float = MAX_EXPANSION,
) -> Iterator[Chunk]:
    """Rows of one file, at most `size` at a time; a file without rows gives one empty chunk.

    `region` becomes the column `region` of every row, in place of the file's. CSV records and JSON lines of
    more than `max_record` bytes are rejects. Raises FileNotFoundError, or ValueError naming the file when it
    cannot be read, lacks columns or holds more than `max_expansion` times its size (limits.py).
    """
    path = Path(path)
    kind = format_of(path, ROW_SUFFIXES)
    if kind is None:
        raise ValueError(f"{path}: the name must end in {', '.join(ROW_SUFFIXES)}")
    if size < 1:
        raise ValueError(f"a chunk has at least one row, asked for {size}")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    source = _Source(path, kind, inputs, size, region, max_record, max_expansion)
    with source.reading():
        for raw in source.chunks():
            yield source.chunk(raw)


class Writer:
    """Rows on their way into one file."""

    def __init__(self, path: Path, kind: str, for_spreadsheets: bool = False):
        self.path, self.kind, self.for_spreadsheets = path, kind, for_spreadsheets
        self.aside = path.with_name(f".{path.name}.partial")
        self.parts = path.with_name(f".{path.name}.parts")
        self.schema: pl.Schema | None = None
        self.n_parts = 0

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows; raises ValueError where their columns or types are not the first ones'."""
        if self.schema not in (None, frame.schema):
            raise ValueError(
                f"{self.path}: rows of {_kinds(frame.schema)} after rows of {_kinds(self.schema)}"
            )
        with writing(self.path, *POLARS_ERRORS):
            if self.kind == "parquet":
                frame.write_parquet(self.parts / f"{self.n_parts:09d}.parquet")
            else:
                shown = _harmless(frame) if self.for_spreadsheets and self.kind in SEPARATORS else frame
                with self.aside.open("ab") as file:
                    _append(shown, file, self.kind, with_header=self.n_parts == 0)
        self.schema, self.n_parts = frame.schema, self.n_parts + 1

    def open(self) -> None:
        with writing(self.path, *POLARS_ERRORS):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.remove()  # what a killed process left
            if self.kind == "parquet":
                self.parts.mkdir()

    def close(self) -> None:
        if self.schema is None:
            raise ValueError(f"{self.path}: nothing to write; write one frame at least, be it empty")
        with writing(self.path, *POLARS_ERRORS):
            if self.kind == "parquet":
                parts = sorted(self.parts.iterdir())
                pl.scan_parquet(parts, glob=False, hive_partitioning=False).sink_parquet(self.aside)
            self.aside.replace(self.path)

    def remove(self) -> None:
        with suppress(OSError):  # what could not be made, for want of a shorter name, is not there
            self.aside.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)


@contextmanager
def writer(path: str | Path, kind: str, for_spreadsheets: bool = False) -> Iterator[Writer]:
    """`.write(frame)` appends rows to a new "parquet", "csv", "tsv" or "jsonl" file.

    `for_spreadsheets` puts a ' before each text of a CSV or TSV that one would run as a formula. The file
    appears, or replaces an older one, when the block ends; if that fails nothing is left. Raises ValueError
    naming the folder when it cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"cannot write {path} as {kind!r}, only as {', '.join(KINDS)}")
    rows = Writer(Path(path), kind, for_spreadsheets)
    try:
        rows.open()
        yield rows
        rows.close()
    finally:
        rows.remove()


def _kinds(schema: pl.Schema) -> str:
    return ", ".join(f"{name!r} {kind.base_type()}" for name, kind in schema.items())


def _append(frame: pl.DataFrame, file: BinaryIO, kind: str, with_header: bool) -> None:
    if kind == "jsonl":
        frame.write_ndjson(file)
    else:
        frame.write_csv(file, separator=SEPARATORS[kind], include_header=with_header)


def _harmless(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows as a spreadsheet may open them: no text or name begins as a formula does."""
    safe = frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'${0}"))
    return safe.rename(lambda name: re.sub(_FORMULA, r"'\g<0>", name))


def _is_text(kind: pl.DataType) -> bool:
    return kind in (pl.String, pl.Categorical, pl.Enum)


def _require(schema: Mapping[str, pl.DataType], inputs: Inputs, file: str = "the table") -> None:
    """Raise ValueError naming every column that is missing or of no use."""
    problems = []
    for name in inputs.names:
        kind = schema.get(name)
        if kind is None:
            problems.append(f"{name!r} is missing{near(name, schema)}")
        elif not (_is_text(kind) or kind.is_numeric() or kind in (pl.Boolean, pl.Null)):
            problems.append(f"{name!r} is {kind.base_type()}, expected text, a number or boolean")
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"{file} ({len(schema)} columns) does not fit the model:{listed}")


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float32)
    return pl.when(value.is_finite()).then(value)


def _no_numbers(texts: pl.DataFrame, numbers: pl.DataFrame) -> list[Cell]:
    """Cells with text that is no number, by row."""
    cells = []
    for name in texts.columns:
        filled = texts[name].cast(pl.String).str.strip_chars() != ""
        bad = (filled & numbers[name].is_null()).arg_true()
        cells += [(row, name, NOT_A_NUMBER) for row in bad]
    return sorted(cells, key=lambda cell: cell[0])


class _Source:
    """One file being read."""

    def __init__(
        self,
        path: Path,
        kind: str,
        inputs: Inputs,
        size: int,
        region: str | None,
        max_record: int,
        max_expansion: float,
    ):
        self.path, self.kind, self.inputs, self.size = path, kind, inputs, size
        self.name = str(path).encode(errors="replace").decode()  # a table holds UTF-8 alone
        self.max_record, self.max_expansion = max_record, max_expansion
        self.constants = {} if region is None else {REGION: pl.lit(region)}
        self.names = [name for name in inputs.names if name not in self.constants]  # in the file

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it, whatever a damaged file brings about becomes a ValueError naming the file."""
        try:
            yield
        except (OSError, EOFError, zlib.error, *POLARS_ERRORS) as error:
            reason = getattr(error, "strerror", None) or "damaged, cut short or another format"
            raise ValueError(f"{self.path} cannot be read as {self.kind}: {reason}") from None

    def chunks(self) -> Iterator[Batch]:
        readers = {"parquet": self._parquet, "jsonl": self._json_lines}
        n_chunks = 0
        for raw in readers.get(self.kind, self._separated)():
            n_chunks += 1
            yield raw
        if not n_chunks:
            yield Batch(self._strings([]), [])

    def chunk(self, raw: Batch) -> Chunk:
        """Type the cells and turn bad ones into rejects."""
        frame, cells = typed(raw.frame.with_columns(**self.constants), self.inputs)
        cells = sorted([*raw.cells, *cells], key=lambda cell: cell[0])
        rejects = [Reject(self.name, row, None, None, reason) for row, reason in raw.lost]
        for at, bad in groupby(cells, key=lambda cell: cell[0]):
            rejects.append(self._reject(raw, at, list(bad)))
        if cells:
            frame = frame.with_row_index(ROW).filter(~pl.col(ROW).is_in([c[0] for c in cells]))
            frame = frame.drop(ROW)
        return Chunk(frame, sorted(rejects, key=lambda reject: reject.row), raw.frame.height + len(raw.lost))

    def _reject(self, raw: Batch, at: int, cells: list[Cell]) -> Reject:
        (_, column, reason), *others = cells
        names = ", ".join(repr(name) for _, name, _ in others if name != column)
        reason += f"; other bad cells of the row: {names}" if names else ""
        broken = self.inputs.id is None or any(name == self.inputs.id for _, name, _ in cells)
        value = None if broken else raw.frame[self.inputs.id][at : at + 1].cast(pl.String)[0]
        return Reject(self.name, raw.rows[at], value, column, reason)

    def _require(self, schema: Mapping[str, pl.DataType]) -> None:
        _require({**schema, **dict.fromkeys(self.constants, pl.String())}, self.inputs, str(self.path))

    def _open(self) -> BinaryIO:
        if self.path.name.lower().endswith(".gz"):
            return opened_gzip(self.path, self.max_expansion)
        return self.path.open("rb")

    def _strings(self, columns: Sequence[Sequence[str | None]]) -> pl.DataFrame:
        """The file's wanted columns as text."""
        filled = zip(self.names, columns or [[]] * len(self.names), strict=True)
        return pl.DataFrame({name: _series(values) for name, values in filled})

    def _parquet(self) -> Iterator[Batch]:
        table = scan_file(self.path, "parquet")
        self._require(table.collect_schema())
        check_parquet(self.path, self.names, self.max_expansion)
        n_rows = table.select(pl.len()).collect().item()
        dense = _SLICE_BYTES * n_rows // self.path.stat().st_size  # rows in so many bytes
        step = max(min(_SLICE_ROWS, dense) // self.size, 1) * self.size
        for start in range(0, max(n_rows, 1), step):
            part = table.select(self.names).slice(start, step).collect(engine="streaming")
            if part.height != min(step, n_rows - start):
                raise PolarsError("fewer rows than the footer tells")
            for at in range(0, max(part.height, 1), self.size):
                piece = part.slice(at, self.size)
                yield Batch(piece, range(start + at + 1, start + at + 1 + piece.height))

    def _separated(self) -> Iterator[Batch]:
        separator = SEPARATORS[self.kind].encode()
        with self._open() as file:
            found = records(file, separator, self.max_record)
            try:
                table = Table(next(found, None), separator)
            except ValueError as error:
                raise ValueError(f"{self.path} {error}") from None
            self._require(dict.fromkeys(table.names, pl.String()))
            for batch in batches(found, self.size):
                yield table.read(batch, self.names)

    def _json_lines(self) -> Iterator[Batch]:
        checked = False
        with self._open() as file:
            for batch in batches(lines(file, self.max_record), self.size):
                found, lost = objects(batch)
                if found and not checked:
                    keys = dict.fromkeys(key for value in found.values() for key in value)
                    self._require(dict.fromkeys(keys, pl.String()))
                    checked = True
                yield self._columns(found, lost)

    def _columns(self, found: Mapping[int, dict], lost: list[tuple[int, str]]) -> Batch:
        columns, cells = [], []
        for name in self.names:
            values = [value.get(name) for value in found.values()]
            if not _STRINGS.issuperset(map(type, values)):
                nested = [at for at, value in enumerate(values) if isinstance(value, list | dict)]
                cells += [(at, name, NESTED) for at in nested]
                values = [value if type(value) is str else _word(value) for value in values]
            columns.append(values)
        return Batch(self._strings(columns), list(found), cells, lost)


def _word(value: object) -> str | None:
    return ("true" if value else "false") if isinstance(value, bool) else None


def _series(values: Sequence[str | None]) -> pl.Series:
    try:
        return pl.Series(values, dtype=pl.String)
    except UnicodeEncodeError:
        return pl.Series([v and _SURROGATE.sub("\ufffd", v) for v in values], dtype=pl.String)
