"""The search for a step's parameters: Optuna proposes, validation rows judge, no trial is trained twice.

Decisions:
- Test rows are not read, so that what they say of the chosen parameters stays a figure of unseen rows.
- Of more training and validation rows than a sample has (`rows/parts.py`, 500,000) all steps read the sample
  that 09 is fitted on.
- Trial 0 has the parameters as they are; the others are beside it on the same rows.
- Each trial is kept when it is done. A search is replayed from these: by one seed Optuna proposes the same
  again. So one that was stopped goes on and ends as one that was not, and needs none of Optuna's storages,
  some of which unpickle.
- The networks of 03 and 04 are pruned by Optuna's median rule on `monitor`, epoch by epoch. What 09 fits has
  no validation rows while it trains; there each trial counts, and members that it does not change are kept.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from n3r import checkpoints, presets, steps, tables
from n3r.blend.recipe import held_out
from n3r.bundle import Recipe, train_bundle
from n3r.estimate import Estimate
from n3r.features import TabularFeatures
from n3r.files import kept
from n3r.files.json_io import explain, near, read_json, without_links
from n3r.metrics import class_auc, paired_auc
from n3r.model import ModelConfig, configure
from n3r.rows.parts import sample_of
from n3r.schema import LABEL
from n3r.tokenizer import TextConfig
from n3r.train import TrainConfig

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as Asked
    from optuna.distributions import BaseDistribution

NETWORKS = {"03_train_lstm2risk": "lstm2risk", "04_train_transformer2risk": "transformer2risk"}
RATE = {"low": 3e-4, "high": 1e-2, "log": True}
ALIKE = {
    "lr": RATE,
    "weight_decay": [0.0, 0.01, 0.1],
    "dropout_rate": {"low": 0.0, "high": 0.4},
    "n_tab_bins": [0, 12, 24, 48],
    "tab_gain_power": [0.0, 0.5, 1.0],
}
SPACES: dict[str, dict[str, Any]] = {  # parameter -> its values, or their range
    "03_train_lstm2risk": {**ALIKE, "hidden_size": [16, 32, 64, 128], "n_lstm_layers": {"low": 1, "high": 3}},
    "04_train_transformer2risk": {
        **ALIKE,
        "embedding_size": [32, 64, 128],
        "hidden_size": [32, 64, 128],
        "n_blocks": {"low": 1, "high": 4},
        "n_heads": [2, 4, 8],
    },
    "09_best": {
        "lstm2risk.hidden_size": [16, 32, 64],
        "lstm2risk.lr": RATE,
        "lstm2risk.epochs": {"low": 2, "high": 8},
        "lstm2risk.dropout_rate": {"low": 0.0, "high": 0.4},
        "lstm2risk.tab_gain_power": [0.0, 0.5, 1.0],
    },
}
MIN_TRIALS = 10  # that are complete, before anything is said of what decides
# How is judged and where is computed, not what.
NO_CHOICE = ("name", "preset", "seed", "monitor", "processes", "engine", "address", "n_folds", "budget")


class Range(BaseModel):
    """The values of a parameter between two ends, whole numbers where both are; `log`: by their logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _has_values(self) -> "Range":
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("expected low below high, and above 0 where log is true")
        return self


Space = Mapping[str, Range | list]


def read_space(step: str, parameters: Mapping[str, Any], path: Path | None = None) -> dict[str, Range | list]:
    """The parameters to search and their values; a file's over those of SPACES, null leaves one out.

    Raises ValueError naming the parameter that there is not, that cannot be searched, or whose values are of
    another type than its own, and where the preset decides it.
    """
    given = read_json(path) if path else {}
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold a JSON object of parameters and their values")
    merged = {name: spec for name, spec in {**SPACES[step], **given}.items() if spec is not None}
    if not merged:
        raise ValueError(f"{path} leaves no parameter of {step} to search")
    if parameters.get("preset", presets.OWN) != presets.OWN:
        fixed = [name for name in merged if any(name in group for group in presets.PUBLISHED.values())]
        if fixed:
            raise ValueError(f"the preset decides {', '.join(fixed)}: leave them out, with null in --space")
    return {name: _values(name, spec, _default(step, name, parameters)) for name, spec in merged.items()}


