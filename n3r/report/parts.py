"""What several pages say alike: columns of tables, tables for figures, and the curves of a ranking."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import bounded
from n3r.report import figures
from n3r.report.page import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Scores = Mapping[str, tuple[ArrayLike, ArrayLike]]  # model -> labels, scores of the same rows

COUNTS = {"rows": ("n", ","), "frauds": ("n_positive", ",")}
FEW_FRAUDS = "Good overall can hide a country where a model fails. Few frauds make wide intervals."


def interval(name: str, spec: str) -> tuple[str, str]:
    """The column of a metric and of the ends of its interval."""
    return " ".join(bounded(name)), spec


def frame(rows: Iterable[Mapping[str, Any]], name: str | None = None) -> pl.DataFrame:
    """Rows of a report as a table that figures read; the column `name` made fit for a plot."""
    rows = [row if name is None else {**row, name: drawable(row[name])} for row in rows]
    return pl.DataFrame(rows, infer_schema_length=None)


def curves(scores: Scores) -> "list[tuple[str, Axes]]":
    """The ROC and the precision-recall curve of each model, with their captions."""
    named = {drawable(name): pair for name, pair in scores.items()}
    return [
        ("Frauds caught for legitimate orders flagged", figures.roc(named)),
        ("How many of the flagged orders are fraud", figures.precision_recall(named)),
    ]


def attained(auroc: float | None, oracle: float | None) -> float | None:
    """The share of the oracle's lead over chance that an AUROC has."""
    if auroc is None or oracle is None or oracle <= 0.5:
        return None
    return (auroc - 0.5) / (oracle - 0.5)
