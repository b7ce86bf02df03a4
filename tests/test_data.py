"""Batches: their contract, each row once an epoch, near-equal lengths, an order from seed and epoch."""

import itertools
import pickle

import lightning as L
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from n3r.data import (
    LengthBucketSampler,
    OrderDataset,
    build_collate_fn,
    build_lstm2risk_collate_fn,
    build_transformer2risk_collate_fn,
    make_loader,
    open_store,
    write_store,
)
from n3r.encode import RowEncoder, text_readers
from n3r.features import TabularFeatures
from n3r.schema import LABEL, ColumnMap
from n3r.token_arrays import ChunkedText, TokenizedText
from n3r.tokenizer import Reader, TextConfig

PAD = 1
BLOCK = 6
TWO = ("text", "secondary")
COLLATES = [
    build_lstm2risk_collate_fn(PAD),
    build_transformer2risk_collate_fn(PAD, BLOCK),
    build_collate_fn(PAD),
]
lengths_of_rows = st.lists(st.integers(0, 12), min_size=1, max_size=40)


def dataset(lengths, label=None) -> OrderDataset:
    """Row r holds the ids 100 r + 7, 100 r + 8, .. and the features (r, -r)."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = [100 * row + 7 + i for row, length in enumerate(lengths) for i in range(length)]
    tabular = np.array([[row, -row] for row in range(len(lengths))], np.float32)
    return OrderDataset(TokenizedText(np.array(ids, np.int32), offsets), tabular, label)


def columns(*text: str, secondary: tuple[str, ...] = ()) -> ColumnMap:
    return ColumnMap(
        id="id",
        text=list(text),
        secondary_text=list(secondary),
        label="fraud",
        label_values={"0": 0, "1": 1},
        split_by="random",
    )


def encoder(column_map, tokenizer, texts=None, features=None, keys=("text",), **others) -> RowEncoder:
    readers = text_readers(keys, Reader(tokenizer, texts or TextConfig()), others)
    return RowEncoder(column_map, readers, features or TabularFeatures())


def batches(sampler: LengthBucketSampler) -> list[list[int]]:
    return list(sampler)


# ---- data set


def test_rows_are_what_each_is_alone(names, tokenizer):
    frame = names(12).with_columns(
        amount=pl.Series(range(12)), **{LABEL: pl.Series([0, 1] * 6, dtype=pl.Int8)}
    )
    features = TabularFeatures().fit(frame, ["amount"])
    data = OrderDataset.from_frame(frame, encoder(columns("email", "holder"), tokenizer, features=features))
    assert len(data) == 12
    order = [3, 11, 0, 3]
    rows = data[order]
    for place, row in enumerate(order):
        alone = tokenizer.encode(frame[row].select("email", "holder")).ids
        assert rows["text"].row(place).tolist() == alone.tolist()
        assert rows["tabular"][place].tolist() == features.transform(frame[row])[0].tolist()
        assert (rows["label"][place], rows["row_id"][place]) == (row % 2, row)


@given(lengths_of_rows, st.integers(1, 14), st.data())
def test_batches_of_torchs_own_loader(lengths, batch_size, drawn):
    """A loader that is given n3r's data set and collate makes the batches of `dataset[rows]`."""
    data, collate = dataset(lengths), drawn.draw(st.sampled_from(COLLATES))
    found = list(DataLoader(data, batch_size=batch_size, collate_fn=collate))
    starts = range(0, len(lengths), batch_size)
    expected = [collate(data[list(range(s, min(s + batch_size, len(lengths))))]) for s in starts]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_rows_keep_max_tokens(names, tokenizer):
    frame = names(5).with_columns(billing=pl.lit("Anina Belto " * 300))
    short, whole = (
        encoder(columns("billing"), tokenizer, texts) for texts in (TextConfig(max_tokens=50), None)
    )
    assert OrderDataset.from_frame(frame, short).text.lengths.tolist() == [50] * 5
    assert OrderDataset.from_frame(frame, whole).text.lengths.max() == 512


