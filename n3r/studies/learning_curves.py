"""What more data would gain: a model retrained on growing parts of the training rows, or with more columns.

Decisions:
- Each training on fewer rows is what a user with so few rows would have: tokenizer, features and network all
  learn from those rows alone. Smaller samples are parts of larger ones, so that a curve's steps come from
  the added rows.
- An epoch has at least four steps, with smaller batches for few rows: one or two steps teach nothing, which
  would say nothing about the rows.
- What columns add is compared with trainings without them from the same seeds, because two trainings differ
  anyway.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from n3r.bundle import Bundle, train_bundle
from n3r.estimate import bounded, table
from n3r.files import kept
from n3r.identity.selection import fit_features
from n3r.metrics import PairedAUC, class_auc, paired_auc
from n3r.schema import LABEL
from n3r.vocabulary import TokenizerConfig, train_tokenizer

Splits = Mapping[str, pl.DataFrame]  # prepared rows by split
MIN_STEPS = 4  # per epoch


def learning_curve(
    bundle: Bundle, splits: Splits, sizes: Sequence[int], folder: Path, seed: int = 0
) -> pl.DataFrame:
    """Test AUC, `metrics.class_auc`, of a bundle's model class and settings by the number of training rows.

    Columns: n_rows, n_frauds (of the training), auroc with _low and _high (95 %, of the test rows), n,
    n_positive. Sizes beyond the training split are left out. `seed` draws the rows; `folder` keeps the
    trainings. Raises ValueError on sizes below 10, where a sample has one class only, and for a BERT: its
    tokenizer comes with its weights.
    """
    if bundle.tokenizer.kind != "bpe":
        raise ValueError("a learning curve trains a tokenizer for each size; a BERT brings its own")
    if wrong := [size for size in sizes if size < 10]:
        raise ValueError(f"sizes {wrong}: a training needs 10 rows at least")
    order = np.random.default_rng(seed).permutation(len(splits["train"]))
    rows = []
    for size in sorted(size for size in set(sizes) if size <= len(order)):
        sampled = {**splits, "train": splits["train"][np.sort(order[:size])]}
        scores = _kept_scores(bundle, sampled, Path(folder) / str(size), _trained_on)
        label, auc = splits["test"][LABEL], class_auc(splits["test"][LABEL], scores)
        counts = {"n_rows": size, "n_frauds": int((sampled["train"][LABEL] > 0).sum())}
        rows.append(counts | auc.columns("auroc") | {"n": auc.n, "n_positive": int((label > 0).sum())})
    return table(rows, ("n_rows", "n_frauds", *bounded("auroc"), "n", "n_positive"))


def added_value(
    bundle: Bundle,
    splits: Splits,
    added: Sequence[str],
    folder: Path,
    seeds: Sequence[int] = (0,),
) -> PairedAUC:
    """Test AUC with numeric columns `added` to a bundle's features (A) and without (B), over trainings.

    Tokenizer and settings are the bundle's; features and network are made anew for each seed. `folder` keeps
    the trainings. Raises ValueError for columns that the bundle reads already or that the splits lack, and
    for more than two classes.
    """
    if (n_classes := bundle.model.config.n_classes) > 2:
        raise ValueError(f"what columns add is binary only: this model tells {n_classes} classes apart")
    known = bundle.column_map.numeric
    if wrong := [name for name in added if name in known or name not in splits["train"].columns]:
        raise ValueError(f"{wrong} are features of the model already, or not among the splits' columns")
    scores = []
    for name, numeric in (("with", [*known, *added]), ("without", known)):
        columns = bundle.column_map.model_copy(update={"numeric": numeric})
        by_seed = []
        for seed in seeds:
            settings = bundle.train_config.model_copy(update={"seed": seed})
            own = replace(bundle, column_map=columns, train_config=settings)
            p = _kept_scores(own, splits, Path(folder) / f"{name}_{seed}", _trained_anew)
            by_seed.append(p[:, 1])
        scores.append(np.stack(by_seed))
    return paired_auc(splits["test"][LABEL], *scores)


def _kept_scores(
    bundle: Bundle, splits: Splits, folder: Path, train: Callable[[Bundle, Splits, Path], Bundle]
) -> np.ndarray:
    """Probabilities (N, C) of the test rows by what `train` makes of the bundle; `folder` keeps them."""
    plan = kept.plan(__name__, splits, bundle.settings)

    def scored() -> kept.Result:
        return kept.Result({"scores": train(bundle, splits, folder).predict(splits["test"])})

    return kept.kept(folder / "kept", plan, scored).arrays["scores"]


def _trained_on(bundle: Bundle, splits: Splits, folder: Path) -> Bundle:
    """Tokenizer, features and network of a sample of the training rows alone."""
    train = splits["train"]
    if train[LABEL].n_unique() < 2:
        raise ValueError(f"all {len(train)} rows of a sample have the same label: take larger sizes")
    known = {name: bundle.tokenizer.metadata[name] for name in TokenizerConfig.model_fields}
    tokenizer, _ = train_tokenizer(train.select(bundle.column_map.all_text), TokenizerConfig(**known))
    batch_size = min(bundle.train_config.batch_size, max(2, len(train) // MIN_STEPS))
    settings = bundle.train_config.model_copy(update={"batch_size": batch_size})
    return _trained_anew(replace(bundle, tokenizer=tokenizer, train_config=settings), splits, folder)


def _trained_anew(bundle: Bundle, splits: Splits, folder: Path) -> Bundle:
    """Features and network anew, with the bundle's tokenizer, column map and settings."""
    columns = bundle.column_map
    identity = bundle.features.identity is not None
    features = fit_features(splits["train"], columns, bundle.features.config, identity)
    sizes = {"vocab_size": bundle.tokenizer.vocab_size, "n_tab_features": len(features)}
    config = bundle.model.config.model_copy(update=sizes)
    return train_bundle(config, splits, replace(bundle, features=features), folder)[0]
