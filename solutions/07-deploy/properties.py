"""What must hold for the answers of lab 07. This file is part of the exam pack: it judges and solves nothing.

Each function takes a `Trial` and returns None when all is well, else the counterexample with the bound it breaks.
Bytes, counts and text are compared exactly. Numbers that are computed in float64 agree to TIGHT (relative) in any
order of operations, and mistakes differ by a percent and more.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from fourbit.exam import Partial, Raised, Trial
from fourbit.exam.compare import describe

TIGHT = 1e-9


def refuses(trial: Trial) -> str | None:
    """A ValueError, of which UnicodeDecodeError is a kind."""
    output = trial.output
    if isinstance(output, Raised):
        if output.type in ("ValueError", "UnicodeDecodeError"):
            return None
        return f"raised {output.type} ({output.message}); callers are told to expect a ValueError"
    return f"returned a {describe(output)}; a ValueError was expected"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# read_value


def reads_the_value(trial: Trial) -> str | None:
    ours, theirs = trial.output["value"], trial.expected["value"]
    if ours != theirs or type(ours) is not type(theirs):
        return f"the value is {_shown(ours)}, should be {_shown(theirs)}"
    if isinstance(ours, list) and [type(v) for v in ours] != [type(v) for v in theirs]:
        return f"the elements of {_shown(ours)} are not of the type of {_shown(theirs)}"
    return None


def knows_what_comes_next(trial: Trial) -> str | None:
    ours, theirs = trial.output["next"], trial.expected["next"]
    if ours != theirs:
        return f"the next thing begins at {ours}, should begin at {theirs} (the value began at {trial.args[1]})"
    return None


# read_header


def reads_the_metadata(trial: Trial) -> str | None:
    if not isinstance(trial.output, dict):
        return f"returned a {describe(trial.output)}; a dict was expected"
    for key in ("version", "metadata"):
        ours, theirs = trial.output[key], trial.expected[key]
        if ours != theirs or (isinstance(ours, dict) and list(ours) != list(theirs)):
            return f"{key} is {_shown(ours)}, should be {_shown(theirs)}"
    return None


def knows_each_tensor(trial: Trial, keys: tuple[str, ...] = ("kind", "shape", "bytes")) -> str | None:
    if not isinstance(trial.output, dict):
        return f"returned a {describe(trial.output)}; a dict was expected"
    ours, theirs = trial.output["tensors"], trial.expected["tensors"]
    if list(ours) != list(theirs):
        return f"the tensors are {_shown(list(ours))}, should be {_shown(list(theirs))}"
    for name, tensor in theirs.items():
        for key in keys:
            if ours[name][key] != tensor[key]:
                return f"{name}: {key} is {_shown(ours[name][key])}, should be {_shown(tensor[key])}"
    return None


def finds_each_tensor(trial: Trial) -> str | None:
    return knows_each_tensor(trial, ("start",))


# decode_blocks, decode_k


def decodes(trial: Trial) -> str | None:
    """A product of a float16 and small integers is exact in float32, a sum of two off by 2^-24 of the larger.

    So 1e-6 of the largest weight of a row leaves room for any order, and a result in half precision has none.
    """
    ours, theirs = trial.output.double(), trial.expected.double()
    bound = 1e-6 * theirs.abs().amax(1, keepdim=True)
    wrong = ~((ours - theirs).abs() <= bound)
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        count = int(wrong[row].sum())
        return (
            f"row {row}: weight {column} is {ours[row, column]:.6g}, should be {theirs[row, column]:.6g} "
            f"({count} of {wrong.shape[1]} weights of this row are wrong)"
        )
    return None


# encode_q4_0


def stores_the_scales(trial: Trial) -> str | None:
    """The quotient in float32 is never so near a tie of float16 that its rounding is open: equality is asked for."""
    ours, theirs = (t.reshape(-1, 18)[:, :2] for t in (trial.output, trial.expected))
    wrong = (ours != theirs).any(1)
    if wrong.any():
        block = int(wrong.nonzero()[0])
        got, want = (t[block].clone().view(torch.float16).item() for t in (ours, theirs))
        return f"the scale of block {block} is {got:.6g} (bytes {ours[block].tolist()}), should be {want:.6g}"
    return None


def stores_the_codes(trial: Trial) -> str | None:
    """No weight comes within 1e-4 steps of the middle between two codes unless it lies there exactly."""
    ours, theirs = (t.reshape(-1, 18)[:, 2:] for t in (trial.output, trial.expected))
    wrong = ours != theirs
    if wrong.any():
        block, byte = (int(i) for i in wrong.nonzero()[0])
        got, want = int(ours[block, byte]), int(theirs[block, byte])
        return f"block {block}, byte {byte} of the codes is 0x{got:02X}, should be 0x{want:02X}"
    return None


# accept_conversion


def accepts(trial: Trial) -> str | None:
    return None if trial.output is True else f"a right conversion was refused (the test said {_shown(trial.output)})"


def rejects(trial: Trial) -> str | None:
    return None if trial.output is False else f"a wrong conversion was accepted (the test said {_shown(trial.output)})"


# memory_plan


def counts_bytes(trial: Trial, keys: tuple[str, ...]) -> str | None:
    for key in keys:
        ours, theirs = trial.output[key], trial.expected[key]
        if ours != theirs:
            return f"{key} is {ours:,}, should be {theirs:,} ({ours / max(theirs, 1):.4g} of it)"
    return None


# split_layers and model_card


def has_the_numbers(trial: Trial, keys: tuple[str, ...]) -> str | None:
    for key in keys:
        ours, theirs = trial.output[key], trial.expected[key]
        if (ours is None) != (theirs is None) or (ours is not None and not abs(ours - theirs) <= TIGHT * abs(theirs)):
            return f"{key} is {_shown(ours)}, should be {_shown(theirs)}"
    return None


# choose_deployments

FULL_MARKS = 0.97  # of the way from one model to the best choice
CHANCE = 25.0  # % of four answers


def may_be_deployed(trial: Trial) -> str | None:
    candidates, memory, divergence, _, count = trial.args
    chosen = trial.output
    if not isinstance(chosen, list) or any(type(i) is not int or not 0 <= i < len(candidates) for i in chosen):
        return f"{_shown(chosen)} is no list of indices into the candidates"
    if len(set(chosen)) < len(chosen) or len(chosen) > count:
        return f"{len(chosen)} were chosen, {len(set(chosen))} of them different; at most {count} different ones may be"
    if [candidates[i]["score"] for i in chosen] != sorted((candidates[i]["score"] for i in chosen), reverse=True):
        return "what was chosen is not in the order of its scores, the highest first"
    for i in chosen:
        one = candidates[i]
        label = f"{one['model']} in {one['format']} with a cache in {one['kv']}"
        if one["bytes"] > memory:
            return f"{label} takes {one['bytes'] / 1e9:.2f} GB; the device has {memory / 1e9:.2f}"
        if one["divergence"] > divergence:
            return f"{label} costs {one['divergence']:.4f} nats; {divergence:.4f} are allowed"
    return None


def _front(trial: Trial, chosen: list[int]) -> float:
    """The best score above chance at each speed, integrated over the logarithm of the speed."""
    candidates, (slowest, fastest) = trial.args[0], trial.args[3]
    edges = sorted({slowest, fastest, *(candidates[i]["speed"] for i in chosen)})
    edges = [edge for edge in edges if slowest <= edge <= fastest]
    area = 0.0
    for low, high in pairwise(edges):
        offered = [candidates[i]["score"] for i in chosen if candidates[i]["speed"] >= high]
        area += math.log(high / low) * max(max(offered, default=CHANCE) - CHANCE, 0.0)
    return area


def spans_the_front(trial: Trial) -> Partial | str | None:
    broken = may_be_deployed(trial)
    if broken:
        return broken
    candidates, memory, divergence, _, _ = trial.args
    runs = [i for i, c in enumerate(candidates) if c["bytes"] <= memory and c["divergence"] <= divergence]
    single = max(runs, key=lambda i: (candidates[i]["score"], candidates[i]["speed"]))
    least, best, ours = (_front(trial, some) for some in ([single], trial.expected, trial.output))
    share = min(max((ours - least) / (best - least), 0.0), 1.0) / FULL_MARKS
    if share >= 1:
        return None
    names = ", ".join(f"{candidates[i]['model']} {candidates[i]['format']}" for i in trial.output) or "nothing"
    said = f"{names}: an area of {ours:.1f}, where one model alone has {least:.1f} and the best choice {best:.1f}"
    return Partial(share, f"{said}; {share:.0%} of full marks")


def knows_that_nothing_fits(trial: Trial) -> str | None:
    return None if trial.output == [] else f"{_shown(trial.output)} was returned, where nothing may be deployed"


# chat_prompt


def has_the_tokens(trial: Trial) -> str | None:
    ours, theirs = trial.output, trial.expected
    for i, (got, want) in enumerate(zip(ours, theirs, strict=False)):
        if got != want:
            control = {number: text for text, number in trial.args[2].items()}
            said = " ".join(control.get(t, chr(t) if 32 < t < 127 else f"[{t}]") for t in theirs[max(0, i - 6) : i])
            got, want = (control.get(t, t) for t in (got, want))
            return f"token {i}, after {said!r}, is {got}, should be {want}"
    if len(ours) != len(theirs):
        return f"{len(ours)} tokens; {len(theirs)} were expected, and the first {min(len(ours), len(theirs))} agree"
    return None


# sse_events


def streams_the_events(trial: Trial) -> str | None:
    """What is complete after each chunk."""
    if not isinstance(trial.output, list) or len(trial.output) != len(trial.args[0]):
        return f"{_shown(trial.output)} is not a list of events for each of {len(trial.args[0])} chunks"
    for i, (ours, theirs) in enumerate(zip(trial.output, trial.expected, strict=True)):
        if ours != theirs:
            return f"after chunk {i} the new events are {_shown(ours)}, should be {_shown(theirs)}"
    return None


def has_the_events(trial: Trial) -> str | None:
    """All events of the stream; they may come late, but not before they are complete."""
    if not isinstance(trial.output, list) or len(trial.output) != len(trial.args[0]):
        return f"{_shown(trial.output)} is not a list of events for each of {len(trial.args[0])} chunks"
    seen = complete = 0
    for i, (early, known) in enumerate(zip(trial.output, trial.expected, strict=True)):
        seen, complete = seen + len(early), complete + len(known)
        if seen > complete:
            return f"{seen} events after chunk {i}, where {complete} are complete"
    ours, theirs = ([event for events in t for event in events] for t in (trial.output, trial.expected))
    if ours != theirs:
        return f"the events are {_shown(ours)}, should be {_shown(theirs)}"
    return None
