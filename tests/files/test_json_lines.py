import io

from hypothesis import given
from hypothesis import strategies as st

from n3r.files.json_lines import KEY_TWICE, NESTED, NOT_JSON, NOT_OBJECT, lines, read_json_lines
from n3r.files.records import NOT_UTF8


def objects(content: bytes, size: int = 99):
    return list(read_json_lines(io.BytesIO(content), lambda names: names, size))


def test_json_lines_are_columns_of_text():
    content = (
        b'\xef\xbb\xbf{"a": 1e5, "b": true}\r\n{"a": 7.10, "b": true, "a": 1e5}\n[1]\n{"a": "\xff"}\n{"a"\n'
        + b"[" * 99_999
    )
    (batch,) = objects(content)
    assert batch.frame.to_dicts() == [{"a": "1e5", "b": "true"}] and batch.rows == [1]
    assert batch.lost == [(2, KEY_TWICE), (3, NOT_OBJECT), (4, NOT_UTF8), (5, NOT_JSON), (6, NOT_JSON)]
    first, second = objects(b'{"a": null}\n{"b": {}}', size=1)
    assert first.frame.to_dicts() == [{"a": None}] and second.cells == [(0, "b", NESTED)]


def test_long_lines_are_passed_by():
    found = list(lines(io.BytesIO(b"{}\n" + b" " * 50 + b"{}\n{}\n" + b"x" * 10), 8))
    assert [(row, reason is None) for row, _, reason in found] == [
        (1, True),
        (2, False),
        (3, True),
        (4, False),
    ]
    assert list(lines(io.BytesIO(b"12345678\r\n"), 8)) == [(1, b"12345678\r\n", None)]


@given(st.binary(max_size=60))
def test_any_bytes_are_objects_or_lost(content):
    (batch,) = objects(content)
    rows = [*batch.rows, *(row for row, _ in batch.lost)]
    assert len(rows) == len(set(rows)) <= content.count(b"\n") + 1


def test_a_part_has_the_keys_that_the_first_objects_of_the_file_are_asked_for():
    asked = []

    def wanted(names):
        asked.append(names)
        return ["a"]

    content = io.BytesIO(b'{\n{"a": 1}\n{"b": 2}\n{"a": 3}\n')
    (batch,) = read_json_lines(content, wanted, 1, part=slice(3, None))
    assert batch.rows == [4] and batch.frame["a"].to_list() == ["3"]
    assert asked == [[], ["a"], ["a"]]
