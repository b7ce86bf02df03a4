"""New rows beside those that a model learned from: what has moved, and whether it still ranks them.

Decisions:
- The bundle lies in its run, whose prepared rows and held-out scores are what new rows are compared with.
  Rows that it learned from are left out by their ids.
- Rows are kept as for training, but for their labels: an id once, an entity's first order, none of internal
  domains. A model for first orders is not judged by later ones.
- More rows than `max_rows` are sampled, the same ones for a seed: what 100,000 rows do not show is small.
- Figures have chance levels or intervals, and a finding needs to lie beyond them: a quiet week is no alarm.
- Rows need no label. Where labels have arrived, ranking and calibration are measured on those rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n3r import metrics, tables
from n3r.checks.findings import Finding, by_severity
from n3r.checks.seen import training_ids
from n3r.estimate import FEW_ROWS, Estimate, wilson
from n3r.evaluation.calibration import calibration_summary
from n3r.evaluation.drift import Psi, drift, psi
from n3r.evaluation.groups import by_group, time_slices
from n3r.evaluation.scored import read_scored
from n3r.files.json_io import explain, key_values
from n3r.report.parts import misstated
from n3r.rows.accounts import DROP, ENTITY, ENTITY_TIME, INTERNAL
from n3r.rows.keys import mark_rows, select_wide
from n3r.schema import KEY, LABEL, SCORE, TIME, ColumnMap, check
from n3r.score import Scorer

FINE, LOOK, RETRAIN = 0, 3, 4  # exit statuses
STATUS = {"severe": RETRAIN, "warning": LOOK, "note": FINE}
ANSWERS = {
    FINE: "Nothing has moved beyond what was set.",
    LOOK: "Look at what has moved.",
    RETRAIN: "Train anew.",
}


class MonitorConfig(BaseModel):
    """How much may move before a finding says so."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fpr: float = Field(0.01, gt=0, lt=1)  # share of legitimate orders that may be flagged: the threshold
    max_psi: float = Field(0.25, gt=0)  # of a column or of the score
    max_alert_ratio: float = Field(2.0, gt=1)  # alert rate over the held-out rows', or the inverse
    max_auroc_loss: float = Field(0.03, ge=0)  # below the held-out rows'
    max_miscalibration: float = Field(1.5, gt=1)  # frauds over the sum of their probabilities, or the inverse
    n_slices: int = Field(6, ge=1, le=60)  # of time
    max_rows: int = Field(100_000, ge=1000)
    seed: int = Field(0, ge=0)

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> Self:
        """From KEY=VALUE texts; ValueError in one sentence."""
        try:
            return cls(**key_values(texts))
        except ValidationError as error:
            raise ValueError(f"-p: {explain(error, cls.model_fields)}") from None


def monitor(
    data: Sequence[str], bundle: Path, config: MonitorConfig, column_map: ColumnMap | None = None
) -> dict[str, Any]:
    """What new rows show beside a bundle's training, as plain JSON.

    Keys: `rows`, `reference`, `threshold`, `columns` (drift of each), `score`, `time` (slices), `measured`
    (where there are labels) and `findings`, the severest first. Raises ValueError for a bundle outside its
    run, of more than two classes, and for files that do not fit its column map; FileNotFoundError.
    """
    scorer = Scorer(bundle)
    if scorer.column_map.n_classes > 2:
        raise ValueError("monitoring compares the scores of two classes; this bundle has more")
    columns = column_map or scorer.column_map
    train, held = _reference(bundle)
    rows, counts = _new_rows(data, columns, bundle, config)
    scores = scorer.score(rows.with_columns(pl.col(KEY).alias(scorer.column_map.id)))
    rows = rows.with_columns(scores["score"].alias(SCORE))
    cut = metrics.threshold_at_fpr(held[LABEL], held[SCORE], config.fpr)
    if cut is None:
        raise ValueError(
            f"the held-out rows beside {bundle} have one class, which no threshold can be set by"
        )
    known = scorer.column_map
    compared = [n for n in (*known.numeric, *known.categorical) if n in train.columns and n in rows.columns]
    moved, score = drift(train, rows, compared), psi(held[SCORE], rows[SCORE])
    content: dict[str, Any] = {
        "rows": counts,
        "reference": {"n_train": len(train), "held_out": metrics.evaluate(held[LABEL], held[SCORE])},
        "threshold": cut if np.isfinite(cut) else None,
        "columns": moved.to_dicts(),
        "score": {"psi": score.value, "null_level": score.null_level, "verdict": score.verdict},
        "alert_rate": wilson(int((rows[SCORE] >= cut).sum()), len(rows)).columns("alert_rate"),
        "alert_rate_held_out": float((held[SCORE] >= cut).mean()),
        "time": _over_time(rows, cut, config.n_slices),
        "measured": _measured(rows, scores),
    }
    found = by_severity(_findings(content, score, config))
    return content | {"findings": [one._asdict() for one in found]}


