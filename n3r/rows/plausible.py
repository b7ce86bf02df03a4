"""What in rows is hard to believe, a sentence each: ids and entities that own many, times, empty columns.

Decisions:
- A blank cell is no id and no entity. A word that stands for nobody, such as "guest" or "0", may be an id of
  somebody: it is read as one and warned of.
- An entity is named only if it is such a word, else its shape is shown.
"""

from collections.abc import Mapping

import polars as pl

from n3r.schema import AMOUNT, MAX_SHAPE, ColumnMap, mask

NOBODY = ("0", "-1", "-", "--", "?", "null", "none", "nil", "nan", "na", "n/a", "#n/a", "unknown", "guest")
NOBODY += ("undefined", "anonymous", "default", "test", "00000000-0000-0000-0000-000000000000")
_SHORT = 9  # bytes of all but the last
_ZEROS = "00000000"  # with which the last begins
LONGEST = 40  # bytes of a word for nobody, blanks around it included
LOOKED_AT = 50_000  # rows, for values that come often
MANY, SHARE = 10, 0.05  # rows of one owner: fewer, or a smaller share, are believed


def unless_blank(text: pl.Expr) -> pl.Expr:
    """A text, null where it is blank."""
    return pl.when(text.str.strip_chars() != "").then(text)


def owners(values: pl.Series) -> pl.DataFrame:
    """Values that a share of the rows have, and words for nobody, each with its rows; of whole buckets."""
    named = values.drop_nulls().alias("value")
    # Who owns a share of the rows owns about as much of every hundredth: counting all takes 0.3 s a million.
    looked_at = named.gather_every(max(1, len(named) // LOOKED_AT))
    often = looked_at.value_counts(name="n").filter(pl.col("n") >= SHARE / 2 * len(looked_at))["value"]
    # Few texts can be such a word: the others need not be made lower case.
    size = named.str.len_bytes()
    may_be = (size <= _SHORT) | named.str.starts_with(_ZEROS) | named.str.contains(r"^\s|\s$")
    short = named.filter(may_be & (size <= LONGEST))
    looked_for = pl.concat([often, short.filter(is_nobody(short)).unique()])
    found = named.filter(named.is_in(looked_for.implode())) if len(looked_for) else looked_for
    return found.value_counts(name="n").with_columns(pl.col("n").cast(pl.Int64))


def count_owners(values: pl.Series, known: pl.Series) -> pl.DataFrame:
    """How many rows each of some values has, as `owners` tells it."""
    counts = values.filter(values.is_in(known.implode())).alias("value").value_counts(name="n")
    return counts.with_columns(pl.col("n").cast(pl.Int64))


def owner_doubts(owners: pl.DataFrame, n_rows: int, role: str, name: str, kept: str) -> list[str]:
    """Sentences on values of a column that have many of its rows; `kept` says what becomes of these rows."""
    owners = owners.group_by("value").agg(pl.sum("n"))
    nobody = is_nobody(owners["value"])
    found = owners.filter((pl.col("n") >= max(MANY, SHARE * n_rows)) | (nobody & (pl.col("n") > 1)))
    found = found.sort("n", "value", descending=[True, False]).head(3)
    return [
        f"{n:,} of {n_rows:,} rows have one {role}, the {name!r} {_shown(value)}, and {kept}: if it "
        "stands for nobody, leave the cell empty"
        for value, n in found.iter_rows()
    ]


def is_nobody(values: pl.Series) -> pl.Series:
    """Which texts are words that stand for nobody."""
    return values.str.strip_chars().str.to_lowercase().is_in(NOBODY)


def _shown(value: str) -> str:
    if value.strip().lower() in NOBODY:
        return repr(value)
    return f"of the shape {mask(value[:MAX_SHAPE])!r}"


def doubts(nulls: Mapping[str, int], n_rows: int, no_entity: int, column_map: ColumnMap) -> list[str]:
    """Sentences on the rows that are kept: columns without a value, rows without an amount or an entity.

    nulls: how many each column has.
    """
    m = column_map
    inputs = dict.fromkeys([*m.all_text, *m.categorical, *m.numeric])
    found = [f"the column {name!r} is null in every row" for name in inputs if nulls.get(name) == n_rows]
    if n_unknown := nulls.get(AMOUNT):
        found.append(f"{n_unknown:,} rows have no {m.amount!r}, or one below 0: costs take the mean for it")
    if no_entity:
        found.append(f"{no_entity} rows have no {m.entity!r} and are kept, each as a first order")
    return found
