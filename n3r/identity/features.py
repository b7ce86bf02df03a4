"""Features of identity strings, of their relations, and of pairs of numbers: what an analyst would look at.

Decisions:
- One implementation serves a row and a million, with the same values to the last digit.
- A training row is described as later rows will be: its counts and risks are of strictly earlier rows where
  rows are split by time, else of the other rows and the other folds. Scored rows see all training rows.
- The state holds no value: of what rows share it keeps hashes, and those of two training rows at least.
- Ratios log1p(a) - log1p(b) of numbers are those that add most to how each of the two ranks the classes. Not
  only those that rank better: on twitter_bots these lift boosting by 0.003, all 45 pairs by 0.012.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations, product
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from n3r.estimate import rank_auc
from n3r.files.arrays import let_go, room
from n3r.files.json_io import explain
from n3r.identity.characters import READ
from n3r.identity.mail import is_disposable, is_free
from n3r.identity.relations import (
    DIGITS,
    FIGURES,
    MAX_FIELDS,
    PAIR_FIGURES,
    Fields,
    field_figures,
    fit_of,
    pair_figures,
    read_fields,
)
from n3r.identity.repeats import (
    Kept,
    Table,
    count_table,
    counts_in_training,
    earlier_rate,
    earlier_risk,
    fold_risk,
    keys_of,
    rate_of,
    risk_of,
)
from n3r.identity.words import ADDRESS, DOMAIN, EQUAL, NEAR, RATIO, RISK, SAID, USER_NAME, Feature
from n3r.risk_tables import class_hits, labels_of
from n3r.rows.parts import Rows, fold_numbers, sample, slices
from n3r.rows.values import as_typed, typed_texts
from n3r.schema import LABEL, TIME, ColumnMap

EMAIL = r"^\s*[^@\s]+@[^@\s]+\s*$"
CHUNK = 300_000  # characters of all fields that are counted at a time, or one row
MAX_PAIRS = 28  # of fields that are compared: those of the first eight fields
MAX_RATIOS = 50  # pairs of numbers
MAX_NUMBERS = 64  # whose pairs are tried, those that rank the classes best
RATIO_ROWS = 5000  # training rows that pairs of numbers are chosen by
N_FOLDS, SEED = 5, 0  # of the risks of training rows where rows are split at random


class IdentityState(BaseModel):
    """What `to_dict` gives and what `fit` learns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: list[str] = Field(max_length=MAX_FIELDS)
    emails: list[str]
    ratios: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    n_classes: int = Field(ge=2)
    by_time: bool
    counts: Kept
    risks: list[Kept]  # of the classes from 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.text)) < len(self.text) or not set(self.emails) <= set(self.text):
            raise ValueError("expected fields that differ, e-mail fields among them")
        if len(self.risks) != self.n_classes - 1:
            raise ValueError("expected risks for each class but the first")
        return self


class _Read(NamedTuple):
    """What is counted of N rows."""

    keys: np.ndarray  # (kinds, N) uint64
    label: np.ndarray  # (N,) below 0 for none
    time: np.ndarray | None  # (N,) where rows are split by time


