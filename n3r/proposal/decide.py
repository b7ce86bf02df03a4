"""What is decided when all rows have been counted: id, times, customers, classes, and notes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from n3r.proposal import labels
from n3r.proposal.counts import Counts
from n3r.proposal.dates import ENOUGH, choose
from n3r.proposal.kinds import Column
from n3r.proposal.questions import Answers, Question

ONE_EACH = 0.5  # customers by rows, from which a customer's number becomes the entity
_SPLITS = {"train": "train", "val": "val", "valid": "val", "dev": "val", "test": "test"}


def id_of(ids: Sequence[str], counts: Counts) -> str:
    """The first candidate that has a value of its own in every row, else in most."""
    return max(
        ids, key=lambda name: (round(counts.different[name] / max(1, counts.n_rows), 2), -ids.index(name))
    )


def entity_of(name: str | None, counts: Counts) -> tuple[str | None, str]:
    """The column of customers, or why it is none: all rows of a customer but the first would be dropped."""
    if name is None or counts.different[name] >= ONE_EACH * counts.filled[name]:
        return name, ""
    n_rows, n = counts.filled[name], counts.different[name]
    return None, f"{n_rows:,} rows of {n:,} customers: as `entity` it would keep the first row of each alone"


def time_format_of(
    name: str | None, columns: Sequence[Column], counts: Counts, answers: Answers
) -> tuple[str | None, str]:
    """The format that reads all rows' times, asked for where two do, and what to say of the choice."""
    column = next((column for column in columns if column.name == name), None)
    if column is None or column.is_typed:
        return None, ""
    fewest = min(counts.times[name, form].n for form in column.formats)
    formats = [form for form in column.formats if counts.times[name, form].n <= max(fewest, 0)]
    others = [
        form
        for other in columns
        if other.name != name
        for form in other.formats[:1]
        if len(other.formats) == 1
    ]
    found = choose(column.texts, formats, others)
    if not found.is_open:
        note = f"{name!r} is read by {found.formats[0]!r}: {found.reason}" if found.reason else ""
        return answers.given.get("time_format", found.formats[0]), note
    says = f"Every {name!r} can be read with the day first or the month first."
    return answers.of(Question("time_format", says, {str(form): form for form in found.formats})), ""


def classes_of(name: str, counts: Counts, answers: Answers) -> labels.Classes:
    """The classes of the label's values in all rows; ValueError where they are too many for a label."""
    if "label_values" in answers.given:
        return labels.Classes(answers.given["label_values"], [], None)
    if len(counts.labels) > 4 * labels.MAX_VALUES:
        raise ValueError(
            f"the column {name!r} has more than {4 * labels.MAX_VALUES} different values: which column is "
            "the label? name it with -p label=COLUMN"
        )
    found = labels.classes(name, counts.labels)
    if len(found.values) < 2:
        raise ValueError(
            f"the column {name!r} has one value in every row: which column is the label? -p label=COLUMN"
        )
    if found.doubt and len(found.values) == 2:
        other = {value: 1 - c for value, c in found.values.items()}
        pairs = {_words(values): values for values in (found.values, other)}
        says = f"The values of the label {name!r}: {found.doubt}."
        return found._replace(values=answers.of(Question("label_values", says, pairs)))
    if found.doubt:
        answers.guesses.append(f"The label {name!r}: {found.doubt} (-p label_values=..).")
    return found._replace(values=dict(sorted(found.values.items(), key=lambda item: item[1])))


def _words(values: Mapping[str, int]) -> str:
    return ", ".join(f"{value or 'no value'} is {c}" for value, c in values.items())


def split_files_of(files: Iterable[Path]) -> dict[str, str]:
    """Patterns of files that bring a split of their own, by their names, where all do."""
    found = {}
    for path in files:
        stem = path.name.lower().partition(".")[0]
        split = next(
            (split for word, split in _SPLITS.items() if stem.startswith(word) or stem.endswith(word)), None
        )
        found[path.name] = split
    splits = set(found.values())
    return found if None not in splits and {"train", "test"} <= splits else {}


def notes_of(content: Mapping[str, Any], counts: Counts, label: labels.Classes) -> list[str]:
    """What is to be known of the rows, a sentence each."""
    notes = [
        f"{counts.n_lost:,} of {counts.n_rows:,} rows cannot be read: {reason}" for reason in counts.lost[:1]
    ]
    id, time = content["id"], content.get("time")
    repeated = counts.filled[id] - counts.different[id] if id in counts.filled else 0
    if repeated:
        notes.append(
            f"{repeated:,} of {counts.n_rows:,} rows repeat an {id!r}, and only the first of each is kept: "
            "is it the id? -p id=COLUMN"
        )
    blank = sum(n for value, n in counts.labels.items() if not value)
    if blank and "" not in label.values:
        notes.append(f"{blank:,} rows have no label and are dropped")
    if label.dropped:
        n = sum(counts.labels[value] for value in label.dropped)
        notes.append(
            f"{n:,} rows have a label that decides nothing and are dropped: {_listed(label.dropped)}"
        )
    if time is None and "split_files" not in content:
        notes.append("no column is the time of the orders: rows are split at random, not by time")
    bad = counts.times.get((time, content.get("time_format")))
    if bad is not None and bad.n:
        fatal = " (more than 1 %: mend them)" if bad.n > (1 - ENOUGH) * counts.n_rows else " and are dropped"
        notes.append(f"{bad.n:,} rows have no readable {time!r}{fatal}: {bad.first}")
    return notes


def _listed(values: Sequence[str]) -> str:
    return ", ".join(repr(value[:20]) for value in values)
