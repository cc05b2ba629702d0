"""What must hold for the answers of lab 03. This file is part of the exam pack: it judges and solves nothing.

Each function takes a `Trial` and returns None when all is well, else the counterexample with the bound it breaks.
Numbers in these cases are float64, where two correct orders of summation agree to about 1e-13; mistakes differ by
1e-4 and more, so TIGHT = 1e-9 (relative to the largest value) tells them apart on any processor.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from fourbit.distillation import pareto, read_student, stored_results
from fourbit.errors import FourbitError
from fourbit.exam import Partial, Trial
from fourbit.exam.fixtures import images

TIGHT = 1e-9
# Rounding to float16 moves a number by at most 2^-11 of itself; the softmax before it by far less.
HALF = 2.0**-10


def _close(ours: float, theirs: float) -> bool:
    return ours == theirs or math.isclose(ours, theirs, rel_tol=TIGHT, abs_tol=TIGHT)


def same_tensor(trial: Trial) -> str | None:
    """Numbers agree to TIGHT of the largest; the message shows the worst."""
    ours, theirs = trial.output.double(), trial.expected.double()
    if not ours.isfinite().all():
        return f"{int((~ours.isfinite()).sum())} of {ours.numel()} numbers are not finite"
    apart = (ours - theirs).abs()
    bound = TIGHT * float(theirs.abs().max().clamp_min(1e-30))
    if float(apart.max()) > bound:
        i = int(apart.flatten().argmax())
        got, want = ours.flatten()[i].item(), theirs.flatten()[i].item()
        place = [int(index) for index in torch.unravel_index(torch.tensor(i), ours.shape)]
        return f"{place} is {got:.6g}, should be {want:.6g} (bound {TIGHT:g} of the largest)"
    return None


def same_number(trial: Trial) -> str | None:
    ours, theirs = float(trial.output), float(trial.expected)
    if _close(ours, theirs):
        return None
    ratio = f", {ours / theirs:.4g} times" if theirs and math.isfinite(ours) and ours else ""
    return f"{ours:.6g} instead of {theirs:.6g}{ratio} (relative bound {TIGHT:g})"


def sums_to_one(trial: Trial) -> str | None:
    """A row of C probabilities is summed with C roundings of 2^-53 each, far below TIGHT."""
    sums = trial.output.sum(-1)
    apart = float((sums - 1).abs().max())
    return None if apart <= TIGHT else f"a row sums to {float(sums.flatten()[0]):.6g}; off by {apart:.3g} at most"


def sums_to_zero(trial: Trial) -> str | None:
    """Adding one number to all logits of an image changes no loss, so each row of its gradient sums to zero."""
    sums = trial.output.sum(1)
    bound = TIGHT * float(trial.expected.abs().max().clamp_min(1e-30))
    worst = float(sums.abs().max())
    return None if worst <= bound else f"a row of the gradient sums to {worst:.3g}, not 0 (bound {bound:.1g})"


# closest


def chooses(trial: Trial) -> str | None:
    ours, theirs = trial.output["index"], trial.expected["index"]
    return None if ours == theirs else f"candidate {ours} was chosen; candidate {theirs} is closer"


def measures_divergence(trial: Trial) -> str | None:
    ours, theirs = trial.output["divergence"], trial.expected["divergence"]
    return None if _close(ours, theirs) else f"divergence {ours:.6g} instead of {theirs:.6g} nats (bound {TIGHT:g})"


# distill


def _differs(output: nn.Sequential, expected: nn.Sequential, statistics: bool) -> str | None:
    if str(output) != str(expected):
        return "the student has other layers than before"
    ours, theirs = output.state_dict(), expected.state_dict()
    for key in theirs:
        if ("running_" in key or key.endswith("num_batches_tracked")) != statistics:
            continue
        apart = float((ours[key].double() - theirs[key].double()).abs().max())
        if not apart <= TIGHT * float(theirs[key].double().abs().max().clamp_min(1.0)):
            return f"{key} differs by {apart:.3g} after the last step (bound {TIGHT:g} of its largest value)"
    return None


def trains_weights(trial: Trial) -> str | None:
    return _differs(trial.output, trial.expected, statistics=False)


def follows_statistics(trial: Trial) -> str | None:
    return _differs(trial.output, trial.expected, statistics=True)


def in_eval_mode(trial: Trial) -> str | None:
    """Only a student that was trained can be handed back in the right mode."""
    if any(layer.training for layer in trial.output.modules()):
        return "the student came back in training mode"
    return trains_weights(trial)


# paired_gain


def mean_right(trial: Trial) -> str | None:
    ours, theirs = trial.output["mean"], trial.expected["mean"]
    return None if _close(ours, theirs) else f"mean gain {ours:.4g} instead of {theirs:.4g} points"


def interval_right(trial: Trial) -> str | None:
    ours, theirs = ((t["low"], t["high"]) for t in (trial.output, trial.expected))
    if all(_close(a, b) for a, b in zip(ours, theirs, strict=True)):
        return None
    return f"[{ours[0]:.4g}, {ours[1]:.4g}] instead of [{theirs[0]:.4g}, {theirs[1]:.4g}] points"


# believable_gain


def believes(trial: Trial) -> str | None:
    return None if trial.output is True else "an honest report was refused"


def doubts(trial: Trial) -> str | None:
    return None if trial.output is False else "this report was believed"


# topk_targets


def keeps_the_likeliest(trial: Trial) -> str | None:
    """Equal probabilities may stand in either order, so each place is judged by the probability that it has."""
    probs = torch.softmax(trial.args[0].double() / trial.args[2], dim=1)
    places = trial.output["indices"].long()
    if int(places.max()) >= probs.shape[1]:
        return f"class {int(places.max())} does not exist; there are {probs.shape[1]}"
    if any(len(set(row)) < len(row) for row in places.tolist()):
        return "a class is kept twice"
    theirs = probs.topk(places.shape[1], dim=1).values
    apart = (probs.gather(1, places) - theirs).abs().amax(1)
    if float(apart.max()) > HALF:
        i = int(apart.argmax())
        return f"image {i}: classes {places[i].tolist()} are not the likeliest in falling order"
    return None


def stores_probabilities(trial: Trial) -> str | None:
    ours, theirs = trial.output["probs"].double(), trial.expected["probs"].double()
    apart = (ours - theirs).abs() - HALF * theirs
    if not float(apart.max()) <= 2.0**-24:  # the smallest float16 above 0
        i = int(apart.flatten().argmax())
        got, want = ours.flatten()[i].item(), theirs.flatten()[i].item()
        return f"probability {got:.5g} instead of {want:.5g} (float16 rounds by at most 2^-11 of it)"
    return None


def counts_bytes(trial: Trial) -> str | None:
    ours, theirs = trial.output["bytes"], trial.expected["bytes"]
    return None if ours == theirs else f"{ours:,} bytes; the two arrays take {theirs:,}"


# specialize


def same_rows(trial: Trial) -> str | None:
    ours, theirs = trial.output["rows"].tolist(), trial.expected["rows"].tolist()
    return None if ours == theirs else f"rows {ours[:8]}...; {theirs[:8]}... are of these classes"


def same_labels(trial: Trial) -> str | None:
    ours, theirs = trial.output["labels"].tolist(), trial.expected["labels"].tolist()
    return None if ours == theirs else f"labels {ours[:8]}... instead of {theirs[:8]}..."


def same_logits(trial: Trial) -> str | None:
    if torch.equal(trial.output["logits"], trial.expected["logits"]):
        return None
    got, want = ([round(v, 3) for v in t["logits"][0].tolist()] for t in (trial.output, trial.expected))
    return f"the first row of logits is {got}, should be {want}: copies, without any tolerance"


# design_student

IMAGES = 1000
FULL_MARKS = 0.8  # of the front: its students were trained on their grid, and 1,000 images leave an error +-10 %


def _file(output: Any) -> bytes:
    if not isinstance(output, torch.Tensor) or output.dtype != torch.uint8 or output.ndim != 1:
        raise FourbitError("the answer must be a uint8 tensor of one dimension, the bytes of a student file")
    return bytes(output.numpy())


def fits_the_budget(trial: Trial) -> str | None:
    try:
        data = _file(trial.output)
        if len(data) > trial.args[3]:
            return f"the file has {len(data):,} bytes, over the budget of {trial.args[3]:,}"
        read_student(data)
    except FourbitError as error:
        return str(error)
    return None


def front_error(budget: int) -> float:
    """The smallest validation error, in %, of a student on the stored front that fits."""
    return 100 - max(row["accuracy"] for row in pareto(stored_results().front) if row["bytes"] <= budget)


def near_the_front(trial: Trial) -> Partial | None:
    """The front's error over this file's, squared, on images which the student's function never saw.

    The square leaves more marks for the last percent of the way, which is the hard one.
    """
    x, y = images("test" if "test" in trial.case else "val", IMAGES)
    model = read_student(_file(trial.output))
    with torch.no_grad():
        wrong = 100 * float((model(x).argmax(1) != y).double().mean())
    best = front_error(trial.args[3])
    share = best / (FULL_MARKS * max(wrong, 1e-9))
    if share >= 1:
        return None
    return Partial(
        share**2,
        f"{wrong:.1f} % of {IMAGES:,} images wrong; the front has {best:.1f} % at {trial.args[3]:,} bytes, and "
        f"{best / FULL_MARKS:.1f} % give full marks",
    )
