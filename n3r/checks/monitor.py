"""New rows beside those that a model learned from: what has moved, and whether it still ranks them.

Decisions:
- The bundle lies in its run, whose prepared rows and held-out scores are what new rows are compared with.
  Rows that it learned from are left out by their ids.
- Rows are kept as for training, but for their labels: an id once, an entity's first order, none of internal
  domains. A model for first orders is not judged by later ones.
- Rows are read piece by piece: of all their keys, which an engine puts together by id and entity, on disk
  where files are large, and of those that are compared the other columns.
- Of more rows than `max_rows` those whose ids draw the lowest numbers are compared, the same ones for a seed,
  however the rows are divided: what 100,000 rows do not show is small.
- Figures have chance levels or intervals, and a finding needs to lie beyond them: a quiet week is no alarm.
- Rows need no label. Where labels have arrived, ranking and calibration are measured on those rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n3r import metrics, tables
from n3r.checks.findings import Finding, by_severity
from n3r.checks.seen import LEARNED_FROM
from n3r.engine import Data, Engine, gather_all
from n3r.engine.memory import Memory
from n3r.estimate import FEW_ROWS, Estimate, wilson
from n3r.evaluation.calibration import calibration_summary
from n3r.evaluation.drift import Psi, drift, psi
from n3r.evaluation.groups import by_group, time_slices
from n3r.evaluation.scored import read_scored
from n3r.files.json_io import explain, key_values
from n3r.preprocess import KEY_BYTES, meeting
from n3r.report.parts import misstated
from n3r.rows.accounts import DROP, ENTITY, ENTITY_TIME, INTERNAL
from n3r.rows.keys import Piece, read_keys, read_wide
from n3r.rows.parts import Rows
from n3r.rows.precedence import draws
from n3r.schema import KEY, LABEL, OWN, ROW, SCORE, TIME, ColumnMap, check
from n3r.score import Scorer

WHEN, IS_NEW, DRAW = (OWN + name for name in ("when", "is_new", "draw"))
KEYS = {  # of a row that was learned from, the id alone
    ROW: pl.Int64,
    KEY: pl.String,
    ENTITY: pl.String,
    WHEN: pl.Datetime("us"),
    TIME: pl.Datetime("us"),
    LABEL: pl.Int8,
}
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
    data: Sequence[str],
    bundle: Path,
    config: MonitorConfig,
    column_map: ColumnMap | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """What new rows show beside a bundle's training, as plain JSON; by default they are read in memory.

    Keys: `rows`, `reference`, `threshold`, `columns` (drift of each), `score`, `time` (slices), `measured`
    (where there are labels) and `findings`, the severest first. Raises ValueError for a bundle outside its
    run, of more than two classes, and for files that do not fit its column map; FileNotFoundError.
    """
    scorer = Scorer(bundle)
    if scorer.column_map.n_classes > 2:
        raise ValueError("monitoring compares the scores of two classes; this bundle has more")
    columns = column_map or scorer.column_map
    train, held = _reference(bundle)
    rows, counts = _new_rows(data, columns, bundle, config, engine or Memory())
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


def _reference(bundle: Path) -> tuple[Rows, pl.DataFrame]:
    """The prepared training rows of a bundle's run, and its scores of rows that it has not learned from."""
    run = bundle.absolute().parent
    try:
        train = tables.split_rows(run / "data", "train")
        kind = tables.prepared_format(run / "data")
        held = read_scored(run / "predictions" / f"{bundle.name}_val.{kind}")
    except FileNotFoundError:
        raise ValueError(
            f"{bundle} does not lie in its run, whose rows are what new ones are compared with: give it "
            "there, such as runs/quick/best"
        ) from None
    return train, held.select(LABEL, SCORE)


