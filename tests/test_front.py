"""Three lines: a frame in, a model out that scores, decides, explains, reports, and is read again."""

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

import n3r
from n3r.front import to_polars
from n3r.schema import LABEL
from n3r.synthetic.orders import generate_orders
from n3r.thresholds import Rule

TEXT = ["emailAddress", "billingAddressName", "customerName", "paymentAccountHolderName"]
# Left to judge by itself, each fit would train trees with the strings' features and without them.
FEW = {"members": ["random forest", "character n-grams"], "n_folds": 1, "identity": "on"}


@pytest.fixture(scope="module")
def orders() -> pl.DataFrame:
    """Orders as somebody has them in a notebook: strings, two numbers, a label of yes and no."""
    frame = generate_orders(900, seed=5, base_rate=0.25)
    is_fraud = pl.when(pl.col("status").is_in(["F", "I"])).then(pl.lit("yes")).otherwise(pl.lit("no"))
    return frame.select(*TEXT, "accountAgeDays", "orderAmount", chargeback=is_fraud)


@pytest.fixture(scope="module")
def model(orders):
    return n3r.fit(orders.to_pandas(), label="chargeback", text=TEXT, amount="orderAmount", **FEW)


def test_the_columns_named_one_by_one_are_a_map(model, orders):
    columns = model.scorer.column_map
    assert columns.text == TEXT and columns.numeric == ["accountAgeDays", "orderAmount"]
    assert columns.label_values == {"no": 0, "yes": 1} and columns.split_by == "random"
    assert "test AUROC 0." in repr(model)
    assert all(word in model._repr_html_() for word in ("test AUROC", "<table", "random forest"))


def test_a_frame_of_any_library_has_the_same_scores(model, orders):
    rows = orders.head(50)
    expected = model.score(rows)
    assert expected.columns == ["row", "score", "p_calibrated", "percentile"]
    other_index = rows.to_pandas().set_index(np.arange(50)[::-1])
    for frame in (rows.lazy(), rows.to_pandas(), other_index, pa.table(rows.to_arrow())):
        assert_frame_equal(model.score(frame), expected)


def test_decisions_reasons_leaderboard_and_report(model, orders, tmp_path):
    decided = model.decide(orders, fpr=0.2, reasons=2)
    assert set(decided["decision"]) == {"flag", "pass"}
    first = decided.filter(rank=1)
    why = model.explain(orders[int(first["row"][0])])
    assert first["reason_1"][0] in why["reason"].to_list() and len(why) <= 5
    assert model.explain(orders.row(3, named=True)).equals(model.explain(orders[3]))
    assert set(model.leaderboard()["member"]) == set(FEW["members"])
    page = model.report(tmp_path).read_text()
    assert "best recipe" in page and "A missed fraud costs 1.00 times its amount" in page


def test_costs_weigh_by_the_amount_that_is_named(model, tmp_path):
    rule = Rule(cost_missed=1, cost_alarm=10)
    decision = n3r.load(model.save(tmp_path / "by_amount")).scorer.decision(rule)
    assert decision == model.scorer.decision(rule) and 0 < decision.recall_amount <= 1


def test_a_saved_model_is_read_again_and_scores_the_same(model, orders, tmp_path):
    again = n3r.load(model.save(tmp_path / "mine"))
    assert_frame_equal(again.score(orders), model.score(orders))
    assert again.leaderboard().equals(model.leaderboard())
    with pytest.raises(ValueError, match="there already"):
        model.save(tmp_path / "mine")
    with pytest.raises(ValueError, match="call it after n3r.fit"):
        again.report(tmp_path)


def test_a_map_does_what_names_do(orders, tmp_path):
    frame = orders.with_row_index("n").with_columns(pl.col("chargeback").eq("yes").cast(pl.Int8))
    content = {"id": "n", "text": TEXT, "label": "chargeback", "label_values": {"0": 0, "1": 1}}
    content |= {"numeric": ["*"], "split_by": "random"}
    (tmp_path / "map.json").write_text(json.dumps(content))
    fitted = n3r.fit(frame, tmp_path / "map.json", members=["character n-grams"], n_folds=1)
    assert fitted.score(frame.head(3)).columns[0] == "n"


