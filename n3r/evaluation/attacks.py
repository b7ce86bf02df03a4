"""Attacks on identity strings, seeded and with a strength, and how much quality a score loses to them.

Decisions:
- The domain of an address stays, because mail must still reach the fraudster. It goes only with a dropped
  field.
- Which fields hold addresses is read from their values, because a column map has no such role.
- Each position draws whether it is changed and to what before the strength is applied. So the changes at a
  lower strength are among those at a higher one, and a row's changes do not depend on other rows.
- The confusables are more than the tokenizer folds (more scripts, phonetic letters), so that the curves show
  what is still open.
"""

import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from n3r.estimate import NOT_ENOUGH, bounded, table
from n3r.files.json_io import near
from n3r.identity.mail import address_fields
from n3r.metrics import auc_ci, paired_auc
from n3r.rows.parts import Rows, rows_at, whole
from n3r.schema import TEXT, joined_text

FPR = 0.01  # share of the legitimate rows that may score above the threshold of "caught"
STRENGTHS = (0.1, 0.3, 1.0)
# Latin letter -> letters of its shape that NFKC keeps: Cyrillic, Greek, Armenian, Cherokee, phonetic.
CONFUSABLES: dict[str, str] = {
    "A": "АΑᎪ", "B": "ВΒ", "C": "С", "E": "ЕΕ", "H": "НΗ", "I": "ІΙ", "J": "Ј", "K": "КΚ", "M": "МΜ",
    "N": "Ν", "O": "ОΟՕ", "P": "РΡ", "S": "ЅՏ", "T": "ТΤ", "U": "Ս", "X": "ХΧ", "Y": "ҮΥ", "Z": "Ζ",
    "a": "аɑ", "c": "с", "d": "ԁ", "e": "е", "g": "ɡց", "h": "һհ", "i": "іι", "j": "ј", "l": "ӏ",
    "n": "ո", "o": "оοօ", "p": "рρ", "q": "ԛ", "s": "ѕ", "u": "սυ", "v": "ν", "w": "ԝ", "x": "х", "y": "у",
}  # fmt: skip
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"  # zero-width space, joiners, byte order mark, soft hyphen
FULL_WIDTH = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
CURVE = ("attack", "strength", "n", "n_positive", *bounded("auroc"), *bounded("difference"))
CURVE += ("still_caught", "note")
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Row = Sequence[str | None]  # the fields of one row
Change = Callable[[str, float], str]  # of what a pattern found, by a number drawn from [0, 1)
Alter = Callable[[Row, Sequence[bool], np.random.Generator, float], Row]  # fields, which hold addresses


class Attack(NamedTuple):
    """One way to change strings: a line for the report, what it needs, and how it alters a row."""

    description: str
    needs: Literal["text", "address", "names"]
    alter: Alter


def _places(pattern: str, change: Change, address_only: bool = False) -> Alter:
    """Change what the pattern finds, in fields as they are and in addresses before the last "@"."""
    find = re.compile(pattern, re.DOTALL)

    def changed(text: str, rng: np.random.Generator, strength: float) -> str:
        draws = iter(rng.random((len(text) + 1, 2)).tolist())

        def one(match: re.Match) -> str:
            chance, choice = next(draws)
            return change(match[0], choice) if chance < strength else match[0]

        return find.sub(one, text)

    def alter(row: Row, addresses: Sequence[bool], rng: np.random.Generator, strength: float) -> Row:
        altered = []
        for text, is_address in zip(row, addresses, strict=True):
            user, at, domain = (text or "").rpartition("@")
            if text is None or (address_only and not (is_address and at)):
                altered.append(text)
            elif is_address and at:
                altered.append(changed(user, rng, strength) + at + domain)
            else:
                altered.append(changed(text, rng, strength))
        return altered

    return alter


def _dropped(row: Row, addresses: Sequence[bool], rng: np.random.Generator, strength: float) -> Row:
    return [
        None if chance < strength else text for text, chance in zip(row, rng.random(len(row)), strict=True)
    ]


