"""One normal form for all spellings of an identity, and fast paths to its words.

The library's steps, kept in tokenizer.json, define the form. The fast paths give the same words: texts in
ASCII skip all steps but two, texts without a confusable skip the folds, and frequent words are encoded once.
Lower case and the folding of confusables are a switch each (`Spelling`); without both the form is NFKC, as
the published systems have it.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import polars as pl
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

INVISIBLE = r"\p{Default_Ignorable_Code_Point}"  # zero-width and format characters, variation selectors
# Cyrillic and Greek letters that NFKC keeps, and the Latin ones of their shape.
CONFUSABLES = "АВСЕНІЈКМОРЅТХУҮаԁсеһіјӏорԛѕԝху" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαιορυν"
LATIN = "ABCEHIJKMOPSTXYYadcehijlopqswxy" + "ABEZHIKMNOPTYXaiopuv"
# Letters whose small form Unicode's table of cases leaves apart from that of their capital: the upper case of
# "straße", "γιώργος" and "ışık" is "STRASSE", "ΓΙΏΡΓΟΣ" and "IŞIK".
ONE_CASE = {"ß": "ss", "ς": "σ", "ı": "i", "\u0345": "ι"} | dict(zip("ᲀᲁᲂᲃᲄᲅᲆᲇᲈ", "вдосттъѣꙋ", strict=True))
DOT = "\u0307"  # of the Turkish capital İ, whose small form is "i" with it


def _fold(look: str, letter: str) -> normalizers.Normalizer:
    """Makes one letter Latin in words with a Latin one: from such a word's start, then from match to match.

    So a text is read once. A look back from each letter takes the square of a word's length.
    """
    start = r"(?:(?<!\S)(?=\S*\p{Latin})|\G(?!\A))"
    return normalizers.Replace(Regex(rf"{start}[^\s{look}]*+\K{look}"), letter)


_LOOKS = dict(zip(CONFUSABLES, LATIN, strict=True))
_SMALL = {a.lower(): b.lower() for a, b in _LOOKS.items()}
_CAPITAL = {a: b for a, b in _LOOKS.items() if _SMALL[a.lower()] != b.lower()}
VISIBLE, APART = normalizers.Replace(Regex(INVISIBLE), ""), normalizers.NFKD()
LOWER, COMPOSED = normalizers.Lowercase(), normalizers.NFKC()
CASES = [normalizers.Replace(letter, one) for letter, one in ONE_CASE.items()]
CASES.append(normalizers.Replace(Regex(rf"i\p{{M}}*?\K{DOT}"), ""))
# A typed bar is no separator of fields (defect 15).
BAR = normalizers.Replace("|", "¦")
WORDS = r"\w+|[^\w\s]+"  # what the library's pre-tokenizer "Whitespace" finds
_FOLDABLE = frozenset([*CONFUSABLES.upper(), *CONFUSABLES.lower(), *ONE_CASE, "ẞ", DOT])


class Spelling(NamedTuple):
    """Which spellings are one: NFKC always, and by a switch each those of other case or of other letters.

    Folded, invisible characters go, and a confusable becomes Latin in a word with a Latin letter; purely
    Cyrillic or Greek words stay. Once more changes nothing, and in lower case names that differ in case alone
    are one; but a Greek Ν or Υ in a Latin word becomes the letter that it looks like, n or y, and its small
    form v or u.

    NOTE[DIFF] the legacy applies NFKC alone. Over five seeds, on validation rows (reports/quality.md), lower
    case moves the clean AUC by -0.0003 [-0.0081, +0.0075] on twitter_bots and by +0.0010 [-0.0118, +0.0139]
    on orders, folding by +0.0003 [-0.0052, +0.0058] and -0.0004 [-0.0035, +0.0027]: neither is shown to cost
    or to bring any. Of the bots and of the frauds that NFKC alone catches at 1 % false positives it still
    catches 0.81 and 0.75 when they change the case of all letters, which lower case undoes; 0.66 and 0.50
    when they put invisible characters everywhere, which folding undoes; and 0.65 and 0.50 with confusables,
    of which both switches together leave 0.82 and 0.81. Dots and +tags in addresses stay: synthetic frauds
    that use them score higher, by 0.037 and 0.018 AUC.
    """

    lower_case: bool = True
    fold_confusables: bool = True

    @property
    def normalizer(self) -> normalizers.Normalizer:
        """The library's steps to the form."""
        return normalizers.Sequence([*self._before, *self._folds, COMPOSED, BAR])

    @property
    def words(self) -> str:
        """The steps in words, for those who read a tokenizer's metadata."""
        folds = {"lower case": self.lower_case, "confusables folded to Latin": self.fold_confusables}
        steps = ["invisible characters removed"] * self.fold_confusables
        steps += ["NFKD"] * any(self) + [step for step, is_taken in folds.items() if is_taken]
        return ", ".join([*steps, "NFKC"])

    def of(self, texts: Iterable[str]) -> Iterator[str]:
        """Each text by the `normalizer`; a repeated text beyond ASCII is normalised once."""
        known: dict[str, str] = {}
        before, folded, unfolded = _parts(self)
        for text in texts:
            if text.isascii():
                yield (text.lower() if self.lower_case else text).replace("|", "¦")
            else:
                if text not in known:
                    begun = before.normalize_str(text)
                    rest = unfolded if _FOLDABLE.isdisjoint(begun) else folded
                    known[text] = rest.normalize_str(begun)
                yield known[text]

    @property
    def _before(self) -> list[normalizers.Normalizer]:
        return [VISIBLE] * self.fold_confusables + [APART] * any(self)

    @property
    def _folds(self) -> list[normalizers.Normalizer]:
        if not self.lower_case:
            return [_fold(*pair) for pair in _LOOKS.items()] if self.fold_confusables else []
        if not self.fold_confusables:
            return [LOWER, *CASES]
        small, capital = ([_fold(*pair) for pair in found.items()] for found in (_SMALL, _CAPITAL))
        return [*capital, LOWER, *CASES, *small]


