"""The order of an epoch's rows: that of one sort of all, whatever the pieces; one file for all processes."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r import epoch_order
from n3r.epoch_order import drawn
from n3r.files import ranges

NOISE = (0.1, 3, 2)


def in_one_sort(lengths: np.ndarray, n_batches: int, noise) -> list[int]:
    """The order by its definition, all rows in memory."""
    if noise is None:
        return [*np.argsort(-lengths, kind="stable").tolist(), *range(n_batches)]
    rng = np.random.default_rng(noise[1:])
    rows = rng.permutation(len(lengths))
    noisy = lengths[rows] * (1 + noise[0] * rng.uniform(-1, 1, len(rows)))
    return [*rows[np.argsort(noisy, kind="stable")].tolist(), *rng.permutation(n_batches).tolist()]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=80),
    st.integers(1, 9),
    st.sampled_from([None, NOISE]),
    st.integers(1, 90),
    st.integers(1, 20),
    st.booleans(),
)
def test_the_order_is_that_of_one_sort_whatever_the_pieces(
    tmp_path, monkeypatch, lengths, n_batches, noise, piece, sample, in_file
):
    monkeypatch.setattr(ranges, "PIECE", piece)
    monkeypatch.setattr(ranges, "SAMPLE", sample)
    path = tmp_path / str(len(list(tmp_path.iterdir()))) / "epoch-2.npy" if in_file else None
    found = drawn(np.array(lengths), n_batches, noise, path)
    assert found.tolist() == in_one_sort(np.array(lengths), n_batches, noise)


def test_an_order_file_is_drawn_once_and_those_of_earlier_epochs_go(tmp_path, monkeypatch):
    lengths, drawings = np.arange(50), []
    draw = epoch_order._draw
    monkeypatch.setattr(epoch_order, "_draw", lambda *given: drawings.append(1) or draw(*given))
    asked = [
        threading.Thread(target=drawn, args=(lengths, 5, (0.1, 0, 0), tmp_path / "epoch-0.npy"))
        for _ in range(4)
    ]
    for one in asked:
        one.start()
    for one in asked:
        one.join()
    assert len(drawings) == 1
    longest = drawn(lengths, 5, None, tmp_path / "longest.npy")
    first = drawn(lengths, 5, (0.1, 0, 0), tmp_path / "epoch-0.npy")
    kept = first.tolist()
    drawn(lengths, 5, (0.1, 0, 1), tmp_path / "epoch-1.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "epoch-1.npy", "longest.npy"]
    assert first.tolist() == kept and longest[0] == 49  # who reads a file that went reads on


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "order").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot write into the folder .*order: "):
        drawn(np.arange(9), 2, NOISE, tmp_path / "order" / "epoch-0.npy")
