"""Training and prediction: the Lightning shell around a model, `fit` and `predict`.

Decisions:
- An epoch's batches and dropout masks depend only on the seed and the epoch's number, so a training that was
  interrupted and resumed ends with the same weights as one that was not.
- Weight decay goes to the matrices of linear and recurrent layers, found by module type: by name, norms
  such as `norm1` slip through (defect 16).
- Training runs in bfloat16 where the processor multiplies it; prediction always in float32, so that a score
  is the same on every machine to float32's precision.
- What is handed on is a bundle; checkpoints.py keeps and resumes trainings.
- With `tab_gain_power` each feature enters the network with its `column_gains`, to that power, as weight. Of
  200 columns most are noise, through bins most of all. On validation rows they took a network of LSTM2Risk's
  tabular branch alone from 0.914 to 0.896 AUC on twitter_bots, with weights to 0.920, and on orders from
  0.826 to 0.882, with weights to 0.898. Fewer bins, dropout of features, embeddings of each, members that
  share weights (TabM), and the best 10 to 80 columns alone all reached less on twitter_bots and at most 0.898
  on orders. Test rows, identity features, two seeds: 0.914, 0.908 on orders and 0.923, 0.921 on twitter_bots.
- Several processes (`processes`, or a launcher such as torchrun) share each batch, so the schedule and the
  number of steps stay as they are. The weights are not those of one process: batch norm sees a process's
  share. Predictions are gathered by row number, so none is lost and none counts twice (defect 44).
"""

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import AUROC, Accuracy, AveragePrecision, F1Score, Precision, Recall

from n3r import checkpoints
from n3r.data import (
    Batch,
    Collate,
    OrderDataset,
    build_collate_fn,
    build_lstm2risk_collate_fn,
    build_transformer2risk_collate_fn,
    make_loader,
)
from n3r.encode import PerText
from n3r.kernels import BFLOAT16, keep_memory
from n3r.model import OWN_PARTS, TEXTS, ModelConfig, Parts, RiskModel, registered
from n3r.token_arrays import ChunkedText
from n3r.trees import column_gains

Monitor = Literal[
    "val_auroc", "val_average_precision", "val_f1", "val_precision", "val_recall", "val_accuracy", "val_loss"
]  # fmt: skip
_LOWER = "the training diverges; take a lower lr than "


class TrainConfig(BaseModel):
    """How a model is trained; batch size, rate, decay and schedule are the legacy's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(512, ge=2)
    lr: float = Field(1e-3, gt=0)  # the schedule's peak
    schedule: Literal["one_cycle", "linear", "constant", "none"] = "one_cycle"  # none: nor any warm-up
    weight_decay: float = Field(0.01, ge=0)
    decay: Literal["matrices", "all"] = "matrices"  # of linear and recurrent layers, or all as the legacy
    warmup: float = Field(0.1, gt=0, lt=1)  # share of the steps until the peak
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: with the published momentum
    adam_epsilon: float = Field(1e-8, gt=0)  # the published value, and torch's
    # NOTE[DIFF] the legacy does not clip, and takes a rare huge gradient whole.
    gradient_clip: float | None = Field(1.0, gt=0)  # largest norm of all gradients together; None or 0: any
    patience: int = Field(3, ge=1)  # epochs without a better `monitor` before stopping
    monitor: Monitor = "val_auroc"
    class_weights: list[PositiveFloat] | None = None  # weight of each class in the loss
    # NOTE[DIFF] the legacy trains in float32 everywhere; bfloat16 is faster where a processor multiplies it.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(0, ge=0)
    processes: int = Field(1, ge=1)  # that share each batch

    @field_validator("gradient_clip", mode="before")
    @classmethod
    def _none_for_zero(cls, value: Any) -> Any:
        return None if value == 0 else value

    @classmethod
    def for_model(cls, model: ModelConfig, **settings: Any) -> "TrainConfig":
        """The settings over those of the model's class; without a pretrained BERT there is no fine-tuning."""
        is_fine_tuned = any(branch.pretrained for branch in model.of_texts.values())
        return cls(**{**(registered(model.model_class).training if is_fine_tuned else {}), **settings})