class IdentityFeatures:
    """Turns identity strings and numbers of a frame into (N, K) float32, NaN where nothing can be said.

    NOTE[DIFF] the legacy reads identity strings as texts alone.
    """

    def __init__(self):
        self.text_: list[str] = []  # fields of strings
        self.emails_: list[str] = []  # those of e-mail addresses
        self.ratios_: list[tuple[str, str]] = []  # pairs of numeric columns
        self.n_classes_ = 2
        self.by_time_ = False  # whether training rows see strictly earlier rows
        self.counts_ = count_table(np.empty(0, np.uint64))
        self.risks_: list[Table] = []  # of the classes from 1

    def fit(self, train: Rows, column_map: ColumnMap) -> Self:
        """Learn from training rows with their labels; ValueError names the columns that they lack."""
        self._forget()
        self.text_, self.n_classes_ = column_map.all_text[:MAX_FIELDS], column_map.n_classes
        self.by_time_ = column_map.splits_by_time
        _require(train, [*self.text_, *column_map.numeric, LABEL, *([TIME] if self.by_time_ else [])])
        some, _ = sample(train, [*self.text_, *column_map.numeric, LABEL])
        values = some.select(as_typed(name) for name in self.text_)
        self.emails_ = [one.name for one in values if (one.str.contains(EMAIL).mean() or 0) > 0.5]
        read = self._read(train)
        self.counts_ = count_table(read.keys.ravel())
        self.risks_ = [
            risk_of(read.keys[len(read.keys) - len(self.emails_) :].ravel(), hits, rate_of(hits))
            for hits in (class_hits(read.label, c) for c in range(1, self.n_classes_))
        ]
        self.ratios_ = _choose_ratios(some, column_map.numeric)
        return self

    @cached_property
    def features(self) -> list[Feature]:
        """What each of the K output columns is, in order."""
        text, emails = self.text_, self.emails_
        pairs = [(text[a], text[b]) for a, b in self._pairs]
        risks = (
            [RISK] if self.n_classes_ == 2 else [f"{RISK} of class {c}" for c in range(1, self.n_classes_)]
        )
        return [
            *(Feature(figure, (name,)) for figure, name in product(FIGURES, text)),
            *(Feature(figure, pair) for figure, pair in product(PAIR_FIGURES, pairs)),
            *(Feature(USER_NAME, pair) for pair in self._addressed),
            *(Feature(figure, (name,)) for figure, name in product(ADDRESS, emails)),
            *(Feature(figure, (name,)) for figure, name in product((EQUAL, NEAR), text)),
            *(Feature(DOMAIN, (name,)) for name in emails),
            *(Feature(figure, (name,)) for figure, name in product(risks, emails)),
            *(Feature(RATIO, pair) for pair in self.ratios_),
        ]

    @cached_property
    def names(self) -> list[str]:
        """What each of the K output columns is called, in order."""
        return [feature.name for feature in self.features]

    @cached_property
    def numbers(self) -> list[str]:
        """The numeric columns of a frame that are read."""
        return list(dict.fromkeys(name for pair in self.ratios_ for name in pair))

    @property
    def columns(self) -> list[str]:
        """The columns of a frame that are read."""
        return list(dict.fromkeys([*self.text_, *self.numbers]))

    def transform(self, frame: pl.DataFrame) -> np.ndarray:
        """(N, K) float32 of rows that are scored; ValueError names the columns that they lack."""
        _require(frame, self.columns)
        out = np.empty((len(frame), len(self.names)), np.float32)
        for rows in _chunks(frame, self.text_):
            part = frame[rows]
            numbers = [part[name].cast(pl.Float32).to_numpy() for name in self.numbers]
            out[rows] = self._features(self._fields(part), np.reshape(numbers, (-1, len(part)))).T
        return out

    def transform_training(self, train: pl.DataFrame) -> np.ndarray:
        """(N, K) float32 of the very rows, with their labels, that were given to `fit`."""
        return self.training(train).transform(train, np.arange(len(train)))

    def training(self, train: Rows) -> "TrainingIdentity":
        """What the rows that were given to `fit`, with their labels, say of each other."""
        keys, label, time = self._read(train)
        found = [counts_in_training(one, time) for one in keys]
        fold = fold_numbers(len(label), N_FOLDS, SEED) if time is None else None
        for c in range(1, self.n_classes_):
            hits = class_hits(label, c)
            prior = None if time is None else earlier_rate(hits, time)
            for one in keys[len(keys) - len(self.emails_) :]:
                found.append(
                    fold_risk(one, hits, fold) if time is None else earlier_risk(one, hits, time, prior)
                )
        return TrainingIdentity(self, found)

    def transform_row(self, values: Mapping[str, Any]) -> np.ndarray:
        """(1, K) float32 of one row, column -> text or number; equal to `transform` of a frame of it."""
        numbers = np.array([[values[name]] for name in self.numbers], np.float32).reshape(-1, 1)
        fields = read_fields([[values[name]] for name in self.text_])
        return self._features(fields, numbers).T.astype(np.float32)

    def words(self, name: str, value: float) -> str:
        """What a feature of this name and value says of a row, in plain words."""
        figure, columns = self.features[self.names.index(name)]
        if np.isnan(value):
            return f"{name} is not known"
        said = SAID.get(figure, (f"{figure} of {' and '.join(columns)}: {{value:.3g}}",))
        times = np.exp(np.float64(value)) if figure == RATIO else None  # others are no logarithms
        return said[-1 if value else 0].format(*columns, value=value, times=times)

    def to_dict(self) -> dict:
        """The fitted state as JSON types."""
        return {
            "text": self.text_,
            "emails": self.emails_,
            "ratios": [list(pair) for pair in self.ratios_],
            "n_classes": self.n_classes_,
            "by_time": self.by_time_,
            "counts": self.counts_.to_dict(),
            "risks": [table.to_dict() for table in self.risks_],
        }

    @classmethod
    def from_dict(cls, state: dict) -> Self:
        """The inverse of `to_dict`; ValueError names all of the state that is missing, unknown or wrong."""
        try:
            known = IdentityState.model_validate(state)
        except ValidationError as error:
            told = explain(error, IdentityState.model_fields)
            raise ValueError(f"the state of the identity features: {told}; fit them again") from None
        return cls.of(known)

    @classmethod
    def of(cls, state: IdentityState) -> Self:
        """From a checked state."""
        features = cls()
        for key in ("text", "emails", "n_classes", "by_time"):
            setattr(features, f"{key}_", getattr(state, key))
        features.ratios_ = [tuple(pair) for pair in state.ratios]
        features.counts_ = Table.from_kept(state.counts)
        features.risks_ = [Table.from_kept(kept) for kept in state.risks]
        return features

    def _forget(self) -> None:
        """Leave nothing of an earlier fit."""
        for name in ("features", "names", "numbers", "_pairs", "_addressed"):
            self.__dict__.pop(name, None)

    @cached_property
    def _pairs(self) -> list[tuple[int, int]]:
        """Fields that are compared, by number."""
        return list(combinations(range(len(self.text_)), 2))[:MAX_PAIRS]

    @cached_property
    def _addressed(self) -> list[tuple[str, str]]:
        """Each e-mail field with each field that is none."""
        others = [name for name in self.text_ if name not in self.emails_]
        return list(product(self.emails_, others))

    def _fields(self, frame: pl.DataFrame) -> Fields:
        return read_fields([typed_texts(frame[name]).to_list() for name in self.text_])

    def _features(self, fields: Fields, numbers: np.ndarray) -> np.ndarray:
        """(K, N) float64 of N rows and their numbers (n, N)."""
        n = fields.n_rows if self.text_ else numbers.shape[1]
        blocks = []
        if self.text_ and n:
            keys = self._keys(fields)
            domains = keys[len(keys) - len(self.emails_) :].ravel()
            blocks = [
                field_figures(fields),
                *self._address_figures(fields),
                self.counts_.look_up(keys.ravel()),
            ]
            blocks[1:1] = [pair_figures(fields, self._pairs)] if self._pairs else []
            blocks += [table.look_up(domains) for table in self.risks_]
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            logs = np.log1p(np.where(numbers >= 0, numbers, np.nan), dtype=np.float64)
            at = {name: i for i, name in enumerate(self.numbers)}
            blocks += [logs[at[a]] - logs[at[b]] for a, b in self.ratios_]
        return np.concatenate([block.reshape(-1, n) for block in blocks] or [np.empty((0, n))])

    def _address_figures(self, fields: Fields) -> Iterator[np.ndarray]:
        """Of each address and each other field, then what kind of provider each address is of."""
        at = {name: i for i, name in enumerate(self.text_)}
        for email, other in self._addressed:
            users = fields.of(fields.folded.plain, at[email])
            yield np.array(list(map(fit_of, users, fields.of(fields.folded.words, at[other]))), np.float64)
        for is_kind in (is_free, is_disposable):
            for email in self.emails_:
                domains = fields.of(fields.domains, at[email])
                yield np.array([is_kind(one) if one else np.nan for one in domains], np.float64)

    def _read(self, train: Rows) -> "_Read":
        """The keys, labels and times of all rows."""
        n_kinds, n = 2 * len(self.text_) + len(self.emails_), len(train)
        keys, label = room((n_kinds, n), np.uint64), room(n, np.int16)
        time, start = room(n, np.float64) if self.by_time_ else None, 0
        for part in slices(train, [*self.text_, LABEL, *([TIME] if self.by_time_ else [])]):
            own = slice(start, start + len(part))
            label[own] = labels_of(part)
            if time is not None:
                time[own] = part[TIME].to_physical().cast(pl.Float64).fill_null(np.inf).to_numpy()
            for rows in _chunks(part, self.text_):
                keys[:, start + rows.start : start + rows.stop] = self._keys(self._fields(part[rows]))
            start += len(part)
            let_go(keys, label, *([] if time is None else [time]))
        return _Read(keys, label, time)

    def _keys(self, fields: Fields) -> np.ndarray:
        """(C, N) uint64 keys of what rows may share: fields, fields without digits, domains of addresses."""
        plain = "\n".join(fields.folded.plain).encode().translate(None, DIGITS.encode()).decode().split("\n")
        kinds = {"=": fields.whole, "~": plain}
        found = [
            keys_of(fields.of(values, i), f"{kind}{i}")
            for kind, values in kinds.items()
            for i in range(len(self.text_))
        ]
        at = [self.text_.index(name) for name in self.emails_]
        found += [keys_of(fields.of(fields.domains, i), f"@{i}") for i in at]
        return np.array(found, np.uint64).reshape(-1, fields.n_rows)


