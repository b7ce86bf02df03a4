"""The figures of an evaluation: what they show, and that nothing is cut off or claimed without data."""

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from n3r.estimate import bounded
from n3r.evaluation import calibration, decisions, drift
from n3r.report import evaluation_figures, style

# ---- attacks

ATTACK_ROWS = [("dots", 0.5, 0.02), ("dots", 1.0, 0.04), ("case", 0.5, -0.1), ("case", 1.0, -0.2)]


def attack_table(factor: float = 1.0, known: bool = True) -> pl.DataFrame:
    """A curve of two attacks whose clean AUC is 0.8."""
    figures = ["auroc", "auroc_low", "auroc_high", "difference", "difference_low", "difference_high"]
    rows = [
        {
            "attack": attack,
            "strength": strength,
            "n": 1000,
            "n_positive": 300,
            **dict(zip(figures, [0.8 + d, 0.78 + d, 0.82 + d, d, d - 0.01, d + 0.01], strict=True)),
        }
        for attack, strength, d in ((a, s, d * factor) for a, s, d in ATTACK_ROWS)
    ]
    table = pl.DataFrame(rows)
    return table if known else table.with_columns(pl.lit(None, pl.Float64).alias(name) for name in figures)


ATTACKED = {"n3r": attack_table(), "legacy": attack_table(0.5)}
of_attacks = pytest.mark.parametrize(
    "draw", [evaluation_figures.attack_losses, evaluation_figures.attack_curves]
)


def test_attack_losses_are_those_at_full_strength_worst_on_top():
    ax = evaluation_figures.attack_losses(ATTACKED)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["case", "dots"]
    points = [tuple(float(v[0]) for v in bar.lines[0].get_data()) for bar in ax.containers]
    assert points == [(0.04, 0.85), (-0.2, -0.15), (0.02, 1.15), (-0.1, 0.15)]
    ends = ax.containers[1].lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx([-0.21, -0.19])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["n3r", "legacy"]
    assert "n = 1,000, 30.0% positive" in [text.get_text() for text in ax.texts]


def test_attack_curves_begin_at_the_clean_auc():
    ax = evaluation_figures.attack_curves(ATTACKED)
    dots, case = ax.child_axes
    assert (dots.get_title(loc="left"), case.get_title(loc="left")) == ("dots", "case")
    assert case.lines[0].get_xydata() == pytest.approx(np.array([[0, 0.8], [0.5, 0.7], [1, 0.6]]))
    assert case.lines[1].get_xydata() == pytest.approx(np.array([[0, 0.8], [0.5, 0.75], [1, 0.7]]))
    assert dots.get_ylim() == case.get_ylim()
    assert len({line.get_linestyle() for line in case.lines}) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["n3r", "legacy"]


@of_attacks
def test_attacks_that_the_rows_cannot_show_are_said_in_words(draw):
    ax = draw({"n3r": attack_table(known=False)})
    texts = [text.get_text() for panel in (ax, *ax.child_axes) for text in panel.texts]
    assert texts.count("not enough data") == 2
    assert not ax.containers


