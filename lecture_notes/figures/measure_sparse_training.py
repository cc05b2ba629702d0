"""Measure what the chapter on sparse training reports, and write sparse_training.json.

    python lecture_notes/figures/measure_sparse_training.py [PART ...]     all parts, or these alone; the others stay

About seven minutes of one core. Networks are trained on the first 4,000 images of fashion-20k, from scratch, with the
same order of images for every arm of a seed; accuracies are of all test images, and nothing is chosen by them. The
pocket language model's statistics come from Northanger Abbey, its judgements from Persuasion.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from _parts import measure
from measure_llm import Pocket, Weights, listen, source_of
from measure_pruning import Masks, percent, refreshed
from torch import nn

from fourbit.data import load
from fourbit.data.assets import find_asset
from fourbit.llm.catalog import find
from fourbit.llm.evaluate import Reference, with_weights
from fourbit.llm.texts import CALIBRATION, EVALUATION
from fourbit.models import build, load_checkpoint
from fourbit.sparsity import masked, prunable
from fourbit.training import fit

TARGET = Path(__file__).parent / "sparse_training.json"
SEEDS = (0, 1, 2)
NETWORK, IMAGES, EPOCHS = "S6", 4000, 4
ROUNDS, COMPARED = 5, (3, 4, 5)  # each round removes half of what is left
SPARSITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LOOKED_AT = ("layers.5.self_attn.q_proj", "layers.15.mlp.down_proj")
Regrow = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


# tickets, and networks that are sparse from the start


@dataclass(eq=False)
class SparseRun:
    """Keeps the masked weights of a network at zero while it trains, and moves the masks if it is told how.

    Masked weights get no gradient, so that they gather no momentum; `dense` is the gradient before the mask.
    """

    masks: Masks
    regrow: Regrow | None = None
    every: int = 10
    steps: int = EPOCHS * (IMAGES // 128)
    share: float = 0.3
    step: int = 0
    dense: Masks = field(default_factory=dict)

    def attach(self, model: nn.Sequential) -> None:
        def hide(gradient: torch.Tensor, name: str) -> torch.Tensor:
            self.dense[name] = gradient
            return gradient * self.masks[name]

        for name in self.masks:
            weight = model.get_submodule(name).get_parameter("weight")
            weight.data.mul_(self.masks[name])
            weight.register_hook(partial(hide, name=name))

    def __call__(self, model: nn.Module) -> None:
        self.step += 1
        moving = self.regrow is not None and self.step % self.every == 0 and self.step <= 0.75 * self.steps
        with torch.no_grad():
            for name in self.masks:
                weight = model.get_submodule(name).get_parameter("weight")
                if moving:
                    self.masks[name] = self.moved(weight, name)
                weight.mul_(self.masks[name])

    def moved(self, weight: torch.Tensor, name: str) -> torch.Tensor:
        """Drop the smallest weights of a layer and grow as many elsewhere; the share falls along a cosine."""
        mask, regrow = self.masks[name], self.regrow
        assert regrow is not None
        fall = 0.5 * (1 + math.cos(math.pi * self.step / (0.75 * self.steps)))
        count = min(int(self.share * fall * int(mask.sum())), int((~mask).sum()))
        left = mask & ~chosen(torch.where(mask, -weight.abs(), -math.inf), count)
        return left | regrow(weight, self.dense[name], ~mask, count)


def chosen(scores: torch.Tensor, count: int) -> torch.Tensor:
    """bool of the scores' shape: the `count` largest."""
    flat = torch.zeros(scores.numel(), dtype=torch.bool)
    flat[scores.flatten().topk(count, sorted=False).indices] = True
    return flat.view(scores.shape)


def by_gradient(weight: torch.Tensor, gradient: torch.Tensor, free: torch.Tensor, count: int) -> torch.Tensor:
    return chosen(torch.where(free, gradient.abs(), -math.inf), count)


def at_random(weight: torch.Tensor, gradient: torch.Tensor, free: torch.Tensor, count: int) -> torch.Tensor:
    return chosen(torch.where(free, torch.rand(weight.shape), -math.inf), count)


def trained(start: nn.Sequential, masks: Masks, seed: int, regrow: Regrow | None = None) -> nn.Sequential:
    model, run = copy.deepcopy(start), SparseRun(dict(masks), regrow)
    torch.manual_seed(seed)
    run.attach(model)
    fit(model, load("fashion-20k").train[:IMAGES], epochs=EPOCHS, seed=seed, after_step=run)
    return model


