"""What was trained is kept by its plan; a plan holds all that decides a result, and nothing that shows it."""

import numpy as np
import pytest

from n3r.files.sources import PACKAGE, sources
from n3r.studies import kept


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


def test_a_plan_tells_rows_settings_and_the_bundles_parts(a_bundle, splits):
    bundle, other = a_bundle("lstm2risk"), a_bundle("lstm2risk", lr=0.5)
    shuffled = {**splits, "train": splits["train"].reverse()}
    module = "n3r.studies.beside"
    plans = [kept.plan(module, bundle, splits, 0), kept.plan(module, bundle, splits, 1)]
    plans += [kept.plan(module, other, splits, 0), kept.plan(module, bundle, shuffled, 0)]
    plans += [kept.plan("n3r.studies.ablation", bundle, splits, 0)]
    assert len(set(plans)) == 5
    assert kept.plan(module, bundle, dict(splits), 0) == plans[0]


@pytest.mark.parametrize("study", ["beside", "ablation", "learning_curves"])
def test_an_edit_of_a_figure_trains_nothing_and_one_of_the_training_does(study):
    rests_on = {path.relative_to(PACKAGE).as_posix() for path in sources(f"import n3r.studies.{study}")}
    assert not [path for path in rests_on if path.startswith(("report/", "evaluation/"))]
    assert {"train.py", "kernels.py", "checkpoints.py", "legacy/trainer.py"} <= rests_on
