import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from n3r.preprocess import PrepareConfig, prepare
from n3r.schema import LABEL, ORACLE, SEGMENT, TEXT, TIME, ColumnMap
from n3r.tables import read_split, scan, write, write_splits

ROOT = Path(__file__).parents[1]
ORDERS = ColumnMap.from_file(ROOT / "configs" / "orders.json")
HALVES = PrepareConfig(train=0.5, val=0, test=0.5)
KEYS = "objectId customerId marketplaceCountryCode emailDomain status transactionDate orderDate"
NAMES = ("emailAddress", "billingAddressName", "customerName", "paymentAccountHolderName")


def orders(*rows: tuple, **columns) -> pl.LazyFrame:
    """Orders of (id, customer, country, domain, status, day of March 2025, order time) and more columns."""
    keys = pl.DataFrame(list(rows), schema=dict.fromkeys(KEYS.split(), pl.String), orient="row")
    days = [day if day is None or not day.isdigit() else march(int(day)) for day in keys["transactionDate"]]
    names = {name: [f"{name[0]}{i}" for i in range(len(rows))] for name in NAMES}
    features = {"transactionDate": days, "daysSinceFirstCompletedOrder": [0.0] * len(rows)}
    return keys.with_columns(pl.DataFrame(names | features | columns).get_columns()).lazy()


def march(day: int) -> str:
    return datetime(2025, 3, day).strftime("%a %b %d %H:%M:%S UTC %Y")


def plain(n: int = 20, **columns) -> pl.LazyFrame:
    """n unrelated orders, a day apart, of alternating label."""
    rows = [(f"o{i:03}", f"c{i}", "US", "x.org", "FN"[i % 2], str(i + 1), str(i)) for i in range(n)]
    return orders(*rows, **columns)


def together(prepared) -> pl.DataFrame:
    return pl.concat(prepared.splits.values())


# What becomes of each row is worked out by hand in the last column.
WORKED = [
    ("o01", "c1", "US", "gmail.com", "F", "1", "100"),  # kept, 1
    ("o02", "c1", "US", "gmail.com", "N", "2", "200"),  # c1's second order
    ("o03", "c2", "DE", "amazon.de", "N", "1", "100"),  # internal
    ("o04", "c3", "JP", "mail.Amazon.co.jp", "X", "1", "100"),  # internal, before its label is looked at
    ("o05", "c4", "JP", "x.jp", "X", "1", "100"),  # label outside
    ("o06", "c5", "JP", None, None, "3", "100"),  # no label
    ("o07", "c6", "US", None, "N", "not a day", "100"),  # no time
    ("o08", "c7", "DE", None, "I", "9", "100"),  # same id as the next, later
    ("o08", "c8", "DE", "x.de", "N", "4", "100"),  # kept, 0
    (None, "c9", "DE", "x.de", "N", "4", "100"),  # no id
    ("o10", None, "US", "x.com", "N", "5", "100"),  # kept, 0
    ("o11", None, "US", "x.com", "I", "6", "100"),  # kept, 1
    ("o12", "c12", "JP", "x.jp", "N", "8", "50"),  # kept, 0: its order date is the earlier
    ("o13", "c12", "JP", "x.jp", "F", "7", "60"),  # c12's second order
]


