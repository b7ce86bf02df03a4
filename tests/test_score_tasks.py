"""Files scored as tasks: as one process scores them, and gone on with where a driver ended."""

import polars as pl
import pytest

from n3r.engine.disk import Disk
from n3r.engine.memory import Memory
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.score_tasks import score_tasks
from n3r.tables import write


@pytest.fixture
def raw(tmp_path, small):
    for number, part in enumerate(small.orders[:300].iter_slices(100)):
        write(part, tmp_path / "raw" / f"{number}.{('parquet', 'csv', 'jsonl')[number]}")
    return tmp_path / "raw"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_those_of_one_process_to_the_byte(tmp_path, small, raw):
    with (raw / "1.csv").open("ab") as file:
        file.write(b"a row cut short")
    options = {"skip": True, "kind": "csv"}
    expected = score_files(Scorer(small.folder, 1), [raw], tmp_path / "alone", progress=False, **options)
    for engine in (Memory(), Disk(tmp_path / "engine", 10**9)):
        out = tmp_path / type(engine).__name__
        assert score_tasks(engine, small.folder, [str(raw)], out, **options) == expected
        assert content(out) == content(tmp_path / "alone")
        engine.close()
    assert expected.rejected == 1 and expected.scored == 300


def test_finished_files_are_skipped_and_records_go_when_all_is_done(tmp_path, small, raw):
    out, whole = tmp_path / "out", (raw / "2.jsonl").read_bytes()
    (raw / "2.jsonl").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"2\.jsonl"):
        score_tasks(Memory(), small.folder, [str(raw)], out)
    assert sorted(path.name for path in out.glob("*.*")) == [".scored", "0.parquet", "1.csv"]
    first = (out / "0.parquet").stat().st_mtime_ns, (out / "1.csv").stat().st_mtime_ns
    (raw / "2.jsonl").write_bytes(whole)
    write(pl.read_parquet(raw / "0.parquet"), raw / "0.parquet")  # written anew: scored anew
    counts = score_tasks(Memory(), small.folder, [str(raw)], out)
    again = (out / "0.parquet").stat().st_mtime_ns, (out / "1.csv").stat().st_mtime_ns
    assert counts.scored == 300 and again[0] > first[0] and again[1] == first[1]
    assert sorted(path.name for path in out.iterdir()) == ["0.parquet", "1.csv", "2.jsonl"]


def test_one_output_file_is_refused(tmp_path, small, raw):
    with pytest.raises(ValueError, match="give a folder"):
        score_tasks(Memory(), small.folder, [str(raw)], tmp_path / "out.csv")
