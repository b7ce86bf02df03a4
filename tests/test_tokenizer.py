"""The tokenizer: sized by compression, no text spells a special token, the same wherever it is read."""

import json
import sys
import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from n3r.clean import compose
from n3r.evaluation.attacks import perturb
from n3r.legacy import trainer
from n3r.spelling import CONFUSABLES, LATIN, ONE_SPELLING, WORDS, spelled, words_of
from n3r.tokenizer import (
    SPECIAL_TOKENS,
    BertTokenizer,
    ChunkedText,
    NameTokenizer,
    TextConfig,
    load_tokenizer,
)
from n3r.vocabulary import (
    TokenizerConfig,
    n_characters,
    texts_of,
    train_bpe,
    train_tokenizer,
    train_wordpiece,
    truncate,
)

CLS, PAD, UNK, BOS, EOS, MISSING, BAR = range(7)
# Special tokens as normalising leaves them: written with what is removed or folded.
HIDDEN = ["[MI\u200bSSING]", "\u2060|\ufe0f", "[\u0420\u0410D]", "\uff3bP\u00adAD\uff3d"]
INVISIBLES = "\u00ad\u034f\u061c\u180b\u200b\u200c\u200d\u200e\u202e\u2060\u3164\ufe0f\ufeff\U000e0061"
WIDE = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})  # to full-width letters


def rows(tokenizer: NameTokenizer, fields: pl.DataFrame, max_tokens: int | None = None) -> list[list[int]]:
    ids, offsets = tokenizer.encode(fields, max_tokens)
    return [ids[start:end].tolist() for start, end in zip(offsets, offsets[1:], strict=False)]


def one(tokenizer: NameTokenizer, *texts: str | None) -> list[int]:
    """Ids of a single row of these fields."""
    columns = {f"field{i}": [text] for i, text in enumerate(texts)}
    return rows(tokenizer, pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))[0]


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


# ---- vocabulary


def test_special_tokens_have_the_legacys_ids(tokenizer):
    assert SPECIAL_TOKENS == trainer.SPECIAL_TOKENS
    assert [tokenizer.tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(7))
    assert tokenizer.pad_token == PAD
    assert tokenizer.vocab_size == len(tokenizer.tokenizer.get_vocab())


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


@pytest.mark.parametrize("size", [1, 40, 60, 61, 100, 175, 259, 1000])
def test_defect_50_truncation_equals_retraining(names, size):
    texts = texts_of(names(400))
    largest = train_bpe(texts, 260, 2)
    assert largest.get_vocab_size() == 260
    assert state(truncate(largest, size)) == state(train_bpe(texts, min(size, 260), 2))


@given(
    st.lists(st.text("ab b", min_size=1, max_size=12), min_size=1, max_size=20),
    st.integers(1, 60),
    st.integers(1, 3),
)
def test_defect_50_truncation_equals_retraining_on_any_text(texts, size, min_frequency):
    largest = train_bpe(texts, 60, min_frequency)
    assert state(truncate(largest, size)) == state(train_bpe(texts, size, min_frequency))


@pytest.mark.parametrize("target", [1.5, 2.0, 2.5, 3.1, 99.0])
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
    assert tokenizer.vocab_size == size
    assert state(tokenizer.tokenizer) == state(trained[size])
    assert [found[size] for size in curve["vocab_size"]] == curve["compression"].to_list()


@pytest.mark.parametrize("n", [50, 7000])
def test_small_sets_get_the_nearest_of_all_sizes_without_a_floor(names, n):
    config = TokenizerConfig(min_frequency=3 if n == 50 else 25)
    fields = names(n)
    tokenizer, _ = train_tokenizer(fields, config)
    learnt, measured = held_out(fields, config)
    measured = measured[:400]  # of 1,400: enough to see that no other size is far nearer
    length = n_characters(measured)
    largest = train_bpe(texts_of(learnt), config.max_vocab, config.min_frequency)
    sizes = range(60, largest.get_vocab_size() + 1, 1 if n == 50 else 10)
    errors = [
        abs(compression(NameTokenizer(truncate(largest, size)), measured, length) - 2.5) for size in sizes
    ]
    assert tokenizer.vocab_size < 1000  # where the legacy's search begins
    assert abs(compression(tokenizer, measured, length) - 2.5) <= min(errors) + (0 if n == 50 else 0.02)


