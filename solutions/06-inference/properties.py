"""What must hold for the answers of lab 06. This file is part of the exam pack: it judges and solves nothing.

Each function takes a `Trial` and returns None when all is well, else the counterexample with the bound it breaks.
Where a case is float64, two correct orders of summation agree to about 1e-13 of the largest number, and mistakes differ
by 1e-4 and more: TIGHT tells them apart; FLOAT32 does where numbers are float32. No case of `sample` or `verify` has a
cumulative probability within 1e-6 of a threshold, no rounded number of `quantize_kv` lies within 1e-3 steps of a tie.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fourbit.exam import Raised, Trial

TIGHT, FLOAT32 = 1e-9, 1e-5


def _slack(tensor: torch.Tensor) -> float:
    return TIGHT if tensor.dtype == torch.float64 else FLOAT32


def _differs(ours: torch.Tensor, theirs: torch.Tensor, bound: float) -> tuple[int, ...] | None:
    """The place where two tensors are further apart than the bound, or where one is no number."""
    wrong = ~((ours.double() - theirs.double()).abs() <= bound) & (ours != theirs)
    return tuple(int(i) for i in wrong.nonzero()[0]) if wrong.any() else None


def refuses(trial: Trial) -> str | None:
    if isinstance(trial.output, Raised) and trial.output.type == "ValueError":
        return None
    got = trial.output.type if isinstance(trial.output, Raised) else "an answer"
    return f"this must raise ValueError; it gave {got}"


# rope


def turns_each_pair(trial: Trial) -> str | None:
    """In half precision cosine, sine, two products and a sum are rounded: 4 * 2^-8 of the pair's length in bfloat16."""
    x, positions, _ = trial.args
    bound = _slack(x) if x.dtype.itemsize > 2 else 4 * 2.0**-8
    place = _differs(trial.output, trial.expected, bound * float(x.abs().max()) * math.sqrt(2))
    if place is None:
        return None
    text, head, token, channel = place
    got, want = (float(t[place]) for t in (trial.output, trial.expected))
    return (
        f"text {text}, head {head}, token {token} (position {int(positions[text, token])}), channel {channel} is "
        f"{got:.5g}, should be {want:.5g}"
    )


def keeps_lengths(trial: Trial) -> str | None:
    x, half = trial.args[0], trial.args[0].shape[-1] // 2
    before, after = (t[..., :half].square() + t[..., half:].square() for t in (x.double(), trial.output.double()))
    place = _differs(after, before, 2 * _slack(x) * float(before.max()))
    if place is None:
        return None
    pair = f"channels {place[3]} and {place[3] + half} of token {place[2]}"
    return f"{pair} had length {float(before[place]) ** 0.5:.5g} and now have {float(after[place]) ** 0.5:.5g}"


# kv_cache


def _each_step(trial: Trial) -> Any:
    return zip(trial.args[2], trial.output["steps"], trial.expected["steps"], strict=True)


def holds_what_was_appended(trial: Trial) -> str | None:
    for i, (step, ours, theirs) in enumerate(_each_step(trial)):
        where = f"after step {i + 1} ({step[0]})"
        if ours["lengths"] != theirs["lengths"]:
            return f"{where} the lengths are {ours['lengths']}, should be {theirs['lengths']}"
        for name in ("keys", "values"):
            for row, (got, want) in enumerate(zip(ours[name], theirs[name], strict=True)):
                if got.shape != want.shape:
                    return f"{where} the {name} of text {row} are {tuple(got.shape)}, should be {tuple(want.shape)}"
                place = _differs(got, want, 0)
                if place is not None:
                    return f"{where} the {name} of text {row} are wrong at token {place[1]}"
    return None


def refuses_what_does_not_fit(trial: Trial) -> str | None:
    for i, (step, ours, theirs) in enumerate(_each_step(trial)):
        if ours["refused"] != theirs["refused"]:
            return f"step {i + 1} ({step[0]}) should {'' if theirs['refused'] else 'not '}raise ValueError"
    return holds_what_was_appended(trial)


def views_without_copying(trial: Trial) -> str | None:
    for i, (step, ours, theirs) in enumerate(_each_step(trial)):
        for name, what in (("moved", "the cache is no longer where it was made"), ("copied", "view() is a copy")):
            if ours[name]:
                return f"after step {i + 1} ({step[0]}) {what}"
        if ours["longest"] != theirs["longest"]:
            return f"after step {i + 1} view() has {ours['longest']} tokens, should have {theirs['longest']}"
    return holds_what_was_appended(trial)


def counts_its_bytes(trial: Trial) -> str | None:
    ours, theirs = trial.output["nbytes"], trial.expected["nbytes"]
    return None if ours == theirs else f"nbytes is {ours:,}, should be {theirs:,}"


# attend


def attends(trial: Trial) -> str | None:
    query, _, values, lengths = trial.args
    largest = float(values.abs().nan_to_num(0, 0, 0).max())
    place = _differs(trial.output, trial.expected, 10 * _slack(query) * largest)
    if place is None:
        return None
    text, head, token, channel = place
    got, want = (float(t[place]) for t in (trial.output, trial.expected))
    position = lengths[text] - query.shape[2] + token
    return (
        f"text {text} (of {lengths[text]} tokens), head {head}, new token {token} (position {position}), channel "
        f"{channel} is {got:.5g}, should be {want:.5g}"
    )


# is_consistent


def accepts(trial: Trial) -> str | None:
    return None if trial.output is True else "a right engine is refused"


