"""A value is one and the same whatever type and format hold it, in training, scoring and evaluation."""

import datetime
import json
import math
import warnings
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.evaluation.labelled import with_labels
from n3r.evaluation.scored import read_scored
from n3r.features import TabularFeatures
from n3r.preprocess import PrepareConfig, prepare
from n3r.rows.inputs import Inputs, typed, typed_row
from n3r.rows.values import text_of, texts_of
from n3r.schema import LABEL, ColumnMap
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.tables import scan

DAY = datetime.date(2025, 1, 31)
# Value, its type as a column (None: Python's own), and its text.
CASES = [
    (3, None, "3"),
    (3, pl.Int8, "3"),
    (3, pl.UInt64, "3"),
    (3.0, pl.Float32, "3"),
    (3.0, None, "3"),
    (-0.0, None, "0"),
    (-3.0, None, "-3"),
    (0.1, pl.Float32, "0.1"),
    (0.1, None, "0.1"),
    (1e-5, None, "0.00001"),
    (1e16, None, "10000000000000000"),
    (1e20, None, "100000000000000000000"),
    (9007199254740993, None, "9007199254740993"),
    (9007199254740992.0, None, "9007199254740992"),
    (2**64 - 1, pl.UInt64, "18446744073709551615"),
    (10**20, None, "100000000000000000000"),
    (math.nan, None, None),
    (None, pl.Float64, None),
    (True, None, "true"),
    (Decimal("3.00"), None, "3"),
    (Decimal("3.50"), None, "3.5"),
    (Decimal("100"), None, "100"),
    (DAY, None, "2025-01-31"),
    ("Ana", pl.Categorical, "Ana"),
    ("3.0", pl.Enum(["3.0"]), "3"),
    ("3", None, "3"),
    ("3.0", None, "3"),
    ("-0.0", None, "0"),
    ("9007199254740993.0", None, "9007199254740993"),
    ("1e16", None, "10000000000000000"),
    ("1e+16", None, "10000000000000000"),
    ("1.0E7", None, "10000000"),
    ("1e-05", None, "0.00001"),
    ("True", None, "true"),
    ("FALSE", None, "false"),
    # Not how a program writes a number: a name.
    *((text, None, text) for text in ("007", "007.0", "1.10", "3E5", "9e5", "1e999", "tRue", " 3", "")),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "text"), CASES)
def test_worked_example(value, kind, text):
    assert texts_of(pl.Series([value, None], dtype=kind)).to_list() == [text, None]
    column = Inputs(None, [], [], ["code"])
    assert typed_row({"code": value}, column) == {"code": text}
    if isinstance(value, str):
        assert text_of(value) == text
    if text is not None:
        assert text_of(text) == text


@given(st.one_of(st.floats(), st.floats(width=32), st.integers(-(2**63), 2**64), st.booleans(), st.text()))
def test_a_value_is_one_in_a_table_in_a_row_and_as_other_programs_write_it(value):
    column = Inputs(None, [], [], ["code"])
    [found] = typed(pl.DataFrame({"code": [value]}), column)[0]["code"]
    assert typed_row({"code": value}, column) == {"code": found}
    assert found is None or text_of(found) == found
    if found is not None and not isinstance(value, str) and math.isfinite(value):
        assert text_of(json.dumps(value)) == text_of(str(value)) == found


# ---- a whole way: the same rows in every format and type

STORES, FLAGS = [1, 2, 3, 40], [True, False]
TYPES = {
    "store": {
        "integer": lambda column: column,
        "float": lambda column: column.cast(pl.Float64),
        "float32": lambda column: column.cast(pl.Float32),
        "decimal": lambda column: column.cast(pl.Decimal(12, 2)),
        "text": lambda column: column.cast(pl.String),
        "text of a float": lambda column: column.cast(pl.Float64).cast(pl.String),
        "categorical": lambda column: column.cast(pl.String).cast(pl.Categorical),
        "enum": lambda column: column.cast(pl.String).cast(pl.Enum(["40", "1", "2", "3"])),
    },
    "vip": {
        "boolean": lambda column: column,
        "of Python": lambda column: pl.Series(column.name, map(str, column)),
        "of a spreadsheet": lambda column: column.cast(pl.String).str.to_uppercase(),
    },
    "id": {
        "integer": lambda column: column,
        "float": lambda column: column.cast(pl.Float64),
        "text": lambda column: column.cast(pl.String),
        "text of a float": lambda column: column.cast(pl.Float64).cast(pl.String),
    },
}  # fmt: skip
MAP = ColumnMap(
    id="id",
    text=["name"],
    label="outcome",
    label_values={"1.0": 1, "0": 0},
    segment="store",
    categorical=["store", "vip"],
    numeric=["amount"],
    groups=["day"],
    split_by="random",
)


