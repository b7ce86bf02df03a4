"""JSON as n3r reads and writes it, and messages that name what is wrong in it.

Decisions:
- Numbers are finite, files are UTF-8, and writes are atomic.
- A message names keys and limits, never a value, which may be a person's name.
"""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from n3r.files.atomic import write_together

Model = TypeVar("Model", bound=BaseModel)
MAX_JSON = 1 << 26  # bytes of a JSON file; the tokenizer of 50,000 tokens has 4 MB
MAX_TOLD = 10  # problems of one kind, or values, in a message


def read_json(path: str | Path, max_bytes: int = MAX_JSON) -> Any:
    """The content of a JSON file of at most `max_bytes` bytes, in UTF-8.

    Raises FileNotFoundError, or ValueError naming the file when it cannot be read; nothing of it is shown.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not path.is_file():  # reading a pipe would wait for ever
            raise ValueError("it is not a file")
        if path.stat().st_size > max_bytes:
            raise ValueError(f"it has more than {max_bytes:,} bytes")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path} cannot be read as JSON: too many brackets within brackets") from None
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read as JSON: {reason}") from None


def read_model(path: str | Path, kind: type[Model], over: Mapping[str, Any] | None = None) -> Model:
    """The pydantic model of a JSON file, with other values over the file's; raises as `read_json` does.

    One ValueError names the file and every key at fault.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    try:
        return kind(**content | dict(over or {}))
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, kind.model_fields)}") from None


def write_json(path: str | Path, content: Any) -> None:
    """Write finite numbers, texts, lists and dicts; ValueError names a file that cannot be written."""
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_together(Path(path).parent, {Path(path).name: text.encode()})


def plain(content: Any, sort_keys: bool = False) -> Any:
    """The content as JSON has it: lists for tuples, null for NaN and infinity, text for what JSON lacks."""
    text = json.dumps(content, sort_keys=sort_keys, default=str, allow_nan=True)
    return json.loads(text, parse_constant=lambda nan_or_infinite: None)


def explain(error: ValidationError, known: Iterable[str]) -> str:
    """Everything wrong with a pydantic model's keys, in one line and without the values."""
    parts = []
    known = list(known)
    for item in error.errors(include_url=False, include_input=False):
        if len(parts) == MAX_TOLD:
            return "; ".join([*parts, f"and {error.error_count() - MAX_TOLD} more"])
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {key!r}{near(key, known)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            parts.append(f"key {key!r}: {message}" if key else message)
    return "; ".join(parts)


def key_values(texts: Iterable[str]) -> dict[str, str]:
    """The values of texts such as "fpr=0.02" by their keys; one ValueError names all that are not."""
    pairs = {text: text.partition("=") for text in texts}
    if wrong := [text for text, (_, equals, _) in pairs.items() if not equals]:
        raise ValueError(f"expected KEY=VALUE, found {', '.join(wrong)}")
    return {key: value for key, _, value in pairs.values()}


def near(name: str, names: Iterable[str]) -> str:
    """A phrase that asks whether at most two of `names` were meant, or nothing.

    A name with a line end in it is a row of a file whose lines end otherwise, and never shown.
    """
    by_lower = {other.lower(): other for other in names if other.isprintable()}
    found = get_close_matches(name.lower(), by_lower, n=2, cutoff=0.7)
    return f" (did you mean {' or '.join(repr(by_lower[n]) for n in found)}?)" if found else ""
