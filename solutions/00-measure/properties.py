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


def levels_close(trial: Trial) -> str | None:
    """Each memory level is charged for its own traffic at its own price."""
    return close(trial, keys=tuple(key for key in trial.expected if key not in ("mac", "total")))


def below_both_roofs(trial: Trial) -> str | None:
    """No operation is faster than the arithmetic units, none faster than its data arrive."""
    peak_flops, peak_bandwidth = trial.args[4:6]
    out = trial.output
    roof = min(peak_flops, trial.expected["intensity"] * peak_bandwidth)
    if 0 < out["attainable"] <= roof * (1 + ROUNDING):
        return None
    return f"attainable {out['attainable']:.4g} FLOP/s, but the lower roof is at {roof:.4g} FLOP/s"


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


def front(trial: Trial, full: float) -> str | Partial | None:
    """The area under the measured front of accuracy against MACs, above that of a random choice.

    0 is a random choice, 1 is asking the larger network exactly where that gains most; full marks from `full`.
    """
    answered = re.search(r"(\w+) images (\d+) to (\d+)", trial.case)
    assert answered is not None
    small, large = _answers(answered[1], int(answered[2]), int(answered[3]))
    share = gain_share(trial.output, small, large)
    if share >= full:
        return None
    message = f"the front encloses {share:.3f} of the area between a random choice and a perfect one; full marks from {full}"
    return Partial(max(share, 0.0) / full, message)


def gain_share(doubt: torch.Tensor, small: torch.Tensor, large: torch.Tensor) -> float:
    """Area between the cascade's front and the straight line of a random choice, as a share of the largest possible.

    Args:
        doubt: (n,) float; the images are handed on in the order of falling doubt, ties in their order.
        small, large: (n,) bool; whether each network alone is right.
    """
    gain = large.double() - small.double()  # +1: handing on mends the answer, -1: it spoils it
    best = gain.sort(descending=True).values.cumsum(0)
    ours = gain[doubt.double().sort(descending=True, stable=True).indices].cumsum(0)
    line = gain.sum() * torch.arange(1, len(gain) + 1, dtype=torch.float64) / len(gain)
    return float((ours - line).sum() / (best - line).sum())


@lru_cache(maxsize=8)
def _answers(split: str, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    from fourbit.exam.fixtures import images, logits

    short = {"validation": "val"}.get(split, split)
    _, y = images(short, stop - start, start)
    small, large = (logits(name, short, stop - start, start).argmax(1) == y for name in ("s5", "teacher20"))
    return small, large


def _pick(value: Any, key: str | None) -> Any:
    return value if key is None else value[key]


def _label(key: str | None) -> str:
    return "" if key is None else f"{key}: "


def _ratio(output: float, expected: float) -> str:
    """A wrong factor is often a wrong unit, so it is worth saying."""
    if not expected or not output or not math.isfinite(output):
        return ""
    return f" ({output / expected:.3g} times)"
