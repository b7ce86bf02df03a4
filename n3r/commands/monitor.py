"""`n3r monitor`: new rows beside those that a bundle learned from, for a scheduler and for people."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, echo

from n3r.files.formats import as_folder
from n3r.files.lock import alone
from n3r.terminal import plain_warnings, say_finding


def monitor(
    data: Annotated[
        list[str], Argument(help="new orders: files and folders, REGION=path; labels may be missing")
    ],
    bundle: Annotated[Path, Option(help="a model in its run, such as runs/quick/best")],
    map: Annotated[Path | None, Option(help="the files' column map (JSON); default: the bundle's")] = None,
    output: Annotated[Path, Option("-o", "--output", help="the page's folder")] = Path("monitoring"),
    p: Annotated[
        list[str] | None,
        Option("-p", help="KEY=VALUE: fpr, max_psi, max_alert_ratio, max_auroc_loss, max_miscalibration, .."),
    ] = None,
) -> None:
    """Has what the model sees moved, does it still rank? Drift, alerts over time, quality where known.

    Exit status 0: fine; 3: look; 4: train anew.
    """
    from n3r.checks.monitor import ANSWERS, MonitorConfig, status_of
    from n3r.checks.monitor import monitor as compare
    from n3r.checks.seen import LEARNED_FROM
    from n3r.evaluation.labelled import engine_for
    from n3r.report.monitor import write_monitor
    from n3r.schema import ColumnMap

    config = MonitorConfig.from_texts(p or [])
    output = as_folder(output)
    columns = ColumnMap.from_file(map) if map else None
    learned = [bundle.absolute().parent / "data" / split for split in LEARNED_FROM]
    with alone(output) as place, plain_warnings():
        engine = engine_for([*data, *filter(Path.is_dir, learned)], place / "rows")
        content = compare(data, bundle, config, columns, engine)
    status = status_of(content)
    for one in content["findings"]:
        say_finding(one)
    rows, rate = content["rows"], content["alert_rate"]["alert_rate"]
    counted = f"{rows['n_new']:,} new orders, {rows['n_labelled']:,} with labels"
    drawn = f"of {rows['n_compared']:,} drawn from them " if rows["n_compared"] < rows["n_new"] else ""
    echo(f"{counted}; {drawn}{rate:.2%} flagged. {ANSWERS[status]}")
    echo(f"report: {write_monitor(content, ANSWERS[status], output)}", err=True)
    raise Exit(status)
