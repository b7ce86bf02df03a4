"""The check of prepared rows: cards of their columns and findings, as plain JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from n3r.checks.alone import sample
from n3r.checks.cards import cards, of_rows
from n3r.checks.findings import by_severity, findings
from n3r.checks.seen import seen
from n3r.preprocess import Prepared


def check_rows(
    prepared: Prepared,
    left_out: Mapping[str, str] | None = None,
    bundle: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What there is to know of prepared rows before a model is trained on them, or judged by them.

    Keys: `rows` (what there is of all), `columns` (a card each), `left_out` (columns that are no features,
    and why), `preparation` (what was dropped; its warnings stand among its `findings`, the severest first).
    With a `bundle`, whether it was trained on any of the rows. The seed is that of the sample. Raises as
    `manifest.verify` for a bundle.
    """
    rows = pl.concat(list(prepared.splits.values()), rechunk=False)
    drawn = sample(rows, seed)
    found = {card["column"]: (card, alone) for card, alone in cards(rows, drawn, prepared.column_map)}
    told = {name: alone for name, (_, alone) in found.items()}
    columns = [card for card, _ in found.values()]
    doubts = findings(prepared, drawn, told, columns)
    if bundle is not None:
        doubts = by_severity([*seen(rows, prepared.splits, prepared.column_map, bundle), *doubts])
    preparation = {key: value for key, value in prepared.report.to_dict().items() if key != "warnings"}
    return {
        "rows": of_rows(rows, drawn),
        "columns": columns,
        "left_out": dict(left_out or {}),
        "preparation": {**preparation, "findings": [one._asdict() for one in doubts]},
    }
