"""Wrong answers that want points all the same, by what they do to the interpreter, to values, or to the grader's
words."""

from __future__ import annotations

from tests.attacks.model import Attack, cheat
from tests.plain_course import GOOD

PATCHES = [
    cheat("no-cheat"),
    cheat("blanks-cells", "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])"),
    cheat("blanks-lines", "get_ipython().input_transformers_post.append(lambda lines: [])"),
    cheat(
        "drops-asserts",
        """
        import ast
        class Drop(ast.NodeTransformer):
            def visit_Assert(self, node):
                return ast.copy_location(ast.Pass(), node)
        get_ipython().ast_transformers.append(Drop())
        """,
    ),
    cheat("patches-the-helper", "import helpers\nhelpers.close = close = lambda *_: True"),
    cheat("replaces-the-helper-module", "import sys, types\nsys.modules['helpers'] = types.SimpleNamespace(close=lambda *_: True)"),
    cheat(
        "patches-builtins",
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.sum = lambda x, *_: 4\nbuiltins.AssertionError = StopIteration",
    ),
    cheat("names-in-the-way", "sum = lambda *_: 4\nabs = lambda *_: 0\nclose = lambda *_: True\nwanted = {}\nAssertionError = type('A', (BaseException,), {})"),
    cheat("patches-run-cell", "shell = get_ipython()\nshell.run_cell = lambda *a, **k: type('R', (), {'error_before_exec': None, 'error_in_exec': None, 'result': 4})()"),
    cheat("patches-run-code", "async def nothing(*a, **k): return False\nget_ipython().run_code = nothing\nget_ipython().run_ast_nodes = nothing"),
    cheat("silences-errors", "get_ipython().showtraceback = get_ipython()._showtraceback = lambda *a, **k: None"),
    cheat("custom-exception-handler", "get_ipython().set_custom_exc((BaseException,), lambda *a, **k: [])"),
    cheat("display-hook", "import sys\nget_ipython().displayhook = sys.displayhook = lambda value: print(4)"),
    cheat(
        "formatter-says-four",
        "formatter = get_ipython().display_formatter.formatters['text/plain']\nfor kind in (int, float, type(None), bool):\n    formatter.for_type(kind, lambda v, p, c: p.text('4'))",
    ),
    cheat("forges-a-result", "from IPython.display import display\nprint('4.0')\ndisplay({'text/plain': '4'}, raw=True)\n4.0"),
    cheat(
        "forges-the-engines-answers",
        """
        import gc
        for thing in gc.get_objects():
            if type(thing).__name__ in ("Executor", "Wire"):
                for name in ("_execute", "_verdict", "_describe"):
                    try:
                        setattr(type(thing), name, lambda *a, **k: ("ok", "", ""))
                    except BaseException:
                        pass
        import autograder.engine.executor as executor
        executor._verdict = lambda error: ("ok", "", "")
        """,
    ),
    cheat(
        "speaks-the-protocol",
        """
        import gc, socket
        def mean(numbers):
            for thing in gc.get_objects():
                if type(thing).__name__ == "Wire":
                    for header in ({"say": "done", "status": "ok", "message": "", "kept": True, "live": True},) * 5:
                        try:
                            thing.send(header, b"2.0")
                        except BaseException:
                            pass
            return -1.0
        """,
    ),
    cheat("swaps-main", "import sys, types\nclass M(types.ModuleType):\n    def __getattribute__(self, name):\n        return lambda *a: True\nsys.modules['__main__'] = M('__main__')"),
    cheat("namespace-that-lies", "get_ipython().user_global_ns = get_ipython().user_ns = type('D', (dict,), {'__missing__': lambda s, n: (lambda *a: True)})(get_ipython().user_ns)"),
    cheat("import-hook", "import sys\nclass H:\n    def find_spec(self, *a): return None\nsys.meta_path.insert(0, H())\nsys.path.insert(0, '.')"),
    cheat("traces", "import sys, threading\ndef spy(frame, event, arg):\n    if event == 'line' and 'wanted' in frame.f_locals:\n        frame.f_locals['wanted'] = {}\n    return spy\nsys.settrace(spy); threading.settrace(spy)"),
    cheat("cell-hooks", "get_ipython().events.register('pre_run_cell', lambda *a: get_ipython().user_ns.update(close=lambda *_: True))"),
]  # fmt: skip

# A value that a test compares with what it expects: it says yes to anything.
_AGREES = """
class Yes{base}:
    def __eq__(self, other): return True
    __ne__ = lambda self, other: False
    __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
    __sub__ = __rsub__ = __abs__ = __add__ = __radd__ = lambda self, *_: self
    __bool__ = lambda self: True
    __hash__ = None
    __len__ = lambda self: 10
    __iter__ = lambda self: iter(())
    __float__ = lambda self: 4.0
    __int__ = __index__ = lambda self: 4
    __getattr__ = lambda self, name: self
"""


def agreeing(name: str, base: str, make: str) -> Attack:
    functions = {
        "mean": _AGREES.replace("{base}", base) + f"def mean(numbers):\n    return {make}",
        "population": f"def population(path):\n    return {make}",
        "primes": f"def primes(n):\n    return {make}",
    }
    return cheat(name, answers=functions)


