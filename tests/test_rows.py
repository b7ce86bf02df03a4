import gzip
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from n3r import tables
from n3r.rows import NESTED, NOT_A_NUMBER, Inputs, expand, read_chunks, typed, writer

ODD = 'na,me "x"\n'
INPUTS = Inputs("id", ["name", ODD], ["f", "g"], ["name", "zip"])
TYPES = {
    "id": pl.String,
    "name": pl.String,
    ODD: pl.String,
    "zip": pl.String,
    "f": pl.Float32,
    "g": pl.Float32,
}
FORMATS = ("parquet", "csv", "tsv", "jsonl")
SMALL = Inputs("id", ["name"], ["f"], [])
# A name of a person that no message may show.
NAME = "Zebedee Quux"


def save(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        tables.write(frame, path)
    return path


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def read(path, inputs=SMALL, size=16384, **options):
    """All good rows, all rejects, how many rows were read."""
    chunks = list(read_chunks(path, inputs, size, **options))
    assert all(chunk.frame.height + len(chunk.rejects) == chunk.n_rows <= size for chunk in chunks)
    rejects = [reject for chunk in chunks for reject in chunk.rejects]
    assert [r.row for r in rejects] == sorted({r.row for r in rejects})
    return pl.concat(chunk.frame for chunk in chunks), rejects, sum(chunk.n_rows for chunk in chunks)


words = st.one_of(
    st.none(), st.sampled_from(["", "NA", "None", "null", "007", "\ufeff", "\0", "\r", "#", " "]), st.text()
)
floats = st.one_of(st.none(), st.floats(), st.floats(width=32))
rows = st.lists(st.tuples(words, words, words, words, floats, floats), max_size=7)


def table(found: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(found, schema={**TYPES, "f": pl.Float64, "g": pl.Float64}, orient="row")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [1, 3, 16384])
@given(found=rows)
def test_any_table_comes_back_typed(tmp_path, kind, size, found):
    frame = table(found)
    shuffled = frame.select(pl.lit("x").alias("other"), *reversed(frame.columns))
    good, rejects, n_rows = read(save(shuffled, tmp_path / f"x.{kind}"), INPUTS, size)
    numbers = [pl.col(name).cast(pl.Float32) for name in ("f", "g")]
    expected = frame.with_columns(pl.when(n.is_finite()).then(n) for n in numbers)
    assert_frame_equal(good, expected, check_exact=True)
    assert (rejects, n_rows) == ([], frame.height)


@pytest.mark.parametrize("kind", FORMATS)
@given(
    where=st.floats(0, 1),
    cut=st.integers(0, 60),
    junk=st.one_of(st.binary(max_size=20), st.sampled_from([b'"', b"\n", b","])),
)
def test_damage_gives_rejects_or_one_value_error(tmp_path, kind, where, cut, junk):
    n = 30
    frame = pl.DataFrame(
        {"id": [str(i) for i in range(n)], "name": [NAME, 'a"b', "c\nd"] * 10, "f": np.arange(n) / 7}
    )
    path = save(frame, tmp_path / f"x.{kind}")
    content = path.read_bytes()
    at = int(where * len(content))
    path.write_bytes(content[:at] + junk + content[at + cut :])
    try:
        good, rejects, n_rows = read(path, size=7)
    except ValueError as error:
        assert str(path) in str(error) and NAME not in str(error)
    else:
        assert good.height + len(rejects) == n_rows and NAME not in str(rejects)
        if kind != "parquet" and at > content.index(b"\n"):  # below the header, the rows around are read
            assert good.height >= n - 3 - (cut + len(junk)) // 10


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [1, 2, 16384])
def test_defect_33_customers_named_na_or_none_stay(tmp_path, kind, size):
    names = ["NA", "None", "null", "NULL", "nan", "NaN", "007", "true", "1e5", "", None] * 36
    frame = pl.DataFrame({"id": names, "name": names, "f": [1.0] * len(names)})
    good, rejects, _ = read(save(frame, tmp_path / f"x.{kind}"), size=size)
    assert good["name"].to_list() == good["id"].to_list() == names and rejects == []


