"""From prepared rows to batches: the data set, the length-bucketed sampler, the two collate builders.

Decisions:
- Text is tokenised once into flat arrays, and a batch is cut out of them as arrays: an epoch costs no
  encoding and no loop over rows (the legacy tokenises every text again in every epoch, defect 49).
- The sampler puts rows of near-equal length into one batch, because padding is computed like text. The
  order is drawn anew each epoch from the seed, with noise on the lengths, so batch-mates change.
- Batches are of near-equal size: a last batch of one row breaks batch norm (defect 23).
- A batch carries `row_id`, which puts predictions back in input order whatever order a collate makes.
- Rows lie in memory or in a store, a folder of arrays that the system maps: one class reads both, so a
  training on more rows than memory holds is the training on few.
- With several processes, each takes its rows out of every batch: all see texts of similar length, and a
  batch is the same rows however many processes share it.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from n3r.encode import TEXT_KEYS, Encoded, PerText, RowEncoder, cut, padded
from n3r.epoch_order import drawn
from n3r.files.arrays import describe, digest, map_arrays, read_manifest, taken, write_arrays
from n3r.rows.parts import Rows
from n3r.schema import LABEL
from n3r.token_arrays import OFFSETS, Texts, texts_of

LENGTHS = "lengths"  # of a store's rows in tokens, beside its arrays
Taken = dict[str, Any]  # text and secondary: Texts; tabular, label, row_id: arrays
Batch = dict[str, Tensor]
Collate = Callable[[Taken], Batch]


class Store(NamedTuple):
    """What is known of rows that lie in a folder, without reading them."""

    folder: Path
    digest: str
    lengths: np.ndarray  # (N,) int32
    facts: dict[str, Any]  # as `OrderDataset.facts`


class OrderDataset(Dataset):
    """N tokenised rows with their features and, where known, a second text and labels (-1 elsewhere).

    The arrays lie in memory, or in the files of a store, which the system reads as they are asked for.
    """

    def __init__(
        self,
        text: Texts,
        tabular: np.ndarray,
        label: np.ndarray | None = None,
        secondary: Texts | None = None,
        store: Store | None = None,
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
        self.store = store

    @property
    def texts(self) -> dict[str, Texts]:
        """By the batch key of their ids."""
        return {"text": self.text, **({} if self.secondary is None else {"secondary": self.secondary})}

    def __len__(self) -> int:
        return len(self.text)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that the rows are made of, by name."""
        texts = {f"{key}.{name}": array for key, t in self.texts.items() for name, array in t.arrays.items()}
        return {**texts, "tabular": self.tabular, "label": self.label}

    @property
    def digest(self) -> str:
        """A checksum of all arrays, the same in memory and in a store."""
        if self.store:
            return self.store.digest
        return digest({name: describe(array) for name, array in self.arrays.items()})

    @property
    def lengths(self) -> np.ndarray:
        """What a row costs in tokens, (N,); batches hold rows of near-equal length."""
        if self.store:
            return self.store.lengths
        return sum(text.lengths for text in self.texts.values())

    @property
    def facts(self) -> dict[str, Any]:
        """Of each text the largest id and the longest row, or chunk, in tokens; the range of the labels."""
        if self.store:
            return self.store.facts
        texts = self.texts.items()
        return {
            "largest": {key: int(text.ids.max(initial=0)) for key, text in texts},
            "longest": {key: int(text.lengths.max(initial=0)) for key, text in texts},
            "labels": [int(self.label.min()), int(self.label.max())] if len(self) else [0, 0],
        }

    def __getitem__(self, rows: list[int]) -> Taken:
        """What a collate function takes: some rows, in the order given."""
        rows = np.asarray(rows)
        return {
            **{key: text.take(rows) for key, text in self.texts.items()},
            "tabular": taken(self.tabular, rows),
            "label": taken(self.label, rows),
            "row_id": rows,
        }

    __getitems__ = __getitem__  # by this name torch's own batches ask for their rows

    def __reduce_ex__(self, protocol: int) -> Any:
        """Another process maps the files of a store itself."""
        return (open_store, (self.store.folder,)) if self.store else super().__reduce_ex__(protocol)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, encoder: RowEncoder, training: bool = False) -> "OrderDataset":
        """Clean, tokenise and scale a prepared frame, with its labels where it has any.

        `training` says that these are the rows that the encoder's features were fitted on: their risks are
        then taken out of fold.

        NOTE[DIFF] the legacy LSTM reads texts of any length; here a row keeps `max_tokens` tokens, since
        one name of 100,000 characters would pad a whole batch to its length.
        """
        return cls._of(frame, encoder.frame(frame, out_of_fold=training))

    @classmethod
    def from_rows(cls, rows: Rows, encoder: RowEncoder, training: bool = False) -> Iterator["OrderDataset"]:
        """Rows of any number as `from_frame` reads them, some at a time."""
        return (cls._of(part, encoded) for part, encoded in encoder.slices(rows, training))

    @classmethod
    def _of(cls, frame: pl.DataFrame, encoded: Encoded) -> "OrderDataset":
        label = frame[LABEL].fill_null(-1).to_numpy() if LABEL in frame.columns else None
        return cls(encoded.texts["text"], encoded.tabular, label, encoded.texts.get("secondary"))


STORE = "a token store"  # in messages


def write_store(folder: Path, parts: Iterable[OrderDataset], made_by: str = "") -> None:
    """Write the rows of some data sets, one behind the other, into a folder that `open_store` maps.

    `made_by`: a fingerprint of what they were made of and by. Raises ValueError where there are no rows, and
    naming the folder where it cannot be written.
    """
    facts: dict[str, Any] = {"made_by": made_by}
    write_arrays(folder, STORE, _in_a_row(parts, facts), facts)


