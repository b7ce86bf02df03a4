r"""CSV records in a stream of bytes, read as columns of text without reading ahead of them.

Decisions:
- A cell is quoted if it begins with a quote; any other quote is an ordinary character. If a quote is not
  closed, text follows the closing one, or the record grows too long, then the record ends with its line: one
  stray quote costs one row, not the rest of the file.
- polars fills a short record with nulls, gives up on a file at a stray quote, and shows the cell in its
  message. So it gets good records only: in UTF-8, with as many cells as the header, and with every cell that
  holds a quote quoted.
- Blank lines are no records, even in a file of one column. An unquoted empty cell is null, a quoted one "",
  and an unquoted \N, as databases write it, is null too.
- A header without the separator of the file's name or of the map, but with another usual one, is read by that
  one; a first line "sep=;" tells it. Quotes escaped by a backslash, as Spark and MySQL write, are refused by
  that name: read by the rule of doubled quotes they would join rows.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import BinaryIO, NamedTuple

import polars as pl
from polars.exceptions import PolarsError

from n3r.files.dialect import PLAIN, Dialect
from n3r.files.encoding import (
    BOM,
    NOT_UTF8,
    SAVED,
    UTF_8,
    HeaderError,
    check_encoding,
    in_utf8,
    setting,
    with_line_ends,
)

Record = tuple[int, bytes, str | None]  # row, content or else why it cannot be read
Cell = tuple[int, str, str]  # row from 0, column, what is wrong with it
Wanted = Callable[[list[str]], Sequence[str]]  # columns that are there -> those to read
MAX_RECORD = 1 << 24  # bytes of one CSV record or JSON line
UNCLOSED = "a quote is opened and never closed"
ESCAPED = "has quotes escaped by a backslash, as Spark and MySQL write; they must be doubled"
REPEATED = "repeats the header: delete the row"
STRAY = "a quoted cell goes on after its closing quote"
BLOCK = 1 << 20  # bytes read at a time
ALL = slice(0, None)  # of the batches of a file
_BATCH = 1 << 26  # bytes of records in a batch, so that long records make smaller ones
_CELLS = 1 << 21  # cells in a batch, which take some 100 MB
_SEPARATORS = (b",", b";", b"\t", b"|")
_USUAL = (b'"', None)


class Batch(NamedTuple):
    """Some rows of a file, as the file has them."""

    frame: pl.DataFrame
    rows: Sequence[int]  # number of each row of the frame in the file, from 1
    cells: Sequence[Cell] = ()  # what is wrong in the frame
    lost: Sequence[tuple[int, str]] = ()  # number of each row that is not in the frame, and why


def read_separated(
    file: BinaryIO,
    separator: str,
    wanted: Wanted,
    size: int,
    max_bytes: int = MAX_RECORD,
    dialect: Dialect = PLAIN,
    part: slice = ALL,
) -> Iterator[Batch]:
    """The records of a CSV or TSV, up to `size` at a time, fewer of many cells; raises HeaderError.

    There is one batch at least; `part` is that of these batches that are given.
    """
    head, quote = file.read(BLOCK), dialect.quote and dialect.quote.encode()
    check_encoding(head, dialect.codec, dialect.encoding)
    if dialect.codec != UTF_8:
        file = in_utf8(file, dialect.codec, head)
        head = file.read(BLOCK)
    file, head = with_line_ends(file, head, quote)
    head, by = _separator(head.removeprefix(BOM), separator.encode(), dialect)
    found = records(file, by, max_bytes, head=head, quote=quote)
    first = next(found, None)
    table = Table(first, by, dialect)
    if not dialect.header:
        found = ((row + 1, content, reason) for row, content, reason in chain([first], found))
    names = wanted(table.names)
    found = batches(found, max(1, min(size, _CELLS // len(table.names))))
    for batch in islice(found, part.start, part.stop):
        yield table.read(batch, names)


def _separator(head: bytes, separator: bytes, dialect: Dialect) -> tuple[bytes, bytes]:
    """A file's beginning from its header on, and its separator: that of the map, its name or its header."""
    if told := re.match(rb"sep=([,;\t|])\r?\n", head):
        return head[told.end() :], told[1]
    q = dialect.quote and dialect.quote.encode()
    bare = re.sub(rb"%b[^%b]*%b" % (q, q, q), b"", head) if q else head
    line = bare.lstrip(b"\r\n").partition(b"\n")[0]
    given = dialect.separator.encode() if dialect.separator else separator
    others = {other: line.count(other) for other in (given, *_SEPARATORS)}
    if others[given] and (dialect.separator or dialect.header):
        return head, given
    return head, max(others, key=others.get)  # in rows of data commas may be decimal marks


