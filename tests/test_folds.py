"""Which rows are held out: the last block of time, or folds that keep nearly equal texts together."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.folds import make_folds
from n3r.schema import LABEL, TIME, ColumnMap

BY_TIME = ColumnMap(text=["name"], label="y", label_values={"0": 0, "1": 1}, id="id", time="at")
RANDOM = BY_TIME.model_copy(update={"split_by": "random"})


def rows_of(label, names=None):
    n = len(label)
    names = [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(n)] if names is None else names
    time = [datetime(2025, 1, 1) + timedelta(hours=i) for i in range(n)]
    return pl.DataFrame({"id": range(n), "name": names, LABEL: label, TIME: time})


def test_split_by_time_the_validation_rows_are_held_out():
    (fold,) = make_folds(rows_of([0, 1] * 50), 30, BY_TIME, 5, 0)
    assert fold.fit.tolist() == list(range(70)) and fold.held.tolist() == list(range(70, 100))


@pytest.mark.parametrize("n_last", [0, 4])
def test_a_block_of_too_few_frauds_reaches_back(n_last):
    label = [0] * 100
    for i in range(0, 100, 4):
        label[i] = 1
    (fold,) = make_folds(rows_of(label), n_last, BY_TIME, 5, 0)
    assert fold.held.tolist() == list(range(60, 100)), "10 frauds, and no more"
    assert np.bincount(np.array(label)[fold.fit]).min() > 1


@given(st.lists(st.integers(0, 1), min_size=20, max_size=80).filter(lambda y: 4 <= sum(y) <= len(y) - 4))
def test_each_row_is_held_out_once_in_folds(label):
    folds = make_folds(rows_of(label), 0, RANDOM, 3, 1)
    assert sorted(np.concatenate([fold.held for fold in folds]).tolist()) == list(range(len(label)))
    for fold in folds:
        assert not set(fold.fit) & set(fold.held) and len(fold.fit) + len(fold.held) == len(label)


def test_one_fold_holds_out_about_as_many_rows_as_there_are_validation_rows():
    rows = rows_of([0, 1, 1, 1] * 50)
    (fold,) = make_folds(rows, 40, RANDOM, 1, 0)
    assert len(fold.held) == 40 and sorted([*fold.fit, *fold.held]) == list(range(200))
    assert rows[LABEL].to_numpy()[fold.held].mean() == pytest.approx(0.75)


def test_nearly_equal_texts_stay_in_one_fold():
    names = [name for i in range(30) for name in (f"Ana {chr(97 + i)}", f"ana-{chr(65 + i)} {i}")]
    folds = make_folds(rows_of([0, 1] * 30, names), 0, RANDOM, 5, 0)
    for fold in folds:
        assert {i // 2 for i in fold.fit}.isdisjoint({i // 2 for i in fold.held})


def test_texts_without_letters_are_rows_of_their_own():
    folds = make_folds(rows_of([0, 1] * 30, ["7"] * 60), 0, RANDOM, 5, 0)
    assert [len(fold.held) for fold in folds] == [12] * 5


def test_rows_without_any_text_are_spread_over_the_folds():
    names = [None] * 10 + [f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(50)]
    folds = make_folds(rows_of([0, 1] * 30, names), 0, RANDOM, 5, 0)
    assert max(int((fold.held < 10).sum()) for fold in folds) < 10, "not all of them in one"


def test_few_rows_of_a_class_make_fewer_folds_and_one_row_none():
    assert len(make_folds(rows_of([1] * 3 + [0] * 40), 0, RANDOM, 5, 0)) == 3
    for columns in (RANDOM, BY_TIME):
        with pytest.raises(ValueError, match="class 1 has 1 of 41 rows"):
            make_folds(rows_of([1] + [0] * 40), 10, columns, 5, 0)


@pytest.mark.parametrize("names", [["x"] * 60, ["x", "y", "z"] * 20], ids=["one value", "three values"])
def test_what_more_rows_share_than_a_fold_holds_does_not_keep_them_together(names):
    folds = make_folds(rows_of([0] * 40 + [1] * 20, names), 0, RANDOM, 5, 0)
    assert [len(fold.held) for fold in folds] == [12] * 5
