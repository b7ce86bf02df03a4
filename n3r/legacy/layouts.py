"""The published artefact layout written from a bundle, and legacy weights read into one.

Decisions:
- The files of the layout agree with each other (defects 2, 12, 13). A server that joins a row's texts,
  encodes them with tokenizer.json, looks categories up in risk_table_map and feeds the columns of
  feature_columns.txt to model.onnx gets n3r's score.
- A missing number scores as in n3r, whether it comes as NaN or imputed by impute_dict, as the published
  server does it.
- Weights get the published names only if the published class then scores as the model does.
- The published code reads pickles, so they are written, of plain lists and dicts. None is read: legacy
  weights pass torch's `weights_only`, which takes tensors and runs no code (defect 54).
"""

import json
import pickle
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import ValidationError
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from n3r.bundle import Bundle
from n3r.features import FeatureConfig, TabularFeatures
from n3r.files.atomic import atomic_folder, writing
from n3r.files.json_io import explain, write_json
from n3r.files.limits import check_zip
from n3r.files.manifest import versions
from n3r.legacy.artefacts import (
    FRONT,
    NAMES_CLASSES,
    OURS,
    RESERVED,
    has_published_weights,
    hyperparameters,
    is_names_model,
    published_tables,
    raw_columns,
    to_published,
    with_published_inputs,
)
from n3r.legacy.feature_lists import read_feature_list
from n3r.legacy.weights import to_n3r
from n3r.model import RiskModel, configure
from n3r.rows.chunks import read_frames
from n3r.rows.inputs import Inputs, require
from n3r.schema import LABEL, MISSING, SEPARATOR, ColumnMap, plain
from n3r.tokenizer import SPECIAL_TOKENS, NameTokenizer, TextConfig, read_tokenizer
from n3r.train import TrainConfig

ALWAYS = ("feature_columns.txt", "hyperparameters.json", "model.onnx", "model.pth", "model_artifacts.pth")
LAYOUT = (
    *ALWAYS,
    *("impute_dict.json", "impute_dict.pkl", "risk_table_map.json", "risk_table_map.pkl"),
    *("tokenizer.json", "vocab.json", "tokenizer", "calibration"),
    *("model.onnx.data", "predict_results.pth"),
)
NO_CUT = 1_000_000  # tokens; a legacy Transformer's texts are cut by its collate alone


def write_sagemaker(bundle: Path, folder: Path, predictions: Path | None = None) -> None:
    """Write the published artefact layout of a saved bundle into `folder`.

    `predictions`, a table with `label` and `score` (or `score_0`, ..), becomes predict_results.pth. A folder
    that is there is replaced if it is empty or a whole earlier export. What a text joined by the published
    server cannot say: a bar, [MISSING] or [SEP] that was typed (defect 15), where a row of more tokens than
    the model reads is cut, and n3r's chunks of a dialogue. Raises FileNotFoundError, or ValueError naming
    what cannot be written.
    """
    bundle, folder = Path(bundle), Path(folder)
    loaded = Bundle.load(bundle)
    _refuse_foreign(folder)
    if problems := _inexpressible(loaded):
        raise ValueError(f"the published layout cannot hold {bundle}: {'; '.join(problems)}")
    results = None if predictions is None else _results(Path(predictions), loaded.model.config.n_classes)
    with atomic_folder(folder, "the layout", ALWAYS[0]) as aside:
        _write_tables(loaded, aside)
        _write_weights(loaded, aside)
        _write_tokenizer(loaded, aside)
        _write_graph(bundle, loaded, aside)
        if results:
            _save(results, aside / "predict_results.pth")


def _save(content: Any, path: Path) -> None:
    with writing(path, RuntimeError):  # torch's, of a full disk
        torch.save(content, path)