class TrainingIdentity(NamedTuple):
    """Features of training rows, whose counts and risks are by other rows than themselves."""

    features: IdentityFeatures
    seen: list[np.ndarray]  # (N,) of each count, then of each risk

    def transform(self, frame: pl.DataFrame, places: np.ndarray) -> np.ndarray:
        """(n, K) float32 of some training rows, whose numbers are `places`."""
        out = self.features.transform(frame)
        at = len(self.features.names) - len(self.features.ratios_) - len(self.seen)
        for i, one in enumerate(self.seen):
            out[:, at + i] = one[places]
        return out


def _require(frame: Rows, columns: Sequence[str]) -> None:
    if absent := [name for name in dict.fromkeys(columns) if name not in frame.columns]:
        raise ValueError(f"the rows lack the columns {absent} that the identity features read")


def _chunks(frame: pl.DataFrame, text: Sequence[str]) -> Iterator[slice]:
    """Rows of at most CHUNK characters together, or one row; the values do not depend on them."""
    lengths = frame.select(as_typed(name).str.len_chars().clip(0, READ) for name in text)
    ends = np.cumsum(len(text) + 1 + lengths.fill_null(0).to_numpy().sum(axis=1, dtype=np.int64))
    start = 0
    while start < len(frame):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        yield slice(start, stop)
        start = stop


