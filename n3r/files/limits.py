"""How far a file may expand, so that a small file from a stranger cannot fill memory.

Decisions:
- A file may expand to `max_expansion` times its size, or to 256 MiB if that is more. Orders expand 3 to 10
  times in Parquet, 3 to 20 times in gzip.
- gzip is counted as it is decompressed, because the size that it states proves nothing.
- Parquet is measured by the headers of its pages, by which a reader allocates, and by its rows, because a
  page of one repeated value may stand for a billion. The footer's own sums are ignored.
- An Excel workbook is measured by its parts and by its cells: readers make room for all cells up to the last
  one, so that a sheet of two may fill memory. Its references are looked for in every part, as any may be one.
- `_Thrift` reads the part of thrift's compact protocol that Parquet's headers use; the libraries that read
  all of Parquet weigh more than n3r.
"""

import gzip
import re
import struct
from collections.abc import Collection, Iterator, Set
from pathlib import Path
from typing import IO, Any, BinaryIO
from zipfile import BadZipFile, ZipFile, is_zipfile

MAX_EXPANSION = 200
ALWAYS = 1 << 28  # bytes that any file may hold
_HEADER = 1 << 12  # bytes read of a page's header at first
_VALUE = 8  # bytes of memory that a value takes at least
_DEEPEST = 32
_CELL = 32  # bytes that a reader takes for a cell of a sheet
_REFERENCE = re.compile(rb"""\br\s*=\s*["'](?:([A-Za-z]{0,3})([0-9]{0,7})["']|[^"']{0,32}(&))""")
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")  # how XML in UTF-16 begins, in which no reference is seen
_LONGEST = 64  # bytes of a reference


def allowed(path: Path, max_expansion: float = MAX_EXPANSION) -> int:
    """The bytes that a file may hold."""
    return max(ALWAYS, int(max_expansion * path.stat().st_size))


def opened_gzip(path: Path, max_expansion: float = MAX_EXPANSION) -> gzip.GzipFile:
    """A gzip file to read; ValueError naming it where more than is allowed has been read."""
    return _Counted(path, max_expansion)


class _Counted(gzip.GzipFile):
    def __init__(self, path: Path, max_expansion: float):
        super().__init__(path, "rb")
        self.path, self.left, self.max_expansion = path, allowed(path, max_expansion), max_expansion

    def read(self, size: int | None = -1) -> bytes:
        return self._count(super().read(size))

    def readline(self, size: int | None = -1) -> bytes:
        return self._count(super().readline(size))

    def _count(self, content: bytes) -> bytes:
        self.left -= len(content)
        if self.left < 0:
            raise ValueError(too_much(self.path, self.max_expansion))
        return content


def check_zip(path: Path) -> None:
    """Raise ValueError naming a zip file that holds more than its size; torch's, not compressed, never do."""
    if is_zipfile(path):
        with ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
                raise ValueError(f"{path} holds more than its size, as no file of torch's does: a bomb?")


def check_workbook(path: Path, max_expansion: float = MAX_EXPANSION) -> None:
    """Raise ValueError naming a workbook that holds more than is allowed, BadZipFile where it is none."""
    with ZipFile(path) as parts:
        found = parts.infolist()
        n_bytes = sum(part.file_size for part in found)
        if n_bytes <= (left := allowed(path, max_expansion)):
            last = [_last_cell(file) for part in found if not part.is_dir() for file in [parts.open(part)]]
            n_bytes = _CELL * max(row for row, _ in last) * max(column for _, column in last)
    if n_bytes > left:
        raise ValueError(too_much(path, max_expansion))


def _last_cell(file: IO[bytes]) -> tuple[int, int]:
    """The largest row and column that a part of a workbook refers to; BadZipFile for what hides them."""
    row = column = 1
    before = b""
    while block := file.read(1 << 20):
        if not before and block.startswith(_WIDE):
            raise BadZipFile("XML in UTF-16")
        for letters, digits, hidden in _REFERENCE.findall(before + block):
            if hidden:
                raise BadZipFile("a reference that is not plain")
            row = max(row, int(digits or 1))
            place = 0
            for letter in letters.upper():
                place = 26 * place + letter - 64
            column = max(column, place)
        before = block[-_LONGEST:]
    return row, column


