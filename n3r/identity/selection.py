"""Whether a model reads the identity features: as told, or unless rows held out show that they hurt.

Decisions:
- The judge is boosting on the feature array, fitted with them and without: seconds where a network takes
  minutes. It ranks class 0 from the rest.
- They are left out where the 95 % interval of the paired difference is below 0. A rule of no more than the
  difference's sign would toss a coin on few rows: of 15 samples of 300 and 600 orders, accounts and messages
  it left them out in 7, and they helped on the validation rows of 6 of these.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from n3r.features import FeatureConfig, TabularFeatures
from n3r.folds import Fold, make_folds
from n3r.identity.features import IdentityFeatures
from n3r.metrics import paired_auc
from n3r.rows.parts import Rows, sample
from n3r.schema import LABEL, ColumnMap
from n3r.trees import fit_trees

Choice = Literal["off", "on", "auto"]
CHOICES = ("off", "on", "auto")
N_FOLDS, LAST = 3, 5  # a fifth of the rows is held out where they are split by time
MAX_ROWS = 50_000  # that the judge is fitted on, and that it is asked about


def fit_features(
    rows: Rows, columns: ColumnMap, config: FeatureConfig, identity: bool, **given: Any
) -> TabularFeatures:
    """Features fitted on labelled rows, the identity features among them or not; errors of both `fit`."""
    fitted = IdentityFeatures().fit(rows, columns) if identity else None
    features = TabularFeatures(config)
    return features.fit(
        rows, columns.numeric, columns.categorical, columns.n_classes, identity=fitted, **given
    )


def reads_identity(
    choice: Choice,
    rows: Rows,
    columns: ColumnMap,
    config: FeatureConfig,
    folds: Sequence[Fold] | None = None,
) -> bool:
    """Whether to read the identity features: what the choice says or, of "auto", what rows held out show.

    `folds` are by default three of a sample of the rows, or of rows split by time its last fifth. Raises
    ValueError on an unknown choice, and as `make_folds` where "auto" cannot hold out.
    """
    if choice not in CHOICES:
        raise ValueError(f"identity {choice!r}: expected {', '.join(CHOICES)}")
    if choice != "auto":
        return choice == "on"
    if not folds:
        rows, _ = sample(rows)
    folds = folds or make_folds(rows, len(rows) // LAST, columns, N_FOLDS, config.seed)
    folds = [Fold(*map(_thinned, fold)) for fold in folds[:N_FOLDS]]
    label = np.concatenate([rows[LABEL].to_numpy()[fold.held] for fold in folds])
    risks = [_held_out(rows, columns, config, folds, identity) for identity in (True, False)]
    worst = paired_auc(label > 0, *risks).difference.high
    return worst is None or worst >= 0  # None: too few rows to tell


def _held_out(
    rows: pl.DataFrame, columns: ColumnMap, config: FeatureConfig, folds: Sequence[Fold], identity: bool
) -> np.ndarray:
    """(N,) risks of the rows held out, of any class but 0, fold after fold; all alike without a feature."""
    found = []
    for fold in folds:
        fit, held = rows[fold.fit], rows[fold.held]
        features = fit_features(fit, columns, config, identity)
        if not len(features):
            found.append(np.full(len(held), 0.5))
            continue
        label, seed = fit[LABEL].to_numpy(), config.seed
        trees = fit_trees("boosting", features.transform(fit, True), label, columns.n_classes, seed)
        found.append(1 - trees.predict(features.transform(held))[:, 0])
    return np.concatenate(found)


def _thinned(rows: np.ndarray) -> np.ndarray:
    """At most `MAX_ROWS` of some rows, evenly drawn and in their order."""
    return rows[:: -(-len(rows) // MAX_ROWS)]