def _in_a_row(parts: Iterable[OrderDataset], facts: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of each part, offsets counted on from the part before; `facts` become those of all."""
    ends: dict[str, int] = {}
    for part in parts:
        if not len(part):
            continue
        arrays = part.arrays
        for name in [name for name in arrays if name.endswith(OFFSETS)]:
            end = ends.get(name)
            ends[name] = int(arrays[name][-1]) + (end or 0)
            arrays[name] = arrays[name] if end is None else arrays[name][1:] + end
        yield {**arrays, LENGTHS: part.lengths.astype(np.int32)}
        own = part.facts
        for kind in ("largest", "longest"):
            before = facts.get(kind, own[kind])
            facts[kind] = {key: max(n, before[key]) for key, n in own[kind].items()}
        low, high = facts.get("labels", own["labels"])
        facts["labels"] = [min(low, own["labels"][0]), max(high, own["labels"][1])]
    if not ends:
        raise ValueError(f"no rows to write into {STORE}")


def open_store(folder: Path, made_by: str | None = None) -> OrderDataset:
    """The rows of a store, as memory maps.

    Raises FileNotFoundError, or ValueError where the store is damaged, or `made_by` is given and it was made
    of other rows or by other means.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, STORE)
    if made_by is not None and manifest["facts"].get("made_by") != made_by:
        raise ValueError(
            f"{STORE} {folder} is of other rows, another tokenizer or other features: write it anew"
        )
    arrays = map_arrays(folder, STORE)
    lengths = arrays.pop(LENGTHS)
    described = {name: entry for name, entry in manifest["arrays"].items() if name != LENGTHS}
    texts = {key: texts_of(key, arrays) for key in TEXT_KEYS if f"{key}.ids" in arrays}
    store = Store(folder, digest(described), lengths, manifest["facts"])
    return OrderDataset(texts["text"], arrays["tabular"], arrays["label"], texts.get("secondary"), store)


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of row numbers whose texts are of near-equal length, each row once an epoch.

    Without `shuffle` rows are taken longest first, so that memory runs out at once or never. With a `folder`
    the order of rows lies in a file there, one for all processes of a machine.

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
        folder: Path | None = None,
    ):
        self.lengths = np.asarray(lengths)
        self.rank, self.n_processes = share
        n_rows, fewest = len(self.lengths), 2 * self.n_processes
        # A process that is left with one row takes it into the batch before.
        self.n_batches = max(1, min(-(-n_rows // batch_size), n_rows // min(batch_size, fewest)))
        self.shuffle = shuffle
        self.seed = seed
        self.noise = noise
        self.folder = folder
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw another order; called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        noise = (self.noise, self.seed, self.epoch) if self.shuffle else None
        name = f"epoch-{self.epoch}.npy" if self.shuffle else "longest.npy"
        order = drawn(self.lengths, self.n_batches, noise, self.folder and self.folder / name)
        n_rows = len(self.lengths)
        size, n_larger = divmod(n_rows, self.n_batches)
        for i in order[n_rows:].tolist():
            start = i * size + min(i, n_larger)
            rows = order[start : start + size + (i < n_larger)]
            if own := rows[self.rank :: self.n_processes].tolist():
                yield own


def build_lstm2risk_collate_fn(pad_token: PerText) -> Collate:
    """Collate for LSTM2Risk: rows sorted by text length, descending."""

    def collate(rows: Taken) -> Batch:
        batch = _pad(rows, pad_token)
        order = batch["text_length"].argsort(stable=True).flip(0)
        return {name: tensor[order] for name, tensor in batch.items()}

    return collate


def build_transformer2risk_collate_fn(pad_token: PerText, block_size: PerText) -> Collate:
    """Collate for Transformer2Risk: texts cut to `block_size` tokens, order kept."""

    def collate(rows: Taken) -> Batch:
        return _pad(rows | cut(_texts(rows), block_size), pad_token)

    return collate


def build_collate_fn(pad_token: PerText) -> Collate:
    """Collate for the other classes: order kept, nothing cut; chunked texts are (B, K, T)."""

    def collate(rows: Taken) -> Batch:
        return _pad(rows, pad_token)

    return collate


def make_loader(
    dataset: OrderDataset,
    collate: Collate,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
    folder: Path | None = None,
) -> DataLoader:
    """A loader of length-bucketed batches; batch i of an epoch is `collate(dataset[rows])`.

    `folder` keeps the order of an epoch's rows.
    """
    sampler = LengthBucketSampler(dataset.lengths, batch_size, shuffle, seed, share=share, folder=folder)
    # As `sampler` with automatic batching off, not as `batch_sampler`: Lightning calls set_epoch only
    # on the former, and without it every epoch would see the same batches (defect 36).
    # The generator is there because a loader without one draws from the global random state.
    return DataLoader(
        dataset, sampler=sampler, batch_size=None, collate_fn=collate, generator=torch.Generator()
    )


def _texts(rows: Taken) -> dict[str, Texts]:
    return {key: rows[key] for key in TEXT_KEYS if key in rows}


def _pad(rows: Taken, pad_token: PerText) -> Batch:
    """A batch as DESIGN describes it; a chunked text is (B, K, T) and has a mask of that shape."""
    arrays = padded(_texts(rows), pad_token) | {name: rows[name] for name in ("tabular", "label", "row_id")}
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return batch | {"text_length": batch["attn_mask"].flatten(1).sum(dim=1)}
