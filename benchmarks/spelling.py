"""What lower case and the folding of confusables do to LSTM2Risk: on clean rows and under attack.

    python -m benchmarks.spelling                                    synthetic orders of five seeds
    python -m benchmarks.spelling --data FOLDER --map MAP \
        --network '{"epochs": 8, "batch_size": 128}'                 random splits of a set's training rows

Four tokenizers for each seed: NFKC alone, as published, and with one of the switches or both. LSTM2Risk of
quick's size reads the columns beside the texts, as step 03 has it; it is scored on validation rows alone,
since the defaults are chosen by these figures, and on the same rows with the frauds' strings attacked.

Prints a line a seed and tokenizer, then for each switch its mean difference over seeds to NFKC alone with
Student's 95 % interval; standard error gets the same as Markdown, for reports/quality.md. What is done is
kept in runs/quality: a call that was interrupted goes on.
"""

import argparse
import json
import sys

import numpy as np

from benchmarks.quality import CONFIGS, Arrays, Case, show, spread
from n3r.bundle import Recipe, train_bundle
from n3r.estimate import rank_auc
from n3r.evaluation.attacks import attack_curve, sample_for_attack
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
ATTACKS = ("homoglyphs", "zero-width", "case", "full-width")
STRENGTHS = (0.3, 1.0)
N_ATTACKED = 1000  # rows of a class at most


def measured(case: Case, name: str) -> dict[str, float]:
    """AUC on the validation rows and on these under each attack, of one tokenizer."""
    place = f"spelling/{name.replace(' ', '_')}"
    found = case.kept(place, lambda: _measured(case, name), case.network, ATTACKS, STRENGTHS)
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
    rows = sample_for_attack(val, LABEL, N_ATTACKED)
    curve = attack_curve(
        lambda frame: bundle.predict(frame)[:, 1], rows, columns.all_text, LABEL, ATTACKS, STRENGTHS
    )
    attacked = {f"{row['attack']} {row['strength']:g}": row["auroc"] for row in curve.to_dicts()}
    return {what: np.array([auc]) for what, auc in {"clean": clean, **attacked}.items()}


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
            print(json.dumps({"seed": seed, "tokenizer": name, **_rounded(aucs[-1])}), flush=True)
    lines = []
    for name, aucs in found.items():
        line = {"tokenizer": name, "seeds": len(aucs)}
        for what in aucs[0]:
            own, base = (np.array([one[what] for one in of]) for of in (aucs, found[BASE]))
            line[what] = round(float(own.mean()), 4)
            if name != BASE:
                line[what] = f"{line[what]} ({_interval(spread('mean', own - base))})"
        lines.append(line)
        print(json.dumps(line))
    print(f"\nAUC on validation rows (difference to {BASE}):", file=sys.stderr)
    show(lines, lines[0])


def _rounded(aucs: dict[str, float]) -> dict[str, float]:
    return {what: round(auc, 4) for what, auc in aucs.items()}


def _interval(found: dict[str, float]) -> str:
    ends = f" [{found['low']:+.4f}, {found['high']:+.4f}]" if "low" in found else ""
    return f"{found['mean']:+.4f}{ends}"


if __name__ == "__main__":
    main()
