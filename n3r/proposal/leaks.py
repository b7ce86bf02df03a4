"""Which columns alone nearly tell the label, as those do that are filled in after the order."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from n3r.checks.alone import alone, sample
from n3r.checks.findings import leaks
from n3r.proposal.kinds import Column
from n3r.proposal.numbers import read
from n3r.rows.numbers import NumberFormat
from n3r.schema import LABEL, TIME


def leaking(columns: Iterable[Column], label: np.ndarray, form: NumberFormat | None) -> dict[str, str]:
    """What of each column a check would stop a run for; `label` (N,) is a class, or -1 for none."""
    values = {c.name: read(c.texts, form) if c.kind == "number" else c.texts for c in columns}
    time = pl.lit(None, dtype=pl.Datetime("us"))
    rows = pl.DataFrame(values).with_columns(pl.Series(LABEL, label, dtype=pl.Int8), time.alias(TIME))
    drawn = sample(rows.filter(pl.col(LABEL) >= 0))
    told = {name: alone(drawn, drawn.rows[name]) for name in values}
    return {
        finding.name.removeprefix("leak:"): finding.what.partition(" alone ")[2]
        for finding in leaks(told)
        if finding.severity == "severe"
    }
