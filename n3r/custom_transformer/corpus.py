"""Text for a language model: documents, their tokens, and windows of tokens as long as the model reads.

Decisions:
- A document is a line, a paragraph or a file of text, or a cell of a table's column. Files named test or
  validation keep that role; otherwise documents are split at random.
- Tokenizers are byte pairs over bytes, as in GPT-2: any text becomes tokens and back without loss, so bits
  per character can be compared between them. END stands between documents; nobody can type it.
- Every token is predicted once: neighbouring windows overlap by one token, which is only read.
- Documents may be people's names, so no message repeats them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from n3r.custom_transformer.layers import IGNORED
from n3r.data import LengthBucketSampler
from n3r.encode import pad
from n3r.files.formats import SUFFIXES, format_of
from n3r.files.json_io import MAX_TOLD
from n3r.rows.chunks import read_frames
from n3r.schema import SPLITS
from n3r.synthetic.orders import generate_orders
from n3r.token_arrays import gather
from n3r.tokenizer import read_tokenizer

END = "<|endoftext|>"
SYNTHETIC, N_SYNTHETIC = "synthetic", 20_000
GPT2, GPT2_REPOSITORY = "gpt2", "openai-community/gpt2"
PROSE = (".txt", ".md", ".rst")
MIN_DOCUMENTS = 10  # for a random split

Documents = dict[str, list[str]]  # split -> documents


@dataclass(frozen=True, eq=False)
class Windows:
    """Pieces of a row of tokens, none longer than a model reads."""

    tokens: np.ndarray  # (M,) int32, all documents after one another
    start: np.ndarray  # (N,) of each window
    length: np.ndarray  # (N,)
    document: np.ndarray  # (N,) the document of a window; 0 if they are packed
    n_characters: int  # of the documents, the end of each counted as one

    def __len__(self) -> int:
        return len(self.start)

    @property
    def n_predicted(self) -> int:
        """Tokens that are predicted: all but the first of each window."""
        return int((self.length - 1).sum())

    def batch(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels (B, T) int64 of windows, padded at the end with ids 0 and labels IGNORED."""
        ids, mask = pad(gather(self.tokens, self.start[rows], self.length[rows]), 0)
        return ids, np.where(mask, ids, IGNORED)

    def batches(self, batch_size: int, seed: int | None = None, epoch: int = 0) -> Iterator[list[int]]:
        """Window numbers in batches of near-equal length, in an order drawn from seed and epoch, if any."""
        sampler = LengthBucketSampler(self.length, batch_size, shuffle=seed is not None, seed=seed or 0)
        sampler.set_epoch(epoch)
        return iter(sampler)


def read_documents(
    data: str,
    column: str,
    unit: Literal["lines", "paragraphs", "files"] = "paragraphs",
    limit: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
) -> Documents:
    """The documents of `find_documents` in the splits train, val and test.

    A split that no file names is a share `held_out` of the documents to train on, drawn by the seed. Raises
    ValueError if these are fewer than 10, and as `find_documents` does.
    """
    given = find_documents(data, column, unit, limit, seed)
    absent = [split for split in SPLITS if not given.get(split)]
    documents = given.get("train", [])
    if (absent and len(documents) < MIN_DOCUMENTS) or not documents:
        raise ValueError(
            f"{len(documents)} documents to train on and to split are too few; {MIN_DOCUMENTS} are needed."
            " Those of a text file are its lines, its paragraphs, or the whole file: see `unit`"
        )
    order = np.random.default_rng(seed).permutation(len(documents))
    n_out = max(1, round(held_out * len(documents)))
    parts = {split: order[i * n_out : (i + 1) * n_out] for i, split in enumerate(absent)}
    parts["train"] = order[len(absent) * n_out :]
    drawn = {split: [documents[i] for i in np.sort(rows)] for split, rows in parts.items()}
    return {split: (given | drawn)[split] for split in SPLITS}


def find_documents(
    data: str,
    column: str,
    unit: Literal["lines", "paragraphs", "files"] = "paragraphs",
    limit: int | None = None,
    seed: int = 0,
) -> Documents:
    """The documents of "synthetic" orders, of a file or folder, or of a data set on the hub.

    A file's name says its split; others are "train". `column` is that of tables and synthetic orders, `unit`
    what a document of a text file is, `limit` how many are read for each split. Raises ValueError or
    FileNotFoundError naming what is missing or damaged.
    """
    if data == SYNTHETIC:
        orders = generate_orders(limit or N_SYNTHETIC, seed)
        _check_column(orders.schema, column, "the synthetic orders")
        return {"train": _cells([orders], column, limit)}
    given: Documents = {}
    for path in _files(data):
        split = _split_of(path)
        room = None if limit is None else limit - len(given.get(split, []))
        if room != 0:
            given.setdefault(split, []).extend(_read(path, column, unit, room))
    if not any(given.values()):
        raise ValueError(f"{data} holds no documents")
    return given


