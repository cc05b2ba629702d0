"""What must hold for the answers of lab 02. This file is part of the exam pack: it judges and solves nothing.

Each function takes a `Trial` and returns None when all is well, else the counterexample with the bound it breaks.
Where a case is float64, two correct orders of summation agree to about 1e-13 and mistakes differ by 1e-4 and more:
TIGHT = 1e-9 (relative to the largest value) tells them apart. A quotient in float32 is known to about 1e-5 of a step,
so a code may differ by one where x / scale lies within NEAR = 1e-3 of a half; cases of exact halves allow nothing.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import nn

from fourbit.codec import encode
from fourbit.exam import Partial, Trial
from fourbit.exam.fixtures import images, model
from fourbit.recipes.mixed_precision import read_front, rounded

TIGHT, FLOAT32, NEAR = 1e-9, 1e-6, 1e-3


def _first(wrong: torch.Tensor) -> int:
    return int(wrong.flatten().nonzero()[0])


# kmeans_codebook


def has_nearest_codes(trial: Trial) -> str | None:
    """Lloyd's first step: no other centroid of the answer lies nearer."""
    w, centroids = trial.args[0].flatten().double(), trial.output["centroids"].double()
    codes = trial.output["codes"].flatten().long()
    if int(codes.max()) >= len(centroids):
        return f"code {int(codes.max())} for {len(centroids)} centroids"
    far = w[:, None].sub(centroids).abs()
    excess = far.gather(1, codes[:, None])[:, 0] - far.amin(1)
    slack = (TIGHT if trial.args[0].dtype == torch.float64 else FLOAT32) * w.abs().max()
    if not (excess <= slack).all():
        i = int(excess.nan_to_num(math.inf).argmax())
        near = centroids[int(far[i].argmin())]
        return f"weight {w[i]:.5g} has the centroid {centroids[codes[i]]:.5g}, but {near:.5g} is nearer"
    return None


def follows_lloyd(trial: Trial) -> str | None:
    ours, theirs = trial.output["centroids"].double(), trial.expected["centroids"].double()
    slack = (TIGHT if trial.args[0].dtype == torch.float64 else 1e-5) * trial.args[0].abs().max().item()
    apart = (ours - theirs).abs().nan_to_num(math.inf)
    if not (apart <= slack).all():
        i = int(apart.argmax())
        return (
            f"centroid {i} is {ours[i]:.6g}; Lloyd's algorithm from that start has {theirs[i]:.6g} (bound {slack:.1g})"
        )
    return None


# is_valid_codebook


def accepts(trial: Trial) -> str | None:
    return None if trial.output is True else "a right codebook was refused"


def refuses(trial: Trial) -> str | None:
    return None if trial.output is False else "a wrong codebook was accepted"


# centroid_gradient


def collects_gradients(trial: Trial) -> str | None:
    ours, theirs = trial.output.double(), trial.expected.double()
    slack = (TIGHT if trial.args[0].dtype == torch.float64 else 1e-5) * trial.args[0].double().abs().sum().item()
    apart = (ours - theirs).abs().nan_to_num(math.inf)
    if not (apart <= slack).all():
        i = int(apart.argmax())
        return f"the gradient of centroid {i} is {ours[i]:.6g}, should be {theirs[i]:.6g} (bound {slack:.1g})"
    return None


# quantize, quantize_weight, fake_quantize


def has_the_right_scale(trial: Trial) -> str | None:
    ours, theirs = trial.output["scale"], trial.expected["scale"]
    wrong = ~((ours - theirs).abs() <= FLOAT32 * theirs.abs())
    if wrong.any():
        i = _first(wrong)
        return f"scale {ours.flatten()[i]:.6g}, should be {theirs.flatten()[i]:.6g} (relative bound {FLOAT32:g})"
    return None


