"""A language model of names or prose: training a `CustomTransformerWrapper`, its perplexity, its surprisal.

Decisions:
- Figures are of whole splits: perplexity per token, and bits per character, which can be compared between
  tokenizers; the end of a document counts as a token and as a character.
- Each evaluation saves the training. A step's batch depends only on the seed and the step's number, so an
  interrupted training continues to the same weights; the best evaluation is the result.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace as altered
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from tokenizers import Tokenizer

from n3r.custom_transformer.corpus import (
    END,
    Documents,
    Windows,
    byte_pair_tokenizer,
    load_tokenizer,
    read_documents,
    windows,
)
from n3r.custom_transformer.model import CustomTransformerConfig, CustomTransformerWrapper
from n3r.files.atomic import atomic_folder, put_back
from n3r.files.json_io import key_values, read_model, write_json
from n3r.files.sources import fingerprint
from n3r.progress import Progress

BPE = "bpe"
NO_PLAN = {"device", "log_every", "save_every"}  # what a training may differ in and go on
TRAINING = "training.json"
N_WATCHED = 2_000  # validation windows of the evaluations during training
BATCH = 256  # windows that are evaluated at a time

SURPRISAL = ("nats", "bits_per_character")

Figures = dict[str, float]
Report = Callable[[Figures], None]


class LanguageModelConfig(CustomTransformerConfig):
    """What is read, how it becomes tokens, the model's dimensions, and how it is trained."""

    data: str = "synthetic"  # orders, or a file or folder, or a data set on the hub
    column: str = "customerName"  # of tables
    unit: Literal["lines", "paragraphs", "files"] = "paragraphs"  # the documents of a text file
    use_subset: bool = False
    subset_size: int = Field(10_000, ge=10)  # documents
    held_out: float = Field(0.1, gt=0, le=0.4)  # share of validation, and again of test documents
    tokenizer: str = BPE  # trained on the documents, vocab_size at most; or "gpt2", or the path of one
    packed: bool = False  # documents after one another in full windows; else each in windows of its own
    vocab_size: int = Field(512, ge=257)
    epochs: int = Field(5, ge=1)
    batch_size: int = Field(64, ge=1)  # windows
    learning_rate: float = Field(2e-3, gt=0, allow_inf_nan=False)  # at its peak
    warmup: float = Field(0.05, ge=0, lt=1)  # share of the steps until the peak; then half a cosine to 0
    eval_every: int = Field(100, ge=1)  # steps
    log_every: int | None = Field(None, ge=1)  # steps between reports of the training loss alone
    save_every: int | None = Field(None, ge=1)  # steps between checkpoints beside those of evaluations
    patience: int = Field(5, ge=1)  # evaluations without a better validation loss before stopping
    seed: int = Field(0, ge=0)

    @classmethod
    def from_file(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """The config of a JSON file and, over it, of texts such as "epochs=3".

        Raises FileNotFoundError, and ValueError naming all that is wrong.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no config {path}")
        return read_model(path, cls, key_values(overrides))

    def documents(self) -> Documents:
        """What the config says to read; raises as `read_documents` does."""
        limit = self.subset_size if self.use_subset else None
        return read_documents(self.data, self.column, self.unit, limit, self.held_out, self.seed)

    def transformer(self, vocab_size: int) -> CustomTransformerConfig:
        """The config of the model alone, for a tokenizer of this size."""
        own = {name: getattr(self, name) for name in CustomTransformerConfig.model_fields}
        return CustomTransformerConfig(**own | {"vocab_size": vocab_size})


class _State(BaseModel):
    """The file that makes a folder a language model."""

    model_config = ConfigDict(extra="forbid")

    config: LanguageModelConfig
    history: list[dict[str, int | float]]
    plan: str | None = None  # see `_plan`
    step: int = Field(0, ge=0)
    losses: list[float] = []  # of the steps since the last evaluation

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The state that a folder holds; raises FileNotFoundError or ValueError."""
        if not (Path(folder) / TRAINING).is_file():
            raise FileNotFoundError(
                f"{folder} is not a language model, it has no {TRAINING}: n3r lm train makes one"
            )
        return read_model(Path(folder) / TRAINING, cls)


class LanguageModel(NamedTuple):
    """A transformer with the tokenizer and the config it was trained with, and its training's figures."""

    wrapper: CustomTransformerWrapper
    tokenizer: Tokenizer
    config: LanguageModelConfig
    history: list[Figures]  # step, epoch, train_loss, and of validation loss, perplexity, bits

    def windows(self, documents: Sequence[str]) -> Windows:
        """Documents as this model reads them."""
        return windows(documents, self.tokenizer, self.wrapper.config.max_seq_len, self.config.packed)

    def evaluate(self, documents: Sequence[str]) -> Figures:
        """`loss` (nats per token), `perplexity`, `bits_per_character`, `n_tokens`, `n_characters`."""
        if not documents:
            raise ValueError("no documents to evaluate on")
        return _figures(self.wrapper, self.windows(documents))

    def surprisal(self, texts: pl.Series) -> pl.DataFrame:
        """-log p(text) of each text in `nats`, and in `bits_per_character`; null where a text is null.

        The end of a text belongs to it and counts as a character.
        """
        known = texts.drop_nulls()
        found = windows(known.to_list(), self.tokenizer, self.wrapper.config.max_seq_len, packed=False)
        nats = np.zeros(len(known))
        for rows in found.batches(BATCH):
            np.add.at(nats, found.document[rows], _losses(self.wrapper, found, rows).sum(1))
        bits = nats / math.log(2) / (known.str.len_chars().to_numpy() + 1)
        table = np.full((len(texts), 2), np.nan)
        table[texts.is_not_null().to_numpy()] = np.column_stack([nats, bits])
        return pl.DataFrame(table, schema=SURPRISAL, nan_to_null=True)

    def generate(
        self,
        prompt: str = "",
        n: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        max_length: int | None = None,
        seed: int | None = None,
    ) -> list[str]:
        """`n` documents that begin with the prompt, each to its end or to `max_length` tokens.

        Raises ValueError for a prompt that fills them, and as the wrapper does.
        """
        end = self.tokenizer.token_to_id(END)
        text = prompt.encode(errors="replace").decode()  # an argument of the shell may hold half characters
        prompts = torch.tensor([[end, *self.tokenizer.encode(text).ids]]).expand(n, -1)
        max_length = max_length or self.wrapper.config.max_seq_len
        found = self.wrapper.generate(prompts, max_length, temperature, top_k, end, seed)
        return [self.tokenizer.decode(row[1:]) for row in found.tolist()]

    def attention(self, text: str) -> tuple[torch.Tensor, list[str]]:
        """Attention weights of a text (n_blocks, H, T, T), and its T tokens; "·" stands for the start."""
        ids = self.tokenizer.encode(text).ids
        weights = self.wrapper.model.attention_weights(
            torch.tensor([[self.tokenizer.token_to_id(END), *ids]])
        )
        return weights[:, 0], ["·", *(self.tokenizer.decode([token]) for token in ids)]

    def save(
        self, folder: Path, plan: str | None = None, step: int = 0, losses: Sequence[float] = ()
    ) -> None:
        """Write model, tokenizer, config and history; the folder is replaced when all is written."""
        own = {"config": self.config, "history": self.history}
        state = _State(**own, plan=plan, step=step, losses=list(losses))
        with atomic_folder(folder, "the language model", TRAINING, SafetensorError) as aside:
            self.wrapper.write_checkpoint(aside)
            self.tokenizer.save(str(aside / "tokenizer.json"))
            write_json(aside / TRAINING, state.model_dump())

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Read what `save` wrote, or the best of a training's folder.

        Raises FileNotFoundError or ValueError naming what is missing or damaged.
        """
        folder = Path(folder)
        folder = folder / "best" if (folder / "best").is_dir() else folder
        state = _State.of(folder)
        wrapper = CustomTransformerWrapper.from_checkpoint(folder, device)
        tokenizer = load_tokenizer(str(folder))
        if tokenizer.get_vocab_size() != wrapper.config.vocab_size:
            raise ValueError(f"the tokenizer of {folder} is not that of its model: its size is another")
        return cls(wrapper, tokenizer, state.config, state.history)


def train_language_model(
    config: LanguageModelConfig,
    folder: Path,
    documents: Documents | None = None,
    replace: bool = False,
    report: Report | None = None,
) -> LanguageModel:
    """Train on the documents of the config, or on those given, and return the model of the best evaluation.

    `folder` keeps the last checkpoint and the best evaluation, and a training of the same config and
    documents goes on from there; `report` gets each evaluation's row of the history, and what `log_every`
    asks for; without it a line is said. Raises ValueError for a folder that holds another training, unless
    `replace`, and for a loss that is not finite.
    """
    folder = Path(folder)
    for kept in ("best", "last"):
        put_back(folder / kept)
    documents = documents or config.documents()
    plan = _plan(config, documents)
    model, step, losses = _last(folder, config, plan, replace) or (None, 0, [])
    if model is None:
        if config.tokenizer == BPE:
            tokenizer = byte_pair_tokenizer(documents["train"], config.vocab_size)
        else:
            tokenizer = load_tokenizer(config.tokenizer)
        wrapper = CustomTransformerWrapper(config.transformer(tokenizer.get_vocab_size()), config.seed)
        model = LanguageModel(wrapper, tokenizer, config, [])
    _Training(model, documents, plan, folder, report).run(step, losses)
    return LanguageModel.load(folder / "best", config.device)._replace(history=model.history)


class _Training:
    """The loop: steps, evaluations, checkpoints."""

    def __init__(
        self, model: LanguageModel, documents: Documents, plan: str, folder: Path, report: Report | None
    ):
        self.model, self.config, self.history = model, model.config, model.history
        self.plan, self.folder, self.report = plan, folder, report or self._say
        self.train, self.val = (model.windows(documents[split]) for split in ("train", "val"))
        self.n_batches = len(self._epoch(0))
        self.total = self.config.epochs * self.n_batches

    def run(self, first: int, losses: list[float]) -> None:
        """Go on from a step, and the losses since the evaluation before it, until nothing gets better."""
        batches = []
        with Progress("language model", "batch", self.total, first) as self.bar:
            for step in range(first, self.total):
                if self.history and self._since_best() >= self.config.patience:
                    break
                epoch, place = divmod(step, self.n_batches)
                if place == 0 or not batches:
                    batches = self._epoch(epoch)
                losses = [*losses, self._step(batches[place], step)]
                self.bar.update()
                losses = self._keep(step + 1, losses)

    def _keep(self, step: int, losses: list[float]) -> list[float]:
        """Log, evaluate and save where it is time to; the losses that the next evaluation reports."""
        log, save = self.config.log_every, self.config.save_every
        if log and step % log == 0:
            recent = float(np.mean(losses[-log:]))
            self.report({"step": step, "epoch": step / self.n_batches, "train_loss": recent})
        if step % self.config.eval_every == 0 or step == self.total:
            self._evaluate(step, float(np.mean(losses)))
            return []
        if save and step % save == 0:
            self.model.save(self.folder / "last", self.plan, step, losses)
        return losses

    def _epoch(self, epoch: int) -> list[list[int]]:
        return list(self.train.batches(self.config.batch_size, self.config.seed, epoch))

    def _step(self, rows: list[int], step: int) -> float:
        ids, labels = map(torch.from_numpy, self.train.batch(rows))
        loss = self.model.wrapper.train_step(ids, labels, self._rate(step))["loss"]
        if not math.isfinite(loss):
            raise ValueError(f"the loss at step {step + 1} is {loss}: take a lower learning_rate")
        return loss

    def _rate(self, step: int) -> float:
        """The learning rate of a step: up in a line over the warm-up, then half a cosine down to 0."""
        n_warm = self.config.warmup * self.total
        if step + 1 < n_warm:
            return self.config.learning_rate * (step + 1) / n_warm
        done = (step + 1 - n_warm) / max(1.0, self.total + 1 - n_warm)
        return self.config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def _evaluate(self, step: int, train_loss: float) -> None:
        """Measure on validation windows; save this state, and as the best if it is that."""
        found = _figures(self.model.wrapper, self.val, N_WATCHED)
        row = {"step": step, "epoch": step / self.n_batches, "train_loss": train_loss}
        row |= {f"val_{name}": found[name] for name in ("loss", "perplexity", "bits_per_character")}
        self.history.append(row)
        for kept in ("best", "last") if self._since_best() == 0 else ("last",):
            self.model.save(self.folder / kept, self.plan, step)
        self.report(row)

    def _say(self, row: dict[str, float]) -> None:
        """A line of an evaluation."""
        if "val_loss" in row:
            losses = f"train_loss {row['train_loss']:.4f}, val_loss {row['val_loss']:.4f}"
            self.bar.line(f"epoch {row['epoch']:.2f} of {self.config.epochs}, {losses}")

    def _since_best(self) -> int:
        losses = [row["val_loss"] for row in self.history]
        return len(losses) - 1 - int(np.argmin(losses))


def _losses(wrapper: CustomTransformerWrapper, found: Windows, rows: list[int]) -> np.ndarray:
    """-log p of the token after each position of windows, (B, T) float64, 0 at the end and in padding."""
    ids, labels = map(torch.from_numpy, found.batch(rows))
    return wrapper.token_losses(ids, labels).double().cpu().numpy()


def _figures(wrapper: CustomTransformerWrapper, found: Windows, limit: int | None = None) -> Figures:
    """Figures of all windows or the first `limit`, whose characters are estimated from their tokens."""
    watched = altered(found, start=found.start[:limit], length=found.length[:limit])
    total = float(sum(_losses(wrapper, watched, rows).sum() for rows in watched.batches(BATCH)))
    n_tokens = watched.n_predicted
    n_characters = round(found.n_characters * n_tokens / found.n_predicted)
    loss = total / n_tokens
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_character": total / math.log(2) / n_characters,
        "n_tokens": n_tokens,
        "n_characters": n_characters,
    }


def _plan(config: LanguageModelConfig, documents: Documents) -> str:
    """A fingerprint of config, code and documents: only a training of the same plan is continued."""
    plan = sha256(json.dumps(config.model_dump(exclude=NO_PLAN), sort_keys=True, allow_nan=False).encode())
    plan.update(fingerprint("import n3r.custom_transformer.language_model").encode())
    for split in ("train", "val"):
        for document in documents[split]:
            plan.update(len(document).to_bytes(8, "big") + document.encode(errors="surrogatepass"))
    return plan.hexdigest()


def _last(
    folder: Path, config: LanguageModelConfig, plan: str, replace: bool
) -> tuple[LanguageModel, int, list[float]] | None:
    """The last checkpoint of the same training, if there is one, with its step and its losses.

    ValueError for another training, unless `replace`.
    """
    last = folder / "last"
    if not (last / TRAINING).is_file():
        return None
    try:
        state = _State.of(last)
        if state.plan == plan:
            return LanguageModel.load(last, config.device), state.step, state.losses
        what = config.differences(state.config) or "of other documents, or by another n3r"
        raise ValueError(f"{folder} holds another training ({what}): choose another folder, or replace it")
    except ValueError:
        if replace:
            return None
        raise