class Fitted(NamedTuple):
    """A trained model, one dict of figures per epoch, and the speed of the training steps."""

    model: RiskModel
    history: list[dict[str, float]]
    best_epoch: int
    precision: str
    orders_per_second: float


class RiskModule(L.LightningModule):
    """What Lightning needs to train a `RiskModel`: steps, figures per epoch, optimiser and schedule."""

    def __init__(self, model: RiskModel, config: TrainConfig, plan: str):
        super().__init__()
        self.model = model
        self.config = config
        self.plan = plan  # fingerprint of configs and data, kept in checkpoints
        self.val_metrics = validation_metrics(model.config.n_classes)
        self.history: list[dict[str, float]] = []
        weights = config.class_weights
        self.register_buffer("class_weights", None if weights is None else torch.tensor(weights))

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.config.seed * 1_000_003 + self.current_epoch + 1 + 500_009 * self.global_rank)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss, _ = self._step(batch)
        n_rows = self._count(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=n_rows, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        loss, logits = self._step(batch)
        p = logits.softmax(dim=1)
        self.val_metrics.update(p[:, 1] if p.shape[1] == 2 else p, batch["label"])
        n_rows = self._count(batch)
        self.log("val_loss", loss, batch_size=n_rows, sync_dist=True)
        self.log_dict(self.val_metrics, batch_size=n_rows)

    def on_train_epoch_end(self) -> None:
        figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.history.append({"epoch": self.current_epoch + 1, **dict(sorted(figures.items()))})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["plan"] = self.plan

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]

    def configure_optimizers(self) -> dict[str, Any]:
        groups, lr = parameter_groups(self.model, self.config), self.config.lr
        if self.config.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr, momentum=0.9, fused=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr, eps=self.config.adam_epsilon, fused=True)
        schedule = rate_schedule(optimizer, self.config, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: float | None, **_: Any) -> None:
        # Lightning refuses to clip for a fused optimiser, which would matter only with a loss scaler.
        if gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def _count(self, batch: Batch) -> int:
        """The weight of a batch in a mean: its rows, a multiple of the number of processes.

        Lightning takes the mean of the processes' sums of these as an integer.
        """
        return len(batch["label"]) * self.trainer.world_size

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        # NOTE[DIFF] a logit a class, for any number of them; the legacy has one logit and a sigmoid, which is
        # the softmax of (0, z).
        logits = self.model(batch).float()
        loss = F.cross_entropy(logits, batch["label"], weight=self.class_weights)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {loss:.3g} in epoch {self.current_epoch + 1}: {_LOWER}{self.config.lr:g}"
            )
        return loss, logits


def validation_metrics(n_classes: int) -> MetricCollection:
    """Figures of an epoch on validation rows.

    Of three classes or more accuracy is the share of rows whose class is the likeliest; the others are the
    mean of each class against the rest.
    """
    task, options = "binary", {}
    if n_classes > 2:
        task, options = "multiclass", {"num_classes": n_classes, "average": "macro"}
    kinds = {"auroc": AUROC, "average_precision": AveragePrecision}
    kinds |= {"f1": F1Score, "precision": Precision, "recall": Recall}
    figures = {name: kind(task, **options) for name, kind in kinds.items()}
    figures["accuracy"] = Accuracy(task, **{**options, "average": "micro"})
    return MetricCollection(figures, prefix="val_")


