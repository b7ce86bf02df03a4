"""Arrays whose values are too many to sort at once: by pieces, and by ascending ranges of the values."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from n3r.files.arrays import let_go

PIECE = 1 << 21  # rows that are sorted at a time
SAMPLE = 1 << 16  # values that the ranges are made of


def pieces(n: int) -> Iterator[slice]:
    """All of N rows, some at a time."""
    yield from (slice(start, min(start + PIECE, n)) for start in range(0, n, PIECE))


def ranges(values: np.ndarray) -> Iterator[np.ndarray]:
    """Ascending places of the values of a range, range by ascending range; equal values are in one."""
    n_ranges = -(-len(values) // PIECE)
    some = np.sort(values[:: max(1, len(values) // SAMPLE)])
    at = np.linspace(0, len(some), max(1, n_ranges), endpoint=False).astype(np.int64)[1:]
    for low, high in pairwise([None, *np.unique(some[at]), None]):
        found = [np.empty(0, np.int64)]
        for piece in pieces(len(values)):
            own = values[piece]
            inside = np.ones(len(own), bool) if low is None else own >= low
            if high is not None:
                inside &= own < high
            found.append(piece.start + np.flatnonzero(inside))
            let_go(values)
        yield np.concatenate(found)
