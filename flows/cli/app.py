"""The command line `pngnoise`: commands in groups. Heavy imports are inside the commands, so that --help is instant."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, Group

from flows.cli import corpus, data, denoisers, evaluate, models, operate
from flows.cli.console import fail, prepare_prefect

app = App(
    name="pngnoise",
    help="Learn real camera noise and generate noisy/clean training pairs from it.",
    help_format="markdown",
    version=lambda: version("pngnoise"),
)
_GROUPS = {
    "Data": data,
    "Model": models,
    "Corpus": corpus,
    "Denoisers": denoisers,
    "Evaluate": evaluate,
    "Operate": operate,
}
for number, (title, module) in enumerate(_GROUPS.items()):
    group = Group(title, sort_key=number)
    for position, name in enumerate(n for n in module.app if not n.startswith("-")):
        module.app[name].group, module.app[name].sort_key = group, position
    app.command(module.app, name="*")


def call(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with code 2 for errors of the user.

    Args:
        arguments: default to those of the process.
    """
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        fail(error)


def main() -> None:
    """Entry point of the console script."""
    prepare_prefect()
    call()