def halved(model: nn.Sequential, masks: Masks, share: float = 0.5) -> Masks:
    """Keep the largest `share` of the weights that the masks have left, one threshold for the network."""
    weights = prunable(model)
    alive = torch.cat([w.abs()[masks[name]] for name, w in weights.items()]).sort(descending=True).values
    threshold = alive[round(share * len(alive)) - 1]
    return {name: masks[name] & (w.abs() >= threshold) for name, w in weights.items()}


def shuffled(masks: Masks, seed: int) -> Masks:
    """As many weights in each layer, elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)
        for name, mask in masks.items()
    }


def random_masks(model: nn.Sequential, density: float, seed: int) -> Masks:
    """Random masks whose layers' densities follow (in + out + kernel) over their product, none above 1."""
    weights = prunable(model)
    ease = {name: sum(w.shape) / w.numel() for name, w in weights.items()}
    full: set[str] = set()
    while True:
        wanted = density * sum(w.numel() for w in weights.values()) - sum(weights[name].numel() for name in full)
        scale = wanted / sum(ease[name] * w.numel() for name, w in weights.items() if name not in full)
        over = {name for name in weights if name not in full and scale * ease[name] > 1}
        if not over:
            break
        full |= over
    counts = {name: w.numel() if name in full else round(scale * ease[name] * w.numel()) for name, w in weights.items()}
    ordered = {name: torch.arange(w.numel()).view(w.shape) < counts[name] for name, w in weights.items()}
    return shuffled(ordered, seed)


def ticket_runs(seed: int) -> dict[str, Any]:
    """Iterative magnitude pruning with rewinding to the start, and what it must be compared with."""
    test, start, other = load("fashion-20k").test, build(NETWORK, seed=seed), build(NETWORK, seed=seed + 100)
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(start).items()}
    dense = model = trained(start, masks, seed)
    row: dict[str, Any] = {"dense": percent(model, test), "ticket": [], "reinit": {}, "random": {}, "tuned": {}}
    row["longer"] = percent(trained(dense, masks, seed + 1), test)
    for round_ in range(1, ROUNDS + 1):
        masks = halved(model, masks)
        model = trained(start, masks, seed)
        row["ticket"].append(percent(model, test))
        if round_ in COMPARED:
            row["reinit"][str(round_)] = percent(trained(other, masks, seed), test)
            row["random"][str(round_)] = percent(trained(start, shuffled(masks, seed), seed), test)
            cut = halved(dense, {name: torch.ones_like(mask) for name, mask in masks.items()}, 0.5**round_)
            row["tuned"][str(round_)] = percent(trained(dense, cut, seed + 1), test)
    row["left"] = {name: [int(mask.sum()), mask.numel()] for name, mask in masks.items()}
    return row


def tickets() -> dict[str, Any]:
    rows = []
    for seed in SEEDS:
        rows.append(ticket_runs(seed))
        print(seed, rows[-1], flush=True)
    return {"network": NETWORK, "images": IMAGES, "epochs": EPOCHS, "rows": rows}


def regrowing() -> dict[str, Any]:
    """Random masks that stay, that move at random, and that move to where the gradient is large."""
    test, density = load("fashion-20k").test, 0.5**4
    rows: dict[str, Any] = {"density": density, "fixed": [], "at random": [], "by gradient": []}
    rules = {"fixed": None, "at random": at_random, "by gradient": by_gradient}
    for seed in SEEDS:
        start = build(NETWORK, seed=seed)
        masks = random_masks(start, density, seed)
        for name, rule in rules.items():
            rows[name].append(percent(trained(start, masks, seed, rule), test))
    rows["densities"] = {name: round(float(mask.double().mean()), 3) for name, mask in masks.items()}
    return rows


# N:M and the order of the channels


def kept_of_four(four: Sequence[torch.Tensor], n: int) -> torch.Tensor:
    """The sum of the n largest of four magnitudes, n = 1 or 2, elementwise."""
    a, b, c, d = four
    p, r = torch.maximum(a, b), torch.maximum(c, d)
    largest = torch.maximum(p, r)
    if n == 1:
        return largest
    rest = torch.maximum(torch.minimum(p, r), torch.maximum(torch.minimum(a, b), torch.minimum(c, d)))
    return largest + rest


