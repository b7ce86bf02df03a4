"""One process at a time in a folder, or at an output.

The system holds the lock, so a killed process leaves none behind.
"""

import fcntl
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from n3r.files.atomic import writing
from n3r.files.formats import beside

ORPHANS_LIVE = 10.0  # seconds in which what a killed process had started notices and ends; it takes one


@contextmanager
def held(folder: Path, what: Path | None = None) -> Iterator[int]:
    """Within it no other process holds the folder; gives the lock's descriptor, made for children to inherit.

    A child that inherits it holds the folder as well, until it ends: so nothing that a killed process left
    running still writes into the folder when the next one begins. Raises ValueError with the process id of
    the holder of the folder, or of `what` it is held for, or when the folder cannot be written.
    """
    with _lock_file(folder) as file:
        _take(file, what or folder)
        file.truncate(0)
        file.write(f"{os.getpid()} {platform.node()}\n")
        file.flush()
        yield file.fileno()


@contextmanager
def awaited(folder: Path) -> Iterator[None]:
    """Within it no other process is in the folder: one waits until the other is done, or was killed.

    Raises ValueError where the folder cannot be written.
    """
    with _lock_file(folder) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(output: Path) -> Iterator[Path]:
    """Within it no other process writes an output, a file or a folder; gives a folder of this user's alone.

    It lies in or beside the output and goes at the end, with all that a killed process left in it. Raises
    ValueError with the process id of the other, or when the output cannot be written.
    """
    place = beside(output, "work")
    is_new = not place.parent.exists()
    with ExitStack() as ends:
        with writing(output):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            ends.enter_context(held(place, output))
        ends.callback(_remove, place, is_new)
        yield place


def _remove(place: Path, and_parent: bool) -> None:
    shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):  # something was written there
        if and_parent:
            place.parent.rmdir()


def _lock_file(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("a+")
    except OSError as error:
        raise ValueError(f"cannot write into the folder {folder}: {error.strerror}") from None


def _take(file: TextIO, what: Path) -> None:
    deadline = time.monotonic() + ORPHANS_LIVE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            if _lives(holder):
                raise ValueError(
                    f"{what} is in use by the process {holder}: wait for it, or choose another name"
                ) from None
            if time.monotonic() > deadline:
                raise ValueError(
                    f"{what} is in use by what the process {holder} started and left: end that first"
                ) from None
        time.sleep(0.05)


def _holder(file: TextIO) -> str:
    """The holder's process id, and its machine if that is another; "" in the moment before it wrote them."""
    file.seek(0)
    pid, _, machine = file.read().strip().partition(" ")
    return pid if machine in ("", platform.node()) else f"{pid} on {machine}"


def _lives(holder: str) -> bool:
    """Whether the holder lives, as far as that is seen: of another machine one that holds a folder does."""
    if not holder.isdigit():
        return bool(holder)
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
