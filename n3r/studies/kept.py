"""What studies trained, kept in files: while its plan is the same a training is read back, not run again.

Decisions:
- A plan is all that decides a result: settings, rows, code and the versions of libraries. What shows results
  is no part of it, so that an edit of a figure trains nothing.
- One safetensors file holds numbers, texts and the plan, and has its name only when it is whole.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from n3r.bundle import Bundle
from n3r.files.atomic import atomic_file
from n3r.files.manifest import versions
from n3r.files.sources import fingerprint


class Result(NamedTuple):
    """What a training leaves: arrays and, by name, anything that JSON has."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, Any] = {}


def kept(path: Path, plan: str, train: Callable[[], Result]) -> Result:
    """The result in the file `path` where its plan is this one, else that of `train`, which is then kept."""
    try:
        if _plan_of(path) == plan:
            return read(path)
    except (FileNotFoundError, SafetensorError):
        pass
    result = train()
    arrays = {name: np.ascontiguousarray(array) for name, array in result.arrays.items()}
    with atomic_file(path, SafetensorError) as aside:
        save_file(arrays, aside, {"plan": plan, "texts": json.dumps(result.texts)})
    return result


def read(path: Path) -> Result:
    """What `kept` wrote, whatever its plan; FileNotFoundError where there is nothing."""
    with safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return Result(arrays, json.loads(file.metadata()["texts"]))


def plan(module: str, bundle: Bundle, splits: Mapping[str, pl.DataFrame], *settings: Any) -> str:
    """A fingerprint of a training by a study's module: a bundle's parts, prepared splits, more settings."""
    configs = (bundle.model.config, bundle.train_config, bundle.texts, bundle.column_map)
    parts = [config.model_dump() for config in configs]
    parts += [bundle.features.to_dict(), bundle.tokenizer.metadata, bundle.tokenizer.tokenizer.to_str()]
    found = [module, versions(), fingerprint(f"import {module}"), parts, settings]
    total = sha256(json.dumps(found, sort_keys=True).encode())
    for name, frame in splits.items():
        total.update(json.dumps([name, frame.columns]).encode())
        total.update(frame.hash_rows().to_numpy())
    return total.hexdigest()


def _plan_of(path: Path) -> str | None:
    with safe_open(path, "np") as file:
        return (file.metadata() or {}).get("plan")
