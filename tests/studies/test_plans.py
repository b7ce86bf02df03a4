"""The plan of a study's training: all that decides a result, and nothing that shows it."""

import pytest

from n3r.files import kept
from n3r.files.sources import PACKAGE, sources


def test_a_plan_tells_rows_settings_and_the_bundles_parts(a_bundle, splits):
    bundle, other = a_bundle("lstm2risk"), a_bundle("lstm2risk", lr=0.5)
    shuffled = {**splits, "train": splits["train"].reverse()}
    module = "n3r.studies.beside"
    plans = [kept.plan(module, splits, bundle.settings, 0), kept.plan(module, splits, bundle.settings, 1)]
    plans += [kept.plan(module, splits, other.settings, 0), kept.plan(module, shuffled, bundle.settings, 0)]
    plans += [kept.plan("n3r.studies.ablation", splits, bundle.settings, 0)]
    assert len(set(plans)) == 5
    assert kept.plan(module, dict(splits), bundle.settings, 0) == plans[0]


@pytest.mark.parametrize("study", ["beside", "ablation", "learning_curves"])
def test_an_edit_of_a_figure_trains_nothing_and_one_of_the_training_does(study):
    rests_on = {path.relative_to(PACKAGE).as_posix() for path in sources(f"import n3r.studies.{study}")}
    assert not [path for path in rests_on if path.startswith(("report/", "evaluation/"))]
    assert {"train.py", "kernels.py", "checkpoints.py"} <= rests_on
    assert ("legacy/trainer.py" in rests_on) == (study != "learning_curves")
