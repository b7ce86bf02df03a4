import gzip
import math
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from n3r.schema import ColumnMap, check
from n3r.tables import fingerprint, read_column_map, read_split, scan, write, write_splits

MAP = ColumnMap(
    id="id", text=["name"], label="y", label_values={"0": 0, "1": 1}, split_by="random", numeric=["*"]
)  # fmt: skip
ROWS = {"id": ["a", "b"], "name": ["Ana", "NA"], "y": ["0", "1"], "f": [1.5, 2.0]}
SUFFIXES = ("csv", "tsv", "parquet")
# A name of a person that no error message may show.
NAME = "Zebedee Quux"


def save(path: Path, **changes) -> Path:
    columns = {name: values for name, values in (ROWS | changes).items() if values is not None}
    write(pl.DataFrame(columns), path)
    return path


def read(data, column_map=MAP) -> pl.DataFrame:
    return scan(data, column_map).frame.collect()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_comes_back_as_it_was(tmp_path, suffix):
    path = save(tmp_path / f"x.{suffix}")
    source = scan(path, MAP)
    assert_frame_equal(source.frame.collect(), pl.DataFrame(ROWS))
    assert (source.format, source.files, source.dropped_columns) == (suffix, (path,), ())
    check(source.frame, MAP)


def test_compressed_csv(tmp_path):
    with gzip.open(tmp_path / "x.csv.gz", "wb") as file:
        file.write(b"id,name,y,f\na,Ana,0,1\n")
    assert read(tmp_path / "x.csv.gz")["f"].to_list() == [1.0]


def test_folder_list_pattern_and_region(tmp_path):
    for name in ("b", "a"):
        save(tmp_path / f"{name}.csv", name=[name, name])
    (tmp_path / "notes.md").write_text("not data")
    (tmp_path / ".hidden.csv").write_text("")
    assert read(tmp_path)["name"].to_list() == ["a", "a", "b", "b"]
    assert read([tmp_path / "b.csv", tmp_path / "a.csv"])["name"].to_list() == ["b", "b", "a", "a"]
    assert read(str(tmp_path / "[ab].csv"))["name"].to_list() == ["a", "a", "b", "b"]
    regions = read([f"NA={tmp_path / 'b.csv'}", f"EU={tmp_path / 'a.csv'}"])
    assert regions["region"].to_list() == ["NA", "NA", "EU", "EU"]


def test_relative_paths_and_names_with_brackets_and_equals_signs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("a[1].csv"))
    save(Path("k=v.csv"))
    assert read("a[1].csv").height == read("k=v.csv").height == 2
    assert "region" not in read("k=v.csv").columns
    assert read("*.csv").height == 4


def test_split_files_adds_the_name_of_the_file(tmp_path):
    for name in ("test", "train"):
        save(tmp_path / f"{name}.csv")
    column_map = MAP.model_copy(update={"split_files": {"train*": "train", "test*": "test"}})
    assert read(tmp_path, column_map)["__file__"].to_list() == ["test.csv"] * 2 + ["train.csv"] * 2


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
    with pytest.raises(ValueError, match=r"'f' differs.*a number in .*a\.parquet, String in .*b\.parquet"):
        scan(tmp_path, MAP)


def test_a_needed_column_missing_in_one_file_names_the_file(tmp_path):
    save(tmp_path / "a.csv")
    save(tmp_path / "b.csv", y=None, Name=["x", "y"], name=None)
    with pytest.raises(ValueError) as error:
        scan(tmp_path, MAP)
    assert "b.csv: 'y' (label) is missing" in str(error.value) and "a.csv" not in str(error.value)
    assert "'name' (text) is missing (did you mean 'Name'?)" in str(error.value)


def test_numbers_of_a_csv_are_found(tmp_path):
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


def test_declared_numbers_that_are_text(tmp_path):
    save(tmp_path / "a.csv", g=["1", "2"])
    save(tmp_path / "b.csv", g=["3", NAME], f=["?", "!"])
    with pytest.raises(ValueError) as error:
        scan(tmp_path, MAP.model_copy(update={"numeric": ["f", "g"]}))
    b = tmp_path / "b.csv"
    assert f"'f': 2 cells of {b}, the first in data row 1" in str(error.value)
    assert f"'g': 1 cells of {b}, the first in data row 2" in str(error.value)
    assert NAME not in str(error.value)


