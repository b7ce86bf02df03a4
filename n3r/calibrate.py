"""Turning scores into probabilities and the published percentile; applying them needs no scikit-learn.

Decisions:
- Isotonic and Platt are compared with the model's own probabilities by log loss on folds they were not
  fitted on, the only losses that are reported (defect 47); the best of the three is kept.
- Isotonic regression is centred (Oron & Flournoy 2017): one knot per block, at its mean score, with straight
  lines between. A step would let the last digit of a float32 score move a probability by the height of the
  step.
- Each block counts one row of the base rate more than it has, and at least half an event and half a
  non-event: a probability of 0 or 1 costs an infinite log loss at the first event that contradicts it. On
  beta-distributed posteriors with base rates of 0.5 to 50 %, 300 to 20,000 rows, this had the lowest excess
  log loss of eight ways or shared it within 2 %; clipping at half an event of all rows had 1.2 to 2.8 times
  as much. Platt's line is cut off at half an event of all rows: where scores separate the classes it would
  reach 1e-13.
- Scores that differ by less than `RESOLUTION` count as equal, and one nearer than that to 0 or 1 counts as
  that far from it: the ONNX graph may differ from the model by as much.
- A percentile's threshold lies midway between two scores of the calibration rows, so that jitter changes the
  percentile of none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    Tag,
    ValidationError,
    model_validator,
)

from n3r.files.json_io import explain
from n3r.thresholds import Ranking, RankingState

RESOLUTION = 1e-5
MIN_ROWS = 10  # of each class; with fewer a fold would be fitted on less than 8
MAX_KNOTS = 256  # a million rows of a calibrated model make 252 blocks, a hundred thousand 116
N_FOLDS = 5
UNKNOWN = -1  # label of a row whose class is not known
PERCENTILES = np.arange(1, 1000) / 1000


class Isotonic(NamedTuple):
    """A probability linear between knots and constant outside them; `score` (K,) ascends."""

    score: np.ndarray
    probability: np.ndarray

    def __call__(self, score: np.ndarray) -> np.ndarray:
        return np.interp(score, self.score, self.probability)


class Platt(NamedTuple):
    """A probability whose logit is linear in the score's, within +- `limit`; `slope` is never negative."""

    slope: float
    intercept: float
    limit: float

    def __call__(self, score: np.ndarray) -> np.ndarray:
        z = self.slope * _logit(score) + self.intercept
        return 1 / (1 + np.exp(-z.clip(-self.limit, self.limit)))


