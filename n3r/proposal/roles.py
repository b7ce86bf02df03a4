"""Which column plays which role of the column map, and why each other column plays none.

Decisions:
- Each column gets one role; only a segment is a category, too. What the map's owner gives is not looked
  for.
- The label is chosen first, then id, time, customer and segment, then texts and features. What is left is
  ignored, with a reason each.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from n3r.proposal import labels
from n3r.proposal.kinds import FEW_SHARE, MANY, NEARLY, Column
from n3r.proposal.words import means, names_amount
from n3r.schema import is_nameless

_NAMES = 3  # candidates for the id
_COUNTRY = r"^[A-Z]{2}$"
_LEFT_OUT = {
    "nothing": "no row has a value",
    "one value": "all rows have one value",
    "time": "a time that is not the order's",
    "address": "an address: name it in `text` to read it",
    "prose": "long text: name it in `secondary_text` to read it",
    "words": "too many different texts for a category",
    "email": "an e-mail address that is not read",
    "category": "nearly every row has a category of its own",
}


@dataclass(frozen=True)
class Roles:
    """Columns by role, by name."""

    label: str
    rivals: list[str]  # other columns that may as well be the label
    ids: list[str]  # that may be the id, the likeliest first
    time: str | None
    entity: str | None
    segment: str | None
    text: list[str]
    numeric: list[str]
    categorical: list[str]
    groups: list[str]
    amount: str | None  # one of `numeric`
    ignore: dict[str, str] = field(default_factory=dict)  # column -> why it is left out


def assign(columns: Sequence[Column], given: Mapping[str, object]) -> Roles:
    """The roles of a table's columns; `given` are values of the map that its owner has chosen.

    Raises ValueError where no column can be the label, the id or a text.
    """
    left = {c.name: c for c in columns if not is_nameless(c.name)}
    ignore = {c.name: "no name of its own, as row numbers have" for c in columns if c.name not in left}
    known = {None, *left, *ignore}
    if unknown := [name for name in (*_named(given), given.get("amount")) if name not in known]:
        raise ValueError(f"there is no column {unknown[0]!r}; the columns are {', '.join(map(repr, left))}")
    reserved = set(_named(given))

    def take(names: Iterable[str]) -> list[str]:
        return [name for name in names if left.pop(name, None) is not None]

    def free(kinds: str) -> list[Column]:
        return [c for c in left.values() if c.kind in kinds.split("|") and c.name not in reserved]

    likely = (
        [given["label"]]
        if "label" in given
        else _labels([c for c in columns if c.name in left and c.name not in reserved])
    )
    label, rivals = likely[0], likely[1:]
    take([label])
    rivals = [name for name in rivals if name in left]
    ids = [given["id"]] if "id" in given else _ids(free("code|number|words|category"))
    # Row numbers, where nothing else tells rows apart.
    ids = ids or _ids([c for c in columns if c.name in ignore])
    if not ids:
        raise ValueError(
            "no column has a value of its own in every row, as an order's number has: add one, or name the "
            "one that is meant with -p id=COLUMN"
        )
    ignore.pop(ids[0], None)
    take(ids[:1])
    time = _one(given, "time", _time(free("time")))
    entity = _one(given, "entity", _entity(free("code|number|category|words")))
    segment = _one(given, "segment", _segment(free("category")))
    take(name for name in (time, entity, segment) if name)
    groups = _several(given, "groups", [c.name for c in free("category") if means(c.name, "group")])
    take(groups)
    text = _several(given, "text", _texts(free("email|person|words|prose|address|code")))
    take(text)
    features = [name for name in _several(given, "numeric", [c.name for c in free("number")]) if name != "*"]
    categorical = _several(given, "categorical", [c.name for c in free("category|code") if _is_category(c)])
    take([*features, *categorical])
    if "numeric" not in given:
        counting = [c.name for c in columns if c.name in features and c.counts_rows]
        ignore |= dict.fromkeys(counting, "it counts the rows")
        features = [name for name in features if name not in counting]
    amount = _one(given, "amount", _amount([c for c in columns if c.name in features]))
    if segment and "categorical" not in given:
        categorical = [c.name for c in columns if c.name in (*categorical, segment)]
    ignore |= {
        name: _reason(column)
        for name, column in left.items()
        if name not in reserved or name in given.get("ignore", ())
    }
    return Roles(
        label, rivals, ids, time, entity, segment, text, features, categorical, groups, amount, ignore
    )


def _named(given: Mapping[str, object]) -> list[str]:
    """The columns that the map's owner names."""
    single = ("label", "id", "time", "entity", "entity_time", "segment", "email_domain", "oracle")
    several = ("text", "secondary_text", "numeric", "categorical", "groups", "ignore")
    found = [given[key] for key in single if isinstance(given.get(key), str)]
    found += [name for key in several for name in given.get(key, ()) if name != "*"]
    return list(dict.fromkeys(found))


def _one(given: Mapping[str, object], key: str, found: str | None) -> str | None:
    return given.get(key, found)


def _several(given: Mapping[str, object], key: str, found: list[str]) -> list[str]:
    return list(given[key]) if key in given else found


