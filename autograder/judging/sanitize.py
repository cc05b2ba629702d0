"""Making what a student's code displayed harmless to whoever reads it in a browser.

Graded notebooks are opened in formgrader, inside the instructor's Jupyter, and by students as feedback. So no
script, no frame, no form and no request to another host may survive, from an output or from Markdown.
"""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Collection, Iterable, Mapping
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
# What a browser takes for the start of a tag, comment or declaration; CommonMark takes less. nbconvert shows some
# Markdown (a fence called mermaid) without escaping it, so the browser's rule counts.
_TAG_START = re.compile(r"<(?=[A-Za-z/!?])")
_KEPT_TAG = re.compile(
    r"<(?:/?(?:b|i|em|strong|sub|sup|code|kbd|u|s)|br ?/?|(?:https?://|mailto:)[^\s<>=\"'`]*)>", re.IGNORECASE
)
_MATH = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)
_PICTURE = re.compile(
    r"(!\[[^][\n\\`]*\]\((?:data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]*|attachment:[A-Za-z0-9_.+-]+)\))"
)
_ATTACHED = re.compile(r"\(attachment:([A-Za-z0-9_.+-]+)\)$")
# Where a link's target or a definition begins, unless it leads to the web or stays on the page.
_LINK = re.compile(r"\](?=[(:](?!\s*<?(?:https?://|mailto:|#)))", re.IGNORECASE)
_ZERO_WIDTH = "\u200b"
# What a browser would run when a file is opened by its address: formgrader serves a submission's files as they are.
_ACTIVE = frozenset({"application/xhtml+xml", "application/xml", "text/html", "text/xml", "text/xsl", "message/rfc822"})


def safe_html(text: str) -> str:
    """Return HTML of a fixed set of harmless tags; pictures only when they are embedded, and never without a name."""
    named = len(re.findall(r"<img\b", text, re.IGNORECASE)) <= len(re.findall(r"\balt\s*=", text, re.IGNORECASE))
    return nh3.clean(
        text[:MAX_TEXT],
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_filter,
        set_tag_attribute_values=None if named else {"img": {"alt": "picture"}},
        url_schemes={"http", "https", "mailto", "data"},
        link_rel="noopener noreferrer nofollow",
    )


def safe_markdown(text: str, attachments: Collection[str] = ()) -> str:
    """Return Markdown in which no raw HTML is a tag any more; the text reads the same.

    Links stay when they lead to the web or within the page: one to a file of the submission would open it inside
    Jupyter, and "javascript:" would run there. Pictures stay when they are embedded, so that nothing is fetched.

    Args:
        attachments: names of the cell's attachments; a picture of a missing one would break the whole page.
    """
    text = _MATH.sub(lambda found: _TAG_START.sub("< ", found[0]), text)
    text = _TAG_START.sub(lambda m: "<" if _KEPT_TAG.match(text, m.start()) else "<" + _ZERO_WIDTH, text)
    return "".join(
        part if _PICTURE.fullmatch(part) and _is_there(part, attachments) else _without_targets(part)
        for part in _PICTURE.split(text)
    )


def safe_attachments(attachments: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return a Markdown cell's attached pictures by name; whatever is no embedded picture is left out."""
    bundles = {name: _safe_data(bundle) for name, bundle in attachments.items()}
    pictures = {name: {mime: data[mime] for mime in _IMAGES if mime in data} for name, data in bundles.items()}
    return {name: data for name, data in pictures.items() if data}


def safe_name(name: str) -> str:
    """Return the name under which a student's file may lie beside the graded notebook: never one that a browser runs.

    formgrader serves these files from Jupyter's own address, with whatever type their name stands for.
    """
    kind, _ = mimetypes.guess_type(name)
    return f"{name}.txt" if kind in _ACTIVE or (kind or "").endswith("+xml") else name


def _without_targets(text: str) -> str:
    """Cut links and pictures from their targets with a zero-width space, which is harmless in code and formulas."""
    return _LINK.sub("]" + _ZERO_WIDTH, text.replace("![", f"!{_ZERO_WIDTH}["))


def _is_there(picture: str, attachments: Collection[str]) -> bool:
    attached = _ATTACHED.search(picture)
    return attached is None or attached[1] in attachments


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
