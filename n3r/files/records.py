r"""CSV records and JSON lines in a stream of bytes, read as columns of text without reading ahead of them.

Decisions:
- A cell is quoted if it begins with a quote; any other quote is an ordinary character. If a quote is not
  closed, text follows the closing one, or the record grows too long, then the record ends with its line: one
  stray quote costs one row, not the rest of the file.
- polars fills a short record with nulls, gives up on a file at a stray quote, and shows the cell in its
  message. So it gets good records only: in UTF-8, with as many cells as the header, and with every cell that
  holds a quote quoted.
- Blank lines are no records, even in a file of one column. An unquoted empty cell is null, a quoted one "",
  and an unquoted \N, as databases write it, is null too.
- A header without the separator of the file's name, but with another usual one, is read by that one; a first
  line "sep=;" tells it. Quotes escaped by a backslash, as Spark and MySQL write, are refused by that name:
  read by the rule of doubled quotes they would join rows.
- JSON lines: each line is one object. Numbers and booleans keep the line's own spelling; a key that a line
  leaves out is null, one that it gives twice costs the line. A lone surrogate becomes U+FFFD.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import polars as pl
from polars.exceptions import PolarsError

Record = tuple[int, bytes, str | None]  # row, content or else why it cannot be read
Cell = tuple[int, str, str]  # row from 0, column, what is wrong with it
Wanted = Callable[[list[str]], Sequence[str]]  # columns that are there -> those to read
MAX_RECORD = 1 << 24  # bytes of one CSV record or JSON line
NOT_UTF8 = "is not UTF-8 text"
SAVED = "; save the file as UTF-8, is it Latin-1 or Windows-1252?"
UNCLOSED = "a quote is opened and never closed"
ESCAPED = "has quotes escaped by a backslash, as Spark and MySQL write; they must be doubled"
REPEATED = "repeats the header"
STRAY = "a quoted cell goes on after its closing quote"
NOT_JSON, NOT_OBJECT, NO_KEYS = "is not JSON", "is not a JSON object", "is an object without keys"
KEY_TWICE = "gives a key twice"
NESTED = "is a list or an object"
SURROGATE = re.compile("[\ud800-\udfff]")
_BLOCK = 1 << 20  # bytes read at a time
_BATCH = 1 << 26  # bytes of records in a batch, so that long records make smaller ones
_BOM = b"\xef\xbb\xbf"
_SEPARATORS = (b",", b";", b"\t", b"|")
# How files begin that are none of text in UTF-8, and what to do about them.
_OTHERS = {
    b"\xff\xfe": "is UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text: save it as UTF-8",
    b"PK\x03\x04": "is an Excel workbook or a zip archive: save its table as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook: save its table as CSV in UTF-8",
    b"PAR1": "is Parquet: let its name end in .parquet",
    b"\x1f\x8b": "is compressed by gzip: let its name end in .gz",
    b"%PDF": "is a PDF",
}
_STRINGS = frozenset((str, type(None)))


class _Twice(ValueError):
    """An object has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


# Numbers as the line writes them: "1e5" and "7.10" keep their looks where they are names.
_decode = json.JSONDecoder(object_pairs_hook=_once, parse_float=str, parse_int=str, parse_constant=str).decode


class Batch(NamedTuple):
    """Some rows of a file, as the file has them."""

    frame: pl.DataFrame
    rows: Sequence[int]  # number of each row of the frame in the file, from 1
    cells: Sequence[Cell] = ()  # what is wrong in the frame
    lost: Sequence[tuple[int, str]] = ()  # number of each row that is not in the frame, and why


class HeaderError(ValueError):
    """What is wrong with a header; the message begins with a verb, for the file's name to stand before it."""


def read_separated(
    file: BinaryIO, separator: str, wanted: Wanted, size: int, max_bytes: int = MAX_RECORD
) -> Iterator[Batch]:
    """The records of a CSV or TSV, up to `size` at a time, one batch at least; raises HeaderError."""
    head = file.read(_BLOCK)
    refuse_other(head)
    head, by = _dialect(head.removeprefix(_BOM), separator.encode())
    found = records(file, by, max_bytes, head=head)
    table = Table(next(found, None), by)
    names = wanted(table.names)
    for batch in batches(found, size):
        yield table.read(batch, names)


