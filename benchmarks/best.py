"""The best recipe at quick size: seconds to fit, and scoring with its bundle beside LSTM2Risk's, interleaved.

    python -m benchmarks.best [--rows 30000] [--pairs 5]

One JSON line a pair, and one with the medians: test AUC of both, seconds of each member, rows a second on two
threads with tokenising and features, milliseconds of one order (dict to score, one thread), MB.
Orders are synthetic. LSTM2Risk is the published columns' alone, with the dimensions of `--size quick`.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from n3r.blend.recipe import BlendConfig, fit_blend
from n3r.bundle import Recipe, train_bundle
from n3r.features import TabularFeatures
from n3r.files.json_io import read_json
from n3r.metrics import auc_ci
from n3r.model import ModelConfig, configure
from n3r.preprocess import prepare
from n3r.schema import LABEL, ColumnMap
from n3r.score import Scorer
from n3r.synthetic.orders import generate_orders
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
N_ONE = 500  # orders that are scored one at a time


def main() -> None:
    """Fit both, time them and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    prepared = prepare(generate_orders(options.rows).lazy(), ColumnMap.from_file(CONFIGS / "orders.json"))
    columns, splits = prepared.column_map, prepared.splits
    tokenizer, _ = train_tokenizer(splits["train"].select(columns.all_text), TokenizerConfig())
    sizes = read_json(CONFIGS / "size_quick.json")
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        recipe = Recipe(tokenizer, TabularFeatures(), columns)
        config = BlendConfig(networks={"lstm2risk": sizes["09_best"]["lstm2risk"]})
        started = time.perf_counter()
        blend = fit_blend(splits, recipe, config, folder / "training")
        seconds = time.perf_counter() - started
        blend.save(folder / "best", {})
        _save_network(splits, recipe, sizes["03_train_lstm2risk"], folder)
        found = _scored(folder, splits["test"], options.pairs)
    members = {member.name: round(member.seconds, 1) for member in blend.tried}
    weights = {name: round(weight, 3) for name, weight in blend.weights.items()}
    rows = len(splits["train"]) + len(splits["val"])
    print(json.dumps({"rows": rows, "fit_seconds": seconds, "members": members, "weights": weights, **found}))


def _save_network(splits: dict, recipe: Recipe, size: dict[str, Any], folder: Path) -> None:
    columns, train = recipe.column_map, splits["train"]
    features = TabularFeatures().fit(train, columns.numeric, columns.categorical, columns.n_classes)
    own = {name: value for name, value in size.items() if name in ModelConfig.model_fields}
    training = {name: value for name, value in size.items() if name in TrainConfig.model_fields}
    widths = {"vocab_size": recipe.tokenizer.vocab_size, "n_tab_features": len(features), "n_tab_bins": 24}
    own_recipe = Recipe(recipe.tokenizer, features, columns, TrainConfig(**training))
    bundle, _ = train_bundle(configure("lstm2risk", **own, **widths), splits, own_recipe, folder / "lstm")
    bundle.save(folder / "lstm2risk")


def _scored(folder: Path, test: Any, pairs: int) -> dict[str, Any]:
    """Medians over interleaved pairs, and the AUC of both."""
    names = ("best", "lstm2risk")
    many = {name: Scorer(folder / name, threads=2) for name in names}
    one = {name: Scorer(folder / name, threads=1) for name in names}
    orders = test[:N_ONE].to_dicts()
    speeds, p50 = {name: [] for name in names}, {name: [] for name in names}
    for pair in range(pairs + 1):  # the first warms up
        for name in names:
            rows_a_second = len(test) / _seconds(lambda n=name: many[n].score(test))
            ms = 1000 * statistics.median(_seconds(lambda o=o, n=name: one[n].score_one(o)) for o in orders)
            if pair:
                speeds[name].append(rows_a_second)
                p50[name].append(ms)
        if pair:
            print(json.dumps({name: {"rows/s": speeds[name][-1], "ms": p50[name][-1]} for name in names}))
    ratios = [best / network for best, network in zip(speeds["best"], speeds["lstm2risk"], strict=True)]
    return {
        "auroc": {name: auc_ci(test[LABEL], many[name].score(test)["score"]).value for name in names},
        "rows_a_second": {name: statistics.median(values) for name, values in speeds.items()},
        "ratio": statistics.median(ratios),
        "p50_ms": {name: statistics.median(values) for name, values in p50.items()},
        "mb": {name: sum(p.stat().st_size for p in (folder / name).iterdir()) / 1e6 for name in names},
    }


def _seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
