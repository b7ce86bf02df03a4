"""What in rows is hard to believe, a sentence each: ids and entities that own many, times, empty columns.

Decisions:
- A blank cell is no id and no entity. A word that stands for nobody, such as "guest" or "0", may be an id of
  somebody: it is read as one and warned of.
- An entity is named only if it is such a word, else its shape is shown.
"""

import polars as pl

from n3r.rows import times
from n3r.schema import AMOUNT, MAX_SHAPE, TIME, ColumnMap, mask

NOBODY = (
    "0",
    "-1",
    "-",
    "--",
    "?",
    "null",
    "none",
    "nil",
    "nan",
    "na",
    "n/a",
    "#n/a",
    "unknown",
    "undefined",
)
NOBODY += ("guest", "anonymous", "default", "test", "00000000-0000-0000-0000-000000000000")
LONGEST = 40  # bytes of a word for nobody, blanks around it included
LOOKED_AT = 50_000  # rows, for values that come often
MANY, SHARE = 10, 0.05  # rows of one owner: fewer, or a smaller share, are believed


def unless_blank(text: pl.Expr) -> pl.Expr:
    """A text, null where it is blank."""
    return pl.when(text.str.strip_chars() != "").then(text)


def owners(values: pl.Series, role: str, name: str, kept: str) -> list[str]:
    """Sentences on values of a column that have many rows; `kept` says what becomes of these rows."""
    fewest = max(MANY, SHARE * len(values))
    named = values.drop_nulls().alias("value")
    # Who owns a share of the rows owns about as much of every hundredth: counting all takes 0.3 s a million.
    looked_at = named.gather_every(max(1, len(named) // LOOKED_AT))
    often = looked_at.value_counts(name="n").filter(pl.col("n") >= SHARE / 2 * len(looked_at))["value"]
    short = named.filter(named.str.len_bytes() <= LONGEST)
    nobody = short.filter(short.str.strip_chars().str.to_lowercase().is_in(NOBODY))
    counts = named.filter(named.is_in(pl.concat([often, nobody.unique()]).implode())).value_counts(name="n")
    is_nobody = pl.col("value").is_in(nobody.implode())
    found = counts.filter((pl.col("n") >= fewest) | (is_nobody & (pl.col("n") > 1)))
    found = found.sort("n", "value", descending=[True, False]).head(3)
    return [
        f"{n:,} of {len(values):,} rows have one {role}, the {name!r} {_shown(value)}, and {kept}: if it "
        "stands for nobody, leave the cell empty"
        for value, n in found.iter_rows()
    ]


def _shown(value: str) -> str:
    if value.strip().lower() in NOBODY:
        return repr(value)
    return f"of the shape {mask(value[:MAX_SHAPE])!r}"


def doubts(table: pl.DataFrame, no_entity: int, column_map: ColumnMap) -> list[str]:
    """Sentences on the rows that are kept: columns without a value, rows without an entity, odd times."""
    inputs = dict.fromkeys([*column_map.all_text, *column_map.categorical, *column_map.numeric])
    nulls = [name for name in inputs if table[name].null_count() == table.height]
    found = [f"the column {name!r} is null in every row" for name in nulls]
    if column_map.amount and (n_unknown := table[AMOUNT].null_count()):
        found.append(
            f"{n_unknown:,} rows have no {column_map.amount!r}, or one below 0: costs take the mean for it"
        )
    if no_entity:
        found.append(f"{no_entity} rows have no {column_map.entity!r} and are kept, each as a first order")
    return found + (times.doubts(table[TIME], column_map.time) if column_map.time else [])
