"""The instructor's commands, which `fourbit` finds through the entry-point group "fourbit.commands".

Nothing heavy is imported here: a student's `fourbit --help` loads this module where no grading tool is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from autograder.provisioner.cli import app as kernel_app
from fourbit.errors import FourbitError

if TYPE_CHECKING:
    from autograder.builder.write import Written
    from autograder.jail import JailMode, Limits
    from autograder.results import SubmissionRecord

PANEL = "Teach"

Course = Annotated[
    Path, typer.Option("--course", "-c", help="The course folder, which holds nbgrader_config.py.", show_default="here")
]
Assignment = Annotated[str, typer.Argument(metavar="ASSIGNMENT", help="The assignment's name, such as 01-pruning.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Submissions graded at the same time.",
        show_default="one for each core, fewer where memory is short",
    ),
]

# A test holds this text against the defaults themselves, whose module a student's `fourbit --help` does not import.
LimitFlags = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="What one submission may use; may repeat. Bytes, with K, M or G: memory=4G of all its processes together, "
        "disk=256M written, output=4M kept of one cell. Seconds: cell-seconds=60 and notebook-seconds=600 of wall "
        "time, cpu-seconds=600 of one process. At the same time: processes=64, with threads; open-files=512. Also in "
        "nbgrader_config.py, as c.FourbitGrade.memory_bytes and so on.",
        show_default="as written here, and a cell's time as in c.Execute.timeout of the course",
    ),
]


class ToolsError(FourbitError):
    """The grading tools are not installed, or do not work on this system."""


def register(app: typer.Typer) -> None:
    """Add the instructor's commands to `app`."""
    for command in (build, course, collect, grade, report, export, demo):
        app.command(rich_help_panel=PANEL)(command)
    app.add_typer(kernel_app, name="kernel", rich_help_panel=PANEL)


def describe_sandbox() -> tuple[bool, str]:
    """Whether submissions are isolated when graded on this machine, and by what, for `fourbit doctor`."""
    from autograder.jail import JailMode, describe

    report = describe()
    return report.mode is not JailMode.PLAIN, " ".join(report.details)


def build(
    labs: Annotated[
        list[str] | None, typer.Argument(metavar="[LAB]...", help="Names or numbers; all labs without.")
    ] = None,
    seed_file: Annotated[
        Path | None, typer.Option(help="File with a secret line: the hidden exam's cases are drawn from it.")
    ] = None,
) -> None:
    """Build labs from solutions/: the student's in labs/, the instructor's and the hidden exam in build/.

    A notebook that somebody has worked in is never overwritten.
    """
    with grading_tools():
        from autograder.builder.build import build_all
        from autograder.builder.pack import find_seed

        console = Console()
        root = find_sources()
        seed = find_seed(root / "build", seed_file)
        with console.status("Building: every reference and every mistake runs on every case"):
            reports = build_all(root, lab_names(root, labs), seed=seed)
        for report in reports:
            changed = sum(file.action in ("created", "updated") for file in report.files)
            console.print(
                f"[bold]{report.lab}[/]  {len(report.exercises)} exercises, {report.points:g} points, "
                f"{report.cells} cells; {changed or 'no'} files written"
            )
            for file in report.kept:
                console.print(f"  {file}", markup=False, soft_wrap=True)
        if seed.public:
            console.print(
                "Hidden cases come from the public seed; for a course that counts, give --seed-file.", style="dim"
            )


