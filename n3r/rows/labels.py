"""What raw labels mean, as far as their words say, and what to say of those that a map does not know.

Decisions:
- A label is no person and is shown as it is, up to 20 characters; unless it is an address, or a text column
  holds it too: then the column is hardly one of labels, and shapes are shown.
- labels.txt has the words, in several languages.
- The line for the map is ready to paste: words of fraud and "yes" are class 1, their opposites class 0; of
  two labels that no word tells, the rarer is 1. What says nothing is dropped.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from n3r.files.json_io import MAX_TOLD
from n3r.files.words import read_words
from n3r.schema import MAX_SHAPE, ColumnMap, mask

MAX_SHOWN = 20  # characters of a label
_WORDS = read_words(Path(__file__).with_name("labels.txt"))
FRAUD, FAIR, UNDECIDED, YES, NO = (_WORDS[what] for what in ("fraud", "fair", "undecided", "yes", "no"))


def bare_label(label: str) -> str:
    """A label as the words for labels are written."""
    return re.sub(r"[\s\-]+(?=\w)", "_", label.strip().lower())


def class_of(label: str) -> int | None:
    """1 for a word of fraud or "yes", 0 for one of the opposite, None for others."""
    word = bare_label(label)
    return 1 if word in FRAUD | YES else 0 if word in FAIR | NO else None


def outside(
    counts: Mapping[str, int], n_values: int, n_rows: int, held: Collection[str], all_rows: bool, m: ColumnMap
) -> str:
    """What to say of labels that the map does not know, and the line that it lacks.

    counts: the most common of `n_values` labels of `n_rows` rows, and their rows; held: those that a text
    column holds too; all_rows: whether the map knows no label of any row.
    """
    known = [*m.label_values]
    safe = [label for label in counts if "@" not in label and label not in held and len(label) <= MAX_SHOWN]
    shown = {label: label if label in safe else mask(label[:MAX_SHAPE]) for label in counts}
    found = ", ".join(f"{shown[label]!r} ({n} rows)" for label, n in counts.items())
    found = found if n_values <= MAX_TOLD else f"{n_values} different values, not shown: is it the label?"
    more = " and more" * (len(known) > MAX_TOLD)
    line = _line(counts, safe, n_values, all_rows, m)
    return (
        f"column {m.label!r} (label): {n_rows} rows have a label outside label_values "
        f"{known[:MAX_TOLD]}{more}: {found}; in the column map, write {line}"
    )


def _line(
    counts: Mapping[str, int], safe: Collection[str], n_values: int, all_rows: bool, m: ColumnMap
) -> str:
    """What the map lacks, as JSON."""
    new = {label: class_of(label) for label in safe} if n_values <= MAX_TOLD and m.n_classes == 2 else {}
    if all_rows and len(new) == n_values == 2 and None in new.values():
        rarer = min(counts, key=counts.get)
        new = {label: int(label == rarer) for label in counts}
    new = {label: c for label, c in new.items() if c is not None}
    lines = [f'"label_values": {json.dumps(m.label_values | new, ensure_ascii=False, allow_nan=False)}']
    drop = '"other_labels": "drop"'
    if not new:
        return f"them into label_values, or {drop}"
    return ", ".join(lines if len(new) == n_values else [*lines, drop])
