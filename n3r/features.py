"""Numeric and categorical columns made fit for a network: imputed, risk-encoded, their scaling learned.

Decisions:
- Fitted on the training split only; the state is plain data (`to_dict`, `from_dict`), never a pickle.
- Risks come from counts of all rows, part by part; what is imputed and how values are scaled comes from one
  sample of them (rows/parts.py), which a split of usual size is itself.
- A missing number becomes its column's learned value, and an indicator column says so.
- A category becomes the rate of each class among its training rows. The training rows themselves are
  encoded out of fold (`transform(frame, out_of_fold=True)`): a row never sees its own label.
- Quantile scaling maps each value to the normal score of its rank among the training values, so that
  an amount of 10 million is an outlier by one unit and not by a thousand. Ties share their middle rank.
  Its knots are learned here; the network maps by them (`tabular.QuantileMap`), and so do its exports.
- Numbers are float32 from the start, as networks read them: a training value lies exactly on its knot.
- A column that is constant in training carries nothing and is left out.
- Identity features, where given, are further numeric columns; a missing one gets no indicator, as one
  feature a field says that the field is missing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple, Self

import numpy as np
import polars as pl
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from n3r.files.json_io import MAX_TOLD, explain
from n3r.identity.features import IdentityFeatures, IdentityState, TrainingIdentity
from n3r.precomputed import Number, precomputed_problems
from n3r.risk_tables import (
    Counts,
    LearnedTable,
    RiskTable,
    Smoothing,
    by_value,
    count_categories,
    look_up,
    risk_columns,
    row_risks,
    without_default,
)
from n3r.rows.parts import Rows, fold_numbers, sample, slices
from n3r.schema import LABEL

CHUNK = 16_384  # rows that are encoded at a time
LARGEST = 1e38  # of a knot, so that the gap between two of them is a float32


class FeatureConfig(BaseModel):
    """How columns are imputed, risk-encoded and scaled."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # NOTE[DIFF] the legacy reads numbers as they are: one amount of 10 million sets its batch's variance.
    scaling: Literal["quantile", "none"] = "quantile"
    n_quantiles: int = Field(200, ge=2)  # knots per column; 200 place a value within half a percent
    # NOTE[DIFF] the legacy fills -1, a legal value of many columns, before it learns a mean, so that its
    # imputation does nothing (defect 26). minus_one is that fill.
    imputation: Literal["median", "mean", "mode", "minus_one"] = "median"
    smooth_factor: float = Field(0.0, ge=0)  # of all rows: how many the prior counts for in a category
    # NOTE[DIFF] the legacy's threshold is 0: a category seen once gets the label of its only row (defect 37).
    count_threshold: int = Field(20, ge=0)  # categories of fewer rows get the prior
    n_folds: int = Field(5, ge=2, le=1000)  # for the risks of the training rows themselves
    seed: int = Field(0, ge=0)  # of the folds


class Knots(BaseModel):
    """A column's map from value to normal score."""

    value: list[Number]
    score: list[FiniteFloat]

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        value = np.array(self.value, np.float32)
        one_each = len(value) == len(self.score) > 1
        if not one_each or not (np.diff(value) > 0).all() or np.abs(value).max() > np.float32(LARGEST):
            raise ValueError("expected knots that ascend, one score each")
        return self


class State(BaseModel):
    """What `to_dict` gives: the config and what `fit` learns."""

    config: FeatureConfig
    imputation: dict[str, Number]
    risk_tables: dict[str, LearnedTable]
    precomputed_risk: bool
    knots: dict[str, Knots]
    indicators: list[str]
    identity: IdentityState | None = None  # bundles of before there were identity features have none

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numeric, indicators = self.imputation, self.indicators
        raw = {**numeric, **self.risk_tables}
        computed = IdentityFeatures.of(self.identity).names if self.identity else []
        last = list(numeric)[len(numeric) - len(computed) :]
        found = {
            "two features named": [name for name in numeric if name in self.risk_tables],
            "no place for the features": [] if last == computed else computed,
            "knots of the unknown features": [name for name in self.knots if name not in raw],
            "indicators of the unknown features": [name for name in indicators if name not in numeric],
            "indicators twice for": sorted({name for name in indicators if indicators.count(name) > 1}),
        }
        if wrong := [f"{what} {names[:MAX_TOLD]}" for what, names in found.items() if names]:
            raise ValueError("; ".join(wrong))
        return self


# Attributes, with "_" behind.
STATE = [name for name in State.model_fields if name not in ("config", "identity")]


