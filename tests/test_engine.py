"""The engine from outside: what a cell shows, what it costs when a cell goes wrong, and sessions that survive anything.

The same tests run as root, as an ordinary user and in Landlock mode: see test_engine_user.py.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autograder.engine import EngineError, Runner, Zygote, client
from autograder.jail import JailMode, Limits, detect

if sys.platform != "linux":
    pytest.skip("the engine and its jail need the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux

MODE = JailMode(os.environ.get("FOURBIT_TEST_JAIL") or detect())
SMALL = Limits(cell_seconds=20, notebook_seconds=120, memory_bytes=512 * 2**20, processes=16, output_bytes=2**18)

HANDLERS = """
def call(names, argument, payload):
    return names[argument["function"]](payload)

def swallow(names, argument, payload):
    return b"x" * int(payload)

def bump(names, talk, payload):
    names["bumped"] = names.get("bumped", 0) + int(payload)
    print("bumping")
    return str(names["bumped"]).encode()

def run(names, talk, payload):
    exec(payload.decode(), names)
    return b"ran"

def phone(names, talk, payload):
    talk.answer = bytes.upper
    names["phone"] = talk.back
    return talk.back(payload)
"""


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an importable module with session handlers, outside of every package."""
    folder = tmp_path_factory.mktemp("handlers")
    (folder / "engine_probe_handlers.py").write_text(HANDLERS)
    sys.path.insert(0, str(folder))
    yield "engine_probe_handlers"
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def zygote(handlers: str) -> Iterator[Zygote]:
    prefix = ("import os, sys, time\nkept = {'a': 1}\nprint('prefix ran')", "open('data.txt').read()")
    with Zygote(
        (),
        prefix,
        files={"data.txt": b"40 + 2"},
        handlers=(f"{handlers}:call",),
        mode=MODE,
        packages=("fourbit", handlers),
    ) as made:
        yield made


@pytest.fixture
def runner(zygote: Zygote) -> Iterator[Runner]:
    with zygote.spawn(SMALL, {"data.txt": b"40 + 2", "folder/more.txt": b"deep"}) as made:
        yield made


def text_of(outcome: object) -> str:
    return "".join(output.get("text", "") for output in outcome.outputs)  # type: ignore[attr-defined]


def run(runner: Runner, source: str, **options: object) -> str:
    """Run a cell that must succeed; what it printed."""
    outcome = runner.run_cell(textwrap.dedent(source), **options)  # type: ignore[arg-type]
    assert outcome.status == "ok", outcome
    return text_of(outcome)


