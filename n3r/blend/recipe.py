"""The best recipe: members of several kinds, judged on rows they have not seen, weighed, and fitted again.

Decisions:
- A blend is the mean of its members' log-probabilities: for two classes, of their logits.
- What is handed on is fitted on all training and validation rows. Calibration and percentiles rest on the
  held-out scores: of rows that a member has learned from, its scores would be too good.
- Of more rows than a sample has (`rows/parts.py`, 500,000) the sample stands for all, as members and features
  need their rows in memory; the rows held out are among it.
- Networks train a fixed number of epochs: an early stop would choose by the rows that judge.
- Each fit of a member is kept as soon as it is done, with the seconds that it took, so that an interrupted
  blend goes on and ends as one that was not.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from n3r.blend.config import BlendConfig
from n3r.blend.members import MEMBERS, NETWORKS, PRETRAINED, Context, Fitted, Rows
from n3r.blend.weights import blended, choose_weights, gains
from n3r.bundle import Recipe, describe_splits, int8_effect, write_parts
from n3r.calibrate import fit_calibration
from n3r.encode import Encoded, RowEncoder
from n3r.estimate import Estimate
from n3r.export import quantize_onnx
from n3r.features import TabularFeatures
from n3r.files import kept
from n3r.files.atomic import atomic_folder
from n3r.files.manifest import MANIFEST
from n3r.folds import make_folds
from n3r.graphs import join_graphs
from n3r.identity.selection import fit_features, reads_identity
from n3r.metrics import class_auc
from n3r.predictions import prediction_table
from n3r.progress import Progress
from n3r.rows import parts
from n3r.rows.amounts import amounts
from n3r.runtime import Graph
from n3r.schema import LABEL

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Tried:
    """What is known of a member: how it ranks rows that it has not seen, or why it was left out."""

    name: str
    auroc: Estimate = Estimate()
    weight: float = 0.0
    gain: float | None = None  # AUC of the blend less that of the others in it
    seconds: float = 0.0  # of all its fits
    left_out: str | None = None


class Alone(NamedTuple):
    """A member's probabilities (N, C) of rows, and what they cost, its inputs not counted."""

    p: np.ndarray
    ms_a_row: float
    megabytes: float


@dataclass(frozen=True)
class Blend:
    """A fitted blend: its members' graphs, what these read, and their scores of rows held out."""

    config: BlendConfig
    recipe: Recipe
    graphs: "dict[str, ModelProto]"
    tried: list[Tried]
    held: pl.DataFrame  # rows that no member had seen when it gave them `p`
    p: dict[str, np.ndarray]  # member -> probabilities (N, C) of these rows

    @property
    def weights(self) -> dict[str, float]:
        """Of the members in the blend, summing to 1."""
        return {member.name: member.weight for member in self.tried if member.weight}

    @property
    def held_probs(self) -> np.ndarray:
        """(N, C) of the rows held out."""
        return blended(self.p, self.weights)

    def predictions(self, rows: parts.Rows, p: np.ndarray) -> pl.DataFrame:
        """Probabilities (N, C) of prepared rows as a table, as `Bundle.predictions`."""
        return prediction_table(rows, self.recipe.column_map.id, p)

    def measure(self, rows: parts.Rows) -> "dict[str, Alone]":
        """What each member of the blend makes of prepared rows alone."""
        p: dict[str, list[np.ndarray]] = {name: [] for name in self.graphs}
        seconds = dict.fromkeys(self.graphs, 0.0)
        for part in parts.portions(rows):
            encoded = self._encode(part)
            for name, graph in self.graphs.items():
                started = time.perf_counter()
                p[name].append(self._run(graph, encoded))
                seconds[name] += time.perf_counter() - started
        n_rows = max(len(rows), 1)
        return {
            name: Alone(np.concatenate(p[name]), 1000 * seconds[name] / n_rows, graph.ByteSize() / 1e6)
            for name, graph in self.graphs.items()
        }

    def _encode(self, frame: pl.DataFrame) -> Encoded:
        return _encoder(self.recipe).frame(frame)

    def _run(self, graph: "ModelProto", encoded: Encoded) -> np.ndarray:
        n_classes, pads = self.recipe.column_map.n_classes, self.recipe.pad_tokens
        return Graph(graph.SerializeToString(), n_classes, pads).probabilities(encoded)

    def save(self, folder: Path, metrics: Mapping[str, Any], int8_rows: parts.Rows | None = None) -> None:
        """Write the bundle, replacing one that is there only when it is complete; errors as `Bundle.save`.

        With `int8_rows`, prepared and labelled, a second graph has the networks' weights in 8 bits, and what
        this changes is measured on a sample of them.
        """
        columns, n_features = self.recipe.column_map, len(self.recipe.features)
        model = {
            "model_class": "blend",
            "vocab_size": self.recipe.tokenizer.vocab_size,
            "n_classes": columns.n_classes,
            "n_tab_features": n_features,
            "members": self.weights,
        }
        for key, reader in self.recipe.others.items():
            model |= {key: self.config.pretrained, f"{key}_vocab_size": reader.tokenizer.vocab_size}
        calibration = fit_calibration(self.held[LABEL].to_numpy(), self.held_probs, amount=amounts(self.held))
        with atomic_folder(folder, "the bundle", MANIFEST) as aside:
            graph = join_graphs(self.graphs, self.weights)
            (aside / "model.onnx").write_bytes(graph.SerializeToString())
            measured = dict(metrics)
            if int8_rows is not None:
                small = join_graphs(self._quantized(), self.weights)
                (aside / "model.int8.onnx").write_bytes(small.SerializeToString())
                rows, _ = parts.sample(int8_rows)
                encoded = self._encode(rows)
                found = [self._run(one, encoded) for one in (small, graph)]
                measured["int8"] = int8_effect(rows[LABEL].to_numpy(), *found)
            training = self.config.model_dump(exclude={"pretrained"})
            write_parts(aside, self.recipe, model, training, measured, calibration, None)

    def _quantized(self) -> "dict[str, ModelProto]":
        """The members' graphs, networks with 8-bit weights: trees and n-grams lose more than they save."""
        import onnx

        found = dict(self.graphs)
        for name in [name for name in found if name in NETWORKS]:
            with tempfile.TemporaryDirectory() as aside:
                whole, small = (Path(aside) / file for file in ("model.onnx", "model.int8.onnx"))
                onnx.save(found[name], whole)
                quantize_onnx(whole, small)
                found[name] = onnx.load(small)
        return found


