"""What must hold for the answers of lab 01. This file is part of the exam pack: it judges and solves nothing.

Each function takes a `Trial` and returns None when all is well, else the counterexample with the bound it breaks.
Networks in these cases are float64, where two correct orders of summation agree to about 1e-13; mistakes differ by
1e-4 and more, so TIGHT = 1e-9 (relative to the largest value) tells them apart on any processor.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import nn

from fourbit.codec import encode
from fourbit.exam import Partial, Trial
from fourbit.exam.fixtures import images
from fourbit.sparsity import Recipe, apply_recipe, file_bytes

TIGHT = 1e-9


def _at(index: torch.Tensor) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"


# magnitude_mask


def keeps_the_right_magnitudes(trial: Trial) -> str | None:
    """Of equal magnitudes either may stay, so what counts is which magnitudes stay, not where."""
    w = trial.args[0].abs()
    ours, theirs = (w[mask].sort(descending=True).values for mask in (trial.output, trial.expected))
    if len(ours) != len(theirs):
        return f"{w.numel() - len(ours)} of {w.numel()} weights removed, {w.numel() - len(theirs)} should be"
    differ = (ours != theirs).nonzero().flatten()
    if len(differ):
        i = int(differ[0])
        return f"magnitude {theirs[i]:.4g} should have stayed; {ours[i]:.4g} stayed in its place"
    return None


# nm_mask


def _n_of_m(trial: Trial) -> tuple[torch.Tensor, int, int]:
    return trial.args if len(trial.args) == 3 else (trial.args[0], 2, 4)


def keeps_n_of_m(trial: Trial) -> str | None:
    w, n, m = _n_of_m(trial)
    magnitude, mask = w.abs().movedim(1, -1), trial.output.movedim(1, -1)  # (out, ..., in)
    for start in range(0, w.shape[1] - m + 1, m):
        kept, sizes = mask[..., start : start + m], magnitude[..., start : start + m]
        counts = kept.sum(-1)
        if (counts != n).any():
            where = (counts != n).nonzero()[0]
            return (
                f"input channels {start} to {start + m - 1} at position {_at(where)} keep {int(counts[tuple(where)])}, "
                f"not {n} of {m}"
            )
        least_kept = sizes.masked_fill(~kept, math.inf).amin(-1)
        most_gone = sizes.masked_fill(kept, -math.inf).amax(-1)
        if (most_gone > least_kept).any():
            where = (most_gone > least_kept).nonzero()[0]
            gone, stays = most_gone[tuple(where)].item(), least_kept[tuple(where)].item()
            return (
                f"input channels {start} to {start + m - 1} at position {_at(where)}: magnitude {gone:.4g} was "
                f"removed while {stays:.4g} stayed"
            )
    return None


def leaves_the_tail_dense(trial: Trial) -> str | None:
    w, _, m = _n_of_m(trial)
    tail = w.shape[1] % m
    removed = int((~trial.output[:, w.shape[1] - tail :]).sum()) if tail else 0
    if removed:
        return f"{removed} weights of the last {tail} input channels, no full group of {m}, were removed"
    return None


# networks


def _same_plan(output: nn.Sequential, expected: nn.Sequential) -> str | None:
    """Names, kinds, settings and sizes of all layers agree; tensors of numbers are not looked at."""
    ours, theirs = dict(output.named_children()), dict(expected.named_children())
    if list(ours) != list(theirs):
        return f"the layers are {', '.join(ours)}; {', '.join(theirs)} were expected, in this order"
    for name, layer in theirs.items():
        if str(ours[name]) != str(layer):
            return f"layer {name} is {ours[name]}; it should be {layer}"
    return None


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp_min(1e-30))


def _differs(output: nn.Sequential, expected: nn.Sequential, keys: list[str], what: str) -> str | None:
    ours, theirs = output.state_dict(), expected.state_dict()
    for key in keys:
        if key not in ours or ours[key].shape != theirs[key].shape:
            return f"{what}: {key} is missing or of another shape"
        if not ours[key].isfinite().all() or _apart(ours[key], theirs[key]) > TIGHT:
            worst = int((ours[key].double() - theirs[key].double()).abs().flatten().nan_to_num(math.inf).argmax())
            got, want = ours[key].flatten()[worst].item(), theirs[key].flatten()[worst].item()
            return f"{what}: {key}[{worst}] is {got:.6g}, should be {want:.6g} (relative bound {TIGHT:g})"
    return None


def _statistics(model: nn.Sequential) -> list[str]:
    return [key for key in model.state_dict() if key.endswith(("running_mean", "running_var"))]


def in_eval_mode(trial: Trial) -> str | None:
    left = [name for name, layer in trial.output.named_modules() if layer.training]
    return f"{left[0] or 'the network'} is in training mode" if left else None


# shrink


def has_the_right_sizes(trial: Trial) -> str | None:
    return _same_plan(trial.output, trial.expected)


def computes_the_same(trial: Trial) -> str | None:
    model, keep = trial.args
    smaller = trial.output.double()
    broken = _same_plan(smaller, trial.expected)
    if broken:
        return broken
    generator = torch.Generator().manual_seed(20)
    x = torch.randn(_input_shape(model), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        whole, ours = _silenced(model.double().eval(), keep, x), smaller(x)
    if ours.shape != whole.shape:
        return f"the output has shape {tuple(ours.shape)}, the original's {tuple(whole.shape)}"
    apart = _apart(ours, whole)
    if not apart <= TIGHT:
        return f"outputs differ by {apart:.3g} of the largest, more than {TIGHT:g} (double precision)"
    return None


def _input_shape(model: nn.Sequential) -> tuple[int, ...]:
    first = next(layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear))
    if isinstance(first, nn.Linear):
        return (8, first.in_features)
    return (8, first.in_channels, 8, 8)  # the networks of these cases are made for 8x8 images


def _silenced(model: nn.Sequential, keep: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What `model` computes when the channels that are not kept are zero where the next layer reads them."""
    quiet: torch.Tensor | None = None
    for name, layer in model.named_children():
        if quiet is not None and isinstance(layer, nn.Conv2d | nn.Linear | nn.Flatten):
            x = x * quiet.view(1, -1, *[1] * (x.ndim - 2))
            quiet = None
        x = layer(x)
        if name in keep:
            quiet = torch.zeros(x.shape[1], dtype=x.dtype)
            quiet[keep[name]] = 1.0
    return x