def rows_of(small, n: int, seed: int = 0) -> pl.DataFrame:
    rows = small.prepared.splits["train"].sample(n, seed=seed)
    number = pl.int_range(pl.len())
    return rows.select(
        id=number,
        name=pl.col(small.prepared.column_map.text[0]),
        store=(number * 7 % 11 % 4).replace_strict(dict(enumerate(STORES))),
        vip=number % 3 == 0,
        amount=(number % 17).cast(pl.Float64),
        day=pl.lit(DAY),
        outcome=pl.col(LABEL).cast(pl.Int64),
    )


def as_types(rows: pl.DataFrame, kinds: dict[str, str]) -> pl.DataFrame:
    return rows.with_columns(TYPES[name][kind](rows[name]) for name, kind in kinds.items())


def written(rows: pl.DataFrame, path) -> None:
    if path.suffix == ".jsonl":
        rows.write_ndjson(path)
    elif path.suffix == ".csv":
        rows.write_csv(path)
    else:
        rows.write_parquet(path)


@pytest.fixture(scope="module")
def coded(small, tmp_path_factory):
    """Rows with categories, and a scorer trained on them."""
    from n3r.bundle import Recipe, train_bundle
    from n3r.model import configure
    from n3r.train import TrainConfig

    folder, rows = tmp_path_factory.mktemp("coded"), rows_of(small, 400)
    splits, columns, features = learned(rows.lazy())
    sizes = {"vocab_size": small.bundle.tokenizer.vocab_size, "n_tab_features": len(features)}
    sizes |= {"hidden_size": 4, "embedding_size": 4, "n_lstm_layers": 1, "n_tab_bins": 4}
    training = TrainConfig(epochs=1, batch_size=64, precision="float32")
    recipe = Recipe(small.bundle.tokenizer, features, columns, training)
    bundle, _ = train_bundle(configure("lstm2risk", **sizes), splits, recipe, folder / "training")
    bundle.save(folder / "bundle")
    return rows, Scorer(folder / "bundle"), splits, features


def learned(frame: pl.LazyFrame):
    """Splits, the map and the fitted features of raw rows."""
    found = prepare(frame, MAP, PrepareConfig())
    train, columns = found.splits["train"], found.column_map
    return found.splits, columns, TabularFeatures().fit(train, columns.numeric, columns.categorical)


KINDS = st.fixed_dictionaries({name: st.sampled_from(sorted(kinds)) for name, kinds in TYPES.items()})


@given(KINDS, st.sampled_from(["parquet", "csv", "jsonl"]))
def test_rows_train_and_score_alike_whatever_their_types_and_format(coded, tmp_path, kinds, format):
    rows, scorer, expected, state = coded
    path = tmp_path / f"rows.{format}"
    written(as_types(rows, kinds), path)
    splits, _, features = learned(scan(path, MAP).frame)
    assert features.to_dict() == state.to_dict()
    assert all(splits[name].equals(expected[name]) for name in splits)
    score_files(scorer, [path], tmp_path / "scores.parquet", progress=False)
    found = pl.read_parquet(tmp_path / "scores.parquet")
    assert found[:, 1:].equals(scorer.score(rows)[:, 1:])
    assert found["id"].cast(pl.String).equals(scan(path, MAP).frame.collect()["id"].cast(pl.String))


@given(KINDS)
def test_a_dict_and_a_table_of_any_types_score_alike(coded, kinds):
    rows, scorer, *_ = coded
    frame = as_types(rows, kinds)
    expected = scorer.score(rows)
    assert scorer.score(frame)[:, 1:].equals(expected[:, 1:])
    for i in (0, 1):
        assert scorer.score_one(frame.row(i, named=True)) == pytest.approx(expected["score"][i], abs=1e-6)


