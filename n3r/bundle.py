"""A recipe (what is needed to train) and a bundle (one folder with the model and all it needs to score).

Decisions:
- JSON, safetensors and ONNX only; nothing is ever unpickled. manifest.py knows the files and checks that
  they are complete; score.py scores from a bundle without torch.
- A bundle is written under another name, its manifest last, and then renamed: a folder with the final name
  is complete.
- Calibration is fitted on the validation rows when a model is trained, not when it is scored.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from n3r.calibrate import Calibration, fit_calibration
from n3r.card import model_card
from n3r.checkpoints import is_first_of_machine, is_first_process, machine, plan
from n3r.data import OrderDataset, make_loader, open_store, write_store
from n3r.encode import TEXT_KEYS, PerText, RowEncoder, text_readers
from n3r.export import export_onnx, onnx_scores, quantize_onnx
from n3r.features import TabularFeatures
from n3r.files.atomic import atomic_folder
from n3r.files.json_io import read_json, write_json
from n3r.files.lock import awaited
from n3r.files.manifest import MANIFEST, MAX_BYTES, verify, versions, write_manifest, written_by
from n3r.metrics import paired_auc
from n3r.model import ModelConfig, RiskModel
from n3r.predictions import prediction_table
from n3r.rows.amounts import amounts
from n3r.rows.parts import Rows, portions, rows_digest, sample, slices
from n3r.schema import LABEL, TIME, ColumnMap
from n3r.score import read_parts, read_readers
from n3r.tokenizer import BertTokenizer, NameTokenizer, Reader, TextConfig
from n3r.train import Fitted, TrainConfig, collate_for, fit, predict


@dataclass(frozen=True)
class Recipe:
    """What a model is trained with, beside its own config and the rows."""

    tokenizer: NameTokenizer | BertTokenizer
    features: TabularFeatures
    column_map: ColumnMap
    train_config: TrainConfig = TrainConfig()
    texts: TextConfig = TextConfig()
    data: Mapping[str, Any] = field(default_factory=dict)  # what the rows are: source, fingerprint, n_rows
    others: Mapping[str, Reader] = field(default_factory=dict)  # of texts that `tokenizer` does not read

    @property
    def pad_tokens(self) -> dict[str, int]:
        """What fills batches of each text, by the batch key of its ids."""
        return {key: self.others.get(key, self).tokenizer.pad_token for key in TEXT_KEYS}

    def encoder(self, keys: Iterable[str], joined: bool = False) -> RowEncoder:
        """What reads rows for a model of the texts `keys`; ValueError as `text_readers`."""
        readers = text_readers(keys, Reader(self.tokenizer, self.texts), self.others)
        return RowEncoder(self.column_map, readers, self.features, joined)

    def read(self, frame: pl.DataFrame, n_texts: int, training: bool = False) -> OrderDataset:
        """Prepared rows as a model of `n_texts` texts reads them; `training` as `OrderDataset.from_frame`."""
        return OrderDataset.from_frame(frame, self.encoder(list(TEXT_KEYS)[:n_texts]), training)

    @property
    def reading(self) -> list[Any]:
        """All that decides, with the rows, what a model reads of them."""
        readers = [("", Reader(self.tokenizer, self.texts)), *self.others.items()]
        texts = [
            (key, reader.texts.model_dump(), reader.tokenizer.metadata, reader.tokenizer.tokenizer.to_str())
            for key, reader in readers
        ]
        return [self.column_map.model_dump(), self.features.to_dict(), *texts]

    def stored(self, rows: Rows, n_texts: int, folder: Path, training: bool = False) -> OrderDataset:
        """`read` of rows of any number, from a store in `folder`, which is written unless it is there.

        Of several processes of a machine one writes, and the others wait.
        """
        made_by = plan([self.reading, n_texts, training, rows_digest(rows)])
        with awaited(folder.parent):
            try:
                return open_store(folder, made_by)
            except (FileNotFoundError, ValueError):  # of an earlier training, or cut short
                encoder = self.encoder(list(TEXT_KEYS)[:n_texts])
                write_store(folder, OrderDataset.from_rows(rows, encoder, training), made_by)
            return open_store(folder, made_by)


@dataclass(frozen=True, kw_only=True)
class Bundle(Recipe):
    """A model, the recipe that it was trained with, and what was measured of it; `data` has its splits."""

    model: RiskModel
    metrics: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def settings(self) -> list[Any]:
        """All that decides, with the rows, what a training like this one gives."""
        return [self.model.config.model_dump(), self.train_config.model_dump(), *self.reading]

    def dataset(self, frame: pl.DataFrame) -> OrderDataset:
        """Prepared rows as this model reads them."""
        return self.read(frame, self.model.config.n_texts)

    def predict(self, rows: Rows) -> np.ndarray:
        """Class probabilities (N, C) of prepared rows of any number, in their order."""
        pads = self.pad_tokens
        return np.concatenate([predict(self.model, self.dataset(part), pads) for part in portions(rows)])

    def prediction_parts(self, rows: Rows) -> Iterator[pl.DataFrame]:
        """`predictions` of rows of any number, some at a time."""
        return (self.predictions(part) for part in slices(rows))

    def predictions(self, rows: Rows) -> pl.DataFrame:
        """`predict` as a table, `predictions.prediction_table`; ValueError for rows without an id."""
        return prediction_table(rows, self.column_map.id, self.predict(rows))

    def save(self, folder: Path, int8_rows: Rows | None = None) -> None:
        """Write the bundle under `folder`, replacing one that is there only when it is complete.

        With `int8_rows`, prepared and labelled, a second graph has 8-bit weights, and what these change is
        measured on a sample of them. Of several processes only the first one writes, and the others do not
        wait for it. Raises ValueError when the folder cannot be written or the model does not scale as its
        features say, and RuntimeError when there is no correct graph.
        """
        is_scaled = self.features.knots is not None and self.model.config.n_tab_features > 0
        if is_scaled != (self.model.scaling is not None):
            raise ValueError("the model does not scale its features as they say: build it with their knots")
        if is_first_process():
            with atomic_folder(folder, "the bundle", MANIFEST, SafetensorError) as aside:
                self._write(aside, int8_rows)

    def _write(self, folder: Path, int8_rows: Rows | None) -> None:
        save_file(self.model.state_dict(), folder / "model.safetensors")
        export_onnx(self.model, folder / "model.onnx")
        measured = self.metrics
        if int8_rows is not None:
            measured = {**measured, "int8": self._quantize(folder, sample(int8_rows)[0])}
        mode = (folder / "model.onnx").stat().st_mode
        (folder / "model.safetensors").chmod(mode)  # safetensors lets its owner alone read it
        calibration = self.calibration or _calibrate(self.model, None, self.pad_tokens)
        configs = self.model.config.model_dump(), self.train_config.model_dump()
        n_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        write_parts(folder, self, *configs, measured, calibration, n_parameters)

    def _quantize(self, folder: Path, rows: pl.DataFrame) -> dict[str, Any]:
        """Write the graph of 8-bit weights beside the other; what it changes on labelled rows."""
        graph, small = folder / "model.onnx", folder / "model.int8.onnx"
        quantize_onnx(graph, small)
        scores = {path: np.empty((len(rows), self.model.config.n_classes)) for path in (graph, small)}
        collate = collate_for(self.model.config, self.pad_tokens)
        for batch in make_loader(self.dataset(rows), collate, 512):
            for path, found in scores.items():
                found[batch["row_id"].numpy()] = onnx_scores(path, batch)
        return int8_effect(rows[LABEL].to_numpy(), scores[small], scores[graph])

    @classmethod
    def load(cls, folder: Path, max_bytes: int = MAX_BYTES) -> "Bundle":
        """Read a bundle after `manifest.verify`; the model is in eval mode on the CPU.

        Raises FileNotFoundError or ValueError naming the files at fault.
        """
        folder = Path(folder)
        writers = verify(folder, max_bytes)
        config, column_map, features, calibration, texts = read_parts(folder)
        if not (folder / "model.safetensors").is_file():
            raise ValueError(
                f"{folder} is a blend, which is a graph and no torch module: take its model.onnx"
            )
        try:
            model_config, train_config = ModelConfig(**config["model"]), TrainConfig(**config["train"])
        except (KeyError, TypeError, ValidationError):
            raise ValueError(f"{folder / 'config.json'} does not describe a model and its training") from None
        with written_by(folder / "model.safetensors", "torch", writers):
            model = _with_weights(model_config, features.knots, folder / "model.safetensors")
        (tokenizer, texts), others = read_readers(folder, config, texts, writers)
        measured = read_json(folder / "metrics.json")
        recipe = (tokenizer, features, column_map, train_config, texts, config["data"], others)
        return cls(*recipe, model=model.eval(), metrics=measured, calibration=calibration)


def int8_effect(label: np.ndarray, p_int8: np.ndarray, p: np.ndarray) -> dict[str, Any]:
    """What 8-bit weights change of probabilities (N, C) and, for two classes, of their AUC."""
    moved = {"rows": len(p), "largest_move": float(np.abs(p_int8 - p).max())}
    if p.shape[1] > 2:
        return moved
    paired = paired_auc(label, p_int8[:, 1], p[:, 1])
    aucs = {"auroc": paired.auc_b, "auroc_int8": paired.auc_a}
    return {**moved, **aucs, **paired.difference.columns("difference")}


def write_parts(
    folder: Path,
    recipe: Recipe,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    measured: Mapping[str, Any],
    calibration: Calibration,
    n_parameters: int | None,
) -> None:
    """Complete a bundle's folder that holds the graph: what the graph reads and how it was made, as JSON."""
    recipe.tokenizer.save(folder)
    columns, calibrated = recipe.column_map.model_dump(), calibration.to_dict()
    texts = recipe.texts.model_dump()
    config = {"model": dict(model), "train": dict(training), "texts": texts, "data": recipe.data}
    for key, reader in recipe.others.items():
        reader.tokenizer.save(folder, f"{key}_")
        config[key] = reader.texts.model_dump()
    write_json(folder / "config.json", config)
    write_json(folder / "features.json", recipe.features.to_dict())
    write_json(folder / "columns.json", columns)
    write_json(folder / "metrics.json", measured)
    write_json(folder / "calibration.json", calibrated)
    config["versions"] = versions()
    card = model_card(config, columns, measured, calibrated, recipe.data, n_parameters)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    write_manifest(folder)


