"""The evaluation of one model: made of the statistics, private, and silent where rows cannot say."""

import json

import numpy as np
import polars as pl
import pytest

from n3r import metrics
from n3r.evaluation import decisions, evaluate
from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model, ranked
from n3r.multiclass import each_class
from n3r.preprocess import prepare
from n3r.rows import parts
from n3r.rows.amounts import amounts
from n3r.rows.parts import RowsInParts
from n3r.schema import AMOUNT, CALIBRATED, LABEL, ORACLE, SCORE, SEGMENT, TIME, ColumnMap
from n3r.synthetic import orders as synth
from n3r.thresholds import Ranking, Rule

CONFIG = "configs/orders.json"


def scored(frame, seed):
    """A frame with a noisy oracle as its score."""
    p = frame[ORACLE].to_numpy()
    z = np.log(p / (1 - p)) + np.random.default_rng(seed).normal(size=len(p))
    return frame.with_columns(**{SCORE: pl.Series(1 / (1 + np.exp(-z))), CALIBRATED: pl.Series(p)})


@pytest.fixture(scope="module")
def rows():
    """Column map and scored splits of synthetic orders."""
    prepared = prepare(synth.generate_orders(4000, seed=5, base_rate=0.1).lazy(), ColumnMap.from_file(CONFIG))
    splits = {name: scored(frame, i) for i, (name, frame) in enumerate(prepared.splits.items())}
    return prepared.column_map, splits


@pytest.fixture(scope="module")
def content(rows):
    columns, splits = rows
    comparator = np.random.default_rng(9).random(len(splits["test"]))
    return evaluate_model(
        splits["test"],
        EvaluationConfig(fpr=0.02),
        columns,
        splits["val"],
        splits["train"],
        {"coin": comparator},
    )


def test_every_part_is_there_and_is_json(content):
    parts = ["config", "operating", "data", "models", "decisions", "choice", "calibration", "groups"]
    assert list(content) == [*parts, "stability", "error_analysis", "fairness"]
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_rows_in_parts_are_evaluated_as_one_table(rows, content, monkeypatch):
    monkeypatch.setattr(parts, "SLICE", 100)
    columns, splits = rows

    def in_parts(frame):
        return RowsInParts(lambda names: frame.select(names).iter_slices(170), frame.columns, frame.height)

    given = EvaluationConfig(fpr=0.02), columns, in_parts(splits["val"]), in_parts(splits["train"])
    comparator = np.random.default_rng(9).random(len(splits["test"]))
    test = splits["test"]
    assert evaluate_model(in_parts(test), *given, {"coin": comparator}) == content
    own = test.select(SCORE, CALIBRATED)
    beside = in_parts(test.drop(SCORE, CALIBRATED)).hstack(own)
    assert evaluate_model(beside, *given, {"coin": comparator}) == content


def test_no_identity_comes_out(rows, content):
    columns, splits = rows
    text = json.dumps(content, ensure_ascii=False)
    for field in columns.text:
        for value in splits["test"][field].drop_nulls().unique():
            assert value not in text or len(value) < 4, f"a value of {field} is in the report"


def test_thresholds_are_chosen_on_validation_rows(rows, content):
    _, splits = rows
    test, val = splits["test"], splits["val"]
    assert content["operating"]["chosen_on"] == "validation rows"
    assert content["operating"]["threshold"] == metrics.threshold_at_fpr(val[LABEL], val[SCORE], 0.02)
    costs = decisions.Costs(100, 10)
    chosen = decisions.cheapest(val[LABEL], val[SCORE], costs)["threshold"]
    there = decisions.at_threshold(test[LABEL], test[SCORE], chosen, costs)
    assert content["decisions"]["chosen_on_validation"] == there
    assert there["cost_per_1000"] >= content["decisions"]["cheapest"]["cost_per_1000"]


