"""How often a value occurs among training rows, and the risk of those that share it, without keeping values.

Decisions:
- A value is kept as 8 bytes of its hash (blake2b: the same on any machine and in any version).
- What occurs in fewer than two rows is not kept: the state knows no value of one customer alone.
- A training row is described by strictly earlier rows where rows are split by time, else by the other rows;
  its risk comes from strictly earlier rows or from the other folds.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

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
    distinct, counts = np.unique(keys[keys != NO_VALUE], return_counts=True)
    kept = counts >= MIN_COUNT
    return Table.of(distinct[kept], counts[kept])


def counts_in_training(keys: np.ndarray, time: np.ndarray | None) -> np.ndarray:
    """(N,) for each training row: the strictly earlier rows, or without times the other rows, of its value.

    Fewer than MIN_COUNT are 0, as `count_table` gives it; NaN for no value.
    """
    if time is None:
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        found = counts[inverse] - 1
    else:
        order, begin, same_time = _by_value(keys, time)
        found = np.empty(len(keys), np.int64)
        found[order] = same_time - begin
    return np.where(keys == NO_VALUE, np.nan, np.where(found >= MIN_COUNT, found, 0))


def risk_of(keys: np.ndarray, hits: np.ndarray, prior: float | None = None) -> Table:
    """The smoothed rate of hits of values of MIN_COUNT rows at least; `hits`: 1, 0, below 0 for unknown."""
    known = (hits >= 0) & (keys != NO_VALUE)
    if prior is None:
        prior = float(hits[hits >= 0].mean()) if (hits >= 0).any() else 0.5
    distinct, inverse, counts = np.unique(keys[known], return_inverse=True, return_counts=True)
    rate = (np.bincount(inverse, hits[known], len(distinct)) + PRIOR_ROWS * prior) / (counts + PRIOR_ROWS)
    kept = counts >= MIN_COUNT
    return Table.of(distinct[kept], rate[kept], prior)


def risk_in_training(
    keys: np.ndarray, hits: np.ndarray, time: np.ndarray | None, n_folds: int, seed: int
) -> np.ndarray:
    """(N,) for each training row: the risk of its value by strictly earlier rows, or by the other folds."""
    return _earlier_risk(keys, hits, time) if time is not None else _fold_risk(keys, hits, n_folds, seed)


def _fold_risk(keys: np.ndarray, hits: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """All folds share a prior: one of the other folds is high where a fold's own rate is low."""
    prior = risk_of(keys, hits).default
    found = np.empty(len(keys))
    order = np.random.default_rng(seed).permutation(len(keys))
    for fold in np.array_split(order, n_folds):
        others = hits.copy()
        others[fold] = -1
        found[fold] = risk_of(keys, others, prior).look_up(keys[fold])
    return found


def _earlier_risk(keys: np.ndarray, hits: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The prior, too, is that of earlier rows; it begins at one half of two rows."""
    known, hit = hits >= 0, np.maximum(hits, 0)
    everywhere = np.ones(len(keys), np.uint64)
    n, k = (_earlier_sum(everywhere, time, each) for each in (known, hit))
    prior = (k + 1) / (n + 2)
    n, k = (_earlier_sum(keys, time, each) for each in (known, hit))
    risk = np.where(n >= MIN_COUNT, (k + PRIOR_ROWS * prior) / (n + PRIOR_ROWS), prior)
    return np.where(keys == NO_VALUE, np.nan, risk)


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
