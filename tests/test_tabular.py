"""The quantile map: interpolates as numpy does, is kept with the features, and is the same in each graph."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from n3r.bundle import Bundle
from n3r.export import example_batch, export_torchscript, onnx_scores, quantize_onnx
from n3r.features import FeatureConfig, TabularFeatures
from n3r.files.manifest import MANIFEST
from n3r.model import Batch, RiskModel
from n3r.score import Scorer
from n3r.tabular import QuantileMap

ROUNDING = 2e-6  # of a score up to 4 in size: its rise, a quotient, a product and a sum, in float32
COLUMNS = {  # column -> (ascending values, their scores); values are made float32, as features have them
    "constant": ([7.0], [0.5]),
    "two values": ([-1.0, 1e38], [-4.0, 4.0]),
    "of unequal gaps": ([-1e38, -3.0, 1e-40, 2e-40, 1.0, 1.0000001, 5e6], [-3, -2.5, -0.1, 0.0, 0.7, 0.8, 2]),
    "as many as a power of two": ([0.0, 1.0, 2.0, 3.0], [-1.1503, -0.3186, 0.3186, 1.1503]),
}
COLUMNS = {name: (np.float32(value).tolist(), score) for name, (value, score) in COLUMNS.items()}
values = st.floats(-(2.0**126), 2.0**126, width=32)


def knots_of(columns) -> np.ndarray:
    """(2, G, K), the last of a shorter column repeated."""
    k = max(len(value) for value, _ in columns)
    parts = zip(*columns, strict=True)
    return np.array([[np.pad(row, (0, k - len(row)), "edge") for row in part] for part in parts])


def around(value) -> np.ndarray:
    """Each knot, its neighbours in float32, the middles, and what lies beyond the outer ones."""
    knots = np.array(value, np.float32)
    middles = (knots[:-1] + knots[1:]) / 2
    beside = [np.nextafter(knots, np.float32(end)) for end in (-np.inf, np.inf)]
    beyond = np.float32([-3.4e38, 3.4e38, knots[0] - 1, knots[-1] + 1])
    return np.concatenate([knots, middles, *beside, beyond])


def mapped(columns, asked: np.ndarray) -> np.ndarray:
    return QuantileMap(knots_of(columns))(torch.from_numpy(asked)).numpy()


def rows_between_and_beyond(knots: np.ndarray, batch: Batch) -> Batch:
    """The batch with one text for all rows, and in each column any of what `around` gives."""
    draw, n_rows = np.random.default_rng(0), len(batch["tabular"])
    for column, value in enumerate(knots[0]):
        batch["tabular"][:, column] = torch.from_numpy(draw.choice(around(np.unique(value)), n_rows))
    for name in ("text", "attn_mask"):
        batch[name] = batch[name][:1].repeat(n_rows, 1)
    return batch


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_interpolated_as_numpy_does_in_float64(name):
    value, score = COLUMNS[name]
    asked = around(value)
    expected = np.interp(asked.astype(np.float64), value, score)
    found = mapped([COLUMNS[name], COLUMNS["two values"]], np.stack([asked, asked], axis=1))
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=ROUNDING)
    assert found[: len(value), 0].tolist() == np.float32(score).tolist(), "a knot has its own score"


@given(st.lists(st.tuples(values, st.floats(-4, 4)), min_size=1, max_size=40), st.lists(values, min_size=1))
def test_any_column_beside_others_is_interpolated_as_numpy_does(pairs, more):
    value = np.unique([v for v, _ in pairs])
    score = sorted(s for _, s in pairs)[: len(value)]
    asked = np.concatenate([around(value), np.float32(more)])
    beside = [(list(value), score), *COLUMNS.values()]
    found = mapped(beside, np.tile(asked[:, None], 2 + len(COLUMNS)))
    np.testing.assert_allclose(found[:, 0], np.interp(asked, value, score), rtol=0, atol=ROUNDING)
    assert found[:, -1].tolist() == asked.tolist(), "features that have no knots come as they are"


def test_ties_share_a_score_and_constants_and_missing_numbers_reach_no_knots():
    train = pl.DataFrame({"tied": [1.0, 2, 2, 2, 4], "same": [3.0] * 5, "holed": [None, np.nan, 1.0, 5, 9]})
    features = TabularFeatures().fit(train, train.columns)
    assert features.names == ["tied", "holed", "holed is missing"]
    asked = pl.DataFrame({"tied": [2.0, 3, np.inf], "same": [0.0, 3, np.nan], "holed": [None, 5.0, np.nan]})
    found = QuantileMap(features.knots)(torch.from_numpy(features.transform(asked))).numpy()
    z = 1.2815516  # the normal score of 0.9, the middle rank of the largest of five values
    np.testing.assert_allclose(found, [[0, 0, 1], [z / 2, 0, 0], [0, 0, 1]], atol=1e-6)


def test_a_nan_that_no_features_made_stays_in_its_cell():
    row = np.full((2, 4), 1.0, np.float32)
    whole = mapped(COLUMNS.values(), row)
    row[0, 2] = np.nan
    assert np.isnan(mapped(COLUMNS.values(), row)).tolist() == np.isnan(row).tolist()
    assert mapped(COLUMNS.values(), row)[1].tolist() == whole[1].tolist()


def test_knots_are_no_weights_and_come_back_from_the_features(small):
    loaded = Bundle.load(small.folder).model
    assert not QuantileMap(small.bundle.features.knots).state_dict()
    assert not [name for name in loaded.state_dict() if name.startswith("scaling")]
    x = example_batch(loaded, n_rows=50)["tabular"]
    assert loaded.scaling(x).equal(small.bundle.model.scaling(x))
    assert not loaded.scaling(x).equal(x)


def test_a_bundle_of_a_model_that_does_not_scale_as_its_features_say_is_not_saved(small, tmp_path):
    without_map = RiskModel(small.bundle.model.config)
    unscaled = TabularFeatures(FeatureConfig(scaling="none"))
    for change in ({"model": without_map}, {"features": unscaled}):
        with pytest.raises(ValueError, match="does not scale its features.*build it with their knots"):
            replace(small.bundle, **change).save(tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("load", [Bundle.load, Scorer])
def test_a_bundle_of_format_2_says_what_to_do(small, tmp_path, load):
    """Its graph reads features that are scaled already: with a map of its own they would be scaled twice."""
    folder = shutil.copytree(small.folder, tmp_path / "bundle")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(ValueError, match="format 2 of n3r.*train the model again, or score with that n3r"):
        load(folder)


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
def test_onnx_torchscript_and_8_bit_graphs_map_as_torch_does(small, tmp_path):
    model = Bundle.load(small.folder).model
    batch = rows_between_and_beyond(small.bundle.features.knots, example_batch(model, n_rows=400))
    with torch.inference_mode():
        want = model(batch).softmax(dim=1).numpy()
        export_torchscript(model, tmp_path / "model.pt")
        script = torch.jit.load(tmp_path / "model.pt")(batch).numpy()
    graph = small.folder / "model.onnx"
    quantize_onnx(graph, tmp_path / "int8.onnx")
    assert want[:, 1].std() > 1e-3, "rows that are all alike prove nothing"
    np.testing.assert_allclose(script, want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(onnx_scores(graph, batch), want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(onnx_scores(tmp_path / "int8.onnx", batch), want, rtol=0, atol=0.016)
