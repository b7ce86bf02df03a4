"""The evaluation of one model's scores: all that a fraud team asks before it acts on them, as JSON.

Decisions:
- A part is left out if the rows lack its columns: scores and labels alone give ranking, decisions and
  calibration.
- The operating threshold and the cheapest one are chosen on validation rows, if there are any, and judged on
  the test rows. A threshold that is judged on the rows it was chosen on looks too good; the report says so.
- Of more than two classes each stands against the rest in `classes`; everything else is about class 0 against
  the rest, as what a team decides is whether to flag an order.
- Rows may come in parts: what is n3r's own of them is in memory, of users' columns one at a time, and texts
  are read some rows at a time.
- Comparators (baselines, the legacy) score the same rows, and stand beside the model with the paired
  difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n3r import metrics
from n3r.estimate import checked
from n3r.evaluation import calibration, decisions, drift, errors, groups
from n3r.evaluation.names import LOCALE_GROUPS, agreement, locale_group, name_of, script_of
from n3r.evaluation.scored import as_two, class_scores, named, own_columns
from n3r.files.json_io import explain, key_values
from n3r.identity.mail import address_fields
from n3r.multiclass import against_rest, each_class
from n3r.rows.amounts import amounts
from n3r.rows.parts import Rows, slices, whole
from n3r.schema import (
    CALIBRATED,
    LABEL,
    ORACLE,
    SCORE,
    SEGMENT,
    TIME,
    ColumnMap,
    plain,
)
from n3r.thresholds import Ranking, days

SCRIPT, LOCALE = "script of the name", "likely locale of the name"
NAMES = 1 << 19  # rows whose names are guessed at a time: each time words are looked at that many have
MIN_COMPARED = 30  # rows of a class: the extremes of many tiny groups differ by chance, and say nothing else


class EvaluationConfig(BaseModel):
    """Where a team would act, what its mistakes cost, and how rows are grouped."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fpr: float = Field(0.01, gt=0, lt=1)  # share of legitimate orders that may be flagged
    # A fraud that goes through, in any currency: 100, or, where orders have an amount, 1 for each unit of it.
    cost_missed: float | None = Field(None, gt=0)
    cost_alarm: float = Field(10.0, gt=0)  # a legitimate order that is flagged
    n_slices: int = Field(6, ge=1, le=1000)  # of time
    seed: int = Field(0, ge=0)  # of resampling

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> Self:
        """The config of texts such as "fpr=0.02"; one ValueError names all that are wrong."""
        given = key_values(texts)
        try:
            return cls(**given)
        except ValidationError as error:
            raise ValueError(explain(error, cls.model_fields)) from None

    @property
    def costs(self) -> decisions.Costs:
        """The two prices."""
        return decisions.Costs(self.cost_missed or 100.0, self.cost_alarm)

    def weighing(self, by_amount: bool) -> Self:
        """The config with the cost of a missed fraud written out, for orders with or without an amount."""
        default = 1.0 if by_amount else 100.0
        return self.model_copy(update={"cost_missed": self.cost_missed or default})