def _refuse_foreign(folder: Path) -> None:
    """Raise ValueError if the folder has something that this module did not write."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if foreign := sorted(names - set(LAYOUT)):
        raise ValueError(f"{folder} holds {', '.join(foreign[:5])}: give a new or empty folder")
    if names and not names.issuperset(ALWAYS):
        raise ValueError(f"{folder} is neither empty nor a whole earlier export: give another folder")


def _inexpressible(bundle: Bundle) -> list[str]:
    """What keeps a bundle from being true in the published layout."""
    config, features = bundle.model.config, bundle.features
    columns, (_, tables) = raw_columns(config, features), published_tables(config, features)
    problems = [f"the column name {n!r} is more than one line" for n in columns if len(n.splitlines()) > 1]
    if tables and config.n_classes > 2:
        problems.append(f"it has one risk a category, of two classes; there are more for {list(tables)}")
    if config.n_tab_features and features.identity:
        problems.append("it reads identity features, which that layout does not know")
    if bundle.others:
        problems.append("its second text has a tokenizer of its own, and that layout has room for one")
    if not is_names_model(config):
        taken = [name for name in columns if name in RESERVED or name.startswith((OURS, FRONT))]
        problems += [f"its graph has a value of its own called {name!r}: rename the column" for name in taken]
    return problems


def _results(path: Path, n_classes: int) -> dict[str, Tensor]:
    """y_true (N,) and y_pred, (N,) of class 1 or (N, C), of the labelled rows of a table of predictions."""
    label, scores = plain(LABEL), ["score"] if n_classes == 2 else [f"score_{c}" for c in range(n_classes)]
    names = [label, *scores]
    check = partial(require, inputs=Inputs(None, [], names, []), where=str(path))
    frame = pl.concat(read_frames(path, lambda _: names, names, check)).cast(pl.Float64)
    frame = frame.filter(pl.col(label) >= 0)
    y_pred = frame["score"] if n_classes == 2 else frame.select(scores)
    return {"y_true": frame[label].cast(pl.Int64).to_torch(), "y_pred": y_pred.to_torch()}


def _write_tables(bundle: Bundle, folder: Path) -> None:
    """The columns, what is done to them, the hyperparameters and, where there is one, the percentile map."""
    config, features = bundle.model.config, bundle.features
    imputation, tables = published_tables(config, features)
    lines = [
        "# index,name of the columns that model.onnx reads: numbers as they are, a missing one as NaN or",
        "# imputed by impute_dict, which scores the same: the graph takes what stands there for missing.",
        f"# From index {len(imputation)} on, a category's risk (by risk_table_map).",
        *(f"{i},{name}" for i, name in enumerate(raw_columns(config, features))),
    ]
    (folder / "feature_columns.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, content in (("impute_dict", imputation), ("risk_table_map", tables)):
        write_json(folder / f"{name}.json", content)
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(content))
    write_json(folder / "hyperparameters.json", hyperparameters(bundle))
    if bundle.calibration and bundle.calibration.thresholds is not None:
        (folder / "calibration").mkdir()
        pairs = _percentile_pairs(bundle.calibration.thresholds)
        (folder / "calibration" / "percentile_score.pkl").write_bytes(pickle.dumps(pairs))


def _percentile_pairs(thresholds: np.ndarray) -> list[tuple[float, float]]:
    """(score, percentile) ascending, with the published anchors.

    At a threshold the percentile is n3r's; between two the published server interpolates.
    """
    highest = {float(t): i / 1000 for i, t in enumerate(thresholds, start=1) if 0 < t < 1}
    return [(0.0, 0.0), *highest.items(), (1.0, 1.0)]


def _write_weights(bundle: Bundle, folder: Path) -> None:
    """model.pth, tensors alone, and model_artifacts.pth, what goes with them; for `weights_only` both."""
    config = bundle.model.config
    weights = {name: value.cpu().clone() for name, value in bundle.model.state_dict().items()}
    published = has_published_weights(config, bundle.features)
    if published:
        of_classes = torch.tensor(bundle.train_config.class_weights or [1.0] * config.n_classes)
        weights = to_published(weights, config.n_heads)
        weights |= {"class_weights_tensor": of_classes, "loss_fn.weight": of_classes.clone()}
    _save(weights, folder / "model.pth")
    encoder = bundle.model.texts[0].encoder
    embedding = encoder.bert.get_input_embeddings() if config.encoder == "bert" else encoder.embedding
    artefacts = {
        "config": hyperparameters(bundle),
        "embedding_matrix": embedding.weight.detach().cpu().clone(),
        "vocab": bundle.tokenizer.tokenizer.get_vocab(),
        "model_class": config.model_class,
        "state_dict_names": "published" if published else "n3r",
        "features": bundle.features.to_dict(),  # what feeds these weights; model.onnx does it itself
        "versions": versions(),
    }
    _save(artefacts, folder / "model_artifacts.pth")


def _write_tokenizer(bundle: Bundle, folder: Path) -> None:
    """tokenizer.json and vocab.json, or the folder tokenizer/ of a BERT.

    The published server encodes a row's fields joined to one text, so here, unlike in the bundle, the bar and
    [MISSING] are looked for in texts, and BERT's [CLS] and [SEP] are put around them.
    """
    tokenizer = Tokenizer.from_str(bundle.tokenizer.tokenizer.to_str())
    if bundle.tokenizer.kind == "bpe":
        tokenizer.add_special_tokens([AddedToken(token) for token in (MISSING, SEPARATOR)])
        tokenizer.save(str(folder / "tokenizer.json"))
        vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        write_json(folder / "vocab.json", dict(vocab))
        return
    from transformers import PreTrainedTokenizerFast

    roles = {role: bundle.tokenizer.metadata[role] for role in ("cls_token", "sep_token", "pad_token")}
    ends = [roles["cls_token"], roles["sep_token"]]
    tokenizer.post_processor = TemplateProcessing(
        single=[ends[0], "$A", ends[1]], special_tokens=[(end, tokenizer.token_to_id(end)) for end in ends]
    )
    unknown = json.loads(tokenizer.to_str())["model"].get("unk_token")
    roles |= {"unk_token": unknown} if isinstance(unknown, str) else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=bundle.texts.max_tokens, **roles
    )
    fast.save_pretrained(folder / "tokenizer")


def _write_graph(source: Path, bundle: Bundle, folder: Path) -> None:
    """The bundle's own graph with the published inputs; weights in a second file are copied as they are."""
    import onnx

    path = folder / "model.onnx"
    graph = onnx.load(source / path.name, load_external_data=False)
    onnx.save(with_published_inputs(graph, bundle.model.config, bundle.features), path)
    if (weights := source / "model.onnx.data").is_file():
        shutil.copyfile(weights, folder / weights.name)
    onnx.checker.check_model(path, full_check=True)


