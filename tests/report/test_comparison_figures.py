"""Figures of systems beside each other: what they show, and that nothing is claimed without data."""

import numpy as np
import polars as pl
import pytest

from n3r import metrics
from n3r.estimate import bounded
from n3r.report import comparison_figures

ATTACK_ROWS = [("dots", 0.5, 0.02), ("dots", 1.0, 0.04), ("case", 0.5, -0.1), ("case", 1.0, -0.2)]


def attack_table(factor: float = 1.0) -> pl.DataFrame:
    """A curve of two attacks whose clean AUC is 0.8."""
    rows = [
        (attack, strength, 1000, 300, 0.8 + d, 0.78 + d, 0.82 + d, d, d - 0.01, d + 0.01)
        for attack, strength, d in ((a, s, d * factor) for a, s, d in ATTACK_ROWS)
    ]
    columns = ["attack", "strength", "n", "n_positive", *bounded("auroc"), *bounded("difference")]
    return pl.DataFrame(rows, schema=columns, orient="row")


def unknown(table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    return table.with_columns(pl.lit(None, pl.Float64).alias(name) for name in columns)


ATTACKED = {"n3r": attack_table(), "legacy": attack_table(0.5)}
UNKNOWN = {"n3r": unknown(attack_table(), *bounded("auroc"), *bounded("difference"))}
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
VERDICTS = pl.DataFrame(
    [
        ("a", 9, 3, 0.0, -0.01, 0.01, "equivalent"),
        ("b", 8, 3, 0.1, 0.05, 0.15, "different"),
        ("c", 7, 3, 0.02, -0.1, 0.14, "not shown"),
        ("d", 6, 0, None, None, None, "not enough data"),
    ],
    schema=["group", "n", "n_positive", *bounded("difference"), "verdict"],
    orient="row",
)
LEARNED = pl.DataFrame(
    [("LSTM2Risk", 250, 900, 90, 0.7, 0.6, 0.8), ("LSTM2Risk", 1000, 900, 90, 0.8, 0.75, 0.85)],
    schema=["model", "n_rows", "n", "n_positive", *bounded("auroc")],
    orient="row",
)
RNG = np.random.default_rng(0)
Y = (RNG.random(600) < 0.3).astype(int)
A, B = Y + RNG.normal(0, 1, 600), Y + RNG.normal(0, 1, 600)
DRAWINGS = {
    "paired_difference": (comparison_figures.paired_difference, VERDICTS, 0.02),
    "paired_difference of nothing": (comparison_figures.paired_difference, VERDICTS[:0]),
    "rank_agreement": (comparison_figures.rank_agreement, Y, A, B),
    "ablation_forest": (comparison_figures.ablation_forest, ABLATED),
    "learning_curve": (comparison_figures.learning_curve, LEARNED, 0.9),
    **{
        f"{draw.__name__} {what}": (draw, tables)
        for draw in (comparison_figures.attack_losses, comparison_figures.attack_curves)
        for what, tables in (
            ("of two", ATTACKED),
            ("of nothing", {"n3r": attack_table()[:0]}),
            ("of one", {"n3r": attack_table()[:1]}),
        )
    },
}
of_attacks = pytest.mark.parametrize(
    "draw", [comparison_figures.attack_losses, comparison_figures.attack_curves]
)


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_whole_legible_and_leaves_no_trace(name, check_figure):
    draw, *data = DRAWINGS[name]
    check_figure(lambda ax=None: draw(*data, ax=ax))


def test_paired_difference_shows_band_and_verdict(words):
    ax = comparison_figures.paired_difference(VERDICTS, 0.02, names=("new", "old"))
    assert (ax.patches[0].get_x(), ax.patches[0].get_width()) == (-0.02, 0.04)
    points = [bar.lines[0] for bar in ax.containers]
    assert [point.get_xdata()[0] for point in points] == [0.0, 0.1, 0.02]
    assert len({point.get_color() for point in points}) == len({point.get_marker() for point in points}) == 3
    assert "AUC of new less AUC of old" in ax.get_xlabel() and set(VERDICTS["verdict"]) <= set(words(ax))


def test_rank_agreement_marks_frauds_where_both_scores_put_them():
    ax = comparison_figures.rank_agreement([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [4, 3, 2, 1])
    assert ax.lines[-1].get_xydata().tolist() == [[62.5, 37.5], [87.5, 12.5]]
    many = comparison_figures.rank_agreement(*np.ones((3, 1000))).lines[-1]
    assert len(many.get_xdata()) == 300 and many.get_label() == "frauds, 300 of 1000"


def test_ablation_forest_has_a_line_a_deviation_and_marks_what_leaves_zero_out(words):
    ax = comparison_figures.ablation_forest(ABLATED)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["scaling", "decay", "precision"]
    found = [(float(bar.lines[0].get_xdata()[0]), bar.lines[0].get_marker()) for bar in ax.containers]
    assert found == [(0.04, "^"), (0.0, "s"), (-0.01, "v")]
    assert {"+0.040", "-0.010", "1.00×", "2.50×", "n = 900, 10.0% fraud"} <= set(words(ax))
    assert "AUC of 0.800" in ax.get_xlabel() and "3 seeds" in ax.get_xlabel()
    ax = comparison_figures.ablation_forest(unknown(ABLATED, "auc", *bounded("difference")))
    assert words(ax).count("not enough data") == 3 and "2.50×" in words(ax)


def test_learning_curve_goes_up_with_the_rows_to_the_oracle(words):
    ax = comparison_figures.learning_curve(LEARNED[::-1], 0.9)
    oracle, curve = ax.lines
    assert oracle.get_ydata() == [0.9, 0.9] and "oracle 0.900" in words(ax)
    assert curve.get_xydata().tolist() == [[250, 0.7], [1000, 0.8]]
    assert ax.get_xscale() == "log" and "n = 900, 10.0% fraud" in words(ax)


def test_attack_losses_are_those_at_full_strength_worst_on_top(words):
    ax = comparison_figures.attack_losses(ATTACKED)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["case", "dots"]
    points = [tuple(float(v[0]) for v in bar.lines[0].get_data()) for bar in ax.containers]
    assert points == [(0.04, 0.85), (-0.2, -0.15), (0.02, 1.15), (-0.1, 0.15)]
    ends = ax.containers[1].lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx([-0.21, -0.19])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["n3r", "legacy"]
    assert "n = 1,000, 30.0% fraud, at strength 1" in words(ax)


def test_attack_curves_begin_at_the_clean_auc():
    ax = comparison_figures.attack_curves(ATTACKED)
    dots, case = ax.child_axes
    assert (dots.get_title(loc="left"), case.get_title(loc="left")) == ("dots", "case")
    assert case.lines[0].get_xydata() == pytest.approx(np.array([[0, 0.8], [0.5, 0.7], [1, 0.6]]))
    assert case.lines[1].get_xydata() == pytest.approx(np.array([[0, 0.8], [0.5, 0.75], [1, 0.7]]))
    assert dots.get_ylim() == case.get_ylim()
    assert len({line.get_linestyle() for line in case.lines}) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["n3r", "legacy"]


@of_attacks
def test_attacks_that_the_rows_cannot_show_are_said_in_words(draw, words):
    ax = draw(UNKNOWN)
    assert words(ax).count("not enough data") == 2 and not ax.containers


@of_attacks
def test_attack_figures_name_what_is_missing(draw):
    with pytest.raises(ValueError, match="lacks the columns difference_low"):
        draw({"n3r": attack_table().drop("difference_low")})
    with pytest.raises(ValueError, match="no system's curve"):
        draw({})


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (comparison_figures.paired_difference, VERDICTS),
        (comparison_figures.ablation_forest, ABLATED),
        (comparison_figures.learning_curve, LEARNED),
    ],
)
def test_missing_columns_are_named(draw, table):
    with pytest.raises(ValueError, match="lacks the columns n_positive"):
        draw(table.drop("n_positive"))


def test_two_scores_of_a_run_are_told_apart():
    table = metrics.paired_by_segment(["US"] * 300 + ["DE"] * 300, Y, A, B, 0.02)
    values = [bar.lines[0].get_xdata()[0] for bar in comparison_figures.paired_difference(table).containers]
    assert values == table["difference"].drop_nulls().to_list()
