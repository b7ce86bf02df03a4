"""One reader of files, whole or by chunks, and the prepared splits."""

import gzip
import json
import math
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from n3r import tables
from n3r.files.formats import FORMATS
from n3r.files.json_lines import NESTED
from n3r.files.records import ESCAPED
from n3r.files.writer import write
from n3r.preprocess import prepare
from n3r.rows.chunks import read_chunks
from n3r.rows.inputs import NOT_A_NUMBER, Inputs
from n3r.rows.values import as_text
from n3r.schema import FILE_COLUMN, ColumnMap, check
from n3r.synthetic.orders import generate_orders
from n3r.tables import fingerprint, part_sizes, read_column_map, read_parts, read_split, scan, write_splits

ROOT = Path(__file__).parents[1]
MAP = ColumnMap(
    id="id", text=["name"], label="y", label_values={"0": 0, "1": 1}, split_by="random", numeric=["*"]
)  # fmt: skip
ROWS = {"id": ["a", "b"], "name": ["Ana", "NA"], "y": ["0", "1"], "f": [1.5, 2.0]}
TEXT_FORMATS = ("csv", "tsv", "jsonl")
INPUTS = Inputs("id", ["name"], ["f"], [])
ODD = 'na,me "x"\n'
WIDE = Inputs("id", ["name", ODD], ["f", "g"], ["name", "zip"])
TYPES = {
    "id": pl.String,
    "name": pl.String,
    ODD: pl.String,
    "zip": pl.String,
    "f": pl.Float64,
    "g": pl.Float64,
}
NAMES = ["NA", "None", "null", "NULL", "nan", "NaN", "007", "true", "1e5", "", None]
# A name of a person that no error message may show.
NAME = "Zebedee Quux"


def save(path: Path, **changes) -> Path:
    write(
        pl.DataFrame({name: values for name, values in (ROWS | changes).items() if values is not None}), path
    )
    return path


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def read(data, column_map=MAP) -> pl.DataFrame:
    return scan(data, column_map).frame.collect()


def chunked(path, inputs=INPUTS, size=16384, **options):
    """All good rows, all rejects, how many rows were read."""
    chunks = list(read_chunks(path, inputs, size, **options))
    assert all(chunk.frame.height + len(chunk.rejects) == chunk.n_rows <= size for chunk in chunks)
    rejects = [reject for chunk in chunks for reject in chunk.rejects]
    assert [r.row for r in rejects] == sorted({r.row for r in rejects})
    return pl.concat(chunk.frame for chunk in chunks), rejects, sum(chunk.n_rows for chunk in chunks)


def both(path: Path) -> list[str]:
    """What the two policies say of a file: the message of the one, the rejects of the other."""
    with pytest.raises(ValueError) as error:
        scan(path, MAP)
    assert path.name in str(error.value) and NAME not in str(error.value)
    return [line.rpartition("/")[2] for line in str(error.value).splitlines()[1:-1]]


def damaged_parquet(path: Path) -> Path:
    n = 9999
    save(
        path, id=[str(i * 7919) for i in range(n)], name=["x"] * n, y=["0"] * n, f=list(map(float, range(n)))
    )
    content = bytearray(path.read_bytes())
    content[100:4000] = b"x" * 3900
    path.write_bytes(content)
    return path


# ---- every format, by both policies


