"""Text of a model in a terminal, word by word as it comes: wrapped, with a little Markdown, and harmless.

Control characters are left out, escape sequences with them: a model may have learned to write one, or repeat it from
a text that it was given, and a terminal would obey. Of Markdown there are headings, **bold**, `code` and fenced blocks;
all else is shown as it is written.
"""

from __future__ import annotations

import re
import unicodedata

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_FENCE = re.compile(r" {0,3}```[^\n]*(\n|\Z)")
_MAYBE_FENCE = re.compile(r" {0,3}(`{0,2}|```[^\n]*)")
_HEADING = re.compile(r"#{1,6} ")
_MAYBE_HEADING = re.compile(r"#{1,6}")
_SPACES = re.compile(r"[ \t]+")
_WORD = re.compile(r"[^ \t\n`*]+|\*")


def harmless(text: str) -> str:
    """Return a text without control characters, but for line ends and tabs."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


class Plain:
    """Shows a text as it is, for pipes and files."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def feed(self, text: str) -> None:
        """Show the next part."""
        self._console.out(harmless(text), end="", highlight=False)
        self._console.file.flush()

    def finish(self) -> None:
        """End the text and its line."""
        self._console.out("")


class Styled:
    """Shows a text in the terminal's width, each word when it is complete."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pending = ""  # not understood yet, because what follows decides
        self._word: list[tuple[str, str]] = []  # (text, style) of the word in progress
        self._spaces, self._column = "", 0
        self._at_start = True  # of a line
        self._fenced = self._bold = self._code = self._heading = False

    def feed(self, text: str) -> None:
        """Show the next part, all but what may still change its meaning."""
        self._pending += harmless(text)
        while self._pending and self._step(final=False):
            pass
        self._console.file.flush()

    def finish(self) -> None:
        """End the text and its line."""
        while self._pending and self._step(final=True):
            pass
        self._show_word()
        self._console.out("")

    def _step(self, final: bool) -> bool:
        """Understand the beginning of what is pending; False if it takes more text to do so."""
        if self._at_start and not final:
            if _MAYBE_FENCE.fullmatch(self._pending):
                return False
            if not self._fenced and _MAYBE_HEADING.fullmatch(self._pending):
                return False
        if self._at_start and (fence := _FENCE.match(self._pending)):
            self._fenced = not self._fenced
            self._take(fence.end())
            return True
        return self._step_in_code() if self._fenced else self._step_in_prose(final)

    def _step_in_code(self) -> bool:
        line, end, _ = self._pending.partition("\n")
        self._print(line + end, "cyan")
        self._take(len(line) + len(end))
        self._at_start = bool(end)
        self._column = 0
        return True

    def _step_in_prose(self, final: bool) -> bool:
        text = self._pending
        if text[0] == "\n":
            self._end_line()
            self._take(1)
        elif self._at_start and (heading := _HEADING.match(text)):
            self._heading, self._at_start = True, False
            self._take(heading.end())
        elif spaces := _SPACES.match(text):
            self._show_word()
            self._spaces += self._take(spaces.end()).replace("\t", "    ")
            self._at_start = False
        elif text[0] == "*" and len(text) < 3 and text in ("*", "**") and not final:
            return False
        elif text.startswith("**") and (self._bold or not text[2:3].isspace()) and not self._code:
            self._bold = not self._bold
            self._take(2)
        elif text[0] == "`":
            self._code = not self._code
            self._take(1)
        else:
            word = _WORD.match(text)
            assert word is not None
            self._word.append((self._take(word.end()), self._style()))
        self._at_start = self._at_start and text[0] == "\n"
        return True

    def _take(self, count: int) -> str:
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    def _style(self) -> str:
        styles = (("bold", self._bold or self._heading), ("cyan", self._code))
        return " ".join(style for style, on in styles if on)

    def _show_word(self) -> None:
        """Print the word and the spaces before it, on the next line if this one has no room."""
        if not self._word:
            return
        width = sum(cell_len(text) for text, _ in self._word)
        if self._column and self._column + len(self._spaces) + width > self._console.width:
            self._console.out("")
            self._column, self._spaces = 0, ""
        self._print(self._spaces, "")
        for text, style in self._word:
            self._print(text, style)
        self._column += len(self._spaces) + width
        self._word, self._spaces = [], ""

    def _end_line(self) -> None:
        """Print a line's end. Marks that were never closed end with it."""
        self._show_word()
        self._console.out("")
        self._column, self._spaces, self._at_start = 0, "", True
        self._bold = self._code = self._heading = False

    def _print(self, text: str, style: str) -> None:
        self._console.print(Text(text, style), end="", soft_wrap=True)
