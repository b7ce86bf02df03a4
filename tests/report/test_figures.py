"""Figures of data, training, ranking and language models: what they show, and that nothing is made up."""

import numpy as np
import polars as pl
import pytest

from n3r import metrics
from n3r.estimate import bounded
from n3r.report import figures, style

RNG = np.random.default_rng(0)
N = 600
Y = (RNG.random(N) < 0.3).astype(int)
A, B = (1 / (1 + np.exp(1 - Y - RNG.normal(0, 1, N))) for _ in range(2))
CURVES = {"new": (Y, A), "old": (Y, B)}
SEGMENTS = metrics.by_segment(["US"] * 300 + ["DE"] * 200 + ["JP"] * 96 + ["AU"] * 4, Y, A)
HISTORY = [
    {"epoch": 0, "train_loss": None, "val_loss": 0.70, "val_auroc": 0.50},
    {"epoch": 1, "train_loss": 0.60, "val_loss": 0.55, "val_auroc": 0.71},
    {"epoch": 2, "train_loss": 0.40, "val_loss": 0.58, "val_auroc": 0.69},
]
LOSSES = [{"epoch": 0.5 * i, "train_loss": 4 / i, "val_loss": 4.1 / i} for i in (1, 2, 3)]
COUNTS = pl.DataFrame(
    [
        ("test", 0, 50),
        ("train", 0, 300),
        ("train", 1, 10),
        ("val", 0, 60),
        ("val", 1, 2),
        ("train", 0, 90),
    ],
    schema=["split", "label", "n"],
    orient="row",
)
MODELS = pl.DataFrame(
    [("bert", 0.8, 0.7, 0.9, 100, 20), ("lstm", 0.6, 0.5, 0.7, 100, 20)],
    schema=["model", *bounded("auroc"), "n", "n_positive"],
    orient="row",
)
RISKS = {"bins": {"phones": 0.4, "books": 0.1}, "default_bin": 0.2}
MANY_RISKS = {"bins": {f"c{i:03d}": i / 1000 for i in range(200)}, "default_bin": 0.1}
WHY = pl.DataFrame(
    {
        "input": ["emailAddress", "amount", "customerName", "a_column_of_quite_a_long_name"],
        "is_missing": [False, False, True, False],
        "contribution": [0.4, -0.05, 0.0, 0.01],
    }
)
DRIVERS = pl.DataFrame(
    {"name": [f"a feature of quite a long name, number {i}" for i in range(9)]}
    | {f"lost{end}": [0.2 - i / 50 + d for i in range(8)] + [None] for end, d in (("", 0), ("_low", -0.1))}
    | {"lost_high": [0.3 - i / 50 for i in range(8)] + [None]}
)
WEIGHTS = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
BITS = np.array([0] * 30 + [1] * 10)
SIZES = ([4000, 1000, 9000], [2.5, 1.9, 3], 4000, 2.5)
DRAWINGS = {
    "roc": (figures.roc, CURVES),
    "roc of nothing": (figures.roc, {}),
    "precision_recall": (figures.precision_recall, CURVES),
    "precision_recall of nothing": (figures.precision_recall, {}),
    "segment_auc": (figures.segment_auc, SEGMENTS),
    "segment_auc of nothing": (figures.segment_auc, metrics.by_segment([], [], [])),
    "model_auc": (figures.model_auc, MODELS),
    "score_distribution": (figures.score_distribution, Y, A),
    "score_distribution of one class": (figures.score_distribution, [0, 0], [0.1, 0.2]),
    "contributions": (figures.contributions, WHY),
    "drivers": (figures.drivers, DRIVERS, (900, 90)),
    "drivers of nothing": (figures.drivers, DRIVERS[:0], (900, 90)),
    "split_counts": (figures.split_counts, COUNTS),
    "split_counts of nothing": (figures.split_counts, COUNTS.clear()),
    "risk_table": (figures.risk_table, "category risk", RISKS),
    "histogram": (figures.histogram, [1, 1, 2, 40], "tokens", "chunks"),
    "compression_curve": (figures.compression_curve, *SIZES),
    "training_curve": (figures.training_curve, HISTORY),
    "training_curve of nothing": (figures.training_curve, []),
    "validation_curve": (figures.validation_curve, HISTORY),
    "validation_curve of nothing": (figures.validation_curve, []),
    "perplexity_curve": (figures.perplexity_curve, {"half 1": LOSSES}),
    "attention_map": (figures.attention_map, WEIGHTS, list("·ana"), "head 1"),
    "class_density": (figures.class_density, BITS, BITS + np.arange(40) / 40, "bits"),
    "class_density of nothing": (figures.class_density, [], [], "bits"),
    "class_density of one class": (figures.class_density, [0, 0], [1.0, 1.0], "bits"),
}
of_curves = pytest.mark.parametrize("draw", [figures.roc, figures.precision_recall])


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_whole_legible_and_leaves_no_trace(name, check_figure):
    draw, *data = DRAWINGS[name]
    check_figure(lambda ax=None: draw(*data, ax=ax))


