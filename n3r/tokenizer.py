"""Texts to token ids: byte-pair encoding of identity strings, and the WordPiece of BERT models.

Decisions:
- Special tokens are vocabulary entries that no text can spell: fields are encoded one by one and joined as
  ids, and a typed `|` becomes `¦` (defect 15). The same holds for BERT: a typed "[SEP]" is five tokens of
  text.
- A text for BERT is one chunk, or several when its cleaning steps end in the chunker. Chunks are packed from
  ids; nothing is decoded and encoded again.
- Both kinds are stored as tokenizer.json alone, so scoring needs no transformers.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Encoding, Tokenizer

from n3r.clean import Cleaner, compose
from n3r.files.atomic import write_together
from n3r.files.json_io import MAX_JSON, read_json
from n3r.files.pretrained import found
from n3r.spelling import without_spelling, words_of
from n3r.token_arrays import ChunkedText, Texts, TokenizedText, gather, offsets_of, run_on

Fields = Iterable[Iterable[str | None]]  # columns of texts, such as a DataFrame of strings
SPECIAL_TOKENS = ["[CLS]", "[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MISSING]", "|"]
MANY = 2000  # texts from which on it is sooner to encode each of their words once


class TextConfig(BaseModel):
    """How the texts of a row are cleaned and cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: list[str] = []  # names of clean.STEPS, for the text
    secondary_steps: list[str] = []  # for the second text, where the model class has one
    max_tokens: int = Field(512, ge=8, le=2**31)  # of a text, or of each chunk of it
    max_chunks: int = Field(5, ge=1, le=2**31)  # of a text; what is over is left out
    flat: bool = False  # chunks end to end: how a CNN or an LSTM reads what a BERT's tokenizer makes

    @model_validator(mode="after")
    def _composes(self) -> Self:
        for steps in (self.steps, self.secondary_steps):
            compose(steps)
        return self


class _Saved:
    """What both kinds have: a size, a folder, and a tokenizer.json that is all it takes to score."""

    tokenizer: Tokenizer
    metadata: dict[str, Any]

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id, by id."""
        return dict(sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1]))

    def save(self, folder: Path, prefix: str = "") -> None:
        """Write tokenizer.json, vocab.json and tokenizer_metadata.json into an existing folder.

        `prefix` goes before each name, so that a second tokenizer has a place there.
        """
        texts = {
            f"{prefix}tokenizer.json": self.tokenizer.to_str(pretty=True),
            f"{prefix}vocab.json": _json(self.vocabulary),
            f"{prefix}tokenizer_metadata.json": _json(self.metadata),
        }
        write_together(folder, {name: text.encode() for name, text in texts.items()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; FileNotFoundError says which step makes it."""
        return load_tokenizer(folder, cls)