def has_the_right_zero_point(trial: Trial) -> str | None:
    ours, theirs = trial.output["zero_point"], trial.expected["zero_point"]
    low = trial.args[1].double().clamp(max=0.0)
    place = low / trial.expected["scale"].double()
    tie = (place - place.floor() - 0.5).abs() < NEAR
    wrong = (ours - theirs).abs() > tie.int()
    if wrong.any():
        i = _first(wrong)
        return f"zero point {int(ours.flatten()[i])}, should be {int(theirs.flatten()[i])}: the code of zero"
    return None


def _codes_apart(ours: torch.Tensor, theirs: torch.Tensor, place: torch.Tensor, exact: bool) -> str | None:
    tie = (place - place.floor() - 0.5).abs() < (0.0 if exact else NEAR)
    wrong = (ours.int() - theirs.int()).abs() > tie.int()
    if wrong.any():
        i = _first(wrong)
        got, want = (int(t.flatten()[i]) for t in (ours, theirs))
        return f"element {i}: x / scale = {place.flatten()[i]:.4f} has code {got}, should be {want}"
    return None


def has_the_right_codes(trial: Trial, exact: bool = False) -> str | None:
    place = trial.args[0].double() / trial.expected["scale"].double()
    return _codes_apart(trial.output["codes"], trial.expected["codes"], place, exact)


def errs_by_half_a_step(trial: Trial) -> str | None:
    """Inside the range, rounding to the nearest value is off by at most half a step."""
    x, low, high = (t.double() for t in trial.args[:3])
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    step = trial.output["scale"].double()
    back = step * (trial.output["codes"].double() - trial.output["zero_point"].double())
    # An asymmetric range is moved by up to half a step so that zero lies on the grid; its ends may be cut by as much.
    inside = (x >= low + step / 2) & (x <= high - step / 2)
    excess = ((back - x).abs() - step / 2 * (1 + NEAR)).where(inside, torch.tensor(-1.0, dtype=torch.float64))
    if not (excess <= 0).all():
        i = int(excess.nan_to_num(math.inf).argmax())
        return (
            f"{x.flatten()[i]:.5g} comes back as {back.flatten()[i]:.5g}: off by more than scale / 2 = "
            f"{(step / 2).expand_as(x).flatten()[i]:.3g}, though inside the range"
        )
    return None


def keeps_zero(trial: Trial) -> str | None:
    zeros = trial.args[0] == 0
    back = trial.output["codes"].int() - trial.output["zero_point"]
    if not (back[zeros] == 0).all():
        return "zero does not come back as exactly zero; padding and ReLU write many of them"
    return None


def _places(trial: Trial) -> torch.Tensor:
    """x / scale for the expected scale of each weight, whoever shares it."""
    w, _, group = trial.args
    rows, scale = w.double().flatten(1), trial.expected["scale"].double()
    column = torch.arange(rows.shape[1])
    column = column // group if isinstance(group, int) else torch.zeros_like(column)
    return (rows / scale[:, column]).view(w.shape)


def has_the_right_weight_codes(trial: Trial) -> str | None:
    return _codes_apart(trial.output["codes"], trial.expected["codes"], _places(trial), False)


def rounds_to_the_grid(trial: Trial, exact: bool = False) -> str | None:
    w, scale = trial.args[0].double(), trial.args[1].double()
    place = w / scale
    ours, theirs = trial.output["value"].double(), trial.expected["value"].double()
    tie = (place - place.floor() - 0.5).abs() < (0.0 if exact else NEAR)
    wrong = ~((ours - theirs).abs() <= FLOAT32 * theirs.abs() + tie * scale * 1.001)
    if wrong.any():
        i = _first(wrong)
        return f"{w.flatten()[i]:.5g} became {ours.flatten()[i]:.5g}, should be {theirs.flatten()[i]:.5g}"
    return None


def has_the_right_slope(trial: Trial) -> str | None:
    wrong = trial.output["slope"] != trial.expected["slope"]
    if wrong.any():
        i = _first(wrong)
        w, ours, theirs = (
            t.flatten()[i].item() for t in (trial.args[0], trial.output["slope"], trial.expected["slope"])
        )
        return f"the slope at w = {w:.5g} is {ours:g}, should be {theirs:g}"
    return None


# pack_codes


