"""What of an instructor's text goes where: the student's names, statements for the clean process, cells that stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autograder.plain.plan import Plan, plan_of
from autograder.reading.template import NotebookTemplate, TemplateCell
from tests.plain_cases import Case, template_of


def planned(*cases: Case, setup: str = "", files: Mapping[str, bytes] | None = None) -> Plan:
    return plan_of(template_of(cases, files, setup).notebooks[0], files or {})


def test_only_what_the_answers_bind_and_the_test_reaches_is_the_students() -> None:
    first = Case("f", "helper = 3\ndef f(x):\n    return x", "import math\ny = 1\nassert check(f) and math.pi and y")
    given = "import numpy as np\ndef check(g):\n    return helper and np.ones(g(1))\ndef other():\n    return g"
    plan = planned(first, setup=given)
    (test,) = plan.tests.values()
    assert (test.reason, test.names) == ("", ("f", "helper"))
    assert test.into == "import math"
    assert [source.partition("\n")[0] for _, source in plan.pieces] == ["import numpy as np", "def check(g):"]


def test_a_read_only_cell_that_uses_the_answer_makes_its_names_the_students() -> None:
    made = Case(
        "g", "def g():\n    return 1", "assert result == 1 and clean == 2 and rows", given="rows = []\nclean = 2"
    )
    used = Case(
        "h",
        "def h():\n    return 1",
        "assert h() == clean == 2 and len(rows) == 1",
        given="result = g()\nrows.append(g())",
    )
    first, second = planned(replace(made, test="assert g()"), replace(used, test=made.test)).tests.values()
    assert first.names == ("g",)
    assert second.names == ("result", "rows")


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("exec('f()')", "exec"), ("assert f.__code__", "__code__"), ("import pickle\npickle.loads(f())", "pickle"),
        ("import unittest.mock as m\nassert f()", "mock"), ("assert 'for' in In[-1]", "In"),
        ("import sys\nsys.modules", "sys.modules"),
        ("from risky import run\nassert run(f)", "risky"), ("def (:", "SyntaxError"),
        ("shared = 1\nassert f()", "shared"),
    ],
)  # fmt: skip
def test_text_that_means_the_students_process_stays_there(test: str, words: str) -> None:
    later = Case("k", "k = shared", "assert k") if words == "shared" else Case("k", "k = 1", "assert k")
    plan = planned(Case("f", "def f():\n    return 1", test), later, files={"risky.py": b"def run(f):\n    eval(f())"})
    assert words in next(iter(plan.tests.values())).reason


def test_free_cells_may_be_edited_but_their_imports_and_functions_are_the_instructors() -> None:
    notebook = template_of(
        (Case("f", "def f():\n    return size", "assert near(f(), size)"),), {}, "size = 3"
    ).notebooks[0]
    free = "import math\nsize = 3\ndef near(a, b):\n    return math.isclose(a, b)"
    cells = (TemplateCell("s", "code", free, free, "free", "", 0.0, {}), *notebook.cells[1:])
    plan = plan_of(NotebookTemplate("cases", cells, {}), {})
    (test,) = plan.tests.values()
    assert test.names == ("f", "size")
    assert len(plan.pieces) == 3


def test_a_name_that_a_test_binds_crosses_only_if_the_solution_reads_it() -> None:
    plan = planned(
        Case(
            "f",
            "limit = 5\nexpected = 0\ndef f():\n    return limit",
            "limit = 9\nexpected = 9\nassert f() == expected",
        )
    )
    (test,) = plan.tests.values()
    assert test.watched == ("limit",)