def test_roc_shows_each_curve_and_its_interval(words):
    ax = figures.roc(CURVES)
    diagonal, new, old = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    np.testing.assert_array_equal(new.get_data(), metrics.roc_points(Y, A))
    assert new.get_color() != old.get_color() and new.get_linestyle() != old.get_linestyle()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"new  {metrics.auc_ci(Y, A)}", f"old  {metrics.auc_ci(Y, B)}"]
    assert f"n = 600, {Y.mean():.1%} fraud" in words(ax)


def test_precision_recall_shows_ap_and_base_rate(words):
    ax = figures.precision_recall(CURVES)
    base, new, _ = ax.lines
    assert base.get_ydata() == [Y.mean()] * 2
    np.testing.assert_array_equal(new.get_data(), metrics.pr_points(Y, A))
    expected = f"new  {metrics.evaluate(Y, A)['average_precision']:.3f}", f"base rate {Y.mean():.1%}"
    assert set(expected) <= set(words(ax))


def test_curves_on_different_rows_do_not_claim_one_count(words):
    ax = figures.precision_recall({"new": (Y, A), "half": (Y[:300], A[:300])})
    assert len(ax.lines) == 4  # two base rates, two curves
    assert "n = 300 to 600" in words(ax)
    assert "n = 600, base rates differ" in words(figures.roc({"new": (Y, A), "flipped": (1 - Y, A)}))


@of_curves
def test_any_name_is_in_the_legend(draw, words):
    assert any(text.startswith("_hidden  ") for text in words(draw({"_hidden": (Y, A)})))


@of_curves
def test_defect_42_one_class_is_said_not_drawn(draw, words):
    ax = draw({"new": (np.zeros(5), A[:5])})
    assert ax.lines[-1].get_xdata().size == 0
    assert "new  not enough data" in words(ax)


def test_pictures_are_of_systems_of_any_name():
    assert figures.ranking({}) == {}
    drawn = figures.ranking({"a $x$ of $": (Y, A)})
    assert list(drawn) == list(figures.CAPTIONS)
    assert all(r"\$" in axes.get_legend().get_texts()[0].get_text() for axes in drawn.values())


def test_segment_auc_draws_a_line_a_segment(words):
    ax = figures.segment_auc(SEGMENTS)
    drawn = SEGMENTS.drop_nulls("auroc")
    points = [tuple(float(v[0]) for v in bar.lines[0].get_data()) for bar in ax.containers]
    assert points == [(value, at) for at, value in enumerate(drawn["auroc"])]
    ends = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx(drawn.select("auroc_low", "auroc_high").row(0))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["US", "DE", "JP", "AU"]
    assert ax.yaxis_inverted()
    assert words(ax).count("not enough data") == 1 and f"{drawn['auroc'][0]:.3f}" in words(ax)