def fit_blend(splits: Mapping[str, parts.Rows], recipe: Recipe, config: BlendConfig, folder: Path) -> Blend:
    """Fit a blend on prepared training and validation rows; `folder` keeps what is done.

    Of the recipe's features only the config counts: they are fitted anew on the rows of each fold. A member
    that fails is left out and says why. Raises ValueError for unknown members, a pretrained model that is not
    there, a class with too few rows to hold out, a budget too small for any member, and where every member
    fails.
    """
    with Progress("blend", "fit") as bar:
        work = _Work(splits, recipe, config, Path(folder), bar)
        label, p = work.held[LABEL].to_numpy(), work.judge()
        graphs: dict[str, ModelProto] = {}
        while not graphs:  # once, or once more for each member that cannot be fitted on all rows
            weights = choose_weights(label, p)
            graphs = work.refit(list(weights))
            p = {name: scores for name, scores in p.items() if name not in work.left_out}
            work.require(p)
    added = gains(label, p, weights)
    tried = [
        Tried(
            name,
            class_auc(label, p[name]) if name in p else Estimate(),
            weights.get(name, 0.0),
            added.get(name),
            work.seconds[name],
            work.left_out.get(name),
        )
        for name in config.tried
    ]
    data = {**recipe.data, "splits": describe_splits(splits)}
    if len(work.rows) < len(splits["train"]) + len(splits["val"]):
        data["n_fitted"] = len(work.rows)  # the sample of all
    own = replace(work.recipe, features=work.whole.features, data=data)
    if not set(weights) & set(PRETRAINED):
        own = replace(own, others={})
    return Blend(config, own, graphs, tried, work.held, p)