def read_json_lines(
    file: BinaryIO, wanted: Wanted, size: int, max_bytes: int = MAX_RECORD
) -> Iterator[Batch]:
    """The objects of JSON lines, up to `size` at a time, one batch at least; `wanted` is asked for each."""
    for batch in batches(lines(file, max_bytes), size):
        found, lost, cells, columns = {}, [], [], {}
        for row, line, reason in batch:
            value, reason = (None, reason) if reason else _object(line)
            if reason:
                lost.append((row, reason))
            else:
                found[row] = value
        for name in wanted(list(dict.fromkeys(key for value in found.values() for key in value))):
            values = [value.get(name) for value in found.values()]
            if not _STRINGS.issuperset(map(type, values)):
                nested = (at for at, value in enumerate(values) if isinstance(value, list | dict))
                cells += [(at, name, NESTED) for at in nested]
                values = [value if value is None or type(value) is str else _word(value) for value in values]
            columns[name] = _series(values)
        yield Batch(pl.DataFrame(columns), list(found), cells, lost)


def lines(file: BinaryIO, max_bytes: int) -> Iterator[Record]:
    """Lines that are not blank; all are counted, from 1."""
    row = 0
    while line := file.readline(max_bytes + 2):  # with its end
        row += 1
        if len(line) == max_bytes + 2 and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(_BLOCK)
            yield row, b"", _too_long(max_bytes)
            continue
        line = line.removeprefix(_BOM) if row == 1 else line
        if line and not line.isspace():
            yield row, line, None


def refuse_other(head: bytes) -> None:
    """Raise HeaderError for the first bytes of a file that is not text in UTF-8."""
    for begin, what in _OTHERS.items():
        if head.startswith(begin):
            raise HeaderError(what)
    if re.match(rb"(?:\0[^\0]|[^\0]\0){4}", head):
        raise HeaderError("is UTF-16 text: save it as UTF-8")
    if re.match(rb"(?i)\s*<(?:!doctype|html|\?xml)", head):
        raise HeaderError("is a web page or XML")


def refuse_array(head: bytes) -> None:
    """Raise HeaderError for the first bytes of a file that is no JSON lines but a JSON array, or no text."""
    refuse_other(head)
    if re.match(rb"\s*\[\s*\{", head.removeprefix(_BOM)):
        raise HeaderError("is a JSON array: write an object a line")


def _dialect(head: bytes, separator: bytes) -> tuple[bytes, bytes]:
    """A file's beginning from its header on, and its separator: that of its name, or of its header."""
    if told := re.match(rb"sep=([,;\t|])\r?\n", head):
        return head[told.end() :], told[1]
    line = re.sub(rb'"[^"]*"', b"", head).lstrip(b"\r\n").partition(b"\n")[0]
    others = {other: line.count(other) for other in _SEPARATORS}
    return head, separator if line.count(separator) else max(others, key=others.get)


def records(
    file: BinaryIO, separator: bytes, max_bytes: int, block: int = _BLOCK, head: bytes | None = None
) -> Iterator[Record]:
    """Records with their line ends; the first one, the header, is number 0. `head` has been read already."""
    escaped, separator = _escaped_line(separator), re.escape(separator)
    cell, row = _cell(separator), 0
    # Most lines have no quote: told apart first, they take a third of the time.
    whole = re.compile(rb'[^"\n]*+\n|%b(?:%b%b)*+\r?\n' % (cell, separator, cell))
    unfinished = re.compile(
        rb'(?:%b%b)*+(?:"[^"]*+(?:""[^"]*+)*+"?\r?|(?!")[^%b\n]*+)\Z' % (cell, separator, separator)
    )
    head = file.read(max(block, len(_BOM))).removeprefix(_BOM) if head is None else head
    buffer, at, ended, has_escapes = head, 0, False, b'\\"' in head
    while at < len(buffer) or not ended:
        match = whole.match(buffer, at)
        is_open = not match and unfinished.match(buffer, at) is not None
        if is_open and not ended and len(buffer) - at <= max_bytes:
            more = file.read(max(block, len(buffer) - at))
            buffer, at, ended = buffer[at:] + more, 0, not more
            buffer += b"\n" if ended and buffer and not buffer.endswith(b"\n") else b""
            has_escapes = b'\\"' in buffer
            continue
        if match:
            end, reason = match.end(), None if match.end() - at <= max_bytes else _too_long(max_bytes)
        else:
            end = buffer.find(b"\n", at) + 1
            reason = STRAY if not is_open else UNCLOSED if ended else _too_long(max_bytes)
        if has_escapes and buffer.find(b'\\"', at, end) >= 0:
            line_end = buffer.find(b"\n", at) + 1
            if (reason or line_end < end) and escaped.fullmatch(buffer, at, line_end):
                end, reason = line_end, ESCAPED
        record = buffer[at:end]
        if not end:
            buffer, end = _after_line(file), 0
            has_escapes = b'\\"' in buffer
        at = end
        if record not in (b"\n", b"\r\n"):
            yield row, b"" if reason else record, reason
            row += 1


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

    def __init__(self, header: Record | None, separator: bytes):
        self.separator = separator
        between = re.escape(separator)
        self.cells = re.compile(rb"(?:^|%b)(%b)" % (between, _cell(between)))
        if header is None:
            raise HeaderError("is empty: not even a header row")
        _, content, reason = header
        if reason or not _is_utf8(content):
            raise HeaderError(f"has a header row that cannot be read: {reason or NOT_UTF8 + SAVED}")
        body = content[:-1].removesuffix(b"\r")
        self.header = body + b"\n"
        cells = self.cells.findall(body)
        if any(b"\r" in cell and cell[:1] != b'"' for cell in cells):
            raise HeaderError("ends its lines with CR alone, or CR CR LF; save it with LF or CR LF")
        self.names = [_unquoted(cell) for cell in cells]
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
        if len(self.names) > 1 and self.header in content:
            again = [at for at, plain in enumerate(good) if plain in (self.header, _BOM + self.header)]
            lost = sorted([*lost, *((rows[at], REPEATED) for at in again)])
            for at in reversed(again):
                del rows[at], good[at]
            content = b"".join(good)
        if not _is_utf8(content):
            cells = [(at, name, NOT_UTF8) for at, plain in enumerate(good) for name in self._not_utf8(plain)]
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
        if b'"' not in body and b"\r" not in body and b"\\N" not in body:
            return body + b"\n", body.count(self.separator) + 1
        cells = [cell if cell[:1] == b'"' else _as_polars(cell) for cell in self.cells.findall(body)]
        return self.separator.join(cells) + b"\n", len(cells)

    def _not_utf8(self, record: bytes) -> list[str]:
        if _is_utf8(record):
            return []
        cells = self.cells.findall(record[:-1])
        return [name for name, cell in zip(self.names, cells, strict=True) if not _is_utf8(cell)]


