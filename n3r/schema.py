"""What the columns of a table mean, whether a table fits, and how to show its text safely.

Decisions:
- The code knows roles (id, text, label, time, ...), never names: a user with other columns writes a
  JSON column map, not code.
- A feature is numeric because the map lists it, or because "*" stands for every other numeric or
  boolean column. Roles, text, categorical, `ignore` and `oracle` columns never hide behind "*".
- Features are an ordered list, never a set: set order changes from process to process (defect 39).
- `check` names every misfit at once. It shows a column of the table only if it resembles a wanted one:
  without a header row the first row, a person's name and e-mail, is read as the header.
- `mask` maps each character to one stand-in for its class, so that its output says nothing about
  which letter or digit stood there.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from n3r.files.dialect import Dialect
from n3r.files.json_io import MAX_TOLD, explain, near, read_json
from n3r.rows.numbers import NumberFormat
from n3r.rows.times import format_problem
from n3r.rows.values import is_text, is_value, text_of

MISSING = "[MISSING]"  # stands for a null text field
SEPARATOR = "|"  # stands between two text fields
# What n3r adds to a table of users' columns has names that begin so: users' own may be called anything else.
OWN = "n3r:"
TIME, SEGMENT, LABEL, TEXT, ORACLE = (OWN + name for name in ("time", "segment", "label", "text", "oracle_p"))
SCORE, CALIBRATED, KEY, AMOUNT = (OWN + name for name in ("score", "p_calibrated", "id", "amount"))
ROW = OWN + "row"
FILE_COLUMN = OWN + "file"  # name of the file a row came from, where the map has split_files
SPLITS = ("train", "val", "test")
EVERY_OTHER = "*"  # in `numeric`: every other numeric or boolean column
MAX_CLASSES = 128  # a class is kept in 8 bits
MAX_SHAPE = 40  # characters of a cell whose shape a message shows
SCHEMA_KEY = "$schema"
NUMBERS = (
    "how text writes numbers: en 1,234.56, de 1.234,56, fr 1 234,56, ch 1'234.56, plain 1234.56, each also "
    "with a currency, a percent sign or negative in parentheses; null: plain numbers alone"
)


def _key(default: Any, says: str) -> Any:
    return Field(default, description=says)


class ColumnMap(BaseModel):
    """Which column plays which role.

    Raises pydantic's ValidationError (a ValueError) on an unknown key or on roles that contradict
    each other; `from_file` turns it into one plain message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = _key(..., "one value an order; of two rows with one id the earlier is kept")
    text: list[str] = _key(..., "identity strings, in the order they are joined")
    secondary_text: list[str] = _key([], "a second text, which trimodal classes read apart")
    label: str = _key(..., "raw label column")
    label_values: dict[str, int] = _key(..., 'raw label as text -> class 0, 1, ..; "": rows without one')
    other_labels: Literal["error", "drop"] = _key("error", "rows whose label is not in label_values")
    time: str | None = _key(None, "the time the split is made by")
    time_format: str | None = _key(None, 'strptime format, "epoch" (seconds), null: a date or ISO text')
    entity: str | None = _key(None, "whose first order is kept, the customer")
    entity_time: str | None = _key(None, "tells an entity's first order; null: `time`")
    entity_time_format: str | None = _key(None, "as time_format")
    segment: str | None = _key(None, "counts and metrics are also given by its values")
    email_domain: str | None = _key(None, "where internal_domains are looked for")
    internal_domains: list[str] = _key([], 'names such as "amazon": x.amazon.com and amazon.co.uk match')
    numeric: list[str] = _key([], 'ordered features; "*": every other numeric or boolean column')
    categorical: list[str] = _key([], "kept as text, for risk tables")
    groups: list[str] = _key([], "metrics are also given by their values; no feature, may be absent")
    ignore: list[str] = _key([], "never a feature, need not be present")
    amount: str | None = _key(None, "what an order is worth, by which a missed fraud costs; may be a feature")
    oracle: str | None = _key(None, "true probability of synthetic data, never a feature")
    split_files: dict[str, str] = _key({}, "file-name pattern -> split, for data with a split of its own")
    split_by: Literal["time", "random"] = _key("time", "how the rest is split")
    csv: Dialect = _key(Dialect(), "how files of CSV and TSV are written")
    number_format: NumberFormat | None = _key(None, NUMBERS)

    @model_validator(mode="before")
    @classmethod
    def _without_schema(cls, content: Any) -> Any:
        """The keys but "$schema", by which an editor finds the JSON Schema of maps."""
        if isinstance(content, dict) and isinstance(content.get(SCHEMA_KEY), str):
            return {key: value for key, value in content.items() if key != SCHEMA_KEY}
        return content

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._label_problems(), *self._name_problems(), *self._role_problems()]
        problems += self._format_problems()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _label_problems(self) -> list[str]:
        classes = sorted(set(self.label_values.values()))
        if len(classes) < 2 or classes != list(range(len(classes))):
            found = ", ".join(f"{c:.6g}" for c in classes[:MAX_TOLD]) + ", .." * (len(classes) > MAX_TOLD)
            return [f"label_values must use the classes 0, 1, ... (two or more), found [{found}]"]
        if len(classes) > MAX_CLASSES:
            return [f"label_values names {len(classes)} classes, at most {MAX_CLASSES} are possible"]
        return [
            f"label_values has {text_of(key)!r} twice, in two classes"
            for key, c in self.label_values.items()
            if self.classes[text_of(key)] != c
        ]

    def _name_problems(self) -> list[str]:
        problems = [] if self.text else ["text must name at least one column"]
        for key in ("text", "secondary_text", "numeric", "categorical", "groups"):
            names = getattr(self, key)
            twice = sorted({name for name in names if names.count(name) > 1})
            problems += [f"{key} names {name!r} twice" for name in twice]
        needed = [*self.roles.values(), *self.all_text, *self.categorical, *self.groups, self.oracle]
        every = dict.fromkeys([*needed, *self.declared_numeric, self.amount])
        problems += [f"{name!r} {PATTERN}" for name in every if name is not None and is_pattern(name)]
        problems += own_names(name for name in every if name is not None)
        if self.amount is not None and self.amount in needed:
            problems.append(f"{self.amount!r} is the amount and also has another role")
        for name in self.numeric:
            if name in needed or name in self.ignore:
                problems.append(f"{name!r} is listed as numeric and also has another role")
        return problems + [f"{n!r} is ignored and also has a role" for n in self.ignore if n in needed]

    def _role_problems(self) -> list[str]:
        problems = []
        if self.label in (*self.all_text, *self.categorical):
            problems.append(f"{self.label!r} is the label and also an input")
        if self.split_by == "time" and self.time is None:
            problems.append('split_by "time" needs `time`; name that column or use "random"')
        if self.internal_domains and self.email_domain is None:
            problems.append("internal_domains needs `email_domain`")
        if any(not name.strip(". ") for name in self.internal_domains):
            problems.append("internal_domains holds an empty name")
        if self.entity_time is not None and self.entity is None:
            problems.append("entity_time needs `entity`")
        wrong = [split for split in self.split_files.values() if split not in SPLITS]
        problems += [f"split_files names the split {name!r}, not one of {SPLITS}" for name in wrong]
        return problems

    def _format_problems(self) -> list[str]:
        keys = ("time_format", "entity_time_format")
        wrong = {key: format_problem(getattr(self, key)) for key in keys}
        return [f"{key} {problem}" for key, problem in wrong.items() if problem]

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Column map of a JSON file.

        Raises FileNotFoundError, or ValueError naming the file and every key at fault.
        """
        path = Path(path)
        try:
            content = read_json(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"no column map at {path}; write one, see configs/") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold one JSON object, found {type(content).__name__}")
        try:
            return cls(**content)
        except ValidationError as error:
            known = [*cls.model_fields, *(f"csv.{key}" for key in Dialect.model_fields)]
            raise ValueError(f"{path}: {explain(error, known)}") from None

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of maps, which configs/column_map.schema.json holds for editors."""
        content = cls.model_json_schema() | {"title": "n3r column map", "description": "What columns mean."}
        content["properties"][SCHEMA_KEY] = {"type": "string", "description": "where this schema is"}
        return {SCHEMA_KEY: "https://json-schema.org/draft/2020-12/schema", **content}

    @property
    def roles(self) -> dict[str, str]:
        """Role -> column, for the single-column roles that are set and must be present."""
        keys = ("id", "label", "time", "entity", "entity_time", "segment", "email_domain")
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}

    @property
    def times(self) -> list[tuple[str, str | None]]:
        """(column, format) of each column of times."""
        pairs = [(self.time, self.time_format), (self.entity_time, self.entity_time_format)]
        return [(name, form) for name, form in pairs if name is not None]

    @property
    def all_text(self) -> list[str]:
        """Text columns of both kinds."""
        return [*self.text, *self.secondary_text]

    @property
    def values(self) -> list[str]:
        """Columns whose values are texts to the code, whatever their type; not those that are times, too."""
        keys = ("id", "label", "entity", "segment", "email_domain")
        named = [name for key, name in self.roles.items() if key in keys]
        times = (self.time, self.entity_time)
        return [n for n in [*named, *self.all_text, *self.categorical, *self.groups] if n not in times]

    @property
    def n_classes(self) -> int:
        """How many classes the labels have."""
        return len(set(self.label_values.values()))

    @property
    def classes(self) -> dict[str, int]:
        """The class of each raw label, as `values.as_text` gives it."""
        return {text_of(key): c for key, c in self.label_values.items()}

    @property
    def splits_by_time(self) -> bool:
        """Whether later rows are split off, not drawn at random nor given as files."""
        return self.split_by == "time" and not self.split_files

    @property
    def declared_numeric(self) -> list[str]:
        """The numeric columns named one by one, in order, without "*"."""
        return [name for name in self.numeric if name != EVERY_OTHER]

    def may_be_feature(self, name: str) -> bool:
        """Whether "*" may stand for this column, its type apart."""
        other = [*self.all_text, *self.categorical, *self.groups, *self.ignore, *self.numeric]
        return name not in (*self.roles.values(), *other, self.oracle, FILE_COLUMN)

    def resolve_numeric(self, schema: Mapping[str, pl.DataType]) -> Self:
        """The same map with "*" written out, in the order of `schema`."""
        if EVERY_OTHER not in self.numeric:
            return self
        others = [name for name, kind in schema.items() if is_number(kind) and self.may_be_feature(name)]
        others = [name for name in others if not is_nameless(name)]
        at = self.numeric.index(EVERY_OTHER)
        numeric = [*self.numeric[:at], *others, *self.numeric[at + 1 :]]
        return self.model_copy(update={"numeric": numeric})

    def missing_from(self, names: Iterable[str]) -> list[str]:
        """One phrase for each required column that `names` lacks, with the nearest names there."""
        names = list(names)
        lacking = [(n, r) for n, r, _ in _wanted(self) if n not in names]
        return [f"{name!r} ({role}) is missing{near(name, names)}" for name, role in lacking]


