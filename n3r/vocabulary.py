"""Training the vocabularies: byte pairs sized by compression, WordPiece for a BERT that is not pretrained.

Decisions:
- The legacy's rules are kept: special tokens in its order, whitespace pre-tokeniser, minimum frequency
  25, and the vocabulary whose held-out compression is nearest to 2.5 characters a token.
- BPE merges are nested: the tokenizer of size v is the first v entries of a larger one. So one training
  and a search over truncations replace the legacy's up to fifteen trainings (defect 50).
- What makes the spellings of one identity alike (`spelling`) lives inside tokenizer.json, so whoever loads
  that file alone sees the same tokens (defect 13).

NOTE[DIFF] the legacy learns from and encodes a row's joined text, in which a typed bar or special token is
one (defect 15); here each field is a text of its own.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from n3r.spelling import ONE_SPELLING, spelling
from n3r.tokenizer import SPECIAL_TOKENS, BertTokenizer, NameTokenizer

N_MEASURED = 10_000  # held-out texts that a compression is measured on, as in the legacy


class TokenizerConfig(BaseModel):
    """How the vocabulary is trained and sized; the defaults are the legacy's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_compression: float = Field(2.5, gt=1)  # characters per token
    min_frequency: int = Field(25, ge=1)  # a merge seen less often is not made
    max_vocab: int = Field(50_000, ge=100)
    held_out: float = Field(0.2, gt=0, lt=1)  # share of the texts kept for measuring
    seed: int = 0


def train_tokenizer(
    fields: pl.DataFrame, config: TokenizerConfig | None = None
) -> tuple[NameTokenizer, pl.DataFrame]:
    """Train on the training split's fields; also return the compression curve that chose the size.

    The curve has the columns `vocab_size` and `compression`, one row for each size looked at.
    Raises ValueError when there are fewer than 10 rows or no characters to learn from.
    """
    config = config or TokenizerConfig()
    if len(fields) < 10:
        raise ValueError(f"{len(fields)} rows are too few to train a tokenizer on; 10 are needed")
    order = np.random.default_rng(config.seed).permutation(len(fields))
    n_train = min(max(1, round(len(fields) * (1 - config.held_out))), len(fields) - 1)
    largest = train_bpe(texts_of(fields[order[:n_train]]), config.max_vocab, config.min_frequency)
    measured = fields[order[n_train:][:N_MEASURED]]
    length = n_characters(measured)
    if largest.get_vocab_size() == len(SPECIAL_TOKENS) or not length:
        raise ValueError(f"the text columns {fields.columns} hold no characters to learn from")

    curve: dict[int, float] = {}

    def compression_at(size: int) -> float:
        if size not in curve:
            curve[size] = compression(NameTokenizer(truncate(largest, size)), measured, length)
        return curve[size]

    smallest = largest.get_vocab_size() - len(_merges(largest))
    size = nearest_size(compression_at, smallest, largest.get_vocab_size(), config.target_compression)
    metadata = {
        "model_type": "BPE",
        "vocab_size": size,
        "compression": round(curve[size], 4),
        "special_tokens": SPECIAL_TOKENS,
        "normalizer": "invisible characters removed, NFKC, lookalikes folded to Latin, lower case",
        "pre_tokenizer": "Whitespace",
        "pad_token": SPECIAL_TOKENS.index("[PAD]"),
        "cls_token": SPECIAL_TOKENS.index("[CLS]"),
        "text_fields": fields.columns,
        "n_texts": len(fields),
        **config.model_dump(),
    }
    table = pl.DataFrame(
        sorted(curve.items()),
        schema={"vocab_size": pl.Int64, "compression": pl.Float64},
        orient="row",
    )
    return NameTokenizer(truncate(largest, size), metadata), table


def train_bpe(texts: Sequence[str], vocab_size: int, min_frequency: int) -> Tokenizer:
    """One BPE training with the special tokens at the ids 0 to 6 of the vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = ONE_SPELLING
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return truncate(tokenizer, tokenizer.get_vocab_size())


def truncate(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """The tokenizer that training with the smaller `size` would have given: its first entries.

    Every single character stays, as it would in training. Special tokens stay in the vocabulary but are
    no longer looked for in texts.
    """
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    n_characters = len(vocab) - len(state["model"]["merges"])  # the special tokens among them
    size = max(size, n_characters)
    state["model"]["merges"] = state["model"]["merges"][: size - n_characters]
    state["model"]["vocab"] = {token: i for token, i in vocab.items() if i < size}
    state["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(state))


def nearest_size(measure: Callable[[int], float], low: int, high: int, target: float) -> int:
    """The size between `low` and `high` whose compression is nearest to `target`, by bisection.

    `measure` must not fall as the size grows; among equals the smaller size wins.
    """
    smallest = low
    while low < high:
        middle = (low + high) // 2
        if measure(middle) < target:
            low = middle + 1
        else:
            high = middle
    around = range(max(low - 1, smallest), low + 1)
    return min(around, key=lambda size: abs(measure(size) - target))


def compression(tokenizer: NameTokenizer, fields: pl.DataFrame, length: int) -> float:
    """Characters per token of the joined rows, whose `length` is their `n_characters`; 0 without tokens."""
    n_tokens = len(tokenizer.encode(fields).ids)
    return length / n_tokens if n_tokens else 0.0


def n_characters(fields: pl.DataFrame) -> int:
    """Characters of the rows as `spelling` leaves them, joined by bars, with `[MISSING]` for each null."""
    normal = normalizers.Sequence(spelling())
    present = sum(len(normal.normalize_str(text)) for text in texts_of(fields))
    missing = fields.null_count().sum_horizontal().sum()
    return present + missing * len("[MISSING]") + (len(fields.columns) - 1) * len(fields)


def texts_of(fields: pl.DataFrame) -> list[str]:
    """Every present field of every row as a text of its own."""
    return [text for column in fields for text in column.cast(pl.String).drop_nulls()]


def train_wordpiece(texts: pl.DataFrame, vocab_size: int = 8000, min_frequency: int = 2) -> BertTokenizer:
    """A WordPiece tokenizer trained on the training split's texts, for a BERT that is not pretrained."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    roles = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special, corpus = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], texts_of(texts)
    clean, cut = tokenizer.normalizer.normalize_str, tokenizer.pre_tokenizer.pre_tokenize_str
    inner = {char for text in corpus for word, _ in cut(clean(text)) for char in word[1:]}
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        # The library numbers the characters inside words by a hash of the process, and breaks ties between
        # merges by those numbers; among the special tokens they have a fixed place (defect 39).
        special_tokens=[*special, *(f"##{char}" for char in sorted(inner))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = state["added_tokens"][: len(special)]
    return BertTokenizer(Tokenizer.from_str(json.dumps(state)), roles)


def _merges(tokenizer: Tokenizer) -> list:
    return json.loads(tokenizer.to_str())["model"]["merges"]