# reestimate_bn


def measures_statistics(trial: Trial) -> str | None:
    return _same_plan(trial.output, trial.expected) or _differs(
        trial.output, trial.expected, _statistics(trial.expected), "statistics"
    )


def keeps_everything_else(trial: Trial) -> str | None:
    broken = _same_plan(trial.output, trial.args[0])
    if broken:
        return broken
    keys = [name for name, _ in trial.args[0].named_parameters()]
    if not _differs(trial.output, trial.args[0], _statistics(trial.args[0]), ""):
        return "nothing was measured: the statistics are those of before"
    return _differs(trial.output, trial.args[0], keys, "parameters must stay as they were") or in_eval_mode(trial)


# masked_finetune


def zeros_survive(trial: Trial) -> str | None:
    masks = trial.args[1]
    for name, mask in masks.items():
        alive = trial.output.get_submodule(name).weight.detach()[~mask]
        if (alive != 0).any():
            count, largest = int((alive != 0).sum()), alive.abs().max().item()
            return f"{count} of {alive.numel()} masked weights of {name} are not zero, the largest {largest:.3g}"
        if torch.equal(trial.output.get_submodule(name).weight, trial.args[0].get_submodule(name).weight):
            return f"the weights of {name} did not move"
    return None


def follows_sgd(trial: Trial) -> str | None:
    broken = _same_plan(trial.output, trial.expected)
    if broken:
        return broken
    keys = [name for name, _ in trial.expected.named_parameters()]
    return _differs(trial.output, trial.expected, keys, "after the last step") or zeros_survive(trial)


def follows_statistics(trial: Trial) -> str | None:
    return _differs(
        trial.output, trial.expected, _statistics(trial.expected), "batch normalization"
    ) or in_eval_mode(trial)


# sensitivity


def scans_one_layer_at_a_time(trial: Trial) -> str | None:
    images = len(trial.args[2])
    for name, row in trial.expected.items():
        for i, right in enumerate(row):
            if not abs(trial.output[name][i] - right) < 50 / images:
                return (
                    f"{name}, mask {i}: {trial.output[name][i]:.2f} %, should be {right:.2f} % "
                    f"(less than half an image of {images} apart)"
                )
    return None


# encode_sparse


def decodes(trial: Trial) -> str | None:
    """Read the arrays back as the contract describes them and compare with the weight, bit by bit."""
    w, form = trial.args
    rows = w.reshape(w.shape[0], -1)
    arrays = {key: value.numpy() for key, value in trial.output.items()}
    flat = np.zeros(rows.numel(), np.float32)
    values = arrays["values"]
    if form == "bitmap":
        places = np.flatnonzero(np.unpackbits(arrays["bits"], bitorder="little"))
    else:
        lengths = np.diff(arrays["indptr"].astype(np.int64))
        if (lengths < 0).any() or lengths.sum() != len(values) or arrays["indptr"][0] != 0:
            return (
                f"indptr {arrays['indptr'].tolist()[:9]} does not run from 0 to {len(values)}, the number of values"
            )
        places = np.repeat(np.arange(len(lengths)), lengths) * rows.shape[1] + arrays["indices"]
    if len(places) != len(values) or (places >= flat.size).any():
        return f"{len(places)} positions for {len(values)} values of a weight of {flat.size}"
    flat[places] = values
    wrong = np.flatnonzero(flat != rows.flatten().numpy())
    if wrong.size:
        i = int(wrong[0])
        return (
            f"{wrong.size} weights decode wrongly; flat element {i} to {flat[i]:.4g}, not {rows.flatten()[i]:.4g}"
        )
    return None


