"""From files to a column map: sample, kinds, roles, one pass over all rows, and what is left to ask.

Decisions:
- A question is asked only where the files do not tell. Whoever is not asked gets the best guess of each,
  and is told which guesses those are.
- The map holds what differs from a map's defaults, and every column: one that plays no role is in `ignore`.
- A column of numbers with a cell that is none is left out and named, as the reader would stop at that cell;
  so is one that alone tells the label.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from n3r.files.atomic import write_together
from n3r.files.json_io import explain
from n3r.proposal import decide
from n3r.proposal.counts import Counts, Looked, count
from n3r.proposal.dates import time_formats
from n3r.proposal.files import SEPARATED, Files, open_files
from n3r.proposal.kinds import Column, columns_of, filled
from n3r.proposal.labels import Classes
from n3r.proposal.leaks import leaking
from n3r.proposal.numbers import EXAMPLES, find_form, number_columns
from n3r.proposal.questions import Answers, Ask, Question, best_guess
from n3r.proposal.roles import Roles, assign
from n3r.rows.numbers import NumberFormat
from n3r.rows.values import text_of
from n3r.schema import SCHEMA_KEY, ColumnMap
from n3r.tables import REGION

# A map of no table, for keys to be checked before a table is read.
_SOME = {"id": "?id", "text": ["?text"], "label": "?label", "label_values": {"0": 0, "1": 1}, "time": "?time"}


@dataclass(frozen=True)
class Proposal:
    """A column map, and what it was made of."""

    content: dict[str, Any]  # of the map
    files: Files
    columns: list[Column]
    counts: Counts
    left_out: dict[str, str]  # column -> why
    notes: list[str]  # what was found, a sentence each
    guesses: list[str]  # the best guess of each question that nobody answered

    @property
    def column_map(self) -> ColumnMap:
        """The map."""
        return ColumnMap(**self.content)

    def write(self, path: Path, schema: Path) -> None:
        """Write the map, which names its JSON Schema by the way from its own folder."""
        there = Path(os.path.relpath(schema, path.resolve().parent)).as_posix()
        content = {SCHEMA_KEY: there, **self.content}
        # A line each, to be edited.
        lines = (f"  {_json(key)}: {_json(value)}" for key, value in content.items())
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_together(path.parent, {path.name: ("{\n" + ",\n".join(lines) + "\n}\n").encode()})


def propose(data: Sequence[str], given: Mapping[str, Any] | None = None, ask: Ask = best_guess) -> Proposal:
    """The column map of some files of one shape; `given` are values of it that are known already.

    Raises FileNotFoundError, or ValueError for files that cannot be read, that differ in how they are
    written, or that lack a column for a role that every map has.
    """
    _check(_SOME | dict(given or {}))
    answers = Answers(given or {}, ask)
    files = open_files(data, answers.given.get("csv", {}))
    sample, lost = files.sample()
    texts = [filled(series) for series in sample if series.dtype == pl.String]
    times = {series.name: found for series in texts if (found := time_formats(series))}
    texts = [series for series in texts if series.name not in times]
    form = _number_form(texts, files, answers)
    columns = columns_of(sample, number_columns(texts, form), times)
    roles = _roles(columns, files, answers)
    counts = count(files, _looked(roles, columns, form))
    label = decide.classes_of(roles.label, counts, answers)
    entity, why_not = decide.entity_of(roles.entity, counts)
    time_format, how = decide.time_format_of(roles.time, columns, counts, answers)
    left_out = roles.ignore | _unread(counts) | _leaking(columns, roles, label, form)
    left_out |= {roles.entity: why_not} if why_not else {}
    content = {
        "id": decide.id_of(roles.ids, counts),
        "text": roles.text,
        "label": roles.label,
        "label_values": label.values,
        "other_labels": "drop" if label.dropped else None,
        "time": roles.time,
        "time_format": time_format,
        "split_by": None if roles.time else "random",
        "entity": entity,
        "amount": None if roles.amount in left_out else roles.amount,
        "segment": REGION if any(files.regions.values()) else roles.segment,
        "numeric": [name for name in roles.numeric if name not in left_out],
        "categorical": [name for name in roles.categorical if name not in left_out],
        "groups": roles.groups,
        "split_files": decide.split_files_of(files.regions),
        "number_format": form,
        "csv": files.dialect.model_dump() if files.kind in SEPARATED else None,
    }
    content |= {key: value for key, value in answers.given.items() if key != "csv"}
    used = _names(content)
    left_out = {name: why for name, why in left_out.items() if name not in used}
    content["ignore"] = [column.name for column in columns if column.name in left_out]
    content = {key: value for key, value in content.items() if value not in (None, [], {})}
    _check(content)
    notes = [f"not in every file, and not read: {', '.join(map(repr, lost))}"] if lost else []
    notes += [how] if how and "time_format" not in answers.given else []
    notes += decide.notes_of(content, counts, label)
    return Proposal(content, files, columns, counts, left_out, notes, answers.guesses)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _number_form(texts: Sequence[pl.Series], files: Files, answers: Answers) -> NumberFormat | None:
    """The form of the numbers in columns of text."""
    if "number_format" in answers.given:
        return answers.given["number_format"]
    if files.kind == "jsonl":  # its numbers are written one way
        return None
    found = find_form(texts, files.dialect.separator)
    if not found.others:
        is_typed = files.kind not in SEPARATED and number_columns(texts, None)
        return found.form or ("plain" if is_typed else None)  # text is no number there unless the map says so
    says = "The mark in the numbers may stand before thousands or before decimals."
    forms = {EXAMPLES[form]: form for form in (found.form, *found.others)}
    return answers.of(Question("number_format", says, forms))


def _roles(columns: Sequence[Column], files: Files, answers: Answers) -> Roles:
    given = dict(answers.given)
    if any(files.regions.values()):
        given.setdefault("segment", None)  # the region, a column of n3r's own
    roles = assign(columns, given)
    if not roles.rivals:
        return roles
    names = {repr(name): name for name in (roles.label, *roles.rivals)}
    label = answers.of(Question("label", "Several columns may be the label.", names))
    return assign(columns, given | {"label": label})


def _looked(roles: Roles, columns: Sequence[Column], form: NumberFormat | None) -> Looked:
    """What the pass over all rows looks at."""
    times = {c.name: c.formats for c in columns if c.name == roles.time and not c.is_typed}
    keys = [*roles.ids, *([roles.entity] if roles.entity else [])]
    return Looked(roles.label, roles.numeric, form, times, keys)


def _unread(counts: Counts) -> dict[str, str]:
    """Why columns of numbers are left out that hold other cells."""
    return {
        name: f"{bad.n:,} cells are no number, the first in {bad.first}: mend them, or leave them empty"
        for name, bad in counts.numbers.items()
        if bad.n
    }


def _leaking(
    columns: Sequence[Column], roles: Roles, label: Classes, form: NumberFormat | None
) -> dict[str, str]:
    """Why columns are left out that tell the label alone."""
    of_label = {text_of(value): c for value, c in label.values.items()}
    texts = next(column.texts for column in columns if column.name == roles.label).to_list()
    y = np.array([of_label.get(text_of(text) if text is not None else "", -1) for text in texts])
    features = [c for c in columns if c.name in (*roles.numeric, *roles.categorical)]
    return {
        name: f"it tells the label: it alone {what}; is it known only after the order?"
        for name, what in leaking(features, y, form).items()
    }


def _names(content: Mapping[str, Any]) -> set[str]:
    """The columns that the map gives a role."""
    single = ("id", "label", "time", "entity", "entity_time", "segment", "email_domain", "oracle")
    several = ("text", "secondary_text", "numeric", "categorical", "groups")
    listed = [name for key in several for name in content.get(key) or ()]
    return {*listed, *(content[key] for key in single if content.get(key))}


def _check(content: Mapping[str, Any]) -> None:
    """Raise ValueError in plain words where what is given makes no map."""
    try:
        ColumnMap(**content)
    except ValidationError as error:
        raise ValueError(
            f"what is given makes no column map: {explain(error, ColumnMap.model_fields)}"
        ) from None