def plain(name: str) -> str:
    """What a column of n3r's own is called in files and reports for people: "n3r:label" is "label"."""
    return name.removeprefix(OWN)


def own_names(names: Iterable[str]) -> list[str]:
    """One phrase for each name that only a column of n3r's own may have."""
    return [
        f"{name!r} begins with {OWN!r}, as n3r's own do: rename it" for name in names if name.startswith(OWN)
    ]


def probabilities(table: pl.DataFrame, kind: str = "score") -> np.ndarray:
    """Class probabilities (N, C) of a table of predictions or scores: of `score`, or of `score_0` and so on.

    `kind` is "score" or "p_calibrated".
    """
    n_classes = sum(re.fullmatch(rf"{kind}_\d+", name) is not None for name in table.columns)
    if n_classes:
        return table.select(f"{kind}_{c}" for c in range(n_classes)).to_numpy()
    p = table[kind].to_numpy()
    return np.column_stack([1 - p, p])


def id_name(id: str) -> str:
    """The id column's name in score files and predictions: its own, or "id" where others are called so."""
    return plain(KEY) if _PREDICTED.fullmatch(id) else id


_PREDICTED = re.compile(r"segment|time|label|oracle_p|amount|percentile|(score|p_calibrated)(_\d+)?")
PATTERN = "is a name that polars takes for a pattern of names: rename the column"


