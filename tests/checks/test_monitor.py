"""New rows beside a model's training: quiet where nothing moved, loud where something did."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from n3r import tables
from n3r.checks.monitor import FINE, LOOK, RETRAIN, MonitorConfig, monitor, status_of
from n3r.cli import app
from n3r.engine.disk import Disk
from n3r.report.monitor import write_monitor
from n3r.schema import LABEL
from n3r.score import Scorer
from n3r.synthetic.orders import generate_orders


def run_of(small, folder: Path, held: pl.DataFrame) -> Path:
    """The session's bundle in a run of its own, with its prepared rows and scores of held-out rows."""
    folder.mkdir(exist_ok=True)
    (folder / "best").symlink_to(small.folder)
    tables.write_splits(folder / "data", small.prepared.splits, small.prepared.column_map, "parquet")
    tables.write(held, folder / "predictions" / "best_val.parquet")
    return folder / "best"


@pytest.fixture(scope="module")
def bundle(small, tmp_path_factory):
    held = small.bundle.predictions(small.prepared.splits["val"])
    return run_of(small, tmp_path_factory.mktemp("run"), held)


def later(folder, n: int = 3000, seed: int = 9, **changes) -> list[str]:
    """A file of later orders, changed."""
    new = {"objectId": pl.concat_str(pl.lit("new-"), "objectId"), **changes}
    generate_orders(n, seed, base_rate=0.2).with_columns(**new).write_parquet(folder / "new.parquet")
    return [str(folder / "new.parquet")]


def strange(folder) -> list[str]:
    """A file without any column that the model knows."""
    pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}).write_csv(folder / "strange.csv")
    return [str(folder / "strange.csv")]


def names(content) -> set[str]:
    return {one["name"] for one in content["findings"]}


def test_orders_of_the_same_kind_are_fine(bundle, tmp_path):
    content = monitor(later(tmp_path), bundle, MonitorConfig(fpr=0.1))
    assert (status_of(content), content["findings"]) == (FINE, [])
    assert content["measured"]["n"] == content["rows"]["n_labelled"] > 1500
    assert len(content["time"]) == 6 and "auroc" not in content["time"][0]  # some rows have no label


def test_columns_that_move_are_named(bundle, tmp_path):
    changes = {"orderAmount": pl.col("orderAmount") * 9 + 100, "cardAgeDays": pl.lit(None, pl.Float64)}
    content = monitor(later(tmp_path, **changes), bundle, MonitorConfig(fpr=0.1))
    assert {"drift:orderAmount", "drift:cardAgeDays"} <= names(content)
    assert "drift:emailAgeDays" not in names(content) and status_of(content) == LOOK


def test_a_model_that_no_longer_ranks_is_to_be_trained_anew(small, tmp_path):
    held = small.bundle.predictions(small.prepared.splits["val"])
    well = held.with_columns(score=(pl.col("score") + pl.col("label") / 2).clip(0, 1))
    content = monitor(later(tmp_path), run_of(small, tmp_path / "run", well), MonitorConfig(fpr=0.1))
    assert "auroc" in names(content) and status_of(content) == RETRAIN


def test_scores_that_understate_the_risk(bundle, tmp_path):
    fraud = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("F")).otherwise(pl.lit("N"))
    content = monitor(later(tmp_path, status=fraud), bundle, MonitorConfig(fpr=0.1))
    (told,) = [one["what"] for one in content["findings"] if one["name"] == "calibration"]
    assert "understate risk by" in told


def test_rows_without_a_label_column_are_compared_all_the_same(bundle, tmp_path):
    pl.read_parquet(later(tmp_path)).drop("status").write_csv(tmp_path / "new.csv")
    content = monitor([str(tmp_path / "new.csv")], bundle, MonitorConfig(fpr=0.1, max_rows=1000))
    assert content["rows"]["n_labelled"] == 0 and content["measured"] is None
    assert content["rows"]["n_compared"] == 1000


def test_rows_that_the_model_learned_from_are_left_out(bundle, small, tmp_path):
    learned = sum(len(small.prepared.splits[split]) for split in ("train", "val"))
    small.orders.write_parquet(tmp_path / "old.parquet")
    new = monitor(later(tmp_path), bundle, MonitorConfig())["rows"]
    both = monitor([*later(tmp_path), str(tmp_path / "old.parquet")], bundle, MonitorConfig())["rows"]
    assert both["n_read"] - new["n_read"] == small.orders.height
    assert both["n_new"] - new["n_new"] <= small.orders.height - learned


def test_rows_give_the_same_page_however_divided_and_the_same_are_drawn(bundle, small, tmp_path):
    rows = pl.concat([*map(pl.read_parquet, later(tmp_path)), small.orders.head(900)])
    rows = pl.concat([rows, rows.sample(300, seed=1)])  # the same orders again
    rows.write_parquet(tmp_path / "new.parquet")
    whole = monitor([str(tmp_path / "new.parquet")], bundle, MonitorConfig(max_rows=1000))
    assert whole["rows"]["n_compared"] == 1000 < whole["rows"]["n_new"]
    for i, part in enumerate((rows[:7], rows[7:2100], rows[2100:])):
        part.write_csv(tmp_path / f"part-{i}.csv")
    disk = Disk(tmp_path / "disk", 10**9, 5)
    divided = monitor([str(tmp_path / "part-*.csv")], bundle, MonitorConfig(max_rows=1000), None, disk)
    assert divided == whole
    page = write_monitor(divided, "Look.", tmp_path / "page").read_text()
    assert "of them drawn, and compared here" in page


def test_the_command_writes_a_page_and_ends_with_a_status(bundle, tmp_path):
    words = [
        "monitor",
        *later(tmp_path),
        "--bundle",
        str(bundle),
        "-o",
        str(tmp_path / "page"),
        "-p",
        "fpr=0.1",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == FINE and "Nothing has moved" in done.output
    page = (tmp_path / "page" / "monitor.html").read_text()
    assert "Alerts over time" in page and json.loads((tmp_path / "page" / "monitor.json").read_text())["rows"]
    person = pl.read_parquet(tmp_path / "new.parquet")["customerName"].drop_nulls()[0]
    assert person not in page
    later(tmp_path, orderAmount=pl.col("orderAmount") * 9 + 100)
    assert CliRunner().invoke(app, words).exit_code == LOOK


@pytest.mark.parametrize(
    ("changes", "p", "why"),
    [
        ({}, ["fpr=2"], "fpr"),
        ({}, ["loud=1"], "unknown key 'loud'"),
        ({"objectId": pl.lit(None, pl.String)}, [], "none of the 50 rows is new"),
        ({"orderAmount": pl.lit("much")}, [], "orderAmount"),
        (None, [], "columns that the column map names are missing"),
    ],
)
def test_what_cannot_be_compared_is_said(bundle, tmp_path, changes, p, why):
    with pytest.raises(ValueError, match=why):
        files = strange(tmp_path) if changes is None else later(tmp_path, 50, **changes)
        monitor(files, bundle, MonitorConfig.from_texts(p))


def test_a_bundle_outside_its_run_is_refused(small, tmp_path):
    assert Scorer(small.folder) and LABEL in small.prepared.splits["test"].columns
    with pytest.raises(ValueError, match="does not lie in its run"):
        monitor(later(tmp_path, 50), small.folder, MonitorConfig())