def _cell(separator: bytes) -> bytes:
    """A regular expression of one cell."""
    quoted = rb'"[^"]*+(?:""[^"]*+)*+"(?=%b|\r?\n|\Z)' % separator
    return rb'(?>%b|(?!")[^%b\n]*+)' % (quoted, separator)


def _escaped_line(separator: bytes) -> re.Pattern[bytes]:
    """A line whose quoted cells have backslashes before quotes, ended as that dialect ends it."""
    separator = re.escape(separator)
    cell = rb'(?>"(?:[^"\\\n]|\\.|"")*+"|(?!")[^%b\n]*+)' % separator
    return re.compile(rb"%b(?:%b%b)*+\r?\n" % (cell, separator, cell))


def _hint(record: bytes) -> str:
    """Why a record may have another number of cells than the header."""
    return ": is a backslash put before quotes or separators?" if re.search(rb'\\[",;\t|]', record) else ""


def _twice(names: Sequence[str]) -> str:
    """Which columns have one name, by their places: a header may be a row of data."""
    last = max(i for i, name in enumerate(names) if name in names[:i])
    first = names.index(names[last])
    n_twice = len(names) - len(set(names))
    what = "no name" if names[last] == "" else "one name"
    return f"has {n_twice} column names twice: columns {first + 1} and {last + 1} have {what}; rename them"


def _as_polars(cell: bytes) -> bytes:
    """An unquoted cell, quoted where polars needs it."""
    if cell == b"\\N":
        return b""
    return b'"%b"' % cell.replace(b'"', b'""') if b'"' in cell or b"\r" in cell else cell


def _unquoted(cell: bytes) -> str:
    text = cell.decode()
    return text[1:-1].replace('""', '"') if text[:1] == '"' else text


def _after_line(file: BinaryIO) -> bytes:
    """What is read of the stream after the end of the present line."""
    while block := file.read(_BLOCK):
        if b"\n" in block:
            return block[block.index(b"\n") + 1 :]
    return b""


def _too_long(max_bytes: int) -> str:
    return f"is longer than {max_bytes} bytes, or a quote is open"


def _object(line: bytes) -> tuple[Any, str | None]:
    try:
        value = _decode(line.decode())
    except UnicodeDecodeError:
        return None, NOT_UTF8
    except _Twice:
        return None, KEY_TWICE
    except (ValueError, RecursionError):  # the latter of thousands of brackets
        return None, NOT_JSON
    if not isinstance(value, dict):
        return None, NOT_OBJECT
    return (value, None) if value else (None, NO_KEYS)


def _word(value: object) -> str:
    """A text in the place of a value that is not a cell: a list must not pass for a number or for nothing."""
    return NESTED if isinstance(value, list | dict) else "true" if value else "false"


def _series(values: Sequence[str | None]) -> pl.Series:
    try:
        return pl.Series(values, dtype=pl.String)
    except UnicodeEncodeError:
        return pl.Series([v and SURROGATE.sub("\ufffd", v) for v in values], dtype=pl.String)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