def is_nameless(name: str) -> bool:
    """Whether a column has no name of its own: row numbers that pandas or R writes with a table."""
    return re.fullmatch(r"\s*|Unnamed: \d+(\.\d+)*|__index_level_\d+__|\.\.\.\d+", name) is not None


def is_pattern(name: str) -> bool:
    """Whether polars takes the name of a column for a pattern of names."""
    return name == EVERY_OTHER or (name.startswith("^") and name.endswith("$"))


def is_number(kind: pl.DataType) -> bool:
    """Whether a column of the type can be a feature."""
    return kind.is_numeric() or kind == pl.Boolean


def _is_date(kind: pl.DataType) -> bool:
    return kind == pl.Date or kind == pl.Datetime


# kind of column -> (whether a type fits, in words). A column of type Null is all missing: it fits.
_KINDS = {
    "text": (is_text, "text"),
    "number": (is_number, "a number or boolean"),
    "key": (lambda kind: is_text(kind) or kind.is_numeric(), "text or a number"),
    "value": (is_value, "text, a number, boolean or date"),
    "epoch": (
        lambda kind: _is_date(kind) or is_text(kind) or kind.is_numeric(),
        "epoch seconds as a number or text, or a date",
    ),
    "time": (lambda kind: _is_date(kind) or is_text(kind), "a date, or text in the map's format"),
}


