"""Rows to what a model reads: token ids and a feature array, made the same way in training and scoring.

No torch is imported here, because scoring runs without it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from n3r.features import TabularFeatures
from n3r.ngrams import joined_texts
from n3r.rows.parts import Rows, slices
from n3r.rows.values import typed_texts
from n3r.schema import ColumnMap
from n3r.token_arrays import ChunkedText, Texts
from n3r.tokenizer import Reader

# The texts that a row can have, batch key of the ids -> of the mask: the text, the second text of trimodal
# classes, and in a blend all text fields in the ids of a pretrained BERT.
TEXT_KEYS = {"text": "attn_mask", "secondary": "secondary_mask", "pretrained": "pretrained_mask"}
PerText = int | Mapping[str, int]  # the same for every text of a row, or for each by the key of its ids


class Encoded(NamedTuple):
    """N rows as a model reads them; what it does not read is left out."""

    texts: dict[str, Texts]  # by the batch key of their ids
    tabular: np.ndarray | None = None  # (N, F) float32
    joined: list[str] | None = None  # all text fields as one text, for n-grams of characters

    @property
    def lengths(self) -> np.ndarray:
        """What a row costs in tokens and characters, (N,): batches hold rows of near-equal cost."""
        costs = [text.lengths * text.n_chunks if isinstance(text, ChunkedText) else text.lengths
                 for text in self.texts.values()]  # fmt: skip
        costs += [] if self.joined is None else [np.array(list(map(len, self.joined)), np.int64)]
        return sum(costs) if costs else np.zeros(len(self.tabular), np.int64)

    def take(self, rows: Sequence[int]) -> "Encoded":
        """Some rows, in the order given; arrays of their own."""
        return Encoded(
            {key: text.take(rows) for key, text in self.texts.items()},
            None if self.tabular is None else self.tabular[rows],
            None if self.joined is None else [self.joined[row] for row in rows],
        )


def text_readers(keys: Iterable[str], first: Reader, others: Mapping[str, Reader]) -> dict[str, Reader]:
    """How each text of `keys` is read: by its own of `others`, or else by the first.

    The first reads a second text by its `secondary_steps`. Raises ValueError for one of `others` whose text
    is not among `keys`, for a text that none reads, and for `secondary_steps` that read nothing.
    """
    keys = list(keys)
    if unread := [key for key in others if key not in keys]:
        raise ValueError(
            f"there is a tokenizer of its own for the text {unread[0]!r}, which this model does not read: "
            "leave it out; a second text is read by trimodal classes"
        )
    if "secondary" in others and first.texts.secondary_steps:
        raise ValueError(
            "the second text has a tokenizer of its own: give its `steps` there and no `secondary_steps` here"
        )
    second = first.texts.model_copy(update={"steps": first.texts.secondary_steps})
    known = {"text": first, "secondary": Reader(first.tokenizer, second), **others}
    if unknown := [key for key in keys if key not in known]:
        raise ValueError(f"the model reads the text {unknown[0]!r}, and there is no tokenizer for it")
    return {key: known[key] for key in keys}


@dataclass(frozen=True)
class RowEncoder:
    """Cleans, tokenises and scales rows that have the columns of a column map.

    `readers`: the texts that a model reads, by the batch key of their ids, and how. Beside a second text the
    first ends where the map's `secondary_text` begins; any other is all text fields.
    """

    column_map: ColumnMap
    readers: Mapping[str, Reader]
    features: TabularFeatures | None = None  # None: of a model that reads texts alone
    joined: bool = False  # whether the joined texts are read too

    def frame(self, frame: pl.DataFrame, out_of_fold: bool = False) -> Encoded:
        """Rows of a table; `out_of_fold` as `TabularFeatures.transform`. ValueError names absent columns."""
        self._require(frame)
        tabular = None if self.features is None else self.features.transform(frame, out_of_fold)
        return self._encoded(frame, tabular)

    def slices(self, rows: Rows, training: bool = False) -> Iterator[tuple[pl.DataFrame, Encoded]]:
        """Rows of any number, some at a time, each with `frame` of it; `training`: out of fold."""
        self._require(rows)
        if self.features and training:
            parts = self.features.transform_training(rows)
        else:
            transform = self.features.transform if self.features else lambda _: None
            parts = ((part, transform(part)) for part in slices(rows))
        for part, tabular in parts:
            yield part, self._encoded(part, tabular)

    def _require(self, rows: Rows) -> None:
        if absent := [name for name in self.column_map.all_text if name not in rows.columns]:
            raise ValueError(f"the rows lack the text columns {absent} that the column map names")

    def _encoded(self, frame: pl.DataFrame, tabular: np.ndarray | None) -> Encoded:
        fields = {name: typed_texts(frame[name]).to_list() for name in self.column_map.all_text}
        return Encoded(self.read(fields), tabular, self._join(fields))

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """Rows, column -> value, typed as in a table; a table of one row costs more than to score it."""
        fields = {name: [row[name] for row in rows] for name in self.column_map.all_text}
        tabular = None
        if self.features is not None:
            tabular = np.concatenate([self.features.transform_row(row) for row in rows])
        return Encoded(self.read(fields), tabular, self._join(fields))

    def _join(self, fields: Mapping[str, Sequence[str | None]]) -> list[str] | None:
        return joined_texts([fields[name] for name in self.column_map.all_text]) if self.joined else None

    def read(self, fields: Mapping[str, Sequence[str | None]]) -> dict[str, Texts]:
        """The tokenised texts of each row, from columns of strings."""
        columns = self.column_map
        of_text = dict.fromkeys(self.readers, columns.all_text)
        if "secondary" in self.readers:
            if not columns.secondary_text:
                raise ValueError("a trimodal class reads two texts: name `secondary_text` in the column map")
            of_text |= {"text": columns.text, "secondary": columns.secondary_text}
        return {
            key: tokenizer.read([fields[name] for name in of_text[key]], texts.steps, texts)
            for key, (tokenizer, texts) in self.readers.items()
        }


def cut(texts: Mapping[str, Texts], longest: PerText) -> dict[str, Texts]:
    """Texts that keep their first `longest` tokens; those for which no number is given stay whole."""
    longest = _of_each(texts, longest)
    return {key: text.cut(longest[key]) if key in longest else text for key, text in texts.items()}


def padded(texts: Mapping[str, Texts], pad_token: PerText) -> dict[str, np.ndarray]:
    """Ids and mask of each text of some rows under its `TEXT_KEYS`, as `pad` gives them."""
    pad_token, out = _of_each(texts, pad_token), {}
    for key, text in texts.items():
        out[key], out[TEXT_KEYS[key]] = pad(text, pad_token[key])
    return out


def _of_each(texts: Iterable[str], given: PerText) -> Mapping[str, int]:
    return given if isinstance(given, Mapping) else dict.fromkeys(texts, given)


def pad(texts: Texts, pad_token: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 and mask bool, (B, T), or (B, K, T) for texts of chunks; T and K are at least 1."""
    chunked = isinstance(texts, ChunkedText)
    flat = texts.chunks if chunked else texts
    inside = np.arange(max(1, flat.lengths.max(initial=0))) < flat.lengths[:, None]  # chunks or rows, T
    if chunked:
        present = np.arange(max(1, texts.n_chunks.max())) < texts.n_chunks[:, None]  # (B, K)
        mask = np.zeros((*present.shape, inside.shape[1]), bool)
        mask[present] = inside
    else:
        mask = inside
    ids = np.full(mask.shape, pad_token, np.int64)
    ids[mask] = flat.ids
    return ids, mask
