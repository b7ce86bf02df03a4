"""Training and prediction: the Lightning shell around a model, `fit` and `predict`.

Decisions:
- An epoch's batches and dropout masks depend on the seed and the epoch's number alone, so a training that
  was interrupted and resumed ends with the same weights as one that was not.
- Weight decay goes to the matrices of linear and recurrent layers, found by module type: by name, norms
  such as `norm1` slip through (defect 16).
- Training runs in bfloat16 where the processor multiplies it; prediction always in float32, so that a score
  is the same on every machine to float32's precision.
- Lightning's checkpoints serve to resume and to keep the best epoch, and are read with `weights_only`.
  What is handed on is a bundle.
"""

import json
import logging
import shutil
import sys
import time
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAUROC
from tqdm import tqdm

from n3r.data import (
    Batch,
    Collate,
    OrderDataset,
    build_lstm2risk_collate_fn,
    build_transformer2risk_collate_fn,
    make_loader,
)
from n3r.model import ModelConfig, RiskModel


class TrainConfig(BaseModel):
    """How a model is trained; batch size, rate, decay and schedule are the legacy's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(512, ge=2)
    lr: float = Field(1e-3, gt=0)  # the one-cycle schedule's peak
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, gt=0, lt=1)  # share of the steps until the peak
    gradient_clip: float = Field(1.0, gt=0)  # largest norm of all gradients together
    patience: int = Field(3, ge=1)  # epochs without a better `monitor` before stopping
    monitor: Literal["val_auroc", "val_loss"] = "val_auroc"
    class_weights: list[float] | None = None  # weight of each class in the loss
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(0, ge=0)


class Fitted(NamedTuple):
    """A trained model, one dict of figures an epoch, and the speed of the training steps."""

    model: RiskModel
    history: list[dict[str, float]]
    best_epoch: int
    precision: str
    orders_per_second: float


class RiskModule(L.LightningModule):
    """What Lightning needs to train a `RiskModel`: steps, figures an epoch, optimiser and schedule."""

    def __init__(self, model: RiskModel, config: TrainConfig, plan: str):
        super().__init__()
        self.model = model
        self.config = config
        self.plan = plan  # fingerprint of configs and data, kept in checkpoints
        self.val_auroc = MulticlassAUROC(model.config.n_classes)
        self.history: list[dict[str, float]] = []
        weights = config.class_weights
        self.register_buffer("class_weights", None if weights is None else torch.tensor(weights))

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.config.seed * 1_000_003 + self.current_epoch + 1)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss, _ = self._step(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        loss, logits = self._step(batch)
        self.val_auroc.update(logits.softmax(dim=1), batch["label"])
        n_rows = len(batch["label"])
        self.log("val_loss", loss, batch_size=n_rows)
        self.log("val_auroc", self.val_auroc, batch_size=n_rows)

    def on_train_epoch_end(self) -> None:
        figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.history.append({"epoch": self.current_epoch + 1, **dict(sorted(figures.items()))})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["plan"] = self.plan

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.config), lr=self.config.lr, fused=True
        )
        # OneCycleLR divides by zero when the warm-up is a single step (defect 23).
        total = max(4, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.config.lr, total_steps=total, pct_start=max(self.config.warmup, 1.5 / total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: float, **_: Any) -> None:
        # Lightning refuses to clip for a fused optimiser, which would matter only with a loss scaler.
        nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self.model(batch).float()
        return F.cross_entropy(logits, batch["label"], weight=self.class_weights), logits


def fit(
    model_config: ModelConfig,
    train: OrderDataset,
    val: OrderDataset | None,
    config: TrainConfig,
    folder: Path,
    pad_token: int,
) -> Fitted:
    """Train a new model of `model_config` and return it as of its best epoch.

    `folder` keeps checkpoints and TensorBoard's files; when it holds those of a training of the same configs,
    code and data, this one goes on from its last epoch, else it replaces them. Without `val` all epochs run
    and the last one counts, as in the legacy. Raises ValueError for class weights of another number than the
    classes, for fewer than two rows, and for rows without labels.
    """
    _check(model_config, train, val, config)
    folder = Path(folder)
    collate = collate_for(model_config, pad_token)
    precision = resolve_precision(config)
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(config.seed)
        module = RiskModule(RiskModel(model_config), config, _plan(model_config, config, train, val))
        resumed = _resumable(folder / "checkpoints" / "last.ckpt", module)
        if resumed is None:
            for leftover in ("checkpoints", "tensorboard"):
                shutil.rmtree(folder / leftover, ignore_errors=True)
        speed = _Speed()
        mode = "max" if config.monitor == "val_auroc" else "min"
        best = _Checkpoint(folder, "best", monitor=config.monitor, mode=mode)
        # A file of its own: Lightning's save_last writes only when there is a new best.
        last = _Checkpoint(folder, "last")
        stop = _Patience(config.monitor, patience=config.patience, mode=mode, check_on_train_epoch_end=True)
        trainer = L.Trainer(
            accelerator="auto",
            devices=1,
            precision={"bfloat16": "bf16-mixed", "float32": "32-true"}[precision],
            max_epochs=config.epochs,
            gradient_clip_val=config.gradient_clip,
            callbacks=[speed, *([stop, best] if val else []), last],  # last: it saves the others' state
            logger=TensorBoardLogger(folder, name="", version="tensorboard"),
            num_sanity_val_steps=0,
            enable_progress_bar=False,  # _Speed draws one bar for the whole training
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(
            module,
            make_loader(train, collate, config.batch_size, shuffle=True, seed=config.seed),
            make_loader(val, collate, 2 * config.batch_size) if val else None,
            ckpt_path=resumed,
            weights_only=True,
        )
    kept = folder / "checkpoints" / ("best.ckpt" if val else "last.ckpt")
    state = torch.load(kept, weights_only=True, map_location="cpu")
    module.load_state_dict(state["state_dict"])
    return Fitted(
        module.model.cpu().eval(), module.history, state["epoch"] + 1, precision, speed.rows_per_second
    )


def predict(model: RiskModel, dataset: OrderDataset, pad_token: int, batch_size: int = 1024) -> np.ndarray:
    """Probabilities (N, C) float32 in the data set's order, whatever order the batches had."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = np.empty((len(dataset), model.config.n_classes), np.float32)
    if not len(dataset):
        return out
    model = model.to(device).eval()
    with torch.inference_mode():
        for batch in make_loader(dataset, collate_for(model.config, pad_token), batch_size):
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            out[batch["row_id"].cpu().numpy()] = model(batch).softmax(dim=1).cpu().numpy()
    return out


