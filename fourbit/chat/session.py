"""`fourbit chat`: a conversation with a model in the terminal.

The conversation lives in memory and goes nowhere else; /save writes it to a file when asked to.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape

from fourbit.chat.conversation import Conversation, Exchange
from fourbit.chat.talker import Request, Talker
from fourbit.chat.text import Plain, Styled
from fourbit.errors import FourbitError
from fourbit.llm.generation import Usage
from fourbit.llm.sampling import Sampling
from fourbit.measure.power import Energy, Meter, find_meter

HELP = """\
/system TEXT        say who the model is to be; without TEXT, its own way again
/retry              answer the last message again
/more               go on with an answer that was cut or stopped
/clear              begin a new conversation
/set NAME=VALUE     temperature, top_p, top_k, min_p, repetition (1 to 2: a penalty), seed,
                    or limit (tokens of an answer); /set alone shows them
/save FILE          write the conversation as Markdown to a new file
/help               this list
/quit               leave, as Ctrl-D does
Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer."""
LIMIT = 512  # tokens of an answer, if nothing else is said: small models may repeat themselves without end
_RESERVE = 256  # tokens of the context that are kept free for an answer, if it is that large
_SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition", "seed")


class Chat:
    """A conversation with a model: answers go to `out`, all else to `told`. `styled` is for terminals."""

    def __init__(
        self,
        talker: Talker,
        out: Console,
        told: Console,
        *,
        sampling: Sampling,
        limit: int = LIMIT,
        system: str = "",
        styled: bool = True,
        meter: Meter | None = None,
    ) -> None:
        self._talker, self._out, self._told = talker, out, told
        self._sampling, self._limit, self._styled = sampling, limit, styled
        self._meter = meter or find_meter()
        self.conversation = Conversation(system)

    def introduce(self) -> None:
        """Say what is running, and how to get help."""
        title, *rest = self._talker.describe()
        self._say(f"[bold]{escape(title)}[/]")
        for line in rest:
            self._say(escape(line))
        if self._meter.reason:
            self._say(f"energy: not measurable here: {escape(self._meter.reason)}")
        self._say("[dim]/help lists the commands. Nothing of this conversation leaves this machine.[/]")

    def hear(self, line: str) -> bool:
        """Obey a command or answer a message; False when the conversation is over."""
        text = line.strip()
        try:
            if text.startswith("/"):
                return self._obey(text)
            if text:
                self.ask(text)
        except FourbitError as error:
            self._say(f"[red]{escape(str(error))}[/]")
        return True

    def ask(self, question: str) -> bool:
        """Show the answer to a message, and how fast it came; False if it was stopped.

        Raises:
            FourbitError: when the message does not fit, or the model fails; the conversation is as before.
        """
        exchange = Exchange(question)
        self.conversation.exchanges.append(exchange)
        try:
            return self._answer(exchange)
        finally:
            if not exchange.answer:
                self.conversation.exchanges.remove(exchange)

    def _answer(self, exchange: Exchange) -> bool:
        """Show the answer to the last exchange, or the rest of it; False if it was stopped."""
        request = self._request(exchange.answer)
        shown = Styled(self._out) if self._styled else Plain(self._out)
        finish = None
        with stopped_by_ctrl_c() as cancelled:
            self._meter.start()
            try:
                for piece in self._talker.answer(request, cancelled):
                    exchange.answer += piece.text
                    shown.feed(piece.text)
                    finish = piece.finish
            finally:
                shown.finish()
                energy = self._meter.stop()
        exchange.complete = finish == "stop"
        self._say(f"[dim]{escape(summary(self._talker.usage, energy, self._how(finish, request)))}[/]")
        return finish is not None

    def _request(self, begun: str) -> Request:
        """Return the conversation as a prompt, without its oldest exchanges where it has become too long."""
        talker, reserve = self._talker, min(self._limit, _RESERVE, self._talker.context // 4)
        dropped = self.conversation.fit(lambda found: len(talker.prompt(found, begun)), talker.context - reserve)
        if dropped:
            what = "exchange no longer goes" if dropped == 1 else f"{dropped} exchanges no longer go"
            self._say(f"[yellow]The context of {talker.context:,} tokens is full: the oldest {what} to the model.[/]")
        prompt = talker.prompt(self.conversation.messages(), begun)
        return Request(prompt, self._sampling, min(self._limit, talker.context - len(prompt)))

    def _how(self, finish: str | None, request: Request) -> str:
        if finish is None:
            return "stopped"
        if finish == "stop":
            return ""
        if request.limit != self._limit:
            return f"the context of {self._talker.context:,} tokens is full: /clear, or start with a larger --context"
        return f"cut at {self._limit} tokens; " + ("/more goes on" if self._styled else "--max-tokens N allows more")

    def _obey(self, text: str) -> bool:
        command, _, rest = text.partition(" ")
        rest = rest.strip()
        if command in ("/quit", "/exit"):
            return False
        if command == "/help":
            self._say(escape(HELP))
        elif command == "/clear":
            self.conversation = Conversation(self.conversation.system)
            self._say("[dim]A new conversation.[/]")
        elif command == "/system":
            self.conversation.system = rest
            self._say("[dim]The system message is set.[/]" if rest else "[dim]No system message of yours.[/]")
        elif command == "/set":
            self._set(rest)
        elif command == "/save":
            self._save(rest)
        elif command == "/retry":
            self._retry()
        elif command == "/more":
            self._more()
        else:
            raise FourbitError(f"there is no command {command}; /help lists them (a message cannot begin with /)")
        return True

    def _more(self) -> None:
        exchanges = self.conversation.exchanges
        if not exchanges or exchanges[-1].complete:
            raise FourbitError("there is no answer that was cut or stopped")
        self._answer(exchanges[-1])

    def _retry(self) -> None:
        if not self.conversation.exchanges:
            raise FourbitError("there is no message to answer again")
        if self._sampling.temperature == 0:
            self._say("[dim]At temperature 0 the answer is the same; /set temperature=0.7 for another one.[/]")
        exchanges = self.conversation.exchanges
        last, kept = exchanges.pop(), len(exchanges)
        try:
            self.ask(last.question)
        finally:
            if len(exchanges) == kept:  # no other answer came: keep the one there was
                exchanges.append(last)

    def _set(self, text: str) -> None:
        """Change settings, all of them or none."""
        values: dict[str, Any] = {}
        for part in text.split():
            name, sign, value = part.partition("=")
            if not sign or name not in (*_SETTINGS, "limit"):
                raise FourbitError(f"{part!r} is no setting; /set NAME=VALUE with one of {', '.join(_SETTINGS)}, limit")
            values[name] = _value(name, value)
        limit = values.pop("limit", self._limit)
        if limit < 1:
            raise FourbitError(f"limit is {limit}; an answer has at least one token")
        self._sampling, self._limit = replace(self._sampling, **values), limit
        now = [f"{name}={getattr(self._sampling, name)}" for name in _SETTINGS]
        self._say(f"[dim]{' '.join(now)} limit={self._limit}[/]".lower())

    def _save(self, name: str) -> None:
        if not name:
            raise FourbitError("/save needs the name of a new file")
        path = Path(name).expanduser()
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.conversation.markdown(self._talker.source.title))
        except FileExistsError:
            raise FourbitError(f"{path} exists and is not overwritten; take another name") from None
        except OSError as error:
            raise FourbitError(f"{path} cannot be written ({error.strerror})") from None
        self._say(f"[dim]Saved in {escape(str(path))}.[/]")

    def _say(self, text: str) -> None:
        self._told.print(text, highlight=False, soft_wrap=True)




def _value(name: str, text: str) -> float | int | None:
    if name == "seed" and text.lower() == "none":
        return None
    try:
        return int(text) if name in ("top_k", "seed", "limit") else float(text)
    except ValueError:
        raise FourbitError(f"{name} has to be a number, not {text!r:.40}") from None


def summary(usage: Usage, energy: Energy, how: str) -> str:
    """Return the line under an answer: tokens, time to the first, tokens per second, energy if it was measured."""
    parts = [f"{usage.new_tokens} tokens", f"first after {usage.first_token:.2f} s"]
    if usage.tokens_per_second:
        parts.append(f"{usage.tokens_per_second:.1f} tokens/s")
    if energy.joules is not None and usage.new_tokens:
        each = energy.joules / usage.new_tokens
        parts.append(f"{energy.joules:.1f} J, {each:.2f} J per token ({energy.source})")
    return ", ".join(parts) + (f"; {how}" if how else "")


@contextlib.contextmanager
def stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """Let Ctrl-C set the event that is returned, and raise KeyboardInterrupt only when it is pressed again."""
    cancelled = threading.Event()

    def press(_: int, __: FrameType | None) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield cancelled
    finally:
        signal.signal(signal.SIGINT, before)


def converse(chat: Chat) -> None:
    """Read messages from the terminal until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()
    keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession("\n> ", multiline=True, key_bindings=keys, prompt_continuation="  ")
    while True:
        try:
            if not chat.hear(session.prompt()):
                return
        except KeyboardInterrupt:  # at the prompt: forget the line
            continue
        except EOFError:
            return


def read_lines(chat: Chat, lines: Iterator[str]) -> None:
    """Take each line of a pipe or file as a message or a command."""
    for line in lines:
        if not chat.hear(line):
            return
