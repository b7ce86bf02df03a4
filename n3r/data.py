"""From prepared rows to batches: the data set, the length-bucketed sampler, the two collate builders.

Decisions:
- Text is tokenised once into flat arrays; a sample is a view into them, so an epoch costs no encoding
  (the legacy tokenises every text again in every epoch, defect 49).
- The sampler puts rows of near-equal length into one batch, because padding is computed like text. The
  order is drawn anew each epoch from the seed, with noise on the lengths, so batch-mates change.
- Batches are of near-equal size: a last batch of one row breaks batch norm (defect 23).
- A batch carries `row_id`; whatever order a collate makes, predictions are put back by it.
"""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from n3r.features import NumericFeatures
from n3r.tokenizer import NameTokenizer, TokenizedText

Sample = dict[str, np.ndarray | int]
Batch = dict[str, Tensor]
Collate = Callable[[list[Sample]], Batch]


class OrderDataset(Dataset):
    """N tokenised rows with their features and, where known, their labels (-1 elsewhere)."""

    def __init__(self, text: TokenizedText, tabular: np.ndarray, label: np.ndarray | None = None):
        if not len(text) == len(tabular) == (len(text) if label is None else len(label)):
            raise ValueError(f"{len(text)} texts, {len(tabular)} feature rows: lengths differ")
        self.text = text
        self.tabular = tabular
        self.label = np.full(len(text), -1) if label is None else np.asarray(label, np.int64)

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, row: int | list[int]) -> Sample | list[Sample]:
        if isinstance(row, list):
            return [self[i] for i in row]
        ids, offsets = self.text
        return {
            "text": ids[offsets[row] : offsets[row + 1]],
            "tabular": self.tabular[row],
            "label": self.label[row],
            "row_id": row,
        }

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        text_columns: list[str],
        tokenizer: NameTokenizer,
        features: NumericFeatures,
        max_tokens: int = 512,
    ) -> "OrderDataset":
        """Tokenise and scale a prepared frame; its `label` column is used when it has one.

        NOTE[DIFF] the legacy LSTM reads texts of any length; here a row keeps `max_tokens` tokens, since
        one name of 100,000 characters would pad a whole batch to its length.
        """
        text = tokenizer.encode(frame.select(text_columns), max_tokens)
        label = frame["label"].fill_null(-1).to_numpy() if "label" in frame.columns else None
        return cls(text, features.transform(frame), label)


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of row numbers whose texts are of near-equal length, each row once an epoch.

    Without `shuffle` rows are taken longest first, so that memory runs out at once or never.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        noise: float = 0.1,  # of a row's length; 0.1 makes 9 % more to compute
    ):
        self.lengths = np.asarray(lengths)
        n_rows = len(self.lengths)
        # Batches of two take a third row rather than leave it alone.
        self.n_batches = max(1, min(-(-n_rows // batch_size), n_rows // min(batch_size, 2)))
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
            yield from self._split(np.argsort(-self.lengths, kind="stable"))
            return
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        noisy = self.lengths[order] * (1 + self.noise * rng.uniform(-1, 1, len(order)))
        batches = self._split(order[np.argsort(noisy, kind="stable")])
        for i in rng.permutation(len(batches)):
            yield batches[i]

    def _split(self, order: np.ndarray) -> list[list[int]]:
        return [part.tolist() for part in np.array_split(order, self.n_batches)]


def build_lstm2risk_collate_fn(pad_token: int) -> Collate:
    """Collate for LSTM2Risk: rows sorted by text length, descending."""

    def collate(samples: list[Sample]) -> Batch:
        lengths = [len(sample["text"]) for sample in samples]
        order = np.argsort(lengths, kind="stable")[::-1]
        return _pad([samples[i] for i in order], pad_token)

    return collate


def build_transformer2risk_collate_fn(pad_token: int, block_size: int) -> Collate:
    """Collate for Transformer2Risk: texts cut to `block_size` tokens, order kept."""

    def collate(samples: list[Sample]) -> Batch:
        cut = [{**sample, "text": sample["text"][:block_size]} for sample in samples]
        return _pad(cut, pad_token)

    return collate


def make_loader(
    dataset: OrderDataset, collate: Collate, batch_size: int, shuffle: bool = False, seed: int = 0
) -> DataLoader:
    """A loader of length-bucketed batches; batch i of an epoch is `collate(dataset[rows])`."""
    sampler = LengthBucketSampler(dataset.text.lengths, batch_size, shuffle, seed)
    # As `sampler` with automatic batching off, not as `batch_sampler`: Lightning calls set_epoch only
    # on the former, and without it every epoch would see the same batches (defect 36).
    # The generator is there because a loader without one draws from the global random state.
    return DataLoader(
        dataset, sampler=sampler, batch_size=None, collate_fn=collate, generator=torch.Generator()
    )


def _pad(samples: list[Sample], pad_token: int) -> Batch:
    """A batch as DESIGN describes it: `text` (B, T), T at least 1, `attn_mask` True on tokens."""
    lengths = np.fromiter((len(sample["text"]) for sample in samples), np.int64, len(samples))
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]  # (B, T)
    text = np.full(mask.shape, pad_token, np.int64)
    text[mask] = np.concatenate([sample["text"] for sample in samples])
    return {
        "text": torch.from_numpy(text),
        "text_length": torch.from_numpy(lengths),
        "attn_mask": torch.from_numpy(mask),
        "tabular": torch.from_numpy(np.stack([sample["tabular"] for sample in samples])),
        "label": torch.tensor([int(sample["label"]) for sample in samples]),
        "row_id": torch.tensor([sample["row_id"] for sample in samples]),
    }