class NameTokenizer(_Saved):
    """Encodes rows of identity fields to token ids.

    Attributes: `vocab_size`, `pad_token` (the id that fills batches), `metadata` (how it was trained).
    """

    kind: Literal["bpe"] = "bpe"

    def __init__(self, tokenizer: Tokenizer, metadata: dict | None = None):
        ids = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
        if ids != list(range(len(SPECIAL_TOKENS))):
            raise ValueError(
                f"the tokenizer's special tokens {SPECIAL_TOKENS} have the ids {ids}, not 0 to 6: "
                "it was not made by step 02_tokenizer"
            )
        self.tokenizer = tokenizer
        self.metadata = metadata or {}
        self.pad_token = tokenizer.token_to_id("[PAD]")
        self._plain = without_spelling(tokenizer)
        self._missing = tokenizer.token_to_id("[MISSING]")
        self._bar = tokenizer.token_to_id("|")

    def read(self, fields: Fields, steps: Sequence[str], config: TextConfig) -> TokenizedText:
        """Clean each field by `steps`, then `encode`; None stays None."""
        cleaner = _cleaner(steps, self.kind)
        if steps:
            fields = [
                [None if text is None else " ".join(cleaner(text)) for text in column] for column in fields
            ]
        return self.encode(fields, config.max_tokens)

    def encode(self, fields: Fields, max_tokens: int | None = None) -> TokenizedText:
        """Encode N rows of string columns, joined in column order by the bar token.

        None is the token [MISSING]. A row of more than `max_tokens` tokens keeps an equal share of each
        field's first ones, so that one huge field cannot push the others out.
        """
        columns = [list(column) for column in fields]
        n_rows, n_fields = len(columns[0]), len(columns)
        unique = dict.fromkeys(chain.from_iterable(columns))  # a row often has one name thrice
        unique.pop(None, None)
        known: dict[str | None, int] = {text: i for i, text in enumerate(unique)}
        texts = self._encode_texts(list(unique))
        known[None] = len(texts)
        texts = TokenizedText(
            np.append(texts.ids, self._missing), np.append(texts.offsets, len(texts.ids) + 1)
        )
        which = np.array([[known[text] for text in column] for column in columns], np.int64)  # (F, N)
        lengths = texts.lengths[which] if n_rows else which
        if max_tokens is not None:
            most = max_tokens - n_fields + 1
            over = lengths.sum(axis=0) > most
            lengths[:, over] = np.minimum(lengths[:, over], max(1, most // n_fields))
        offsets = offsets_of(lengths.sum(axis=0) + n_fields - 1)
        ids = np.full(offsets[-1], self._bar, np.int32)
        start = offsets[:-1]
        for text, length in zip(which, lengths, strict=True):
            ids[run_on(start, length)[0]] = gather(texts.ids, texts.offsets[text], length).ids
            start = start + length + 1
        return TokenizedText(ids, offsets)

    def _encode_texts(self, texts: list[str]) -> TokenizedText:
        """Ids of each text by itself."""
        if self._plain is None:
            return _encode(self.tokenizer, texts)
        plain, spelling = self._plain
        texts = list(spelling.of(texts))
        if len(texts) < MANY:
            return _encode(plain, texts)
        words, numbers, offsets = words_of(texts)
        found = _encode(plain, words).take(numbers)
        return TokenizedText(found.ids, found.offsets[offsets])


class BertTokenizer(_Saved):
    """Encodes rows of texts to chunks `[CLS] message [SEP] message [SEP] ..` of token ids.

    Attributes as of NameTokenizer; the metadata says which tokens are [CLS], [SEP] and [PAD].
    """

    kind: Literal["bert"] = "bert"

    def __init__(self, tokenizer: Tokenizer, metadata: dict[str, Any] | None):
        tokenizer.encode_special_tokens = True  # a typed [SEP] is text
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.metadata = {**(metadata or {}), "model_type": "BERT"}
        self.pad_token = self._special("pad_token")
        self._cls, self._sep = self._special("cls_token"), self._special("sep_token")

    def _special(self, role: str) -> int:
        token = self.metadata.get(role)
        found = self.tokenizer.token_to_id(token) if isinstance(token, str) else None
        if found is None:
            raise ValueError(f"the tokenizer has no {role}: it is not one of a BERT model")
        return found

    def read(self, fields: Fields, steps: Sequence[str], config: TextConfig) -> Texts:
        """Clean each field by `steps` to messages and pack a row's messages into chunks.

        With `dialogue_chunker` among the steps a chunk takes messages until it is full, and a message
        longer than a chunk goes on in the next one. Without it a row is one chunk, in which messages that are
        too long together are cut to the same length. A row without any text is the chunk `[CLS] [SEP]`.

        NOTE[DIFF] the published chunker drops the rest of a long message.
        """
        cleaner = _cleaner(steps, self.kind)
        columns = [[cleaner(text) for text in column] for column in fields]
        rows = [[message for messages in row for message in messages] for row in zip(*columns, strict=True)]
        flat = [message for row in rows for message in row]
        encoded = iter([encoding.ids for encoding in _encode_batch(self.tokenizer, flat)])
        pack = _pack if cleaner.chunked else _join
        chunks, ends = [], [0]
        for row in rows:
            found = pack([next(encoded) for _ in row], config.max_tokens - 1)
            chunks += [[self._cls, *self._between(chunk)] for chunk in found[: config.max_chunks] or [[[]]]]
            ends.append(len(chunks))
        offsets = offsets_of(list(map(len, chunks)))
        ids = np.fromiter(chain.from_iterable(chunks), np.int32, offsets[-1])
        text = ChunkedText(TokenizedText(ids, offsets), np.array(ends))
        return text.flat if config.flat else text

    def _between(self, messages: list[list[int]]) -> list[int]:
        return [token for message in messages for token in (*message, self._sep)]

    @classmethod
    def from_pretrained(cls, pretrained: str) -> "BertTokenizer":
        """The tokenizer of a pretrained model; ValueError where there is none."""
        from transformers import AutoTokenizer

        with found(pretrained) as path:
            source = AutoTokenizer.from_pretrained(path, use_fast=True)
            backend = source.backend_tokenizer
        roles = {role: getattr(source, role) for role in ("cls_token", "sep_token", "pad_token")}
        return cls(Tokenizer.from_str(backend.to_str()), roles)


class Reader(NamedTuple):
    """How a kind of tokenizer reads texts."""

    tokenizer: NameTokenizer | BertTokenizer
    texts: TextConfig


def load_tokenizer(
    folder: Path, kind: type[NameTokenizer | BertTokenizer] | None = None, prefix: str = ""
) -> NameTokenizer | BertTokenizer:
    """The tokenizer that a folder holds, of the kind given or of that which its metadata tell.

    `prefix`: as it was saved.
    """
    path = Path(folder) / f"{prefix}tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run step 02_tokenizer first")
    tokenizer = read_tokenizer(path)
    numbers = tokenizer.get_vocab().values()
    if set(numbers) != set(range(len(numbers))):
        raise ValueError(f"{path} is not a tokenizer file: its tokens are not numbered one by one from 0")
    place = Path(folder) / f"{prefix}tokenizer_metadata.json"
    metadata = read_json(place) if place.is_file() else {}
    if not isinstance(metadata, dict):
        raise ValueError(f"{place} must hold one JSON object, found {type(metadata).__name__}")
    kind = kind or (BertTokenizer if metadata.get("model_type") == "BERT" else NameTokenizer)
    try:
        return kind(tokenizer, metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _encode_batch(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    try:
        return tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the library's; its module cannot be imported
            raise
        raise ValueError("the tokenizer gave up on a text: it holds a pattern that takes too long") from None


def _encode(tokenizer: Tokenizer, texts: list[str]) -> TokenizedText:
    """The library's ids of each text."""
    found = _encode_batch(tokenizer, texts)
    offsets = offsets_of(list(map(len, found)))
    ids = chain.from_iterable(encoding.ids for encoding in found)
    return TokenizedText(np.fromiter(ids, np.int32, offsets[-1]), offsets)


def _cleaner(steps: Sequence[str], kind: str) -> Cleaner:
    cleaner = compose(steps)
    if cleaner.tokenizer not in (None, kind) or (cleaner.chunked and kind == "bpe"):
        raise ValueError(f"the cleaning steps {list(steps)} are not for a tokenizer of the kind {kind!r}")
    return cleaner


def _join(messages: list[list[int]], room: int) -> list[list[list[int]]]:
    """One chunk of all messages, the longest cut until they fit with a separator each."""
    messages = messages[: room // 2]  # of more nothing would be left but separators
    left = room - len(messages)
    for n_left, length in zip(range(len(messages), 0, -1), sorted(map(len, messages)), strict=True):
        if length > (share := left // n_left):  # and so are all that are still to come
            return [[message[:share] for message in messages]]
        left -= length
    return [messages] if messages else []


def _pack(messages: list[list[int]], room: int) -> list[list[list[int]]]:
    """Chunks filled one after the other; a message and its separator take `len(message) + 1`."""
    pieces = [m[i : i + room - 1] for m in messages for i in range(0, max(len(m), 1), room - 1)]
    chunks: list[list[list[int]]] = []
    free = 0
    for piece in pieces:
        if not chunks or len(piece) + 1 > free:
            chunks.append([])
            free = room
        chunks[-1].append(piece)
        free -= len(piece) + 1
    return chunks


def read_tokenizer(path: Path) -> Tokenizer:
    """The library's tokenizer of a tokenizer.json; ValueError naming the file where it is none."""
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path} is not a tokenizer file: it has more than {MAX_JSON:,} bytes")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception on a bad file
        # Its text may repeat a token, a piece of a name; the place at its end does not.
        place = re.search(r"( at line \d+ column \d+)?$", str(error))[0]
        raise ValueError(f"{path} is not a tokenizer file: the library cannot read it{place}") from None


def _json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