def course(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The course folder to make or to bring up to date.")],
    labs: Annotated[
        list[str] | None, typer.Argument(metavar="[LAB]...", help="Names or numbers; all labs without.")
    ] = None,
    course_id: Annotated[
        str | None,
        typer.Option(help="nbgrader's name of the course.", show_default='as it was made, "fourbit" for a new one'),
    ] = None,
) -> None:
    """Make a course folder for nbgrader, formgrader and `fourbit grade`, with the labs that were built.

    On a course made before, it brings in what was built anew. What you changed there is never overwritten.
    """
    with grading_tools():
        from autograder.course import create_course

        root = find_sources()
        report = create_course(folder, lab_names(root, labs), build=root / "build", course_id=course_id)
        console = Console()
        changed = sum(file.action in ("created", "updated") for file in report.files)
        text = f"{report.path} holds {', '.join(report.labs)}; {changed or 'no'} files written."
        console.print(text, soft_wrap=True, markup=False, highlight=False)
        for file in report.files:
            if file.action == "kept":
                console.print(f"  {_kept(file)}", soft_wrap=True, markup=False, highlight=False)
        console.print(
            f"Put what students hand in under {report.path / 'submitted'}/STUDENT/LAB/ (`fourbit collect` sorts the "
            "downloads of learning management systems), then:",
            soft_wrap=True,
        )
        console.print(f"  fourbit grade {report.labs[0]} --course {report.path}", soft_wrap=True, markup=False)