def test_defect_50_a_vocabulary_capped_by_min_frequency_is_taken_whole(names):
    fields = names(200)
    config = TokenizerConfig(min_frequency=60)
    tokenizer, curve = train_tokenizer(fields, config)
    largest = train_bpe(texts_of(held_out(fields, config)[0]), 50_000, 60)
    assert state(tokenizer.tokenizer) == state(largest)
    assert curve["compression"].max() == curve["compression"][-1] < 2.5
    assert curve["vocab_size"][-1] == largest.get_vocab_size()


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


def test_characters_are_counted_as_they_are_read():
    # the ligature fi, a zero-width space; a full-width A
    fields = pl.DataFrame({"a": ["\ufb01s\u200bh", None], "b": ["", "\uff21"]})
    assert n_characters(fields) == len("fish|") + len("[MISSING]|A")
    assert n_characters(fields[:0]) == 0


def test_defect_34_only_the_given_rows_are_learnt_and_the_held_out_ones_are_not():
    rare = [chr(0x4E00 + i) for i in range(100)]  # one character that no other row has
    tokenizer, _ = train_tokenizer(pl.DataFrame({"name": [f"ana {c}" for c in rare]}))
    known = [tokenizer.tokenizer.token_to_id(c) is not None for c in rare]
    assert sum(known) == 80
    assert tokenizer.tokenizer.token_to_id("z") is None
    assert one(tokenizer, "z") == [UNK]


def test_defect_25_names_in_any_script_are_learnt(names):
    fields = pl.DataFrame({"name": ["佐藤 花子", "김 민준", "Ωραία", "たなか"] * 10})
    tokenizer, _ = train_tokenizer(fields, TokenizerConfig(min_frequency=2))
    assert all(UNK not in ids and ids for ids in rows(tokenizer, fields))


# ---- encoding


def test_rows_are_fields_joined_by_the_bar_in_column_order(tokenizer):
    a, b = one(tokenizer, "Anina Belto"), one(tokenizer, "anina.belto7@post.example")
    assert a and b and a != b
    assert one(tokenizer, "Anina Belto", "anina.belto7@post.example") == [*a, BAR, *b]
    assert one(tokenizer, "anina.belto7@post.example", "Anina Belto") == [*b, BAR, *a]
    assert "".join(map(tokenizer.tokenizer.id_to_token, a)) == "aninabelto"


def test_null_is_the_missing_token_and_empty_text_is_nothing(tokenizer):
    assert one(tokenizer, None, "", None) == [MISSING, BAR, BAR, MISSING]
    assert one(tokenizer, "") == []
    assert one(tokenizer, "[MISSING]")[0] != MISSING
    assert rows(tokenizer, pl.DataFrame({"a": [None, None]})) == [[MISSING], [MISSING]]


def test_no_rows_are_no_tokens(tokenizer):
    encoded = tokenizer.encode(pl.DataFrame({"a": [], "b": []}, schema={"a": pl.String, "b": pl.String}))
    assert (len(encoded), encoded.ids.tolist(), encoded.offsets.tolist()) == (0, [], [0])


def test_the_shape_of_the_encoded_rows(tokenizer, names):
    encoded = tokenizer.encode(names(20))
    assert (encoded.ids.dtype, encoded.offsets.dtype) == (np.int32, np.int64)
    assert len(encoded) == 20
    assert encoded.lengths.sum() == len(encoded.ids) == encoded.offsets[-1]


field = st.one_of(
    st.none(),
    st.lists(
        st.one_of(st.text(max_size=6), st.sampled_from([*SPECIAL_TOKENS, "\uff5c", "Anina", *HIDDEN])),
        max_size=5,
    ).map("".join),
)


@given(st.lists(st.tuples(field, field, field), min_size=1, max_size=4))
def test_defect_15_no_text_spells_a_special_token(tokenizer, texts):
    encoded = rows(tokenizer, pl.DataFrame(texts, schema=dict.fromkeys("abc", pl.String), orient="row"))
    for ids, row in zip(encoded, texts, strict=True):
        assert ids.count(BAR) == 2
        assert ids.count(MISSING) == sum(text is None for text in row)
        assert not {CLS, PAD, BOS, EOS} & set(ids)


