"""From prepared rows to batches: the data set, the length-bucketed sampler, the two collate builders.

Decisions:
- Text is tokenised once into flat arrays, and a batch is cut out of them as arrays: an epoch costs no
  encoding and no loop over rows (the legacy tokenises every text again in every epoch, defect 49).
- The sampler puts rows of near-equal length into one batch, because padding is computed like text. The
  order is drawn anew each epoch from the seed, with noise on the lengths, so batch-mates change.
- Batches are of near-equal size: a last batch of one row breaks batch norm (defect 23).
- A batch carries `row_id`, which puts predictions back in input order whatever order a collate makes.
- With several processes, each takes its rows out of every batch: all see texts of similar length, and a
  batch is the same rows however many processes share it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from n3r.encode import TEXT_KEYS, PerText, RowEncoder, cut, padded
from n3r.schema import LABEL
from n3r.token_arrays import Texts

Rows = dict[str, Any]  # text and secondary: Texts; tabular, label, row_id: arrays
Batch = dict[str, Tensor]
Collate = Callable[[Rows], Batch]


class OrderDataset(Dataset):
    """N tokenised rows with their features and, where known, a second text and labels (-1 elsewhere)."""

    def __init__(
        self,
        text: Texts,
        tabular: np.ndarray,
        label: np.ndarray | None = None,
        secondary: Texts | None = None,
    ):
        parts = {"texts": text, "feature rows": tabular, "labels": label, "second texts": secondary}
        lengths = {name: len(part) for name, part in parts.items() if part is not None}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{n} {name}" for name, n in lengths.items())
            raise ValueError(f"a data set of {counts}: lengths differ")
        self.text = text
        self.tabular = tabular
        self.label = np.full(len(text), -1) if label is None else np.asarray(label, np.int64)
        self.secondary = secondary

    @property
    def texts(self) -> dict[str, Texts]:
        """By the batch key of their ids."""
        return {"text": self.text, **({} if self.secondary is None else {"secondary": self.secondary})}

    def __len__(self) -> int:
        return len(self.text)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All that the rows are made of."""
        texts = [array for text in self.texts.values() for array in text.arrays]
        return [*texts, self.tabular, self.label]

    @property
    def lengths(self) -> np.ndarray:
        """What a row costs in tokens, (N,) int64; batches hold rows of near-equal length."""
        return sum(text.lengths for text in self.texts.values())

    def __getitem__(self, rows: list[int]) -> Rows:
        """What a collate function takes: some rows, in the order given."""
        return {
            **{key: text.take(rows) for key, text in self.texts.items()},
            "tabular": self.tabular[rows],
            "label": self.label[rows],
            "row_id": np.asarray(rows),
        }

    __getitems__ = __getitem__  # by this name torch's own batches ask for their rows

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, encoder: RowEncoder, training: bool = False) -> "OrderDataset":
        """Clean, tokenise and scale a prepared frame, with its labels where it has any.

        `training` says that these are the rows that the encoder's features were fitted on: their risks are
        then taken out of fold.

        NOTE[DIFF] the legacy LSTM reads texts of any length; here a row keeps `max_tokens` tokens, since
        one name of 100,000 characters would pad a whole batch to its length.
        """
        encoded = encoder.frame(frame, out_of_fold=training)
        label = frame[LABEL].fill_null(-1).to_numpy() if LABEL in frame.columns else None
        return cls(encoded.texts["text"], encoded.tabular, label, encoded.texts.get("secondary"))


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of row numbers whose texts are of near-equal length, each row once an epoch.

    Without `shuffle` rows are taken longest first, so that memory runs out at once or never.

    NOTE[DIFF] the legacy's batches are random rows, padded to the longest of them, and its last batch is
    what is left.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        noise: float = 0.1,  # of a row's length; 0.1 makes 9 % more to compute
        share: tuple[int, int] = (0, 1),  # this process's number and how many there are
    ):
        self.lengths = np.asarray(lengths)
        self.rank, self.n_processes = share
        n_rows, fewest = len(self.lengths), 2 * self.n_processes
        # A process that is left with one row takes it into the batch before.
        self.n_batches = max(1, min(-(-n_rows // batch_size), n_rows // min(batch_size, fewest)))
        self.shuffle = shuffle
        self.seed = seed
        self.noise = noise
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw another order; called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            yield from filter(None, self._split(np.argsort(-self.lengths, kind="stable")))
            return
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        noisy = self.lengths[order] * (1 + self.noise * rng.uniform(-1, 1, len(order)))
        batches = self._split(order[np.argsort(noisy, kind="stable")])
        for i in rng.permutation(len(batches)):
            yield batches[i]

    def _split(self, order: np.ndarray) -> list[list[int]]:
        parts = np.array_split(order, self.n_batches)
        return [part[self.rank :: self.n_processes].tolist() for part in parts]


def build_lstm2risk_collate_fn(pad_token: PerText) -> Collate:
    """Collate for LSTM2Risk: rows sorted by text length, descending."""

    def collate(rows: Rows) -> Batch:
        batch = _pad(rows, pad_token)
        order = batch["text_length"].argsort(stable=True).flip(0)
        return {name: tensor[order] for name, tensor in batch.items()}

    return collate


def build_transformer2risk_collate_fn(pad_token: PerText, block_size: PerText) -> Collate:
    """Collate for Transformer2Risk: texts cut to `block_size` tokens, order kept."""

    def collate(rows: Rows) -> Batch:
        return _pad(rows | cut(_texts(rows), block_size), pad_token)

    return collate


def build_collate_fn(pad_token: PerText) -> Collate:
    """Collate for the other classes: order kept, nothing cut; chunked texts are (B, K, T)."""

    def collate(rows: Rows) -> Batch:
        return _pad(rows, pad_token)

    return collate


def make_loader(
    dataset: OrderDataset,
    collate: Collate,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
) -> DataLoader:
    """A loader of length-bucketed batches; batch i of an epoch is `collate(dataset[rows])`."""
    sampler = LengthBucketSampler(dataset.lengths, batch_size, shuffle, seed, share=share)
    # As `sampler` with automatic batching off, not as `batch_sampler`: Lightning calls set_epoch only
    # on the former, and without it every epoch would see the same batches (defect 36).
    # The generator is there because a loader without one draws from the global random state.
    return DataLoader(
        dataset, sampler=sampler, batch_size=None, collate_fn=collate, generator=torch.Generator()
    )


def _texts(rows: Rows) -> dict[str, Texts]:
    return {key: rows[key] for key in TEXT_KEYS if key in rows}


def _pad(rows: Rows, pad_token: PerText) -> Batch:
    """A batch as DESIGN describes it; a chunked text is (B, K, T) and has a mask of that shape."""
    arrays = padded(_texts(rows), pad_token) | {name: rows[name] for name in ("tabular", "label", "row_id")}
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return batch | {"text_length": batch["attn_mask"].flatten(1).sum(dim=1)}