def check_parquet(path: Path, names: Collection[str], max_expansion: float = MAX_EXPANSION) -> list[int]:
    """The numbers of rows of a file's row groups.

    Raises ValueError naming a Parquet file that holds more than is allowed in the columns `names`, also if
    that cannot be determined: a file too odd for this reader may be odd on purpose.
    """
    max_bytes = allowed(path, max_expansion)
    try:
        with path.open("rb") as file:
            groups = _row_groups(file)
            n_bytes = _parquet_bytes(file, groups, set(names), max_bytes)
    except (OSError, _Damaged, IndexError, KeyError, TypeError, AttributeError, struct.error):
        raise ValueError(f"{path} cannot be read as parquet: damaged, cut short or another format") from None
    if n_bytes > max_bytes:
        raise ValueError(too_much(path, max_expansion))
    return [group[3] for group in groups]


def too_much(path: Path, max_expansion: float) -> str:
    """What to say of a file that holds more than is allowed."""
    factor = f"{max_expansion:g} times its size"
    return f"{path} holds more than {factor}: a bomb? if you trust it, raise max_expansion"


def _row_groups(file: BinaryIO) -> list[dict[int, Any]]:
    """What the footer tells of each row group."""
    file.seek(-8, 2)
    length, magic = struct.unpack("<I4s", file.read(8))
    if magic != b"PAR1" or length > file.tell() - 8:
        raise _Damaged
    file.seek(-8 - length, 2)
    return _Thrift(file.read(length)).struct()[4]


def _parquet_bytes(file: BinaryIO, groups: list[dict[int, Any]], names: Set[str], max_bytes: int) -> int:
    """Bytes that the columns take, as far as is needed to see that they are more than `max_bytes`."""
    n_rows = sum(group[3] for group in groups)
    pages = 0
    for group in groups:
        for chunk in group[1]:
            column = chunk[3]
            if column[3][0].decode(errors="replace") in names:
                for header in _pages(file, column):
                    pages += header[2]
                    if pages > max_bytes:
                        return pages
    return max(pages, n_rows * _VALUE * len(names))


def _pages(file: BinaryIO, column: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """The headers of a column chunk's pages."""
    places = [at for at in (column[9], column.get(11)) if at]  # of the data, of the dictionary; 0 is none
    at = min(places, default=0)
    end = at + column[7] if places else 0
    while at < end:
        file.seek(at)
        reader = _Thrift(file.read(_HEADER))
        try:
            header = reader.struct()
        except IndexError:  # it has statistics of long texts
            file.seek(at)
            reader = _Thrift(file.read(end - at))
            header = reader.struct()
        if header[2] < 0 or header[3] < 0:
            raise _Damaged
        yield header
        at += reader.at + header[3]


class _Damaged(ValueError):
    """These bytes are not what they should be."""


class _Thrift:
    """Structs of thrift's compact protocol as dicts: field number -> number, bytes, list or dict."""

    def __init__(self, content: bytes):
        self.content, self.at, self.depth = content, 0, 0

    def struct(self) -> dict[int, Any]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Damaged
        found, number = {}, 0
        while byte := self._byte():
            step, kind = byte >> 4, byte & 15
            number = number + step if step else self._number()
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        self.depth -= 1
        return found

    def _value(self, kind: int) -> Any:
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind in (7, 8):  # a double, which nothing here asks for, or bytes
            return self._bytes(8 if kind == 7 else self._unsigned())
        if kind in (9, 10):
            return self._list()
        if kind != 12:
            raise _Damaged
        return self.struct()

    def _byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) > 127:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _number(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _bytes(self, length: int) -> bytes:
        self.at += length
        if self.at > len(self.content):
            raise IndexError
        return self.content[self.at - length : self.at]

    def _list(self) -> list[Any]:
        byte = self._byte()
        length = self._unsigned() if byte >> 4 == 15 else byte >> 4
        kind = 3 if byte & 15 in (1, 2) else byte & 15  # of true and false, a byte each
        if length > len(self.content):
            raise _Damaged
        return [self._value(kind) for _ in range(length)]
