"""A CSV file of which only some fields change: every other byte stays as it was.

Learning management systems are particular about the files they read back: quoting, line ends, ids with leading zeros.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from autograder.results import GradingError

_MOST_BYTES = 64 * 2**20


@dataclass
class Sheet:
    """A parsed CSV file.

    Attributes:
        rows: fields as they stand in the file, quotes included; `ends` has the line end of each row.
        separator: what stands between fields.
    """

    rows: list[list[str]]
    ends: list[str]
    separator: str

    @property
    def titles(self) -> list[str]:
        """The fields of the first row."""
        return [self.value(0, column) for column in range(len(self.rows[0]))]

    def column(self, *names: str) -> int | None:
        """Return the column with one of these titles, the first name that is there; case does not matter."""
        titles = [title.casefold().strip("\ufeff ") for title in self.titles]
        return next((titles.index(name.casefold()) for name in names if name.casefold() in titles), None)

    def value(self, row: int, column: int | None) -> str:
        """Return the text of a field; "" for none."""
        if column is None or column >= len(self.rows[row]):
            return ""
        field = self.rows[row][column].removeprefix("\ufeff")
        return field[1:-1].replace('""', '"') if field.startswith('"') else field

    def put(self, row: int, column: int, text: str) -> None:
        """Set a field, quoted where the one it replaces was or where it has to be."""
        while len(self.rows[row]) <= column:
            self.rows[row].append("")
        quoted = self.rows[row][column].startswith('"') or re.search(r'["\r\n]', text) or self.separator in text
        self.rows[row][column] = '"' + text.replace('"', '""') + '"' if quoted else text

    def to_bytes(self) -> bytes:
        lines = (self.separator.join(row) + end for row, end in zip(self.rows, self.ends, strict=True))
        return "".join(lines).encode("utf-8")


def read_sheet(path: Path) -> Sheet:
    """Read a CSV file (UTF-8; comma, semicolon or tab between fields).

    Raises:
        GradingError: when it cannot be read or is no CSV file.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise GradingError(f"{path} is larger than {_MOST_BYTES // 2**20} MiB: not the file of one class")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise GradingError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GradingError(f"{path} is not UTF-8; download it again, as CSV and without opening it elsewhere") from None
    head = re.match(r'(?:"(?:[^"]|"")*"|[^"\r\n])*', text)
    outside = re.sub(r'"(?:[^"]|"")*"', "", head[0] if head else "")
    separator = max(",;\t", key=outside.count)
    sheet = Sheet(*_parsed(text, separator), separator)
    if not sheet.rows or not outside.count(separator):
        raise GradingError(f"{path} is no CSV file with a header line")
    return sheet


def _parsed(text: str, separator: str) -> tuple[list[list[str]], list[str]]:
    field = re.compile(
        rf'(\ufeff?"(?:[^"]|"")*"|(?!")[^{re.escape(separator)}\r\n]*)({re.escape(separator)}|\r\n|\n|\r|\Z)'
    )
    rows: list[list[str]] = []
    ends: list[str] = []
    row: list[str] = []
    at = 0
    while at < len(text) or row:
        found = field.match(text, at)
        if found is None:
            raise GradingError(
                f"row {len(rows) + 1} of the CSV file has a quote that does not close where it should: "
                f"{text[at : at + 40]!r}"
            )
        row.append(found[1])
        at = found.end()
        if found[2] != separator:
            rows.append(row)
            ends.append(found[2])
            row = []
    return rows, ends
