"""Figures of models of any number of classes: of two as they are, of more each class against the rest.

Decisions:
- One figure of more than two classes is the mean of each class against the rest (macro), so that a rare class
  counts as much as a common one. Precision, recall and F1 are of the likeliest class, not of a threshold.
- Where rows are decided on, as in curves, segments or costs, class 0 stands against all others.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from n3r import metrics

DECIDED = ("f1", "precision", "recall")


def measure(label: ArrayLike, p: ArrayLike) -> dict[str, Any]:
    """`metrics.evaluate` of probabilities (N,) of class 1 or (N, 2); of (N, C) the same keys and `n_classes`.

    Of more than two classes `n_positive` and `base_rate` are of the rarest, `accuracy` is the share of rows
    whose class is the likeliest, `log_loss` is of the row's class, and the others are means of `each_class`,
    None where a class has no rows. Raises ValueError as `metrics.evaluate`, and for labels that are no class.
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim == 1 or p.shape[1] == 2:
        return metrics.evaluate(label, p if p.ndim == 1 else p[:, 1])
    rows, label = each_class(label, p), np.asarray(label, dtype=np.int64)
    n, fewest = len(label), min(row["n_positive"] for row in rows)
    own = p[np.arange(n), label]
    mean = {
        key: None if None in (values := [row[key] for row in rows]) else float(np.mean(values))
        for key in ("average_precision", *DECIDED, "recall_at_fpr_1", "recall_at_fpr_5", "brier")
    }
    found = {"n": n, "n_positive": fewest, "base_rate": fewest / n if n else None, "n_classes": p.shape[1]}
    found |= metrics.class_auc(label, p).columns("auroc") | mean
    found["accuracy"] = float((p.argmax(axis=1) == label).mean()) if n else None
    found["log_loss"] = float(-np.log(np.clip(own, np.finfo(np.float64).eps, 1)).mean()) if n else None
    return found


def each_class(label: ArrayLike, p: ArrayLike) -> list[dict[str, Any]]:
    """`metrics.evaluate` of each class against the rest, with its `class`, from probabilities (N, C).

    A class that is the likeliest of no row has a precision of 0, as scikit-learn counts it. Raises ValueError
    for labels that are not 0 to C - 1, and as `metrics.evaluate`.
    """
    label, p = np.asarray(label), np.asarray(p, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"class probabilities: expected shape (N, C) with C at least 2, got {p.shape}")
    if wrong := int((~np.isin(label, range(p.shape[1]))).sum()):
        raise ValueError(f"labels: {wrong} of {label.size} are not the classes 0 to {p.shape[1] - 1}")
    likeliest, rows = p.argmax(axis=1), []
    for c, scores in enumerate(p.T):
        decided = metrics.evaluate(label == c, (likeliest == c).astype(float))
        row = {"class": c, **metrics.evaluate(label == c, scores), **{key: decided[key] for key in DECIDED}}
        if row["precision"] is None and row["n_positive"]:
            row["precision"] = 0.0
        rows.append(row)
    return rows


def against_rest(label: ArrayLike, p: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Whether rows are of another class than 0 and the probability of that, (N,) each; p as in `measure`."""
    p = np.asarray(p)
    risk = p if p.ndim == 1 else p[:, 1] if p.shape[1] == 2 else 1 - p[:, 0]
    return np.asarray(label) > 0, risk
