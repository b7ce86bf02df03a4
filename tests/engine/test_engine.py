"""The verbs of an engine, and preparation on each: the same to the byte, whatever the files and buckets."""

import resource
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from n3r import tables
from n3r.engine import Engine, gather_all, in_bytes, start, starter
from n3r.engine.disk import Disk
from n3r.engine.memory import Memory
from n3r.preprocess import PrepareConfig, Prepared, prepare, prepare_source
from n3r.rows import cuts
from n3r.rows.customers import MARK, Customers
from n3r.schema import SPLITS, ColumnMap
from n3r.synthetic.orders import generate_orders
from n3r.tables import read_parts, scan, write, write_splits

ROOT = Path(__file__).parents[2]
ORDERS = ColumnMap.from_file(ROOT / "configs" / "orders.json")


def engines(folder: Path, n: int) -> list[Engine]:
    return [Memory(n), Disk(folder / "engine", 10**9, n)]


@given(
    parts=st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=4),
    n=st.integers(1, 7),
    again=st.integers(0, 3),
)
def test_rows_of_equal_keys_meet_in_one_whole_bucket(tmp_path, parts, n, again):
    frames = [pl.DataFrame({"key": part}, schema={"key": pl.UInt64}) for part in parts]
    expected = sorted(key for part in parts for key in part)
    for engine in engines(tmp_path, n):
        data = engine.read(range(len(frames)), frames.__getitem__)
        for _ in range(again):
            data = engine.exchange(data, None, n + 1, pl.col("key") + 1)
        data = engine.exchange(data, _counted, n, pl.col("key"))
        data = engine.exchange(data, partial(pl.DataFrame.with_columns, more=pl.col("n") + 1))
        found = gather_all(engine, data, {"counts": lambda frame: frame, "rows": _height})
        assert found["counts"].sort("key")["key"].to_list() == sorted(set(expected))
        assert found["counts"]["n"].sum() == len(expected) and found["rows"]["n"].sum() == len(set(expected))
        assert engine.gather(data, _height)["n"].sum() == len(set(expected))
        engine.close()
    assert list(tmp_path.iterdir()) == []