class Training(NamedTuple):
    """What training rows say of each other, so that none of them is described by its own label."""

    counts: dict[str, Counts]  # by categorical column
    fold: np.ndarray  # (N,) that each row is in
    identity: TrainingIdentity | None


class TabularFeatures:
    """Turns a frame's numeric and categorical columns into the (N, F) float32 matrix a model reads.

    Values are as they were, imputed; a model that is built with `knots` scales them.

    NOTE[DIFF] the names models of the legacy read no categories; here they read each one's risk.
    """

    def __init__(self, config: FeatureConfig | None = None):
        self.config = config or FeatureConfig()
        self.imputation_: dict[str, float] = {}  # numeric column -> what a missing value becomes
        self.risk_tables_: dict[str, dict] = {}  # output column -> risk table, with its "column" and "class"
        self.precomputed_risk_ = False  # whether the tables were learned elsewhere
        self.knots_: dict[str, dict[str, list[float]]] = {}  # output column -> {"value": .., "score": ..}
        self.indicators_: list[str] = []  # numeric columns that get a missing indicator
        self.identity: IdentityFeatures | None = None

    @property
    def names(self) -> list[str]:
        """What each of the F output columns is, in order."""
        if self.config.scaling == "none":
            return [*self.imputation_, *self.risk_tables_]
        return list(self.knots_) + [f"{name} is missing" for name in self.indicators_]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def knots(self) -> np.ndarray | None:
        """(2, G, K) values and normal scores for the first G features, the last repeated; None: unscaled."""
        if self.config.scaling == "none" or not self.knots_:
            return None
        most = max(len(knots["value"]) for knots in self.knots_.values())
        rows = [[knots[key] for knots in self.knots_.values()] for key in ("value", "score")]
        return np.array([[row + row[-1:] * (most - len(row)) for row in part] for part in rows])

    def fit(
        self,
        rows: Rows,
        numeric: Sequence[str],
        categorical: Sequence[str] = (),
        n_classes: int = 2,
        imputation: Mapping[str, float] | None = None,
        risk_tables: Mapping[str, RiskTable] | None = None,
        identity: IdentityFeatures | None = None,
    ) -> Self:
        """Learn from the training split, or take over what `read_precomputed` gives (tables: two classes).

        `identity` is fitted on the same rows; its features become further numeric columns.
        The `label` column is read only where risk tables are learned; rows whose label is null or negative
        are not counted. Raises ValueError naming all that is wrong with the columns, the labels and the
        precomputed values.
        """
        learned, computed = risk_columns(categorical, n_classes), identity.names if identity else []
        with_label = [LABEL] if categorical and risk_tables is None else []
        named = Counter([*numeric, *computed, *learned])
        problems = [
            *_absent(rows.columns, [*numeric, *categorical, *with_label]),
            *(f"two features are named {name!r}: rename a column" for name, n in named.items() if n > 1),
            *precomputed_problems("imputation values", imputation, numeric),
            *precomputed_problems("risk tables", risk_tables, categorical),
        ]
        if n_classes < 2 or (risk_tables and n_classes > 2):
            problems.append(f"n_classes={n_classes}: expected 2, or more with no precomputed risk tables")
        self.identity, self.precomputed_risk_ = identity, risk_tables is not None
        if with_label and not problems:
            largest = max(part[LABEL].max() or 0 for part in slices(rows, [LABEL]))
            if largest >= n_classes:
                problems.append(f"n_classes={n_classes}, but column {LABEL!r} holds class {largest}")
        if problems:
            raise ValueError("; ".join(problems))
        training = self._training(rows, categorical, n_classes)
        some, places = sample(rows, [*numeric, *categorical, *(identity.columns if identity else [])])
        columns = {name: _present(some[name]) for name in numeric}
        if identity:
            columns |= zip(computed, map(_finite, training.identity.transform(some, places).T), strict=True)
        given = imputation or {}
        self.imputation_ = {
            name: float(given[name]) if name in given else self._fill(values)
            for name, values in columns.items()
        }
        self.risk_tables_ = {}
        for name, (column, c) in learned.items():
            counts = training.counts[column]
            known = counts.table_of(c, self._smoothing) if risk_tables is None else risk_tables[column]
            table = without_default(known) if risk_tables is None else by_value(known)
            table |= {"column": column, "class": c}
            self.risk_tables_[name] = table | {"known": counts.known_share(table)}
        self._fit_scaling(some, columns, training, places)
        return self

    @property
    def _smoothing(self) -> Smoothing:
        return Smoothing(self.config.smooth_factor, self.config.count_threshold)

    def _training(self, rows: Rows, categorical: Sequence[str], n_classes: int) -> "Training":
        """What all training rows say of each of them, from one reading of their categories and labels."""
        config = self.config
        fold = fold_numbers(len(rows), config.n_folds, config.seed) if categorical else np.empty(0, np.int16)
        identity = self.identity.training(rows) if self.identity else None
        return Training(count_categories(rows, categorical, n_classes, fold), fold, identity)

    def _fill(self, values: np.ndarray) -> float:
        """What a missing value of a column with these present ones becomes; 0 where there are none."""
        if self.config.imputation == "minus_one":
            return -1.0
        if not len(values):
            return 0.0
        if self.config.imputation == "mode":
            distinct, counts = np.unique(values, return_counts=True)
            return float(distinct[counts.argmax()])  # the smallest of several
        return float(np.median(values) if self.config.imputation == "median" else np.mean(values))

    def _fit_scaling(
        self, some: pl.DataFrame, columns: Mapping[str, np.ndarray], training: "Training", places: np.ndarray
    ) -> None:
        """Learn knots and indicators from the sample of the rows; a constant column gets no knots."""
        self.knots_, self.indicators_ = {}, []
        self.__dict__.pop("_learned", None)  # of an earlier fit
        if self.config.scaling == "none":
            return
        self.indicators_ = [name for name in self.numeric if 0 < len(columns[name]) < len(some)]
        for name, present in columns.items():
            self.knots_[name] = _normal_scores(present, self.config.n_quantiles)
        whole = dict(self._risks(some))
        for name, risks in self._risks(some, training, places):
            if len(np.unique(whole[name])) > 1:  # a column of one category has one risk in each fold
                self.knots_[name] = _normal_scores(risks, self.config.n_quantiles)
        self.knots_ = {name: knots for name, knots in self.knots_.items() if len(knots["value"]) > 1}

    def transform(self, frame: pl.DataFrame, out_of_fold: bool = False) -> np.ndarray:
        """(N, F) float32, columns as in `names`; NaN and infinity count as missing.

        `out_of_fold` is for the training split with its labels: a row's risk comes from the rows of the
        other folds, which are drawn by position from the seed. Precomputed tables are used as they are.
        Raises ValueError naming every fitted column that the frame lacks.
        """
        if out_of_fold:
            return np.concatenate([found for _, found in self.transform_training(frame)])
        if absent := _absent(frame.columns, self.columns):
            raise ValueError(*absent)
        return self._transform(frame)

    def transform_training(self, rows: Rows) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        """The training split with its labels, some rows at a time, and `transform` of them out of fold."""
        read = self.columns
        if self.identity or (self.risk_tables_ and not self.precomputed_risk_):
            read.append(LABEL)
        if absent := _absent(rows.columns, read):
            raise ValueError(*absent)
        n_classes = 1 + max((table["class"] for table in self.risk_tables_.values()), default=1)
        training = self._training(rows, [] if self.precomputed_risk_ else self.categorical, n_classes)
        start = 0
        for part in slices(rows):
            places = np.arange(start, start + len(part))
            yield part, self._transform(part, training, places)
            start += len(part)

    def _transform(
        self, frame: pl.DataFrame, training: "Training | None" = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        risks = _side_by_side([risks for _, risks in self._risks(frame, training, places)], len(frame))
        out = np.empty((len(frame), len(self)), np.float32)
        for rows in (slice(start, start + CHUNK) for start in range(0, len(frame), CHUNK)):
            part = frame[rows]
            numbers = _side_by_side([_numbers(part[name]) for name in self.numeric], len(part))
            if self.identity and training:
                numbers = np.hstack([numbers, training.identity.transform(part, places[rows])])
            elif self.identity:
                numbers = np.hstack([numbers, self.identity.transform(part)])
            out[rows] = self._encode(numbers, risks[rows])
        return out

    def transform_row(self, values: Mapping[str, float | str | None]) -> np.ndarray:
        """(1, F) float32 of one row, column -> number or category; equal to `transform` of a frame of it.

        A frame of one row with a hundred columns takes milliseconds to make and to take apart again.
        """
        numbers = np.array([[values[name] for name in self.numeric]], np.float32)  # None becomes NaN
        if self.identity:
            numbers = np.hstack([numbers, self.identity.transform_row(values)])
        return self._encode(numbers, row_risks(self.risk_tables_.values(), values))

    @property
    def columns(self) -> list[str]:
        """The columns of a frame that are read."""
        text = self.identity.columns if self.identity else []
        return list(dict.fromkeys([*self.numeric, *self.categorical, *text]))

    @property
    def numeric(self) -> list[str]:
        """The numeric columns of a frame that are features."""
        n_computed = len(self.identity.names) if self.identity else 0
        return list(self.imputation_)[: len(self.imputation_) - n_computed]

    @property
    def categorical(self) -> list[str]:
        """The columns of a frame whose risk is a feature."""
        return list(dict.fromkeys(table["column"] for table in self.risk_tables_.values()))

    def _encode(self, numbers: np.ndarray, risks: np.ndarray) -> np.ndarray:
        """Numbers (N, n), not finite where missing, and risks (N, r) -> (N, F) float32."""
        fills, kept, indicators = self._learned
        missing = ~np.isfinite(numbers)
        raw = np.concatenate([np.where(missing, fills, numbers), risks], axis=1)
        return np.concatenate([raw[:, kept], missing[:, indicators]], axis=1, dtype=np.float32)

    @cached_property
    def _learned(self) -> tuple[np.ndarray, list[int], list[int]]:
        """What a missing number becomes, which raw columns are features, and which get an indicator."""
        raw = [*self.imputation_, *self.risk_tables_]
        scaled = self.config.scaling == "quantile"
        indicators = [raw.index(name) for name in self.indicators_] if scaled else []
        kept = [raw.index(name) for name in self.knots_] if scaled else list(range(len(raw)))
        return np.array(list(self.imputation_.values()), np.float32), kept, indicators

    def _risks(
        self, frame: pl.DataFrame, training: "Training | None" = None, places: np.ndarray | None = None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """The risks of some rows or, with `training`, of the training rows `places`, out of fold."""
        for name, table in self.risk_tables_.items():
            values, prior = frame[table["column"]], table["default_bin"]
            if training and not self.precomputed_risk_:
                counts, fold = training.counts[table["column"]], training.fold[places]
                yield name, counts.fold_risks(values, fold, table["class"], self._smoothing, prior)
            else:
                yield name, look_up(values, table)

    def to_dict(self) -> dict:
        """The fitted state as JSON types."""
        state = {"config": self.config.model_dump(), **{key: getattr(self, f"{key}_") for key in STATE}}
        return state | {"identity": self.identity.to_dict() if self.identity else None}

    @classmethod
    def from_dict(cls, state: dict) -> Self:
        """The inverse of `to_dict`; ValueError names all of the state that is missing, unknown or wrong."""
        try:
            known = State.model_validate(state, strict=True, extra="forbid")
        except ValidationError as error:
            told = explain(error, State.model_fields)
            raise ValueError(f"the state of the features: {told}; fit them again") from None
        features = cls(known.config)
        for key in STATE:
            setattr(features, f"{key}_", state[key])
        features.risk_tables_ = {name: by_value(table) for name, table in features.risk_tables_.items()}
        features.identity = IdentityFeatures.of(known.identity) if known.identity else None
        return features


def _side_by_side(columns: list[np.ndarray], n_rows: int) -> np.ndarray:
    """(n_rows, number of columns) float32."""
    return np.column_stack([np.empty((n_rows, 0), np.float32), *columns]).astype(np.float32, copy=False)


def _numbers(column: pl.Series) -> np.ndarray:
    """(N,) float32, not finite where null, NaN, infinite or beyond float32."""
    return column.cast(pl.Float32).to_numpy()


def _present(column: pl.Series) -> np.ndarray:
    """The finite values of `column`, float64 of float32's digits."""
    return _finite(_numbers(column))


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)].astype(np.float64)


def _normal_scores(present: np.ndarray, n_quantiles: int) -> dict[str, list[float]]:
    """Knots of the map from value to normal score, at most `n_quantiles` of them."""
    from scipy.special import ndtri  # a tenth of a second, which scoring does without

    present = np.clip(present, -LARGEST, LARGEST).astype(np.float32)
    values, counts = np.unique(present, return_counts=True)
    rank = (np.cumsum(counts) - counts / 2) / max(len(present), 1)  # middle of each tie, in (0, 1)
    if len(values) > n_quantiles:
        wanted = np.linspace(rank[0], rank[-1], n_quantiles)
        keep = np.unique(np.searchsorted(rank, wanted).clip(0, len(values) - 1))
        values, rank = values[keep], rank[keep]
    return {"value": values.tolist(), "score": ndtri(rank).tolist()}


def _absent(found: Sequence[str], columns: Sequence[str]) -> list[str]:
    """One problem that names all `columns` that are not found, or none."""
    absent = [name for name in dict.fromkeys(columns) if name not in found]
    return [f"the rows lack the columns {absent} that the features read"] if absent else []
