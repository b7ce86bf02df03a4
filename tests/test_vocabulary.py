"""Vocabularies: sized by compression in one training, of the given rows alone, the same in any process."""

import json
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from n3r.tokenizer import SPECIAL_TOKENS, NameTokenizer, TextConfig
from n3r.vocabulary import (
    TokenizerConfig,
    n_characters,
    texts_of,
    train_bpe,
    train_tokenizer,
    train_wordpiece,
    truncate,
)

UNK = SPECIAL_TOKENS.index("[UNK]")


def state(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())


def compression(tokenizer: NameTokenizer, fields: pl.DataFrame, length: int) -> float:
    """Characters a token of rows that have `length` characters."""
    return length / len(tokenizer.encode(fields).ids)


def held_out(fields: pl.DataFrame, config: TokenizerConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that are learnt from and those that compression is measured on."""
    order = np.random.default_rng(config.seed).permutation(len(fields))
    cut = round(len(fields) * (1 - config.held_out))
    return fields[order[:cut]], fields[order[cut:]]


def test_the_library_alone_learns_the_same_vocabulary(names):
    texts = texts_of(names(200))
    reference = Tokenizer(models.BPE(unk_token="[UNK]"))
    reference.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    reference.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=180, min_frequency=3, special_tokens=SPECIAL_TOKENS, show_progress=False
    )
    reference.train_from_iterator(texts, trainer)
    ours = state(train_bpe(texts, 180, 3))["model"]
    assert (ours["vocab"], ours["merges"]) == (reference.get_vocab(), state(reference)["model"]["merges"])


@given(
    st.lists(st.text("ab b", min_size=1, max_size=12), min_size=1, max_size=20),
    st.integers(1, 60),
    st.integers(1, 3),
)
def test_defect_50_truncation_equals_retraining_on_any_text(texts, size, min_frequency):
    largest = train_bpe(texts, 60, min_frequency)
    assert state(truncate(largest, size)) == state(train_bpe(texts, size, min_frequency))


@pytest.mark.parametrize(
    "target", [1.5, 2.5, 99.0, *(pytest.param(t, marks=pytest.mark.slow) for t in (2.0, 3.1))]
)
def test_defect_50_one_training_picks_what_a_training_at_each_size_would(names, target):
    config = TokenizerConfig(target_compression=target, min_frequency=3)
    fields = names(200)
    learnt, measured = held_out(fields, config)
    texts, length = texts_of(learnt), n_characters(measured)
    low = train_bpe(texts, 1, config.min_frequency).get_vocab_size()
    high = train_bpe(texts, config.max_vocab, config.min_frequency).get_vocab_size()
    trained = {size: train_bpe(texts, size, config.min_frequency) for size in range(low, high + 1)}
    found = {size: compression(NameTokenizer(bpe), measured, length) for size, bpe in trained.items()}
    size = high if found[high] < target else min(found, key=lambda size: abs(found[size] - target))
    tokenizer, curve = train_tokenizer(fields, config)
    assert tokenizer.vocab_size == size < 1000  # where the legacy's search begins
    assert state(tokenizer.tokenizer) == state(trained[size])
    assert [found[size] for size in curve["vocab_size"]] == curve["compression"].to_list()


def test_pairs_rarer_than_min_frequency_are_not_merged():
    fields = pl.DataFrame({"name": ["qzqz"] * 4 + ["aman aman"] * 96})
    common, every = (
        train_tokenizer(fields, TokenizerConfig(min_frequency=n, target_compression=9))[0].tokenizer
        for n in (25, 1)
    )
    assert common.token_to_id("qz") is None
    assert common.token_to_id("am") is not None
    assert every.token_to_id("qz") is not None


def test_the_compression_figure_recomputed(names):
    fields = names(300)
    config = TokenizerConfig(min_frequency=3, seed=4)
    tokenizer, curve = train_tokenizer(fields, config)
    joined, n_tokens = [], 0
    for row in held_out(fields, config)[1].iter_rows():
        joined.append("|".join("[MISSING]" if text is None else text for text in row))
        n_tokens += len(row) - 1 + sum(text is None for text in row)
        n_tokens += sum(len(tokenizer.tokenizer.encode(text).ids) for text in row if text is not None)
    expected = sum(map(len, joined)) / n_tokens
    assert tokenizer.metadata["compression"] == pytest.approx(expected, abs=5e-5)
    assert curve.filter(pl.col("vocab_size") == tokenizer.vocab_size)["compression"].item() == expected


@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["[MI\u200bSSING]", "\ufb01s\u200bh"])),
        min_size=1,
        max_size=6,
    )
)
def test_characters_are_those_that_the_tokenizer_sees(tokenizer, texts):
    fields = pl.DataFrame({"a": texts, "b": None}, {"a": pl.String, "b": pl.String})
    normalize = tokenizer.tokenizer.normalizer.normalize_str
    seen = ["[MISSING]" if text is None else normalize(text) for text in texts]
    assert n_characters(fields) == len("".join(seen)) + len("|[MISSING]") * len(texts)


def test_defect_34_only_the_given_rows_are_learnt_and_the_held_out_ones_are_not():
    rare = [chr(0x4E00 + i) for i in range(100)]  # one character that no other row has
    tokenizer, _ = train_tokenizer(pl.DataFrame({"name": [f"ana {c}" for c in rare]}))
    known = [tokenizer.tokenizer.token_to_id(c) is not None for c in rare]
    assert sum(known) == 80
    assert tokenizer.tokenizer.token_to_id("z") is None
    assert tokenizer.encode([["z"]]).ids.tolist() == [UNK]


def test_defect_25_names_in_any_script_are_learnt(names):
    fields = pl.DataFrame({"name": ["佐藤 花子", "김 민준", "Ωραία", "たなか"] * 10})
    tokenizer, _ = train_tokenizer(fields, TokenizerConfig(min_frequency=2))
    encoded = tokenizer.encode(fields)
    assert UNK not in encoded.ids and encoded.lengths.min() > 0


def test_defect_39_one_seed_gives_one_tokenizer_in_any_process(names, run_fresh, tmp_path):
    fields = names(120)
    fields.write_parquet(tmp_path / "fields.parquet")
    code = """
import sys, polars
from n3r.vocabulary import TokenizerConfig, train_tokenizer
fields = polars.read_parquet(sys.argv[1])
print(train_tokenizer(fields, TokenizerConfig(min_frequency=3))[0].tokenizer.to_str())
"""
    first, second = (run_fresh(code, tmp_path / "fields.parquet", PYTHONHASHSEED=seed) for seed in ("1", "2"))
    here = train_tokenizer(fields, TokenizerConfig(min_frequency=3))[0]
    other = train_tokenizer(fields, TokenizerConfig(min_frequency=3, seed=1))[0]
    assert json.loads(first) == json.loads(second) == state(here.tokenizer)
    assert state(other.tokenizer) != state(here.tokenizer)


def test_defect_39_wordpiece_is_the_same_in_any_process(names, run_fresh, tmp_path):
    names(120).write_parquet(tmp_path / "fields.parquet")
    code = """
import sys, polars
from n3r.vocabulary import train_wordpiece
print(train_wordpiece(polars.read_parquet(sys.argv[1]), 150).tokenizer.to_str())
"""
    first, second = (json.loads(run_fresh(code, tmp_path / "fields.parquet")) for _ in range(2))
    assert first == second == state(train_wordpiece(names(120), 150).tokenizer)
    assert [token["content"] for token in first["added_tokens"]] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    assert len(first["model"]["vocab"]) == 150


FIRST = np.random.default_rng(0).permutation(20)[0]  # a row that is learnt from, not measured on
EMPTY = [[""] * 20, [" \t"] * 20, [None] * 20]
UNMEASURED = {"billing": ["anina" if row == FIRST else "" for row in range(20)]}


@pytest.mark.parametrize(
    "texts", [*({"billing": e} for e in EMPTY), *({"billing": e, "holder": e} for e in EMPTY), UNMEASURED]
)
def test_nothing_to_learn_from_or_to_measure_on(texts):
    with pytest.raises(ValueError, match="'billing'.*no characters"):
        train_tokenizer(pl.DataFrame(texts, dict.fromkeys(texts, pl.String)))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_at_least_one_row_is_learnt_and_one_measured(share):
    fields = pl.DataFrame({"name": ["anina belto"] * 10})
    tokenizer, _ = train_tokenizer(fields, TokenizerConfig(held_out=share, min_frequency=1))
    assert tokenizer.metadata["compression"] > 1
    assert UNK not in tokenizer.encode([["anina belto"]]).ids


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (TokenizerConfig, {"target_compression": 1.0}),
        (TokenizerConfig, {"min_frequency": 0}),
        (TokenizerConfig, {"held_out": 1.0}),
        (TokenizerConfig, {"vocab": 9}),
        (TextConfig, {"max_tokens": 7}),
        (TextConfig, {"max_chunks": 0}),
        (TextConfig, {"n_chunks": 1}),
    ],
)
def test_settings_out_of_range_are_refused(config, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(**wrong)


@pytest.mark.parametrize("train", [train_tokenizer, train_wordpiece])
def test_words_of_any_length_are_learned_from_in_bounded_time(train, names):
    """The library takes the square of a word's length: these took 8 seconds and more."""
    rng = np.random.default_rng(0)
    long = ["".join(rng.choice(list("abcdefghijklmnop"), 100_000)) for _ in range(6)]
    rows = pl.DataFrame({"name": [*names(300)["billing"], *long]})
    start = time.process_time()
    train(rows)
    assert time.process_time() - start < 5
