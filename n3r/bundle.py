"""A bundle: one directory that holds a trained model and all it needs to score rows of the input's kind.

Decisions:
- JSON and safetensors only; nothing is ever unpickled.
- MANIFEST.json, the sha256 of every other file, is written last and the directory gets its name after that:
  a directory under the final name is complete.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from n3r.data import OrderDataset
from n3r.features import TabularFeatures
from n3r.model import ModelConfig, RiskModel
from n3r.processes import is_first_process
from n3r.schema import ColumnMap
from n3r.tokenizer import BertTokenizer, NameTokenizer, TextConfig, load_tokenizer
from n3r.train import Fitted, TrainConfig, fit, predict

FILES = (
    "columns.json",
    "config.json",
    "features.json",
    "metrics.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_metadata.json",
    "vocab.json",
)
LIBRARIES = ("n3r", "torch", "transformers", "tokenizers", "polars", "numpy")


class Bundle(NamedTuple):
    """A trained model with its tokenizer, features and column map, and what was measured of it."""

    model: RiskModel | None  # None: not trained yet
    tokenizer: NameTokenizer | BertTokenizer
    features: TabularFeatures
    column_map: ColumnMap
    train_config: TrainConfig
    metrics: dict[str, Any]
    texts: TextConfig = TextConfig()

    def dataset(self, frame: pl.DataFrame) -> OrderDataset:
        """Prepared rows as this model reads them."""
        return OrderDataset.from_frame(
            frame, self.column_map, self.tokenizer, self.features, self.texts, self.model.config.n_texts
        )

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Class probabilities (N, C) of prepared rows, in their order."""
        return predict(self.model, self.dataset(frame), self.tokenizer.pad_token)

    def predictions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`predict` as a table: the id and, where the frame has them, segment, time and label; `score`.

        With two classes `score` is the probability of class 1; with more there is a column a class. Raises
        ValueError for rows without an id.
        """
        if self.column_map.id not in frame.columns:
            raise ValueError(f"the rows lack the id column {self.column_map.id!r} that the column map names")
        p = self.predict(frame)
        known = [
            n for n in (self.column_map.id, "segment", "time", "label", "oracle_p") if n in frame.columns
        ]
        if p.shape[1] == 2:
            return frame.select(known).with_columns(score=pl.Series(p[:, 1]))
        return frame.select(known).with_columns(pl.Series(f"score_{c}", p[:, c]) for c in range(p.shape[1]))

    def save(self, folder: Path) -> None:
        """Write the bundle under `folder`, replacing one that is there only when it is complete.

        Of several processes only the first one writes, and the others do not wait for it.
        """
        if not is_first_process():
            return
        folder = Path(folder)
        aside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            self.tokenizer.save(aside)
            save_file(self.model.state_dict(), aside / "model.safetensors")
            config = {
                "model": self.model.config.model_dump(),
                "train": self.train_config.model_dump(),
                "texts": self.texts.model_dump(),
                "versions": {name: version(name) for name in LIBRARIES},
            }
            _write_json(aside / "config.json", config)
            _write_json(aside / "features.json", self.features.to_dict())
            _write_json(aside / "columns.json", self.column_map.model_dump())
            _write_json(aside / "metrics.json", self.metrics)
            _write_json(aside / "MANIFEST.json", {name: _sha256(aside / name) for name in FILES})
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise ValueError(f"cannot write the bundle {folder}: {error.strerror}") from None

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle after `verify`; the model is in eval mode on the CPU."""
        folder = Path(folder)
        verify(folder)
        config = _read(folder / "config.json")
        model = RiskModel(ModelConfig(**config["model"]))
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{folder / 'model.safetensors'} does not fit config.json: {error}") from None
        return cls(
            model.eval(),
            load_tokenizer(folder),
            TabularFeatures.from_dict(_read(folder / "features.json")),
            ColumnMap.from_file(folder / "columns.json"),
            TrainConfig(**config["train"]),
            _read(folder / "metrics.json"),
            TextConfig(**config["texts"]),
        )


def train_bundle(
    model_config: ModelConfig,
    splits: Mapping[str, pl.DataFrame],
    parts: Bundle,
    folder: Path,
) -> tuple[Bundle, Fitted]:
    """Train a model on prepared splits, with a bundle's tokenizer, features, column map and configs.

    `parts` lacks nothing but the model. `folder` keeps the training's checkpoints. Raises ValueError as
    `fit` does.
    """
    datasets = {
        split: OrderDataset.from_frame(
            splits[split],
            parts.column_map,
            parts.tokenizer,
            parts.features,
            parts.texts,
            model_config.n_texts,
            training=split == "train",
        )
        for split in ("train", "val")
        if len(splits[split])
    }
    pad_token = parts.tokenizer.pad_token
    fitted = fit(model_config, datasets["train"], datasets.get("val"), parts.train_config, folder, pad_token)
    return parts._replace(model=fitted.model), fitted


def verify(folder: Path) -> None:
    """Raise FileNotFoundError or ValueError naming every missing, altered or foreign file of a bundle."""
    folder = Path(folder)
    if not (folder / "MANIFEST.json").is_file():
        raise FileNotFoundError(f"{folder} is no complete bundle, it has no MANIFEST.json: train it first")
    manifest = _read(folder / "MANIFEST.json")
    present = {path.name for path in folder.iterdir()} - {"MANIFEST.json"}
    problems = [f"{name} is missing" for name in FILES if name not in present]
    problems += [f"{name} is foreign" for name in sorted(present - set(FILES))]
    for name in FILES:
        if name in present and manifest.get(name) != _sha256(folder / name):
            problems.append(f"{name} was altered")
    if problems:
        raise ValueError(f"the bundle {folder} cannot be trusted: {'; '.join(problems)}")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
