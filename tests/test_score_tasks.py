"""Files, and parts of them, scored as tasks: as one process does, and gone on with where a driver ended."""

import os
import time
import warnings
from functools import lru_cache

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.engine.disk import Disk
from n3r.engine.memory import Memory
from n3r.score import Scorer
from n3r.score_files import Job, score_files
from n3r.score_tasks import score_tasks
from n3r.tables import write
from n3r.thresholds import Rule


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


# --- files in parts

WHO = 'Quill, "Feather"\nof two lines'
BROKEN = {"csv": "a row cut short\n", "tsv": "a row cut short\n", "jsonl": "{\n"}


def put(folder, kind, orders, broken):
    """The orders in a file, after `broken` rows that cannot be read."""
    orders = orders.with_columns(customerName=pl.lit(WHO))
    if kind == "parquet":
        orders.write_parquet(folder / "orders.parquet", row_group_size=50)
    else:
        write(orders, folder / f"orders.{kind}")
        head, rest = (folder / f"orders.{kind}").read_text().split("\n", 1)
        bad = BROKEN[kind] * broken
        text = bad + head + "\n" + rest if kind == "jsonl" else head + "\n" + bad + rest
        (folder / f"orders.{kind}").write_text(text)
    return folder / f"orders.{kind}"


def both(monkeypatch, small, items, out, chunk, part, engine, **options):
    """What one process and an engine write and warn of, file by file, and what they count."""
    monkeypatch.setattr("n3r.score_files.CHUNK", chunk)
    monkeypatch.setattr("n3r.score_tasks.CHUNK", chunk)
    monkeypatch.setattr("n3r.score_tasks.PART", part)
    found = []
    for name in ("alone", "apart"):
        (out / name).mkdir(parents=True)
        place = out / name / "scores.parquet" if options.get("one") else out / name
        own = {key: value for key, value in options.items() if key != "one"}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if name == "alone":
                counts = score_files(scorer_of(small.folder), items, place, progress=False, **own)
            else:
                counts = score_tasks(engine, small.folder, list(map(str, items)), place, **own)
        found.append((content(out / name), counts, {str(one.message) for one in caught}))
    return found


@lru_cache
def scorer_of(folder):
    return Scorer(folder, 1)


@given(
    kind=st.sampled_from(["parquet", "csv", "tsv", "jsonl"]),
    rows=st.integers(0, 150),
    chunk=st.sampled_from([7, 16, 40]),
    part=st.integers(1, 3),
    broken=st.sampled_from([0, 1, 45]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["parquet", "csv", "jsonl"]),
            "rule": st.just(Rule(threshold=0.5)),
            "for_spreadsheets": st.just(True),
        },
    ),
)
def test_a_file_in_parts_is_that_of_one_process_to_the_byte(
    tmp_path_factory, small, kind, rows, chunk, part, broken, options
):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "in").mkdir()
    path = put(folder / "in", kind, small.orders[:rows], broken)
    with pytest.MonkeyPatch.context() as patch:
        alone, apart = both(patch, small, [path], folder, chunk, part, Memory(), skip=True, **options)
    assert apart == alone
    assert alone[1].rejected == (0 if kind == "parquet" else broken)


def test_one_output_of_several_files_is_made_of_their_parts(tmp_path, monkeypatch, small):
    """Ids are whole numbers in one, text in the other; a category that training did not see is warned of."""
    (tmp_path / "in").mkdir()
    numbered = small.orders[:100].with_columns(objectId=pl.int_range(100), paymentMethod=pl.lit("shells"))
    paths = [
        put(tmp_path / "in", "parquet", numbered, 0),
        put(tmp_path / "in", "csv", small.orders[100:300], 1),
    ]
    disk = Disk(tmp_path / "engine", 10**9)
    options = {"rule": Rule(threshold=0.5), "reasons": 2, "skip": True, "one": True}
    alone, apart = both(monkeypatch, small, paths, tmp_path, 16, 3, disk, **options)
    disk.close()
    assert apart == alone and list(alone[0]) == ["scores.parquet", "scores.rejects.csv"]


def test_a_part_that_is_there_is_not_scored_again_and_lies_in_a_private_folder(tmp_path, monkeypatch, small):
    path, out = put(tmp_path, "jsonl", small.orders[:100], 0), tmp_path / "scores.jsonl"
    monkeypatch.setattr("n3r.score_files.CHUNK", 10)
    monkeypatch.setattr("n3r.score_tasks.CHUNK", 10)
    monkeypatch.setattr("n3r.score_tasks.PART", 2)
    expected = score_files(scorer_of(small.folder), [path], tmp_path / "alone.jsonl", progress=False)
    good, state = path.read_bytes().splitlines(), path.stat()

    def score(lines):
        path.write_bytes(b"\n".join(lines) + b"\n")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        return score_tasks(Memory(), small.folder, [str(path)], out)

    with pytest.raises(ValueError, match=r"orders\.jsonl, row 75: is not JSON"):
        score([*good[:74], b"{" * len(good[74]), *good[75:]])
    kept = tmp_path / ".scores.jsonl.scored"
    assert kept.stat().st_mode & 0o777 == 0o700 and not out.exists()
    assert len(list(kept.iterdir())) == 3
    seen, scored = [], Job.scored
    monkeypatch.setattr(Job, "scored", lambda *options: seen.append(options) or scored(*options))
    assert score(good) == expected and len(seen) == 2
    assert out.read_bytes() == (tmp_path / "alone.jsonl").read_bytes() and not kept.exists()


def test_a_bar_tells_how_many_parts_of_all_are_finished(tmp_path, monkeypatch, capsys, small, raw):
    class Slow(Memory):
        def gather(self, data, fn=None):
            found = super().gather(data, fn)
            time.sleep(1.3)  # a bar moves once a second
            return found

    monkeypatch.setattr("n3r.score_tasks.LOOK", 0.1)
    monkeypatch.setenv("N3R_WATCHED", "1")
    score_tasks(Slow(), small.folder, [str(raw)], tmp_path / "out")
    assert "3/3" in (told := capsys.readouterr().err) and "rows=300" in told
    monkeypatch.delenv("N3R_WATCHED")
    score_tasks(Memory(), small.folder, [str(raw)], tmp_path / "again")
    assert capsys.readouterr().err == ""
