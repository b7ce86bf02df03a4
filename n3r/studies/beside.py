"""The legacy trained beside a bundle, on the same rows at the same dimensions, and kept.

Decisions:
- The legacy gets what it had as published: its own tokenizer, its -1 fill, its optimiser and schedule. It
  shares with the bundle the rows, the dimensions, the epochs, the batch size, the rate and the seed.
- Another seed gives other weights, order and dropout; the tokenizers stay, on both sides.
- The legacy needs its training rows in memory: of more than a sample has (`rows/parts.py`, 500,000) it gets
  the sample, and n3r is trained anew on the same rows to be compared with it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from tokenizers import Tokenizer

from n3r.bundle import Bundle, train_bundle
from n3r.estimate import group_rows
from n3r.files import kept
from n3r.kernels import keep_memory
from n3r.legacy.epoch_files import EpochFiles
from n3r.legacy.models import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
)
from n3r.legacy.trainer import (
    LegacyTextDataset,
    LegacyTokenizer,
    legacy_tabular,
    predict_legacy,
    train_legacy,
)
from n3r.model import ModelConfig
from n3r.predictions import prediction_table
from n3r.rows.parts import Rows, portions, sample
from n3r.schema import LABEL, SEGMENT, TEXT

Splits = Mapping[str, Rows]  # prepared rows by split, those of train a table
LEGACY = {
    "lstm2risk": (LegacyLSTM2Risk, LegacyLSTMConfig),
    "transformer2risk": (LegacyTransformer2Risk, LegacyTransformerConfig),
}
BINARY_ONLY = (
    "The comparison with the legacy is binary only: its network has one logit, of fraud. Of more than two "
    "classes the models stand beside the baselines alone."
)


SAMPLED = (
    "What is compared here learned from a sample of {n:,} of the {of:,} training rows: the legacy, which "
    "holds its rows in memory, n3r beside it, each deviation, and the baselines. The models of steps 03 and "
    "04 in the tables and curves learned from all."
)


class LegacyRun(NamedTuple):
    """The legacy trained on a bundle's rows, and what it needs to score others."""

    model: torch.nn.Module
    history: list[dict[str, float]]
    orders_per_second: float  # in training, its evaluation of the test rows after each epoch left out
    tokenizer: LegacyTokenizer
    columns: list[str]  # its features, in order

    @property
    def model_class(self) -> str:
        """n3r's name of its class."""
        (name,) = (name for name, (kind, _) in LEGACY.items() if isinstance(self.model, kind))
        return name

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def dataset(self, frame: pl.DataFrame) -> LegacyTextDataset:
        """Prepared rows as the legacy reads them: their `text`, raw numbers, -1 where missing."""
        return _legacy_rows(frame, self.columns, self.tokenizer)

    def predict(self, rows: Rows) -> np.ndarray:
        """Probabilities (N,) float32 of prepared rows, in their order."""
        return np.concatenate([predict_legacy(self.model, self.dataset(part)) for part in portions(rows)])


def check_binary(bundle: Bundle) -> None:
    """Raise ValueError where a bundle tells more classes apart than the legacy."""
    if (n_classes := bundle.model.config.n_classes) > 2:
        raise ValueError(
            "the comparison with the legacy is binary only: its network has one logit, and this model tells "
            f"{n_classes} classes apart"
        )


def n_learned(bundle: Bundle, splits: Splits) -> int:
    """How many training rows a bundle learned from; those of `splits` may be a sample of them."""
    return bundle.data.get("splits", {}).get("train", {}).get("rows", len(splits["train"]))


def compared_on(bundle: Bundle, splits: Splits) -> str | None:
    """What a reader should know of the rows that a bundle and the legacy are compared by."""
    if bundle.model.config.n_classes > 2:
        return BINARY_ONLY
    n, of = len(splits["train"]), n_learned(bundle, splits)
    return SAMPLED.format(n=n, of=of) if n < of else None


def train_beside(
    bundle: Bundle,
    splits: Splits,
    folder: Path,
    seed: int | None = None,
    progress: bool = True,
    epoch_files: Path | None = None,
) -> LegacyRun:
    """The legacy of the bundle's model class, trained on `splits["train"]` and kept in `folder`.

    Prepared rows come in, as the bundle was trained on them; after each epoch a sample of the test rows is
    scored. `seed` is by default the bundle's. What the legacy wrote after each epoch goes to the folder
    `epoch_files`, where one is given. Raises ValueError for a bundle of more than two classes.
    """
    check_binary(bundle)
    seed = bundle.train_config.seed if seed is None else seed
    plan = kept.plan(__name__, splits, bundle.settings, seed)
    files = EpochFiles(epoch_files, plan) if epoch_files else None
    again = files is not None and not files.are_whole(bundle.train_config.epochs)
    train = partial(_train_beside, bundle, splits, seed, progress, files)
    return _run(kept.kept(Path(folder), plan, train, again))


