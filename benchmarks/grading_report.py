"""The tables of benchmarks/grading.py, from its JSON: `python -m benchmarks.grading_report [FILE]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MIB = 2**20


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked of the grader, what was found, and whether it was reached."""
    asked = []
    if light := found.get("light"):
        ratio = light["stock"]["each"] / light["ours"]["1"]["each"]
        asked.append(
            _target("light course, one worker: at least 30x nbgrader per submission", f"{ratio:.0f}x", ratio >= 30)
        )
    if lab := found.get("lab"):
        ratio = lab["ours"]["1"]["each"] / lab["floor"]["each"]
        asked.append(_target("lab 01, one worker: at most 1.25x the floor", f"{ratio:.2f}x", ratio <= 1.25))
    for name in ("light", "lab"):
        if name in found:
            apart, compared = len(found[name]["points"]["differ"]), found[name]["points"]["compared"]
            asked.append(_target(f"{name}: every point as nbgrader's", f"{apart} of {compared} differ", apart == 0))
    if large := found.get("class"):
        first, last = large["own_first_quarter"], large["own_last_quarter"]
        text = f"{first / MIB:.0f} MiB in the first quarter, {last / MIB:.0f} in the last"
        asked.append(
            _target(f"{large['students']} in one go: flat memory of the coordinator", text, last < 1.15 * first)
        )
        for name, page in large["formgrader"].items():
            if name != "missing":
                worst = max(page["seconds"])
                what = f"formgrader opens, {name}, {page['rows']} row(s): under 3 s"
                asked.append(_target(what, f"{worst:.1f} s, of it {max(page['answered']):.1f} s server", worst < 3))
    return asked


def _target(what: str, found: str, reached: bool) -> dict[str, Any]:
    return {"what": what, "found": found, "reached": reached}


def show(found: dict[str, Any]) -> None:
    """Print all tables, no narrower than they are."""
    console = Console(width=max(Console().width, 120), highlight=False)
    for name in ("light", "lab"):
        if name in found:
            console.print(_course(name, found[name]))
            console.print(_below(found[name]))
    if "class" in found:
        _large(found["class"], console)
    for target in found["targets"]:
        console.print(f"{'reached' if target['reached'] else 'missed '}  {target['what']}: {target['found']}")


def _course(name: str, course: dict[str, Any]) -> Table:
    title = f"{name}: {course['students']} submissions of {course['assignment']}, {course['machine']['cpu']}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for head in ("wall s", "CPU s", "s each", "CPU s each", "of the floor", "faster than nbgrader", "MiB a worker"):
        table.add_column(head, justify="right")
    floor, stock = course["floor"], course["stock"]
    table.add_row("floor", "", "", f"{floor['each']:.4f}", f"{floor['cpu']:.4f}", "1.00", "", "")
    for jobs, ours in course["ours"].items():
        each = ours["each"]
        table.add_row(
            f"fourbit, {jobs} slot(s)", f"{ours['wall']:.1f}", f"{ours['cpu']:.1f}", f"{each:.4f}",
            f"{ours['cpu_each']:.4f}", f"{each * int(jobs) / floor['each']:.2f}", f"{stock['each'] / each:.1f}",
            f"{ours['worker_bytes'] / MIB:.0f}",
        )  # fmt: skip
    table.add_row(
        f"nbgrader ({stock['students']})", f"{stock['wall']:.1f}", f"{stock['cpu']:.1f}", f"{stock['each']:.4f}",
        f"{stock['cpu_each']:.4f}", f"{stock['each'] / floor['each']:.1f}", "1.0", "",
    )  # fmt: skip
    return table


def _below(course: dict[str, Any]) -> str:
    one, two, floor = course["ours"]["1"], course["ours"]["2"], course["floor"]
    runs = " and ".join(f"{run:.4f}" for run in floor["runs"])
    sample = course["stock"]["students"] < course["students"]
    lines = [
        f"Floor in its two runs {runs} s; of it calls {floor['asking']:.4f}, judging {floor['judging']:.4f}.",
        f"One slot: first result after {one['first']:.1f} s, reports {one['after']:.1f} s at the end; "
        f"from 1 to 2 slots {one['each'] / two['each']:.2f}x.",
        f"Whole command, one slot: {one['whole_each']:.3f} s for each submission, "
        f"{course['stock']['each'] / one['whole_each']:.1f}x nbgrader.",
        f"{course['points']['compared']} points of {course['points']['students']} submissions compared, "
        f"{len(course['points']['differ'])} differ.",
    ]
    if sample:
        lines.append(f"nbgrader graded a sample, the first {course['stock']['students']}.")
    lines += [f"  {item}" for item in course["points"]["differ"][:10]]
    return "\n".join(lines) + "\n"


def _large(large: dict[str, Any], console: Console) -> None:
    console.print(f"[bold]{large['students']} submissions in one go, {large['jobs']} slot(s)[/]")
    console.print(
        f"{large['wall']:.0f} s, {large['cpu']:.0f} CPU s, {large['each']:.4f} s each; reports {large['after']:.0f} s; "
        f"again with nothing changed {large['again_wall']:.0f} s; coordinator at most "
        f"{large['own_peak_with_reports'] / MIB:.0f} MiB; {large['failed']} failed"
    )
    for name, page in large["formgrader"].items():
        if name == "missing":
            console.print(f"formgrader was not opened: {page}")
        else:
            times = ", ".join(f"{second:.1f}" for second in page["seconds"])
            served = ", ".join(f"{second:.1f}" for second in page["answered"])
            console.print(f"formgrader, {name}: {page['rows']} rows after {times} s, from the server after {served} s")
    console.print()


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "results" / "grading.json")
    show(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