@pytest.mark.parametrize(
    "typed", ["[PAD]", "[CLS]", "[UNK]", "[MISSING]", "|", "\uff5c", "a|b", "[PAD][PAD]", *HIDDEN]
)
def test_defect_15_typed_special_tokens_are_ordinary_characters(typed):
    """Learnt from texts that are full of them, too."""
    fields = pl.DataFrame({"name": [typed, "PAD CLS UNK MISSING a b [ ]"] * 40})
    tokenizer, _ = train_tokenizer(fields, TokenizerConfig(min_frequency=1, target_compression=9))
    ids = one(tokenizer, typed)
    assert ids
    assert min(ids) > BAR


@given(st.lists(st.tuples(field, field), min_size=1, max_size=12))
def test_a_row_encodes_alike_alone_and_among_others(tokenizer, texts):
    schema = dict.fromkeys("ab", pl.String)
    together = rows(tokenizer, pl.DataFrame(texts * 2, schema=schema, orient="row"))
    alone = [rows(tokenizer, pl.DataFrame([row], schema=schema, orient="row"))[0] for row in texts]
    assert together == alone * 2


@given(st.lists(st.tuples(field, field, field), min_size=1, max_size=6), st.integers(5, 25))
def test_long_rows_keep_an_equal_share_of_each_field(tokenizer, texts, max_tokens):
    frame = pl.DataFrame(texts, schema=dict.fromkeys("abc", pl.String), orient="row")
    for whole, cut in zip(rows(tokenizer, frame), rows(tokenizer, frame, max_tokens), strict=True):
        assert len(cut) <= max_tokens
        if len(whole) <= max_tokens:
            assert cut == whole
        else:
            share = (max_tokens - 2) // 3  # two bars
            assert split_at_bars(cut) == [part[:share] for part in split_at_bars(whole)]


def split_at_bars(ids: list[int]) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == BAR:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def test_a_huge_field_does_not_push_the_others_out(tokenizer):
    frame = pl.DataFrame({"a": ["Anina Belto"], "b": ["Anina " * 17_000], "c": ["Lenka"]})
    first, huge, last = split_at_bars(rows(tokenizer, frame, 64)[0])
    assert first == one(tokenizer, "Anina Belto")
    assert last == one(tokenizer, "Lenka")
    assert huge == one(tokenizer, "Anina " * 30)[:20]  # (64 - 2 bars) // 3
    assert len(rows(tokenizer, frame)[0]) > 17_000


@pytest.mark.parametrize(
    "character", ["\x00", "\n", "\t", "\u200b", "\ufeff", "\x1b[31m", "\u202e", "\U0001f600"]
)
def test_control_characters_are_no_trouble(tokenizer, character):
    ids = one(tokenizer, f"Anina{character}Belto", f"{character}")
    assert ids.count(BAR) == 1
    assert not {CLS, PAD, BOS, EOS, MISSING} & set(ids)
    if character.isspace():
        assert ids == one(tokenizer, "Anina Belto", "")


def test_unknown_characters_are_unk(tokenizer):
    assert one(tokenizer, "Ж") == [UNK]


# ---- spellings of one identity


def read_as(tokenizer: NameTokenizer, text: str) -> str:
    return tokenizer.tokenizer.normalizer.normalize_str(text)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("An\u200bina \u2060Bel\u00adto\ufeff", "anina belto"),
        ("\u0410nin\u0430 \u0412\u0435lt\u043e", "anina belto"),  # Cyrillic
        ("\u0391n\u03b9n\u03b1 B\u0435lt\u03bf", "anina belto"),  # Greek and Cyrillic
        ("\u0430\u0440\u0435\u0445@post.example", "apex@post.example"),
        ("Anina Belto".translate(WIDE), "anina belto"),
        ("ANINA bELTO", "anina belto"),
        ("e\u200b\u0301", "\u00e9"),  # removed first, so that NFKC can put the two together
        ("b\u0435\u0301", "b\u00e9"),  # folded first
        ("J\u030c", "\u01f0"),  # a letter that has a small form alone
    ],
)
def test_spellings_of_one_name_are_read_alike(tokenizer, typed, read):
    assert read_as(tokenizer, typed) == read
    assert one(tokenizer, typed) == one(tokenizer, read)


