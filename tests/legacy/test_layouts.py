"""The published layout, used the published way, scores as the bundle; legacy weights score as they did."""

import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

from n3r.bundle import Bundle
from n3r.calibrate import fit_calibration
from n3r.features import FeatureConfig, TabularFeatures
from n3r.legacy.artefacts import published_tables, with_published_inputs
from n3r.legacy.layouts import import_legacy, write_sagemaker
from n3r.legacy.models import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
)
from n3r.legacy.trainer import LegacyTextDataset, LegacyTokenizer, legacy_tabular, predict_legacy
from n3r.model import MODEL_CLASSES, configure, model_select
from n3r.pipeline import resolve_parameters
from n3r.schema import LABEL, ColumnMap
from n3r.steps import fields
from n3r.tokenizer import TextConfig
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer, train_wordpiece

N = 160
SMALL = {
    "lstm": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 2},
    "lstm_ends": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1},
    "transformer": {"embedding_size": 8, "hidden_size": 6, "n_blocks": 2, "n_heads": 2, "block_size": 48},
    "cnn": {"embedding_size": 4, "kernel_sizes": [3], "n_channels": [4], "hidden_common_dim": 8},
    "bert": {"embedding_size": 8, "n_blocks": 1, "n_heads": 2, "block_size": 40, "hidden_common_dim": 8},
}
NUMERIC = ["amount", "age", "constant", "days, since"]


def rows(names, n: int = N, seed: int = 0) -> pl.DataFrame:
    """Prepared rows: an amount that is often missing, whole numbers, a constant, a column with a comma."""
    rng = np.random.default_rng(seed)
    amount = rng.lognormal(3, 2, n)
    return (
        names(n, seed)
        .with_columns(
            order=pl.Series([f"o{i}" for i in range(n)]),
            amount=pl.Series(
                [None if gone else x for gone, x in zip(rng.random(n) < 0.3, amount, strict=True)]
            ),
            age=pl.Series(rng.integers(18, 60, n)),
            constant=pl.lit(7.5),
            **{"days, since": pl.Series(np.where(rng.random(n) < 0.1, np.nan, rng.normal(0, 1e-3, n)))},
            device=pl.Series(rng.choice(["phone", "desk", "télé", ""], n, p=[0.4, 0.3, 0.2, 0.1]).tolist()),
            **{LABEL: pl.Series(rng.integers(0, 2, n), dtype=pl.Int8)},
        )
        .with_columns(pl.col("device").replace({"": None}))
    )


class Refusing(pickle.Unpickler):
    """Takes plain data alone, and runs nothing."""

    def find_class(self, module, name):
        raise AssertionError(f"{module}.{name} in a pickle")


def plain(path: Path):
    with path.open("rb") as file:
        return Refusing(file).load()


def columns(**changes) -> ColumnMap:
    roles = {"id": "order", "label": "fraud", "label_values": {"no": 0, "yes": 1}, "split_by": "random"}
    inputs = {"text": ["email", "billing", "holder"], "numeric": NUMERIC, "categorical": ["device"]}
    return ColumnMap(**{**roles, **inputs, **changes})


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights, biases, norms and batch statistics, none at a neutral 0 or 1."""
    draw = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=draw)
        elif value.is_floating_point():
            width = value.shape[1] if value.ndim > 1 and "embedding" not in name else 4
            value.normal_(0, width**-0.5, generator=draw)
    return model.eval()


def spread(last: torch.nn.Linear, p: np.ndarray) -> None:
    """Change a last layer that gave `p` of class 1: logits get the mean 0 and the deviation 1."""
    z = np.log(p / (1 - p.astype(float)))
    with torch.no_grad():
        last.weight /= z.std()
        last.bias /= z.std()
        last.bias[-1] -= z.mean() / z.std()


def make_bundle(frame, tokenizer, model_class, scaling="quantile", column_map=None, **dimensions) -> Bundle:
    column_map = column_map or columns()
    reads = MODEL_CLASSES[model_class].tabular is not None
    features = TabularFeatures(FeatureConfig(scaling=scaling, count_threshold=5))
    features.fit(frame, column_map.numeric, column_map.categorical, column_map.n_classes)
    encoder = dimensions.get("encoder", MODEL_CLASSES[model_class].encoder)
    model = model_select(
        model_class,
        knots=features.knots,
        vocab_size=tokenizer.vocab_size,
        n_tab_features=len(features) if reads else 0,
        n_classes=column_map.n_classes,
        **SMALL[encoder],
        **dimensions,
    )
    recipe = (tokenizer, features, column_map, TrainConfig(), TextConfig(max_tokens=48))
    bundle = Bundle(*recipe, model=shake(model))
    if column_map.n_classes > 2:
        return bundle
    spread(getattr(model.head, "net", model.head)[-1], bundle.predict(frame)[:, 1])
    return replace(bundle, calibration=fit_calibration(frame[LABEL].to_numpy(), bundle.predict(frame)))


def published_texts(folder: Path, frame: pl.DataFrame) -> list[str]:
    """A row's fields joined as hyperparameters.json says."""
    told = json.loads((folder / "hyperparameters.json").read_text())
    missing, separator = told["text_missing"], told["text_separator"]
    fields = [[missing if text is None else text for text in frame[n]] for n in told["text_source_fields"]]
    return [separator.join(text for text in row if text is not None) for row in zip(*fields, strict=True)]


