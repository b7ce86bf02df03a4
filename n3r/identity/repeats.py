"""How often a value occurs among training rows, and the risk of those that share it, without keeping values.

Decisions:
- A value is kept as 8 bytes of its hash (blake2b: the same on any machine and in any version).
- What occurs in fewer than two rows is not kept: the state knows no value of one customer alone.
- A training row is described by strictly earlier rows where rows are split by time, else by the other rows;
  its risk comes from strictly earlier rows or from the other folds.
- Values of a range of hashes are counted by themselves, range by range: many rows take the memory of some.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from n3r.files.arrays import let_go, room
from n3r.files.ranges import ranges

N_BYTES = 8  # of a key
NO_VALUE = np.uint64(0)
MIN_COUNT = 2  # training rows of a value that is kept
PRIOR_ROWS = 20  # how many rows the prior counts for in a risk


class Kept(BaseModel):
    """Ascending keys of values and a number for each; what is not there has the number `default`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    keys: str  # base64 of unsigned 64-bit integers, lowest byte first
    numbers: list[FiniteFloat]
    default: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        keys = _decoded(self.keys)
        if keys is None or len(keys) != len(self.numbers) or not (keys[1:] > keys[:-1]).all():
            raise ValueError("expected keys that ascend, one number each")
        return self


class Table(NamedTuple):
    """Looks up the numbers of `Kept`."""

    keys: np.ndarray  # (K,) uint64, ascending
    numbers: np.ndarray  # (K,) float64
    default: float

    @classmethod
    def of(cls, keys: np.ndarray, numbers: np.ndarray, default: float = 0.0) -> Self:
        """From ascending keys and their numbers."""
        return cls(keys, numbers.astype(np.float64), float(default))

    @classmethod
    def joined(cls, tables: "Sequence[Table]", default: float) -> Self:
        """One table of those of ascending ranges of keys."""
        keys, numbers = (
            np.concatenate([getattr(table, part) for table in tables]) for part in ("keys", "numbers")
        )
        return cls(keys, numbers, default)

    def of_several(self, counts: np.ndarray) -> Self:
        """The values of MIN_COUNT rows at least."""
        kept = counts >= MIN_COUNT
        return self._replace(keys=self.keys[kept], numbers=self.numbers[kept])

    def look_up(self, keys: np.ndarray) -> np.ndarray:
        """(N,) float64, NaN for no value."""
        if not len(self.keys):
            found = np.full(len(keys), self.default)
        else:
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            found = np.where(self.keys[at] == keys, self.numbers[at], self.default)
        return np.where(keys == NO_VALUE, np.nan, found)

    def to_dict(self) -> dict:
        """As JSON types."""
        keys = b64encode(self.keys.astype("<u8").tobytes()).decode()
        return {"keys": keys, "numbers": self.numbers.tolist(), "default": self.default}

    @classmethod
    def from_kept(cls, kept: Kept) -> Self:
        """The inverse of `to_dict`, of a checked state."""
        return cls.of(_decoded(kept.keys), np.array(kept.numbers), kept.default)


def keys_of(values: Sequence[str], kind: str) -> np.ndarray:
    """(N,) uint64 keys of values of a kind, which differ from those of other kinds; NO_VALUE for ""."""
    one = partial(blake2b, digest_size=N_BYTES, person=kind.encode())
    nothing = bytes(N_BYTES)
    found = [one(value.encode("utf-8", "surrogatepass")).digest() if value else nothing for value in values]
    return np.frombuffer(b"".join(found), "<u8").astype(np.uint64)


def count_table(keys: np.ndarray) -> Table:
    """The training rows of each value that has MIN_COUNT at least."""
    found = []
    for places in ranges(keys):
        some = keys[places]
        distinct, counts = np.unique(some[some != NO_VALUE], return_counts=True)
        found.append(Table.of(distinct, counts).of_several(counts))
    return Table.joined(found, 0.0)


def rate_of(hits: np.ndarray) -> float:
    """The share of hits among rows where it is known; `hits`: 1, 0, below 0 for unknown."""
    known = (hits >= 0).sum()
    return float((hits == 1).sum() / known) if known else 0.5