def takes_exact_bytes(trial: Trial) -> str | None:
    ours, theirs = (sum(a.nbytes for a in arrays.values()) for arrays in (trial.output, trial.expected))
    return None if ours == theirs else f"{ours} bytes in all; this form needs {theirs}"


# allocate


def _totals(trial: Trial, choice: dict[str, int]) -> tuple[int, float]:
    accuracy, nbytes, _ = trial.args
    return sum(nbytes[k][i] for k, i in choice.items()), sum(accuracy[k][i] for k, i in choice.items())


def fits_the_budget(trial: Trial) -> str | None:
    accuracy, _, budget = trial.args
    for layer, level in trial.output.items():
        if layer not in accuracy or not 0 <= level < len(accuracy[layer]):
            return f"{layer!r}: level {level} does not exist"
    size, _ = _totals(trial, trial.output)
    return f"{size:,} bytes are over the budget of {budget:,}" if size > budget else None


def beats_uniform(trial: Trial) -> str | None:
    broken = fits_the_budget(trial)
    if broken:
        return broken
    accuracy, _, budget = trial.args
    _, ours = _totals(trial, trial.output)
    levels = range(len(next(iter(accuracy.values()))))
    uniform = [_totals(trial, dict.fromkeys(accuracy, level)) for level in levels]
    best = max((total for size, total in uniform if size <= budget), default=-math.inf)
    if ours < best - TIGHT * abs(best):
        return f"the accuracies sum to {ours:.2f}; one level for all layers fits and gives {best:.2f}"
    return None


def is_the_best(trial: Trial) -> str | None:
    broken = fits_the_budget(trial)
    if broken:
        return broken
    (_, ours), (size, best) = _totals(trial, trial.output), _totals(trial, trial.expected)
    if ours < best - TIGHT * abs(best):
        return f"the accuracies sum to {ours:.2f}; a choice of {size:,} bytes fits and gives {best:.2f}"
    return None


def refuses_the_impossible(trial: Trial) -> str | None:
    return None if trial.output is None else f"returned {trial.output}, which does not fit; None was expected"


# is_valid_mask


def accepts(trial: Trial) -> str | None:
    return None if trial.output is True else "a right mask was refused"


def refuses(trial: Trial) -> str | None:
    return None if trial.output is False else "a wrong mask was accepted"


# prune_to_budget

CHANCE = 10.0  # % of ten classes: the lower edge of the area
IMAGES = 512
FULL_MARKS = 0.98  # of the reference's area; two calibration sets differ by about 1 %
_known: dict[tuple[str, bytes], tuple[int, float]] = {}


def _front(trial: Trial, recipes: list[Recipe]) -> list[tuple[int, float]]:
    """(bytes, accuracy in %) of each recipe on this case's images, which the student's function never saw."""
    split = "test" if "test" in trial.case else "val"
    points = []
    for recipe in recipes:
        key = trial.case, hashlib.sha256(encode(recipe)).digest()
        if key not in _known:
            x, y = images(split, IMAGES)
            smaller = apply_recipe(trial.args[0], recipe)
            with torch.no_grad():
                right = smaller(x).argmax(1) == y
            if len(_known) > 256:
                _known.clear()
            _known[key] = file_bytes(smaller), 100 * right.double().mean().item()
        points.append(_known[key])
    return points


def _area(points: list[tuple[int, float]], widest: int) -> float:
    """Dominated area over log2(bytes) up to `widest` bytes, above chance."""
    area, best, left = 0.0, CHANCE, 0.0
    for size, accuracy in sorted(points):
        area += (math.log2(size) - left) * (best - CHANCE)
        best, left = max(best, accuracy), math.log2(size)
    return area + (math.log2(widest) - left) * (best - CHANCE)


def _told(points: list[tuple[int, float]]) -> str:
    return ", ".join(f"{accuracy:.1f} % at {size / 1000:.0f} kB" for size, accuracy in points)


def fits_every_budget(trial: Trial) -> str | None:
    for (size, _), budget in zip(_front(trial, trial.output), trial.args[2], strict=True):
        if size > budget:
            return f"the file for a budget of {budget:,} bytes has {size:,}"
    return None


def dominates(trial: Trial) -> Partial | None:
    """The share of the reference's area. A point stands at its budget: room that a file leaves empty earns nothing."""
    budgets = trial.args[2]
    front, reference = (
        [(budget, accuracy) for budget, (_, accuracy) in zip(budgets, _front(trial, recipes), strict=True)]
        for recipes in (trial.output, trial.expected)
    )
    share = _area(front, 2 * max(budgets)) / (FULL_MARKS * _area(reference, 2 * max(budgets)))
    return None if share >= 1 else Partial(share, f"{_told(front)}: {share:.0%} of the area for full marks")