def published_numbers(folder: Path, frame: pl.DataFrame, impute: bool) -> np.ndarray:
    """(N, F) float32 from the layout's tables alone."""
    fill = json.loads((folder / "impute_dict.json").read_text())
    risk = json.loads((folder / "risk_table_map.json").read_text())
    lines = (folder / "feature_columns.txt").read_text().splitlines()
    assert [line.startswith("#") for line in lines[:4]] == [True, True, True, False]
    out = []
    for i, line in enumerate(lines[3:]):
        index, name = line.split(",", 1)
        assert index == str(i)
        if name in risk:
            table = risk[name]
            out.append([table["bins"].get(value, table["default_bin"]) for value in frame[name]])
        else:
            values = frame[name].cast(pl.Float64).fill_nan(None)
            out.append(values.fill_null(fill[name] if impute else float("nan")).to_list())
    return np.array(out, np.float32).T


def padded(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask int64 (B, T), padded with 0 as the published code does."""
    width = max(map(len, ids))
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return np.array([row + [0] * (width - len(row)) for row in ids]), mask


def served(folder: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"]).run(["probs"], inputs)[
        0
    ]


def names_inputs(folder: Path, frame: pl.DataFrame, impute: bool) -> dict[str, np.ndarray]:
    told = json.loads((folder / "hyperparameters.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [tokenizer.encode(text).ids[: told["max_sen_len"]] for text in published_texts(folder, frame)]
    ids, mask = padded(ids)
    text = {"text_tokens": ids}
    text |= {"text_lengths": mask.sum(1)} if told["model_class"] == "lstm2risk" else {"attn_mask": mask}
    return text | {"tabular": published_numbers(folder, frame, impute)}


@pytest.fixture(scope="module")
def frame(names):
    return rows(names)


NAMES = {
    "lstm": ("lstm2risk", {}),
    "lstm-plain": ("lstm2risk", {"scaling": "none"}),
    "transformer-bins": ("transformer2risk", {"n_tab_bins": 3}),
    "transformer-plain": ("transformer2risk", {"scaling": "none"}),
}


@pytest.fixture(
    scope="module",
    params=[n if n != "transformer-plain" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def layout(request, frame, tokenizer, tmp_path_factory):
    """A names model, its bundle's folder and the layout written from it."""
    folder = tmp_path_factory.mktemp("names")
    model_class, options = NAMES[request.param]
    bundle = make_bundle(frame, tokenizer, model_class, **options)
    bundle.save(folder / "bundle")
    bundle.predictions(frame).write_parquet(folder / "predictions.parquet")
    write_sagemaker(folder / "bundle", folder / "layout", folder / "predictions.parquet")
    return bundle, folder / "layout", folder / "bundle"


def test_defect_02_the_published_inputs_give_the_bundles_scores(layout, names):
    bundle, folder, _ = layout
    for seed in (0, 1):  # the training rows and others
        frame = rows(names, seed=seed)
        scores = served(folder, names_inputs(folder, frame, impute=False))
        np.testing.assert_allclose(scores, bundle.predict(frame), rtol=0, atol=1e-5)
        assert scores[:, 1].std() > 0.1, "rows that are all alike prove nothing"
    filled = frame.with_columns(
        pl.col(name).cast(pl.Float64).fill_nan(None).fill_null(fill)
        for name, fill in bundle.features.imputation_.items()
    )
    knows_missing = bundle.features.config.scaling != "none"
    assert (np.abs(bundle.predict(filled) - scores).max() > 1e-3) == knows_missing


NUMBER = st.none() | st.floats(-1e9, 1e9, width=32) | st.just(float("nan")) | st.integers(-3, 99).map(float)


@given(
    table=st.lists(st.tuples(*[NUMBER] * len(NUMERIC)), min_size=1, max_size=8),
    device=st.sampled_from(["phone", "desk", "unseen", None]),
)
def test_rows_imputed_as_the_published_server_does_score_as_the_bundle_has_them(layout, frame, table, device):
    bundle, folder, _ = layout
    numbers = pl.DataFrame(table, NUMERIC, orient="row").cast(pl.Float64)
    rows = frame[: len(table)].with_columns(numbers, device=pl.lit(device, pl.String))
    want = bundle.predict(rows)
    for impute in (True, False):
        scores = served(folder, names_inputs(folder, rows, impute))
        np.testing.assert_allclose(scores, want, rtol=0, atol=1e-5)


def test_defect_12_what_stands_in_padding_and_in_other_rows_does_not_count(layout, frame):
    bundle, folder, _ = layout
    inputs = names_inputs(folder, frame, impute=False)
    together = served(folder, inputs)
    mask = np.arange(inputs["text_tokens"].shape[1]) < (
        inputs["text_lengths"][:, None] if "text_lengths" in inputs else inputs["attn_mask"].sum(1)[:, None]
    )
    noise = np.random.default_rng(0).integers(0, bundle.tokenizer.vocab_size, mask.shape)
    other = {**inputs, "text_tokens": np.where(mask, inputs["text_tokens"], noise)}
    np.testing.assert_array_equal(served(folder, other), together)
    for i in (0, 7):
        alone = names_inputs(folder, frame[i : i + 1], impute=False)
        np.testing.assert_allclose(served(folder, alone)[0], together[i], rtol=0, atol=1e-6)
    told = json.loads((folder / "hyperparameters.json").read_text())
    assert told["pad_token_id"] == 1


def test_defect_13_full_width_names_are_the_same_tokens(layout, frame):
    bundle, folder, _ = layout
    wide = frame.with_columns(pl.col("billing").str.replace_many({"A": "Ａ", "n": "ｎ", "e": "ｅ"}))
    inputs = names_inputs(folder, wide, impute=False)
    assert (inputs["text_tokens"] == names_inputs(folder, frame, impute=False)["text_tokens"]).all()
    np.testing.assert_allclose(served(folder, inputs), bundle.predict(wide), rtol=0, atol=1e-5)


def test_values_beyond_and_at_the_ends_of_what_was_seen(layout, frame):
    bundle, folder, _ = layout
    far = [-3.4e38, -1e9, 0.0, 1e-30, 1e9, 3.4e38, float("inf"), float("-inf"), float("nan"), None]
    odd = frame[: len(far)].with_columns(
        amount=pl.Series(far, dtype=pl.Float64), device=pl.Series(["unseen"] * len(far))
    )
    inputs = names_inputs(folder, odd, impute=False)
    with np.errstate(over="ignore"):
        want = bundle.predict(odd)
    if bundle.features.config.scaling == "none":  # where 1e38 goes straight into the network
        far_out = np.array([value is not None and 1e30 < abs(value) < 1e39 for value in far])
        inputs = {name: value[~far_out] for name, value in inputs.items()}
        want = want[~far_out]
    np.testing.assert_allclose(served(folder, inputs), want, rtol=0, atol=1e-5)


def test_a_missing_risk_is_the_default(layout, frame):
    bundle, folder, _ = layout
    inputs = names_inputs(folder, frame, impute=False)
    inputs["tabular"][:, -1] = np.nan
    want = bundle.predict(frame.with_columns(device=pl.lit(None, pl.String)))
    np.testing.assert_allclose(served(folder, inputs), want, rtol=0, atol=1e-5)


def test_the_graph_names_and_shapes_its_inputs_as_published(layout):
    bundle, folder, _ = layout
    session = InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    lstm = bundle.model.config.model_class == "lstm2risk"
    second = ("text_lengths", "tensor(int64)", ["rows"]) if lstm else None
    second = second or ("attn_mask", "tensor(int64)", ["rows", "tokens"])
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("text_tokens", "tensor(int64)", ["rows", "tokens"]),
        second,
        ("tabular", "tensor(float)", ["rows", 5]),
    ]
    onnx.checker.check_model(folder / "model.onnx", full_check=True)


