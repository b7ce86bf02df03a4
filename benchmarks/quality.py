"""How well n3r ranks: beside the legacy, over data seeds, and without each part of the best recipe.

    python -m benchmarks.quality                          test AUC of networks beside the legacy's, over seeds
    python -m benchmarks.quality seeds                    the best recipe on synthetic orders of five seeds
    python -m benchmarks.quality ablation                 what is lost without a group of features, a member
    python -m benchmarks.quality ablation --data FOLDER --map MAP --seeds 0 1 2 \
        --network '{"epochs": 8, "batch_size": 128}'      the same on random splits of a set's training rows

Prints JSON lines. The first runs the pipeline up to step 05, which trains both systems for each seed, n3r as
it trains by default (length buckets, bfloat16 if available) and the legacy in float32: a line a seed and
model class, then the mean AUC of both, their mean difference and its 95 % interval over rows and seeds.

`seeds` compares on test rows boosting as it was before there was a best recipe (the repository's commit
BEFORE), the best recipe, LSTM2Risk alone on all features, and the oracle: a line a seed, then the means.

`ablation` looks at held-out rows alone, never at test rows. Groups of features: boosting, the mean of two
seeds, with all features and without one group. Members: weights are chosen on a half of the held-out rows and
judged on the other half, the mean of ten halves, with all members and without one. A line a part, with the
mean difference over seeds (below 0: the part pays) and its 95 % interval.

Standard error gets the same as Markdown, for reports/quality.md. What is done is kept in runs/quality: a call
that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.stats import t as student

from n3r import metrics, tables
from n3r.blend.config import DEFAULT, BlendConfig
from n3r.blend.recipe import Blend, fit_blend
from n3r.blend.weights import blended, choose_weights
from n3r.bundle import Recipe, train_bundle
from n3r.estimate import rank_auc
from n3r.features import FeatureConfig, TabularFeatures
from n3r.files import kept
from n3r.files.json_io import read_json, write_json
from n3r.folds import make_folds
from n3r.identity.relations import FIGURES, PAIR_FIGURES
from n3r.identity.selection import fit_features
from n3r.identity.words import ADDRESS, DOMAIN, EQUAL, NEAR, RATIO, RISK, USER_NAME
from n3r.model import ModelConfig, configure
from n3r.notebook import read_metrics
from n3r.preprocess import PrepareConfig, prepare
from n3r.schema import LABEL, ORACLE, ColumnMap
from n3r.synthetic.orders import generate_orders
from n3r.train import TrainConfig
from n3r.trees import fit_trees
from n3r.vocabulary import TokenizerConfig, train_tokenizer

ROOT = Path(__file__).resolve().parent.parent
CONFIGS, FOLDER = ROOT / "configs", ROOT / "runs" / "quality"
MARGIN = 0.003  # AUC that n3r may lose for its speed
BEFORE = "c2f5d39"  # the last commit without a best recipe
BOOSTING_BEFORE = """
import json
import polars as pl
from n3r.evaluation.baselines import fit_baseline
from n3r.schema import ColumnMap
with open("columns.json") as file:
    given = json.load(file)  # it may have keys that are newer
