"""Strings as flat arrays of code points, so that one or a million are counted by the same few steps.

Decisions:
- Strings stand one behind another with a line break before and after each; it belongs to no class of
  characters, so that no run of a class reaches into the next string.
- A string is read up to READ characters: relations of long texts cost more than they tell.
- Folded means spelled as tokenizers read it (spelling.py), transliterated to ASCII, and only a to z, 0 to 9
  and blanks.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from n3r.spelling import ONE_SPELLING

BREAK = "\n"
READ = 512  # characters of a string
CAPITAL, DIGIT, SYMBOL, FILLED = 1, 2, 4, 8  # bits of a character's kind; FILLED: anything but a blank
KINDS = np.array([CAPITAL, DIGIT, SYMBOL, FILLED], np.uint8)[:, None]
ALPHABET = b"abcdefghijklmnopqrstuvwxyz0123456789"
LAST = 0xFFFF  # whose kind stands for all beyond, of which most are signs
N_LETTERS, BASE = 26, len(ALPHABET) + 1  # code 0 is the line break, 1 to 26 are letters, then digits
ZERO = ALPHABET.index(b"0") + 1
N_TRIGRAMS = BASE**3
TYPED_FIGURES = (
    "capitals",
    "digits",
    "symbols",
    "non-ASCII",
    "distinct characters",
    "numbers",
    "words",
    "longest number",
    "longest word",
    "digits at the end",
)
FOLDED_FIGURES = ("vowels", "consonants in a row", "letter-digit switches", "zero before the last number")

_CODES = np.zeros(256, np.uint8)
_CODES[list(ALPHABET)] = np.arange(1, BASE)
_FOLD = bytes(
    code if code in (*ALPHABET, ord(BREAK)) else ord(chr(code).lower()) if chr(code).isupper() else ord(" ")
    for code in range(128)
).ljust(256, b" ")
_VOWEL = np.isin(np.arange(BASE), _CODES[list(b"aeiou")])
_LETTER = (np.arange(BASE) > 0) & (np.arange(BASE) <= N_LETTERS)
_DIGIT = np.arange(BASE) > N_LETTERS
_FOLDED_KINDS = np.stack([_VOWEL, _LETTER & ~_VOWEL & (np.arange(BASE) != _CODES[ord("y")]), _DIGIT])


class Trigrams(NamedTuple):
    """The distinct trigrams of strings, line breaks at both ends included, by string."""

    owner: np.ndarray  # (G,) number of the string, ascending
    code: np.ndarray  # (G,) below N_TRIGRAMS


class Folded(NamedTuple):
    """N strings, folded."""

    words: list[list[str]]
    plain: list[str]  # without blanks
    flat: np.ndarray  # codes of all of `plain`, a 0 before and after each
    starts: np.ndarray  # (N,) of each string in `flat`
    lengths: np.ndarray  # (N,)


class _Ascii(dict):
    """Code point -> its transliteration, found when it is first asked for."""

    def __missing__(self, code: int) -> str:
        from anyascii import anyascii

        self[code] = anyascii(chr(code)).replace(BREAK, " ")
        return self[code]


_ASCII = _Ascii()


def fold(strings: Sequence[str]) -> Folded:
    """Strings without line breaks, folded."""
    latin = [one if one.isascii() else one.translate(_ASCII) for one in ONE_SPELLING.of(strings)]
    folded = BREAK.join(latin).encode("ascii", "replace").translate(_FOLD).decode("ascii")
    words = [one.split() for one in folded.split(BREAK)] if strings else []
    plain = ["".join(one) for one in words]
    flat = _CODES[np.frombuffer(f"{BREAK}{BREAK.join(plain)}{BREAK}".encode(), np.uint8)]
    return Folded(words, plain, flat, *_places(plain))


def _places(strings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where each string starts behind its line break, and its length."""
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    return np.cumsum(lengths + 1) - lengths, lengths


def _longest(flags: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of flags (K, n) the run that ends at each place, (K, n), and the longest run of each string, (K, N)."""
    at = np.arange(flags.shape[1], dtype=np.int32)
    runs = at - np.maximum.accumulate(np.where(flags, np.int32(0), at), axis=1)
    return runs, np.maximum.reduceat(runs, starts, axis=1)


def typed_figures(strings: Sequence[str]) -> np.ndarray:
    """(len(TYPED_FIGURES), N) figures of strings without line breaks; shares of an empty one are NaN."""
    text = f"{BREAK}{BREAK.join(strings)}{BREAK}"
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    starts, lengths = _places(strings)
    flags = (_kinds()[np.minimum(codes, LAST)] & KINDS) != 0
    totals = np.add.reduceat(flags, starts, axis=1, dtype=np.int32)
    foreign = np.add.reduceat(codes > 127, starts, dtype=np.int32)
    distinct = np.fromiter(map(len, map(set, strings)), np.int64, len(strings))
    flags = flags[[1, 3]]  # digits, and all but blanks
    begun = np.add.reduceat(flags[:, 1:] & ~flags[:, :-1], starts - 1, axis=1, dtype=np.int32)
    runs, longest = _longest(flags, starts)
    with np.errstate(invalid="ignore"):
        shares = np.vstack([totals[:3], foreign, distinct]) / lengths
    return np.vstack([shares, begun, longest, runs[0, starts + lengths - 1]])


def folded_figures(folded: Folded) -> np.ndarray:
    """(len(FOLDED_FIGURES), N) figures: random letters are hard to say, serial ones end in 007."""
    flat, starts, lengths = folded.flat, folded.starts, folded.lengths
    flags = _FOLDED_KINDS[:, flat]
    runs, longest = _longest(flags[1:], starts)
    ends = starts + lengths
    suffix = runs[1, ends - 1]
    zero = (suffix > 1) & (flat[ends - suffix] == ZERO)
    digit = flags[2]
    switch = (digit[1:] != digit[:-1]) & (flat[1:] > 0) & (flat[:-1] > 0)
    switches = np.add.reduceat(switch, starts - 1, dtype=np.int32)
    with np.errstate(invalid="ignore"):
        vowels = np.add.reduceat(flags[0], starts, dtype=np.int32) / lengths
    return np.vstack([vowels, longest[0], switches, zero])


def trigrams(folded: Folded) -> Trigrams:
    """The distinct trigrams of each string."""
    code = folded.flat.astype(np.int64)
    code = (code[:-2] * BASE + code[1:-1]) * BASE + code[2:]
    owner = np.repeat(np.arange(len(folded.plain)), folded.lengths)
    keys = np.sort(owner * N_TRIGRAMS + code[folded.flat[1:-1] > 0])
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return Trigrams(*np.divmod(keys, N_TRIGRAMS))


@cache
def _kinds() -> np.ndarray:
    """(65536,) bits of each character's kind."""
    return np.array([*map(_kind, range(LAST)), SYMBOL | FILLED], np.uint8)


def _kind(code: int) -> int:
    character = chr(code)
    category = unicodedata.category(character)
    if character.isspace():
        return 0
    symbol = 0 if category[0] in "LM" or category == "Nd" else SYMBOL
    return FILLED | symbol | {"Lu": CAPITAL, "Nd": DIGIT}.get(category, 0)