Fit = Callable[[np.ndarray, np.ndarray], Isotonic | Platt]


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the scores of one model become probabilities and percentiles.

    maps: of class 1 if there are two classes, otherwise one per class; none with method "none" (`reason` says
    why). log_loss: "raw", "platt" and "isotonic" in nats, out of fold; empty when nothing was fitted.
    n_rows: rows that the percentiles rest on, `n_labelled` those that the maps do.
    thresholds: (999,), the lowest score of each of `PERCENTILES`; None for other than two classes or no rows.
    ranking: of the labelled rows, by which decisions are made; None as `thresholds` is.
    """

    method: str
    n_classes: int
    n_rows: int
    n_labelled: int
    reason: str | None = None
    maps: tuple[Isotonic | Platt, ...] = ()
    log_loss: Mapping[str, float] | None = None
    thresholds: np.ndarray | None = None
    ranking: Ranking | None = None

    def calibrated(self, p: ArrayLike) -> np.ndarray:
        """Calibrated class probabilities (N, C) float64 of a model's (N, C); rows sum to 1.

        With method "none" they are the model's own. Raises ValueError on another shape and on values that are
        no probabilities; raw scores never come back in place of an error (defect 47).
        """
        p = _probabilities(p)
        if p.shape[1] != self.n_classes:
            raise ValueError(f"probabilities of {p.shape[1]} classes for a calibration of {self.n_classes}")
        return _applied(self.maps, p)

    def percentile(self, score: ArrayLike) -> np.ndarray | None:
        """The percentile (N,) of scores (N,) of class 1: the highest whose threshold is not above the score.

        A score with percentile s has at most the share `share_above(s)` of the calibration rows at or above
        it; below all thresholds it is 0. None where there are no thresholds. Raises ValueError on scores
        outside [0, 1].
        """
        score = np.asarray(score, dtype=np.float64)
        if score.size and not (score.min() >= 0 and score.max() <= 1):
            raise ValueError("scores: expected numbers in [0, 1], found others (logits or NaN?)")
        if self.thresholds is None:
            return None
        return self.thresholds.searchsorted(score, side="right") / 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: finite numbers in full precision, so small ones keep their exponent."""
        return {
            "method": self.method,
            "reason": self.reason,
            "n_classes": self.n_classes,
            "n_rows": self.n_rows,
            "n_labelled": self.n_labelled,
            "log_loss": dict(self.log_loss or {}),
            "maps": [{k: np.asarray(v).tolist() for k, v in one._asdict().items()} for one in self.maps],
            "percentile_thresholds": None if self.thresholds is None else self.thresholds.tolist(),
            "ranking": None if self.ranking is None else self.ranking.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The calibration of `to_dict`; ValueError names every entry that is missing, unknown or wrong."""
        try:
            state = State.model_validate(content, strict=True, extra="forbid")
        except ValidationError as error:
            raise ValueError(f"calibration: {explain(error, State.model_fields)}; fit it again") from None
        thresholds = state.percentile_thresholds
        return cls(
            **state.model_dump(exclude={"maps", "percentile_thresholds", "ranking"}),
            maps=tuple(one.map() for one in state.maps),
            thresholds=None if thresholds is None else np.array(thresholds, np.float64),
            ranking=None if state.ranking is None else Ranking.from_state(state.ranking),
        )


def fit_calibration(
    label: ArrayLike, p: ArrayLike, seed: int = 0, amount: np.ndarray | None = None
) -> Calibration:
    """The calibration of a model's class probabilities `p` (N, C), on rows it was not trained on.

    Rows with label -1 count for the percentiles only: traffic is all rows. With fewer than 10 rows of a
    class, no row at all among them, or where the model's own probabilities have the lowest log loss, the
    method is "none". More than two classes are mapped one against the rest and renormalised. `seed` is that
    of the folds; `amount`, (N,), is what rows are worth, for the ranking. Raises ValueError on other labels,
    on NaN, on rows that do not sum to 1. Sources: Platt 1999; Zadrozny & Elkan 2002.
    """
    p = _probabilities(p)
    label = _labels(label, p)
    n_rows, n_classes = p.shape
    thresholds = _thresholds(p[:, 1]) if n_rows and n_classes == 2 else None
    known = label != UNKNOWN
    label, p, amount = label[known], p[known], None if amount is None else amount[known]
    counts = np.bincount(label, minlength=n_classes)
    ranking = Ranking.of(label == 1, p[:, 1], amount) if n_rows and n_classes == 2 else None
    sizes = {"n_classes": n_classes, "n_rows": n_rows, "n_labelled": len(label)}
    sizes |= {"thresholds": thresholds, "ranking": ranking}
    if counts.min() < MIN_ROWS:
        few = ", ".join(f"{counts[c]} of class {c}" for c in np.flatnonzero(counts < MIN_ROWS))
        return Calibration("none", reason=f"too few labelled rows: {few}; {MIN_ROWS} are needed", **sizes)
    fits: dict[str, Fit] = {"platt": _fit_platt, "isotonic": _fit_isotonic}
    losses = {"raw": _log_loss(label, p)}
    losses |= {name: _log_loss(label, _out_of_fold(label, p, fit, seed)) for name, fit in fits.items()}
    best = min(losses, key=losses.__getitem__)
    if best == "raw":
        reason = "neither map has a lower log loss out of fold than the model's own probabilities"
        return Calibration("none", reason=reason, log_loss=losses, **sizes)
    return Calibration(best, maps=_maps(label, p, fits[best]), log_loss=losses, **sizes)


def share_above(percentile: ArrayLike) -> np.ndarray:
    """The share of traffic at or above a score of this percentile, as published: 0.0317 for 0.5."""
    rest = 1 - np.asarray(percentile, dtype=np.float64)
    return 0.999 * rest**5 + 0.001 * rest


def _thresholds(score: np.ndarray) -> np.ndarray:
    """(999,) scores: at or above the i-th lie as many rows as its share allows, tied ones in or out together.

    NOTE[DIFF] the published map reads three points of a ROC curve that scikit-learn has thinned, a straight
    line from the lowest to the highest score, with a first threshold of infinity (defect 45).
    """
    values, counts = np.unique(score, return_counts=True)
    above = score.size - np.cumsum(counts)  # rows with a higher score than each value
    allowed = np.floor(share_above(PERCENTILES) * score.size)
    at = np.searchsorted(-above, -allowed)  # the lowest value that no more than the allowed rows are above
    following = np.append(values[1:], max(1.0, np.nextafter(values[-1], 2)))
    midway = (values + following) / 2
    return np.where(midway > values, midway, following)[at]


def _out_of_fold(label: np.ndarray, p: np.ndarray, fit: Fit, seed: int) -> np.ndarray:
    """Probabilities of each row by maps fitted on the other folds."""
    from sklearn.model_selection import StratifiedKFold  # sklearn takes 1.3 s to import

    result = np.empty_like(p)
    for train, test in StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(p, label):
        result[test] = _applied(_maps(label[train], p[train], fit), p[test])
    return result


def _maps(label: np.ndarray, p: np.ndarray, fit: Fit) -> tuple[Isotonic | Platt, ...]:
    classes = [1] if p.shape[1] == 2 else range(p.shape[1])
    return tuple(fit(p[:, c], label == c) for c in classes)


def _applied(maps: tuple[Isotonic | Platt, ...], p: np.ndarray) -> np.ndarray:
    if not maps:
        return p
    if len(maps) == 1:
        risk = maps[0](p[:, 1])
        return np.array([1 - risk, risk]).T
    result = np.array([one(column) for one, column in zip(maps, p.T, strict=True)]).T
    return result / result.sum(axis=1, keepdims=True)


def _fit_platt(score: np.ndarray, y: np.ndarray) -> Platt:
    """Logistic regression on the logit, without penalty, towards Platt's targets.

    Those of n rows of a class are 1 / (n + 2) off 0 and 1, which keeps the slope finite where the scores part
    the classes. A model that ranks against its labels gets the base rate, not its ranking reversed.
    """
    from sklearn.linear_model import LogisticRegression

    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    limit = float(np.log(2 * y.size + 1))
    flat = Platt(0.0, float(np.log(target.mean() / (1 - target.mean()))), limit)
    if np.ptp(score) < RESOLUTION:
        return flat
    x, classes = np.tile(_logit(score), 2)[:, None], np.repeat([1, 0], y.size)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
    model.fit(x, classes, sample_weight=np.concatenate([target, 1 - target]))
    slope, intercept = float(model.coef_.item()), float(model.intercept_.item())
    return Platt(slope, intercept, limit) if slope > 0 else flat


def _fit_isotonic(score: np.ndarray, y: np.ndarray) -> Isotonic:
    """Blocks of one rate, pooled until they ascend, lie `RESOLUTION` apart and are `MAX_KNOTS` at most."""
    from sklearn.isotonic import isotonic_regression

    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    events = np.bincount(inverse, weights=y)
    rate = isotonic_regression(events / counts, sample_weight=counts.astype(np.float64))
    blocks = np.stack([counts, events, counts * values], axis=1)  # (K, 3): rows, events, sum of scores
    blocks = _kept_apart(np.add.reduceat(blocks, np.flatnonzero(np.diff(rate, prepend=-1)), axis=0))
    rows, events, scores = _largest_steps(blocks).T
    n = rows + 1  # with the one of the base rate; what it puts out of order is pooled once more
    shrunk = ((events + y.mean()) / n).clip(0.5 / n, 1 - 0.5 / n)
    probability = isotonic_regression(shrunk, sample_weight=n)
    return Isotonic(scores / rows, probability)


def _kept_apart(blocks: np.ndarray) -> np.ndarray:
    """Blocks whose mean scores are `RESOLUTION` apart; nearer ones are pooled."""
    kept: list[np.ndarray] = []
    for block in blocks:
        kept.append(block)
        while len(kept) > 1 and kept[-1][2] / kept[-1][0] - kept[-2][2] / kept[-2][0] < RESOLUTION:
            last = kept.pop()
            kept[-1] = kept[-1] + last
    return np.array(kept)


def _largest_steps(blocks: np.ndarray) -> np.ndarray:
    """At most `MAX_KNOTS` blocks: those between which the rate rises least are pooled."""
    steps = np.diff(blocks[:, 1] / blocks[:, 0])
    starts = np.sort(np.argsort(-steps, kind="stable")[: MAX_KNOTS - 1]) + 1
    return np.add.reduceat(blocks, [0, *starts], axis=0)


def _logit(score: np.ndarray) -> np.ndarray:
    score = score.clip(RESOLUTION, 1 - RESOLUTION)
    return np.log(score / (1 - score))


def _log_loss(label: np.ndarray, p: np.ndarray) -> float:
    chosen = p[np.arange(label.size), label]
    return float(np.log(1 / chosen.clip(np.finfo(np.float64).eps, 1)).mean())  # floor of `metrics.evaluate`


def _probabilities(p: ArrayLike) -> np.ndarray:
    p = np.array(p, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"class probabilities: expected shape (N, C) with C at least 2, got {p.shape}")
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        wrong = int((~((p >= 0) & (p <= 1))).any(axis=1).sum())
        raise ValueError(f"class probabilities: {wrong} of {len(p)} rows are not in [0, 1] (logits or NaN?)")
    return p


def _labels(label: ArrayLike, p: np.ndarray) -> np.ndarray:
    label = np.asarray(label, dtype=np.float64)
    if label.shape != (len(p),):
        raise ValueError(f"labels have shape {label.shape}, {len(p)} rows of probabilities need ({len(p)},)")
    problems = []
    if wrong := int((~np.isin(label, range(UNKNOWN, p.shape[1]))).sum()):
        problems.append(f"labels: {wrong} of {label.size} are not -1 (unknown) or 0 to {p.shape[1] - 1}")
    if wrong := int((abs(p.sum(axis=1) - 1) > 1e-3).sum()):
        problems.append(f"class probabilities: {wrong} of {label.size} rows do not sum to 1")
    if problems:
        raise ValueError("; ".join(problems))
    return label.astype(np.int64)


def _ascending(values: list[float]) -> list[float]:
    if any(a > b for a, b in zip(values, values[1:], strict=False)):
        raise ValueError("expected ascending numbers")
    return values


Ascending = Annotated[list[FiniteFloat], AfterValidator(_ascending)]


class PlattState(BaseModel):
    """A `Platt` as JSON."""

    slope: FiniteFloat = Field(ge=0)
    intercept: FiniteFloat
    limit: FiniteFloat = Field(gt=0, lt=700)

    def map(self) -> Platt:
        return Platt(**self.model_dump())


class IsotonicState(BaseModel):
    """An `Isotonic` as JSON."""

    score: Ascending = Field(min_length=1)
    probability: Ascending

    @model_validator(mode="after")
    def _is_function(self) -> Self:
        _ascending([0.0, *self.probability, 1.0])
        if len(self.score) != len(self.probability) or len(set(self.score)) < len(self.score):
            raise ValueError("expected one probability for each of the scores")
        return self

    def map(self) -> Isotonic:
        return Isotonic(np.array(self.score, np.float64), np.array(self.probability, np.float64))


def _kind(state: Any) -> str:
    return "platt" if isinstance(state, dict) and "slope" in state else "isotonic"


MapState = Annotated[
    Annotated[PlattState, Tag("platt")] | Annotated[IsotonicState, Tag("isotonic")], Discriminator(_kind)
]


class State(BaseModel):
    """What `Calibration.to_dict` gives."""

    method: Literal["isotonic", "platt", "none"]
    reason: str | None
    n_classes: int = Field(ge=2)
    n_rows: NonNegativeInt
    n_labelled: NonNegativeInt
    log_loss: dict[str, FiniteFloat]
    maps: list[MapState]
    percentile_thresholds: (
        Annotated[Ascending, Field(min_length=PERCENTILES.size, max_length=PERCENTILES.size)] | None
    )
    ranking: RankingState | None = None  # bundles of before there were decisions have none

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        n_maps = 0 if self.method == "none" else 1 if self.n_classes == 2 else self.n_classes
        kind = PlattState if self.method == "platt" else IsotonicState
        if len(self.maps) != n_maps or not all(isinstance(one, kind) for one in self.maps):
            raise ValueError(f"maps: expected {n_maps} of method {self.method} for {self.n_classes} classes")
        return self