def byte_pair_tokenizer(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` byte pairs; ValueError below the 257 of bytes and END."""
    if vocab_size < 257:
        raise ValueError(f"vocab_size {vocab_size}: 256 bytes and {END} make 257 at least")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return _plain(tokenizer)


def load_tokenizer(place: str) -> Tokenizer:
    """GPT-2's tokenizer ("gpt2"), from the hub or its cache, or that of a tokenizer.json or its folder.

    Raises FileNotFoundError if there is none and ValueError if it has no END token.
    """
    path = Path(from_hub(GPT2_REPOSITORY, "model", ["tokenizer.json"]) if place == GPT2 else place)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no tokenizer {path}: give a tokenizer.json, {GPT2!r}, or 'bpe' to train one"
        )
    tokenizer = read_tokenizer(path)
    if tokenizer.token_to_id(END) is None:
        raise ValueError(f"the tokenizer {path} has no token {END}, which stands between documents")
    return _plain(tokenizer)


def windows(documents: Sequence[str], tokenizer: Tokenizer, max_length: int, packed: bool) -> Windows:
    """Documents, each between two ENDs, as windows of at most `max_length` tokens.

    `packed` documents follow one another in full windows; else, for short texts, no window spans two of them.
    """
    end = tokenizer.token_to_id(END)
    encoded = list(_encode(documents, tokenizer))
    sizes = np.array([len(ids) for ids in encoded], np.int64) + (1 if packed else 2)
    starts, lengths = np.cumsum(sizes) - sizes, sizes
    tokens = np.full(sizes.sum() + packed, end, np.int32)
    for ids, start in zip(encoded, starts, strict=True):
        tokens[start + 1 : start + 1 + len(ids)] = ids
    if packed:
        starts, lengths = np.zeros(1, np.int64), np.array([len(tokens)])
    n_characters = sum(map(len, documents)) + len(documents)
    n_windows = -(-(lengths - 1) // (max_length - 1))
    document = np.repeat(np.arange(len(lengths)), n_windows)
    place = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    offset = place * (max_length - 1)
    length = np.minimum(max_length, lengths[document] - offset)
    return Windows(tokens, starts[document] + offset, length, document, n_characters)


def from_hub(repository: str, kind: Literal["dataset", "model"], patterns: list[str]) -> Path:
    """A folder with the files of a repository on the hub, or of its copy in the local cache.

    Raises FileNotFoundError, which says how to do without the hub.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type=kind, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        instead = {
            "dataset": f"and there is no file or folder {repository}: give `data` the path of one",
            "model": "give `tokenizer` the path of a tokenizer.json, or 'bpe' to train one",
        }
        raise FileNotFoundError(
            f"the hub gave no {kind} {repository} ({type(error).__name__}); {instead[kind]}"
        ) from None


def _encode(documents: Sequence[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """Ids of each document; a few thousand at a time, since the library's own form is large."""
    for start in range(0, len(documents), 4096):
        for encoding in tokenizer.encode_batch_fast(list(documents[start : start + 4096])):
            yield np.array(encoding.ids, np.int32)


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """Nothing that is typed becomes a special token."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def _files(data: str) -> list[Path]:
    try:
        place = Path(data).expanduser()
        is_here = place.exists()
    except (OSError, RuntimeError):  # a name too long for any file, the home of nobody
        raise FileNotFoundError(f"no file or folder {data}") from None
    if not is_here:
        looks_local = data.startswith((".", "/", "~")) or data.count("/") != 1 or format_of(place)
        if looks_local or place.suffix in PROSE:
            raise FileNotFoundError(f"no file or folder {data}")
        place = from_hub(data, "dataset", [f"*{suffix}" for suffix in (*SUFFIXES, *PROSE)])
    if place.is_file():
        return [place]
    inside = sorted(path for path in place.rglob("*") if path.is_file() and path.name[0] not in "._")
    found = [path for path in inside if format_of(path) or path.suffix.lower() in PROSE]
    found = [path for path in found if path.stem.lower() != "readme"] or found
    if not found:
        raise FileNotFoundError(f"{data} holds no file ending in {', '.join((*SUFFIXES, *PROSE))}")
    return found


def _split_of(path: Path) -> str:
    """The split that a file's name says."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    return "test" if "test" in words else "val" if {"val", "valid", "validation"} & {*words} else "train"


def _read(path: Path, column: str, unit: str, limit: int | None) -> list[str]:
    if format_of(path):
        check = partial(_check_column, column=column, where=str(path))
        return _cells(read_frames(path, lambda _: [column], check=check), column, limit)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text in UTF-8") from None
    pieces = [text] if unit == "files" else text.split("\n" if unit == "lines" else "\n\n")
    return [piece.strip("\n") for piece in pieces if piece.strip()][:limit]


def _check_column(schema: Mapping[str, pl.DataType], column: str, where: str) -> None:
    if column not in schema:
        found = [*schema][:MAX_TOLD] + [f"{len(schema) - MAX_TOLD} more"] * (len(schema) > MAX_TOLD)
        raise ValueError(f"{where} has no column {column!r}; it has {', '.join(found)}")
    if schema[column] != pl.String:
        raise ValueError(f"the column {column!r} of {where} holds {schema[column].base_type()}, not text")


def _cells(frames: Iterable[pl.DataFrame], column: str, limit: int | None) -> list[str]:
    """The first cells of a column that are not blank."""
    found: list[str] = []
    for frame in frames:
        found += frame.filter(pl.col(column).str.strip_chars() != "")[column].to_list()
        if limit is not None and len(found) >= limit:
            return found[:limit]
    return found
