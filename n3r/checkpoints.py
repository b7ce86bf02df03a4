"""How a training is kept, resumed and shared by processes: Lightning's callbacks and corrections of them.

Decisions:
- Lightning's checkpoints serve to resume and to keep the best epoch, and are read with `weights_only`. They
  are written atomically: Lightning's own way, through a file in the temporary folder, copies if that is on
  another disk, and a kill then leaves half a checkpoint.
- A checkpoint holds a fingerprint of the training (`plan`); one with another plan is not resumed.
- The rank of a process comes from the environment that a launcher such as torchrun sets. Only the first
  process writes.
- Ctrl-C in a training is a KeyboardInterrupt, where Lightning ends the process and hears no other Ctrl-C.
"""

import json
import logging
import os
import shutil
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import TorchElasticEnvironment

from n3r.files.atomic import atomic_file
from n3r.files.sources import fingerprint
from n3r.progress import Progress

ORDER = "order"  # in a training's folder: the orders of rows, of each machine by itself


def plan(settings: Any) -> str:
    """A fingerprint of plain settings, checksums of the data among them, and of the code that trains."""
    found = json.dumps([settings, fingerprint("import n3r.train")], sort_keys=True, allow_nan=False)
    return sha256(found.encode()).hexdigest()


def machine() -> str:
    """The number of this machine, as torchrun counts them: each has files of its own, disks may be shared."""
    return os.environ.get("GROUP_RANK", "0")


def order_folder(folder: Path, plan: str) -> Path:
    """Where this machine's processes keep the order of a training's rows."""
    return folder / ORDER / f"{plan[:16]}-{machine()}"


def forget_order(folder: Path) -> None:
    """Remove the orders of rows of a training that is done."""
    if is_first_process():
        shutil.rmtree(folder / ORDER, ignore_errors=True)


def load(folder: Path, name: str) -> dict[str, Any]:
    """The checkpoint "last" or "best" of a training's folder."""
    path = Path(folder) / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, weights_only=True, map_location="cpu")


def resumable(folder: Path, plan: str) -> Path | None:
    """The last checkpoint of a training of the same plan; leftovers of another one are removed.

    A plan is a fingerprint, a blank and how the training is computed, in words. Other processes have other
    batches and another precision other sums: what went on with them would be neither training.
    """
    path = folder / "checkpoints" / "last.ckpt"
    try:
        kept = load(folder, "last")["plan"]
        if kept == plan:
            return path
        (same, _, before), (now, _, place) = kept.partition(" "), plan.partition(" ")
        if same == now and is_first_process():
            warnings.warn(f"{path} is of {before}, this training of {place}: it begins anew", stacklevel=2)
    except FileNotFoundError:  # or the first process has just removed it
        pass
    except Exception:  # torch raises many kinds of a file that is not a checkpoint
        warnings.warn(f"{path} is damaged: training begins anew", stacklevel=2)
    if is_first_process():
        for leftover in ("checkpoints", "tensorboard", ORDER):
            shutil.rmtree(folder / leftover, ignore_errors=True)
    return None


