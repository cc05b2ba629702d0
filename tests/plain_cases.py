"""Small plain questions of many kinds: the instructor's solution and test, honest answers, and answers that cheat."""

# ruff: noqa: E501 - one answer a line
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autograder.reading.template import NotebookTemplate, Role, Template, TemplateCell


@dataclass(frozen=True)
class Case:
    """One question worth 4 points.

    ``given``: a read-only cell before it. ``honest``: other answers with the points that stock nbgrader gives them.
    ``cheats``: answers that deserve the points named. ``inside``: part of the reason why the test cell has to stay in
    the student's process.
    """

    name: str
    solution: str
    test: str
    given: str = ""
    honest: Mapping[str, float] = field(default_factory=dict)
    cheats: Mapping[str, float] = field(default_factory=dict)
    inside: str = ""


def template_of(cases: tuple[Case, ...], files: Mapping[str, bytes] | None = None, setup: str = "") -> Template:
    """An assignment of one notebook with all these questions; its cells are read-only but for the answers."""
    cells = [_cell("setup", "locked", setup)] if setup else []
    for case in cases:
        if case.given:
            cells.append(_cell(f"given_{case.name}", "locked", case.given))
        cells.append(_cell(case.name, "answer", "raise NotImplementedError()", solution=case.solution))
        cells.append(_cell(f"test_{case.name}", "test", case.test, points=4.0))
    return Template("cases", (NotebookTemplate("cases", tuple(cells), {}),), dict(files or {}))


def _cell(grade_id: str, role: Role, source: str, points: float = 0.0, solution: str = "") -> TemplateCell:
    graded = {
        "schema_version": 3, "grade": role == "test", "solution": role == "answer", "locked": role != "answer",
        "task": False, "grade_id": grade_id,
    }  # fmt: skip
    return TemplateCell(grade_id, "code", source, source, role, grade_id, points, {"nbgrader": graded}, {}, solution)


def notebook_of(template: Template, answers: Mapping[str, str]) -> bytes:
    """The notebook as a student hands it in; answers that are not given are the instructor's own."""
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code", "id": cell.id, "metadata": dict(cell.metadata), "execution_count": None, "outputs": [],
            "source": answers.get(cell.grade_id, cell.solved) if cell.role == "answer" else cell.release,
        }
        for cell in template.notebooks[0].cells
    ]  # fmt: skip
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


SETUP = "import collections, math, random, sys\nimport numpy as np\nfrom dataclasses import dataclass"

LINKED = """class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next"""