@pytest.mark.parametrize(
    "text", ["анна сорос", "ανα ρουσου", "анна belto", "оксана\tbelto", "山田花子", "한국"]
)
def test_words_of_another_script_stay(tokenizer, text):
    assert read_as(tokenizer, text) == text


def test_lookalikes_are_folded_near_a_latin_letter_alone(tokenizer):
    assert read_as(tokenizer, "\u0430" * 40 + "b") == "\u0430" * 9 + "a" * 31 + "b"
    assert read_as(tokenizer, "b" + "\u0430" * 40) == "b" + "a" * 31 + "\u0430" * 9


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(INVISIBLES)), max_size=6))
def test_invisible_characters_change_nothing_anywhere(tokenizer, parts):
    hidden, plain = "".join(a + b for a, b in parts), "".join(a for a, _ in parts)
    assert read_as(tokenizer, hidden) == read_as(tokenizer, plain)


@pytest.mark.parametrize(("look", "letter"), [*zip(CONFUSABLES, LATIN, strict=True)])
def test_each_lookalike_is_folded_on_either_side_of_a_latin_letter(tokenizer, look, letter):
    assert unicodedata.normalize("NFKC", look) == look
    assert unicodedata.name(look).split()[0] in ("CYRILLIC", "GREEK")
    assert letter.isascii() and look.isupper() == letter.isupper()
    assert read_as(tokenizer, f"{look}b b{look} {look}") == f"{letter}b b{letter} {look}".lower()


@given(st.lists(st.one_of(st.none(), st.text(max_size=8), st.sampled_from(HIDDEN)), min_size=1, max_size=6))
def test_characters_are_those_that_the_tokenizer_sees(tokenizer, texts):
    fields = pl.DataFrame({"a": texts, "b": None}, {"a": pl.String, "b": pl.String})
    seen = ["[MISSING]" if text is None else read_as(tokenizer, text) for text in texts]
    assert n_characters(fields) == len("".join(seen)) + len("|[MISSING]") * len(texts)


@pytest.mark.parametrize("attack", ["zero-width", "full-width", "case"])
def test_attacks_that_spelling_undoes(tokenizer, names, attack):
    fields = names(40)
    attacked = perturb(fields, fields.columns, attack, 1, 0)
    assert (attacked != fields).select(pl.all().any()).row(0) == (True,) * len(fields.columns)
    assert rows(tokenizer, attacked) == rows(tokenizer, fields)


# ---- cleaned by steps


def test_fields_are_cleaned_one_by_one_and_null_stays_missing(tokenizer):
    fields = pl.DataFrame({"a": ["<b>Anina</b>", None, "<br>", ""], "b": ["BELTO", "belto", None, "x"]})
    read = tokenizer.read(fields, ["html_normalizer", "text_normalizer"], TextConfig())
    clean = pl.DataFrame({"a": ["anina", None, "", ""], "b": ["belto", "belto", None, "x"]})
    assert read.ids.tolist() == tokenizer.encode(clean).ids.tolist()
    assert read.row(1)[0] == MISSING
    assert MISSING not in read.row(3)
    assert fields["a"][0] == "<b>Anina</b>"


def test_without_steps_a_text_is_read_as_it_is(tokenizer, names):
    fields = names(20)
    for steps in ([], ["custom_bpe_tokenizer"]):
        assert (
            tokenizer.read(fields, steps, TextConfig()).ids.tolist() == tokenizer.encode(fields).ids.tolist()
        )
    short = tokenizer.read(fields, [], TextConfig(max_tokens=9))
    assert short.ids.tolist() == tokenizer.encode(fields, 9).ids.tolist()


def test_messages_are_one_text_to_bpe(tokenizer):
    fields = pl.DataFrame({"a": ["[bom]Anina[eom][bom] Belto [eom]"]})
    read = tokenizer.read(fields, ["dialogue_splitter"], TextConfig())
    assert read.ids.tolist() == one(tokenizer, "Anina Belto")


@pytest.mark.parametrize("steps", [["tokenizer"], ["dialogue_chunker"], ["dialogue_splitter", "tokenizer"]])
def test_steps_of_a_bert_are_not_for_bpe(tokenizer, steps):
    with pytest.raises(ValueError, match="not for a tokenizer of the kind 'bpe'"):
        tokenizer.read(pl.DataFrame({"a": ["x"]}), steps, TextConfig())