def test_defect_43_rows_without_a_label_have_minus_one(names, tokenizer):
    data = OrderDataset.from_frame(names(4), encoder(columns("email"), tokenizer))
    assert data.label.tolist() == [-1] * 4
    some = names(3).with_columns(**{LABEL: pl.Series([1, None, 0], dtype=pl.Int8)})
    data = OrderDataset.from_frame(some, encoder(columns("email"), tokenizer))
    assert data.label.tolist() == [1, -1, 0]


def test_one_text_is_both_and_two_are_apart(names, tokenizer):
    """Each is cleaned by its own steps."""
    frame, both = names(6), columns("email", secondary=("billing", "holder"))
    texts = TextConfig(steps=["text_upper"], secondary_steps=["text_normalizer"])
    upper, lower = (
        frame.select(getattr(pl.col("email", "billing", "holder").str, name)())
        for name in ("to_uppercase", "to_lowercase")
    )
    one = OrderDataset.from_frame(frame, encoder(both, tokenizer, texts))
    assert one.secondary is None
    assert one.text.ids.tolist() == tokenizer.encode(upper).ids.tolist()
    two = OrderDataset.from_frame(frame, encoder(both, tokenizer, texts, keys=TWO))
    assert two.text.ids.tolist() == tokenizer.encode(upper.select("email")).ids.tolist()
    assert two.secondary.ids.tolist() == tokenizer.encode(lower.select("billing", "holder")).ids.tolist()
    assert two.lengths.tolist() == (two.text.lengths + two.secondary.lengths).tolist()
    assert two[[4]]["secondary"].ids.tolist() == two.secondary.row(4).tolist()
    assert len(two.arrays) == len(one.arrays) + 2


def test_the_second_text_must_be_in_the_map_and_the_rows(names, tokenizer):
    with pytest.raises(ValueError, match="trimodal.*`secondary_text`"):
        OrderDataset.from_frame(names(4), encoder(columns("email"), tokenizer, keys=TWO))
    for keys in (TWO[:1], TWO):
        lacking = encoder(columns("email", secondary=("phone",)), tokenizer, keys=keys)
        with pytest.raises(ValueError, match=r"lack the text columns \['phone'\]"):
            OrderDataset.from_frame(names(4), lacking)


def test_defect_37_the_training_rows_are_encoded_out_of_fold(names, tokenizer):
    """A value that one row alone has would give away its label."""
    frame = names(60).with_columns(
        **{LABEL: pl.Series([0, 1, 1, 1] * 15, dtype=pl.Int8)}, kind=pl.Series(["a", "b"] * 30)
    )
    features = TabularFeatures().fit(frame, [], ["kind"])
    reader = encoder(columns("email"), tokenizer, features=features)
    train, other = (
        OrderDataset.from_frame(frame, reader, training=training).tabular for training in (True, False)
    )
    np.testing.assert_array_equal(train, features.transform(frame, out_of_fold=True))
    np.testing.assert_array_equal(other, features.transform(frame))
    assert not np.array_equal(train, other)


def test_unequal_lengths_are_refused():
    text = dataset([1, 2, 3]).text
    with pytest.raises(ValueError, match="3 texts, 2 feature rows"):
        OrderDataset(text, np.zeros((2, 1), np.float32))
    with pytest.raises(ValueError, match="lengths differ"):
        OrderDataset(text, np.zeros((3, 1), np.float32), np.zeros(4))


# ---- collate


@pytest.mark.parametrize("collate", COLLATES)
@given(lengths_of_rows)
def test_the_batch_contract(collate, lengths):
    data = dataset(lengths, np.arange(len(lengths)) % 3 - 1)
    batch = collate(data[list(range(len(lengths)))])
    n, width = batch["text"].shape
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()}
    assert shapes == {
        "text": ((n, width), torch.int64),
        "text_length": ((n,), torch.int64),
        "attn_mask": ((n, width), torch.bool),
        "tabular": ((n, 2), torch.float32),
        "label": ((n,), torch.int64),
        "row_id": ((n,), torch.int64),
    }
    limit = BLOCK if collate is COLLATES[1] else None
    assert n == len(lengths)
    assert width == max(1, max(len(data.text.row(row)[:limit]) for row in range(n)))
    order = range(n) if collate is not COLLATES[0] else sorted(range(n), key=lambda row: lengths[row])[::-1]
    assert batch["row_id"].tolist() == list(order)
    for place, row in enumerate(batch["row_id"].tolist()):
        ids = data.text.row(row)[:limit].tolist()
        # defect 12: filled with the id of [PAD]
        assert batch["text"][place].tolist() == ids + [PAD] * (width - len(ids))
        assert batch["attn_mask"][place].tolist() == [True] * len(ids) + [False] * (width - len(ids))
        assert batch["text_length"][place] == len(ids)
        assert batch["tabular"][place].tolist() == data.tabular[row].tolist()
        assert batch["label"][place] == data.label[row]


