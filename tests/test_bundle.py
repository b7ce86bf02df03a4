"""A bundle scores the same wherever it is loaded, and is refused when a file of it is not its own.

That all classes come back is shown in test_classes.py.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from n3r import tables
from n3r.bundle import Bundle, Recipe, train_bundle
from n3r.features import TabularFeatures
from n3r.rows import parts
from n3r.schema import LABEL, ORACLE, SEGMENT, TIME
from n3r.score import Scorer
from n3r.vocabulary import TokenizerConfig, train_tokenizer


@pytest.fixture
def bundle(small):
    return small.bundle


@pytest.fixture
def saved(small):
    return small.folder


@pytest.fixture
def frame(small):
    return small.prepared.splits["test"].head(60)


def test_a_fresh_process_scores_the_same(bundle, saved, frame, tmp_path):
    frame.write_parquet(tmp_path / "rows.parquet")
    code = (
        "import sys, polars as pl; from n3r.bundle import Bundle; "
        "b = Bundle.load(sys.argv[1]); b.predictions(pl.read_parquet(sys.argv[2])).write_parquet(sys.argv[3])"
    )
    paths = [str(saved), *(str(tmp_path / name) for name in ("rows.parquet", "scored.parquet"))]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    scored = pl.read_parquet(paths[2])
    assert scored["objectId"].equals(frame["objectId"])
    assert scored.equals(bundle.predictions(frame))


def test_predictions_are_in_input_order_and_the_same_for_a_row_alone(bundle, frame):
    together = bundle.predictions(frame)["score"].to_numpy()
    alone = [bundle.predictions(frame[i : i + 1])["score"].item() for i in range(0, 60, 7)]
    np.testing.assert_allclose(together[::7], alone, atol=1e-6)
    assert np.isfinite(together).all()


def test_unlabelled_rows_are_scored(bundle, frame):
    scored = bundle.predictions(frame.drop(LABEL, SEGMENT, TIME, ORACLE, strict=False))
    assert scored.columns == ["objectId", "score"]


def test_saving_replaces_and_leaves_nothing_beside(bundle, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    replace(bundle, metrics={"again": True}, calibration=None).save(tmp_path / "model")
    loaded = Bundle.load(tmp_path / "model")
    assert loaded.metrics == {"again": True}
    assert loaded.calibration.method == "none" and "0 of class 0" in loaded.calibration.reason, "it says why"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_unwritable_folder_is_named(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write the bundle"):
        bundle.save(tmp_path / "file" / "model")


def test_defect_07_the_saved_config_builds_the_same_model(bundle, saved):
    loaded = Bundle.load(saved)
    assert loaded.model.config == bundle.model.config
    assert loaded.column_map == bundle.column_map
    assert loaded.train_config == bundle.train_config
    assert loaded.features.to_dict() == bundle.features.to_dict()


def test_defect_54_nothing_in_a_bundle_is_a_pickle(saved):
    for path in saved.iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert path.suffix in (".safetensors", ".onnx", ".md")
            assert b"pickle" not in path.read_bytes()


def test_defect_43_rows_without_their_id_are_refused(bundle, frame):
    with pytest.raises(ValueError, match="lack the id column"):
        bundle.predictions(frame.drop("objectId"))


def test_a_damaged_bundle_is_not_loaded(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / "extra.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"extra\.pkl is foreign"):
        Bundle.load(tmp_path / "model")


def test_other_accounts_can_read_a_bundle_as_far_as_the_umask_lets_them(saved):
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1


# ---- training on rows in parts


@pytest.fixture
def in_small_parts(small, tmp_path, monkeypatch):
    """The prepared splits in parts of 100 rows, of which 70 are read at a time."""
    monkeypatch.setattr(tables, "PART", 100)
    monkeypatch.setattr(parts, "SLICE", 70)
    tables.write_splits(tmp_path / "data", small.prepared.splits, small.prepared.column_map)
    return {split: tables.split_rows(tmp_path / "data", split) for split in ("train", "val", "test")}


def test_a_training_on_parts_gives_the_bundle_of_a_training_in_memory(
    small, in_small_parts, tmp_path, monkeypatch
):
    columns, one = small.prepared.column_map, small.bundle
    tokenizer, _ = train_tokenizer(
        in_small_parts["train"].select(columns.all_text), TokenizerConfig(min_frequency=5)
    )
    features = TabularFeatures().fit(
        in_small_parts["train"], columns.numeric, columns.categorical, columns.n_classes
    )
    recipe = Recipe(tokenizer, features, columns, one.train_config)
    other, fitted = train_bundle(one.model.config, in_small_parts, recipe, tmp_path / "training")
    assert other.settings == one.settings and other.data == one.data
    assert other.calibration.to_dict() == one.calibration.to_dict()
    weights = one.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in other.model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == ["checkpoints", "tensorboard"]
    whole = one.predictions(small.prepared.splits["test"])
    assert pl.concat(list(other.prediction_parts(in_small_parts["test"]))).equals(whole)
    monkeypatch.setattr(parts, "SAMPLE", 10)  # of more rows some are predicted at a time
    assert other.predictions(in_small_parts["test"]).equals(whole)
    other.save(tmp_path / "saved", int8_rows=in_small_parts["test"])
    scorer = Scorer(tmp_path / "saved")
    served = [scorer.score(rows) for rows in (in_small_parts["test"], small.prepared.splits["test"])]
    assert_frame_equal(*served, rel_tol=0, abs_tol=1e-6)


def test_a_store_is_read_again_and_one_of_other_rows_or_cut_short_is_written_anew(small, tmp_path):
    train, folder = small.prepared.splits["train"], tmp_path / "rows" / "train"
    first = small.bundle.stored(train, 1, folder, training=True)
    written = (folder / "arrays.json").stat().st_mtime_ns
    assert small.bundle.stored(train, 1, folder, training=True).digest == first.digest
    assert (folder / "arrays.json").stat().st_mtime_ns == written
    assert first.digest == small.bundle.read(train, 1, training=True).digest
    ids = folder / "text.ids.npy"
    ids.write_bytes(ids.read_bytes()[:-4])
    assert small.bundle.stored(train, 1, folder, training=True).digest == first.digest
    others = small.bundle.stored(train[1:], 1, folder, training=True)
    assert len(others) == len(train) - 1 and others.digest != first.digest
