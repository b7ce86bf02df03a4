"""JSON lines in a stream of bytes, read as columns of text without reading ahead of them.

Decisions:
- Each line is one object. Numbers and booleans keep the line's own spelling; a key that a line leaves out is
  null, one that it gives twice costs the line. A lone surrogate becomes U+FFFD.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

import polars as pl

from n3r.files.encoding import BOM, NOT_UTF8, HeaderError, refuse_other
from n3r.files.records import ALL, BLOCK, MAX_RECORD, Batch, Record, Wanted, batches, too_long

NOT_JSON, NOT_OBJECT, NO_KEYS = "is not JSON", "is not a JSON object", "is an object without keys"
KEY_TWICE = "gives a key twice"
NESTED = "is a list or an object"
SURROGATE = re.compile("[\ud800-\udfff]")
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


def read_json_lines(
    file: BinaryIO, wanted: Wanted, size: int, max_bytes: int = MAX_RECORD, part: slice = ALL
) -> Iterator[Batch]:
    """The objects of JSON lines, up to `size` at a time, one batch at least; `wanted` is asked for each.

    `part` is that of these batches that are given; the first objects are read whatever it is, as their keys
    are those that a file must have.
    """
    known = False
    for number, batch in enumerate(islice(batches(lines(file, max_bytes), size), part.stop)):
        if known and number < part.start:
            continue
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
        known = known or bool(found)
        if number >= part.start:
            yield Batch(pl.DataFrame(columns), list(found), cells, lost)


def lines(file: BinaryIO, max_bytes: int) -> Iterator[Record]:
    """Lines that are not blank; all are counted, from 1."""
    row = 0
    while line := file.readline(max_bytes + 2):  # with its end
        row += 1
        if len(line) == max_bytes + 2 and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(BLOCK)
            yield row, b"", too_long(max_bytes)
            continue
        line = line.removeprefix(BOM) if row == 1 else line
        if line and not line.isspace():
            yield row, line, None


def refuse_array(head: bytes) -> None:
    """Raise HeaderError for the first bytes of a file that is no JSON lines but a JSON array, or no text."""
    refuse_other(head, "is UTF-16 text: save it as UTF-8")
    if re.match(rb"\s*\[\s*\{", head.removeprefix(BOM)):
        raise HeaderError("is a JSON array: write an object a line")


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
