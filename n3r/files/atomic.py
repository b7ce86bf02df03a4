"""Atomic writes: a file or folder gets its name only when it is complete.

Decisions:
- Content is written beside the final name and renamed at the end: a full disk, an error or a kill leaves an
  earlier file or folder as it was, and never half of a new one.
- No system renames a folder over another one, so an earlier folder is first renamed out of the way.
  `put_back` undoes that if a kill came between the two renames.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end, or is removed if anything fails.

    Raises ValueError naming file and folder when the system is in the way; errors of the block pass.
    """
    aside = _beside(path, "partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(0, "a folder has this name")
        yield aside
        with writing(path):
            aside.replace(path)
    finally:
        with suppress(OSError):  # what could not be made, for want of a shorter name, is not there
            aside.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: str | Path, *errors: type[Exception]) -> Iterator[Path]:
    """`renamed` for a block that only writes: its own errors, of these kinds too, become ValueErrors."""
    path = Path(path)
    with renamed(path) as aside, writing(path, *errors):
        yield aside


def write_together(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Write files that belong together, name -> content; raises as `atomic_file`.

    The first of several is there when all are: an earlier one goes before any other is replaced.
    """
    with ExitStack() as files:  # which end in the opposite order
        for name, content in contents.items():
            files.enter_context(atomic_file(Path(folder) / name)).write_bytes(content)
        if len(contents) > 1:
            (Path(folder) / next(iter(contents))).unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path, what: str, mark: str, *errors: type[Exception]) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` at the end, or goes if anything fails.

    Raises ValueError naming `what` and the folder when the system, or an error of these kinds, is in the way,
    or when the folder holds something else: it is neither empty nor has the file `mark`.
    """
    folder = Path(folder)
    aside, earlier = _beside(folder, "partial"), _beside(folder, "earlier")
    try:
        put_back(folder)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
            raise ValueError(f"{folder} holds something else: choose a new or an empty folder for {what}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        if folder.is_dir():
            folder.rename(earlier)
        aside.rename(folder)
    except (OSError, *errors) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot write {what} {folder}: {reason}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        put_back(folder)


def put_back(folder: Path) -> None:
    """End a replacement that was cut short: an earlier folder gets its name again where no new one has it."""
    earlier = _beside(folder, "earlier")
    if earlier.is_dir() and not folder.exists():
        earlier.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)


@contextmanager
def writing(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Within it, an error of the system or of these kinds becomes a ValueError naming file and folder."""
    try:
        yield
    except (OSError, *errors) as error:
        reason = getattr(error, "strerror", None) or "input/output error, a full disk?"
        raise ValueError(
            f"cannot write {path.name} into {path.parent} ({reason}); choose a folder that can be written"
        ) from None


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")