@of_attacks
@pytest.mark.parametrize("tables", [ATTACKED, {"n3r": attack_table()[:0]}, {"n3r": attack_table()[:1]}])
def test_attack_figures_are_whole_and_readable(draw, tables):
    figure = Figure(figsize=(4.2, 3.3))
    given = figure.subplots()
    assert draw(tables, given) is given
    own = draw(tables).figure
    assert style.to_svg(own) == style.to_svg(draw(tables).figure)
    box = own.get_tightbbox()
    assert box.x0 > -0.01 and box.y0 > -0.01
    assert box.x1 < own.get_figwidth() + 0.01 and box.y1 < own.get_figheight() + 0.01
    shown = [t for t in own.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert min(text.get_fontsize() for text in shown) * 400 / 72 / 4.2 >= 9.5  # px at 400 px wide


@of_attacks
def test_attack_figures_name_missing_columns(draw):
    with pytest.raises(ValueError, match="lacks the columns difference_low"):
        draw({"n3r": attack_table().drop("difference_low")})
    with pytest.raises(ValueError, match="no system's curve"):
        draw({})


# ---- ablation

ABLATED = pl.DataFrame(
    [
        ("none", 3, 900, 90, 0.80, None, None, None, 1.0),
        ("scaling", 3, 900, 90, 0.84, 0.04, 0.02, 0.06, 1.0),
        ("decay", 3, 900, 90, 0.80, 0.00, -0.01, 0.01, 1.01),
        ("precision", 3, 900, 90, 0.79, -0.01, -0.015, -0.005, 2.5),
    ],
    schema=["deviation", "n_seeds", "n", "n_positive", "auc", *bounded("difference"), "speed_ratio"],
    orient="row",
)


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_ablation_forest_has_a_line_a_deviation_and_marks_what_leaves_zero_out():
    ax = evaluation_figures.ablation_forest(ABLATED)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["scaling", "decay", "precision"]
    found = [(float(bar.lines[0].get_xdata()[0]), bar.lines[0].get_marker()) for bar in ax.containers]
    assert found == [(0.04, "^"), (0.0, "s"), (-0.01, "v")]
    assert {"+0.040", "-0.010", "1.00×", "2.50×", "n = 900, 10.0% positive"} <= set(words(ax))
    assert "AUC of 0.800" in ax.get_xlabel() and "3 seeds" in ax.get_xlabel()


def test_ablation_forest_without_frauds_says_so():
    none = [
        pl.lit(None, pl.Float64).alias(name)
        for name in ("auc", "difference", "difference_low", "difference_high")
    ]
    ax = evaluation_figures.ablation_forest(ABLATED.with_columns(none))
    assert words(ax).count("not enough data") == 3 and "2.50×" in words(ax)


def test_ablation_forest_names_the_columns_it_lacks():
    with pytest.raises(ValueError, match="lacks the columns difference"):
        evaluation_figures.ablation_forest(ABLATED.drop("difference"))


# ---- groups

GROUP_FIGURES = ["auroc", "alert_rate", "fpr", "recall", "ratio"]
GROUPED = pl.DataFrame(
    [
        {
            "group": group,
            "n": n,
            "n_positive": n // 10,
            "mean_score": 0.12,
            **dict.fromkeys(GROUP_FIGURES, k),
            **{f"{f}_low": k - 0.1 for f in GROUP_FIGURES},
            **{f"{f}_high": k + 0.1 for f in GROUP_FIGURES},
        }
        for group, n, k in [
            ("2025-05-01 to 2025-05-04", 4000, 0.5),
            ("2025-04-30", 900, 0.7),
            ("(none)", 30, 0.8),
        ]
    ]
)
UNKNOWN_GROUPS = GROUPED.with_columns(
    pl.lit(None, pl.Float64).alias(f + e) for f in GROUP_FIGURES for e in ("", "_low", "_high")
)
GROUP_DRAWINGS = {
    "recall": lambda table, ax=None: evaluation_figures.group_rates(table, "recall", 0.6, ax),
    "fpr": lambda table, ax=None: evaluation_figures.group_rates(table, "fpr", None, ax),
    "alert_rate": lambda table, ax=None: evaluation_figures.group_rates(table, "alert_rate", 0.55, ax),
    "ratio": evaluation_figures.group_calibration,
    "trend": evaluation_figures.slice_trend,
}


@pytest.mark.parametrize(
    ("rate", "title", "n"),
    [
        ("recall", "Recall by group", ["400", "90", "3"]),
        ("fpr", "False-positive rate by group", ["3,600", "810", "27"]),
        ("alert_rate", "Alert rate by group", ["4,000", "900", "30"]),
    ],
)
def test_group_rates_have_their_interval_and_the_rows_they_rest_on(rate, title, n):
    ax = GROUP_DRAWINGS[rate](GROUPED)
    assert ax.get_title(loc="left") == title
    assert [float(bar.lines[0].get_xdata()[0]) for bar in ax.containers] == [0.5, 0.7, 0.8]
    assert ax.containers[1].lines[2][0].get_segments()[0][:, 0] == pytest.approx([0.6, 0.8])
    shown = [text.get_text() for text in ax.texts]
    assert {"n = 4,930, 10.0% positive", "50.0%", *n} <= set(shown)
    assert ("line: all rows" in ax.get_xlabel()) == (rate != "fpr")


def test_group_calibration_sets_observed_beside_expected_frauds():
    ax = evaluation_figures.group_calibration(GROUPED)
    shown = [text.get_text() for text in ax.texts]
    assert {"0.50", "400", "480.0", "90", "108.0"} <= set(shown)
    assert ax.lines[0].get_xdata()[0] == 1
    assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 1
    wide = GROUPED.with_columns(ratio_high=pl.lit(400.0))
    assert evaluation_figures.group_calibration(wide).get_xlim()[1] < 3


def test_slice_trend_goes_forward_in_time_and_leaves_out_rows_without_one():
    ax = evaluation_figures.slice_trend(GROUPED)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2025-04-30", "2025-05-01"]
    assert ax.containers[0].lines[0].get_ydata().tolist() == [0.7, 0.5]
    [twin] = [other for other in ax.figure.axes if other is not ax]
    assert twin.lines[0].get_ydata().tolist() == [0.7, 0.5]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["AUC, 95 % interval", "alert rate (right)"]
    assert "n = 4,900, 10.0% positive" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("draw", GROUP_DRAWINGS.values(), ids=GROUP_DRAWINGS)
def test_groups_that_the_rows_cannot_show_are_said_in_words(draw):
    ax = draw(UNKNOWN_GROUPS)
    n_slices = 2 if draw is evaluation_figures.slice_trend else 3
    assert [text.get_text() for text in ax.texts].count("not enough data") == n_slices


@pytest.mark.parametrize("draw", GROUP_DRAWINGS.values(), ids=GROUP_DRAWINGS)
@pytest.mark.parametrize("table", [GROUPED, UNKNOWN_GROUPS, GROUPED[:1], GROUPED[:0]])
def test_group_figures_are_whole(draw, table):
    given = Figure(figsize=(4.2, 3.3)).subplots()
    assert draw(table, given) is given
    own = draw(table).figure
    assert style.to_svg(own) == style.to_svg(draw(table).figure)
    box = own.get_tightbbox()
    assert box.x0 > -0.01 and box.y0 > -0.01
    assert box.x1 < own.get_figwidth() + 0.01 and box.y1 < own.get_figheight() + 0.01
    with pytest.raises(ValueError, match="lacks the columns n_positive"):
        draw(table.drop("n_positive"))


# ---- stability and failures

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
    schema=[
        "trait",
        "n_positive",
        "n_missed",
        *bounded("missed_ratio"),
        "missed_p_holm",
    ],
    orient="row",
)
SCORES = np.linspace(0, 1, 400) ** 3
MOVED_OR_FAILING = {
    "drift": lambda ax=None: evaluation_figures.drift_bars(DRIFT, ax),
    "drift of few rows": lambda ax=None: evaluation_figures.drift_bars(DRIFT[3:], ax),
    "drift of no column": lambda ax=None: evaluation_figures.drift_bars(DRIFT[:0], ax),
    "scores": lambda ax=None: evaluation_figures.score_shift(SCORES, SCORES[:100], ax=ax),
    "no scores": lambda ax=None: evaluation_figures.score_shift(SCORES, [], ax=ax),
    "traits": lambda ax=None: evaluation_figures.trait_forest(FAILING, (900, 90), ax),
    "no traits": lambda ax=None: evaluation_figures.trait_forest(FAILING[3:4], (900, 0), ax),
}