def peak_memory() -> int:
    """The most that this process, the grader's, has held (KiB)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


# What a cell shows


def test_prefix_outputs_are_recorded_and_its_state_is_there(zygote: Zygote, runner: Runner) -> None:
    printed, value = zygote.prefix_outcomes
    assert text_of(printed) == "prefix ran\n"
    assert value.outputs[0]["data"] == {"text/plain": "'40 + 2'"}
    assert (
        run(runner, "print(kept, open('data.txt').read(), open('folder/more.txt').read())") == "{'a': 1} 40 + 2 deep\n"
    )


def test_work_folder_has_the_path_that_the_prefix_saw(handlers: str) -> None:
    if MODE is not JailMode.NAMESPACES:
        pytest.skip("only a private file system can show the same path to every submission")
    prefix = ("import os, sys\nhere = os.getcwd()",)
    with (
        Zygote((), prefix, files={"helper.py": b"x = 7"}, mode=MODE) as made,
        made.spawn(SMALL, {"helper.py": b"x = 7"}) as one,
    ):
        assert (
            run(one, "import helper\nprint(helper.x, here == os.getcwd(), open(here + '/helper.py').read())")
            == "7 True x = 7\n"
        )


def test_outputs_come_in_order_and_in_notebook_form(runner: Runner) -> None:
    source = """
        from IPython.display import HTML, display
        print("one")
        os.write(1, b"two\\n")
        display(HTML("<b>three</b>"))
        print("four", file=sys.stderr)
        !echo five
        print("six")
        {"seven": 7}
    """
    outcome = runner.run_cell(textwrap.dedent(source))
    assert outcome.status == "ok"
    # A descriptor's bytes cross a pipe of their own: before later displays, but in no fixed order with prints.
    assert sorted(outcome.outputs[0]["text"].split()) == ["one", "two"]
    assert outcome.outputs[1]["data"]["text/html"] == "<b>three</b>"
    assert (outcome.outputs[2]["name"], outcome.outputs[2]["text"]) == ("stderr", "four\n")
    assert outcome.outputs[3]["text"] == "five\nsix\n"
    assert outcome.outputs[-1]["output_type"] == "execute_result"
    assert outcome.outputs[-1]["data"]["text/plain"] == "{'seven': 7}"


def test_exceptions_warnings_await_and_input(runner: Runner) -> None:
    failed = runner.run_cell("def f():\n    return missing\nf()")
    assert failed.status == "error"
    assert failed.message == "NameError: name 'missing' is not defined"
    assert failed.outputs[0]["ename"] == "NameError"
    assert "return missing" in "\n".join(failed.outputs[0]["traceback"])
    warned = runner.run_cell("import warnings\nwarnings.warn('careful')\n1")
    assert warned.status == "ok"
    assert warned.outputs[0]["name"] == "stderr"
    assert run(runner, "import asyncio\nawait asyncio.sleep(0)\nprint('awaited')") == "awaited\n"
    asked = runner.run_cell("input('name? ')")
    assert asked.status == "error"
    assert "nobody is there to answer" in asked.message
    assert runner.run_cell("def f(:").status == "error"
    assert runner.run_cell("sys.exit(1)").status == "error"
    assert run(runner, "%%capture caught\nprint('hidden')") == ""
    assert run(runner, "print(caught.stdout)") == "hidden\n\n"
    assert run(runner, "lines = !echo a; echo b\nprint(lines)") == "['a', 'b']\n"


def test_clear_output_and_updates(runner: Runner) -> None:
    source = "from IPython.display import clear_output, display\n"
    outcome = runner.run_cell(source + "for i in range(50):\n    clear_output(wait=True)\n    print('step', i)")
    assert text_of(outcome) == "step 49\n"
    outcome = runner.run_cell(source + "h = display('old', display_id=True)\nh.update('new')")
    assert [output["data"]["text/plain"] for output in outcome.outputs] == ["'new'"]


def test_figures_become_images(handlers: str) -> None:
    with Zygote(("matplotlib.pyplot",), mode=MODE) as made, made.spawn(SMALL) as one:
        outcome = one.run_cell("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        assert outcome.status == "ok", outcome
        assert outcome.outputs[-1]["data"]["image/png"].startswith("iVBOR")


def test_unknown_mime_types_and_wrong_types_are_dropped(runner: Runner) -> None:
    source = """
        ip = get_ipython()
        bundle = {"text/plain": "x", "application/x-evil": "y", "text/html": 5, "application/json": {"a": 1}}
        ip.display_pub.publish(bundle)
        ip.stage.emit({"output_type": "display_data", "data": [1], "metadata": "no"})
        ip.stage.emit({"output_type": "launch", "data": {}})
        ip.stage.emit({"output_type": "error", "ename": 3, "evalue": None, "traceback": [1, "line"]})
    """
    outcome = runner.run_cell(textwrap.dedent(source), checkpoint=True)
    kinds = [output["output_type"] for output in outcome.outputs]
    assert outcome.outputs[0]["data"] == {"text/plain": "x", "application/json": {"a": 1}}
    assert "launch" not in kinds
    assert all(isinstance(output.get("data", {}), dict) for output in outcome.outputs)
    assert {"output_type": "error", "ename": "", "evalue": "", "traceback": ["line"]} in outcome.outputs


def test_seed_makes_runs_repeat(zygote: Zygote) -> None:
    drawn = []
    for seed in (1, 1, 2):
        with zygote.spawn(SMALL, {}, seed=seed) as one:
            drawn.append(run(one, "import random\nprint(random.random())"))
    assert drawn[0] == drawn[1] != drawn[2]


# A cell that goes wrong costs that cell

CRASHES = {
    "os._exit(3)": "exit code 3",
    "os.kill(os.getpid(), 9)": "SIGKILL",
    "import ctypes; ctypes.string_at(0)": "SIGSEGV",
    "os.abort()": "SIGABRT",
}


@pytest.mark.parametrize("source", CRASHES, ids=lambda source: source[:24])
def test_a_crash_costs_only_its_cell(runner: Runner, source: str) -> None:
    run(runner, "earned = 1", checkpoint=True)
    outcome = runner.run_cell("earned = 2\n" + source, checkpoint=True)
    assert outcome.status == "crashed"
    assert CRASHES[source] in outcome.message
    assert not outcome.kept
    assert run(runner, "print(earned)", checkpoint=True) == "1\n"


def test_without_a_checkpoint_a_crash_ends_the_notebook(runner: Runner) -> None:
    assert runner.run_cell("os._exit(0)").status == "crashed"
    assert not runner.alive
    after = runner.run_cell("1")
    assert after.status == "crashed"
    assert "earlier cell" in after.message


def test_loops_end_at_the_limit_politely_first(runner: Runner) -> None:
    polite = runner.run_cell(
        "def answer(): return 42\nprint('started')\nwhile True: pass", seconds=0.5, checkpoint=True
    )
    assert (polite.status, polite.kept) == ("timeout", True)
    assert "started" in text_of(polite)
    assert run(runner, "print(answer())") == "42\n"
    stubborn = """
        kept = None
        while True:
            try:
                time.sleep(5)
            except BaseException:
                pass
    """
    outcome = runner.run_cell(textwrap.dedent(stubborn), seconds=0.3, checkpoint=True)
    assert (outcome.status, outcome.kept) == ("timeout", False)
    assert "still running after" in outcome.message
    assert run(runner, "print(kept, answer())") == "{'a': 1} 42\n"


def test_a_masked_blocking_call_is_ended_too(runner: Runner) -> None:
    source = (
        "import select, signal\nsignal.pthread_sigmask(signal.SIG_SETMASK, range(1, 32))\nselect.select([], [], [])"
    )
    assert runner.run_cell(source, seconds=0.3, checkpoint=True).status == "timeout"
    assert run(runner, "print('on')") == "on\n"


def test_notebook_seconds_bound_the_whole_run(zygote: Zygote) -> None:
    with zygote.spawn(Limits(notebook_seconds=1.0)) as one:
        assert one.run_cell("while True: pass", seconds=30, checkpoint=True).status == "timeout"
        after = one.run_cell("1")
        assert after.status == "timeout"
        assert after.limit == "notebook_seconds"
        assert "the notebook ran longer than 1 s" in after.message


def test_memory_is_bounded_and_named(runner: Runner) -> None:
    alone = runner.run_cell("held = bytearray(2 * 2**30)", checkpoint=True)
    assert (alone.status, alone.kept) == ("out of memory", True)
    together = """
        children = []
        for _ in range(6):
            pid = os.fork()
            if pid == 0:
                held = bytearray(os.urandom(1)) * (180 * 2**20)
                time.sleep(60)
                os._exit(0)
            children.append(pid)
        time.sleep(60)
    """
    outcome = runner.run_cell(textwrap.dedent(together), checkpoint=True)
    assert (outcome.status, outcome.kept) == ("out of memory", False)
    assert outcome.message == "stopped: used more than 512 MiB of memory"
    assert run(runner, "print('on')") == "on\n"


FLOODS = {
    "print": "for _ in range(300):\n    print('x' * 2**20)\nprint('end')",
    "descriptor": "block = b'y' * 2**20\nfor _ in range(300):\n    os.write(1, block)",
    "subprocess": "!head -c 300M /dev/zero",
    "display": "from IPython.display import HTML, display\ndisplay(HTML('z' * (20 * 2**20)))",
    "lines": "for i in range(200_000): print(i)",
}


@pytest.mark.parametrize("name", FLOODS)
def test_output_floods_are_cut_inside_the_jail(runner: Runner, name: str) -> None:
    before = peak_memory()
    outcome = runner.run_cell(FLOODS[name] + "\nflooded = True", checkpoint=True)
    assert (outcome.status, outcome.kept) == ("output limit", True)
    assert "cut after" in outcome.message
    assert sum(len(str(output)) for output in outcome.outputs) <= 2 * SMALL.output_bytes
    assert peak_memory() - before < 32 * 1024  # KiB
    assert run(runner, "print(flooded)") == "True\n"


def test_process_and_thread_bombs_are_contained(runner: Runner) -> None:
    forks = """
        refused = 0
        for _ in range(500):
            try:
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(120)
                    os._exit(0)
            except OSError:
                refused += 1
        print(refused > 300)
    """
    assert run(runner, forks, checkpoint=True) == "True\n"
    assert run(runner, "print('next')", checkpoint=True) == "next\n"
    threads = """
        import threading
        stop = threading.Event()
        try:
            for _ in range(500):
                threading.Thread(target=stop.wait, daemon=True).start()
        finally:
            stop.set()
    """
    assert runner.run_cell(textwrap.dedent(threads), checkpoint=True).status == "error"
    wild = """
        while True:
            try:
                os.fork()
            except OSError:
                pass
    """
    assert runner.run_cell(textwrap.dedent(wild), seconds=0.5, checkpoint=True).status == "timeout"
    assert run(runner, "print(kept)", checkpoint=True) == "{'a': 1}\n"


@pytest.mark.skipif(MODE is JailMode.PLAIN, reason="plain mode has no walls between processes")
def test_a_cell_cannot_reach_its_restore_point_or_guard(runner: Runner) -> None:
    source = """
        import ctypes, signal
        libc = ctypes.CDLL(None, use_errno=True)
        for pid in (os.getppid(), 1 if os.getppid() < 100 else os.getppid(), -1, -os.getppid()):
            for number in (signal.SIGKILL, signal.SIGSTOP):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
            libc.prlimit(pid, 0, ctypes.byref((ctypes.c_ulong * 2)(0, 0)), None)
        os._exit(1)
    """
    run(runner, "earned = 1", checkpoint=True)
    assert runner.run_cell(textwrap.dedent(source), checkpoint=True).status == "crashed"
    assert run(runner, "print(earned)", checkpoint=True) == "1\n"


HEAD = '{"say": "done", "status": "perfect", "message": ["no"]}'
FORGERIES = {
    "garbage": "b'\\xff' * 4096",
    "giant length": "struct.pack('!II', 2**31, 2**31)",
    "reply": f"struct.pack('!II', {len(HEAD)}, 0) + b'{HEAD}'",
    "deep header": "struct.pack('!II', 60000, 0) + b'[' * 60000",
    "half a frame": "struct.pack('!II', 100, 0) + b'{'",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_answers_harm_only_their_author(zygote: Zygote, name: str) -> None:
    source = f"""
        import struct
        for fd in range(3, 64):
            try:
                os.write(fd, {FORGERIES[name]})
            except OSError:
                pass
    """
    with zygote.spawn(SMALL) as victim, zygote.spawn(SMALL) as other:
        victim.run_cell(textwrap.dedent(source), seconds=0.5, checkpoint=True)
        assert victim.run_cell("1 + 1", seconds=0.5, checkpoint=True).status in ("ok", "crashed", "timeout")
        assert run(other, "print(kept)") == "{'a': 1}\n"


def test_a_forked_copy_of_the_notebook_ends_with_its_cell(runner: Runner) -> None:
    # The notebook waits for the copy's end, so that what the copy prints belongs to this cell on a busy machine too.
    source = "pid = os.fork()\nprint('one' if pid else 'other')\nassert not pid or os.waitpid(pid, 0)[1] == 0"
    assert sorted(run(runner, source).split()) == ["one", "other"]
    for number in range(5):
        assert run(runner, f"print({number}, pid > 0)", checkpoint=True) == f"{number} True\n"


def test_a_forked_copy_prints_beside_the_notebook_and_never_into_its_frames(runner: Runner) -> None:
    source = """
        print("before")
        copies = [os.fork() for _ in range(3)]
        for number in range(100):
            print(("mine" if all(copies) else "copy") + "-" * 100, flush=True)
        if not all(copies):
            os._exit(0)
        for copy in copies:
            os.waitpid(copy, 0)
    """
    words = run(runner, source).replace("-", "").split()
    # Three forks in a row leave eight processes; text on a pipe may be cut at the cell's end, the notebook's own not.
    assert (words.count("before"), words.count("mine")) == (1, 100)
    assert set(words) == {"before", "mine", "copy"}


def test_a_stopped_process_is_ended(runner: Runner) -> None:
    outcome = runner.run_cell("os.kill(os.getpid(), 19)", seconds=0.2, checkpoint=True)
    assert (outcome.status, outcome.kept) == ("timeout", False)
    assert run(runner, "print(kept)") == "{'a': 1}\n"


def test_background_floods_belong_to_no_cell(runner: Runner) -> None:
    source = """
        if os.fork() == 0:
            while True:
                os.write(1, b"noise" * 1000)
    """
    assert runner.run_cell(textwrap.dedent(source), checkpoint=True).kept
    quiet = runner.run_cell("print('word')", checkpoint=True)
    assert quiet.status in ("ok", "output limit")
    assert sum(len(output["text"]) for output in quiet.outputs) <= SMALL.output_bytes
    assert runner.run_cell("os._exit(0)", checkpoint=True).status == "crashed"  # which ends the strays, too
    assert run(runner, "print('word')") == "word\n"


def test_a_process_without_its_connection_is_replaced(runner: Runner) -> None:
    runner.run_cell("os.closerange(3, 100)", checkpoint=True)
    assert run(runner, "print(kept)", checkpoint=True) == "{'a': 1}\n"


# Sessions


def test_session_answers_with_the_state_of_its_moment(runner: Runner, handlers: str) -> None:
    run(runner, "scale = b'1'\ndef f(data):\n    print('called')\n    return data + scale")
    with runner.session(f"{handlers}:call", {"function": "f"}) as session:
        first = session.call(b"a")
        assert (first.status, first.payload, first.output) == ("ok", b"a1", "called\n")
        run(runner, "scale = b'2'")
        assert session.call(b"b").payload == b"b1"
        big = os.urandom(5 * 2**20)
        assert session.call(big).payload == big + b"1"
    assert session.call(b"c").status == "crashed"


def test_a_call_that_fails_costs_that_call(runner: Runner, handlers: str) -> None:
    source = """
        def f(data):
            if data == b"loop":
                while True:
                    pass
            if data == b"exit":
                os._exit(0)
            if data == b"memory":
                return bytes(bytearray(2**31))
            if data == b"raise":
                raise KeyError("no")
            if data == b"flood":
                print("x" * 10**7)
            if data == b"number":
                return 5
            return data.upper()
    """
    run(runner, source)
    statuses = {}
    with runner.session(f"{handlers}:call", {"function": "f"}) as session:
        for data in (b"loop", b"exit", b"memory", b"raise", b"flood", b"number"):
            reply = session.call(data, seconds=0.5)
            statuses[data.decode()] = reply.status
            assert reply.payload == (b"FLOOD" if data == b"flood" else b"")
            assert len(reply.output) <= 2**16
            assert session.call(b"after").payload == b"AFTER"
    expected = {
        "loop": "timeout",
        "exit": "crashed",
        "memory": "out of memory",
        "raise": "error",
        "flood": "ok",
        "number": "error",
    }
    assert statuses == expected


def test_session_limits_and_wrong_handlers(runner: Runner, handlers: str) -> None:
    with runner.session(f"{handlers}:swallow", {}) as session:
        assert session.call(str(65 * 2**20).encode(), seconds=10).status == "output limit"
        assert session.call(b"3").payload == b"xxx"
    for name in ("no_such_module:f", f"{handlers}:missing"):
        with pytest.raises(EngineError, match="session handler"):
            runner.session(name, {})
    runner.run_cell("os._exit(0)")
    assert runner.session(f"{handlers}:call", {"function": "f"}).call(b"").status == "crashed"


def test_handler_is_the_one_imported_before_the_submission_ran(runner: Runner, handlers: str) -> None:
    run(runner, f"import {handlers}\n{handlers}.call = lambda *rest: b'forged'\ndef f(data): return b'real'")
    with runner.session(f"{handlers}:call", {"function": "f"}) as session:
        assert session.call(b"").payload == b"real"


# The zygote


def test_a_dead_zygote_is_replaced(handlers: str) -> None:
    with Zygote((), ("x = 5",), mode=MODE) as made:
        before = made.pid
        assert before
        os.kill(before, 9)
        while made.pid is not None:
            time.sleep(0.01)
        with made.spawn(SMALL) as one:
            assert run(one, "print(x)") == "5\n"
        assert made.pid != before


def test_runners_of_one_zygote_do_not_meet(zygote: Zygote) -> None:
    with zygote.spawn(SMALL, {"mine.txt": b"first"}) as first, zygote.spawn(SMALL, {"mine.txt": b"second"}) as second:
        note = "tempfile.gettempdir() + '/note'"
        run(first, f"import tempfile\nkept['a'] = 'changed'\nopen({note}, 'w').write('n')")
        seen = run(second, f"import tempfile\nprint(kept, open('mine.txt').read(), os.path.exists({note}))")
        assert seen == "{'a': 1} second False\n"


@pytest.mark.parametrize(
    ("preload", "prefix", "message"),
    [
        (("no_such_module_here",), (), "preload of no_such_module_here failed: ModuleNotFoundError"),
        ((), ("x = 1", "y = missing"), "Cell 2 of the prefix .* NameError"),
        (
            (),
            ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",),
            "2 threads run",
        ),
    ],
    ids=["preload", "prefix", "threads"],
)
def test_a_zygote_that_cannot_start_says_why(preload: tuple[str, ...], prefix: tuple[str, ...], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        Zygote(preload, prefix, mode=MODE).start()


def test_a_prefix_that_never_ends_is_given_up() -> None:
    made = Zygote((), ("while True: pass",), mode=MODE, start_seconds=1.5)
    with pytest.raises(EngineError, match="took more than 1\\.5 s"):
        made.start()
    assert made.pid is None


def test_files_stay_in_the_work_folder(zygote: Zygote) -> None:
    for name in ("../up.txt", "/abs.txt", "a/../../b", "", "a//b"):
        with pytest.raises(EngineError, match="no relative path"):
            zygote.spawn(SMALL, {name: b"x"})


def test_plain_mode_must_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "detect", lambda: JailMode.PLAIN)
    with pytest.raises(EngineError, match="asking for the mode `plain`"):
        Zygote(())
    with Zygote((), mode=JailMode.PLAIN) as made, made.spawn(SMALL) as one:
        assert one.mode is JailMode.PLAIN
        assert one.run_cell("import os; os._exit(4)", checkpoint=True).message.startswith(
            "the process ended itself with exit code 4"
        )
        assert one.run_cell("while True: pass", seconds=0.3, checkpoint=True).status == "timeout"
        assert run(one, "print('on')") == "on\n"


# Nothing is left


def wait_until_gone(pids: set[int]) -> bool:
    for _ in range(1000):
        left = {pid for pid in pids if os.path.exists(f"/proc/{pid}") and b"Z" not in _state(pid)}
        if not left:
            return True
        time.sleep(0.01)
    return False


def _state(pid: int) -> bytes:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return b"Z"
    return text[text.rindex(b")") + 2 :].split()[0]


TREE = 7  # zygote, warden, guard, notebook, three strays


def tree(root: int) -> set[int]:
    """The zygote and all below it, once everything that the test starts is there."""
    from autograder.jail.processes import descendants

    for _ in range(1000):
        found = {root} | descendants(root)
        if len(found) >= TREE:
            return found
        time.sleep(0.01)
    raise AssertionError(f"only {found} run")


def leftovers(folder: Path) -> list[str]:
    return [place.name for place in folder.iterdir() if place.name.startswith("fourbit-")]


STRAYS = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(300)
        os._exit(0)
"""


