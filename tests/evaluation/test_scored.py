"""Scored rows from files and runs, their labels, and two tables matched by id."""

import polars as pl
import pytest

from n3r.engine.disk import Disk
from n3r.evaluation import scored
from n3r.evaluation.labelled import with_labels
from n3r.rows.parts import whole
from n3r.schema import CALIBRATED, KEY, LABEL, ORACLE, SCORE, SEGMENT, TIME, ColumnMap
from n3r.synthetic import orders as synth

TABLE = pl.DataFrame(
    {"order": ["a", "b", "c"], "score": [0.1, 0.9, 0.5], "label": [0, 1, 0], "extra": [1, 2, 3]}
)
CONFIG = "configs/orders.json"


def written(frame, path):
    writers = {"parquet": frame.write_parquet, "jsonl": frame.write_ndjson, "csv": frame.write_csv}
    writers[path.suffix[1:]](path)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_every_kind_of_file_reads_alike(tmp_path, kind):
    table = scored.read_scored(written(TABLE, tmp_path / f"s.{kind}"))
    assert table.columns == [KEY, SCORE, LABEL]
    assert table.rows() == [("a", 0.1, 0.0), ("b", 0.9, 1.0), ("c", 0.5, 0.0)]


def test_ids_stay_text_and_another_column_can_be_the_score(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("order,score,p_old\n007,0.5,0.25\nNA,0.5,1e-3\n")
    table = scored.read_scored(path, score="p_old")
    assert table.rows() == [("007", 0.25), ("NA", 0.001)]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_times_and_segments_are_read_as_a_run_writes_them(tmp_path, kind):
    time = pl.Series(["2025-05-04T10:00:00", None, "2025-05-05T11:30:00"]).str.to_datetime()
    table = TABLE.with_columns(time=time, segment=pl.Series(["US", None, "DE"]))
    read = scored.read_scored(written(table, tmp_path / f"s.{kind}"))
    assert read.schema[TIME] == pl.Datetime("us")
    assert read[TIME].to_list() == time.to_list() and read[SEGMENT].to_list() == ["US", None, "DE"]


@pytest.mark.parametrize(
    "rows, says",
    [
        ("a,0.1\na,0.2\n", "1 rows have an id that an earlier row has"),
        ("a,0.1\n,0.2\n", "1 rows have no id"),
        ("a,0.1\nb,nan\nc,\nd,high\n", "3 of 4 values of 'score' are not finite numbers"),
        ("a,inf\n", "1 of 1 values of 'score' are not finite numbers"),
    ],
)
def test_bad_rows_are_counted_and_not_shown(tmp_path, rows, says):
    path = tmp_path / "s.csv"
    path.write_text("order,score\n" + rows)
    with pytest.raises(ValueError, match=says) as error:
        scored.read_scored(path)
    assert str(path) in str(error.value) and "high" not in str(error.value)


def test_what_is_no_score_file_is_named(tmp_path):
    text, broken = tmp_path / "s.txt", tmp_path / "s.parquet"
    text.write_text("order,score\n"), broken.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="must end in"):
        scored.read_scored(text)
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        scored.read_scored(broken)
    with pytest.raises(ValueError, match="no column 'score' beside its id .did you mean 'scores'"):
        scored.read_scored(written(TABLE.rename({"score": "scores"}), tmp_path / "other.csv"))
    with pytest.raises(FileNotFoundError, match="neither a score file, nor a folder of some, nor a run"):
        scored.scored_models(tmp_path / "nothing")


def test_a_run_has_the_test_rows_of_each_model(tmp_path):
    folder = tmp_path / "quick" / "predictions"
    folder.mkdir(parents=True)
    for name in ("lstm2risk_test", "lstm2risk_val", "legacy_lstm2risk_test"):
        written(TABLE, folder / f"{name}.parquet")
    assert list(scored.scored_models(tmp_path / "quick")) == ["legacy_lstm2risk", "lstm2risk"]
    (tmp_path / "quick" / "lstm2risk").mkdir()
    assert list(scored.scored_models(tmp_path / "quick" / "lstm2risk")) == ["lstm2risk"]


