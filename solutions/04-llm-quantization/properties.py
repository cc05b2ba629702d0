"""What must hold for the answers of lab 04. This file is part of the exam pack: it judges and solves nothing.

Each function takes a `Trial` and returns None when all is well, else the counterexample with the bound it breaks.
Where codes are compared, no case holds a value within 1e-4 steps of the middle between two codes unless it lies there
exactly: float32 is off by at most 255 * 2^-23 = 3e-5 steps, so that every correct order of operations gives the same
codes, and equality can be asked for. Where a case is float64, two correct orders of summation agree to about 1e-13 and
mistakes differ by 1e-4 and more: TIGHT (relative) tells them apart; FLOAT32 does where numbers are float32.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import nn

from fourbit.exam import Partial, Trial

TIGHT, FLOAT32 = 1e-9, 1e-5


def _first(wrong: torch.Tensor) -> int:
    return int(wrong.flatten().nonzero()[0])


# perplexity


def scores_each_token(trial: Trial) -> str | None:
    """The model's logits are float32 and of order 1: their log-softmax is known to about 1e-6 nats."""
    ours, theirs = trial.output["nll"], trial.expected["nll"]
    apart = (ours - theirs).abs().nan_to_num(math.inf)
    if not (apart <= FLOAT32).all():
        i = _first(~(apart <= FLOAT32))
        return f"token {i + 1} has {ours[i]:.6g} nats, should have {theirs[i]:.6g} (bound {FLOAT32:g})"
    return None


def equals_the_closed_form(trial: Trial) -> str | None:
    """A bigram table's token costs -log softmax of the row of the token before it, whatever the window."""
    table, tokens = trial.args[0][0], trial.args[1]
    assert isinstance(table, nn.Embedding)
    logits = table.weight.detach().double()
    cost = logits.logsumexp(1, keepdim=True) - logits
    wanted = cost[tokens[:-1], tokens[1:]]
    wrong = ~((trial.output["nll"] - wanted).abs() <= FLOAT32 * wanted.clamp(min=1))
    if wrong.any():
        i = _first(wrong)
        before, after = int(tokens[i]), int(tokens[i + 1])
        return (
            f"token {i + 1} ({after} after {before}) has {trial.output['nll'][i]:.6g} nats; in this bigram model it "
            f"has {cost[before, after]:.6g} in every window (bound {FLOAT32:g} of it)"
        )
    return None


def is_exp_of_the_mean(trial: Trial) -> str | None:
    """An error of so many nats in the mean is one of as much, relative, in its exponential."""
    ours, theirs = trial.output["perplexity"], trial.expected["perplexity"]
    bound = FLOAT32 * max(1.0, math.log(theirs))
    if not abs(ours / theirs - 1) <= bound:
        return f"the perplexity is {ours:.6g}, should be {theirs:.6g} (relative bound {bound:.0g})"
    return None


# salient_channels


def chooses_the_channels(trial: Trial) -> str | None:
    """In no case do the last channel chosen and the first left out come nearer than 1e-4, relative, unless equal."""
    ours, theirs = trial.output.tolist(), trial.expected.tolist()
    if ours == theirs:
        return None
    if len(set(ours)) < len(ours):
        return f"channel {next(c for c in ours if ours.count(c) > 1)} was chosen twice; {len(ours)} are to be kept"
    extra, missing = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if not extra:
        return "the right channels, but not in ascending order"
    return f"channel {extra[0]} was chosen by {trial.args[3]}, channel {missing[0]} was not and should be"


# round_to_nearest


def _place(trial: Trial, key: str) -> str | None:
    wrong = trial.output[key] != trial.expected[key]
    if wrong.any():
        row, group = (int(i) for i in wrong.nonzero()[0])
        got, want = (float(t[key][row, group]) for t in (trial.output, trial.expected))
        return f"the {key} of row {row}, group {group} is {got:.6g}, should be {want:.6g}"
    return None


def has_the_right_scales(trial: Trial) -> str | None:
    """The quotient in float32 is never so near a tie of float16 that its rounding is open: equality is asked for."""
    return _place(trial, "scale")


def has_the_right_zeros(trial: Trial) -> str | None:
    return _place(trial, "zero")


