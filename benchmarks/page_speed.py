"""What a page of the site costs a reader: `python -m benchmarks.page_speed [SITE]`.

Builds the site anew in an empty folder first (a cold build, whose time is reported) unless a built SITE is named.
Then visits every page twice in Chromium with an empty cache, the processor slowed down 4 times and every file sent
with gzip, and reports the better visit: largest contentful paint, total blocking time (of each task longer than 50 ms
what is above them) and the bytes that came. Writes benchmarks/results/pages.json and prints it as a table.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import http.server
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "pages.json"
SLOWER, VISITS = 4, 2
OBSERVE = """
window.seen = {paint: 0, blocked: 0};
new PerformanceObserver(list => { for (const e of list.getEntries()) seen.paint = e.startTime; })
    .observe({type: "largest-contentful-paint", buffered: true});
new PerformanceObserver(list => { for (const e of list.getEntries()) seen.blocked += Math.max(0, e.duration - 50); })
    .observe({type: "longtask", buffered: true});
"""


class Gzipped(http.server.SimpleHTTPRequestHandler):
    """Files as a host sends them: text compressed."""

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file() or not self.path.endswith((path.name, "/")):
            return super().send_head()
        data = packed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        if data[:2] == b"\x1f\x8b":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@functools.cache
def packed(path: Path) -> bytes:
    """A file's bytes, compressed where that helps."""
    data = path.read_bytes()
    return min(data, gzip.compress(data), key=len)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    handler = functools.partial(Gzipped, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()


def build(out: Path) -> float:
    """Build the site in an empty copy of what it is made of; return the seconds."""
    source = out / "source"
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("site", "lecture_notes", "labs", "fourbit"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.yml"), *ROOT.glob("*.md"), ROOT / "LICENSE"):
        shutil.copy(path, source)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out / "site")]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=source, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True)
    if done.returncode:
        sys.exit(f"The site could not be built:\n{done.stderr.decode()}")
    return time.perf_counter() - began


def visit(browser: Any, address: str) -> dict[str, float]:
    """One visit with an empty cache: milliseconds and bytes."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(OBSERVE)
    devtools, received = context.new_cdp_session(page), list[float]()
    devtools.send("Network.enable")
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    devtools.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    page.goto(address, wait_until="networkidle")
    page.wait_for_function("!document.querySelector('.arithmatex:not([data-typeset])')")
    page.wait_for_load_state("networkidle")
    seen = page.evaluate("seen")
    context.close()
    return {"paint_ms": seen["paint"], "blocked_ms": seen["blocked"], "bytes": sum(received), "files": len(received)}


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """The better of the visits of every page, by its address."""
    from playwright import sync_api

    found: dict[str, dict[str, float]] = {}
    with serving(folder) as server, sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for path in track(sorted(folder.rglob("index.html")), "Visiting", console=Console(stderr=True)):
            name = path.parent.relative_to(folder).as_posix().removeprefix(".")
            visits = [visit(browser, f"{server}{name}/" if name else server) for _ in range(VISITS)]
            best = {what: min(one[what] for one in visits) for what in ("paint_ms", "blocked_ms", "files")}
            found[name or "home"] = best | {"bytes": max(one["bytes"] for one in visits)}
        browser.close()
    return found


def show(found: dict[str, Any]) -> None:
    table = Table("page", *("largest paint, ms", "blocked, ms", "kB", "files"))
    for name, page in found["pages"].items():
        numbers = (page["paint_ms"], page["blocked_ms"], page["bytes"] / 1e3, page["files"])
        table.add_row(name, *(f"{number:,.0f}" for number in numbers))
    Console().print(table)
    build = f"cold build in {found['build_seconds']:.1f} s, " if found["build_seconds"] else ""
    print(f"{build}{found['cores']} cores, load {found['load_before']:.1f} before; processor slowed {SLOWER} times")


def built_site(name: str) -> Path:
    """The folder of a built site; argparse tells what is wrong with another."""
    if not (Path(name) / "index.html").is_file():
        raise argparse.ArgumentTypeError(f"{name} holds no index.html: build a site with `mkdocs build -d {name}`")
    return Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", nargs="?", type=built_site, help="a built site; without it, one is built anew")
    site: Path | None = parser.parse_args().site
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        seconds = None if site else build(Path(folder))
        pages = measure(site or Path(folder) / "site")
    found = {"build_seconds": seconds, "cores": os.cpu_count(), "load_before": load, "system": platform.platform(),
             "slower": SLOWER, "pages": pages}  # fmt: skip
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found)


if __name__ == "__main__":
    main()