columns = ColumnMap(**{key: value for key, value in given.items() if key in ColumnMap.model_fields})
train, test = (pl.read_parquet(f"{split}.parquet") for split in ("train", "test"))
p = fit_baseline("gradient boosting", train, columns, 0).predict(test)
pl.DataFrame({"p": p}).write_parquet("p.parquet")
"""
GROUPS: dict[str, tuple[str, ...]] = {  # of identity features -> their figures
    "figures of a field": FIGURES,
    "figures of two fields": PAIR_FIGURES,
    "user name of an e-mail": (USER_NAME,),
    "free and disposable domains": ADDRESS,
    "counts of equal values": (EQUAL,),
    "counts of near-equal values": (NEAR,),
    "counts of domains": (DOMAIN,),
    "risks of domains": (RISK,),
    "ratios of numbers": (RATIO,),
}
GROUPS |= {
    "counts of equal and near-equal values": (EQUAL, NEAR),
    "user name and kinds of domains": (USER_NAME, *ADDRESS),
    "counts and risks of domains": (DOMAIN, RISK),
    "all of an e-mail": (USER_NAME, *ADDRESS, DOMAIN, RISK),
    "all identity features": tuple(figure for figures in GROUPS.values() for figure in figures),
}
ALL = "nothing"  # left out
N_FOLDS = 3  # of a set that is split at random
TREE_SEEDS, N_HALVINGS = (0, 1), 5
Arrays = dict[str, np.ndarray]


class Matrices(NamedTuple):
    """Features (N, F) and labels of the rows of a fold to fit on and of those held out."""

    X: np.ndarray
    y: np.ndarray
    X_held: np.ndarray
    y_held: np.ndarray
    figures: list[str | None]  # of each column; None: no identity feature

    def without(self, figures: Iterable[str]) -> np.ndarray:
        """(F,) bool: the columns of other figures."""
        return np.array([figure not in figures for figure in self.figures])


class Case:
    """One set of rows, prepared, and what is fitted on it."""

    def __init__(self, options: argparse.Namespace, seed: int):
        self.seed, self.options = seed, options
        name = Path(options.data).name if options.data else options.rows
        self.folder = FOLDER / f"{Path(options.map).stem}-{name}-{seed}"
        columns = ColumnMap.from_file(options.map)
        orders = None if options.data else generate_orders(options.rows, seed).lazy()
        frame = tables.scan([options.data], columns).frame if orders is None else orders
        prepared = prepare(frame, columns, PrepareConfig(seed=seed))
        self.columns, self.splits = prepared.column_map, prepared.splits

    @property
    def seen(self) -> dict[str, pl.DataFrame]:
        """Training and validation rows."""
        return {name: self.splits[name] for name in ("train", "val")}

    @cached_property
    def recipe(self) -> Recipe:
        tokenizer, _ = train_tokenizer(self.splits["train"].select(self.columns.all_text), TokenizerConfig())
        return Recipe(tokenizer, TabularFeatures(), self.columns)

    @property
    def network(self) -> dict[str, Any]:
        return read_json(CONFIGS / "size_quick.json")["09_best"]["lstm2risk"] | self.options.network

    @cached_property
    def blend(self) -> Blend:
        own = {"members": self.options.members, "networks": {"lstm2risk": self.network}}
        config = BlendConfig(**own, n_folds=N_FOLDS, seed=self.seed)
        return fit_blend(self.seen, self.recipe, config, self.folder / "best")

    @cached_property
    def matrices(self) -> list[Matrices]:
        """Of each fold, with all identity features."""
        rows, found = pl.concat(self.seen.values()), []
        for fold in make_folds(rows, len(self.splits["val"]), self.columns, N_FOLDS, self.seed):
            fit, held = rows[fold.fit], rows[fold.held]
            features = fit_features(fit, self.columns, FeatureConfig(), identity=True)
            known = {one.name: one.figure for one in features.identity.features}
            X = features.transform(fit, True), features.transform(held)
            y = fit[LABEL].to_numpy(), held[LABEL].to_numpy()
            found.append(Matrices(X[0], y[0], X[1], y[1], [known.get(name) for name in features.names]))
        return found

    def kept(self, what: str, found: Callable[[], Arrays], *settings: Any) -> Arrays:
        """Arrays by name, found now or in an earlier call."""
        plan = kept.plan("n3r.blend.recipe", self.splits, what, *settings)
        return kept.kept(self.folder / what, plan, lambda: kept.Result(found())).arrays


def beside_legacy(options: argparse.Namespace) -> None:
    """Run the pipeline and print what it found."""
    parameters = {"seeds": options.seeds or [0, 1, 2], "ablated": [], "margin": MARGIN}
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    name = f"quality-{options.size}"
    command = ["-m", "n3r.cli", "run", "05", "--size", options.size, "--name", name, *words]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=sys.stderr)
    found = read_metrics(ROOT / "runs" / name, "05_parity")["parity"]
    for row in found:
        for seed, difference in zip(parameters["seeds"], row["by_seed"], strict=True):
            print(json.dumps({"model": row["model"], "seed": seed, "difference": round(difference, 4)}))
    figures = {"n3r": "auc_a", "legacy": "auc_b", "difference": "difference"}
    figures |= {"low": "difference_low", "high": "difference_high"}
    means = {name: {row["model"]: round(row[key], 4) for row in found} for name, key in figures.items()}
    print(json.dumps({"case": "quality", "rows": found[0]["n"], **means}))


# ---- seeds ----


def over_seeds(options: argparse.Namespace) -> None:
    """Print what each model reaches on the test rows of each seed."""
    rows = []
    for seed in options.seeds or range(5):
        case = Case(options, seed)
        label, p = case.splits["test"][LABEL].to_numpy(), _test_scores(case)
        row = {"seed": seed}
        row |= {name: round(metrics.auc_ci(label, scores).value, 4) for name, scores in p.items()}
        if "before" in p:
            gain = metrics.paired_auc(label, p["best"], p["before"]).difference
            row |= {"gain": round(gain.value, 4), "low": round(gain.low, 4), "high": round(gain.high, 4)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    means = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in p}
    means |= spread("gain", [row["gain"] for row in rows]) if "gain" in rows[0] else {}
    print(json.dumps({"case": "seeds", "seeds": len(rows), **means}))
    show([*rows, {"seed": "mean", **means}], rows[0])


def _test_scores(case: Case) -> Arrays:
    """Model -> scores (N,) of the test rows."""
    settings = case.network, case.options.members
    found = case.kept("before", lambda: _before(case), BEFORE)
    found |= case.kept("best-test", lambda: {"best": _best(case)}, *settings)
    found |= case.kept("lstm2risk-test", lambda: {"lstm2risk": _network_alone(case)}, *settings)
    return found | {"oracle": case.splits["test"][ORACLE].to_numpy()}


def _before(case: Case) -> Arrays:
    """Scores of the boosting of BEFORE, run from the repository's history; none where there is no history."""
    archive = subprocess.run(["git", "archive", BEFORE, "n3r"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        print(f"no commit {BEFORE} in this checkout: its boosting is left out", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        write_json(Path(folder) / "columns.json", case.columns.model_dump())
        for split in ("train", "test"):
            case.splits[split].write_parquet(Path(folder) / f"{split}.parquet")
        command = [sys.executable, "-c", BOOSTING_BEFORE]
        subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PYTHONPATH": folder})
        return {"before": pl.read_parquet(Path(folder) / "p.parquet")["p"].to_numpy()}


def _best(case: Case) -> np.ndarray:
    alone = case.blend.measure(case.splits["test"])
    return blended({name: found.p for name, found in alone.items()}, case.blend.weights)[:, 1]


def _network_alone(case: Case) -> np.ndarray:
    """LSTM2Risk on all features, as `n3r run 03 -p identity=on -p tab_gain_power=1.0` trains it."""
    features = fit_features(case.splits["train"], case.columns, FeatureConfig(), identity=True)
    sizes = {"vocab_size": case.recipe.tokenizer.vocab_size, "n_tab_features": len(features)}
    own, training = (
        {name: value for name, value in case.network.items() if name in config.model_fields}
        for config in (ModelConfig, TrainConfig)
    )
    recipe = Recipe(case.recipe.tokenizer, features, case.columns, TrainConfig(**training))
    model = configure("lstm2risk", **own, **sizes)
    bundle, _ = train_bundle(model, case.splits, recipe, case.folder / "lstm2risk")
    return bundle.predict(case.splits["test"])[:, 1]


# ---- ablation ----


def ablation(options: argparse.Namespace) -> None:
    """Print what is lost, on rows held out, without each group of features and each member."""
    cases = [Case(options, seed) for seed in options.seeds or range(5)]
    for of in options.of:
        found_in, found = ABLATED[of], []
        for case in cases:
            print(f"{case.folder.name}: {of} ..", file=sys.stderr, flush=True)
            found.append(found_in(case))
        whole = round(float(np.mean([one[ALL] for one in found])), 4)
        lines = []
        for part in [part for part in found[0] if part != ALL]:
            by_seed = [round(one[part] - one[ALL], 4) for one in found]
            lines.append({"left_out": part, **spread("difference", by_seed), "by_seed": by_seed})
            print(json.dumps({"case": "ablation", "of": of, "auroc": whole, **lines[-1]}), flush=True)
        print(f"\nAUROC with all {of}: {whole}", file=sys.stderr)
        show(lines, lines[0])


def _without_features(case: Case) -> dict[str, float]:
    """What is left out -> AUC of boosting on the rows held out, the mean of its seeds."""
    found = {}
    for part, figures in {ALL: (), **GROUPS}.items():
        left = [fold.without(figures) for fold in case.matrices]
        # A map without e-mails has none of their features, one of names alone no others.
        if part == ALL or 0 < left[0].sum() < left[0].size:
            where = f"without/{part.replace(' ', '_')}"
            kept_auc = case.kept(where, partial(_boosting, case, left), figures, list(TREE_SEEDS))
            found[part] = kept_auc["auc"].item()
    return found


def _boosting(case: Case, left: list[np.ndarray]) -> Arrays:
    """The mean AUC over seeds of boosting that reads the columns left in each fold."""
    aucs = []
    for seed in TREE_SEEDS:
        p = []
        for fold, columns in zip(case.matrices, left, strict=True):
            trees = fit_trees("boosting", fold.X[:, columns], fold.y, case.columns.n_classes, seed)
            p.append(trees.predict(fold.X_held[:, columns])[:, 1])
        held = np.concatenate([fold.y_held for fold in case.matrices])
        aucs.append(rank_auc(held == 1, np.concatenate(p)))
    return {"auc": np.array([np.mean(aucs)])}


def _without_members(case: Case) -> dict[str, float]:
    """What is left out -> AUC of the blend on halves of the rows held out whose other halves weighed it."""
    from sklearn.model_selection import RepeatedStratifiedKFold  # sklearn takes a second to import

    label, p = case.blend.held[LABEL].to_numpy(), case.blend.p
    found: dict[str, list[float]] = {}
    halves = RepeatedStratifiedKFold(n_splits=2, n_repeats=N_HALVINGS, random_state=0)
    for weighing, judging in halves.split(label, label):
        for part in (ALL, *p):
            others = [name for name in p if name != part]
            weights = choose_weights(label[weighing], {name: p[name][weighing] for name in others})
            judged = blended({name: p[name][judging] for name in others}, weights)
            found.setdefault(part, []).append(rank_auc(label[judging] == 1, judged[:, 1]))
    return {part: float(np.mean(aucs)) for part, aucs in found.items()}


# ---- what is shown ----


def spread(name: str, values: Iterable[float]) -> dict[str, float]:
    """The mean of differences, under a name, and of several the ends of Student's 95 % interval."""
    values = np.array(list(values))
    found = {name: values.mean()}
    if len(values) > 1:
        half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        found |= {"low": values.mean() - half, "high": values.mean() + half}
    return {name: round(float(value), 4) for name, value in found.items()}


def show(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
    """The rows as a Markdown table on standard error."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        lines.append([" ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in cells])
    print(*(f"| {' | '.join(line)} |" for line in lines), sep="\n", file=sys.stderr, flush=True)


ABLATED = {"features": _without_features, "members": _without_members}
CASES = {"legacy": beside_legacy, "seeds": over_seeds, "ablation": ablation}


def main() -> None:
    """Run a case and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="?", default="legacy", choices=CASES)
    parser.add_argument("--size", default="quick", choices=["dev", "quick", "full"], help="of legacy's run")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the data, or of random splits")
    parser.add_argument("--rows", type=int, default=30_000, help="synthetic orders of each seed")
    parser.add_argument("--data", help="a set with its own test file, instead of synthetic orders")
    parser.add_argument("--map", default=CONFIGS / "orders.json", help="its column map")
    parser.add_argument("--members", nargs="+", default=list(DEFAULT), help="of the best recipe")
    parser.add_argument("--of", nargs="+", default=list(ABLATED), choices=ABLATED, help="what is ablated")
    parser.add_argument("--network", type=json.loads, default={}, help="sizes of LSTM2Risk, beside quick's")
    options = parser.parse_args()
    if options.case == "ablation" and len(options.members) < 2:
        parser.error("an ablation takes two members or more")
    CASES[options.case](options)


if __name__ == "__main__":
    main()
