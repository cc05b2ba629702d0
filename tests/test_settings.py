"""The settings of grading: the flag wins over nbgrader_config.py, which wins over the default; wrong ones are named."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from autograder.cli import _limits, register
from autograder.jail import JailMode, Limits
from autograder.nbgrader_course import open_course
from autograder.results import GradingError
from autograder.settings import FourbitGrade, flag_name, settings_of, size, with_flags


def course_with(folder: Path, *lines: str) -> FourbitGrade:
    (folder / "nbgrader_config.py").write_text("\n".join(["c = get_config()", *lines]))
    return settings_of(open_course(folder))


def test_without_settings_the_defaults_hold(tmp_path: Path) -> None:
    settings = course_with(tmp_path)
    assert settings.limits == Limits()
    assert (settings.jail, settings.jobs, settings.cluster, settings.timestamps) == ("", 0, "", "nbgrader")


def test_the_course_wins_over_the_default_and_the_flag_over_the_course(tmp_path: Path) -> None:
    settings = course_with(
        tmp_path, "c.FourbitGrade.memory_bytes = '2G'", "c.FourbitGrade.cell_seconds = 30",
        "c.FourbitGrade.disk_bytes = 2**20", "c.FourbitGrade.jail = 'landlock'", "c.FourbitGrade.jobs = 3",
    )  # fmt: skip
    assert settings.limits == Limits(memory_bytes=2 * 2**30, cell_seconds=30.0, disk_bytes=2**20)
    assert (JailMode(settings.jail), settings.jobs) == (JailMode.LANDLOCK, 3)
    limits = with_flags(settings.limits, ["memory=512M", "open-files=64", "notebook_seconds=90.5"])
    assert limits == Limits(
        memory_bytes=512 * 2**20, cell_seconds=30.0, disk_bytes=2**20, open_files=64, notebook_seconds=90.5
    )


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["c.Execute.timeout = 90"], {"cell_seconds": 90}),
        (["c.ExecutePreprocessor.timeout = 90"], {"cell_seconds": 90}),
        # The nearer class wins, as in nbgrader.
        (["c.Execute.timeout = 20", "c.ExecutePreprocessor.timeout = 90"], {"cell_seconds": 20}),
        (["c.Execute.timeout = 20", "c.FourbitGrade.cell_seconds = 5"], {"cell_seconds": 5}),
        (["c.Execute.allow_errors = True"], {}),
        (["c.Execute.timeout = 900"], {"cell_seconds": 900, "notebook_seconds": 900, "cpu_seconds": 900}),
        (
            ["c.Execute.timeout = 900", "c.FourbitGrade.notebook_seconds = 300"],
            {"cell_seconds": 900, "notebook_seconds": 300, "cpu_seconds": 900},
        ),
        (["c.Execute.timeout = None"], {"cell_seconds": 600}),
        (["c.Execute.timeout = -1", "c.FourbitGrade.notebook_seconds = 300"],
         {"cell_seconds": 300, "notebook_seconds": 300}),
        (["c.Execute.timeout = None", "c.FourbitGrade.cell_seconds = 5"], {"cell_seconds": 5}),
    ],
)  # fmt: skip
def test_a_cell_gets_the_time_that_nbgrader_gives_it(tmp_path: Path, lines: list[str], wanted: dict[str, int]) -> None:
    limits = course_with(tmp_path, *lines).limits
    assert limits == replace(Limits(), **wanted)
    assert with_flags(limits, ["cell-seconds=7"]).cell_seconds == 7


def test_nbgraders_time_holds_where_a_class_is_graded(tmp_path: Path) -> None:
    course_with(tmp_path, "c.Execute.timeout = 90")
    asked = _limits(tmp_path, ["memory=2G"])
    assert asked == Limits(cell_seconds=90, memory_bytes=2 * 2**30)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.Execute.timeout = 'long'", "'timeout' trait of an Execute instance expected an int, not the str 'long'"),
        ("c.FourbitGrade.memory_bytes = 'much'", "c.FourbitGrade.memory_bytes is 'much'; give a size above 0"),
        ("c.FourbitGrade.processes = 0", "c.FourbitGrade.processes is '0'; give a whole number above 0"),
        (
            "c.FourbitGrade.cell_seconds = float('nan')",
            "c.FourbitGrade.cell_seconds is 'nan'; give a number of seconds",
        ),
        ("c.FourbitGrade.memory = 5", "no setting memory; did you mean memory_bytes?"),
        ("c.FourbitGrade.jail = 'docker'", "'namespaces', 'landlock', 'plain'"),
        ("c.FourbitGrade.jobs = -1", "jobs"),
    ],
)
def test_a_wrong_setting_names_the_file_and_what_is_allowed(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(GradingError, match=re.escape(said)) as caught:
        course_with(tmp_path, line)
    assert str(tmp_path / "nbgrader_config.py") in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("memory=much", "--limit memory is 'much'; give a size above 0 in bytes, or with K, M or G"),
        ("memory=-1", "give a size above 0"),
        ("processes=1.5", "give a whole number above 0"),
        ("cell-seconds=inf", "give a number of seconds above 0"),
        ("memmory=2G", "did you mean memory?"),
        ("memory", "give NAME=VALUE"),
    ],
)
def test_a_wrong_flag_says_what_is_allowed(flag: str, said: str) -> None:
    with pytest.raises(GradingError, match=re.escape(said)):
        with_flags(Limits(), [flag])


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("4k", 4096), ("1.5 GiB", 3 * 2**29), ("2MB", 2**21), (7, 7)])
def test_sizes_are_read_as_people_write_them(text: object, number: int) -> None:
    assert size(text) == number


def test_the_help_names_every_limit_with_its_default() -> None:
    app = typer.Typer()
    register(app)
    shown = CliRunner().invoke(app, ["grade", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    shown = re.sub(r"[\s│]+", " ", shown)
    found = dict(re.findall(r"([a-z-]+)=(\d+[KMG]?)", shown))
    told = with_flags(
        Limits(**dict.fromkeys(asdict(Limits()), 1)), [f"{name}={value}" for name, value in found.items()]
    )
    assert told == Limits()
    assert set(found) == {flag_name(name) for name in asdict(Limits())}
