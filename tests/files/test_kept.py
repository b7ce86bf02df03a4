"""What was trained is kept by its plan."""

import numpy as np
import pytest

from n3r.files import kept


def test_a_result_is_made_once_a_plan_and_anew_where_its_file_is_damaged(tmp_path):
    folder, made = tmp_path / "a" / "result", []

    def train() -> kept.Result:
        made.append(len(made))
        return kept.Result({"scores": np.array([len(made)], np.float32)}, {"history": [{"loss": 0.1}]})

    found = [kept.kept(folder, plan, train) for plan in ("one", "one", "two", "one")]
    assert [int(result.arrays["scores"][0]) for result in found] == [1, 1, 2, 3]
    assert found[1].texts == {"history": [{"loss": 0.1}]} and kept.read(folder).texts == found[1].texts
    (folder / kept.FILE).write_bytes(b"half")
    assert int(kept.kept(folder, "one", train).arrays["scores"][0]) == 4
    with pytest.raises(FileNotFoundError):
        kept.read(tmp_path / "nothing")