def trainer(folder: Path, monitor: str, patience: int, with_val: bool, **options: Any) -> L.Trainer:
    """A trainer that keeps its checkpoints and TensorBoard's files in `folder`, for every process of a group.

    With validation rows it keeps the epoch that is best by `monitor`, and stops `patience` epochs after it.
    """
    mode, (_, n) = "min" if monitor == "val_loss" else "max", share()
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", n))
    best = _Checkpoint(folder, "best", monitor=monitor, mode=mode)
    stop = _Patience(monitor, patience=patience, mode=mode, check_on_train_epoch_end=True)
    # A file of its own: Lightning's save_last writes only when there is a new best. Last of all callbacks,
    # because it saves the others' state.
    last = _Checkpoint(folder, "last")
    return L.Trainer(
        accelerator="auto",
        devices=n_local,
        num_nodes=n // n_local,
        strategy="ddp" if n > 1 else "auto",
        # Lightning's own environment deletes WORLD_SIZE after training, and `predict` needs it.
        plugins=[_WholeFiles(), *([TorchElasticEnvironment()] if n > 1 else [])],
        callbacks=[Speed(), _Watched(), _RankOrder(), *([stop, best] if with_val else []), last],
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        num_sanity_val_steps=0,
        enable_progress_bar=False,  # Speed draws one bar for the whole training
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


class _WholeFiles(TorchCheckpointIO):
    """Checkpoints that are there only when they are whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        with atomic_file(path, RuntimeError) as aside:  # torch's, of a full disk
            torch.save(checkpoint, aside)


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

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


Watch = Callable[[list[dict[str, float]]], None]
_watch: ContextVar[Watch] = ContextVar("watch", default=lambda history: None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within it `watch` gets the figures of a training's epochs before each; what it raises ends that.

    The training goes on from there when it is asked for again. Those of several processes are not watched.
    """
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


class _Watched(Callback):
    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        _watch.get()(module.history)


class _RankOrder(Callback):
    """Gradients of all processes are summed in the order of their ranks.

    The order in which an all-reduce sums three numbers or more goes by their place among the gradients. Torch
    changes that place after a process's first step: an interrupted training would end in other weights.
    """

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            trainer.strategy.model.register_comm_hook(None, _mean_in_order)


def _mean_in_order(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The mean of a bucket: each process sums its share of the numbers, and all get the whole."""
    own, n = bucket.buffer(), dist.get_world_size()
    numbers = torch.nn.functional.pad(own, (0, -len(own) % n))
    shares = torch.empty_like(numbers)
    dist.all_to_all_single(shares, numbers)
    dist.all_gather_single(numbers, sum(shares.view(n, -1)) / n)
    found: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    found.set_result(numbers[: len(own)])
    return found


class Speed(Callback):
    """One progress bar for the whole training, a line an epoch, and the training steps' rows per second."""

    def __init__(self) -> None:
        self.n_rows, self.seconds = 0, 0.0

    @property
    def rows_per_second(self) -> float:
        return self.n_rows / self.seconds

    def state_dict(self) -> dict[str, Any]:
        return {"n_rows": self.n_rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.n_rows, self.seconds = state_dict["n_rows"], state_dict["seconds"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.bar = Progress(
            module.model.config.model_class,
            "batch",
            trainer.max_epochs * trainer.num_training_batches,
            trainer.global_step,
            shown=not trainer.global_rank,
        )

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: dict, i: int) -> None:
        self.n_rows += len(batch["label"]) * trainer.world_size
        self.bar.update()

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._pause()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._pause()
        figures = trainer.callback_metrics
        chosen = sorted(figures.keys() & {"train_loss", "val_loss", "val_auroc", module.config.monitor})
        shown = ", ".join(f"{name} {float(figures[name]):.4f}" for name in chosen)
        self.bar.line(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, {shown}")

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()

    def _pause(self) -> None:
        """Stop the clock: validation is no training step."""
        if self.started:
            self.seconds += time.perf_counter() - self.started
            self.started = None


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its greetings and its advice to start workers that would only copy arrays.

    A Ctrl-C leaves it as a KeyboardInterrupt.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels, heard = [logger.level for logger in loggers], signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        except SystemExit as end:
            if not isinstance(end.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, heard)
            raise end.__context__ from None
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def share() -> tuple[int, int]:
    """This process's number and how many there are, as a launcher says; alone it is the first of one."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Whether this process is the one that writes files."""
    return share()[0] == 0


def is_first_of_machine() -> bool:
    """Whether this process is the one that removes what its machine alone has."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


Work = Callable[[Mapping[str, Any]], None]  # of one process, given the variables that torchrun would set
Start = Callable[[int, Work], None]  # runs it in so many processes, and waits
_start: ContextVar[Start | None] = ContextVar("start", default=None)


@contextmanager
def started_by(start: Start | None) -> Iterator[None]:
    """Within it `start` starts the processes of a training; None: they are of this machine."""
    before = _start.set(start)
    try:
        yield
    finally:
        _start.reset(before)


def launch(n: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run `function` in n new processes of one group, as `started_by` says, and wait."""
    if start := _start.get():
        return start(n, partial(_run_rank, n_threads=1, function=function, arguments=arguments))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    n_threads = max(1, torch.get_num_threads() // n)
    work = partial(_run_rank, n_threads=n_threads, function=function, arguments=arguments)
    try:
        torch.multiprocessing.start_processes(_run_here, (n, port, work), nprocs=n, start_method="spawn")
    except torch.multiprocessing.ProcessRaisedException as error:  # it holds the traceback as text
        kind, _, told = str(error).strip().splitlines()[-1].partition(": ")
        if kind != "ValueError":
            raise
        raise ValueError(told) from None


def _run_here(rank: int, n: int, port: int, work: Work) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n}
    work({**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})


def _run_rank(
    ranks: Mapping[str, Any], n_threads: int, function: Callable[..., None], arguments: tuple
) -> None:
    os.environ.update({name: str(value) for name, value in ranks.items()})
    torch.set_num_threads(n_threads)
    function(*arguments)
    dist.destroy_process_group()


def gather(part: Any, n: int) -> list[Any]:
    """The parts of all processes, in each of them."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    parts = [None] * n
    dist.all_gather_object(parts, part)
    return parts
