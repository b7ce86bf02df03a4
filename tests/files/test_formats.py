"""Which files folders, patterns, regions and single names mean."""

import pytest

from n3r.files.formats import find_files

FOUND = ["a.csv", "b.jsonl", "c.ndjson.gz", "d.snappy.parquet", "e[1].TSV", "k=v.csv"]


@pytest.fixture
def folder(tmp_path):
    names = (
        "a.csv",
        "b.jsonl",
        "c.ndjson.gz",
        "d.snappy.parquet",
        "e[1].TSV",
        "k=v.csv",
        ".hidden.csv",
        "notes.md",
    )
    for name in names:
        (tmp_path / name).write_text("")
    return tmp_path


def test_defect_30_each_file_is_found_once(folder):
    (folder / "sub").mkdir()
    several = [folder, folder / "b.jsonl", str(folder / "*.jsonl"), folder / "sub" / ".." / "a.csv"]
    assert [path.name for path in find_files(several)] == [path.name for path in find_files(folder)] == FOUND


def test_the_order_given_and_regions(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [path.name for path in find_files(["b.jsonl", "e[1].TSV", "[ab]*.*"])] == [
        "b.jsonl",
        "e[1].TSV",
        "a.csv",
    ]
    assert find_files("k=v.csv").popitem()[1] is None  # a name that is there, not a region
    assert list(find_files(["NA=a.csv", "EU=b.jsonl"]).values()) == ["NA", "EU"]
    with pytest.raises(ValueError, match="a.csv is given for two regions, NA too"):
        find_files(["NA=*.csv", "EU=a.csv"])


def test_what_is_not_there_or_of_another_ending(folder):
    (folder / "empty").mkdir()
    for place in (folder / "no.csv", str(folder / "*.tsv.gz"), folder / "empty", f"NA={folder / 'no.csv'}"):
        with pytest.raises(FileNotFoundError, match="no file|holds no file"):
            find_files(place)
    with pytest.raises(ValueError, match="no input"):
        find_files([])
    with pytest.raises(ValueError, match=r"notes\.md: the name must end in \.parquet.*\.ndjson\.gz"):
        find_files(folder / "notes.md")
