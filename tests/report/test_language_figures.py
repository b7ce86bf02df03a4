import numpy as np
import pytest
from matplotlib.figure import Figure

from n3r.report import language_figures
from n3r.report.style import to_svg

HISTORY = [{"epoch": 0.5 * i, "train_loss": 4 / i, "val_loss": 4.1 / i} for i in (1, 2, 3)]
WEIGHTS = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
Y = np.array([0] * 30 + [1] * 10)
DRAWINGS = {
    "perplexity_curve": lambda ax=None: language_figures.perplexity_curve({"half 1": HISTORY}, ax),
    "attention_map": lambda ax=None: language_figures.attention_map(WEIGHTS, list("·ana"), "head 1", ax),
    "class_density": lambda ax=None: language_figures.class_density(Y, Y + np.arange(40) / 40, "bits", ax),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_draws_on_the_given_axes_or_its_own(name):
    ax = Figure().add_subplot()
    assert DRAWINGS[name](ax) is ax
    assert to_svg(DRAWINGS[name]().figure) == to_svg(DRAWINGS[name]().figure)


def test_perplexity_is_the_exponential_of_the_loss():
    ax = DRAWINGS["perplexity_curve"]()
    training, validation = (line.get_ydata() for line in ax.get_lines())
    assert np.allclose(training, np.exp([4, 2, 4 / 3])) and np.allclose(validation[0], np.exp(4.1))
    ax.figure.draw_without_rendering()
    low, high = ax.get_ylim()
    shown = [t for t in ax.get_yticks() if low <= t <= high]
    assert len(shown) >= 2  # a scale without numbers says nothing


def test_attention_map_wants_a_token_a_row():
    with pytest.raises(ValueError, match=r"weights of shape \(4, 4\) for 3 tokens"):
        language_figures.attention_map(WEIGHTS, list("ana"), "head 1")


def test_densities_are_shares_of_each_class():
    ax = DRAWINGS["class_density"]()
    for patch in ax.patches:
        assert patch.get_data().values.sum() == pytest.approx(1)


def test_densities_of_no_rows_and_of_one_class():
    language_figures.class_density([], [], "bits")
    language_figures.class_density([0, 0], [1.0, 1.0], "bits")
    with pytest.raises(ValueError, match="NaN or infinite"):
        language_figures.class_density([0, 1], [1.0, np.nan], "bits")