def test_the_defaults_are_no_steps_512_tokens_and_5_chunks():
    assert TextConfig().model_dump() == {
        "steps": [],
        "secondary_steps": [],
        "max_tokens": 512,
        "max_chunks": 5,
    }


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 7}, {"max_chunks": 0}, {"n_chunks": 1}, {"steps": ["split"]}]
)
def test_text_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="'split'" if "steps" in wrong else next(iter(wrong))):
        TextConfig(**wrong)


# ---- BERT

B_PAD, B_UNK, B_CLS, B_SEP = range(4)
CHUNKED = ["dialogue_splitter", "dialogue_chunker", "tokenizer"]
SPLIT = ["dialogue_splitter", "tokenizer"]


@pytest.fixture(scope="module")
def bert() -> BertTokenizer:
    """Every letter of a to f is a token of its own when it stands alone."""
    words = ["a b c d e f g h i j", "[bom] sep cls pad [eom]", "anina belto ä 漢 字"]
    return train_wordpiece(pl.DataFrame({"a": words * 5}), vocab_size=120)


def chunks_of(bert: BertTokenizer, text: str | None, steps=CHUNKED, **limits) -> list[str]:
    """The chunks of one text as tokens."""
    read = bert.read(pl.DataFrame({"a": [text]}, schema={"a": pl.String}), steps, TextConfig(**limits))
    return [" ".join(map(bert.tokenizer.id_to_token, chunk)) for chunk in read.row(0)]


def alone(bert: BertTokenizer, message: str) -> list[int]:
    return bert.tokenizer.encode(message, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("text", "max_chunks", "expected"),
    [
        ("a b", 5, ["[CLS] a b [SEP]"]),
        ("[bom]a b[eom][bom]c[eom]", 5, ["[CLS] a b [SEP] c [SEP]"]),
        # 8 tokens hold [CLS] and 7: "a b c" and "d e" with a separator each, then "f g" needs a new chunk
        ("[bom]a b c[eom][bom]d e[eom][bom]f g[eom]", 5, ["[CLS] a b c [SEP] d e [SEP]", "[CLS] f g [SEP]"]),
        # a message longer than a chunk goes on in the next one
        ("a b c d e f g h", 5, ["[CLS] a b c d e f [SEP]", "[CLS] g h [SEP]"]),
        ("a b c d e f g h i j a b c d", 2, ["[CLS] a b c d e f [SEP]", "[CLS] g h i j a b [SEP]"]),
        (
            "[bom]a[eom][bom]b c d e f g h[eom]",
            5,
            ["[CLS] a [SEP]", "[CLS] b c d e f g [SEP]", "[CLS] h [SEP]"],
        ),
        ("", 5, ["[CLS] [SEP]"]),
        (None, 5, ["[CLS] [SEP]"]),
        ("[bom][eom] \n", 5, ["[CLS] [SEP]"]),
    ],
)
def test_messages_are_packed_into_chunks(bert, text, max_chunks, expected):
    assert chunks_of(bert, text, max_tokens=8, max_chunks=max_chunks) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", "[CLS] a b [SEP]"),
        ("a b c d e f g h i j", "[CLS] a b c d e f [SEP]"),
        # 7 less two separators: one message is short and stays whole, the other has what is left
        ("[bom]a[eom][bom]b c d e f g[eom]", "[CLS] a [SEP] b c d e [SEP]"),
        ("[bom]b c d e f g[eom][bom]a b[eom]", "[CLS] b c d [SEP] a b [SEP]"),
        # both are too long: an equal share
        ("[bom]a b c d e[eom][bom]f g h i j[eom]", "[CLS] a b [SEP] f g [SEP]"),
        # of more messages than there is room for, the first ones with a token each
        ("[bom]a" * 40, "[CLS] a [SEP] a [SEP] a [SEP]"),
        ("", "[CLS] [SEP]"),
    ],
)
def test_without_the_chunker_a_row_is_one_chunk(bert, text, expected):
    assert chunks_of(bert, text, SPLIT, max_tokens=8) == [expected]


