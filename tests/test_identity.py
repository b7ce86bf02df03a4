import re
from itertools import combinations, groupby

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from n3r.identity import string_statistics

FIELDS = ["email", "billing", "holder"]


def test_worked_example():
    frame = pl.DataFrame({"email": ["Jo.Lenka7x42@Box.example"], "holder": ["JÓ  Lenk99"]})
    found = string_statistics(frame, ["email", "holder"]).row(0, named=True)
    expected = {
        "email missing": 0,
        "email length": 12,  # Jo.Lenka7x42: the user name alone
        "email words": 1,
        "email longest word": 12,
        "email capitals": 2 / 12,
        "email digits": 3 / 12,
        "email symbols": 1 / 12,
        "email non-ASCII": 0,
        "email numbers": 2,
        "email longest number": 2,
        "email digits at the end": 2,
        "email distinct characters": 12 / 12,
        "email vowels": 3 / 12,
        "email consonants in a row": 2,
        "holder missing": 0,
        "holder length": 10,
        "holder words": 2,
        "holder longest word": 6,
        "holder capitals": 3 / 10,
        "holder digits": 2 / 10,
        "holder symbols": 0,
        "holder non-ASCII": 1 / 10,
        "holder numbers": 1,
        "holder longest number": 2,
        "holder digits at the end": 2,
        "holder distinct characters": 8 / 10,  # two blanks and two nines
        "holder vowels": 2 / 10,  # an accent is no character of its own
        "holder consonants in a row": 2,
        "email ~ holder words": 1 / 2,  # jo, of jo and lenk99
        # jol ole len enk nka ka7 a7x 7x4 x42 and jol ole len enk nk9 k99
        "email ~ holder trigrams": 4 / 11,
        "email ~ holder equal": 0,
    }
    assert found == pytest.approx(expected)


def test_what_a_value_cannot_have_is_null():
    frame = pl.DataFrame({"a": [None, "", "?!", "Ab"], "b": ["Ab", "Ab", "Ab", "a-B"]})
    found = string_statistics(frame, ["a", "b"])
    assert found["a missing"].to_list() == [1, 0, 0, 0]
    assert found["a length"].to_list() == [None, 0, 2, 2]
    assert found["a digits"].to_list() == [None, None, 0, 0]
    assert found["a distinct characters"].to_list() == [None, None, 1, 1]
    assert found["a longest number"].to_list() == [None, 0, 0, 0]
    for figure in ("words", "trigrams", "equal"):
        assert found[f"a ~ b {figure}"].to_list()[:3] == [None, None, None]
    assert found["a ~ b equal"][3] == found["a ~ b trigrams"][3] == 1
    assert found["a ~ b words"][3] == 0


def longest(value: str, of: str) -> int:
    runs = [len(list(run)) for inside, run in groupby(value, lambda character: character in of) if inside]
    return max(runs, default=0)


LOWER = str.maketrans("ABÉé", "abee")


def by_hand(value: str | None) -> dict[str, float | None]:
    """The figures of a value whose characters are those of the test below, in plain Python."""
    if value is None:
        return {"missing": 1.0}
    n, folded = len(value), value.translate(LOWER)
    shares = {
        "capitals": sum(c in "ABÉ" for c in value),
        "digits": sum(c in "07٣" for c in value),
        "symbols": sum(c in ".@_" for c in value),
        "non-ASCII": sum(ord(c) > 127 for c in value),
        "vowels": sum(c in "ae" for c in folded),
        "distinct characters": len(set(value)),
    }
    words = value.split()
    return {
        "missing": 0.0,
        "length": n,
        "words": len(words),
        "longest word": max(map(len, words), default=0),
        "numbers": len(re.findall("[07٣]+", value)),
        "longest number": longest(value, "07٣"),
        "digits at the end": len(re.findall(r"[07٣]*\s*$", value)[0].strip()),
        "consonants in a row": longest(folded, "bcfz"),
    } | {figure: count / n if n else None for figure, count in shares.items()}


def overlaps_by_hand(a: str | None, b: str | None) -> dict[str, float]:
    words = [set(re.findall("[a-z漢07٣]+", (value or "").translate(LOWER))) for value in (a, b)]
    plain = [re.sub("[^a-z漢07٣]", "", (value or "").translate(LOWER)) for value in (a, b)]
    if not all(plain):
        return {}
    runs = [{p[i : i + 3] for i in range(len(p) - 2)} or {p} for p in plain]
    return {
        "words": len(words[0] & words[1]) / min(map(len, words)),
        "trigrams": len(runs[0] & runs[1]) / len(runs[0] | runs[1]),
        "equal": float(plain[0] == plain[1]),
    }


VALUES = st.none() | st.text("aabbcfzéABÉ漢07٣._ ", max_size=12)  # no @: the worked example has that


@example([("aaaaa", "aaab", "zz zz")])
@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=5))
def test_figures_are_those_of_plain_python(rows):
    found = string_statistics(
        pl.DataFrame(rows, schema=dict.fromkeys(FIELDS, pl.String), orient="row"), FIELDS
    )
    for row, figures in zip(rows, found.iter_rows(named=True), strict=True):
        for name, value in zip(FIELDS, row, strict=True):
            mine = {k.removeprefix(f"{name} "): v for k, v in figures.items() if k.startswith(f"{name} ")}
            mine = {k: v for k, v in mine.items() if v is not None and "~" not in k}
            assert mine == pytest.approx({k: v for k, v in by_hand(value).items() if v is not None})
        for (a, x), (b, y) in combinations(zip(FIELDS, row, strict=True), 2):
            prefix = f"{a} ~ {b} "
            mine = {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix)}
            assert {k: v for k, v in mine.items() if v is not None} == pytest.approx(overlaps_by_hand(x, y))


def test_a_hundred_thousand_rows_run_no_python_each(names):
    import time

    frame = pl.concat([names(1000)] * 100)
    start = time.process_time()
    assert string_statistics(frame, FIELDS).height == 100_000
    assert time.process_time() - start < 10  # 2 s here


def test_a_field_that_is_missing_is_named(names):
    with pytest.raises(ValueError, match=r"lack the text fields \['payer'\]"):
        string_statistics(names(5), ["email", "payer"])