def status_of(content: Mapping[str, Any]) -> int:
    """The exit status that a scheduler reads: 0 fine, 3 look, 4 train anew."""
    return max((STATUS[one["severity"]] for one in content["findings"]), default=FINE)


def _reference(bundle: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The prepared training rows of a bundle's run, and its scores of rows that it has not learned from."""
    run = bundle.absolute().parent
    try:
        train = tables.read_split(run / "data", "train")
        kind = tables.prepared_format(run / "data")
        held = read_scored(run / "predictions" / f"{bundle.name}_val.{kind}")
    except FileNotFoundError:
        raise ValueError(
            f"{bundle} does not lie in its run, whose rows are what new ones are compared with: give it "
            "there, such as runs/quick/best"
        ) from None
    return train, held


def _new_rows(
    data: Sequence[str], columns: ColumnMap, bundle: Path, config: MonitorConfig
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """New rows typed as in training, with KEY, TIME and LABEL, null where there is none; and their counts."""
    source, columns = _scan(data, columns)
    with source.reading():
        keys = mark_rows(source.frame, columns).select(KEY, LABEL, TIME, ENTITY, ENTITY_TIME, DROP)
        frame = pl.concat([keys, select_wide(source.frame, columns)], how="horizontal")
        rows = frame.collect(engine="streaming")
    n_read = rows.height
    rows = _as_in_training(rows)
    known = training_ids(bundle.absolute().parent / "data")
    if known is not None:
        rows = rows.filter(~pl.col(KEY).is_in(known.implode()))
    if rows.is_empty():
        raise ValueError(
            f"none of the {n_read:,} rows is new: all have no id, or one that the bundle learned from"
        )
    times = rows[TIME].drop_nulls()
    counts = {
        "n_read": n_read,
        "n_new": rows.height,
        "n_labelled": rows.height - rows[LABEL].null_count(),
        "from": str(times.min()) if len(times) else None,
        "to": str(times.max()) if len(times) else None,
    }
    if rows.height > config.max_rows:
        rows = rows.sample(config.max_rows, seed=config.seed)
    return rows, counts | {"n_compared": rows.height}


def _as_in_training(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that training would keep if they had labels; of one id or entity the first."""
    rows = rows.filter(pl.col(KEY).is_not_null(), pl.col(DROP).ne_missing(INTERNAL))
    rows = rows.sort(pl.coalesce(ENTITY_TIME, TIME), nulls_last=True, maintain_order=True)
    entity = pl.col(ENTITY)
    first = pl.col(KEY).is_first_distinct() & (entity.is_null() | entity.is_first_distinct())
    return rows.filter(first).drop(ENTITY, ENTITY_TIME, DROP)


def _scan(data: Sequence[str], columns: ColumnMap) -> tuple[tables.Source, ColumnMap]:
    """The rows of files and the map that they fit: rows without a label column need none."""
    try:
        source = tables.scan(data, columns)
        check(source.frame, columns)
    except ValueError as error:
        # The id stands in for a label, and is of no class.
        without = columns.model_copy(update={"label": columns.id, "other_labels": "drop"})
        try:
            source = tables.scan(data, without)
            check(source.frame, without)
        except ValueError:
            raise error from None
        columns = without
    return source, columns.resolve_numeric(source.frame.collect_schema())


def _over_time(rows: pl.DataFrame, cut: float, n_slices: int) -> list[dict[str, Any]]:
    """Alert rate in slices of time, and ranking where all rows have labels."""
    if rows[TIME].n_unique() < 2:
        return []
    label = rows[LABEL].fill_null(0)
    found = by_group(time_slices(rows[TIME], n_slices), label, rows[SCORE], cut).sort("group")
    of_labels = [
        name for name in found.columns if name.startswith(("auroc", "recall", "fpr", "ratio", "fraud"))
    ]
    return (found.drop(of_labels) if rows[LABEL].null_count() else found).to_dicts()


def _measured(rows: pl.DataFrame, scores: pl.DataFrame) -> dict[str, Any] | None:
    """Ranking and calibration of the rows that have a label, if there are enough of each class."""
    known = rows[LABEL].is_not_null()
    label = rows[LABEL].filter(known)
    n_frauds = int(label.sum() or 0)
    if min(n_frauds, len(label) - n_frauds) < FEW_ROWS:
        return None
    p = scores["p_calibrated" if "p_calibrated" in scores.columns else "score"].filter(known)
    return metrics.evaluate(label, rows[SCORE].filter(known)) | {"calibration": calibration_summary(label, p)}


def _findings(content: Mapping[str, Any], score: Psi, config: MonitorConfig) -> Iterator[Finding]:
    for row in content["columns"]:
        if row["psi"] is not None and row["psi"] > max(config.max_psi, row["null_level"]):
            what = (
                f"{row['column']!r} has moved: PSI {row['psi']:.2f}, by chance up to {row['null_level']:.2f}"
            )
            yield Finding(
                f"drift:{row['column']}", "warning", what, "see what makes it other than in training"
            )
    if score.value is not None and score.value > max(config.max_psi, score.null_level):
        what = f"scores have moved: PSI {score.value:.2f}, by chance up to {score.null_level:.2f}"
        yield Finding("drift:score", "warning", what, "look at the columns that have moved")
    yield from _alerts(content, config)
    if content["measured"]:
        yield from _quality(content["measured"], content["reference"]["held_out"], config)


def _alerts(content: Mapping[str, Any], config: MonitorConfig) -> Iterator[Finding]:
    rate, held = content["alert_rate"], content["alert_rate_held_out"]
    low, high = rate["alert_rate_low"], rate["alert_rate_high"]
    if low is None or not held:
        return
    if low > held * config.max_alert_ratio or high < held / config.max_alert_ratio:
        times = rate["alert_rate"] / held
        what = (
            f"{rate['alert_rate']:.2%} of orders are flagged, {times:.2g} times the held-out rows' {held:.2%}"
        )
        yield Finding("alerts", "warning", what, "a wave of fraud, or columns that have moved")


def _quality(found: Mapping[str, Any], held: Mapping[str, Any], config: MonitorConfig) -> Iterator[Finding]:
    least = held["auroc"] - config.max_auroc_loss
    if found["auroc_high"] is not None and found["auroc_high"] < least:
        auroc = Estimate(found["auroc"], found["auroc_low"], found["auroc_high"], found["n"])
        what = f"labelled rows are ranked with an AUROC of {auroc}, held out it was {held['auroc']:.3f}"
        yield Finding("auroc", "severe", what, "train anew, on rows up to now")
    summary = found["calibration"]
    low, high = summary["observed_expected_low"], summary["observed_expected_high"]
    if low is not None and (low > config.max_miscalibration or high < 1 / config.max_miscalibration):
        by = misstated(summary)
        what = f"calibrated scores {by.way} risk by {by.share:.0%} on labelled rows"
        yield Finding("calibration", "warning", what, "train anew, or move the threshold")
