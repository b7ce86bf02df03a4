"""What the notebooks that train share."""

import json

import numpy as np
import polars as pl
import pytest

from n3r import metrics, steps
from n3r.features import FeatureConfig
from n3r.multiclass import measure
from n3r.schema import mask
from n3r.score import Scorer
from n3r.train import TrainConfig


def test_a_config_takes_its_fields_from_a_notebooks_names():
    names = {"epochs": 3, "lr": 0.01, "name": "dev", "plt": object()}
    assert TrainConfig(**steps.fields(TrainConfig, names)) == TrainConfig(epochs=3, lr=0.01)


def test_folds_of_a_blend_are_its_members_not_its_risk_tables():
    settings = {"n_folds": 1, "smooth_factor": 0.5, "lstm2risk": {"lr": 0.1}, "members": ["lstm2risk"]}
    blend, features = steps.blend_configs(settings)
    assert (blend.n_folds, blend.networks) == (1, {"lstm2risk": {"lr": 0.1}})
    assert (features.n_folds, features.smooth_factor) == (5, 0.5)


def test_a_width_of_heads_that_no_class_has_is_refused_before_any_training(small, tmp_path):
    parameters = {"model_classes": ["lstm", "trimodal_gate_fusion"], "fusion_hidden_dim": 8}
    columns, splits = small.prepared.column_map, small.prepared.splits
    having = "bimodal_cross_attn, trimodal_bert, trimodal_cross_attn"
    with pytest.raises(ValueError, match=f"^fusion_hidden_dim is read by {having} alone, none of which"):
        steps.train_all({}, small.bundle.features, columns, splits, tmp_path, parameters)


def test_features_are_fitted_or_read_from_precomputed_files(small, tmp_path):
    train, columns = small.prepared.splits["train"], small.prepared.column_map
    parameters = {"seed": 1, "imputation": "mean", "identity": "off"}
    parameters |= {"use_precomputed_imputation": None, "use_precomputed_risk_tables": None}
    fitted = steps.fit_features(train, columns, parameters)
    assert fitted.config == FeatureConfig(seed=1, imputation="mean")
    path = tmp_path / "imputation.json"
    path.write_text(json.dumps(dict.fromkeys(columns.numeric, 7.0)))
    read = steps.fit_features(train, columns, parameters | {"use_precomputed_imputation": str(path)})
    assert set(read.imputation_.values()) == {7.0} != set(fitted.imputation_.values())


@pytest.mark.parametrize(("identity", "reads"), [("off", False), ("on", True), ("auto", True)])
def test_features_of_identity_strings_are_read_as_told_or_where_they_help(small, identity, reads):
    train, columns = small.prepared.splits["train"], small.prepared.column_map
    parameters = {"use_precomputed_imputation": None, "use_precomputed_risk_tables": None}
    fitted = steps.fit_features(train, columns, parameters | {"identity": identity})
    assert (fitted.identity is not None) == reads
    with pytest.raises(ValueError, match="identity 'true': expected off, on, auto"):
        steps.fit_features(train, columns, parameters | {"identity": "true"})


def test_one_order_is_followed_to_the_score_that_is_served_and_shows_no_letter(small):
    row = small.prepared.splits["test"].head(1)
    found = steps.follow(small.bundle, row)
    served = Scorer(small.folder).score(row)["score"].item()
    content = dict(zip(found["step"], found["content"], strict=True))
    assert float(content["score"]) == pytest.approx(served, abs=1e-5)
    columns = small.bundle.column_map.all_text
    for cell in row.select(columns).row(0):
        assert mask(cell) in content["row"] and cell not in content["row"]
    assert mask(content["tokens"]) == content["tokens"]
    blank = row.with_columns(pl.lit(None, pl.String).alias(name) for name in columns)
    assert len(steps.follow(small.bundle, blank)) == len(found)


def test_the_answer_of_three_classes_says_of_what_it_is_the_mean():
    rng, label = np.random.default_rng(0), np.repeat([0, 1, 2], [60, 30, 10])
    three = label, np.stack([rng.dirichlet(1 + 3 * np.eye(3)[c]) for c in label])
    measured = measure(*three)
    said = steps.answer("it", measured)
    assert f"10 of the rarest class, it reaches an AUROC of {metrics.class_auc(*three)}" in said
    table = steps.metric_table({"val": measured, "test": measured})
    assert table.columns == ["metric", "val", "test"] and len(table) == len(measured)


def test_the_answer_gives_the_figure_and_its_interval():
    measured = {"auroc": 0.8154, "auroc_low": 0.779, "auroc_high": 0.847, "n": 3324, "n_positive": 178}
    said = steps.answer("LSTM2Risk", measured | {"recall_at_fpr_1": 0.185})
    assert "0.815 [0.779, 0.847]" in said and "18.5 % of the frauds" in said and "3,324 test orders" in said