def test_worked_example():
    prepared = prepare(orders(*WORKED), ORDERS, PrepareConfig(train=0.4, val=0, test=0.6, max_bad_dates=0.2))
    report = prepared.report
    assert report.steps.rows() == [
        ("internal_domain", "e-mail of an internal domain", 14, 12, 2),
        ("label", "no label", 12, 11, 1),
        ("label", "label outside label_values", 11, 10, 1),
        ("time", "time missing or unreadable", 10, 9, 1),
        ("duplicate_id", "no id", 9, 8, 1),
        ("duplicate_id", "an earlier row has the same id", 8, 7, 1),
        ("first_order", "the entity has an earlier order", 7, 5, 2),
    ]
    assert report.kept.rows() == [
        ("label", "DE", 0, 2), ("label", "DE", 1, 1), ("label", "JP", 0, 1), ("label", "JP", 1, 1),
        ("label", "US", 0, 3), ("label", "US", 1, 2),
        ("time", "DE", 0, 2), ("time", "DE", 1, 1), ("time", "JP", 0, 1), ("time", "JP", 1, 1),
        ("time", "US", 0, 2), ("time", "US", 1, 2),
        ("duplicate_id", "DE", 0, 1), ("duplicate_id", "JP", 0, 1), ("duplicate_id", "JP", 1, 1),
        ("duplicate_id", "US", 0, 2), ("duplicate_id", "US", 1, 2),
        ("first_order", "DE", 0, 1), ("first_order", "JP", 0, 1), ("first_order", "US", 0, 1),
        ("first_order", "US", 1, 2),
    ]  # fmt: skip
    assert report.splits.rows() == [
        ("train", "DE", 0, 1), ("train", "US", 1, 1), ("test", "JP", 0, 1), ("test", "US", 0, 1),
        ("test", "US", 1, 1),
    ]  # fmt: skip
    assert prepared.splits["train"]["objectId"].to_list() == ["o01", "o08"]
    assert prepared.splits["val"].is_empty()
    assert prepared.splits["test"]["objectId"].to_list() == ["o10", "o11", "o12"]
    assert report.no_entity == 2 and report.warnings == [
        "2 rows have no 'customerId' and are kept, each as a first order"
    ]
    assert json.loads(json.dumps(report.to_dict()))["steps"][0]["rows_dropped"] == 2


def test_all_orders_are_kept_on_request():
    config = PrepareConfig(train=0.5, val=0, test=0.5, max_bad_dates=0.2, first_order_only=False)
    prepared = prepare(orders(*WORKED), ORDERS, config)
    assert "first_order" not in prepared.report.steps["step"] and together(prepared).height == 7


def test_prepared_columns_and_types():
    frame = plain(
        flag=[True] * 20, big=list(range(20)), words=["w"] * 20, locale=[1] * 20, oracle_p=[0.25] * 20
    )
    prepared = prepare(frame, ORDERS, HALVES)
    table = together(prepared)
    assert table.columns == [
        "objectId", TIME, SEGMENT, LABEL, TEXT, *ORDERS.text, "locale",
        "daysSinceFirstCompletedOrder", "flag", "big", ORACLE,
    ]  # fmt: skip
    assert prepared.column_map.numeric == ["daysSinceFirstCompletedOrder", "flag", "big"]
    assert table.select(prepared.column_map.numeric).dtypes == [pl.Float32] * 3
    assert table.select(TIME, LABEL, ORACLE).dtypes == [pl.Datetime("us"), pl.Int8, pl.Float64]
    assert table["flag"].unique().to_list() == [1.0] and table["big"].to_list() == list(range(20))
    assert table[SEGMENT].unique().to_list() == ["US"] and table[TIME].is_sorted()


def test_text_is_joined_in_the_maps_order():
    names = [None, "|", ""] * 6
    table = together(prepare(plain(18, customerName=names), ORDERS, HALVES))
    assert table[TEXT][:3].to_list() == ["e0|b0|[MISSING]|p0", "e1|b1|||p1", "e2|b2||p2"]
    assert table["customerName"][:3].to_list() == [None, "|", ""]


def test_time_split_is_by_position_and_ties_by_id():
    frame = orders(*[(f"o{i:02}", f"c{i}", "US", None, "FN"[i % 2], "1", "1") for i in reversed(range(20))])
    splits = prepare(frame, ORDERS).splits
    assert {name: table["objectId"].to_list() for name, table in splits.items()} == {
        "train": [f"o{i:02}" for i in range(14)],
        "val": ["o14", "o15", "o16"],
        "test": ["o17", "o18", "o19"],
    }


