"""Folders of arrays: what is appended comes back as maps, and nothing of what is damaged does."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.files import arrays
from n3r.files.arrays import MANIFEST, describe, digest, map_arrays, read_manifest, taken, write_arrays


def written(folder: Path, parts: list[dict[str, np.ndarray]]) -> Path:
    write_arrays(folder, "the numbers", parts, {"made": "here"})
    return folder


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.sampled_from(["<f4", "<i4", "<i8"]))
def test_parts_come_back_as_one_map_with_the_checksum_of_one_array(tmp_path, sizes, kind):
    rng = np.random.default_rng(0)
    parts = [{"wide": rng.normal(size=(n, 3)).astype(kind), "none": np.zeros((n, 0), kind)} for n in sizes]
    folder = written(tmp_path / "numbers", parts)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found = map_arrays(folder, "the numbers")
    for name, array in whole.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
        with pytest.raises(ValueError, match="read-only"):
            found[name][:] = 0
    described = read_manifest(folder, "the numbers")["arrays"]
    assert digest(described) == digest({name: describe(array) for name, array in whole.items()})


def test_a_large_map_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGE", 0)
    monkeypatch.setattr(arrays, "TAKEN", 3)
    rows = np.arange(200).reshape(100, 2)
    mapped = map_arrays(written(tmp_path / "a", [{"rows": rows}]), "it")["rows"]
    for places in ([], [5], [99, 0, 3, 3, 7, 8, 1]):
        places = np.array(places, np.int64)
        np.testing.assert_array_equal(taken(mapped, places), rows[places])
    np.testing.assert_array_equal(taken(mapped, np.arange(40), np.arange(0, 41, 5)), rows[:40])


DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "of another shape": lambda path: np.save(path, np.zeros(3)),
    "pickled": lambda path: np.save(path, np.array([{"a": 1}], object), allow_pickle=True),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_array_is_named(damage, tmp_path):
    folder = written(tmp_path / "a", [{"rows": np.arange(50), "others": np.arange(3)}])
    DAMAGE[damage](folder / "rows.npy")
    with pytest.raises(ValueError, match=r"^the numbers .*a is damaged \(rows.npy\): write it anew$"):
        map_arrays(folder, "the numbers")


@pytest.mark.parametrize("content", ["", "[]", '{"arrays": {}}', '{"arrays": {"a": 1}, "facts": {}}'])
def test_a_manifest_that_says_something_else_is_named(content, tmp_path):
    folder = written(tmp_path / "a", [{"rows": np.arange(5)}])
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=MANIFEST):
        map_arrays(folder, "the numbers")
    (folder / MANIFEST).unlink()
    with pytest.raises(FileNotFoundError, match=f"is not the numbers: it has no {MANIFEST}"):
        map_arrays(folder, "the numbers")


def test_an_array_stays_in_its_folder(tmp_path):
    np.save(tmp_path / "outside.npy", np.arange(5))
    folder = written(tmp_path / "a", [{"rows": np.arange(5)}])
    content = (folder / MANIFEST).read_text().replace('"rows"', '"../outside"')
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match="is damaged"):
        map_arrays(folder, "the numbers")


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    earlier = written(tmp_path / "a", [{"rows": np.arange(5)}])

    def parts():
        yield {"rows": np.arange(5)}
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ValueError, match=r"^cannot write the numbers .*a: No space left on device$"):
        write_arrays(earlier, "the numbers", parts(), {})
    with pytest.raises(ValueError, match=r"rows of float64 \(\) after rows of int64 \(\)"):
        written(tmp_path / "b", [{"rows": np.arange(5)}, {"rows": np.zeros(5)}])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert map_arrays(earlier, "the numbers")["rows"].tolist() == [0, 1, 2, 3, 4]
    shutil.rmtree(earlier)


def test_scratch_space_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "ROOM", 8)
    (tmp_path / "file").write_bytes(b"")
    found = arrays.room((3, 5), np.int16, tmp_path)
    found[1] = 7
    assert found.sum() == 35 and [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(ValueError, match=r"^cannot write 30 bytes into .*file \(Not a dir.*: make room"):
        arrays.room((3, 5), np.int16, tmp_path / "file")