pieces = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["[bom]", "[eom]", "a b c", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "##a", "漢字", "\x00", " "]
    ),
)
texts_of_rows = st.one_of(st.none(), st.lists(pieces, max_size=12).map("".join))
two_columns = st.lists(st.tuples(texts_of_rows, texts_of_rows), max_size=5)


@given(two_columns, st.sampled_from([CHUNKED, SPLIT, []]), st.integers(8, 20), st.integers(1, 4))
def test_defect_15_20_every_chunk_is_well_formed(bert, texts, steps, max_tokens, max_chunks):
    frame = pl.DataFrame(texts, schema={"a": pl.String, "b": pl.String}, orient="row")
    config = TextConfig(max_tokens=max_tokens, max_chunks=max_chunks)
    read = bert.read(frame, steps, config)
    whole = bert.read(frame, CHUNKED, TextConfig(max_tokens=max_tokens, max_chunks=10_000))
    assert isinstance(read, ChunkedText)
    assert len(read) == len(texts)
    assert read.lengths.tolist() == [max(map(len, read.row(i))) for i in range(len(texts))]
    assert read.ids.dtype == np.int32
    for i, row in enumerate(texts):
        chunks = [chunk.tolist() for chunk in read.row(i)]
        assert 1 <= len(chunks) <= (max_chunks if steps is CHUNKED else 1)
        for chunk in chunks:
            assert 2 <= len(chunk) <= max_tokens
            assert (chunk[0], chunk[-1]) == (B_CLS, B_SEP)
            assert B_CLS not in chunk[1:]
            assert B_PAD not in chunk
        # with room for all, no token is lost and none changes its place
        found = [token for chunk in whole.row(i) for token in chunk.tolist() if token not in (B_CLS, B_SEP)]
        cleaner = compose(CHUNKED)
        assert found == [token for text in row for message in cleaner(text) for token in alone(bert, message)]


@pytest.mark.parametrize("typed", ["[SEP]", "[CLS]", "[PAD]", "[UNK]", "a [SEP] b", "[PAD][PAD]"])
def test_defect_15_a_typed_special_token_is_text_to_bert_too(bert, typed, tmp_path):
    bert.save(tmp_path)
    for tokenizer in (bert, load_tokenizer(tmp_path)):
        (chunk,) = chunks_of(tokenizer, typed)
        inner = chunk.removeprefix("[CLS] ").removesuffix(" [SEP]").split()
        assert not {"[SEP]", "[CLS]", "[PAD]"} & set(inner)
        assert inner.count("[") == typed.count("[") or "[UNK]" in inner


def test_defect_20_a_string_is_not_its_characters(bert):
    """A name was as many chunks as it has characters."""
    assert chunks_of(bert, "anina belto") == chunks_of(bert, "anina belto", []) == ["[CLS] anina belto [SEP]"]


def test_a_text_of_a_megabyte(bert):
    text = "[bom] a b c [eom] anina " * 45_000
    chunks = chunks_of(bert, text, max_tokens=512, max_chunks=5)
    assert 500 < max(len(chunk.split()) for chunk in chunks) <= 512
    assert len(chunks) == 5
    assert len(chunks_of(bert, text, SPLIT)) == 1


def test_no_rows_are_no_chunks(bert):
    read = bert.read(pl.DataFrame({"a": []}, schema={"a": pl.String}), CHUNKED, TextConfig())
    assert (len(read), read.ids.tolist(), read.lengths.tolist()) == (0, [], [])


def test_steps_of_bpe_are_not_for_a_bert(bert):
    with pytest.raises(ValueError, match="not for a tokenizer of the kind 'bert'"):
        bert.read(pl.DataFrame({"a": ["x"]}), ["custom_bpe_tokenizer"], TextConfig())


def test_both_kinds_come_back_as_what_they_were(bert, tokenizer, names, tmp_path):
    fields = names(20)
    for original in (bert, tokenizer):
        folder = tmp_path / original.kind
        folder.mkdir()
        original.save(folder)
        loaded = load_tokenizer(folder)
        assert type(loaded) is type(original)
        assert (loaded.kind, loaded.vocab_size, loaded.pad_token) == (
            original.kind,
            original.vocab_size,
            original.pad_token,
        )
        assert loaded.metadata == original.metadata
        one, other = (t.read(fields, [], TextConfig()) for t in (original, loaded))
        assert all(np.array_equal(a, b) for a, b in zip(one.arrays, other.arrays, strict=True))