def collect(
    assignment: Assignment,
    what: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[WHAT]...",
            help="Downloads of Canvas, Moodle, Blackboard or Gradescope, folders, archives, single notebooks; without, "
            "what lies in downloaded/ASSIGNMENT/archive.",
        ),
    ] = None,
    folder: Course = Path(),
    roster: Annotated[
        list[Path] | None, typer.Option(help="CSV file that says who is who, as these systems export; may repeat.")
    ] = None,
    pattern: Annotated[
        str, typer.Option(help="Regular expression for other names: groups student, at, attempt, file.")
    ] = "",
    deadline: Annotated[
        str, typer.Option(metavar="TIME", help="When it was due, instead of the gradebook's date: '2026-11-20 18:00'.")
    ] = "",
    received: Annotated[
        str, typer.Option(metavar="TIME", help="When all this was handed in, where nothing else tells: a time, or now.")
    ] = "",
    timezone: Annotated[
        str | None,
        typer.Option(help="The zone of times that name none, such as Europe/Berlin.", show_default="nbgrader's"),
    ] = None,
    new_students: Annotated[
        bool, typer.Option("--new-students", help="Take ids that neither gradebook nor roster knows.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Sort downloads into submitted/: the last attempt on time counts, every attempt is kept, nothing is lost."""
    with grading_tools():
        from autograder.collect.command import run
        from autograder.collect.options import Options

        options = Options(tuple(roster or ()), pattern, deadline, received, timezone, new_students, dry_run)
        run(folder, assignment, what or [], options, Console())


def grade(
    assignment: Assignment,
    folder: Course = Path(),
    jobs: Jobs = None,
    student: Annotated[
        list[str] | None, typer.Option("--student", "-s", help="Grade only this id; may repeat.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run everything again, changed or not.")] = False,
    limit: LimitFlags = None,
    jail: Annotated[
        str | None,
        typer.Option(
            help="The isolation: namespaces, landlock, or plain, which limits time and size and nothing else.",
            show_default="the strongest here",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Grade on the workers of a Dask scheduler, tcp://HOST:PORT, not on this machine."
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Print a line for every student, in a class of more than 60 too.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="JSON lines on stdout, for each submission and a summary: site/instructors.md has the fields.",
        ),
    ] = False,
) -> None:
    """Grade a class in the sandbox, into nbgrader's gradebook. Only what has changed is run.

    Works in any nbgrader course folder. Ctrl-C stops; what is graded is kept,
    and the same command goes on from there.

    Exit status:
    0    everybody has a grade
    1    grading could not begin or go on
    3    some submissions could not be graded
    130  stopped by Ctrl-C
    """
    with grading_tools(linux=True):
        from autograder.terminal.grading_command import Asked, run

        asked = Asked(jobs, student, force, _limits(folder, limit), _jail(jail), cluster, each, as_json)
        raise typer.Exit(run(folder, assignment, asked))


def report(
    assignment: Assignment,
    folder: Course = Path(),
) -> None:
    """After grading by hand: print the class table, and write feedback, grades.csv and the class report anew.

    No notebook is run. The class report is one page, reports/ASSIGNMENT.html in
    the course: scores, exercises, named mistakes, time, and whose work needs a
    person.
    """
    with grading_tools():
        show_class(folder, assignment, None, Console())


def export(
    assignment: Assignment,
    folder: Course = Path(),
    form: Annotated[
        str, typer.Option("--format", "-f", help="csv, long (a row per question), canvas, moodle or moodle-worksheet.")
    ] = "csv",
    template: Annotated[
        Path | None,
        typer.Option(
            help="For canvas and moodle-worksheet: the file that Canvas or Moodle gave out. A filled copy is written."
        ),
    ] = None,
    column: Annotated[
        str, typer.Option(help="Canvas: the column's title, where it is not the assignment's name.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="exports/ in the course")
    ] = None,
) -> None:
    """Write grades for a spreadsheet, Canvas or Moodle. Students are matched by ids and addresses, never by names."""
    with grading_tools():
        from autograder.exports import command

        command.export(folder, assignment, form, template, output, column, Console())


def demo(
    lab: Annotated[str, typer.Option(help="The lab that the class hands in.")] = "01-pruning",
    jobs: Jobs = None,
) -> None:
    """Build the labs, grade a simulated class, and show what an instructor gets."""
    with grading_tools(linux=True):
        from autograder.demo import run_demo

        console = Console()
        made = run_demo(find_sources(), console, lab=lab_names(find_sources(), [lab])[0], jobs=jobs)
        show_class(made.course, made.result.assignment, made.result.records, console)
        console.print("\n[bold]Next[/]  `make lab` opens lab 00 in JupyterLab: be the student.")


def show_class(folder: Path, assignment: str, records: Sequence[SubmissionRecord] | None, console: Console) -> None:
    """Print the class and write its reports; `records` as in :func:`autograder.reports.publish.show_class`."""
    from autograder.reports import publish

    publish.show_class(folder, assignment, records, console)


def _kept(file: Written) -> str:
    if file.kept is None:
        return f"{file.path} stays as you changed it."
    return (
        f"{file.kept} stays as you changed it. There is a new version, in {file.path}: put what you want of it into "
        "yours, then delete it."
    )


def _limits(folder: Path, flags: Sequence[str] | None) -> Limits | None:
    """The limits that the flags ask for, above the course's settings; None where no flag was given."""
    if not flags:
        return None
    from autograder.nbgrader_course import open_course
    from autograder.settings import settings_of, with_flags

    return with_flags(settings_of(open_course(folder)).limits, flags)


def _jail(name: str | None) -> JailMode | None:
    from autograder.jail import JailMode

    if name is None:
        return None
    try:
        return JailMode(name)
    except ValueError:
        raise ToolsError(f"no isolation is called {name!r}; there are {', '.join(JailMode)}") from None


def find_sources() -> Path:
    """The checkout that the labs are built in: the working directory's, else the one this package lies in.

    Raises:
        ToolsError: when neither has a folder solutions/.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "solutions").is_dir():
            return folder
    raise ToolsError(f"no folder solutions/ at {here} or above; change into a clone of the course")


def lab_names(root: Path, wanted: list[str] | None) -> list[str]:
    """The labs that `wanted` names, by number or name; all that have a source where it names none."""
    from autograder.builder.build import lab_names as sources

    found = sources(root)
    if not wanted:
        return found
    names = []
    for what in wanted:
        number = f"{int(what):02d}-" if what.isdecimal() else what
        matches = [name for name in found if name == what or (what.isdecimal() and name.startswith(number))]
        if len(matches) != 1:
            raise ToolsError(f"no lab {what!r} in {root / 'solutions'}; there are {', '.join(found)}")
        names += matches
    return names


@contextmanager
def grading_tools(*, linux: bool = False) -> Iterator[None]:
    """Say what to install when an instructor's package is missing, and that grading needs Linux where `linux` is set.

    Raises:
        ToolsError: in either case.
    """
    if linux and sys.platform != "linux":
        raise ToolsError(
            "grading needs Linux, whose kernel isolates submissions. Use a Linux machine, a virtual machine or WSL 2; "
            "labs, `fourbit check` and `fourbit build` work here."
        )
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("autograder", "fourbit"):
            raise
        raise ToolsError(
            f"the grading tools are not installed (no module {error.name!r}). "
            '`make demo` installs them, and so does pip install -e ".[grade]" in the clone.'
        ) from None