def _default(step: str, name: str, parameters: Mapping[str, Any]) -> Any:
    """What a parameter is without a search; None where that is not said."""
    own, _, key = name.partition(".")
    searched = [known for known in parameters if known not in NO_CHOICE]
    if own not in searched:
        raise ValueError(f"{step} has no parameter {own!r} to search{near(own, searched)}")
    if not key:
        return parameters[own]
    known = {*ModelConfig.model_fields, *TrainConfig.model_fields}
    if not isinstance(parameters[own], dict) or key not in known:
        raise ValueError(f"{step} has no parameter {name!r} to search{near(key, known)}")
    if own not in parameters["members"]:
        raise ValueError(f"{name!r} changes nothing: {own} is not among the members")
    return parameters[own].get(key)


def _values(name: str, spec: Any, default: Any) -> Range | list:
    if isinstance(spec, dict):
        try:
            found = Range(**spec)
        except ValidationError as error:
            raise ValueError(f"values of {name}: {explain(error, Range.model_fields)}") from None
        ends = [found.low, found.high]
    elif isinstance(spec, list) and spec and all(one is None or np.isscalar(one) for one in spec):
        found = ends = spec
    else:
        raise ValueError(f"values of {name}: expected a list of them, or an object with low, high and log")
    kinds = (int, float) if isinstance(default, float) else (type(default),)
    if default is not None and not all(type(one) in kinds for one in ends):
        raise ValueError(f"values of {name}: expected {type(default).__name__}, such as {default!r}")
    return found


