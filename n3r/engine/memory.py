"""The engine of a table that fits into memory: plain loops."""

from collections.abc import Callable, Iterable
from typing import Any

import polars as pl


class Memory:
    """Frames in lists; of one bucket none is copied."""

    folder = None

    def __init__(self, n: int | None = None):
        self.n = n  # buckets, whatever is asked for

    def read(self, items: Iterable[Any], fn: Callable[[Any], pl.DataFrame]) -> list[pl.DataFrame]:
        """`fn` of each item."""
        return [fn(item) for item in items]

    def exchange(
        self,
        data: list[pl.DataFrame],
        fn: Callable[[pl.DataFrame], pl.DataFrame] | None,
        n: int = 0,
        by: pl.Expr | None = None,
    ) -> list[pl.DataFrame]:
        """Buckets in memory; `data` is used up, so that no frame stands beside what becomes of it."""
        if n == 1 and len(data) > 1:
            whole = pl.concat(data)
            data.clear()
            data.append(whole)
        elif n > 1:
            whole = pl.concat(data)
            data.clear()
            place = whole.select(by % n).to_series()
            data += [whole.filter(place == i) for i in range(n)]
        found = []
        while data:
            frame = data.pop(0)
            found.append(fn(frame) if fn else frame)
        return found

    def gather(
        self, data: list[pl.DataFrame], fn: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    ) -> pl.DataFrame:
        """All as one."""
        return pl.concat([fn(frame) if fn else frame for frame in data])

    def buckets(self, n_bytes: float) -> int:
        """One."""
        return self.n or 1

    def close(self) -> None:
        """Nothing is left."""
