"""Tables of scored rows: read from runs and score files, given their labels, and matched by id.

Decisions:
- Of more than two classes a table has a score of each beside one score, the risk of any class but 0: figures
  are of each class against the rest, decisions of class 0 against the rest (`as_two`).
- A table has an id (text), a score and, where known, label, segment, time, oracle_p, amount and p_calibrated,
  under n3r's own names (`schema.OWN`), so that users' columns can stand beside them. Files have plain names.
- All readers of such tables check here: ids are unique, scores are numbers, two tables hold the same ids.
  Messages give counts, never an id.
- Labels come with the scores, or from the raw orders through their column map, as in training.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import polars as pl

from n3r.files.formats import SUFFIXES, format_of
from n3r.files.json_io import near
from n3r.files.limits import MAX_EXPANSION
from n3r.preprocess import PrepareConfig, check_times
from n3r.rows.accounts import DROP, ENTITY, ENTITY_TIME, cells
from n3r.rows.chunks import read_frames
from n3r.rows.keys import mark_rows, select_wide
from n3r.rows.numbers import number
from n3r.rows.times import parse_time
from n3r.rows.values import as_text
from n3r.schema import (
    AMOUNT,
    CALIBRATED,
    KEY,
    LABEL,
    ORACLE,
    OWN,
    SCORE,
    SEGMENT,
    TIME,
    ColumnMap,
    check,
    is_nameless,
    is_pattern,
    plain,
)
from n3r.tables import scan

OPTIONAL = (LABEL, SEGMENT, TIME, ORACLE, AMOUNT, CALIBRATED)
NUMBERS = (SCORE, LABEL, CALIBRATED, ORACLE, AMOUNT)
_is_of_class = re.compile(rf"({SCORE}|{CALIBRATED})_\d+").fullmatch


def named(predictions: pl.DataFrame) -> pl.DataFrame:
    """A table of plain names, such as predictions, under n3r's own, which one may have already."""
    if any(name.startswith(OWN) for name in predictions.columns):
        return _with_risk(predictions)
    names = {plain(name): name for name in (KEY, SCORE, *OPTIONAL)}
    names |= {name: OWN + name for name in predictions.columns if _is_of_class(OWN + name)}
    return _with_risk(predictions.rename(names, strict=False))