def finds(trial: Trial) -> str | None:
    return None if trial.output is False else "this engine is wrong, and your test accepts it"


# read_prompt


def has_the_logits(trial: Trial) -> str | None:
    """Chunks of another size sum in another order: float32, and logits of order 10."""
    place = _differs(trial.output["logits"], trial.expected["logits"], 10 * FLOAT32)
    if place is None:
        return None
    got, want = (float(t["logits"][place]) for t in (trial.output, trial.expected))
    return f"the logit of token {place[0]} is {got:.5g}, should be {want:.5g} (bound 1e-4)"


def reads_what_is_new(trial: Trial) -> str | None:
    for name, what in (("reused", "tokens kept"), ("reads", "tokens read by each call of forward")):
        ours, theirs = trial.output[name], trial.expected[name]
        if ours != theirs:
            return f"{what}: {ours}, should be {theirs}"
    return has_the_logits(trial)


# fold_tile


def folds(trial: Trial, keys: tuple[str, ...] = ("largest", "sum", "mixed")) -> str | None:
    for name in keys:
        ours, theirs = trial.output[name], trial.expected[name]
        finite = theirs[theirs.isfinite()].abs()
        bound = 10 * TIGHT * (float(finite.max()) if len(finite) else 1.0)
        place = _differs(ours, theirs, bound)
        if place is not None:
            return f"{name} of row {place[0]} is {float(ours[place]):.6g}, should be {float(theirs[place]):.6g}"
    return None


# sample


def _law(ours: torch.Tensor, theirs: torch.Tensor) -> str | None:
    place = _differs(ours, theirs, TIGHT)
    if place is None:
        return None
    got, want = float(ours[place]), float(theirs[place])
    if (got == 0) != (want == 0):
        return f"token {place[0]} {'was cut' if got == 0 else 'was kept'}; its probability should be {want:.5g}"
    return f"token {place[0]} has probability {got:.6g}, should have {want:.6g} (bound {TIGHT:g})"


def cuts_the_law(trial: Trial) -> str | None:
    return _law(trial.output["probabilities"], trial.expected["probabilities"])


def draws(trial: Trial) -> str | None:
    ours, theirs = trial.output["token"], trial.expected["token"]
    if ours != theirs:
        return f"with u = {trial.args[5]:g} the token is {theirs}, not {ours}"
    return cuts_the_law(trial)


# stream


def shows(trial: Trial) -> str | None:
    ours, theirs = trial.output, trial.expected
    if ours["stopped"] != theirs["stopped"]:
        return f"it {'stopped' if ours['stopped'] else 'did not stop'}; the stop strings are {trial.args[1]}"
    for i, (got, want) in enumerate(zip(ours["shown"], theirs["shown"], strict=False)):
        if got != want:
            what = f"after piece {i + 1} ({trial.args[0][i]!r})" if i < len(trial.args[0]) else "at the end"
            return f"{what} it shows {got!r}, should show {want!r}"
    if len(ours["shown"]) != len(theirs["shown"]):
        return f"it shows {len(ours['shown'])} times, should {len(theirs['shown'])} times"
    return None


# quantize_kv


def rounds_in_groups(trial: Trial) -> str | None:
    for name in ("low", "scale", "codes"):
        ours, theirs = trial.output[name], trial.expected[name]
        wrong = ours != theirs
        if wrong.any():
            place = tuple(int(i) for i in wrong.nonzero()[0])
            names = ("head", "token" if name == "codes" or trial.args[2] == "token" else "block", "channel")
            where = ", ".join(f"{n} {i}" for n, i in zip(names, place, strict=True))
            return f"the {name} of {where} is {float(ours[place]):.5g}, should be {float(theirs[place]):.5g}"
    return None


# latencies


def _near(ours: Any, theirs: Any) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return abs(ours - theirs) <= TIGHT * max(1.0, abs(theirs))


def times(trial: Trial, key: str) -> str | None:
    ours, theirs = trial.output[key], trial.expected[key]
    pairs = list(zip(ours, theirs, strict=True)) if isinstance(theirs, list) else [(ours, theirs)]
    for i, (got, want) in enumerate(pairs):
        if not _near(got, want):
            who = f" of request {i}" if isinstance(theirs, list) else ""
            return f"{key}{who} is {got}, should be {want}"
    return None


# verify


def accepts_as_many(trial: Trial) -> str | None:
    ours, theirs = trial.output["accepted"], trial.expected["accepted"]
    if ours == theirs:
        return None
    return f"{ours} of {len(trial.args[2])} drafted tokens are accepted, should be {theirs}"


def has_the_law(trial: Trial) -> str | None:
    wrong = accepts_as_many(trial)
    if wrong is not None:
        return wrong
    return _law(trial.output["law"], trial.expected["law"])


def chooses(trial: Trial) -> str | None:
    ours, theirs = trial.output["token"], trial.expected["token"]
    if ours != theirs:
        return f"the token that follows is {theirs}, not {ours}"
    return has_the_law(trial)


# draft_length


def estimates(trial: Trial, key: str) -> str | None:
    ours, theirs = trial.output[key], trial.expected[key]
    pairs = enumerate(zip(ours, theirs, strict=True)) if isinstance(theirs, list) else [(-1, (ours, theirs))]
    for n, (got, want) in pairs:
        if not abs(got - want) <= TIGHT * max(1.0, abs(want)):
            return f"{key}{f' for n = {n}' if n >= 0 else ''} is {got:.6g}, should be {want:.6g}"
    return None
