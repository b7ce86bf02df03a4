"""Where a team draws the line: a threshold from a rate, a budget, costs or by hand.

Decisions:
- Thresholds are chosen on the rows that the calibration rests on, which the model has not learned from, and a
  bundle keeps their ranking: what a score file does depends on no other row of that file.
- A threshold lies midway between two scores, so that jitter moves none of the rows it was chosen on, and tied
  rows are flagged together.
- A rate is kept to: of two neighbouring thresholds the one that flags less.
- Where the column map names an amount, a missed fraud costs `cost_missed` times its amount. There is one
  threshold for all orders: amounts weigh in its choice, and a row to be scored needs none.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from n3r.files.json_io import explain

MAX_POINTS = 1000  # thresholds that a bundle keeps: each of the highest scores, then ever fewer
FEW_ROWS = 10  # of each class; with fewer a rate means nothing
_BUDGET = re.compile(r"(\d+(?:\.\d+)?) ?(/day|%)")


class Rule(BaseModel):
    """Which orders are flagged: by exactly one of a rate, a budget, two costs or a threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fpr: float | None = Field(None, gt=0, lt=1)  # at most this share of legitimate orders
    budget: str | None = None  # orders that can be reviewed: "50/day", or "2%" of all
    # Of a fraud that is not flagged, a unit of its amount where amounts are known; beside `cost_alarm`.
    cost_missed: float | None = Field(None, gt=0)
    cost_alarm: float | None = Field(None, gt=0)  # of a legitimate order that is
    threshold: float | None = Field(None, ge=0, le=1)  # scores at or above it

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.cost_missed is None) != (self.cost_alarm is None):
            raise ValueError("cost_missed and cost_alarm belong together")
        ways = (self.fpr, self.budget, self.cost_missed, self.threshold)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give one of fpr, budget, cost_missed with cost_alarm, threshold")
        if self.budget is not None and not (found := _BUDGET.fullmatch(self.budget)):
            raise ValueError("budget: expected a number a day or a share, such as 50/day or 2%")
        if self.budget is not None and not 0 < float(found[1]) <= (100 if found[2] == "%" else np.inf):
            raise ValueError("budget: expected more than nothing, and at most 100%")
        return self

    @classmethod
    def of(cls, **given: Any) -> Self:
        """A rule of what is given; ValueError in one sentence."""
        try:
            return cls(**given)
        except ValidationError as error:
            raise ValueError(f"which orders to flag: {explain(error, cls.model_fields)}") from None


class Decision(NamedTuple):
    """A threshold, None where nothing is flagged, and what it did on the rows it was chosen on."""

    threshold: float | None
    flagged: float | None = None  # share of all rows
    fpr: float | None = None  # of legitimate rows
    recall: float | None = None  # of frauds
    recall_amount: float | None = None  # of their amounts, where these are known

    def flags(self, score: np.ndarray) -> np.ndarray:
        """Which scores, (N,), are flagged."""
        return np.zeros(len(score), bool) if self.threshold is None else score >= self.threshold

    def __str__(self) -> str:
        if self.threshold is None:
            return "nothing is flagged: no threshold keeps to this"
        told = f"flagged from a score of {self.threshold:.6g}"
        if self.flagged is None:
            return told
        worth = "" if self.recall_amount is None else f" ({self.recall_amount:.1%} of their amount)"
        return (
            f"{told}: on the rows it was chosen on {self.flagged:.2%} of orders, {self.recall:.1%} of "
            f"frauds{worth}, {self.fpr:.2%} of legitimate ones"
        )


class RankingState(BaseModel):
    """A `Ranking` as JSON."""

    threshold: list[FiniteFloat]
    flagged: list[NonNegativeInt]
    caught: list[NonNegativeInt]
    n: NonNegativeInt
    n_frauds: NonNegativeInt
    amount: list[FiniteFloat] | None = None  # of maps that name none, and of bundles of before there were any
    total: FiniteFloat | None = None

    @model_validator(mode="after")
    def _ranks(self) -> Self:
        legitimate = [all_ - hits for all_, hits in zip(self.flagged, self.caught, strict=False)]
        amount = [0.0] * len(self.flagged) if self.amount is None else self.amount
        rising = (self.flagged, self.caught, legitimate, [-one for one in self.threshold], [0.0, *amount])
        if (self.amount is None) != (self.total is None):
            raise ValueError("ranking: amount and total belong together")
        if len({len(self.threshold), len(self.flagged), len(self.caught), len(amount)}) > 1:
            raise ValueError("ranking: expected as many counts as thresholds")
        if any(a > b for column in rising for a, b in zip(column, column[1:], strict=False)):
            raise ValueError("ranking: expected falling thresholds and rising counts")
        if self.flagged and (self.flagged[-1] > self.n or self.caught[-1] > self.n_frauds):
            raise ValueError("ranking: more rows than there are")
        if amount and amount[-1] > (self.total or 0):
            raise ValueError("ranking: frauds of a larger amount than there is")
        return self


