"""What several pages share: columns of tables, tables for figures, and the curves of a ranking."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import NOT_ENOUGH, bounded
from n3r.report import figures
from n3r.report.page import Table, tabulate
from n3r.report.style import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Scores = Mapping[str, tuple[ArrayLike, ArrayLike]]  # model -> labels, scores of the same rows


def interval(name: str, spec: str) -> tuple[str, str]:
    """The column of a metric and of the ends of its interval."""
    return " ".join(bounded(name)), spec


COUNTS = {"rows": ("n", ","), "frauds": ("n_positive", ",")}
EACH_CLASS = {
    "class": ("class", ""),
    "rows": ("n_positive", ","),
    "AUROC [95 %]": interval("auroc", ".3f"),
    "AP": ("average_precision", ".3f"),
    "precision": ("precision", "%"),
    "recall": ("recall", "%"),
    "F1": ("f1", ".3f"),
    "log loss": ("log_loss", ".3f"),
    "Brier": ("brier", ".4f"),
}
SEVERAL = (
    "There are {} classes. Fraud stands for every class but 0, its score for the probability of that; what "
    "is said of each class is of its rows against all others, with precision, recall and F1 of the likeliest."
)
FEW_FRAUDS = "Good overall can hide a country where a model fails. Few frauds make wide intervals."


def frame(rows: Iterable[Mapping[str, Any]], name: str | None = None) -> pl.DataFrame:
    """Rows of a report as a table that figures read; the column `name` made fit for a plot."""
    rows = [row if name is None else {**row, name: drawable(row[name])} for row in rows]
    return pl.DataFrame(rows, infer_schema_length=None)


def curves(scores: Scores) -> "list[tuple[str, Axes]]":
    """The curves of a ranking, with their captions."""
    return [(figures.CAPTIONS[name], axes) for name, axes in figures.ranking(scores).items()]


def class_tables(classes: Mapping[str, Any], name: str) -> list[Table]:
    """What `evaluation.evaluate_model` says of each of several classes, and the models' means of these."""
    models = [{**row, "name": row["name"] or name} for row in classes["models"]]
    columns = {"model": ("name", ""), "AUROC [95 %]": interval("auroc", ".3f"), "rows": ("n", ",")}
    means = tabulate("AUROC, the mean of each class against the rest", columns, models, 1)
    return [tabulate("Each class against the rest", EACH_CLASS, classes["each"], 1), means]


def attained(auroc: float | None, oracle: float | None) -> float | None:
    """The share of the oracle's lead over chance that an AUROC has."""
    if auroc is None or oracle is None or oracle <= 0.5:
        return None
    return (auroc - 0.5) / (oracle - 0.5)


class Misstated(NamedTuple):
    """By how much scores say too much or too little."""

    way: str
    share: float
    is_sure: bool

    def __str__(self) -> str:
        return f"{self.way} risk" + ("" if self.is_sure else ", which may be chance")


def misstated(summary: Mapping[str, Any]) -> Misstated | None:
    """Of a `calibration.calibration_summary`; None where its rows cannot say."""
    ratio, low, high = (summary[name] for name in bounded("observed_expected"))
    if not ratio:
        return None
    is_sure = low is not None and not low <= 1 <= high
    return Misstated(*(("overstate", 1 / ratio - 1) if ratio < 1 else ("understate", 1 - 1 / ratio)), is_sure)


def misstated_in_words(summary: Mapping[str, Any], scores: str) -> str:
    """By how much, and what scores add up to beside what was seen, as a sentence."""
    if (found := misstated(summary)) is None:
        return f"{scores}: {NOT_ENOUGH} to say whether they over- or understate risk."
    seen = summary["n_positive"]
    told = f"{seen:,} frauds were seen where they add up to {seen / summary['observed_expected']:,.1f}"
    chance = "" if found.is_sure else ", which may be chance"
    return f"{scores} {found.way} risk by {100 * found.share:.0f} %{chance}: {told}."
