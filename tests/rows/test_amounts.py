"""What orders are worth, from the raw column to costs."""

import polars as pl

from n3r.predictions import prediction_table
from n3r.preprocess import prepare
from n3r.rows.amounts import amounts
from n3r.schema import AMOUNT, ColumnMap


def test_a_row_without_an_amount_counts_as_the_mean_of_the_others():
    assert amounts(pl.DataFrame({AMOUNT: [10.0, None, -5.0, 20.0]})).tolist() == [10, 15, 15, 20]
    assert amounts(pl.DataFrame({AMOUNT: [None, -5.0]})) is None and amounts(pl.DataFrame({"a": [1]})) is None


def test_prepared_rows_and_predictions_keep_what_orders_are_worth():
    n = 40
    frame = pl.DataFrame(
        {
            "id": range(n),
            "name": [f"Ana {i}" for i in range(n)],
            "bad": [i % 2 for i in range(n)],
            "paid": [-1.0, float("inf"), None, *range(3, n)],
        },
        strict=False,
    )
    content = {
        "id": "id",
        "text": ["name"],
        "label": "bad",
        "label_values": {"0": 0, "1": 1},
        "amount": "paid",
    }
    prepared = prepare(frame.lazy(), ColumnMap(**content, numeric=["paid"], split_by="random"))
    rows = pl.concat(prepared.splits.values()).sort(pl.col("id").cast(int))
    assert rows[AMOUNT].to_list() == [None, None, None, *map(float, range(3, n))]
    assert rows["paid"].to_list()[:2] == [-1, None]
    assert prepared.report.warnings == ["3 rows have no 'paid', or one below 0: costs take the mean for it"]
    assert prediction_table(rows, "id", rows[AMOUNT].fill_null(0).to_numpy() / n)["amount"].equals(
        rows[AMOUNT], null_equal=True
    )