def _choose_ratios(train: pl.DataFrame, numeric: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of non-negative columns whose ratio adds most to how well the two rank class 0 from the rest."""
    rows = train.filter(pl.col(LABEL) >= 0)
    rows = rows[:: max(1, len(rows) // RATIO_ROWS)]
    hits = (rows[LABEL] > 0).to_numpy()
    logs = {}
    for name in numeric:
        values = rows[name].cast(pl.Float32).cast(pl.Float64).to_numpy()
        known = values[np.isfinite(values)]
        if len(known) and 0 <= known.min() < known.max():
            logs[name] = np.log1p(np.where(np.isfinite(values), values, np.nan))
    alone = {name: _ranking(values, hits) for name, values in logs.items()}
    tried = sorted(sorted(alone, key=alone.get, reverse=True)[:MAX_NUMBERS], key=list(alone).index)
    gains = {
        (a, b): _ranking(logs[a] - logs[b], hits) - max(alone[a], alone[b]) for a, b in combinations(tried, 2)
    }
    return sorted(gains, key=gains.get, reverse=True)[:MAX_RATIOS]


def _ranking(values: np.ndarray, hits: np.ndarray) -> float:
    """|AUC - 1/2| of the rows that have a value; 0 where these are of one class."""
    known = np.isfinite(values)
    auc = rank_auc(hits[known], values[known])
    return 0.0 if auc is None else abs(auc - 0.5)