@pytest.mark.parametrize("kind", FORMATS)
def test_defect_28_columns_are_found_by_name(tmp_path, kind):
    frame = pl.DataFrame({"extra": ["p"], "f": [2.0], "name": ["Ana"], "more": ["q"], "id": ["a"]})
    good, _, _ = read(save(frame, tmp_path / f"x.{kind}"))
    assert good.rows() == [("a", "Ana", 2.0)] and good.columns == ["id", "name", "f"]


def test_defect_30_each_file_is_read_once(tmp_path):
    for name in ("a.csv", "b.jsonl", "c.ndjson.gz", "d.parquet", ".hidden.csv", "notes.md"):
        (tmp_path / name).write_text("")
    found = expand([tmp_path, tmp_path / "b.jsonl", str(tmp_path / "*.jsonl")])
    assert [(path.name, region) for path, region in found] == [
        ("a.csv", None), ("b.jsonl", None), ("c.ndjson.gz", None), ("d.parquet", None),
    ]  # fmt: skip
    assert expand([f"NA={tmp_path / 'b.jsonl'}"]) == [(tmp_path / "b.jsonl", "NA")]
    with pytest.raises(FileNotFoundError):
        expand([tmp_path / "no.jsonl"])
    with pytest.raises(ValueError, match=r"notes\.md.*\.ndjson\.gz"):
        expand([tmp_path / "notes.md"])
    with pytest.raises(ValueError, match="two regions"):
        expand([f"NA={tmp_path}", f"EU={tmp_path / 'a.csv'}"])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_region_becomes_a_column(tmp_path, kind):
    path = save(pl.DataFrame({"id": ["a", "b"], "f": [1.0, 2.0]}), tmp_path / f"x.{kind}")
    inputs = Inputs("id", [], ["f"], ["region"])
    assert read(path, inputs, region="NA")[0]["region"].to_list() == ["NA", "NA"]
    assert read(path, Inputs(None, [], ["f"], []), region="NA")[0].columns == ["f"]
    with pytest.raises(ValueError, match="'region' is missing"):
        read(path, inputs)


def test_typed_takes_what_preprocessing_takes():
    frame = pl.DataFrame(
        {
            "id": [1, 2, 3, 4, 5, 6],
            "name": pl.Series(["a", "b", None, "a", "", "c"], dtype=pl.Categorical),
            "zip": [True, False, None, True, True, True],
            "f": [" 1.5 ", "true", "", None, NAME, "1e999"],
            "g": [1.0, math.nan, math.inf, 1e300, None, -2.0],
        }
    )
    found, cells = typed(frame, Inputs("id", ["name"], ["g", "f"], ["zip"]))
    assert found.schema == {
        "id": pl.Int64, "name": pl.String, "zip": pl.String, "g": pl.Float32, "f": pl.Float32
    }  # fmt: skip
    assert found["name"].to_list() == ["a", "b", None, "a", "", "c"]
    assert found["zip"].to_list() == ["true", "false", None, "true", "true", "true"]
    assert found["f"].to_list() == [1.5, 1.0, None, None, None, None]
    assert found["g"].to_list() == [1.0, None, None, None, None, -2.0]
    assert cells == [(4, "f", NOT_A_NUMBER)]
    numbers = pl.DataFrame({"f": [True, None], "g": [None, None], "name": [7, 8]})
    found, cells = typed(numbers, Inputs(None, ["name"], ["f", "g"], []))
    assert found.rows() == [("7", 1.0, None), ("8", None, None)] and cells == []


