"""An examination as a student meets it: `check` in a notebook's namespace, one panel, the right points."""

import json
import warnings

import pytest
import torch

from fourbit.errors import ExamError
from fourbit.exam import check, examine
from fourbit.exam.call import Outcome, answer, read_outcome, time_limit
from fourbit.exam.check import examination
from fourbit.exam.matrix import kill_matrix
from fourbit.exam.pack import load_pack
from fourbit.exam.reference import load_lab, write_pack


@pytest.fixture(scope="module")
def lab(root):
    return load_lab(root / "tests/fixtures/00-mini")


@pytest.fixture(scope="module")
def packs(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    write_pack(lab, folder / "exam", visible=True)
    write_pack(lab, folder / "hidden" / "00-mini", visible=False)
    return folder


@pytest.fixture
def quantize(packs):
    return load_pack(packs / "exam")["quantize"]


def verdict_of(exercise, source):
    namespace = {"torch": torch}
    exec(source, namespace)
    return examination(exercise, namespace)


def test_kill_matrix_of_the_mini_lab_is_complete(root, tmp_path):
    rows = kill_matrix(root / "tests/fixtures/00-mini", tmp_path)
    assert {row.kind for row in rows} == {"reference", "stub", "alternative", "mistake", "impostor"}
    assert [row for row in rows if row.complaint] == []


def test_check_finds_the_object_beside_it_and_shows_points(packs, monkeypatch, tmp_path):
    monkeypatch.chdir(packs)
    listener = tmp_path / "verdicts.jsonl"
    monkeypatch.setenv("FOURBIT_VERDICTS", str(listener))
    monkeypatch.setenv("FOURBIT_HOME", str(tmp_path))
    namespace = {"check": check, "torch": torch}
    exec("def quantize(w, s):\n    return torch.floor(w / s).to(torch.int8)\nverdict = check('quantize')", namespace)
    verdict = namespace["verdict"]
    assert verdict.mistake.id == "floor"
    assert repr(verdict) == f"{verdict.points:g}" == "0"
    assert "floor rounding" in verdict.text()
    assert "max error" in verdict.text()
    assert "floor rounding" in verdict._repr_html_()
    assert json.loads(listener.read_text())["exercise"] == "quantize"
    recorded = json.loads((tmp_path / "progress.json").read_text())
    assert recorded["lab 00-mini"]["quantize"]["status"] == "failed"


def test_examine_uses_the_hidden_cases(packs, monkeypatch):
    monkeypatch.chdir(packs)
    monkeypatch.setenv("FOURBIT_EXAMS", str(packs / "hidden"))
    visible = load_pack(packs / "exam")["quantize"].cases
    hidden = load_pack(packs / "hidden/00-mini")["quantize"].cases
    assert not torch.equal(visible[0].args[0], hidden[0].args[0])
    namespace = {"examine": examine, "torch": torch}
    exec("quantize = lambda w, s: torch.round(w / s).to(torch.int8)\nverdict = examine('quantize')", namespace)
    assert namespace["verdict"].points == 3


def test_examine_without_a_course_says_what_to_do(packs, monkeypatch):
    monkeypatch.chdir(packs)
    monkeypatch.delenv("FOURBIT_EXAMS", raising=False)
    with pytest.raises(ExamError, match="fourbit course"):
        examine("quantize")


def test_a_missing_pack_and_an_unknown_exercise_are_told(packs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExamError, match="its own lab folder"):
        check("quantize")
    monkeypatch.chdir(packs)
    with pytest.raises(ExamError, match="no exercise 'quantise'; it has scale, quantize"):
        check("quantise")


@pytest.mark.parametrize(
    ("source", "status", "told"),
    [
        ("x = 1", "missing", "no `quantize` yet"),
        ("quantize = 3", "missing", "is a int, not a function"),
        ("def quantize(w, s):\n    raise NotImplementedError", "missing", "not written yet"),
        ("def quantize(w, s):\n    return w[5000]", "error", "IndexError"),
        ("def quantize(w):\n    return w", "error", "TypeError"),
        ("def quantize(w, s):\n    return None", "failed", "NoneType None; a int8 tensor (40,) was expected"),
        ("def quantize(w, s):\n    return (w / s).round()", "failed", "float32 tensor (40,); a int8 tensor"),
        ("def quantize(w, s):\n    return object()", "error", "cannot leave the notebook"),
        ("def quantize(w, s):\n    exit()", "error", "SystemExit"),
        ("def quantize(w, s):\n    while True: pass", "timeout", "endless loop"),
        (
            "def quantize(w, s):\n    while True:\n        try: x = 1\n        except Exception: pass",
            "timeout",
            "endless",
        ),
        ("def quantize(w, s):\n    return torch.full_like(w, float('nan')).to(torch.int8)", "failed", "max error"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_bad_answers_get_a_clear_message_and_no_exception(quantize, source, status, told):
    verdict = verdict_of(quantize, source)
    assert (verdict.status, verdict.points) == (status, 0)
    assert told in verdict.text()
    assert verdict._repr_html_()


def test_partly_right_earns_part(packs):
    exercise = load_pack(packs / "exam")["scale"]
    source = "def scale(w, bits):\n    return float(w.abs().max()) / max(2 ** (bits - 1) - 1, 1)"
    verdict = verdict_of(exercise, source)
    assert verdict.status == "partly"
    assert verdict.points == 1.5
    assert "did not raise ZeroDivisionError" in verdict.text()


def test_output_floods_and_warnings_stay_out_of_the_streams(quantize, capfd):
    source = (
        "import warnings, sys\n"
        "def quantize(w, s):\n"
        "    warnings.warn('careful')\n"
        "    print('x' * 10_000_000)\n"
        "    print('to stderr', file=sys.stderr)\n"
        "    return torch.round(w / s).to(torch.int8)\n"
    )
    verdict = verdict_of(quantize, source)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert verdict.points == 3
    assert len(verdict.printed) < 5000
    assert "careful" in verdict.printed


def test_random_state_is_put_back(quantize):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    verdict_of(quantize, "def quantize(w, s):\n    torch.rand(9)\n    return torch.round(w / s).to(torch.int8)")
    assert torch.equal(torch.get_rng_state(), before)


def test_changing_an_input_costs_one_property_and_is_named(quantize):
    verdict = verdict_of(quantize, "def quantize(w, s):\n    return torch.round(w.div_(s)).to(torch.int8)")
    assert verdict.points == 1.5
    assert verdict.mistake.id == "in-place"
    assert "argument 1" in verdict.text()


def test_outcomes_from_an_untrusted_process_are_checked(quantize):
    forged = [b"", b"garbage", answer({}, "quantize", quantize.cases[0].inputs, 1.0)[:-3]]
    for data in forged:
        with pytest.raises(Exception, match=r"bytes|outcome"):
            read_outcome(data)
    assert read_outcome(answer({}, "quantize", quantize.cases[0].inputs, 1.0)).status == "missing"


def test_a_time_limit_leaves_no_alarm_behind():
    with warnings.catch_warnings(), time_limit(30):
        pass
    import signal

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_pack_holds_no_code(packs):
    data = (packs / "exam/pack.safetensors").read_bytes()
    for phrase in (b"torch.round", b"torch.floor", b"def ", b"lambda", b"return "):
        assert phrase not in data


def test_outcome_is_plain_data():
    assert Outcome("returned").changed == ()


def test_a_property_that_changes_what_it_is_given_disturbs_nothing(packs, quantize):
    from dataclasses import replace

    from fourbit.exam import Property

    def careless(trial):
        trial.args[0].zero_()
        trial.output.zero_()
        trial.expected.zero_()

    careful = Property("sees the values", lambda t: None if t.output.any() and t.args[0].any() else "changed")
    exercise = replace(quantize, properties=(Property("careless", careless), careful))
    for _ in range(2):
        verdict = verdict_of(exercise, "def quantize(w, s):\n    return torch.round(w / s).to(torch.int8)")
        assert verdict.points == 3