def test_a_folder_of_one_kind_is_refused_by_the_other(bert, tokenizer, tmp_path):
    for original, other, message in (
        (bert, NameTokenizer, "02_tokenizer"),
        (tokenizer, BertTokenizer, "not one of a BERT model"),
    ):
        original.save(tmp_path)
        with pytest.raises(ValueError, match=message):
            other.load(tmp_path)
        (tmp_path / "tokenizer_metadata.json").unlink()
        with pytest.raises(ValueError, match=message):
            other.load(tmp_path)


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


# ---- files


def test_defect_13_nfkc_is_inside_tokenizer_json(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    wide = "Anina Belto".translate(WIDE)
    assert unicodedata.normalize("NFKC", wide) == "Anina Belto" != wide
    expected = alone.encode("Anina Belto").ids
    assert UNK not in expected
    assert alone.encode(wide).ids == one(tokenizer, wide) == one(tokenizer, "Anina Belto") == expected


def test_defect_39_saved_and_loaded_in_a_fresh_process(tokenizer, names, tmp_path, run_fresh):
    tokenizer.save(tmp_path)
    fields = names(30, seed=9).with_columns(odd=pl.Series(["[PAD] | \uff21", None, ""] * 10))
    fields.write_parquet(tmp_path / "fields.parquet")
    code = """
import json, pathlib, sys, polars
from n3r.tokenizer import NameTokenizer
folder = pathlib.Path(sys.argv[1])
tokenizer = NameTokenizer.load(folder)
ids, offsets = tokenizer.encode(polars.read_parquet(folder / "fields.parquet"))
found = [ids.tolist(), offsets.tolist(), tokenizer.vocab_size, tokenizer.pad_token, tokenizer.metadata]
print(json.dumps(found))
"""
    ids, offsets = tokenizer.encode(fields)
    expected = [ids.tolist(), offsets.tolist(), tokenizer.vocab_size, PAD, tokenizer.metadata]
    assert json.loads(run_fresh(code, tmp_path)) == expected


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


def test_the_saved_files_say_what_they_are(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json",
        "vocab.json",
        "tokenizer_metadata.json",
    }
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    assert list(vocab.values()) == list(range(tokenizer.vocab_size))
    assert list(vocab)[:7] == SPECIAL_TOKENS
    metadata = json.loads((tmp_path / "tokenizer_metadata.json").read_text())
    assert metadata["vocab_size"] == tokenizer.vocab_size
    assert metadata["text_fields"] == ["email", "billing", "holder"]
    assert "NFKC" in metadata["normalizer"]
    assert (metadata["pad_token"], metadata["n_texts"]) == (PAD, 300)
    assert TokenizerConfig(**{name: metadata[name] for name in TokenizerConfig.model_fields}).seed == 0


# ---- errors


def test_too_few_rows():
    with pytest.raises(ValueError, match="9 rows are too few"):
        train_tokenizer(pl.DataFrame({"name": ["Anina Belto"] * 9}))


@pytest.mark.parametrize("text", ["", " \t", None])
@pytest.mark.parametrize("columns", [["billing"], ["billing", "holder"]])
def test_nothing_to_learn_from(text, columns):
    frame = pl.DataFrame({name: [text] * 20 for name in columns}, schema=dict.fromkeys(columns, pl.String))
    with pytest.raises(ValueError, match="'billing'.*no characters"):
        train_tokenizer(frame)


def test_nothing_to_measure_on():
    """The one row with characters is among those learnt from."""
    first = np.random.default_rng(0).permutation(20)[0]
    fields = pl.DataFrame({"billing": ["anina" if row == first else "" for row in range(20)]})
    with pytest.raises(ValueError, match="'billing'.*no characters"):
        train_tokenizer(fields)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_at_least_one_row_is_learnt_and_one_measured(share):
    fields = pl.DataFrame({"name": ["anina belto"] * 10})
    tokenizer, _ = train_tokenizer(fields, TokenizerConfig(held_out=share, min_frequency=1))
    assert tokenizer.metadata["compression"] > 1
    assert UNK not in one(tokenizer, "anina belto")


def test_a_missing_file_names_the_step_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json.*02_tokenizer"):
        NameTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}'])