@pytest.mark.parametrize("amount", [None, AMOUNT])
def test_the_thresholds_to_choose_from_are_those_of_a_bundle(rows, amount):
    _, splits = rows
    kept = [name for name in (LABEL, SCORE, TIME, amount) if name]
    rng = np.random.default_rng(3)
    test, val = (
        splits[name].with_columns(**{AMOUNT: pl.Series(rng.gamma(2, 50, len(splits[name])))}).select(kept)
        for name in ("test", "val")
    )
    content = evaluate_model(test, None, None, val)
    choice = content["choice"]
    ranking = Ranking.of(val[LABEL].to_numpy() == 1, val[SCORE].to_numpy(), amounts(val))
    own, here = choice["of"]["validation"], choice["of"]["here"]
    assert choice["threshold"] == ranking.threshold.tolist()
    assert own == {k: v for k, v in ranking.to_dict().items() if k != "threshold"}
    costs = content["config"]["cost_missed"], content["config"]["cost_alarm"]
    for rule in (Rule(fpr=0.02), Rule(budget="3%"), Rule(cost_missed=costs[0], cost_alarm=costs[1])):
        decision = ranking.decide(rule)
        i = choice["threshold"].index(decision.threshold)
        flagged = decision.flags(test[SCORE].to_numpy())
        assert here["flagged"][i] == flagged.sum()
        assert here["caught"][i] == (flagged & (test[LABEL].to_numpy() == 1)).sum()
        assert own["caught"][i] / own["n_frauds"] == decision.recall
    days = (test[TIME].max() - test[TIME].min()).total_seconds() / 86400
    assert choice["orders_a_day"] == pytest.approx(len(test) / days)
    assert evaluate_model(test, orders_a_day=7.0)["choice"]["orders_a_day"] == 7


def test_comparators_have_curves_of_their_own(rows, content):
    _, splits = rows
    test, others = splits["test"], content["decisions"]["others"]
    assert list(others) == ["coin", "oracle"]
    gain = decisions.gain_points(test[LABEL], test[ORACLE]).to_dict(as_series=False)
    assert others["oracle"]["gain"] == gain
    curves = ranked("m", test, {"coin": test[ORACLE].to_numpy()})
    assert list(curves) == ["m", "coin", "oracle"]
    assert all((y == test[LABEL]).all() for y, _ in curves.values())


def test_comparators_stand_beside_the_model(rows, content):
    _, splits = rows
    test = splits["test"]
    own, coin, oracle = content["models"]
    assert [row["name"] for row in content["models"]] == [None, "coin", "oracle"]
    paired = metrics.paired_auc(test[LABEL], test[SCORE], test[ORACLE])
    assert oracle.items() >= paired.difference.columns("difference").items()
    assert own["auroc"] == metrics.auc_ci(test[LABEL], test[SCORE]).value
    assert coin["difference"] > 0.2 and coin["difference_low"] > 0


def test_parts_without_columns_are_left_out(rows):
    _, splits = rows
    bare = splits["test"].select(LABEL, SCORE)
    content = evaluate_model(bare)
    assert list(content) == ["config", "operating", "data", "models", "decisions", "choice", "calibration"]
    assert content["choice"]["orders_a_day"] is None and list(content["choice"]["of"]) == ["here"]
    assert content["operating"]["chosen_on"] == "these rows"
    assert content["decisions"]["chosen_on_validation"] is None


def test_a_segment_that_training_did_not_see_is_noted(rows):
    columns, splits = rows
    train = splits["train"].filter(pl.col(SEGMENT) != "US")
    content = evaluate_model(splits["test"], None, columns, None, train)
    notes = {row["group"]: row["note"] for row in content["groups"]["segment"]}
    assert "not in training" in notes["US"] and "not in training" not in (notes["GB"] or "")


@pytest.mark.parametrize("label", [0, 1])
def test_defect_42_one_class_only_says_not_enough_data(rows, label):
    columns, splits = rows
    one = splits["test"].filter(**{LABEL: label})
    content = evaluate_model(one, None, columns, None, splits["train"])
    assert content["operating"]["threshold"] is None
    assert content["operating"]["chosen_on"] == "no rows of both classes"
    own = content["models"][0]
    assert own["auroc"] is own["average_precision"] is own["recall_at_fpr_1"] is None
    points = content["decisions"]["operating_points"]
    assert {(row["note"], row["recall"]) for row in points} == {("not enough data", None)}
    assert content["calibration"]["score"]["summary"]["note"] == "not enough data"
    assert {row["auroc"] for row in content["groups"]["segment"]} == {None}
    json.dumps(content, allow_nan=False)


