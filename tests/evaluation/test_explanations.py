"""What drives a model and which cases come first: of a bundle that was trained, without a name of anyone."""

import json

import numpy as np
import polars as pl
import pytest

from n3r import metrics
from n3r.evaluation.explanations import N_SHUFFLES, TOGETHER, cases, drivers, explain_model
from n3r.evaluation.scored import beside
from n3r.schema import LABEL, SCORE
from n3r.score import Scorer


@pytest.fixture(scope="module")
def scored(small):
    """The scorer of the session's bundle, and its test rows with their scores."""
    scorer = Scorer(small.folder)
    test = small.prepared.splits["test"]
    return scorer, beside(test, scorer.score(test))


@pytest.fixture(scope="module")
def found(scored):
    return drivers(*scored, n_per_class=30, seed=1)


def test_each_column_and_feature_is_there_and_the_largest_loss_comes_first(scored, found):
    scorer, _ = scored
    inputs = {*scorer.inputs.text, *scorer.inputs.numeric, *scorer.inputs.categorical}
    assert {row["name"] for row in found["columns"]} == inputs | set(TOGETHER)
    assert {row["name"] for row in found["features"]} == set(scorer.features.names)
    for rows in (found["columns"], found["features"]):
        lost = [row["lost"] for row in rows]
        assert lost == sorted(lost, reverse=True)
        assert all(row["lost_low"] <= row["lost"] <= row["lost_high"] for row in rows)
    assert (found["n"], found["n_shuffles"]) == (30 + found["n_positive"], N_SHUFFLES)


def test_the_loss_of_a_feature_is_that_of_scores_with_its_usual_value(scored, found):
    scorer, test = scored
    name = next(name for name in scorer.features.imputation_ if name in scorer.inputs.numeric)
    rows = test.filter(pl.col(LABEL) == 1).head(30), test.filter(pl.col(LABEL) == 0).head(30)
    sample = pl.concat(rows)  # all rows of a class where it has no more
    whole = drivers(scorer, sample, n_per_class=30)
    encoded = scorer.encode(sample.select(scorer.inputs.names))
    p = scorer.probabilities(encoded)[:, 1]
    encoded.tabular[:, scorer.features.names.index(name)] = scorer.features.imputation_[name]
    other = scorer.probabilities(encoded)[:, 1]
    paired = metrics.paired_auc(sample[LABEL], p, other).difference
    (row,) = [row for row in whole["features"] if row["name"] == name]
    assert row["lost"] == pytest.approx(paired.value, abs=1e-6)
    assert row["lost_low"] == pytest.approx(paired.low, abs=1e-6)
    assert row["moved"] == pytest.approx(np.abs(p - other).mean(), abs=1e-6)


def test_the_same_seed_gives_the_same_figures(scored, found):
    assert drivers(*scored, n_per_class=30, seed=1) == found
    assert drivers(*scored, n_per_class=30, seed=2)["columns"] != found["columns"]


def test_rows_of_one_class_show_no_loss(scored):
    scorer, test = scored
    one = drivers(scorer, test.filter(pl.col(LABEL) == 0), n_per_class=10)
    assert one["auroc"] is None and {row["lost"] for row in one["columns"]} == {None}


def test_cases_are_the_highest_scores_with_reasons_and_shapes(scored):
    scorer, test = scored
    first = cases(scorer, test, n=5)
    top = test.sort(SCORE, descending=True, maintain_order=True).head(5)
    assert [row["id"] for row in first] == top[scorer.inputs.id].cast(pl.String).to_list()
    assert [row["class"] for row in first] == top[LABEL].to_list()
    for row, order in zip(first, top.iter_rows(named=True), strict=True):
        told = scorer.reasons(order, 6).filter(pl.col("contribution") > 0)["reason"].head(3).to_list()
        assert row["reasons"] == told
        assert list(row["texts"]) == scorer.column_map.all_text


def test_no_name_is_in_what_is_explained(scored):
    scorer, test = scored
    content = explain_model(scorer, test, n_per_class=10)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    for field in scorer.column_map.all_text:
        values = [value for value in test[field].drop_nulls().unique() if len(value) > 3]
        assert [value for value in values if value in text] == []
    assert set(explain_model(scorer, test, n_per_class=0)) == {"cases"}
    assert explain_model(scorer, test[:0]) == {"cases": []}


def test_an_id_that_is_an_address_is_shown_by_its_shape(scored):
    scorer, test = scored
    addresses = test.with_columns((pl.lit("ana.smith@") + pl.col(scorer.inputs.id)).alias(scorer.inputs.id))
    assert all(row["id"].startswith("aaa.aaaaa@") for row in cases(scorer, addresses, n=3))