def held_out(
    splits: Mapping[str, parts.Rows], recipe: Recipe, config: BlendConfig, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and a blend's probabilities (N, C) of rows held out; nothing is fitted on all rows.

    Arguments and errors as those of `fit_blend`.
    """
    with Progress("blend", "fit") as bar:
        work = _Work(splits, recipe, config, Path(folder), bar)
        label, p = work.held[LABEL].to_numpy(), work.judge()
    return label, blended(p, choose_weights(label, p))


def _encoder(recipe: Recipe) -> RowEncoder:
    """What reads rows for all members."""
    return recipe.encoder(["text", *recipe.others], joined=True)


class _Work:
    """The fits of one blend, each kept in a folder of its own."""

    def __init__(
        self,
        splits: Mapping[str, parts.Rows],
        recipe: Recipe,
        config: BlendConfig,
        folder: Path,
        bar: Progress,
    ):
        config.check()
        recipe = replace(recipe, others=config.others())
        own = parts.sample_of({name: splits[name] for name in ("train", "val")})
        rows = pl.concat(own.values())
        folds = make_folds(rows, len(own["val"]), recipe.column_map, config.n_folds, config.seed)
        self.rows, self.recipe, self.config, self.folder, self.bar = rows, recipe, config, folder, bar
        self.folds, self.n_fits = folds, len(folds) + 1  # of a member that is taken
        self.held = rows[np.concatenate([fold.held for fold in folds])]
        bar.expect(len(config.tried) * self.n_fits)
        self.seconds = dict.fromkeys(config.tried, 0.0)
        self.left_out: dict[str, str] = {}
        configs = (recipe.features.config, recipe.texts, recipe.column_map)
        settings = [part.model_dump() for part in configs] + [recipe.tokenizer.tokenizer.to_str()]
        settings += [config.identity, config.seed, len(folds)]
        self.plan = kept.plan(__name__, {"rows": rows}, settings)
        self.identity = self._reads_identity()
        self.whole = _Part(self, rows)

    def _reads_identity(self) -> bool:
        """Whether the identity features are read, by the same folds as the members."""
        recipe, choice = self.recipe, self.config.identity

        def judged() -> kept.Result:
            config = recipe.features.config
            found = reads_identity(choice, self.rows, recipe.column_map, config, self.folds)
            return kept.Result({"found": np.array(found)})

        return bool(kept.kept(self.folder / "identity", self.plan, judged).arrays["found"])

    def judge(self) -> dict[str, np.ndarray]:
        """Member -> probabilities (N, C) of the rows held out, fold after fold."""
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.config.tried}
        for number, fold in enumerate(self.folds):
            part = _Part(self, self.rows[fold.fit], self.rows[fold.held])
            for name in [name for name in found if name not in self.left_out]:
                self._try(name, f"fold_{number}", part, found[name])
                if number == 0:
                    self._keep_to_budget(name)
        p = {name: np.concatenate(parts) for name, parts in found.items() if name not in self.left_out}
        self.require(p)
        return p

    def refit(self, names: Sequence[str]) -> "dict[str, ModelProto]":
        """Member -> its graph, fitted on all rows; none at all where one cannot be fitted."""
        from onnx import ModelProto

        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for name in names:
            self._try(name, "all", self.whole, found[name])
        if any(name in self.left_out for name in names):
            return {}
        return {name: ModelProto.FromString(graph.tobytes()) for name, (graph,) in found.items()}

    def require(self, left: Mapping[str, Any]) -> None:
        """Raise ValueError where no member is left."""
        if not left:
            told = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            raise ValueError(f"no member of the blend is left: {told}")

    def _try(self, name: str, place: str, part: "_Part", found: list[np.ndarray]) -> None:
        """Append what a fit of a member leaves, or note why it left nothing."""
        own: list[Any] = [self.config.networks.get(name)]
        if name in PRETRAINED:
            own += [self.config.pretrained, self.config.max_tokens]
        settings = json.dumps(own, sort_keys=True, allow_nan=False)
        folder = self.folder / name.replace(" ", "_") / place
        try:
            result = kept.kept(folder, f"{self.plan} {settings}", lambda: part.fit(name, folder))
        except OSError:  # a full disk is no fault of the member
            raise
        except Exception as error:
            why = f": {str(error).splitlines()[0]}" if isinstance(error, ValueError) and str(error) else ""
            self.left_out[name] = f"{type(error).__name__}{why}"
        else:
            self.seconds[name] += result.texts["fit"]["seconds"]
            found.append(result.arrays["found"])
        self.bar.update(last=name)
        self.bar.line(f"fit {self.bar.n} of at most {self.bar.total}, {self.left_out.get(name, name)}")

    def _keep_to_budget(self, name: str) -> None:
        """Leave a member out that, after its first fit, would take more than is left of the budget."""
        if self.config.budget is None or name in self.left_out:
            return
        needed = self.n_fits * self.seconds[name]
        taken = self.n_fits * sum(s for n, s in self.seconds.items() if n not in (name, *self.left_out))
        if taken + needed > self.config.budget:
            left = max(0, self.config.budget - taken)
            self.left_out[name] = f"would take {needed:.0f} s, and {left:.0f} s of the budget are left"


class _Part:
    """Rows to fit members on, and those to judge them by; encoded when a first member asks for them."""

    def __init__(self, work: _Work, fit: pl.DataFrame, held: pl.DataFrame | None = None):
        self.work, self.frame, self.held = work, fit, held

    @cached_property
    def features(self) -> TabularFeatures:
        columns, config = self.work.recipe.column_map, self.work.recipe.features.config
        return fit_features(self.frame, columns, config, self.work.identity)

    @cached_property
    def rows(self) -> Rows:
        return Rows(self._encode(self.frame, out_of_fold=True), self.frame[LABEL].to_numpy().astype(np.int64))

    @cached_property
    def held_rows(self) -> Encoded:
        return self._encode(self.held)

    def _encode(self, frame: pl.DataFrame, out_of_fold: bool = False) -> Encoded:
        return _encoder(replace(self.work.recipe, features=self.features)).frame(frame, out_of_fold)

    def fit(self, name: str, folder: Path) -> kept.Result:
        """Fit a member; what it leaves are scores (N, C) of the rows held out or, without such, its graph."""
        rows, config = self.rows, self.work.config
        recipe = replace(self.work.recipe, features=self.features)
        started = time.perf_counter()
        training = folder.parent / f"{folder.name}_training"
        context = Context(recipe, config.networks, config.pretrained, config.seed, training)
        member: Fitted = MEMBERS[name](rows, context)
        seconds = time.perf_counter() - started
        if self.held is None:
            found = np.frombuffer(member.graph().SerializeToString(), np.uint8)
        else:
            found = member.predict(self.held_rows)
            if not np.isfinite(found).all():
                raise ValueError("its scores are not finite")
        return kept.Result({"found": found}, {"fit": {"seconds": seconds}})
