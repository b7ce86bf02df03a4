"""Figures of one model's evaluation: what they show, and that nothing is claimed without data."""

import numpy as np
import polars as pl
import pytest

from n3r.estimate import bounded
from n3r.evaluation import calibration, decisions, drift
from n3r.report import evaluation_figures

# ---- groups, drift and errors

GROUP_FIGURES = ["auroc", "alert_rate", "fpr", "recall", "ratio"]
GROUPED = pl.DataFrame(
    [
        {"group": group, "n": n, "n_positive": n // 10, "mean_score": 0.12}
        | {f"{f}{end}": k + d for f in GROUP_FIGURES for end, d in (("", 0), ("_low", -0.1), ("_high", 0.1))}
        for group, n, k in [
            ("2025-05-01 to 2025-05-04", 4000, 0.5),
            ("2025-04-30", 900, 0.7),
            ("(none)", 30, 0.8),
        ]
    ]
)
UNKNOWN_GROUPS = GROUPED.with_columns(
    pl.lit(None, pl.Float64).alias(name) for figure in GROUP_FIGURES for name in bounded(figure)
)
DRIFT = pl.DataFrame(
    [
        ("age", 3.0, 0.02, "shifted"),
        ("amount", 0.2, 0.02, "some shift"),
        ("country", 0.3, 0.4, "stable"),
        ("new", None, None, "not enough data"),
    ],
    schema={"column": pl.String, "psi": pl.Float64, "null_level": pl.Float64, "verdict": pl.String},
    orient="row",
)
FAILING = pl.DataFrame(
    [
        ("mail: digits", 40, 20, 2.0, 1.5, 3.0, 0.001),
        ("mail: a very long trait of a field with quite a long name, too", 10, 5, 5.0, 0.9, None, 0.2),
        ("name: missing", 12, 0, 0.0, 0.0, 0.7, 0.01),
        ("name: empty", 0, 0, None, None, None, None),
        ("name: one word", 90, 80, 1.6, 1.55, 1.7, 0.0),
    ],
    schema=["trait", "n_positive", "n_missed", *bounded("missed_ratio"), "missed_p_holm"],
    orient="row",
)
SCORES = np.linspace(0, 1, 400) ** 3
OF_GROUPS = {
    "recall": lambda table, ax=None: evaluation_figures.group_rates(table, "recall", 0.6, ax),
    "fpr": lambda table, ax=None: evaluation_figures.group_rates(table, "fpr", None, ax),
    "alert_rate": lambda table, ax=None: evaluation_figures.group_rates(table, "alert_rate", 0.55, ax),
    "ratio": evaluation_figures.group_calibration,
    "trend": evaluation_figures.slice_trend,
}

# ---- decisions and calibration

_RNG = np.random.default_rng(7)
TRUTH = _RNG.beta(0.4, 9, 3000)
FRAUD = (_RNG.random(3000) < TRUTH).astype(int)
RATED = {"n3r": TRUTH**0.8, "a baseline of a long name": TRUTH ** _RNG.uniform(0.2, 1.5, 3000)}
COSTS = decisions.Costs(100, 5)


def by_score(statistic, y=FRAUD, scores=RATED) -> dict[str, pl.DataFrame]:
    return {name: statistic(y, p) for name, p in scores.items()}


def posterior(y, p) -> pl.DataFrame:
    return calibration.posterior_bins(p, TRUTH[: len(p)])


def costs_of(y, p, chosen: float | None = None):
    best = decisions.cheapest(y, p, COSTS)
    return decisions.cost_points(y, p, COSTS), best, chosen and decisions.at_threshold(y, p, chosen, COSTS)


OF_DECISIONS = {
    "operating_recall": (evaluation_figures.operating_recall, [decisions.operating_points]),
    "lift": (evaluation_figures.lift, [decisions.top_shares]),
    "gain": (evaluation_figures.gain, [decisions.gain_points, decisions.top_shares]),
    "reliability_diagram": (evaluation_figures.reliability_diagram, [calibration.reliability]),
    "posterior_calibration": (evaluation_figures.posterior_calibration, [posterior]),
}


def draw_decisions(name, y=FRAUD, scores=RATED, ax=None):
    if name == "cost_curve":
        return evaluation_figures.cost_curve(*costs_of(y, next(iter(scores.values())), 0.2), ax)
    draw, statistics = OF_DECISIONS[name]
    return draw(*(by_score(statistic, y, scores) for statistic in statistics), ax=ax)


DRAWINGS = {
    "drift": (evaluation_figures.drift_bars, DRIFT),
    "drift of few rows": (evaluation_figures.drift_bars, DRIFT[3:]),
    "drift of no column": (evaluation_figures.drift_bars, DRIFT[:0]),
    "scores": (evaluation_figures.score_shift, SCORES, SCORES[:100]),
    "no scores": (evaluation_figures.score_shift, SCORES, []),
    "traits": (evaluation_figures.trait_forest, FAILING, (900, 90)),
    "no traits": (evaluation_figures.trait_forest, FAILING[3:4], (900, 0)),
    **{
        f"{name} of {what}": (draw, table)
        for name, draw in OF_GROUPS.items()
        for what, table in (("three", GROUPED), ("unknown", UNKNOWN_GROUPS), ("none", GROUPED[:0]))
    },
    **{
        f"{name} of {what}": (draw_decisions, name, FRAUD, scores)
        for name in (*OF_DECISIONS, "cost_curve")
        for what, scores in (("two", RATED), ("a flat score", {"flat": np.full(3000, 0.05)}))
    },
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_whole_legible_and_leaves_no_trace(name, check_figure):
    draw, *data = DRAWINGS[name]
    check_figure(lambda ax=None: draw(*data, ax=ax))


@pytest.mark.parametrize(
    ("rate", "title", "n"),
    [
        ("recall", "Recall by group", ["400", "90", "3"]),
        ("fpr", "False-positive rate by group", ["3,600", "810", "27"]),
        ("alert_rate", "Alert rate by group", ["4,000", "900", "30"]),
    ],
)
def test_group_rates_have_their_interval_and_the_rows_they_rest_on(rate, title, n, words):
    ax = OF_GROUPS[rate](GROUPED)
    assert ax.get_title(loc="left") == title
    assert [float(bar.lines[0].get_xdata()[0]) for bar in ax.containers] == [0.5, 0.7, 0.8]
    assert ax.containers[1].lines[2][0].get_segments()[0][:, 0] == pytest.approx([0.6, 0.8])
    assert {"n = 4,930, 10.0% fraud", "50.0%", *n} <= set(words(ax))
    assert ("line: all rows" in ax.get_xlabel()) == (rate != "fpr")


def test_group_calibration_sets_observed_beside_expected_frauds(words):
    ax = evaluation_figures.group_calibration(GROUPED)
    assert {"0.50", "400", "480.0", "90", "108.0"} <= set(words(ax))
    assert ax.lines[0].get_xdata()[0] == 1
    assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 1
    wide = GROUPED.with_columns(ratio_high=pl.lit(400.0))
    assert evaluation_figures.group_calibration(wide).get_xlim()[1] < 3


def test_slice_trend_goes_forward_in_time_and_leaves_out_rows_without_one(words):
    ax = evaluation_figures.slice_trend(GROUPED)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2025-04-30", "2025-05-01"]
    assert ax.containers[0].lines[0].get_ydata().tolist() == [0.7, 0.5]
    [twin] = [other for other in ax.figure.axes if other is not ax]
    assert twin.lines[0].get_ydata().tolist() == [0.7, 0.5]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["AUC, 95 % interval", "alert rate (right)"]
    assert "n = 4,900, 10.0% fraud" in words(ax)


@pytest.mark.parametrize("name", OF_GROUPS)
def test_groups_that_the_rows_cannot_show_are_said_in_words_and_missing_columns_named(name, words):
    draw = OF_GROUPS[name]
    assert words(draw(UNKNOWN_GROUPS)).count("not enough data") == (2 if name == "trend" else 3)
    with pytest.raises(ValueError, match="lacks the columns n_positive"):
        draw(GROUPED.drop("n_positive"))


def test_drift_bars_have_a_length_a_tick_and_a_word(words):
    ax = evaluation_figures.drift_bars(DRIFT)
    assert [label.get_text() for label in ax.get_yticklabels()] == DRIFT["column"].to_list()
    drawn = [(bar.get_y() + bar.get_height() / 2, bar.get_width(), bar.get_hatch()) for bar in ax.patches]
    drawn = [(round(at), width, hatch) for at, width, hatch in drawn if width]
    assert drawn == [(0, 3.0, "xxxx"), (1, 0.2, "////"), (2, 0.3, None)]
    ticks = [tuple(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 1.8]
    assert ticks == [(0.02, 0.02), (0.02, 0.02), (0.4, 0.4)]
    assert ax.get_xlim() == (0, 0.5)
    assert [line.get_ydata()[0] for line in ax.lines if line.get_marker() == ">"] == [0]  # cut off
    assert {"3.000", "0.200", "0.300", "stable", "some shift", "shifted"} <= set(words(ax))
    assert words(ax).count("not enough data") == 1
    many = pl.concat([DRIFT[:1]] * 20).with_columns(column=pl.format("c{}", pl.int_range(20)))
    ax = evaluation_figures.drift_bars(many)
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"c{i}" for i in range(15)]
    assert "largest 15 of 20" in words(ax)


def test_score_shift_gives_shares_and_the_index():
    ax = evaluation_figures.score_shift([0.0] * 50 + [1.0] * 50, [0.0] * 20 + [1.0] * 80, ("val", "test"))
    outlines = [patch.get_data().values for patch in ax.patches if not patch.get_fill()]
    assert [(v[0], v[-1], v.sum()) for v in outlines] == [(0.5, 0.5, 1), (0.2, 0.8, 1)]
    assert ax.get_yscale() == "log"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["val (n = 100)", "test (n = 100)"]
    assert str(drift.psi([0] * 50 + [1] * 50, [0] * 20 + [1] * 80)) in ax.get_xlabel()
    assert "not enough data" in evaluation_figures.score_shift([0.5], [0.5]).get_xlabel()


def test_trait_forest_stands_in_the_order_of_the_lower_ends(words):
    ax = evaluation_figures.trait_forest(FAILING, (900, 90))
    sentences = [text.get_text() for text in ax.texts if ":" in text.get_text()]
    assert sentences == FAILING["trait"].gather([4, 0, 1, 2]).to_list()
    points = [(bar.lines[0].get_xdata()[0], bar.lines[0].get_marker()) for bar in ax.containers]
    low, high = ax.get_xlim()
    assert points == [(1.6, "D"), (2.0, "D"), (5.0, "o"), (pytest.approx(low), "D")]
    arrows = {line.get_marker(): line.get_ydata()[0] for line in ax.lines if line.get_marker() in ("<", ">")}
    assert arrows == {">": 2, "<": 3}
    assert {"80 of 90", "20 of 40", "0 of 12", "0.00", "n = 900, 10.0% fraud"} <= set(words(ax))
    assert all(low <= tick <= high for tick in ax.get_xticks())
    assert "not enough data" in words(evaluation_figures.trait_forest(FAILING[3:4], (900, 0)))


def marks_of(container) -> np.ndarray:
    """(n, 4) of an error bar: x, value, low, high."""
    ends = np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])
    return np.column_stack([container.lines[0].get_xydata(), ends.reshape(-1, 2)])