def test_a_corrupt_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer file"):
        NameTokenizer.load(tmp_path)


def test_a_tokenizer_without_our_special_tokens_is_refused(tmp_path):
    foreign = Tokenizer(models.BPE(vocab={"a": 0, "[PAD]": 1}, merges=[]))
    foreign.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="special tokens.*02_tokenizer"):
        NameTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"target_compression": 1.0}, {"min_frequency": 0}, {"held_out": 1.0}, {"vocab": 9}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TokenizerConfig(**wrong)


def test_damaged_metadata_is_named(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_metadata.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer_metadata.json cannot be read"):
        load_tokenizer(tmp_path)


@given(st.lists(st.text(max_size=12) | st.sampled_from(["Ana Bell", "Дарья", "Аna"]), max_size=12))
def test_texts_are_spelled_as_the_library_does(texts):
    assert list(spelled(texts)) == [ONE_SPELLING.normalize_str(text) for text in texts]


ASCII = st.text(st.characters(max_codepoint=127), max_size=40)


@given(st.lists(st.text(max_size=12) | st.text("aA1 .|аА\u0301\u200b", max_size=12), max_size=9))
def test_words_are_the_librarys(texts):
    words, numbers, offsets = words_of(texts)
    assert len(set(words)) == len(words)
    for i, text in enumerate(texts):
        expected = [word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)]
        assert [words[number] for number in numbers[offsets[i] : offsets[i + 1]]] == expected


@pytest.mark.slow
def test_every_character_is_to_both_of_one_kind():
    """Letters of a word, marks or space: two libraries with Unicode tables of their own."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    text = "".join(f"a{character}a " for character in characters)
    [found] = pl.Series([text]).str.extract_all(WORDS).to_list()
    assert found == [word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)]


@given(st.lists(st.tuples(ASCII | st.text(max_size=9) | st.none(), ASCII), min_size=1, max_size=8))
def test_rows_are_the_librarys_tokens_of_each_field(tokenizer, rows):
    found = tokenizer.encode(list(zip(*rows, strict=True)))
    for i, row in enumerate(rows):
        ids = [[5] if text is None else tokenizer.tokenizer.encode(text).ids for text in row]
        assert found.row(i).tolist() == [*ids[0], 6, *ids[1]]


@given(st.lists(st.tuples(ASCII | st.text(max_size=9) | st.none(), ASCII), min_size=1, max_size=8))
def test_many_rows_are_encoded_word_by_word_to_the_same_tokens(tokenizer, rows):
    fields = list(zip(*rows, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for many in (0, 10**9):
            patch.setattr("n3r.tokenizer.MANY", many)
            found.append([array.tolist() for array in tokenizer.encode(fields)])
    assert found[0] == found[1]


def test_a_tokenizer_of_another_kind_takes_no_shorter_way(tokenizer):
    """Its own spelling, words and added tokens hold, however many rows there are."""
    texts = [f"Anina-{i} [X] Belto" for i in range(3000)]
    others = [Tokenizer.from_str(tokenizer.tokenizer.to_str()) for _ in range(4)]
    others[0].normalizer = None
    others[1].normalizer = normalizers.Sequence([ONE_SPELLING, normalizers.Replace("a", "b")])
    others[2].pre_tokenizer = pre_tokenizers.CharDelimiterSplit("n")
    others[3].add_tokens(["[x]"])
    for other in others:
        expected = [encoding.ids for encoding in other.encode_batch(texts, add_special_tokens=False)]
        found = NameTokenizer(other).encode([texts])
        assert [found.row(i).tolist() for i in range(3000)] == expected
        assert found.ids.tolist() != tokenizer.encode([texts]).ids.tolist()


def test_long_rows_keep_an_equal_share_of_each_field_beside_short_ones(tokenizer):
    fields = [["a b c d e f", "a"], ["1 2 3 4 5 6", "1"]]
    found = tokenizer.encode(fields, max_tokens=7)
    whole = tokenizer.encode(fields)
    assert found.row(0).tolist() == [*whole.row(0)[:3], 6, *whole.row(0)[7:10]]
    assert found.row(1).tolist() == whole.row(1).tolist()