def train_bundle(
    model_config: ModelConfig, splits: Mapping[str, Rows], recipe: Recipe, folder: Path
) -> tuple[Bundle, Fitted]:
    """Train a model on prepared splits; its calibration is fitted on the validation rows, if there are any.

    A bundle is a recipe as well: that of another training like it. `folder` keeps the training's checkpoints
    and, while it trains, what the model reads of the rows. Raises ValueError as `fit` does.
    """
    _check_vocabularies(model_config, recipe)
    stores = Path(folder) / "rows" / machine()
    train, val = (
        recipe.stored(splits[name], model_config.n_texts, stores / name, training=name == "train")
        if len(splits[name])
        else None
        for name in ("train", "val")
    )
    pads, knots = recipe.pad_tokens, recipe.features.knots
    fitted = fit(model_config, train, val, recipe.train_config, folder, pads, knots=knots)
    calibration = _calibrate(fitted.model, val, pads, amounts(splits["val"]))
    own = {part.name: getattr(recipe, part.name) for part in fields(Recipe)}
    own["data"] = {**recipe.data, "splits": describe_splits(splits)}
    if is_first_of_machine():
        shutil.rmtree(stores, ignore_errors=True)
        with suppress(OSError):  # another machine's is there
            stores.parent.rmdir()
    return Bundle(**own, model=fitted.model, calibration=calibration), fitted