def fit(
    model_config: ModelConfig,
    train: OrderDataset,
    val: OrderDataset | None,
    config: TrainConfig,
    folder: Path,
    pad_token: PerText,
    parts: Parts = OWN_PARTS,
    knots: np.ndarray | None = None,
) -> Fitted:
    """Train a new model of `model_config`, with the features' `knots`, and return it as of its best epoch.

    `folder` keeps checkpoints and TensorBoard's files; when it holds those of a training of the same configs,
    code and data, this one goes on from its last epoch, else it replaces them. With `tab_gain_power` features
    enter with the weight that boosting on the training rows gives them. Raises ValueError before
    training for rows that the model cannot read, rows without labels, fewer than two rows per process, and
    class weights of another number than the classes; and at the first loss that is not finite.

    NOTE[DIFF] the legacy has no validation rows and keeps its last epoch; here that is so without `val`.
    """
    _check(model_config, train, val, config)
    arguments = model_config, train, val, config, Path(folder), pad_token, parts, knots
    if config.processes > 1 and "WORLD_SIZE" not in os.environ:
        checkpoints.launch(config.processes, _train, *arguments)
    else:
        _train(*arguments)
    last = checkpoints.load(folder, "last")
    kept = checkpoints.load(folder, "best") if val else last
    with torch.random.fork_rng():
        model = RiskModel(model_config, parts, knots)
    weights = {name: value for name, value in kept["state_dict"].items() if name.startswith("model.")}
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"the weights are not finite after the last step: {_LOWER}{config.lr:g}")
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    speed = checkpoints.Speed()
    speed.load_state_dict(last["callbacks"]["Speed"])
    precision = resolve_precision(config)
    return Fitted(model.eval(), last["history"], kept["epoch"] + 1, precision, speed.rows_per_second)


def _train(
    model_config: ModelConfig,
    train: OrderDataset,
    val: OrderDataset | None,
    config: TrainConfig,
    folder: Path,
    pad_token: PerText,
    parts: Parts,
    knots: np.ndarray | None,
) -> None:
    """Train and leave checkpoints in `folder`; every process of a group runs this."""
    collate, share = collate_for(model_config, pad_token), checkpoints.share()
    # The place has these two as they are resolved.
    training = config.model_dump(exclude={"processes", "precision"})
    settings = [model_config.model_dump(), training, [part.__qualname__ for part in parts]]
    settings += [None if knots is None else knots.tolist(), *(data and data.digest for data in (train, val))]
    place = f"{share[1]} process{'es' * (share[1] > 1)} in {resolve_precision(config)}"
    plan = f"{checkpoints.plan(settings)} {place}"
    with torch.random.fork_rng(), checkpoints.quiet(), keep_memory():
        torch.manual_seed(config.seed)
        model = RiskModel(model_config, parts, knots).load_pretrained()
        if model.tabular and model_config.tab_gain_power:
            gains = column_gains(train.tabular, train.label, model_config.n_classes, config.seed)
            model.tabular.weigh(gains**model_config.tab_gain_power)
        module = RiskModule(model, config, plan)
        resumed, order = checkpoints.resumable(folder, plan), checkpoints.order_folder(folder, plan)
        trainer = checkpoints.trainer(
            folder,
            config.monitor,
            config.patience,
            val is not None,
            precision={"bfloat16": "bf16-mixed", "float32": "32-true"}[resolve_precision(config)],
            max_epochs=config.epochs,
            gradient_clip_val=config.gradient_clip,
        )
        trainer.fit(
            module,
            make_loader(train, collate, config.batch_size, True, config.seed, share, order),
            make_loader(val, collate, 2 * config.batch_size, share=share, folder=order) if val else None,
            ckpt_path=resumed,
            weights_only=True,
        )
        checkpoints.forget_order(folder)


def predict(
    model: RiskModel, dataset: OrderDataset, pad_token: PerText, batch_size: int = 1024
) -> np.ndarray:
    """Probabilities (N, C) float32 in the data set's order, whatever order the batches had.

    Under a launcher of several processes each scores its share and all get the whole.
    """
    check_rows(model.config, dataset, "rows to score")
    out = np.full((len(dataset), model.config.n_classes), np.nan, np.float32)
    if not len(dataset):
        return out
    share, parts = checkpoints.share(), []
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()
    with torch.inference_mode():
        for batch in make_loader(dataset, collate_for(model.config, pad_token), batch_size, share=share):
            scores = model({name: tensor.to(device) for name, tensor in batch.items()}).softmax(dim=1)
            parts.append((batch["row_id"].numpy(), scores.cpu().numpy()))
    if share[1] > 1:
        parts = [part for others in checkpoints.gather(parts, share[1]) for part in others]
    for rows, scores in parts:
        out[rows] = scores
    return out


