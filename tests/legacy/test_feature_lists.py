"""Lists of features: read whoever wrote them, written as the legacy has them, and made a column map."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.legacy.feature_lists import common_features, read_feature_list, with_features, write_feature_list
from n3r.schema import ColumnMap

COLUMNS = ColumnMap(
    id="order", text=["email"], label="fraud", label_values={"no": 0, "yes": 1}, split_by="random"
)
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@pytest.fixture
def lists(tmp_path):
    def write(*texts: str):
        paths = [tmp_path / f"{i}.txt" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8", newline="")
        return paths

    return write


def test_defect_39_common_columns_stand_in_the_order_of_the_first_list(lists):
    paths = lists("b\nz\na\nb\n", "a\r\nb\r\n\r\n", "\ufeff# of one region\nc\nb \na")
    assert common_features(paths) == ["b", "a"]


@given(names=st.lists(name, max_size=6))
def test_a_list_that_is_written_is_read_back(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("lists") / "features.txt"
    try:
        write_feature_list(path, names)
    except ValueError as error:
        assert "rename the column" in str(error) and not path.exists()
    else:
        assert read_feature_list(path) == names


@pytest.mark.parametrize("names", [["amount", "daysSince1st", "a b", "x,y", "1,x"], ["tél"]])
def test_names_that_a_line_can_hold_are_written(tmp_path, names):
    write_feature_list(tmp_path / "f.txt", names)
    assert read_feature_list(tmp_path / "f.txt") == names


def test_what_is_no_list_and_lists_without_a_common_column_are_told(lists, tmp_path):
    with pytest.raises(ValueError, match=r"no column is named by all of .*0\.txt, .*1\.txt"):
        common_features(lists("a\n", "b\n"))
    with pytest.raises(FileNotFoundError, match=r"gone\.txt: no such file of column names"):
        common_features([tmp_path / "gone.txt"])
    (tmp_path / "f.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"f\.json is not a list of column names"):
        read_feature_list(tmp_path / "f.json")
    (tmp_path / "f.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"f\.txt cannot be read as a list of columns"):
        read_feature_list(tmp_path / "f.txt")


def test_the_map_gets_the_columns_that_the_rows_have_as_numbers(tmp_path):
    rows = {"order": ["1", "2"], "email": ["a", "b"], "fraud": ["no", "yes"], "word": ["x", "y"]}
    frame = pl.DataFrame(rows | {"amount": [1.5, None], "new": [True, False]})
    frame.write_parquet(tmp_path / "orders.parquet")
    listed = ["word", "new", "gone", "fraud", "amount"]
    found, left_out = with_features(COLUMNS, listed)
    assert found.numeric == ["word", "new", "gone", "amount"]
    assert left_out == {"fraud": "it has another role in the map"}
    found, left_out = with_features(COLUMNS, listed, [str(tmp_path / "orders.parquet")])
    assert found == COLUMNS.model_copy(update={"numeric": ["new", "amount"]})
    assert left_out == {
        "word": "text",
        "gone": "the rows do not have it",
        "fraud": "it has another role in the map",
    }
    with pytest.raises(ValueError, match="none of the 2 listed columns can be a feature"):
        with_features(COLUMNS, ["word", "gone"], [str(tmp_path / "orders.parquet")])