def test_random_split_depends_on_the_seed_alone():
    column_map = ORDERS.model_copy(update={"split_by": "random"})
    first, again, other = (
        prepare(plain(30), column_map, PrepareConfig(train=0.4, val=0.3, test=0.3, seed=seed)).splits
        for seed in (0, 0, 5)
    )
    for name in first:
        assert_frame_equal(first[name], again[name])
        assert first[name].height == other[name].height and first[name][TIME].is_sorted()
    assert first["train"]["objectId"].to_list() != other["train"]["objectId"].to_list()
    assert sorted(together(prepare(plain(30), column_map)).rows()) == sorted(pl.concat(first.values()).rows())


def test_files_that_bring_their_split(tmp_path):
    for name, start in (("train_a", 0), ("test_a", 20), ("train_b", 40)):
        rows = [(f"o{i}", f"c{i}", "US", None, "FN"[i % 2], "1", "1") for i in range(start, start + 20)]
        write(orders(*rows).collect(), tmp_path / f"{name}.parquet")
    changes = {"split_files": {"train*": "train", "test*": "test"}, "split_by": "random"}
    column_map = ORDERS.model_copy(update=changes)
    splits = prepare(
        scan(tmp_path, column_map).frame, column_map, PrepareConfig(train=0.6, val=0.2, test=0.2)
    ).splits
    assert {name: table.height for name, table in splits.items()} == {"train": 30, "val": 10, "test": 20}
    assert sorted(splits["test"]["objectId"]) == sorted(f"o{i}" for i in range(20, 40))
    changes["split_files"] = {"train_b*": "val", "train*": "train", "test*": "test"}
    column_map = ORDERS.model_copy(update=changes)
    splits = prepare(scan(tmp_path, column_map).frame, column_map).splits
    assert sorted(splits["val"]["objectId"]) == sorted(f"o{i}" for i in range(40, 60))
    changes["split_files"] = {"train*": "train"}
    column_map = ORDERS.model_copy(update=changes)
    with pytest.raises(ValueError, match=r"test_a\.parquet matches no pattern"):
        prepare(scan(tmp_path, column_map).frame, column_map)


def test_a_table_without_times_or_entities():
    column_map = ColumnMap(
        id="objectId", text=["customerName"], label="status", label_values={"F": 1, "N": 0}, split_by="random"
    )
    prepared = prepare(plain(28), column_map)
    assert (
        together(prepared)[TIME].null_count() == 28 and together(prepared)[SEGMENT].unique().item() == "all"
    )
    assert prepared.report.steps["step"].unique(maintain_order=True).to_list() == ["label", "duplicate_id"]


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        ([1, 0], {"1": 1, "0": 0}, [1, 0]),
        ([1.0, 0.0], {"1": 1, "0": 0}, [1, 0]),
        ([True, False], {"true": 1, "false": 0}, [1, 0]),
        (["F", "I", "N", "N"], {"F": 2, "I": 1, "N": 0}, [2, 1, 0, 0]),
    ],
)
def test_labels_of_any_type_and_number(labels, names, classes):
    column_map = ORDERS.model_copy(update={"label_values": names, "other_labels": "error"})
    n = 20 // len(labels)
    assert together(prepare(plain(status=labels * n), column_map, HALVES))[LABEL].to_list() == classes * n


def test_an_id_may_be_a_text_too():
    column_map = ORDERS.model_copy(update={"text": ["objectId", "customerName"]})
    table = together(prepare(plain(), column_map, HALVES))
    assert table[TEXT][0] == "o000|c0" and table["objectId"][0] == "o000"


def test_not_finite_features_become_null_and_are_counted():
    values = [float("nan"), float("inf"), -float("inf"), 1e300, None] + [1.5] * 15
    prepared = prepare(plain(f=values, g=[0.5] * 20), ORDERS, HALVES)
    assert together(prepared)["f"].to_list() == [None] * 5 + [1.5] * 15
    assert prepared.report.not_finite == {"f": 4}


def test_all_null_columns_are_allowed_and_reported():
    names = pl.Series([None] * 20)
    prepared = prepare(plain(customerName=names, f=pl.Series([None] * 20, dtype=pl.Float64)), ORDERS, HALVES)
    assert prepared.report.warnings == [
        f"the column {name!r} is null in every row" for name in ("customerName", "f")
    ]
    assert together(prepared)[TEXT][0] == "e0|b0|[MISSING]|p0"
    assert together(prepared)["customerName"].dtype == pl.String