@pytest.mark.parametrize("pad_token", [0, 1, 39])
def test_defect_12_padding_is_the_pad_token(pad_token):
    for collate in (build_lstm2risk_collate_fn(pad_token), build_transformer2risk_collate_fn(pad_token, 9)):
        batch = collate(dataset([3, 1])[[0, 1]])
        assert batch["text"].tolist() == [[7, 8, 9], [107, pad_token, pad_token]]


def test_defect_14_texts_without_a_token_are_one_pad_wide():
    for collate in COLLATES:
        batch = collate(dataset([0, 0])[[0, 1]])
        assert batch["text"].tolist() == [[PAD], [PAD]]
        assert batch["attn_mask"].tolist() == [[False], [False]]


def test_defect_22_a_batch_without_tabular_columns():
    data = OrderDataset(dataset([2, 1]).text, np.zeros((2, 0), np.float32))
    assert COLLATES[0](data[[0, 1]])["tabular"].shape == (2, 0)


def chunked(rows: list[list[list[int]]]) -> ChunkedText:
    flat = [chunk for row in rows for chunk in row]
    offsets = np.cumsum([0, *map(len, flat)])
    ids = np.array([i for chunk in flat for i in chunk], np.int32)
    return ChunkedText(TokenizedText(ids, offsets), np.cumsum([0, *map(len, rows)]))


def test_chunks_are_padded_to_three_dimensions():
    """Worked by hand: rows of 2 and 1 chunks, second texts of 1 and 3."""
    text = chunked([[[2, 7, 3], [2, 3]], [[2, 8, 9, 3]]])
    secondary = chunked([[[2, 3]], [[2, 3], [2, 5, 3], [2, 3]]])
    data = OrderDataset(text, np.zeros((2, 0), np.float32), np.array([1, 0]), secondary)
    assert data.lengths.tolist() == [3 + 2, 4 + 3]  # of the longest chunks
    batch = build_collate_fn(0)(data[[0, 1]])
    assert batch["text"].tolist() == [[[2, 7, 3, 0], [2, 3, 0, 0]], [[2, 8, 9, 3], [0, 0, 0, 0]]]
    assert batch["attn_mask"].tolist() == (batch["text"] > 0).tolist()
    assert batch["text_length"].tolist() == [5, 4]
    assert batch["secondary"].tolist() == [
        [[2, 3, 0], [0, 0, 0], [0, 0, 0]],
        [[2, 3, 0], [2, 5, 3], [2, 3, 0]],
    ]
    assert batch["secondary_mask"].tolist() == (batch["secondary"] > 0).tolist()


@given(
    st.lists(st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=3), min_size=1, max_size=5), st.data()
)
def test_rows_of_chunks_are_taken_in_any_order(rows, drawn):
    taken = drawn.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    found = chunked(rows).take(taken)
    assert [[chunk.tolist() for chunk in found.row(i)] for i in range(len(found))] == [rows[i] for i in taken]


def test_second_texts_follow_their_rows_through_every_collate():
    for collate in COLLATES:
        data = dataset([3, 9, 1])
        both = OrderDataset(data.text, data.tabular, None, dataset([8, 1, 2]).text)
        batch = collate(both[[0, 1, 2]])
        for place, row in enumerate(batch["row_id"].tolist()):
            ids = both.secondary.row(row)[: BLOCK if collate is COLLATES[1] else None].tolist()
            assert batch["secondary"][place][batch["secondary_mask"][place]].tolist() == ids


# ---- sampler

sizes = given(lengths_of_rows, st.integers(1, 45), st.booleans(), st.integers(0, 9))


