"""Predictions: the table, and test results as the published systems write them."""

import json
import re

import numpy as np
import polars as pl
import pytest

from n3r.predictions import prediction_table, write_test_result
from n3r.schema import LABEL, TIME


@pytest.mark.parametrize("name", ["score", "label", "p_calibrated_2", "percentile"])
def test_an_id_that_is_called_as_scores_are_becomes_id(name):
    table = pl.DataFrame({name: ["a"], LABEL: [1], TIME: [None]})
    found = [prediction_table(table, name, np.ones(1)), prediction_table(table, name, np.ones((1, 3)))]
    assert found[0].columns == ["id", "time", "label", "score"]
    assert found[1].columns == ["id", "time", "label", "score_0", "score_1", "score_2"]
    again = prediction_table(table.rename({name: "order"}), "order", np.ones((1, 2)))
    assert again.columns == ["order", "time", "label", "score"]


@pytest.fixture
def three() -> tuple[pl.Series, np.ndarray]:
    """Labels of three classes, and probabilities that know something of them."""
    rng = np.random.default_rng(0)
    label = pl.Series([0] * 60 + [1] * 30 + [2] * 10)
    return label, np.stack([rng.dirichlet(1 + 3 * np.eye(3)[c]) for c in label])


def predicted(label: pl.Series, p: np.ndarray, id: str = "order") -> pl.DataFrame:
    frame = pl.DataFrame({id: [f"o{i}" for i in range(len(label))], LABEL: label})
    return prediction_table(frame, id, p)


@pytest.mark.parametrize(
    ("model_class", "file"), [("lstm2risk", "test_result_rank0"), ("bert", "test_result")]
)
def test_test_results_are_written_as_the_published_systems_do(model_class, file, three, tmp_path):
    label, p = three
    path = write_test_result(predicted(label, p), model_class, tmp_path)
    assert path.name == f"{file}.tsv" and re.fullmatch(
        rf"{model_class}(-\d\d){{5}}", re.sub(r"-\d\d\d\d", "", path.parent.name)
    )
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == ["prob", "label", "order"] and lines[61][1:] == ["1", "o60"] and len(lines) == 101
    assert json.loads(lines[61][0]) == pytest.approx(p[60].tolist())
    two = predicted(label.clip(0, 1), p[:, :2], "prob").drop("label")
    path = write_test_result(two, model_class, tmp_path / "two")
    found = pl.read_csv(path, separator="\t")
    assert found.columns == ["prob", "id"] and found["prob"].to_list() == pytest.approx(p[:, 1].tolist())


def test_only_the_first_process_writes_test_results(three, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert write_test_result(predicted(*three), "lstm2risk", tmp_path) is None
    assert not list(tmp_path.iterdir())