def test_long_text_and_control_characters():
    names = ["x" * 100_000, "a\x00b\r\n\x07\u200b"] * 10
    table = together(prepare(plain(customerName=names), ORDERS, HALVES))
    assert table["customerName"].to_list() == names
    assert table[TEXT][1] == f"e1|b1|{names[1]}|p1"


def test_missing_entity_times_give_way_to_the_time():
    frame = orders(
        *[("a", "c", "US", None, "F", "3", None), ("b", "c", "US", None, "N", "2", None)],
        *[(f"o{i}", f"c{i}", "US", None, "FN"[i % 2], "9", "1") for i in range(8)],
    )
    ids = together(prepare(frame, ORDERS, PrepareConfig(train=0.5, val=0, test=0.5, max_bad_dates=0.3)))[
        "objectId"
    ]
    assert "b" in ids and "a" not in ids


def test_a_dropped_row_does_not_stand_for_its_id_or_entity():
    frame = orders(
        *[("a", "c", "US", "amazon.com", "F", "1", "1"), ("a", "d", "US", None, "F", "2", "2")],
        *[("b", "e", "US", "amazon.com", "N", "1", "1"), ("z", "e", "US", None, "N", "2", "2")],
        *[(f"o{i}", f"c{i}", "US", None, "FN"[i % 2], "9", "1") for i in range(4)],
    )
    assert together(prepare(frame, ORDERS, HALVES))["objectId"].to_list() == [
        "a",
        "z",
        "o0",
        "o1",
        "o2",
        "o3",
    ]


def test_labels_outside_the_map_are_named():
    column_map = ORDERS.model_copy(update={"other_labels": "error"})
    with pytest.raises(ValueError, match=r"'status'.*3 rows.*'Q' \(2 rows\), 'R' \(1 rows\).*other_labels"):
        prepare(plain(status=["Q", "Q", "R", None] + ["F", "N"] * 8), column_map)
    with pytest.raises(ValueError, match="20 different values, not shown") as error:
        prepare(plain(status=[f"Ana Smith {i}" for i in range(20)]), column_map)
    assert "Ana" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("transactionDate", ["2025-03-01"] * 20, "20 of 20 rows"),
        ("transactionDate", [march(1)] * 19 + ["x"], "1 of 20 rows"),
        ("transactionDate", [None] * 20, "20 of 20 rows"),
        ("orderDate", ["1700000000000"] * 20, "20 of 20 rows"),
    ],
)
def test_times_that_do_not_parse_are_an_error_beyond_a_share(column, values, found):
    with pytest.raises(ValueError, match=f"column '{column}'.*{found} have no time in the format"):
        prepare(plain(**{column: values}), ORDERS)


def test_none_parsed_is_an_error_whatever_the_share():
    with pytest.raises(ValueError, match=r"looks like 'Aaa Aaaaa'") as error:
        prepare(plain(transactionDate=["Ana Smith"] * 20), ORDERS, PrepareConfig(max_bad_dates=1))
    assert "Ana" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "step", "n_rows"),
    [
        ({"emailDomain": ["amazon.com"] * 20}, "internal_domain", 20),
        ({"emailDomain": ["amazon.com"] * 5 + ["x"] * 15, "status": ["X"] * 20}, "label", 15),
        ({"objectId": pl.Series([None] * 20, dtype=pl.String)}, "duplicate_id", 20),
        ({}, "internal_domain", 0),
    ],
)
def test_a_step_that_leaves_no_row_is_named(columns, step, n_rows):
    with pytest.raises(ValueError, match=rf"no rows left after the step '{step}'.*which {n_rows} rows"):
        prepare(plain(**columns).head(n_rows and 20), ORDERS)


def test_a_split_of_one_class_is_named():
    with pytest.raises(ValueError, match="all 3 rows of the split 'test' have the class 1"):
        prepare(plain(status=["F", "N"] * 8 + ["N"] + ["F"] * 3), ORDERS)


