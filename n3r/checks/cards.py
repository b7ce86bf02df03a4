"""A card for each column: what it holds, in figures and shapes, and how it goes with the label.

Decisions:
- No value of a text or a category is shown, only its shape (`schema.mask`); of a number its quantiles are.
- Missing cells and constants are counted in all rows, and so are distinct values of up to 100,000 rows; of
  more their number is an estimate, and the rest is of a sample (alone.py).
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from n3r.checks.alone import Alone, Sample, alone, categories, histogram
from n3r.schema import MAX_SHAPE, SEGMENT, TIME, ColumnMap, mask

EXACT = 100_000  # rows, up to which distinct values are counted one by one
N_EXAMPLES = 3


def roles(column_map: ColumnMap) -> dict[str, list[str]]:
    """Column of prepared rows -> its roles, in the map's order: what a model reads, and groups."""
    m, found = column_map, {}
    named = {"text": m.text, "second text": m.secondary_text, "number": m.numeric}
    named |= {"category": m.categorical, "group": m.groups}
    for role, names in named.items():
        for name in names:
            found.setdefault(name, []).append(role)
    return found


def inputs(column_map: ColumnMap) -> list[str]:
    """The columns that a model reads."""
    m = column_map
    return list(dict.fromkeys([*m.all_text, *m.numeric, *m.categorical]))


def cards(rows: pl.DataFrame, drawn: Sample, column_map: ColumnMap) -> Iterator[tuple[dict[str, Any], Alone]]:
    """A card of each column of prepared rows, as JSON has it, and how it goes with the label."""
    for name, own in roles(column_map).items():
        if name not in rows.columns:  # a group need not be there
            continue
        told, column = alone(drawn, drawn.rows[name]), drawn.rows[name]
        card = {"column": name, "role": ", ".join(own), **_counts(rows[name])}
        if column.dtype == pl.String:
            values = column.drop_nulls()
            is_text = "text" in own or "second text" in own
            card["examples"] = _examples(values, common=not is_text)
            card |= histogram(drawn, column) if is_text else categories(drawn, column)
        else:
            card["quantiles"] = [column.quantile(q, "nearest") for q in (0, 0.25, 0.5, 0.75, 1)]
            card |= histogram(drawn, column)
        card |= told.auroc.columns("auroc")
        card["over_time"] = [{"period": period, "auroc": auroc} for period, auroc in told.over_time]
        yield card, told


def _counts(column: pl.Series) -> dict[str, Any]:
    missing, n = column.null_count(), len(column)
    is_exact = n <= EXACT
    distinct = column.n_unique() if is_exact else column.approx_n_unique()
    known = n - missing
    constant = bool(known) and column.min() == column.max()
    distinct = 1 if constant else min(max(distinct - bool(missing), 0), known)
    return {"missing": missing / max(n, 1), "distinct": distinct, "exact": is_exact, "constant": constant}


def _examples(values: pl.Series, common: bool) -> list[str]:
    """Shapes of the most common values, or of the first that differ."""
    if common:
        counts = values.alias("value").value_counts(name="n")
        values = counts.sort("n", "value", descending=[True, False])["value"]
    first = values.head(100 * N_EXAMPLES).unique(maintain_order=True).head(N_EXAMPLES)
    return [mask(value[:MAX_SHAPE]) for value in first]


def of_rows(rows: pl.DataFrame, drawn: Sample) -> dict[str, Any]:
    """What there is of all rows: how many, from when to when, their segments, class 1 by period."""
    times = rows[TIME].drop_nulls()
    periods = [
        {"period": period, "rate": float(drawn.weight[own & drawn.y].sum() / drawn.weight[own].sum())}
        for period, own in drawn.slices
    ]
    ends = (str(times.min()), str(times.max())) if len(times) else (None, None)
    return {
        "n": len(rows),
        "rate": drawn.rate,
        "first": ends[0],
        "last": ends[1],
        "n_segments": rows[SEGMENT].n_unique(),
        "over_time": periods,
    }
