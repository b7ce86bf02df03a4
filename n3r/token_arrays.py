"""Token ids of many rows in flat arrays, offsets in place of padding: a batch is cut out without a loop."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from n3r.files.arrays import taken


class TokenizedText(NamedTuple):
    """Token ids of N rows without padding: row i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray  # (total,) int32
    offsets: np.ndarray  # (N + 1,) int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that the rows are made of, by name."""
        return self._asdict()

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, (N,) int64."""
        return np.diff(self.offsets)

    def row(self, i: int) -> np.ndarray:
        """Ids of row i."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: Sequence[int]) -> "TokenizedText":
        """Some rows, in the order given."""
        rows = np.asarray(rows, np.int64)
        start = taken(self.offsets, rows)
        return gather(self.ids, start, taken(self.offsets, rows + 1) - start)

    def cut(self, max_tokens: int) -> "TokenizedText":
        """The first `max_tokens` tokens of each row."""
        return gather(self.ids, self.offsets[:-1], np.minimum(self.lengths, max_tokens))


class ChunkedText(NamedTuple):
    """Token ids of N rows of chunks: row i has the chunks `rows[i]` to `rows[i + 1]` of `chunks`."""

    chunks: TokenizedText
    rows: np.ndarray  # (N + 1,) int64

    def __len__(self) -> int:
        return len(self.rows) - 1

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that the rows are made of, by name."""
        return {**self.chunks.arrays, "rows": self.rows}

    @property
    def ids(self) -> np.ndarray:
        """Token ids of all chunks, end to end."""
        return self.chunks.ids

    @property
    def flat(self) -> TokenizedText:
        """The chunks of each row end to end."""
        return TokenizedText(self.chunks.ids, self.chunks.offsets[self.rows])

    @property
    def n_chunks(self) -> np.ndarray:
        """Chunks of each row, (N,) int64."""
        return np.diff(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row's longest chunk, (N,) int64: what a batch is padded to."""
        return np.maximum.reduceat(self.chunks.lengths, self.rows[:-1])

    def row(self, i: int) -> list[np.ndarray]:
        """Ids of each chunk of row i."""
        return [self.chunks.row(chunk) for chunk in range(self.rows[i], self.rows[i + 1])]

    def take(self, rows: Sequence[int]) -> "ChunkedText":
        """Some rows, in the order given."""
        rows = np.asarray(rows, np.int64)
        start = taken(self.rows, rows)
        chunks, offsets = run_on(start, taken(self.rows, rows + 1) - start)
        return ChunkedText(self.chunks.take(chunks), offsets)


Texts = TokenizedText | ChunkedText
OFFSETS = (".offsets", ".rows")  # how names of arrays end that say where rows begin


def texts_of(key: str, arrays: Mapping[str, np.ndarray]) -> Texts:
    """The texts whose `arrays` are called `key` and a dot before their names."""
    text = TokenizedText(arrays[f"{key}.ids"], arrays[f"{key}.offsets"])
    return ChunkedText(text, arrays[f"{key}.rows"]) if f"{key}.rows" in arrays else text


def gather(ids: np.ndarray, start: np.ndarray, lengths: np.ndarray) -> TokenizedText:
    """Rows of `lengths` (N,) tokens, each from its place `start` (N,) of flat ids on."""
    places, offsets = run_on(start, lengths)
    return TokenizedText(taken(ids, places, offsets), offsets)


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each run of so many begins, and the last one ends, (N + 1,) int64."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def run_on(start: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places from each `start` on, `lengths` of them, end to end, and the offsets of each run."""
    offsets = offsets_of(lengths)
    return np.repeat(start - offsets[:-1], lengths) + np.arange(offsets[-1]), offsets
