"""How a file of CSV or TSV is written: separator, encoding, quote, header.

Decisions:
- Separator and quote are one character of ASCII each, and an encoding is one that Python can decode piece by
  piece. Everything behind the reader is UTF-8.
- A separator that the header lacks gives way to another usual one that it has, as that of the file's name
  does: a model scores files of several programs.
"""

import codecs
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from n3r.files.encoding import UTF_8

# Python's codecs that are no encodings of files.
_NOT_OF_FILES = frozenset(("idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7"))


class Dialect(BaseModel):
    """How CSV and TSV are written; the defaults read what most programs write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    separator: str | None = Field(
        None, description="one character; null: that of the file's name, or of its header"
    )
    encoding: str = Field(
        UTF_8, description="utf-8, latin-1, cp1252, cp1250, cp1251, utf-16 or another that Python knows"
    )
    quote: str | None = Field('"', description="one character around cells, doubled in them; null: none")
    header: bool = Field(True, description="false: the columns are column_1, column_2, ..")

    @field_validator("separator", "quote")
    @classmethod
    def _one_character(cls, text: str | None) -> str | None:
        if text is not None and not (
            len(text) == 1 and text.isascii() and not text.isalnum() and text not in "\r\n\0\\"
        ):
            raise ValueError("expected one character such as , ; | or \\t, or null")
        return text

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            found = codecs.lookup(name)
        except (LookupError, ValueError):
            raise ValueError("is no encoding: try utf-8, cp1252, latin-1, cp1250, cp1251 or utf-16") from None
        is_text = getattr(found, "_is_text_encoding", True)
        if not is_text or found.incrementaldecoder is None or found.name.replace("_", "-") in _NOT_OF_FILES:
            raise ValueError("is no encoding of files: try utf-8, cp1252, latin-1 or utf-16")
        return name

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.quote is not None and self.quote in (self.separator or ",;\t|"):  # those of headers
            raise ValueError("separator and quote are the same character")
        return self

    @property
    def codec(self) -> str:
        """Python's own name of the encoding; "utf-8" also where a byte order mark is asked for."""
        name = codecs.lookup(self.encoding).name
        return UTF_8 if name == "utf-8-sig" else name


PLAIN = Dialect()
