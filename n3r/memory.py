"""Memory that a training gives back and takes again with every step."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h numbers them
MiB = 1024**2
KEPT = {M_MMAP_THRESHOLD: 1024 * MiB, M_TRIM_THRESHOLD: 2047 * MiB}
USUAL = {M_MMAP_THRESHOLD: 32 * MiB, M_TRIM_THRESHOLD: 64 * MiB}  # what glibc settles on by itself


@contextmanager
def kept() -> Iterator[None]:
    """While it lasts, freed memory stays with the process; at the end it goes back to the system.

    glibc returns each large tensor to the system when it is freed, and the next one is then filled with
    zeros page by page: a third of a training step. Other C libraries are left as they are.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        yield
        return
    _set(library, KEPT)
    try:
        yield
    finally:
        _set(library, USUAL)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, thresholds: dict[int, int]) -> None:
    for name, value in thresholds.items():
        library.mallopt(name, value)