def rows_of(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Magnitudes (rows, channels): a row for each output and kernel position."""
    return weight.abs().reshape(len(weight), channels, -1).transpose(1, 2).reshape(-1, channels)


def kept(rows: torch.Tensor, order: torch.Tensor, n: int) -> float:
    """Share of the magnitude that n of each four consecutive channels hold."""
    return float(kept_of_four(rows[:, order].view(len(rows), -1, 4).unbind(2), n).sum() / rows.sum())


def better_order(rows: torch.Tensor, n: int, passes: int = 3) -> torch.Tensor:
    """Visit each pair of groups and give their eight channels the best of the 35 ways to split them."""
    order, quads = torch.arange(rows.shape[1]), torch.tensor(list(combinations(range(8), 4)))
    groups = rows.shape[1] // 4
    for _ in range(passes):
        moved = False
        for a, b in combinations(range(groups), 2):
            eight = torch.cat([order[4 * a : 4 * a + 4], order[4 * b : 4 * b + 4]])
            sums = kept_of_four(rows[:, eight][:, quads].unbind(2), n).sum(0, dtype=torch.float64)
            pairs = sums[:35] + sums.flip(0)[:35]  # the complement of the i-th choice is the i-th from the end
            best = int(pairs.argmax())
            if pairs[best] > pairs[0] * (1 + 1e-9):
                first = quads[best]
                rest = torch.tensor([i for i in range(8) if i not in first.tolist()])
                order[4 * a : 4 * a + 4], order[4 * b : 4 * b + 4] = eight[first], eight[rest]
                moved = True
        if not moved:
            break
    return order


def mask_of(weight: torch.Tensor, order: torch.Tensor, n: int) -> torch.Tensor:
    """bool of the weight's shape: n of each four channels that stand together in `order`."""
    flat = weight.abs().reshape(len(weight), len(order), -1)[:, order]  # (out, channels, positions)
    four = flat.unflatten(1, (-1, 4))
    places = four.sort(dim=2, descending=True, stable=True).indices[:, :, :n]
    mask = torch.zeros_like(four, dtype=torch.bool).scatter(2, places, True).flatten(1, 2)
    return mask[:, order.argsort()].view(weight.shape)


def permutations() -> dict[str, Any]:
    """What n of four keep of the middle layers of teacher20, in the given, a random and a searched order."""
    data, model = load("fashion-20k"), load_checkpoint("teacher20")
    weights = {name: w for name, w in prunable(model).items() if name not in ("conv0", "fc2")}
    channels = {name: 128 if name == "fc1" else w.shape[1] for name, w in weights.items()}
    found: dict[str, Any] = {}
    for n in (2, 1):
        masks: dict[str, Masks] = {"given": {}, "searched": {}, "free": {}}
        rows: dict[str, Any] = {}
        for name, w in weights.items():
            flat, given = rows_of(w, channels[name]), torch.arange(channels[name])
            drawn = [torch.randperm(channels[name], generator=torch.Generator().manual_seed(s)) for s in range(5)]
            order = better_order(flat, n)
            free = chosen(w.abs(), round(n / 4 * w.numel()))
            rows[name] = {
                "given": kept(flat, given, n),
                "random": [kept(flat, other, n) for other in drawn],
                "searched": kept(flat, order, n),
                "free": float(w.abs()[free].sum() / w.abs().sum()),
            }
            masks["given"][name], masks["searched"][name] = mask_of(w, given, n), mask_of(w, order, n)
            masks["free"][name] = free
        accuracy = {kind: percent(refreshed(masked(model, each), data), data.test) for kind, each in masks.items()}
        found[f"{n}:4"] = {"kept": rows, "accuracy": accuracy}
        print(n, found[f"{n}:4"], flush=True)
    return found


# the pocket language model


def row_masks(scores: torch.Tensor, sparsity: float | None) -> torch.Tensor:
    """True where a weight goes: the lowest scores of each row, or for None two of each four."""
    if sparsity is None:
        four = scores.unflatten(1, (-1, 4))
        before = torch.tensor([[i < j for i in range(4)] for j in range(4)])  # of two equal ones the first is lower
        a, b = four[..., :, None], four[..., None, :]
        rank = ((b < a) | ((b == a) & before)).sum(-1)  # how many of the four are lower
        return (rank < 2).view(scores.shape)
    lowest = scores.topk(round(sparsity * scores.shape[1]), largest=False, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, lowest, True)


def by_magnitude(w: torch.Tensor, hessian: torch.Tensor, sparsity: float | None) -> torch.Tensor:
    """One threshold for the matrix, or two of each four."""
    if sparsity is None:
        return w.masked_fill(row_masks(w.abs(), None), 0)
    return w * chosen(w.abs(), w.numel() - round(sparsity * w.numel()))


def by_wanda(w: torch.Tensor, hessian: torch.Tensor, sparsity: float | None) -> torch.Tensor:
    """Only the diagonal is used, and can be given alone."""
    loudness = (hessian if hessian.ndim == 1 else hessian.diagonal()).sqrt().float()
    return w.masked_fill(row_masks(w.abs() * loudness, sparsity), 0)


def by_surgeon(w: torch.Tensor, hessian: torch.Tensor, sparsity: float | None, block: int = 64) -> torch.Tensor:
    """SparseGPT: choose in blocks of columns by w^2 over the inverse's diagonal, and let later columns make up for it.

    Args:
        w: (out, in); hessian: X^T X, float64 (in, in).
    """
    h = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.linalg.inv(h), upper=True).float()
    w = w.clone()
    for start in range(0, w.shape[1], block):
        end = min(start + block, w.shape[1])
        part, inside = w[:, start:end], factor[start:end, start:end]
        gone = row_masks(part.square() / inside.diagonal().square(), sparsity)
        errors = torch.zeros_like(part)
        for j in range(end - start):
            errors[:, j] = torch.where(gone[:, j], part[:, j], 0) / inside[j, j]
            part[:, j:] -= errors[:, j, None] * inside[j, j:]
        part[gone] = 0  # exactly, not up to the last bit
        w[:, end:] -= errors @ factor[start:end, end:]
    return w


