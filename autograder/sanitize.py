"""Making what a student's code displayed harmless to whoever reads it in a browser.

Graded notebooks are opened in formgrader, inside the instructor's Jupyter, and by students as feedback. So no
script, no frame, no form and no request to another host may survive, from an output or from Markdown.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import nh3

from autograder.results import plain

MAX_TEXT = 256 * 2**10
MAX_IMAGE = 8 * 2**20
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_TAGS = {
    "a", "b", "blockquote", "br", "caption", "center", "code", "col", "colgroup", "dd", "del", "div", "dl", "dt", "em",
    "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd", "li", "ol", "p", "pre", "s", "samp", "small",
    "span", "strong", "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "u", "ul", "var",
}  # fmt: skip
_ATTRIBUTES = {
    "*": {"title"},
    "a": {"href"},
    "img": {"alt", "src", "width", "height"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan"},
}
# What CommonMark and browsers take for the start of a tag, comment or declaration.
_TAG_START = re.compile(r"<(?=/?[A-Za-z][A-Za-z0-9-]*(?:[\s/>]|$)|[!?])")
_PLAIN_TAG = re.compile(r"<(/?(?:b|i|em|strong|sub|sup|code|kbd|u|s)|br ?/?)>", re.IGNORECASE)
_ZERO_WIDTH = "\u200b"


def safe_html(text: str) -> str:
    """Return HTML of a fixed set of harmless tags; pictures only when they are embedded."""
    return nh3.clean(
        text[:MAX_TEXT],
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_filter,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel="noopener noreferrer nofollow",
    )


def safe_markdown(text: str) -> str:
    """Return Markdown in which no raw HTML is a tag any more; the text reads the same.

    A zero-width space after "<" is enough, and harmless inside code and formulas. Plain tags such as <b> stay.
    """

    def defuse(match: re.Match[str]) -> str:
        start = match.start()
        return "<" if _PLAIN_TAG.match(text, start) else "<" + _ZERO_WIDTH

    return _TAG_START.sub(defuse, text)


def safe_outputs(outputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return nbformat outputs with only harmless content, of bounded size."""
    cleaned = (_safe_output(output) for output in outputs)
    return [output for output in cleaned if output is not None]


def _safe_output(output: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return {"output_type": "stream", "name": name, "text": _ansi_only(_joined(output.get("text", "")))}
    if kind == "error":
        trace = output.get("traceback")
        lines = [_ansi_only(_joined(line)) for line in trace][:200] if isinstance(trace, list) else []
        name, value = plain(output.get("ename", ""), 200), plain(output.get("evalue", ""))
        return {"output_type": "error", "ename": name, "evalue": value, "traceback": lines}
    if kind in ("display_data", "execute_result"):
        data = _safe_data(output.get("data"))
        if not data:
            return None
        entry: dict[str, Any] = {"output_type": kind, "data": data, "metadata": {}}
        return entry | ({"execution_count": None} if kind == "execute_result" else {})
    return None


def _safe_data(data: Any) -> dict[str, str]:
    if not isinstance(data, Mapping):
        return {}
    kept: dict[str, str] = {}
    for mime, value in data.items():
        text = _joined(value)
        if mime == "text/plain":
            kept[mime] = _ansi_only(text)
        elif mime == "text/html":
            kept[mime] = safe_html(text)
        elif mime in ("text/markdown", "text/latex"):
            kept[mime] = safe_markdown(text[:MAX_TEXT])
        elif mime in _IMAGES and len(text) <= MAX_IMAGE and re.fullmatch(r"[A-Za-z0-9+/=\s]*", text):
            kept[mime] = text
        elif mime == "image/svg+xml" and len(text) <= MAX_IMAGE:
            # In an <img>, a drawing runs no script and loads nothing.
            drawn = base64.b64encode(text.encode("utf-8", "replace")).decode()
            kept["text/html"] = f'<img alt="drawing" src="data:image/svg+xml;base64,{drawn}">'
    return kept


def _filter(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "src":
        return value if re.match(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,", value) else None
    if attribute == "href":
        return value if re.match(r"https?://|mailto:|#", value, re.IGNORECASE) else None
    return value


def _joined(value: Any) -> str:
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _ansi_only(text: str) -> str:
    """Keep colors (nbconvert turns them into spans) and drop every other control character."""
    text = text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"\x1b(?!\[[0-9;]*m)|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]", "", text)
