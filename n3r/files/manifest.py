"""The files of a bundle: which there are, their checksums, and the versions that wrote them.

Decisions:
- MANIFEST.json is written last: a folder without it is not a bundle.
- `verify` names every file that is missing, truncated, altered or foreign before any of them is opened. Only
  names known here are ever opened, so none can lead out of the folder; a link counts as foreign.
- `FORMAT` is raised when a reader would misread an older writer's files; a bundle of another format is
  refused. If a library cannot read what another version of it wrote, the message names it and that version.
"""

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from n3r.files.json_io import read_json, write_json

FORMAT = 3  # 2: the graph read features that were scaled before
MANIFEST = "MANIFEST.json"
FILES = (
    "MODEL_CARD.md",
    "calibration.json",
    "columns.json",
    "config.json",
    "features.json",
    "metrics.json",
    "model.onnx",
    "tokenizer.json",
    "tokenizer_metadata.json",
    "vocab.json",
)
MAX_BYTES = 1 << 33  # of a bundle
# Tokenizers besides the first, as they stand before their files' names and in config.json.
OTHER_TOKENIZERS = ("secondary", "pretrained")
OPTIONAL = ("model.int8.onnx", "model.onnx.data", "model.safetensors")  # a blend has no weights of its own
OPTIONAL += tuple(
    f"{key}_{name}" for key in OTHER_TOKENIZERS for name in FILES if name.startswith(("tokenizer", "vocab"))
)
LIBRARIES = ("n3r", "torch", "lightning", "transformers", "tokenizers", "onnx", "onnxruntime", "polars")
LIBRARIES += ("scikit-learn", "numpy", "papermill")


def write_manifest(folder: Path) -> None:
    """Describe the files of a folder; the last act of writing a bundle."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "versions": versions(), "files": files})


def versions() -> dict[str, str]:
    """Python and the libraries that results depend on, and their versions here."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def verify(folder: Path, max_bytes: int = MAX_BYTES) -> dict[str, str]:
    """The versions that wrote a bundle; FileNotFoundError or ValueError naming every file at fault.

    A bundle of more than `max_bytes` is refused before any file of it is read.
    """
    folder = Path(folder)
    try:
        is_whole = (folder / MANIFEST).is_file() and not (folder / MANIFEST).is_symlink()
    except OSError:  # of a name that no system takes
        is_whole = False
    if not is_whole:
        advice = "train it first"
        if inside := bundles_in(folder):
            advice = f"give one of the bundles inside, {', '.join(map(str, inside))}"
        raise FileNotFoundError(f"{folder} is not a complete bundle, it has no {MANIFEST}: {advice}")
    files, writers = _read_manifest(folder)
    present = {path.name: path for path in folder.iterdir() if path.name != MANIFEST}
    own = {name: path for name, path in present.items() if name in files and not path.is_symlink()}
    n_bytes = sum(path.stat().st_size for path in own.values())
    if n_bytes > max_bytes:
        raise ValueError(
            f"the bundle {folder} has {n_bytes:,} bytes, over {max_bytes:,}: if trusted, raise max_bytes"
        )
    problems = [f"{name} is missing" for name in sorted({*FILES, *files} - present.keys())]
    problems += [f"{name} is foreign" for name in sorted(present.keys() - own.keys())]
    problems += [problem for name, path in sorted(own.items()) if (problem := _damage(path, files[name]))]
    if problems:
        raise ValueError(f"the bundle {folder} cannot be trusted: {'; '.join(problems)}")
    return writers


def bundles_in(folder: Path) -> list[Path]:
    """The bundles that a folder, such as a run's, holds, by name."""
    with suppress(OSError):
        return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}") if path.is_file())
    return []


def _read_manifest(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    damaged = f"the bundle {folder} cannot be trusted: {MANIFEST} was altered"
    content = read_json(folder / MANIFEST)
    if not isinstance(content, dict) or not isinstance(writers := content.get("versions", {}), dict):
        raise ValueError(damaged)
    written, own = content.get("format", 1), version("n3r")
    if written != FORMAT:
        writer = writers.get("n3r", "an earlier n3r")
        advice = (
            "install that n3r, or a newer one"
            if isinstance(written, int) and written > FORMAT
            else ("train the model again, or score with that n3r")
        )
        raise ValueError(
            f"the bundle {folder} has the format {written!r} of n3r {writer}; this n3r {own} reads the "
            f"format {FORMAT}: {advice}"
        )
    files = content.get("files")
    known = isinstance(files, dict) and all(name in (*FILES, *OPTIONAL) for name in files)
    if not known or not all(isinstance(entry, dict) for entry in files.values()):
        raise ValueError(damaged)
    return files, writers


def _damage(path: Path, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is not a file"
    n_bytes, expected = path.stat().st_size, entry.get("bytes")
    if isinstance(expected, int) and n_bytes < expected:
        return f"{path.name} is truncated ({n_bytes} of {expected} bytes)"
    return None if n_bytes == expected and entry.get("sha256") == sha256(path) else f"{path.name} was altered"


@contextmanager
def written_by(path: Path, library: str, writers: dict[str, str]) -> Iterator[None]:
    """Inside it, an error with a verified file becomes a ValueError that names both versions."""
    try:
        yield
    except Exception as error:  # each library has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read ({reason}): it was written with {library} {writers.get(library, '?')} "
            f"and this is {version(library)}; install that version, or train the model again"
        ) from None


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