def _stream(trial: Trial) -> tuple[torch.Tensor, int]:
    return trial.args[0].flatten(), trial.args[1]


def unpacks(trial: Trial) -> str | None:
    """Read the bits back as the contract describes them."""
    codes, bits = _stream(trial)
    if not isinstance(trial.output, torch.Tensor) or trial.output.dtype != torch.uint8:
        return "the bytes should be a uint8 tensor"
    places = np.unpackbits(trial.output.flatten().numpy(), bitorder="little").astype(np.int64)
    if len(places) < len(codes) * bits:
        return f"{len(places) // 8} bytes cannot hold {len(codes)} codes of {bits} bits"
    back = places[: len(codes) * bits].reshape(-1, bits) @ (2 ** np.arange(bits))
    wrong = np.flatnonzero(back != codes.numpy())
    if wrong.size:
        i = int(wrong[0])
        return f"code {i} reads back as {back[i]}, not {int(codes[i])}"
    if places[len(codes) * bits :].any():
        return "the places behind the last code are not all 0"
    return None


def takes_exact_bytes(trial: Trial) -> str | None:
    codes, bits = _stream(trial)
    size = math.ceil(len(codes) * bits / 8)
    if not isinstance(trial.output, torch.Tensor) or trial.output.shape != (size,):
        form = tuple(trial.output.shape) if isinstance(trial.output, torch.Tensor) else type(trial.output).__name__
        return f"{len(codes)} codes of {bits} bits take {size} bytes, shape ({size},); this is {form}"
    return None


# clip_range


def chooses_the_range(trial: Trial) -> str | None:
    slack = 1e-5 * trial.args[0].abs().max().item()
    for name, ours, theirs in zip(("low", "high"), trial.output, trial.expected, strict=True):
        if not abs(ours.item() - theirs.item()) <= slack:
            return f"{name} is {ours.item():.6g}, should be {theirs.item():.6g} (bound {slack:.1g})"
    return None


# fold_batch_norm


def has_the_right_layers(trial: Trial) -> str | None:
    ours, theirs = dict(trial.output.named_children()), dict(trial.expected.named_children())
    if list(ours) != list(theirs):
        return f"the layers are {', '.join(ours)}; {', '.join(theirs)} were expected, in this order"
    for name, layer in theirs.items():
        if str(ours[name]) != str(layer):
            return f"layer {name} is {ours[name]}; it should be {layer}"
    return None