def _rotated(row: Row, addresses: Sequence[bool], rng: np.random.Generator, strength: float) -> Row:
    """The names that are there, each in the place of another; fields that are missing stay missing."""
    at = [i for i, text in enumerate(row) if text is not None and not addresses[i]]
    chance, choice = rng.random(2)
    if len(at) < 2 or chance >= strength:
        return row
    by = 1 + int(choice * (len(at) - 1))
    altered = list(row)
    for i, j in zip(at, [*at[by:], *at[:by]], strict=True):
        altered[i] = row[j]
    return altered


def _one_of(options: str, choice: float) -> str:
    return options[int(choice * len(options))]


def _tag(_: str, choice: float) -> str:
    return "+" + "".join(LETTERS[int(choice * 26**place) % 26] for place in (1, 2, 3, 4))


def _other_case(letter: str, _: float) -> str:
    other = letter.swapcase()
    return other if other.swapcase() == letter else letter  # not ß, whose capital comes back as two letters


ATTACKS: dict[str, Attack] = {
    "homoglyphs": Attack(
        "Latin letters become letters of other scripts that look the same",
        "text",
        _places(f"[{''.join(CONFUSABLES)}]", lambda letter, choice: _one_of(CONFUSABLES[letter], choice)),
    ),
    "zero-width": Attack(
        "invisible characters between the others",
        "text",
        _places(r"(?<=.)(?=.)", lambda _, choice: _one_of(INVISIBLE, choice)),
    ),
    "digits": Attack(
        "a number of up to three digits at the end of each word",
        "text",
        _places(r"\S+", lambda word, choice: f"{word}{int(choice * 1000)}"),
    ),
    "plus-addressing": Attack(
        "a +tag at the end of the e-mail user name", "address", _places(r"(?<=.)\Z", _tag, address_only=True)
    ),
    "dots": Attack(
        "dots in the e-mail user name",
        "address",
        _places(r"(?<=[^.])(?=[^.])", lambda *_: ".", address_only=True),
    ),
    "swaps": Attack(
        "neighbouring letters change places",
        "text",
        _places(r"[^\W\d_]{2}", lambda pair, _: pair[::-1]),
    ),
    "doubling": Attack("letters are typed twice", "text", _places(r"[^\W\d_]", lambda letter, _: letter * 2)),
    "case": Attack(
        "capitals become small letters and the reverse", "text", _places(r"[^\W\d_]", _other_case)
    ),
    "dropped fields": Attack("fields are left empty", "text", _dropped),
    "field order": Attack("the names change places with one another", "names", _rotated),
    "full-width": Attack(
        "letters, digits and signs in their full-width forms",
        "text",
        _places(r"[!-~]", lambda character, _: FULL_WIDTH[character]),
    ),
}


def applicable(frame: pl.DataFrame, fields: Sequence[str]) -> list[str]:
    """Names of the attacks that can change these fields: some need addresses, one needs two names."""
    n_addresses = len(address_fields(frame, fields))
    met = {"text": True, "address": n_addresses > 0, "names": len(fields) - n_addresses > 1}
    return [name for name, attack in ATTACKS.items() if met[attack.needs]]


def perturb(
    frame: pl.DataFrame, fields: Sequence[str], attack: str, strength: float, seed: int
) -> pl.DataFrame:
    """The frame with its text fields attacked; a field to which the attack does not apply is unchanged.

    `strength` is the share of positions that are changed: characters, gaps between them, words, user names,
    fields, or rows for "field order". A row's changes depend on `seed` and its position alone. Null stays
    null. The joined text, if there is one, is joined again; `fields` are then all of its fields in
    their order. Raises ValueError on an unknown attack, a strength outside [0, 1] and missing fields.
    """
    _check([attack], [strength])
    if absent := [name for name in fields if name not in frame.columns]:
        raise ValueError(f"the frame lacks the text fields {', '.join(absent)}")
    addresses = address_fields(frame, fields)
    is_address = [name in addresses for name in fields]
    alter = ATTACKS[attack].alter
    rows = [
        alter(row, is_address, np.random.default_rng([seed, i]), strength)
        for i, row in enumerate(frame.select(fields).iter_rows())
    ]
    changed = frame.with_columns(pl.DataFrame(rows, dict.fromkeys(fields, pl.String), orient="row"))
    if TEXT not in frame.columns or TEXT in fields:
        return changed
    return changed.with_columns(joined_text(fields))