def test_every_column_at_fault_is_named_at_once():
    frame = pl.DataFrame({"Name": ["a"], "f": [[1]], "zip": [b"x"], "g": [{"a": 1}]})
    with pytest.raises(ValueError) as error:
        typed(frame, Inputs("id", ["name"], ["f", "g"], ["zip"]))
    missing = ("'id' is missing", "'name' is missing (did you mean 'Name'?)")
    for phrase in (*missing, "'f' is List", "'zip' is Binary", "'g' is Struct"):
        assert phrase in str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_missing_columns_name_the_file(tmp_path, kind):
    path = save(pl.DataFrame({"id": ["a"], "Name": [NAME]}), tmp_path / f"x.{kind}")
    with pytest.raises(ValueError) as error:
        read(path)
    assert f"x.{kind}" in str(error.value) and "'name' is missing (did you mean 'Name'?)" in str(error.value)
    assert "'f' is missing" in str(error.value) and NAME not in str(error.value)


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv"])
def test_text_that_is_no_number_is_a_reject_and_names_the_row(tmp_path, kind):
    frame = pl.DataFrame(
        {
            "id": ["a", "b", None, "d"],
            "name": ["x"] * 4,
            "f": ["1", NAME, "?", ""],
            "g": ["1", "2", NAME, "3"],
        }
    )
    path = save(frame, tmp_path / f"x.{kind}")
    good, rejects, n_rows = read(path, Inputs("id", ["name"], ["f", "g"], []), size=2)
    assert good["id"].to_list() == ["a", "d"] and n_rows == 4
    assert rejects == [
        (str(path), 2, "b", "f", NOT_A_NUMBER),
        (str(path), 3, None, "f", f"{NOT_A_NUMBER}; other bad cells of the row: 'g'"),
    ]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.TSV"])
def test_bad_records_of_a_csv_are_rejects(tmp_path, name):
    content = (
        f'name,id,f\r\n{NAME},a,1\r\n\r\nx,b\r\nx,c,1,2\r\n{NAME}\xff,d,3\r\nx,\xff,3\r\n"{NAME},f,3\r\nx,g,4'
    )
    content = content.replace(",", "\t") if "TSV" in name else content
    path = put(tmp_path / name, content.encode("latin-1"))
    good, rejects, n_rows = read(path, size=2)
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
        good, rejects, _ = read(put(tmp_path / name, content), max_record=100)
        assert good["id"].to_list() == ["b"] and "100 bytes" in rejects[0].reason