METHODS = {"magnitude": by_magnitude, "Wanda": by_wanda, "SparseGPT": by_surgeon}


def second_moments(pocket: Pocket, name: str, windows: int, only: str = "") -> Weights:
    """X^T X (in, in) float64 of the matrices whose name contains `only`, or its diagonal for all if it is empty."""
    found: Weights = {}

    def take(key: str, x: torch.Tensor) -> None:
        product = (x.T @ x if only else x.square().sum(0)).double()
        found[key] = found[key] + product if key in found else product

    listen(pocket, pocket.text(name, windows, 256), take, only)
    return found


def output_errors() -> dict[str, Any]:
    """Squared output error over squared output, on text that was not seen, by sparsity, and at 2:4."""
    pocket = Pocket.load()
    found: dict[str, Any] = {"sparsities": SPARSITIES}
    for name in LOOKED_AT:
        w = pocket.weights[f"{name}.weight"]
        hessian, unseen = (second_moments(pocket, text, 8, name)[name] for text in (CALIBRATION, EVALUATION))

        def error(changed: torch.Tensor, w: torch.Tensor = w, unseen: torch.Tensor = unseen) -> float:
            size, apart = w.double(), (changed - w).double()
            return float(((apart @ unseen) * apart).sum() / ((size @ unseen) * size).sum())

        found[name] = {
            method: {
                "curve": [error(make(w, hessian, sparsity)) for sparsity in SPARSITIES],
                "2:4": error(make(w, hessian, None)),
            }
            for method, make in METHODS.items()
        }
        print(name, found[name], flush=True)
    return found


def language_model() -> dict[str, Any]:
    """Divergence and perplexity with all 210 matrices pruned by magnitude and by Wanda."""
    pocket = Pocket.load()
    squares = second_moments(pocket, CALIBRATION, 8)
    references = [Reference(pocket.llm.model, row[None]) for row in pocket.text(EVALUATION, 4, 256)]

    def judged(changed: Weights) -> dict[str, list[float]]:
        with with_weights(pocket.llm.model, changed):
            rows = [reference.judge(pocket.llm.model) for reference in references]
        return {
            "kl": [float(f"{row.kl.mean:.4g}") for row in rows],
            "ppl": [float(f"{row.perplexity.mean:.5g}") for row in rows],
        }

    found: dict[str, Any] = {"checkpoint": find("smollm2").files[0].sha256, "dense": judged({})}
    for sparsity in (0.5, None):
        for method, make in (("Wanda", by_wanda), ("magnitude", by_magnitude)):
            changed = {name: make(w, squares[source_of(name)], sparsity) for name, w in pocket.weights.items()}
            key = f"{method} {'2:4' if sparsity is None else sparsity}"
            found[key] = judged(changed)
            print(key, found[key], flush=True)
    return found


PARTS: dict[str, Callable[[], Any]] = {
    "tickets": tickets,
    "regrowing": regrowing,
    "permutations": permutations,
    "errors": output_errors,
    "model": language_model,
}


def main() -> None:
    about = {"checkpoint": find_asset("teacher20").sha256, "seeds": SEEDS}
    measure(PARTS, TARGET, about, "Measure what the chapter on sparse training reports.", indent=1)


if __name__ == "__main__":
    main()