def test_missing_input(tmp_path):
    (tmp_path / "empty").mkdir()
    for data in (
        tmp_path / "no.csv",
        str(tmp_path / "*.csv"),
        tmp_path / "empty",
        [f"NA={tmp_path / 'no.csv'}"],
    ):
        with pytest.raises(FileNotFoundError, match="no file|holds no file"):
            scan(data, MAP)
    with pytest.raises(ValueError, match="no input"):
        scan([], MAP)


def test_unknown_suffix_and_mixed_formats(tmp_path):
    (tmp_path / "x.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"x\.xlsx.*must end in \.parquet"):
        scan(tmp_path / "x.xlsx", MAP)
    save(tmp_path / "a.csv")
    save(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="one format, found csv and parquet"):
        scan(tmp_path, MAP)


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("x.csv", b"", "empty"),
        ("x.parquet", b"", "empty"),
        ("x.csv", b"id,name,y,f\n", "no rows"),
        ("x.tsv", b"id\tname\ty\tf", "no rows"),
        ("x.parquet", b"PAR1" + NAME.encode() * 3, "cannot be read as Parquet"),
        ("x.csv", f'id,name,y,f\na,"{NAME},0,1\n'.encode(), "open quote"),
        ("x.csv", f'id,name,y,f\na,{NAME},0,1\nb,"{NAME},0,1\nc,d,0,1\n'.encode(), "open quote"),
        ("x.csv", f"id,name,y,f\na,{NAME},0,1,2\n".encode(), "more fields"),
        ("x.csv", f"id,name,y,f\na,{NAME}\xff,0,1\n".encode("latin-1"), "UTF-8"),
        ("x.csv.gz", b"\x1f\x8b\x08\x00not gzip", "damaged"),
        ("x.csv", b"id,name,name,y,f\na,b,c,0,1\n", "column names twice"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, phrase):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=phrase) as error:
        scan(tmp_path / name, MAP).frame.collect()
    assert name in str(error.value) and NAME not in str(error.value) and "\n" not in str(error.value)


