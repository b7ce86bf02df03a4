"""Whether the identity features are read: as told, or unless rows held out show that they hurt."""

import numpy as np
import polars as pl
import pytest

from n3r.features import FeatureConfig
from n3r.identity import selection
from n3r.identity.selection import fit_features, reads_identity
from n3r.schema import LABEL, TIME, ColumnMap

CONFIG = FeatureConfig()


def a_map(text, numeric=(), by_time=False, n_classes=2) -> ColumnMap:
    roles = {"split_by": "time", "time": "at"} if by_time else {"split_by": "random"}
    labels = {str(c): c for c in range(n_classes)}
    return ColumnMap(id="id", text=text, label="y", label_values=labels, numeric=list(numeric), **roles)


def people(names, n: int, planted: bool, n_classes: int = 2) -> pl.DataFrame:
    """Rows of names and a number that tells the class or, `planted`, the payer's name tells it."""
    rng = np.random.default_rng(n)
    label = rng.integers(0, n_classes, n)
    frame = names(n).with_columns(
        pl.Series(LABEL, label.astype(np.int8)),
        pl.Series(TIME, np.arange(n)).cast(pl.Datetime("us")),
        amount=pl.Series(rng.normal(0 * label if planted else 1.5 * label).astype(np.float32)),
    )
    if not planted:
        return frame
    other = pl.col("holder").fill_null("x").shuffle(seed=1)
    return frame.with_columns(holder=pl.when(pl.col(LABEL) > 0).then(other).otherwise("holder"))


FIELDS = ["email", "billing", "holder"]


@pytest.mark.parametrize("by_time", [True, False])
@pytest.mark.parametrize("numeric", [["amount"], []])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_relation_of_fields_is_read(names, by_time, numeric, n_classes):
    rows = people(names, 300, planted=True, n_classes=n_classes)
    assert reads_identity("auto", rows, a_map(FIELDS, numeric, by_time, n_classes), CONFIG)


def test_what_hurts_is_left_out_unless_it_is_asked_for(names, monkeypatch):
    """Many columns of noise beside the one number that tells."""
    rows, rng = people(names, 1500, planted=False), np.random.default_rng(0)
    noise = {
        f"n{i}": pl.Series(["".join(word) for word in rng.choice(list("abcdefgh"), (1500, 6))])
        for i in range(8)
    }
    columns = a_map([*FIELDS, *noise], ["amount"])
    rows = rows.with_columns(**noise)
    assert not reads_identity("auto", rows, columns, CONFIG)
    assert reads_identity("on", rows, columns, CONFIG)

    def must_not_judge(*given):
        raise AssertionError("judged")

    monkeypatch.setattr(selection, "_held_out", must_not_judge)
    assert not reads_identity("off", rows, columns, CONFIG)
    assert reads_identity("on", rows[:1], columns, CONFIG)


@pytest.mark.parametrize("by_time", [True, False])
@pytest.mark.parametrize(
    "text",
    [{"a": "x"}, {"a": None, "b": ""}, {"a": "x@mail.example", "b": "x"}],
    ids=["one constant", "nothing", "constants"],
)
def test_constant_columns_and_ten_rows_of_a_class_are_judged(text, by_time):
    rows = pl.DataFrame({LABEL: np.arange(60) % 6 == 0, TIME: np.arange(60)}).with_columns(
        pl.col(LABEL).cast(pl.Int8), pl.col(TIME).cast(pl.Datetime("us")), pl.lit(1.0).alias("c")
    )
    rows = rows.with_columns(pl.lit(value, pl.String).alias(name) for name, value in text.items())
    for numeric in ([], ["c"]):
        columns = a_map(list(text), numeric, by_time)
        assert reads_identity("auto", rows, columns, CONFIG) in (True, False)
        features = fit_features(rows, columns, CONFIG, identity=True)
        assert features.transform(rows, out_of_fold=True).shape == (60, len(features))


def test_the_judge_sees_at_most_so_many_rows(names, monkeypatch):
    rows, seen = people(names, 300, planted=True), []
    held_out = selection._held_out

    def remembered(rows, columns, config, folds, identity):
        seen.extend(len(part) for fold in folds for part in fold)
        return held_out(rows, columns, config, folds, identity)

    monkeypatch.setattr(selection, "MAX_ROWS", 90)
    monkeypatch.setattr(selection, "_held_out", remembered)
    assert reads_identity("auto", rows, a_map(FIELDS, ["amount"]), CONFIG)
    assert max(seen) <= 90


def test_mistakes_are_named(names):
    rows = people(names, 30, planted=True)
    with pytest.raises(ValueError, match="identity 'yes': expected off, on, auto"):
        reads_identity("yes", rows, a_map(FIELDS), CONFIG)
    alone = rows.with_columns((pl.int_range(30) == 3).cast(pl.Int8).alias(LABEL))
    with pytest.raises(ValueError, match="class 1 has 1 of 30 rows"):
        reads_identity("auto", alone, a_map(FIELDS), CONFIG)
    with pytest.raises(ValueError, match=r"the rows lack the columns \['holder'\]"):
        fit_features(rows.drop("holder"), a_map(FIELDS), CONFIG, identity=True)