@pytest.mark.parametrize(
    ("name", "x", "value"), [("operating_recall", "fpr", "recall"), ("lift", "share", "lift")]
)
def test_figures_at_shares_show_each_value_and_its_interval(name, x, value):
    ax = draw_decisions(name)
    tables = by_score(OF_DECISIONS[name][1][0])
    for container, table in zip(ax.containers, tables.values(), strict=True):
        shown = marks_of(container)
        assert shown[:, 0] == pytest.approx(table[x].to_numpy(), rel=0.04)
        assert shown[:, 1:] == pytest.approx(table.select(bounded(value)).to_numpy())
    assert (ax.get_xscale(), [t.get_text() for t in ax.get_xticklabels()][::5]) == ("log", ["0.1%", "10%"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(RATED)
    one, other = (container.lines[0] for container in ax.containers)
    assert one.get_marker() != other.get_marker() and one.get_linestyle() != other.get_linestyle()


def test_a_share_without_a_figure_has_no_mark_and_one_without_an_interval_a_point():
    y, p = FRAUD[:600], {"n3r": TRUTH[:600]}
    lifts = marks_of(draw_decisions("lift", y, p).containers[0])
    assert len(lifts) == 5  # a thousandth of 600 orders is none
    first = marks_of(draw_decisions("operating_recall", y, p).containers[0])[0]
    assert first[1] == first[2] == first[3]


def test_gain_marks_the_captures_and_writes_the_last():
    tops = by_score(decisions.top_shares)
    ax = draw_decisions("gain")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [f"{name}, top 10%: {t['capture'][-1]:.0%}" for name, t in tops.items()]
    points = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "None"]
    assert points[0] == pytest.approx(tops["n3r"].select("share", "capture").to_numpy())
    plain = evaluation_figures.gain(by_score(decisions.gain_points))
    assert [text.get_text() for text in plain.get_legend().get_texts()] == list(RATED)


def test_cost_curve_marks_the_cheapest_and_the_chosen(words):
    curve, best, chosen = costs_of(FRAUD, RATED["n3r"], 0.2)
    ax = evaluation_figures.cost_curve(curve, best, chosen)
    marked = [line for line in ax.lines if line.get_marker() != "None"]
    marks = {line.get_label(): tuple(line.get_xydata()[0]) for line in marked}
    assert marks == {
        f"cheapest: {best['cost_per_1000']:,.0f}": (best["flagged"], best["cost_per_1000"]),
        f"chosen on validation: {chosen['cost_per_1000']:,.0f}": (chosen["flagged"], chosen["cost_per_1000"]),
    }
    assert f"flag none: {best['flag_none_per_1000']:,.0f}" in words(ax)
    assert len(evaluation_figures.cost_curve(curve, best).get_legend().get_texts()) == 1


def test_flagging_none_is_marked_on_the_edge():
    curve = decisions.cost_points(FRAUD, RATED["n3r"], decisions.Costs(1, 1e6))
    best = decisions.cheapest(FRAUD, RATED["n3r"], decisions.Costs(1, 1e6))
    none = best | {"flagged": 0.0, "cost_per_1000": best["flag_none_per_1000"]}
    ax = evaluation_figures.cost_curve(curve, none)
    [mark] = [line for line in ax.lines if line.get_marker() != "None"]
    assert ax.get_xlim()[0] < mark.get_xdata()[0] < 1e-3
    assert ax.get_ylim()[1] < 2 * best["flag_none_per_1000"]


def test_reliability_bins_without_a_fraud_are_hollow_at_their_upper_bound(words):
    table = calibration.reliability(FRAUD, RATED["n3r"])
    ax = evaluation_figures.reliability_diagram({"n3r": table})
    none, shown = table.filter(pl.col("n_positive") == 0), table.filter(pl.col("n_positive") > 0)
    assert 0 < len(none) < len(table)
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    expected = none.select("mean_score", "observed_high").to_numpy()
    assert hollow[0].get_xydata() == pytest.approx(expected, abs=1e-5)
    expected = shown.select("mean_score", *bounded("observed")).to_numpy()
    assert marks_of(ax.containers[0]) == pytest.approx(expected)
    assert "hollow: none seen, upper bound" in words(ax)


def test_posterior_calibration_shows_the_spread():
    table = calibration.posterior_bins(RATED["n3r"], TRUTH)
    ax = evaluation_figures.posterior_calibration({"n3r": table})
    shown = marks_of(ax.containers[0])
    assert shown[1:] == pytest.approx(table.select("mean_score", *bounded("mean_posterior")).to_numpy()[1:])
    assert shown[0, 2] == pytest.approx(ax.get_xlim()[0], rel=0.11)  # lower than the axis goes


@pytest.mark.parametrize("name", [*OF_DECISIONS, "cost_curve"])
def test_decision_figures_say_how_many_rows_and_what_these_cannot_show(name, words):
    assert any(text.startswith("n = 3,000, ") for text in words(draw_decisions(name)))
    if name in ("operating_recall", "lift", "cost_curve"):
        ax = draw_decisions(name, [1, 0, 0], {"n3r": [0.3, 0.2, 0.1]})
        assert {"not enough data", "n = 3, 33.3% fraud"} <= set(words(ax)) and not ax.containers


def test_gain_of_one_class_is_said_in_words():
    ax = draw_decisions("gain", [0, 0, 0], {"n3r": [0.3, 0.2, 0.1]})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["n3r: not enough data"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda t: evaluation_figures.operating_recall({"n3r": t}), "lacks the columns .*recall_low"),
        (lambda t: evaluation_figures.lift({"n3r": t}), "lacks the columns .*lift_high"),
        (lambda t: evaluation_figures.gain({"n3r": t}), "lacks the columns .*caught"),
        (lambda t: evaluation_figures.cost_curve(t, {}), "lacks the columns .*flagged, cost_per_1000"),
        (lambda t: evaluation_figures.reliability_diagram({"n3r": t}), "columns mean_score, observed"),
        (lambda t: evaluation_figures.posterior_calibration({"n3r": t}), "columns .*mean_posterior"),
        (evaluation_figures.drift_bars, "lacks the columns column, psi"),
        (lambda t: evaluation_figures.trait_forest(t, (900, 90)), "lacks the columns .*missed_ratio_low"),
        (lambda t: evaluation_figures.score_shift([0.5, 1.5], [0.5]), "1 of 2 are outside"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(pl.DataFrame({"n": [1]}))
