"""Why n3r ranks otherwise than the legacy: each deviation alone, over seeds, beside the legacy itself.

    python -m benchmarks.deviations lstm2risk
    python -m benchmarks.deviations lstm2risk --of logits --seeds 0 1 2 3 4 5     one deviation, more seeds

Synthetic orders at the dimensions of `--size quick`, on few rows and epochs. The training rows are a whole
number of batches, so that both systems train on the same batches' worth. Judged by half of the validation
rows; the other half chooses the epoch where that is on. No test row is read.

One JSON line a set of deviations: the mean AUC over seeds, its difference to n3r with all deviations off, the
95 % interval of that for other rows and seeds, and the difference of each seed. The legacy comes last.
Trainings are kept in runs/deviations: a call that was interrupted goes on.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from n3r.bundle import Bundle
from n3r.estimate import rank_auc
from n3r.features import FeatureConfig
from n3r.files.json_io import read_json
from n3r.identity.selection import fit_features
from n3r.metrics import paired_auc
from n3r.model import ModelConfig, RiskModel, configure
from n3r.preprocess import prepare
from n3r.schema import LABEL, ColumnMap
from n3r.studies import ablation
from n3r.studies.beside import Splits, train_beside
from n3r.synthetic.orders import generate_orders
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

ROOT = Path(__file__).resolve().parent.parent
STEPS = {"lstm2risk": "03_train_lstm2risk", "transformer2risk": "04_train_transformer2risk"}
N_BINS = 24  # of the notebooks


def rows(n_orders: int, n_train: int) -> tuple[Splits, ColumnMap]:
    """The first `n_train` training rows; of the validation rows half as such, half as those to judge by."""
    columns = ColumnMap.from_file(ROOT / "configs" / "orders.json")
    prepared = prepare(generate_orders(n_orders).lazy(), columns)
    val = prepared.splits["val"]
    halves = {"val": val.gather_every(2), "test": val.gather_every(2, 1)}
    return {"train": prepared.splits["train"].head(n_train), **halves}, prepared.column_map


def untrained(model_class: str, splits: Splits, columns: ColumnMap, epochs: int) -> Bundle:
    """A bundle as the notebooks would make one of these rows, with random weights."""
    size = read_json(ROOT / "configs" / "size_quick.json")[STEPS[model_class]]
    tokenizer, _ = train_tokenizer(splits["train"].select(columns.all_text), TokenizerConfig())
    features = fit_features(splits["train"], columns, FeatureConfig(), identity=False)
    own, training = (
        {name: value for name, value in size.items() if name in config.model_fields}
        for config in (ModelConfig, TrainConfig)
    )
    sizes = {"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features), "n_tab_bins": N_BINS}
    config = configure(model_class, **own, **sizes)
    with torch.random.fork_rng():
        model = RiskModel(config, knots=features.knots)
    return Bundle(tokenizer, features, columns, TrainConfig(**training | {"epochs": epochs}), model=model)


def compared(label: pl.Series, one: list[np.ndarray], base: list[np.ndarray]) -> dict[str, object]:
    """The mean AUC of `one`, its difference to `base`, with its interval, and that of each seed."""
    paired = paired_auc(label.to_numpy(), np.stack(one), np.stack(base))
    by_seed = [
        rank_auc(label.to_numpy() == 1, a) - rank_auc(label.to_numpy() == 1, b)
        for a, b in zip(one, base, strict=True)
    ]
    difference = paired.difference
    figures = {"auc": paired.auc_a, "difference": difference.value}
    figures |= {"low": difference.low, "high": difference.high}
    found = {name: round(float(value), 4) for name, value in figures.items() if value is not None}
    return {**found, "by_seed": [round(value, 4) for value in by_seed]}


def main() -> None:
    """Train what has not been trained yet and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_class", choices=STEPS)
    parser.add_argument("--of", nargs="*", help="deviations, by default each; alone: the legacy and none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--orders", type=int, default=60_000)
    parser.add_argument("--rows", type=int, default=8192, help="to train on")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    splits, columns = rows(options.orders, options.rows)
    bundle = untrained(options.model_class, splits, columns, options.epochs)
    made = ablation.made_by(bundle)
    folder = ROOT / "runs" / "deviations" / f"{options.model_class}-{options.rows}-{options.epochs}"
    sets = [*((name,) for name in made), made] if options.of is None else [(name,) for name in options.of]
    label, base = splits["test"][LABEL], []
    for on in [(), *sets]:
        found = ablation.trainings(bundle, splits, options.seeds, folder, [on])
        scores = [run.scores for run in found[on]]
        base = base or scores
        print(json.dumps({"on": ablation.label(on, made), **compared(label, scores, base)}), flush=True)
    legacy = [
        train_beside(bundle, splits, folder / "legacy" / str(seed), seed, progress=False)
        for seed in options.seeds
    ]
    scores = [run.predict(splits["test"]) for run in legacy]
    described = {"case": "deviations", "rows": len(splits["train"]), "judged": len(label)}
    print(json.dumps({**described, "on": "the legacy", **compared(label, scores, base)}))


if __name__ == "__main__":
    main()
