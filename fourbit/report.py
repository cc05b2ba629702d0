"""What `fourbit check` and `fourbit run` print."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fourbit.execute import Execution, execute
from fourbit.execute import Progress as OnCell
from fourbit.lab import LabError

STYLES = {"passed": "green", "partly": "yellow", "missing": "dim"}


def check_notebook(path: Path, seconds: float, console: Console) -> float:
    """Examine the notebook at `path` on its lab's visible exam, print the panels and the total, and return the points.

    Raises:
        LabError: when the file is no notebook; ExamError: when its lab folder holds no exam.
    """
    from fourbit.exam.pack import load_pack

    pack = load_pack(path.parent / "exam")
    with tempfile.TemporaryDirectory() as folder:
        listener = Path(folder) / "verdicts.jsonl"
        with _progress(console, f"Checking {path.name}") as progress:
            done = execute(
                path,
                skip_measurements=True,
                seconds=seconds,
                environment={"FOURBIT_VERDICTS": str(listener)},
                progress=progress,
            )
        verdicts = _read_verdicts(listener)
    for name in pack.exercises:
        if name in verdicts:
            console.print(Text(verdicts[name]["text"], style=STYLES.get(verdicts[name]["status"], "red")))
            console.print()
    _print_failures(done, console)
    return _print_total({name: exercise.points for name, exercise in pack.exercises.items()}, verdicts, done, console)


def run_notebook(path: Path, seconds: float, output: Path | None, console: Console) -> int:
    """Run every cell of the notebook at `path`, write the executed copy, and return 0 when no cell failed, else 1."""
    target = output or Path("build") / "runs" / path.name
    if target.resolve() == path.resolve():
        raise LabError(f"{target} is the notebook itself; give --output another name")
    with _progress(console, f"Running {path.name}") as progress:
        done = execute(path, skip_measurements=False, seconds=seconds, progress=progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(done.notebook, target)
    _print_failures(done, console)
    console.print(f"Ran in {done.seconds:.0f} s. The executed copy is {target}", soft_wrap=True)
    return 1 if done.failures else 0


@contextmanager
def _progress(console: Console, title: str) -> Iterator[OnCell]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[cell]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, cell="")

        def on_cell(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, cell=name)

        yield on_cell


def _read_verdicts(listener: Path) -> dict[str, dict[str, Any]]:
    """The last verdict on each exercise; a line that a dying kernel cut short is left out."""
    if not listener.is_file():
        return {}
    verdicts = {}
    for line in listener.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            verdict = json.loads(line)
            verdicts[str(verdict["exercise"])] = verdict
        except (ValueError, KeyError, TypeError):
            continue
    return verdicts


def _print_failures(done: Execution, console: Console) -> None:
    if not done.failures:
        return
    console.print("[bold]Cells that did not end well[/]")
    for failure in done.failures:
        console.print(Text(f"  {failure}", style="red"))
    if done.ended_at:
        console.print("  Nothing after that cell could run.", style="red")
    console.print()


def _print_total(
    points: dict[str, float], verdicts: dict[str, dict[str, Any]], done: Execution, console: Console
) -> float:
    table = Table("exercise", "verdict", "points", box=None, pad_edge=False, header_style="bold")
    table.columns[2].justify = "right"
    for name, maximum in points.items():
        verdict = verdicts.get(name, {"status": "not checked", "points": 0.0})
        style = STYLES.get(verdict["status"], "red")
        table.add_row(name, Text(verdict["status"], style=style), f"{verdict['points']:g} / {maximum:g}")
    total = sum(float(verdicts[name]["points"]) for name in points if name in verdicts)
    table.add_row("total", "", f"{total:g} / {sum(points.values()):g}", style="bold")
    console.print(table)
    console.print(
        f"Visible exam, {done.seconds:.0f} s. Grading uses other inputs of the same kinds; "
        "written answers are read by a person.",
        style="dim",
    )
    return total