def _counted(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("key").agg(pl.len().alias("n"))


def _height(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({"n": [rows.height]})


KEYS = ("objectId", "customerId", "marketplaceCountryCode", "emailDomain", "status")
KEYS += ("transactionDate", "orderDate")
TEXTS = ("emailAddress", "billingAddressName", "customerName", "paymentAccountHolderName")
DAYS = [datetime(2025, 3, day, 10).strftime("%a %b %d %H:%M:%S UTC %Y") for day in range(1, 6)]
row = st.tuples(
    st.sampled_from([None, *"abcdefgh"]),
    st.sampled_from([None, "", *"klmnop"]),
    st.sampled_from(["US", "DE", None]),
    st.sampled_from([None, "amazon.com", "x.org"]),
    st.sampled_from(["F", "N", "X", None]),
    st.sampled_from([*DAYS, "no day"]),
    st.sampled_from(["1", "2", None]),
    st.sampled_from(["Ana", "Bo", None]),  # which tells rows of one id and time apart
    st.sampled_from([None, 1.5, 2.0, float("inf"), float("nan")]),
)
FIXED = [
    (f"z{i}", f"y{i % 45}", "US", None, "FN"[i % 2], DAYS[i % 5], str(i), "Zoe", float(i)) for i in range(60)
]


def table_of(rows: list[tuple]) -> pl.DataFrame:
    schema = {**dict.fromkeys(KEYS, pl.String), "customerName": pl.String, "amount": pl.Float64}
    found = pl.DataFrame(rows, schema=schema, orient="row")
    texts = [pl.lit(name[0]).alias(name) for name in TEXTS if name != "customerName"]
    return found.with_columns(*texts, daysSinceFirstCompletedOrder=pl.lit(1.0))


def files_of(folder: Path, table: pl.DataFrame, sizes: list[int], kind: str) -> list[Path]:
    """The rows in files of so many each, the rest in a last one."""
    paths, start = [], 0
    for number, size in enumerate([*sizes, table.height]):
        part = table[start : start + size]
        if part.height:
            paths.append(folder / f"{'train' if number % 2 else 'test'}-{number}.{kind}")
            write(part, paths[-1])
        start += size
    return paths


def outcome(work) -> Prepared | str:
    try:
        return work()
    except ValueError as error:
        return str(error)


@given(
    rows=st.lists(row, max_size=30),
    sizes=st.lists(st.integers(0, 20), max_size=4),
    counts=st.tuples(st.integers(1, 7), st.integers(1, 9)),  # buckets, and rows between two marks
    kind=st.sampled_from(["parquet", "parquet", "csv", "jsonl"]),
    changes=st.sampled_from(
        [
            {},
            {"split_by": "random"},
            {"split_files": {"train*": "train", "test*": "test"}},
            {"entity": None, "entity_time": None},
        ]
    ),
    first=st.booleans(),
)
def test_preparation_is_the_same_whatever_the_engine_files_and_buckets(
    tmp_path, monkeypatch, rows, sizes, counts, kind, changes, first
):
    n, step = counts
    monkeypatch.setattr(cuts, "STEP", step)
    monkeypatch.setattr(tables, "PIECE", 11)
    monkeypatch.setattr(tables, "CHUNK", 11)
    monkeypatch.setattr("n3r.preprocess.PART_ROWS", 7)
    column_map = ORDERS.model_copy(update=changes | {"numeric": ["*"], "oracle": None})
    config = PrepareConfig(train=0.5, val=0.2, test=0.3, max_bad_dates=0.9, first_order_only=first)
    paths = files_of(
        tmp_path, table_of([*FIXED, *rows]).sample(fraction=1, shuffle=True, seed=step), sizes, kind
    )
    source = scan(paths, column_map)
    expected = outcome(lambda: prepare(source.frame, column_map, config, source.n_rows))
    found = outcome(lambda: prepare_source(source, column_map, config, Memory(n)))
    alike(found, expected)
    engine = Disk(tmp_path / "engine", 10**9, n)
    apart = scan(paths, column_map, engine=engine)
    assert (apart.n_rows, apart.left_out, apart.format) == (source.n_rows, source.left_out, source.format)
    found = outcome(lambda: prepare_source(apart, column_map, config, engine))
    if not isinstance(found, str):
        write_splits(tmp_path / "data", found.parts, found.column_map)
        whole = {split: pl.concat(read_parts(tmp_path / "data", split)) for split in SPLITS}
        for split in SPLITS:
            assert_frame_equal(found.splits[split], whole[split])  # so few that the sample is whole
    alike(found, expected)
    engine.close()


def alike(found: Prepared | str, expected: Prepared | str) -> None:
    if isinstance(expected, str):
        assert found == expected
        return
    assert not isinstance(found, str), found
    assert found.report.to_dict() == expected.report.to_dict() and found.column_map == expected.column_map
    for split, rows in expected.splits.items():
        assert_frame_equal(found.splits[split], rows, check_exact=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_days_prepared_one_by_one_with_known_customers_keep_the_rows_of_all_at_once(tmp_path, seed):
    days_are_all_at_once(tmp_path, [], seed, 3)


@pytest.mark.slow
@given(rows=st.lists(row, max_size=30), seed=st.integers(0, 99), n=st.integers(1, 5))
def test_days_of_any_rows_prepared_one_by_one_keep_the_rows_of_all_at_once(tmp_path, rows, seed, n):
    days_are_all_at_once(tmp_path, rows, seed, n)


def days_are_all_at_once(tmp_path: Path, rows: list[tuple], seed: int, n: int) -> None:
    folder = tmp_path / f"table-{uuid4().hex}"
    config = PrepareConfig(train=1, val=0, test=0, max_bad_dates=0.9)
    column_map = ORDERS.model_copy(update={"entity_time": None, "entity_time_format": None})
    days = np.random.default_rng(seed).integers(0, 2, len(FIXED) + len(rows))
    table = table_of([*FIXED, *rows]).with_columns(transactionDate=pl.Series(days))
    # Each day has ids of its own: an id of two days is another matter.
    table = table.with_columns(pl.format("{}-{}", "objectId", "transactionDate").alias("objectId"))
    moment = pl.format("{} {}", pl.col("transactionDate") + 1, pl.int_range(pl.len()) % 7)
    table = table.with_columns(transactionDate=pl.lit("2025-03-0") + moment + ":00:00", day="transactionDate")
    column_map = column_map.model_copy(update={"time_format": "%Y-%m-%d %H:%M:%S"})
    whole = outcome(lambda: prepare(table.lazy(), column_map, config))
    kept = []
    for day in (0, 1, 1):
        own = table.filter(pl.col("day") == day)
        paths = files_of(tmp_path, own.drop("day"), [9], "parquet")
        on = Disk(tmp_path / "engine", 10**9, n)
        source, customers = scan(paths, column_map, engine=on), Customers.open(folder, tmp_path / "aside")
        found = outcome(lambda s=source, o=on, c=customers: prepare_source(s, column_map, config, o, c))
        on.close()
        if isinstance(found, str):
            assert rows, found
            return  # no row of a day is kept, or all of one class
        customers.keep()
        kept.append(found.splits["train"]["objectId"].sort().to_list())
    assert kept[1] == kept[2]
    assert sorted([*kept[0], *kept[1]]) == whole.splits["train"]["objectId"].sort().to_list()
    known = pl.concat(map(pl.read_parquet, folder.glob("part-*")))
    assert known["customer"].str.contains("^[0-9a-f]{32}$").all() and known["customer"].is_unique().all()


def test_the_orders_of_one_customer_do_not_all_meet(tmp_path):
    orders = generate_orders(4000, seed=3).with_row_index("at")
    hot = pl.when(pl.col("at") % 4 > 0).then(pl.lit("A0")).otherwise("customerId").alias("customerId")
    files_of(tmp_path, orders.with_columns(hot).drop("at"), [700] * 5, "parquet")
    source, heights = scan(tmp_path, ORDERS), []

    class Watched(Memory):
        def exchange(self, data, fn, n=0, by=None):
            found = super().exchange(data, fn, n, by)
            heights.extend(frame.height for frame in found if n > 1)
            return found

    found = prepare_source(source, ORDERS, None, Watched(8))
    alike(found, prepare(source.frame, ORDERS, None, source.n_rows))
    assert max(heights) < 1000 and any("customerId" in told for told in found.report.warnings)


def test_a_full_disk_is_a_sentence_and_nothing_half_written(tmp_path):
    write(generate_orders(3000, seed=5), tmp_path / "orders.parquet")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = set()
    for n_bytes in (0, 5_000, 20_000, 60_000, 150_000):
        try:
            on = Disk(tmp_path / "engine", 10**9, 3)
            resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))  # as on a disk with so much room
            source = scan(tmp_path / "orders.parquet", ORDERS, engine=on)
            found = prepare_source(source, ORDERS, None, on)
            write_splits(tmp_path / "data", found.parts, found.column_map)
        except ValueError as error:
            told.add(str(error).partition(" ")[0])
            assert "cannot write" in str(error) and len(str(error)) < 400
            assert not (tmp_path / "data").exists()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            on.close()
        assert not (tmp_path / "engine").exists()
    assert told == {"cannot"}


def test_an_engines_folder_is_private_gone_at_exit_and_what_a_kill_left_goes(tmp_path, run_fresh):
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "left").write_text("by a kill")
    code = (
        "import sys; from pathlib import Path; from n3r.engine import start; "
        "on = start('disk', Path(sys.argv[1])); on.kept = on; "
        "print(oct(on.folder.stat().st_mode & 0o777), list(on.folder.iterdir()))"
    )
    assert run_fresh(code, folder).strip() == "0o700 []"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("dask",), "no engine 'dask', only memory, disk, ray, spark"),
        (("disk", "1 apple"), "expected a size such as 1GB"),
        (("disk", "10MB"), "10MB is less than 200MB"),
        (("disk", "1GB", "127.0.0.1:6379"), "address is that of a cluster of Ray or Spark, .* 'disk'"),
    ],
)
def test_what_an_engine_cannot_be_started_with_is_told(tmp_path, given, told):
    name, *others = given
    with pytest.raises(ValueError, match=told):
        start(name, tmp_path / "engine", *others)
    if len(given) != 2:  # a size, of which processes have none
        with pytest.raises(ValueError, match=told):
            starter(name, tmp_path / "engine", *others[1:])
    assert starter("memory", tmp_path) is starter("disk", tmp_path) is None
    assert in_bytes("1.5 GB") == 1_500_000_000


def test_of_two_runs_at_once_the_later_does_not_lose_the_customers_of_the_other(tmp_path):
    for _ in range(2):  # a new table, and one that is there
        first, second = (Customers.open(tmp_path / "table", tmp_path / str(i)) for i in range(2))
        first.keep()
        with pytest.raises(ValueError, match="another run has changed .*table meanwhile: run"):
            second.keep()


def test_a_folder_that_is_no_table_of_known_customers_is_told(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no table of known customers: give a new folder"):
        Customers.open(tmp_path, tmp_path / "aside")
    (tmp_path / MARK).write_text("{}")
    with pytest.raises(ValueError, match="is damaged: restore the table"):
        Customers.open(tmp_path, tmp_path / "aside")
    with pytest.raises(ValueError, match="give the whole path of the folder, not 'table'"):
        Customers.open("table", tmp_path / "aside")
