"""What must hold for the answers of lab 05. This file is part of the exam pack: it judges and solves nothing.

Each function takes a `Trial` and returns None when all is well, else the counterexample with the bound it breaks.
Integers are compared for equality. A sum of n products in float32, in any order, is off by at most n * 2^-24 of the
sum of their magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1), and each factor adds
one rounding of 2^-24: that is the bound wherever floats are compared.
"""

from __future__ import annotations

import math

import numpy as np

from fourbit.exam import Partial, Trial
from fourbit.measure.traffic import replay

UNIT = 2.0**-24
TIGHT = 1e-9


def _place(wrong: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(wrong)[0])


# gemv_traffic


def counts_bytes(trial: Trial) -> str | None:
    for name in ("read", "written"):
        ours, theirs = trial.output[name], trial.expected[name]
        if ours != theirs:
            return f"{name}: {ours:,} bytes, should be {theirs:,}"
    return None


def divides_by_the_weights(trial: Trial) -> str | None:
    rows, columns, _ = trial.args
    wanted = (trial.expected["read"] + trial.expected["written"]) / (rows * columns)
    if not abs(trial.output["per_weight"] - wanted) <= TIGHT * wanted:
        return f"{trial.output['per_weight']:.6g} bytes for each of {rows * columns} weights, should be {wanted:.6g}"
    return None


# repack


def _halves(trial: Trial, shift: int, name: str) -> str | None:
    ours, theirs = trial.output >> shift & 15, trial.expected >> shift & 15
    if (ours != theirs).any():
        row, group, byte = place = _place(ours != theirs)
        code = 64 * group + byte + (32 if shift else 0)
        where = f"row {row}, group {group}, byte {byte}"
        return f"{where}: the {name} half is {ours[place]}; code {code} is {theirs[place]}"
    return None


def has_the_low_halves(trial: Trial) -> str | None:
    return _halves(trial, 0, "low")


def has_the_high_halves(trial: Trial) -> str | None:
    return _halves(trial, 4, "high")


def fills_with_zeros(trial: Trial) -> str | None:
    """Past the end of a row stand codes of 0, and every byte before is right."""
    if (trial.output != trial.expected).any():
        row, group, byte = place = _place(trial.output != trial.expected)
        ours, theirs = int(trial.output[place]), int(trial.expected[place])
        return (
            f"a row of {trial.args[0].shape[1]}: row {row}, group {group}, byte {byte} is {ours:#04x}, should be "
            f"{theirs:#04x}"
        )
    return None


# products


def _codes(packed: np.ndarray) -> np.ndarray:
    both = packed[..., None] >> np.array([0, 4], np.uint8) & 15  # (rows, groups, 32, 2)
    return np.swapaxes(both, -1, -2).reshape(*packed.shape[:2], -1)


def _apart(trial: Trial, exact: np.ndarray, bound: np.ndarray) -> str | None:
    excess = np.nan_to_num(np.abs(trial.output.astype(np.float64) - exact) - bound, nan=math.inf)
    if (excess > 0).any():
        row = int(excess.argmax())
        return (
            f"row {row} of {len(exact)} is {trial.output[row]:.6g}, should be {exact[row]:.6g} within {bound[row]:.2g}"
        )
    return None


def multiplies(trial: Trial) -> str | None:
    """64 products and as many additions in a group, the sum of inputs likewise, then one addition for each group."""
    packed, scale, zero, x, _ = trial.args
    codes, inputs, scale = _codes(packed).astype(np.float32), x.astype(np.float64), scale.astype(np.float64)
    sums, sizes = inputs.sum(-1), np.abs(inputs).sum(-1)
    exact = (scale * (np.einsum("rgj,gj->rg", codes, inputs) - zero * sums)).sum(1)
    size = (np.abs(scale) * (np.einsum("rgj,gj->rg", codes, np.abs(inputs)) + zero * sizes)).sum(1)
    return _apart(trial, exact, (160 + len(x)) * UNIT * size)