@pytest.mark.parametrize("change", ["ten rows", "constant scores", "ties", "no times", "null texts"])
def test_poor_rows_are_evaluated(rows, change):
    columns, splits = rows
    test = splits["test"]
    test = {
        "ten rows": lambda: test.head(10),
        "constant scores": lambda: test.with_columns(**{SCORE: pl.lit(0.25)}),
        "ties": lambda: test.with_columns(**{SCORE: pl.col(SCORE).round(1)}),
        "no times": lambda: test.with_columns(**{TIME: pl.lit(None, dtype=pl.Datetime("us"))}),
        "null texts": lambda: test.with_columns(pl.lit(None, dtype=pl.String).alias(n) for n in columns.text),
    }[change]()
    content = evaluate_model(test, None, columns, splits["val"], splits["train"])
    json.dumps(content, allow_nan=False)
    assert content["models"][0]["n"] == len(test)
    if change == "constant scores":
        assert content["models"][0]["auroc"] == 0.5


def test_a_comparator_of_another_length_is_named(rows):
    _, splits = rows
    with pytest.raises(ValueError, match="values, labels have"):
        evaluate_model(splits["test"], comparators={"short": np.ones(3)})


def test_config_of_texts():
    assert EvaluationConfig.from_texts(["fpr=0.02", "cost_missed=250"]) == EvaluationConfig(
        fpr=0.02, cost_missed=250
    )
    with pytest.raises(ValueError, match="expected KEY=VALUE, found fpr"):
        EvaluationConfig.from_texts(["fpr"])
    with pytest.raises(ValueError, match="unknown key 'cost_mised' .did you mean 'cost_missed'"):
        EvaluationConfig.from_texts(["cost_mised=1"])
    with pytest.raises(ValueError, match="key 'fpr'"):
        EvaluationConfig.from_texts(["fpr=2"])


def test_the_costs_of_the_config_are_used(rows):
    _, splits = rows
    dear = evaluate_model(splits["test"], EvaluationConfig(cost_alarm=1000))["decisions"]["cheapest"]
    cheap = evaluate_model(splits["test"], EvaluationConfig(cost_alarm=1))["decisions"]["cheapest"]
    assert dear["n_flagged"] < cheap["n_flagged"]
    assert evaluate.EvaluationConfig().costs == decisions.Costs(100, 10)


# ---- more than two classes


@pytest.fixture(scope="module")
def in_three_splits(rows, in_three):
    return {name: in_three(frame, i) for i, (name, frame) in enumerate(rows[1].items())}


def test_three_classes_stand_against_the_rest_and_decisions_are_of_class_0(rows, in_three_splits):
    columns, (train, val, test) = rows[0], in_three_splits.values()
    p, label = test.select(f"{SCORE}_{c}" for c in range(3)).to_numpy(), test[LABEL].to_numpy()
    others = {"other": np.roll(p, 1, axis=0), "risk": 1 - p[:, 0]}
    content = evaluate_model(test, None, columns, val, train, others)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["classes"]["each"] == each_class(label, p)
    own, other = content["classes"]["models"]
    assert (own["name"], other["name"]) == (None, "other")
    assert own.items() >= metrics.class_auc(label, p).columns("auroc").items()
    assert other["auroc"] == metrics.class_auc(label, others["other"]).value
    assert [row["name"] for row in content["models"]] == [None, "other", "risk"]
    two = {SCORE: 1 - p[:, 0], LABEL: (label > 0).astype(int)}
    plain, *_ = evaluate_model(pl.DataFrame(two))["models"]
    assert content["models"][0] == plain and content["models"][2]["difference"] == 0
    cut = metrics.threshold_at_fpr(val[LABEL] > 0, 1 - val[f"{SCORE}_0"], 0.01)
    assert content["operating"] == {"fpr": 0.01, "threshold": cut, "chosen_on": "validation rows"}
    assert content["data"][0]["n_positive"] == (train[LABEL] > 0).sum()


def test_a_label_that_is_none_of_the_classes_is_counted(in_three_splits):
    odd = in_three_splits["test"].with_columns(pl.col(LABEL).replace(2, 3))
    with pytest.raises(ValueError, match=r"labels: \d+ of \d+ are not the classes 0 to 2"):
        evaluate_model(odd)
    test, val = in_three_splits["test"], odd
    with pytest.raises(ValueError, match=r"labels: \d+ of \d+ are not of the classes 0 to 2"):
        evaluate_model(test, val=val)