def with_values(parameters: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with other values of some; `a.b` is the key b of the parameter a."""
    found = dict(parameters)
    for name, value in values.items():
        own, _, key = name.partition(".")
        found[own] = {**found[own], key: value} if key else value
    return found


class Trial(NamedTuple):
    """What a trial came to."""

    number: int  # 0: the parameters as they are
    values: dict[str, Any]  # of the parameters searched
    state: str  # complete, pruned, or refused: these values do not go together or diverge
    value: float | None  # of the figure that judges
    epochs: list[float]  # the figure after each epoch, where a network was judged
    why: str | None  # it was refused
    label: np.ndarray  # (N,) of the rows that judge; none where it is not complete
    p: np.ndarray  # (N, C)

    @property
    def told(self) -> dict[str, Any]:
        """All but the rows."""
        return {name: value for name, value in self._asdict().items() if name not in ("label", "p")}


class OutOfTime(Exception):
    """The time for a search is over in the midst of a trial."""


class Task:
    """The step of a run whose parameters are searched: its rows, and how it is judged."""

    def __init__(self, run: Path, step: str, parameters: Mapping[str, Any], space: Space):
        self.step, self.parameters, self.space = step, dict(parameters), space
        self.folder, self.seed = run / "tune" / step, parameters["seed"]
        self.monitor = parameters.get("monitor", "auroc")
        self.columns = tables.read_column_map(run / "data")
        rows = {split: tables.split_rows(run / "data", split) for split in ("train", "val")}
        if not len(rows["val"]):
            raise ValueError(f"{run / 'data'} has no validation rows to judge by")
        self.splits, self.n_rows = sample_of(rows), sum(map(len, rows.values()))
        self.tokenizer = steps.read_tokenizer(run, parameters.get("preset", presets.OWN))
        self.spaces = {
            name: spec if isinstance(spec, list) else spec.model_dump() for name, spec in space.items()
        }
        made_of = [step, self.spaces, self.columns.model_dump(), self.tokenizer.tokenizer.to_str()]
        self.plan = kept.plan(__name__, self.splits, *made_of)

    @property
    def maximises(self) -> bool:
        return self.monitor != "val_loss"

    def line(self, trial: Trial, n_trials: int) -> str:
        """What a terminal is told of a trial."""
        of = f"trial {trial.number} of {n_trials}" if trial.number else "as it is"
        came_to = trial.why or (trial.state if trial.value is None else f"{self.monitor} {trial.value:.4f}")
        return f"{of}: {came_to}  {trial.values or ''}"

    def judged(self, parameters: Mapping[str, Any], watch: "_Watch") -> tuple[float, Any, Any]:
        """The figure that judges, the labels (N,) of the rows that do, and their probabilities (N, C)."""
        if self.step in NETWORKS:
            return self._network(presets.settled(parameters), watch)
        config, of_features = steps.blend_configs(parameters)
        recipe = Recipe(self.tokenizer, TabularFeatures(of_features), self.columns)
        label, p = held_out(self.splits, recipe, config, self.folder / "training")
        return class_auc(label, p).value, label, p

    def _network(self, settings: Mapping[str, Any], watch: "_Watch") -> tuple[float, Any, Any]:
        """As the notebooks of 03 and 04 train it."""
        features = steps.fit_features(self.splits["train"], self.columns, settings)
        sizes = {"vocab_size": self.tokenizer.vocab_size, "n_tab_features": len(features)}
        sizes["n_classes"] = self.columns.n_classes
        config = configure(NETWORKS[self.step], **(steps.fields(ModelConfig, settings) | sizes))
        training = TrainConfig(**steps.fields(TrainConfig, settings))
        texts, val = TextConfig(max_tokens=settings["max_tokens"]), self.splits["val"]
        recipe = Recipe(self.tokenizer, features, self.columns, training, texts)
        with checkpoints.watched(watch):
            bundle, fitted = train_bundle(config, self.splits, recipe, self.folder / "training")
        watch.report(fitted.history)
        return fitted.history[fitted.best_epoch - 1][self.monitor], val[LABEL].to_numpy(), bundle.predict(val)


class _Watch:
    """Tells Optuna what each epoch came to, and ends a trial that it prunes or for which there is no time."""

    def __init__(self, monitor: str, asked: "Asked | None", deadline: float):
        self.monitor, self.asked, self.deadline = monitor, asked, deadline
        self.epochs: list[float] = []

    def __call__(self, history: Sequence[Mapping[str, float]]) -> None:
        from optuna import TrialPruned

        self.report(history)
        if self.asked is None:  # the parameters as they are
            return
        if time.monotonic() > self.deadline:
            raise OutOfTime
        if self.epochs and self.asked.should_prune():
            raise TrialPruned

    def report(self, history: Sequence[Mapping[str, float]]) -> None:
        """Tell Optuna what the epochs came to that it was not told of."""
        told, self.epochs = len(self.epochs), [figures[self.monitor] for figures in history]
        if self.asked is not None:
            _report(self.asked, self.epochs, told)


def _report(asked: "Asked", epochs: Iterable[float], told: int) -> None:
    for number, value in enumerate(epochs, 1):
        if number > told:
            asked.report(value, number)


def search(
    task: Task, n_trials: int, minutes: float | None = None, say: Callable[[Trial], None] = lambda _: None
) -> "tuple[list[Trial], Study]":
    """Try the parameters as they are and up to `n_trials` others; what is kept is read back.

    `say` is told each trial as it is done. Without enough `minutes` for another trial there are fewer, and
    the same search goes on from these. Raises ValueError where the parameters as they are are refused.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    deadline = np.inf if minutes is None else time.monotonic() + 60 * minutes
    study = optuna.create_study(
        direction="maximize" if task.maximises else "minimize",
        sampler=optuna.samplers.TPESampler(seed=task.seed),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=2),
    )
    trials = [_try(task, 0, {}, None, deadline)]
    if trials[0].why:
        raise ValueError(trials[0].why)
    say(trials[0])
    distributions = {name: _distribution(spec) for name, spec in task.space.items()}
    for number in range(1, n_trials + 1):
        asked = study.ask(distributions)
        try:
            trials.append(_try(task, number, asked.params, asked, deadline))
        except OutOfTime:
            break
        _tell(study, asked, trials[-1])
        say(trials[-1])
    return trials, study


