"""A language model of names or prose: training a `CustomTransformerWrapper`, its perplexity, its surprise.

Decisions:
- Figures are of whole splits: perplexity a token, and bits a character, in which tokenizers can be compared;
  the end of a document counts as a token and as a character.
- The training is kept at each evaluation. A step's batch depends on the seed and its number alone, so one
  that was interrupted goes on and ends with the same weights; its best evaluation is what is kept.
- A model knows the names it was trained on, and is less surprised by them. As a feature of the rows it was
  trained on, surprise is therefore that of a model of the other rows (`cross_fitted_surprise`).
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace as altered
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import polars as pl
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from tqdm import tqdm

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
from n3r.files.json_io import explain, key_values, read_json, write_json
from n3r.files.sources import fingerprint

BPE = "bpe"
TRAINING = "training.json"
N_WATCHED = 2_000  # validation windows of the evaluations during training
BATCH = 256  # windows that are evaluated at a time

SURPRISE = ("nats", "bits_per_character")

Figures = dict[str, float]


class LanguageModelConfig(CustomTransformerConfig):
    """What is read, how it becomes tokens, the model's dimensions, and how it is trained."""

    data: str = "synthetic"  # orders, or a file or folder, or a hub's data set
    column: str = "customerName"  # of tables
    unit: Literal["lines", "paragraphs", "files"] = "paragraphs"  # that are the documents of a text file
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
    patience: int = Field(5, ge=1)  # evaluations without a better validation loss before stopping
    seed: int = Field(0, ge=0)

    @classmethod
    def from_file(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """The config of a JSON file and, over it, of texts such as "epochs=3".

        Raises FileNotFoundError, and ValueError naming all that is wrong.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no config {path}")
        content = read_json(Path(path))
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold a JSON object")
        given = key_values(overrides)
        try:
            return cls(**content | given)
        except ValidationError as error:
            raise ValueError(f"{path}: {explain(error, cls.model_fields)}") from None

    def documents(self) -> Documents:
        """What the config says to read; raises as `read_documents` does."""
        limit = self.subset_size if self.use_subset else None
        return read_documents(self.data, self.column, self.unit, limit, self.held_out, self.seed)

    def transformer(self, vocab_size: int) -> CustomTransformerConfig:
        """The config of the model alone, for a tokenizer of this size."""
        own = {name: getattr(self, name) for name in CustomTransformerConfig.model_fields}
        return CustomTransformerConfig(**own | {"vocab_size": vocab_size})


class LanguageModel(NamedTuple):
    """A transformer with the tokenizer and the config it was trained with, and its training's figures."""

    wrapper: CustomTransformerWrapper
    tokenizer: Tokenizer
    config: LanguageModelConfig
    history: list[dict[str, float]]  # step, epoch, train_loss, and of validation loss, perplexity, bits

    def windows(self, documents: Sequence[str]) -> Windows:
        """Documents as this model reads them."""
        config = self.wrapper.config
        return windows(documents, self.tokenizer, config.max_seq_len, self.config.packed)

    def evaluate(self, documents: Sequence[str]) -> Figures:
        """`loss` (nats a token), `perplexity`, `bits_per_character`, `n_tokens`, `n_characters`."""
        if not documents:
            raise ValueError("no documents to evaluate on")
        return _figures(self.wrapper, self.windows(documents))

    def surprise(self, texts: pl.Series) -> pl.DataFrame:
        """How little each text was to be expected: `nats`, -log p(text), and `bits_per_character`.

        The end of a text belongs to it and counts as a character. A row for a row, null where a text is.
        """
        present = texts.is_not_null().to_numpy()
        known = texts.drop_nulls()
        found = windows(known.to_list(), self.tokenizer, self.wrapper.config.max_seq_len, packed=False)
        nats = np.zeros(len(known))
        for rows in found.batches(BATCH):
            np.add.at(nats, found.document[rows], _losses(self.wrapper, found, rows).sum(1))
        bits = nats / math.log(2) / (known.str.len_chars().to_numpy() + 1)
        table = np.full((len(texts), 2), np.nan)
        table[present] = np.column_stack([nats, bits])
        return pl.DataFrame(table, schema=SURPRISE, nan_to_null=True)

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
        ids = [end, *self.tokenizer.encode(text).ids]
        longest = max_length or self.wrapper.config.max_seq_len
        prompts = torch.tensor([ids]).expand(n, -1)
        found = self.wrapper.generate(prompts, longest, temperature, top_k, end, seed)
        return [self.tokenizer.decode(row[1:]) for row in found.tolist()]

    def save(self, folder: Path, **state: Any) -> None:
        """Write model, tokenizer, config and history; the folder is replaced when all is written."""
        with atomic_folder(folder, "the language model", TRAINING, SafetensorError) as aside:
            self.wrapper.write_checkpoint(aside)
            self.tokenizer.save(str(aside / "tokenizer.json"))
            write_json(
                aside / TRAINING, {"config": self.config.model_dump(), "history": self.history, **state}
            )

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Read what `save` wrote, or the best of a training's folder.

        Raises FileNotFoundError or ValueError naming what is missing or damaged.
        """
        folder = Path(folder)
        folder = folder / "best" if (folder / "best").is_dir() else folder
        config, state = _training(folder)
        wrapper = CustomTransformerWrapper.from_checkpoint(folder, device)
        tokenizer = load_tokenizer(str(folder))
        if tokenizer.get_vocab_size() != wrapper.config.vocab_size:
            raise ValueError(f"the tokenizer of {folder} is not that of its model: its size is another")
        return cls(wrapper, tokenizer, config, state["history"])


def train_language_model(
    config: LanguageModelConfig,
    folder: Path,
    documents: Documents | None = None,
    replace: bool = False,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> LanguageModel:
    """Train on the documents of the config, or on those given, and return the model of the best evaluation.

    `folder` keeps the last and the best evaluation; a training of the same config and documents that is there
    goes on. `report` gets each evaluation's row of the history. Raises ValueError where the folder holds
    another training, which `replace` takes the place of, and for a loss that is no number any more.
    """
    folder = Path(folder)
    for kept in ("best", "last"):
        put_back(folder / kept)
    documents = documents or config.documents()
    plan = _plan(config, documents)
    last = _resumable(folder, config, plan, replace)
    if last is None:
        tokenizer = _tokenizer(config, documents["train"])
        wrapper = CustomTransformerWrapper(config.transformer(tokenizer.get_vocab_size()), config.seed)
        last = LanguageModel(wrapper, tokenizer, config, [])
    training = _Training(last, documents, plan, folder, report)
    training.run()
    return LanguageModel.load(folder / "best", config.device)._replace(history=last.history)


class _Training:
    """The loop: steps, evaluations, checkpoints."""

    def __init__(
        self,
        model: LanguageModel,
        documents: Documents,
        plan: str,
        folder: Path,
        report: Callable[[dict[str, float]], None],
    ):
        self.model, self.config = model, model.config
        self.plan, self.folder, self.report = plan, folder, report
        self.train, self.val = (model.windows(documents[split]) for split in ("train", "val"))
        self.n_batches = len(list(self.train.batches(self.config.batch_size)))
        self.total = self.config.epochs * self.n_batches

    def run(self) -> None:
        """Go on from the history's last step to the end, or until nothing gets better."""
        first = int(self.model.history[-1]["step"]) if self.model.history else 0
        batches, losses = self._batches(first), []
        shown = {"desc": "language model", "unit": "batch", "mininterval": 1, "file": sys.stderr}
        with tqdm(total=self.total, initial=first, **shown) as bar:
            for step in range(first, self.total):
                if self._stopped():
                    break
                losses.append(self._step(next(batches), step))
                bar.update()
                if (step + 1) % self.config.eval_every == 0 or step + 1 == self.total:
                    self._evaluate(step + 1, float(np.mean(losses)))
                    losses = []

    def _batches(self, first: int) -> Iterator[list[int]]:
        """Batches of all epochs, from the step `first` on."""
        epoch, done = divmod(first, self.n_batches)
        for number in count(epoch):
            batches = self.train.batches(self.config.batch_size, self.config.seed, number)
            yield from islice(batches, done if number == epoch else 0, None)

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
        """Measure on validation windows; keep this state, and as the best if it is that."""
        found = _figures(self.model.wrapper, self.val, N_WATCHED)
        row = {"step": step, "epoch": step / self.n_batches, "train_loss": train_loss}
        row |= {f"val_{name}": found[name] for name in ("loss", "perplexity", "bits_per_character")}
        self.model.history.append(row)
        if self._since_best() == 0:
            self.model.save(self.folder / "best", plan=self.plan)
        self.model.save(self.folder / "last", plan=self.plan)
        self.report(row)

    def _since_best(self) -> int:
        losses = [row["val_loss"] for row in self.model.history]
        return len(losses) - 1 - int(np.argmin(losses))

    def _stopped(self) -> bool:
        return bool(self.model.history) and self._since_best() >= self.config.patience


def cross_fitted_surprise(
    texts: Mapping[str, pl.Series], config: LanguageModelConfig, folder: Path
) -> tuple[dict[str, pl.DataFrame], list[LanguageModel]]:
    """Split -> `LanguageModel.surprise` of its texts by models that were not trained on them; and these two.

    texts: train, val and more. The training rows are halved by the seed. A model of each half scores the
    other half, and the mean of both scores every other split; val says when their training is to stop.
    """
    rows = np.random.default_rng(config.seed).permutation(len(texts["train"]))
    halves = [np.sort(rows[i::2]) for i in range(2)]
    known = {split: series.drop_nulls().to_list() for split, series in texts.items()}
    models, parts = [], []
    for i, half in enumerate(halves):
        own = texts["train"][halves[1 - i]].drop_nulls().to_list()
        model = train_language_model(
            config, folder / str(i), {"train": own, "val": known["val"]}, replace=True
        )
        models.append(model)
        parts.append(model.surprise(texts["train"][half]).with_columns(row=pl.Series(half)))
    found = {"train": pl.concat(parts).sort("row").drop("row")}
    for split, series in texts.items():
        if split != "train":
            one, other = (model.surprise(series) for model in models)
            found[split] = (one + other) / 2
    return found, models


def _tokenizer(config: LanguageModelConfig, documents: list[str]) -> Tokenizer:
    if config.tokenizer == BPE:
        return byte_pair_tokenizer(documents, config.vocab_size)
    return load_tokenizer(config.tokenizer)


def _losses(wrapper: CustomTransformerWrapper, found: Windows, rows: list[int]) -> np.ndarray:
    """-log p of the token after each place of some windows, (B, T) float64, 0 at the end and in padding."""
    ids, labels = map(torch.from_numpy, found.batch(rows))
    return wrapper.token_losses(ids, labels).double().cpu().numpy()


def _figures(wrapper: CustomTransformerWrapper, found: Windows, most: int | None = None) -> Figures:
    """Figures of all windows, or of the first `most`; of these, characters are counted in proportion."""
    watched = found if most is None else altered(found, start=found.start[:most], length=found.length[:most])
    total = sum(_losses(wrapper, watched, rows).sum() for rows in watched.batches(BATCH))
    n_tokens = watched.n_predicted
    n_characters = round(found.n_characters * n_tokens / found.n_predicted)
    loss = float(total) / n_tokens
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_character": float(total) / math.log(2) / n_characters,
        "n_tokens": n_tokens,
        "n_characters": n_characters,
    }


