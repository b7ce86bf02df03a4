"""What lower case and the folding of confusables do to LSTM2Risk: on clean rows and under attack.

    python -m benchmarks.spelling                                    synthetic orders of five seeds
    python -m benchmarks.spelling --data FOLDER --map MAP \
        --network '{"epochs": 8, "batch_size": 128}'                 random splits of a set's training rows

Four tokenizers for each seed: NFKC alone, as published, and with one of the switches or both. LSTM2Risk of
quick's size reads the columns beside the texts, as step 03 has it; it is scored on validation rows alone,
since the defaults are chosen by these figures, and on the same rows with the frauds' strings attacked.

Prints a line a seed and tokenizer, then a line a figure: of each tokenizer its mean over seeds, and the mean
difference to NFKC alone with Student's 95 % interval. Figures are AUC, and, of the frauds above the clean
rows' threshold of 1 % false positives, the share that still is ("caught"). Standard error gets the same as
Markdown, for reports/quality.md. What is done is kept in runs/quality: a call that was interrupted goes on.
"""

import argparse
import json
import sys

import numpy as np

from benchmarks.quality import CONFIGS, Arrays, Case, show, spread
from n3r.bundle import Recipe, train_bundle
from n3r.estimate import rank_auc
from n3r.evaluation.attacks import attack_curve
from n3r.features import FeatureConfig
from n3r.identity.selection import fit_features
from n3r.model import ModelConfig, configure
from n3r.schema import LABEL
from n3r.steps import fields
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

SWITCHES = {
    "NFKC alone": (False, False),
    "lower case": (True, False),
    "confusables folded": (False, True),
    "both": (True, True),
}
BASE = "NFKC alone"
ATTACKS = ("homoglyphs", "zero-width", "case")
STRENGTHS = (0.3, 1.0)
CAUGHT = "still_caught"


def measured(case: Case, name: str) -> dict[str, float]:
    """The figures of one tokenizer on the validation rows, clean and under each attack."""
    place = f"spelling/{name.replace(' ', '_')}"
    found = case.kept(place, lambda: _measured(case, name), case.network, ATTACKS, STRENGTHS, CAUGHT)
    return {what: array.item() for what, array in found.items()}


def _measured(case: Case, name: str) -> Arrays:
    train, val, columns = case.splits["train"], case.splits["val"], case.columns
    lower_case, fold_confusables = SWITCHES[name]
    config = TokenizerConfig(lower_case=lower_case, fold_confusables=fold_confusables)
    tokenizer, _ = train_tokenizer(train.select(columns.all_text), config)
    features = fit_features(train, columns, FeatureConfig(), identity=False)
    sizes = {"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features)}
    model = configure("lstm2risk", **fields(ModelConfig, case.network), **sizes)
    training = TrainConfig(**{**fields(TrainConfig, case.network), "seed": case.seed})
    recipe = Recipe(tokenizer, features, columns, training)
    bundle, _ = train_bundle(
        model, case.splits, recipe, case.folder / "spelling" / "training" / name.replace(" ", "_")
    )
    clean = rank_auc(val[LABEL].to_numpy() == 1, bundle.predict(val)[:, 1])
    curve = attack_curve(
        lambda frame: bundle.predict(frame)[:, 1], val, columns.all_text, LABEL, ATTACKS, STRENGTHS
    )
    figures = {"clean": clean}
    for row in curve.to_dicts():
        attack = f"{row['attack']} {row['strength']:g}"
        figures |= {attack: row["auroc"], f"{attack}, caught": row[CAUGHT]}
    return {what: np.array([figure], float) for what, figure in figures.items()}


def main() -> None:
    """Measure every tokenizer with every seed and print what the switches do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), help="of the data or of its splits")
    parser.add_argument("--rows", type=int, default=30_000, help="synthetic orders of each seed")
    parser.add_argument("--data", help="a set with its own test file, instead of synthetic orders")
    parser.add_argument("--map", default=CONFIGS / "orders.json", help="its column map")
    parser.add_argument("--network", type=json.loads, default={}, help="sizes of LSTM2Risk, beside quick's")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SWITCHES}
    for seed in options.seeds:
        case = Case(options, seed)
        for name, aucs in found.items():
            aucs.append(measured(case, name))
            rounded = {what: round(figure, 4) for what, figure in aucs[-1].items()}
            print(json.dumps({"seed": seed, "tokenizer": name, **rounded}), flush=True)
    lines = [
        _line(what, {name: [one[what] for one in of] for name, of in found.items()})
        for what in found[BASE][0]
    ]
    for line in lines:
        print(json.dumps(line))
    print(f"\n{len(options.seeds)} seeds, validation rows (difference to {BASE}):", file=sys.stderr)
    show(lines, lines[0])


def _line(what: str, found: dict[str, list[float]]) -> dict[str, str]:
    """A figure of each tokenizer, and what it is ahead of the base."""
    line = {"figure": what}
    for name, own in found.items():
        line[name] = f"{np.mean(own):.4f}"
        if name != BASE:
            gain = spread("mean", np.subtract(own, found[BASE]))
            ends = f" [{gain['low']:+.4f}, {gain['high']:+.4f}]" if "low" in gain else ""
            line[name] += f" ({gain['mean']:+.4f}{ends})"
    return line


if __name__ == "__main__":
    main()
