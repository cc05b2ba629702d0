"""The tables of benchmarks/decode.py, from its JSON: `python -m benchmarks.report [FILE]`."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Laps = list[dict[str, float]]
LIMIT = 4.6 * 2**30  # bytes that the 7B's run may take at most


def render(found: dict[str, Any]) -> RenderableType:
    """Return all tables: one for each model and number of threads, and the ratios below it."""
    roofs = ", ".join(
        f"{roof['bytes_per_second'] / 1e9:.1f} GB/s with {count} thread(s)" for count, roof in found["roof"].items()
    )
    machine = found["machine"]
    parts: list[RenderableType] = [Text(f"{machine['cpu']}, {machine['cores']} cores. Read roof: {roofs}.")]
    for name, model in found["models"].items():
        for threads, laps in model["laps"].items():
            parts += [Text(), _table(name, model, threads, laps), *_ratios(laps)]
        parts += [Text(f"{who} takes no part: {why}", style="yellow") for who, why in model["missing"].items()]
        parts += _memory(model["memory"])
    for target in found["targets"]:
        parts.append(Text(f"{'reached' if target['reached'] else 'missed '}  {target['what']}: {target['found']}"))
    return Group(*parts, Text(f"\nThe whole run took {found['seconds'] / 60:.1f} minutes."))


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the course asks of the hollow 7B, what was found, and whether it was reached."""
    model, asked = found["models"].get("hollow"), list[dict[str, Any]]()
    if model is None:
        return asked
    for threads, laps in model["laps"].items():
        one = threads == "1"
        for what, each in ratios(laps).items():
            least = 1.1 if one and what == "decode" else 1.0
            ratio = statistics.median(each)
            wanted = f"{what}, {threads} thread(s), at least {least}x llama.cpp"
            asked.append(_target(wanted, f"{ratio:.2f}x", ratio >= least))
        least = 0.55 if one else 0.80
        share = _share(model, threads, laps["fourbit"]["decode"])
        wanted = f"{threads} thread(s), at least {least:.0%} of the read roof"
        asked.append(_target(wanted, f"{share:.0%}", share >= least))
    full = model["memory"].get("fourbit, context full")
    if full:
        peak = full["peak"]
        asked.append(_target("peak with the context full, below 4.6 GiB", f"{peak / 2**30:.2f} GiB", peak < LIMIT))
        asked.append(_target("within 3 % of its plan", f"{full['ratio'] - 1:+.1%}", abs(full["ratio"] - 1) <= 0.03))
    return asked


def _target(what: str, found: str, reached: bool) -> dict[str, Any]:
    return {"what": what, "found": found, "reached": reached}


def _share(model: dict[str, Any], threads: str, decode: Laps) -> float:
    """Return the bytes that decoding read per second, as a share of the read roof of the same round: the median."""
    read = [model["read_for_each_token"] / lap["wall"] for lap in decode]
    return statistics.median(rate / roof for rate, roof in zip(read, model["roofs"][threads], strict=True))


def _table(name: str, model: dict[str, Any], threads: str, laps: dict[str, dict[str, Laps]]) -> Table:
    title = f"{name}: {model['file']}, {threads} thread(s)"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("engine", no_wrap=True, min_width=20)
    for head in ("decode tok/s", "range", "CPU s/token", "of the roof", "prefill tok/s (tokens)"):
        table.add_column(head, justify="right", no_wrap=True)
    for who, kinds in laps.items():
        decode = kinds.get("decode", [])
        if not decode:
            continue
        wall, cpu = (statistics.median(lap[clock] for lap in decode) for clock in ("wall", "cpu"))
        speeds = [1 / lap["wall"] for lap in decode]
        table.add_row(
            who, f"{1 / wall:.2f}", f"{min(speeds):.2f}-{max(speeds):.2f}", f"{cpu:.4f}",
            "" if who.endswith("layers") else f"{_share(model, threads, decode):.0%}", _prefill(kinds),
        )  # fmt: skip
    return table


def _prefill(kinds: dict[str, Laps]) -> str:
    found = []
    for what, laps in kinds.items():
        if what.startswith("prefill "):
            count = int(what.split()[1])
            found.append(f"{count / statistics.median(lap['wall'] for lap in laps):.1f} ({count})")
    return ", ".join(found)


def ratios(laps: dict[str, dict[str, Laps]], clock: str = "wall") -> dict[str, list[float]]:
    """Return {what: how many times faster than llama.cpp ours was, in each round}."""
    ours, theirs = laps.get("fourbit", {}), laps.get("llama.cpp", {})
    return {
        what: [b[clock] / a[clock] for a, b in zip(ours[what], theirs[what], strict=True)]
        for what in ours if what in theirs
    }  # fmt: skip


def _ratios(laps: dict[str, dict[str, Laps]]) -> list[Text]:
    found = ratios(laps)
    if not found:
        return []
    parts = [f"{what} {statistics.median(each):.2f}x ({min(each):.2f}-{max(each):.2f})" for what, each in found.items()]
    cpu = statistics.median(ratios(laps, "cpu")["decode"])
    return [Text(f"ours / llama.cpp, median of the rounds: {'; '.join(parts)}; decode by processor time {cpu:.2f}x")]


def _memory(memory: dict[str, Any]) -> list[Text]:
    lines = []
    for who, held in memory.items():
        if isinstance(held, dict):
            plan = held["plan"]["total"]
            lines.append(Text(
                f"{who}, kv {held['kv']}: peak {held['peak'] / 2**30:.2f} GiB, planned {plan / 2**30:.2f} GiB "
                f"({held['ratio'] - 1:+.1%}); that prompt was read at {held['prefill_tokens_per_second']:.1f} tok/s"
            ))  # fmt: skip
        else:
            lines.append(Text(f"{who} {held / 2**30:.2f} GiB"))
    return lines


def show(found: dict[str, Any]) -> None:
    """Print the tables, no narrower than they are."""
    console = Console()
    Console(width=max(console.width, 110)).print(render(found))


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "results" / "decode.json")
    show(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
