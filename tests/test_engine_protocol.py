"""The grader's side against a peer that lies, floods, falls silent or hangs up; and the checks on outputs."""

from __future__ import annotations

import json
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.engine import Runner, runner
from autograder.engine.frames import MAX_BODY, DeadlineError, Frame, HungUp, ProtocolError, Wire, pair
from autograder.engine.outcome import OutputList, checked_output, parse_json
from autograder.jail import JailMode, Limits

if sys.platform != "linux":
    pytest.skip("the engine and its jail need the Linux kernel", allow_module_level=True)
pytestmark = pytest.mark.linux


def framed(head: bytes, body: bytes = b"") -> bytes:
    return struct.pack("!II", len(head), len(body)) + head + body


DONE = framed(b'{"say": "done", "status": "ok", "message": "", "kept": true, "live": true}')

PEERS: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\x00garbage" * 100, "crashed"),
    "giant header": (struct.pack("!II", 2**31, 0), "crashed"),
    "giant body": (struct.pack("!II", 2, MAX_BODY + 1) + b"{}", "crashed"),
    "no object": (framed(b"[1, 2]"), "crashed"),
    "not a number": (framed(b'{"say": NaN}'), "crashed"),
    "deep": (framed(b'{"a":' * 2000 + b"1" + b"}" * 2000), "crashed"),
    "half a frame": (DONE[:-3], "crashed"),
    "unknown status": (framed(b'{"say": "done", "status": "perfect", "message": ["x"], "kept": "yes"}'), "crashed"),
    "fine": (framed(b'{"say": "output"}', b'{"output_type": "stream", "name": "stdout", "text": "hi"}') + DONE, "ok"),
}


def against(data: bytes, *, hang_up: bool = True, seconds: float = 5.0) -> tuple[Runner, Callable[[], None]]:
    """A runner whose guard is played by this test: sends ``data`` and hangs up, or stays silent."""
    wire, inner = pair()
    lifeline, inner_lifeline = pair()
    inner_lifeline.close()
    inner.socket.sendall(data)
    if hang_up:
        inner.socket.shutdown(1)
    return Runner(wire, lifeline, Limits(cell_seconds=seconds), JailMode.PLAIN), inner.close


@pytest.mark.parametrize("name", PEERS)
def test_the_grader_survives_what_it_receives(name: str) -> None:
    data, status = PEERS[name]
    made, end = against(data)
    outcome = made.run_cell("1")
    assert outcome.status == status
    assert all(isinstance(output, dict) for output in outcome.outputs)
    if status == "ok":
        assert outcome.outputs[0]["text"] == "hi"
    else:
        assert not outcome.kept
        assert not made.alive
        assert made.run_cell("2").status == "crashed"
    made.close()
    end()


def test_silence_ends_at_the_graders_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PATIENCE", 0.1)
    made, end = against(b"", hang_up=False, seconds=0.1)
    outcome = made.run_cell("1")
    assert outcome.status == "crashed"
    assert "no answer" in outcome.message
    made.close()
    end()


def test_a_flood_of_frames_is_not_kept() -> None:
    output = framed(
        b'{"say": "output"}', json.dumps({"output_type": "stream", "name": "stdout", "text": "x" * 50_000}).encode()
    )
    wire, inner = pair()
    lifeline, inner_lifeline = pair()
    inner_lifeline.close()
    inner.socket.setblocking(True)
    sender = threading.Thread(target=lambda: inner.socket.sendall(output * 400 + DONE))
    sender.start()
    made = Runner(wire, lifeline, Limits(output_bytes=2**18), JailMode.PLAIN)
    outcome = made.run_cell("1")
    sender.join()
    assert sum(len(item["text"]) for item in outcome.outputs) <= 2**18 + 256
    made.close()
    inner.close()


