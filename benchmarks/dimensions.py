"""LSTM2Risk at the published dimensions beside a small one: validation AUC and speed in training.

    python -m benchmarks.dimensions runs/quick
    python -m benchmarks.dimensions runs/quick --seeds 0 --epochs 1     a smoke run

Reads the rows and the tokenizer that steps 01 and 02 of a run prepared. Both networks have the identity
features and weights of features by gain, as in the best recipe; no test row is read. What the small one does
for the speed of scoring tells `score lstm2risk batch`.

One JSON line a training, and one with the difference over the seeds and its 95 % interval.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from n3r import tables
from n3r.bundle import Recipe, train_bundle
from n3r.features import FeatureConfig
from n3r.identity.selection import fit_features
from n3r.metrics import auc_ci, paired_auc
from n3r.model import configure
from n3r.schema import LABEL
from n3r.tokenizer import NameTokenizer
from n3r.train import TrainConfig, predict

DIMENSIONS = {
    "published": {"hidden_size": 128, "n_lstm_layers": 4},
    "small": {"hidden_size": 32, "n_lstm_layers": 1},
}


def main() -> None:
    """Train both of each seed and print how well they rank and how fast they learned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    columns = tables.read_column_map(arguments.run / "data")
    splits = {name: tables.read_split(arguments.run / "data", name) for name in ("train", "val")}
    tokenizer = NameTokenizer.load(arguments.run / "tokenizer")
    features = fit_features(splits["train"], columns, FeatureConfig(), identity=True)
    sizes = {"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features), "n_tab_bins": 24}
    label, scores, speeds = splits["val"][LABEL], {}, {}
    for seed in arguments.seeds:
        recipe = Recipe(
            tokenizer, features, columns, TrainConfig(epochs=arguments.epochs, batch_size=256, seed=seed)
        )
        val = recipe.read(splits["val"], 1, training=False)
        for name, dimensions in DIMENSIONS.items():
            config = configure("lstm2risk", tab_gain_power=1.0, **sizes, **dimensions)
            with tempfile.TemporaryDirectory() as folder:
                bundle, fitted = train_bundle(config, splits, recipe, Path(folder))
            scores.setdefault(name, []).append(predict(bundle.model, val, recipe.pad_tokens)[:, 1])
            speeds.setdefault(name, []).append(fitted.orders_per_second)
            auc = round(auc_ci(label, scores[name][-1]).value, 4)
            print(json.dumps({"seed": seed, "dimensions": name, "auc": auc}), flush=True)
    difference = paired_auc(label.to_numpy(), scores["small"], scores["published"]).difference
    found = {key: round(float(getattr(difference, key)), 4) for key in ("value", "low", "high")}
    medians = {name: round(statistics.median(values)) for name, values in speeds.items()}
    rows = {"rows": len(splits["train"]), "judged": len(label)}
    print(json.dumps({"case": "dimensions", **rows, "difference": found, "orders_a_second": medians}))


if __name__ == "__main__":
    main()