def _labels(columns: Sequence[Column]) -> list[str]:
    """The column that is the label, then those that may as well be it; ValueError where none may."""
    most = {"number": 2, "code": 2, "category": labels.MAX_VALUES, "words": labels.MAX_VALUES, "one value": 1}
    few = [c for c in columns if c.n_values <= most.get(c.kind, 0)]
    if len(few) > 1:
        few = [c for c in few if c.n_values > 1 or c.n_filled < len(c.texts)]
    found = {c.name: labels.points(c.name, c.counts(), c.name == columns[-1].name) for c in few}
    ranked = sorted(found, key=found.__getitem__, reverse=True)
    if not ranked or found[ranked[0]] < labels.POSSIBLE:
        raise ValueError(
            "no column looks like a label, which has two values such as yes and no, or fraud and legit: name "
            "it with -p label=COLUMN"
        )
    best = found[ranked[0]]
    return [name for name in ranked if found[name] >= max(best - labels.AHEAD, labels.POSSIBLE)]


def _ids(columns: Sequence[Column]) -> list[str]:
    """The columns that may tell rows apart, the likeliest first."""

    def rank(column: Column) -> tuple:
        is_own = means(column.name, "id") or means(column.name, "order")
        is_customers = means(column.name, "customer") and not means(column.name, "order")
        return (
            column.is_unique,
            is_own and not is_customers,
            means(column.name, "order") + means(column.name, "id"),
            column.kind == "code",
            -columns.index(column),
        )

    def may_be(column: Column) -> bool:
        known = column.texts.drop_nulls()
        is_key = column.kind == "code" or known.str.contains(r"^[^\s.,]+$").all()
        named = means(column.name, "id") or means(column.name, "order")
        is_whole = column.kind != "number" or known.str.contains(r"^-?\d+(\.0)?$").all()
        most = column.n_values > (0.5 if named else 0.95) * len(column.texts)
        return is_key and is_whole and most and column.kind != "person"

    found = sorted(filter(may_be, columns), key=rank, reverse=True)
    return [column.name for column in found[:_NAMES]]


def _time(columns: Sequence[Column]) -> str | None:
    """The column of the order's time: filled in nearly every row, and called so."""

    def rank(column: Column) -> tuple:
        points = (
            1 * means(column.name, "time") + 2 * means(column.name, "order") - 2 * means(column.name, "later")
        )
        has_clock = column.texts.drop_nulls().str.contains(r":\d\d|\d{9}").mean() > 0.5
        return (points, has_clock, column.n_values, -columns.index(column))

    whole = [c for c in columns if c.n_filled >= NEARLY * len(c.texts) and not means(c.name, "birth")]
    return max(whole, key=rank).name if whole else None


def _entity(columns: Sequence[Column]) -> str | None:
    """The column of customers' numbers."""
    found = [
        c
        for c in columns
        if means(c.name, "customer")
        and (c.kind == "code" or means(c.name, "id"))
        and not re.search(r"(?i)agent|age|type|segment|group|since|country|tier|status", c.name)
        and c.n_values > 0.1 * len(c.texts)
    ]
    return found[0].name if found else None


def _amount(columns: Sequence[Column]) -> str | None:
    """The column of what the order is worth, where the name of one alone says so."""

    def is_worth(column: Column) -> bool:
        is_negative = column.texts.str.contains(r"^\s*[(-]").any()
        return column.n_filled >= NEARLY * len(column.texts) and column.n_values > 2 and not is_negative

    found = [column.name for column in columns if names_amount(column.name) and is_worth(column)]
    return found[0] if len(found) == 1 else None


def _segment(columns: Sequence[Column]) -> str | None:
    """The column whose values rows are also judged by: countries, else markets or shops."""

    def points(column: Column) -> float:
        is_country = column.texts.drop_nulls().str.contains(_COUNTRY).mean() > NEARLY
        return 2.0 * is_country + means(column.name, "segment") + 0.5 * (column.n_values <= 60)

    found = max(columns, key=points, default=None)
    return found.name if found is not None and points(found) > 1 else None


def _texts(columns: Sequence[Column]) -> list[str]:
    """E-mail addresses, then names in the file's order; without any, the longest texts.

    Raises ValueError where there are none.
    """
    found = [c.name for c in columns if c.kind == "email"] + [c.name for c in columns if c.kind == "person"]
    if found:
        return found
    longest = sorted(columns, key=lambda c: c.texts.str.len_chars().mean() or 0, reverse=True)
    for kinds in (("prose", "words"), ("address", "code")):
        if names := [c.name for c in longest if c.kind in kinds][:1]:
            return [
                c.name for c in columns if c.name in names or (c.kind == "words" and means(c.name, "name"))
            ]
    raise ValueError(
        "no column holds names, e-mail addresses or other texts, which n3r learns from: name one with "
        "-p 'text=[\"COLUMN\"]'"
    )


def _is_category(column: Column) -> bool:
    return column.kind == "category" or column.n_values <= min(MANY, FEW_SHARE * column.n_filled)


def _reason(column: Column) -> str:
    if column.kind == "code":
        return f"{column.what}: {column.n_values:,} different ones in {column.n_filled:,} rows looked at"
    return column.what or _LEFT_OUT.get(column.kind, "no role")
