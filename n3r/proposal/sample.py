"""Rows of a file from its beginning and from places all over it: what a proposal is made of.

Decisions:
- A file may be sorted, by time or by the label. So a large one is read in pieces, spread over its length.
- Pieces begin after a line's end. Where that lies within a quoted cell, the rows that do not fit are left
  out.
- What cannot be read at all is refused by the reader, in its words.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from n3r.files.dialect import Dialect
from n3r.files.formats import SEPARATORS, format_of
from n3r.files.limits import MAX_EXPANSION, opened_gzip
from n3r.files.reader import scan_parquet
from n3r.files.workbook import read_workbook
from n3r.proposal.dialect import cells, find_dialect, find_encoding

WHOLE = 1 << 22  # bytes of a file that is read as a whole
_HEAD, _PIECE, _PIECES = 1 << 19, 1 << 15, 48
_STEP = 1 << 23  # bytes from piece to piece of a compressed file, whose length nothing tells
_ROWS = 20_000  # of Parquet, and at most of text


class Text(NamedTuple):
    """Pieces of a file of text: its beginning, and others, each of whole lines."""

    head: str
    rest: list[str]
    encoding: str


def read_text(path: Path) -> Text:
    """Pieces of a file of text, decoded."""
    head, *rest = _pieces(path)
    bounded = [piece[piece.find(b"\n") + 1 : piece.rfind(b"\n") + 1] for piece in rest]
    encoding = find_encoding(head, bounded)
    texts = [_decoded(piece, encoding) for piece in (head, *rest)]
    if rest and "\n" in texts[0]:
        texts[0] = texts[0][: texts[0].rfind("\n") + 1]
    first, *others = map(_with_line_feeds, texts)
    inner = [text[text.find("\n") + 1 : text.rfind("\n") + 1] for text in others]
    return Text(first.removeprefix("\ufeff"), inner, encoding)


def _pieces(path: Path) -> Iterator[bytes]:
    """The beginning of a file and pieces at even distances behind it; all of a small one is its beginning."""
    if path.name.lower().endswith(".gz"):
        with opened_gzip(path, MAX_EXPANSION) as file:
            head = file.read(WHOLE)
            yield head
            for at in range(1, _PIECES) if len(head) == WHOLE else ():
                file.seek(WHOLE + at * _STEP)
                if not (piece := file.read(_PIECE)):
                    return
                yield piece
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        yield file.read(WHOLE if size <= WHOLE else _HEAD)
        for at in range(1, _PIECES + 1) if size > WHOLE else ():
            file.seek((size - _PIECE) * at // _PIECES // 4 * 4)  # whole characters of UTF-16
            yield file.read(_PIECE)


def _decoded(piece: bytes, encoding: str) -> str:
    if encoding == "utf-16" and not piece.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16-le"  # behind the mark; of the other order Excel writes none
    return piece.decode(encoding, errors="replace")


def _with_line_feeds(text: str) -> str:
    """The text with lines that end with LF, whatever ended them."""
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def dialect_of(path: Path, text: Text) -> Dialect:
    """How a file of CSV or TSV is written."""
    named = SEPARATORS[format_of(path)]
    return find_dialect(text.head, text.encoding, named)


def rows_of(path: Path, names: list[str], dialect: Dialect) -> pl.DataFrame:
    """Rows of a file of any format, texts but of Parquet; `names` are its columns."""
    kind = format_of(path)
    if kind == "parquet":
        return _of_parquet(path)
    if kind == "xlsx":
        table = read_workbook(path, MAX_EXPANSION)
        return table.gather_every(max(1, table.height // _ROWS))
    text = read_text(path)
    if kind == "jsonl":
        return _of_lines(text, names)
    separator = dialect.separator or SEPARATORS[kind]
    head = text.head.partition("\n")[2] if text.head.startswith("sep=") else text.head
    rows = cells(head, separator, dialect.quote, _ROWS)[int(dialect.header) :]
    for piece in text.rest:
        rows += cells(piece, separator, dialect.quote, _ROWS)
    rows = [row for row in rows if len(row) == len(names)]
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def _of_parquet(path: Path) -> pl.DataFrame:
    table = scan_parquet(path)
    n_rows = table.select(pl.len()).collect().item()
    return table.gather_every(max(1, n_rows // _ROWS)).collect(engine="streaming")


def _of_lines(text: Text, names: list[str]) -> pl.DataFrame:
    found = []
    for line in "".join([text.head, *text.rest]).split("\n")[:_ROWS]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append([_cell(value.get(name)) for name in names])
    return pl.DataFrame(found, schema=dict.fromkeys(names, pl.String), orient="row")


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, list | dict):
        return None
    return value if isinstance(value, str) else json.dumps(value, allow_nan=True)
