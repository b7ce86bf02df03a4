import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from n3r import metrics
from n3r.report import figures, style

RNG = np.random.default_rng(0)
N = 600
Y = (RNG.random(N) < 0.3).astype(int)
A, B = (1 / (1 + np.exp(1 - Y - RNG.normal(0, 1, N))) for _ in range(2))
SEGMENT = ["US"] * 300 + ["DE"] * 200 + ["JP"] * 96 + ["AU"] * 4
CURVES = {"new": (Y, A), "old": (Y, B)}
SEGMENTS = metrics.by_segment(SEGMENT, Y, A)
PAIRED = metrics.paired_by_segment(SEGMENT, Y, A, B, 0.02)
HISTORY = [
    {"epoch": 0, "train_loss": None, "val_loss": 0.70, "val_auroc": 0.50},
    {"epoch": 1, "train_loss": 0.60, "val_loss": 0.55, "val_auroc": 0.71},
    {"epoch": 2, "train_loss": 0.40, "val_loss": 0.58, "val_auroc": 0.69},
]
COUNTS = pl.DataFrame(
    {
        "split": ["test", "train", "train", "val", "val", "train"],
        "label": [0, 0, 1, 0, 1, 0],
        "segment": ["US", "US", "US", "US", "US", "DE"],
        "n": [50, 300, 10, 60, 2, 90],
    }
)
MODELS = pl.DataFrame(
    {
        "model": ["bert", "lstm"],
        "auroc": [0.8, 0.6],
        "auroc_low": [0.7, 0.5],
        "auroc_high": [0.9, 0.7],
        "n": [100, 100],
        "n_positive": [20, 20],
    }
)
RISKS = {"bins": {"phones": 0.4, "books": 0.1}, "default_bin": 0.2}
WHY = pl.DataFrame(
    {
        "input": ["emailAddress", "amount", "customerName", "a_column_of_quite_a_long_name"],
        "is_missing": [False, False, True, False],
        "contribution": [0.4, -0.05, 0.0, 0.01],
    }
)
DRAWINGS = {
    "roc": lambda ax=None: figures.roc(CURVES, ax),
    "precision_recall": lambda ax=None: figures.precision_recall(CURVES, ax),
    "segment_auc": lambda ax=None: figures.segment_auc(SEGMENTS, ax),
    "paired_difference": lambda ax=None: figures.paired_difference(PAIRED, 0.02, ax),
    "compression_curve": lambda ax=None: figures.compression_curve(
        [4000, 1000, 9000], [2.5, 1.9, 3], 4000, 2.5, ax
    ),
    "training_curve": lambda ax=None: figures.training_curve(HISTORY, ax),
    "score_distribution": lambda ax=None: figures.score_distribution(Y, A, ax),
    "split_counts": lambda ax=None: figures.split_counts(COUNTS, ax),
    "model_auc": lambda ax=None: figures.model_auc(MODELS, ax),
    "risk_table": lambda ax=None: figures.risk_table("category risk", RISKS, ax),
    "contributions": lambda ax=None: figures.contributions(WHY, ax),
    "histogram": lambda ax=None: figures.histogram([1, 1, 2, 40], "tokens", "chunks", ax),
}
every = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


def words(ax) -> str:
    """All that can be read on the Axes."""
    texts = [*ax.texts, ax.title, ax._left_title, ax._right_title, *ax.get_yticklabels(), ax.xaxis.label]
    texts += ax.get_legend().get_texts() if ax.get_legend() else []
    return "\n".join(text.get_text() for text in texts)


def marked(ax) -> list[tuple[float, float]]:
    """The points of a forest plot, top to bottom."""
    return [tuple(float(v[0]) for v in bar.lines[0].get_data()) for bar in ax.containers]


# --- of every drawing


@every
def test_draws_on_the_axes_it_is_given(draw):
    axes = Figure().subplots(1, 2)
    assert draw(axes[1]) is axes[1]
    assert axes[1].has_data()
    assert not axes[0].has_data()


