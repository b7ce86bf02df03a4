"""Predictions: the scores of rows as a table, and the files of a run that have them."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from n3r import tables
from n3r.checkpoints import is_first_process
from n3r.rows.parts import Rows, whole
from n3r.schema import AMOUNT, LABEL, ORACLE, SEGMENT, TIME, id_name, plain, probabilities


def prediction_table(rows: Rows, id: str, p: np.ndarray) -> pl.DataFrame:
    """Scores of rows as a table: the id; where known segment, time, label, oracle_p, amount; the scores.

    `p`, (N,) of class 1 or (N, C), is one column `score` for two classes and a column a class for more. The
    id keeps its name, or is "id" where a column of predictions has that name. Raises ValueError for rows
    without an id.
    """
    if id not in rows.columns:
        raise ValueError(f"the rows lack the id column {id!r} that the column map names")
    own = [name for name in (SEGMENT, TIME, LABEL, ORACLE, AMOUNT) if name in rows.columns]
    known = whole(rows, [id, *own]).select(
        pl.col(id).alias(id_name(id)), *(pl.col(name).alias(plain(name)) for name in own)
    )
    if p.ndim == 1 or p.shape[1] == 2:
        return known.with_columns(score=pl.Series(p if p.ndim == 1 else p[:, 1]))
    return known.with_columns(pl.Series(f"score_{c}", p[:, c]) for c in range(p.shape[1]))


def write_predictions(
    scored: Mapping[str, pl.DataFrame], model_class: str, run: Path, test_result: bool = False
) -> None:
    """Write a model's predictions by split into its run; with `test_result` as the published do, too."""
    for split, table in scored.items():
        name = f"{model_class}_{split}.{tables.prepared_format(run / 'data')}"
        tables.write(table, run / "predictions" / name)
    if test_result:
        write_test_result(scored["test"], model_class, run / "test_results")


def write_test_result(table: pl.DataFrame, model_class: str, folder: Path) -> Path | None:
    """Write predictions (`prediction_table`) as the published systems write test results; its path.

    In a folder of the model class and the time: `prob`, of class 1 or, of more than two classes, a JSON list
    of all; `label` where it is known; the id. Every process has all rows, and only the first one writes; the
    others get None.
    """
    if not is_first_process():
        return None
    id, label, p = table.columns[0], plain(LABEL), probabilities(table)
    prob = p[:, 1] if p.shape[1] == 2 else [json.dumps(row, allow_nan=False) for row in p.tolist()]
    known = [label] if label in table.columns else []
    named = pl.col(id).alias("id" if id == "prob" else id_name(id))
    found = table.select(pl.Series("prob", prob), *known, named)
    file = "test_result.tsv" if model_class == "bert" else "test_result_rank0.tsv"
    path = Path(folder) / f"{model_class}-{datetime.now():%Y-%m-%d-%H-%M-%S}" / file
    tables.write(found, path)
    return path