def evaluate_model(
    test: Rows,
    config: EvaluationConfig | None = None,
    column_map: ColumnMap | None = None,
    val: Rows | None = None,
    train: Rows | None = None,
    comparators: Mapping[str, np.ndarray] | None = None,
    orders_a_day: float | None = None,
) -> dict[str, Any]:
    """Everything the evaluation report shows, as JSON types.

    test: labelled and scored rows (`scored.beside`, or plain predictions), with p_calibrated, segment, time,
    oracle_p and the columns of the map where known. val: the same of the validation rows. train: training
    rows, their score where stability of scores is to be shown. comparators: other models' scores of the test
    rows, in their order, (N,) or (N, C). orders_a_day: of a bundle's rows (`Scorer.orders_a_day`); by default
    of these. Raises ValueError on labels that are not of the classes that have scores, scores that are not
    probabilities, and comparators of another length.
    """
    config = config or EvaluationConfig()
    later, earlier = named(test), None if train is None else named(train)
    test, val, train = (None if rows is None else own_columns(rows) for rows in (test, val, train))
    classes = _classes(test, comparators or {})
    test, val, train = (None if rows is None else as_two(rows) for rows in (test, val, train))
    comparators = {name: against_rest(test[LABEL], p)[1] for name, p in (comparators or {}).items()}
    checked(test[LABEL], probability=True, score=test[SCORE])
    threshold, chosen_on = _threshold(test, val, config.fpr)
    by_amount = all(amounts(rows) is not None for rows in (test, val) if rows is not None and len(rows))
    config = config.weighing(by_amount)
    parts = {
        "config": config.model_dump(),
        "operating": {"fpr": config.fpr, "threshold": threshold, "chosen_on": chosen_on},
        "data": _data(test, val, train),
        "models": _models(test, comparators),
        "classes": classes,
        "decisions": _decisions(test, val, config, by_amount, _others(test, comparators)),
        "choice": _choice(test, val, by_amount, orders_a_day or _orders_a_day(test)),
        "calibration": _calibration(test, config.seed),
        "groups": _groups(test, train, threshold, config),
        "stability": _stability(later, earlier, column_map),
        "error_analysis": _error_analysis(later, test, column_map, threshold),
        "fairness": _fairness(later, test, column_map, threshold, config.seed),
    }
    return {name: part for name, part in parts.items() if part is not None}


def ranked(
    name: str, test: Rows, comparators: Mapping[str, np.ndarray]
) -> dict[str, tuple[ArrayLike, ArrayLike]]:
    """The model of scored rows, its comparators and the oracle, for curves: name -> is fraud, score."""
    rows = own_columns(test)
    label, two = rows[LABEL], as_two(rows)
    own = {name: two[SCORE], **_others(two, {n: against_rest(label, p)[1] for n, p in comparators.items()})}
    return {system: (two[LABEL], p) for system, p in own.items()}


