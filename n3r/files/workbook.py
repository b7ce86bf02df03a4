"""The first sheet of an Excel workbook as a table, read by fastexcel, which the extra `xlsx` installs.

Decisions:
- A column has the type that all of its cells have; one of several kinds of cells is text.
- The first row is the header. Rows without a cell do not count, nor columns without a name and a cell; others
  without a name are called as R calls them, "...3".
- A sheet is read whole: it has a million rows at most.
"""

import logging
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import polars as pl

from n3r.files.encoding import HeaderError, refuse_other
from n3r.files.limits import check_workbook

NOT_INSTALLED = "needs fastexcel to be read: pip install 'n3r[xlsx]', or save its table as CSV in UTF-8"
DAMAGED = "cannot be read as an Excel workbook: damaged, with a password, or another format"


def read_workbook(path: Path, max_expansion: float) -> pl.DataFrame:
    """The rows of a workbook's first sheet.

    Raises HeaderError, whose message begins with a verb, where it is none or has no names of columns, and
    ValueError naming it where it holds more than `max_expansion` times its size.
    """
    try:
        from fastexcel import FastExcelError, read_excel
    except ImportError:
        raise HeaderError(NOT_INSTALLED) from None
    _check(path, max_expansion)
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it tells of each column without a cell
    try:
        book = read_excel(path)
        header = pl.DataFrame(book.load_sheet(0, header_row=None, n_rows=1, dtypes="string"))
        if not header.height:
            raise HeaderError("has nothing in its first sheet, not even a header row")
        names = _names(header.row(0))
        rows = pl.DataFrame(book.load_sheet(0, header_row=0, schema_sample_rows=None))
    except FastExcelError:
        raise HeaderError(DAMAGED) from None
    rows.columns = names
    rows = rows.drop(name for name in names if name.startswith("...") and not rows[name].count())
    whole = [c.name for c in rows if _is_whole(c)]  # a sheet has floats alone
    rows = rows.with_columns(pl.col(whole).cast(pl.Int64))
    return rows.filter(~pl.all_horizontal(pl.all().is_null()))


def _names(cells: tuple[str | None, ...]) -> list[str]:
    given = [cell for cell in cells if cell]
    if len(given) > len(set(given)):
        first, second = next((given.index(n), i) for i, n in enumerate(given) if n in given[:i])
        raise HeaderError(
            f"has columns of one name, {first + 1} and {second + 1} of those named; rename them"
        )
    return [cell or f"...{i}" for i, cell in enumerate(cells, start=1)]


def _check(path: Path, max_expansion: float) -> None:
    try:
        check_workbook(path, max_expansion)
        with ZipFile(path) as parts:
            names = parts.namelist()
    except (BadZipFile, NotImplementedError, zlib.error, EOFError):
        with path.open("rb") as file:
            head = file.read(64)
        if not head.startswith(b"PK"):
            refuse_other(head)
        raise HeaderError(DAMAGED) from None
    if not any(name.startswith("xl/") for name in names):
        raise HeaderError("is a zip archive and no Excel workbook: unpack it")


def _is_whole(column: pl.Series) -> bool:
    """Whether a column holds whole numbers that a float tells apart."""
    return column.dtype.is_float() and bool(((column == column.floor()) & (column.abs() < 2**53)).all())