def computes_the_same(trial: Trial) -> str | None:
    before, after = trial.args[0].double().eval(), trial.output.double()
    first = next(layer for layer in before if isinstance(layer, nn.Conv2d | nn.BatchNorm2d))
    channels = first.in_channels if isinstance(first, nn.Conv2d) else first.num_features
    generator = torch.Generator().manual_seed(20)
    x = torch.randn(6, channels, 8, 8, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        whole, ours = before(x), after(x)
    if ours.shape != whole.shape:
        return f"the output has shape {tuple(ours.shape)}, the original's {tuple(whole.shape)}"
    apart = float((ours - whole).abs().max() / whole.abs().max())
    if not apart <= TIGHT:
        return f"outputs differ by {apart:.3g} of the largest, more than {TIGHT:g} (double precision)"
    return None


def folds_and_computes(trial: Trial) -> str | None:
    """The unfolded network computes the same too, so both must hold."""
    return has_the_right_layers(trial) or computes_the_same(trial)


def in_eval_mode(trial: Trial) -> str | None:
    left = [name for name, layer in trial.output.named_modules() if layer.training]
    return f"{left[0] or 'the network'} is in training mode" if left else has_the_right_layers(trial)


# integer_layer


def equals_bit_for_bit(trial: Trial) -> str | None:
    wrong = trial.output != trial.expected
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        got, want = int(trial.output[row, column]), int(trial.expected[row, column])
        return (
            f"{int(wrong.sum())} of {wrong.numel()} codes differ; [{row}, {column}] is {got}, should be {want} exactly"
        )
    return None


# huffman_lengths


def is_a_prefix_code(trial: Trial) -> str | None:
    counts, lengths = trial.args[0], trial.output
    for symbol, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        if (length > 0) != (count > 0) or length < 0:
            return f"symbol {symbol} occurs {count} times and has a code of {length} bits"
    filled = sum(2.0**-length for length in lengths if length)
    if filled > 1:
        return f"no prefix code has these lengths: the sum of 2^-length is {filled:.4g}, above 1 (Kraft)"
    return None


def needs_the_fewest_bits(trial: Trial) -> str | None:
    broken = is_a_prefix_code(trial)
    if broken:
        return broken
    ours, best = (sum(c * n for c, n in zip(trial.args[0], a, strict=True)) for a in (trial.output, trial.expected))
    return f"{ours} bits in all; {best} are enough" if ours > best else None


# allocate_bits

IMAGES = {"val": 128, "test": 256}  # fewer where a student waits
FULL_MARKS = 0.8  # of the way to the reference front, which was searched by measuring
_known: dict[tuple[str, bytes], float] = {}


def fits_every_budget(trial: Trial) -> str | None:
    table, sizes, budgets = trial.args
    if len(trial.output) != len(budgets):
        return f"{len(trial.output)} allocations for {len(budgets)} budgets"
    for plan, budget in zip(trial.output, budgets, strict=True):
        if set(plan) != set(sizes):
            return f"the layers are {', '.join(map(str, plan))}; {', '.join(sizes)} were expected"
        for layer, bits in plan.items():
            if bits not in table[layer]:
                return f"{bits!r} bits for {layer}; the table has {', '.join(map(str, table[layer]))}"
        used = _bytes(plan, sizes)
        if used > budget:
            return f"{used:,} bytes of codes for a budget of {budget:,}"
    return None


def _bytes(plan: dict[str, int], sizes: dict[str, int]) -> int:
    return sum(math.ceil(sizes[layer] * bits / 8) for layer, bits in plan.items())


def _accuracy(case: str, plan: dict[str, int]) -> float:
    """Measured accuracy in % of this case's network with these bits; "network, split images" is the case's name."""
    network, rest = case.split(", ")
    split = "test" if "test" in rest else "val"
    key = case, hashlib.sha256(encode(dict(sorted(plan.items())))).digest()
    if key not in _known:
        x, y = images(split, IMAGES[split])
        with torch.no_grad():
            right = rounded(model(network), plan)(x).argmax(1) == y
        if len(_known) > 512:
            _known.clear()
        _known[key] = 100 * right.double().mean().item()
    return _known[key]


def _best_known(trial: Trial, i: int) -> dict[str, int]:
    """The stored front's allocation for budget i, or for a network without a stored front the reference's."""
    _, sizes, budgets = trial.args
    if not trial.case.startswith("teacher20"):
        return dict(trial.expected[i])
    stored = read_front()["front"]
    return [entry["bits"] for entry in stored if _bytes(entry["bits"], sizes) <= budgets[i]][-1]


def comes_near_the_front(trial: Trial) -> Partial | str | None:
    """The mean share of the way from the best uniform choice to the front, by measured accuracy."""
    broken = fits_every_budget(trial)
    if broken:
        return broken
    table, sizes, budgets = trial.args
    shares, told = [], []
    for i, (plan, budget) in enumerate(zip(trial.output, budgets, strict=True)):
        choices = sorted(next(iter(table.values())))
        uniform = [dict.fromkeys(sizes, b) for b in choices if _bytes(dict.fromkeys(sizes, b), sizes) <= budget][-1]
        base, top, ours = (_accuracy(trial.case, p) for p in (uniform, _best_known(trial, i), plan))
        shares.append(min(max((ours - base) / max(top - base, 1e-9), 0.0), 1.0))
        told.append(f"{ours:.0f} % at {budget / 1000:.1f} kB (uniform {base:.0f}, front {top:.0f})")
    share = sum(shares) / len(shares) / FULL_MARKS
    return None if share >= 1 else Partial(share, f"{'; '.join(told)}: {share:.0%} of the way for full marks")