def test_an_empty_split_is_named():
    with pytest.raises(ValueError, match="the split 'val' of 2 rows is empty"):
        prepare(plain(2), ORDERS, PrepareConfig(train=0.98, val=0.01, test=0.01))


@pytest.mark.parametrize("shares", [{"train": 0.8}, {"train": 0, "val": 0.5, "test": 0.5}, {"trian": 0.7}])
def test_config_is_checked(shares):
    with pytest.raises(ValidationError):
        PrepareConfig(**shares)


row = st.tuples(
    st.sampled_from([None, "a", "b", "c", "d"]),  # id
    st.sampled_from([None, "k", "l", "m"]),  # customer
    st.sampled_from(["US", None]),
    st.sampled_from([None, "amazon.com"]),
    st.sampled_from(["F", "N", "X"]),
    st.sampled_from(["1", "2", "x"]),
    st.sampled_from(["1", "2", None]),
)
# Some rows that are always kept, so that no step is left without any.
FIXED = [(f"z{i}", f"y{i}", "US", None, "FN"[i % 2], str(i % 4 + 1), "1") for i in range(12)]


@given(rows=st.lists(row, max_size=14), data=st.data(), split_by=st.sampled_from(["time", "random"]))
def test_the_order_of_the_rows_changes_nothing(rows, data, split_by):
    config = PrepareConfig(train=0.5, val=0, test=0.5, max_bad_dates=0.9)
    column_map = ORDERS.model_copy(update={"split_by": split_by})
    frame = orders(*FIXED, *rows).collect()
    shuffled = frame[data.draw(st.permutations(range(frame.height)))]
    outcomes = []
    for table in (frame, shuffled):
        try:
            outcomes.append(prepare(table.lazy(), column_map, config))
        except ValueError as error:
            outcomes.append(str(error))
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1]
        return
    for name, table in outcomes[0].splits.items():
        assert_frame_equal(table, outcomes[1].splits[name])
    assert outcomes[0].report.to_dict() == outcomes[1].report.to_dict()


def test_defect_01_text_is_never_made_a_number(tmp_path):
    path = tmp_path / "x.csv"
    write(plain(customerName=["12", "-1.0"] * 10, emailAddress=[str(i) for i in range(20)]).collect(), path)
    table = together(prepare(scan(path, ORDERS).frame, ORDERS, HALVES))
    assert table[TEXT][:2].to_list() == ["0|b0|12|p0", "1|b1|-1.0|p1"]
    assert table[TEXT].n_unique() == 20


def test_defect_28_an_extra_column_shifts_nothing(tmp_path):
    frame = plain(f=list(range(20))).collect()
    write(frame.select(pl.lit("extra").alias("extra"), *reversed(frame.columns)), tmp_path / "x.csv")
    scanned = together(prepare(scan(tmp_path, ORDERS).frame, ORDERS, HALVES))
    assert_frame_equal(scanned, together(prepare(frame.lazy(), ORDERS, HALVES)), check_column_order=False)


def test_defect_29_text_dates_are_split_by_time():
    # The days run through every weekday four times, and against the ids.
    ids = [f"o{99 - i}" for i in range(28)]
    splits = prepare(plain(28, objectId=ids), ORDERS, HALVES).splits
    assert splits["train"][TIME].max() < splits["test"][TIME].min()
    assert splits["test"][TIME].min() == datetime(2025, 3, 15)


def test_defect_30_a_row_in_two_shards_is_one_row(tmp_path):
    for part in range(2):
        write(plain().collect(), tmp_path / f"part-{part}.snappy.parquet")
    prepared = prepare(scan(tmp_path, ORDERS).frame, ORDERS, HALVES)
    ids = together(prepared)["objectId"]
    assert ids.n_unique() == len(ids) == 20 and prepared.report.steps["rows_dropped"].sum() == 20