def test_drivers_are_named_above_their_losses_and_marked_where_these_are_more_than_chance(words):
    ax = figures.drivers(DRIVERS, (900, 90))
    points = [(bar.lines[0].get_xdata()[0], bar.lines[0].get_marker()) for bar in ax.containers]
    assert points == [(row["lost"], "D" if row["lost_low"] > 0 else "o") for row in DRIVERS[:8].to_dicts()]
    assert {DRIVERS["name"][0], "0.200", "n = 900, 10.0% fraud, largest 8 of 9"} <= set(words(ax))
    assert "not enough data" in words(figures.drivers(DRIVERS[8:], (900, 90)))


def test_models_on_the_same_rows_share_one_count(words):
    ax = figures.model_auc(MODELS)
    assert [float(bar.lines[0].get_xdata()[0]) for bar in ax.containers] == [0.8, 0.6]
    assert "n = 100, 20.0% fraud" in words(ax)


def test_many_segments_are_cut_and_counted(words):
    n = style.MAX_ROWS + 7
    table = metrics.by_segment(np.repeat(np.arange(n), 12), np.tile([0, 1], n * 6), np.tile(A[:12], n))
    ax = figures.segment_auc(table)
    assert len(ax.containers) == style.MAX_ROWS
    shown = "\n".join(words(ax))
    assert f"largest {style.MAX_ROWS} of {n}" in shown and f"n = {n * 12}" in shown


def test_score_distribution_gives_each_class_its_own_share(words):
    ax = figures.score_distribution(Y, A)
    outlines = [patch.get_data().values for patch in ax.patches if not patch.get_fill()]
    expected = np.histogram(A[Y == 1], 25, (0, 1))[0] / Y.sum()
    np.testing.assert_allclose(outlines[1], expected)
    assert outlines[0].sum() == pytest.approx(1) and f"fraud (n = {Y.sum()})" in words(ax)


def test_contributions_are_drawn_largest_on_top_without_what_is_missing(words):
    ax = figures.contributions(WHY)
    assert [bar.get_width() for bar in ax.patches] == [0.4, -0.05, 0.01]
    assert ax.yaxis_inverted()
    assert "customerName" not in words(ax) and "a_column_of_quite_a_lon…" in words(ax)
    raises, lowers = (ax.patches[i].get_facecolor() for i in (0, 1))
    assert raises != lowers
    many = pl.DataFrame({"input": map(str, range(40)), "is_missing": False, "contribution": 0.1})
    ax = figures.contributions(many)
    assert len(ax.patches) == 15 and {"Why this score", "15 of 40 inputs"} <= set(words(ax))


def test_split_counts_stacks_labels_in_the_order_of_splits(words):
    ax = figures.split_counts(COUNTS)
    negative, positive = ax.containers
    assert [label.get_text() for label in ax.get_yticklabels()] == ["train", "val", "test"]
    assert [bar.get_width() for bar in negative] == [390, 60, 50]
    assert [(bar.get_x(), bar.get_width()) for bar in positive] == [(390, 10), (60, 2), (50, 0)]
    assert {"n = 400, 2.5% fraud", "n = 50, 0.0% fraud"} <= set(words(ax))


def test_risk_bars_start_at_the_base_rate_highest_on_top_and_many_show_both_ends(words):
    ax = figures.risk_table("category risk", RISKS)
    bars = [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in ax.patches]
    assert bars == [(0.2, 0.2), (0.2, -0.1)]
    assert "phones" in words(ax) and "0.200" in ax.get_xlabel()
    ax = figures.risk_table("x", MANY_RISKS)
    assert {"x", "24 of 200 categories", "c199", "c000"} <= set(words(ax))
    assert len(ax.patches) == style.MAX_ROWS // 2 * 2