def test_json_lines(tmp_path):
    lines = [
        '{"id": 7, "name": 7.10, "f": "1.5"}',
        '{"f": true, "name": true, "id": "b", "f": 2}',
        "",
        '{"id": "c", "f": null, "name": "\\ud800x"}',
        '{"name": null}',
        '{"id": "e", "name": "x", "f": NaN}',
        '{"id": "f", "name": "\\ud83d\\ude00", "f": -Infinity, "more": [1]}',
        '{"id": "g", "name": "", "f": 1e999}',
        '{"id": "h", "name": 1e5, "f": ' + "1" * 5000 + "}",
    ]
    path = put(tmp_path / "x.ndjson.gz", b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    good, rejects, n_rows = read(path, size=3)
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
    good, rejects, n_rows = read(put(tmp_path / "x.jsonl", "\n".join(lines).encode("latin-1")))
    assert good["id"].to_list() == ["a"] and n_rows == 9
    assert [reject[1:4] for reject in rejects] == [
        (2, None, None), (3, None, None), (4, None, None), (5, None, None), (6, None, None),
        (8, "h", "name"), (9, None, "id"), (10, "9", "f"),
    ]  # fmt: skip
    assert rejects[5].reason == f"{NESTED}; other bad cells of the row: 'f'" and NAME not in str(rejects)


def test_a_key_may_be_left_out_but_not_of_every_line_of_the_first_chunk(tmp_path):
    lines = [{"id": "a", "name": "x", "f": 1}, {"id": "b", "name": "y"}, {"id": "c"}]
    path = put(tmp_path / "x.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert read(path, size=1)[0].rows()[1:] == [("b", "y", None), ("c", None, None)]
    path.write_text("?\n" + "\n".join(map(json.dumps, lines[1:])))
    assert read(path, Inputs("id", ["name"], [], []), size=1)[2] == 3
    with pytest.raises(ValueError, match=r"x\.jsonl.*\n- 'f' is missing"):
        read(path, size=2)


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.csv", b"id,name,f\n"), ("x.tsv", b"id\tname\tf"), ("x.jsonl", b""), ("x.parquet", None)],
)
def test_no_rows_give_one_empty_chunk_of_the_right_columns(tmp_path, name, content):
    empty = pl.DataFrame(schema={"id": pl.String, "name": pl.String, "f": pl.Float64})
    path = put(tmp_path / name, content) if content is not None else save(empty, tmp_path / name)
    (chunk,) = read_chunks(path, SMALL)
    assert chunk.frame.schema == {"id": pl.String, "name": pl.String, "f": pl.Float32}
    assert (chunk.frame.height, chunk.rejects, chunk.n_rows) == (0, [], 0)


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("x.csv", b"", "is empty"),
        ("x.csv", b"id,name,name,f\n", "1 column names twice"),
        ("x.csv", f'id,"name,{NAME}\n'.encode(), "header row"),
        ("x.csv.gz", b"\x1f\x8b\x08\x00not gzip", "cannot be read as csv"),
        ("x.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 999, mtime=0)[:-9], "cannot be read as jsonl"),
        ("x.parquet", b"", "cannot be read as parquet"),
        ("x.parquet", b"PAR1" + NAME.encode() * 3, "cannot be read as parquet"),
        ("x.xlsx", b"", "must end in"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, phrase):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=phrase) as error:
        read(tmp_path / name, Inputs("id", [], [], []))
    assert name in str(error.value) and NAME not in str(error.value)


def test_no_file_and_no_chunk(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        read(tmp_path / "no.csv")
    with pytest.raises(ValueError, match="at least one row"):
        list(read_chunks(put(tmp_path / "x.csv", b"id\n"), SMALL, 0))


def test_a_parquet_file_of_many_slices_keeps_its_order(tmp_path):
    n = 140_001
    frame = pl.DataFrame({"id": np.arange(n), "name": ["x"] * n, "f": np.arange(n) / 2})
    frame.write_parquet(tmp_path / "x.parquet", row_group_size=50_000)
    chunks = list(read_chunks(tmp_path / "x.parquet", SMALL, 10_007))
    assert [chunk.n_rows for chunk in chunks] == [10_007] * 13 + [n - 13 * 10_007]
    assert pl.concat(chunk.frame for chunk in chunks)["id"].to_list() == list(range(n))


def test_a_damaged_parquet_body_is_named(tmp_path):
    frame = pl.DataFrame(
        {"id": [str(i * 7919) for i in range(9999)], "name": ["x"] * 9999, "f": [1.0] * 9999}
    )
    path = save(frame, tmp_path / "x.parquet")
    content = bytearray(path.read_bytes())
    content[100:4000] = b"x" * 3900
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read"):
        read(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_in_chunks_is_read_back(tmp_path, kind):
    frame = table([("a", "NA", "", None, 1.5, None), ("b", "x\n", '"', "\t", None, 2.0), (None,) * 6])
    path = tmp_path / "new" / f"[1].{kind}"
    with writer(path, kind) as out:
        for row in range(3):
            out.write(frame[row : row + 1])
        out.write(frame.clear())
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert_frame_equal(read(path, INPUTS)[0], frame.cast(TYPES))
    if kind == "parquet":
        assert_frame_equal(pl.read_parquet(path, glob=False), frame)


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv"])
def test_an_empty_output_has_its_columns(tmp_path, kind):
    with writer(tmp_path / f"x.{kind}", kind) as out:
        out.write(table([]))
    good, rejects, n_rows = read(tmp_path / f"x.{kind}", INPUTS)
    assert good.schema == TYPES and (rejects, n_rows) == ([], 0)


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_left_of_a_failure_and_an_older_file_stays(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), writer(path, kind) as out:
        out.write(table([(None,) * 6]))
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError, match="of the caller"), writer(path, kind):
        raise FileNotFoundError("of the caller")
    with pytest.raises(ValueError, match=r"x\..* after rows of"), writer(path, kind) as out:
        out.write(table([]))
        out.write(table([]).rename({"id": "di"}))
    with pytest.raises(ValueError, match="nothing to write"), writer(path, kind):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "old"


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match=r"cannot write x\.csv into .*file"),
        writer(tmp_path / "file" / "x.csv", "csv"),
    ):
        pass
    with pytest.raises(ValueError, match="as 'xlsx'"), writer(tmp_path / "x.xlsx", "xlsx"):
        pass
    with pytest.raises(ValueError, match="cannot write"), writer(tmp_path / "x.csv", "csv") as out:
        out.write(pl.DataFrame({"nested": [[1]]}))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_reading_rows_needs_neither_torch_nor_sklearn(run_fresh):
    code = "import sys, n3r.rows; print([m for m in ('torch', 'sklearn', 'lightning') if m in sys.modules])"
    assert run_fresh(code).strip() == "[]"
