"""Numeric and categorical columns made fit for a network: imputed, risk-encoded, their scaling learned.

Decisions:
- Fitted on the training split only; the state is plain data (`to_dict`, `from_dict`), never a pickle.
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
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from n3r.files.json_io import MAX_TOLD, explain, read_json
from n3r.identity.features import IdentityFeatures, IdentityState
from n3r.risk_tables import (
    LearnedTable,
    RiskTable,
    by_value,
    class_hits,
    count_known,
    fold_risks,
    look_up,
    risk_columns,
    risk_table,
    row_risks,
    without_default,
)
from n3r.schema import LABEL

CHUNK = 16_384  # rows that are encoded at a time
LARGEST = 1e38  # of a knot, so that the gap between two of them is a float32
FLOAT32 = float(np.finfo(np.float32).max)
Number = Annotated[float, Field(ge=-FLOAT32, le=FLOAT32, allow_inf_nan=False)]


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
PRECOMPUTED = {
    "imputation values": (TypeAdapter(dict[str, Number]), "a finite number"),
    "risk tables": (TypeAdapter(dict[str, RiskTable]), "bins and default_bin with risks in [0, 1]"),
}


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
        frame: pl.DataFrame,
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
            *_absent(frame, [*numeric, *categorical, *with_label]),
            *(f"two features are named {name!r}: rename a column" for name, n in named.items() if n > 1),
            *_precomputed_problems("imputation values", imputation, numeric),
            *_precomputed_problems("risk tables", risk_tables, categorical),
        ]
        if n_classes < 2 or (risk_tables and n_classes > 2):
            problems.append(f"n_classes={n_classes}: expected 2, or more with no precomputed risk tables")
        if with_label and not problems and (frame[LABEL].max() or 0) >= n_classes:
            problems.append(f"n_classes={n_classes}, but column {LABEL!r} holds class {frame[LABEL].max()}")
        if problems:
            raise ValueError("; ".join(problems))
        self.identity = identity
        columns = {name: _present(frame[name]) for name in numeric}
        if identity:
            columns |= zip(computed, map(_finite, identity.transform_training(frame).T), strict=True)
        given = imputation or {}
        self.imputation_ = {
            name: float(given[name]) if name in given else self._fill(values)
            for name, values in columns.items()
        }
        self.precomputed_risk_ = risk_tables is not None
        self.risk_tables_ = {
            name: (self._learn(frame, column, c) if risk_tables is None else by_value(risk_tables[column]))
            | {"column": column, "class": c}
            for name, (column, c) in learned.items()
        }
        count_known(self.risk_tables_.values(), frame)
        self._fit_scaling(frame, columns)
        return self

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

    def _learn(self, frame: pl.DataFrame, column: str, c: int) -> RiskTable:
        return without_default(self._risk_table(frame[column], class_hits(frame, c)))

    def _risk_table(self, values: pl.Series, hits: np.ndarray, prior: float | None = None) -> RiskTable:
        return risk_table(values, hits, self.config.smooth_factor, self.config.count_threshold, prior)

    def _fit_scaling(self, frame: pl.DataFrame, columns: Mapping[str, np.ndarray]) -> None:
        """Learn knots and indicators; a constant column gets no knots."""
        self.knots_, self.indicators_ = {}, []
        self.__dict__.pop("_learned", None)  # of an earlier fit
        if self.config.scaling == "none":
            return
        self.indicators_ = [name for name in self.numeric if 0 < len(columns[name]) < len(frame)]
        for name, present in columns.items():
            self.knots_[name] = _normal_scores(present, self.config.n_quantiles)
        whole = dict(self._risks(frame, out_of_fold=False))
        for name, risks in self._risks(frame, out_of_fold=True):
            if len(np.unique(whole[name])) > 1:  # a column of one category has one risk in each fold
                self.knots_[name] = _normal_scores(risks, self.config.n_quantiles)
        self.knots_ = {name: knots for name, knots in self.knots_.items() if len(knots["value"]) > 1}

    def transform(self, frame: pl.DataFrame, out_of_fold: bool = False) -> np.ndarray:
        """(N, F) float32, columns as in `names`; NaN and infinity count as missing.

        `out_of_fold` is for the training split with its labels: a row's risk comes from the rows of the
        other folds, which are drawn by position from the seed. Precomputed tables are used as they are.
        Raises ValueError naming every fitted column that the frame lacks.
        """
        read = self.columns
        if out_of_fold and (self.identity or (self.risk_tables_ and not self.precomputed_risk_)):
            read.append(LABEL)
        if absent := _absent(frame, read):
            raise ValueError(*absent)
        risks = _side_by_side([risks for _, risks in self._risks(frame, out_of_fold)], len(frame))
        identity = self.identity.transform_training(frame) if self.identity and out_of_fold else None
        out = np.empty((len(frame), len(self)), np.float32)
        for rows in (slice(start, start + CHUNK) for start in range(0, len(frame), CHUNK)):
            part = frame[rows]
            numbers = _side_by_side([_numbers(part[name]) for name in self.numeric], len(part))
            if self.identity:
                found = self.identity.transform(part) if identity is None else identity[rows]
                numbers = np.hstack([numbers, found])
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

    def _risks(self, frame: pl.DataFrame, out_of_fold: bool) -> Iterator[tuple[str, np.ndarray]]:
        for name, table in self.risk_tables_.items():
            values = frame[table["column"]]
            if out_of_fold and not self.precomputed_risk_:
                learn = partial(self._risk_table, prior=table["default_bin"])
                hits = class_hits(frame, table["class"])
                yield name, fold_risks(values, hits, learn, self.config.n_folds, self.config.seed)
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


def read_precomputed(path: str | Path) -> dict:
    """A published impute_dict.json (column -> value) or risk_table_map.json (column -> risk table).

    Raises FileNotFoundError, or ValueError naming the file and the columns at fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of precomputed values")
    try:
        found = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; write a pickled one as JSON where it was made") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object with a key for each column")
    kind = "risk tables" if any(isinstance(entry, dict) for entry in found.values()) else "imputation values"
    if problems := _precomputed_problems(kind, found, list(found)):
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return found


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


def _absent(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """One problem that names all `columns` the frame lacks, or none."""
    absent = [name for name in dict.fromkeys(columns) if name not in frame.columns]
    return [f"the rows lack the columns {absent} that the features read"] if absent else []


def _precomputed_problems(kind: str, given: Mapping[str, Any] | None, wanted: Sequence[str]) -> list[str]:
    """What keeps the precomputed `given` from being used for the columns `wanted`."""
    if given is None:
        return []
    layout, expected = PRECOMPUTED[kind]
    wrong = []
    try:
        layout.validate_python(given, strict=True)
    except ValidationError as error:  # its text shows categories, which may be identities
        wrong = list(dict.fromkeys(fault["loc"][0] for fault in error.errors(include_input=False)))
    found = {
        "lack the columns": [name for name in wanted if name not in given],
        "have the unknown columns": [name for name in given if name not in wanted],
        f"need {expected} for": wrong,
    }
    return [f"precomputed {kind} {problem} {names}" for problem, names in found.items() if names]