CASES = (
    Case("add", "def add(a, b):\n    return a + b", "assert add(1, 2) == 3\nassert add('a', 'b') == 'ab'",
         honest={"add = lambda a, b: a + b": 4, "def add(a, b):\n    return a - b": 0,
                 "def add(a, b):\n    print('adding', a)\n    return b.__radd__(a) if isinstance(a, int) else a + b": 4}),
    Case("mean_", "def mean_(x):\n    return sum(x) / len(x)", "assert abs(mean_([1, 2, 4]) - 7 / 3) < 1e-9",
         honest={"def mean_(x):\n    return np.mean(x)": 4,
                 "from fractions import Fraction\ndef mean_(x):\n    return Fraction(sum(x), len(x))": 4}),
    Case("fill", "def fill(x, value):\n    for i in range(len(x)):\n        x[i] = value",
         "x = [1, [2], 3]\ny = x\nassert fill(x, 7) is None\nassert x == [7, 7, 7]\nassert y is x",
         honest={"def fill(x, value):\n    x = [value] * len(x)": 0}),
    Case("nested", "def nested(rows):\n    rows[0].append(9)\n    rows.append(rows[0])\n    return rows",
         "rows = [[1], [2]]\nfirst = rows[0]\nassert nested(rows) is rows\nassert first == [1, 9]\n"
         "assert rows[2] is first and len(rows) == 3"),
    Case("tally", "def tally(words, counts):\n    for w in words:\n        counts[w] = counts.get(w, 0) + 1",
         "counts = {'a': 1}\ntally(['a', 'b'], counts)\nassert counts == {'a': 2, 'b': 1}"),
    Case("dedup", "def dedup(s, gone):\n    s -= gone\n    return s", "s = {1, 2}\nassert dedup(s, {2}) is s and s == {1}"),
    Case("double", "def double(a):\n    a *= 2", "a = np.arange(4.0)\ndouble(a)\nassert (a == [0, 2, 4, 6]).all()",
         honest={"def double(a):\n    a[:] = [2 * v for v in a]": 4, "def double(a):\n    return 2 * a": 0}),
    Case("root", "def root(x):\n    if x < 0:\n        raise ValueError('negative')\n    return math.sqrt(x)",
         "try:\n    root(-1)\nexcept ValueError as error:\n    assert 'neg' in str(error)\nelse:\n    assert False\n"
         "assert root(9) == 3",
         honest={"def root(x):\n    return x ** 0.5": 0, "def root(x):\n    assert x >= 0\n    return x ** 0.5": 0,
                 "class Mine(ValueError):\n    pass\ndef root(x):\n    if x < 0:\n        raise Mine('a neg')\n"
                 "    return x ** 0.5": 4}),
    Case("Broke", "class Broke(Exception):\n    def __init__(self, missing):\n        super().__init__(f'{missing} missing')\n"
         "        self.missing = missing\ndef pay(have, cost):\n    if cost > have:\n        raise Broke(cost - have)",
         "try:\n    pay(1, 3)\n    assert False\nexcept Broke as error:\n    assert error.missing == 2\n"
         "    assert str(error) == '2 missing'\nassert issubclass(Broke, Exception)"),
    Case("count", "def count(n):\n    while n:\n        yield n\n        n -= 1",
         "g = count(3)\nassert next(g) == 3\nassert list(g) == [2, 1]\nassert sum(count(200)) == 20100",
         honest={"def count(n):\n    return iter(range(n, 0, -1))": 4, "def count(n):\n    return list(range(n, 0, -1))": 0}),
    Case("naturals", "def naturals():\n    n = 0\n    while True:\n        yield n\n        n += 1",
         "g = naturals()\nassert [next(g) for _ in range(100)] == list(range(100))"),
    Case("squares", "def squares(n):\n    return [k * k for k in range(n)]", "assert list(squares(4)) == [0, 1, 4, 9]",
         honest={"def squares(n):\n    return map(lambda k: k * k, range(n))": 4,
                 "def squares(n):\n    return tuple(k * k for k in range(n))": 4,
                 "def squares(n):\n    return np.arange(n) ** 2": 4}),
    Case("pair", "def pair(a, b):\n    return b, a", "assert pair(1, 2) == (2, 1)\nx, y = pair('p', 'q')\nassert x == 'q'",
         honest={"Swap = collections.namedtuple('Swap', 'a b')\ndef pair(a, b):\n    return Swap(b, a)": 4,
                 "def pair(a, b):\n    return [b, a]": 0}),
    Case("greet", "def greet(name):\n    print(f'Hello, {name}!')",
         "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    greet('Ada')\n"
         "assert out.getvalue() == 'Hello, Ada!\\n'",
         honest={"def greet(name):\n    sys.stdout.write('Hello, ' + name + '!\\n')": 4, "def greet(name):\n    pass": 0}),
    Case("credit", "def credit(n):\n    return n", "sum(credit(n) == n for n in (1, 2, 3, 4))",
         honest={"def credit(n):\n    return min(n, 2)": 2, "def credit(n):\n    return float(n)": 4}),
    Case("fact", "def fact(n):\n    return 1 if n < 2 else n * fact(n - 1)", "assert fact(30) == math.factorial(30)",
         honest={"fact = lambda n: math.prod(range(1, n + 1))": 4}),
    Case("Stack", "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n"
         "        self.items.append(x)\n    def pop(self):\n        return self.items.pop()\n    def __len__(self):\n"
         "        return len(self.items)\n    def __repr__(self):\n        return f'Stack({self.items})'",
         "s = Stack()\ns.push(1)\ns.push([2])\nassert isinstance(s, Stack) and type(s).__name__ == 'Stack'\n"
         "assert len(s) == 2 and repr(s) == 'Stack([1, [2]])'\nassert s.pop() == [2] and s.items == [1]\n"
         "try:\n    Stack().pop()\n    assert False\nexcept IndexError:\n    pass\nassert not hasattr(s, 'peek')"),
    Case("Vector", "@dataclass\nclass Vector:\n    x: float\n    y: float\n    def __add__(self, other):\n"
         "        return Vector(self.x + other.x, self.y + other.y)\n    def __abs__(self):\n        return math.hypot(self.x, self.y)",
         "v = Vector(1, 2) + Vector(2, 2)\nassert v == Vector(3, 4) and v.x == 3\nassert abs(v) == 5\nv.x = 0\nassert v.x == 0"),
    Case("length", "def length(node):\n    n = 0\n    while node:\n        n, node = n + 1, node.next\n    return n", given=LINKED,
         test="assert length(Node(1, Node(2))) == 2\nassert length(None) == 0"),
    Case("push", "def push(node, value):\n    while node.next:\n        node = node.next\n    node.next = Node(value)",
         "head = Node(1)\npush(head, 2)\npush(head, 3)\nassert head.next.next.value == 3\nassert isinstance(head.next, Node)"),
    Case("reverse", "def reverse(node):\n    last = None\n    while node:\n        node.next, last, node = last, node, node.next\n"
         "    return last", "r = reverse(Node(1, Node(2, Node(3))))\nassert (r.value, r.next.value, r.next.next.next) == (3, 2, None)"),
    Case("table", "table = {n: n * n for n in range(5)}", "assert table[3] == 9\nassert len(table) == 5",
         honest={"table = collections.defaultdict(int, {n: n * n for n in range(5)})": 4, "table = {}": 0}),
    Case("constant", "PI = 3.14", "assert isinstance(PI, float)\nassert round(PI, 1) == 3.1", honest={"PI = '3.14'": 0}),
    Case("bump", "counter = 0\ndef bump():\n    global counter\n    counter += 1\n    return counter",
         "bump()\nbump()\nassert counter == 2\nassert bump() == 3 and counter == 3"),
    Case("memo", "cache = {}\ndef memo(n):\n    if n not in cache:\n        cache[n] = n * n\n    return cache[n]",
         "assert memo(4) == 16\nassert cache == {4: 16}"),
    Case("half", "def half(x):\n    return double_it(x) / 4\ndef double_it(x):\n    return 2 * x",
         "original = double_it\ndel double_it\ntry:\n    half(1)\n    assert False, 'half does not use double_it'\n"
         "except NameError:\n    pass\nfinally:\n    double_it = original\nassert half(4) == 2",
         honest={"def half(x):\n    return x / 2\ndef double_it(x):\n    return 2 * x": 0}),
    Case("apply", "def apply(f, n, x):\n    for _ in range(n):\n        x = f(x)\n    return x",
         "seen = []\ndef step(x):\n    seen.append(x)\n    return x + 1\nassert apply(step, 3, 0) == 3\nassert seen == [0, 1, 2]\n"
         "assert apply(lambda s: s + '!', 2, 'a') == 'a!!'\nassert apply(math.sqrt, 1, 16) == 4.0"),
    Case("integral", "def integral(f, a, b, n=2000):\n    h = (b - a) / n\n    return h * sum(f(a + (i + 0.5) * h) for i in range(n))",
         "def half_circle(x, r=1.0):\n    return (lambda y: math.sqrt(r * r - y * y))(x)\nassert abs(integral(lambda x: x * x, 0, 3) - 9) < 1e-5\n"
         "assert abs(integral(half_circle, -1, 1) - math.pi / 2) < 1e-4\nk = 2\nassert integral(lambda x: k, 0, 3, n=3) == 6\nassert integral(np.sin, 0, 0) == 0"),
    Case("compose", "def compose(f, g):\n    return lambda x: f(g(x))\ndef inc(x):\n    return x + 1",
         "assert compose(inc, inc)(1) == 3\nassert compose(inc, lambda x: 10 * x)(2) == 21\nassert callable(compose(inc, inc))"),
    Case("adder", "def adder(n):\n    total = [n]\n    def add_to(x):\n        total[0] += x\n        return total[0]\n    return add_to",
         "a = adder(1)\nassert a(2) == 3\nassert a(2) == 5"),
    Case("roll", "def roll(n):\n    return [random.randint(1, 6) for _ in range(n)]",
         "random.seed(3)\nfirst = roll(5)\nrandom.seed(3)\nassert roll(5) == first == [random.Random(3).randint(1, 6)] + first[1:]"),
    Case("noise", "def noise(n):\n    return np.random.normal(size=n)",
         "np.random.seed(0)\nx = noise(3)\nnp.random.seed(0)\nassert np.allclose(x, np.random.normal(size=3))"),
    Case("matrix", "def matrix(n):\n    return np.eye(n, dtype=np.float32)",
         "m = matrix(3)\nassert m.shape == (3, 3) and m.dtype == np.float32\nnp.testing.assert_allclose(m @ m, np.eye(3))"),
    Case("doc", 'def doc(x: int) -> int:\n    """Twice x."""\n    return 2 * x',
         "import inspect\nassert 'Twice' in doc.__doc__\nassert list(inspect.signature(doc).parameters) == ['x']\n"
         "assert 'return 2 * x' in inspect.getsource(doc)\nassert doc.__name__ == 'doc'"),
    Case("keyword", "def keyword(a, *more, scale=1, **named):\n    return (a + sum(more)) * scale, sorted(named)",
         "assert keyword(1, 2, 3, scale=2, z=0, y=1) == (12, ['y', 'z'])\nassert keyword(*[1], **{'q': 2}) == (1, ['q'])"),
    Case("big", "def big():\n    return 2 ** 2000, -1.5, float('inf'), 3 + 4j, b'ab', None, range(3), {1, 2}, frozenset('a')",
         "b = big()\nassert b[0] == 2 ** 2000 and b[2] == math.inf and abs(b[3]) == 5\nassert b[4:] == (b'ab', None, range(3), {1, 2}, frozenset('a'))"),
    Case("missing_", "def missing_(x):\n    return np.where(np.isnan(x), 0, x)", "assert missing_(np.array([1, math.nan])).tolist() == [1, 0]"),
    Case("import_", "import string as letters\nfrom math import gcd", "assert letters.digits == '0123456789'\nassert gcd(4, 6) == 2",
         honest={"from math import gcd": 0}),
    Case("match", "import re\ndef match(s):\n    return bool(re.match('a+$', s))", "assert match('aa')\nassert not match('ab')",
         honest={"import re\ndef match(s):\n    return re.match('a+$', s)": 4}),
    Case("warned", "import warnings\ndef warned(x):\n    warnings.warn('old', DeprecationWarning)\n    return x",
         "import warnings as w\nwith w.catch_warnings(record=True) as heard:\n    w.simplefilter('always')\n    assert warned(1) == 1\n"
         "assert len(heard) == 1 and issubclass(heard[0].category, DeprecationWarning)"),
    Case("slots", "def slots(p):\n    return p.x + p.y", given="class Point:\n    __slots__ = ('x', 'y')\n    def __init__(self, x, y):\n        self.x, self.y = x, y",
         test="assert slots(Point(1, 2)) == 3", inside="TypeError"),
    Case("account", "class Account:\n    rate = 0.5\n    def __init__(self, owner, balance=0):\n        self.owner, self._balance = owner, balance\n"
         "    @property\n    def balance(self):\n        return self._balance\n    def deposit(self, amount):\n        if amount <= 0:\n"
         "            raise ValueError('amount must be positive')\n        self._balance += amount\n    @classmethod\n    def empty(cls):\n        return cls('nobody')\n"
         "    @staticmethod\n    def fee(x):\n        return x / 10\n    def __eq__(self, other):\n        return isinstance(other, Account) and self.balance == other.balance\n"
         "class Savings(Account):\n    rate = 1.5\n",
         "a = Account('Ada', 5)\na.deposit(2)\nassert a.balance == 7 and a.owner == 'Ada'\nassert Account.empty().balance == 0\n"
         "assert Account.fee(20) == 2 and Account.rate == 0.5\nassert a == Account('Bob', 7) and a != Account('Bob', 8)\n"
         "try:\n    a.deposit(-1)\n    assert False\nexcept ValueError as e:\n    assert 'positive' in str(e)\n"
         "assert issubclass(Savings, Account) and isinstance(Savings('x'), Account)\ntry:\n    a.balance = 3\n    assert False\nexcept AttributeError:\n    pass",
         honest={"class Account:\n    rate = 0.5\n    balance = 7\n    def __init__(self, *a): pass\n    deposit = __init__": 0}),
    Case("countdown", "class countdown:\n    def __init__(self, n):\n        self.n = n\n    def __iter__(self):\n        return self\n"
         "    def __next__(self):\n        if self.n == 0:\n            raise StopIteration\n        self.n -= 1\n        return self.n + 1",
         "assert list(countdown(3)) == [3, 2, 1]\nc = countdown(2)\nassert next(c) == 2\nassert [x for x in c] == [1]"),
    Case("context", "class context:\n    def __enter__(self):\n        self.open = True\n        return self\n    def __exit__(self, *e):\n        self.open = False",
         "with context() as c:\n    assert c.open\nassert not c.open"),
    Case("matrix_class", "class Grid:\n    def __init__(self, rows):\n        self.rows = rows\n    def __getitem__(self, key):\n        return self.rows[key[0]][key[1]]\n"
         "    def __setitem__(self, key, value):\n        self.rows[key[0]][key[1]] = value\n    def __contains__(self, x):\n        return any(x in r for r in self.rows)",
         "g = Grid([[1, 2], [3, 4]])\nassert g[1, 0] == 3\ng[1, 0] = 9\nassert g[1, 0] == 9 and 9 in g and 3 not in g"),
    Case("words", "def words(path):\n    return len(open(path).read().split())", "assert words('text.txt') == 3"),
    Case("tuples", "def tuples(d):\n    return sorted(d.items(), key=lambda kv: (-kv[1], kv[0]))[:2]", "assert tuples({'a': 1, 'b': 3, 'c': 3}) == [('b', 3), ('c', 3)]"),
    Case("recursive", "def recursive(n):\n    return recursive(n + 1)", "try:\n    recursive(0)\n    assert False\nexcept RecursionError:\n    pass"),
    Case("chars", "def chars(s):\n    return collections.Counter(s)", "assert chars('aab') == {'a': 2, 'b': 1}\nassert chars('aab').most_common(1) == [('a', 2)]",
         honest={"def chars(s):\n    return {c: s.count(c) for c in s}": 0}),
    Case("partial", "def partial(x):\n    return x", "points = 0\nfor n in range(4):\n    try:\n        points += partial(n) == n\n    except Exception:\n        pass\npoints",
         honest={"def partial(x):\n    return 1 / (x - 2) * 0 + x": 3, "def partial(x):\n    return partial": 0}),
    Case("magic", "def magic(x):\n    return x + 1", "%time found = magic(1)\nassert found == 2"),
    Case("names", "def names(x):\n    return x", "assert 'names' in globals()\nassert globals()['names'](5) == 5"),
    Case("written", "def written(path):\n    open(path, 'w').write('hello')",
         "written('out.txt')\nassert open('out.txt').read() == 'hello'", inside="FileNotFoundError"),
    Case("inner", "def inner(x):\n    return sum(x)", "assert 'sum' in inner.__code__.co_names\nassert inner([1]) == 1", inside="__code__"),
    Case("kind", "def kind(x):\n    return x", "import unittest.mock\nwith unittest.mock.patch('builtins.print'):\n    assert kind(1) == 1", inside="builtins"),
)  # fmt: skip

