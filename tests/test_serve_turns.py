"""Who comes next: the queue in front of the engine, with a model whose answers the test ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit.chat.talker import Request
from fourbit.errors import ModelError
from fourbit.llm.generation import Piece, Usage
from fourbit.serve.turns import Begun, BusyError, ClosingError, Ended, Event, Failed, Turn, Turns


class Scripted:
    """Answers each prompt with one piece that the test releases, and keeps the order of the prompts."""

    def __init__(self) -> None:
        self.usage = Usage(1, 0, 1, 0.0, 0.0)
        self.order: list[int] = []
        self.release = threading.Semaphore(0)

    def answer(self, request: Request, cancelled: threading.Event) -> Iterator[Piece]:
        self.order.append(request.prompt[0])
        if request.prompt[0] < 0:
            raise ModelError("the logits are not finite") if request.prompt[0] == -1 else RuntimeError("a secret")
        yield Piece("begins", 0)
        while not self.release.acquire(timeout=0.01):
            if cancelled.is_set():
                return
        yield Piece("ends", 0, "stop")


def run(test: Callable[[Scripted, Turns], Awaitable[None]], **limits: Any) -> None:
    async def body() -> None:
        model = Scripted()
        turns = Turns(model, **limits)
        try:
            await asyncio.wait_for(test(model, turns), 60)
        finally:
            turns.stop()

    asyncio.run(body())


async def events(turn: Turn) -> list[Event]:
    """All events of a turn, up to its end."""
    found: list[Event] = []
    while not found or not isinstance(found[-1], Ended | Failed):
        found.append(await turn.events.get())
    return found


async def busy(model: Scripted, turns: Turns) -> Turn:
    """Let a first turn begin and go on until it is released."""
    first = turns.enter(Request([0]), "first")
    assert await first.events.get() == Begun()
    return first


def test_one_client_is_served_in_order_of_arrival() -> None:
    async def test(model: Scripted, turns: Turns) -> None:
        found = [turns.enter(Request([i]), "a") for i in range(5)]
        model.release.release(5)
        for turn in found:
            assert [type(event) for event in await events(turn)] == [Begun, Piece, Piece, Ended]
        assert model.order == [0, 1, 2, 3, 4]

    run(test)


@given(st.lists(st.sampled_from("abcd"), max_size=12))
@settings(deadline=None, max_examples=40)
def test_clients_take_turns(asked: list[str]) -> None:
    """However often one asks: between two turns of a client, every other one that waits has at most one."""

    async def test(model: Scripted, turns: Turns) -> None:
        first = await busy(model, turns)
        found = [turns.enter(Request([i + 1]), client) for i, client in enumerate(asked)]
        ahead = [turns.ahead(turn) for turn in found]
        model.release.release(len(found) + 1)
        for turn in [first, *found]:
            await events(turn)
        served = [(number, asked[number - 1]) for number in model.order[1:]]
        # the k-th turn of a client comes in round k; within a round, whoever has waited longer comes first
        rounds = [(asked[:i].count(client), asked.index(client), i + 1, client) for i, client in enumerate(asked)]
        assert served == [(number, client) for _, _, number, client in sorted(rounds)]
        assert [1 + served.index((i + 1, client)) for i, client in enumerate(asked)] == ahead

    run(test)


def test_a_client_that_floods_fills_its_own_line_only() -> None:
    async def test(model: Scripted, turns: Turns) -> None:
        await busy(model, turns)
        for _ in range(3):
            turns.enter(Request([1]), "flood")
        with pytest.raises(BusyError, match="3 requests of yours") as caught:
            turns.enter(Request([1]), "flood")
        assert caught.value.retry_after >= 1
        with pytest.raises(BusyError):
            turns.refuse_when_full("flood")
        other = turns.enter(Request([2]), "other")
        assert turns.ahead(other) == 2  # the turn in progress, and one of the flood
        turns.enter(Request([2]), "other")
        with pytest.raises(BusyError, match="5 requests are waiting"):
            turns.enter(Request([3]), "third")

    run(test, each=3, most=5)


def test_who_leaves_frees_the_place_and_the_turn() -> None:
    async def test(model: Scripted, turns: Turns) -> None:
        first = await busy(model, turns)
        waits, leaves = (turns.enter(Request([i]), "a") for i in (1, 2))
        with pytest.raises(BusyError):
            turns.enter(Request([3]), "a")
        turns.leave(leaves)
        last = turns.enter(Request([3]), "a")
        turns.leave(first)
        assert isinstance((await events(first))[-1], Failed)
        model.release.release(2)
        assert isinstance((await events(waits))[-1], Ended)
        assert isinstance((await events(last))[-1], Ended)
        assert model.order == [0, 1, 3]
        turns.leave(leaves)  # again, and after the end: nothing happens
        turns.leave(last)
        assert turns.waiting == 0

    run(test, each=2)


def test_a_failure_is_told_and_the_next_one_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def test(model: Scripted, turns: Turns) -> None:
        ours, bug, after = (turns.enter(Request([i]), "a") for i in (-1, -2, 1))
        model.release.release()
        assert (await events(ours))[-1] == Failed("the logits are not finite", True)
        failed = (await events(bug))[-1]
        assert isinstance(failed, Failed)
        assert (failed.told, "secret" in failed.message) == (False, False)
        assert isinstance((await events(after))[-1], Ended)

    run(test)
    assert "a secret" in caplog.text  # for the one who runs the server


def test_closing_lets_the_answer_in_progress_end_and_sends_the_others_away() -> None:
    async def test(model: Scripted, turns: Turns) -> None:
        first = await busy(model, turns)
        waits = turns.enter(Request([1]), "a")
        turns.close()
        assert isinstance((await events(waits))[-1], Failed)
        with pytest.raises(ClosingError):
            turns.enter(Request([2]), "a")
        model.release.release()
        assert isinstance((await events(first))[-1], Ended)
        assert model.order == [0]

    run(test)


def test_cutting_ends_the_answer_in_progress() -> None:
    async def test(model: Scripted, turns: Turns) -> None:
        first = await busy(model, turns)
        turns.close()
        turns.cut()
        assert isinstance((await events(first))[-1], Failed)

    run(test)


def test_the_cost_of_each_answer_is_reported() -> None:
    told: list[tuple[str, str]] = []

    async def test(model: Scripted, turns: Turns) -> None:
        model.release.release()
        await events(turns.enter(Request([1]), "a"))
        await events_of_cut(model, turns)

    async def events_of_cut(model: Scripted, turns: Turns) -> None:
        second = await busy(model, turns)
        turns.leave(second)
        await events(second)

    run(test, report=lambda turn, usage, how: told.append((turn.client, how)))
    assert told == [("a", "stop"), ("first", "ended early")]