@pytest.mark.parametrize(
    ("change", "given", "why"),
    [
        ({}, {"label": "fraud"}, "no column 'fraud'"),
        ({}, {}, "takes a column map, or label and text"),
        ({}, {"label": "chargeback", "text": []}, "text must name at least one column"),
        ({}, {"label": "chargeback", "text": ["emailAdress"]}, "no column 'emailAdress'.*emailAddress"),
        ({}, {"label": "chargeback", "text": TEXT, "folds": 3}, "unknown key 'folds'"),
        ({}, {"label": "chargeback", "text": TEXT, "members": ["magic"]}, "no members"),
        ({"chargeback": "yes"}, {"label": "chargeback", "text": TEXT}, "1 values"),
        ({"chargeback": None}, {"label": "chargeback", "text": TEXT}, "0 values"),
        ({"row": 1}, {"label": "chargeback", "text": TEXT}, "name the id column"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_sentence(orders, change, given, why):
    frame = orders.with_columns(pl.lit(value).alias(name) for name, value in change.items())
    with pytest.raises(ValueError, match=why) as error:
        n3r.fit(frame, **given)
    assert "\n" not in str(error.value)


def test_an_empty_frame_is_scored_and_not_fitted(model, orders):
    with pytest.raises(ValueError, match="0 values"):
        n3r.fit(orders.clear(), label="chargeback", text=TEXT)
    assert model.score(orders.clear()).height == 0
    assert model.decide(orders.clear().to_pandas(), fpr=0.1, reasons=1).columns[-2:] == ["reason_1", "rank"]


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y.map({"yes": 1.0, "no": 0.0}),  # with NaN
        pytest.param(lambda y: y.map({"yes": 1, "no": 0}).astype("Int64"), marks=pytest.mark.slow),
        lambda y: y.eq("yes").astype("boolean").mask(y.isna()),
        lambda y: y.astype("category"),
        pytest.param(lambda y: y.map({"yes": "1", "no": "0"}), marks=pytest.mark.slow),
    ],
)
def test_labels_of_any_type_and_rows_without_one(orders, labels):
    frame = orders.to_pandas()
    frame.loc[frame.index % 3 == 0, "chargeback"] = None
    frame = frame.assign(
        chargeback=labels(frame["chargeback"]),
        shop=pd.Categorical(["a", "b", None] * 300),
        accountAgeDays=frame["accountAgeDays"].round().astype("Int64"),
    ).set_index(np.arange(900)[::-1])
    fitted = n3r.fit(
        frame, label="chargeback", text=TEXT, categorical="shop", **FEW | {"members": FEW["members"][:1]}
    )
    splits = pl.concat(fitted.splits.values())
    assert splits.height == 600 and fitted.scorer.column_map.categorical == ["shop"]
    assert (
        splits[LABEL].sum()
        == orders["chargeback"].eq("yes").filter(pl.int_range(900, eager=True) % 3 > 0).sum()
    )


def test_a_column_that_knows_the_outcome_is_refused_unless_it_is_accepted(orders):
    frame = orders.with_columns(refunded=(pl.col("chargeback") == "yes").cast(pl.Int8))
    given = {"label": "chargeback", "text": TEXT, **FEW}
    with pytest.raises(ValueError, match="'refunded' alone .*accept=.'leak:refunded'.$") as error:
        n3r.fit(frame, **given)
    assert "\n" not in str(error.value)
    fitted = n3r.fit(frame, accept=["leak:refunded"], **given)
    assert "refunded" in fitted.scorer.column_map.numeric


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda m, f: m.decide(f, budget="50/day"), "no time column: give a share"),
        (lambda m, f: m.decide(f, fpr=1.0), "fpr"),
        (lambda m, f: m.decide(f, fpr=-0.1), "fpr"),
        (lambda m, f: m.decide(f), "give one of fpr"),
        (lambda m, f: m.decide(f, cost_missed=1), "belong together"),
        (lambda m, f: m.score(f.drop("customerName")), "'customerName' is missing"),
        (lambda m, f: m.score(f.to_pandas().iloc[:, [0, 0, 1, 2, 3, 4, 5]]), "names of their own"),
        (lambda m, f: m.explain(f.clear()), "one order, found 0 rows"),
    ],
)
def test_what_cannot_be_decided_is_said_in_one_sentence(model, orders, call, why):
    with pytest.raises(ValueError, match=why) as error:
        call(model, orders.head(3))
    assert str(error.value).count("\n") <= 1  # a list of columns may follow


def test_a_bundle_of_another_version_is_refused_in_one_sentence(model, tmp_path):
    folder = model.save(tmp_path / "mine")
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ValueError, match="99") as error:
        n3r.load(folder)
    assert "\n" not in str(error.value)


def test_the_readmes_example_runs(orders, tmp_path, monkeypatch):
    """With two members of the recipe, so that it takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(n3r, "fit", partial(n3r.fit, **FEW), raising=False)
    names = dict(zip(TEXT, ["email", "billing_name", "customer", "holder"], strict=True))
    frame = orders.rename({**names, "chargeback": "is_fraud"})
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import n3r\n.*?)```", text, re.DOTALL)
    made = {"orders": frame.to_pandas(), "new_orders": frame.head(20).to_pandas()}
    exec(code, made)
    assert n3r.load("my_model").score(frame.head(20)).equals(made["model"].score(made["new_orders"]))


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (pd.DataFrame([["Ana Ober", "Bo Li"]], columns=["who", "who"]), "names of their own"),
        (pd.DataFrame({"who": ["Ana Ober", 3]}), "one type each"),
        ([1, 2], "found builtins.list"),
        ({"who": ["Ana Ober"]}, "found builtins.dict"),
        (np.zeros((2, 2)), "found numpy.ndarray"),
    ],
)
def test_what_is_no_table_is_refused_without_a_cell_of_it(frame, why):
    with pytest.raises(ValueError, match=why) as error:
        to_polars(frame)
    assert "Ana" not in str(error.value)


def test_nullable_and_categorical_columns_of_pandas_keep_their_values():
    frame = pd.DataFrame(
        {
            "text": ["x", None],
            "int": pd.array([1, None], dtype="Int64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "kind": pd.Categorical(["u", None]),
            "number": [1.5, np.nan],
        }
    )
    found = to_polars(frame).with_columns(pl.col("kind").cast(pl.String))
    assert found.rows() == [("x", 1, True, "u", 1.5), (None, None, None, None, None)]


def test_importing_n3r_imports_none_of_it(run_fresh):
    code = "import sys, n3r; print('polars' in sys.modules, n3r.fit.__name__, 'torch' in sys.modules)"
    assert run_fresh(code).split() == ["False", "fit", "False"]
    with pytest.raises(AttributeError, match="no attribute 'fitted'"):
        _ = n3r.fitted
    assert "n3r.front" in sys.modules
