"""How a file of CSV or TSV is written, by its bytes: encoding, separator, quote, header or none.

Decisions:
- A byte order mark tells the encoding, then zero bytes tell UTF-16, then a file that decodes as UTF-8 is
  UTF-8. Of the code pages of one byte that one is taken by which the letters outside ASCII stand in words
  as the letters of some language do.
- A separator divides most lines into equally many cells; of several that do, the one into more.
- A first line is a header unless its cells look like those below it: an e-mail address, a number or a time
  in a column of such, or no cell that is a name of a column while all have the shapes of the rows.
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from n3r.files.dialect import UTF_8, Dialect
from n3r.proposal.words import has_role
from n3r.schema import mask

SEPARATORS = (",", ";", "\t", "|")
EMAIL = r"^\s*[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s,;<>]{2,}\s*$"
_BOMS = ((codecs.BOM_UTF8, UTF_8), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Code pages, the commonest first, with the letters outside ASCII that their languages use most.
_PAGES = {
    "cp1252": "äöüßéèêëàâçîïôœùûñáíóúìòãõåæø",
    "cp1250": "ąćęłńóśźżáčďéěíňřšťúůýžőűöüäßăâîşţđ",
    "cp1254": "ğışçöü",
    "cp1251": "абвгдежзийклмнопрстуфхцчшщъыьэюяїієґ",
    "cp1253": "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώ",
    "iso8859_2": "ąćęłńóśźżáčďéěíňřšťúůýžőűöüäß",
    "cp850": "äöüßéèêëàâçîïôùûñáíóú",
    "mac_roman": "äöüßéèêëàâçîïôœùûñáíóú",
    "koi8_r": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
}
# Encodings of two bytes a letter: their letters, and the first bytes of the common ones of China.
_COMMON = {
    "euc_kr": ("[\uac00-\ud7a3]", (0x81, 0xFE)),
    "shift_jis": ("[\u3040-\u30ff\u4e00-\u9fff]", (0x88, 0x97)),
    "gb18030": ("[\u4e00-\u9fff]", (0xB0, 0xD7)),
    "big5": ("[\u4e00-\u9fff]", (0xA4, 0xC6)),
}
_SCRIPTS = {"cp1251": "CYRILLIC", "cp1253": "GREEK", "koi8_r": "CYRILLIC"}
_WORD = re.compile(r"[^\W\d_]*[^\x00-\x7f]+[^\W\d_]*")
_MARKS = "€£©®°’‘“”–…«»"  # which stand between words in texts of many languages
_LINES = 200
_NAMED = 0.25  # of a header's cells that have a word of a role
_SHARE = 0.9  # of the lines that have one number of cells
_NUMBER = re.compile(r"[-+(]?\s*[€$£¥]?\s*[-+]?\d[\d.,'’\s]*\s*[%€$£¥]?\)?")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\D?.*|\d{1,2}:\d\d.*")


def find_encoding(head: bytes, rest: Sequence[bytes] = ()) -> str:
    """The encoding of a file that begins with `head` and has the pieces `rest`, cut at its lines' ends."""
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if (wide := _without_mark(head)) is not None:
        return wide
    pieces = [head, *rest]
    if all(map(_is_utf8, pieces)):
        return UTF_8
    odd = b"\n".join(line for piece in pieces for line in piece.split(b"\n") if not line.isascii())[: 1 << 17]
    if many := next((name for name in _COMMON if _is_east_asian(odd, name)), None):
        return many
    found = {name: _plausibility(odd, name, letters) for name, letters in _PAGES.items()}
    best = max(found, key=found.__getitem__)
    return best if found[best] > float("-inf") else "latin-1"


def _without_mark(head: bytes) -> str | None:
    """UTF-16 of which order, where every second byte is mostly zero."""
    head = head[: 1 << 12]
    zeros = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
    if max(zeros) < 0.4 or min(zeros) > 0.1:
        return None
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"


def _is_utf8(content: bytes) -> bool:
    """Whether it decodes, the character that it may end within apart."""
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(content)
    except UnicodeDecodeError:
        return False
    return True


def _is_east_asian(odd: bytes, name: str) -> bool:
    """Whether the characters outside ASCII are common ones of the language, none beside Latin letters."""
    try:
        text = odd.decode(name)
    except UnicodeDecodeError:
        return False
    wide = "".join(character for character in text if ord(character) > 127)
    usual = len(re.findall(_COMMON[name][0], wide))
    first, last = _COMMON[name][1]
    rare = sum(not first <= c.encode(name)[0] <= last for c in re.findall("[\u4e00-\u9fff]", wide))
    beside = re.search("[A-Za-z][\u4e00-\ud7a3]|[\u4e00-\ud7a3][A-Za-z]", text)
    return usual > 0.95 * len(wide) and rare < 0.1 * usual and not beside


