"""`fourbit bench`: a model card, measured on this machine.

What needs torch is imported when a command runs, so that the other commands start without it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fourbit.errors import FourbitError
from fourbit.talk_commands import Anyway, Gpu, Kv, Model, Threads

if TYPE_CHECKING:
    from fourbit.chat.talker import Talker
    from fourbit.llm.card import Card

# Typer keeps the line breaks of all paragraphs but the first, so each has none here.
BENCH = "\n\n".join(
    (
        "Measure a model on this machine: bytes, perplexity, speed, share of the memory's speed, peak memory, energy.",
        "MODEL is a name from [bold]fourbit models[/] or the path of a GGUF file or of an artifact of lab 04. "
        "What does not fit into the memory is refused before it is loaded, with what would fit.",
        "Decoding reads all weights for each token, so memory bandwidth divided by their bytes is a roof for tokens "
        "per second; the card says what share of it was reached. A hollow model (random weights, from "
        "[bold]fourbit models hollow[/]) has all figures but perplexity.",
        "Close what else computes first; half a minute for the pocket model, two minutes for a 7B.",
    )
)
CONTEXT = 2048
Context = Annotated[
    int | None, typer.Option(help="Tokens of prompt and answer together; default 2,048.", min=2, show_default=False)
]


def bench(
    model: Model = "smollm2",
    context: Context = None,
    threads: Threads = None,
    kv: Kv = "f16",
    gpu: Gpu = False,
    anyway: Anyway = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    if gpu and (threads is not None or kv != "f16" or anyway):
        raise FourbitError("--threads, --kv and --anyway are for the CPU's engine; leave them out with --gpu")
    told = Console(stderr=True)
    with told.status("Opening the model") as status:
        talker = _open(model, context, threads, kv, gpu, anyway)
        from fourbit.llm.card import measure_card

        source = talker.source
        card = measure_card(
            talker.engine, talker.plan, source.name, source.title, source.tier,
            lambda text: status.update(f"{source.name}: {text}"),
        )  # fmt: skip
    if as_json:
        print(json.dumps(card.as_dict(), indent=1))
    else:
        Console(highlight=False).print(render(card))


def _open(model: str, context: int | None, threads: int | None, kv: str, gpu: bool, anyway: bool) -> Talker:
    from fourbit.chat.talker import find_source, open_on_gpu, open_talker

    if gpu:
        return open_on_gpu(model, context=context or CONTEXT)
    if context is None:
        from fourbit.llm.plan import plan_file

        context = min(CONTEXT, plan_file(find_source(model).path, 2, kv).config.context)
    return open_talker(model, context=context, threads=threads, kv=kv, anyway=anyway)


def render(card: Card) -> Table:
    """The card as a table of two columns."""
    table = Table(title=card.title, title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for what, text in rows(card):
        table.add_row(what, text)
    return table


def rows(card: Card) -> list[tuple[str, str]]:
    """What the table says, line by line."""
    s = card.speed
    lines = [
        ("machine", f"{card.machine}; {card.reader}, {card.kernels}"),
        ("weights", f"{card.parameters / 1e9:.3f} billion, {_size(card.weight_bytes)} ({card.form}, "
                    f"{card.bits_per_weight:.2f} bits each); file {_size(card.file_bytes)}"),
        ("perplexity", _perplexity(card)),
        ("first token", f"{s.first_token:.2f} s after a prompt of {s.prompt_tokens} tokens"),
        ("prefill", f"{s.prefill:.1f} tokens/s, in a prompt of {s.prefill_tokens}"),
        ("decode", f"{s.decode:.2f} tokens/s (slowest {s.slowest:.2f}, fastest {s.fastest:.2f})"),
        ("roof", f"{card.share_of_roof:.0%}: a token reads {_size(card.bytes_for_each_token)}, "
                 f"and {card.read_roof / 1e9:.1f} GB/s is the most that {card.reader} can read"),
        ("memory", f"{_size(card.peak)} at most with {card.tokens_held} tokens held, planned "
                   f"{_size(card.planned_peak)} ({card.peak / card.planned_peak - 1:+.1%}); "
                   f"{_size(card.planned_total)} with all {card.context} (cache {card.kv})"),
        ("energy", _energy(card)),
    ]  # fmt: skip
    return lines + [("note", note) for note in card.notes]


def _perplexity(card: Card) -> str:
    found = card.perplexity
    if found is None:
        return "none: the weights are random"
    return (
        f"{found.mean:.1f} (95 % interval {found.low:.1f} to {found.high:.1f}) on {card.scored_tokens} tokens of "
        "Persuasion, which it has seen in training"
    )


def _energy(card: Card) -> str:
    found = card.energy
    if found.joules_per_token is None:
        return f"not measurable here: {found.reason}"
    return f"{found.joules_per_token:.2f} J for a token, all that the machine did meanwhile ({found.source})"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