def _wanted(column_map: ColumnMap) -> list[tuple[str, str, str]]:
    """(column, role, kind) of every column that must be there."""
    kinds = {"id": "key", "entity": "key", "email_domain": "text"}
    for role in ("time", "entity_time"):
        kinds[role] = "epoch" if getattr(column_map, f"{role}_format") == "epoch" else "time"
    wanted = [(name, role, kinds.get(role, "value")) for role, name in column_map.roles.items()]
    wanted += [(name, "text", "text") for name in column_map.all_text]
    wanted += [(name, "numeric", "number") for name in column_map.declared_numeric]
    wanted += [(name, "categorical", "value") for name in column_map.categorical]
    wanted += [(name, "amount", "number") for name in [column_map.amount] if name is not None]
    if column_map.split_files:
        wanted.append((FILE_COLUMN, "split_files, made by tables.scan", "text"))
    return wanted


def check(frame: pl.LazyFrame | pl.DataFrame, column_map: ColumnMap) -> None:
    """Whether a table has the columns the map names, with fitting types.

    Raises ValueError naming every missing, mistyped and clashing column at once.
    """
    schema = frame.collect_schema()
    problems = column_map.missing_from(schema)
    wanted = _wanted(column_map)
    if column_map.oracle in schema:
        wanted.append((column_map.oracle, "oracle", "number"))
    wanted += [(name, "groups", "value") for name in column_map.groups]
    for name, role, kind in wanted:
        fits, words = _KINDS[kind]
        if name in schema and schema[name] != pl.Null and not fits(schema[name]):
            problems.append(f"{name!r} ({role}) is {schema[name].base_type()}, expected {words}")
    problems += own_names(name for name in schema if name != FILE_COLUMN or not column_map.split_files)
    numeric = column_map.resolve_numeric(schema).numeric
    problems += [f"{name!r} (numeric) {PATTERN}" for name in numeric if is_pattern(name)]
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(
            f"the table ({len(schema)} columns) does not fit the column map:{listed}\n"
            "Give a column map with this table's names (see configs/); a CSV needs a header row."
        )


def joined_text(fields: Sequence[str]) -> pl.Expr:
    """The text fields of a row as one text: what the legacy reads, and people."""
    present = [pl.col(name).fill_null(MISSING) for name in fields]
    return pl.concat_str(present, separator=SEPARATOR).alias(TEXT)


# Stand-ins (upper, lower or caseless) by the first word of a character's Unicode name.
_SCRIPTS = {
    "LATIN": "Aa", "FULLWIDTH": "Aa", "CYRILLIC": "Яя", "GREEK": "Ωω", "CJK": "漢漢",
    "HIRAGANA": "ああ", "KATAKANA": "アア", "HALFWIDTH": "アア", "HANGUL": "한한",
    "ARABIC": "عع", "HEBREW": "אא", "DEVANAGARI": "अअ", "THAI": "กก",
}  # fmt: skip
_KEPT = frozenset("@.-|:/_+,' ")


def mask(text: str) -> str:
    """The shape of a text: "Ana Smith 7" -> "Aaa Aaaaa 9".

    Letters become one stand-in for their script and case, digits 9, white space a blank; the
    characters @ . - | : / _ + , ' and the marker [MISSING] stay, combining marks go, the rest is *.
    """
    return MISSING.join("".join(_stand_in(character) for character in part) for part in text.split(MISSING))


def _stand_in(character: str) -> str:
    if character in _KEPT:
        return character
    category = unicodedata.category(character)
    if category[0] == "L":
        script = unicodedata.name(character, "").split(" ")[0].split("-")[0]
        upper, lower = _SCRIPTS.get(script, "Xx")
        return upper if category in ("Lu", "Lt") else lower
    if category[0] == "N":
        return "9"
    if category[0] == "M":
        return ""
    return " " if character.isspace() else "*"