def test_drift_bars_have_a_length_a_tick_and_a_word():
    ax = evaluation_figures.drift_bars(DRIFT)
    assert [label.get_text() for label in ax.get_yticklabels()] == DRIFT["column"].to_list()
    drawn = [(bar.get_y() + bar.get_height() / 2, bar.get_width(), bar.get_hatch()) for bar in ax.patches]
    drawn = [(round(at), width, hatch) for at, width, hatch in drawn if width]
    assert drawn == [(0, 3.0, "xxxx"), (1, 0.2, "////"), (2, 0.3, None)]
    ticks = [tuple(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 1.8]
    assert ticks == [(0.02, 0.02), (0.02, 0.02), (0.4, 0.4)]
    assert ax.get_xlim() == (0, 0.5)
    assert [line.get_ydata()[0] for line in ax.lines if line.get_marker() == ">"] == [0]  # cut off
    assert {"3.000", "0.200", "0.300", "not enough data"} <= set(words(ax))
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"stable", "some shift", "shifted"}


def test_drift_bars_show_the_largest_fifteen():
    many = pl.concat([DRIFT[:1]] * 20).with_columns(column=pl.format("c{}", pl.int_range(20)))
    ax = evaluation_figures.drift_bars(many)
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"c{i}" for i in range(15)]
    assert "largest 15 of 20" in ax.get_title(loc="left")


