"""What drives a model over all rows, and the cases to review first: content of its evaluation.

Decisions:
- A column counts by what the ranking of test rows loses when its values are shuffled among the rows
  (permutation importance; Breiman 2001, Fisher et al. 2019). Its features go with it, and so do its relations
  to the other columns. The shuffles are few, and the interval is one for other rows and other shuffles.
- A feature counts by what is lost when every row has the usual value of it: for all rows what `reasons` does
  for one.
- What says the same thing stands in for each other, so that each alone loses little. Therefore all texts,
  and all other columns, are shuffled together too.
- The rows are a sample with as many frauds as legitimate orders: AUROC does not depend on the shares.
- Cases are shown by id and in the shapes of their texts; reasons tell no value of a text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from n3r import metrics
from n3r.evaluation.attacks import sample_for_attack
from n3r.evaluation.scored import named
from n3r.identity.mail import address_fields
from n3r.reasons import usual_values
from n3r.rows.inputs import typed
from n3r.rows.parts import Rows, rows_at, whole
from n3r.schema import CALIBRATED, LABEL, MAX_CLASSES, MAX_SHAPE, ROW, SCORE, mask
from n3r.score import Scorer

N_SHUFFLES = 3
N_CASES = 20
N_REASONS = 3
TOGETHER = ("all texts together", "all other columns together")


def explain_model(scorer: Scorer, test: Rows, n_per_class: int = 200, seed: int = 0) -> dict[str, Any]:
    """`drivers` and `cases` of a bundle, for the content of its evaluation.

    test: labelled rows with the scorer's columns and its scores (`scored.beside`). n_per_class: rows of each
    class that columns are shuffled on; 0 leaves the drivers out.
    """
    found = {"drivers": drivers(scorer, test, n_per_class, seed)} if n_per_class and len(test) else {}
    return {**found, "cases": cases(scorer, test)}


def drivers(scorer: Scorer, test: Rows, n_per_class: int, seed: int = 0) -> dict[str, Any]:
    """What the AUROC of test rows loses without each column, all texts, all other columns, each feature.

    Keys: n, n_positive, n_shuffles, auroc; columns and features, rows of name, lost with _low and _high and
    moved, the mean absolute change of a score, the largest loss first. What a sample cannot show is null.
    """
    rows, _ = typed(sample := sample_for_attack(test, LABEL, n_per_class, seed), scorer.inputs)
    y, encoded = sample[LABEL].to_numpy() > 0, scorer.encode(rows)
    p = _risk(scorer.probabilities(encoded))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(rows)) for _ in range(N_SHUFFLES)]

    def without(columns: Sequence[str]) -> np.ndarray:
        shuffled = [rows.with_columns(rows.select(columns)[order]) for order in orders]
        return _risk(scorer.probabilities(scorer.encode(pl.concat(shuffled)))).reshape(N_SHUFFLES, -1)

    texts, inputs = scorer.inputs.text, scorer.inputs
    others = [*inputs.numeric, *inputs.categorical]
    parts = {name: own for name, own in zip(TOGETHER, (texts, others), strict=True) if len(own) > 1}
    parts |= {name: [name] for name in dict.fromkeys([*texts, *others])}
    columns = [{"name": name, **_lost(y, p, without(names))} for name, names in parts.items()]
    features = []
    if scorer.features is not None and encoded.tabular is not None:
        usual = usual_values(scorer.features)
        for at, name in enumerate(scorer.features.names):
            other = np.flatnonzero(encoded.tabular[:, at] != usual[at])
            with_usual, part = p.copy(), encoded.take(other.tolist())
            part.tabular[:, at] = usual[at]
            if other.size:
                with_usual[other] = _risk(scorer.probabilities(part))
            features.append({"name": name, **_lost(y, p, with_usual[None])})
    counts = {"n": len(y), "n_positive": int(y.sum()), "n_shuffles": N_SHUFFLES}
    auroc = metrics.auc_ci(y, p).columns("auroc")
    return {**counts, **auroc, "columns": _strongest_first(columns), "features": _strongest_first(features)}


def _risk(probabilities: np.ndarray) -> np.ndarray:
    """Of any class but 0, (N,) float64."""
    p = probabilities.astype(np.float64)
    return p[:, 1] if p.shape[1] == 2 else 1 - p[:, 0]


def _lost(y: np.ndarray, p: np.ndarray, changed: np.ndarray) -> dict[str, float | None]:
    """What scores, (N,), that become `changed`, (S, N), lose of their AUROC."""
    paired = metrics.paired_auc(y, np.tile(p, (len(changed), 1)), changed)
    return {
        **paired.difference.columns("lost"),
        "moved": float(np.abs(changed - p).mean()) if p.size else None,
    }


def _strongest_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-(row["lost"] or 0), -(row["moved"] or 0)))


def cases(scorer: Scorer, test: Rows, n: int = N_CASES) -> list[dict[str, Any]]:
    """The test rows of the highest scores: id, score, p_calibrated where known, class, texts, reasons.

    `texts` are shapes by field (`schema.mask`), `reasons` what raises the score, in words, strongest first.
    An id that is a text field or an address is shown by its shape, too.
    """
    test = named(test)
    id, fields = scorer.inputs.id, scorer.column_map.all_text
    is_private = id in fields or (test.schema[id] == pl.String and address_fields(test, [id]))
    ranked = whole(test, [SCORE]).with_row_index(ROW).sort(SCORE, descending=True, maintain_order=True)
    found = []
    for row in rows_at(test, ranked[ROW].head(n)).iter_rows(named=True):
        of_class = _likeliest(row)
        reasons = scorer.reasons(row, 2 * N_REASONS, of_class).filter(pl.col("contribution") > 0)
        found.append(
            {
                "id": _shape(row[id]) if is_private else str(row[id]),
                "score": row[SCORE],
                "p_calibrated": row.get(CALIBRATED),
                "class": int(row[LABEL]),
                "texts": {field: _shape(row[field]) for field in fields},
                "reasons": reasons["reason"].head(N_REASONS).to_list(),
            }
        )
    return found


def _likeliest(row: dict[str, Any]) -> int:
    """The class that a row is reviewed for: 1, or of several the likeliest but 0."""
    scores = {c: row[name] for c in range(1, MAX_CLASSES) if (name := f"{SCORE}_{c}") in row}
    return max(scores, key=scores.get, default=1)


def _shape(value: Any) -> str:
    shape = mask("" if value is None else str(value))
    return shape if len(shape) <= MAX_SHAPE else f"{shape[: MAX_SHAPE - 1]}…"