def _new_rows(
    data: Sequence[str], columns: ColumnMap, bundle: Path, config: MonitorConfig, engine: Engine
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """New rows typed as in training, with KEY, TIME and LABEL, null where there is none; and their counts."""
    source, columns = _scan(data, columns, engine)
    with source.reading():
        keys, told = _new_keys(source, columns, bundle.absolute().parent / "data", engine)
        n_new, n_labelled, first, last = told
        if not n_new:
            raise ValueError(
                f"none of the {source.n_rows:,} rows is new: all have no id, or one that the bundle "
                "learned from"
            )
        rows = engine.gather(keys, partial(_drawn, n_rows=n_new, config=config))
        rows = rows.sort(DRAW, KEY).head(config.max_rows).sort(ROW)
        number = rows[ROW]
        own = [(p, number.filter(number.is_between(p.start, p.start + p.n_rows - 1))) for p in source.pieces]
        wide = [read_wide(piece, numbers, columns) for piece, numbers in own if len(numbers)]
    rows = rows.hstack(pl.concat(wide)).sort(WHEN, nulls_last=True, maintain_order=True)
    counts = {
        "n_read": source.n_rows,
        "n_new": n_new,
        "n_labelled": n_labelled,
        "from": None if first is None else str(first),
        "to": None if last is None else str(last),
        "n_compared": rows.height,
    }
    return rows.drop(ROW, ENTITY, WHEN, DRAW), counts


def _new_keys(
    source: tables.Source, columns: ColumnMap, learned: Path, engine: Engine
) -> tuple[Data, tuple[int, int, Any, Any]]:
    """The keys of the rows that training would keep if they had labels, less those that it had.

    Beside them how many there are, how many have labels, and their first and last times.
    """
    parts = {split: tables.part_sizes(learned, split) for split in LEARNED_FROM}
    items = [*source.pieces, *((split, i) for split, sizes in parts.items() for i in range(len(sizes)))]
    n = engine.buckets((source.n_rows + sum(map(sum, parts.values()))) * KEY_BYTES)
    keys = engine.read(items, partial(_read_keys, columns=columns, learned=learned))
    keys = engine.exchange(keys, _first_of_ids, n, meeting(KEY))
    keys = engine.exchange(keys, _first_of_entities, n if columns.entity else 0, meeting(ENTITY))
    told = gather_all(engine, keys, {"told": _told})["told"]
    return keys, told.select(pl.sum("n", "n_labelled"), pl.min("from"), pl.max("to")).row(0)


def _read_keys(item: Piece | tuple[str, int], columns: ColumnMap, learned: Path) -> pl.DataFrame:
    """The keys of a piece's rows that have an id, or the ids of a part that was learned from."""
    if isinstance(item, Piece):
        keys = read_keys(item, columns).filter(pl.col(KEY).is_not_null(), pl.col(DROP).ne_missing(INTERNAL))
        keys = keys.with_columns(pl.coalesce(ENTITY_TIME, TIME).alias(WHEN))
    else:
        id = tables.read_column_map(learned).id
        (part,) = tables.read_parts(learned, item[0], [id], [item[1]])
        keys = part.select(pl.col(id).alias(KEY), *(pl.lit(None).alias(name) for name in KEYS if name != KEY))
    return keys.select(pl.col(name).cast(kind) for name, kind in KEYS.items())


def _first_of_ids(keys: pl.DataFrame) -> pl.DataFrame:
    """The new rows of whole ids in order, and whether each is its id's first and was not learned from."""
    learned = keys.filter(pl.col(ROW).is_null())[KEY]
    is_new = pl.col(KEY).is_first_distinct() & ~pl.col(KEY).is_in(learned.implode())
    return (
        keys.filter(pl.col(ROW).is_not_null())
        .sort(WHEN, ROW, nulls_last=True)
        .with_columns(is_new.alias(IS_NEW))
    )


def _first_of_entities(keys: pl.DataFrame) -> pl.DataFrame:
    """The new rows of whole entities that are the first of theirs."""
    entity = pl.col(ENTITY)
    rows = keys.sort(WHEN, ROW, nulls_last=True)
    return rows.filter(pl.col(IS_NEW) & (entity.is_null() | entity.is_first_distinct())).drop(IS_NEW)


def _told(keys: pl.DataFrame) -> pl.DataFrame:
    labelled, time = pl.col(LABEL).count(), pl.col(TIME)
    return keys.select(
        pl.len().cast(pl.Int64).alias("n"),
        labelled.cast(pl.Int64).alias("n_labelled"),
        time.min().alias("from"),
        time.max().alias("to"),
    )


def _drawn(keys: pl.DataFrame, n_rows: int, config: MonitorConfig) -> pl.DataFrame:
    """The rows, and some to spare, of those that draw the lowest numbers by their ids."""
    share = config.max_rows / n_rows * (1 + 10 / config.max_rows**0.5)  # ten standard errors more
    keys = keys.with_columns(draws(keys[KEY], config.seed).alias(DRAW))
    return keys.filter(pl.col(DRAW) < share * 2.0**63)


def _scan(data: Sequence[str], columns: ColumnMap, engine: Engine) -> tuple[tables.Source, ColumnMap]:
    """The rows of files and the map that they fit: rows without a label column need none."""
    try:
        source = tables.scan(data, columns, engine=engine)
        check(source.frame, columns)
    except ValueError as error:
        # The id stands in for a label, and is of no class.
        without = columns.model_copy(update={"label": columns.id, "other_labels": "drop"})
        try:
            source = tables.scan(data, without, engine=engine)
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