@every
def test_makes_a_figure_outside_pyplots_registry(draw):
    before = plt.get_fignums()
    ax = draw()
    assert isinstance(ax.figure, Figure)
    assert draw().figure is not ax.figure
    assert plt.get_fignums() == before


@every
def test_leaves_the_callers_style_alone(draw):
    before = dict(matplotlib.rcParams)
    draw()
    assert dict(matplotlib.rcParams) == before


@every
def test_svg_is_byte_equal_on_repetition(draw):
    ax = draw()
    first = style.to_svg(ax.figure)
    style.to_png(ax.figure, 50)
    assert style.to_svg(ax.figure) == first
    assert style.to_svg(draw().figure) == first
    assert ElementTree.fromstring(first).tag.endswith("svg")
    assert "<dc:date>" not in first


@every
def test_nothing_is_cut_off_or_smaller_than_can_be_read(draw):
    ax = draw()
    style.to_svg(ax.figure)
    inside = ax.figure.bbox.padded(1)
    for text in ax.figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text().strip():
            assert text.get_fontsize() * 400 / 72 / ax.figure.get_figwidth() >= 9.5  # px at 400 px wide
    box = ax.figure.get_tightbbox()
    assert box.x0 * 100 >= inside.x0 and box.x1 * 100 <= inside.x1
    assert box.y0 * 100 >= inside.y0 and box.y1 * 100 <= inside.y1


def test_svg_is_byte_equal_in_another_process():
    code = (
        "from n3r.report import figures, style;"
        "print(style.to_svg(figures.compression_curve([1, 10, 100], [1, 2, 3], 10, 2).figure), end='')"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].startswith(b"<svg")


def test_import_does_not_bring_pyplot():
    code = (
        "import sys, n3r.report.style as c, n3r.report.figures as p; "
        "light = 'matplotlib.pyplot' not in sys.modules;"
        "c.to_svg(p.roc({'a': ([0, 1, 0, 1], [.1, .2, .3, .4])}).figure);"
        "sys.exit(not light or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_png_is_an_image_of_the_asked_resolution():
    fig = DRAWINGS["roc"]().figure
    small, large = (style.to_png(fig, dpi) for dpi in (50, 100))
    assert small.startswith(b"\x89PNG")
    widths = [int.from_bytes(image[16:20]) for image in (small, large)]
    assert widths == [210, 420]


# --- curves


def test_roc_shows_each_curve_and_its_interval():
    ax = figures.roc(CURVES)
    diagonal, new, old = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    np.testing.assert_array_equal(new.get_data(), metrics.roc_points(Y, A))
    assert new.get_color() != old.get_color()
    assert new.get_linestyle() != old.get_linestyle()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"new  {metrics.auc_ci(Y, A)}", f"old  {metrics.auc_ci(Y, B)}"]
    assert f"n = 600, {Y.mean():.1%} positive" in words(ax)


def test_precision_recall_shows_ap_and_base_rate():
    ax = figures.precision_recall(CURVES)
    base, new, _ = ax.lines
    assert base.get_ydata() == [Y.mean()] * 2
    np.testing.assert_array_equal(new.get_data(), metrics.pr_points(Y, A))
    assert f"new  {metrics.evaluate(Y, A)['average_precision']:.3f}" in words(ax)
    assert f"base rate {Y.mean():.1%}" in words(ax)


def test_curves_on_different_rows_do_not_claim_one_count():
    ax = figures.precision_recall({"new": (Y, A), "half": (Y[:300], A[:300])})
    assert len(ax.lines) == 4  # two base rates, two curves
    assert "n = 300 to 600" in words(ax)
    ax = figures.roc({"new": (Y, A), "flipped": (1 - Y, A)})
    assert "n = 600, base rates differ" in words(ax)


@pytest.mark.parametrize("draw", [figures.roc, figures.precision_recall])
def test_any_name_is_in_the_legend(draw):
    assert "_hidden  " in words(draw({"_hidden": (Y, A)}))


@pytest.mark.parametrize("draw", [figures.roc, figures.precision_recall])
def test_defect_42_one_class_is_said_not_drawn(draw):
    ax = draw({"new": (np.zeros(5), A[:5])})
    assert ax.lines[-1].get_xdata().size == 0
    assert "new  not enough data" in words(ax)