@cache
def _parts(spelling: Spelling) -> tuple[normalizers.Normalizer, ...]:
    """What comes before the folds, and the rest with and without them."""
    rest = ([*spelling._folds, COMPOSED, BAR], [*[LOWER] * spelling.lower_case, COMPOSED, BAR])
    return tuple(normalizers.Sequence(steps) for steps in (spelling._before, *rest))


ONE_SPELLING = Spelling()


def words_of(texts: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The distinct words of `spelled` texts, the word numbers of all texts in a row, and offsets (N + 1,)."""
    found = pl.Series("word", texts, dtype=pl.String).str.extract_all(WORDS)
    offsets = np.concatenate([[0], found.list.len().to_numpy().cumsum(dtype=np.int64)])
    every = found.explode(empty_as_null=False).to_frame()
    words = every.unique().with_row_index("number")
    numbers = every.join(words, on="word", how="left", maintain_order="left")["number"]
    return words["word"].to_list(), numbers.to_numpy(), offsets


def without_spelling(tokenizer: Tokenizer) -> tuple[Tokenizer, Spelling] | None:
    """The tokenizer for words of texts that are spelled already, and their spelling.

    None if it was trained to read texts in another way.
    """
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.normalizer = None
    other = not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.Whitespace)
    if other or tokenizer.normalizer is None or tokenizer.get_added_tokens_decoder():
        return None
    state = tokenizer.normalizer.__getstate__()
    found = [spelling for spelling, own in _states().items() if own == state]
    return (plain, found[0]) if found else None


@cache
def _states() -> dict[Spelling, bytes]:
    """Each spelling and the library's state of its steps."""
    every = [Spelling(*switches) for switches in product((True, False), repeat=2)]
    return {spelling: spelling.normalizer.__getstate__() for spelling in every}
