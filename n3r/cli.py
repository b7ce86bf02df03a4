"""The `n3r` command; what it does is in commands/, each of which imports what it needs as it runs.

Exit status 0, 2 for a user's mistake, 1 for a failure of ours.
"""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer
from typer import Option, echo

from n3r import __version__
from n3r.commands import language_model
from n3r.commands.check import check
from n3r.commands.evaluate import compare, evaluate
from n3r.commands.export import export, verify_bundle
from n3r.commands.legacy import import_features, import_legacy
from n3r.commands.map import map_files
from n3r.commands.monitor import monitor
from n3r.commands.run import params, refresh, run
from n3r.commands.score import score
from n3r.commands.tune import tune
from n3r.files.json_io import without_links
from n3r.notebook import STEPS
from n3r.pipeline import StepError
from n3r.terminal import AtHome

COMMANDS = {
    "map": map_files,
    "check": check,
    "run": run,
    "params": params,
    "tune": tune,
    "score": score,
    "monitor": monitor,
    "evaluate": evaluate,
    "compare": compare,
    "verify": verify_bundle,
    "export": export,
    "import-features": import_features,
    "import-legacy": import_legacy,
    "refresh": refresh,
}
app = typer.Typer(cls=AtHome, no_args_is_help=True, pretty_exceptions_enable=False)
for name, command in COMMANDS.items():
    told = f"Steps: {', '.join(step.name for step in STEPS)}" if command is run else None
    app.command(name, epilog=told)(command)
app.add_typer(language_model.lm, name="lm")


def _say_version(asked: bool) -> None:
    if asked:
        echo(f"n3r {__version__}")
        raise typer.Exit()


@app.callback()
def _program(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_say_version, help="print the version and end")
    ] = False,
) -> None:
    """Risk of first-order fraud from identity strings and tabular features.

    The exit status is 0; 2 for a mistake in the command or the data, in one sentence; 1 for a failure of n3r
    or of the machine; 130 where Ctrl-C ended it.
    """


def main() -> None:
    """The `n3r` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook's or a test's is none
            stream.reconfigure(errors="replace")  # where the locale has no such character
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        echo(f"n3r: {without_links(str(error))}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = "tune" if error.name == "optuna" else "train"
        echo(f"n3r: {error.name} is not installed, which this needs: pip install 'n3r[{extra}]'", err=True)
        sys.exit(2)
    except (StepError, OSError) as error:  # a full disk, say, where nothing else names it
        echo(f"n3r: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