def test_no_rows_in_a_parquet_file(tmp_path):
    write(pl.DataFrame(ROWS).clear(), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet has no rows"):
        scan(tmp_path, MAP)


def test_a_damaged_parquet_body_is_named(tmp_path):
    save(tmp_path / "good.parquet")
    path = save(tmp_path / "bad.parquet", id=[str(i * 7919) for i in range(9999)], name=["x"] * 9999,
                y=["0"] * 9999, f=list(range(9999)))  # fmt: skip
    content = bytearray(path.read_bytes())
    content[100:4000] = b"x" * 3900
    path.write_bytes(content)
    source = scan(tmp_path, MAP)
    with pytest.raises(ValueError, match=r"damaged.*bad\.parquet") as error, source.reading():
        source.frame.collect()
    assert "good" not in str(error.value)


def test_fingerprint_is_of_contents_in_order(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("23")
    (tmp_path / "c").write_text("12")
    (tmp_path / "d").write_text("3")
    a, b, c, d = (tmp_path / name for name in "abcd")
    assert fingerprint([a, b]) == fingerprint([a, b]) != fingerprint([b, a])
    assert fingerprint([a, b]) != fingerprint([c, d]) and len(fingerprint([a])) == 64


def test_nothing_half_written_is_left(tmp_path):
    write(pl.DataFrame(ROWS), tmp_path / "new" / "x.csv")
    before = (tmp_path / "new" / "x.csv").read_bytes()
    with pytest.raises(ValueError, match="cannot write"):
        write(pl.DataFrame({"nested": [[1]]}), tmp_path / "new" / "x.csv")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.csv"]
    assert (tmp_path / "new" / "x.csv").read_bytes() == before


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write x\.csv into .*file \("):
        write(pl.DataFrame(ROWS), tmp_path / "file" / "x.csv")
    with pytest.raises(ValueError, match="cannot write prepared data .*file/data"):
        write_splits(tmp_path / "file" / "data", splits(["a"]), MAP)
    with pytest.raises(ValueError, match="must end in"):
        write(pl.DataFrame(ROWS), tmp_path / "x.xlsx")


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


hard_names = st.one_of(
    st.none(),
    st.sampled_from(
        ["", "NA", "None", "null", "NULL", "nan", "007", " ", '"', '""', ",", "\t", "\r", "\n", "#", "\0"]
    ),
    st.text(max_size=20),
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(names=st.lists(hard_names, min_size=1, max_size=8))
def test_splits_survive_each_format(tmp_path, suffix, names):
    written = splits(names)
    write_splits(tmp_path, written, MAP, suffix)
    for split, table in written.items():
        assert_frame_equal(read_split(tmp_path, split), table, check_exact=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(names=st.lists(hard_names, min_size=1, max_size=8))
def test_raw_names_survive_each_format(tmp_path, suffix, names):
    table = pl.DataFrame({"id": [str(i) for i in range(len(names))], "name": names, "y": ["0"] * len(names)},
                         schema=dict.fromkeys(["id", "name", "y"], pl.String))  # fmt: skip
    write(table, tmp_path / f"x.{suffix}")
    assert_frame_equal(read(tmp_path / f"x.{suffix}"), table)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_long_text_and_control_characters_survive(tmp_path, suffix):
    names = ["x" * 100_000, "a\x01\x02\x7f\u200b\u202eb", 'q"\n"' * 5_000] * 200
    write_splits(tmp_path, splits(names), MAP, suffix)
    assert read_split(tmp_path, "train")["name"].to_list() == names


def test_chosen_columns_and_the_map(tmp_path):
    write_splits(tmp_path, splits(["a"]), MAP, "csv")
    assert read_split(tmp_path, "train", ["f", "id"]).columns == ["f", "id"]
    assert read_column_map(tmp_path) == MAP
    with pytest.raises(ValueError, match="no column h"):
        read_split(tmp_path, "train", ["h"])
    with pytest.raises(ValueError, match="no split 'dev'"):
        read_split(tmp_path, "dev")


def test_a_second_writing_leaves_nothing_of_the_first(tmp_path):
    write_splits(tmp_path, splits(["a"]), MAP, "csv")
    write_splits(tmp_path, splits(["b"]), MAP, "parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "columns.json", "test.parquet", "train.parquet", "val.parquet",
    ]  # fmt: skip


def test_unprepared_and_damaged_folders(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="run 01_preprocess first"):
            read_split(folder, "train")
    write_splits(tmp_path, splits(["a"]), MAP)
    (tmp_path / "train.parquet").write_text("x" * 99)
    with pytest.raises(ValueError, match=r"train\.parquet is damaged"):
        read_split(tmp_path, "train")
    (tmp_path / "val.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.parquet is missing; run 01_preprocess first"):
        read_split(tmp_path, "val")
    (tmp_path / "columns.json").write_text("{}")
    with pytest.raises(ValueError, match=r"columns\.json is damaged"):
        read_split(tmp_path, "test")


def test_only_complete_splits_of_known_types_are_written(tmp_path):
    with pytest.raises(ValueError, match="expected the splits"):
        write_splits(tmp_path, {"train": pl.DataFrame()}, MAP)
    odd = {split: table.with_columns(nested=pl.lit([1])) for split, table in splits(["a"]).items()}
    with pytest.raises(ValueError, match="'nested'"):
        write_splits(tmp_path, odd, MAP)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_defect_28_columns_keep_their_names_not_their_places(tmp_path, suffix):
    save(tmp_path / f"a.{suffix}")
    extra = pl.DataFrame({"extra": ["p", "q"], **dict(reversed(ROWS.items()))})
    write(extra, tmp_path / f"b.{suffix}")
    frame = read([tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"])
    assert_frame_equal(frame, pl.concat([pl.DataFrame(ROWS)] * 2))


def test_defect_30_each_file_is_read_once(tmp_path):
    (tmp_path / "sub").mkdir()
    for part in range(2):
        save(tmp_path / f"part-{part}.snappy.parquet", id=[f"{part}a", f"{part}b"])
    pattern = str(tmp_path / "*.parquet")
    several = [
        tmp_path,
        tmp_path / "part-0.snappy.parquet",
        pattern,
        tmp_path / "sub" / ".." / "part-1.snappy.parquet",
    ]
    assert read(tmp_path)["id"].to_list() == read(several)["id"].to_list() == ["0a", "0b", "1a", "1b"]
    with pytest.raises(ValueError, match="two regions"):
        scan([f"NA={tmp_path}", f"EU={tmp_path / 'part-0.snappy.parquet'}"], MAP)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_defect_33_customers_named_na_or_none_stay(tmp_path, suffix):
    names = ["NA", "None", "null", "NaN", "007", "true", "", None]
    path = save(tmp_path / f"x.{suffix}", id=names[:7] + ["z"], name=names, y=["1"] * 8, f=[1.0] * 8)
    assert read(path)["name"].to_list() == names
