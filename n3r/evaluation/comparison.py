"""Two scores of the same rows compared: how they rank, what they decide, in what order they put the rows.

Decisions:
- Quality is the paired difference of AUC, with a verdict by two one-sided tests (metrics.py).
- Two systems need not score on the same scale, so each decides at its own threshold: the lowest that flags
  no more than a given share of the legitimate orders.
- McNemar's test is exact: when the two systems differ on few rows, the published chi-square with continuity
  correction is off.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import checked
from n3r.evaluation.scored import as_two, labels_of, matched, named
from n3r.metrics import equivalence, paired_auc, paired_by_segment, threshold_at_fpr
from n3r.schema import LABEL, SCORE, SEGMENT


def compare(
    a: pl.DataFrame | Sequence[pl.DataFrame],
    b: pl.DataFrame | Sequence[pl.DataFrame],
    margin: float = 0.01,
    fpr: float = 0.01,
    names: tuple[str, str] = ("A", "B"),
) -> dict[str, Any]:
    """Difference of AUC with a verdict, overall and by segment, and how far the two agree.

    a, b: prediction tables of the same rows in the same order, their first column the id; or as many of each
    as there were trainings, in which case the intervals are over seeds too and `agreement` has an entry for
    each. `difference` > 0 speaks for a; its _low and _high bound it at 95 %. Raises ValueError when tables do
    not hold the same rows in the same order. Of more than two classes, class 0 stands against the rest.
    """
    a, b = ([table] if isinstance(table, pl.DataFrame) else list(table) for table in (a, b))
    a, b = ([named(table) for table in tables] for tables in (a, b))
    first = as_two(a[0])
    if any(not first[:, 0].equals(other[:, 0]) for other in (*a, *b)):
        raise ValueError("the prediction tables hold other rows or another order: score the same split")
    y = first[LABEL].to_numpy()
    scores = [np.stack([table[SCORE].to_numpy() for table in tables]) for tables in (a, b)]
    paired = paired_auc(y, *scores)
    verdict = equivalence(paired, margin, names)
    segments: list[dict] = []
    if SEGMENT in first.columns and first[SEGMENT].n_unique() > 1:
        segments = paired_by_segment(first[SEGMENT], y, *scores, margin, names=names).to_dicts()
    return {
        **paired.columns(),
        **{name: getattr(paired, name) for name in ("se", "df", "same")},
        "by_seed": list(paired.by_seed),
        "margin": margin,
        "names": list(names),
        "verdict": verdict.kind,
        "sentence": verdict.sentence,
        "segments": segments,
        "agreement": [agreement(y, *pair, fpr) for pair in zip(*scores, strict=True)],
    }


def compare_models(
    a: Mapping[str, pl.DataFrame],
    b: Mapping[str, pl.DataFrame],
    names: tuple[str, str],
    margin: float = 0.01,
    fpr: float = 0.01,
) -> tuple[dict[str, Any], dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """Content and scores for `write_comparison`, of tables that `scored.scored_models` gave.

    One model of each side is compared whatever its name; of several, those of the same name. Rows are matched
    by id, and labels of one side serve both. Raises ValueError when no two models go together or two tables
    do not hold the same ids.
    """
    a, b = ({model: named(table) for model, table in tables.items()} for tables in (a, b))
    if len(a) == len(b) == 1:
        pairs = {names[0]: (next(iter(a.values())), next(iter(b.values())))}
    else:
        pairs = {name: (a[name], b[name]) for name in a if name in b}
    if not pairs:
        told = f"{', '.join(a)} of {names[0]} and {', '.join(b)} of {names[1]}"
        raise ValueError(f"no models of the same name among {told}: name one model of each")
    rows, scores = [], {}
    for model, (one, other) in pairs.items():
        labels = labels_of({names[0]: one, names[1]: other})
        one, other = (_on(labels, table, names) for table in (one, other))
        rows.append({"model": model, **compare(one, other, margin, fpr, names)})
        y = as_two(one)[LABEL].to_numpy()
        scores[model] = {n: (y, t[SCORE].to_numpy()) for n, t in zip(names, (one, other), strict=True)}
    return {"name": f"{names[0]} and {names[1]}", "comparisons": rows}, scores


def _on(labels: pl.DataFrame, table: pl.DataFrame, names: tuple[str, str]) -> pl.DataFrame:
    """A table's scores beside the labels and segments of another, in that one's order."""
    scores = matched(labels, table, names)[SCORE]
    return labels.select(pl.exclude(SCORE)).with_columns(scores)


def agreement(y: ArrayLike, a: ArrayLike, b: ArrayLike, fpr: float = 0.01) -> dict[str, float | int | None]:
    """How far two scores agree: rank correlation, and decisions at each one's threshold for `fpr`.

    Keys: n; spearman; threshold_a, threshold_b; n_flagged_a, n_flagged_b, n_flagged_both; n_flips (rows that
    one alone flags), frauds and legitimate rows among them and flip_share (of all rows); n_only_a_right,
    n_only_b_right and mcnemar_p, the exact test that these two are equally likely. With a constant score
    there is no rank correlation, with one class there are no thresholds: None. Raises ValueError as
    `metrics.auc_ci`.
    """
    y, a, b = checked(y, a=a, b=b)
    found = {"n": int(y.size), "fpr": fpr, "spearman": _rank_correlation(a, b)}
    cuts = [threshold_at_fpr(y, p, fpr) for p in (a, b)]
    by_a, by_b = (p >= (np.inf if cut is None else cut) for p, cut in zip((a, b), cuts, strict=True))
    sets = {
        "n_flagged_a": by_a,
        "n_flagged_b": by_b,
        "n_flagged_both": by_a & by_b,
        "n_flips": by_a != by_b,
        "n_fraud_flips": (by_a != by_b) & y,
        "n_legitimate_flips": (by_a != by_b) & ~y,
        "n_only_a_right": (by_a == y) & (by_b != y),
        "n_only_b_right": (by_b == y) & (by_a != y),
    }
    decided = dict(zip(("threshold_a", "threshold_b"), cuts, strict=True))
    decided |= {name: int(rows.sum()) for name, rows in sets.items()}
    decided["flip_share"] = decided["n_flips"] / max(y.size, 1)
    decided["mcnemar_p"] = mcnemar(decided["n_only_a_right"], decided["n_only_b_right"])
    return found | (dict.fromkeys(decided) if None in cuts else decided)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: rows that a alone gets right against those of b alone."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    from scipy.stats import rankdata

    if a.size < 2 or a.min() == a.max() or b.min() == b.max():
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
