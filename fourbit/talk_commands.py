"""`fourbit chat` and `fourbit serve`: a model that talks, in the terminal and over HTTP.

What needs torch is imported when a command runs, so that the other commands start without it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fourbit.errors import FourbitError

if TYPE_CHECKING:
    from fourbit.chat.session import Chat
    from fourbit.chat.talker import Talker

KEY = "FOURBIT_API_KEY"
# Typer keeps the line breaks of all paragraphs but the first, so each has none here.
CHAT = "\n\n".join(
    (
        "Talk with a language model in the terminal. It runs on this machine, in 4 or 8 bits, without a network.",
        "MODEL is a name from [bold]fourbit models[/] or the path of a GGUF file or of an artifact of lab 04. "
        "What does not fit into the memory is refused before it is loaded, with what would fit.",
        "[bold]--ask[/] answers one message as plain text on standard output, greedily unless --temperature says "
        "otherwise, so that the same question has the same answer; everything else goes to standard error. Without a "
        "terminal, each line of standard input is a message.",
    )
)
SERVE = "\n\n".join(
    (
        "Serve a language model to programs that speak OpenAI's HTTP interface, and a chat page to your browser.",
        "Routes: POST /v1/chat/completions and /v1/completions (whole or streaming), GET /v1/models and /health, "
        "and the page at /. Requests take turns; one engine answers them all.",
        "Only this machine can connect, unless --host names another address; then clients need a key, from the "
        f"environment variable [bold]{KEY}[/] or --api-key (which others on this machine can see in the list of "
        "processes). There is no TLS: on a network that you do not trust, put a reverse proxy or ssh -L in front.",
    )
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name or its file.")]
Context = Annotated[
    int | None, typer.Option(help="Tokens of prompt and answer together; default 4,096.", min=2, show_default=False)
]
Threads = Annotated[int | None, typer.Option(help="Default: one for each core.", min=1, show_default=False)]
Kv = Annotated[str, typer.Option("--kv", help="The cache's numbers: f32, f16, q8 or q4.")]
Gpu = Annotated[
    bool, typer.Option("--gpu", help="On a CUDA GPU, in NF4: MODEL is a checkpoint folder or a hub repository.")
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Load it even if it does not fit.")]


def chat(
    model: Model = "smollm2",
    question: Annotated[
        str | None, typer.Option("--ask", metavar="TEXT", help="Answer this and leave; - reads it from standard input.")
    ] = None,
    system: Annotated[str, typer.Option(help="Who the model is to be.")] = "",
    limit: Annotated[
        int | None, typer.Option("--max-tokens", help="Of each answer; default 512.", min=1, show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 always takes the likeliest token; default 0.3.", show_default=False)
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Default 0.9.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answer.", show_default=False)] = None,
    context: Context = None,
    threads: Threads = None,
    kv: Kv = "f16",
    gpu: Gpu = False,
    anyway: Anyway = False,
) -> None:
    """Open a model and converse."""
    from fourbit.chat.session import LIMIT, Chat
    from fourbit.chat.talker import SAMPLING
    from fourbit.llm.sampling import Sampling

    heat = (0.0 if question is not None else SAMPLING.temperature) if temperature is None else temperature
    sampling = Sampling(
        temperature=heat, top_p=SAMPLING.top_p if top_p is None else top_p,
        repetition=SAMPLING.repetition if heat else 1.0, seed=seed,  # greedy is greedy
    )  # fmt: skip
    text = sys.stdin.read() if question == "-" else question
    if text is not None and not text.strip():
        raise FourbitError("the question is empty; --ask needs a text")
    told = Console(stderr=True)
    talker = _open(model, context, threads, kv, gpu, anyway, told)
    styled = sys.stdin.isatty() and sys.stdout.isatty() and text is None
    out = Console(soft_wrap=True)
    found = Chat(
        talker, out, out if styled else told, sampling=sampling, limit=limit or LIMIT, system=system, styled=styled
    )  # fmt: skip
    _run(found, text, styled)


def _run(found: Chat, text: str | None, styled: bool) -> None:
    from fourbit.chat.session import converse, read_lines

    if text is not None:
        if not found.ask(text):
            raise typer.Exit(130)  # as a shell reports Ctrl-C
        return
    found.introduce()
    if styled:
        converse(found)
    else:
        read_lines(found, iter(sys.stdin))


def serve(
    model: Model = "smollm2",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes one that is free.", min=0, max=65535)] = 8000,
    api_key: Annotated[
        str | None, typer.Option(help=f"What clients have to show; better in {KEY}.", show_default=False)
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name of this server; may be given again.", show_default=False)
    ] = None,
    waiting: Annotated[int, typer.Option(help="Requests of one client that may wait.", min=1, max=1000)] = 16,
    context: Context = None,
    threads: Threads = None,
    kv: Kv = "f16",
    gpu: Gpu = False,
    anyway: Anyway = False,
) -> None:
    """Open a model and serve it."""
    from fourbit.serve.server import address_of, bind, is_loopback, policy_for, run

    console = Console()
    key = api_key if api_key is not None else os.environ.get(KEY)
    server = bind("127.0.0.1" if host == "localhost" else host, port)
    try:
        policy = policy_for(server, host, key, allow_host or [])
        talker = _open(model, context, threads, kv, gpu, anyway, console)
        title, *rest = talker.describe()
        console.print(f"[bold]{escape(title)}[/]", highlight=False, soft_wrap=True)
        for line in rest:
            console.print(escape(line), highlight=False, soft_wrap=True)
        server.listen()  # who follows the address below at once is not refused
        address = address_of(server)
        for line in _how_to_use(address, talker.name, policy.key is not None, is_loopback(server)):
            console.print(line, highlight=False, soft_wrap=True)
        run(talker, server, policy, each=waiting)
    finally:
        server.close()


def _open(
    model: str, context: int | None, threads: int | None, kv: str, gpu: bool, anyway: bool, console: Console
) -> Talker:
    if gpu and (threads is not None or kv != "f16" or anyway):
        raise FourbitError("--threads, --kv and --anyway are for the CPU's engine; leave them out with --gpu")
    with console.status(f"Opening {escape(model)}"):
        from fourbit.chat.talker import open_on_gpu, open_talker

        if gpu:
            return open_on_gpu(model, context=context)
        return open_talker(model, context=context, threads=threads, kv=kv, anyway=anyway)


def _how_to_use(address: str, name: str, keyed: bool, local: bool) -> list[str]:
    key = f'os.environ["{KEY}"]' if keyed else '"none"'
    lines = [
        f"\nChat page: [bold]{address}/[/]",
        f'Python:    openai.OpenAI(base_url="{address}/v1", api_key={key}).chat.completions.create(',
        f'               model={escape(repr(name))}, messages=\\[{{"role": "user", "content": "Hello"}}])',
    ]
    if not local:
        lines.append("[yellow]Other machines can connect, with the key. Without TLS, who listens in can read.[/]")
    lines.append(
        "Nothing goes to any other machine, and nothing is kept. See for yourself: on Linux, "
        "[bold]strace -f -e trace=connect fourbit serve[/] prints every connection that is opened, and there is none; "
        f"[bold]lsof -nPi -a -p {os.getpid()}[/] lists the open ones."
    )
    lines.append("Ctrl-C ends the server after the answer in progress; twice, at once.\n")
    return lines