HELPERS = {"helpers.py": b"def close(a, b):\n    return abs(a - b) < 1e-9\n"}
TARGET = Case(
    "total", "def total(x):\n    return sum(x)",
    "from helpers import close\nassert total([1, 2]) == 3, 'secret'\nassert close(total([0.5, 0.25]), 0.75)\n"
    "assert total([4]) in [4] and not (total([1]) != 1)",
)  # fmt: skip
LIAR = """class Liar{base}:
    __hash__ = lambda self: 0
    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = __contains__ = __bool__ = lambda self, *other: True
    __ne__ = lambda self, *other: False
    __sub__ = __rsub__ = __add__ = __abs__ = __array_ufunc__ = lambda self, *other, **more: 0{zero}
    __class__ = property(lambda self: int)
def total(x):
    return Liar({value})"""
# Answers to TARGET that deserve nothing.
CHEATS = {
    "always equal": LIAR.format(base="", zero="", value=""),
    "equal float": LIAR.format(base="(float)", zero=".0", value="7"),
    "equal int": LIAR.format(base="(int)", zero="", value="7"),
    "equal string": LIAR.format(base="(str)", zero="", value="'x'"),
    "equal list": LIAR.format(base="(list)", zero="", value=""),
    "equal array": "class A(np.ndarray):\n    __eq__ = lambda s, o: True\n    __array_function__ = lambda s, f, *a: True\n"
    "    __array_ufunc__ = lambda s, f, *a, **k: np.True_\ndef total(x):\n    return np.zeros(2).view(A)",
    "replaced assert helper": "import helpers\nhelpers.close = lambda a, b: True\nnp.testing.assert_allclose = print\n"
    "def total(x):\n    return 3",
    "shadowed helper": "sys.modules['helpers'] = type(sys)('helpers')\nsys.modules['helpers'].close = lambda a, b: True\n"
    "close = lambda a, b: True\ndef total(x):\n    return 3",
    "replaced builtins": "import builtins\nbuiltins.AssertionError = type('Fine', (Exception,), {})\n"
    "builtins.isinstance = builtins.abs = builtins.len = lambda *a: True\ndef total(x):\n    return 3",
    "blanked cells": "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])",
    "rewritten tests": "import ast\nclass T(ast.NodeTransformer):\n    def visit_Assert(self, node):\n        return ast.Pass()\n"
    "get_ipython().ast_transformers.append(T())\ndef total(x):\n    return 0",
    "cells that always succeed": "shell = get_ipython()\nclass Fine:\n    success = True\n    error_in_exec = error_before_exec = None\n"
    "shell.run_cell = lambda *a, **k: Fine()\nshell.run_code = lambda *a, **k: False\ndef total(x):\n    return 0",
    "score by display": "shell = get_ipython()\nshell.displayhook.__class__.__call__ = lambda self, value: print(4)\n"
    "from IPython.display import display\ndef total(x):\n    display(4)\n    print(4)\n    return 4",
    "frames": "def total(x):\n    frame = sys._getframe()\n    while frame:\n        for value in (*frame.f_locals.values(), *frame.f_code.co_consts):\n"
    "            if isinstance(value, str) and ''.join(['sec', 'ret']) in value:\n                raise KeyError('got ' + value)\n"
    "        frame = frame.f_back\n    return 0",
    "memory": "def total(x):\n    import gc\n    word = ''.join(['sec', 'ret'])\n    found = [c for f in gc.get_objects()\n"
    "             if hasattr(f, '__code__') for c in f.__code__.co_consts if c == word]\n"
    "    raise KeyError('got ' + word if found or word in str(globals().get('_ih')) else 'nothing')",
    "files": "def total(x):\n    import glob\n    found = [f for f in glob.glob('/tmp/**', recursive=True) if f.endswith('.ipynb')]\n"
    "    raise KeyError('got ' + found[0] if found else 'nothing')",
    "thread": "import threading, time, helpers\ndef watch():\n    while True:\n        helpers.close = lambda *a: True\n"
    "        time.sleep(0.001)\nthreading.Thread(target=watch, daemon=True).start()\ndef total(x):\n"
    "    time.sleep(0.01)\n    return {3: 3, 4: 4, 1: 1}.get(sum(x), 0)",
    "skipped": "import unittest\ndef total(x):\n    raise unittest.SkipTest",
    "leaves": "def total(x):\n    sys.exit(0)",
    "ends": "import os\ndef total(x):\n    os._exit(0)",
    "hangs": "def total(x):\n    while True:\n        pass",
    "answers for the grader": "import socket, json, os\ndef total(x):\n    head = json.dumps({'say': 'done', 'status': 'ok'}).encode()\n"
    "    for fd in range(3, 40):\n        try:\n            os.write(fd, len(head).to_bytes(4, 'big') + bytes(4) + head)\n"
    "        except OSError:\n            pass\n    return 0",
    "patched machinery": "for name, module in list(sys.modules.items()):\n    if name.startswith('autograder'):\n"
    "        for key, value in list(vars(module).items()):\n            if callable(value) and key not in ('Wire',):\n"
    "                try:\n                    setattr(module, key, lambda *a, **k: b'')\n                except Exception:\n                    pass\n"
    "def total(x):\n    return 0",
    "not a number": "def total(x):\n    return float('nan')",
    "a function": "def total(x):\n    return total",
    "a class": "class total(int):\n    __eq__ = lambda self, other: True",
    "memory of the test": "class Array:\n    __array_interface__ = {'data': (id(0), False), 'typestr': '<i8', 'shape': (1,), 'version': 3}\n"
    "    __array__ = property(lambda self: 1 / 0)\ndef total(x):\n    return Array()",
    "answers too early": "from autograder.engine import executor\nclass Early:\n    def __reduce__(self):\n        return (print, ())\n"
    "    @property\n    def __module__(self):\n        return executor.Talk.back\ntotal = Early()",
    "universal container": "class All:\n    def __getattr__(self, name):\n        return self\n    __call__ = __getitem__ = lambda self, *a: self\n"
    "    __iter__ = lambda self: iter(())\n    __contains__ = __eq__ = lambda self, o: True\ntotal = All()",
    "deleted": "del sys.modules['numpy']\nimport builtins\nfor name in ('print', 'len', 'sum'):\n    delattr(builtins, name)",
}  # fmt: skip

# A test cell whose value is the score, and what tries to write it.
CREDIT = Case(
    "credit", "def credit(n):\n    return n", "result = 0\nfor n in range(1, 5):\n    result += credit(n) == n\nresult"
)
SCORES = {
    "displayed value": "def credit(n):\n    get_ipython().displayhook(4)\n    return 0",
    "displayed score": "from IPython.display import display, publish_display_data\ndef credit(n):\n    display(4)\n"
    "    publish_display_data({'text/plain': '4'})\n    return 0",
    "printed score": "def credit(n):\n    print('4')\n    import os\n    os.write(1, b'4\\n')\n    return 0",
    "changed variable": "def credit(n):\n    global result\n    result = 4\n    return 0",
    "adding object": "class Four:\n    __radd__ = __add__ = __iadd__ = lambda self, other: 4\n    __eq__ = lambda self, other: Four()\n"
    "def credit(n):\n    return Four()",
    "too much": "class Many(int):\n    __eq__ = lambda self, other: 1000\ndef credit(n):\n    return Many()",
    "not a number": "class Nan(float):\n    __eq__ = lambda self, other: float('nan')\ndef credit(n):\n    return Nan()",
}