def test_files_of_several_types_are_one_table_and_their_ids_come_back_as_text(coded, tmp_path):
    rows, scorer, *_ = coded
    kinds = ["integer", "float", "text", "enum", "categorical"]
    for i, kind in enumerate(kinds):
        types = {"store": kind, "id": kind if kind in TYPES["id"] else "integer"}
        written(as_types(rows[i * 80 : i * 80 + 80], types), tmp_path / f"{i}.parquet")
    expected = learned(rows.lazy())[2]
    assert learned(scan(tmp_path, MAP).frame)[2].to_dict() == expected.to_dict()
    score_files(scorer, [tmp_path], tmp_path / "scores.csv", progress=False)
    found = pl.read_csv(tmp_path / "scores.csv", infer_schema=False)
    assert found["id"].to_list() == [str(i) for i in range(len(rows))]


@pytest.mark.parametrize("kind", ["integer", "float", "text", "text of a float"])
def test_scores_find_their_orders_by_ids_of_any_type(coded, tmp_path, kind):
    rows, scorer, *_ = coded
    written(rows, tmp_path / "orders.parquet")
    scores = scorer.score(rows).with_columns(TYPES["id"][kind](rows["id"]))
    written(scores.sample(fraction=1, shuffle=True, seed=0), tmp_path / "scores.csv")
    table = with_labels(read_scored(tmp_path / "scores.csv"), [tmp_path / "orders.parquet"], MAP)
    by_id = dict(zip(map(str, rows["id"]), rows["outcome"], strict=True))
    assert dict(table.select("n3r:id", LABEL).iter_rows()) == by_id


def test_a_column_whose_categories_training_did_not_see_is_warned_of(coded, tmp_path):
    rows, scorer, *_ = coded
    other = rows.with_columns(store=pl.format("shop {}", "store"))
    with pytest.warns(UserWarning, match="column 'store': 400 of 400 rows have a category") as told:
        scorer.score(other)
    assert "shop" not in str(told[0].message)
    written(other, tmp_path / "other.csv")
    with pytest.warns(UserWarning, match="column 'store'"):
        score_files(scorer, [tmp_path / "other.csv"], tmp_path / "scores.csv", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.score(rows[:5])
        scorer.score(rows)
        scorer.score(other[:5])  # too few to tell


def test_a_state_with_other_spellings_of_its_categories_is_read(coded):
    rows, scorer, *_ = coded
    state = json.loads(json.dumps(scorer.features.to_dict()))
    table = state["risk_tables"]["store risk"]
    table["bins"] = {f"{key}.0": risk for key, risk in table["bins"].items()}
    del table["known"]  # as bundles of before have it
    typed_rows = typed(rows, scorer.inputs)[0]
    found = TabularFeatures.from_dict(state).transform(typed_rows)
    assert found.tolist() == scorer.features.transform(typed_rows).tolist()


def test_precomputed_risk_tables_may_spell_their_categories_otherwise():
    frame = pl.DataFrame({"store": [3, 4], LABEL: [0, 1]})
    tables = {"store": {"bins": {"3.0": 0.25, "4.0": 0.5}, "default_bin": 0.1}}
    features = TabularFeatures().fit(frame, [], ["store"], risk_tables=tables)
    assert features.transform(frame).tolist() == [[0.25], [0.5]]


def test_two_spellings_of_one_label_must_be_of_one_class():
    assert ColumnMap(**{**MAP.model_dump(), "label_values": {"1": 1, "1.0": 1, "0": 0}}).classes == {
        "1": 1,
        "0": 0,
    }
    with pytest.raises(ValueError, match="label_values has '1' twice"):
        ColumnMap(**{**MAP.model_dump(), "label_values": {"1": 1, "1.0": 0, "0": 0}})


def test_a_message_shows_a_type_without_its_values(coded, tmp_path):
    rows, scorer, *_ = coded
    names = pl.Enum(sorted({*rows["name"].drop_nulls()}))
    frame = rows.with_columns(amount=rows["name"].cast(names), id=[[1]] * len(rows))
    with pytest.raises(ValueError, match="'id' is List") as error:
        scorer.score(frame)
    assert rows["name"][0] not in str(error.value)
    written(rows.with_columns(amount=rows["name"].cast(names)), tmp_path / "a.parquet")
    written(rows, tmp_path / "b.parquet")
    with pytest.raises(
        ValueError, match="column 'amount' differs between files: text in .*, a number in"
    ) as error:
        scan(tmp_path, MAP)
    assert rows["name"][0] not in str(error.value)