def records(
    file: BinaryIO,
    separator: bytes,
    max_bytes: int,
    block: int = BLOCK,
    head: bytes | None = None,
    quote: bytes | None = b'"',
) -> Iterator[Record]:
    """Records with their line ends; the first one, the header, is number 0. `head` has been read already."""
    whole, unfinished, escaped = _grammar(separator, quote)
    escape, row = b"\\" + quote if quote else b"\n\n", 0  # the latter is in no line
    head = file.read(max(block, len(BOM))).removeprefix(BOM) if head is None else head
    buffer, at, ended, has_escapes = head, 0, False, escape in head
    while at < len(buffer) or not ended:
        match = whole.match(buffer, at)
        is_open = not match and unfinished.match(buffer, at) is not None
        if is_open and not ended and len(buffer) - at <= max_bytes:
            more = file.read(max(block, len(buffer) - at))
            buffer, at, ended = buffer[at:] + more, 0, not more
            buffer += b"\n" if ended and buffer and not buffer.endswith(b"\n") else b""
            has_escapes = escape in buffer
            continue
        if match:
            end, reason = match.end(), None if match.end() - at <= max_bytes else too_long(max_bytes)
        else:
            end = buffer.find(b"\n", at) + 1
            reason = STRAY if not is_open else UNCLOSED if ended else too_long(max_bytes)
        if has_escapes and buffer.find(escape, at, end) >= 0:
            line_end = buffer.find(b"\n", at) + 1
            if (reason or line_end < end) and escaped.fullmatch(buffer, at, line_end):
                end, reason = line_end, ESCAPED
        record = buffer[at:end]
        if not end:
            buffer, end = _after_line(file), 0
            has_escapes = escape in buffer
        at = end
        if record not in (b"\n", b"\r\n"):
            yield row, b"" if reason else record, reason
            row += 1


def _grammar(separator: bytes, quote: bytes | None) -> tuple[re.Pattern[bytes], ...]:
    """Patterns of a whole record, of the beginning of one, and of a line with escaped quotes."""
    cell, by = _cell(separator, quote), re.escape(separator)
    if quote is None:
        whole = re.compile(rb"[^\n]*+\n")
        return whole, re.compile(rb"[^\n]*+\Z"), whole
    q = re.escape(quote)
    # Most lines have no quote: told apart first, they take a third of the time.
    whole = rb"[^%b\n]*+\n|%b(?:%b%b)*+\r?\n" % (q, cell, by, cell)
    quoted = rb"%b[^%b]*+(?:%b[^%b]*+)*+%b?\r?" % (q, q, q + q, q, q)
    unfinished = rb"(?:%b%b)*+(?:%b|(?!%b)[^%b\n]*+)\Z" % (cell, by, quoted, q, by)
    other = rb"(?>%b(?:[^%b\\\n]|\\.|%b)*+%b|(?!%b)[^%b\n]*+)" % (q, q, q + q, q, q, by)
    escaped = rb"%b(?:%b%b)*+\r?\n" % (other, by, other)
    return re.compile(whole), re.compile(unfinished), re.compile(escaped)


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Up to `size` records each, fewer where they are long; of no records one empty batch."""
    batch, n_bytes, n_batches = [], 0, 0
    for record in records:
        batch.append(record)
        n_bytes += len(record[1])
        if len(batch) == size or n_bytes > _BATCH:
            yield batch
            batch, n_bytes, n_batches = [], 0, n_batches + 1
    if batch or not n_batches:
        yield batch


class Table:
    """The header of a CSV or TSV, and how the records below it are read.

    Raises HeaderError without a header or with one that cannot be read or names a column twice.
    """

    def __init__(self, header: Record | None, separator: bytes, dialect: Dialect = PLAIN):
        self.separator, self.quote = separator, dialect.quote and dialect.quote.encode()
        self.not_text = NOT_UTF8 if dialect.codec == UTF_8 else f"is not {dialect.encoding} text"
        self.cells = re.compile(rb"(?:^|%b)(%b)" % (re.escape(separator), _cell(separator, self.quote)))
        if header is None:
            raise HeaderError("is empty: not even a header row")
        _, content, reason = header
        if reason or (dialect.header and not _is_utf8(content)):
            first = "header" if dialect.header else "first"
            told = reason or self.not_text + (SAVED if self.not_text == NOT_UTF8 else "")
            raise HeaderError(f"has a {first} row that cannot be read: {told}")
        cells = self.cells.findall(content[:-1].removesuffix(b"\r"))
        if not dialect.header:
            self.header, self.names = b"", [f"column_{i}" for i, _ in enumerate(cells, start=1)]
            return
        if any(b"\r" in cell and not self._is_quoted(cell) for cell in cells):
            raise HeaderError("ends lines with CR CR LF, or some with CR alone; save it with LF or CR LF")
        self.header, _ = self._plain(content)
        self.names = [self._name(cell) for cell in cells]
        if len(self.names) > len(set(self.names)):
            raise HeaderError(_twice(self.names))

    def read(self, batch: Iterable[Record], names: Sequence[str]) -> Batch:
        """Columns of text; records that do not fit the header are lost."""
        good, rows, cells, lost = [], [], [], []
        for row, record, reason in batch:
            plain, n_cells = (b"", 0) if reason else self._plain(record)
            if reason is None and n_cells != len(self.names):
                reason = f"has {n_cells} cells, the header {len(self.names)}{_hint(record)}"
            if reason:
                lost.append((row, reason))
            else:
                good.append(plain)
                rows.append(row)
        content = b"".join(good)
        if len(self.names) > 1 and self.header and self.header in content:
            again = [at for at, plain in enumerate(good) if plain in (self.header, BOM + self.header)]
            lost = sorted([*lost, *((rows[at], REPEATED) for at in again)])
            for at in reversed(again):
                del rows[at], good[at]
            content = b"".join(good)
        if not _is_utf8(content):
            cells = [
                (at, name, self.not_text) for at, plain in enumerate(good) for name in self._not_utf8(plain)
            ]
            content = content.decode(errors="replace").encode()
        cells = [cell for cell in cells if cell[1] in names]
        return Batch(self._frame(content, len(rows), names), rows, cells, lost)

    def _frame(self, content: bytes, n_rows: int, names: Sequence[str]) -> pl.DataFrame:
        # Numbered columns: polars does not undo the doubled quotes of names. A header at all, for
        # it would take U+FEFF off a first cell.
        numbered = {str(i): pl.String for i in range(len(self.names))}
        separator = self.separator.decode()
        header = separator.join(numbered).encode() + b"\n"
        at = [self.names.index(name) for name in names]
        frame = pl.read_csv(
            header + content, separator=separator, schema=numbered, columns=sorted(at), infer_schema=False
        )
        if frame.height != n_rows:  # a score must not slip to the next row
            raise PolarsError("other records than those given")
        return frame.select(pl.col(str(i)).alias(name) for i, name in zip(at, names, strict=True))

    def _plain(self, record: bytes) -> tuple[bytes, int]:
        """The record as polars reads it, and how many cells it has."""
        body = record[:-1].removesuffix(b"\r")
        has_quote = b'"' in body or (self.quote not in _USUAL and self.quote in body)
        if not has_quote and b"\r" not in body and b"\\N" not in body:
            return body + b"\n", body.count(self.separator) + 1
        cells = self.cells.findall(body)
        return self.separator.join(map(self._as_polars, cells)) + b"\n", len(cells)

    def _is_quoted(self, cell: bytes) -> bool:
        return self.quote is not None and cell[:1] == self.quote

    def _as_polars(self, cell: bytes) -> bytes:
        """A cell, in polars' quotes where the file or polars needs some."""
        if not self._is_quoted(cell):
            if cell == b"\\N":
                return b""
            return _in_quotes(cell) if b'"' in cell or b"\r" in cell else cell
        return cell if self.quote == b'"' else _in_quotes(self._bare(cell))

    def _bare(self, cell: bytes) -> bytes:
        return cell[1:-1].replace(self.quote + self.quote, self.quote) if self._is_quoted(cell) else cell

    def _name(self, cell: bytes) -> str:
        return self._bare(cell).decode()

    def _not_utf8(self, record: bytes) -> list[str]:
        if _is_utf8(record):
            return []
        cells = self.cells.findall(record[:-1])
        return [name for name, cell in zip(self.names, cells, strict=True) if not _is_utf8(cell)]