words = st.one_of(
    st.none(),
    st.sampled_from(["", "NA", "None", "null", "007", "\ufeff", "\0", "\r", "\t", "#", " "]),
    st.text(),
)
floats = st.one_of(st.none(), st.floats(), st.floats(width=32))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [1, 3, 16384])
@given(found=st.lists(st.tuples(words, words, words, words, floats, floats), max_size=7))
def test_any_table_comes_back_typed(tmp_path, kind, size, found):
    frame = pl.DataFrame(found, schema=TYPES, orient="row")
    path = tmp_path / f"x.{kind}"
    write(frame.select(pl.lit("x").alias("other"), *reversed(frame.columns)), path)
    good, rejects, n_rows = chunked(path, WIDE, size)
    numbers = [pl.col(name).cast(pl.Float32) for name in ("f", "g")]
    expected = frame.with_columns(as_text("zip"), *(pl.when(n.is_finite()).then(n) for n in numbers))
    assert_frame_equal(good, expected, check_exact=True)
    assert (rejects, n_rows) == ([], frame.height)
    if found:
        columns = MAP.model_copy(update={"text": ["name", ODD], "label": "zip", "numeric": ["f", "g"]})
        finite = [pl.when(pl.col(name).is_finite()).then(name) for name in ("f", "g")]  # JSON has no other
        frames = (whole.with_columns(finite) for whole in (read(path, columns), frame))
        assert_frame_equal(*frames, check_exact=True, check_column_order=False)


@pytest.mark.parametrize("kind", FORMATS)
@given(
    where=st.floats(0, 1),
    cut=st.integers(0, 60),
    junk=st.one_of(st.binary(max_size=20), st.sampled_from([b'"', b"\n", b","])),
)
def test_damage_gives_rejects_or_one_value_error(tmp_path, kind, where, cut, junk):
    n = 30
    path = save(tmp_path / f"x.{kind}", id=[str(i) for i in range(n)], name=[NAME, 'a"b', "c\nd"] * 10,
                y=["0"] * n, f=(np.arange(n) / 7).tolist())  # fmt: skip
    content = path.read_bytes()
    at = int(where * len(content))
    path.write_bytes(content[:at] + junk + content[at + cut :])
    try:
        good, rejects, n_rows = chunked(path, size=7)
    except ValueError as error:
        assert str(path) in str(error) and NAME not in str(error)
    else:
        assert good.height + len(rejects) == n_rows and NAME not in str(rejects)
        if kind != "parquet" and at > content.index(b"\n"):  # below the header, the rows around are read
            assert good.height >= n - 3 - (cut + len(junk)) // 10
    try:
        source = scan(path, MAP)
        with source.reading():
            assert source.frame.collect().height == n_rows
    except ValueError as error:
        assert path.name in str(error) and NAME not in str(error)


@pytest.mark.parametrize("kind", FORMATS)
def test_defect_33_customers_named_na_or_none_stay(tmp_path, kind):
    path = save(tmp_path / f"x.{kind}", id=NAMES, name=NAMES, y=["1"] * 11, f=[1.0] * 11)
    assert read(path)["name"].to_list() == NAMES
    for size in (1, 16384):
        good, rejects, _ = chunked(path, size=size)
        assert good["name"].to_list() == good["id"].to_list() == NAMES and rejects == []