def import_legacy(
    state_dict: Path, model_class: str, tokenizer: Path, features: Path, column_map: ColumnMap
) -> Bundle:
    """A bundle of a legacy `models/model_{epoch}.pt`, "lstm2risk" or "transformer2risk".

    tokenizer: the legacy's tokenizer.json. features: its tabular columns in the order of the weights, a list
    as of feature_lists.py; they become the map's numeric columns. Raises
    FileNotFoundError, or ValueError naming the file at fault, what it holds and what was expected.

    NOTE[DIFF] a typed bar or special token is text (defect 15), NaN is missing (defect 38), padding weighs
    nothing in a Transformer's pool (defect 10), and an LSTM reads 512 tokens of a text.
    """
    state_dict, tokenizer, features = Path(state_dict), Path(tokenizer), Path(features)
    if absent := [str(path) for path in (state_dict, tokenizer, features) if not path.is_file()]:
        raise FileNotFoundError(f"no such file: {', '.join(absent)}")
    weights, dimensions = _legacy_weights(state_dict, model_class)
    names, names_tokenizer = read_feature_list(features), _names_tokenizer(tokenizer, column_map)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{features} names {twice} twice")
    sizes = (
        (tokenizer, "tokens", names_tokenizer.vocab_size, dimensions["vocab_size"]),
        (features, "columns", len(names), dimensions["n_tab_features"]),
        ("the column map", "classes", column_map.n_classes, 2),
    )
    wrong = [f"{what} has {n} {unit}, {state_dict} {own}" for what, unit, n, own in sizes if n != own]
    if wrong:
        raise ValueError("; ".join(wrong))
    try:
        model = RiskModel(configure(model_class, **dimensions))
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{state_dict} is not a legacy {model_class}: {' '.join(str(error).split())}"
        ) from None
    columns = _with_numeric(column_map, names, features)
    texts = TextConfig(max_tokens=NO_CUT) if model_class == "transformer2risk" else TextConfig()
    recipe = (names_tokenizer, _plain_features(names), columns, TrainConfig(), texts)
    return Bundle(*recipe, model=model.eval())


