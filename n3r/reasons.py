"""Reasons in plain words: what the features of an order say that moves its score.

Decisions:
- A feature is a reason by what the score would be with the usual value in its place: the training rows'
  median of a number, the base rate of a category. A feature that has its usual value is no reason.
- Words tell values of numbers, and of categories their rate in training; strings are never shown.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from n3r.encode import Encoded
from n3r.features import TabularFeatures
from n3r.runtime import Graph

ROUNDING = 1e-6  # of a score by its place in a batch
ROWS = 4096  # that the graph reads at a time
REASONS = {"reason": pl.String, "score_without": pl.Float64, "contribution": pl.Float64}


class Reason(NamedTuple):
    """A feature in words, the score with its usual value, and what it adds."""

    text: str
    score_without: float
    contribution: float


def find_reasons(
    graph: Graph,
    features: TabularFeatures | None,
    rows: Encoded,
    n: int = 3,
    of_class: int = 1,
    raising: bool = False,
) -> list[list[Reason]]:
    """For each row its `n` features that move the score of a class most, largest first.

    `raising`: only those that raise it. A model that reads no features has no reasons.
    """
    if features is None:
        return [[] for _ in rows.lengths]
    usual = usual_values(features)
    at, which = np.nonzero(rows.tabular != usual)  # pairs of row and feature, row after row
    with_usual = np.empty(len(at))
    for start in range(0, len(at), ROWS):
        part = slice(start, start + ROWS)
        changed = rows.take(at[part].tolist())
        changed.tabular[np.arange(len(which[part])), which[part]] = usual[which[part]]
        with_usual[part] = graph.probabilities(changed)[:, of_class]
    score = graph.probabilities(rows)[:, of_class].astype(np.float64)
    moves = score[at] - with_usual
    found: list[list[Reason]] = [[] for _ in score]
    for i in np.lexsort((np.arange(len(at)), -abs(moves), at)):
        own = found[at[i]]
        if len(own) < n and (moves[i] if raising else abs(moves[i])) > ROUNDING:
            said = words(features, int(which[i]), float(rows.tabular[at[i], which[i]]))
            own.append(Reason(said, float(with_usual[i]), float(moves[i])))
    return found


def usual_values(features: TabularFeatures) -> np.ndarray:
    """(F,) float32: what a missing value of each feature becomes; an indicator's is 0."""
    usual = {**features.imputation_} | {n: t["default_bin"] for n, t in features.risk_tables_.items()}
    return np.array([usual.get(name, 0.0) for name in features.names], np.float32)


def words(features: TabularFeatures, at: int, value: float) -> str:
    """What a feature of this value says of a row."""
    name = features.names[at]
    if features.identity and name in features.identity.names:
        return features.identity.words(name, value)
    if name in features.risk_tables_:
        table = features.risk_tables_[name]
        of = f"class {table['class']}" if table["class"] > 1 else "fraud"
        rates = f"a rate of {of} of {value:.1%}, {table['default_bin']:.1%} is usual"
        return f"{table['column']} has a value with {rates}"
    if name in features.imputation_:
        return f"{name} is {value:.4g}, {features.imputation_[name]:.4g} is usual"
    return name  # an indicator: "x is missing"


def reason_columns(reasons: Sequence[Sequence[Reason]], n: int) -> list[pl.Series]:
    """`reason_1` .. `reason_n`, null where a row has fewer."""
    return [
        pl.Series(f"reason_{i + 1}", [own[i].text if i < len(own) else None for own in reasons], pl.String)
        for i in range(n)
    ]