def _centered(packed: np.ndarray, zero: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The integer of each row and group, exact."""
    whole = np.einsum("rgj,gj->rg", _codes(packed).astype(np.float64), codes.astype(np.float64))
    return whole - zero.astype(np.float64) * codes.sum(-1, dtype=np.float64)


def _scaled(trial: Trial, scale: np.ndarray, code_scale: np.ndarray, centered: np.ndarray) -> str | None:
    terms = scale.astype(np.float64) * code_scale * centered
    return _apart(trial, terms.sum(1), (4 + scale.shape[1]) * UNIT * np.abs(terms).sum(1))


def multiplies_integers(trial: Trial) -> str | None:
    """The integers are below 2^24 and so exact in float32; two scales, one addition for each group."""
    packed, scale, zero, codes, code_scale, _ = trial.args
    return _scaled(trial, scale, code_scale, _centered(packed, zero, codes))


def has_the_dots(trial: Trial) -> str | None:
    ours, theirs = trial.output["dots"], trial.expected["dots"]
    if (ours != theirs).any():
        place = _place(ours != theirs)
        return f"row {place[0]}, group {place[1]}: the dot is {ours[place]}, should be {theirs[place]} exactly"
    return None


def has_the_results(trial: Trial) -> str | None:
    packed, scale, zero, q = trial.args
    inner = Trial(trial.args, {}, trial.output["y"], trial.expected["y"], trial.case)
    return _scaled(inner, scale, q["scale"], _centered(packed, zero, q["codes"]))


# quantize_activations


def has_the_scales(trial: Trial) -> str | None:
    """A quotient of two float32 numbers, correctly rounded: there is one right answer."""
    ours, theirs = trial.output["scale"], trial.expected["scale"]
    if (ours != theirs).any():
        (group,) = _place(ours != theirs)
        return f"the scale of group {group} is {ours[group]:.8g}, should be {theirs[group]:.8g}"
    return None


def has_the_codes(trial: Trial) -> str | None:
    """No case holds an input within 1e-3 of the middle between two codes unless it lies there exactly."""
    ours, theirs = trial.output["codes"], trial.expected["codes"]
    if (ours != theirs).any():
        group, j = place = _place(ours != theirs)
        x = trial.args[0]
        value = f"{x[64 * group + j]:.6g}" if 64 * group + j < len(x) else "the filling"
        return f"group {group}, input {j}: {value} has code {ours[place]}, should be {theirs[place]}"
    return None


def handles_the_edges(trial: Trial) -> str | None:
    return has_the_scales(trial) or has_the_codes(trial)


def keeps_the_sums(trial: Trial) -> str | None:
    ours, theirs = trial.output["sum"], trial.expected["sum"]
    if (ours != theirs).any():
        (group,) = _place(ours != theirs)
        return f"the codes of group {group} add up to {theirs[group]}, not {ours[group]}"
    return None


# simd_dot


def has_the_pairs(trial: Trial) -> str | None:
    ours, theirs = trial.output["pairs"], trial.expected["pairs"]
    if (ours != theirs).any():
        k, i = place = _place(ours != theirs)
        u, s = (argument[k, 2 * i : 2 * i + 2].tolist() for argument in trial.args)
        return f"{u[0]} * {s[0]} + {u[1]} * {s[1]} gives {ours[place]} in a pair, should be {theirs[place]}"
    return None


def has_the_lanes(trial: Trial) -> str | None:
    ours, theirs = trial.output["lanes"], trial.expected["lanes"]
    if (ours != theirs).any():
        (lane,) = _place(ours != theirs)
        return f"lane {lane} of {len(trial.args[0])} vectors is {ours[lane]}, should be {theirs[lane]}"
    return None


# partition


def splits_all_rows(trial: Trial) -> str | None:
    rows, threads = trial.args
    parts = [tuple(part) for part in trial.output]
    if len(parts) != threads:
        return f"{len(parts)} parts for {threads} threads"
    reached = 0
    for start, stop in parts:
        if start != reached:
            what = "overlaps with the one before" if start < reached else "leaves rows out"
            return f"the part [{start}, {stop}] {what}: {reached} rows are covered so far, in order"
        if stop < start:
            return f"the part [{start}, {stop}] ends before it starts"
        reached = stop
    return None if reached == rows else f"{reached} of {rows} rows are covered"


def shares_no_line(trial: Trial) -> str | None:
    rows = trial.args[0]
    for edge in [edge for part in trial.output for edge in part]:
        if edge % 16 and edge != rows:
            return f"two parts meet at row {edge}, within a line of 16 results"
    return None


def is_fair(trial: Trial) -> str | None:
    sizes = [math.ceil((stop - start) / 16) for start, stop in trial.output]
    if max(sizes) - min(sizes) > 1:
        return f"the parts have {sizes} lines of 16 rows; they may differ by one"
    return None


# tile_schedule


def covers_each_product_once(trial: Trial) -> str | None:
    rows, tokens = trial.args[:2]
    seen = np.zeros((rows, tokens), np.int64)
    for row, row_stop, token, token_stop in np.asarray(trial.output).tolist():
        if not (0 <= row < row_stop <= rows and 0 <= token < token_stop <= tokens):
            return f"the tile [{row}, {row_stop}, {token}, {token_stop}] is empty or reaches beyond {rows} x {tokens}"
        seen[row:row_stop, token:token_stop] += 1
    if (seen != 1).any():
        row, token = place = _place(seen != 1)
        return f"row {row} with token {token} is computed {seen[place]} times"
    return None


def fetches_little(trial: Trial) -> Partial | None:
    rows, tokens, *memory = trial.args
    ours, best = (replay(np.asarray(t).tolist(), *memory) for t in (trial.output, trial.expected))
    worst = replay([(0, rows, t, t + 1) for t in range(tokens)], *memory)
    if ours <= best:
        return None
    share = math.log(worst / ours) / math.log(worst / best)
    return Partial(max(0.0, share), f"{ours:,} bytes are fetched; {best:,} are enough, token by token it is {worst:,}")


# tokens_per_second


def predicts_the_rate(trial: Trial) -> str | None:
    ours, theirs = trial.output["tokens_per_second"], trial.expected["tokens_per_second"]
    if not abs(ours - theirs) <= TIGHT * theirs:
        return f"{ours:.6g} tokens/s, should be {theirs:.6g}"
    return None


def names_the_bound(trial: Trial) -> str | None:
    ours, theirs = trial.output["bound"], trial.expected["bound"]
    return None if ours == theirs else f"bound by {ours!r}, should be {theirs!r}"


# is_right_kernel


def accepts(trial: Trial) -> str | None:
    return None if trial.output is True else f"{trial.case} is right and was refused"


def refuses(trial: Trial) -> str | None:
    return None if trial.output is False else f"{trial.case} is wrong and passed your test"
