"""Folders of arrays: .npy files that rows are appended to, read as memory maps.

Decisions:
- Rows are written as they come and hashed on the way, so a folder of any size takes the memory of one part.
- A manifest, written last, has the type, shape and checksum of each array: whoever reads compares types,
  shapes and sizes, and takes the checksums, which stand for the bytes, as they are.
- Pages that were read count as memory of the process until the system wants them back; `let_go` tells it
  that it may have them, so that a limit on memory is not reached by what is only a copy of a file.
- Headers of .npy have room for any number of rows. Nothing is ever unpickled.
"""

import json
import mmap
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np

from n3r.files.atomic import atomic_folder
from n3r.files.json_io import read_json, write_json

MANIFEST = "arrays.json"
ROOM = 1 << 26  # bytes of an array that is made in memory
LARGE = 1 << 28  # bytes of a map that is given back while it is read
TAKEN = 256  # places of it that are read at a time: each may bring 2 MB with it


class Growing:
    """An array on its way into a .npy file."""

    def __init__(self, path: Path, first: np.ndarray):
        self.dtype, self.columns, self.n_rows = first.dtype, first.shape[1:], 0
        self.file, self.hash = path.open("wb"), sha256()
        self._header()

    def append(self, rows: np.ndarray) -> None:
        """Take rows; ValueError where their type or width is not the first ones'."""
        if (rows.dtype, rows.shape[1:]) != (self.dtype, self.columns):
            raise ValueError(
                f"rows of {rows.dtype} {rows.shape[1:]} after rows of {self.dtype} {self.columns}"
            )
        if rows.size:
            rows = np.ascontiguousarray(rows)
            self.file.write(rows)
            self.hash.update(rows)
        self.n_rows += len(rows)

    def close(self) -> dict[str, Any]:
        """Complete the file; what the manifest says of it."""
        self.file.seek(0)
        self._header()
        self.file.close()
        return described(self.dtype, (self.n_rows, *self.columns), self.hash.hexdigest())

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.n_rows, *self.columns)}
        np.lib.format.write_array_header_1_0(self.file, header)


def described(dtype: np.dtype, shape: tuple[int, ...], checksum: str) -> dict[str, Any]:
    """An array in a manifest."""
    return {"type": dtype.str, "shape": list(shape), "sha256": checksum}


def describe(array: np.ndarray) -> dict[str, Any]:
    """An array in memory as the manifest would have it."""
    return described(array.dtype, array.shape, sha256(np.ascontiguousarray(array)).hexdigest())


def digest(described: Mapping[str, Mapping[str, Any]]) -> str:
    """One checksum of arrays by name, the same for those in memory and in a folder."""
    return sha256(json.dumps(described, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_arrays(
    folder: Path, what: str, parts: Iterable[Mapping[str, np.ndarray]], facts: Mapping[str, Any]
) -> None:
    """Write parts of arrays, by name, one behind the other, and a manifest with `facts`, read at the end.

    The folder appears, or replaces an earlier one, when it is complete. Raises ValueError naming `what` and
    the folder where the system is in the way.
    """
    growing: dict[str, Growing] = {}
    with atomic_folder(folder, what, MANIFEST) as aside:
        try:
            for part in parts:
                for name, rows in part.items():
                    if name not in growing:
                        growing[name] = Growing(aside / f"{name}.npy", rows)
                    growing[name].append(rows)
            arrays = {name: one.close() for name, one in growing.items()}
        finally:
            for one in growing.values():
                one.file.close()
        write_json(aside / MANIFEST, {"arrays": arrays, "facts": dict(facts)})


def read_manifest(folder: Path, what: str) -> dict[str, Any]:
    """What a folder's manifest says; FileNotFoundError or ValueError naming the folder."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not {what}: it has no {MANIFEST}")
    content = read_json(path)
    parts = [content.get(key) for key in ("arrays", "facts")] if isinstance(content, dict) else [None]
    if not all(isinstance(one, dict) for one in (*parts, *(parts[0] or {}).values())):
        raise ValueError(f"{path} was altered: write {what} anew")
    return content


def map_arrays(folder: Path, what: str) -> dict[str, np.ndarray]:
    """The arrays of a folder by name, as read-only memory maps.

    Raises FileNotFoundError, or ValueError naming the files that are missing, cut short or of another type.
    """
    found, damaged = {}, []
    for name, entry in read_manifest(folder, what)["arrays"].items():
        path = Path(folder) / f"{Path(name).name}.npy"
        try:
            # Of the plain class: numpy's memmap takes far longer to cut.
            found[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError):  # each of a file that is missing or cut short
            damaged.append(path.name)
            continue
        if [found[name].dtype.str, list(found[name].shape)] != [entry.get("type"), entry.get("shape")]:
            damaged.append(path.name)
    if damaged:
        raise ValueError(f"{what} {folder} is damaged ({', '.join(damaged)}): write it anew")
    return found


def room(shape: int | tuple[int, ...], dtype: Any, folder: Path | None = None) -> np.ndarray:
    """An array of zeros to write to: in memory or, where it is large, in a file without a name.

    The file is in `folder`, or in the folder for temporary files, and goes with the array. Raises ValueError
    naming the folder where the system is in the way.
    """
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if n_bytes <= ROOM:
        return np.zeros(shape, dtype)
    try:
        with TemporaryFile(dir=folder) as file:
            for start in range(0, n_bytes, ROOM):  # all of it: on a full disk a map would end the process
                file.write(bytes(min(ROOM, n_bytes - start)))
            file.flush()
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except OSError as error:
        raise ValueError(
            f"cannot write {n_bytes:,} bytes into {folder or gettempdir()} ({error.strerror}): make room "
            "there, or set TMPDIR to a folder of a larger disk"
        ) from None


def let_go(*arrays: np.ndarray) -> None:
    """Give the pages of mapped arrays back to the system; their content stays. Others stay as they are."""
    for array in arrays:
        if pages := _pages(array):
            pages.madvise(mmap.MADV_DONTNEED)


def taken(array: np.ndarray, places: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """`array[places]`, in little memory where the array is a large map.

    `offsets`: where runs of neighbouring places begin and end.
    """
    if array.nbytes <= LARGE or not _pages(array):
        return array[places]
    cuts = range(TAKEN, len(places), TAKEN) if offsets is None else offsets[TAKEN:-1:TAKEN]
    found = []
    for some in np.split(places, cuts):
        found.append(array[some])
        let_go(array)
    return np.concatenate(found)


def _pages(array: np.ndarray) -> mmap.mmap | None:
    """What a mapped array, or a view of one, lies in."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