def test_score_shift_gives_shares_and_the_index():
    ax = evaluation_figures.score_shift([0.0] * 50 + [1.0] * 50, [0.0] * 20 + [1.0] * 80, ("val", "test"))
    outlines = [patch.get_data().values for patch in ax.patches if not patch.get_fill()]
    assert [(v[0], v[-1], v.sum()) for v in outlines] == [(0.5, 0.5, 1), (0.2, 0.8, 1)]
    assert ax.get_yscale() == "log"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["val (n = 100)", "test (n = 100)"]
    assert str(drift.psi([0] * 50 + [1] * 50, [0] * 20 + [1] * 80)) in ax.get_xlabel()
    assert "not enough data" in evaluation_figures.score_shift([0.5], [0.5]).get_xlabel()


def test_trait_forest_stands_in_the_order_of_the_lower_ends():
    ax = evaluation_figures.trait_forest(FAILING, (900, 90))
    sentences = [text.get_text() for text in ax.texts if ":" in text.get_text()]
    assert sentences == FAILING["trait"].gather([4, 0, 1, 2]).to_list()
    points = [(bar.lines[0].get_xdata()[0], bar.lines[0].get_marker()) for bar in ax.containers]
    low, high = ax.get_xlim()
    assert points == [(1.6, "D"), (2.0, "D"), (5.0, "o"), (pytest.approx(low), "D")]
    arrows = {line.get_marker(): line.get_ydata()[0] for line in ax.lines if line.get_marker() in ("<", ">")}
    assert arrows == {">": 2, "<": 3}
    assert {"80 of 90", "20 of 40", "0 of 12", "0.00", "n = 900, 10.0% positive"} <= set(words(ax))
    assert all(low <= tick <= high for tick in ax.get_xticks())


@pytest.mark.parametrize("draw", MOVED_OR_FAILING.values(), ids=MOVED_OR_FAILING)
def test_figures_of_shifts_and_failures_are_whole_and_readable(draw):
    given = Figure(figsize=(4.2, 3.3)).subplots()
    assert draw(given) is given
    own = draw().figure
    assert style.to_svg(own) == style.to_svg(draw().figure)
    box = own.get_tightbbox()
    assert box.x0 > -0.01 and box.y0 > -0.01
    assert box.x1 < own.get_figwidth() + 0.01 and box.y1 < own.get_figheight() + 0.01
    shown = [t for t in own.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert min(text.get_fontsize() for text in shown) * 400 / 72 / 4.2 >= 9.5  # px at 400 px wide


def test_figures_of_shifts_and_failures_say_what_is_not_known():
    assert "not enough data" in words(evaluation_figures.trait_forest(FAILING[3:4], (900, 0)))
    assert words(evaluation_figures.drift_bars(DRIFT[3:])).count("not enough data") == 1
    with pytest.raises(ValueError, match="lacks the columns psi"):
        evaluation_figures.drift_bars(DRIFT.drop("psi"))
    with pytest.raises(ValueError, match="lacks the columns missed_ratio_low"):
        evaluation_figures.trait_forest(FAILING.drop("missed_ratio_low"), (900, 90))
    with pytest.raises(ValueError, match="1 of 2 are outside"):
        evaluation_figures.score_shift([0.5, 1.5], [0.5])


# ---- decisions and reliability

_RNG = np.random.default_rng(7)
TRUTH = _RNG.beta(0.4, 9, 3000)
FRAUD = (_RNG.random(3000) < TRUTH).astype(int)
RATED = {"n3r": TRUTH**0.8, "a baseline of a long name": TRUTH ** _RNG.uniform(0.2, 1.5, 3000)}
COSTS = decisions.Costs(100, 5)
FEW = [1, 0, 0], [0.3, 0.2, 0.1]


def by_score(statistic, y=FRAUD, scores=RATED) -> dict[str, pl.DataFrame]:
    return {name: statistic(y, p) for name, p in scores.items()}


def costs_of(y, p, chosen: float | None = None):
    best = decisions.cheapest(y, p, COSTS)
    return decisions.cost_points(y, p, COSTS), best, chosen and decisions.at_threshold(y, p, chosen, COSTS)


DECISION_DRAWINGS = {
    "operating_recall": lambda y, scores, ax=None: evaluation_figures.operating_recall(
        by_score(decisions.operating_points, y, scores), ax
    ),
    "lift": lambda y, scores, ax=None: evaluation_figures.lift(by_score(decisions.top_shares, y, scores), ax),
    "gain": lambda y, scores, ax=None: evaluation_figures.gain(
        by_score(decisions.gain_points, y, scores), by_score(decisions.top_shares, y, scores), ax
    ),
    "cost_curve": lambda y, scores, ax=None: evaluation_figures.cost_curve(
        *costs_of(y, next(iter(scores.values())), 0.2), ax
    ),
    "reliability_diagram": lambda y, scores, ax=None: evaluation_figures.reliability_diagram(
        by_score(calibration.reliability, y, scores), ax
    ),
    "posterior_calibration": lambda y, scores, ax=None: evaluation_figures.posterior_calibration(
        by_score(lambda y, p: calibration.posterior_bins(p, TRUTH[: len(p)]), y, scores), ax
    ),
}
of_decisions = pytest.mark.parametrize("name", DECISION_DRAWINGS)


def marks_of(container) -> np.ndarray:
    """(n, 4) of an error bar: x, value, low, high."""
    ends = np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])
    return np.column_stack([container.lines[0].get_xydata(), ends.reshape(-1, 2)])


