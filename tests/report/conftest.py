"""What the tests of figures share: all that can be read on one, and what holds for every one."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from n3r.report import style


def readable(ax: Axes) -> list[str]:
    """All texts on the Axes, its panels and its legend."""
    legend = ax.get_legend().get_texts() if ax.get_legend() else []
    titles = [ax.title, ax._left_title, ax._right_title, ax.xaxis.label]
    own = [*ax.texts, *titles, *ax.get_yticklabels(), *legend]
    return [text.get_text() for panel in ax.child_axes for text in panel.texts] + [t.get_text() for t in own]


def check(draw: Callable[..., Axes]) -> None:
    """Drawn on the Axes given and no other, the same bytes each time, whole, legible, no trace left."""
    before = dict(matplotlib.rcParams), plt.get_fignums()
    untouched, given = Figure().subplots(1, 2)
    assert draw(ax=given) is given and not untouched.has_data()
    ax = draw()
    fig = ax.figure
    again = draw().figure
    assert fig is not again and (dict(matplotlib.rcParams), plt.get_fignums()) == before
    first = style.to_svg(fig)
    assert first == style.to_svg(again)
    assert ElementTree.fromstring(first).tag.endswith("svg") and "<dc:date>" not in first
    shown = [text for text in fig.findobj(Text) if text.get_visible() and text.get_text().strip()]
    smallest = min(text.get_fontsize() for text in shown)
    assert smallest * 400 / 72 / fig.get_figwidth() >= 9.5  # pixels at 400 px wide
    box = fig.get_tightbbox()
    assert box.x0 > -0.01 and box.y0 > -0.01
    assert box.x1 < fig.get_figwidth() + 0.01 and box.y1 < fig.get_figheight() + 0.01


@pytest.fixture
def words() -> Callable[[Axes], list[str]]:
    return readable


@pytest.fixture
def check_figure() -> Callable[[Callable[..., Axes]], None]:
    return check