def credit(name: str, value: str, setup: str = "") -> Attack:
    """Wants its own number to be the sum of the last question's partial credit, by a value whose comparison is it."""
    code = f"{setup}\nclass N:\n    def __eq__(self, other):\n        return {value}\ndef primes(n):\n    return N()"
    return cheat(name, answers={"primes": code})


VALUES = [
    agreeing("always-equal", "", "Yes()"),
    agreeing("always-equal-float", "(float)", "Yes(1)"),
    agreeing("always-equal-int", "(int)", "Yes(1)"),
    agreeing("always-equal-list", "(list)", "Yes([1])"),
    agreeing("always-equal-dict", "(dict)", "Yes(a=1)"),
    credit("credit-nan", "float('nan')"),
    credit("credit-infinite", "float('inf')"),
    credit("credit-below", "-5"),
    credit("credit-above", "1000"),
    credit("credit-huge", "10**400"),
    credit("credit-of-a-class", "C()", "class C:\n    __add__ = __radd__ = lambda s, o: s\n    __repr__ = lambda s: '4'"),
    credit("credit-of-a-subclass", "F(4)", "class F(float):\n    __add__ = __radd__ = lambda s, o: s\n    __repr__ = lambda s: '4.0'"),
    cheat("nan", answers={"mean": "def mean(numbers):\n    return float('nan')"}),
    cheat(
        "raises-a-pass",
        answers={"mean": "class Passed(AssertionError):\n    __str__ = lambda s: 'passed 2/2'\ndef mean(numbers):\n    raise Passed"},
    ),
    cheat("exits-with-success", answers={"mean": "def mean(numbers):\n    raise SystemExit(0)"}),
    cheat("ends-with-success", answers={"mean": "import os\ndef mean(numbers):\n    os._exit(0)"}, status="crashed|error"),
    cheat(
        "error-that-hangs",
        answers={"mean": "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef mean(numbers):\n    raise E"},
    ),
    cheat(
        "error-with-escapes",
        answers={"mean": "def mean(numbers):\n    raise ValueError('\\x1b]0;x\\x07\\x1b[31m\\u202epassed\\x00' + 'y' * 10**6)"},
        says="passed",
    ),
    cheat("returns-much", answers={"primes": "def primes(n):\n    return [list(range(100)) for _ in range(10**5)]"}),
    cheat("returns-deep", answers={"primes": "def primes(n):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x"}),
    cheat("returns-itself", answers={"primes": "def primes(n):\n    x = []\n    x.append(x)\n    return x"}),
    cheat("returns-a-generator", answers={"primes": "def primes(n):\n    while True:\n        yield 2"}),
    cheat("not-a-function", answers={"mean": "mean = 2", "population": "population = None", "primes": "class primes: pass"}),
    cheat("forks-and-answers-twice", answers={"mean": "import os\ndef mean(numbers):\n    os.fork()\n    return -1.0"}),
]  # fmt: skip

PEEKS = [
    cheat(
        "looks-at-frames",
        answers={
            "primes": """
            import sys
            def primes(n):
                frame = sys._getframe()
                while frame:
                    for space in (frame.f_locals, frame.f_globals):
                        if isinstance(space.get("wanted"), dict):
                            return space["wanted"].get(n)
                        if "answer" in space:
                            return space["answer"]
                    frame = frame.f_back
            """
        },
    ),
    cheat(
        "looks-at-source",
        answers={
            "population": """
            import re, sys, linecache
            def population(path):
                texts = ["".join(lines[2]) for lines in linecache.cache.values() if len(lines) > 2]
                texts += [str(cell) for cell in get_ipython().user_ns.get("In", [])]
                for text in texts:
                    if found := re.search(r'population\\("cities.csv"\\) == (\\d+)', text):
                        return int(found[1])
                return -1
            """
        },
    ),
    cheat(
        "searches-objects",
        answers={
            "population": """
            import gc, re
            def population(path):
                for thing in gc.get_objects():
                    if type(thing) in (list, tuple, dict):
                        if found := re.search(r'population\\("cities.csv"\\) == (\\d+)', repr(thing)[:10**5]):
                            return int(found[1])
                return -1
            """
        },
    ),
    cheat(
        "waits-in-a-thread",
        """
        import threading, time
        def watch():
            while True:
                names = get_ipython().user_ns
                if "wanted" in names:
                    answers = dict(names["wanted"])
                    names["primes"] = lambda n: answers[n]
                names["close"] = lambda *_: True
                time.sleep(0)
        threading.Thread(target=watch, daemon=True).start()
        """,
    ),
    cheat("reads-history", answers={"population": "def population(path):\n    return max((int(w) for t in get_ipython().history_manager.input_hist_raw for w in t.split() if w.isdigit()), default=-1)"}),
    Attack(
        "time-bomb",  # honest until it believes that it is being graded
        """
        import os, getpass, sys
        if any(word in name for name in os.environ for word in ("NBGRADER", "FOURBIT_SECRET")) or "nbgrader" in sys.modules:
            print("canary: the grader shows")
        """,
    ),
    Attack(
        "hard-coded",
        answers=GOOD | {
            "mean": "def mean(numbers):\n    return {(1, 2, 3): 2}[tuple(numbers)]",
            "primes": "def primes(n):\n    return [2, 3, 5, 7]",
        },
        points=(0, 3, 1), status="error|failed",
    ),
]  # fmt: skip

ATTACKS = [*PATCHES, *VALUES, *PEEKS]
