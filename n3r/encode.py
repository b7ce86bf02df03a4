"""Rows to what a model reads: token ids and a feature array, made the same way in training and scoring.

No torch is imported here, because scoring runs without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from n3r.features import TabularFeatures
from n3r.ngrams import joined_texts
from n3r.rows.values import typed_texts
from n3r.schema import ColumnMap
from n3r.tokenizer import BertTokenizer, ChunkedText, NameTokenizer, Reader, TextConfig, Texts

TEXT_KEYS = (("text", "attn_mask"), ("secondary", "secondary_mask"))  # batch keys of each text of a row
PRETRAINED_KEYS = ("pretrained", "pretrained_mask")  # the text as the pretrained BERT of a blend reads it


class Encoded(NamedTuple):
    """N rows as a model reads them; what it does not read is left out."""

    texts: list[Texts]  # one, or two for classes that read a second text apart, or none
    tabular: np.ndarray | None = None  # (N, F) float32
    joined: list[str] | None = None  # all text fields as one text, for n-grams of characters
    pretrained: Texts | None = None  # all text fields in the ids of a pretrained BERT

    @property
    def lengths(self) -> np.ndarray:
        """What a row costs in tokens and characters, (N,): batches hold rows of near-equal cost."""
        texts = self.texts if self.pretrained is None else [*self.texts, self.pretrained]
        costs = [text.lengths * text.n_chunks if isinstance(text, ChunkedText) else text.lengths
                 for text in texts]  # fmt: skip
        costs += [] if self.joined is None else [np.array(list(map(len, self.joined)), np.int64)]
        return sum(costs) if costs else np.zeros(len(self.tabular), np.int64)

    def take(self, rows: Sequence[int]) -> "Encoded":
        """Some rows, in the order given; arrays of their own."""
        return Encoded(
            [text.take(rows) for text in self.texts],
            None if self.tabular is None else self.tabular[rows],
            None if self.joined is None else [self.joined[row] for row in rows],
            None if self.pretrained is None else self.pretrained.take(rows),
        )


@dataclass(frozen=True)
class RowEncoder:
    """Cleans, tokenises and scales rows that have the columns of a column map.

    Of one text the map's `secondary_text` is the end; of two (`ModelConfig.n_texts`) it is the second.
    """

    tokenizer: NameTokenizer | BertTokenizer
    column_map: ColumnMap
    features: TabularFeatures | None = None  # None: of a model that reads texts alone
    texts: TextConfig = TextConfig()
    n_texts: int = 1
    joined: bool = False  # whether the joined texts are read too
    pretrained: Reader | None = None  # how a pretrained BERT reads all text fields, where there is one

    def frame(self, frame: pl.DataFrame, out_of_fold: bool = False) -> Encoded:
        """Rows of a table; `out_of_fold` as `TabularFeatures.transform`. ValueError names absent columns."""
        names = self.column_map.all_text
        if absent := [name for name in names if name not in frame.columns]:
            raise ValueError(f"the rows lack the text columns {absent} that the column map names")
        fields = {name: typed_texts(frame[name]).to_list() for name in names}
        tabular = None if self.features is None else self.features.transform(frame, out_of_fold)
        return Encoded(self.read(fields), tabular, self._join(fields), self._read_pretrained(fields))

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """Rows, column -> value, typed as in a table; a table of one row costs more than to score it."""
        fields = {name: [row[name] for row in rows] for name in self.column_map.all_text}
        tabular = None
        if self.features is not None:
            tabular = np.concatenate([self.features.transform_row(row) for row in rows])
        return Encoded(self.read(fields), tabular, self._join(fields), self._read_pretrained(fields))

    def _join(self, fields: Mapping[str, Sequence[str | None]]) -> list[str] | None:
        return joined_texts([fields[name] for name in self.column_map.all_text]) if self.joined else None

    def _read_pretrained(self, fields: Mapping[str, Sequence[str | None]]) -> Texts | None:
        if self.pretrained is None:
            return None
        tokenizer, texts = self.pretrained
        return tokenizer.read([fields[name] for name in self.column_map.all_text], texts.steps, texts)

    def read(self, fields: Mapping[str, Sequence[str | None]]) -> list[Texts]:
        """The tokenised text of each row, or its two texts, from columns of strings."""
        columns, steps = self.column_map, self.texts.steps
        if self.n_texts == 0:
            return []
        if self.n_texts == 1:
            parts = [(columns.all_text, steps)]
        elif columns.secondary_text:
            parts = [(columns.text, steps), (columns.secondary_text, self.texts.secondary_steps)]
        else:
            raise ValueError("a trimodal class reads two texts: name `secondary_text` in the column map")
        read = self.tokenizer.read
        return [read([fields[name] for name in names], steps, self.texts) for names, steps in parts]


def padded(texts: Sequence[Texts], pad_token: int) -> dict[str, np.ndarray]:
    """Ids and mask of each text of some rows under its `TEXT_KEYS`, as `pad` gives them."""
    arrays = [pad(text, pad_token) for text in texts]
    return {
        key: array
        for keys, pair in zip(TEXT_KEYS, arrays, strict=False)
        for key, array in zip(keys, pair, strict=True)
    }


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