def test_defect_39_columns_and_tables_are_those_of_the_bundle_in_order(layout):
    bundle, folder, _ = layout
    lines = (folder / "feature_columns.txt").read_text().splitlines()
    assert lines[3:] == ["0,amount", "1,age", "2,constant", "3,days, since", "4,device"]
    assert "NaN" in lines[0] and "impute_dict" in lines[1] and lines[2].startswith("# From index 4 on")
    told = json.loads((folder / "hyperparameters.json").read_text())
    assert told["tab_field_list"] == NUMERIC and told["categorical_features_to_encode"] == ["device"]
    for name, key in (("impute_dict", "imputation_dict"), ("risk_table_map", "risk_tables")):
        content = json.loads((folder / f"{name}.json").read_text())
        assert content == told[key] == plain(folder / f"{name}.pkl")
        if name == "impute_dict":  # a consumer of it alone may take it for the training rows' median
            fills = bundle.features.imputation_
            assert content == pytest.approx(fills, rel=1e-4) and content["age"] == fills["age"]
            assert (content == fills) == (bundle.features.config.scaling == "none")
    assert content["device"].keys() == {"bins", "default_bin"}
    assert json.loads((folder / "vocab.json").read_text())["[PAD]"] == 1
    assert "front" not in str(told) and told["n_embed"] == bundle.tokenizer.vocab_size