def _plausibility(odd: bytes, name: str, usual: str) -> float:
    """How well the words with letters outside ASCII read in a code page; -inf where it lacks a byte."""
    try:
        text = odd.decode(name)
    except UnicodeDecodeError:
        return float("-inf")
    return sum(
        n * _of_word(word, usual, name in _SCRIPTS) for word, n in Counter(_WORD.findall(text)).items()
    )


def _of_word(word: str, usual: str, is_other_script: bool) -> float:
    score, letters = 0.0, [c for c in word if c.isalpha()]
    if word in _MARKS or len(letters) == 1 == len(word):
        return 0.5 if word in _MARKS else -0.5  # a letter alone is a sign of something else
    if is_other_script and any(c.isascii() for c in letters):
        return -2.0 * len(letters)  # "Müller" is no word of two alphabets
    for before, character in zip(" " + word, word, strict=False):
        if character.isascii():
            score -= before.islower() and not before.isascii() and character.isupper()
        elif not character.isalpha():
            score -= 0.0 if character in _MARKS else 2.0
        else:
            score += 1.0 if character.lower() in usual else -0.5
            score -= 1.5 * (before.islower() and character.isupper())
    return score


def find_dialect(text: str, encoding: str, named: str | None = None) -> Dialect:
    """The dialect of a text's first lines; `named` is the separator that the file's name tells."""
    text = text.removeprefix("\ufeff")
    told = re.match(r"sep=(.)\r?\n", text)
    body = text[told.end() :] if told else text
    quote = _quote(body)
    separator = told[1] if told else _separator(body, quote or '"', named)
    rows = cells(body, separator or named or ",", quote)
    return Dialect(separator=separator, encoding=encoding, quote=quote, header=has_header(rows))


def cells(text: str, separator: str, quote: str | None = '"', limit: int = _LINES) -> list[list[str]]:
    """The first records of a text, blank lines left out."""
    quoting = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(text.split("\n"), delimiter=separator, **quoting)
    try:
        return list(islice((row for row in reader if row and row != [""]), limit))
    except csv.Error:  # a cell of more than 128 KB
        return [line.split(separator) for line in text.split("\n")[:limit] if line.strip()]


def _quote(text: str) -> str | None:
    """The sign that stands around cells."""
    cell = r"(?:^|[,;\t|]){0}(?:[^\n{0}]|{0}{0})*{0}(?=[,;\t|\n])"
    around = {sign: len(re.findall(cell.format(sign), text, re.MULTILINE)) for sign in "\"'"}
    return "'" if around["'"] > 2 * around['"'] and around["'"] >= 3 else '"'


def _separator(text: str, quote: str, named: str | None) -> str | None:
    """The separator that divides the lines alike; None where none does, as in a file of one column."""
    found = {}
    for separator in SEPARATORS:
        rows = cells(text, separator, quote)
        rows = rows[:-1] if len(rows) == _LINES else rows  # the last may be cut
        widths = Counter(map(len, rows))
        width, n = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        share = n / max(1, len(rows))
        if width > 1 and (len(rows[0]) == width or share > _SHARE):
            found[separator] = (share >= _SHARE, width if share >= _SHARE else share, separator == named)
    return max(found, key=found.__getitem__) if found else None


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of some rows names the columns."""
    if not rows:
        return True
    first, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if any(re.match(EMAIL, cell) for cell in first):
        return False
    columns = list(zip(*body, strict=True)) if body else [()] * len(first)
    named = [
        cell for cell, column in zip(first, columns, strict=True) if has_role(cell) and cell not in column
    ]
    if len(named) > _NAMED * len(first) and not any(map(_is_figure, first)):
        return True
    figures = [at for at, column in enumerate(columns) if _mostly(column, _is_figure)]
    if figures:
        return sum(_is_figure(first[at]) for at in figures) * 2 < len(figures)
    if not body or len(set(first)) < len(first):
        return not body
    shapes = [Counter(map(_shape, column)) for column in columns]
    alike = [shape[_shape(cell)] >= 0.3 * len(body) for shape, cell in zip(shapes, first, strict=True)]
    again = any(cell and cell in column for cell, column in zip(first, columns, strict=True))
    return not (again or all(alike))


def _mostly(column: Sequence[str], is_it: object) -> bool:
    filled = [cell for cell in column if cell.strip()]
    return bool(filled) and sum(map(is_it, filled)) > 0.8 * len(filled)


def _is_figure(cell: str) -> bool:
    """Whether a cell is a number or a time."""
    return bool(_NUMBER.fullmatch(cell.strip()) or _DATE.fullmatch(cell.strip()))


def _shape(cell: str) -> str:
    return re.sub(r"(.)\1+", r"\1", mask(cell[:40]))