def test_closing_ends_every_process_and_removes_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with Zygote((), ("x = 1",), mode=MODE) as made:
        one = made.spawn(SMALL, {"a.txt": b"a"})
        run(one, STRAYS, checkpoint=True)
        alive = tree(made.pid or 0)
        one.close()
        assert wait_until_gone(alive - {made.pid})
    assert wait_until_gone(alive)
    assert leftovers(tmp_path) == []


COORDINATOR = """
import os, signal, sys, tempfile
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
tempfile.tempdir = {folder!r}
os.environ["TMPDIR"] = {folder!r}
from autograder.engine import Zygote
from autograder.jail import JailMode, Limits
made = Zygote((), ("x = 1",), mode=JailMode({mode!r})).start()
one = made.spawn(Limits(), {{"a.txt": b"a"}})
one.run_cell({strays!r}, checkpoint=True)
print(made.pid, flush=True)
one.run_cell("while True: pass", seconds=100, checkpoint=True)
"""


@pytest.mark.parametrize("victim", ["coordinator", "zygote", "interrupt"])
def test_nothing_survives_a_kill(tmp_path: Path, root: Path, victim: str) -> None:
    program = COORDINATOR.format(folder=str(tmp_path), mode=str(MODE), strays=STRAYS)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    try:
        zygote = int(process.stdout.readline())
        alive = tree(zygote)
        if victim == "zygote":
            os.kill(zygote, 9)
        elif victim == "interrupt":
            process.send_signal(2)
        else:
            process.kill()
        assert wait_until_gone(alive), f"{alive} live on"
    finally:
        process.kill()
        process.communicate()
    assert leftovers(tmp_path) == []


