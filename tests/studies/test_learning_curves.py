"""More rows: each training sees only its own, and the curve says what the test rows say."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from n3r import metrics
from n3r.identity.selection import fit_features
from n3r.model import RiskModel
from n3r.schema import LABEL
from n3r.studies import learning_curves


@pytest.fixture
def trained(small):
    """A small bundle and the splits that it was trained on."""
    return small.bundle, small.prepared.splits


def test_a_curve_of_the_rows_there_are(trained, tmp_path):
    bundle, splits = trained
    n_train = len(splits["train"])
    curve = learning_curves.learning_curve(bundle, splits, [200, n_train, 100, 10 * n_train], tmp_path)
    assert curve["n_rows"].to_list() == [100, 200, n_train]
    assert curve["n_frauds"][2] == splits["train"][LABEL].sum()
    assert curve["n"].unique().to_list() == [len(splits["test"])]
    again = learning_curves.learning_curve(bundle, splits, [200], tmp_path / "again")
    assert again.row(0) == curve.row(1)
    kept = tmp_path / "again" / "200" / "kept" / "model.safetensors"
    written = kept.stat().st_mtime_ns
    assert learning_curves.learning_curve(bundle, splits, [200], tmp_path / "again").equals(again)
    assert kept.stat().st_mtime_ns == written  # nothing was trained


def test_all_rows_give_the_bundle_itself_again(trained, tmp_path):
    bundle, splits = trained
    [row] = learning_curves.learning_curve(bundle, splits, [len(splits["train"])], tmp_path).to_dicts()
    auc = metrics.auc_ci(splits["test"][LABEL], bundle.predict(splits["test"])[:, 1])
    assert row.items() >= auc.columns("auroc").items()


def test_a_training_anew_reads_the_identity_features_that_the_bundle_reads(trained, tmp_path):
    bundle, splits = trained
    columns, config = bundle.column_map, bundle.features.config
    beside = replace(bundle, features=fit_features(splits["train"], columns, config, identity=True))
    for known in (bundle, beside):
        anew = learning_curves._trained_anew(known, splits, tmp_path)
        assert anew.features.to_dict() == known.features.to_dict()


def test_bad_sizes_and_samples_are_named(trained, tmp_path):
    bundle, splits = trained
    with pytest.raises(ValueError, match=r"sizes \[9\]: a training needs 10 rows"):
        learning_curves.learning_curve(bundle, splits, [9, 100], tmp_path)
    good = {**splits, "train": splits["train"].filter(pl.col(LABEL) == 0)}
    with pytest.raises(ValueError, match="all 100 rows of a sample have the same label"):
        learning_curves.learning_curve(bundle, good, [100], tmp_path)


@pytest.mark.slow  # eight trainings; notebook 07 asks the same of surprisal
def test_what_columns_add_is_told_with_its_interval(trained, tmp_path):
    bundle, splits = trained
    longer = bundle.train_config.model_copy(update={"epochs": 8, "lr": 0.01})
    bundle, rng = replace(bundle, train_config=longer), np.random.default_rng(0)
    known = {
        name: frame.with_columns(
            tip=pl.Series(frame[LABEL] + rng.normal(0, 0.3, len(frame))),
            noise=pl.Series(rng.normal(size=len(frame))),
        )
        for name, frame in splits.items()
    }
    tip, noise = (
        learning_curves.added_value(bundle, known, [name], tmp_path / name, seeds=[0, 1])
        for name in ("tip", "noise")
    )
    assert tip.difference.low > 0.02 and len(tip.by_seed) == 2
    assert noise.difference.low < 0 < noise.difference.high
    assert tip.auc_b == noise.auc_b  # the trainings without are the same


def test_columns_that_add_nothing_new_or_are_not_there(trained, tmp_path):
    bundle, splits = trained
    used = bundle.column_map.numeric[0]
    with pytest.raises(ValueError, match=f"{used}.*no_such.*features of the model already, or not among"):
        learning_curves.added_value(bundle, splits, [used, "no_such"], tmp_path)


def test_what_columns_add_is_binary_only(trained, tmp_path):
    bundle, splits = trained
    several = RiskModel(bundle.model.config.model_copy(update={"n_classes": 3}))
    with pytest.raises(ValueError, match="what columns add is binary only: this model tells 3 classes apart"):
        learning_curves.added_value(replace(bundle, model=several), splits, ["surprisal"], tmp_path)