PUBLISHED_KEYS = [
    "adam_epsilon", "batch_size", "cat_field_list", "categorical_features_to_encode",
    "chunk_trancate", "class_weights", "count_threshold", "device", "dropout_rate",
    "early_stop_metric", "early_stop_patience", "embedding_size", "fixed_tokenizer_length", "fp16",
    "full_field_list", "gradient_clip_val", "header", "hidden_size", "id_name", "label_name",
    "load_ckpt", "lr", "lr_decay", "max_epochs", "max_sen_len", "max_total_chunks",
    "metric_choices", "model_class", "momentum", "multiclass_categories", "n_blocks", "n_embed",
    "n_heads", "optimizer", "run_scheduler", "smooth_factor", "tab_field_list",
    "text_attention_mask_key", "text_field_overwrite", "text_input_ids_key", "text_name",
    "text_processing_steps", "text_source_fields", "use_gradient_checkpointing",
    "val_check_interval", "warmup_steps", "weight_decay",
]  # fmt: skip


def test_hyperparameters_have_every_published_key(layout):
    bundle, folder, _ = layout
    told = json.loads((folder / "hyperparameters.json").read_text())
    blocks = {"n_blocks", "n_heads"} if bundle.model.config.encoder == "lstm" else set()
    assert set(PUBLISHED_KEYS) - told.keys() == blocks
    assert [key for key in PUBLISHED_KEYS if told.get(key, 0) is None] == []