def sample_for_attack(rows: Rows, label: str, n_per_class: int, seed: int = 0) -> pl.DataFrame:
    """At most `n_per_class` rows of class 0 and of the others, in their order; AUC ignores the shares."""
    rng, is_fraud = np.random.default_rng(seed), whole(rows, [label])[label].to_numpy() > 0
    sides = [np.flatnonzero(is_fraud == c) for c in (False, True)]
    kept = [rng.choice(r, n_per_class, replace=False) if len(r) > n_per_class else r for r in sides]
    return rows_at(rows, np.sort(np.concatenate(kept)))


def attack_curve(
    score: Callable[[pl.DataFrame], np.ndarray],
    frame: pl.DataFrame,
    fields: Sequence[str],
    label: str,
    attacks: Sequence[str] = tuple(ATTACKS),
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    attacked: Literal["fraud", "all"] = "fraud",
) -> pl.DataFrame:
    """What each attack costs a score at each strength; attacks that do not apply are left out.

    `score` maps a frame to the risk (N,) of its rows. With `attacked` "fraud" only rows of label 1 are
    changed, because a fraudster changes his own orders. Columns: attack, strength, n, n_positive; auroc and
    difference (attacked less clean AUC), both with 95 % limits in _low and _high; still_caught (of the frauds
    above the clean rows' threshold at 1 % false positives, the share that still is); note. What the rows
    cannot show is null. Raises ValueError as `perturb` and `metrics.auc_ci` do.
    """
    _check(attacks, strengths)
    if attacked not in ("fraud", "all"):
        raise ValueError(f"attacked {attacked!r}: expected 'fraud' or 'all'")
    y, clean = frame[label].to_numpy(), np.asarray(score(frame))
    known = applicable(frame, fields)
    rows = []
    for attack, strength in product([name for name in attacks if name in known], strengths):
        changed = perturb(frame, fields, attack, strength, seed)
        if attacked == "fraud":
            own = pl.Series(y == 1)
            changed = changed.select(
                pl.when(own).then(column).otherwise(frame[column.name]) for column in changed
            )
        rows.append({"attack": attack, "strength": strength, **_cost(y, np.asarray(score(changed)), clean)})
    return table(rows, CURVE, words=("attack",))


def _cost(y: np.ndarray, attacked: np.ndarray, clean: np.ndarray) -> dict[str, float | str | None]:
    """One row of the curve."""
    auc, paired = auc_ci(y, attacked), paired_auc(y, attacked, clean)
    return {
        "n": auc.n,
        "n_positive": paired.n_positive,
        **auc.columns("auroc"),
        **paired.difference.columns("difference"),
        "still_caught": _still_caught(y == 1, attacked, clean),
        "note": NOT_ENOUGH if paired.difference.value is None else None,
    }


def _still_caught(y: np.ndarray, attacked: np.ndarray, clean: np.ndarray) -> float | None:
    """Share of the frauds caught on clean rows that are caught under attack; None when none was."""
    if y.all():
        return None
    cut = np.quantile(clean[~y], 1 - FPR, method="inverted_cdf")  # caught is above it, as in recall_at_fpr
    caught = y & (clean > cut)
    return float((attacked[caught] > cut).mean()) if caught.any() else None


def _check(attacks: Sequence[str], strengths: Sequence[float]) -> None:
    for attack in attacks:
        if attack not in ATTACKS:
            raise ValueError(f"unknown attack {attack!r}{near(attack, ATTACKS)}; known: {', '.join(ATTACKS)}")
    for strength in strengths:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength}: expected a number in [0, 1]")