def _check_vocabularies(config: ModelConfig, recipe: Recipe) -> None:
    """Raise ValueError where a text starts from one BERT's weights and is read by another's tokenizer."""
    for key, branch in config.of_texts.items():
        source, tokenizer = branch.pretrained or branch.embeddings, recipe.others.get(key, recipe).tokenizer
        if source and tokenizer.vocabulary != BertTokenizer.from_pretrained(source).vocabulary:
            raise ValueError(
                f"the {key} starts from {source} and is read by a tokenizer of another vocabulary: "
                "take the tokenizer of that model"
            )


def _with_weights(config: ModelConfig, knots: np.ndarray | None, path: Path) -> RiskModel:
    """The model of a config with a file's weights; ValueError for other sizes, before any are allocated."""
    with torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in RiskModel(config).state_dict().items()}
    with safe_open(path, "pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dict
    if found != wanted:
        raise ValueError("its weights are not of the sizes that config.json describes")
    model = RiskModel(config, knots=knots)
    model.load_state_dict(load_file(path))
    return model


def _calibrate(
    model: RiskModel, val: OrderDataset | None, pads: PerText, amount: np.ndarray | None = None
) -> Calibration:
    """Fitted on the validation rows; without any, one that says so."""
    if val is None:
        return fit_calibration(np.empty(0, np.int64), np.empty((0, model.config.n_classes)))
    return fit_calibration(val.label, predict(model, val, pads), amount=amount)


def describe_splits(splits: Mapping[str, Rows]) -> dict[str, dict[str, Any]]:
    """Of each prepared split its rows, rows of each class, and first and last time."""
    return {name: _describe(rows) for name, rows in splits.items()}


def _describe(rows: Rows) -> dict[str, Any]:
    has_times = TIME in rows.columns
    times = [pl.col(TIME).min().alias("from"), pl.col(TIME).max().alias("to")] if has_times else []
    parts = [part.group_by(LABEL).agg(pl.len().alias("n"), *times) for part in slices(rows, [LABEL, TIME])]
    found = pl.concat(parts)
    counts = found.group_by(LABEL).agg(pl.col("n").sum()).sort(LABEL)
    described = {"rows": len(rows), "classes": {str(c): n for c, n in counts.iter_rows()}}
    if has_times and found["from"].count():
        described |= {"from": str(found["from"].min()), "to": str(found["to"].max())}
    return described
