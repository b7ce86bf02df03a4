"""What `n3r map` prints of a proposal: no cell as it stands, only shapes, and the label's values.

Decisions:
- A label is no person: its values are shown, up to 20 characters of them. Every other cell is shown by its
  shape.
"""

from collections.abc import Iterator

import polars as pl

from n3r.proposal.kinds import Column
from n3r.proposal.numbers import EXAMPLES
from n3r.proposal.propose import Proposal
from n3r.schema import ColumnMap, mask

MAX_LABEL = 20  # characters of a label's value
_EXAMPLES, _LONGEST = 2, 28  # masked cells of a column, and characters of one
_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", None: "nothing: one column"}
_ROLES = ("id", "label", "time", "entity", "entity_time", "segment", "email_domain", "amount", "oracle")
_LISTS = ("text", "secondary_text", "numeric", "categorical", "groups")


def heading(proposal: Proposal) -> str:
    """The files, how they are written, and how much they hold."""
    files, m = proposal.files, proposal.column_map
    names = ", ".join(path.name for path in list(files.regions)[:3])
    names += f" and {len(files.regions) - 3} more" if len(files.regions) > 3 else ""
    size = f"{proposal.counts.n_rows:,} rows, {len(proposal.columns)} columns"
    if files.kind not in ("csv", "tsv"):
        return f"{names}: {files.kind}, {size}"
    d = m.csv
    header = "a header" if d.header else "no header (the columns are called column_1, column_2, ..)"
    quote = "" if d.quote == '"' else f", quoted by {d.quote}"
    numbers = f", numbers as {EXAMPLES[m.number_format]}" if m.number_format else ""
    mark = _MARKS.get(d.separator, d.separator)
    return f"{names}: {d.encoding.upper()} text, separated by {mark}{quote}, {header}{numbers}; {size}"


def table(proposal: Proposal) -> Iterator[tuple[str, str, str, str]]:
    """Of each column that plays a role: the roles, the name, what it holds, masked examples."""
    m = proposal.column_map
    by_name = {column.name: column for column in proposal.columns}
    order = [*(getattr(m, role) for role in ("id", "label", "time", "entity", "segment")), *m.all_text]
    order += [*m.groups, *m.categorical, *m.declared_numeric]
    for name in dict.fromkeys(name for name in order if name in by_name):
        roles = [role for role in _ROLES if getattr(m, role) == name]
        roles += [role for role in _LISTS if name in getattr(m, role)]
        yield ", ".join(roles), name, _holds(by_name[name], proposal), _examples(by_name[name], m)


def _holds(column: Column, proposal: Proposal) -> str:
    m = proposal.column_map
    if column.name == m.time:
        return f"times, {m.time_format or 'dates or ISO 8601'}"
    if column.name in proposal.counts.different:  # of all rows, not of those looked at
        return f"{proposal.counts.different[column.name]:,} different values"
    words = {"email": "e-mail addresses", "person": "people's names", "number": "numbers"}
    what = words.get(column.kind) or f"{column.n_values:,} different values"
    n_missing = len(column.texts) - column.n_filled
    missing = f", {n_missing / len(column.texts):.1%} missing" if n_missing else ""
    return what + missing


def _examples(column: Column, m: ColumnMap) -> str:
    known = column.texts.drop_nulls().unique(maintain_order=True)
    if column.name == m.label:
        return ", ".join(value[:MAX_LABEL] for value in list(m.label_values)[:4])
    return "  ".join(shapes(known)[:_EXAMPLES])


def shapes(texts: pl.Series) -> list[str]:
    """The different shapes of some texts, cut."""
    found = dict.fromkeys(mask(text[:_LONGEST]) for text in texts.head(20))
    return list(found)


def lines(proposal: Proposal) -> Iterator[str]:
    """What the label's values mean, what is left out and why, what else is to be known, and the guesses."""
    m, counts = proposal.column_map, proposal.counts.labels
    for c in range(m.n_classes):
        values = [value for value, of in m.label_values.items() if of == c]
        n = sum(n for value, n in counts.items() if (value or "") in values)
        share = n / max(1, proposal.counts.n_rows)
        shown = ", ".join(repr(value[:MAX_LABEL]) if value else "no value" for value in values[:8])
        more = f" and {len(values) - 8} more" if len(values) > 8 else ""
        yield f"class {c}: {m.label} {shown}{more}, {n:,} rows ({share:.1%})"
    for name, why in proposal.left_out.items():
        yield f"left out: {name!r}, {why}"
    yield from (f"note: {note}" for note in proposal.notes)
    yield from (f"guess: {guess}" for guess in proposal.guesses)
