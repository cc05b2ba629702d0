"""What must hold for the answers of lab 00. The same file judges the visible and the hidden cases."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import torch

from fourbit.exam import Partial, Trial

# One float32 rounding changes a number by at most 2^-24 of itself; no answer here needs more than 16 of them.
ROUNDING = 16 * 2.0**-24


def exact(trial: Trial, key: str | None = None) -> str | None:
    """Counts are whole numbers: there is no tolerance."""
    output, expected = _pick(trial.output, key), _pick(trial.expected, key)
    if output == expected:
        return None
    return f"{_label(key)}{output:,} instead of {expected:,}{_ratio(output, expected)}"


def exact_parameters(trial: Trial) -> str | None:
    """Trainable and frozen values are both right."""
    return exact(trial, "trainable") or exact(trial, "frozen")


def every_layer_exact(trial: Trial) -> str | None:
    """Each layer's count is right; the message shows the first that is not."""
    for name, expected in trial.expected.items():
        output = trial.output[name]
        if output != expected:
            return f"{name}: {output:,} instead of {expected:,}{_ratio(output, expected)}"
    return None


def close(trial: Trial, key: str | None = None, keys: tuple[str, ...] = ()) -> str | None:
    """Numbers agree up to the rounding of 16 float32 operations."""
    for part in keys or (key,):
        output, expected = _pick(trial.output, part), _pick(trial.expected, part)
        if not math.isclose(output, expected, rel_tol=ROUNDING):
            return f"{_label(part)}{output:.6g} instead of {expected:.6g}{_ratio(output, expected)}"
    return None


def same_word(trial: Trial, key: str) -> str | None:
    output, expected = trial.output[key], trial.expected[key]
    return None if output == expected else f"{key}: {output!r} instead of {expected!r}"


def parts_add_up(trial: Trial, total: str) -> str | None:
    """The total is the sum of the other entries, each counted once."""
    parts = sum(value for key, value in trial.output.items() if key != total)
    if math.isclose(trial.output[total], parts, rel_tol=ROUNDING):
        return None
    return f"{total} is {trial.output[total]:,.6g}, the other entries add up to {parts:,.6g}"


def total_of_parts(trial: Trial) -> str | None:
    """The total is right, and the sum of the other entries."""
    return parts_add_up(trial, "total") or close(trial, "total")


def levels_close(trial: Trial) -> str | None:
    """Each memory level is charged for its own traffic at its own price."""
    return close(trial, keys=tuple(key for key in trial.expected if key not in ("mac", "total")))


def below_both_roofs(trial: Trial) -> str | None:
    """No operation computes faster than the arithmetic units, and none reads faster than the memory delivers."""
    peak_flops, peak_bandwidth = trial.args[4:6]
    speed = trial.output["attainable"]
    delivered = speed / trial.expected["intensity"]  # bytes/s that this speed needs
    if not 0 < speed <= peak_flops * (1 + ROUNDING):
        return f"attainable {speed:.4g} FLOP/s, but the machine does at most {peak_flops:.4g}"
    if delivered > peak_bandwidth * (1 + ROUNDING):
        return f"attainable {speed:.4g} FLOP/s needs {delivered:.4g} bytes/s; the memory delivers {peak_bandwidth:.4g}"
    return None


def median_right(trial: Trial) -> str | None:
    output, expected = trial.output[1], trial.expected[1]
    if math.isclose(output, expected, rel_tol=ROUNDING):
        return None
    return f"median {output:.6g} s instead of {expected:.6g} s"


def interval_right(trial: Trial) -> str | None:
    """Both ends are samples of the right rank, so they agree up to one rounding."""
    (low, _, high), (right_low, _, right_high) = trial.output, trial.expected
    if math.isclose(low, right_low, rel_tol=ROUNDING) and math.isclose(high, right_high, rel_tol=ROUNDING):
        return None
    return f"[{low:.6g}, {high:.6g}] s instead of [{right_low:.6g}, {right_high:.6g}] s"


def judged(trial: Trial, right: bool) -> str | None:
    if trial.output is right:
        return None
    return "an honest report was rejected" if right else "this report was believed"


def finite(trial: Trial) -> str | None:
    bad = int((~torch.isfinite(trial.output)).sum())
    return f"{bad} of {trial.output.numel()} doubts are not finite" if bad else None


def front(trial: Trial) -> str | Partial | None:
    """Area gained over handing on at random, compared with the reference's.

    No marks up to 0.4 of the reference, which luck can reach on a few hundred images; full marks from 0.9.
    """
    place = re.search(r"(\w+) images (\d+) to (\d+)", trial.case)
    assert place is not None
    gain = _gain({"validation": "val"}.get(place[1], place[1]))[int(place[2]) : int(place[3])]
    ours, reference, perfect = (gained_area(d, gain) for d in (trial.output, trial.expected, gain))
    if ours >= 0.9 * reference:
        return None
    message = (
        f"the front gains {100 * ours / perfect:.1f} % of what a perfect choice gains over a random one, "
        f"the reference {100 * reference / perfect:.1f} %; full marks from 0.9 of the reference"
    )
    return Partial(max(ours / reference - 0.4, 0.0) / 0.5, message)


def gained_area(doubt: torch.Tensor, gain: torch.Tensor) -> float:
    """Area between a cascade's front of accuracy against MACs and that of a random choice.

    Args:
        doubt: (n,); images are handed on in the order of falling doubt, ties in their order.
        gain: (n,), +1 where handing on mends the answer, -1 where it spoils it, else 0.

    Returns:
        Mean gap in accuracy, in [-1, 1]; a front keeps its best accuracy when it hands on more.
    """
    steps = torch.arange(len(gain) + 1, dtype=torch.float64) / len(gain)
    gain = gain.double()
    order = doubt.double().sort(descending=True, stable=True).indices
    reached = torch.cat([torch.zeros(1, dtype=torch.float64), gain[order].cumsum(0)])  # (n + 1,)
    return float((reached.cummax(0).values - (gain.sum() * steps).cummax(0).values).mean()) / len(gain)


@lru_cache(maxsize=2)
def _gain(split: str) -> torch.Tensor:
    """(n,) int8 over the first images of a split: what handing each of them on to the large network changes."""
    from fourbit.exam.fixtures import images, logits

    count = {"val": 2000, "test": 6000}[split]
    _, y = images(split, count)
    small, large = (logits(name, split, count).argmax(1) == y for name in ("s5", "teacher20"))
    return large.to(torch.int8) - small.to(torch.int8)


def _pick(value: Any, key: str | None) -> Any:
    return value if key is None else value[key]


def _label(key: str | None) -> str:
    return "" if key is None else f"{key}: "


def _ratio(output: float, expected: float) -> str:
    """A wrong factor is often a wrong unit, so it is worth saying."""
    if not expected or not output or not math.isfinite(output):
        return ""
    return f" ({output / expected:.3g} times)"
