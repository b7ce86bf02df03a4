"""`n3r check`: what there is to know of a table before a model is trained on it, or judged by it."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from n3r import pipeline
from n3r.commands.map import ORDERS, map_for_run
from n3r.files.formats import as_folder
from n3r.files.manifest import verify
from n3r.terminal import print_table, say_finding, say_left_out

STEP = "01_preprocess"  # whose parameters are the check's


def check(
    data: Annotated[list[str], Argument(help="files and folders of orders, REGION=path")],
    map: Annotated[
        Path | None, Option(help="their column map (JSON); default: the bundle's, else as for a run")
    ] = None,
    bundle: Annotated[Path | None, Option(help="a model: was it trained on any of these rows?")] = None,
    output: Annotated[Path, Option("-o", "--output", help="the page's folder")] = Path("check"),
    p: Annotated[
        list[str] | None, Option("-p", help="KEY=VALUE, a parameter of step 01; see `n3r params 01`")
    ] = None,
) -> None:
    """Look at data before a run: a card for each column, and what is to be doubted, with what to do.

    Exit status 2 where a severe finding is not accepted by its name: -p accept='["leak:amount"]'.
    """
    from n3r.checks import check_rows, refuse
    from n3r.preprocess import PrepareConfig, prepare
    from n3r.report.data import card_facts, headline, write_data_page
    from n3r.schema import ColumnMap
    from n3r.tables import scan

    output = as_folder(output)
    if bundle:
        verify(bundle)
        map = map or bundle / "columns.json"
    columns = ColumnMap.from_file(map or map_for_run(data, ORDERS, output / "map.json"))
    step = [step for step in pipeline.STEPS if step.name == STEP]
    values = pipeline.resolve_parameters("quick", {}, p or [], step)[STEP]
    source = scan(data, columns, values["max_expansion"])
    config = PrepareConfig(**{name: values[name] for name in PrepareConfig.model_fields})
    with source.reading():
        prepared = prepare(source.frame, columns, config, source.n_rows)
    left_out, files = source.left_out, source.files
    del source  # the rows as they were read take as much memory as the prepared ones
    found = check_rows(prepared, left_out, bundle, values["seed"])
    page = write_data_page(found, output, files[0].name if len(files) == 1 else f"{len(files)} files")
    facts = [{"column": card["column"], **card_facts(card)} for card in found["columns"]]
    shown = ("column", "role", "missing", "distinct", "AUROC alone", "over time")
    print_table(shown, ([row.get(name, "") for name in shown] for row in facts))
    say_left_out(left_out)
    for one in found["preparation"]["findings"]:
        say_finding(one)
    echo(headline(found))
    echo(f"report: {page}", err=True)
    refuse(found["preparation"]["findings"], values["accept"], page)
