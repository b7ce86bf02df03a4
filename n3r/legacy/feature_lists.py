"""The legacy's lists of features, one file a region, and the column map that they come to.

Decisions:
- As in the legacy, the features are the columns that every list names and that the rows have as numbers.
- What is left out is told, with the reason; the legacy dropped it without a word (defect 38).

NOTE[DIFF] they stand in the order of the first list, where the legacy's changed with the process (defect 39).
"""

from collections.abc import Sequence
from pathlib import Path

from n3r.files.atomic import atomic_file
from n3r.files.json_io import read_json
from n3r.schema import EVERY_OTHER, ColumnMap
from n3r.tables import scan


def read_feature_list(path: Path) -> list[str]:
    """Column names of a list in JSON, or in lines after `#` comments: `name`, or `index,name` from 0 on.

    Raises FileNotFoundError, or ValueError naming the file and what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of column names")
    try:
        names = read_json(path) if path.suffix == ".json" else _names(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a list of columns: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} is not a list of column names")
    return names


def write_feature_list(path: Path, names: Sequence[str]) -> None:
    """Write column names as the legacy has them, one a line; ValueError names one that no line can hold."""
    if wrong := [name for name in names if _names(name) != [name]]:
        raise ValueError(f"a line of {path} cannot hold the column name {wrong[0]!r}: rename the column")
    with atomic_file(path) as aside:
        aside.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def common_features(paths: Sequence[Path]) -> list[str]:
    """The columns that all lists name, in the order of the first; ValueError where there are none."""
    lists = [read_feature_list(path) for path in paths]
    common = [name for name in dict.fromkeys(lists[0]) if all(name in names for names in lists[1:])]
    if not common:
        raise ValueError(f"no column is named by all of {', '.join(map(str, paths))}")
    return common


def with_features(
    column_map: ColumnMap, names: Sequence[str], data: Sequence[str] = ()
) -> tuple[ColumnMap, dict[str, str]]:
    """The map with these columns as its numeric ones, and why others of them are left out.

    A column with another role in the map is left out, and with `data`, raw rows, also one that these lack or
    that holds no numbers. Raises as `scan`, and ValueError where no column is left.
    """
    open_map = column_map.model_copy(update={"numeric": [EVERY_OTHER]})
    reasons = {name: "it has another role in the map" for name in names if not open_map.may_be_feature(name)}
    numeric = [name for name in names if name not in reasons]
    if data:
        source = scan(data, open_map)
        schema = source.frame.collect_schema()
        found = set(open_map.resolve_numeric(schema).numeric)
        absent = {name: source.left_out.get(name, "the rows do not have it") for name in numeric}
        reasons |= {name: why for name, why in absent.items() if name not in found}
        numeric = [name for name in numeric if name in found]
    if not numeric:
        raise ValueError(f"none of the {len(names)} listed columns can be a feature of these rows")
    return column_map.model_copy(update={"numeric": numeric}), {n: reasons[n] for n in names if n in reasons}


def _names(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    numbered = [line.partition(",") for line in lines]
    if all(comma and index == str(i) for i, (index, comma, _) in enumerate(numbered)):
        return [name for _, _, name in numbered]
    return lines