def test_histogram_counts_every_value_once():
    ax = figures.histogram(list(range(1000)), "tokens", "chunks")
    assert sum(bar.get_height() for bar in ax.patches) == 1000
    assert len([bar for bar in ax.patches if bar.get_height()]) <= 40
    assert not figures.histogram([], "tokens", "chunks").patches[0].get_height()


def test_compression_curve_is_sorted_on_a_log_axis(words):
    ax = figures.compression_curve(*SIZES)
    target, curve, chosen = ax.lines
    assert target.get_ydata() == [2.5, 2.5]
    assert curve.get_xydata().tolist() == [[1000, 1.9], [4000, 2.5], [9000, 3]]
    assert chosen.get_xydata().tolist() == [[4000, 2.5]]
    assert ax.get_xscale() == "log" and "chosen 4,000: 2.50" in words(ax)
    assert len(figures.compression_curve([1000, 2000], [1, 2], 1500, 2).lines) == 2  # chosen was not measured


def test_training_curve_marks_the_best_epoch_and_leaves_gaps(words):
    ax = figures.training_curve(HISTORY)
    [twin] = [other for other in ax.figure.axes if other is not ax]
    (train, val), (auroc, best) = ax.lines, twin.lines
    assert np.isnan(train.get_ydata()).tolist() == [True, False, False]
    assert val.get_ydata().tolist() == [0.70, 0.55, 0.58]
    assert auroc.get_ydata().tolist() == [0.50, 0.71, 0.69]
    assert best.get_xydata().tolist() == [[1, 0.71]] and "0.710" in words(twin)
    assert len(ax.get_legend().get_texts()) == 3
    ax = figures.training_curve([{"epoch": 0, "train_loss": 0.5}])
    assert all(len(axes.lines) in (1, 2) for axes in ax.figure.axes)


def test_validation_curve_shows_every_figure_of_an_epoch(words):
    ax = figures.validation_curve([{**row, "val_f1": 0.2, "val_recall": 0.1} for row in HISTORY])
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert list(drawn) == ["AUROC", "AP", "F1", "precision", "recall", "accuracy"]
    assert drawn["AUROC"].tolist() == [0.50, 0.71, 0.69] and drawn["F1"].tolist() == [0.2] * 3
    assert np.isnan(drawn["accuracy"]).all() and len(ax.get_legend().get_texts()) == 6


def test_perplexity_is_the_exponential_of_the_loss():
    ax = figures.perplexity_curve({"half 1": LOSSES})
    training, validation = (line.get_ydata() for line in ax.get_lines())
    assert np.allclose(training, np.exp([4, 2, 4 / 3])) and np.allclose(validation[0], np.exp(4.1))
    ax.figure.draw_without_rendering()
    low, high = ax.get_ylim()
    assert len([t for t in ax.get_yticks() if low <= t <= high]) >= 2  # a scale without numbers says nothing


def test_densities_are_shares_of_each_class():
    ax = figures.class_density(BITS, BITS + np.arange(40) / 40, "bits")
    assert [patch.get_data().values.sum() for patch in ax.patches] == pytest.approx([1] * 4)


@pytest.mark.parametrize(
    ("draw", "data", "message"),
    [
        (
            figures.segment_auc,
            (SEGMENTS.drop(bounded("auroc")),),
            "table lacks the columns auroc, auroc_low, auroc_high; it has group, n",
        ),
        (figures.split_counts, (COUNTS.drop("label"),), "table lacks the columns label"),
        (figures.compression_curve, ([1, 2], [1.0], 1, 1), "sizes has 2 values, compression has 1"),
        (figures.score_distribution, ([0, 1], [0.1, 1.2]), "1 of 2 are outside"),
        (figures.attention_map, (WEIGHTS, "ana", "head"), r"weights of shape \(4, 4\) for 3 tokens"),
        (figures.class_density, ([0, 1], [1.0, np.nan], "bits"), "NaN or infinite"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, data, message):
    with pytest.raises(ValueError, match=message):
        draw(*data)