@pytest.mark.parametrize(
    ("draw", "statistic", "x", "value"),
    [
        (evaluation_figures.operating_recall, decisions.operating_points, "fpr", "recall"),
        (evaluation_figures.lift, decisions.top_shares, "share", "lift"),
    ],
)
def test_figures_at_shares_show_each_value_and_its_interval(draw, statistic, x, value):
    tables = by_score(statistic)
    ax = draw(tables)
    assert len(ax.containers) == 2
    for container, table in zip(ax.containers, tables.values(), strict=True):
        shown = marks_of(container)
        assert shown[:, 0] == pytest.approx(table[x].to_numpy(), rel=0.04)
        assert shown[:, 1:] == pytest.approx(table.select(value, f"{value}_low", f"{value}_high").to_numpy())
    assert (ax.get_xscale(), [t.get_text() for t in ax.get_xticklabels()][::5]) == ("log", ["0.1%", "10%"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(RATED)


def test_a_share_without_a_figure_has_no_mark_and_one_without_an_interval_a_point():
    y, p = FRAUD[:600], {"n3r": TRUTH[:600]}
    lifts = evaluation_figures.lift(by_score(decisions.top_shares, y, p)).containers[0]
    assert len(marks_of(lifts)) == 5  # a thousandth of 600 orders is none
    recalls = evaluation_figures.operating_recall(by_score(decisions.operating_points, y, p)).containers[0]
    first = marks_of(recalls)[0]
    assert first[1] == first[2] == first[3]


def test_gain_marks_the_captures_and_writes_the_last():
    tops = by_score(decisions.top_shares)
    ax = evaluation_figures.gain(by_score(decisions.gain_points), tops)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [f"{name}, top 10%: {t['capture'][-1]:.0%}" for name, t in tops.items()]
    points = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "None"]
    assert points[0] == pytest.approx(tops["n3r"].select("share", "capture").to_numpy())
    plain = evaluation_figures.gain(by_score(decisions.gain_points))
    assert [text.get_text() for text in plain.get_legend().get_texts()] == list(RATED)


def test_cost_curve_marks_the_cheapest_and_the_chosen():
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


def test_stopping_none_is_marked_on_the_edge():
    curve = decisions.cost_points(FRAUD, RATED["n3r"], decisions.Costs(1, 1e6))
    best = decisions.cheapest(FRAUD, RATED["n3r"], decisions.Costs(1, 1e6))
    none = best | {"flagged": 0.0, "cost_per_1000": best["flag_none_per_1000"]}
    ax = evaluation_figures.cost_curve(curve, none)
    [mark] = [line for line in ax.lines if line.get_marker() != "None"]
    assert ax.get_xlim()[0] < mark.get_xdata()[0] < 1e-3
    assert ax.get_ylim()[1] < 2 * best["flag_none_per_1000"]


def test_reliability_bins_without_a_fraud_are_hollow_at_their_upper_bound():
    table = calibration.reliability(FRAUD, RATED["n3r"])
    ax = evaluation_figures.reliability_diagram({"n3r": table})
    none = table.filter(pl.col("n_positive") == 0)
    assert 0 < len(none) < len(table)
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    assert hollow[0].get_xydata() == pytest.approx(
        none.select("mean_score", "observed_high").to_numpy(), abs=1e-5
    )
    shown = table.filter(pl.col("n_positive") > 0)
    columns = shown.select("mean_score", "observed", "observed_low", "observed_high").to_numpy()
    assert marks_of(ax.containers[0]) == pytest.approx(columns)
    assert "hollow: none seen, upper bound" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_posterior_calibration_shows_the_spread():
    table = calibration.posterior_bins(RATED["n3r"], TRUTH)
    ax = evaluation_figures.posterior_calibration({"n3r": table})
    columns = table.select("mean_score", *bounded("mean_posterior")).to_numpy()
    shown = marks_of(ax.containers[0])
    assert shown[1:] == pytest.approx(columns[1:])
    assert shown[0, 2] == pytest.approx(ax.get_xlim()[0], rel=0.11)  # lower than the axis goes


@of_decisions
@pytest.mark.parametrize("scores", [RATED, {"flat": np.full(3000, 0.05)}])
def test_decision_figures_are_whole_and_say_how_many_rows(name, scores):
    ax = DECISION_DRAWINGS[name](FRAUD, scores)
    own = ax.figure
    assert any(text.startswith("n = 3,000, ") for text in words(ax))
    own.draw_without_rendering()
    box = own.get_tightbbox()
    assert box.x0 > -0.01 and box.y0 > -0.01
    assert box.x1 < own.get_figwidth() + 0.01 and box.y1 < own.get_figheight() + 0.01


@pytest.mark.parametrize("name", ["operating_recall", "lift", "cost_curve"])
def test_decisions_that_the_rows_cannot_show_are_said_in_words(name):
    ax = DECISION_DRAWINGS[name](FEW[0], {"n3r": FEW[1]})
    assert "not enough data" in words(ax) and "n = 3, 33.3% positive" in words(ax)
    assert not ax.containers


@of_decisions
def test_decision_figures_are_drawn_on_the_axes_that_are_given(name):
    given = Figure(figsize=(4.2, 3.3)).subplots()
    assert DECISION_DRAWINGS[name](FRAUD, RATED, given) is given


def test_two_models_differ_in_line_and_mark():
    ax = evaluation_figures.operating_recall(by_score(decisions.operating_points))
    one, other = (container.lines[0] for container in ax.containers)
    assert one.get_marker() != other.get_marker() and one.get_linestyle() != other.get_linestyle()


def test_gain_of_one_class_is_said_in_words():
    ax = DECISION_DRAWINGS["gain"]([0, 0, 0], {"n3r": FEW[1]})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["n3r: not enough data"]


@pytest.mark.parametrize(
    ("draw", "column"),
    [
        (lambda t: evaluation_figures.operating_recall({"n3r": t}), "recall_low"),
        (lambda t: evaluation_figures.lift({"n3r": t}), "lift_high"),
        (lambda t: evaluation_figures.gain({"n3r": t}), "caught"),
        (lambda t: evaluation_figures.cost_curve(t, {}), "flagged, cost_per_1000"),
        (lambda t: evaluation_figures.reliability_diagram({"n3r": t}), "mean_score, observed"),
        (lambda t: evaluation_figures.posterior_calibration({"n3r": t}), "mean_score, mean_posterior"),
    ],
)
def test_decision_figures_name_missing_columns(draw, column):
    with pytest.raises(ValueError, match=f"lacks the columns .*{column}"):
        draw(pl.DataFrame({"n": [1]}))
