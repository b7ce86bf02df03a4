"""Training the vocabularies: byte pairs sized by compression, WordPiece for a BERT that is not pretrained.

Decisions:
- The legacy's rules are kept: special tokens in its order, whitespace pre-tokeniser, minimum frequency
  25, and the vocabulary whose held-out compression is nearest to 2.5 characters a token.
- BPE merges are nested: the tokenizer of size v is the first v entries of a larger one. So one training, and
  one encoding that is counted for all sizes, replace the legacy's up to fifteen trainings (defect 50).
- The normal form of spellings (`spelling`) is stored inside tokenizer.json, so whoever loads that file alone
  sees the same tokens (defect 13).

NOTE[DIFF] the legacy learns from and encodes a row's joined text, in which a typed bar or special token is
one (defect 15); here each field is a text of its own.
"""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from n3r.rows.parts import Rows, sample
from n3r.spelling import ONE_SPELLING, Spelling
from n3r.tokenizer import SPECIAL_TOKENS, BertTokenizer, NameTokenizer

N_DRAWN = 60  # sizes of the compression curve
LONGEST = 256  # characters of a word that a vocabulary is trained on
N_MEASURED = 10_000  # held-out texts that a compression is measured on, as in the legacy


class TokenizerConfig(BaseModel):
    """How the vocabulary is trained and sized; the defaults are the legacy's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target_compression: float = Field(2.5, gt=1)  # characters per token
    min_frequency: int = Field(25, ge=1, le=10**9)  # a merge seen less often is not made
    max_vocab: int = Field(50_000, ge=100, le=10**6)  # the library sets aside memory for so many
    held_out: float = Field(0.2, gt=0, lt=1)  # share of the texts kept for measuring
    seed: int = Field(0, ge=0)
    lower_case: bool = True
    fold_confusables: bool = True  # invisible characters go, Cyrillic and Greek letters in Latin words too

    @property
    def spelling(self) -> Spelling:
        """The normal form of the texts."""
        return Spelling(self.lower_case, self.fold_confusables)


def train_tokenizer(
    fields: Rows, config: TokenizerConfig | None = None
) -> tuple[NameTokenizer, pl.DataFrame]:
    """Train on the training split's fields, or a sample of many; also the compression curve behind the size.

    The curve has the columns `vocab_size` and `compression`, a row for some sizes and the chosen one.
    Raises ValueError when there are fewer than 10 rows or no characters to learn from.
    """
    config, (fields, _) = config or TokenizerConfig(), sample(fields)
    if len(fields) < 10:
        raise ValueError(f"{len(fields)} rows are too few to train a tokenizer on; 10 are needed")
    order = np.random.default_rng(config.seed).permutation(len(fields))
    n_train = min(max(1, round(len(fields) * (1 - config.held_out))), len(fields) - 1)
    learnt = texts_of(fields[order[:n_train]])
    largest = train_bpe(learnt, config.max_vocab, config.min_frequency, config.spelling)
    measured = fields[order[n_train:][:N_MEASURED]]
    length = n_characters(measured, config.spelling)
    if largest.get_vocab_size() == len(SPECIAL_TOKENS) or not length:
        raise ValueError(f"the text columns {fields.columns} hold no characters to learn from")

    n_tokens = tokens_by_merges(largest, NameTokenizer(largest).encode(measured).ids)
    compression = length / n_tokens
    n_merges = int(np.abs(compression - config.target_compression).argmin())
    if compression[-1] < config.target_compression:  # pairs that held-out texts lack are of use elsewhere
        n_merges = len(compression) - 1
    smallest = largest.get_vocab_size() - (len(compression) - 1)
    size = smallest + n_merges
    metadata = {
        "model_type": "BPE",
        "vocab_size": size,
        "compression": round(float(compression[n_merges]), 4),
        "special_tokens": SPECIAL_TOKENS,
        "normalizer": config.spelling.words,
        "pre_tokenizer": "Whitespace",
        "pad_token": SPECIAL_TOKENS.index("[PAD]"),
        "cls_token": SPECIAL_TOKENS.index("[CLS]"),
        "text_fields": fields.columns,
        "n_texts": len(fields),
        **config.model_dump(),
    }
    drawn = np.unique([*np.geomspace(1, len(n_tokens), N_DRAWN).astype(np.int64) - 1, n_merges])
    curve = pl.DataFrame({"vocab_size": smallest + drawn, "compression": compression[drawn]})
    return NameTokenizer(truncate(largest, size), metadata), curve


def train_bpe(
    texts: Sequence[str], vocab_size: int, min_frequency: int, spelling: Spelling = ONE_SPELLING
) -> Tokenizer:
    """One BPE training with the special tokens at the ids 0 to 6 of the vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    found = _in_pieces(list(spelling.of(texts)))
    # Joined, since each text that is handed over takes as long as the counting of its words.
    tokenizer.train_from_iterator((" ".join(found[i : i + 100]) for i in range(0, len(found), 100)), trainer)
    tokenizer.normalizer = spelling.normalizer
    return truncate(tokenizer, tokenizer.get_vocab_size())


def _in_pieces(texts: Sequence[str]) -> list[str]:
    """Texts to learn from, their long words in pieces: the library takes the square of a word's length."""
    return pl.Series(texts, dtype=pl.String).str.replace_all(rf"(\S{{{LONGEST}}})", "$1 ").to_list()


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
    return Tokenizer.from_str(json.dumps(state, allow_nan=False))


def tokens_by_merges(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """Tokens that texts have by the first 0, 1, .. merges, when `ids` are theirs by all of them.

    Exact, since pairs are merged in the order they were learned: a later merge makes no earlier one possible.
    So a token is a tree of merges, and each text has so many tokens more as it has merges not yet learned.
    """
    model = json.loads(tokenizer.to_str())["model"]
    uses = np.bincount(ids, minlength=len(model["vocab"])).tolist()
    undone = np.zeros(len(model["merges"]) + 1, np.int64)
    for i, (left, right) in reversed(list(enumerate(model["merges"]))):
        undone[i] = uses[model["vocab"][left + right]]
        for part in (left, right):
            uses[model["vocab"][part]] += undone[i]
    return len(ids) + undone[::-1].cumsum()[::-1]


def n_characters(fields: pl.DataFrame, spelling: Spelling = ONE_SPELLING) -> int:
    """Characters of the rows as `spelling` leaves them, joined by bars, with `[MISSING]` for each null."""
    present = sum(map(len, spelling.of(texts_of(fields))))
    missing = fields.null_count().sum_horizontal().sum()
    return present + missing * len("[MISSING]") + (len(fields.columns) - 1) * len(fields)


def texts_of(fields: pl.DataFrame) -> list[str]:
    """Every present field of every row as a text of its own."""
    return [text for column in fields for text in column.cast(pl.String).drop_nulls()]


def train_wordpiece(texts: Rows, vocab_size: int = 8000, min_frequency: int = 2) -> BertTokenizer:
    """A WordPiece tokenizer trained on the training split's texts, for a BERT that is not pretrained."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    roles = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special, corpus = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], _in_pieces(texts_of(sample(texts)[0]))
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
    return BertTokenizer(Tokenizer.from_str(json.dumps(state, allow_nan=False)), roles)
