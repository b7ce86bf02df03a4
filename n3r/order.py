"""The order of an epoch's rows, drawn a piece at a time: memory does not grow with the rows.

Decisions:
- Rows of near-equal length stand together, so batches are cut out of the order; each epoch adds other noise.
- An order is an array, or a file that all processes of a machine map: the first that comes draws it, and the
  others wait. A file gets its name when it is complete.
- Rows are sorted by ranges of values, each in memory by itself: the same order as of one sort of all.
"""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from n3r.files.arrays import let_go
from n3r.files.atomic import writing
from n3r.files.lock import awaited

PIECE = 1 << 21  # rows that are sorted at a time
SAMPLE = 1 << 16  # values that the ranges are made of


def drawn(
    lengths: np.ndarray, n_batches: int, noise: tuple[float, int, int] | None, path: Path | None = None
) -> np.ndarray:
    """(N + n_batches,) int64: rows by length, and behind them the order of the batches that are cut of them.

    `noise`: its share of a length, a seed and the epoch; None: the longest rows first, batches as they are.
    With a `path` the order lies in that file, and in the folder beside it are no files of earlier orders.
    """
    if path is None:
        return _draw(lengths, n_batches, noise, None)
    with writing(path):
        with awaited(path.parent):
            if not path.is_file():
                earlier = sorted(path.parent.glob(f"{path.stem.rpartition('-')[0]}-*"))
                aside = path.with_name(f".{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()
                _draw(lengths, n_batches, noise, aside)
                (aside / "order.npy").replace(path)
                shutil.rmtree(aside)
                for one in earlier:  # a process that still reads one keeps what it has mapped
                    one.unlink()
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _draw(
    lengths: np.ndarray, n_batches: int, noise: tuple[float, int, int] | None, folder: Path | None
) -> np.ndarray:
    n = len(lengths)
    batches = np.arange(n_batches)
    values = _room(folder, "values", n, np.float64)
    out = _room(folder, "order", n + n_batches, np.int64)
    rows = _room(folder, "rows", 0 if noise is None else n, np.int32 if n < 1 << 31 else np.int64)
    if noise is None:
        for piece in _pieces(n):
            values[piece] = -lengths[piece].astype(np.float64)
            let_go(values, lengths)
    else:
        share, *seeds = noise
        rng = np.random.default_rng(seeds)
        for piece in _pieces(n):
            rows[piece] = np.arange(piece.start, piece.stop)
        rng.shuffle(rows)
        for piece in _pieces(n):
            values[piece] = lengths[rows[piece]] * (1 + share * rng.uniform(-1, 1, piece.stop - piece.start))
            let_go(values, lengths)
        batches = rng.permutation(n_batches)
    at = 0
    for places in _ascending(values):
        out[at : at + len(places)] = places if noise is None else rows[places]
        at += len(places)
        let_go(out, rows)
    out[n:] = batches
    return out


def _room(folder: Path | None, name: str, n: int, dtype: type) -> np.ndarray:
    """An array to write to, in memory or in a file of a folder."""
    if folder is None:
        return np.empty(n, dtype)
    path = folder / f"{name}.npy"
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (n,)}
    with path.open("wb") as file:  # written, not only made: on a full disk a map ends the process
        np.lib.format.write_array_header_1_0(file, header)
        for piece in _pieces(n):
            file.write(bytes((piece.stop - piece.start) * np.dtype(dtype).itemsize))
    return np.asarray(np.load(path, mmap_mode="r+", allow_pickle=False))


def _pieces(n: int) -> Iterator[slice]:
    yield from (slice(start, min(start + PIECE, n)) for start in range(0, n, PIECE))


def _ascending(values: np.ndarray) -> Iterator[np.ndarray]:
    """Places of ascending values, equal ones in their order, some after the other."""
    n_ranges = -(-len(values) // PIECE)
    some = np.sort(values[:: max(1, len(values) // SAMPLE)])
    at = np.linspace(0, len(some), max(1, n_ranges), endpoint=False).astype(np.int64)[1:]
    for low, high in pairwise([-np.inf, *np.unique(some[at]), np.inf]):
        places, found = [np.empty(0, np.int64)], [np.empty(0)]
        for piece in _pieces(len(values)):
            inside = np.flatnonzero((low <= values[piece]) & (values[piece] < high))
            places.append(piece.start + inside)
            found.append(values[piece][inside])
            let_go(values)
        yield np.concatenate(places)[np.argsort(np.concatenate(found), kind="stable")]
