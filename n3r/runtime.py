"""A graph run over encoded rows by onnxruntime, in batches of near-equal length."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from n3r.encode import TEXT_KEYS, Encoded, PerText, cut, padded
from n3r.graphs import PROBS, TABULAR
from n3r.ngrams import CHARACTERS, code_points
from n3r.process import processors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SPIN = 10  # microseconds that a thread waits awake: as fast alone as the default, twice as fast in company
BATCH_ROWS, BATCH_TOKENS = 32, 8192  # at most, with padding; 64 rows are as fast, 8 or 256 a tenth slower
KNOWN = (*TEXT_KEYS, *TEXT_KEYS.values(), TABULAR, CHARACTERS)  # what a graph may read


class Graph:
    """A graph of probabilities; `inputs` and `outputs` are the names of what it reads and gives."""

    def __init__(
        self,
        model: Path | bytes,
        n_classes: int,
        pad_token: PerText,
        longest: Mapping[str, int] | None = None,
        threads: int | None = None,
    ):
        """Load a graph of a file or of its bytes.

        `longest`: tokens of a text; what is over is cut, as in training. `threads` None: all processors.
        """
        self.session = session(model, threads)
        self.n_classes, self.pad_token, self.longest = n_classes, pad_token, longest or {}
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]

    @property
    def texts(self) -> list[str]:
        """The batch keys of the token ids that it reads."""
        return [key for key in TEXT_KEYS if key in self.inputs]

    def probabilities(self, encoded: Encoded) -> np.ndarray:
        """(N, C) float32 of encoded rows, in their order; ValueError where the graph does not fit them."""
        lengths = encoded.lengths
        out = np.empty((len(lengths), self.n_classes), np.float32)
        for rows in _batches(lengths):
            out[rows] = self.run(encoded, rows)
        return out

    def run(self, encoded: Encoded, rows: Sequence[int]) -> np.ndarray:
        """(n, C) of some of the rows, in one batch."""
        texts = cut({key: encoded.texts[key].take(rows) for key in self.texts}, self.longest)
        feed = {name: array for name, array in padded(texts, self.pad_token).items() if name in self.inputs}
        if TABULAR in self.inputs:
            feed[TABULAR] = encoded.tabular[rows]
        if CHARACTERS in self.inputs:
            feed[CHARACTERS] = code_points([encoded.joined[row] for row in rows])
        try:
            found = self.session.run([PROBS], feed)[0]
        except Exception:  # the library has classes of its own, and its text may show what it was fed
            raise ValueError("the graph cannot run on what the tokenizer and the features gave it") from None
        if found.shape != (len(rows), self.n_classes) or not (found.min() >= 0 and found.max() <= 1):
            raise ValueError("the graph gives something else than a probability for each class")
        return found


def session(model: Path | bytes, threads: int | None = None) -> "InferenceSession":
    """A graph of a file or of its bytes, on the CPU; `threads` None: as many as `processors()`."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4  # what it would log it also raises
    options.intra_op_num_threads = threads or processors()
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN))
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of near-equal length, each row once."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        # Lengths ascend, so the last row of a batch says what each of its rows is padded to.
        rows = order[start : start + BATCH_ROWS]
        padded = lengths[rows] * np.arange(1, len(rows) + 1)
        rows = rows[: max(1, int(np.searchsorted(padded, BATCH_TOKENS, side="right")))]
        yield rows
        start += len(rows)
