"""What more would win: a model trained anew on ever more of the training rows, or with more columns.

Decisions:
- Each training on fewer rows is what a user with so few rows would have: tokenizer, features and network all
  learn from those rows alone. Smaller samples are parts of larger ones, so that a curve's steps are the
  rows' doing.
- An epoch has four steps at least, with smaller batches where rows are few: one or two teach nothing, which
  would say nothing of the rows.
- What columns add is told beside trainings without them from the same seeds, for two trainings differ anyway.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from n3r.bundle import Bundle, train_bundle
from n3r.features import TabularFeatures
from n3r.metrics import PairedAUC, auc_ci, bounded, paired_auc, table
from n3r.schema import LABEL, ColumnMap
from n3r.vocabulary import TokenizerConfig, train_tokenizer

FEWEST_STEPS = 4  # an epoch


def learning_curve(
    bundle: Bundle, splits: Mapping[str, pl.DataFrame], sizes: Sequence[int], folder: Path, seed: int = 0
) -> pl.DataFrame:
    """Test AUC of a bundle's model class and settings by the number of training rows.

    Columns: n_rows, n_frauds (of the training), auroc with _low and _high (95 %, of the test rows), n,
    n_positive. Sizes beyond the training split are left out. `seed` draws the rows; `folder` keeps the
    trainings. Raises ValueError on sizes below 10, where a sample has one class only, and for a BERT, whose
    tokenizer comes with its weights.
    """
    if bundle.tokenizer.kind != "bpe":
        raise ValueError("a learning curve trains a tokenizer for each size; a BERT brings its own")
    if wrong := [size for size in sizes if size < 10]:
        raise ValueError(f"sizes {wrong}: a training needs 10 rows at least")
    order = np.random.default_rng(seed).permutation(len(splits["train"]))
    rows = []
    for size in sorted(set(sizes)):
        if size <= len(order):
            train = splits["train"][np.sort(order[:size])]
            trained = _trained_on(bundle, {**splits, "train": train}, Path(folder) / str(size))
            label = splits["test"][LABEL]
            auc = auc_ci(label, trained.predict(splits["test"])[:, 1])
            sizes_of = {"n_rows": size, "n_frauds": int(train[LABEL].sum())}
            rows.append(sizes_of | auc.columns("auroc") | {"n": auc.n, "n_positive": int(label.sum())})
    return table(rows, ("n_rows", "n_frauds", *bounded("auroc"), "n", "n_positive"))


def added_value(
    bundle: Bundle,
    splits: Mapping[str, pl.DataFrame],
    added: Sequence[str],
    folder: Path,
    seeds: Sequence[int] = (0,),
) -> PairedAUC:
    """Test AUC with numeric columns `added` to a bundle's features (A) and without (B), over trainings.

    Tokenizer and settings are the bundle's; features and network are made anew for each seed. `folder` keeps
    the trainings. Raises ValueError for columns that the bundle reads already or that the splits lack.
    """
    known = bundle.column_map.numeric
    if wrong := [name for name in added if name in known or name not in splits["train"].columns]:
        raise ValueError(f"{wrong} are features of the model already, or not among the splits' columns")
    scores = {}
    for name, numeric in (("with", [*known, *added]), ("without", known)):
        columns = bundle.column_map.model_copy(update={"numeric": numeric})
        features = _fitted(bundle, splits["train"], columns)
        config = bundle.model.config.model_copy(update={"n_tab_features": len(features)})
        for seed in seeds:
            settings = bundle.train_config.model_copy(update={"seed": seed})
            parts = bundle._replace(
                model=None, features=features, column_map=columns, train_config=settings, metrics={}
            )
            trained, _ = train_bundle(config, splits, parts, Path(folder) / f"{name}_{seed}")
            scores[name, seed] = trained.predict(splits["test"])[:, 1]
    a, b = (np.stack([scores[name, seed] for seed in seeds]) for name in ("with", "without"))
    return paired_auc(splits["test"][LABEL], a, b)


def _fitted(bundle: Bundle, train: pl.DataFrame, columns: ColumnMap) -> TabularFeatures:
    features = TabularFeatures(bundle.features.config)
    return features.fit(train, columns.numeric, columns.categorical, columns.n_classes)


def _trained_on(bundle: Bundle, splits: Mapping[str, pl.DataFrame], folder: Path) -> Bundle:
    train, columns = splits["train"], bundle.column_map
    if train[LABEL].n_unique() < 2:
        raise ValueError(f"all {len(train)} rows of a sample have the same label: take larger sizes")
    known = {name: bundle.tokenizer.metadata[name] for name in TokenizerConfig.model_fields}
    tokenizer, _ = train_tokenizer(train.select(columns.all_text), TokenizerConfig(**known))
    features = _fitted(bundle, train, columns)
    config = bundle.model.config.model_copy(
        update={"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features)}
    )
    batch_size = min(bundle.train_config.batch_size, max(2, len(train) // FEWEST_STEPS))
    settings = bundle.train_config.model_copy(update={"batch_size": batch_size})
    parts = bundle._replace(model=None, tokenizer=tokenizer, features=features, train_config=settings)
    return train_bundle(config, splits, parts, folder)[0]