def risk_of(keys: np.ndarray, hits: np.ndarray, prior: float) -> Table:
    """The smoothed rate of hits of values of MIN_COUNT rows at least; hits (N,), keys (N,) or of several."""
    found = []
    for places in ranges(keys):
        some, hit = keys[places], hits[places % max(len(hits), 1)]
        known = (hit >= 0) & (some != NO_VALUE)
        distinct, inverse, counts = np.unique(some[known], return_inverse=True, return_counts=True)
        sums = np.bincount(inverse, hit[known], len(distinct))
        found.append(
            Table.of(distinct, (sums + PRIOR_ROWS * prior) / (counts + PRIOR_ROWS)).of_several(counts)
        )
    return Table.joined(found, prior)


def counts_in_training(keys: np.ndarray, time: np.ndarray | None) -> np.ndarray:
    """(N,) for each training row: the strictly earlier rows, or without times the other rows, of its value.

    Fewer than MIN_COUNT are 0, as `count_table` gives it; NaN for no value.
    """
    found = room(len(keys), np.float32)
    for places in ranges(keys):
        some = keys[places]
        if time is None:
            _, inverse, counts = np.unique(some, return_inverse=True, return_counts=True)
            n = counts[inverse] - 1
        else:
            n = _earlier_sum(some, time[places], np.ones(len(some), np.int64))
        found[places] = np.where(some == NO_VALUE, np.nan, np.where(n >= MIN_COUNT, n, 0))
        let_go(found)
    return found


def fold_risk(keys: np.ndarray, hits: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(N,) float32 for each training row: the risk of its value by the other folds.

    All folds share a prior: one of the other folds is high where a fold's own rate is low.
    """
    found, prior = room(len(keys), np.float32), rate_of(hits)
    for places in ranges(keys):
        some, own = keys[places], fold[places]
        for number in np.unique(own):
            others = np.where(own == number, -1, hits[places])
            inside = own == number
            found[places[inside]] = risk_of(some, others, prior).look_up(some[inside])
        let_go(found)
    return found


def earlier_risk(keys: np.ndarray, hits: np.ndarray, time: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(N,) float32 for each training row: the risk of its value by strictly earlier rows."""
    found = room(len(keys), np.float32)
    for places in ranges(keys):
        some, when, hit = keys[places], time[places], hits[places]
        n, k = (_earlier_sum(some, when, each) for each in (hit >= 0, np.maximum(hit, 0)))
        first = prior[places]
        risk = np.where(n >= MIN_COUNT, (k + PRIOR_ROWS * first) / (n + PRIOR_ROWS), first)
        found[places] = np.where(some == NO_VALUE, np.nan, risk)
        let_go(found)
    return found


def earlier_rate(hits: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(N,) for each training row: the share of hits among strictly earlier rows; it begins at half of two."""
    found, before = room(len(hits), np.float64), np.zeros(2, np.int64)
    for places in ranges(time):
        when, hit = time[places], hits[places]
        everywhere, amounts = np.ones(len(when), np.uint64), (hit >= 0, np.maximum(hit, 0))
        n, k = (_earlier_sum(everywhere, when, each) for each in amounts)
        found[places] = (k + before[1] + 1) / (n + before[0] + 2)
        before += [int(each.sum()) for each in amounts]
        let_go(found)
    return found


def _earlier_sum(keys: np.ndarray, time: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """(N,) the sum of `amounts` over strictly earlier rows of the same key."""
    order, begin, same_time = _by_value(keys, time)
    total = np.concatenate([[0], np.cumsum(amounts[order], dtype=np.int64)])
    found = np.empty(len(keys), np.int64)
    found[order] = total[same_time] - total[begin]
    return found


def _by_value(keys: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by value and time: their order, where each one's value begins, and where its value and time do."""
    order = np.lexsort((time, keys))
    key, when = keys[order], time[order]
    new_key = np.append(True, key[1:] != key[:-1])[: len(key)]
    new_time = new_key | np.append(True, when[1:] != when[:-1])[: len(key)]
    at = np.arange(len(key))
    begin, same_time = (np.maximum.accumulate(np.where(new, at, 0)) for new in (new_key, new_time))
    return order, begin, same_time


def _decoded(keys: str) -> np.ndarray | None:
    """Keys of their base64; None where it is none."""
    try:
        return np.frombuffer(b64decode(keys, validate=True), "<u8").astype(np.uint64)
    except ValueError:
        return None
