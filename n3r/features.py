"""Numeric columns made fit for a network: scaling that survives heavy tails, missing kept visible.

Decisions:
- Fitted on the training split only; the state is plain data (`to_dict`, `from_dict`), never a pickle.
- Quantile scaling maps each value to the normal score of its rank among the training values, so that
  an amount of 10 million is an outlier by one unit and not by a thousand. Ties share their middle rank.
- A missing value becomes 0, the median, and an indicator column says so: the legacy's plain -1 is a
  legal value of many columns. Its fill stays available as `scaling="none"`.
- A column that is constant in training carries nothing and is left out.
"""

from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtri

LEGACY_FILL = -1.0


class FeatureConfig(BaseModel):
    """How numeric columns are scaled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scaling: Literal["quantile", "none"] = "quantile"  # none: the legacy's plain -1 fill
    n_quantiles: int = Field(200, ge=2)  # knots per column; 200 place a value within half a percent


class NumericFeatures:
    """Turns a frame's numeric columns into the (N, F) float32 matrix a model reads."""

    def __init__(self, config: FeatureConfig | None = None):
        self.config = config or FeatureConfig()
        self.columns_: list[str] = []
        self.knots_: dict[str, dict[str, list[float]]] = {}  # column -> {"value": .., "score": ..}
        self.indicators_: list[str] = []  # columns that get a missing indicator

    @property
    def names(self) -> list[str]:
        """What each of the F output columns is, in order."""
        if self.config.scaling == "none":
            return self.columns_
        return list(self.knots_) + [f"{name} is missing" for name in self.indicators_]

    def __len__(self) -> int:
        return len(self.names)

    def fit(self, frame: pl.DataFrame, columns: list[str]) -> "NumericFeatures":
        """Learn knots and indicators from the training split's `columns`."""
        self.columns_ = list(columns)
        self.knots_, self.indicators_ = {}, []
        if self.config.scaling == "none":
            return self
        for name in self.columns_:
            values = _finite(frame[name])
            present = values[~np.isnan(values)]
            if 0 < len(present) < len(values):
                self.indicators_.append(name)
            knots = _normal_scores(present, self.config.n_quantiles)
            if len(knots["value"]) > 1:
                self.knots_[name] = knots
        return self

    def transform(self, frame: pl.DataFrame) -> np.ndarray:
        """(N, F) float32, columns as in `names`; NaN and infinity count as missing.

        Raises ValueError naming every fitted column that the frame lacks.
        """
        absent = [name for name in self.columns_ if name not in frame.columns]
        if absent:
            raise ValueError(f"the rows lack the numeric columns {absent} that the model reads")
        out = np.empty((len(frame), len(self)), np.float32)
        if self.config.scaling == "none":
            for i, name in enumerate(self.columns_):
                out[:, i] = np.nan_to_num(_finite(frame[name]), nan=LEGACY_FILL)
            return out
        for i, (name, knots) in enumerate(self.knots_.items()):
            scores = np.interp(_finite(frame[name]), knots["value"], knots["score"])
            out[:, i] = np.nan_to_num(scores, nan=0.0)
        for i, name in enumerate(self.indicators_, start=len(self.knots_)):
            out[:, i] = np.isnan(_finite(frame[name]))
        return out

    def to_dict(self) -> dict:
        """The fitted state as JSON types."""
        return {
            "config": self.config.model_dump(),
            "columns": self.columns_,
            "knots": self.knots_,
            "indicators": self.indicators_,
        }

    @classmethod
    def from_dict(cls, state: dict) -> "NumericFeatures":
        """The inverse of `to_dict`."""
        features = cls(FeatureConfig(**state["config"]))
        features.columns_ = list(state["columns"])
        features.knots_ = dict(state["knots"])
        features.indicators_ = list(state["indicators"])
        return features


def _finite(column: pl.Series) -> np.ndarray:
    """(N,) float64 with NaN for null, NaN and infinity."""
    values = column.cast(pl.Float64).to_numpy().copy()
    values[~np.isfinite(values)] = np.nan
    return values


def _normal_scores(present: np.ndarray, n_quantiles: int) -> dict[str, list[float]]:
    """Knots of the map from value to normal score, at most `n_quantiles` of them."""
    values, counts = np.unique(present, return_counts=True)
    rank = (np.cumsum(counts) - counts / 2) / max(len(present), 1)  # middle of each tie, in (0, 1)
    if len(values) > n_quantiles:
        wanted = np.linspace(rank[0], rank[-1], n_quantiles)
        keep = np.unique(np.searchsorted(rank, wanted).clip(0, len(values) - 1))
        values, rank = values[keep], rank[keep]
    return {"value": values.tolist(), "score": ndtri(rank).tolist()}
