"""Rows of one file of any format, some at a time; those that cannot be read are listed, or refused."""

from collections.abc import Callable, Collection, Iterator, Set
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import polars as pl

from n3r.files.dialect import PLAIN, Dialect
from n3r.files.formats import SEPARATORS, format_of
from n3r.files.limits import MAX_EXPANSION
from n3r.files.reader import Schema, Wanted, read_batches, reading, scan_parquet
from n3r.files.records import ALL, MAX_RECORD
from n3r.files.workbook import read_workbook
from n3r.rows.columns import missing_columns, told_numbers
from n3r.rows.inputs import Inputs, require, to_numbers, typed
from n3r.rows.numbers import form_of
from n3r.rows.rejects import Reject, refusal, rejected
from n3r.schema import ColumnMap

REGION = "region"
CHUNK = 16384  # rows of a file at a time


class Chunk(NamedTuple):
    """Some rows of a file, in its order."""

    frame: pl.DataFrame  # readable rows, as `typed` gives them
    rejects: list[Reject]  # by row, one each
    n_rows: int  # readable and rejected


def read_chunks(  # noqa: PLR0913 - one argument an option
    path: str | Path,
    inputs: Inputs,
    size: int = CHUNK,
    *,
    region: str | None = None,
    max_record: int = MAX_RECORD,
    max_expansion: float = MAX_EXPANSION,
    dialect: Dialect = PLAIN,
    stream: BufferedReader | None = None,
    part: slice = ALL,
) -> Iterator[Chunk]:
    """Rows of one file, at most `size` at a time; a file without rows gives one empty chunk.

    `region` becomes the column `region` of every row, in place of the file's; a CSV or TSV is written as
    `dialect` says; a `stream` of text is read in the file's place; of all chunks `part` is given. CSV records
    and JSON lines of more than `max_record` bytes are rejects. Raises FileNotFoundError, or ValueError naming
    the file when it cannot be read, lacks columns or holds more than `max_expansion` times its size
    (limits.py).
    """
    own = {} if region is None else {REGION: pl.lit(region)}
    names = [name for name in inputs.names if name not in own]

    def check(schema: Schema) -> None:
        try:
            require({**schema, **dict.fromkeys(own, pl.String())}, inputs, str(path))
        except ValueError as error:
            raise ValueError(f"{error}{hint(Path(path), schema, {*names}, dialect)}") from None

    kind = format_of(Path(path))
    inputs = inputs._replace(number_format=form_of(kind, inputs.number_format))
    limits = (size, max_record, max_expansion)
    for batch in read_batches(Path(path), check, lambda _: names, *limits, dialect, stream, part):
        frame, cells = typed(batch.frame.with_columns(**own), inputs)
        rejects = rejected(path, batch, [*batch.cells, *cells], inputs.id)
        if bad := {row for row, _, _ in (*batch.cells, *cells)}:
            frame = frame[[row for row in range(frame.height) if row not in bad]]
        yield Chunk(frame, rejects, batch.frame.height + len(batch.lost))


def column_type(path: str | Path, name: str) -> pl.DataType | None:
    """The type of a column in one file, None where it is missing; all is text in files of text."""
    if format_of(Path(path)) == "xlsx":
        with reading(Path(path)):
            return read_workbook(Path(path), MAX_EXPANSION).schema.get(name)
    if format_of(Path(path)) != "parquet":
        return pl.String()
    with reading(Path(path)):
        return scan_parquet(Path(path)).collect_schema().get(name)


def read_frames(
    path: str | Path,
    wanted: Wanted,
    numbers: Collection[str] = (),
    check: Callable[[Schema], None] = lambda _: None,
    strict: Collection[str] | None = None,
    *,
    written: ColumnMap | None = None,
    max_record: int = MAX_RECORD,
    max_expansion: float = MAX_EXPANSION,
) -> Iterator[pl.DataFrame]:
    """Rows of one file, some at a time, of the columns that `wanted` chooses of those there.

    Of text, the columns among `numbers` become Float64. `written` is the map that says how the file is
    written. Raises as `read_chunks`, what `check` raises of the columns, and ValueError naming the first rows
    that cannot be read; with `strict`, bad cells count in these columns alone.
    """
    dialect = written.csv if written else PLAIN
    kind = format_of(Path(path))
    form = form_of(kind, written.number_format if written else None)
    for batch in read_batches(Path(path), check, wanted, CHUNK, max_record, max_expansion, dialect):
        spelled = [name for name in numbers if batch.frame.schema.get(name) == pl.String]
        frame, cells = to_numbers(batch.frame, spelled, form)
        advice = "mend them; a missing number is an empty cell" if cells else "mend them"
        advice += told_numbers(batch.frame[cells[0][1]], cells[0][0], kind, form) if cells else ""
        cells = [*(cell for cell in batch.cells if strict is None or cell[1] in strict), *cells]
        if rejects := rejected(path, batch, cells):
            raise ValueError(refusal(rejects, advice))
        yield frame


def hint(path: Path, schema: Schema, wanted: Set[str], dialect: Dialect) -> str:
    """What may be wrong with the header of a file that lacks `wanted` columns."""
    return missing_columns(list(schema), wanted, dialect) if format_of(path) in SEPARATORS else ""
