"""The check of prepared rows: cards of their columns and findings, as plain JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from n3r import tables
from n3r.checks.alone import sample
from n3r.checks.cards import cards, of_rows
from n3r.checks.findings import Finding, by_severity, findings, refuse
from n3r.checks.seen import seen
from n3r.preprocess import PrepareConfig, Prepared, prepare
from n3r.report.data import write_data_page
from n3r.schema import ColumnMap


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
    if (n_rows := prepared.report.splits["n"].sum()) > rows.height:
        what = f"columns are judged by {rows.height:,} of {n_rows:,} rows, drawn by id"
        doubts = by_severity([*doubts, Finding("sample", "note", what, "")])
    if bundle is not None:
        doubts = by_severity([*seen(rows, prepared.splits, prepared.column_map, bundle), *doubts])
    preparation = {key: value for key, value in prepared.report.to_dict().items() if key != "warnings"}
    return {
        "rows": of_rows(rows, drawn),
        "columns": columns,
        "left_out": dict(left_out or {}),
        "preparation": {**preparation, "findings": [one._asdict() for one in doubts]},
    }


def read_rows(
    frame: pl.LazyFrame,
    data: Sequence[str],
    columns: ColumnMap,
    parameters: Mapping[str, Any],
    page: Path,
) -> tuple[Prepared, dict[str, Any]]:
    """Rows of files, or of `frame` where none is given, prepared and checked, and what a step records.

    `parameters` are a step's by name, `page` is the page to write. Raises ValueError as `refuse`.
    """
    left_out, n_rows = {}, None
    if data:
        source = tables.scan(data, columns, parameters["max_expansion"])
        frame, left_out, n_rows = source.frame, dict(source.left_out), source.n_rows
    config = {name: parameters[name] for name in PrepareConfig.model_fields if name in parameters}
    prepared = prepare(frame, columns, PrepareConfig(**config), n_rows)
    found = check_rows(prepared, left_out, seed=parameters["seed"])
    write_data_page(found, page.parent, parameters["name"], page.stem)
    refuse(found["preparation"]["findings"], parameters["accept"], page)
    return prepared, {"data": {"left_out": left_out}, "preparation": found["preparation"]}
