"""The tokenizers: no text spells a special token, and they are the same wherever they are read."""

import json
import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from n3r.clean import compose
from n3r.legacy import trainer
from n3r.spelling import ONE_SPELLING
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
    train_tokenizer,
    train_wordpiece,
)

CLS, PAD, UNK, BOS, EOS, MISSING, BAR = range(7)
# Special tokens as normalising leaves them: written with what is removed or folded.
HIDDEN = ["[MI\u200bSSING]", "\u2060|\ufe0f", "[\u0420\u0410D]", "\uff3bP\u00adAD\uff3d"]
WIDE = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})  # to full-width letters


def rows(tokenizer: NameTokenizer, fields: pl.DataFrame, max_tokens: int | None = None) -> list[list[int]]:
    ids, offsets = tokenizer.encode(fields, max_tokens)
    return [ids[start:end].tolist() for start, end in zip(offsets, offsets[1:], strict=False)]


def one(tokenizer: NameTokenizer, *texts: str | None) -> list[int]:
    """Ids of a single row of these fields."""
    columns = {f"field{i}": [text] for i, text in enumerate(texts)}
    return rows(tokenizer, pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))[0]


def test_special_tokens_have_the_legacys_ids(tokenizer):
    assert SPECIAL_TOKENS == trainer.SPECIAL_TOKENS
    assert [tokenizer.tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(7))
    assert tokenizer.pad_token == PAD
    assert tokenizer.vocab_size == len(tokenizer.tokenizer.get_vocab())


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


@pytest.mark.parametrize("n", [0, 20])
def test_the_shape_of_the_encoded_rows(tokenizer, names, n):
    encoded = tokenizer.encode(names(20)[:n])
    assert (encoded.ids.dtype, encoded.offsets.dtype) == (np.int32, np.int64)
    assert len(encoded) == n
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
def test_steps_of_one_kind_are_not_for_the_other(tokenizer, bert, steps):
    fields = pl.DataFrame({"a": ["x"]})
    with pytest.raises(ValueError, match="not for a tokenizer of the kind 'bpe'"):
        tokenizer.read(fields, steps, TextConfig())
    with pytest.raises(ValueError, match="not for a tokenizer of the kind 'bert'"):
        bert.read(fields, ["custom_bpe_tokenizer"], TextConfig())


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
        one, other = (t.read(fields, [], TextConfig()).arrays for t in (original, loaded))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


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


def test_a_missing_file_names_the_step_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json.*02_tokenizer"):
        NameTokenizer.load(tmp_path)


ASCII = st.text(st.characters(max_codepoint=127), max_size=40)


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
    others[1].normalizer = normalizers.Sequence([ONE_SPELLING.normalizer, normalizers.Replace("a", "b")])
    others[2].pre_tokenizer = pre_tokenizers.CharDelimiterSplit("n")
    others[3].add_tokens(["[x]"])
    for other in others:
        expected = [encoding.ids for encoding in other.encode_batch(texts, add_special_tokens=False)]
        found = NameTokenizer(other).encode([texts])
        assert [found.row(i).tolist() for i in range(3000)] == expected
        assert found.ids.tolist() != tokenizer.encode([texts]).ids.tolist()