@dataclass(frozen=True, eq=False)
class Ranking:
    """How scores rank rows that the model has not seen.

    threshold, flagged, caught, amount: (K,), thresholds, highest first, and at or above each the rows, the
    frauds and what those are worth; `total` is what all frauds are. Both are None where no amount is known.
    """

    threshold: np.ndarray
    flagged: np.ndarray
    caught: np.ndarray
    n: int
    n_frauds: int
    amount: np.ndarray | None = None
    total: float | None = None

    @classmethod
    def of(cls, is_fraud: np.ndarray, score: np.ndarray, amount: np.ndarray | None = None) -> Self:
        """The ranking of rows, (N,) bool, (N,) scores in [0, 1] and, where known, their amounts (N,)."""
        values, inverse, counts = np.unique(-score, return_inverse=True, return_counts=True)
        flagged = np.cumsum(counts)
        caught = np.cumsum(np.bincount(inverse, weights=is_fraud, minlength=len(values))).astype(np.int64)
        below = np.append(values[1:], 0.0)
        threshold = -(values + below) / 2
        kept = np.arange(len(values))
        if len(values) > MAX_POINTS:
            ends = [_spread(counted) for counted in (flagged, flagged - caught)]
            kept = np.unique(np.concatenate(ends))
        ranking = (threshold[kept], flagged[kept], caught[kept], score.size, int(is_fraud.sum()))
        if amount is None:
            return cls(*ranking)
        worth = np.cumsum(np.bincount(inverse, weights=is_fraud * amount, minlength=len(values)))
        return cls(*ranking, worth[kept], float(worth[-1]) if len(worth) else 0.0)

    def decide(self, rule: Rule, per_day: float | None = None) -> Decision:
        """The threshold of a rule; `per_day` is how many orders a day has, which a budget a day needs.

        Raises ValueError where there are too few rows to choose by, or orders a day are not known.
        """
        if rule.threshold is not None:
            return Decision(rule.threshold)
        n_legitimate = self.n - self.n_frauds
        if min(self.n_frauds, n_legitimate) < FEW_ROWS:
            raise ValueError(
                f"the rows to choose a threshold by hold {self.n_frauds} frauds and {n_legitimate} "
                f"legitimate orders, {FEW_ROWS} of each are needed: give a threshold"
            )
        alarms = self.flagged - self.caught
        if rule.cost_missed is not None:
            caught, all_ = (self.caught, self.n_frauds) if self.amount is None else (self.amount, self.total)
            cost = (all_ - caught) * rule.cost_missed + alarms * rule.cost_alarm
            at = int(cost.argmin()) if cost.min() < all_ * rule.cost_missed else -1
        elif rule.fpr is not None:
            at = int(np.searchsorted(alarms, rule.fpr * n_legitimate, side="right")) - 1
        else:
            most = self._share(rule.budget, per_day) * self.n
            at = int(np.searchsorted(self.flagged, most, side="right")) - 1
        if at < 0:
            return Decision(None)
        shares = self.flagged[at] / self.n, alarms[at] / n_legitimate, self.caught[at] / self.n_frauds
        worth = float(self.amount[at] / self.total) if self.total else None
        return Decision(float(self.threshold[at]), *map(float, shares), worth)

    def _share(self, budget: str, per_day: float | None) -> float:
        number, unit = _BUDGET.fullmatch(budget).groups()
        if unit == "%":
            return float(number) / 100
        if per_day is None:
            raise ValueError(
                f"a budget of {budget} needs to know how many orders a day has, and the training rows had no "
                "time column: give a share, such as 2%"
            )
        return min(1.0, float(number) / per_day)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        arrays = {key: getattr(self, key).tolist() for key in ("threshold", "flagged", "caught")}
        worth = {} if self.amount is None else {"amount": self.amount.tolist(), "total": self.total}
        return {**arrays, "n": self.n, "n_frauds": self.n_frauds, **worth}

    @classmethod
    def from_state(cls, state: RankingState) -> Self:
        """The ranking of a checked state."""
        arrays = (
            np.array(state.threshold),
            np.array(state.flagged, np.int64),
            np.array(state.caught, np.int64),
        )
        amount = None if state.amount is None else np.array(state.amount)
        return cls(*arrays, state.n, state.n_frauds, amount, state.total)


def _spread(counted: np.ndarray) -> np.ndarray:
    """Places of counts that rise, (K,), as near as half of `MAX_POINTS` steps of one ratio."""
    wanted = np.geomspace(1, max(counted[-1], 1), MAX_POINTS // 2)
    return (np.searchsorted(counted, wanted, side="right") - 1).clip(0)


def days(first: datetime, last: datetime) -> float:
    """Days from one time to another, at least one."""
    return max((last - first).total_seconds() / 86400, 1.0)


def orders_a_day(splits: Any) -> float | None:
    """Orders a day of the splits that a bundle describes, over all their days; None where it does not say."""
    try:
        known = [one for one in splits.values() if "from" in one and one["rows"] > 0]
        times = [datetime.fromisoformat(one[end]) for one in known for end in ("from", "to")]
        return sum(one["rows"] for one in known) / days(min(times), max(times))
    except (
        AttributeError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
    ):  # a stranger's bundle, or no times
        return None
