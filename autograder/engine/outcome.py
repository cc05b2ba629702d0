"""What the engine reports: one cell's outcome, one session call's reply, and the checks on outputs from a
submission."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from fourbit.errors import FourbitError

Status = Literal["ok", "error", "timeout", "crashed", "out of memory", "output limit"]
STATUSES: frozenset[str] = frozenset(("ok", "error", "timeout", "crashed", "out of memory", "output limit"))

Output = dict[str, Any]

_MIMES = frozenset(
    [
        "text/plain",
        "text/html",
        "text/markdown",
        "text/latex",
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/svg+xml",
        "application/json",
    ]
)
_MAX_TEXT = 64 * 2**20
_MAX_DEPTH = 40
_CLEAR_BYTES = 256  # room for a request to clear, which makes room itself


class EngineError(FourbitError):
    """The engine itself could not do its work: a zygote that does not start, an unknown handler, a mode not asked
    for."""


@dataclass(frozen=True)
class CellOutcome:
    """How one cell ran. ``outputs`` are nbformat 4 outputs, checked; ``seconds`` is wall time; ``message`` is empty
    when ok.

    ``kept``: the notebook's state after the cell includes what the cell did. It does for ``ok``, ``error``, ``output
    limit`` (the cell ran to its end, its output was cut) and a ``timeout`` that reacted to the interrupt. ``limit``:
    the name of the limit that was hit ("memory_bytes", ...), "" when none was.
    """

    status: Status
    outputs: tuple[Output, ...] = ()
    seconds: float = 0.0
    message: str = ""
    kept: bool = True
    limit: str = ""


@dataclass(frozen=True)
class SessionReply:
    """How one call of a session's handler went. ``payload`` is empty unless ``status`` is ``ok``; ``output`` is what
    the call printed, cut at 64 KiB; ``limit`` is the name of the limit that was hit, "" when none was; ``outputs`` is
    what an answer of :meth:`Runner.ask` displayed."""

    status: Status
    payload: bytes = b""
    seconds: float = 0.0
    message: str = ""
    output: str = ""
    limit: str = ""
    outputs: tuple[Output, ...] = ()


@dataclass
class OutputList:
    """Collects the outputs of one cell on the grader's side, up to ``budget`` bytes: merges streams, honors requests to
    clear and to update."""

    budget: int
    items: list[Output] = field(default_factory=list)
    _ids: dict[str, list[int]] = field(default_factory=dict)
    _clear_next: bool = False
    _held: int = 0

    def add(self, data: bytes) -> None:
        """Take one output as JSON bytes from a submission; what is no output, or above the budget, is passed over."""
        if self._held + len(data) > self.budget + _CLEAR_BYTES:
            return
        message = parse_json(data)
        if not isinstance(message, dict):
            return
        kind = message.get("output_type")
        if kind == "clear":
            self._clear_next = True
            if message.get("wait") is not True:
                self._clear()
            return
        output = checked_output(message)
        if output is None:
            return
        if self._clear_next:
            self._clear()
        self._held += len(data)
        name = message.get("display_id")
        if kind == "update_display_data":
            for index in self._ids.get(str(name), ()):
                self.items[index] |= {"data": output["data"], "metadata": output["metadata"]}
        elif kind == "stream" and self.items and self.items[-1].get("name") == output["name"]:
            self.items[-1]["text"] += output["text"]
        else:
            if isinstance(name, str):
                self._ids.setdefault(name, []).append(len(self.items))
            self.items.append(output)

    def _clear(self) -> None:
        self.items.clear()
        self._ids.clear()
        self._clear_next = False
        self._held = 0


def parse_json(data: bytes) -> Any:
    """JSON from an untrusted process: None for what is not JSON, is nested too deeply or holds NaN or an infinity."""
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if _is_shallow(value, _MAX_DEPTH) else None


def _refuse(name: str) -> None:
    raise ValueError(name)


def _is_shallow(value: Any, depth: int) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)  # 1e999 reads as infinity
    if isinstance(value, dict):
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in value)
    return True


def checked_output(message: dict[str, Any]) -> Output | None:
    """One nbformat 4 output with only known fields of the right types, or None."""
    kind = message.get("output_type")
    if kind == "stream":
        name = "stderr" if message.get("name") == "stderr" else "stdout"
        text = message.get("text")
        return {"output_type": "stream", "name": name, "text": _text(text)} if isinstance(text, str) else None
    if kind == "error":
        lines = message.get("traceback")
        traceback = [_text(line) for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
        names = (_text(message.get("ename")), _text(message.get("evalue")))
        return {"output_type": "error", "ename": names[0], "evalue": names[1], "traceback": traceback}
    if kind in ("display_data", "update_display_data", "execute_result"):
        shown = "display_data" if kind == "update_display_data" else kind
        output: Output = {"output_type": shown, **_bundle(message)}
        if kind == "execute_result":
            count = message.get("execution_count")
            output["execution_count"] = count if type(count) is int and 0 <= count < 2**31 else None
        return output
    return None


def _bundle(message: dict[str, Any]) -> dict[str, Any]:
    data = message.get("data")
    metadata = message.get("metadata")
    kept = {}
    for mime, value in data.items() if isinstance(data, dict) else ():
        if mime == "application/json":
            kept[mime] = value
        elif mime in _MIMES and isinstance(value, str):
            kept[mime] = _text(value)
    sizes = {}
    for mime, value in metadata.items() if isinstance(metadata, dict) else ():
        if mime in kept and isinstance(value, dict):
            known = {key: value[key] for key in ("width", "height") if type(value.get(key)) in (int, float)}
            sizes[mime] = known | ({"needs_background": "light"} if value.get("needs_background") == "light" else {})
    return {"data": kept, "metadata": sizes}


def _text(value: Any) -> str:
    """A string that can be encoded (a lone surrogate cannot)."""
    return value.encode("utf-8", "replace").decode("utf-8")[:_MAX_TEXT] if isinstance(value, str) else ""
