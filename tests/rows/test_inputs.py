"""The columns that a model reads, typed as preprocessing types them."""

import math

import polars as pl
import pytest

from n3r.rows.inputs import NOT_A_NUMBER, Inputs, typed

# A name of a person that no message may show.
NAME = "Zebedee Quux"


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
