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

from n3r.bundle import Bundle
from n3r.schema import LABEL, ORACLE, SEGMENT, TIME


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