def _cell(separator: bytes, quote: bytes | None) -> bytes:
    """A regular expression of one cell."""
    by = re.escape(separator)
    if quote is None:
        return rb"[^%b\n]*+" % by
    q = re.escape(quote)
    quoted = rb"%b[^%b]*+(?:%b[^%b]*+)*+%b(?=%b|\r?\n|\Z)" % (q, q, q + q, q, q, by)
    return rb"(?>%b|(?!%b)[^%b\n]*+)" % (quoted, q, by)


def _hint(record: bytes) -> str:
    """Why a record may have another number of cells than the header."""
    return ": is a backslash put before quotes or separators?" if re.search(rb'\\[",;\t|]', record) else ""


def _twice(names: Sequence[str]) -> str:
    """Which columns have one name, by their places: a header may be a row of data."""
    last = max(i for i, name in enumerate(names) if name in names[:i])
    first = names.index(names[last])
    n_twice = len(names) - len(set(names))
    what = "no name" if names[last] == "" else "one name"
    return (
        f"has {n_twice} column names twice: columns {first + 1} and {last + 1} have {what}; rename them, or "
        f"put {setting(header=False)} into the column map if it is no header"
    )


def _in_quotes(cell: bytes) -> bytes:
    return b'"%b"' % cell.replace(b'"', b'""')


def _after_line(file: BinaryIO) -> bytes:
    """What is read of the stream after the end of the present line."""
    while block := file.read(BLOCK):
        if b"\n" in block:
            return block[block.index(b"\n") + 1 :]
    return b""


def too_long(max_bytes: int) -> str:
    """Why a record or line of more than `max_bytes` cannot be read."""
    return f"is longer than {max_bytes} bytes, or a quote is open"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