def test_defect_31_a_label_means_the_same_in_every_shard(tmp_path):
    write(plain(10, status=["N"] * 10).collect(), tmp_path / "a.parquet")
    more = [(f"p{i}", f"d{i}", "US", None, "F", "20", "1") for i in range(10)]
    write(orders(*more).collect(), tmp_path / "b.parquet")
    column_map = ORDERS.model_copy(update={"split_by": "random"})
    table = together(prepare(scan(tmp_path, column_map).frame, column_map, HALVES))
    assert dict(table.group_by(pl.col("objectId").str.head(1)).agg(pl.col(LABEL).unique()).rows()) == {
        "o": [0],
        "p": [1],
    }


def test_defect_32_customers_are_deduplicated_and_no_row_vanishes_unreported():
    frame = orders(
        *[
            (f"o{i}", f"c{i // 2}" if i < 20 else None, "US", None, "FN"[i % 3 % 2], "1", "5")
            for i in range(30)
        ]
    )
    prepared = prepare(frame, ORDERS)
    assert together(prepared).height == 20 and prepared.report.no_entity == 10
    steps = prepared.report.steps
    assert (steps["rows_kept"] + steps["rows_dropped"] == steps["rows_in"]).all()
    assert steps["rows_kept"][-1] == 20 and steps["rows_dropped"].sum() == 10
    assert [prepared.splits[name].height for name in ("train", "val", "test")] == [14, 3, 3]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_defect_33_a_customer_named_na_reaches_the_text(tmp_path, suffix):
    names = ["NA", "None", "null", "007"] * 5
    write(plain(customerName=names).collect(), tmp_path / f"x.{suffix}")
    prepared = prepare(scan(tmp_path, ORDERS).frame, ORDERS, HALVES)
    write_splits(tmp_path / "data", prepared.splits, prepared.column_map, suffix)
    for name, table in prepared.splits.items():
        assert_frame_equal(read_split(tmp_path / "data", name), table)
    assert (
        together(prepared)[TEXT][0] == "e0|b0|NA|p0" and together(prepared)["customerName"].to_list() == names
    )


def test_defect_38_internal_domains_are_whole_labels():
    domains = {
        "amazon.com": False, "AMAZON.co.uk": False, "mail.amazon.com": False, "amazon": False,
        " amazon.jp ": False,
        "amazonia-travel.org": True, "myamazonx.net": True, "amazonx": True, "not-amazon.com": True,
        None: True, "": True,
    }  # fmt: skip
    rows = [
        (f"o{i:02}", None, "US", name, "FN"[i % 2], "1", "1")
        for i, name in enumerate([*domains, "a.b", "c.d"])
    ]
    ids = together(prepare(orders(*rows), ORDERS, HALVES))["objectId"].to_list()
    assert ids == [f"o{i:02}" for i, kept in enumerate([*domains.values(), True, True]) if kept]


def test_twitter_bots():
    folder = Path("../shared/data/twitter_bots")
    if not (ROOT / folder).is_dir():
        pytest.skip(f"the public data set is not at {folder}")
    column_map = ColumnMap.from_file(ROOT / "configs" / "twitter_bots.json")
    prepared = prepare(scan(ROOT / folder, column_map).frame, column_map)
    heights = {name: table.height for name, table in prepared.splits.items()}
    assert heights == {"train": 4944, "val": 1059, "test": 1485}
    assert prepared.report.steps["rows_dropped"].sum() == 0
    assert together(prepared)[LABEL].mean() == pytest.approx(0.332, abs=0.001)
    assert together(prepared)[TEXT].n_unique() > 7000 and prepared.report.not_finite == {}


def test_rows_without_a_label_have_a_class_where_the_map_says_so():
    codes = pl.Series(["10.4" if i % 4 == 0 else "" if i % 4 == 1 else None for i in range(20)])
    column_map = ORDERS.model_copy(update={"label_values": {"": 0, "10.4": 1}, "other_labels": "error"})
    rows = together(prepare(plain().with_columns(status=pl.lit(codes)), column_map, HALVES))
    assert rows.sort("objectId")[LABEL].to_list() == [int(i % 4 == 0) for i in range(20)]
