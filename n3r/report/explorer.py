"""A threshold to move, and what it flags: figures and cases, with a slider where a notebook has widgets.

Decisions:
- The thresholds are those of validation rows, the figures those of test rows: the choice, and what to expect.
- Flagged orders go by their id, with reasons in words; no string of theirs is shown. Those shown are the
  nearest to the threshold, which moving it would let through.
- A table says the same at a few thresholds: in files, where there are no widgets, and in a notebook that is
  opened again, whose slider is gone.
"""

import warnings
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np
import polars as pl

from n3r.evaluation.decisions import at_thresholds
from n3r.progress import has_widgets
from n3r.report.page import show
from n3r.report.titled import Titled, titled
from n3r.rows.parts import Rows, rows_at, whole
from n3r.schema import LABEL, ROW, SCORE, TIME
from n3r.score import Scorer
from n3r.thresholds import Ranking, Rule, days

N_STOPS = 60  # of the slider
RATES = (0.005, 0.01, 0.02, 0.05, 0.1)  # of legitimate validation rows, at most
START = 0.01
N_CASES, N_REASONS = 8, 3
FORMATS = {
    "threshold": ".4g",
    "alerts": ".1f",
    **dict.fromkeys(("at_most", "recall", "precision", "false_alarms"), "%"),
}
WITHOUT_WIDGETS = "In JupyterLab with ipywidgets (pip install 'n3r[lab]') a slider moves the threshold here."
BINARY_ONLY = "Decisions are of two classes; this model has more."


