"""What the engines of many machines share, Ray and Spark: errors of workers, a cluster reached.

Decisions:
- A task returns what it tells of an error, which is raised here: an engine would tell its stack, and of some
  errors the cells that brought them about.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from n3r.files.manifest import versions
from n3r.files.writer import POLARS_ERRORS

ANSWER = 5  # seconds in which a cluster's address must answer
START = 60  # seconds in which it must let a driver in


def answered(given: Any, work: Callable[[Any], Any]) -> tuple[Any, bytes]:
    """A task: what `work` gives, and what it tells of an error, of which there is one."""
    try:
        return work(given), b""
    except Exception as error:
        return None, told(error)


def answer(answered: tuple[Any, bytes]) -> Any:
    """What a task gave; raises the error that it told of."""
    given, error = answered
    if error:
        raise raised(error)
    return given


def told(error: Exception) -> bytes:
    """What a driver is told of an error: the text of n3r's own alone, as others may quote a cell."""
    own = isinstance(error, ValueError | FileNotFoundError) and not isinstance(error, UnicodeError)
    kind = "own" if own else "polars" if isinstance(error, POLARS_ERRORS) else type(error).__name__
    text = str(error) if own else getattr(error, "strerror", None) or ""
    return json.dumps({"kind": kind, "text": text}, allow_nan=False).encode()


def raised(told: bytes) -> Exception:
    """The error that a worker told of."""
    found = json.loads(told)
    if found["kind"] == "own":
        return ValueError(found["text"])
    return (
        pl.exceptions.ComputeError("on a worker") if found["kind"] == "polars" else RuntimeError(str(found))
    )


def check_node(name: str, there: Mapping[str, str], sees: bool, folder: Path) -> None:
    """Raise ValueError naming a node that has other versions than this machine, or does not see a folder."""
    here = versions()
    if differ := [library for library in here if here[library] != there.get(library)]:
        told, mine = (", ".join(f"{one} {of.get(one)}" for one in differ) for of in (there, here))
        raise ValueError(f"the node {name} has {told}, this one {mine}: install the same on all")
    if not sees:
        raise ValueError(
            f"the node {name} does not see {folder} as this one does: give a folder that all share"
        )


def reach(address: str) -> str:
    """The address by which this machine reaches HOST:PORT; OSError or ValueError where nothing answers."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), ANSWER) as connection:
            return connection.getsockname()[0]
    except OverflowError as error:
        raise ValueError(port) from error


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` gives, in a thread of its own; RuntimeError where it fails or takes longer."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # of any kind: it is told in the other thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise RuntimeError(str(failed[0]).strip().partition("\n")[0][:200]) from failed[0]
    if not found:
        raise RuntimeError(f"no answer in {seconds} s")
    return found[0]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Within it, processes are started in another environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})
