"""Which notebooks only define things, and may be examined after their last cell."""

from __future__ import annotations

import pytest

from autograder.judging.definitions import only_definitions
from autograder.reading.ingest import RebuiltCell

GIVEN = "import torch\nfrom torch import nn\nfrom fourbit.exam import check, predict\nLAYERS = (nn.Linear, nn.Conv2d)"
PLAIN = {
    "a function": "def f(x, n=2, *, how='up'):\n    y = x.clone()\n    y[0] = n\n    return torch.round(y)",
    "one that uses what is given": "def f(x):\n    return [m for m in x if isinstance(m, LAYERS)]",
    "a class": "class Net(nn.Module):\n    width = 8\n    def __init__(self):\n        super().__init__()\n",
    "constants": 'BITS = 4\nSIZES: tuple = (1, -2, 2**8)\n"""Notes."""',
    "imports": "import math\nimport torch\nfrom functools import lru_cache\nfrom torch.nn import functional as F",
    "a guess": 'predict("cliff", 41.5, "percent")',
    "nothing": "# later\npass\n...",
    "a decorator": "@torch.no_grad()\ndef f(x):\n    return x",
}
OTHER = {
    "a name bound twice": "def f(x):\n    return x\ndef f(x):\n    return -x",
    "a given name bound anew": "LAYERS = (nn.Linear,)",
    "a given import bound anew": "import numpy as torch",
    "work at the top": "print(1)",
    "a loop at the top": "for i in range(3):\n    pass",
    "a mutable constant": "SEEN = []\ndef f(x):\n    SEEN.append(x)",
    "a mutable default": "def f(x, seen=[]):\n    seen.append(x)",
    "a default of a class's function": "class A:\n    def f(self, seen={}):\n        return seen",
    "a global": "def f(x):\n    global KEPT\n    KEPT = x",
    "a function's attribute": "def f(x):\n    f.seen = x",
    "a module's attribute": "def f(x):\n    torch.round = None",
    "a setting": "def f(x):\n    torch.set_default_dtype(torch.float64)",
    "namespaces": "def f(x):\n    globals()['g'] = x",
    "a hidden attribute": "def f(x):\n    f.__globals__.update(g=x)",
    "the interpreter": "import sys\ndef f(x):\n    return sys._getframe(1)",
    "everything of a module": "from math import *",
    "a neighbour": "from . import helper",
    "a magic": "%time 1",
    "no Python": "def f(x:\n",
    "a call with work in it": 'predict("cliff", max(1, 2), "percent")',
    "a deleted name": "del LAYERS",
    "a value made by a call": "TABLE = torch.zeros(3)",
}


def cells(answer: str, given: str = GIVEN) -> list[RebuiltCell]:
    return [RebuiltCell("code", given, "template"), RebuiltCell("code", answer, "student", answered=True)]


@pytest.mark.parametrize("name", PLAIN)
def test_definitions_are_told(name: str) -> None:
    assert only_definitions(cells(PLAIN[name]))


@pytest.mark.parametrize("name", OTHER)
def test_anything_else_is_told(name: str) -> None:
    assert not only_definitions(cells(OTHER[name]))


def test_data_of_the_notebook_may_be_made_but_not_used() -> None:
    given = GIVEN + "\nweights = torch.zeros(3)"
    assert only_definitions(cells("def f(x):\n    return x", given))
    assert not only_definitions(cells("def f(x):\n    return weights + x", given))


def test_what_does_not_run_does_not_count() -> None:
    notes = RebuiltCell("markdown", "print(1)", "student")
    assert only_definitions([*cells("def f(x):\n    return x"), notes])