def _classes(test: pl.DataFrame, comparators: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Of more than two classes: figures of each against the rest, and each model's mean AUC of these."""
    p = class_scores(test)
    if p.ndim == 1:
        return None
    several = {name: scores for name, scores in comparators.items() if np.ndim(scores) == 2}
    aucs = {name: metrics.class_auc(test[LABEL], scores) for name, scores in {None: p, **several}.items()}
    models = [{"name": name, "n": auc.n, **auc.columns("auroc")} for name, auc in aucs.items()]
    return {"each": each_class(test[LABEL], p), "models": models}


def _threshold(test: pl.DataFrame, val: pl.DataFrame | None, fpr: float) -> tuple[float | None, str]:
    """The operating threshold and the rows that it was chosen on; None flags nothing."""
    for rows, name in ((val, "validation rows"), (test, "these rows")):
        if rows is not None and len(rows):
            found = metrics.threshold_at_fpr(rows[LABEL], rows[SCORE], fpr)
            if found is not None:
                return found if np.isfinite(found) else None, name
    return None, "no rows of both classes"


def _data(test: pl.DataFrame, val: pl.DataFrame | None, train: pl.DataFrame | None) -> list[dict[str, Any]]:
    """Rows, frauds and times of each split."""
    rows = []
    for name, frame in (("train", train), ("val", val), ("test", test)):
        if frame is None or LABEL not in frame.columns:
            continue
        row = {"split": name, "n": len(frame), "n_positive": int((frame[LABEL] > 0).sum())}
        if TIME in frame.columns and frame[TIME].count():
            row |= {"from": str(frame[TIME].min()), "to": str(frame[TIME].max())}
        rows.append(row)
    return rows


def _models(test: pl.DataFrame, comparators: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Metrics of the model, its comparators and the oracle, and the paired difference to each."""
    y, p = test[LABEL], test[SCORE]
    rows = [{"name": None, **_metrics(y, p)}]  # the model itself
    for name, scores in _others(test, comparators).items():
        paired = metrics.paired_auc(y, p, scores)
        lead = paired.difference.columns("difference") | {"p_value": paired.p_value}
        rows.append({"name": name, **_metrics(y, scores), **lead})
    return rows


def _others(test: pl.DataFrame, comparators: Mapping[str, np.ndarray]) -> dict[str, ArrayLike]:
    """The scores that stand beside the model's, the oracle's among them."""
    return dict(comparators) | ({"oracle": test[ORACLE]} if _has_oracle(test) else {})


def _has_oracle(test: pl.DataFrame) -> bool:
    return ORACLE in test.columns and not test[ORACLE].null_count()


def _metrics(y: pl.Series, p: pl.Series) -> dict[str, Any]:
    return metrics.evaluate(y, p) | decisions.average_precision(y, p).columns("average_precision")


def _decisions(
    test: pl.DataFrame,
    val: pl.DataFrame | None,
    config: EvaluationConfig,
    by_amount: bool,
    others: Mapping[str, ArrayLike],
) -> dict[str, Any]:
    """Operating points, top shares, gain, costs, and what validation rows' cheapest threshold does here.

    `others` have the first three too.
    """
    costs, chosen = config.costs, None
    y, p, amount = test[LABEL], test[SCORE], amounts(test) if by_amount else None
    if val is not None and len(val):
        own = amounts(val) if by_amount else None
        threshold = decisions.cheapest(val[LABEL], val[SCORE], costs, own)["threshold"]
        chosen = decisions.at_threshold(y, p, threshold, costs, amount)
    return {
        "by_amount": by_amount,
        **_caught(y, p, config),
        "others": {name: _caught(y, scores, config) for name, scores in others.items()},
        "thresholds": decisions.threshold_table(y, p, costs, amount=amount).to_dicts(),
        "cost_curve": decisions.cost_points(y, p, costs, amount).to_dict(as_series=False),
        "cheapest": decisions.cheapest(y, p, costs, amount),
        "chosen_on_validation": chosen,
    }


def _caught(y: np.ndarray, p: ArrayLike, config: EvaluationConfig) -> dict[str, Any]:
    rates = sorted({*decisions.RATES, config.fpr})
    return {
        "operating_points": decisions.operating_points(y, p, rates, seed=config.seed).to_dicts(),
        "top_shares": decisions.top_shares(y, p, seed=config.seed).to_dicts(),
        "gain": decisions.gain_points(y, p).to_dict(as_series=False),
    }


def _choice(
    test: pl.DataFrame, val: pl.DataFrame | None, by_amount: bool, orders_a_day: float | None
) -> dict[str, Any]:
    """Thresholds to choose from, as a bundle keeps them, and what each does.

    Keys: threshold (K,); of, the "validation" rows if there are any, on which they are chosen, and the rows
    "here", each as `decisions.at_thresholds`; orders_a_day.
    """
    rows = {"validation": val} if val is not None and len(val) else {}
    sets = {
        name: (*checked(own[LABEL], probability=True, score=own[SCORE]), amounts(own) if by_amount else None)
        for name, own in {**rows, "here": test}.items()
    }
    thresholds = Ranking.of(*next(iter(sets.values()))).threshold
    found = {name: decisions.at_thresholds(y, p, thresholds, amount) for name, (y, p, amount) in sets.items()}
    return {"threshold": thresholds.tolist(), "of": found, "orders_a_day": orders_a_day}


def _orders_a_day(test: pl.DataFrame) -> float | None:
    """Of rows whose times are known."""
    if TIME not in test.columns or not (n := test[TIME].count()):
        return None
    return n / days(test[TIME].min(), test[TIME].max())


def _calibration(test: pl.DataFrame, seed: int) -> dict[str, Any]:
    """Reliability of each column of probabilities, and of the score against the known truth."""
    y = test[LABEL]
    found: dict[str, Any] = {}
    for name in (SCORE, CALIBRATED):
        if name in test.columns:
            summary = calibration.calibration_summary(y, test[name], seed=seed)
            found[plain(name)] = {
                "bins": calibration.reliability(y, test[name]).to_dicts(),
                "summary": summary,
            }
            if _has_oracle(test):
                bins = calibration.posterior_bins(test[name], test[ORACLE]).to_dicts()
                summary = calibration.against_posterior(test[name], test[ORACLE])
                found[plain(name)]["posterior"] = {"summary": summary, "bins": bins}
    return found


def _groups(
    test: pl.DataFrame, train: pl.DataFrame | None, threshold: float | None, config: EvaluationConfig
) -> dict[str, Any] | None:
    """The score's quality and decisions in each segment and slice of time."""
    found = {}
    cut = np.inf if threshold is None else threshold
    if SEGMENT in test.columns and test[SEGMENT].n_unique() > 1:
        known = train[SEGMENT].unique().to_list() if train is not None and SEGMENT in train.columns else None
        found["segment"] = groups.by_group(test[SEGMENT], test[LABEL], test[SCORE], cut, known=known)
    if TIME in test.columns and test[TIME].n_unique() > 1:
        slices = groups.time_slices(test[TIME], config.n_slices)
        found["time"] = groups.by_group(slices, test[LABEL], test[SCORE], cut).sort("group")
    return {name: table.to_dicts() for name, table in found.items()} or None


def _stability(later: Rows, earlier: Rows | None, column_map: ColumnMap | None) -> dict[str, Any] | None:
    """How far features and scores of these rows are from those of the training rows."""
    if earlier is None or column_map is None:
        return None
    columns = [n for n in (*column_map.numeric, *column_map.categorical) if n in earlier.columns]
    columns = [name for name in columns if name in later.columns]
    found: dict[str, Any] = {"features": drift.drift(earlier, later, columns).to_dicts()}
    if SCORE in earlier.columns:
        moved = drift.psi(*(whole(rows, [SCORE])[SCORE] for rows in (earlier, later)))
        found["score"] = {**asdict(moved), "verdict": moved.verdict}
    return found


def _error_analysis(
    rows: Rows, test: pl.DataFrame, column_map: ColumnMap | None, threshold: float | None
) -> dict[str, Any] | None:
    """Traits and shapes of the rows that are on the wrong side of the threshold."""
    fields = _fields(rows, column_map)
    if not fields or threshold is None:
        return None
    y, p = test[LABEL], test[SCORE]
    traits = errors.mis_ranked(errors.traits(rows, fields), y, p, threshold)
    shapes = errors.shapes(rows, fields, y, p, threshold)
    return {"traits": traits.to_dicts(), "shapes": shapes.to_dicts()}


def _fairness(
    rows: Rows, test: pl.DataFrame, column_map: ColumnMap | None, threshold: float | None, seed: int
) -> dict[str, Any] | None:
    """Error rates by the script and likely locale of the name, by segment and by the map's groups."""
    fields = _fields(rows, column_map)
    addresses = address_fields(rows, fields)
    names = [field for field in fields if field not in addresses]
    if threshold is None or not names:
        return None
    guessed = pl.concat(_guessed(name_of(part, names)) for part in slices(rows, names, NAMES))
    found = {"by": [_disparity(by, guessed[by], test, threshold, seed) for by in guessed.columns]}
    if SEGMENT in test.columns and test[SEGMENT].n_unique() > 1:
        found["by"].append(_disparity("marketplace", test[SEGMENT], test, threshold, seed))
    for group in [group for group in column_map.groups if group in rows.columns]:
        known = whole(rows, [group])[group]
        found["by"].append(_disparity(group, known, test, threshold, seed))
        truth = known.replace_strict(LOCALE_GROUPS, default=None)
        if not truth.null_count():
            found["guess"] = agreement(guessed[LOCALE], truth).to_dicts()
    return found


def _guessed(names: pl.Series) -> pl.DataFrame:
    """The script and the likely locale of names, as categories: there are few."""
    return pl.DataFrame({SCRIPT: script_of(names), LOCALE: locale_group(names)}).cast(pl.Categorical)


def _disparity(by: str, group: pl.Series, test: pl.DataFrame, threshold: float, seed: int) -> dict[str, Any]:
    rows = group, test[LABEL], test[SCORE], threshold
    rates = groups.disparities(*rows, MIN_COMPARED, seed)
    return {
        "by": by,
        "groups": groups.by_group(*rows).to_dicts(),
        "disparities": rates.to_dicts(),
        "conclusion": groups.conclusion(rates, by),
    }


def _fields(rows: Rows, column_map: ColumnMap | None) -> list[str]:
    return [] if column_map is None else [n for n in column_map.all_text if n in rows.columns]
