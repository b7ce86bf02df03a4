"""Imputation values and risk tables that were learned elsewhere, as the published systems write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from n3r.files.json_io import read_json
from n3r.risk_tables import RiskTable

FLOAT32 = float(np.finfo(np.float32).max)
Number = Annotated[float, Field(ge=-FLOAT32, le=FLOAT32, allow_inf_nan=False)]
PRECOMPUTED = {
    "imputation values": (TypeAdapter(dict[str, Number]), "a finite number"),
    "risk tables": (TypeAdapter(dict[str, RiskTable]), "bins and default_bin with risks in [0, 1]"),
}


def read_precomputed(path: str | Path) -> dict:
    """A published impute_dict.json (column -> value) or risk_table_map.json (column -> risk table).

    Raises FileNotFoundError, or ValueError naming the file and the columns at fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of precomputed values")
    try:
        found = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; write a pickled one as JSON where it was made") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object with a key for each column")
    kind = "risk tables" if any(isinstance(entry, dict) for entry in found.values()) else "imputation values"
    if problems := precomputed_problems(kind, found, list(found)):
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return found


def precomputed_problems(kind: str, given: Mapping[str, Any] | None, wanted: Sequence[str]) -> list[str]:
    """What keeps the precomputed `given` from being used for the columns `wanted`."""
    if given is None:
        return []
    layout, expected = PRECOMPUTED[kind]
    wrong = []
    try:
        layout.validate_python(given, strict=True)
    except ValidationError as error:  # its text shows categories, which may be identities
        wrong = list(dict.fromkeys(fault["loc"][0] for fault in error.errors(include_input=False)))
    found = {
        "lack the columns": [name for name in wanted if name not in given],
        "have the unknown columns": [name for name in given if name not in wanted],
        f"need {expected} for": wrong,
    }
    return [f"precomputed {kind} {problem} {names}" for problem, names in found.items() if names]
