"""docs/defects.md lists every defect of the published systems, with its tests or a reason to have none."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| .+ \| (.+) \|$", re.MULTILINE)


def _tested() -> dict[int, set[str]]:
    """The files that test each defect."""
    found: dict[int, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for numbers in re.findall(r"def test_defect((?:_\d\d)+)_", path.read_text()):
            for number in numbers.split("_")[1:]:
                found.setdefault(int(number), set()).add(f"`{path.relative_to(TESTS).as_posix()}`")
    return found


def test_the_list_has_each_defect_once_with_its_tests_or_a_reason():
    rows = ROW.findall((TESTS.parent / "docs" / "defects.md").read_text())
    assert [int(number) for number, _ in rows] == list(range(1, 56))
    listed = {int(number): set(where.split(", ")) for number, where in rows if "no test: " not in where}
    tested = _tested()
    assert listed.keys() == tested.keys()
    assert {
        number: files - tested[number] for number, files in listed.items() if files - tested[number]
    } == {}
