"""The `fourbit` command: what a student does with a lab, and what an instructor does with a class.

Commands that grade come from other packages through the entry-point group "fourbit.commands": each entry is a function
that takes the Typer application and adds its commands. This package imports none of them by name.
"""

from __future__ import annotations

import atexit
import gc
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import fourbit
from fourbit import bench_command, talk_commands
from fourbit.errors import FourbitError
from fourbit.model_commands import app as models

LEARN = "Learn"
TEACH = "Teach"
COMMANDS = "fourbit.commands"

# Typer keeps the line breaks of all paragraphs but the first, so each has none here.
HELP = "\n\n".join(
    (
        "Efficient deep learning in labs that measure, from a small network to a language model in four bits.",
        "A lab is a notebook in [bold]labs/[/]; its lecture notes are in [bold]lecture_notes/[/]. You write functions, "
        'and [bold]check("name")[/] in the notebook says at once what holds, what does not, and which mistake it is.',
        "An instructor builds the labs from [bold]solutions/[/] and grades a class in a sandbox, "
        "into nbgrader's gradebook.",
        "Begin with [bold]fourbit doctor[/] (what this machine can do) and [bold]fourbit lab 00[/].",
    )
)

app = typer.Typer(
    name="fourbit",
    help=HELP,
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(models, name="models", rich_help_panel=LEARN)

Lab = Annotated[
    str, typer.Argument(metavar="LAB", help="A lab's number or name (00, 01-pruning), its folder, or a notebook.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fourbit {fourbit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(rich_help_panel=LEARN)
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Do not measure; only look.")] = False,
) -> None:
    """Tell what this machine can do: speed, memory, sandbox, and a 7B model's best case."""
    from fourbit.doctor import examine_machine, render

    console = Console()
    with console.status("Measuring memory bandwidth and arithmetic; about five seconds"):
        report = examine_machine(measure=not quick)
    console.print(render(report))


@app.command(rich_help_panel=LEARN)
def lab(
    what: Lab = "00",
    list_labs: Annotated[bool, typer.Option("--list", help="Name the labs, and open none.")] = False,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    port: Annotated[int | None, typer.Option(help="Port of the Jupyter server on this machine.")] = None,
) -> None:
    """Open a lab in JupyterLab, with the student profile."""
    from fourbit import lab as labs

    console = Console()
    if list_labs:
        root = labs.find_root()
        for name in labs.list_labs(root):
            console.print(f"[bold]{name}[/]  [dim]{escape(str(root / 'labs' / name))}[/]")
        return
    notebook = labs.find_notebook(what)
    console.print(f"Opening {escape(str(notebook))} in JupyterLab. Stop it with Ctrl-C.")
    raise typer.Exit(labs.open_lab(notebook, browser=browser, port=port))


@app.command(rich_help_panel=LEARN)
def check(
    what: Lab,
    seconds: Annotated[float, typer.Option(help="Limit for one cell, in seconds.", min=1)] = 120.0,
) -> None:
    """Run a whole notebook in a fresh kernel and print the verdict on every exercise.

    Measurements and figures are left out. The exam is the visible one, as in the notebook.
    """
    from fourbit.lab import find_notebook
    from fourbit.report import check_notebook

    check_notebook(find_notebook(what), seconds, Console())


@app.command(rich_help_panel=LEARN)
def run(
    what: Lab,
    seconds: Annotated[float, typer.Option(help="Limit for one cell, in seconds.", min=1)] = 600.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the executed copy goes; default build/runs/NAME.ipynb.")
    ] = None,
) -> None:
    """Run all cells of a lab, measurements and figures too, into an executed copy."""
    from fourbit.lab import find_notebook
    from fourbit.report import run_notebook

    raise typer.Exit(run_notebook(find_notebook(what), seconds, output, Console()))


app.command(rich_help_panel=LEARN, help=talk_commands.CHAT)(talk_commands.chat)
app.command(rich_help_panel=LEARN, help=talk_commands.SERVE)(talk_commands.serve)
app.command(rich_help_panel=LEARN, help=bench_command.BENCH)(bench_command.bench)


@cache
def load_commands() -> None:
    """Let every installed package that offers commands add them, once."""
    for entry in sorted(entry_points(group=COMMANDS), key=lambda e: e.name):
        entry.load()(app)


def main() -> None:
    """Entry point: run a command; print a FourbitError as one message and leave with status 1."""
    atexit.register(gc.freeze)  # at its end the interpreter would go through all that is imported, a third of a second
    try:
        load_commands()
        app()
    except FourbitError as error:
        Console(stderr=True).print(f"[bold red]fourbit:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
