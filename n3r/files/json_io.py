"""JSON as n3r reads and writes it, and messages that name what is wrong in it.

Decisions:
- Numbers are finite, files are UTF-8, and writes are atomic.
- A message names keys and limits, never a value, which may be a person's name.
"""

import json
import re
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
    for item in error.errors(include_url=False):
        if len(parts) == MAX_TOLD:
            return "; ".join([*parts, f"and {error.error_count() - MAX_TOLD} more"])
        key = ".".join(str(part) for part in item["loc"])
        message = in_own_words(item["msg"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {key!r}{near(key, known)}")
            continue
        if item["type"] == "literal_error" and isinstance(item["input"], str):
            message += near(item["input"][:80], re.findall(r"'([^']*)'", item["ctx"]["expected"]))
        parts.append(f"key {key!r}: {message}" if key else message)
    return "; ".join(parts)


# What pydantic says -> what n3r says: what was expected, in plain words.
_SAID = {
    r"Input should be a valid integer.*": "expected a whole number",
    r"Input should be a valid (number|decimal).*": "expected a number",
    r"Input should be a valid string.*": "expected a text",
    r"Input should be a valid boolean.*": "expected true or false",
    r"Input should be a valid (list|tuple|set|array).*": "expected a list",
    r"Input should be a valid (dictionary|dict|mapping|object).*": "expected an object of names and values",
    r"Input should be greater than or equal to (.*)": r"expected \1 or more",
    r"Input should be less than or equal to (.*)": r"expected \1 or less",
    r"Input should be greater than (.*)": r"expected more than \1",
    r"Input should be less than (.*)": r"expected less than \1",
    r"Input should be (.*)": r"expected \1",
    r"Input should have (.*)": r"expected \1",
    r"\w+ should have at least (\d+) (\w+).*": r"expected at least \1 \2",
    r"\w+ should have at most (\d+) (\w+).*": r"expected at most \1 \2",
    r"Field required": "it is missing",
    r"Extra inputs are not permitted": "there is no such key",
    r"(?:Value|Assertion) error, (.*)": r"\1",
}


def in_own_words(said: str) -> str:
    """What pydantic says of a value, in n3r's words; other sentences as they are."""
    for pattern, words in _SAID.items():
        if found := re.fullmatch(pattern, said, re.DOTALL):
            return found.expand(words)
    return said


def without_links(told: str) -> str:
    """What an error says; pydantic's own message of several lines and links as "key: what was expected"."""
    if "errors.pydantic.dev" not in told:
        return told
    found = re.findall(r"^(\S*)\n?  ((?s:.)*?) \[type=", told, re.MULTILINE)
    return "; ".join(
        f"key {key!r}: {in_own_words(said)}" if key else in_own_words(said) for key, said in found
    )


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