@sizes
def test_defect_23_batches_are_of_near_equal_size_and_none_is_a_lone_row(lengths, batch_size, shuffle, epoch):
    sampler = LengthBucketSampler(np.array(lengths), batch_size, shuffle)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert sorted(itertools.chain(*drawn)) == list(range(len(lengths)))  # each row once an epoch
    found = [len(batch) for batch in drawn]
    assert len(found) == len(sampler) and max(found) - min(found) <= 1
    assert max(found) <= max(batch_size, 3)
    if len(lengths) > 1 and batch_size > 1:
        assert min(found) >= 2
    if batch_size == 1:
        assert max(found) == 1


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60),
    st.integers(2, 4),
    st.integers(8, 20),
    st.booleans(),
    st.integers(0, 9),
)
def test_defect_36_processes_share_each_batch(lengths, n, batch_size, shuffle, epoch):
    """Together they have the rows of one process alone, in its batches; none is left with a lone row."""
    lengths = np.array(lengths)
    shares = [LengthBucketSampler(lengths, batch_size, shuffle, 3, share=(rank, n)) for rank in range(n)]
    alone = LengthBucketSampler(lengths, batch_size, shuffle, 3)
    for sampler in (*shares, alone):
        sampler.set_epoch(epoch)
    assert len({len(sampler) for sampler in shares}) == 1
    parts = [list(sampler) for sampler in shares]
    assert sorted(row for part in parts for batch in part for row in batch) == list(range(len(lengths)))
    if len(lengths) < 2 * n:
        return
    assert {len(part) for part in parts} == {len(shares[0])}
    assert min(len(batch) for part in parts for batch in part) >= 2
    assert max(len(batch) for part in parts for batch in part) <= -(-max(batch_size, 4 * n) // n)
    if len(shares[0]) == len(alone):
        assert [sorted(sum(batches, [])) for batches in zip(*parts, strict=True)] == [
            sorted(batch) for batch in alone
        ]


def test_defect_36_each_process_has_another_order_in_each_epoch():
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    drawn = []
    for epoch, rank in itertools.product((0, 1), (0, 1)):
        sampler = LengthBucketSampler(lengths, 16, shuffle=True, share=(rank, 2))
        sampler.set_epoch(epoch)
        drawn.append({frozenset(batch) for batch in sampler})
    for one, other in itertools.combinations(drawn, 2):
        assert not one & other


def test_as_few_batches_as_the_size_allows():
    for n, batch_size, expected in [(10, 5, 2), (11, 5, 3), (4, 9, 1), (1, 9, 1), (2, 1, 2)]:
        assert len(LengthBucketSampler(np.ones(n), batch_size)) == expected


def test_the_order_follows_from_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(1, 30, 200)

    def drawn(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthBucketSampler(lengths, 16, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return batches(sampler)

    assert drawn(3, 2) == drawn(3, 2)
    orders = [drawn(*key) for key in [(3, 0), (3, 1), (4, 0), (4, 1)]]
    for one, other in itertools.combinations(orders, 2):
        mates = [{frozenset(batch) for batch in order} for order in (one, other)]
        assert not mates[0] & mates[1]  # other batch-mates, not only another order of the batches


def test_shuffling_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    data = dataset([3, 1, 2, 5])
    assert len(list(make_loader(data, COLLATES[0], 2, shuffle=True))) == 2
    assert torch.equal(before, torch.get_rng_state())


def test_without_shuffling_the_longest_come_first():
    drawn = batches(LengthBucketSampler(np.array([2, 9, 4, 9, 1]), 3))
    assert drawn == [[1, 3, 2], [0, 4]]


def test_batches_are_not_taken_in_order_of_length():
    lengths = np.arange(400)
    means = [lengths[batch].mean() for batch in LengthBucketSampler(lengths, 20, shuffle=True)]
    assert abs(np.corrcoef(means, range(20))[0, 1]) < 0.7


def test_little_padding():
    """Names are about log-normal in length: random batches pad more than double, buckets a few percent."""
    lengths = np.random.default_rng(0).lognormal(3, 0.5, 4000).astype(int) + 1

    def padded(drawn: list[list[int]]) -> float:
        return sum(len(batch) * lengths[batch].max() for batch in drawn) / lengths.sum()

    order = np.random.default_rng(1).permutation(4000)
    at_random = padded([part.tolist() for part in np.array_split(order, 63)])
    assert at_random > 2
    assert padded(batches(LengthBucketSampler(lengths, 64, shuffle=True))) < 1.15
    assert padded(batches(LengthBucketSampler(lengths, 64))) < 1.05


# ---- loader


class Recorder(L.LightningModule):
    """Writes down the rows of each training batch of each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: list[list[list[int]]] = []

    def on_train_epoch_start(self):
        self.epochs.append([])

    def training_step(self, batch, _):
        self.epochs[-1].append(batch["row_id"].tolist())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_defect_36_each_epoch_of_a_real_trainer_has_its_own_order(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 9, 60)
    recorder = Recorder()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )
    collate = build_transformer2risk_collate_fn(PAD, 9)
    trainer.fit(recorder, make_loader(dataset(lengths), collate, 8, shuffle=True, seed=5))
    expected = []
    for epoch in range(3):
        sampler = LengthBucketSampler(lengths, 8, shuffle=True, seed=5)
        sampler.set_epoch(epoch)
        expected.append(batches(sampler))
    assert recorder.epochs == expected
    assert expected[0] != expected[1] != expected[2]


# ---- stores


def some_rows(n: int, kind: str, seed: int = 0) -> OrderDataset:
    """Random rows of one text or two, flat or of chunks."""
    rng = np.random.default_rng(seed)

    def text() -> TokenizedText | ChunkedText:
        if kind != "chunks":
            offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 6, n))])
            return TokenizedText(rng.integers(0, 40, offsets[-1]).astype(np.int32), offsets)
        return chunked([[rng.integers(0, 40, k).tolist() for _ in range(k)] for k in rng.integers(1, 4, n)])

    tabular = rng.normal(size=(n, 2)).astype(np.float32)
    return OrderDataset(text(), tabular, rng.integers(-1, 3, n), text() if kind == "two" else None)


def parts_of(data: OrderDataset, sizes: list[int]) -> list[OrderDataset]:
    """The rows of a data set in parts of these sizes, and the rest."""
    cuts = np.cumsum([0, *sizes]).clip(0, len(data)).tolist() + [len(data)]
    found = []
    for start, stop in itertools.pairwise(cuts):
        rows = np.arange(start, stop)
        texts = {key: text.take(rows) for key, text in data.texts.items()}
        found.append(
            OrderDataset(texts["text"], data.tabular[rows], data.label[rows], texts.get("secondary"))
        )
    return found


@given(st.sampled_from(["one", "two", "chunks"]), st.lists(st.integers(0, 9), max_size=4), st.integers(1, 20))
def test_a_store_is_the_data_set_whatever_the_parts_it_was_written_in(tmp_path, kind, sizes, n):
    data = some_rows(n, kind)
    write_store(tmp_path / "store", parts_of(data, sizes), "here")
    stored = open_store(tmp_path / "store", "here")
    for one in (stored, pickle.loads(pickle.dumps(stored))):
        assert (one.digest, one.facts | {"made_by": 0}) == (data.digest, data.facts | {"made_by": 0})
        assert one.lengths.tolist() == data.lengths.tolist()
        assert one.arrays.keys() == data.arrays.keys()
        for name, array in data.arrays.items():
            np.testing.assert_array_equal(one.arrays[name], array)
        batch, expected = (build_collate_fn(PAD)(d[list(range(n))[::-1]]) for d in (one, data))
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_a_store_travels_by_its_name(tmp_path):
    write_store(tmp_path / "store", [some_rows(5000, "one")])
    assert len(pickle.dumps(open_store(tmp_path / "store"))) < 1000


def test_a_store_of_other_rows_or_none_is_refused(tmp_path):
    write_store(tmp_path / "store", [some_rows(5, "one")], "these features")
    with pytest.raises(ValueError, match="is of other rows, another tokenizer or other features"):
        open_store(tmp_path / "store", "those features")
    with pytest.raises(ValueError, match="no rows to write into a token store"):
        write_store(tmp_path / "none", [])
    with pytest.raises(FileNotFoundError, match="none is not a token store"):
        open_store(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