def _train_beside(
    bundle: Bundle, splits: Splits, seed: int, progress: bool, files: EpochFiles | None
) -> kept.Result:
    config, columns = bundle.train_config, list(bundle.column_map.numeric)
    tokenizer = legacy_tokenizer(splits["train"], config.seed)
    looked_at, _ = sample(splits["test"])
    train, test = (_legacy_rows(rows, columns, tokenizer) for rows in (splits["train"], looked_at))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = legacy_model(bundle.model.config, tokenizer.vocab_size, len(columns))
    batch_size = workable_batch_size(len(train), config.batch_size, config.epochs)
    options = {"epochs": config.epochs, "batch_size": batch_size, "lr": config.lr, "seed": seed}
    after_epoch = None
    if files:
        files.start(columns, tokenizer)
        of_markets = group_rows(looked_at[SEGMENT], len(test)) if bundle.column_map.segment else ()
        markets = {market: test.part(rows) for market, rows in of_markets}
        after_epoch = partial(files.write, model=model, markets=markets, batch_size=batch_size)
    with keep_memory():  # three times as fast, and the same numbers
        history = train_legacy(model, train, test, **options, progress=progress, after_epoch=after_epoch)
    described = {
        "model_class": bundle.model.config.model_class,
        "dimensions": asdict(model.config),
        "columns": columns,
        "orders_per_second": len(train) * len(history) / sum(epoch["seconds"] for epoch in history),
    }
    texts = {"config": described, "history": history, "tokenizer": json.loads(tokenizer.tokenizer.to_str())}
    return kept.Result({name: value.cpu().numpy() for name, value in model.state_dict().items()}, texts)


def load_legacy(folder: Path) -> LegacyRun:
    """Read what `train_beside` kept; FileNotFoundError where there is nothing."""
    path = Path(folder) / kept.FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train the legacy again, in step 05_parity")
    return _run(kept.read(path.parent))


def _run(result: kept.Result) -> LegacyRun:
    """A legacy as it was kept, its model on the CPU."""
    config = result.texts["config"]
    kind, dimensions = LEGACY[config["model_class"]]
    with torch.random.fork_rng():
        model = kind(dimensions(**config["dimensions"]))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in result.arrays.items()})
    tokenizer = LegacyTokenizer()
    tokenizer.tokenizer = Tokenizer.from_str(json.dumps(result.texts["tokenizer"], allow_nan=False))
    tokenizer.vocab_size = tokenizer.tokenizer.get_vocab_size()
    (tokenizer.pad_token,), (tokenizer.cls_token,) = tokenizer.encode("[PAD]"), tokenizer.encode("[CLS]")
    speed = config["orders_per_second"]
    return LegacyRun(model.eval(), result.texts["history"], speed, tokenizer, config["columns"])


def by_seed(
    bundle: Bundle,
    own: tuple[pl.DataFrame, pl.DataFrame],
    splits: Splits,
    seeds: Sequence[int],
    folder: Path,
) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """Predictions of the test rows by n3r and by the legacy, of the bundle's seed (`own`) and of each other.

    Both are trained anew for another seed, with the same tokenizers, features and configs, and n3r for the
    bundle's own where that learned from more rows; `folder` keeps the trainings. Raises ValueError as
    `train_bundle`.
    """
    test, id, first = splits["test"], bundle.column_map.id, bundle.train_config.seed
    ours, theirs = [own[0]], [own[1]]
    for seed in dict.fromkeys([first, *seeds]):
        place = Path(folder) / f"{bundle.model.config.model_class}_seed{seed}"
        if seed != first:
            beside = train_beside(bundle, splits, place / "legacy", seed)
            theirs.append(prediction_table(test, id, beside.predict(test)))
        elif len(splits["train"]) == n_learned(bundle, splits):
            continue
        else:
            ours.clear()
        ours.append(prediction_table(test, id, score_again(bundle, splits, seed, place)))
    return ours, theirs


def score_again(bundle: Bundle, splits: Splits, seed: int, folder: Path) -> np.ndarray:
    """(N,) scores of the test rows by the bundle's model trained anew from another seed."""

    def train() -> kept.Result:
        config = bundle.train_config.model_copy(update={"seed": seed})
        recipe = replace(bundle, train_config=config)
        rows = {"val": splits["train"].clear(), **splits}
        again, _ = train_bundle(bundle.model.config, rows, recipe, folder)
        return kept.Result({"scores": again.predict(splits["test"])[:, 1]})

    plan = kept.plan(__name__, splits, bundle.settings, "n3r", seed)
    return kept.kept(Path(folder) / "kept", plan, train).arrays["scores"]


def legacy_tokenizer(train: pl.DataFrame, seed: int) -> LegacyTokenizer:
    """The legacy's tokenizer, trained on the joined texts of prepared rows."""
    return LegacyTokenizer(seed=seed).train(train[TEXT].to_list())


def legacy_model(config: ModelConfig, vocab_size: int, n_features: int) -> torch.nn.Module:
    """A new legacy model of the same class and dimensions."""
    if config.model_class not in LEGACY:
        raise ValueError(f"the legacy has no {config.model_class}; it has {' and '.join(LEGACY)}")
    kind, dimensions = LEGACY[config.model_class]
    own = {"n_tab_features": n_features, "n_embed": vocab_size}
    shared = [name for name in dimensions.__dataclass_fields__ if name not in own]
    return kind(dimensions(**own, **{name: getattr(config, name) for name in shared}))


def _legacy_rows(
    frame: pl.DataFrame, columns: Sequence[str], tokenizer: LegacyTokenizer
) -> LegacyTextDataset:
    label = frame[LABEL].to_numpy() if LABEL in frame.columns else np.zeros(len(frame))
    return LegacyTextDataset(frame[TEXT].to_list(), legacy_tabular(frame, columns), label, tokenizer)


def workable_batch_size(n_rows: int, batch_size: int, epochs: int) -> int:
    """The largest batch size up to `batch_size` that the legacy can train with.

    It fails on a last batch of one row and on ten steps in all (defect 23).
    """
    for size in range(batch_size, 1, -1):
        if n_rows % size != 1 and epochs * -(-n_rows // size) != 10:
            return size
    raise ValueError(f"the legacy cannot train {epochs} epochs on {n_rows} rows")
