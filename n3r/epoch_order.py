"""The order of an epoch's rows, drawn a piece at a time: memory does not grow with the rows.

Decisions:
- Rows of near-equal length stand together, so batches are cut out of the order; each epoch adds other noise.
- An order is an array, or a file that all processes of a machine map: the first that comes draws it, and the
  others wait. A file gets its name when it is complete.
- Rows are sorted by ranges of values, each in memory by itself: the same order as of one sort of all.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from n3r.files.arrays import let_go, room
from n3r.files.atomic import renamed, writing
from n3r.files.lock import awaited
from n3r.files.ranges import pieces, ranges

Noise = tuple[float, int, int]  # its share of a length, a seed and the epoch


def drawn(lengths: np.ndarray, n_batches: int, noise: Noise | None, path: Path | None = None) -> np.ndarray:
    """(N + n_batches,) int64: rows by length, and behind them the order of the batches that are cut of them.

    Without `noise` the longest rows come first, and batches as they are. With a `path` the order lies in that
    file, and those of earlier epochs beside it go.
    """
    if path is None:
        return np.concatenate(list(_draw(lengths, n_batches, noise, None)))
    with writing(path), awaited(path.parent):
        if not path.is_file():
            earlier = list(path.parent.glob(f"{path.stem.rpartition('-')[0]}-*"))
            header = {"descr": "<i8", "fortran_order": False, "shape": (len(lengths) + n_batches,)}
            with renamed(path) as aside, aside.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for piece in _draw(lengths, n_batches, noise, path.parent):
                    file.write(piece.astype("<i8"))
            for one in earlier:  # a process that still reads one keeps what it has mapped
                one.unlink()
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _draw(
    lengths: np.ndarray, n_batches: int, noise: Noise | None, folder: Path | None
) -> Iterator[np.ndarray]:
    n, batches = len(lengths), np.arange(n_batches)
    values = room(n, np.float64, folder)
    rows = room(0 if noise is None else n, np.int32 if n < 1 << 31 else np.int64, folder)
    if noise is None:
        for piece in pieces(n):
            values[piece] = -lengths[piece].astype(np.float64)
            let_go(values, lengths)
    else:
        share, *seeds = noise
        rng = np.random.default_rng(seeds)
        for piece in pieces(n):
            rows[piece] = np.arange(piece.start, piece.stop)
        rng.shuffle(rows)
        for piece in pieces(n):
            values[piece] = lengths[rows[piece]] * (1 + share * rng.uniform(-1, 1, piece.stop - piece.start))
            let_go(values, lengths)
        batches = rng.permutation(n_batches)
    for places in ranges(values):
        places = places[np.argsort(values[places], kind="stable")]
        let_go(values)
        yield places if noise is None else rows[places]
        let_go(rows)
    yield batches
