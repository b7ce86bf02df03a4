"""Trainings kept in folders: while its plan is the same, a training is read back, not run again.

Decisions:
- A plan is all that decides a result: settings, rows, code and the versions of libraries. Code that shows
  results is no part of it, so that an edit of a figure trains nothing.
- A folder is replaced as a whole. Numbers and the plan are in a safetensors file, the rest in JSON files, so
  that a tokenizer is a tokenizer.json: the one file that may hold words of customers.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from n3r.files.atomic import atomic_folder
from n3r.files.json_io import plain, read_json, write_json
from n3r.files.manifest import versions
from n3r.files.sources import fingerprint

FILE = "model.safetensors"


class Result(NamedTuple):
    """What a training leaves: arrays and, by name, anything that JSON has."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, Any] = {}


def kept(folder: Path, plan: str, train: Callable[[], Result], again: bool = False) -> Result:
    """The result in `folder` if its plan is this one, else that of `train`, which is then kept there.

    `again` trains in any case.
    """
    try:
        if not again and _plan_of(folder) == plan:
            return read(folder)
    except (FileNotFoundError, SafetensorError):
        pass
    result = train()
    arrays = {name: np.ascontiguousarray(array) for name, array in result.arrays.items()}
    with atomic_folder(folder, "what was trained", FILE, SafetensorError) as aside:
        save_file(arrays, aside / FILE, {"plan": plan})
        for name, content in result.texts.items():
            write_json(aside / f"{name}.json", plain(content))
    return result


def read(folder: Path) -> Result:
    """What `kept` wrote, whatever its plan; FileNotFoundError where there is nothing."""
    texts = {path.stem: read_json(path) for path in sorted(Path(folder).glob("*.json"))}
    return Result(load_file(Path(folder) / FILE), texts)


def plan(module: str, rows: Mapping[str, Any], *settings: Any) -> str:
    """A fingerprint of what a module makes of prepared rows by settings, which are what JSON has.

    Rows are tables, or read in parts (`rows.parts.Rows`), with one fingerprint however they are divided.
    """
    found = [module, versions(), fingerprint(f"import {module}"), settings]
    total = sha256(json.dumps(found, sort_keys=True, allow_nan=False).encode())
    for name, own in rows.items():
        total.update(json.dumps([name, own.columns], allow_nan=False).encode())
        for part in [own] if isinstance(own, pl.DataFrame) else own.read(own.columns):
            total.update(part.hash_rows().to_numpy())
    return total.hexdigest()


def _plan_of(folder: Path) -> str | None:
    with safe_open(Path(folder) / FILE, "np") as file:
        return (file.metadata() or {}).get("plan")
