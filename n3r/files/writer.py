"""Tables into files: whole, or rows as they come.

Decisions:
- Writes are atomic. Pieces of Parquet go to a part each, then into one file.
- A polars message may quote a cell, which may be a person's name, so none is passed on.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import polars as pl
from polars.exceptions import PanicException, PolarsError

from n3r.files.atomic import renamed, writing
from n3r.files.formats import FORMATS, SEPARATORS

POLARS_ERRORS = (PolarsError, PanicException)  # damaged Parquet can bring about the second
_FORMULA = r"^\s*[=+\-@\t\r\n＝＋－＠]"


def write(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a table in the format that the path's suffix tells; raises as `writer`."""
    with writer(path, Path(path).suffix.removeprefix(".")) as rows:
        rows.write(frame)


@contextmanager
def writer(path: str | Path, kind: str, for_spreadsheets: bool = False) -> Iterator["Writer"]:
    """`.write(frame)` appends rows to a new file of one of `FORMATS`.

    `for_spreadsheets` puts a ' before each text of a CSV or TSV that one would run as a formula. The file
    appears, or replaces an older one, when the block ends; if that fails nothing is left. Raises ValueError
    naming the folder when it cannot be written.
    """
    path = Path(path)
    if kind not in FORMATS:
        raise ValueError(f"cannot write {path} as {kind!r}: the name must end in .{', .'.join(FORMATS)}")
    with renamed(path) as aside:
        rows = Writer(path, aside, kind, for_spreadsheets)
        try:
            yield rows
            rows.close()
        finally:
            shutil.rmtree(rows.parts, ignore_errors=True)


class Writer:
    """Rows on their way into one file."""

    def __init__(self, path: Path, aside: Path, kind: str, for_spreadsheets: bool):
        self.path, self.aside, self.kind = path, aside, kind
        self.for_spreadsheets = for_spreadsheets and kind in SEPARATORS
        self.parts = path.with_name(f".{path.name}.parts")
        self.schema: pl.Schema | None = None
        self.n_parts = 0
        with writing(path):
            aside.write_bytes(b"")  # not what a killed process left
            shutil.rmtree(self.parts, ignore_errors=True)

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows; raises ValueError where their columns or types are not the first ones'."""
        if self.schema not in (None, frame.schema):
            raise ValueError(
                f"{self.path}: rows of {_kinds(frame.schema)} after rows of {_kinds(self.schema)}"
            )
        with writing(self.path, *POLARS_ERRORS):
            if self.kind == "parquet":
                self.parts.mkdir(exist_ok=True)
                # Level 3, the default, takes twice as long for 12 % less.
                frame.write_parquet(self.parts / f"{self.n_parts:09d}.parquet", compression_level=1)
            else:
                self._append(_harmless(frame) if self.for_spreadsheets else frame)
        self.schema, self.n_parts = frame.schema, self.n_parts + 1

    def close(self) -> None:
        """Make one file of the parts."""
        if self.schema is None:
            raise ValueError(f"{self.path}: nothing to write; write one frame at least, be it empty")
        with writing(self.path, *POLARS_ERRORS):
            parts = sorted(self.parts.iterdir()) if self.kind == "parquet" else []
            if len(parts) > 1:
                pl.scan_parquet(parts, glob=False, hive_partitioning=False).sink_parquet(self.aside)
            elif parts:
                parts[0].replace(self.aside)

    def _append(self, frame: pl.DataFrame) -> None:
        with self.aside.open("ab") as file:
            _write_text(frame, file, self.kind, self.n_parts == 0)


class Printer:
    """Rows on their way to standard output, as text of one of `FORMATS`."""

    def __init__(self, kind: str, for_spreadsheets: bool = False):
        self.kind, self.is_first = kind, True
        self.for_spreadsheets = for_spreadsheets and kind in SEPARATORS

    def write(self, frame: pl.DataFrame) -> None:
        """Print rows at once; raises BrokenPipeError where nobody reads them any more."""
        text = BytesIO()  # polars would make another error of a broken pipe
        _write_text(_harmless(frame) if self.for_spreadsheets else frame, text, self.kind, self.is_first)
        self.is_first = False
        sys.stdout.buffer.write(text.getvalue())
        sys.stdout.buffer.flush()


def _write_text(frame: pl.DataFrame, file: BinaryIO, kind: str, header: bool) -> None:
    if kind == "jsonl":
        frame.write_ndjson(file)
    else:
        # The default quoting, "necessary", is the one that keeps null apart from "".
        frame.write_csv(file, separator=SEPARATORS[kind], include_header=header)


def _kinds(schema: pl.Schema) -> str:
    return ", ".join(f"{name!r} {kind.base_type()}" for name, kind in schema.items())


def _harmless(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows as a spreadsheet may open them: no text or name begins as a formula does."""
    safe = frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'${0}"))
    return safe.rename(lambda name: re.sub(_FORMULA, r"'\g<0>", name))
