"""What is told of exceptions and warnings when they cross between a submission and its test cells."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def class_names(kind: type) -> list[str]:
    return [f"{base.__module__}:{base.__qualname__}" for base in kind.__mro__]


def text_of(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except BaseException:
        return "(its message cannot be shown)"


def place_of(error: BaseException) -> str:
    """The line of the student's cell that raised."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "__main__":
            found = f"line {trace.tb_lineno} of {trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return found


def warning_of(item: warnings.WarningMessage) -> list[Any]:
    return [class_names(item.category), str(item.message)[:500], item.lineno]


def raised_by(name: str, text: str) -> BaseException:
    kind = getattr(sys.modules["builtins"], name, RuntimeError)
    return kind(text) if isinstance(kind, type) and issubclass(kind, BaseException) else RuntimeError(text)
