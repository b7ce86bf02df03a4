"""A threshold to move: its figures by hand, cases without strings, with widgets and without."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from n3r.evaluation.scored import beside
from n3r.progress import SESSION
from n3r.report.explorer import BINARY_ONLY, WITHOUT_WIDGETS, Explorer, explore
from n3r.report.titled import titled
from n3r.schema import LABEL, SCORE, TIME
from n3r.score import Scorer


def rows(labels: list[int], scores: list[float]) -> pl.DataFrame:
    return pl.DataFrame({LABEL: labels, SCORE: scores})


@pytest.fixture(scope="module")
def explorer(small) -> Explorer:
    scorer = Scorer(small.folder)
    val, test = (
        beside(small.prepared.splits[s], scorer.score(small.prepared.splits[s])) for s in ("val", "test")
    )
    return explore(scorer, val, test)


def test_thresholds_are_chosen_on_validation_rows_and_judged_on_test_rows():
    validation = rows([1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0.9, 0.8, 0.7, *np.linspace(0.6, 0.1, 9)])
    test = rows([1, 1, 0, 0, 0, 0], [0.95, 0.5, 0.82, 0.3, 0.2, 0.1])
    found = Explorer(None, validation, test)
    assert found.place(0.05) == 0  # no threshold keeps to it: the highest
    row = found.stops.row(found.place(0.1), named=True)  # one of ten legitimate validation rows
    assert row["threshold"] == pytest.approx(0.65) and row["at_most"] == 0.1
    assert (row["flagged"], row["caught"], row["frauds"]) == (2, 1, 2)
    assert (row["recall"], row["precision"], row["false_alarms"]) == (0.5, 0.5, 0.25)
    assert found.per == "in 1,000 orders" and row["alerts"] == pytest.approx(2 / 0.006)
    assert found.stops["flagged"].is_sorted() and found.stops["at_most"].is_sorted()
    ends = pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 5, 4)
    timed = test.with_columns(pl.datetime_range(*ends, "20h", eager=True).alias(TIME))
    assert Explorer(None, validation, timed).stops["alerts"][-1] == pytest.approx(6 / (100 / 24))


def test_cases_are_the_flagged_next_to_the_threshold_and_show_no_string(explorer, small):
    at = explorer.place(0.05)
    n, cases = explorer.stops["flagged"][at], explorer.cases(at)
    score = explorer.test[SCORE].sort(descending=True)[max(n - 8, 0) : n]
    assert [cell for *_, cell in cases.rows] == [f"{one:.4g}" for one in score]
    texts = small.prepared.splits["test"].select(small.prepared.column_map.text)
    words = {word for column in texts for cell in column.drop_nulls() for word in cell.split()}
    assert not {word for word in words if len(word) > 4 and word in repr(cases) + cases._repr_html_()}
    assert f"{n:,} flagged" in cases.title


def test_without_widgets_a_table_and_the_cases_and_in_lab_a_slider(explorer, monkeypatch):
    monkeypatch.delenv(SESSION, raising=False)
    plain = [one["text/plain"] for one in explorer.outputs()]
    assert plain == [repr(explorer.table()), repr(explorer.cases(explorer.place())), WITHOUT_WIDGETS]
    monkeypatch.setenv(SESSION, "09_best.ipynb")
    table, moving = explorer.outputs()
    assert "application/vnd.jupyter.widget-view+json" in moving and moving["text/plain"] == WITHOUT_WIDGETS
    slider, shown = explorer.widget().children
    before = shown.value
    slider.value = slider.value + 5
    assert shown.value != before and explorer.sentence(slider.value) in shown.value


def test_more_than_two_classes_are_told_in_a_sentence(explorer):
    three = SimpleNamespace(calibration=SimpleNamespace(n_classes=3))
    assert explore(three, explorer.test, explorer.test) == BINARY_ONLY


def test_a_table_has_a_title_digits_and_sides():
    frame = pl.DataFrame({"a_name": ["x<y", "z"], "n": [1234, 5], "share": [0.5, None], "p": [0.00012, 0.5]})
    shown = titled(frame, "A <title>", {"share": "%", "p": "p"})
    assert repr(shown).split("\n") == [
        "A <title>",
        "a name      n   share        p",
        "x<y     1,234  50.0 %  < 0.001",
        "z           5     n/a    0.500",
    ]
    html = shown._repr_html_()
    assert "A &lt;title&gt;</caption>" in html and '<td style="text-align:left">x&lt;y</td>' in html
    assert '<td style="text-align:right">1,234</td>' in html
    assert titled(frame.head(0), "Empty").rows == [] and repr(titled(frame.head(0), "Empty"))
    assert titled(frame.select(pl.col("n") / 7), "digits", digits=1).rows[0] == ("176.3",)