def has_the_right_group_codes(trial: Trial) -> str | None:
    weight, _, group = trial.args
    wrong = trial.output["codes"] != trial.expected["codes"]
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        got, want = (int(t["codes"][row, column]) for t in (trial.output, trial.expected))
        scale, zero = (float(trial.expected[key][row, column // group]) for key in ("scale", "zero"))
        return (
            f"row {row}, column {column}: {float(weight[row, column]):.5g} has code {got}, should be {want} "
            f"(scale {scale:.5g}, zero {zero:g})"
        )
    return None


def errs_by_half_a_stored_step(trial: Trial) -> str | None:
    """Half a step, plus what the scale's rounding to float16 can cut off at the top: 2^bits steps of 2^-11 of one."""
    weight, bits, group = trial.args
    scale, zero = (trial.output[k].double().repeat_interleave(group, 1) for k in ("scale", "zero"))
    scale, zero = scale[:, : weight.shape[1]], zero[:, : weight.shape[1]]
    back = (trial.output["codes"].double() - zero) * scale
    bound = (0.5 + 2.0 ** (bits - 11) + 1e-4) * scale
    excess = ((back - weight).abs() - bound).nan_to_num(math.inf)
    if not (excess <= 0).all():
        row, column = divmod(int(excess.argmax()), weight.shape[1])
        return (
            f"row {row}, column {column}: {float(weight[row, column]):.5g} comes back as {back[row, column]:.5g}, off "
            f"by more than half a step and the rounding of the scale, {bound[row, column]:.3g}"
        )
    return None


def keeps_zero_weights(trial: Trial) -> str | None:
    weight, _, group = trial.args
    zero = trial.output["zero"].repeat_interleave(group, 1)[:, : weight.shape[1]]
    wrong = (weight == 0) & (trial.output["codes"] != zero)
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        return f"row {row}, column {column}: 0 does not come back as exactly 0"
    return None


# model_bytes


def counts(trial: Trial, keys: tuple[str, ...] = ("codes", "scales", "zeros", "rest", "total")) -> str | None:
    for key in keys:
        ours, theirs = trial.output[key], trial.expected[key]
        if ours != theirs:
            return f"{key}: {ours:,} bytes, should be {theirs:,} ({(ours - theirs) / 2**20:+.3f} MiB)"
    return None


def has_the_bits_per_weight(trial: Trial) -> str | None:
    ours, theirs = trial.output["bits_per_weight"], trial.expected["bits_per_weight"]
    if not abs(ours - theirs) <= TIGHT * theirs:
        return f"{ours:.6g} bits for each quantized weight, should be {theirs:.6g}"
    return None


# normal_levels


def has_an_exact_zero(trial: Trial) -> str | None:
    levels = trial.output
    zeros, below = int((levels == 0).sum()), int((levels < 0).sum())
    if zeros != 1 or below != len(levels) // 2 - 1:
        return f"{zeros} levels are exactly 0 and {below} lie below; one and {len(levels) // 2 - 1} were expected"
    return None


def spans_minus_one_to_one(trial: Trial) -> str | None:
    levels = trial.output
    if not (levels.diff() > 0).all():
        return "the levels do not ascend"
    if levels[0] != -1 or levels[-1] != 1:
        return f"the levels reach from {levels[0]:.6g} to {levels[-1]:.6g}, should reach from -1 to 1"
    return None


def has_the_quantiles(trial: Trial) -> str | None:
    """A probability in float32 is known to 6e-8; at 8 bits the quantile's slope there is 160: 1e-5 of the largest."""
    apart = (trial.output - trial.expected).abs().nan_to_num(math.inf)
    if not (apart <= FLOAT32).all():
        i = int(apart.argmax())
        return f"level {i} is {trial.output[i]:.6g}, should be {trial.expected[i]:.6g} (bound {FLOAT32:g})"
    return None


# quantize_blocks


def has_the_largest_magnitudes(trial: Trial) -> str | None:
    wrong = trial.output["absmax"] != trial.expected["absmax"]
    if wrong.any():
        i = _first(wrong)
        ours, theirs = (float(t["absmax"][i]) for t in (trial.output, trial.expected))
        return f"the absmax of block {i} is {ours:.6g}, should be {theirs:.6g}"
    return None


def has_the_nearest_levels(trial: Trial) -> str | None:
    values, levels, block = trial.args
    wrong = trial.output["codes"] != trial.expected["codes"]
    if wrong.any():
        i = _first(wrong)
        got, want = (int(t["codes"].flatten()[i]) for t in (trial.output, trial.expected))
        value, largest = values.flatten()[i], float(trial.expected["absmax"][i // block])
        unit = f"{float(value) / largest:.5g} of the block's largest" if largest else "in a block of zeros"
        level = f"{float(levels[got]):.5g}" if got < len(levels) else "no level"
        return (
            f"value {i} ({float(value):.5g}, {unit}) has code {got}, {level}; should be {want}, "
            f"{float(levels[want]):.5g}"
        )
    return None


def _slack(tensor: torch.Tensor) -> float:
    return TIGHT if tensor.dtype == torch.float64 else FLOAT32


# fold_scales


def _written(layer: dict, x: torch.Tensor) -> torch.Tensor:
    """The channels (N, C) that a norm or a linear layer writes for normalized states or inputs x (N, C or in)."""
    weight = layer["weight"].double()
    channels = x * weight if weight.ndim == 1 else x @ weight.T
    return channels if layer["bias"] is None else channels + layer["bias"].double()


def folds_and_computes_the_same(trial: Trial) -> str | None:
    """The unfolded layers compute the same too, so the first one is looked at as well."""
    before, after, _, source = trial.args
    ours, slack = trial.output["before"], _slack(before["weight"])
    for name in ("weight", "bias"):
        theirs = trial.expected["before"][name]
        if theirs is not None and not _close(ours[name], theirs, slack):
            return f"the {name} of the first layer is not the original's divided by the scales"
    g = torch.Generator().manual_seed(20)
    # Each column gets an input of its own: query heads attend to different tokens, so no two read the same value.
    x = torch.randn(4, len(source), before["weight"].shape[-1], generator=g, dtype=torch.float64)
    reads = torch.arange(len(source))
    for i, matrix in enumerate(after):
        whole = _written(before, x)[:, reads, source] @ matrix.double().T
        folded = _written(ours, x)[:, reads, source] @ trial.output["after"][i].double().T
        apart = float((folded - whole).abs().max() / whole.abs().max())
        if not apart <= 10 * slack:
            return f"outputs of matrix {i} differ by {apart:.3g} of the largest, more than {10 * slack:.0g}"
    return None


def _close(ours: torch.Tensor, theirs: torch.Tensor, slack: float) -> bool:
    return bool(((ours - theirs).abs() <= slack * theirs.abs()).all())


# awq_scales


def measures_each_candidate(trial: Trial) -> str | None:
    """The cases keep each weight so far from a tie that float32 decides no code; sums agree to FLOAT32 and better."""
    count = trial.args[4]
    for i, (ours, theirs) in enumerate(zip(trial.output["errors"], trial.expected["errors"], strict=True)):
        if not abs(ours - theirs) <= 10 * FLOAT32 * theirs:
            return f"the error for alpha = {i / count:g} is {ours:.6g}, should be {theirs:.6g} (relative bound 1e-4)"
    return None


def chooses_the_best(trial: Trial) -> str | None:
    ours, theirs = trial.output, trial.expected
    if not abs(ours["alpha"] - theirs["alpha"]) <= TIGHT:
        return f"alpha is {ours['alpha']:g}; {theirs['alpha']:g} is the first with the smallest error"
    apart = (ours["scales"] / theirs["scales"] - 1).abs().nan_to_num(math.inf)
    if not (apart <= 10 * FLOAT32).all():
        i = int(apart.argmax())
        got, want = (float(t["scales"][i]) for t in (ours, theirs))
        return f"the scale of channel {i} is {got:.6g}, should be {want:.6g} (relative bound 1e-4)"
    return None if trial.case == "a silent channel" else measures_each_candidate(trial)


# gptq


def has_the_grids(trial: Trial) -> str | None:
    group = trial.args[3]
    for name in ("scale", "zero"):
        wrong = trial.output[name] != trial.expected[name]
        if wrong.any():
            row, place = (int(i) for i in wrong.nonzero()[0])
            got, want = (float(t[name][row, place]) for t in (trial.output, trial.expected))
            return f"the {name} of row {row}, columns from {place * group}, is {got:.6g}, should be {want:.6g}"
    return None


def quantizes_column_by_column(trial: Trial) -> str | None:
    """Float64 is off by 1e-12 of a step, and no case comes nearer than 1e-3 of one to a tie: codes are equal."""
    wrong = trial.output["codes"] != trial.expected["codes"]
    if wrong.any():
        column = int(wrong.any(0).nonzero()[0])
        row = int(wrong[:, column].nonzero()[0])
        got, want = (int(t["codes"][row, column]) for t in (trial.output, trial.expected))
        return f"column {column} is the first that differs: row {row} has code {got}, should be {want}"
    return has_the_grids(trial)


def _output_error(trial: Trial, q: dict) -> float:
    """Summed squared error of the layer's outputs on the calibration text: tr((W - Q) H (W - Q)^T)."""
    weight, hessian, _, group, _ = trial.args
    scale, zero = (q[key].double().repeat_interleave(group, 1)[:, : weight.shape[1]] for key in ("scale", "zero"))
    apart = weight.double() - (q["codes"].double() - zero) * scale
    return float((apart @ hessian * apart).sum())


def errs_no_more(trial: Trial) -> str | None:
    ours, theirs = (_output_error(trial, q) for q in (trial.output, trial.expected))
    if not ours <= theirs * (1 + TIGHT):
        return f"squared error of the outputs on the calibration text: {ours:.4g}, where {theirs:.4g} is reached"
    return None


# smooth_scales


def has_the_scales(trial: Trial) -> str | None:
    slack = _slack(trial.args[0])
    apart = (trial.output / trial.expected - 1).abs().nan_to_num(math.inf)
    if not (apart <= slack).all():
        i = int(apart.argmax())
        got, want = float(trial.output[i]), float(trial.expected[i])
        return f"the scale of channel {i} is {got:.6g}, should be {want:.6g} (relative bound {slack:g})"
    return None


# int8_matmul


def multiplies_integers(trial: Trial) -> str | None:
    """Codes and sums are integers and equal; the rest is float32, with a rounding for each channel."""
    x, weight, _ = trial.args
    ours, theirs = trial.output, trial.expected
    if ours["outliers"].tolist() != theirs["outliers"].tolist():
        return f"the outliers are {ours['outliers'].tolist()}, should be {theirs['outliers'].tolist()}"
    for name in ("codes", "accumulator"):
        wrong = ours[name] != theirs[name]
        if wrong.any():
            row, column = (int(i) for i in wrong.nonzero()[0])
            got, want = (int(t[name][row, column]) for t in (ours, theirs))
            return f"{name}[{row}, {column}] is {got}, should be {want} exactly"
    bound = _sums_known_to(x, weight)
    return _apart(ours["y"].double(), theirs["y"].double(), bound, "rounding of float32 sums")


def _sums_known_to(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Float32 sums of n products are off by at most n + 8 roundings of 2^-23 of the summed magnitudes."""
    return (x.shape[1] + 8) * 2.0**-23 * (x.double().abs() @ weight.double().abs().T)


def _apart(ours: torch.Tensor, theirs: torch.Tensor, bound: torch.Tensor, why: str) -> str | None:
    wrong = ~((ours - theirs).abs() <= bound)
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        return (
            f"y[{row}, {column}] is {ours[row, column]:.6g}, should be {theirs[row, column]:.6g} within "
            f"{bound[row, column]:.2g} ({why})"
        )
    return None


def stays_near_the_product(trial: Trial) -> str | None:
    """Both factors are off by at most half a step in every channel that is no outlier; in outliers nothing is lost."""
    x, weight = (t.double() for t in trial.args[:2])
    quiet = torch.ones(x.shape[1], dtype=torch.bool)
    quiet[trial.expected["outliers"]] = False
    a, b = x[:, quiet].abs(), weight[:, quiet].abs()
    half_a, half_b = (t.amax(1, keepdim=True) / 254 for t in (a, b))
    bound = half_a * b.sum(1) + half_b.T * a.sum(1, keepdim=True) + int(quiet.sum()) * half_a * half_b.T
    bound = bound + _sums_known_to(x, weight)
    return _apart(trial.output["y"].double(), x @ weight.T, bound, "half a step of each factor")


# allocate_bits

FULL_MARKS = 0.8  # of the way to the best of all mixtures


@lru_cache(maxsize=1)
def _table() -> dict:
    from fourbit.recipes.llm_mixed import read_table  # it loads the language models' code

    return read_table()


def fits_every_budget(trial: Trial) -> str | None:
    _, sizes, budgets = trial.args
    if len(trial.output) != len(budgets):
        return f"{len(trial.output)} choices for {len(budgets)} budgets"
    for plan, budget in zip(trial.output, budgets, strict=True):
        if set(plan) != set(sizes):
            return f"the kinds are {', '.join(map(str, plan))}; {', '.join(sizes)} were expected"
        for kind, bits in plan.items():
            if bits not in sizes[kind]:
                return f"{bits!r} bits for {kind}; the choices are {', '.join(map(str, sizes[kind]))}"
        used = sum(sizes[kind][bits] for kind, bits in plan.items())
        if used > budget:
            return f"{used:,} bytes for a budget of {budget:,}"
    return None


def comes_near_the_best(trial: Trial) -> Partial | str | None:
    """The mean share of the way, in the logarithm, from the best uniform choice that fits to the best of all.

    The divergence of every mixture was measured once; this looks it up.
    """
    broken = fits_every_budget(trial)
    if broken:
        return broken
    text = "hidden" if "hidden text" in trial.case else "evaluation"
    shares, told = [], []
    for chosen, budget in zip(trial.output, trial.args[2], strict=True):
        known = [(p["bits"], p["kl"][text]) for p in _table()["plans"] if p["bytes"] <= budget]
        uniform = min(kl for bits, kl in known if len(set(bits.values())) == 1)
        best = min(kl for _, kl in known)
        ours = next(kl for bits, kl in known if bits == chosen)
        share = math.log(uniform / ours) / math.log(uniform / best) if best < uniform else 1.0
        shares.append(min(max(share, 0.0), 1.0))
        told.append(f"{ours:.3f} nats at {budget / 1e6:.1f} MB (uniform {uniform:.3f}, best {best:.3f})")
    share = sum(shares) / len(shares) / FULL_MARKS
    return None if share >= 1 else Partial(share, f"{'; '.join(told)}: {share:.0%} of the way for full marks")