def _try(task: Task, number: int, values: dict[str, Any], asked: "Asked | None", deadline: float) -> Trial:
    """A trial, trained where none of its plan is kept."""
    from optuna import TrialPruned

    parameters = with_values(task.parameters, values)
    watch = _Watch(task.monitor, asked, deadline)

    def trained() -> kept.Result:
        watch([])
        told: dict[str, Any] = {"values": values, "value": None, "why": None}
        label, p = np.empty(0, np.int64), np.empty((0, task.columns.n_classes), np.float32)
        try:
            told["value"], label, p = task.judged(parameters, watch)
            told["state"] = "complete"
        except TrialPruned:
            told["state"] = "pruned"
        except ValueError as error:
            told |= {"state": "refused", "why": without_links(str(error))}
        return kept.Result({"label": label, "p": p}, {"trial": {**told, "epochs": watch.epochs}})

    plan = f"{task.plan} {json.dumps(parameters, sort_keys=True, allow_nan=False)}"
    found = kept.kept(task.folder / f"trial_{number}", plan, trained)
    return Trial(number, **found.texts["trial"], **found.arrays)


def _tell(study: "Study", asked: "Asked", trial: Trial) -> None:
    """Tell Optuna how a trial ended; of one that is read back its epochs, too."""
    from optuna.trial import TrialState

    _report(asked, trial.epochs, len(study.trials[asked.number].intermediate_values))
    if trial.state == "complete":
        study.tell(asked, trial.value)
    else:
        study.tell(asked, state=TrialState.PRUNED)


def _distribution(spec: Range | list) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(spec, list):
        return CategoricalDistribution(spec)
    is_whole = isinstance(spec.low, int) and isinstance(spec.high, int)
    return (IntDistribution if is_whole else FloatDistribution)(spec.low, spec.high, log=spec.log)


def _importances(study: "Study") -> dict[str, float]:
    """How much each parameter decided among the trials, summing to 1; of fewer than ten, nothing."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    if len(study.get_trials(states=[TrialState.COMPLETE])) < MIN_TRIALS:
        return {}
    with suppress(ValueError, RuntimeError):  # where all trials are alike
        return get_param_importances(study)
    return {}


def described(task: Task, trials: Sequence[Trial], study: "Study") -> tuple[dict[str, Any], dict[str, Any]]:
    """What was found, for a page, and all parameters of the best trial.

    Beside the figure that judged stands AUROC of the best trial and of the parameters as they are, on the
    rows that judged, with the difference; of more than two classes there is none.
    """
    sign = 1 if task.maximises else -1
    done = [trial for trial in trials if trial.state == "complete"]
    first, best = trials[0], max(done, key=lambda one: sign * one.value)  # the first of equals
    found = {"best": class_auc(first.label, best.p), "defaults": class_auc(first.label, first.p)}
    difference = Estimate(n=len(first.label))
    if first.p.shape[1] == 2:
        difference = paired_auc(first.label, best.p[:, 1], first.p[:, 1]).difference
    content = {
        "step": task.step,
        "judged_by": {"figure": task.monitor, "maximised": task.maximises, "n_rows": len(first.label)},
        "rows": {"n": task.n_rows, "n_read": sum(map(len, task.splits.values()))},
        "parameters": task.parameters,
        "space": task.spaces,
        "trials": [trial.told for trial in trials],
        "best": best.number,
        "auroc": {name: estimate.columns("auroc") for name, estimate in found.items()},
        "difference": difference.columns("difference"),
        "importance": _importances(study),
    }
    return content, with_values(task.parameters, best.values)
