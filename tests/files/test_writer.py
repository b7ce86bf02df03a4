"""Tables into files, whole or as rows come; nothing half-written is left."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from n3r.files.atomic import write_together
from n3r.files.formats import FORMATS
from n3r.files.writer import write, writer

FRAME = pl.DataFrame({"id": ["a", "b", None], "name": ["NA", 'x\n"', None], "f": [1.5, None, 2.0]})
READERS = {
    "parquet": lambda path: pl.read_parquet(path, glob=False),
    "csv": lambda path: pl.read_csv(path, glob=False),
    "tsv": lambda path: pl.read_csv(path, separator="\t", glob=False),
    "jsonl": lambda path: pl.read_ndjson(path.read_bytes()),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_in_pieces_or_whole_is_read_back(tmp_path, kind):
    path = tmp_path / "new" / f"[1].{kind}"
    with writer(path, kind) as out:
        for row in range(3):
            out.write(FRAME[row : row + 1])
        out.write(FRAME.clear())
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert_frame_equal(READERS[kind](path), FRAME)
    write(FRAME, path)
    assert_frame_equal(READERS[kind](path), FRAME)


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv"])
def test_an_empty_output_has_its_columns(tmp_path, kind):
    write(FRAME.clear(), tmp_path / f"x.{kind}")
    assert READERS[kind](tmp_path / f"x.{kind}").columns == FRAME.columns


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_left_of_a_failure_and_an_older_file_stays(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), writer(path, kind) as out:
        out.write(FRAME)
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError, match="of the caller"), writer(path, kind):
        raise FileNotFoundError("of the caller")
    with pytest.raises(ValueError, match=r"x\..* after rows of"), writer(path, kind) as out:
        out.write(FRAME)
        out.write(FRAME.rename({"id": "di"}))
    with pytest.raises(ValueError, match="nothing to write"), writer(path, kind):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "old"


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write x\.csv into .*file \("):
        write(FRAME, tmp_path / "file" / "x.csv")
    with pytest.raises(ValueError, match="as 'xlsx': the name must end in .parquet"):
        write(FRAME, tmp_path / "x.xlsx")
    with pytest.raises(ValueError, match="cannot write"):
        write(pl.DataFrame({"nested": [[1]]}), tmp_path / "x.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_files_that_belong_together_are_written_or_none_is(tmp_path):
    write_together(tmp_path / "new", {"a": b"1", "b": b"2"})
    assert (tmp_path / "new" / "b").read_text() == "2"
    (tmp_path / "new" / "c").mkdir()
    with pytest.raises(ValueError, match="cannot write c into .*new"):
        write_together(tmp_path / "new", {"a": b"2", "c": b"3"})
    assert (tmp_path / "new" / "a").read_text() == "1"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a", "b", "c"]
