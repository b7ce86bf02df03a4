"""Users' columns may have any name: a whole run gives the same figures whatever the columns are called."""

import polars as pl
import pytest

from n3r import tables
from n3r.bundle import Recipe, train_bundle
from n3r.evaluation.comparison import compare
from n3r.evaluation.evaluate import evaluate_model
from n3r.evaluation.labelled import with_labels
from n3r.evaluation.scored import beside, only_model
from n3r.features import TabularFeatures
from n3r.model import configure
from n3r.preprocess import prepare
from n3r.schema import ColumnMap
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.synthetic.orders import generate_orders
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

# role -> a column of the synthetic orders
ROLES = {
    "id": "objectId",
    "text": "emailAddress",
    "second": "customerName",
    "label": "status",
    "time": "orderDate",
    "entity": "customerId",
    "segment": "marketplaceCountryCode",
    "number": "daysSinceFirstCompletedOrder",
    "category": "region",
    "group": "locale",
    "oracle": "oracle_p",
}
# Names that n3r gives columns of its own, in files or within, each in the place of another role.
CALLED = {
    "as their roles": "id text text2 label time entity segment score region row_id oracle_p",
    "in other roles": "score label time segment id row_id text p_calibrated oracle_p y percentile",
    "with the id as a label": "label id KEY time text segment row_id score_1 percentile oracle_p score",
}


def whole_run(names, folder):
    """Figures of a whole run on orders with columns of these names, one a role, and what it wrote."""
    role = dict(zip(ROLES, names, strict=True))
    orders = generate_orders(900, seed=2, base_rate=0.3).select(
        pl.col(column).alias(role[r]) for r, column in ROLES.items()
    )
    orders.write_parquet(folder / "orders.parquet")
    columns = ColumnMap(
        **{key: role[key] for key in ("id", "label", "time", "entity", "segment", "oracle")},
        text=[role["text"], role["second"]],
        label_values={"F": 1, "I": 1, "N": 0},
        other_labels="drop",
        time_format="epoch",
        numeric=["*"],
        categorical=[role["category"]],
        groups=[role["group"]],
    )
    prepared = prepare(tables.scan(folder / "orders.parquet", columns).frame, columns)
    tables.write_splits(folder / "data", prepared.splits, prepared.column_map)
    columns = tables.read_column_map(folder / "data")
    splits = {split: tables.read_split(folder / "data", split) for split in prepared.splits}
    tokenizer, _ = train_tokenizer(splits["train"].select(columns.text), TokenizerConfig(min_frequency=3))
    features = TabularFeatures().fit(splits["train"], columns.numeric, columns.categorical)
    sizes = {"embedding_size": 4, "hidden_size": 4, "n_lstm_layers": 1, "n_tab_features": len(features)}
    config = configure("lstm2risk", vocab_size=tokenizer.vocab_size, **sizes)
    settings = TrainConfig(epochs=1, batch_size=64, precision="float32")
    recipe = Recipe(tokenizer, features, columns, settings)
    bundle, _ = train_bundle(config, splits, recipe, folder / "training")
    bundle.save(folder / "bundle")
    predictions = bundle.predictions(splits["test"])
    tables.write(predictions, folder / "predictions.parquet")

    scorer = Scorer(folder / "bundle")
    score_files(scorer, [folder / "orders.parquet"], folder / "scores.csv", progress=False)
    scored = {split: beside(frame, scorer.score(frame)) for split, frame in splits.items()}
    of_files = with_labels(only_model(folder / "scores.csv"), [folder / "orders.parquet"], columns)
    found = {
        "steps": prepared.report.to_dict()["steps"],
        "evaluated": evaluate_model(scored["test"], None, columns, scored["val"], scored["train"]),
        "of files": evaluate_model(of_files, None, columns)["models"],
        "compared": compare(predictions, predictions)["segments"],
        "one": scorer.score_one(orders.row(0, named=True)),
        "explained": scorer.explain_one(orders.row(0, named=True))["contribution"].to_list(),
    }
    moved = found["evaluated"]["stability"].pop("features")
    found["moved"] = {names.index(row["column"]): row | {"column": None} for row in moved}
    return found, predictions, pl.read_csv(folder / "scores.csv")


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The run on columns that are called as nothing else is."""
    return whole_run([f"my {role}" for role in ROLES], tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize(
    "what",
    [w if w == "in other roles" else pytest.param(w, marks=pytest.mark.slow) for w in CALLED],
)
def test_a_whole_run_is_the_same_whatever_columns_are_called(what, usual, tmp_path):
    found, *files = whole_run(CALLED[what].split(), tmp_path)
    assert found == usual[0]
    for file, other in zip(files, usual[1:], strict=True):
        assert file.columns[1:] == other.columns[1:] and file.rows() == other.rows()
        assert file.columns[0] == "id"