def _legacy_weights(path: Path, model_class: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """A legacy model's weights under n3r's names, and the dimensions that their shapes tell."""
    check_zip(path)
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # torch raises many kinds; their texts advise to load it all the same
        raise ValueError(
            f"{path} cannot be read as tensors alone; it was not loaded, because it could run code"
        ) from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} is not a state_dict, names and their tensors: save `model.state_dict()`")
    if model_class in NAMES_CLASSES and not any(f".{_MARK[model_class]}" in key for key in found):
        others = [name for name, mark in _MARK.items() if any(f".{mark}" in key for key in found)]
        raise ValueError(f"{path} holds no {model_class} but {others or 'something else'}")
    try:
        weights = to_n3r(found, model_class)
        return weights, _dimensions(found, weights)
    except (ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None


_MARK = {"lstm2risk": "lstm_norm.weight", "transformer2risk": "position_embedding_table.weight"}


def _dimensions(legacy: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, int]:
    vocab_size, embedding_size = weights["texts.0.encoder.embedding.weight"].shape
    found = {
        "vocab_size": vocab_size,
        "embedding_size": embedding_size,
        "n_tab_features": weights["tabular.net.0.weight"].shape[0],
    }
    if "texts.0.encoder.position.weight" not in weights:
        layers = [key for key in weights if re.search(r"weight_hh_l\d+$", key)]
        return found | {"hidden_size": weights[layers[0]].shape[1], "n_lstm_layers": len(layers)}
    return found | {
        "hidden_size": weights["texts.0.pool.proj.weight"].shape[0] // 2,
        "block_size": weights["texts.0.encoder.position.weight"].shape[0],
        "n_blocks": sum(key.endswith(".qkv.weight") for key in weights),
        "n_heads": sum(".blocks.0.sa.heads." in key for key in legacy),
    }


def _names_tokenizer(path: Path, column_map: ColumnMap) -> NameTokenizer:
    """A legacy tokenizer.json as n3r reads texts, with NFKC inside it (defect 13)."""
    state = json.loads(read_tokenizer(path).to_str())
    own = [state["normalizer"]] if state["normalizer"] else []
    bar = {"type": "Replace", "pattern": {"String": SEPARATOR}, "content": "¦"}
    state["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, *own, bar]}
    state |= {"added_tokens": [], "truncation": None, "padding": None}
    metadata = {"model_type": "BPE", "special_tokens": SPECIAL_TOKENS, "text_fields": column_map.text}
    try:
        return NameTokenizer(Tokenizer.from_str(json.dumps(state, allow_nan=False)), metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _plain_features(names: Sequence[str]) -> TabularFeatures:
    """Raw numbers, -1 where missing, as the legacy reads them."""
    config = FeatureConfig(scaling="none", imputation="minus_one")
    state = TabularFeatures(config).to_dict() | {"imputation": dict.fromkeys(names, -1.0)}
    return TabularFeatures.from_dict(state)


def _with_numeric(column_map: ColumnMap, names: list[str], path: Path) -> ColumnMap:
    """The map with the legacy's columns for its own; the legacy reads no categories and no second text."""
    changed = {"numeric": names, "categorical": [], "secondary_text": []}
    try:
        return ColumnMap(**(column_map.model_dump() | changed))
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, ColumnMap.model_fields)}") from None
