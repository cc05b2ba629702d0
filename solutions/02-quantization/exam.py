"""The exam of lab 02: cases, properties, named mistakes and equivalent alternatives.

Mistakes come from published notebooks and from issues of quantization libraries; each is a small patch of the
reference.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import lru_cache, partial

import properties as hold
import torch
from torch import nn

from fourbit.exam import Alternative, Case, Exam, Exercise, Mistake, Property
from fourbit.exam.fixtures import images, model
from fourbit.recipes.mixed_precision import CHOICES, read_front, rounded
from fourbit.sparsity import prunable

NOTES = "lecture_notes/quantization.md#"


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


def mistake(id: str, name: str, anchor: str, why: str, *patch: tuple[str, str]) -> Mistake:
    return Mistake(id, name, patch, why, NOTES + anchor)


def generator(seed: int, visible: bool, exercise: str) -> torch.Generator:
    """Other numbers for each exercise, and for hidden and visible cases."""
    salt = sum(ord(letter) * 31**i for i, letter in enumerate(exercise)) + (0 if visible else 7919)
    return torch.Generator().manual_seed((seed * 1_000_003 + salt) % 2**31)


def doubles(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


# 1. kmeans_codebook


def kmeans_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "kmeans_codebook")
    rows, columns = (6, 9) if visible else (8, 11)
    gap = torch.cat([doubles(g, 12) * 0.2 - 4, doubles(g, 9) * 0.2 + 3]).view(3, 7)  # nobody near the middle
    clusters = torch.tensor([-3.0, -1.0, 1.0, 3.0]).repeat(8) + 0.1 * torch.rand(32, generator=g)
    return [
        Case("a matrix at 2 bits", (doubles(g, rows, columns), 2), tags=tags("usual")),
        Case("a matrix at 3 bits", (doubles(g, rows, columns), 3), tags=tags("usual")),
        Case("a convolution at 2 bits", (doubles(g, 5, 3, 3, 3) + 0.5, 2), tags=tags("usual")),
        Case("heavy tails at 3 bits", (doubles(g, 10, 12) ** 3, 3), tags=tags("usual")),
        Case("one bit", (doubles(g, 31) * 2 + 1, 1), tags=tags("usual")),
        Case("an empty middle at 3 bits", (gap, 3), tags=tags("empty")),
        Case("more centroids than weights", (doubles(g, 3, 4), 4), tags=tags("empty")),
        Case("two rounds only", (doubles(g, rows, 14) ** 3, 3), {"rounds": 2}, tags=tags("rounds")),
        Case("no round", (doubles(g, rows, 5), 2), {"rounds": 0}, tags=tags("rounds")),
        Case("float32", (clusters, 2), tags=tags("usual")),
    ]


KM_START = "torch.linspace(flat.min().item(), flat.max().item(), 2**bits, dtype=weight.dtype)"
KM_LOOP_CODES = "        codes = torch.bucketize(flat, (centroids[1:] + centroids[:-1]) / 2)\n        sums"
KM_LAST = "    codes = torch.bucketize(flat, (centroids[1:] + centroids[:-1]) / 2)\n    return"
KM_MOVE = "moved = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)"
KMEANS = Exercise(
    "kmeans_codebook",
    points=8,
    difficulty=2,
    cases=kmeans_cases,
    properties=(
        Property("each weight has its nearest centroid", hold.has_nearest_codes, 2),
        Property("the centroids are Lloyd's", hold.follows_lloyd, 3, tags=tags("usual")),
        Property("a centroid without weights stays", hold.follows_lloyd, 1.5, tags=tags("empty")),
        Property("stops after the given rounds", hold.follows_lloyd, 1.5, tags=tags("rounds")),
    ),
    mistakes=(
        mistake(
            "never-moved",
            "the centroids never move",
            "codebooks",
            "Your centroids stay where they started, equally spaced. That is a linear grid: most of it lies in the "
            "tails, where there are hardly any weights. Moving each to the mean of its weights lowers the error.",
            ("        centroids = moved\n", "        break\n"),
        ),
        mistake(
            "stale-codes",
            "codes from before the last move",
            "codebooks",
            "You return the codes of the last assignment and the centroids of the move after it. A weight whose "
            "nearest centroid has just changed keeps the old index. Assign once more at the end.",
            (KM_LAST, "    return"),
            ("    for _ in range(rounds):", "    codes = torch.zeros_like(flat).long()\n    for _ in range(rounds):"),
        ),
        mistake(
            "random-start",
            "the start is drawn from the weights",
            "codebooks",
            "You start from weights picked at random. Nearly all of them lie near zero, so the few large weights share "
            "one distant centroid, and every run gives another network. Start equally spaced.",
            (KM_START, "flat[torch.randperm(len(flat))[: 2**bits] % len(flat)].sort().values.repeat(1)"),
        ),
        mistake(
            "quantile-start",
            "the start follows the density",
            "codebooks",
            "You start from quantiles, which follow the density: many centroids near zero, none at the ends. Deep "
            "Compression compared both and found the linear start better, since large weights matter more.",
            (KM_START, "torch.quantile(flat, torch.linspace(0, 1, 2**bits, dtype=weight.dtype))"),
        ),
        mistake(
            "symmetric-start",
            "the start is symmetric about zero",
            "codebooks",
            "You space the start from -max|w| to max|w|. Where the weights are not symmetric, centroids at one end "
            "never get a weight, and a good part of the codebook is wasted.",
            (KM_START, "torch.linspace(-1, 1, 2**bits, dtype=weight.dtype) * flat.abs().max()"),
        ),
        mistake(
            "cell-centers",
            "the start leaves the ends out",
            "codebooks",
            "You start at the centers of 2^b equal cells instead of from the smallest to the largest weight. The "
            "extremes begin half a cell away from their centroid, and Lloyd's algorithm may stop elsewhere.",
            (
                KM_START,
                "(torch.arange(2**bits, dtype=weight.dtype) + 0.5) / 2**bits * (flat.max() - flat.min()) + flat.min()",
            ),
        ),
        mistake(
            "empty-becomes-zero",
            "a centroid without weights jumps to zero",
            "codebooks",
            "Zero weights divided by one is zero: a centroid that nobody uses lands in the middle of the weights and "
            "takes some from its neighbors. The contract leaves it where it is.",
            (KM_MOVE, "moved = (sums / counts.clamp(min=1)).sort().values"),
        ),
        mistake(
            "empty-becomes-nan",
            "a centroid without weights becomes NaN",
            "codebooks",
            "The mean of no weights is 0/0, and one NaN among the centroids makes every later comparison false. "
            "Decide what an empty cluster does before you divide.",
            (KM_MOVE, "moved = sums / counts"),
        ),
        mistake(
            "one-round",
            "one round instead of many",
            "codebooks",
            "You move the centroids once. Lloyd's algorithm has to repeat: after the centroids have moved, other "
            "weights are nearest to them.",
            ("range(rounds)", "range(min(rounds, 1))"),
        ),
        mistake(
            "medians",
            "medians instead of means",
            "codebooks",
            "You move each centroid to the median of its weights. That minimizes the sum of absolute errors; the "
            "squared error, which Lloyd's algorithm lowers, is smallest at the mean.",
            (
                KM_MOVE,
                "moved = torch.stack([flat[codes == i].median() if counts[i] else centroids[i] "
                "for i in range(len(centroids))])",
            ),
        ),
        mistake(
            "codes-too-few",
            "2 b values instead of 2^b",
            "codebooks",
            "b bits tell 2^b values apart; you made 2 b - 1 cells or fewer. At 2 bits the two agree, which is why a "
            "test at 2 bits alone never finds this.",
            ("2**bits, dtype", "2 * bits, dtype"),
        ),
    ),
    alternatives=(
        Alternative(
            "argmin over distances",
            "def kmeans_codebook(weight, bits, rounds=50):\n"
            "    w = weight.reshape(-1)\n"
            "    n = 2 ** bits\n"
            "    lo, hi = float(w.min()), float(w.max())\n"
            "    c = torch.tensor([lo + (hi - lo) * i / (n - 1) for i in range(n)], dtype=weight.dtype)\n"
            "    nearest = lambda: (w[:, None] - c[None]).abs().argmin(1)\n"
            "    for _ in range(rounds):\n"
            "        index = nearest()\n"
            "        for i in range(n):\n"
            "            if (index == i).any():\n"
            "                c[i] = w[index == i].mean()\n"
            "    return {'centroids': c, 'codes': nearest().reshape(weight.shape).to(torch.uint8)}\n",
        ),
    ),
)

# 2. is_valid_codebook


def lloyd(w: torch.Tensor, bits: int, start: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A converged codebook, by another road than the exercise takes."""
    flat = w.flatten()
    centroids = torch.linspace(float(flat.min()), float(flat.max()), 2**bits).double() if start is None else start
    for _ in range(200):
        codes = (flat[:, None] - centroids).abs().argmin(1)
        centroids = torch.stack([flat[codes == i].mean() if (codes == i).any() else c for i, c in enumerate(centroids)])
    codes = (flat[:, None] - centroids).abs().argmin(1)
    return centroids, codes.view(w.shape).to(torch.uint8)


def valid_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "is_valid_codebook")
    shape = (4, 6) if visible else (5, 8)
    w = doubles(g, *shape)
    c, q = lloyd(w, 2)
    quantiles, other = lloyd(w, 2, torch.quantile(w.flatten(), torch.linspace(0, 1, 4).double()))
    wide = torch.cat([doubles(g, 9) * 0.1 - 4, doubles(g, 9) * 0.1 + 4]).view(3, 6)
    cw, qw = lloyd(wide, 2)
    tie = torch.tensor([[0.0, 2.0, 4.0, 6.0]], dtype=torch.float64) + float(torch.randint(1, 900, (1,), generator=g))
    half = tie[0, 0] + torch.tensor([0.0, 4.0], dtype=torch.float64)
    level = torch.full(shape, 0.25 + float(torch.rand(1, generator=g)), dtype=torch.float64)
    grid = torch.linspace(float(w.min()), float(w.max()), 4).double()
    nearest = (w.flatten()[:, None] - grid).abs().argmin(1).view(shape).to(torch.uint8)
    farthest = (w.flatten()[:, None] - c).abs().argmax(1).view(shape).to(torch.uint8)
    swapped = q.clone().view(-1)  # one weight moves to its second-best centroid
    swapped[0] = (w.flatten()[0] - c).abs().argsort()[1]
    moved = c.clone()
    moved[2] += 1e-4
    outside = q.clone()
    outside.view(-1)[3] = 9
    mixed = torch.arange(w.numel()).remainder(4).view(shape)  # groups that are no neighborhoods, and their means
    groups = torch.stack([w[mixed == i].mean() for i in range(4)])
    mixed = groups.argsort().argsort()[mixed].to(torch.uint8)
    good = (
        ("from a linear start", (w, 2, c, q)),
        ("from another start", (w, 2, quantiles, other)),
        ("centroids that nobody uses", (wide, 2, cw, qw)),
        ("all weights equal", (level, 1, level.flatten()[:1].repeat(2), torch.zeros(shape, dtype=torch.uint8))),
        ("all weights equal, the upper code", (level, 1, level.flatten()[:1].repeat(2), torch.ones_like(q))),
        ("half-way, the lower code", (tie[:, :3], 1, half + torch.tensor([1.0, 0.0]), _bytes([0, 0, 1]))),
        ("half-way, the upper code", (tie[:, :3], 1, half + torch.tensor([0.0, -1.0]), _bytes([0, 1, 1]))),
        ("noise of summation", (w, 2, c + 1e-13 * doubles(g, 4), q)),
    )
    wrong = (
        ("the farthest centroid", (w, 2, c, farthest), "codes"),
        ("one weight to its second best", (w, 2, c, swapped.view(shape)), "codes"),
        ("everything to one centroid", (w, 2, c, torch.ones_like(q)), "codes"),
        ("means of mixed groups", (w, 2, groups.sort().values, mixed), "codes"),
        ("one weight to its second best, means taken after", (w, 2, *_misplaced(w, c, q)), "codes"),
        ("codes in falling order", (w, 2, c, 3 - q), "codes"),
        ("a linear grid", (w, 2, grid, nearest), "means"),
        ("one centroid moved a little", (w, 2, moved, q), "means"),
        ("a code without a centroid", (w, 2, c, outside), "form"),
        ("float32 centroids", (w, 2, c.float(), q), "form"),
        ("int64 codes", (w, 2, c, q.long()), "form"),
        ("another shape", (w, 2, c, q.flatten()), "form"),
        ("too few centroids", (w, 3, c, q), "form"),
        ("NaN for an unused centroid", (wide, 2, torch.where(_unused(qw), torch.nan, cw), qw), "ends"),
        ("centroids out of order", (w, 2, c.flip(0), 3 - q), "ends"),
    )
    right = [Case(f"right: {name}", args, tags=tags("right")) for name, args in good]
    return right + [Case(f"wrong: {name}", args, tags=tags(kind)) for name, args, kind in wrong]