def test_matched_puts_rows_in_order_and_counts_what_is_not_in_both():
    a = pl.DataFrame({KEY: ["a", "b", "c"], SCORE: [1.0, 2.0, 3.0]})
    b = pl.DataFrame({KEY: ["c", "a", "b"], SCORE: [0.3, 0.1, 0.2]})
    assert scored.matched(a, b)[SCORE].to_list() == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="1 of 3 ids of new are not in the other, 0 of 2 ids of old"):
        scored.matched(a, b.head(2), ("new", "old"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    orders = synth.generate_orders(400, seed=1)
    path = tmp_path_factory.mktemp("raw") / "orders.parquet"
    orders.write_parquet(path)
    return orders, path


def test_labels_come_from_the_raw_orders_by_id(raw):
    orders, path = raw
    mixed = orders.sample(fraction=1, shuffle=True, seed=2)
    scores = mixed.select(id="objectId", score="oracle_p")
    table = with_labels(scores, [path], ColumnMap.from_file(CONFIG))
    known = mixed.filter(pl.col("status").is_in(["F", "I", "N"]))
    assert table[KEY].to_list() == known["objectId"].to_list()
    assert table[LABEL].to_list() == (known["status"] != "N").cast(pl.Int8).to_list()
    assert table[SEGMENT].to_list() == known["marketplaceCountryCode"].to_list()
    assert table["locale"].to_list() == known["locale"].to_list()
    assert table[SCORE].to_list() == table[ORACLE].to_list()
    few = with_labels(scores, [path], ColumnMap.from_file(CONFIG), wide=False)
    assert few.columns == [KEY, SCORE, LABEL, SEGMENT, TIME] and few.equals(table.select(few.columns))


def test_ids_without_an_order_and_orders_without_a_label_are_counted(raw, tmp_path):
    orders, path = raw
    columns = ColumnMap.from_file(CONFIG)
    strange = pl.DataFrame({"id": ["nobody", orders["objectId"][0]], "score": [0.1, 0.2]})
    with pytest.raises(ValueError, match="1 of 2 scored ids are not among the orders"):
        with_labels(strange, [path], columns)
    open_orders = orders.filter(pl.col("status").is_in(["P", "C"]))
    with pytest.raises(ValueError, match="none of the .* scored orders has a label"):
        with_labels(open_orders.select(id="objectId", score="oracle_p"), [path], columns)
    twice = written(pl.concat([orders, orders.head(3)]), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="3 orders have an id that an earlier one has"):
        with_labels(orders.select(id="objectId", score="oracle_p"), [twice], columns)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_scores_in_a_folder_are_those_of_one_file(tmp_path, kind):
    (tmp_path / "parts").mkdir()
    for place in range(3):
        written(TABLE[place : place + 1], tmp_path / "parts" / f"p{place}.{kind}")
    written(TABLE.rename({"score": "reason"}), tmp_path / "parts" / "p0.rejects.csv")
    (found,) = scored.scored_models(tmp_path / "parts").values()
    assert found.equals(scored.read_scored(written(TABLE, tmp_path / f"whole.{kind}")))
    written(TABLE[:1], tmp_path / "parts" / f"q.{kind}")
    with pytest.raises(ValueError, match="parts: 1 rows have an id that an earlier row has"):
        scored.read_scored(tmp_path / "parts")
    written(TABLE.drop("label"), tmp_path / "parts" / f"q.{kind}")
    with pytest.raises(ValueError, match=rf"q\.{kind} has other columns of scores"):
        scored.read_scored(tmp_path / "parts")


@pytest.mark.parametrize("n", [1, 5])
def test_orders_on_disk_give_the_rows_that_they_give_in_memory(raw, tmp_path, n):
    orders, path = raw
    scores = orders.sample(fraction=0.9, shuffle=True, seed=2).select(id="objectId", score="oracle_p")
    columns = ColumnMap.from_file(CONFIG)
    expected = with_labels(scores, [path], columns)
    engine = Disk(tmp_path / "private", 10**9, n)
    found = with_labels(scores, [path], columns, engine)
    assert len(list(found.read([LABEL, "locale"]))) == n
    assert whole(found, expected.columns).equals(expected) and len(found) == expected.height
    del engine, found
    assert not (tmp_path / "private").exists()  # it holds names


def test_ids_of_one_hash_are_told_apart(raw, monkeypatch):
    orders, path = raw
    scores = orders.sample(fraction=0.9, shuffle=True, seed=2).select(id="objectId", score="oracle_p")
    expected = with_labels(scores, [path], ColumnMap.from_file(CONFIG))
    monkeypatch.setattr(pl.Series, "hash", lambda ids: ids.str.len_chars().cast(pl.UInt64))
    assert with_labels(scores, [path], ColumnMap.from_file(CONFIG)).equals(expected)


def test_labels_are_asked_for_where_no_table_has_them():
    bare = pl.DataFrame({KEY: ["a"], SCORE: [0.5]})
    half = pl.DataFrame({KEY: ["a", "b"], SCORE: [0.5, 0.5], LABEL: [1, None]})
    whole = half.with_columns(**{LABEL: pl.lit(1)})
    assert scored.labels_of({"x": bare, "y": half, "z": whole}) is whole
    with pytest.raises(ValueError, match="no label on every row of x or y: give the orders"):
        scored.labels_of({"x": bare, "y": half})


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("first", ["", "Unnamed: 0", "__index_level_0__", "...1"])
def test_row_numbers_are_no_ids(first, kind, tmp_path):
    ids = pl.Series("oid", ["7", "3", "5"])
    numbered = pl.DataFrame({first: [0, 1, 2], "oid": ids, "score": [0.1, 0.9, 0.5]})
    path = written(numbered, tmp_path / f"s.{kind}")
    with pytest.raises(ValueError, match=rf"s\.{kind}: its first column, the id, has no name"):
        scored.read_scored(path)
    found = scored.read_scored(path, id="oid")
    assert found[KEY].to_list() == ids.to_list() and found[SCORE].to_list() == [0.1, 0.9, 0.5]
    plain = scored.read_scored(written(numbered.drop(first), tmp_path / f"p.{kind}"), id="another")
    assert plain.equals(found)


def test_orders_are_read_as_for_training(tmp_path):
    """A wrong format of times, and rows that cannot be read, are refused as `n3r run` refuses them."""
    rows = {"id": ["a", "b"], "name": ["x", "y"], "y": ["0", "1"], "at": ["31/01/2025", "01/02/2025"]}
    columns = {"id": "id", "text": ["name"], "label": "y", "label_values": {"0": 0, "1": 1}, "time": "at"}
    given = pl.DataFrame({KEY: ["b", "a"], SCORE: [0.9, 0.1]})
    orders = written(pl.DataFrame(rows), tmp_path / "o.csv")
    with pytest.raises(ValueError, match=r"time_format '%d/%m/%Y' reads them"):
        with_labels(given, [orders], ColumnMap(**columns))
    table = with_labels(given, [orders], ColumnMap(**columns, time_format="%d/%m/%Y"))
    assert table[LABEL].to_list() == [1, 0] and [str(time) for time in table[TIME]] == [
        "2025-02-01 00:00:00",
        "2025-01-31 00:00:00",
    ]
    orders.write_text(orders.read_text() + "c,z\n")
    with pytest.raises(ValueError, match=r"o\.csv, row 3: has 2 cells, the header 4"):
        with_labels(given, [orders], ColumnMap(**columns, time_format="%d/%m/%Y"))


# ---- more than two classes


THREE = {
    "order": ["a", "b", "c"],
    **{f"score_{c}": [0.5, 0.2, 0.1 * c] for c in range(3)},
    "label": [0, 1, 2],
}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_scores_of_three_classes_and_the_risk_of_any_but_0(tmp_path, kind):
    table = pl.DataFrame(THREE | {"p_calibrated_0": [0.4] * 3, "p_calibrated_1": [0.3] * 3})
    found = scored.read_scored(written(table, tmp_path / f"s.{kind}"))
    names = [*(f"{SCORE}_{c}" for c in range(3)), LABEL, f"{CALIBRATED}_0", f"{CALIBRATED}_1"]
    assert found.columns == [KEY, *names, SCORE, CALIBRATED]
    assert found[SCORE].to_list() == [0.5, 0.8, 1.0] and found[CALIBRATED].to_list() == [0.6] * 3
    assert scored.class_scores(found).shape == (3, 3)
    assert scored.as_two(found)[LABEL].to_list() == [0, 1, 1]
    again = scored.named(table.rename({"order": "id"}))
    assert again.select(sorted(again.columns)).equals(
        found.select(sorted(found.columns)).with_columns(pl.col(LABEL).cast(pl.Int64))
    )


def test_two_classes_stay_as_they_are():
    table = scored.named(TABLE)
    assert scored.as_two(table) is table and scored.class_scores(table).ndim == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"score_1": ["0.1", "high", "0.2"]}, "1 of 3 values of 'score_1' are not finite numbers"),
        ({"score_2": [0.1, None, 0.2]}, "1 of 3 values of 'score_2' are not finite numbers"),
    ],
)
def test_what_is_wrong_with_a_class_is_counted(tmp_path, change, says):
    path = written(pl.DataFrame(THREE | change), tmp_path / "s.csv")
    with pytest.raises(ValueError, match=says):
        scored.read_scored(path)
    with pytest.raises(ValueError, match="no column 'score' beside its id"):
        scored.read_scored(written(pl.DataFrame(THREE).drop("score_1"), path))


def test_a_column_map_of_other_classes_is_refused(raw):
    orders, path = raw
    scores = orders.select(id="objectId", score_0="oracle_p", score_1="oracle_p", score_2="oracle_p")
    with pytest.raises(ValueError, match="scores of 3 classes, and the column map has 2"):
        with_labels(scores, [path], ColumnMap.from_file(CONFIG))
    kinds = ColumnMap.from_file(CONFIG).model_copy(update={"label_values": {"N": 0, "F": 1, "I": 2}})
    table = with_labels(scores, [path], kinds)
    assert set(table[LABEL]) == {0, 1, 2} and scored.class_scores(table).shape == (table.height, 3)