def test_a_wire_keeps_its_deadlines_and_tells_its_ends_apart() -> None:
    left, right = pair()
    with pytest.raises(DeadlineError):
        left.receive(time.monotonic() + 0.05)
    with pytest.raises(DeadlineError):
        left.send({}, b"x" * 2**24, deadline=time.monotonic() + 0.05)
    right.close()
    with pytest.raises(HungUp):
        left.receive(time.monotonic() + 1)
    with pytest.raises(ProtocolError):
        left.send({"long": "x" * 2**17})
    left.close()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=4), st.binary(max_size=4096))
@settings(max_examples=50, deadline=None)
def test_what_is_sent_arrives(header: dict[str, object], body: bytes) -> None:
    left, right = pair()
    left.send(header, body)
    frame = right.receive(time.monotonic() + 5)
    assert (frame.header, frame.body) == (header, body)
    left.close()
    right.close()


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_a_reader(data: bytes) -> None:
    left, right = pair()
    left.socket.sendall(data)
    left.close()
    try:
        while True:
            right.receive(time.monotonic() + 5)
    except (HungUp, ProtocolError):
        pass
    right.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["stream", "error", "display_data", "update_display_data", "execute_result", "clear", "other"])


@given(KINDS, JSON, JSON, JSON)
@settings(max_examples=300, deadline=None)
def test_every_checked_output_is_valid_in_a_notebook(kind: str, data: object, metadata: object, text: object) -> None:
    import nbformat

    message = {"output_type": kind, "data": data, "metadata": metadata, "text": text, "traceback": data, "ename": text}
    output = checked_output(message)
    if output is not None:
        cell = nbformat.v4.new_code_cell("", outputs=[nbformat.from_dict(output)])
        cell.pop("id", None)
        nbformat.validate(nbformat.v4.new_notebook(cells=[cell], nbformat_minor=4), relax_add_props=False)


@pytest.mark.parametrize(
    "text", [b"1e999", b"NaN", b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b'{"a":' * 60 + b"1" + b"}" * 60]
)
def test_json_that_no_submission_needs_is_refused(text: bytes) -> None:
    assert parse_json(text) is None


def test_output_list_merges_clears_and_updates() -> None:
    collected = OutputList(10_000)

    def add(**message: object) -> None:
        collected.add(json.dumps(message).encode())

    add(output_type="stream", name="stdout", text="a")
    add(output_type="stream", name="stdout", text="b")
    add(output_type="stream", name="stderr", text="c")
    assert [item["text"] for item in collected.items] == ["ab", "c"]
    add(output_type="clear", wait=True)
    assert len(collected.items) == 2
    add(output_type="display_data", data={"text/plain": "old"}, display_id="d")
    add(output_type="update_display_data", data={"text/plain": "new"}, display_id="d")
    assert [item["data"] for item in collected.items] == [{"text/plain": "new"}]
    add(output_type="stream", name="stdout", text="x" * 20_000)
    assert len(collected.items) == 1


def test_a_wire_never_buffers_more_than_one_frame() -> None:
    left, right = pair()
    small = Wire(right.socket, max_body=1000)
    left.socket.sendall(framed(b"{}", b"x" * 1001))
    with pytest.raises(ProtocolError):
        small.receive(time.monotonic() + 1)
    left.close()
    right.close()


def test_descriptors_stay_with_their_frames() -> None:
    left, right = pair()
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        for number, file in enumerate((first, second)):
            file.write(str(number).encode())
            file.flush()
            left.send({"number": number}, b"body" * number, descriptors=(file.fileno(),))
    left.send({"number": 2})
    for number in range(2):
        frame = right.receive_with_descriptors()
        assert (frame.header, frame.body) == ({"number": number}, b"body" * number)
        (descriptor,) = frame.descriptors
        with open(descriptor, "rb") as file:
            file.seek(0)
            assert file.read() == str(number).encode()
    assert right.receive_with_descriptors() == Frame({"number": 2})
    left.close()
    right.close()
