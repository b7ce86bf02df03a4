"""What the legacy wrote while it trained: the weights and the metrics of each epoch.

Decisions:
- As published: models/model_{epoch}.pt, epochs counted from 0, and experiments/{id}.json, the hyperparameters
  and a row of metrics for each epoch so far, the AUROC of each marketplace among them.
- Beside them stand tokenizer.json and features.txt, which the legacy did not save (defect 39): with them
  `n3r import-legacy` makes a bundle of any epoch's weights.

NOTE[DIFF] the id of an experiment is that of its plan and not random, so that the same training writes the
same files; a marketplace of one class has no AUROC, where the legacy's was 0.5.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict

from n3r.estimate import rank_auc
from n3r.files.atomic import atomic_file, writing
from n3r.files.json_io import read_model, write_json
from n3r.legacy.feature_lists import write_feature_list
from n3r.legacy.models import LegacyModel
from n3r.legacy.trainer import LegacyTextDataset, LegacyTokenizer, predict_legacy


class Experiment(BaseModel):
    """The content of an experiments/{id}.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hyperparams: dict[str, Any]
    metrics: list[dict[str, int | float | None]]  # step, lr, train_auc, test_auc and {marketplace}_auc

    @property
    def table(self) -> pl.DataFrame:
        """The metrics, a row an epoch."""
        return pl.DataFrame(self.metrics, infer_schema_length=None)


def read_experiment(path: Path) -> Experiment:
    """An experiments/{id}.json, of the legacy too; FileNotFoundError, or ValueError naming what is wrong."""
    return read_model(path, Experiment)


class EpochFiles:
    """The files of one training in a folder; `plan` is all that decides the training's result."""

    def __init__(self, folder: Path, plan: str) -> None:
        self.folder = Path(folder)
        self.log = self.folder / "experiments" / f"{uuid5(NAMESPACE_OID, plan)}.json"
        self.beside = [self.folder / name for name in ("features.txt", "tokenizer.json")]
        self._metrics: list[dict[str, float | None]] = []

    def weights(self, epoch: int) -> Path:
        """The file of an epoch's weights; the first epoch is 0."""
        return self.folder / "models" / f"model_{epoch}.pt"

    def are_whole(self, epochs: int) -> bool:
        """Whether all that a training of so many epochs writes is there."""
        written = [self.log, *self.beside, *map(self.weights, range(epochs))]
        return all(path.is_file() for path in written) and len(read_experiment(self.log).metrics) == epochs

    def start(self, columns: list[str], tokenizer: LegacyTokenizer) -> None:
        """Write what the weights are read with; those of an earlier training, read with other files, go."""
        self._metrics = []
        with writing(self.folder):
            for path in [self.log, *self.folder.glob("models/model_*.pt")]:
                path.unlink(missing_ok=True)
        write_feature_list(self.beside[0], columns)
        write_json(self.beside[1], json.loads(tokenizer.tokenizer.to_str()))

    def write(
        self,
        epoch: Mapping[str, float],
        model: LegacyModel,
        markets: Mapping[str, LegacyTextDataset],
        batch_size: int,
    ) -> None:
        """Write an epoch's weights, and its metrics behind those of earlier epochs.

        Kept: each market's rows are tokenised and scored anew, in batches of their own (defects 10, 49).
        """
        step = int(epoch["epoch"]) - 1
        weights = {name: value.cpu() for name, value in model.state_dict().items()}
        with atomic_file(self.weights(step), RuntimeError) as aside:  # torch's, of a full disk
            torch.save(weights, aside)
        own = {"step": step, **{name: epoch[name] for name in ("lr", "train_auc", "test_auc")}}
        aucs = {
            f"{name}_auc": rank_auc(rows.labels == 1, predict_legacy(model, rows, batch_size))
            for name, rows in markets.items()
        }
        self._metrics.append(aucs | own)
        write_json(self.log, {"hyperparams": asdict(model.config), "metrics": self._metrics})
