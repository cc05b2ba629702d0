"""The panel that shows a verdict, as text for terminals and as HTML for notebooks and feedback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourbit.exam.verdict import Finding, Verdict

_STYLE = """
.fourbit-panel{font:14px/1.45 system-ui,sans-serif;border:1px solid #8888;border-left:4px solid var(--fb);
border-radius:4px;padding:8px 12px;margin:4px 0;max-width:46em;color:inherit}
.fourbit-panel .fb-head{display:flex;gap:.8em;align-items:baseline;font-weight:600}
.fourbit-panel .fb-points{margin-left:auto;font-variant-numeric:tabular-nums}
.fourbit-panel .fb-bar{height:4px;background:#8884;border-radius:2px;margin:6px 0}
.fourbit-panel .fb-bar i{display:block;height:4px;border-radius:2px;background:var(--fb)}
.fourbit-panel ul{list-style:none;margin:4px 0;padding:0}
.fourbit-panel li{padding-left:1.6em;text-indent:-1.6em}
.fourbit-panel li b{display:inline-block;width:1.6em;text-indent:0}
.fourbit-panel .fb-yes b{color:#2a9d5c}.fourbit-panel .fb-no b{color:#d55e00}
.fourbit-panel code{font-size:.93em}
.fourbit-panel .fb-why{margin:8px 0 0;padding:8px 10px;background:#8882;border-radius:4px}
.fourbit-panel .fb-dim{opacity:.75}
"""
_COLORS = {"passed": "#2a9d5c", "partly": "#e69f00"}
_HEADLINES = {
    "passed": "passed",
    "partly": "partly right",
    "failed": "not yet right",
    "error": "raised an error",
    "timeout": "ran too long",
    "crashed": "crashed",
    "out of memory": "ran out of memory",
    "missing": "not done yet",
}


def as_text(verdict: Verdict) -> str:
    """The panel as plain text, one fact a line."""
    lines = [f"{verdict.exercise}: {_HEADLINES[verdict.status]}, {verdict.points:g} of {verdict.max_points:g} points"]
    if verdict.message:
        lines.append(f"  {verdict.message}")
    for finding in verdict.findings:
        lines.append(f"  [{_mark(finding)}] {finding.name}")
        if not finding.held:
            lines.append(f"        {_counterexample(finding)}")
    if verdict.mistake:
        lines += [
            f"  This looks like: {verdict.mistake.name}",
            f"    {verdict.mistake.why}",
            f"    read {verdict.mistake.link}",
        ]
    if verdict.printed:
        lines.append("  your function printed: " + verdict.printed.strip().replace("\n", "\n    "))
    return "\n".join(lines)


def as_html(verdict: Verdict, escape: Callable[[str], str]) -> str:
    """The panel as one self-contained HTML element, readable in light and dark themes."""
    share = 100 * verdict.points / verdict.max_points if verdict.max_points else 0
    parts = [
        f"<style>{_STYLE}</style>"
        f'<div class="fourbit-panel" role="status" style="--fb:{_COLORS.get(verdict.status, "#d55e00")}">'
        f'<div class="fb-head"><code>{escape(verdict.exercise)}</code><span>{_HEADLINES[verdict.status]}</span>'
        f'<span class="fb-points">{verdict.points:g} / {verdict.max_points:g} points</span></div>'
        f'<div class="fb-bar"><i style="width:{share:.0f}%"></i></div>'
    ]
    if verdict.message:
        parts.append(f"<div>{escape(verdict.message)}</div>")
    if verdict.findings:
        parts.append("<ul>" + "".join(_item(f, escape) for f in verdict.findings) + "</ul>")
    if verdict.mistake:
        mistake = verdict.mistake
        parts.append(
            f'<div class="fb-why"><strong>This looks like: {escape(mistake.name)}</strong><br>{escape(mistake.why)}'
            f'<br><span class="fb-dim">Read: <code>{escape(mistake.link)}</code></span></div>'
        )
    if verdict.printed:
        parts.append(f"<details><summary>your function printed</summary><pre>{escape(verdict.printed)}</pre></details>")
    return "".join(parts) + "</div>"


def _item(finding: Finding, escape: Callable[[str], str]) -> str:
    if finding.held:
        return f'<li class="fb-yes"><b>✓</b>{escape(finding.name)}</li>'
    return (
        f'<li class="fb-no"><b>{"◐" if finding.earned > 0 else "✗"}</b>{escape(finding.name)}<br>'
        f'<span class="fb-dim">{escape(_counterexample(finding))}</span></li>'
    )


def _mark(finding: Finding) -> str:
    return "x" if finding.held else ("~" if finding.earned > 0 else " ")


def _counterexample(finding: Finding) -> str:
    return f"{finding.case}: {finding.message}" if finding.case else finding.message