def beside(rows: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """Prepared rows with the scores that `Scorer.score` gave them, its first column, the id, left out."""
    return _with_risk(rows.hstack(scores[:, 1:].rename(lambda name: OWN + name)))


def class_scores(table: pl.DataFrame) -> np.ndarray:
    """The scores of a table under n3r's own names: (N,), or (N, C) of more than two classes."""
    names = _of_classes(SCORE, SCORE, table.columns)
    return table.select(list(names)).to_numpy() if names else table[SCORE].to_numpy()


def as_two(table: pl.DataFrame) -> pl.DataFrame:
    """A table of more than two classes as class 0 against the rest; one of two classes as it is.

    The known probability of synthetic rows is of one class, and left out. Raises ValueError for labels that
    are none of the classes.
    """
    names = _of_classes(SCORE, SCORE, table.columns)
    if not names:
        return table
    table = table.drop(ORACLE, strict=False)
    if LABEL not in table.columns:
        return table
    if (
        wrong := table.height
        - table[LABEL].cast(pl.Float64).is_in([float(c) for c in range(len(names))]).sum()
    ):
        raise ValueError(
            f"labels: {wrong} of {table.height} are not of the classes 0 to {len(names) - 1} that have scores"
        )
    return table.with_columns((pl.col(LABEL) > 0).cast(pl.Int8))


def scored_models(place: str | Path, score: str = "score", id: str | None = None) -> dict[str, pl.DataFrame]:
    """The scored rows of a score file, of one model of a run (runs/quick/lstm2risk), or of a run's models.

    A run's are those of its test rows. `score` and `id` are names of a file's columns; of more than two
    classes there are `score_0`, `score_1` and so on. Raises FileNotFoundError or ValueError naming the place.
    """
    place = Path(place)
    try:
        is_file = place.is_file()
    except OSError:  # a name too long for any file
        raise FileNotFoundError(f"no score file or run {place}") from None
    if is_file:
        return {place.stem: read_scored(place, score, id)}
    if (place / "predictions").is_dir():
        files = sorted((place / "predictions").glob("*_test.*"))
    else:
        files = sorted((place.parent / "predictions").glob(f"{place.name}_test.*"))
    found = {path.stem.removesuffix("_test"): read_scored(path) for path in files}
    if not found:
        raise FileNotFoundError(
            f"{place} is neither a score file nor a run, or a model of one, with predictions"
        )
    return found


def only_model(place: str | Path, score: str = "score", id: str | None = None) -> pl.DataFrame:
    """The scored rows of a place that holds one model; ValueError names the models where it holds several."""
    found = scored_models(place, score, id)
    if len(found) > 1:
        raise ValueError(
            f"{place} holds {', '.join(found)}: name one, such as {Path(place) / next(iter(found))}"
        )
    return next(iter(found.values()))


def read_scored(
    path: str | Path, score: str = "score", id: str | None = None, max_expansion: float = MAX_EXPANSION
) -> pl.DataFrame:
    """A score file: Parquet, CSV, TSV or JSON lines, as `n3r score` writes them.

    Its id is the column `id` if it has one, else its first, which must have a name: row numbers have none.
    Raises ValueError naming the file where it cannot be read, lacks the column `score`, or holds ids twice,
    rows without an id, scores and labels that are not finite numbers, or more than `max_expansion` times its
    size.
    """
    path = Path(path)
    if format_of(path) is None:
        raise ValueError(f"{path} is not a score file: its name must end in {', '.join(SUFFIXES)}")
    found: list[tuple[str, str]] = []  # a column of the file and what it is here

    def find(schema: Mapping[str, pl.DataType]) -> None:
        if any(map(is_pattern, schema)):
            raise ValueError(f"{path} has columns named as a pattern: rename them")
        key = id if id in schema else next(iter(schema))
        names = [name for name in schema if name != key]
        scores = {score: SCORE} if score in names else _of_classes(score, SCORE, names)
        if not scores:
            raise ValueError(f"{path} has no column {score!r} beside its id{near(score, schema)}")
        if is_nameless(key):
            raise ValueError(
                f"{path}: its first column, the id, has no name, as row numbers have: write it without "
                "them (pandas: index=False), or give the column map that names the id"
            )
        others = {plain(name): name for name in OPTIONAL} | _of_classes(plain(CALIBRATED), CALIBRATED, names)
        known = [(name, own) for name, own in others.items() if name in names]
        found.extend([(key, KEY), *scores.items(), *known])

    def columns(_: object) -> list[str]:
        return list(dict.fromkeys(name for name, _ in found))

    frame = pl.concat(read_frames(path, columns, check=find, max_expansion=max_expansion))
    if not found:
        raise ValueError(f"{path} has no rows")
    return _with_risk(_typed(frame.select(pl.col(name).alias(own) for name, own in found), path))


def _of_classes(name: str, own: str, names: Iterable[str]) -> dict[str, str]:
    """The columns `name`_0, `name`_1 and so on, two or more, and what they are under n3r's own names."""
    known = set(names)
    found = {f"{name}_{c}": f"{own}_{c}" for c in takewhile(lambda c: f"{name}_{c}" in known, count())}
    return found if len(found) > 1 else {}


def _with_risk(table: pl.DataFrame) -> pl.DataFrame:
    """A table with the scores of each class has the risk of any but class 0, too."""
    lacking = [
        kind for kind in (SCORE, CALIBRATED) if kind not in table.columns and f"{kind}_0" in table.columns
    ]
    return table.with_columns((1 - pl.col(f"{kind}_0")).clip(0, 1).alias(kind) for kind in lacking)


def with_labels(scored: pl.DataFrame, orders: Sequence[str | Path], column_map: ColumnMap) -> pl.DataFrame:
    """Scored rows with all that the raw orders of the same ids say, typed as in training.

    Rows whose order has no label of the map are left out. Raises ValueError when an id has no order or
    several, and for times that training would refuse.
    """
    scored, source = named(scored), scan(orders, column_map)
    check(source.frame, column_map)
    column_map = column_map.resolve_numeric(source.frame.collect_schema())
    with source.reading():
        keys = mark_rows(source.frame, column_map)
        keys = keys.select(KEY, LABEL, SEGMENT, TIME, DROP, ENTITY, ENTITY_TIME)
        wide = select_wide(source.frame, column_map)
        found = pl.concat([keys, wide], how="horizontal").collect(engine="streaming")
        check_times(source.frame, cells(found), column_map, PrepareConfig(first_order_only=False))
    found = found.drop(DROP, ENTITY, ENTITY_TIME).join(scored.select(KEY), on=KEY, how="semi")
    if twice := found.height - found[KEY].n_unique():
        raise ValueError(f"{twice} orders have an id that an earlier one has")
    if lost := scored.height - found.height:
        raise ValueError(f"{lost} of {scored.height} scored ids are not among the orders given")
    own = [name for name in scored.columns if name in (KEY, SCORE, CALIBRATED) or _is_of_class(name)]
    n_classes = len(_of_classes(SCORE, SCORE, own)) or 2
    if n_classes != column_map.n_classes:
        raise ValueError(
            f"there are scores of {n_classes} classes, and the column map has {column_map.n_classes}"
        )
    table = scored.select(own).join(found, on=KEY, how="left", maintain_order="left")
    if table[LABEL].null_count() == table.height:
        raise ValueError(f"none of the {scored.height} scored orders has a label of the column map")
    return table.filter(pl.col(LABEL).is_not_null())


def matched(a: pl.DataFrame, b: pl.DataFrame, names: tuple[str, str] = ("A", "B")) -> pl.DataFrame:
    """The rows of `b` in the order of `a`; ValueError with counts where they do not hold the same ids."""
    only = [one.join(other, on=KEY, how="anti").height for one, other in ((a, b), (b, a))]
    if any(only):
        told = ", ".join(f"{n} of {table.height} ids of {name} are not in the other"
                         for n, table, name in zip(only, (a, b), names, strict=True))  # fmt: skip
        raise ValueError(f"the two do not hold the same rows: {told}")
    return a.select(KEY).join(b, on=KEY, how="left", maintain_order="left")


def labels_of(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The first table that has labels on every row; ValueError says how to give them."""
    for table in tables.values():
        if LABEL in table.columns and not table[LABEL].null_count():
            return table
    raise ValueError(f"no label on every row of {' or '.join(tables)}: give the orders and their column map")


def _is_plain(kind: pl.DataType) -> bool:
    """Whether columns of the type can be read as text."""
    return not (kind.is_nested() or kind in (pl.Binary, pl.Object, pl.Duration, pl.Time))


def _typed(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The id and words as text, numbers as numbers; one ValueError names all that is wrong."""
    if odd := [f"{plain(n)!r} is {k.base_type()}" for n, k in frame.schema.items() if not _is_plain(k)]:
        raise ValueError(f"{path}: {', '.join(odd)}, expected text, numbers or dates")
    numbers = [name for name in frame.columns if name in NUMBERS or _is_of_class(name)]
    table = frame.with_columns(as_text(name) for name in frame.columns if name not in (*numbers, TIME))
    if TIME in frame.columns:
        table = table.with_columns(parse_time(TIME, None, frame.schema).alias(TIME))
    texts = [name for name in numbers if frame.schema[name] == pl.String]
    others = [pl.col(name).cast(pl.Float64, strict=False) for name in numbers]
    table = table.with_columns(number(name) for name in texts).with_columns(others)
    problems = []
    for name in (*numbers, *(name for name in (TIME,) if name in table.columns)):
        lost = table[name].null_count() - (0 if name.startswith(SCORE) else frame[name].null_count())
        lost += (~table[name].is_finite()).sum() if name in numbers else 0
        if lost:
            kind = "finite numbers" if name in numbers else "dates or ISO times"
            problems.append(f"{lost} of {table.height} values of {plain(name)!r} are not {kind}")
    if nameless := table[KEY].null_count():
        problems.append(f"{nameless} rows have no id")
    if twice := table.height - table[KEY].n_unique():
        problems.append(f"{twice} rows have an id that an earlier row has")
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return table
