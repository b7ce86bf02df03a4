"""The legacy beside a bundle: same rows, same order, a verdict from the paired difference."""

import numpy as np
import polars as pl
import pytest

from n3r import metrics, parity


def table(scores, seed=0, n=400):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "order": [str(i) for i in range(n)],
            "segment": rng.choice(["US", "DE", "JP"], n),
            "label": rng.integers(0, 2, n),
            "score": scores,
        }
    )


def test_compare_agrees_with_the_metrics_it_is_made_of():
    rng = np.random.default_rng(1)
    ours = table(rng.random(400))
    legacy = ours.with_columns(score=(pl.col("score") + pl.Series(rng.random(400))) / 2)
    result = parity.compare(ours, legacy, 0.02)
    paired = metrics.paired_auc(ours["label"], ours["score"], legacy["score"])
    assert (result["difference"], result["low"], result["high"]) == (
        paired.difference,
        paired.low,
        paired.high,
    )
    assert result["sentence"] == metrics.equivalence(paired, 0.02, ("n3r", "legacy")).sentence
    assert {row["segment"] for row in result["segments"]} == {"US", "DE", "JP"}


def test_other_rows_are_refused():
    rng = np.random.default_rng(1)
    ours = table(rng.random(400))
    with pytest.raises(ValueError, match="other rows or another order"):
        parity.compare(ours, ours.reverse())


@pytest.mark.parametrize("n_rows", [13, 100, 513, 1025])
@pytest.mark.parametrize("epochs", [1, 2, 5, 10])
def test_defect_23_the_legacy_gets_a_batch_size_it_survives(n_rows, epochs):
    size = parity.workable_batch_size(n_rows, 512, epochs)
    assert 2 <= size <= 512
    assert n_rows % size != 1
    assert epochs * -(-n_rows // size) != 10


def test_departures_are_found_whole():
    notes = parity.departures()
    where = {note["where"] for note in notes}
    assert {"text.py", "train.py", "tabular.py", "preprocess.py"} <= where
    assert all(note["what"].endswith((".", ")")) for note in notes)


def test_departures_read_comments_and_docstrings(tmp_path):
    tag = parity.TAG
    (tmp_path / "a.py").write_text(
        f'"""Doc.\n\n{tag} one thing\nover two lines.\n\nOther.\n"""\n\n'
        f"x = 1\n# {tag} another\n# thing.\ny = 2\n"
    )
    assert parity.departures(tmp_path) == [
        {"where": "a.py", "what": "one thing over two lines."},
        {"where": "a.py", "what": "another thing."},
    ]
