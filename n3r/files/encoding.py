"""What the bytes of a file of text are: refused where they are none, made UTF-8 where the column map says so.

Decisions:
- An encoding is never guessed: the map's is taken, and refused by name where the bytes say otherwise.
- Bytes that an encoding does not know become one that UTF-8 does not know, so that the cell is named as any
  other that is no text.
- Lines that end with CR alone, as old programs on a Mac write them, end with LF behind the reader. A file is
  taken for one of these if its first block has no other line ends outside of quotes.
"""

import codecs
import json
import re
from collections.abc import Callable
from typing import BinaryIO

UTF_8 = "utf-8"
BOM = codecs.BOM_UTF8
_NOT_TEXT = "n3r.not_text"  # how decoders of Python's call our handler
_UTF_16 = "is UTF-16 text"
_SHEET = "is an Excel workbook: let its name end in .xlsx"
# How files begin that are none of text in UTF-8, and what to do about them.
_OTHERS = {
    codecs.BOM_UTF16_LE: _UTF_16,
    codecs.BOM_UTF16_BE: _UTF_16,
    b"PK\x03\x04": "is a zip archive: unpack it",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook or one with a password: save it as .xlsx without one",
    b"PAR1": "is Parquet: let its name end in .parquet",
    b"\x1f\x8b": "is compressed by gzip: let its name end in .gz",
    b"%PDF": "is a PDF",
}


class HeaderError(ValueError):
    """What is wrong with a header; the message begins with a verb, for the file's name to stand before it."""


def setting(**csv: str | bool | None) -> str:
    """The line of a column map that sets keys of `csv`."""
    return f'"csv": {json.dumps(csv, allow_nan=False)}'


NOT_UTF8 = "is not UTF-8 text"
AS_UTF16 = f"{_UTF_16}: put {setting(encoding='utf-16')} into the column map, or save it as UTF-8"
AS_CP1252 = f"if it is Latin-1 or Windows-1252 put {setting(encoding='cp1252')} into the column map"
SAVED = f"; save the file as UTF-8, or {AS_CP1252}"


def refuse_other(head: bytes, as_utf16: str = AS_UTF16) -> None:
    """Raise HeaderError, of UTF-16 with the words given, for the first bytes of a file that is no UTF-8."""
    for begin, what in _OTHERS.items():
        if head.startswith(begin):
            is_sheet = begin == b"PK\x03\x04" and (b"xl/" in head or b"[Content_Types].xml" in head)
            raise HeaderError(_SHEET if is_sheet else as_utf16 if what == _UTF_16 else what)
    if _is_utf16(head):
        raise HeaderError(as_utf16)
    if re.match(rb"(?i)\s*<(?:!doctype|html|\?xml)", head):
        raise HeaderError("is a web page or XML")


def check_encoding(head: bytes, codec: str, name: str) -> None:
    """Raise HeaderError where a file's first bytes are not text of the codec, as far as they tell.

    `name` is what the column map calls it.
    """
    wide = codec.startswith(("utf-16", "utf-32"))
    if not wide:
        refuse_other(head)
    if not head or codec == UTF_8:
        return
    told = f"as the column map's csv says: put {setting(encoding=UTF_8)} there, or save the file as {name}"
    if wide and not (_is_utf16(head) or head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))):
        if b"\0" not in head[:1024]:
            raise HeaderError(f"is not {name} text, {told}")
    elif not wide and (head.startswith(BOM) or (_is_single_byte(codec) and _is_wide_utf8(head))):
        raise HeaderError(f"is UTF-8 text and not {name}, {told}")


def _is_utf16(head: bytes) -> bool:
    return re.match(rb"(?:\0[^\0]|[^\0]\0){4}", head) is not None


def _is_single_byte(codec: str) -> bool:
    return len(b"\xe9\xe8".decode(codec, "replace")) == 2


def _is_wide_utf8(head: bytes) -> bool:
    """Whether bytes are UTF-8 with characters that take several of them; the last may be cut."""
    try:
        return not head.isascii() and not codecs.getincrementaldecoder(UTF_8)().decode(head).isascii()
    except UnicodeDecodeError:
        return False


class Piecewise:
    """A stream of bytes, each piece changed on its way; `head` has been read already."""

    def __init__(self, file: BinaryIO, change: Callable[[bytes], bytes], head: bytes = b""):
        self.file, self.change, self.head = file, change, head

    def read(self, size: int) -> bytes:
        """The next piece, of about `size` bytes; none at the end."""
        while True:
            piece, self.head = self.head or self.file.read(size), b""
            changed = self.change(piece)
            if changed or not piece:
                return changed


def in_utf8(file: BinaryIO, codec: str, head: bytes) -> BinaryIO:
    """The stream in UTF-8; `head` has been read already."""
    decoder = codecs.getincrementaldecoder(codec)(_NOT_TEXT)

    def change(piece: bytes) -> bytes:
        return decoder.decode(piece, final=not piece).encode(UTF_8, "surrogateescape")

    return Piecewise(file, change, head)


def with_line_ends(file: BinaryIO, head: bytes, quote: bytes | None) -> tuple[BinaryIO, bytes]:
    """The stream and its first block with LF for CR where that alone ends lines."""
    bare = re.sub(rb"%b[^%b]*(?:%b|\Z)" % (quote, quote, quote), b"", head) if quote else head
    if b"\r" not in bare or b"\n" in bare:
        return file, head
    return Piecewise(file, _with_lf), _with_lf(head)


def _with_lf(piece: bytes) -> bytes:
    return piece.replace(b"\r", b"\n")


def _one_bad_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end  # "surrogateescape" makes it the byte 0xff


codecs.register_error(_NOT_TEXT, _one_bad_byte)