def _plan(config: LanguageModelConfig, documents: Documents) -> str:
    """A fingerprint of config, code and documents: a training of another plan is not gone on with."""
    settings = config.model_dump(exclude={"device"})
    plan = sha256(json.dumps(settings, sort_keys=True).encode())
    plan.update(fingerprint("import n3r.custom_transformer.language_model").encode())
    for split in ("train", "val"):
        for document in documents[split]:
            plan.update(len(document).to_bytes(8, "big") + document.encode(errors="surrogatepass"))
    return plan.hexdigest()


def _training(folder: Path) -> tuple[LanguageModelConfig, dict[str, Any]]:
    """Config and state of what `LanguageModel.save` wrote."""
    path = Path(folder) / TRAINING
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no language model, it has no {TRAINING}: n3r lm train makes one"
        )
    state = read_json(path)
    try:
        return LanguageModelConfig(**state["config"]), state
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, LanguageModelConfig.model_fields)}") from None
    except (KeyError, TypeError):
        raise ValueError(f"{path} is not that of a language model") from None


def _resumable(folder: Path, config: LanguageModelConfig, plan: str, replace: bool) -> LanguageModel | None:
    """The last state of the same training, if there is one; ValueError where there is another."""
    last = folder / "last"
    if not (last / TRAINING).is_file():
        return None
    try:
        found, state = _training(last)
    except ValueError:
        if replace:
            return None
        raise
    if state.get("plan") == plan:
        return LanguageModel.load(last, config.device)
    if replace:
        return None
    what = config.differences(found) or "of other documents, or by another n3r"
    raise ValueError(f"{folder} holds another training ({what}): choose another folder, or replace it")