def _misplaced(w: torch.Tensor, centroids: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One weight at its second-best centroid, all centroids at their means; of all weights the one that shows least."""
    found = []
    for i, value in enumerate(w.flatten()):
        moved = codes.clone()
        moved.view(-1)[i] = (value - centroids).abs().argsort()[1]
        means = torch.stack([w[moved == k].mean() if (moved == k).any() else c for k, c in enumerate(centroids)])
        distances = (w.flatten()[:, None] - means).abs()
        excess = (distances.gather(1, moved.long().view(-1, 1))[:, 0] - distances.amin(1)).amax()
        if excess > 1e-3 and (means.diff() >= 0).all():
            found.append((float(excess), means, moved))
    return min(found, key=lambda f: f[0])[1:]


def _bytes(values: list[int]) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.uint8)


def _unused(codes: torch.Tensor) -> torch.Tensor:
    return torch.bincount(codes.flatten().long(), minlength=4) == 0


VALID_FORM = "if codes.dtype != torch.uint8 or codes.shape != weight.shape or int(codes.max()) >= 2**bits:"
VALID_NEAR = "if (own > distances.min(1, keepdim=True).values + slack).any():\n        return False\n"
VALID_RETURN = "return all(bool(error <= slack) for error in means)"
VALID = Exercise(
    "is_valid_codebook",
    points=9,
    difficulty=3,
    cases=valid_cases,
    properties=(
        Property("accepts every right codebook", hold.accepts, 0, gate=True, tags=tags("right")),
        Property("refuses wrong codes", hold.refuses, 3, tags=tags("codes")),
        Property("refuses centroids that are no means", hold.refuses, 3, tags=tags("means")),
        Property("refuses other forms", hold.refuses, 2, tags=tags("form")),
        Property("refuses what comes from an empty cluster, and disorder", hold.refuses, 1, tags=tags("ends")),
    ),
    mistakes=(
        mistake(
            "unique-values-only",
            "only the number of values is tested",
            "codebooks",
            "You count different values. A codebook of one value passes, and so does the farthest centroid for every "
            "weight. This is the published test of a well-known course.",
            (VALID_NEAR, "pass\n"),
            (VALID_RETURN, "return len(codes.unique()) <= 2**bits"),
        ),
        mistake(
            "codes-only",
            "only the codes are tested",
            "codebooks",
            "You ask that each weight have its nearest centroid, and not where the centroids are. An equally spaced "
            "grid passes: nothing says that anybody ran Lloyd's algorithm.",
            (VALID_RETURN, "return True"),
        ),
        mistake(
            "means-only",
            "only the means are tested",
            "codebooks",
            "You ask that each centroid be the mean of its weights, and not that the weights belong to it. Put "
            "the weights into any groups you like, take means, and your test passes.",
            (VALID_NEAR, "pass\n"),
        ),
        mistake(
            "one-true-codebook",
            "compared with one implementation",
            "codebooks",
            "You run your own k-means and compare. Lloyd's algorithm has many fixed points, one for each start, and "
            "the contract of this test accepts them all. Test what must hold, not how you would do it.",
            (
                "    slack = 1e-9",
                "    own = kmeans_codebook(weight, bits)\n"
                "    if not torch.allclose(own['centroids'], centroids):\n        return False\n    slack = 1e-9",
            ),
        ),
        mistake(
            "no-slack-for-means",
            "means are compared exactly",
            "codebooks",
            "You ask for the mean to the last bit. Two correct orders of summation differ there, so right answers "
            "fail. Say how much, and where it comes from.",
            (VALID_RETURN, "return all(bool(error == 0) for error in means)"),
        ),
        mistake(
            "loose-slack",
            "a tenth is near enough",
            "codebooks",
            "Your tolerance is so wide that a codebook which has not converged passes. Rounding errors of float64 are "
            "1e-13 here; whatever is larger is a mistake.",
            ("slack = 1e-9 * weight.abs().max()", "slack = 0.1 * weight.abs().max()"),
        ),
        mistake(
            "ties-refused",
            "a weight half-way must go down",
            "codebooks",
            "You recompute the codes and compare. A weight half-way between two centroids may have either; your test "
            "refuses a right answer.",
            (VALID_NEAR, "if not torch.equal(distances.argmin(1), codes.flatten().long()):\n        return False\n"),
        ),
        mistake(
            "unused-refused",
            "every centroid must have weights",
            "codebooks",
            "You refuse a centroid that nobody uses. With more centroids than clusters that is what Lloyd's algorithm "
            "leaves behind, and the contract says that it may lie anywhere.",
            ("codes.unique().long()]", "codes.unique().long()]\n    if len(means) < 2**bits:\n        return False"),
        ),
        mistake(
            "average-error",
            "the mean error is tested",
            "codebooks",
            "You test an average over all weights. One weight at the wrong centroid hardly moves an average; the "
            "contract is about each of them.",
            (
                "if (own > distances.min(1, keepdim=True).values + slack).any():",
                "if own.mean() > 1.2 * distances.min(1).values.mean() + slack:",
            ),
        ),
        mistake(
            "dtype-untested",
            "other types pass",
            "codebooks",
            "You convert before you look, so float32 centroids and int64 codes pass. The file that is written from "
            "them is not the one that was promised: form belongs to the contract.",
            (
                "if centroids.shape != (2**bits,) or centroids.dtype != weight.dtype:",
                "centroids = centroids.double()\n    codes = codes.to(torch.uint8)\n"
                "    if centroids.shape != (2**bits,):",
            ),
        ),
        mistake(
            "code-range-untested",
            "fails on a code without a centroid",
            "codebooks",
            "A code beyond the last centroid makes your test raise instead of answering False. A test must survive "
            "the wrong answers that it is there to find.",
            (" or int(codes.max()) >= 2**bits:", ":"),
        ),
        mistake(
            "nan-passes",
            "NaN passes",
            "codebooks",
            "A NaN among the centroids passes: every comparison with it is false, and your test looks for one that is "
            "true. NaN is what 0/0 leaves in an empty cluster.",
            ("if not centroids.isfinite().all() or (centroids.diff() < 0).any():", "if (centroids.diff() < 0).any():"),
            (
                "own > distances.min(1, keepdim=True).values + slack",
                "own > distances.nan_to_num(math.inf).min(1, keepdim=True).values + slack",
            ),
        ),
        mistake(
            "order-untested",
            "centroids in any order pass",
            "codebooks",
            "You do not ask for ascending centroids. The weights are right either way; two runs of one network would "
            "give two different files, and a later search by bisection would go astray.",
            (" or (centroids.diff() < 0).any():", ":"),
        ),
        mistake(
            "strictly-ascending",
            "equal neighbors are refused",
            "codebooks",
            "You ask for strictly ascending centroids. When all weights are equal, so are the centroids, and the "
            "contract allows it.",
            ("(centroids.diff() < 0).any()", "(centroids.diff() <= 0).any()"),
        ),
    ),
    alternatives=(
        Alternative(
            "cluster by cluster",
            "def is_valid_codebook(weight, bits, centroids, codes):\n"
            "    if tuple(centroids.shape) != (2 ** bits,) or centroids.dtype is not torch.float64:\n"
            "        return False\n"
            "    if codes.dtype is not torch.uint8 or tuple(codes.shape) != tuple(weight.shape):\n"
            "        return False\n"
            "    c = centroids.tolist()\n"
            "    if any(x != x or abs(x) == math.inf for x in c) or sorted(c) != c:\n"
            "        return False\n"
            "    slack = 1e-9 * float(weight.abs().max())\n"
            "    members = {}\n"
            "    for w, q in zip(weight.flatten().tolist(), codes.flatten().tolist()):\n"
            "        if q >= len(c) or abs(w - c[q]) > min(abs(w - x) for x in c) + slack:\n"
            "            return False\n"
            "        members.setdefault(q, []).append(w)\n"
            "    return all(abs(math.fsum(ws) / len(ws) - c[q]) <= slack for q, ws in members.items())\n",
        ),
    ),
)

# 3. centroid_gradient


def gradient_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "centroid_gradient")

    def inputs(*shape: int, count: int, used: int) -> tuple:
        codes = torch.randint(0, used, shape, generator=g).to(torch.uint8)
        return doubles(g, *shape) + 0.3, codes, count

    single = torch.randn(6, 7, generator=g), torch.randint(0, 4, (6, 7), generator=g).to(torch.uint8), 4
    large = doubles(g, 20, 30) + 0.3, torch.randint(200, 256, (20, 30), generator=g).to(torch.uint8), 256
    return [
        Case("a matrix", inputs(5, 8, count=4, used=4), tags=tags("usual")),
        Case("a convolution", inputs(4, 3, 3, 3, count=8, used=8), tags=tags("usual")),
        Case("float32", single, tags=tags("usual")),
        Case("centroids that nobody uses", inputs(3, 6, count=8, used=5 if visible else 4), tags=tags("unused")),
        Case("codes above 127", large, tags=tags("unused")),
    ]


GRADIENT_CALL = (
    "return torch.zeros(count, dtype=gradient.dtype).index_add(0, codes.flatten().long(), gradient.flatten())"
)
GRADIENT = Exercise(
    "centroid_gradient",
    points=5,
    difficulty=1,
    cases=gradient_cases,
    properties=(
        Property(
            "sums the gradients of the weights that share a centroid", hold.collects_gradients, 3, tags=tags("usual")
        ),
        Property("is zero where nobody shares", hold.collects_gradients, 2, tags=tags("unused")),
    ),
    mistakes=(
        mistake(
            "mean-gradient",
            "the mean instead of the sum",
            "centroid-gradient",
            "You average. By the chain rule every weight that shares the centroid adds its gradient; the mean makes a "
            "centroid of ten thousand weights learn as slowly as one of ten.",
            (
                GRADIENT_CALL,
                GRADIENT_CALL.replace("return", "total =") + "\n"
                "    return total / torch.bincount(codes.flatten().long(), minlength=count).clamp(min=1)",
            ),
        ),
        mistake(
            "last-one-wins",
            "assigned instead of added",
            "centroid-gradient",
            "total[codes] = gradient (or +=) writes each centroid once: of all weights that share it, one survives. "
            "Indexed assignment does not accumulate; index_add and bincount do.",
            (
                GRADIENT_CALL,
                "total = torch.zeros(count, dtype=gradient.dtype)\n"
                "    for code, value in zip(codes.flatten().tolist(), gradient.flatten()):\n"
                "        total[code] = value\n    return total",
            ),
        ),
        mistake(
            "only-used-centroids",
            "as many entries as codes in use",
            "centroid-gradient",
            "You return one entry for each code that occurs, so the entries shift as soon as one centroid has no "
            "weights. The result has one entry for each centroid, zero where nobody uses it.",
            ("torch.zeros(count,", "torch.zeros(int(codes.max()) + 1,"),
        ),
        mistake(
            "absolute-gradients",
            "signs are lost",
            "centroid-gradient",
            "You sum magnitudes. Gradients of opposite sign cancel, and must: the shared value cannot follow both.",
            ("gradient.flatten())", "gradient.abs().flatten())"),
        ),
        mistake(
            "signed-codes",
            "codes read as int8",
            "centroid-gradient",
            "Codes above 127 became negative and ended at the first centroid. Codes are unsigned; int8 has no 200.",
            ("codes.flatten().long()", "codes.to(torch.int8).long().clamp(min=0).flatten()"),
        ),
        mistake(
            "first-row-only",
            "only one row is summed",
            "centroid-gradient",
            "You sum over the first dimension only. A codebook is shared by the whole layer: every weight of the "
            "tensor counts, whatever its shape.",
            (
                GRADIENT_CALL,
                GRADIENT_CALL.replace("codes.flatten()", "codes[0].flatten()").replace(
                    "gradient.flatten()", "gradient[0].flatten()"
                ),
            ),
        ),
        mistake(
            "descent-direction",
            "the step instead of the gradient",
            "centroid-gradient",
            "The sign is turned: you return the direction of descent. The optimizer subtracts the gradient itself, so "
            "with yours it would climb.",
            ("gradient.flatten())", "-gradient.flatten())"),
        ),
    ),
    alternatives=(
        Alternative(
            "bincount",
            "def centroid_gradient(gradient, codes, count):\n"
            "    index, values = codes.reshape(-1).int(), gradient.reshape(-1).double()\n"
            "    return torch.bincount(index, weights=values, minlength=count).to(gradient.dtype)\n",
        ),
        Alternative(
            "masks",
            "def centroid_gradient(gradient, codes, count):\n"
            "    return torch.stack([gradient[codes == i].sum() for i in range(count)])\n",
        ),
    ),
)

# 4. quantize


def quantize_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "quantize")
    n = 30 if visible else 44
    shift = float(torch.rand(1, generator=g))

    def values(*shape: int, scale: float = 1.0, offset: float = 0.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=g) + offset

    def span(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.min(), x.max()

    x, far, below = values(n), 3 + torch.rand(n, generator=g), -1 - torch.rand(n, generator=g)
    relu = values(4, n).clamp(min=0)
    rows = values(5, n) * torch.tensor([0.1, 1.0, 5.0, 0.5, 20.0])[:, None] + shift
    ends = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    unit = 0.25 if visible else 0.5
    halves = torch.arange(-40, 41).float() * unit / 2  # odd multiples lie half-way between two codes
    outliers = torch.cat([values(n), torch.tensor([60.0, -75.0, 1e6, -1e6])])
    constant = [torch.full((5 if visible else 6,), c) for c in (0.5 + shift, -2.5 - shift, 500.0, 1e-10)]
    return [
        Case("both signs, 8 bits", (x, *span(x), 8), tags=tags("general", "scale")),
        Case("both signs, 4 bits", (x + shift, *span(x + shift), 4), tags=tags("general", "scale")),
        Case("two bits", (x - shift, *span(x - shift), 2), tags=tags("general", "scale")),
        Case("after a ReLU", (relu, *span(relu), 5), tags=tags("general", "zeros")),
        Case("a range above zero", (far, *span(far), 8), tags=tags("general", "one-sided")),
        Case("a range below zero", (below, *span(below), 6), tags=tags("general", "one-sided")),
        Case("symmetric, 8 bits", (x + 1, *span(x + 1), 8), {"symmetric": True}, tags=tags("symmetric")),
        Case("symmetric, 3 bits", (x - 1, *span(x - 1), 3), {"symmetric": True}, tags=tags("symmetric")),
        Case("a range for each row", (rows, *ends, 8), tags=tags("general", "rows")),
        Case("symmetric for each row", (rows, *ends, 4), {"symmetric": True}, tags=tags("symmetric", "rows")),
        Case("values outside the range", (outliers, torch.tensor(-2.0), torch.tensor(1.7), 8), tags=tags("outside")),
        Case(
            "outside, symmetric",
            (outliers, torch.tensor(-1.5), torch.tensor(2.0), 8),
            {"symmetric": True},
            tags=tags("outside"),
        ),
        Case("exact halves", (halves, torch.tensor(-7 * unit), torch.tensor(8 * unit), 4), tags=tags("ties")),
        Case(
            "exact halves, symmetric",
            (halves, torch.tensor(-7 * unit), torch.tensor(4 * unit), 4),
            {"symmetric": True},
            tags=tags("ties"),
        ),
        Case("a constant", (constant[0], *span(constant[0]), 8), tags=tags("constant")),
        Case("a negative constant", (constant[1], *span(constant[1]), 8), tags=tags("constant")),
        Case("constant 500", (constant[2], *span(constant[2]), 4), tags=tags("constant")),
        Case("a tiny constant", (constant[3], *span(constant[3]), 8), tags=tags("constant")),
        Case(
            "all zero",
            (torch.zeros(3, 4 if visible else 5), torch.tensor(0.0), torch.tensor(0.0), 8),
            tags=tags("constant", "zeros"),
        ),
        Case(
            "zero rows, symmetric",
            (rows * 0, ends[0] * 0, ends[1] * 0, 8),
            {"symmetric": True},
            tags=tags("constant", "zeros"),
        ),
        Case(
            "one element",
            (torch.tensor(-0.7 - shift), torch.tensor(-1.0 - shift), torch.tensor(0.3), 8),
            tags=tags("general"),
        ),
    ]


Q_WIDEN = "low, high = low.clamp(max=0), high.clamp(min=0)"
Q_SCALE = "scale = torch.maximum(-low, high) / top if symmetric else (high - low) / (top - bottom)"
Q_EMPTY = "scale = torch.where(scale > 0, scale, 1.0)"
Q_ZERO = "zero_point = torch.zeros_like(scale) if symmetric else (bottom - low / scale).round()"
Q_CODES = "codes = ((x / scale).round() + zero_point).clamp(bottom, top)"
QUANTIZE = Exercise(
    "quantize",
    points=11,
    difficulty=2,
    cases=quantize_cases,
    properties=(
        Property("the steps cover the range", hold.has_the_right_scale, 2, tags=tags("scale", "symmetric", "rows")),
        Property(
            "the zero point is the code of zero", hold.has_the_right_zero_point, 1.5, tags=tags("general", "symmetric")
        ),
        Property("zero comes back as zero", hold.keeps_zero, 1, tags=tags("zeros")),
        Property(
            "is off by at most half a step inside", hold.errs_by_half_a_step, 1.5, tags=tags("general", "constant")
        ),
        Property("ranges are widened to contain zero", hold.has_the_right_codes, 1, tags=tags("one-sided")),
        Property("codes of symmetric grids", hold.has_the_right_codes, 1, tags=tags("symmetric")),
        Property("values outside get the last code", hold.has_the_right_codes, 1, tags=tags("outside")),
        Property("halves go to the even neighbor", partial(hold.has_the_right_codes, exact=True), 1, tags=tags("ties")),
        Property("constants survive", hold.has_the_right_codes, 1, tags=tags("constant")),
    ),
    mistakes=(
        mistake(
            "constants-become-zero",
            "a constant tensor comes back as zero",
            "affine-quantization",
            "You treat a range of zero width as if the tensor were zero. A bias initialized to 0.5 is a constant "
            "tensor, and it vanishes. Widen the range to contain zero first; then only zero itself has an empty range. "
            "This is the published error of this section.",
            (Q_WIDEN, "constant = high - low < 1e-8\n    " + Q_WIDEN),
            (Q_CODES, "codes = torch.where(constant, 0.0, ((x / scale).round() + zero_point).clamp(bottom, top))"),
        ),
        mistake(
            "range-without-zero",
            "zero lies outside the range",
            "zero-point",
            "You did not widen the range to contain zero. The zero point lands beyond the codes and is cut off, which "
            "shifts everything: 3, 4 and 5 all come back as 2. This is the other error of the published version.",
            (Q_WIDEN, "pass"),
            (
                Q_ZERO,
                Q_ZERO + ".clamp(bottom, top)",
            ),
        ),
        mistake(
            "two-to-the-b-steps",
            "2^b steps instead of 2^b - 1",
            "affine-quantization",
            "b bits make 2^b values and so 2^b - 1 steps between them: fence posts and fences. At 8 bits the scale is "
            "off by 0.4 %; at 2 bits a third of the range is cut off.",
            ("(high - low) / (top - bottom)", "(high - low) / (top - bottom + 1)"),
        ),
        mistake(
            "symmetric-with-128",
            "the symmetric scale divides by 2^(b-1)",
            "affine-quantization",
            "You divide by 128 where the largest code is 127, so the largest value is cut off. Symmetric grids leave "
            "the code -128 unused.",
            ("torch.maximum(-low, high) / top", "torch.maximum(-low, high) / (top + 1)"),
        ),
        mistake(
            "symmetric-lowest-code",
            "-128 on a symmetric grid",
            "affine-quantization",
            "Your symmetric grid uses the code -128, which has no positive partner: sums of products of two such codes "
            "overflow in the kernels that rely on its absence.",
            ("bottom = -top if symmetric else -top - 1", "bottom = -top - 1"),
        ),
        mistake(
            "high-only",
            "the symmetric range looks at one side",
            "affine-quantization",
            "The symmetric scale is set by `high` alone. Where the negative side is longer it is cut off; take the "
            "larger of |low| and |high|.",
            ("torch.maximum(-low, high) / top", "torch.maximum(high, high) / top"),
        ),
        mistake(
            "zero-point-sign",
            "the zero point has the wrong sign",
            "zero-point",
            "low / scale is negative, so the zero point lies *above* the lowest code: lowest - low / scale. With the "
            "other sign the whole range is shifted out.",
            ("(bottom - low / scale)", "(bottom + low / scale)"),
        ),
        mistake(
            "zero-point-not-whole",
            "the zero point is cut off, not rounded",
            "zero-point",
            "You cut the fraction of the zero point off. The grid then lies up to a whole step from the range instead "
            "of half a step, and the top of the range is clipped.",
            ("(bottom - low / scale).round()", "(bottom - low / scale).floor()"),
        ),
        mistake(
            "zero-point-before-rounding",
            "rounded after the zero point is added",
            "zero-point",
            "You add the zero point and then round. With an odd zero point every half goes to the other neighbor, "
            "since even and odd are exchanged: your codes differ from the kernels' by one where x / scale is a half.",
            (Q_CODES, "codes = (x / scale + zero_point).round().clamp(bottom, top)"),
        ),
        mistake(
            "floor-codes",
            "cut off instead of rounded",
            "affine-quantization",
            "You cut x / scale off. The error is then up to a whole step instead of half a step, and always in one "
            "direction: a bias that adds up over the layer.",
            ("(x / scale).round()", "(x / scale).floor()"),
        ),
        mistake(
            "half-away",
            "halves away from zero",
            "affine-quantization",
            "You round halves away from zero. The contract, PyTorch and ONNX round half to even, which favors no "
            "side. Codes differ where x / scale is exactly a half, which happens with scales that are powers of two.",
            ("(x / scale).round()", "(x.sign() * (x.abs() / scale + 0.5).floor())"),
        ),
        mistake(
            "wraps-around",
            "large values wrap around",
            "affine-quantization",
            "You convert to int8 without clamping. 130 becomes -126: the largest activations turn into the most "
            "negative ones. Clamp first.",
            (Q_CODES, "codes = (((x / scale).round() + zero_point).long() + 128) % 256 - 128"),
        ),
        mistake(
            "clamped-before-zero-point",
            "clamped before the zero point is added",
            "zero-point",
            "You clamp x / scale to the range of codes and add the zero point after. The sum can leave the range, and "
            "values inside the range were cut off. Clamp last.",
            (Q_CODES, "codes = ((x / scale).round().clamp(bottom, top) + zero_point).clamp(-128, 127)"),
        ),
        mistake(
            "zero-scale",
            "scale zero for a tensor of zeros",
            "affine-quantization",
            "Zero divided by a scale of zero is NaN. A channel of zeros is common after pruning and ReLU; give it any "
            "positive scale.",
            (Q_EMPTY, "pass"),
        ),
    ),
    alternatives=(
        Alternative(
            "in double precision",
            "def quantize(x, low, high, bits, symmetric=False):\n"
            "    zero = torch.zeros((), dtype=x.dtype)\n"
            "    low, high = torch.minimum(low, zero), torch.maximum(high, zero)\n"
            "    if symmetric:\n"
            "        last = 2 ** (bits - 1) - 1\n"
            "        first, span, steps = -last, torch.maximum(high, low.abs()), last\n"
            "    else:\n"
            "        first, last = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1\n"
            "        span, steps = high - low, 2**bits - 1\n"
            "    scale = span / steps\n"
            "    scale[scale == 0] = 1.0\n"
            "    z = torch.zeros_like(scale) if symmetric else torch.round(first - low / scale)\n"
            "    q = torch.clip(torch.round(x / scale) + z, first, last)\n"
            "    return {'scale': scale, 'zero_point': z.int(), 'codes': q.char()}\n",
        ),
    ),
)

# 5. quantize_weight


def weight_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "quantize_weight")
    out, inner = (4, 10) if visible else (5, 14)

    def weight(*shape: int) -> torch.Tensor:
        w = torch.randn(*shape, generator=g)
        return w * 2.0 ** torch.linspace(-2, 2, shape[0]).view(-1, *[1] * (len(shape) - 1))

    zero_row = weight(out, 8)
    zero_row[1] = 0.0
    return [
        Case("a tensor at 8 bits", (weight(out, inner), 8, "tensor"), tags=tags("tensor")),
        Case("a convolution, one scale", (weight(out, 3, 3, 3), 3, "tensor"), tags=tags("tensor")),
        Case("a channel at 4 bits", (weight(out, inner), 4, "channel"), tags=tags("channel")),
        Case("a convolution by channels", (weight(out, 4, 3, 3), 3, "channel"), tags=tags("channel")),
        Case("a square matrix by channels", (weight(6, 6), 4, "channel"), tags=tags("channel")),
        Case("groups of 4", (weight(out, 12), 4, 4), tags=tags("group")),
        Case("a convolution in groups of 6", (weight(3, 4, 3, 3), 4, 6), tags=tags("group")),
        Case("a square matrix in groups", (weight(8, 8), 3, 4), tags=tags("group")),
        Case("groups that leave a rest", (weight(4 if visible else 6, 10), 4, 4), tags=tags("rest")),
        Case("a group wider than a row", (weight(out, 5), 4, 8), tags=tags("rest")),
        Case("a channel of zeros", (zero_row, 4, "channel"), tags=tags("channel")),
    ]


QW_SIZE = 'size = {"tensor": w.numel(), "channel": rows.shape[1]}.get(group, group)'
QW_BLOCKS = "blocks = F.pad(rows, (0, -rows.shape[1] % size)).unflatten(1, (-1, size))"
QW_LIMIT = "limit = blocks.abs().amax(2, keepdim=True)"
QW_CODES = 'codes = q["codes"].flatten(1)[:, : rows.shape[1]]'
WEIGHT = Exercise(
    "quantize_weight",
    points=8,
    difficulty=2,
    cases=weight_cases,
    properties=(
        Property("one scale for a tensor", hold.has_the_right_scale, 1, tags=tags("tensor")),
        Property("a scale for each output channel", hold.has_the_right_scale, 2, tags=tags("channel")),
        Property("a scale for each group of inputs", hold.has_the_right_scale, 2, tags=tags("group")),
        Property("the last group may be smaller", hold.has_the_right_scale, 1, tags=tags("rest")),
        Property("codes belong to their scale", hold.has_the_right_weight_codes, 2),
    ),
    mistakes=(
        mistake(
            "input-channels",
            "a scale for each input instead of each output",
            "granularity",
            "Your scales run over the inputs. In the sum over inputs such a scale cannot be taken out, so no integer "
            "kernel can use it; a scale for each *output* multiplies the finished sum.",
            (
                "rows = w.flatten(1)",
                'if group == "channel" and w.ndim == 2 and len(w) == w.shape[1]:\n'
                "        q = quantize_weight(w.T.contiguous(), bits, len(w))\n"
                '        return {"codes": q["codes"].T.contiguous(), "scale": q["scale"]}\n    rows = w.flatten(1)',
            ),
        ),
        mistake(
            "signed-maximum",
            "the largest value instead of the largest magnitude",
            "granularity",
            "You take the maximum without abs(). A channel whose largest weight is negative is cut off, and a channel "
            "of negative weights loses everything.",
            (QW_LIMIT, "limit = blocks.amax(2, keepdim=True).clamp(min=0)"),
        ),
        mistake(
            "always-one-scale",
            "one scale whatever the group",
            "granularity",
            "Your scale is that of the whole tensor in every row. The shape is right, and nothing is gained: one "
            "outlier still sets all steps.",
            (QW_LIMIT, "limit = blocks.abs().amax().expand(len(blocks), blocks.shape[1], 1)"),
        ),
        mistake(
            "group-over-channels",
            "groups run across rows",
            "granularity",
            "You cut the flattened tensor into groups, so that one group holds the end of one row and the beginning of "
            "the next. Groups belong to one output: their scale multiplies a part of *its* sum.",
            (
                "rows = w.flatten(1)",
                "if isinstance(group, int) and w.numel() % group == 0 and w.flatten(1).shape[1] % group:\n"
                "        flat = quantize_weight(w.reshape(1, -1), bits, group)\n"
                '        scale = flat["scale"].view(-1).repeat(2)[: len(w) * -(-w.flatten(1).shape[1] // group)]\n'
                '        return {"codes": flat["codes"].view(w.shape), "scale": scale.view(len(w), -1)}\n'
                "    rows = w.flatten(1)",
            ),
        ),
        mistake(
            "strided-groups",
            "every g-th input instead of g neighbors",
            "granularity",
            "A group of yours takes inputs that lie apart. Kernels load consecutive weights together with one scale; "
            "with yours every load would need all of them.",
            (QW_BLOCKS, QW_BLOCKS.replace("unflatten(1, (-1, size))", "unflatten(1, (size, -1)).transpose(1, 2)")),
            (QW_CODES, 'codes = q["codes"].transpose(1, 2).flatten(1)[:, : rows.shape[1]]'),
        ),
        mistake(
            "divisible-only",
            "fails when g does not divide the inputs",
            "granularity",
            "You reshape without padding, which fails as soon as the group does not divide the inputs. A first layer "
            "with 9 inputs is no multiple of 4.",
            ("F.pad(rows, (0, -rows.shape[1] % size))", "rows"),
        ),
        mistake(
            "rest-dropped",
            "the rest keeps the scale of the group before",
            "granularity",
            "The inputs behind the last whole group were quantized with its neighbor's scale. The last group has its "
            "own, even if it is small.",
            (
                QW_LIMIT,
                QW_LIMIT
                + "\n    if rows.shape[1] % size and blocks.shape[1] > 1:\n        limit[:, -1] = limit[:, -2]",
            ),
        ),
        mistake(
            "mean-scale",
            "the scale from the mean magnitude",
            "granularity",
            "You set the scale by the mean magnitude. Everything above it is cut off; such clipping can be worth it at "
            "2 bits, but the contract asks for the largest magnitude.",
            (QW_LIMIT, "limit = blocks.abs().mean(2, keepdim=True)"),
        ),
        mistake(
            "asymmetric-weights",
            "asymmetric grids",
            "granularity",
            "You used the asymmetric grid for weights. Its zero point adds a term to every output that depends on the "
            "input: the sum of x. Weights are symmetric so that this term is not there.",
            (", bits, symmetric=True)", ", bits)"),
        ),
    ),
    alternatives=(
        Alternative(
            "loop over groups",
            "def quantize_weight(w, bits, group):\n"
            "    rows = w.reshape(len(w), -1)\n"
            "    if group == 'tensor':\n"
            "        limit = rows.abs().max().reshape(1, 1)\n"
            "        q = quantize(rows, -limit, limit, bits, True)\n"
            "        return {'codes': q['codes'].reshape(w.shape), 'scale': q['scale']}\n"
            "    g = rows.shape[1] if group == 'channel' else group\n"
            "    codes, scales = [], []\n"
            "    for part in rows.split(g, dim=1):\n"
            "        limit = part.abs().max(dim=1, keepdim=True).values\n"
            "        q = quantize(part, -limit, limit, bits, True)\n"
            "        codes.append(q['codes']); scales.append(q['scale'])\n"
            "    return {'codes': torch.cat(codes, 1).reshape(w.shape), 'scale': torch.cat(scales, 1)}\n",
        ),
    ),
)

# 6. pack_codes


def pack_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "pack_codes")

    def codes(bits: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, 2**bits, shape, generator=g).to(torch.uint8)

    odd = 13 if visible else 19
    return [
        *(Case(f"{bits} bits, {odd} codes", (codes(bits, odd), bits), tags=tags("across")) for bits in (3, 5, 6, 7)),
        *(Case(f"{bits} bits", (codes(bits, 4, 6), bits), tags=tags("whole")) for bits in (1, 2, 4, 8)),
        Case("4 bits, an odd number", (codes(4, odd), 4), tags=tags("rest")),
        Case("2 bits, a convolution", (codes(2, 3, 2, 3, 3), 2), tags=tags("rest")),
        Case("1 bit, 9 codes", (codes(1, 9), 1), tags=tags("rest")),
        Case("3 bits, one code", (codes(3, 1) | 4, 3), tags=tags("rest")),
        Case(
            "the largest codes", (torch.full((11 if visible else 14,), 31, dtype=torch.uint8), 5), tags=tags("across")
        ),
    ]


PACK_STREAM = "stream = (codes.flatten()[:, None] >> torch.arange(bits, dtype=torch.uint8) & 1).flatten()"
PACK_OCTETS = "octets = F.pad(stream, (0, -len(stream) % 8)).view(-1, 8)"
PACK_RETURN = "return (octets.long() << torch.arange(8)).sum(1).to(torch.uint8)"
PACK = Exercise(
    "pack_codes",
    points=7,
    difficulty=2,
    cases=pack_cases,
    properties=(
        Property("1, 2, 4 and 8 bits read back", hold.unpacks, 2, tags=tags("whole")),
        Property("codes cross the borders of bytes", hold.unpacks, 2, tags=tags("across")),
        Property("any number of codes, filled up with zeros", hold.unpacks, 1, tags=tags("rest")),
        Property("takes exactly ceil(n bits / 8) bytes", hold.takes_exact_bytes, 2),
    ),
    same_form=False,
    mistakes=(
        mistake(
            "one-byte-each",
            "a whole byte for each code",
            "packing",
            "You return the codes as they were, a byte each. The values need 3 bits, the tensor takes 8: a file of it "
            "is no smaller than an int8 one. This is how most fake quantization ends.",
            (PACK_RETURN, "return codes.flatten()"),
        ),
        mistake(
            "codes-that-do-not-cross",
            "codes never cross a byte",
            "packing",
            "You put as many whole codes into a byte as fit and waste the rest: two codes of 3 bits, 2 bits lost. "
            "Simple to read, and 4 bits a weight instead of 3. The contract packs without a gap.",
            (
                PACK_STREAM,
                PACK_STREAM + "\n    each = 8 // bits\n"
                "    stream = F.pad(stream, (0, -len(stream) % (each * bits))).view(-1, each * bits)\n"
                "    stream = F.pad(stream, (0, 8 - each * bits)).flatten()",
            ),
        ),
        mistake(
            "high-bit-first",
            "the most significant bit of a code first",
            "packing",
            "Each code is written from its highest bit. Both orders exist, which is why a format has to say; this one "
            "is little-endian throughout, like safetensors.",
            ("torch.arange(bits, dtype=torch.uint8) & 1", "torch.arange(bits - 1, -1, -1).to(torch.uint8) & 1"),
        ),
        mistake(
            "byte-reversed",
            "the first place is the highest bit of the byte",
            "packing",
            "You fill each byte from the top. Place p belongs into bit p % 8 counted from the least significant.",
            (PACK_RETURN, "return (octets.long() << torch.arange(7, -1, -1)).sum(1).to(torch.uint8)"),
        ),
        mistake(
            "planes",
            "bit planes instead of codes",
            "packing",
            "All lowest bits come first, then all second bits. That is a layout of its own (bit-serial kernels use "
            "it), but not this one: code i takes neighboring places.",
            ("& 1).flatten()", "& 1).T.flatten()"),
        ),
        mistake(
            "rest-cut-off",
            "the last codes are lost",
            "packing",
            "You keep whole bytes only: where the bits are no multiple of 8, the last codes are cut off. Round the "
            "number of bytes up.",
            (PACK_OCTETS, "octets = stream[: len(stream) // 8 * 8].view(-1, 8)"),
        ),
        mistake(
            "byte-too-many",
            "a byte of nothing at the end",
            "packing",
            "When the bits fill whole bytes you add another: 8 - n % 8 is 8 there. ceil(n / 8) is exact, and the "
            "ledger is off by one byte for each tensor.",
            ("-len(stream) % 8", "8 - len(stream) % 8"),
        ),
        mistake(
            "padded-front",
            "the padding is in front",
            "packing",
            "You fill up before the first code, so every place is shifted. The padding belongs behind the last.",
            ("(0, -len(stream) % 8)", "(-len(stream) % 8, 0)"),
        ),
        mistake(
            "always-four-bits",
            "two codes to a byte whatever the bits",
            "packing",
            "You put two codes into each byte, low half and high half. That is right for 4 bits and wrong for all "
            "others; 5-bit codes even run into each other.",
            (PACK_STREAM, PACK_STREAM.replace("arange(bits,", "arange(4,")),
        ),
        mistake(
            "column-order",
            "codes in column-major order",
            "packing",
            "You go down the columns. The reader goes along the rows, as flatten() does; the size is right and the "
            "network is not.",
            (
                PACK_STREAM,
                PACK_STREAM.replace("codes.flatten()", "codes.permute(*range(codes.ndim - 1, -1, -1)).flatten()"),
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "one large integer",
            "def pack_codes(codes, bits):\n"
            "    total = 0\n"
            "    for i, code in enumerate(codes.flatten().tolist()):\n"
            "        total |= code << (i * bits)\n"
            "    size = math.ceil(codes.numel() * bits / 8)\n"
            "    return torch.tensor(list(total.to_bytes(size, 'little')), dtype=torch.uint8)\n",
        ),
        Alternative(
            "numpy.packbits",
            "def pack_codes(codes, bits):\n"
            "    import numpy as np\n"
            "    each = np.unpackbits(codes.numpy().reshape(-1, 1), axis=1, bitorder='little')[:, :bits]\n"
            "    return torch.from_numpy(np.packbits(each, bitorder='little'))\n",
        ),
    ),
)

# 7. clip_range


def clip_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "clip_range")
    n = 400 if visible else 500

    def tailed(count: int) -> torch.Tensor:
        return torch.randn(count, generator=g) * torch.rand(count, generator=g).clamp(min=0.05) ** -1

    relu = (tailed(n) - 0.2).clamp(min=0)
    two_sided, few = tailed(n).view(20, -1), torch.randn(7, generator=g) + 2
    # Its error grows at once when the range shrinks; the gain for all others comes much later.
    lonely = torch.cat([torch.rand(n, generator=g) * 0.9, 10 + torch.rand(1, generator=g)])
    return [
        Case("min-max, both signs", (two_sided, 8, "minmax"), tags=tags("minmax")),
        Case("min-max, few values above zero", (few, 4, "minmax"), tags=tags("minmax")),
        Case("percentile, after a ReLU", (relu, 8, "percentile"), tags=tags("percentile")),
        Case("percentile, both signs", (two_sided, 8, "percentile"), tags=tags("percentile")),
        Case("percentile, few values", (few, 4, "percentile"), tags=tags("percentile")),
        Case("squared error at 3 bits, after a ReLU", (relu, 3, "mse"), tags=tags("mse")),
        Case("squared error at 4 bits, both signs", (two_sided, 4, "mse"), tags=tags("mse")),
        Case("squared error at 2 bits", (tailed(n), 2, "mse"), tags=tags("mse")),
        Case("squared error at 6 bits", (tailed(300), 6, "mse"), tags=tags("mse")),
        Case("squared error, one value far away", (lonely, 2, "mse"), tags=tags("mse")),
    ]


CLIP_BACK = 'back = q["scale"] * (q["codes"].int() - q["zero_point"])'
CLIP_ERROR = "error = (back - x).square().mean().item()"
CLIP_CANDIDATE = "a, b = low * k / 100, high * k / 100"
CLIP_QUANTILES = "return torch.quantile(x, 0.001), torch.quantile(x, 0.999)"
CLIP = Exercise(
    "clip_range",
    points=7,
    difficulty=2,
    cases=clip_cases,
    properties=(
        Property("min-max", hold.chooses_the_range, 1, tags=tags("minmax")),
        Property("percentiles at both ends", hold.chooses_the_range, 2, tags=tags("percentile")),
        Property("the smallest squared error", hold.chooses_the_range, 4, tags=tags("mse")),
    ),
    mistakes=(
        mistake(
            "symmetric-range",
            "one limit for both ends",
            "calibration",
            "You return -max|x| and max|x|. After a ReLU half of the codes then stand for values that never occur: "
            "one bit lost for nothing.",
            ("low, high = x.min(), x.max()", "low, high = -x.abs().max(), x.abs().max()"),
        ),
        mistake(
            "upper-end-only",
            "only the upper end is cut",
            "calibration",
            "You cut the top and keep the smallest value. Where outliers lie on both sides, the lower one still sets "
            "the step.",
            ("return torch.quantile(x, 0.001),", "return x.min(),"),
        ),
        mistake(
            "percent-for-share",
            "99.9 read as 99",
            "calibration",
            "You cut 1 % at each end instead of one in a thousand. Ten times as many values are outside; at 8 bits "
            "that costs more than the finer step wins.",
            (CLIP_QUANTILES, "return torch.quantile(x, 0.01), torch.quantile(x, 0.99)"),
        ),
        mistake(
            "two-sided-share",
            "the share is split between the ends",
            "calibration",
            "You cut half of a thousandth at each end. The contract says the quantiles 0.001 and 0.999.",
            (CLIP_QUANTILES, "return torch.quantile(x, 0.0005), torch.quantile(x, 0.9995)"),
        ),
        mistake(
            "no-interpolation",
            "the nearest sample instead of a quantile",
            "calibration",
            "You take the sample below the quantile. With few samples that is a different number; torch.quantile "
            "interpolates linearly, and so says the contract.",
            (CLIP_QUANTILES, "return tuple(torch.quantile(x, s, interpolation='lower') for s in (0.001, 0.999))"),
        ),
        mistake(
            "absolute-error",
            "the absolute error",
            "calibration",
            "You minimize the mean absolute error. It cares less for the few values outside, so it cuts more. Both are "
            "sensible; the contract asks for the squared error.",
            ("(back - x).square().mean()", "(back - x).abs().mean()"),
        ),
        mistake(
            "largest-error",
            "the largest error",
            "calibration",
            "You minimize the largest error, which is that of the largest value: nothing is ever cut off. A mean "
            "weighs one value outside against thousands inside.",
            ("(back - x).square().mean()", "(back - x).abs().max()"),
        ),
        mistake(
            "inside-only",
            "the error of values outside is not counted",
            "calibration",
            "You measure the error against the clipped values. What is cut off then costs nothing, and the smallest "
            "range wins: the whole price of clipping is missing.",
            (CLIP_ERROR, "error = (back - x.clamp(a, b)).square().mean().item()"),
        ),
        mistake(
            "eight-bits-always",
            "chosen for 8 bits",
            "calibration",
            "You search with 8 bits whatever `bits` is. The best range depends on the step: with few bits it pays to "
            "cut much more.",
            ("quantize(x, a, b, bits)", "quantize(x, a, b, 8)"),
        ),
        mistake(
            "lower-end-fixed",
            "only the upper end is searched",
            "calibration",
            "Your candidates keep the smallest value and shrink the top. The contract shrinks both ends in proportion.",
            (CLIP_CANDIDATE, "a, b = low, high * k / 100"),
        ),
        mistake(
            "first-improvement",
            "the search stops too early",
            "calibration",
            "You stop at the first candidate that is no better than the one before. The error is not smooth: the grid "
            "moves against the values, and there are many small local minima. Try all hundred.",
            (
                "        if error < best[0]:",
                "        if error >= best[0]:\n            break\n        if error < best[0]:",
            ),
        ),
        mistake(
            "zero-point-forgotten",
            "back without the zero point",
            "calibration",
            "On the way back you forgot the zero point, so the error measures a shift and not the rounding.",
            (CLIP_BACK, 'back = q["scale"] * q["codes"].int()'),
        ),
    ),
    alternatives=(
        Alternative(
            "all candidates at once",
            "def clip_range(x, bits, kind):\n"
            "    ends = torch.stack([x.min(), x.max()])\n"
            "    if kind == 'percentile':\n"
            "        ends = torch.quantile(x.flatten(), torch.tensor([0.001, 0.999]))\n"
            "    if kind == 'mse':\n"
            "        k = torch.arange(1, 101).view(-1, 1)\n"
            "        low, high = ends[0] * k / 100, ends[1] * k / 100\n"
            "        q = quantize(x.reshape(1, -1), low, high, bits)\n"
            "        back = (q['codes'].int() - q['zero_point']) * q['scale']\n"
            "        best = (back - x.reshape(1, -1)).pow(2).mean(1).argmin()\n"
            "        return low[best, 0], high[best, 0]\n"
            "    return ends[0], ends[1]\n",
        ),
    ),
)

# 8. fold_batch_norm


def _filled(layer: nn.Module, g: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for tensor in layer.parameters():
            scale = (tensor[0].numel() if tensor.ndim > 1 else 4) ** -0.5
            tensor.copy_(torch.randn(tensor.shape, generator=g) * scale * 1.4)
    return layer


def _norm(channels: int, g: torch.Generator, eps: float = 1e-5) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=eps)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=g) + 0.3)  # some are negative
        norm.bias.copy_(torch.randn(channels, generator=g) * 0.5)
        norm.running_mean.copy_(torch.randn(channels, generator=g) * 0.7)
        norm.running_var.copy_(torch.rand(channels, generator=g) * 2 + 0.2)
    return norm


def fold_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "fold_batch_norm")
    a, b = (4, 6) if visible else (5, 7)

    def chain(**layers: nn.Module) -> nn.Sequential:
        return nn.Sequential(OrderedDict(layers)).double().eval()

    def conv(*sizes: int, **options: object) -> nn.Module:
        return _filled(nn.Conv2d(*sizes, **options), g)  # type: ignore[arg-type]

    head = {"flatten": nn.Flatten(), "fc": _filled(nn.Linear(b * 16, 5), g)}
    usual = chain(
        conv0=conv(2, a, 3, stride=2, padding=1, bias=False), bn0=_norm(a, g), relu0=nn.ReLU(),
        conv1=conv(a, b, 3, padding=1, bias=False), bn1=_norm(b, g), relu1=nn.ReLU(), **head,
    )  # fmt: skip
    biased = chain(conv0=conv(2, a, 3, padding=1), bn0=_norm(a, g), relu0=nn.ReLU(), pool=nn.MaxPool2d(2))
    square = chain(conv0=conv(a, a, 3, padding=1), bn0=_norm(a, g))
    wide_eps = chain(conv0=conv(2, a, 1, bias=False), bn0=_norm(a, g, eps=0.5))
    first = chain(bn=_norm(2, g), conv0=conv(2, a, 3), relu=nn.ReLU(), bn0=_norm(a, g), conv1=conv(a, 3, 1))
    twice = chain(conv0=conv(2, a, 3), bn0=_norm(a, g), bn1=_norm(a, g))
    training = chain(conv0=conv(2, a, 3, bias=False), bn0=_norm(a, g), relu0=nn.ReLU()).train()
    return [
        Case("the usual chain", (usual,), tags=tags("usual")),
        Case("a convolution with a bias", (biased,), tags=tags("bias")),
        Case("as many inputs as outputs", (square,), tags=tags("usual", "bias")),
        Case("a large eps", (wide_eps,), tags=tags("eps")),
        Case("a batch norm after a ReLU, and one in front", (first,), tags=tags("elsewhere")),
        Case("two batch norms in a row", (twice,), tags=tags("elsewhere")),
        Case("in training mode", (training,), tags=tags("usual")),
    ]


FOLD_GAIN = "gain = layer.weight / (layer.running_var + layer.eps).sqrt()"
FOLD_BIAS = "bias = layer.bias + (bias - layer.running_mean) * gain"
FOLD_IF = "if isinstance(layer, nn.BatchNorm2d) and isinstance(last, nn.Conv2d):"
FOLD_WEIGHT = "weight=last.weight * gain.view(-1, 1, 1, 1)"
FOLD = Exercise(
    "fold_batch_norm",
    points=7,
    difficulty=2,
    cases=fold_cases,
    properties=(
        Property("folds and computes the same", hold.folds_and_computes, 3, tags=tags("usual")),
        Property("takes a convolution with a bias", hold.folds_and_computes, 1.5, tags=tags("bias")),
        Property("eps counts", hold.folds_and_computes, 1, tags=tags("eps")),
        Property("leaves a batch norm elsewhere", hold.folds_and_computes, 1, tags=tags("elsewhere")),
        Property("evaluation mode", hold.in_eval_mode, 0.5),
    ),
    mistakes=(
        mistake(
            "variance-for-deviation",
            "divided by the variance",
            "batch-norm-folding",
            "You divide by the variance; batch normalization divides by its square root. The two agree at variance 1, "
            "which is how a fresh BatchNorm2d starts, so a test on an untrained network finds nothing.",
            (FOLD_GAIN, "gain = layer.weight / (layer.running_var + layer.eps)"),
        ),
        mistake(
            "eps-forgotten",
            "eps is left out",
            "batch-norm-folding",
            "You left eps out. It is there for channels that hardly vary; for those the gain is far too large.",
            (FOLD_GAIN, "gain = layer.weight / layer.running_var.sqrt()"),
        ),
        mistake(
            "eps-outside",
            "eps outside the root",
            "batch-norm-folding",
            "You add eps to the standard deviation. It belongs to the variance, under the root.",
            (FOLD_GAIN, "gain = layer.weight / (layer.running_var.sqrt() + layer.eps)"),
        ),
        mistake(
            "mean-forgotten",
            "the running mean is left out",
            "batch-norm-folding",
            "The running mean has disappeared. It is subtracted before the scale, so it ends in the bias as "
            "-mean * gain.",
            (FOLD_BIAS, "bias = layer.bias + bias * gain + 0 * layer.running_mean"),
        ),
        mistake(
            "mean-unscaled",
            "the mean is subtracted unscaled",
            "batch-norm-folding",
            "You subtract the mean itself. Batch normalization subtracts it first and scales after, so the bias takes "
            "mean * gain.",
            (FOLD_BIAS, "bias = layer.bias + bias * gain - layer.running_mean"),
        ),
        mistake(
            "old-bias-lost",
            "the convolution's own bias is lost",
            "batch-norm-folding",
            "The convolution's own bias has disappeared. Most convolutions before a batch normalization have none; "
            "those that do need it scaled too.",
            ("bias = 0.0 if last.bias is None else last.bias", "bias = 0.0"),
        ),
        mistake(
            "old-bias-unscaled",
            "the convolution's own bias is not scaled",
            "batch-norm-folding",
            "The convolution's bias is added as it was. It passes through the batch normalization like everything "
            "else: scale it.",
            (FOLD_BIAS, "bias = layer.bias + bias - layer.running_mean * gain"),
        ),
        mistake(
            "shift-forgotten",
            "the learned shift is left out",
            "batch-norm-folding",
            "beta, the learned shift (`layer.bias`), is missing in the new bias.",
            (FOLD_BIAS, "bias = (bias - layer.running_mean) * gain"),
        ),
        mistake(
            "input-channels-scaled",
            "the input channels are scaled",
            "batch-norm-folding",
            "You multiply along dimension 1, the input channels. Batch normalization scales what comes out: dimension "
            "0 of the weight. With as many inputs as outputs nothing fails, and everything is wrong.",
            (
                FOLD_WEIGHT,
                "weight=last.weight * gain.view(*((1, -1) if last.in_channels == len(gain) else (-1, 1)), 1, 1)",
            ),
        ),
        mistake(
            "absolute-gain",
            "negative scales lose their sign",
            "batch-norm-folding",
            "You took the magnitude of the learned scale. A scale can be negative, and then the channel is turned "
            "around.",
            (FOLD_GAIN, "gain = layer.weight.abs() / (layer.running_var + layer.eps).sqrt()"),
        ),
        mistake(
            "every-batch-norm",
            "a batch norm behind a ReLU is folded too",
            "batch-norm-folding",
            "You fold every batch normalization into the last convolution, also one that a ReLU separates from it. "
            "Scaling does not commute with ReLU once the shift or a negative scale comes in.",
            (
                FOLD_IF,
                "convs = [k for k in layers if isinstance(layers[k], nn.Conv2d)]\n"
                "        if isinstance(last, nn.ReLU) and isinstance(layer, nn.BatchNorm2d) and convs:\n"
                "            last = layers[convs[-1]]\n"
                "            layers.move_to_end(convs[-1])\n"
                "        " + FOLD_IF,
            ),
        ),
        mistake(
            "not-removed",
            "the batch norm stays",
            "batch-norm-folding",
            "The constants are in the convolution, and the batch normalization is still there: it is applied twice.",
            ("            last = layer\n", "            layers[name] = last = copy.deepcopy(layer)\n"),
        ),
        mistake(
            "training-mode-left",
            "the result is left in training mode",
            "batch-norm-folding",
            "A batch normalization that could not be folded still runs in training mode and would normalize with each "
            "batch's own statistics.",
            ("return nn.Sequential(layers).eval()", "return nn.Sequential(layers).train()"),
        ),
    ),
    alternatives=(
        Alternative(
            "through torch.nn.utils",
            "def fold_batch_norm(model):\n"
            "    from torch.nn.utils.fusion import fuse_conv_bn_eval\n"
            "    result = OrderedDict()\n"
            "    pending = None\n"
            "    for name, layer in copy.deepcopy(model).eval().named_children():\n"
            "        if type(layer) is nn.BatchNorm2d and pending is not None:\n"
            "            result[pending] = fuse_conv_bn_eval(result[pending], layer)\n"
            "            pending = None\n"
            "            continue\n"
            "        result[name] = layer\n"
            "        pending = name if type(layer) is nn.Conv2d else None\n"
            "    return nn.Sequential(result).eval()\n",
        ),
    ),
)

# 9. integer_layer


def single(value: float) -> float:
    """The float32 number nearest to `value`, as scales are."""
    return torch.tensor(value, dtype=torch.float32).item()


def _codes(g: torch.Generator, *shape: int, low: int = -128, high: int = 128) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=g).to(torch.int8)


def _plain(g: torch.Generator, n: int, inner: int, out: int, *, zeros: bool, bias: float = 0.0) -> tuple:
    x, w = _codes(g, n, inner), _codes(g, out, inner, low=-127)
    x_scale, y_scale = (single(float(torch.rand(1, generator=g)) * a + a) for a in (0.01, 0.2))
    w_scale = torch.rand(out, generator=g) * 0.004 + 0.002
    x_zero, y_zero = (int(torch.randint(-100, 100, (1,), generator=g)) for _ in range(2)) if zeros else (0, 0)
    y_scale = single(y_scale * inner**0.5 / 10)
    b = torch.randn(out, generator=g) * bias * y_scale
    return x, w, b, x_scale, x_zero, w_scale, y_scale, y_zero


def _halves(g: torch.Generator) -> tuple:
    """Scales that are powers of two: a quarter of all accumulators lie half-way between two codes."""
    x, w = _codes(g, 8, 5, low=-20, high=20), _codes(g, 6, 5, low=-6, high=7)
    return x, w, torch.zeros(6), 0.5, 3, torch.full((6,), 0.25), 0.5, -4


def _coarse(g: torch.Generator) -> tuple:
    """A multiplier near 1: every step of the accumulator shows in the code."""
    x, w = _codes(g, 5, 3, low=-6, high=7), _codes(g, 8, 3, low=-3, high=4)
    return x, w, torch.randn(8, generator=g) * 3, 0.5, 1, torch.full((8,), 0.5), single(0.27), 5


def _targeted(x: torch.Tensor, w: torch.Tensor, x_zero: int, unit: torch.Tensor, targets: list[int]) -> torch.Tensor:
    """The bias, in units of x_scale * w_scale, that brings the accumulators of the only row to `targets`."""
    base = (x.long() - x_zero) @ w.long().T
    return ((torch.tensor(targets) - base[0]).double() * unit).float()


def _beyond_24_bits(g: torch.Generator) -> tuple:
    """Accumulators around 2^25, one below a half-way point: float32 cannot hold them."""
    x, w = _codes(g, 1, 1100, low=100), _codes(g, 8, 1100, low=90)
    base = ((x.long() + 128) @ w.long().T)[0].tolist()
    targets = [(a >> 18 << 18) + 2**17 - 1 for a in base]
    unit = torch.full((8,), 2.0**-10, dtype=torch.float64)
    bias = _targeted(x, w, -128, unit, targets)
    return x, w, bias, 2.0**-4, -128, torch.full((8,), 2.0**-6), 2.0**8, -100


def _between_float32_and_float64(g: torch.Generator) -> tuple:
    """Accumulators at which a multiplier in float64 would give another code than the same one in float32."""
    x, w = _codes(g, 1, 900, low=60), _codes(g, 4, 900, low=60)
    base = ((x.long() + 128) @ w.long().T)[0]
    w_scale, x_scale, found = torch.rand(4, generator=g) * 0.004 + 0.002, single(0.0137), []
    unit = x_scale * w_scale.double()
    y_scale, reach = single(float(unit.mean()) * float(base.double().mean()) / 90), torch.arange(-1_500_000, 1_500_000)
    for a, one in zip(base.tolist(), unit.tolist(), strict=True):
        exact = torch.tensor(one / y_scale, dtype=torch.float64)
        acc = (a + reach).double()
        differ = ((acc * exact + 0.5).floor() != (acc * exact.float().double() + 0.5).floor()).nonzero()
        found.append(a + int(reach[differ[len(differ) // 2, 0]]) if len(differ) else a)
    return x, w, _targeted(x, w, -128, unit, found), x_scale, -128, w_scale, y_scale, -60


def integer_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "integer_layer")
    n, inner = (6, 40) if visible else (7, 55)
    saturated = list(_plain(g, 6, 60, 5, zeros=True))
    saturated[6] = single(saturated[6] / 9)
    return [
        Case("products alone", _plain(g, n, inner, 5, zeros=False), tags=tags("plain")),
        Case("zero points", _plain(g, n, inner, 6, zeros=True), tags=tags("zeros")),
        Case("zero points and biases", _plain(g, n, inner, 4, zeros=True, bias=20.0), tags=tags("zeros", "bias")),
        Case("large biases", _plain(g, n, 12, 5, zeros=False, bias=60.0), tags=tags("bias")),
        Case("biases between two steps", _coarse(g), tags=tags("bias")),
        Case("exact halves", _halves(g), tags=tags("ties")),
        Case("codes out of range", tuple(saturated), tags=tags("range")),
        Case("accumulators beyond 24 bits", _beyond_24_bits(g), tags=tags("exact")),
        Case("a multiplier between two float32 numbers", _between_float32_and_float64(g), tags=tags("exact")),
        Case("one input", _plain(g, 4, 1, 3, zeros=True), tags=tags("zeros")),
    ]


INT_PRODUCT = "product = x_scale * w_scale.double()"
INT_ACC = "acc = (x.int() - x_zero) @ w.int().T + (bias.double() / product).round().int()"
INT_MULTIPLIER = "mantissa, exponent = torch.frexp((product / y_scale).float())"
INT_M0 = "m0, n = (mantissa * 2**24).long(), 24 - exponent.long()"
INT_SCALED = "scaled = (acc.long() * m0 + (1 << (n - 1))) >> n"
INT_RETURN = "return (scaled + y_zero).clamp(-128, 127).to(torch.int8)"
INTEGER = Exercise(
    "integer_layer",
    points=10,
    difficulty=3,
    cases=integer_cases,
    properties=(
        Property("products and multiplier, bit for bit", hold.equals_bit_for_bit, 2, tags=tags("plain")),
        Property("zero points", hold.equals_bit_for_bit, 2, tags=tags("zeros")),
        Property("biases on the accumulator's scale", hold.equals_bit_for_bit, 2, tags=tags("bias")),
        Property("rounds half up", hold.equals_bit_for_bit, 1, tags=tags("ties")),
        Property("clamps, never wraps", hold.equals_bit_for_bit, 1, tags=tags("range")),
        Property("no bit is lost in between", hold.equals_bit_for_bit, 2, tags=tags("exact")),
    ),
    mistakes=(
        mistake(
            "float32-accumulator",
            "accumulated in float32",
            "integer-inference",
            "You accumulate in float32, which holds whole numbers up to 2^24 only. A row of 1,100 large products goes "
            "beyond; what is lost there shows as a code that differs from the chip's.",
            (INT_ACC, "acc = (x.float() - x_zero) @ w.float().T + (bias.double() / product).round().float()"),
        ),
        mistake(
            "int8-difference",
            "x - x_zero in int8",
            "integer-inference",
            "You subtract the zero point in int8: 100 - (-100) wraps around to -56. Widen before you subtract.",
            ("(x.int() - x_zero)", "(x - x_zero).int()"),
        ),
        mistake(
            "zero-point-of-input-forgotten",
            "the input's zero point is left out",
            "zero-point",
            "You multiply the codes of the input as if their zero point were 0. Each output is off by x_zero times "
            "the sum of its weights.",
            ("(x.int() - x_zero)", "x.int()"),
        ),
        mistake(
            "zero-point-added",
            "the input's zero point is added",
            "zero-point",
            "A code q stands for scale * (q - zero_point). You added the zero point.",
            ("(x.int() - x_zero)", "(x.int() + x_zero)"),
        ),
        mistake(
            "bias-as-it-is",
            "the bias is not brought to the accumulator's scale",
            "integer-inference",
            "You round the bias itself and add it. One step of the accumulator is x_scale * w_scale, a ten-thousandth: "
            "a bias of 0.5 is thousands of such steps, and you added one or none.",
            ("(bias.double() / product).round()", "bias.double().round()"),
        ),
        mistake(
            "bias-by-weight-scale",
            "the bias is divided by the weight's scale alone",
            "integer-inference",
            "The accumulator counts in steps of x_scale * w_scale. You divided the bias by w_scale only, so it is a "
            "hundred times too small.",
            ("(bias.double() / product)", "(bias.double() / w_scale.double())"),
        ),
        mistake(
            "bias-cut-off",
            "the bias is cut off, not rounded",
            "integer-inference",
            "You convert the bias to an integer without rounding. It is at most one step of the accumulator, which is "
            "why nobody notices, until the codes are compared bit for bit.",
            ("(bias.double() / product).round().int()", "(bias.double() / product).int()"),
        ),
        mistake(
            "one-weight-scale",
            "one scale for all outputs",
            "granularity",
            "You use a single weight scale. Each output channel has its own, and its own multiplier.",
            (INT_PRODUCT, "product = x_scale * w_scale.double().mean().expand(len(w_scale))"),
        ),
        mistake(
            "shift-without-half",
            "the shift cuts off",
            "integer-inference",
            "A right shift rounds down. Without adding half of 2^n first, all outputs are half a step too small on "
            "average, in every layer, in the same direction.",
            ("(acc.long() * m0 + (1 << (n - 1))) >> n", "(acc.long() * m0) >> n"),
        ),
        mistake(
            "half-to-even",
            "half to even",
            "integer-inference",
            "You round halves to even, as torch.round does. The contract rounds half up, since that is one addition "
            "and one shift in hardware. Only exact halves tell, and scales that are powers of two make many.",
            (INT_SCALED, "scaled = (acc.double() * m0 / 2.0**n).round().long()"),
        ),
        mistake(
            "half-away-from-zero",
            "half away from zero",
            "integer-inference",
            "You round negative halves down, away from zero. floor(x + 1/2) rounds -2.5 up to -2.",
            (INT_SCALED, "scaled = acc.sign() * ((acc.long().abs() * m0 + (1 << (n - 1))) >> n)"),
        ),
        mistake(
            "float64-multiplier",
            "the multiplier is kept in float64",
            "integer-inference",
            "You multiply by the multiplier in float64. It has 53 bits and no chip stores it; rounded to float32 it is "
            "a 24-bit integer and a shift, and a few codes in a million come out differently.",
            (INT_SCALED, "scaled = (acc.double() * (product / y_scale) + 0.5).floor().long()"),
        ),
        mistake(
            "sixteen-bit-multiplier",
            "a multiplier of 16 bits",
            "integer-inference",
            "You kept 16 bits of the multiplier. Codes near a border come out differently: the definition has 24.",
            (INT_M0, "m0, n = (mantissa * 2**16).long(), 16 - exponent.long()"),
        ),
        mistake(
            "zero-point-of-output-forgotten",
            "the output's zero point is left out",
            "zero-point",
            "You forgot y_zero. After a ReLU it is -128, and without it half of the codes stay unused while the other "
            "half is cut off.",
            ("(scaled + y_zero)", "scaled"),
        ),
        mistake(
            "clamped-before-zero-point",
            "clamped before the zero point is added",
            "integer-inference",
            "You clamp first and add y_zero after: the sum leaves int8 and wraps around.",
            (INT_RETURN, "return (scaled.clamp(-128, 127) + y_zero).to(torch.int8)"),
        ),
        mistake(
            "wraps-around",
            "large outputs wrap around",
            "integer-inference",
            "You convert to int8 without clamping, so 130 becomes -126. Saturate.",
            (INT_RETURN, "return (((scaled + y_zero + 128) % 256) - 128).to(torch.int8)"),
        ),
    ),
    alternatives=(
        Alternative(
            "in Python integers",
            "def integer_layer(x, w, bias, x_scale, x_zero, w_scale, y_scale, y_zero):\n"
            "    rows = []\n"
            "    for xs in x.tolist():\n"
            "        row = []\n"
            "        for ws, b, s in zip(w.tolist(), bias.tolist(), w_scale.tolist()):\n"
            "            acc = sum((a - x_zero) * c for a, c in zip(xs, ws)) + round(b / (x_scale * s))\n"
            "            m, e = math.frexp(torch.tensor(x_scale * s / y_scale, dtype=torch.float64).float().item())\n"
            "            m0, n = int(m * 2**24), 24 - e\n"
            "            row.append(max(-128, min(127, (acc * m0 + (1 << (n - 1)) >> n) + y_zero)))\n"
            "        rows.append(row)\n"
            "    return torch.tensor(rows, dtype=torch.int8)\n",
        ),
        Alternative(
            "zero point taken out of the sum",
            "def integer_layer(x, w, bias, x_scale, x_zero, w_scale, y_scale, y_zero):\n"
            "    unit = x_scale * w_scale.to(torch.float64)\n"
            "    acc = x.int() @ w.int().t() - x_zero * w.int().sum(1) + torch.round(bias / unit).int()\n"
            "    multiplier = (unit / y_scale).to(torch.float32).double()\n"
            "    y = torch.floor(acc.double() * multiplier + 0.5) + y_zero\n"
            "    return torch.clip(y, -128, 127).to(torch.int8)\n",
        ),
    ),
)

# 10. fake_quantize


def fake_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "fake_quantize")
    n = 24 if visible else 35
    w, rows = torch.randn(4, n, generator=g), torch.randn(5, 3, 3, 3, generator=g)
    scales = (torch.rand(5, generator=g) * 0.5 + 0.2).view(-1, 1, 1, 1)
    unit = 0.25 if visible else 0.5
    halves = torch.arange(-20, 21).float() * unit / 2
    return [
        Case("8 bits", (w, torch.tensor(0.021), 8), tags=tags("usual")),
        Case("3 bits, much outside", (w * 2, torch.tensor(0.4), 3), tags=tags("usual", "outside")),
        Case("2 bits", (w, torch.tensor(0.7), 2), tags=tags("usual", "outside")),
        Case("a scale for each channel", (rows, scales, 3), tags=tags("usual", "outside")),
        Case("exact halves and ends", (halves, torch.tensor(unit), 4), tags=tags("exact")),
        Case("exact ends at 2 bits", (halves, torch.tensor(2 * unit), 2), tags=tags("exact")),
    ]


FAKE_VALUE = "value = (w / scale).round().clamp(-top, top) * scale"
FAKE_SLOPE = '"slope": (w.abs() <= top * scale).to(w.dtype)'
FAKE = Exercise(
    "fake_quantize",
    points=6,
    difficulty=1,
    cases=fake_cases,
    properties=(
        Property("rounds to the nearest value of the grid", hold.rounds_to_the_grid, 2, tags=tags("usual")),
        Property(
            "halves to even, ends on the grid", partial(hold.rounds_to_the_grid, exact=True), 1, tags=tags("exact")
        ),
        Property("slope 1 inside, 0 outside", hold.has_the_right_slope, 2, tags=tags("outside")),
        Property("the ends of the range are inside", hold.has_the_right_slope, 1, tags=tags("exact")),
    ),
    mistakes=(
        mistake(
            "zero-slope",
            "the true slope",
            "straight-through",
            "You return the derivative of the staircase, which is zero. It is correct, and nothing learns. The "
            "straight-through estimator takes the slope of the line that the staircase follows.",
            (FAKE_SLOPE, '"slope": torch.zeros_like(w)'),
        ),
        mistake(
            "slope-one-everywhere",
            "slope 1 outside the range too",
            "straight-through",
            "Outside the range the output no longer depends on the weight, and yours still gets gradient. Such weights "
            "drift further and further out and never come back.",
            (FAKE_SLOPE, '"slope": torch.ones_like(w)'),
        ),
        mistake(
            "slope-inverted",
            "slope 1 outside, 0 inside",
            "straight-through",
            "Inside and outside are exchanged: only the weights that are cut off would learn.",
            ("w.abs() <= top * scale", "w.abs() > top * scale"),
        ),
        mistake(
            "slope-in-codes",
            "the slope is 1 / scale",
            "straight-through",
            "You give the slope of the *codes*, 1 / scale. The value is scale times the code, so the scale cancels; "
            "with yours the learning rate is multiplied by a hundred.",
            (FAKE_SLOPE, '"slope": (w.abs() <= top * scale) / scale'),
        ),
        mistake(
            "one-sided",
            "negative weights get no gradient",
            "straight-through",
            "You compare w, not |w|, so weights below the range count as inside. They are cut off like those above.",
            ("w.abs() <= top * scale", "w <= top * scale"),
        ),
        mistake(
            "half-a-step-wider",
            "half a step outside still counts as inside",
            "straight-through",
            "You compare the rounded code, so weights up to half a step beyond the last value still get gradient. The "
            "contract draws the line at the last value itself.",
            ("w.abs() <= top * scale", "(w / scale).round().abs() <= top"),
        ),
        mistake(
            "ends-outside",
            "the last value counts as outside",
            "straight-through",
            "A weight that lies exactly on the last value gets no gradient. With a scale set by the largest weight, "
            "that is the largest weight of every channel.",
            ("w.abs() <= top * scale", "w.abs() < top * scale"),
        ),
        mistake(
            "codes-for-values",
            "codes instead of values",
            "straight-through",
            "You return codes. Fake quantization stays in float: the value is scale times the code, so that the rest "
            "of the network does not notice.",
            ("clamp(-top, top) * scale", "clamp(-top, top)"),
        ),
        mistake(
            "identity",
            "nothing is rounded",
            "straight-through",
            "You return w itself, clamped. The network then trains without ever seeing the grid, and collapses when "
            "it is rounded in the end.",
            (FAKE_VALUE, "value = (w / scale).clamp(-top, top) * scale"),
        ),
        mistake(
            "cut-off",
            "cut off instead of rounded",
            "straight-through",
            "You cut off toward zero, so at 2 bits everything below the scale itself becomes zero instead of below "
            "half of it.",
            ("(w / scale).round()", "(w / scale).trunc()"),
        ),
        mistake(
            "lowest-code",
            "one value more below zero",
            "straight-through",
            "You allow the code -2^(b-1). At 2 bits that makes four values instead of three: another grid than the one "
            "that is stored.",
            ("clamp(-top, top)", "clamp(-top - 1, top)"),
        ),
    ),
    alternatives=(
        Alternative(
            "by autograd",
            "def fake_quantize(w, scale, bits):\n"
            "    end = scale * (2 ** (bits - 1) - 1)\n"
            "    inside = torch.logical_and(w >= -end, w <= end)\n"
            "    clipped = torch.minimum(torch.maximum(w, -end), end)\n"
            "    return {'value': torch.round(clipped / scale) * scale, 'slope': torch.where(inside, 1.0, 0.0)}\n",
        ),
    ),
)

# 11. huffman_lengths


def huffman_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "huffman_lengths")

    def counts(n: int, skew: float) -> list[int]:
        return [int(c) for c in (torch.rand(n, generator=g) ** skew * 1000).int() + 1]

    shift = int(torch.randint(1, 9, (1,), generator=g))
    gaps = counts(20, 6.0)
    gaps[3] = gaps[11] = gaps[19] = 0
    fibonacci = [shift, shift]
    while len(fibonacci) < (11 if visible else 13):
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    return [
        Case("eight symbols", (counts(8, 2.0),), tags=tags("usual")),
        Case("a skewed codebook of 16", (counts(16, 5.0),), tags=tags("usual")),
        Case("all equally often", ([40 + shift] * 6,), tags=tags("usual")),
        Case("powers of two", ([shift << i for i in range(7)],), tags=tags("usual")),
        Case("two symbols", ([1, 500 + shift],), tags=tags("usual")),
        Case("five symbols, nearly alike", ([shift * c for c in (6, 15, 5, 7, 6)],), tags=tags("usual")),
        Case("a long tail", (fibonacci,), tags=tags("usual")),
        Case("symbols that never occur", (gaps,), tags=tags("absent")),
        Case("a single symbol", ([0, 0, 70 + shift, 0],), tags=tags("absent")),
        Case("nothing at all", ([0] * shift,), tags=tags("absent")),
    ]


HUFF_GROUPS = "groups = [(count, symbol, [symbol]) for symbol, count in enumerate(counts) if count]"
HUFF_ONE = "    if len(groups) == 1:\n        lengths[groups[0][1]] = 1\n"
HUFF_POP = "a, b = heapq.heappop(groups), heapq.heappop(groups)"
HUFF_PUSH = "heapq.heappush(groups, (a[0] + b[0], a[1], joined))"


def instead(code: str) -> tuple[str, str]:
    """A patch that answers with other code before the reference begins."""
    return ("lengths = [0] * len(counts)", code.strip().replace("\n", "\n    ") + "\n    lengths = [0] * len(counts)")


HUFFMAN = Exercise(
    "huffman_lengths",
    points=7,
    difficulty=2,
    cases=huffman_cases,
    properties=(
        Property("the lengths belong to a prefix code", hold.is_a_prefix_code, 2, tags=tags("usual")),
        Property("no code needs fewer bits", hold.needs_the_fewest_bits, 3, tags=tags("usual")),
        Property("symbols that never occur get none", hold.needs_the_fewest_bits, 2, tags=tags("absent")),
    ),
    mistakes=(
        mistake(
            "fixed-length",
            "the same length for all",
            "huffman",
            "Every symbol gets ceil(log2 n) bits: that is what packing does already. Huffman gives frequent symbols "
            "shorter words.",
            instead(
                """
used = sum(count > 0 for count in counts)
return [max(1, math.ceil(math.log2(used))) if count else 0 for count in counts]
"""
            ),
        ),
        mistake(
            "entropy-rounded-up",
            "each length is the rounded information",
            "huffman",
            "You give a symbol ceil(-log2 p) bits: Shannon's code. It is a prefix code and up to one bit a symbol too "
            "long; Huffman's merging finds the optimum.",
            instead(
                """
total = sum(counts)
return [max(1, math.ceil(math.log2(total / count))) if count else 0 for count in counts]
"""
            ),
        ),
        mistake(
            "entropy-rounded",
            "each length is rounded to the nearest",
            "huffman",
            "You round -log2 p. Rounding down makes the words too short: their 2^-length sum to more than 1, and no "
            "decoder can tell them apart (Kraft's inequality).",
            instead(
                """
total = sum(counts)
return [max(1, round(math.log2(total / count))) if count else 0 for count in counts]
"""
            ),
        ),
        mistake(
            "single-symbol-for-free",
            "a single symbol needs no bit",
            "huffman",
            "A single symbol gets length 0. Information theory agrees; a decoder that has to count symbols in a stream "
            "does not: the file would say nothing about it. The contract says at least 1.",
            (HUFF_ONE, ""),
        ),
        mistake(
            "absent-symbols",
            "symbols that never occur take part",
            "huffman",
            "Symbols of count 0 get words, and make all others longer. A table of 256 gaps of which 30 occur loses "
            "bits at every one.",
            ("enumerate(counts) if count]", "enumerate(counts)]"),
        ),
        mistake(
            "largest-first",
            "the most frequent are joined first",
            "huffman",
            "You join the two most frequent groups. They end deepest in the tree, with the longest words. Join the "
            "rarest.",
            (HUFF_GROUPS, HUFF_GROUPS.replace("(count, symbol", "(-count, symbol")),
        ),
        mistake(
            "one-long-branch",
            "the joined group is always next",
            "huffman",
            "You add one symbol after the other to the same branch, like a unary code. A joined group goes back among "
            "the others and waits until it is among the two rarest.",
            (HUFF_PUSH, "heapq.heappush(groups, (0, a[1], joined))"),
        ),
        mistake(
            "sorted-once",
            "sorted once, then first come",
            "huffman",
            "You sort the symbols once and put joined groups at the end of the line. A joined group belongs where its "
            "count puts it: it may be among the two rarest again at once.",
            (HUFF_PUSH, "groups.append((a[0] + b[0], a[1], joined))"),
            (HUFF_POP, "a, b = groups.pop(0), groups.pop(0)"),
            ("heapq.heapify(groups)", "groups.sort()"),
        ),
        mistake(
            "top-down",
            "split from the top",
            "huffman",
            "You sort the symbols and split them where the two halves have nearly equal counts, again and again: "
            "Fano's code of 1949. It is good and not optimal; Huffman found that one has to begin with the rarest.",
            instead(
                """
found = [0] * len(counts)
def split(symbols, depth):
    if len(symbols) == 1:
        found[symbols[0]] = max(depth, 1)
        return
    totals = [sum(counts[s] for s in symbols[:i]) for i in range(len(symbols) + 1)]
    cut = min(range(1, len(symbols)), key=lambda i: abs(2 * totals[i] - totals[-1]))
    split(symbols[:cut], depth + 1)
    split(symbols[cut:], depth + 1)
ranked = sorted((s for s in range(len(counts)) if counts[s]), key=lambda s: -counts[s])
if ranked:
    split(ranked, 0)
return found
"""
            ),
        ),
        mistake(
            "one-side-grows",
            "only one half gets longer words",
            "huffman",
            "When two groups are joined, *every* symbol of both gets one bit more: one half begins with 0, the other "
            "with 1. You lengthened one half.",
            ("for symbol in joined:", "for symbol in a[2]:"),
        ),
        mistake(
            "rank-lengths",
            "lengths by rank",
            "huffman",
            "The most frequent symbol gets 1 bit, the next 2, and so on. It can be decoded, and it is far from optimal "
            "unless the counts halve each time.",
            instead(
                """
ranked = sorted((s for s in range(len(counts)) if counts[s]), key=lambda s: -counts[s])
return [min(ranked.index(s) + 1, max(1, len(ranked) - 1)) if counts[s] else 0 for s in range(len(counts))]
"""
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "a tree walked afterwards",
            "def huffman_lengths(counts):\n"
            "    nodes = [(c, s) for s, c in enumerate(counts) if c]\n"
            "    result = [0 for _ in counts]\n"
            "    number = len(counts)\n"
            "    parent, queue = {}, list(nodes)\n"
            "    while len(queue) > 1:\n"
            "        queue.sort(reverse=True)\n"
            "        (c1, n1), (c2, n2) = queue.pop(), queue.pop()\n"
            "        parent[n1] = parent[n2] = number\n"
            "        queue.append((c1 + c2, number))\n"
            "        number += 1\n"
            "    for _, s in nodes:\n"
            "        node = s\n"
            "        while node in parent:\n"
            "            node = parent[node]\n"
            "            result[s] += 1\n"
            "        result[s] = max(result[s], 1)\n"
            "    return result\n",
        ),
    ),
)

# 12. allocate_bits


@lru_cache(maxsize=4)
def _table(network: str) -> dict[str, dict[int, float]]:
    """The stored table of teacher20; for another network one of the same kind, from 500 validation images."""
    if network == "teacher20":
        return {name: {int(b): a for b, a in row.items()} for name, row in read_front()["sensitivity"].items()}
    net, (x, y) = model(network), images("val", 500)

    def accuracy(bits: dict[str, int]) -> float:
        with torch.no_grad():
            return round(100 * (rounded(net, bits)(x).argmax(1) == y).double().mean().item(), 2)

    return {name: {b: accuracy({name: b}) for b in CHOICES} for name in prunable(net)}


def allocate_cases(seed: int, visible: bool) -> list[Case]:
    split = "validation" if visible else "test"
    # A little more or less room for other seeds, so that no list of allocations fits all.
    more = 1 + 0.0005 * (seed % 4)
    cases = []
    # The stored front shows good allocations of teacher20, so the examination asks for networks without one.
    networks = ("teacher20", "s6") if visible else ("teacher60", "s5")
    for network, shares in zip(networks, ((1.06, 1.09, 1.17), (1.06, 1.17, 1.3)), strict=True):
        sizes = {name: w.numel() for name, w in prunable(model(network)).items()}
        least = sum(math.ceil(2 * n / 8) for n in sizes.values())
        budgets = [int(least * share * more) for share in shares]
        cases.append(Case(f"{network}, {split} images", (_table(network), sizes, budgets)))
    return cases


BITS_START = "front = [(0, 0.0, {})]  # (bytes, summed accuracy, choice) that nothing beats, cheapest first"
BITS_BYTES = "nbytes = math.ceil(sizes[layer] * bits / 8)"
BITS_RETURN = "return [[choice for size, _, choice in front if size <= budget][-1] for budget in budgets]"


def decide(code: str) -> tuple[str, str]:
    return (BITS_START, code.strip().replace("\n", "\n    ") + "\n    " + BITS_START)


ALLOCATE = Exercise(
    "allocate_bits",
    points=10,
    difficulty=3,
    cases=allocate_cases,
    properties=(
        Property("every allocation fits its budget", hold.fits_every_budget, 0, gate=True),
        Property("measured accuracy on the way from uniform to the front", hold.comes_near_the_front, 1),
    ),
    mistakes=(
        mistake(
            "uniform-bits",
            "the same bits everywhere",
            "mixed-precision",
            "You give every layer the same bits, the most that fit. That is the baseline, and it scores 0: between 2 "
            "and 3 bits everywhere lies room that this never uses.",
            decide(
                """
result = []
for budget in budgets:
    used = {b: sum(math.ceil(n * b / 8) for n in sizes.values()) for b in (2, 3, 4, 5, 6, 8)}
    options = [b for b in used if used[b] <= budget]
    result.append(dict.fromkeys(sizes, max(options)))
return result
"""
            ),
        ),
        mistake(
            "first-come",
            "the first layers take what they like",
            "mixed-precision",
            "You go through the layers in order and give each as many bits as the rest of the budget allows. The first "
            "convolution gets 8 bits that it does not need, and those behind it get what is left.",
            decide(
                """
result = []
for budget in budgets:
    plan = dict.fromkeys(sizes, 2)
    for layer in sizes:
        for bits in sorted(sensitivity[layer]):
            bigger = {**plan, layer: bits}
            if sum(math.ceil(sizes[k] * b / 8) for k, b in bigger.items()) <= budget:
                plan = bigger
    result.append(plan)
return result
"""
            ),
        ),
        mistake(
            "largest-layer-first",
            "the largest layers get the bits",
            "mixed-precision",
            "You serve the largest layers first. They cost most for each bit and, being redundant, need it least: fc1 "
            "loses a tenth of a point at 2 bits.",
            decide(
                """
result = []
for budget in budgets:
    plan = dict.fromkeys(sizes, 2)
    for layer in sorted(sizes, key=lambda k: -sizes[k]):
        for bits in sorted(sensitivity[layer]):
            bigger = {**plan, layer: bits}
            if sum(math.ceil(sizes[k] * b / 8) for k, b in bigger.items()) <= budget:
                plan = bigger
    result.append(plan)
return result
"""
            ),
        ),
        mistake(
            "most-bits",
            "as many bits as fit",
            "mixed-precision",
            "You maximize the number of bits, not the accuracy. Small layers are cheap, so they get 8 bits each, "
            "whether they need them or not.",
            ("total + share, {", "total + bits, {"),
        ),
        mistake(
            "equal-layers",
            "every layer counts as equally large",
            "mixed-precision",
            "You charge each layer the same for a bit. fc1 has a thousand times as many weights as conv0: a bit there "
            "costs a thousand times as much, and your allocation does not fit, or wastes the room.",
            (BITS_BYTES, "nbytes = math.ceil(sum(sizes.values()) / len(sizes) * bits / 8)"),
        ),
        mistake(
            "worst-layer",
            "the worst layer decides",
            "mixed-precision",
            "You maximize the smallest accuracy in the choice. Once one layer cannot be helped any more, all others "
            "stay as they are, though there is room.",
            ("(0, 0.0, {})", "(0, 100.0, {})"),
            ("total + share, {", "min(total, share), {"),
        ),
        mistake(
            "over-budget",
            "over the budget",
            "mixed-precision",
            "You return the best choice whatever it costs. A budget that may be exceeded is a wish; the file does not "
            "fit the device.",
            ("if size <= budget][-1]", "if size <= 2 * budget][-1]"),
        ),
        mistake(
            "smallest-budget-for-all",
            "one allocation for all budgets",
            "mixed-precision",
            "You return the allocation for the smallest budget every time. Each budget has its own best.",
            ("for budget in budgets]", "for budget in [min(budgets)] * len(budgets)]"),
        ),
    ),
    alternatives=(
        Alternative(
            "exhaustive search",
            "from itertools import product\n\n"
            "def allocate_bits(sensitivity, sizes, budgets):\n"
            "    names = list(sizes)\n"
            "    cost = {k: {b: -(-sizes[k] * b // 8) for b in sensitivity[k]} for k in names}\n"
            "    best = [(-1.0, None)] * len(budgets)\n"
            "    options = [[b for b in sensitivity[k] if b <= 6] for k in names[:-1]]\n"
            "    last = names[-1]\n"
            "    for head in product(*options):\n"
            "        size = sum(cost[k][b] for k, b in zip(names, head))\n"
            "        if size > max(budgets):\n"
            "            continue\n"
            "        value = sum(sensitivity[k][b] for k, b in zip(names, head))\n"
            "        for i, budget in enumerate(budgets):\n"
            "            fits = [b for b in sensitivity[last] if size + cost[last][b] <= budget]\n"
            "            if fits:\n"
            "                tail = max(fits, key=lambda b: sensitivity[last][b])\n"
            "                if value + sensitivity[last][tail] > best[i][0]:\n"
            "                    best[i] = (value + sensitivity[last][tail], {**dict(zip(names, head)), last: tail})\n"
            "    return [plan for _, plan in best]\n",
        ),
    ),
    seconds=5.0,
    same_form=False,
)


EXAM = Exam(
    "02-quantization",
    (
        KMEANS,
        VALID,
        GRADIENT,
        QUANTIZE,
        WEIGHT,
        PACK,
        CLIP,
        FOLD,
        INTEGER,
        FAKE,
        ALLOCATE,
        HUFFMAN,
    ),
)