def collate_for(config: ModelConfig, pad_token: int) -> Collate:
    """The collate function of a model class."""
    if config.block_size:
        return build_transformer2risk_collate_fn(pad_token, config.block_size)
    return build_lstm2risk_collate_fn(pad_token)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Optimiser groups: decayed matrices of linear and recurrent layers, and all else undecayed.

    NOTE[DIFF] the legacy decays every parameter. Norms and biases have no size to keep small, and a
    rare token's embedding would shrink with every batch that does not hold it.
    """
    decayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.RNNBase)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    }
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[id(parameter) in decayed].append(parameter)
    return [
        {"params": groups[True], "weight_decay": config.weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


class _Checkpoint(ModelCheckpoint):
    """One file in `folder`/checkpoints, written again each epoch or each time `monitor` is better."""

    def __init__(self, folder: Path, name: str, **options: Any):
        options |= {"save_on_train_epoch_end": True, "enable_version_counter": False}
        super().__init__(folder / "checkpoints", filename=name, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score of a folder that was moved.
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class _Patience(EarlyStopping):
    """Early stopping that stays stopped when a finished training is asked for again."""

    def on_train_start(self, trainer: L.Trainer, module: RiskModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


class _Speed(Callback):
    """One progress bar for the whole training, and the training steps' rows a second."""

    def __init__(self) -> None:
        self.n_rows, self.seconds = 0, 0.0

    @property
    def rows_per_second(self) -> float:
        return self.n_rows / self.seconds

    def state_dict(self) -> dict[str, Any]:
        return {"n_rows": self.n_rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.n_rows, self.seconds = state_dict["n_rows"], state_dict["seconds"]

    def on_train_start(self, trainer: L.Trainer, module: RiskModule) -> None:
        self.bar = tqdm(
            total=trainer.max_epochs * trainer.num_training_batches,
            initial=trainer.global_step,
            desc=module.model.config.model_class,
            unit="batch",
            mininterval=1,
            file=sys.stderr,
        )

    def on_train_epoch_start(self, trainer: L.Trainer, module: RiskModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: RiskModule, outputs: Any, batch: Batch, i: int
    ) -> None:
        self.n_rows += len(batch["label"])
        self.bar.update()

    def on_validation_start(self, trainer: L.Trainer, module: RiskModule) -> None:
        self._pause()

    def on_train_epoch_end(self, trainer: L.Trainer, module: RiskModule) -> None:
        self._pause()
        figures = trainer.callback_metrics
        shown = {name: f"{float(figures[name]):.4f}" for name in sorted(figures)}
        self.bar.set_postfix(epoch=trainer.current_epoch + 1, **shown)

    def teardown(self, trainer: L.Trainer, module: RiskModule, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()

    def _pause(self) -> None:
        """Stop the clock: validation is no training step."""
        if self.started:
            self.seconds += time.perf_counter() - self.started
            self.started = None


def _check(model: ModelConfig, train: OrderDataset, val: OrderDataset | None, config: TrainConfig) -> None:
    weights = config.class_weights
    if weights is not None and len(weights) != model.n_classes:
        raise ValueError(f"class_weights has {len(weights)} entries for {model.n_classes} classes")
    for name, dataset in (("train", train), ("val", val)):
        if dataset is None:
            continue
        if len(dataset) < 2:
            raise ValueError(f"the {name} split has {len(dataset)} rows; training needs at least 2")
        low, high = dataset.label.min(), dataset.label.max()
        if low < 0 or high >= model.n_classes:
            raise ValueError(
                f"labels of the {name} split run from {low} to {high}; expected 0 to {model.n_classes - 1}"
            )


def resolve_precision(config: TrainConfig) -> str:
    """`auto` resolved: bfloat16 where the processor multiplies it, else float32."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def _plan(model: ModelConfig, config: TrainConfig, *datasets: OrderDataset | None) -> str:
    """A fingerprint of configs, code and data: a checkpoint of another plan is not resumed."""
    plan = sha256(json.dumps([model.model_dump(), config.model_dump()], sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        plan.update(source.read_bytes())
    for data in datasets:
        if data is not None:
            for array in (*data.text, data.tabular, data.label):
                plan.update(np.ascontiguousarray(array))
    return plan.hexdigest()


def _resumable(path: Path, module: RiskModule) -> Path | None:
    if not path.is_file():
        return None
    plan = torch.load(path, weights_only=True, map_location="cpu")["plan"]
    return path if plan == module.plan else None


class _quiet(warnings.catch_warnings):
    """Lightning without its greetings and its advice to start workers that would only copy arrays."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        self.logger = logging.getLogger("lightning.pytorch")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self.logger.setLevel(self.level)
        super().__exit__(*error)
