"""Whether a bundle was trained on rows that it is now to be judged by.

Decisions:
- A bundle keeps no ids. Where it still lies in its run, the prepared training rows beside it are asked; else
  the time from its first to its last training row says which rows may be among them.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from n3r import tables
from n3r.checks.findings import Finding
from n3r.files.json_io import read_json
from n3r.files.manifest import verify
from n3r.rows.values import as_text
from n3r.schema import TIME, ColumnMap

LEARNED_FROM = ("train", "val")  # epochs and calibration are chosen on validation rows


def seen(
    rows: pl.DataFrame, splits: Mapping[str, pl.DataFrame], m: ColumnMap, bundle: Path
) -> Iterator[Finding]:
    """A finding where rows are among those that a bundle learned from; raises as `manifest.verify`."""
    verify(bundle)
    data = read_json(bundle / "config.json").get("data") or {}
    ask = "judge the bundle by rows that it has not seen, such as later ones"
    known = training_ids(bundle.resolve().parent / "data")
    if known is not None:
        n_test, n = (
            int(f.select(as_text(m.id).is_in(known.implode()).sum()).item()) for f in (splits["test"], rows)
        )
        if n:
            what = (
                f"the bundle learned from {n:,} of {len(rows):,} rows, {n_test:,} of the test rows among them"
            )
            yield Finding("seen", "severe" if n_test else "warning", f"{what}, by their ids", ask)
        return
    ends = [
        data.get("splits", {}).get(split, {}).get(end) for split in LEARNED_FROM for end in ("from", "to")
    ]
    times = [datetime.fromisoformat(end) for end in ends if isinstance(end, str)]
    if times and (n := int(splits["test"][TIME].is_between(min(times), max(times)).sum())):
        what = f"{n:,} of {len(splits['test']):,} test rows are of the time that the bundle learned from"
        yield Finding("seen", "warning", f"{what}, until {max(times):%Y-%m-%d}", ask)


def training_ids(folder: Path) -> pl.Series | None:
    """The ids of the rows that were trained on, of a run's prepared data; None where there are none."""
    try:
        columns = tables.read_column_map(folder)
    except (FileNotFoundError, ValueError):
        return None
    ids = [tables.read_split(folder, split, [columns.id])[columns.id] for split in LEARNED_FROM]
    return pl.concat(ids).cast(pl.String)
