"""What names of columns mean, in several languages: words in second place, after the values themselves.

Decisions:
- A name is taken apart where its case changes and at signs, without accents: "kundenNr" is kunden, nr. A
  word of a list stands for itself, or for the beginning of a longer part: "rechnungsname" begins with
  "rechnung".
- words.txt has the words, as shops' files have them.
"""

import re
from functools import cache
from pathlib import Path

from anyascii import anyascii

from n3r.files.words import read_words

_LONG = 5  # letters of a word that may begin a longer one
WORDS = read_words(Path(__file__).with_name("words.txt"))
_STARTS = {role: tuple(w for w in words if len(w) >= _LONG) for role, words in WORDS.items()}
_UNITS = {"eur", "euro", "usd", "gbp", "chf", "in", "gross", "brutto", "grand"}
# The two words of "rechnungsbetrag" and "ordervalue".
_COMPOUND = rf"\b({'|'.join(WORDS['order'])})s?({'|'.join(WORDS['amount'])})\b"


@cache
def parts(name: str) -> tuple[str, ...]:
    """The words of a column's name in lower case, and the name as one word where that is another."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    german = name.translate(str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"}))
    found = re.findall(r"[a-z]+", anyascii(german).lower())
    whole = "".join(found)
    return tuple(found) if len(found) == 1 else (*found, whole)


def means(name: str, role: str) -> bool:
    """Whether a column's name has a word of a role."""
    return any(part in WORDS[role] or part.startswith(_STARTS[role]) for part in parts(name))


def names_amount(name: str) -> bool:
    """Whether a name says what an order is worth and nothing else: "orderAmount", not "giftCardAmount"."""
    worth, order = WORDS["amount"], WORDS["order"] - {"orders"}
    found = {*re.sub(_COMPOUND, r"\1 \2", " ".join(parts(name)[:-1] or parts(name))).split()}
    return bool(worth & found) and found <= worth | order | _UNITS


def has_role(name: str) -> bool:
    """Whether a text has a word of any role, as headers have."""
    return 1 < len(name) <= 60 and any(means(name, role) for role in WORDS)