class Explorer:
    """What thresholds of a scorer do; in a notebook a table, and a slider or the cases at one threshold.

    `validation` and `test` are rows with a label and a score under n3r's own names; the test rows also have
    what the scorer reads. Attributes: `stops`, a row a threshold, the highest first; `per`, what alerts are
    counted in: "a day", or "in 1,000 orders" where the rows have no times.
    """

    def __init__(self, scorer: Scorer, validation: pl.DataFrame, test: Rows):
        known = whole(test, [SCORE, LABEL, TIME]).with_row_index(ROW)
        self.ranked = known.sort(SCORE, descending=True, maintain_order=True)
        self.scorer, self.test = scorer, test
        ranking = Ranking.of((validation[LABEL] > 0).to_numpy(), validation[SCORE].to_numpy())
        at_most = (ranking.flagged - ranking.caught) / max(ranking.n - ranking.n_frauds, 1)
        wanted = np.searchsorted(ranking.flagged, np.geomspace(1, max(ranking.n, 1), N_STOPS))
        kept = np.unique([*wanted.clip(max=len(at_most) - 1), *(_last(at_most, rate) for rate in RATES)])
        n_days = _days(known)
        self.per, n_per = ("in 1,000 orders", len(test) / 1000) if n_days is None else ("a day", n_days)
        self.n_rows = {"validation": ranking.n, "test": len(test)}
        self.stops = self._stops(ranking.threshold[kept], n_per).select(
            pl.Series("at_most", at_most[kept]), pl.all()
        )

    def _stops(self, thresholds: np.ndarray, n_per: float) -> pl.DataFrame:
        """What thresholds, (K,), do to the test rows; null where there is nothing to take a share of."""
        found = at_thresholds((self.ranked[LABEL] > 0).to_numpy(), self.ranked[SCORE].to_numpy(), thresholds)
        flagged, caught, frauds = pl.col("flagged"), pl.col("caught"), pl.lit(found["n_frauds"])
        counts = {name: found[name] for name in ("flagged", "caught")}
        return pl.DataFrame({"threshold": thresholds, **counts}).with_columns(
            frauds=frauds,
            alerts=flagged / n_per,
            recall=_share(caught, frauds),
            precision=_share(caught, flagged),
            false_alarms=_share(flagged - caught, pl.lit(found["n"]) - frauds),
        )

    def place(self, rate: float = START) -> int:
        """The row of `stops` that flags at most this share of legitimate validation rows, else the first."""
        return _last(self.stops["at_most"].to_numpy(), rate)

    def table(self) -> Titled:
        """What to expect of a few thresholds."""
        rows = [{**self.stops.row(self.place(rate), named=True), "at_most": rate} for rate in RATES]
        names = {
            "at_most": "legitimate flagged, at most",
            "threshold": "threshold",
            "recall": "recall",
            "precision": "precision",
            "false_alarms": "legitimate flagged",
            "alerts": f"alerts {self.per}",
        }
        title = (
            f"Thresholds chosen on {self.n_rows['validation']:,} validation rows, and what they do to "
            f"{self.n_rows['test']:,} test rows"
        )
        frame = pl.DataFrame(rows, infer_schema_length=None).select(*names)
        return titled(frame, title, FORMATS)._replace(head=list(names.values()))

    def sentence(self, at: int) -> str:
        """The figures of one threshold."""
        row = {
            name: show(value, FORMATS.get(name, ","))
            for name, value in self.stops.row(at, named=True).items()
        }
        return (
            f"From a score of {row['threshold']}: {row['caught']} of {row['frauds']} frauds are caught "
            f"(recall {row['recall']}); {row['caught']} of {row['flagged']} flagged orders are frauds "
            f"(precision {row['precision']}); {row['false_alarms']} of legitimate orders are flagged; "
            f"{row['alerts']} alerts {self.per}."
        )

    def cases(self, at: int) -> Titled:
        """The flagged test rows nearest to a threshold: id, score, outcome and reasons."""
        threshold, n = self.stops["threshold"][at], self.stops["flagged"][at]
        rows = rows_at(self.test, self.ranked[ROW].slice(max(n - N_CASES, 0), min(n, N_CASES)))
        told: list[tuple[str, ...]] = []
        if len(rows):
            with warnings.catch_warnings(action="ignore"):  # of categories not seen: so few rows say nothing
                decided = self.scorer.decide(rows, Rule(threshold=0), N_REASONS)
            for i, reasons in enumerate(decided.select("^reason_.*$").iter_rows()):
                outcome = "fraud" if rows[LABEL][i] > 0 else "legitimate"
                why = "; ".join(reason for reason in reasons if reason)
                told.append((str(decided[:, 0][i]), outcome, why, f"{rows[SCORE][i]:.4g}"))
        title = f"The last {len(told)} of {n:,} flagged from {show(threshold, '.4g')}, highest first"
        return Titled(title, ("order", "outcome", "what raises its score", "score"), told, 3)

    def widget(self) -> Any:
        """The slider, and beneath it what changes with it."""
        import ipywidgets

        options = [(show(threshold, ".4g"), i) for i, threshold in enumerate(self.stops["threshold"])]
        slider = ipywidgets.SelectionSlider(
            options=options,
            value=self.place(),
            description="threshold",
            continuous_update=False,
            layout=ipywidgets.Layout(width="36em"),
        )
        shown = ipywidgets.HTML()

        def follow(change: Any = None) -> None:
            told, cases = escape(self.sentence(slider.value)), self.cases(slider.value)._repr_html_()
            # The class and the height are those of outputs; widgets have a line to themselves.
            shown.value = (
                f'<div class="jp-RenderedHTMLCommon" style="line-height:1.4"><p>{told}</p>{cases}</div>'
            )

        slider.observe(follow, "value")
        follow()
        return ipywidgets.VBox([slider, shown])

    def outputs(self) -> Iterator[dict[str, Any]]:
        """What a notebook shows, by kind of content."""
        without = {"text/html": escape(WITHOUT_WIDGETS), "text/plain": WITHOUT_WIDGETS}
        yield self.table().content()
        if has_widgets():
            yield {**self.widget()._repr_mimebundle_(), **without}  # a server without them shows the sentence
        else:
            yield self.cases(self.place()).content()
            yield without

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for output in self.outputs():
            display(output, raw=True)


def explore(scorer: Scorer, validation: pl.DataFrame, test: Rows) -> Explorer | str:
    """An `Explorer`, or a sentence where there are more than two classes."""
    return Explorer(scorer, validation, test) if scorer.calibration.n_classes == 2 else BINARY_ONLY


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole)


def _last(at_most: np.ndarray, rate: float) -> int:
    """The last place of shares that rise which keeps to a rate, else the first."""
    return max(int(np.searchsorted(at_most, rate, side="right")) - 1, 0)


def _days(rows: pl.DataFrame) -> float | None:
    """How many days the rows span; None where they have no times."""
    if TIME not in rows.columns or rows[TIME].null_count() == len(rows):
        return None
    return days(rows[TIME].min(), rows[TIME].max())