@pytest.mark.parametrize("kind", FORMATS)
def test_defect_28_columns_keep_their_names_not_their_places(tmp_path, kind):
    save(tmp_path / f"a.{kind}")
    write(pl.DataFrame({"extra": ["p", "q"], **dict(reversed(ROWS.items()))}), tmp_path / f"b.{kind}")
    frame = read([tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"])
    assert_frame_equal(frame, pl.concat([pl.DataFrame(ROWS)] * 2))
    good, _, _ = chunked(tmp_path / f"b.{kind}")
    assert good.rows() == [("a", "Ana", 1.5), ("b", "NA", 2.0)] and good.columns == ["id", "name", "f"]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_region_becomes_a_column(tmp_path, kind):
    path = save(tmp_path / f"x.{kind}")
    assert read(f"NA={path}")["region"].to_list() == ["NA", "NA"]
    inputs = Inputs("id", [], ["f"], ["region"])
    assert chunked(path, inputs, region="NA")[0]["region"].to_list() == ["NA", "NA"]
    with pytest.raises(ValueError, match="'region' is missing"):
        chunked(path, inputs)


@pytest.mark.parametrize("kind", FORMATS)
def test_missing_columns_name_the_file(tmp_path, kind):
    save(tmp_path / f"a.{kind}")
    path = save(tmp_path / f"b.{kind}", Name=[NAME, "x"], name=None, f=None, y=None)
    for reading in (lambda: chunked(path), lambda: scan(tmp_path, MAP)):
        with pytest.raises(ValueError) as error:
            reading()
        assert (
            f"b.{kind}" in str(error.value) and "'name'" in str(error.value) and NAME not in str(error.value)
        )
        assert "is missing (did you mean 'Name'?)" in str(error.value) and "a." not in str(error.value)
    assert "'y' (label) is missing" in str(error.value)


@pytest.mark.parametrize("kind", TEXT_FORMATS)
def test_orders_prepare_alike_from_every_format(tmp_path, kind):
    columns, orders, found = (
        ColumnMap.from_file(ROOT / "configs" / "orders.json"),
        generate_orders(1500, 1),
        [],
    )
    for path in (tmp_path / "x.parquet", tmp_path / f"x.{kind}"):
        write(orders, path)
        found.append(prepare(scan(path, columns).frame, columns))
    for split, frame in found[0].splits.items():
        assert_frame_equal(found[1].splits[split], frame, check_exact=True)


BAD = [
    (f'a,"{NAME},0,1\nb,c,0,1\n', 1, "x.csv, row 1: a quote is opened and never closed"),
    (f'a,"O"{NAME}",0,1\nb,c,0,1\n', 1, "x.csv, row 1: a quoted cell goes on after its closing quote"),
    (f'a,"O\\"{NAME}",0,1\nb,c,0,1\n', 1, f"x.csv, row 1: {ESCAPED}"),
    (f"a,{NAME},0,1\n\nb,{NAME}\n", 2, "x.csv, row 2: has 2 cells, the header 4"),
    (f"a,{NAME},0,1,2\n", 1, "x.csv, row 1: has 5 cells, the header 4"),
    (f"a,{NAME}\xff,0,1\nb,c,0,2\n", 1, "x.csv, row 1, column 'name': is not UTF-8 text"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "row", "phrase"), BAD)
def test_the_two_policies_find_the_same_rows(tmp_path, content, row, phrase):
    path = put(tmp_path / "x.csv", b"id,name,y,f\n" + content.encode("latin-1"))
    assert both(path) == [phrase]
    _, (reject,), _ = chunked(path)
    assert (reject.row, reject.reason) == (row, phrase.rpartition(": ")[2])


def test_odd_cells_that_are_read_are_read_by_both(tmp_path):
    path = put(tmp_path / "x.csv", b'id,name,y,f\na,5" disk,0,1\n\r\nb,say "no",1,2\n')
    assert read(path)["name"].to_list() == chunked(path)[0]["name"].to_list() == ['5" disk', 'say "no"']


@pytest.mark.parametrize("kind", ["parquet", *TEXT_FORMATS])
def test_text_that_is_no_number_names_file_row_and_column(tmp_path, kind):
    columns = {"id": ["a", "b", None, "d"], "name": ["x"] * 4, "y": ["0"] * 4}
    path = save(tmp_path / f"x.{kind}", **columns, f=["1", NAME, "?", ""], g=["1", "2", NAME, "3"])
    good, rejects, n_rows = chunked(path, Inputs("id", ["name"], ["f", "g"], []), size=2)
    assert good["id"].to_list() == ["a", "d"] and n_rows == 4
    assert rejects == [
        (str(path), 2, "b", "f", NOT_A_NUMBER),
        (str(path), 3, None, "f", f"{NOT_A_NUMBER}; other bad cells of the row: 'g'"),
    ]
    if kind != "parquet":
        with pytest.raises(ValueError) as error:
            scan(path, MAP.model_copy(update={"numeric": ["f", "g"]}))
        assert "row 2, column 'f': is not a number\n" in str(error.value) and NAME not in str(error.value)
        assert "row 3, column 'f': is not a number; other bad cells of the row: 'g'" in str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_rows_are_no_orders_and_one_empty_chunk(tmp_path, kind):
    write(pl.DataFrame(ROWS).clear(), tmp_path / f"x.{kind}")
    with pytest.raises(ValueError, match=rf"x\.{kind} has no rows"):
        scan(tmp_path, MAP)
    (chunk,) = read_chunks(tmp_path / f"x.{kind}", INPUTS)
    assert chunk.frame.schema == {"id": pl.String, "name": pl.String, "f": pl.Float32}
    assert (chunk.frame.height, chunk.rejects, chunk.n_rows) == (0, [], 0)


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("x.csv", b"", "is empty"),
        ("x.csv", b"id,name,name,y,f\na,b,c,0,1\n", "1 column names twice"),
        ("x.csv", f'id,"name,{NAME}\n'.encode(), "header row"),
        ("x.csv.gz", b"\x1f\x8b\x08\x00not gzip", "cannot be read as csv"),
        ("x.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 999, mtime=0)[:-9], "cannot be read as jsonl"),
        ("x.parquet", b"", "cannot be read as parquet"),
        ("x.parquet", b"PAR1" + NAME.encode() * 3, "cannot be read as parquet"),
        ("x.xls", b"", "must end in"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, phrase):
    (tmp_path / name).write_bytes(content)
    columns = MAP.model_copy(update={"text": ["id"], "label": "id"})
    for reading in (lambda path: chunked(path, Inputs("id", [], [], [])), lambda path: scan(path, columns)):
        with pytest.raises(ValueError, match=phrase) as error:
            reading(tmp_path / name)
        assert name in str(error.value) and NAME not in str(error.value) and "\n" not in str(error.value)


# ---- whole


@pytest.mark.parametrize("kind", FORMATS)
def test_a_source_knows_its_files(tmp_path, kind):
    path = save(tmp_path / f"x.{kind}")
    source = scan(path, MAP)
    assert_frame_equal(source.frame.collect(), pl.DataFrame(ROWS))
    assert (source.format, source.files, source.dropped_columns) == (kind, (path,), ())
    check(source.frame, MAP)


def test_split_files_adds_the_name_of_the_file(tmp_path):
    for name in ("test", "train"):
        save(tmp_path / f"{name}.csv")
    column_map = MAP.model_copy(update={"split_files": {"train*": "train", "test*": "test"}})
    assert read(tmp_path, column_map)[FILE_COLUMN].to_list() == ["test.csv"] * 2 + ["train.csv"] * 2


def test_shared_columns_in_the_first_files_order(tmp_path):
    save(tmp_path / "a.parquet", g=[1, 2], only_a=[1, 2])
    save(tmp_path / "b.parquet", only_b=[1, 2], g=[0.5, 0.5], f=[1, 2])
    source = scan(tmp_path, MAP)
    frame = source.frame.collect()
    assert frame.columns == ["id", "name", "y", "f", "g"] and source.dropped_columns == ("only_a", "only_b")
    assert frame["f"].to_list() == [1.5, 2.0, 1.0, 2.0] and frame["g"].to_list() == [1.0, 2.0, 0.5, 0.5]


def test_ignored_columns_are_left_out_and_may_differ(tmp_path):
    save(tmp_path / "a.parquet", skip=[1, 2])
    save(tmp_path / "b.parquet", skip=["x", "y"])
    source = scan(tmp_path, MAP.model_copy(update={"ignore": ["skip", "absent"]}))
    assert "skip" not in source.frame.collect().columns and source.dropped_columns == ()


def test_columns_that_differ_in_kind_between_files(tmp_path):
    save(tmp_path / "a.parquet")
    save(tmp_path / "b.parquet", f=["x", "y"])
    with pytest.raises(ValueError, match=r"'f' differs.*a number in .*a\.parquet, text in .*b\.parquet"):
        scan(tmp_path, MAP)


def test_numbers_of_a_text_file_are_found(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        "id,name,y,i,f,flag,mixed,blank,code,zip\n"
        "1,12,0,1, 1e3 ,true,1,,A1,007\n"
        '2,34,1,,inf,False,true,"",7,010\n'
    )
    frame = read(path, MAP.model_copy(update={"categorical": ["zip"]}))
    assert frame["name"].to_list() == ["12", "34"] and frame["zip"].to_list() == ["007", "010"]
    assert frame["y"].to_list() == ["0", "1"]
    assert frame["code"].dtype == pl.String and frame["blank"].dtype == pl.String
    assert frame["i"].to_list() == [1.0, None] and frame["f"].to_list() == [1000.0, math.inf]
    assert frame["flag"].to_list() == [1.0, 0.0] and frame["mixed"].to_list() == [1.0, 1.0]


def test_one_text_in_a_later_file_makes_a_star_column_text_everywhere(tmp_path):
    save(tmp_path / "a.csv", g=["1", "2"])
    save(tmp_path / "b.csv", g=["3", "x"])
    assert read(tmp_path)["g"].to_list() == ["1", "2", "3", "x"]


def test_keys_of_json_lines_may_come_late_and_lists_are_no_features(tmp_path):
    lines = [{"id": i, "name": "x", "y": i % 2, "g": [i]} for i in range(20_000)]
    lines += [{"id": "z", "name": "x", "y": 1, "f": 1.5, "g": 2}]
    frame = read(put(tmp_path / "x.jsonl", "\n".join(map(json.dumps, lines)).encode()))
    assert frame["f"].to_list() == [None] * 20_000 + [1.5] and frame["id"][0] == "0"
    assert frame["g"].dtype == pl.String


def test_one_format_a_call(tmp_path):
    save(tmp_path / "a.csv")
    save(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="one format, found csv and parquet"):
        scan(tmp_path, MAP)


def test_a_damaged_parquet_body_is_named(tmp_path):
    save(tmp_path / "good.parquet")
    path = damaged_parquet(tmp_path / "bad.parquet")
    source = scan(tmp_path, MAP)
    with pytest.raises(ValueError, match=r"damaged.*bad\.parquet") as error, source.reading():
        source.frame.collect()
    assert "good" not in str(error.value)
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read"):
        chunked(path)


def test_defect_30_each_file_is_read_once(tmp_path):
    for part in range(2):
        save(tmp_path / f"part-{part}.snappy.parquet", id=[f"{part}a", f"{part}b"])
    several = [tmp_path, tmp_path / "part-0.snappy.parquet", str(tmp_path / "*.parquet")]
    assert read(tmp_path)["id"].to_list() == read(several)["id"].to_list() == ["0a", "0b", "1a", "1b"]


def test_fingerprint_is_of_contents_in_order(tmp_path):
    a, b, c, d = (
        put(tmp_path / name, text) for name, text in zip("abcd", (b"1", b"23", b"12", b"3"), strict=True)
    )
    assert fingerprint([a, b]) == fingerprint([a, b]) != fingerprint([b, a])
    assert fingerprint([a, b]) != fingerprint([c, d]) and len(fingerprint([a])) == 64


# ---- chunk by chunk


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.TSV"])
def test_bad_records_of_a_csv_are_rejects(tmp_path, name):
    content = (
        f'name,id,f\r\n{NAME},a,1\r\n\r\nx,b\r\nx,c,1,2\r\n{NAME}\xff,d,3\r\nx,\xff,3\r\n"{NAME},f,3\r\nx,g,4'
    )
    content = content.replace(",", "\t") if "TSV" in name else content
    good, rejects, n_rows = chunked(put(tmp_path / name, content.encode("latin-1")), size=2)
    assert good["id"].to_list() == ["a", "g"] and n_rows == 7
    assert [reject[1:4] for reject in rejects] == [
        (2, None, None), (3, None, None), (4, "d", "name"), (5, None, "id"), (6, None, None),
    ]  # fmt: skip
    assert NAME not in str(rejects)


def test_long_rows_are_rejects(tmp_path):
    for name, content in {
        "x.csv": b'id,name,f\na,"' + b"x" * 200 + b'",1\nb,y,2\n',
        "x.jsonl": b'{"id": "a", "name": "' + b"x" * 200 + b'", "f": 1}\n{"id": "b", "name": "y", "f": 2}\n',
    }.items():
        good, rejects, _ = chunked(put(tmp_path / name, content), max_record=100)
        assert good["id"].to_list() == ["b"] and "100 bytes" in rejects[0].reason


def test_json_lines(tmp_path):
    lines = [
        '{"id": 7, "name": 7.10, "f": "1.5"}',
        '{"f": 2, "name": true, "id": "b"}',
        "",
        '{"id": "c", "f": null, "name": "\\ud800x"}',
        '{"name": null}',
        '{"id": "e", "name": "x", "f": NaN}',
        '{"id": "f", "name": "\\ud83d\\ude00", "f": -Infinity, "more": [1]}',
        '{"id": "g", "name": "", "f": 1e999}',
        '{"id": "h", "name": 1e5, "f": ' + "1" * 5000 + "}",
    ]
    path = put(tmp_path / "x.ndjson.gz", b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    good, rejects, n_rows = chunked(path, size=3)
    assert good.rows() == [
        ("7", "7.10", 1.5), ("b", "true", 2.0), ("c", "\ufffdx", None), (None, None, None),
        ("e", "x", None), ("f", "\U0001f600", None), ("g", "", None), ("h", "1e5", None),
    ]  # fmt: skip
    assert (rejects, n_rows) == ([], 8)


def test_bad_json_lines_are_rejects(tmp_path):
    lines = [
        '{"id": "a", "name": "x", "f": 1}', f'{{"id": "{NAME}', "[1]", "7", "[" * 9999, '{"id": "\xff"}', "",
        '{"id": "h", "name": [1], "f": {}}', '{"id": [1], "name": "x"}',
        f'{{"id": 9, "name": "x", "f": "{NAME}"}}',
    ]  # fmt: skip
    good, rejects, n_rows = chunked(put(tmp_path / "x.jsonl", "\n".join(lines).encode("latin-1")))
    assert good["id"].to_list() == ["a"] and n_rows == 9
    assert [reject[1:4] for reject in rejects] == [
        (2, None, None), (3, None, None), (4, None, None), (5, None, None), (6, None, None),
        (8, "h", "name"), (9, None, "id"), (10, "9", "f"),
    ]  # fmt: skip
    assert rejects[5].reason == f"{NESTED}; other bad cells of the row: 'f'" and NAME not in str(rejects)


def test_a_key_may_be_left_out_but_not_of_every_line_of_the_first_chunk(tmp_path):
    lines = [{"id": "a", "name": "x", "f": 1}, {"id": "b", "name": "y"}, {"id": "c"}]
    path = put(tmp_path / "x.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert chunked(path, size=1)[0].rows()[1:] == [("b", "y", None), ("c", None, None)]
    path.write_text("?\n" + "\n".join(map(json.dumps, lines[1:])))
    assert chunked(path, Inputs("id", ["name"], [], []), size=1)[2] == 3
    with pytest.raises(ValueError, match=r"x\.jsonl.*\n- 'f' is missing"):
        chunked(path, size=2)


def test_no_file_and_no_chunk(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        chunked(tmp_path / "no.csv")
    with pytest.raises(ValueError, match="at least one row"):
        list(read_chunks(put(tmp_path / "x.csv", b"id\n"), INPUTS, 0))


def test_a_parquet_file_of_many_slices_keeps_its_order(tmp_path):
    n = 140_001
    frame = pl.DataFrame({"id": np.arange(n), "name": ["x"] * n, "f": np.arange(n) / 2})
    frame.write_parquet(tmp_path / "x.parquet", row_group_size=50_000)
    chunks = list(read_chunks(tmp_path / "x.parquet", INPUTS, 10_007))
    assert [chunk.n_rows for chunk in chunks] == [10_007] * 13 + [n - 13 * 10_007]
    assert pl.concat(chunk.frame for chunk in chunks)["id"].to_list() == list(range(n))


def test_reading_rows_needs_neither_torch_nor_sklearn(run_fresh):
    code = "import sys, n3r.tables; print([m for m in ('torch', 'sklearn', 'lightning') if m in sys.modules])"
    assert run_fresh(code).strip() == "[]"


# ---- prepared splits


def splits(names: list) -> dict[str, pl.DataFrame]:
    n = len(names)
    table = pl.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "time": [datetime(2025, 1, 2, 3, 4, 5, 678_901)] * (n - 1) + [None],
            "segment": names,
            "label": [1] * n,
            "name": names,
            "f": [1 / 3] * n,
            "g": [None] * n,
            "oracle_p": [1 / 3] * n,
        },
        schema_overrides={
            "time": pl.Datetime("us"), "segment": pl.String, "label": pl.Int8, "name": pl.String,
            "f": pl.Float32, "g": pl.Float32,
        },
    )  # fmt: skip
    return {"train": table, "val": table.clear(), "test": table.reverse()}


@pytest.mark.parametrize("kind", FORMATS)
@given(names=st.lists(words, min_size=1, max_size=8))
def test_splits_survive_each_format(tmp_path, kind, names):
    written = splits(names)
    write_splits(tmp_path, written, MAP, kind)
    for split, table in written.items():
        assert_frame_equal(read_split(tmp_path, split), table, check_exact=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_long_text_and_control_characters_survive(tmp_path, kind):
    names = ["x" * 100_000, "a\x01\x02\x7f\u200b\u202eb", 'q"\n"' * 5_000] * 200
    write_splits(tmp_path, splits(names), MAP, kind)
    assert read_split(tmp_path, "train")["name"].to_list() == names


@pytest.mark.parametrize("kind", FORMATS)
def test_a_split_is_its_parts_in_order_each_whole(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(tables, "PART", 3)
    written = splits([f"n{i}" for i in range(8)])
    write_splits(tmp_path, written, MAP, kind)
    parts = list(read_parts(tmp_path, "train", ["name"]))
    assert [part.height for part in parts] == part_sizes(tmp_path, "train") == [3, 3, 2]
    assert_frame_equal(pl.concat(parts), written["train"].select("name"))
    assert_frame_equal(read_split(tmp_path, "test"), written["test"])
    first, last = (tmp_path / "train" / f"part-00000{i}.{kind}" for i in (0, 2))
    first.write_bytes(last.read_bytes())
    with pytest.raises(ValueError, match=rf"part-000000\.{kind} is damaged"):
        read_split(tmp_path, "train")


def test_chosen_columns_and_the_map(tmp_path):
    for kind in FORMATS:
        write_splits(tmp_path, splits(["a"]), MAP, kind)
        assert read_split(tmp_path, "train", ["f", "id"]).columns == ["f", "id"]
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "columns.json", "test", "train", "val",
        ]  # fmt: skip
    assert read_column_map(tmp_path) == MAP
    with pytest.raises(ValueError, match="no column h"):
        read_split(tmp_path, "train", ["h"])
    with pytest.raises(ValueError, match="no split 'dev'"):
        read_split(tmp_path, "dev")


def test_unprepared_and_damaged_folders(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="run 01_preprocess first"):
            read_split(folder, "train")
    write_splits(tmp_path, splits(["a"]), MAP)
    (tmp_path / "train" / "part-000000.parquet").write_text("x" * 99)
    with pytest.raises(ValueError, match=r"train/part-000000\.parquet is damaged"):
        read_split(tmp_path, "train")
    (tmp_path / "val" / "part-000000.parquet").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"val/part-000000\.parquet is missing; run 01_preprocess first"
    ):
        read_split(tmp_path, "val")
    (tmp_path / "columns.json").write_text("{}")
    with pytest.raises(ValueError, match=r"columns\.json is damaged"):
        read_split(tmp_path, "test")


def test_only_complete_splits_of_known_types_are_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write prepared data .*file/data"):
        write_splits(tmp_path / "file" / "data", splits(["a"]), MAP)
    with pytest.raises(ValueError, match="expected the splits"):
        write_splits(tmp_path, {"train": pl.DataFrame()}, MAP)
    odd = {split: table.with_columns(nested=pl.lit([1])) for split, table in splits(["a"]).items()}
    with pytest.raises(ValueError, match="'nested'"):
        write_splits(tmp_path, odd, MAP)
