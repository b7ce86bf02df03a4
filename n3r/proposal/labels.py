"""Which column is the label, and the classes of its values: 1 is fraud, else the rarer one.

Decisions:
- Values speak first: words of fraud, yes and no, 0 and 1, codes of chargebacks beside nothing. The column's
  name comes second, and alone is enough only for a word such as fraud or label.
- A value's own meaning decides its class, then which is the rarer. Where both are silent, or several
  columns may be the label, the proposal is in doubt.
- A blank cell is class 0 where the others are codes or a mark: "" in `label_values` stands for no value.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from n3r.proposal.words import means
from n3r.rows.labels import FAIR, FRAUD, NO, UNDECIDED, YES, bare_label

CODE = r"\d{1,2}\.\d{1,2}|\d{2,4}|[A-Z]{1,3}\d{1,3}|UA\d\d"
MAX_VALUES = 30
_MOST = 0.6  # share of rows from which a value is too common to be that of fraud
_CLOSE = 0.4  # share of the rarer value from which the rarer one is doubted
POSSIBLE, AHEAD = 1.0, 0.5  # points of a label, and how much the next must be behind it


class Classes(NamedTuple):
    """The classes of a label's values."""

    values: dict[str, int]  # "": rows without a value
    dropped: list[str]  # values that are neither
    doubt: str | None  # what nothing tells, in words


def points(name: str, counts: Mapping[str | None, int], is_last: bool) -> float:
    """How much a column of few values is like a label, by its values and then its name; -1 for none."""
    n_rows, values = sum(counts.values()), [value for value in counts if value]
    n_blank = n_rows - sum(counts[value] for value in values)
    keys = {bare_label(value) for value in values}
    is_label = means(name, "fraud") or means(name, "label")
    if not values or len(keys) > MAX_VALUES or len(keys) < 2 and not n_blank:
        return -1.0
    if n_blank > 0.5 * n_rows and not (keys & FRAUD or keys <= YES or is_label):
        return -1.0
    told = bool(keys & FRAUD) + bool(keys & FAIR) * bool(keys & FRAUD)
    is_pair = len(keys) == 2 and keys <= YES | NO | FRAUD | FAIR
    rarest = min(counts[value] for value in values) / n_rows
    found = 2.0 * told + 1.0 * is_pair + 0.3 * (len(keys) <= 2) + 0.2 * (rarest < 0.3) + 0.3 * is_last
    found += 2.0 if is_label else 1.0 if means(name, "outcome") else 0.0
    others = ("segment", "group", "customer", "time", "address", "phone")
    return found - 2.0 * (not is_label and any(means(name, role) for role in others))


def classes(name: str, counts: Mapping[str | None, int]) -> Classes:
    """The class of each value of a label, given how many rows have it; None and "" are no value."""
    found = {value: n for value, n in counts.items() if value}
    n_blank = sum(n for value, n in counts.items() if not value)
    keys = {value: bare_label(value) for value in found}
    undecided = [value for value in found if keys[value] in UNDECIDED]
    kept = {value: n for value, n in found.items() if value not in undecided} or found
    dropped = [value for value in undecided if value not in kept]
    if told := _told(name, kept, keys):
        n_fraud = sum(n for value, n in kept.items() if told[value])
        if n_fraud <= _MOST * sum(kept.values()) or means(name, "legitimate"):
            return Classes(told, dropped, None)
        rarer = told if means(name, "fraud") else {value: 1 - c for value, c in told.items()}
        return Classes(rarer, dropped, "one value is much commoner, and fraud is rare")
    if len(kept) == 1 or (n_blank > sum(kept.values()) and means(name, "fraud")):
        return Classes({"": 0, **dict.fromkeys(kept, 1)}, dropped, None)
    return _by_count(name, kept, dropped)


def _told(name: str, counts: Mapping[str, int], keys: Mapping[str, str]) -> dict[str, int] | None:
    """The classes that the values' own meaning tells, or None."""
    kinds = {keys[value] for value in counts}
    if len(kinds) < 2:
        return None
    if kinds <= YES | NO and kinds & YES and kinds & NO:
        yes = 0 if means(name, "legitimate") else 1
        return {value: yes if keys[value] in YES else 1 - yes for value in counts}
    if kinds & FRAUD and kinds <= FRAUD | FAIR | NO and not kinds <= FRAUD:
        return {value: int(keys[value] in FRAUD) for value in counts}
    if kinds & FAIR and len(kinds) == 2:
        return {value: int(keys[value] not in FAIR) for value in counts}
    return None


def _by_count(name: str, counts: Mapping[str, int], dropped: list[str]) -> Classes:
    """The commonest value, or words of fraud apart all, as class 0."""
    commonest = max(counts, key=counts.__getitem__)
    fraud = {value for value in counts if bare_label(value) in FRAUD}
    values = {value: int(value in fraud if fraud else value != commonest) for value in counts}
    share = sum(n for value, n in counts.items() if values[value]) / sum(counts.values())
    codes = [value for value in counts if value != commonest]
    are_codes = means(name, "fraud") and all(re.fullmatch(CODE, value) for value in codes)
    if len(counts) > 2 and not are_codes:
        return Classes(
            values,
            dropped,
            f"of {len(counts)} values {'those of fraud' if fraud else 'all but the commonest'} are class 1",
        )
    return Classes(values, dropped, None if share < _CLOSE else "both values are about as common")