def collate_for(config: ModelConfig, pad_token: PerText) -> Collate:
    """The collate function of a model's encoders."""
    longest = {ids: branch.block_size for ids, branch in config.of_texts.items() if branch.block_size}
    if longest:
        return build_transformer2risk_collate_fn(pad_token, longest)
    if config.encoder in ("lstm", "lstm_ends"):
        return build_lstm2risk_collate_fn(pad_token)
    return build_collate_fn(pad_token)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Optimiser groups: the decayed parameters, as `config.decay` says, and the others.

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
        groups[config.decay == "all" or id(parameter) in decayed].append(parameter)
    return [
        {"params": groups[True], "weight_decay": config.weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def check_rows(model: ModelConfig, dataset: OrderDataset, name: str) -> None:
    """Raise ValueError where a data set's texts or features are not what the model reads."""
    for ids, own in model.of_texts.items():
        text, kind = dataset.texts.get(ids), TEXTS[own.encoder].tokenizer
        which = {"text": "text", "secondary": "second text"}[ids]
        if text is None:
            raise ValueError(
                f"{model.model_class} reads two texts and the {name} have one: name `secondary_text` in "
                "the column map"
            )
        if isinstance(text, ChunkedText) != (kind == "bert"):
            how = {"bpe": "or `flat` texts", "bert": "and texts in chunks"}[kind]
            raise ValueError(
                f"{model.model_class} with the encoder {own.encoder!r} needs a tokenizer of the kind "
                f"{kind!r}, {how}; the {which} of the {name} is of another kind"
            )
        if (largest := dataset.facts["largest"][ids]) >= own.vocab_size:
            raise ValueError(
                f"the {which} of the {name} holds the token id {largest}; the model knows "
                f"{own.vocab_size} tokens: tokenise with the tokenizer it was made for"
            )
        if kind == "bert" and (longest := dataset.facts["longest"][ids]) > own.max_tokens:
            raise ValueError(
                f"the {which} of the {name} has chunks of {longest} tokens; this BERT reads "
                f"{own.max_tokens}: set max_tokens"
            )
    found = dataset.tabular.shape[1]
    if model.n_tab_features not in (0, found):
        raise ValueError(f"the {name} have {found} feature columns; the model reads {model.n_tab_features}")


def _check(model: ModelConfig, train: OrderDataset, val: OrderDataset | None, config: TrainConfig) -> None:
    weights = config.class_weights
    if weights is not None and len(weights) != model.n_classes:
        raise ValueError(f"class_weights has {len(weights)} entries for {model.n_classes} classes")
    n_processes = max(config.processes, checkpoints.share()[1])
    min_rows = 2 * n_processes
    if config.batch_size < min_rows:
        raise ValueError(
            f"batches of {config.batch_size} rows for {n_processes} processes, which need two each: "
            f"set batch_size to {min_rows} or more"
        )
    for name, dataset in {"train": train, **({} if val is None else {"val": val})}.items():
        if len(dataset) < min_rows:
            raise ValueError(f"the {name} split has {len(dataset)} rows; training needs at least {min_rows}")
        check_rows(model, dataset, f"rows of the {name} split")
        low, high = dataset.facts["labels"]
        if low < 0 or high >= model.n_classes:
            raise ValueError(
                f"labels of the {name} split run from {low} to {high}; expected 0 to {model.n_classes - 1}"
            )


def rate_schedule(optimizer: Any, config: TrainConfig, total: int) -> Any:
    """The rate at each of `total` steps: up over `warmup` of them, then as `schedule` says."""
    if config.schedule == "one_cycle":
        # OneCycleLR divides by zero when the warm-up is a single step (defect 23).
        total = max(4, total)
        warmup = max(config.warmup, 1.5 / total)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=total, pct_start=warmup)
    n_warm = 0 if config.schedule == "none" else max(1, round(config.warmup * total))

    def share_of_peak(step: int) -> float:
        if step < n_warm:
            return (step + 1) / n_warm
        return (total - step) / max(1, total - n_warm) if config.schedule == "linear" else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)


def resolve_precision(config: TrainConfig) -> str:
    """`auto` resolved: bfloat16 where the processor multiplies it, else float32."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if BFLOAT16 else "float32"