# With torch, as in a lab


@pytest.mark.slow
def test_torch_runs_in_forks_and_values_cross_as_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fourbit.codec import decode, encode

    source = "from fourbit.codec import decode, encode\n"
    source += "def call(names, how, data):\n    return encode(names['f'](decode(data)))\n"
    (tmp_path / "engine_probe_codec.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    handler = "engine_probe_codec:call"
    packages = ("fourbit", "engine_probe_codec")
    cell = """
        from torch.utils.data import DataLoader, TensorDataset
        torch.set_num_threads(4)
        layer = torch.nn.Linear(64, 64)
        optimizer = torch.optim.Adam(layer.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.randn(256, 64)).square().mean().backward()
            optimizer.step()
        batches = [b for (b,) in DataLoader(TensorDataset(torch.arange(8.0)), batch_size=4, num_workers=WORKERS)]
        print(len(batches), torch.matmul(torch.ones(300, 300), torch.ones(300, 300)).sum().item())
        def f(x):
            return {"twice": x * 2}
    """.replace("WORKERS", "2" if MODE is JailMode.NAMESPACES else "0")
    with (
        Zygote(("torch",), ("import torch",), handlers=(handler,), mode=MODE, packages=packages) as made,
        made.spawn(Limits(), seed=3) as one,
    ):
        assert run(one, cell, checkpoint=True) == "2 27000000.0\n"
        assert one.run_cell("torch.ones(2**34)", checkpoint=True).status == "out of memory"
        assert one.run_cell("import os; os._exit(0)", checkpoint=True).status == "crashed"
        with one.session(handler, {}) as session:
            reply = session.call(encode(torch.arange(6).reshape(2, 3)))
            assert reply.status == "ok", reply
            assert torch.equal(decode(reply.payload)["twice"], torch.arange(6).reshape(2, 3) * 2)


# Questions to the live process


def test_a_question_changes_the_live_state_and_shows_its_output(runner: Runner, handlers: str) -> None:
    for wanted in (b"2", b"4"):
        reply = runner.ask(f"{handlers}:bump", b"2", seconds=5)
        assert (reply.status, reply.payload) == ("ok", wanted)
        assert reply.outputs[0]["text"] == "bumping\n"
    assert run(runner, "print(bumped)") == "4\n"
    failed = runner.ask(f"{handlers}:run", b"1 / 0", seconds=5)
    assert (failed.status, failed.message) == ("error", "ZeroDivisionError: division by zero")
    assert runner.ask(f"{handlers}:absent", b"", seconds=5).status == "error"


def test_a_restore_point_holds_for_the_questions_that_follow(runner: Runner, handlers: str) -> None:
    ask = f"{handlers}:run"
    assert runner.ask(ask, b"a = 1", seconds=5).status == "ok"
    assert runner.ask(ask, b"a = 2", seconds=5, checkpoint=True).status == "ok"
    ended = runner.ask(ask, b"import os; os._exit(4)", seconds=5)
    assert (ended.status, runner.alive) == ("crashed", True)
    assert "exit code 4" in ended.message
    assert run(runner, "print(a)") == "1\n"
    late = runner.ask(ask, b"a = 3\nwhile True: pass", seconds=0.5)
    assert late.status == "timeout"
    assert run(runner, "print(a)") == "3\n"
    assert runner.ask(ask, b"os._exit(4)", seconds=5).status == "crashed"
    assert not runner.alive


def test_a_process_can_ask_back_and_be_asked_in_the_middle(runner: Runner, handlers: str) -> None:
    """The phone of the handlers asks the grader, and answers its questions in capitals."""
    heard = []

    def back(payload: bytes) -> bytes:
        heard.append(payload)
        return b"twice " + (runner.callback(b"now") if payload == b"nested" else payload)

    assert runner.ask(f"{handlers}:phone", b"hello", seconds=5, back=back).payload == b"twice hello"
    asked = runner.run_cell("print('before')\nprint(phone(b'nested'), phone(b'' * 10))", back=back)
    assert text_of(asked) == "before\nb'twice NOW' b'twice '\n"
    assert heard == [b"hello", b"nested", b""]
    assert run(runner, "print(phone(b'nobody answers'))") == "b''\n"
    slow = runner.run_cell("phone(b'slow')", seconds=0.5, back=lambda payload: time.sleep(1) or b"too late")  # type: ignore[func-returns-value]
    assert slow.status == "timeout"


def test_renewing_forgets_state_files_and_processes(zygote: Zygote) -> None:
    with zygote.spawn(SMALL, {"data.txt": b"40 + 2"}) as made:
        assert made.renew({"data.txt": b"40 + 2"})
        run(made, "kept['a'] = 2\nopen('new.txt', 'w').write('x')\nopen('data.txt', 'w').write('y')\nos.mkdir('deep')")
        made.run_cell("import subprocess\nsubprocess.Popen(['sleep', '100'])")
        places = ["/tmp/left", "/dev/shm/left"] if zygote.mode is JailMode.NAMESPACES else []
        run(made, f"for place in {places}: os.mkdir(place); open(place + '/file', 'w').write('x')")
        assert made.renew({"data.txt": b"40 + 2"})
        assert run(made, "print(kept, os.listdir(), open('data.txt').read())") == "{'a': 1} ['data.txt'] 40 + 2\n"
        assert run(made, f"print(any(map(os.path.exists, {places})))") == "False\n"
        assert made.run_cell("os._exit(0)").status == "crashed"
        assert not made.alive
        assert made.renew({"data.txt": b"1"})
        assert run(made, "print(kept)") == "{'a': 1}\n"


def test_lent_runners_begin_anew_one_after_the_other(zygote: Zygote) -> None:
    for number in range(3):
        with zygote.lend(SMALL, {"mine.txt": str(number).encode()}, seed=number) as runner:
            seen = run(runner, "print(open('mine.txt').read(), os.listdir(), kept, 'left' in globals())")
            assert seen == f"{number} ['mine.txt'] {{'a': 1}} False\n"
            runner.run_cell("left = kept['a'] = 2; open('left.txt', 'w').write('x')")
    more = Limits(cell_seconds=20, notebook_seconds=60, output_bytes=2**18)
    with zygote.lend(more, {}) as runner:
        assert runner.limits == more
        assert runner.run_cell("kept").status == "ok"


def test_the_time_of_a_lent_runner_begins_when_it_is_lent(zygote: Zygote) -> None:
    short = Limits(cell_seconds=20, notebook_seconds=2, output_bytes=2**18)
    with zygote.lend(short, {}):
        time.sleep(2.5)
    with zygote.lend(short, {}) as runner:
        assert runner.run_cell("1").status == "ok"


def test_what_was_built_ahead_may_be_killed(handlers: str) -> None:
    with Zygote((), handlers=(f"{handlers}:call",), mode=MODE, packages=("fourbit", handlers)) as made:
        with made.lend(SMALL, {}) as runner:
            assert made.pid is not None
            assert runner.run_cell("1").status == "ok"
        with made.lend(SMALL, {}) as runner:
            for child in psutil.Process(made.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            assert runner.run_cell("1").status == "crashed"
        with made.lend(SMALL, {}) as runner:
            assert runner.run_cell("1").status == "ok"
        everything = [psutil.Process(made.pid), *psutil.Process(made.pid).children(recursive=True)]
    assert not psutil.wait_procs(everything, timeout=30)[1]