def test_defect_54_no_pickle_holds_anything_but_plain_data(layout, frame):
    bundle, folder, _ = layout
    weights = torch.load(folder / "model.pth", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    artefacts = torch.load(folder / "model_artifacts.pth", weights_only=True)
    assert artefacts["model_class"] == bundle.model.config.model_class
    assert artefacts["config"] == json.loads((folder / "hyperparameters.json").read_text())
    assert artefacts["vocab"]["|"] == 6 and artefacts["versions"]["torch"] == torch.__version__
    assert artefacts["embedding_matrix"].shape[0] == bundle.tokenizer.vocab_size
    assert TabularFeatures.from_dict(artefacts["features"]).to_dict() == bundle.features.to_dict()
    results = torch.load(folder / "predict_results.pth", weights_only=True)
    np.testing.assert_array_equal(results["y_true"], frame[LABEL])
    np.testing.assert_allclose(results["y_pred"], bundle.predict(frame)[:, 1], atol=1e-6)

    pickles = sorted(folder.rglob("*.pkl"))
    assert len(pickles) == 3
    for path in pickles:
        plain(path)


@pytest.mark.parametrize(
    "step", ["03_train_lstm2risk", pytest.param("04_train_transformer2risk", marks=pytest.mark.slow)]
)
def test_the_preset_goes_out_under_the_published_names_and_reads_case(frame, tmp_path, step):
    settings = resolve_parameters("dev", {}, ["preset=published"])
    spelling = {name: settings["02_tokenizer"][name] for name in ("lower_case", "fold_confusables")}
    tokenizer = train_tokenizer(frame.select(columns().text), TokenizerConfig(min_frequency=2, **spelling))[0]
    features = TabularFeatures(FeatureConfig(**fields(FeatureConfig, settings[step])))
    features.fit(frame, NUMERIC, ["device"])
    sizes = {name: settings[step][name] for name in ("n_tab_bins", "tab_gain_power")}
    sizes |= {"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features)}
    model = model_select(step[9:], **sizes, **SMALL[MODEL_CLASSES[step[9:]].encoder])
    recipe = (tokenizer, features, columns(), TrainConfig(), TextConfig(max_tokens=48))
    bundle = Bundle(*recipe, model=model.eval())
    bundle.save(tmp_path / "bundle")
    write_sagemaker(tmp_path / "bundle", folder := tmp_path / "layout")
    artefacts = torch.load(folder / "model_artifacts.pth", weights_only=True)
    weights = torch.load(folder / "model.pth", weights_only=True)
    assert artefacts["state_dict_names"] == "published"
    assert {key.split(".")[0] for key in weights} >= {"text_encoder", "tab_encoder", "classifier"}
    encode = Tokenizer.from_file(str(folder / "tokenizer.json")).encode
    assert {text: "".join(encode(text).tokens) for text in ("ANNA", "anna")} == {
        "ANNA": "ANNA",
        "anna": "anna",
    }
    assert set(json.loads((folder / "impute_dict.json").read_text()).values()) == {-1.0}
    inputs = names_inputs(folder, frame, impute=False)
    np.testing.assert_allclose(served(folder, inputs), bundle.predict(frame), rtol=0, atol=1e-5)


def test_defect_46_percentiles_are_those_of_the_calibration(layout, frame):
    bundle, folder, _ = layout
    pairs = plain(folder / "calibration" / "percentile_score.pkl")
    scores, percentiles = map(np.array, zip(*pairs, strict=True))
    assert pairs[0] == (0.0, 0.0) and pairs[-1] == (1.0, 1.0)
    assert (np.diff(scores) > 0).all() and (np.diff(percentiles) > 0).all()
    inner = scores[1:-1]
    np.testing.assert_array_equal(bundle.calibration.percentile(inner), percentiles[1:-1])
    seen = bundle.predict(frame)[:, 1].astype(float)
    interpolated = np.interp(seen, scores, percentiles)
    below = bundle.calibration.percentile(seen)
    assert (interpolated >= below - 1e-12).all() and np.abs(interpolated - below).max() < 0.3


def test_weights_have_the_names_under_which_they_score_right(layout):
    bundle, folder, _ = layout
    weights = torch.load(folder / "model.pth", weights_only=True)
    which = torch.load(folder / "model_artifacts.pth", weights_only=True)["state_dict_names"]
    c = bundle.model.config
    plain = bundle.features.config.scaling == "none"
    assert which == ("published" if plain else "n3r")
    if which == "n3r":
        bundle.model.load_state_dict(weights)
    else:
        kept = weights.keys() - {"class_weights_tensor", "loss_fn.weight"}
        assert {key.split(".")[0] for key in kept} == {"text_encoder", "tab_encoder", "classifier"}
        assert weights["class_weights_tensor"].tolist() == [1.0] * c.n_classes


def test_an_earlier_export_is_replaced_and_nothing_else_is(layout, tmp_path):
    _, folder, source = layout
    target = tmp_path / "out"
    target.mkdir()
    write_sagemaker(source, target)
    assert not (target / "predict_results.pth").exists()
    first = {
        path.name: path.read_bytes() for path in target.iterdir() if path.suffix != ".pth" and path.is_file()
    }
    write_sagemaker(source, target)
    assert first == {name: (target / name).read_bytes() for name in first}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (target / "my_notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"my_notes\.txt"):
        write_sagemaker(source, target)
    (target / "my_notes.txt").unlink()
    (target / "model.pth").unlink()
    with pytest.raises(ValueError, match="whole earlier export"):
        write_sagemaker(source, target)
    with pytest.raises(ValueError, match="MANIFEST"):
        write_sagemaker(source, source)
    with pytest.raises(ValueError, match="cannot write the layout"):
        write_sagemaker(source, target / "impute_dict.json" / "deeper")


def test_predictions_of_another_kind_are_refused(layout, frame, tmp_path):
    _, _, source = layout
    texts = frame.select(label=LABEL, score="email")
    for name, table, says in (
        ("p.csv", texts.drop("score"), r"p\.csv .*\n- 'score' is missing"),
        ("p.csv", texts, r"p\.csv, row 1, column 'score': is not a number"),
        ("p.json", texts, r"p\.json: the name must end in"),
    ):
        table.write_csv(tmp_path / name)
        with pytest.raises(ValueError, match=says):
            write_sagemaker(source, tmp_path / "out", tmp_path / name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model_class", "options", "texts"),
    [
        ("bimodal_bert", {}, ["email", "holder"]),
        pytest.param(
            "trimodal_gate_fusion", {"encoder": "cnn"}, ["email", "billing"], marks=pytest.mark.slow
        ),
        pytest.param("lstm", {}, ["email", "holder"], marks=pytest.mark.slow),
    ],
)
def test_other_classes_get_texts_in_chunks_and_each_column_by_its_name(
    model_class, options, texts, frame, tokenizer, tmp_path
):
    from transformers import AutoTokenizer

    row = MODEL_CLASSES[model_class]
    bert = options.get("encoder", row.encoder) == "bert"
    more = {"secondary_text": ["holder"]} if row.n_texts == 2 else {}
    used = train_wordpiece(frame.select("email", "billing"), 120) if bert else tokenizer
    bundle = make_bundle(frame, used, model_class, column_map=columns(text=texts, **more), **options)
    bundle.save(tmp_path / "bundle")
    write_sagemaker(tmp_path / "bundle", folder := tmp_path / "layout")
    assert (folder / "tokenizer").is_dir() == bert and (folder / "tokenizer.json").is_file() != bert
    inputs = {}
    for name, joined in (
        ("text", published_texts(folder, frame)),
        ("secondary", ["[MISSING]" if text is None else text for text in frame["holder"]]),
    )[: row.n_texts]:
        if bert:
            encoded = AutoTokenizer.from_pretrained(folder / "tokenizer")(joined, truncation=True)[
                "input_ids"
            ]
        else:
            encode = Tokenizer.from_file(str(folder / "tokenizer.json")).encode
            encoded = [encode(text).ids for text in joined]
        ids, mask = padded(encoded)
        inputs |= {f"{name}_input_ids": ids[:, None], f"{name}_attention_mask": mask[:, None]}
    numbers = published_numbers(folder, frame, impute=False) if row.tabular else np.empty((N, 0), np.float32)
    lines = (folder / "feature_columns.txt").read_text().splitlines()[3:]
    inputs |= {line.split(",", 1)[1]: numbers[:, [i]] for i, line in enumerate(lines)}
    scores = served(folder, inputs)
    np.testing.assert_allclose(scores, bundle.predict(frame), rtol=0, atol=1e-5)
    assert scores[:, 1].std() > 0.1
    artefacts = torch.load(folder / "model_artifacts.pth", weights_only=True)
    assert artefacts["state_dict_names"] == "n3r" and artefacts["embedding_matrix"].ndim == 2


def test_what_the_layout_cannot_say_is_refused(frame, tokenizer, tmp_path):
    odd = frame.rename({"age": "two\nlines", "amount": "probs"})
    odd = odd.with_columns(**{LABEL: pl.Series(np.arange(N) % 3, dtype=pl.Int8)})
    three = columns(numeric=["two\nlines", "probs"], label_values={"a": 0, "b": 1, "c": 2})
    make_bundle(odd, tokenizer, "bimodal_cnn", column_map=three).save(tmp_path / "bundle")
    with pytest.raises(
        ValueError, match=r"more than one line; .* one risk a category.*\['device'\]; .*'probs'"
    ):
        write_sagemaker(tmp_path / "bundle", tmp_path / "layout")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def features_graph() -> onnx.ModelProto:
    """A model's graph that gives back its features."""
    kinds = {"text": TensorProto.INT64, "attn_mask": TensorProto.BOOL, "tabular": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, kind, ["a", "b"]) for name, kind in kinds.items()]
    output = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["a", "c"])
    node = helper.make_node("Identity", ["tabular"], ["probs"])
    graph = helper.make_graph([node], "features", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


number = (
    st.none()
    | st.integers(-3, 3).map(float)
    | st.floats(-(2.0**100), 2.0**100, width=32)
    | st.just(float("nan"))
)


@given(
    table=st.integers(1, 40).flatmap(
        lambda n: st.lists(st.lists(number, min_size=n, max_size=n), min_size=1, max_size=3)
    ),
    n_quantiles=st.integers(2, 12),
    scaling=st.sampled_from(["quantile", "none"]),
)
def test_the_graph_makes_of_any_columns_what_the_features_do(table, n_quantiles, scaling):
    frame = pl.DataFrame({f"c{i}": pl.Series(column, dtype=pl.Float64) for i, column in enumerate(table)})
    features = TabularFeatures(FeatureConfig(n_quantiles=n_quantiles, scaling=scaling))
    features.fit(frame, frame.columns)
    if not len(features):
        return
    config = configure("transformer2risk", vocab_size=9, n_tab_features=len(features))
    graph = with_published_inputs(features_graph(), config, features)
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    other = frame.with_columns(pl.all().reverse() * 0.7).cast(pl.Float32).cast(pl.Float64)
    imputation, _ = published_tables(config, features)
    for rows in (frame, other):
        imputed = [pl.col(name).fill_nan(None).fill_null(value) for name, value in imputation.items()]
        for served_rows in (rows.with_columns(pl.all().fill_null(float("nan"))), rows.select(imputed)):
            raw = served_rows.to_numpy().astype(np.float32)
            tokens = np.ones((len(raw), 1), np.int64)
            inputs = {"text_tokens": tokens, "attn_mask": tokens, "tabular": raw}
            (found,) = session.run(["probs"], inputs)
            np.testing.assert_allclose(found, features.transform(rows), rtol=1e-6, atol=2e-6)


class LegacyFiles:
    """What a legacy training leaves behind, and what it scores."""

    def __init__(self, folder: Path, frame: pl.DataFrame, model_class: str):
        self.columns = ["amount", "age", "constant"]
        self.texts = [
            "|".join("[MISSING]" if t is None else t for t in row) for row in frame[columns().text].rows()
        ]
        self.tokenizer = LegacyTokenizer(min_frequency=3).train(self.texts)
        sizes = {
            "n_tab_features": 3,
            "n_embed": self.tokenizer.vocab_size,
            "embedding_size": 8,
            "hidden_size": 6,
        }
        if model_class == "lstm2risk":
            model = LegacyLSTM2Risk(LegacyLSTMConfig(**sizes, n_lstm_layers=2))
        else:
            config = LegacyTransformerConfig(**sizes, n_blocks=2, n_heads=4, block_size=12)
            model = LegacyTransformer2Risk(config)
        self.model, self.model_class, self.frame = shake(model), model_class, frame
        spread(self.model.net[-2], self.scores(batch_size=1))
        self.paths = [folder / name for name in ("model_3.pt", "tokenizer.json", "features.txt")]
        torch.save(self.model.state_dict(), self.paths[0])
        self.tokenizer.tokenizer.save(str(self.paths[1]))
        self.paths[2].write_text("\n".join(self.columns) + "\n")

    def scores(self, batch_size: int) -> np.ndarray:
        tabular = legacy_tabular(self.frame, self.columns)
        labels = self.frame[LABEL].to_numpy()
        data = LegacyTextDataset(self.texts, tabular, labels, self.tokenizer)
        return predict_legacy(self.model, data, batch_size)

    def imported(
        self, state_dict=None, model_class=None, tokenizer=None, features=None, column_map=None
    ) -> Bundle:
        given = (state_dict, tokenizer, features)
        state_dict, tokenizer, features = (a or b for a, b in zip(given, self.paths, strict=True))
        model_class, column_map = model_class or self.model_class, column_map or columns(numeric=["*"])
        return import_legacy(state_dict, model_class, tokenizer, features, column_map)


@pytest.fixture(scope="module", params=["lstm2risk", "transformer2risk"])
def legacy(request, frame, tmp_path_factory):
    wide = frame.with_columns(
        billing=pl.when(pl.col("age") > 40)
        .then(pl.col("billing").str.replace_all("a", "ａ"))
        .otherwise("billing")
    )
    return LegacyFiles(tmp_path_factory.mktemp("legacy"), wide, request.param)


def test_defect_39_legacy_weights_score_as_they_did(legacy):
    bundle = legacy.imported()
    alone = legacy.scores(batch_size=1)
    np.testing.assert_allclose(bundle.predict(legacy.frame)[:, 1], alone, rtol=0, atol=2e-6)
    assert alone.std() > 0.1
    if legacy.model_class == "lstm2risk":
        np.testing.assert_allclose(bundle.predict(legacy.frame)[:, 1], legacy.scores(512), rtol=0, atol=2e-6)
    assert bundle.column_map.numeric == legacy.columns and not bundle.column_map.categorical


def test_defect_13_a_typed_token_is_text_and_nfkc_is_inside(legacy):
    bundle = legacy.imported()
    typed = pl.DataFrame({name: ["[PAD] a|b ｆ"] for name in columns().text})
    ids = bundle.tokenizer.encode(typed).ids.tolist()
    assert 1 not in ids and 5 not in ids and ids.count(6) == 2
    plain = typed.select(pl.all().str.replace_all("ｆ", "f"))
    assert bundle.tokenizer.encode(plain).ids.tolist() == ids


@pytest.mark.parametrize(
    "legacy",
    ["transformer2risk", pytest.param("lstm2risk", marks=pytest.mark.slow)],
    indirect=True,
    scope="module",
)
def test_imported_weights_go_out_under_the_published_names(legacy, tmp_path):
    """The published class's weights, mapped back by the table of its authors, are the legacy's own."""
    bundle = legacy.imported()
    bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle").predictions(legacy.frame)["score"]
    np.testing.assert_array_equal(again, bundle.predictions(legacy.frame)["score"])
    write_sagemaker(tmp_path / "bundle", tmp_path / "layout")
    published = torch.load(tmp_path / "layout" / "model.pth", weights_only=True)
    lstm = legacy.model_class == "lstm2risk"
    back = [
        (r"^text_encoder\.token_embedding\.", "text_projection.token_embedding_table."),
        (r"^text_encoder\.position_embedding\.", "text_projection.position_embedding_table."),
        (r"^text_encoder\.pooling\.", f"text_projection.{'lstm' if lstm else 'attention'}_pooling."),
        (r"^text_encoder\.norm\.", "text_projection.lstm_norm."),
        (r"\.self_attn\.", ".sa."),
        (r"(blocks\.\d+)\.ffn\.", r"\1.ffwd."),
        (r"^text_encoder\.", "text_projection."),
        (r"^tab_encoder\.", "tab_projection."),
        (r"^classifier\.(\d+)\.norm\.", r"net.\1.ffwd.0."),
        (r"^classifier\.(\d+)\.ffn\.0\.", r"net.\1.ffwd.1." if lstm else r"net.\1.net.0."),
        (r"^classifier\.(\d+)\.ffn\.2\.", r"net.\1.ffwd.3." if lstm else r"net.\1.net.2."),
        (r"^classifier\.", "net."),
    ]
    found = {}
    for key, value in published.items():
        for pattern, name in back:
            key = re.sub(pattern, name, key)
        found[key] = value
    assert found.pop("class_weights_tensor").tolist() == found.pop("loss_fn.weight").tolist() == [1.0, 1.0]
    want = {key: value for key, value in legacy.model.state_dict().items() if "tab_layer" not in key}
    assert found.keys() == want.keys()
    for key, value in want.items():
        if key.startswith("net.12."):
            value = torch.cat([torch.zeros_like(value), value])
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)
    inputs = names_inputs(tmp_path / "layout", legacy.frame, impute=False)
    np.testing.assert_allclose(
        served(tmp_path / "layout", inputs)[:, 1], legacy.scores(batch_size=1), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "text", ["# a\n# b\n# c\n0,amount\n1,age\n2,constant\n", "amount\r\nage\r\n\r\nconstant"]
)
def test_feature_lists_of_every_kind_are_read(legacy, tmp_path, text):
    (tmp_path / "f.txt").write_text(text)
    (tmp_path / "f.json").write_text(json.dumps(legacy.columns))
    for name in ("f.txt", "f.json"):
        assert legacy.imported(features=tmp_path / name).column_map.numeric == legacy.columns


class Malicious:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_defect_54_a_pickle_that_runs_code_is_refused(legacy, tmp_path):
    bad, mark = tmp_path / "model_9.pt", tmp_path / "it_ran"
    content = {**legacy.model.state_dict(), "extra": Malicious(mark)}
    torch.save(content, bad)
    with pytest.raises(ValueError, match=r"model_9\.pt cannot be read as tensors alone"):
        legacy.imported(state_dict=bad)
    bad.write_bytes(pickle.dumps(Malicious(mark), protocol=2))
    with pytest.raises(ValueError, match=r"model_9\.pt cannot be read as tensors alone"):
        legacy.imported(state_dict=bad)
    assert not mark.exists()
    pickle.loads(bad.read_bytes())  # it is a working one
    assert mark.exists()


def test_wrong_weights_are_named(legacy, tmp_path):
    path, whole = tmp_path / "model_1.pt", legacy.model.state_dict()
    bent = {**whole, "net.12.weight": torch.zeros(1, 3)}
    lacking = {name: value for name, value in whole.items() if name != "net.12.bias"}
    for content, says in (
        ({"state_dict": whole}, r"model_1\.pt is not a state_dict"),
        (lacking, r"model_1\.pt: not a legacy .*net\.12\.bias"),
        (bent, r"model_1\.pt is not a legacy .*head\.net\.12"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=says):
            legacy.imported(state_dict=path)
    other = {"lstm2risk": "transformer2risk", "transformer2risk": "lstm2risk"}[legacy.model_class]
    with pytest.raises(ValueError, match=rf"model_3\.pt holds no {other} but .*{legacy.model_class}"):
        legacy.imported(model_class=other)
    with pytest.raises(ValueError, match="expected lstm2risk or transformer2risk"):
        legacy.imported(model_class="bimodal_bert")
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        legacy.imported(state_dict=tmp_path / "absent.pt")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"tokenizer": "other.json", "features": "few.txt"},
            r"other\.json has {size} tokens, .*model_3\.pt {own}; .*few\.txt has 2 columns, .* 3$",
        ),
        ({"column_map": {"label_values": {"a": 0, "b": 1, "c": 2}}}, "the column map has 3 classes"),
        ({"column_map": {"segment": "age"}}, r"features\.txt.*'age' is listed as numeric and also"),
        ({"features": "twice.json"}, r"twice\.json names \['age'\] twice"),
        ({"features": "broken.json"}, r"broken\.json cannot be read as a list"),
        ({"tokenizer": "broken.json"}, r"broken\.json is not a tokenizer file"),
    ],
)
def test_what_does_not_go_with_the_weights_is_named(legacy, tmp_path, tokenizer, changes, says):
    size, own = tokenizer.vocab_size, legacy.tokenizer.vocab_size
    assert size != own
    tokenizer.tokenizer.save(str(tmp_path / "other.json"))
    for name, text in {
        "few.txt": "amount\nage\n",
        "twice.json": '["age", "age", "amount"]',
        "broken.json": "[",
    }.items():
        (tmp_path / name).write_text(text)
    given = {
        key: columns(numeric=[], **value) if key == "column_map" else tmp_path / value
        for key, value in changes.items()
    }
    with pytest.raises(ValueError, match=says.replace("{size}", str(size)).replace("{own}", str(own))):
        legacy.imported(**given)