# --- forest plots


def test_segment_auc_draws_a_line_a_segment():
    ax = figures.segment_auc(SEGMENTS)
    drawn = SEGMENTS.drop_nulls("auroc")
    assert marked(ax) == [(value, at) for at, value in enumerate(drawn["auroc"])]
    ends = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx(
        drawn.row(0, named=True)["auroc_low"] * np.array([1, 0]) + drawn["auroc_high"][0] * np.array([0, 1])
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == ["US", "DE", "JP", "AU"]
    assert ax.yaxis_inverted()
    assert words(ax).count("not enough data") == 1
    assert f"{drawn['auroc'][0]:.3f}" in words(ax)


def test_paired_difference_shows_band_and_verdict():
    ax = figures.paired_difference(PAIRED, 0.02, names=("new", "old"))
    assert (ax.patches[0].get_x(), ax.patches[0].get_width()) == (-0.02, 0.04)
    assert [value for value, _ in marked(ax)] == PAIRED["difference"].drop_nulls().to_list()
    assert "AUC of new less AUC of old" in words(ax)
    for verdict in PAIRED["verdict"]:
        assert verdict in words(ax)


def test_verdicts_differ_in_colour_and_marker():
    table = pl.DataFrame({"group": ["a", "b", "c"], "n": [9, 8, 7], "n_positive": [3, 3, 3]}).with_columns(
        difference=pl.Series([0.0, 0.1, 0.02]),
        difference_low=pl.Series([-0.01, 0.05, -0.1]),
        difference_high=pl.Series([0.01, 0.15, 0.14]),
        verdict=pl.Series(["equivalent", "different", "not shown"]),
    )
    points = [bar.lines[0] for bar in figures.paired_difference(table).containers]
    assert len({point.get_color() for point in points}) == len({point.get_marker() for point in points}) == 3


def test_many_segments_are_cut_and_counted():
    n = style.MAX_ROWS + 7
    table = metrics.by_segment(np.repeat(np.arange(n), 12), np.tile([0, 1], n * 6), np.tile(A[:12], n))
    ax = figures.segment_auc(table)
    assert len(ax.containers) == style.MAX_ROWS
    assert f"largest {style.MAX_ROWS} of {n}" in words(ax)
    assert f"n = {n * 12}" in words(ax)


# --- the others


def test_compression_curve_is_sorted_on_a_log_axis():
    ax = DRAWINGS["compression_curve"]()
    target, curve, chosen = ax.lines
    assert target.get_ydata() == [2.5, 2.5]
    assert curve.get_xydata().tolist() == [[1000, 1.9], [4000, 2.5], [9000, 3]]
    assert chosen.get_xydata().tolist() == [[4000, 2.5]]
    assert ax.get_xscale() == "log"
    assert "chosen 4,000: 2.50" in words(ax)
    assert len(figures.compression_curve([1000, 2000], [1, 2], 1500, 2).lines) == 2  # chosen was not measured


def test_training_curve_marks_the_best_epoch_and_leaves_gaps():
    ax = figures.training_curve(HISTORY)
    [twin] = [other for other in ax.figure.axes if other is not ax]
    train, val = ax.lines
    auroc, best = twin.lines
    assert np.isnan(train.get_ydata()).tolist() == [True, False, False]
    assert val.get_ydata().tolist() == [0.70, 0.55, 0.58]
    assert auroc.get_ydata().tolist() == [0.50, 0.71, 0.69]
    assert best.get_xydata().tolist() == [[1, 0.71]]
    assert "0.710" in words(twin)
    assert len(ax.get_legend().get_texts()) == 3


def test_training_curve_without_any_auc():
    ax = figures.training_curve([{"epoch": 0, "train_loss": 0.5}])
    assert all(len(axes.lines) in (1, 2) for axes in ax.figure.axes)
    assert style.to_svg(figures.training_curve([]).figure).startswith("<svg")


def test_score_distribution_gives_each_class_its_own_share():
    ax = figures.score_distribution(Y, A)
    outlines = [patch for patch in ax.patches if not patch.get_fill()]
    assert [patch.get_data().values.sum() for patch in outlines] == pytest.approx([1, 1])
    expected = np.histogram(A[Y == 1], 25, (0, 1))[0] / Y.sum()
    np.testing.assert_allclose(outlines[1].get_data().values, expected)
    assert f"label 1 (n = {Y.sum()})" in words(ax)
    assert style.to_svg(figures.score_distribution([0, 0], [0.1, 0.2]).figure).startswith("<svg")
    with pytest.raises(ValueError, match="1 of 2 are outside"):
        figures.score_distribution([0, 1], [0.1, 1.2])


def test_split_counts_stacks_labels_in_the_order_of_splits():
    ax = figures.split_counts(COUNTS)
    negative, positive = ax.containers
    assert [label.get_text() for label in ax.get_yticklabels()] == ["train", "val", "test"]
    assert [bar.get_width() for bar in negative] == [390, 60, 50]
    assert [(bar.get_x(), bar.get_width()) for bar in positive] == [(390, 10), (60, 2), (50, 0)]
    assert "n = 400, 2.5% positive" in words(ax)
    assert "n = 50, 0.0% positive" in words(ax)


def test_bad_tables_are_named():
    with pytest.raises(
        ValueError, match="table lacks the columns auroc, auroc_low, auroc_high; it has group, n"
    ):
        figures.segment_auc(SEGMENTS.drop("auroc", "auroc_low", "auroc_high"))
    with pytest.raises(ValueError, match="table lacks the columns label"):
        figures.split_counts(COUNTS.drop("label"))
    with pytest.raises(ValueError, match="sizes has 2 values, compression has 1"):
        figures.compression_curve([1, 2], [1.0], 1, 1)


def test_empty_tables_are_drawn():
    for ax in (
        figures.segment_auc(metrics.by_segment([], [], [])),
        figures.paired_difference(metrics.paired_by_segment([], [], [], [])),
        figures.split_counts(COUNTS.clear()),
        figures.roc({}),
        figures.precision_recall({}),
    ):
        assert style.to_svg(ax.figure).startswith("<svg")


def test_models_on_the_same_rows_share_one_count():
    ax = figures.model_auc(MODELS)
    assert [x for x, _ in marked(ax)] == [0.8, 0.6]
    assert "n = 100, 20.0% positive" in words(ax)


def test_risk_bars_start_at_the_base_rate_highest_on_top():
    ax = figures.risk_table("category risk", RISKS)
    bars = [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in ax.patches]
    assert bars == [(0.2, 0.2), (0.2, -0.1)]
    assert "phones" in words(ax) and "0.200" in words(ax)


def test_many_categories_show_both_ends():
    bins = {f"c{i:03d}": i / 1000 for i in range(200)}
    ax = figures.risk_table("x", {"bins": bins, "default_bin": 0.1})
    assert "of 200 categories" in words(ax) and "c199" in words(ax) and "c000" in words(ax)
    assert len(ax.patches) == style.MAX_ROWS // 2 * 2


def test_histogram_counts_every_value_once():
    ax = figures.histogram(list(range(1000)), "tokens", "chunks")
    assert sum(bar.get_height() for bar in ax.patches) == 1000
    assert len([bar for bar in ax.patches if bar.get_height()]) <= 40
    assert not figures.histogram([], "tokens", "chunks").patches[0].get_height()


def test_contributions_are_drawn_largest_on_top_without_what_is_missing():
    ax = figures.contributions(WHY)
    assert [bar.get_width() for bar in ax.patches] == [0.4, -0.05, 0.01]
    assert ax.yaxis_inverted()
    assert "customerName" not in words(ax) and "a_column_of_quite_a_lon…" in words(ax)
    raises, lowers = (ax.patches[i].get_facecolor() for i in (0, 1))
    assert raises != lowers
    many = pl.DataFrame({"input": map(str, range(40)), "is_missing": False, "contribution": 0.1})
    assert len(figures.contributions(many).patches) == 15 and "15 of 40" in words(figures.contributions(many))
