"""How far a long piece of work has come.

Decisions:
- In JupyterLab a widget moves, and goes when it is done; on a terminal that is watched, a bar. Elsewhere, in
  files and in continuous integration, nothing moves.
- Everywhere a line stays for each epoch or the like: on stderr, but in JupyterLab, which shows stderr in red.
- TQDM_DISABLE silences both. What moves holds timings; lines do not, so that two runs say the same.
"""

import os
import sys
from importlib.util import find_spec
from typing import Self

from tqdm import tqdm

SESSION = "JPY_SESSION_NAME"  # set by notebook servers alone, for kernels that somebody looks at
WATCHED = "N3R_WATCHED"  # set by the runner for kernels whose stderr goes on to a terminal


def has_widgets() -> bool:
    """Whether this is the kernel of a notebook that somebody looks at, and there are widgets for it."""
    return SESSION in os.environ and find_spec("ipywidgets") is not None


def is_watched() -> bool:
    """Whether what goes to stderr is seen on a terminal."""
    return sys.stderr.isatty() or WATCHED in os.environ


class Progress:
    """A bar of `total` units of work from the `first`, and lines; nothing where it is not `shown`."""

    def __init__(self, what: str, unit: str, total: int | None = None, first: int = 0, shown: bool = True):
        self.what, self.unit, self.total, self.n = what, unit, total, first
        self._lab, self._silent = has_widgets(), not shown or bool(os.environ.get("TQDM_DISABLE"))
        kind = tqdm
        if self._lab:
            from tqdm.notebook import tqdm as kind
        hidden = self._silent or not (self._lab or is_watched())
        place = {} if self._lab else {"file": sys.stderr}
        options = {"desc": what, "unit": unit, "mininterval": 1, "leave": False, "disable": hidden, **place}
        self._bar = kind(total=total, initial=first, **options)

    def expect(self, total: int) -> None:
        """So many units there will be, where that was not known."""
        self.total = total
        self._bar.reset(total)

    def update(self, n: int = 1, **figures: str) -> None:
        """`n` more units are done; `figures` are shown beside the bar."""
        self.n += n
        if figures:
            self._bar.set_postfix(figures, refresh=False)
        self._bar.update(n)

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._silent:
            return
        if self._lab:
            sys.stdout.write(f"{self.what}: {text}\n")
        else:
            tqdm.write(f"{self.what}: {text}", file=sys.stderr)

    def close(self) -> None:
        """The bar goes, and does not turn red where a training has stopped early."""
        self._bar.total = self._bar.n
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
