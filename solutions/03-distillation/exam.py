"""The exam of lab 03: cases, properties, named mistakes and equivalent alternatives.

Mistakes come from published notebooks and from issues of distillation libraries; each is a small patch of the
reference.
"""

from __future__ import annotations

import copy
import math
import random
from collections import OrderedDict
from typing import Any

import properties as hold
import torch
from torch import nn

from fourbit.codec import Ref
from fourbit.distillation import T_QUANTILES
from fourbit.exam import Alternative, Case, Exam, Exercise, Mistake, Property

NOTES = "lecture_notes/distillation.md#"


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


def mistake(id: str, name: str, anchor: str, why: str, *patch: tuple[str, str]) -> Mistake:
    return Mistake(id, name, patch, why, NOTES + anchor)


def generator(seed: int, visible: bool, exercise: str) -> torch.Generator:
    """Other numbers for each exercise, and for hidden and visible cases."""
    salt = sum(ord(letter) * 31**i for i, letter in enumerate(exercise)) + (0 if visible else 7919)
    return torch.Generator().manual_seed((seed * 1_000_003 + salt) % 2**31)


def normal(g: torch.Generator, *shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=g, dtype=torch.float64)


# 1. soften


def soften_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "soften")
    rows, classes = (4, 5) if visible else (7, 6)
    return [
        Case("a batch at T = 4", (normal(g, rows, classes), 4.0), tags=tags("general")),
        Case("a square batch at T = 2.5", (normal(g, classes, classes), 2.5), tags=tags("general")),
        Case("one image", (normal(g, 1, classes), 3.0), tags=tags("general")),
        Case("T = 0.5", (normal(g, rows, classes), 0.5), tags=tags("general")),
        Case("T = 1", (normal(g, rows, classes), 1.0), tags=tags("general")),
        Case("a vector", (normal(g, classes), 2.0), tags=tags("dimensions")),
        Case("images, mirrored or not, classes", (normal(g, 3, 2, classes), 4.0), tags=tags("dimensions")),
        Case("logits of thousands", (normal(g, rows, classes, scale=4000.0), 1.5), tags=tags("large")),
    ]


SCALED = "scaled = logits / temperature\n"
SOFTMAX = "torch.softmax(scaled, dim=-1)"
SOFTEN = Exercise(
    "soften",
    points=5,
    difficulty=1,
    cases=soften_cases,
    properties=(
        Property("softens each row", hold.same_tensor, 3, tags=tags("general")),
        Property("gives probabilities", hold.sums_to_one, 1, tags=tags("general")),
        Property("takes any leading dimensions", hold.same_tensor, 1, tags=tags("dimensions")),
        Property("stands logits of thousands", hold.same_tensor, 1, tags=tags("large")),
    ),
    mistakes=(
        mistake(
            "multiplied",
            "multiplied by T",
            "temperature",
            "You multiply the logits by T, so a higher temperature makes the distribution sharper. Hot means "
            "disordered: divide.",
            (SCALED, "scaled = logits * temperature\n"),
        ),
        mistake(
            "divided-afterwards",
            "probabilities divided by T",
            "temperature",
            "You divide the probabilities, not the logits. They no longer sum to one, and their ratios are as "
            "sharp as before.",
            (SCALED, "scaled = logits\n"),
            (SOFTMAX, "torch.softmax(scaled, dim=-1) / temperature"),
        ),
        mistake(
            "softmax-twice",
            "a softmax of probabilities",
            "temperature",
            "You soften probabilities as if they were logits. They lie between 0 and 1, so at T = 4 no class can be "
            "more than 1.3 times as likely as another: whatever the teacher knew is gone.",
            (SCALED, "scaled = torch.softmax(logits, dim=-1) / temperature\n"),
        ),
        mistake(
            "over-the-batch",
            "the softmax runs over the images",
            "soft-targets",
            "Your columns sum to one, not your rows: images compete with each other for a class. The classes are the "
            "last dimension.",
            (SOFTMAX, "torch.softmax(scaled, dim=0)"),
        ),
        mistake(
            "second-dimension",
            "the classes taken for dimension 1",
            "soft-targets",
            "dim=1 is the last dimension of a matrix only. The stored logits have three: image, mirrored or not, "
            "class. Count from the end.",
            (SOFTMAX, "torch.softmax(scaled, dim=min(1, scaled.ndim - 1))"),
        ),
        mistake(
            "overflow",
            "the exponential overflows",
            "temperature",
            "exp(1000) is infinite, and infinity over infinity is not a number. Subtract the largest logit of the row "
            "first, which changes nothing else, or let torch.softmax do it.",
            (SOFTMAX, "scaled.exp() / scaled.exp().sum(-1, keepdim=True)"),
        ),
        mistake(
            "log-probabilities",
            "logarithms returned",
            "soft-targets",
            "You return log-probabilities. Losses want them, but as a value of their own; here probabilities are "
            "asked for.",
            (SOFTMAX, "torch.log_softmax(scaled, dim=-1)"),
        ),
        mistake(
            "root",
            "the root of T",
            "temperature",
            "You divide by the square root of T, as attention does with the width of its keys. Temperature divides "
            "the logits themselves.",
            (SCALED, "scaled = logits / temperature**0.5\n"),
        ),
    ),
    alternatives=(
        Alternative(
            "by hand",
            "def soften(logits, temperature):\n"
            "    z = logits / temperature\n"
            "    e = (z - z.max(-1, keepdim=True).values).exp()\n"
            "    return e / e.sum(-1, keepdim=True)\n",
        ),
    ),
)

# 2. kd_loss


def loss_cases(name: str, seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, name)
    b, c = (6, 4) if visible else (9, 7)

    def batch(count: int = b, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, c, (count,), generator=g)
        return normal(g, count, c, scale=scale), normal(g, count, c, scale=scale), labels

    def partly(every: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        student, teacher, labels = batch()
        labels[::every] = -1
        return student, teacher, labels

    nobody = (*batch()[:2], torch.full((b,), -1))
    return [
        Case("both terms, T = 4", (*batch(), 4.0, 0.9), tags=tags("general")),
        Case("both terms, T = 2.5", (*batch(), 2.5, 0.3), tags=tags("general")),
        Case("one image", (*batch(1), 3.0, 0.6), tags=tags("general")),
        Case("the teacher alone, T = 6", (*batch(), 6.0, 1.0), tags=tags("teacher")),
        Case("the teacher alone, T = 1", (*batch(), 1.0, 1.0), tags=tags("teacher")),
        Case("labels alone", (*batch(), 4.0, 0.0), tags=tags("labels")),
        Case("some images without a label", (*partly(2), 4.0, 0.5), tags=tags("unlabeled")),
        Case("most images with a label", (*partly(4), 2.0, 0.2), tags=tags("unlabeled")),
        Case("no label at all", (*nobody, 4.0, 0.7), tags=tags("unlabeled")),
        Case("logits of thousands", (*batch(scale=3000.0), 2.0, 0.5), tags=tags("large")),
    ]


def kd_cases(seed: int, visible: bool) -> list[Case]:
    return loss_cases("kd_loss", seed, visible)


WANTED = "    wanted = soften(teacher, temperature)\n"
DIVERGENCE = "divergence = (wanted * (log_wanted - log_given)).sum(1)"
SOFT_TERM = "soft_term = temperature**2 * divergence.mean()"
HARD = "F.cross_entropy(student[known], labels[known])"
MIXED = "return alpha * soft_term + (1 - alpha) * "
NO_LABEL = "    if not known.any():\n        return alpha * soft_term\n"
LOSS = Exercise(
    "kd_loss",
    points=9,
    difficulty=2,
    cases=kd_cases,
    properties=(
        Property("mixes both terms", hold.same_number, 3, tags=tags("general")),
        Property("the teacher's term alone (alpha = 1)", hold.same_number, 2, tags=tags("teacher")),
        Property("the labels' term alone (alpha = 0)", hold.same_number, 1, tags=tags("labels")),
        Property("takes images without labels", hold.same_number, 2, tags=tags("unlabeled")),
        Property("stands logits of thousands", hold.same_number, 1, tags=tags("large")),
    ),
    mistakes=(
        mistake(
            "reversed",
            "the divergence runs the other way",
            "kl-direction",
            "You compute KL(student || teacher). It lets the student ignore classes that the teacher finds possible. "
            "The expectation is taken under the teacher: its probabilities are the weights. An open course taught it "
            "your way until 2026.",
            (DIVERGENCE, "divergence = (log_given.exp() * (log_given - log_wanted)).sum(1)"),
        ),
        mistake(
            "no-t-squared",
            "the factor T² is missing",
            "t-squared",
            "Without T² the teacher's gradient shrinks like 1/T² as you raise the temperature, and the labels take "
            "over. Whoever then searches for the best T really searches for a weight.",
            (SOFT_TERM, "soft_term = divergence.mean()"),
        ),
        mistake(
            "t-once",
            "T instead of T²",
            "t-squared",
            "One factor of T makes up for the chain rule, but the differences of the probabilities shrink like 1/T "
            "as well. You need both.",
            (SOFT_TERM, "soft_term = temperature * divergence.mean()"),
        ),
        mistake(
            "summed",
            "summed over the batch",
            "soft-targets",
            "You sum over the images where the labels' term takes a mean: the weight of the teacher grows with the "
            "batch size. Repeating every image of a batch must not change its loss.",
            (SOFT_TERM, "soft_term = temperature**2 * divergence.sum()"),
        ),
        mistake(
            "mean-over-elements",
            'reduction="mean" of kl_div',
            "soft-targets",
            'F.kl_div(..., reduction="mean") divides by images times classes: ten times too small for ten classes. '
            'PyTorch warns about it; "batchmean" is the definition.',
            (SOFT_TERM, "soft_term = temperature**2 * divergence.mean() / student.shape[1]"),
        ),
        mistake(
            "softened-labels",
            "the labels' term is softened too",
            "temperature",
            "You compute the cross-entropy to the labels at temperature T. Labels know nothing of it: that term is "
            "the ordinary one, at T = 1.",
            (HARD, "F.cross_entropy(student[known] / temperature, labels[known])"),
        ),
        mistake(
            "alpha-swapped",
            "alpha weighs the labels",
            "soft-targets",
            "alpha is the weight of the teacher here; you gave it to the labels. Both conventions are in use, which "
            "is why a test with alpha = 0 and alpha = 1 belongs to every implementation.",
            (MIXED, "return (1 - alpha) * soft_term + alpha * "),
        ),
        mistake(
            "cross-entropy",
            "the teacher's entropy is left in",
            "soft-targets",
            "You compute the cross-entropy to the soft targets. Its gradient is the same, so training cannot tell, "
            "but it is not zero when the student has become the teacher: KL subtracts the teacher's entropy.",
            (DIVERGENCE, "divergence = -(wanted * log_given).sum(1)"),
        ),
        mistake(
            "log-of-softmax",
            "the logarithm of a softmax",
            "soft-targets",
            "For a sure network a probability rounds to 0, its logarithm is minus infinity, and 0 times infinity is "
            "not a number. log_softmax computes the logarithm without the detour.",
            ("log_wanted = F.log_softmax(teacher / temperature, dim=1)", "log_wanted = wanted.log()"),
        ),
        mistake(
            "unlabeled-as-class-zero",
            "images without a label count as class 0",
            "when-it-helps",
            "You clamp the label -1 to 0, so every unlabeled image is taught to be a T-shirt. Leave those images out "
            "of the labels' term.",
            (HARD, "F.cross_entropy(student, labels.clamp(min=0))"),
        ),
        mistake(
            "mean-over-all",
            "divided by all images",
            "when-it-helps",
            "You divide the labels' term by the number of all images, labeled or not. The fewer labels a batch has, "
            "the less they count; the contract takes the mean over the labeled ones.",
            (HARD, 'F.cross_entropy(student[known], labels[known], reduction="sum") / len(student)'),
        ),
        mistake(
            "nothing-labeled",
            "not a number without labels",
            "when-it-helps",
            "The mean over no images is 0/0. A batch of unlabeled images is a normal batch here: the teacher's term "
            "alone remains.",
            (NO_LABEL, ""),
        ),
    ),
    alternatives=(
        Alternative(
            "kl_div",
            "def kd_loss(student, teacher, labels, temperature, alpha):\n"
            "    s = F.log_softmax(student / temperature, dim=1)\n"
            "    t = F.log_softmax(teacher / temperature, dim=1)\n"
            "    soft = F.kl_div(s, t, reduction='batchmean', log_target=True) * temperature**2\n"
            "    count = int((labels >= 0).sum())\n"
            "    hard = F.cross_entropy(student, labels, ignore_index=-1, reduction='sum') / max(count, 1)\n"
            "    return alpha * soft + (1 - alpha) * hard\n",
        ),
    ),
)

# 3. kd_gradient


def gradient_cases(seed: int, visible: bool) -> list[Case]:
    return loss_cases("kd_gradient", seed, visible)


GAP = "gap = soften(student, temperature) - soften(teacher, temperature)"
TEACHERS = "gradient = alpha * temperature * gap / len(student)"
HARD_PART = "hard = (soften(student[known], 1.0) - hot) / known.sum()"
ADDED = "gradient[known] += (1 - alpha) * hard"
GRADIENT = Exercise(
    "kd_gradient",
    points=8,
    difficulty=3,
    cases=gradient_cases,
    properties=(
        Property("the gradient of both terms", hold.same_tensor, 3, tags=tags("general")),
        Property("the teacher's part alone, at several T", hold.same_tensor, 2, tags=tags("teacher")),
        Property("the labels' part alone", hold.same_tensor, 1, tags=tags("labels")),
        Property("takes images without labels", hold.same_tensor, 2, tags=tags("unlabeled")),
        Property("stands logits of thousands", hold.same_tensor, 1, tags=tags("large")),
        Property("rows sum to zero", hold.sums_to_zero, 1, tags=tags("general")),
    ),
    mistakes=(
        mistake(
            "t-squared-left",
            "the inner derivative is missing",
            "t-squared",
            "The student's logits enter as s/T, so the chain rule divides by T once: of the factor T² one T is left.",
            (TEACHERS, "gradient = alpha * temperature**2 * gap / len(student)"),
        ),
        mistake(
            "no-factor",
            "T² and the chain rule cancel",
            "t-squared",
            "The chain rule gives one factor 1/T, not two; the other one hides in the difference of the "
            "probabilities and is not written down.",
            (TEACHERS, "gradient = alpha * gap / len(student)"),
        ),
        mistake(
            "factor-forgotten",
            "the gradient without T²",
            "t-squared",
            "This is the gradient of the loss without its factor T². It falls like 1/T² with the temperature.",
            (TEACHERS, "gradient = alpha / temperature * gap / len(student)"),
        ),
        mistake(
            "wrong-sign",
            "teacher minus student",
            "soft-targets",
            "Your gradient points the other way: a step against it would take the student away from the teacher. It is "
            "what the student has too much of, student minus teacher.",
            (GAP, "gap = soften(teacher, temperature) - soften(student, temperature)"),
        ),
        mistake(
            "not-averaged",
            "the batch size is missing",
            "soft-targets",
            "The loss is a mean over the batch, so each image's share of the gradient is 1/B.",
            (TEACHERS, "gradient = alpha * temperature * gap"),
        ),
        mistake(
            "softened-labels",
            "the labels' part at temperature T",
            "temperature",
            "The labels' term is the plain cross-entropy: its probabilities are those at T = 1.",
            (HARD_PART, "hard = (soften(student[known], temperature) - hot) / known.sum()"),
        ),
        mistake(
            "divided-by-all",
            "the labels' part divided by all images",
            "when-it-helps",
            "The second term is a mean over the labeled images. Where labels are missing, dividing by the whole batch "
            "makes it too small.",
            (HARD_PART, "hard = (soften(student[known], 1.0) - hot) / len(student)"),
        ),
        mistake(
            "everyone-labeled",
            "images without a label are given one",
            "when-it-helps",
            "An image without a label has no place in the labels' term. Here it is pushed towards class 0.",
            (
                "    if known.any():\n        hot = F.one_hot(labels[known], student.shape[1])\n",
                "    known = torch.ones_like(known)\n    if known.any():\n"
                "        hot = F.one_hot(labels.clamp(min=0), student.shape[1])\n",
            ),
        ),
        mistake(
            "alpha-swapped",
            "alpha weighs the labels",
            "soft-targets",
            "alpha belongs to the teacher's term, 1 - alpha to the labels'.",
            (TEACHERS, "gradient = (1 - alpha) * temperature * gap / len(student)"),
            (ADDED, "gradient[known] += alpha * hard"),
        ),
        mistake(
            "labels-instead",
            "the labels' part replaces the teacher's",
            "soft-targets",
            "For labeled images you overwrite the teacher's part. The loss is a sum, and so is its gradient.",
            (ADDED, "gradient[known] = (1 - alpha) * hard"),
        ),
        mistake(
            "centered-logits",
            "the limit for large T",
            "t-squared",
            "You wrote the limit for high temperature, the difference of the centered logits over the number of "
            "classes. It is a good way to see why T² is right, and not equal at T = 4.",
            (
                GAP,
                "gap = student - teacher\n"
                "    gap = (gap - gap.mean(1, keepdim=True)) / student.shape[1] / temperature",
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "autograd after all",
            "def kd_gradient(student, teacher, labels, temperature, alpha):\n"
            "    s = student.clone().requires_grad_()\n"
            "    return torch.autograd.grad(kd_loss(s, teacher, labels, temperature, alpha), s)[0]\n",
        ),
        Alternative(
            "a weight for each image",
            "def kd_gradient(student, teacher, labels, temperature, alpha):\n"
            "    known = (labels >= 0).to(student.dtype)\n"
            "    hot = torch.zeros_like(student)\n"
            "    for row, label in enumerate(labels.tolist()):\n"
            "        if label >= 0:\n"
            "            hot[row, label] = 1.0\n"
            "    hard = (torch.softmax(student, 1) - hot) * known[:, None] / known.sum().clamp(min=1)\n"
            "    soft = torch.softmax(student / temperature, 1) - torch.softmax(teacher / temperature, 1)\n"
            "    return (1 - alpha) * hard + alpha * temperature * soft / student.shape[0]\n",
        ),
    ),
)

# 4. closest


def closest_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "closest")
    k, m = (12, 7) if visible else (16, 9)

    def rows(count: int) -> torch.Tensor:
        return normal(g, count, k, scale=1.5).softmax(1)

    place = torch.arange(k, dtype=torch.float64)

    def bell(center: float, width: float) -> torch.Tensor:
        return torch.softmax(-0.5 * ((place - center) / width) ** 2, 0)

    left, right = 0.2 * k + float(torch.rand((), generator=g)), 0.75 * k
    humps = 0.5 * bell(left, 0.9) + 0.5 * bell(right, 1.1)
    family = torch.stack([bell(c, w) for c, w in ((left, 1.0), (k / 2, 4.0), (right, 1.0), (k / 2, 1.0))])
    holes = rows(m)
    sparse = rows(1)[0]
    sparse[::3] = 0
    sparse[1] = 0.002
    sparse = sparse / sparse.sum()
    holes[1:, ::3] = 0  # where the teacher has nothing either, but for the first candidate
    holes[m // 2 :, 1] = 0  # where the teacher has something
    cases = []
    for direction, place_of_trap, mass in (("forward", 1, 0.0), ("reverse", 0, 0.002)):
        about = tags(direction)
        trap = sparse.clone()
        trap[place_of_trap] = mass  # nearly the teacher, and infinitely far from it
        some = torch.cat([holes, trap[None]])
        some = some / some.sum(1, keepdim=True)
        cases += [
            Case(f"{direction}, full support", (rows(1)[0], rows(m), direction), tags=about),
            Case(f"{direction}, two humps", (humps, family, direction), tags=about),
            Case(f"{direction}, with zeros", (sparse, some, direction), tags=tags("zeros")),
        ]
    return cases


CLOSEST_SIDES = '(teacher, candidates) if direction == "forward" else (candidates, teacher)'
CLOSEST_TERMS = "terms = torch.where(p > 0, p * (p / q).log(), 0.0)"
CLOSEST_SUM = "divergences = terms.sum(1)"
CLOSEST = Exercise(
    "closest",
    points=6,
    difficulty=2,
    cases=closest_cases,
    properties=(
        Property("chooses forward", hold.chooses, 1, tags=tags("forward")),
        Property("chooses in reverse", hold.chooses, 1, tags=tags("reverse")),
        Property("measures the forward divergence", hold.measures_divergence, 1, tags=tags("forward")),
        Property("measures the reverse divergence", hold.measures_divergence, 1, tags=tags("reverse")),
        Property("chooses where there are zeros", hold.chooses, 1, tags=tags("zeros")),
        Property("measures where there are zeros", hold.measures_divergence, 1, tags=tags("zeros")),
    ),
    mistakes=(
        mistake(
            "other-way",
            "forward and reverse exchanged",
            "kl-direction",
            "Forward is KL(teacher || candidate): the expectation is under the teacher, and a candidate without "
            "probability where the teacher has some pays infinitely. You have them the other way round.",
            ('direction == "forward" else', 'direction == "reverse" else'),
        ),
        mistake(
            "always-forward",
            "the direction is ignored",
            "kl-direction",
            "You compute the same divergence for both directions. KL is not a distance: exchanging its arguments "
            "changes it.",
            (CLOSEST_SIDES, "(teacher, candidates)"),
        ),
        mistake(
            "entropy-left-in",
            "a cross-entropy",
            "soft-targets",
            "You leave out p log p. Forward that is the same for all candidates and changes no choice, but it is not "
            "zero for equal distributions; in reverse it changes the choice as well.",
            (CLOSEST_TERMS, "terms = torch.where(p > 0, -p * q.log(), 0.0)"),
        ),
        mistake(
            "zero-times-infinity",
            "0 log 0 is not a number",
            "kl-direction",
            "Where p is 0 the term counts as 0, its limit. Computed as written it is 0 times minus infinity, and one "
            "such place spoils the sum.",
            (CLOSEST_TERMS, "terms = p * (p / q).log()"),
        ),
        mistake(
            "clamped",
            "zeros lifted to a small number",
            "kl-direction",
            "You clamp q, so a candidate that rules out what the teacher does pays a large number instead of "
            "infinity. How large depends on the clamp, and nobody chose it for its meaning.",
            (CLOSEST_TERMS, "terms = torch.where(p > 0, p * (p / q.clamp(min=1e-4)).log(), 0.0)"),
        ),
        mistake(
            "support-ignored",
            "impossible outcomes left out",
            "kl-direction",
            "You leave out the places where q is 0. Exactly those make the divergence infinite when p is not 0 "
            "there.",
            (CLOSEST_TERMS, "terms = torch.where((p > 0) & (q > 0), p * (p / q).log(), 0.0)"),
        ),
        mistake(
            "averaged",
            "a mean over the outcomes",
            "kl-direction",
            "You take the mean over the outcomes. The weights p already make it an expectation; dividing by K makes "
            "it small. The choice is right, the number is not.",
            (CLOSEST_SUM, "divergences = terms.mean(1)"),
        ),
        mistake(
            "absolute",
            "absolute terms",
            "kl-direction",
            "Single terms may be negative, only their sum may not. With absolute values it is another quantity.",
            (CLOSEST_SUM, "divergences = terms.abs().sum(1)"),
        ),
        mistake(
            "bits",
            "bits instead of nats",
            "kl-direction",
            "You take the logarithm to base 2. Losses in PyTorch are in nats; a factor of 0.69 is easily taken for "
            "progress.",
            (CLOSEST_TERMS, "terms = torch.where(p > 0, p * (p / q).log2(), 0.0)"),
        ),
        mistake(
            "farthest",
            "the largest divergence",
            "kl-direction",
            "You choose the candidate with the largest divergence. Closest is smallest.",
            ("int(divergences.argmin())", "int(divergences.argmax())"),
        ),
    ),
    alternatives=(
        Alternative(
            "a loop with math",
            "def closest(teacher, candidates, direction):\n"
            "    def divergence(p, q):\n"
            "        total = 0.0\n"
            "        for a, b in zip(p, q):\n"
            "            if a > 0:\n"
            "                total += a * math.log(a / b) if b > 0 else math.inf\n"
            "        return total\n"
            "    rows, t = candidates.tolist(), teacher.tolist()\n"
            "    values = [divergence(t, r) if direction == 'forward' else divergence(r, t) for r in rows]\n"
            "    best = min(range(len(values)), key=values.__getitem__)\n"
            "    return {'index': best, 'divergence': values[best]}\n",
        ),
    ),
)

# 5. distill


def _net(g: torch.Generator, width: int, classes: int) -> nn.Sequential:
    """A small network with a batch normalization whose statistics are not those of the batches below."""
    net = nn.Sequential(
        OrderedDict(
            conv0=nn.Conv2d(1, width, 3, padding=1, bias=False),
            bn0=nn.BatchNorm2d(width),
            relu0=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(width * 25, classes),
        )
    ).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(normal(g, *parameter.shape, scale=0.3))
        net.bn0.weight.add_(1.0)  # type: ignore[union-attr, operator]
        net.bn0.running_mean.copy_(normal(g, width, scale=0.5))  # type: ignore[union-attr, operator]
        net.bn0.running_var.copy_(normal(g, width, scale=0.5).square() + 0.5)  # type: ignore[union-attr, operator]
    return net


def distill_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "distill")
    classes, size = (3, 6) if visible else (4, 8)

    def batches(steps: int, unlabeled: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
        out = []
        for _ in range(steps):
            y = torch.randint(0, classes, (size,), generator=g)
            if unlabeled:
                y[::2] = -1
            out.append((normal(g, size, 1, 5, 5, scale=1.0), y))
        return out

    def pair() -> tuple[nn.Sequential, nn.Sequential]:
        return _net(g, 2, classes).eval(), _net(g, 4, classes).train()

    return [
        Case("one step", (*pair(), batches(1), [0.1], 3.0, 0.7), tags=tags("one")),
        Case("four steps", (*pair(), batches(4), [0.05, 0.1, 0.1, 0.02], 4.0, 0.9), tags=tags("several")),
        Case("three steps, half unlabeled", (*pair(), batches(3, True), [0.05] * 3, 2.0, 0.5), tags=tags("several")),
        Case("the teacher alone", (*pair(), batches(3, True), [0.1, 0.05, 0.1], 2.5, 1.0), tags=tags("several")),
    ]


DISTILL_COPIES = "copy.deepcopy(student).train(), copy.deepcopy(teacher).eval()"
DISTILL_LOSS = "loss = kd_loss(student(x), wanted, y, temperature, alpha)"
DISTILL_WANTED = "wanted = teacher(x)"
DISTILL = Exercise(
    "distill",
    points=10,
    difficulty=2,
    cases=distill_cases,
    properties=(
        Property("one step is right", hold.trains_weights, 3, tags=tags("one")),
        Property("several steps are right", hold.trains_weights, 3, tags=tags("several")),
        Property("the student's statistics follow its batches", hold.follows_statistics, 2),
        Property("comes back in evaluation mode", hold.in_eval_mode, 1),
    ),
    mistakes=(
        mistake(
            "teacher-in-training-mode",
            "the teacher is in training mode",
            "where-it-breaks",
            "In training mode the teacher normalizes with the statistics of the batch (and drops units, if it has "
            "dropout): its answer to an image depends on the other images. It has long been trained; put it into "
            "evaluation mode.",
            (DISTILL_COPIES, "copy.deepcopy(student).train(), copy.deepcopy(teacher).train()"),
        ),
        mistake(
            "other-images",
            "the teacher sees other images",
            "where-it-breaks",
            "The teacher answers for a mirrored image, the student is asked about the original. Both must see the "
            "same augmented image; a cache needs an entry for every augmentation (Beyer et al., 2022).",
            (DISTILL_WANTED, "wanted = teacher(x.flip(-1))"),
        ),
        mistake(
            "reversed",
            "the divergence runs the other way",
            "kl-direction",
            "The published loss takes the expectation under the student. Your kd_loss has the right direction; use it.",
            (
                DISTILL_LOSS,
                "p, q = F.log_softmax(student(x) / temperature, 1), F.log_softmax(wanted / temperature, 1)\n"
                "        soft = F.kl_div(q, p, reduction='batchmean', log_target=True)\n"
                "        loss = kd_loss(p * temperature, wanted, y, temperature, alpha) + alpha * temperature**2 * (\n"
                "            soft - F.kl_div(p, q, reduction='batchmean', log_target=True))",
            ),
        ),
        mistake(
            "summed",
            "the teacher's term is summed",
            "soft-targets",
            "The published loss sums over the batch, so the teacher's weight grows with the batch size. A mean over "
            "the images keeps both terms in balance.",
            (
                DISTILL_LOSS,
                "z = student(x)\n"
                "        loss = kd_loss(z, wanted, y, temperature, alpha) + (len(x) - 1) * alpha * kd_loss(\n"
                "            z, wanted, torch.full_like(y, -1), temperature, 1.0)",
            ),
        ),
        mistake(
            "no-t-squared",
            "the factor T² is missing",
            "t-squared",
            "The published loss has no T², so its teacher falls silent as the temperature rises.",
            (
                DISTILL_LOSS,
                "z = student(x)\n"
                "        loss = kd_loss(z, wanted, y, temperature, alpha) + (temperature**-2 - 1) * alpha * kd_loss(\n"
                "            z, wanted, torch.full_like(y, -1), temperature, 1.0)",
            ),
        ),
        mistake(
            "gradients-pile-up",
            "zero_grad is missing",
            "where-it-breaks",
            "PyTorch adds gradients up until they are cleared. Without zero_grad each step repeats all earlier ones, "
            "a momentum that never fades.",
            ("        optimizer.zero_grad()\n", ""),
        ),
        mistake(
            "student-in-evaluation-mode",
            "the student trains in evaluation mode",
            "where-it-breaks",
            "The student's batch normalization never measures anything: it normalizes with the statistics that it "
            "was born with. While it learns it belongs in training mode.",
            (DISTILL_COPIES, "copy.deepcopy(student).eval(), copy.deepcopy(teacher).eval()"),
        ),
        mistake(
            "left-in-training-mode",
            "the student comes back in training mode",
            "where-it-breaks",
            "Whoever evaluates the student now gets answers that depend on the batch. Hand it back in evaluation "
            "mode.",
            ("return student.eval()", "return student"),
        ),
        mistake(
            "seen-twice",
            "the student sees every batch twice",
            "where-it-breaks",
            "The published loop calls the student once for each term. In training mode every call moves the running "
            "statistics, so they count each batch twice. One forward pass serves both terms.",
            (DISTILL_WANTED, "wanted = teacher(x)\n            student(x)"),
        ),
        mistake(
            "one-rate",
            "the first rate for all steps",
            "where-it-breaks",
            "You set the learning rate once. Each step has its own.",
            ('["lr"] = rate', '["lr"] = rates[0]'),
        ),
        mistake(
            "trained-in-place",
            "the student itself is changed",
            "paired-seeds",
            "You train the object that was handed to you. The next run of a comparison would start from your result "
            "and not from the same initial weights.",
            (DISTILL_COPIES, "student.train(), copy.deepcopy(teacher).eval()"),
        ),
    ),
    alternatives=(
        Alternative(
            "momentum by hand",
            "def distill(student, teacher, batches, rates, temperature, alpha):\n"
            "    student, teacher = copy.deepcopy(student), copy.deepcopy(teacher)\n"
            "    teacher.eval()\n"
            "    targets = [teacher(x).detach() for x, _ in batches]\n"
            "    student.train()\n"
            "    parameters = list(student.parameters())\n"
            "    speed = [torch.zeros_like(p) for p in parameters]\n"
            "    for (x, y), t, rate in zip(batches, targets, rates):\n"
            "        gradients = torch.autograd.grad(kd_loss(student(x), t, y, temperature, alpha), parameters)\n"
            "        with torch.no_grad():\n"
            "            for p, v, g in zip(parameters, speed, gradients):\n"
            "                v.mul_(0.9).add_(g)\n"
            "                p.sub_(rate * v)\n"
            "    student.eval()\n"
            "    return student\n",
        ),
    ),
)

# 6. paired_gain


def gain_cases(seed: int, visible: bool) -> list[Case]:
    rng = random.Random(f"paired_gain/{seed}/{visible}")

    def arms(count: int, gain: float, spread: float, noise: float) -> tuple[list[float], list[float]]:
        base = [88 + spread * rng.gauss(0, 1) for _ in range(count)]
        return [round(b + gain + noise * rng.gauss(0, 1), 2) for b in base], [round(b, 2) for b in base]

    return [
        Case("three pairs", arms(3, 1.0, 0.5, 0.3), tags=tags("three")),
        Case("three pairs that vary together", arms(3, 0.5, 2.0, 0.1), tags=tags("three")),
        Case("five pairs", arms(5, -0.4, 0.6, 0.4), tags=tags("more")),
        Case("ten pairs", arms(10, 0.2, 0.8, 0.5), tags=tags("more")),
        Case("two pairs", arms(2, 2.0, 0.5, 0.4), tags=tags("two")),
        Case("one pair", arms(1, 1.2, 0.5, 0.4), tags=tags("one")),
    ]


GAIN_LIST = "gains = [a - b for a, b in zip(with_teacher, without, strict=True)]"
GAIN_DEVIATION = "deviation = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (n - 1))"
GAIN_REACH = "reach = T_QUANTILES[n - 1] * deviation / math.sqrt(n)"
GAIN_ONE = 'if n == 1:\n        return {"mean": mean, "low": -math.inf, "high": math.inf}\n'
GAIN = Exercise(
    "paired_gain",
    points=8,
    difficulty=2,
    cases=gain_cases,
    properties=(
        Property("the mean gain", hold.mean_right, 1),
        Property("the interval of three pairs", hold.interval_right, 3, tags=tags("three")),
        Property("the interval of more pairs", hold.interval_right, 2, tags=tags("more")),
        Property("the interval of two pairs", hold.interval_right, 1, tags=tags("two")),
        Property("one pair has no interval", hold.interval_right, 1, tags=tags("one")),
    ),
    mistakes=(
        mistake(
            "normal-quantile",
            "1.96 for three runs",
            "paired-seeds",
            "1.96 belongs to a spread that is known. Estimated from three differences it may be far too small by "
            "chance, and Student's quantile, 4.3, makes up for that. Your intervals are half as wide as they should "
            "be.",
            ("T_QUANTILES[n - 1] * deviation", "1.96 * deviation"),
        ),
        mistake(
            "unpaired",
            "two separate spreads",
            "paired-seeds",
            "You add up the variances of both arms. From the same seed both runs share luck, and the difference "
            "cancels it: take the spread of the differences. Your interval is too wide, sometimes by a lot.",
            (
                GAIN_DEVIATION,
                "deviation = math.sqrt(sum(sum((a - sum(arm) / n) ** 2 for a in arm) / (n - 1)\n"
                "                              for arm in (with_teacher, without)))",
            ),
        ),
        mistake(
            "n-for-n-minus-one",
            "the population's deviation",
            "paired-seeds",
            "You divide by n. The mean was computed from the same numbers, so they are too close to it: divide by "
            "n - 1.",
            (GAIN_DEVIATION, "deviation = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / n)"),
        ),
        mistake(
            "no-root-n",
            "the spread of runs, not of their mean",
            "paired-seeds",
            "This is where another single difference may lie. The mean of n differences is more certain by the root "
            "of n.",
            (GAIN_REACH, "reach = T_QUANTILES[n - 1] * deviation"),
        ),
        mistake(
            "degrees-of-freedom",
            "the quantile of n, not of n - 1",
            "paired-seeds",
            "The spread of n differences has n - 1 degrees of freedom. With three seeds that is 4.30, not 3.18.",
            ("T_QUANTILES[n - 1]", "T_QUANTILES[n]"),
        ),
        mistake(
            "pooled-degrees",
            "the quantile of an unpaired test",
            "paired-seeds",
            "2n - 2 degrees of freedom belong to two independent groups. You have n differences, so n - 1.",
            ("T_QUANTILES[n - 1]", "T_QUANTILES[2 * n - 2]"),
        ),
        mistake(
            "sorted-arms",
            "the pairs torn apart",
            "paired-seeds",
            "You sort both lists before subtracting, so runs from different seeds are compared. The mean stays, the "
            "spread comes out too small.",
            (GAIN_LIST, GAIN_LIST.replace("with_teacher, without,", "sorted(with_teacher), sorted(without),")),
        ),
        mistake(
            "range",
            "smallest and largest gain",
            "paired-seeds",
            "You return the range of the gains. Of three runs it holds the true mean three times out of four at "
            "best, and it grows with every further seed, where certainty should grow.",
            (
                '"low": mean - reach, "high": mean + reach',
                '"low": min(gains), "high": max(gains)',
            ),
        ),
        mistake(
            "loss-for-gain",
            "without minus with",
            "paired-seeds",
            "Your sign is turned: a helpful teacher gets a negative gain.",
            ("[a - b for", "[b - a for"),
        ),
        mistake(
            "relative",
            "percent of percent",
            "paired-seeds",
            "You divide by the accuracy without the teacher. A gain is given in points, the difference of two "
            "percentages; 'two percent better' can mean either, so say points.",
            ("[a - b for", "[100 * (a - b) / b for"),
        ),
        mistake(
            "certain-of-one",
            "one pair with an interval of no width",
            "paired-seeds",
            "One pair shows no spread at all, and you report a spread of zero. Nothing is known: the interval is "
            "everything.",
            ('"low": -math.inf, "high": math.inf}', '"low": mean, "high": mean}'),
        ),
        mistake(
            "one-pair-fails",
            "fails for one pair",
            "paired-seeds",
            "With one pair n - 1 is 0, and you divide by it. The ends of a range deserve a line of their own.",
            (GAIN_ONE, "\n"),
        ),
    ),
    alternatives=(
        Alternative(
            "statistics",
            "def paired_gain(with_teacher, without):\n"
            "    import statistics\n"
            "    d = [a - b for a, b in zip(with_teacher, without)]\n"
            "    center = statistics.fmean(d)\n"
            "    half = math.inf if len(d) < 2 else T_QUANTILES[len(d) - 1] * statistics.stdev(d) / len(d) ** 0.5\n"
            "    return {'mean': center, 'low': center - half, 'high': center + half}\n",
        ),
    ),
)

# 7. believable_gain


def _interval(first: list[float], second: list[float]) -> dict[str, float]:
    gains = [a - b for a, b in zip(first, second, strict=True)]
    n = len(gains)
    mean = math.fsum(gains) / n
    reach = T_QUANTILES[n - 1] * math.sqrt(math.fsum((d - mean) ** 2 for d in gains) / (n - 1) / n)
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def _claimed(record: dict[str, Any], interval: dict[str, float]) -> None:
    record["claim"] = {key: round(value, 2) for key, value in interval.items()}
    record["verdict"] = "gain" if interval["low"] > 0 else "no gain shown"


def _honest(rng: random.Random, i: int) -> dict[str, Any]:
    """A report that must be believed; every other one shows a gain, every third credits soft targets."""
    while True:
        n, total = rng.randint(3, 6), rng.choice((500, 1000, 2000))
        gain = rng.uniform(1.5, 5.0) if i % 2 else rng.uniform(-0.3, 0.3)
        base = [rng.gauss(86, 0.6) for _ in range(n)]
        arms = [[b + gain + rng.gauss(0, 0.25) for b in base], base]
        rounded = [[round(100 * round(a * total / 100) / total, 2) for a in arm] for arm in arms]
        interval = _interval(*rounded)
        if abs(interval["low"]) > 0.02 and (interval["low"] > 0) == bool(i % 2):  # clear of zero, after rounding too
            break
    seeds = rng.sample(range(20), n)
    seen = rng.choice((4000, 18000, 20000))
    fair = i % 3 == 0
    record: dict[str, Any] = {
        "with": rounded[0],
        "without": rounded[1],
        "seeds": {"with": seeds, "without": list(seeds)},
        "steps": dict.fromkeys(("with", "without"), rng.choice((560, 1120, 1248))),
        "labels": dict.fromkeys(("with", "without"), rng.choice((1000, 4000))),
        "images": total,
        "chosen_on": "validation",
        "measured_on": "test",
        "teacher_images": seen if fair else 58_000,
        "student_images": seen,
        "cause": "soft targets" if fair else "a better teacher",
    }
    _claimed(record, interval)
    return record


def _other_seeds(record: dict[str, Any], rng: random.Random) -> None:
    record["seeds"]["without"] = [seed + 100 for seed in record["seeds"]["with"]]


def _other_order(record: dict[str, Any], rng: random.Random) -> None:
    seeds = record["seeds"]["without"]
    record["seeds"]["without"] = seeds[1:] + seeds[:1]


def _two_seeds(record: dict[str, Any], rng: random.Random) -> None:
    for key in ("with", "without"):
        record[key], record["seeds"][key] = record[key][:2], record["seeds"][key][:2]
    _claimed(record, _interval(record["with"], record["without"]))


def _copied_seed(record: dict[str, Any], rng: random.Random) -> None:
    for key in ("with", "without"):
        record[key] = record[key] + record[key][:1]
        record["seeds"][key] = record["seeds"][key] + record["seeds"][key][:1]
    _claimed(record, _interval(record["with"], record["without"]))


def _lost_run(record: dict[str, Any], rng: random.Random) -> None:
    """One seed is listed whose runs are not: the worst pair was dropped."""
    worst = min(range(len(record["with"])), key=lambda i: record["with"][i] - record["without"][i])
    for key in ("with", "without"):
        record[key] = [a for i, a in enumerate(record[key]) if i != worst]
        if len(record[key]) < 3:  # keep three: this is not the fault of too few seeds
            record[key] = record[key] + record[key][:1]
            record["seeds"][key] = [*record["seeds"][key], 77]
    _claimed(record, _interval(record["with"], record["without"]))


def _more_steps(record: dict[str, Any], rng: random.Random) -> None:
    record["steps"]["with"] *= 2


def _more_labels(record: dict[str, Any], rng: random.Random) -> None:
    record["labels"]["with"] *= 4


def _impossible(record: dict[str, Any], rng: random.Random) -> None:
    """More precise than so many images allow."""
    i = rng.randrange(len(record["with"]))
    record["with"][i] = round(record["with"][i] + 100 / record["images"] * 0.4, 2)
    _claimed(record, _interval(record["with"], record["without"]))


def _chosen_where_measured(record: dict[str, Any], rng: random.Random) -> None:
    record["chosen_on"] = record["measured_on"] = "test"


def _narrow(record: dict[str, Any], rng: random.Random) -> None:
    """The quantile of the normal distribution."""
    right = _interval(record["with"], record["without"])
    reach = (right["high"] - right["mean"]) * 1.96 / T_QUANTILES[len(record["with"]) - 1]
    low, high = right["mean"] - reach, right["mean"] + reach
    record["claim"] |= {"low": round(low, 2), "high": round(high, 2)}


def _wishful(record: dict[str, Any], rng: random.Random) -> None:
    record["claim"]["mean"] = round(record["claim"]["mean"] + 0.2, 2)


def _one_end(record: dict[str, Any], rng: random.Random) -> None:
    record["claim"]["high"] = round(record["claim"]["high"] + 0.3, 2)


def _turned(record: dict[str, Any], rng: random.Random) -> None:
    """The verdict follows the mean, or modesty, but not the interval."""
    record["verdict"] = "no gain shown" if record["verdict"] == "gain" else "gain"


def _wrong_cause(record: dict[str, Any], rng: random.Random) -> None:
    record["cause"], record["teacher_images"] = "soft targets", 58_000


SPOILED = {
    "other seeds": _other_seeds,
    "seeds in another order": _other_order,
    "two seeds": _two_seeds,
    "a seed counted twice": _copied_seed,
    "runs left out": _lost_run,
    "more steps": _more_steps,
    "more labels": _more_labels,
    "impossible accuracies": _impossible,
    "chosen where measured": _chosen_where_measured,
    "an interval too narrow": _narrow,
    "a mean too large": _wishful,
    "one end moved": _one_end,
    "the wrong verdict": _turned,
    "the wrong cause": _wrong_cause,
}


def believable_cases(seed: int, visible: bool) -> list[Case]:
    rng = random.Random(f"believable_gain/{seed}/{visible}")
    count = 2 if visible else 6
    cases = [Case(f"honest {i}", (_honest(rng, i),), tags=tags("honest")) for i in range(4 * count)]
    for kind, spoil in SPOILED.items():
        for i in range(count):
            record = copy.deepcopy(_honest(rng, i))
            spoil(record, rng)
            cases.append(Case(f"{kind} {i}", (record,), tags=tags(kind)))
    rng.shuffle(cases)
    return cases


B_PAIRED = 'paired = seeds == record["seeds"]["without"] and all(len(arm) == len(seeds) for arm in arms)'
B_FEW = "if not paired or len(seeds) < 3 or len(set(seeds)) < len(seeds):"
B_EQUAL = 'for key in ("steps", "labels")):'
B_SPLIT = 'if record["chosen_on"] == record["measured_on"]:\n        return False\n'
B_GRID = "if any(abs(a - step * round(a / step)) > 0.0051 for arm in arms for a in arm):\n        return False\n"
B_CLAIM = 'if any(abs(record["claim"][key] - gain[key]) > 0.0051 for key in gain):\n        return False\n'
B_VERDICT = 'if (record["verdict"] == "gain") != (gain["low"] > 0):\n        return False\n'
B_CAUSE = 'return record["cause"] != "soft targets" or record["teacher_images"] <= record["student_images"]'
BELIEVABLE = Exercise(
    "believable_gain",
    points=10,
    difficulty=2,
    cases=believable_cases,
    properties=(
        Property("believes every honest report", hold.believes, 0, gate=True, tags=tags("honest")),
        *(Property(f"refuses: {kind}", hold.doubts, tags=tags(kind)) for kind in SPOILED),
    ),
    mistakes=(
        mistake(
            "seeds-as-a-set",
            "the order of the seeds is ignored",
            "paired-seeds",
            "You compare the seeds as sets. In another order the pairs are not pairs: run 0 with the teacher stands "
            "beside run 1 without.",
            ('seeds == record["seeds"]["without"]', 'sorted(seeds) == sorted(record["seeds"]["without"])'),
        ),
        mistake(
            "runs-not-counted",
            "runs may be missing",
            "paired-seeds",
            "Four seeds are listed, and three runs. Somebody dropped the pair that did not fit.",
            (" and all(len(arm) == len(seeds) for arm in arms)", ""),
        ),
        mistake(
            "two-are-enough",
            "two seeds are believed",
            "paired-seeds",
            "Two differences have one degree of freedom; the interval is formally right and says nothing. Three at "
            "least, says the contract.",
            ("len(seeds) < 3 or ", "len(seeds) < 2 or "),
        ),
        mistake(
            "copies-count",
            "the same seed twice",
            "paired-seeds",
            "A run copied is no second run, but it narrows the interval. Each seed may occur once.",
            (" or len(set(seeds)) < len(seeds)", ""),
        ),
        mistake(
            "unequal-training",
            "only the labels are compared",
            "when-it-helps",
            "The arm with the teacher trained for twice as many steps. Longer training helps by itself; who pays "
            "more must be compared with a control that pays as much.",
            (B_EQUAL, 'for key in ("labels",)):'),
        ),
        mistake(
            "unequal-labels",
            "only the steps are compared",
            "when-it-helps",
            "One arm had four times as many labels. Then it is labels that you measure.",
            (B_EQUAL, 'for key in ("steps",)):'),
        ),
        mistake(
            "test-set-tuned",
            "settings chosen on the measured split",
            "when-it-helps",
            "Temperature and weight were chosen where the gain was measured, so some of it is the luck of the "
            "choice.",
            (B_SPLIT, "\n"),
        ),
        mistake(
            "any-decimals",
            "accuracies need not be possible",
            "where-it-breaks",
            "Of 1,000 images a whole number is right, so accuracies come in steps of 0.1 %. 88.34 % of 1,000 images "
            "was measured on something else.",
            (B_GRID, "\n"),
        ),
        mistake(
            "claim-unchecked",
            "the claim is not recomputed",
            "paired-seeds",
            "You believe the interval as printed. All runs are in the report: compute it again.",
            (B_CLAIM, "\n"),
        ),
        mistake(
            "only-the-mean",
            "only the mean is recomputed",
            "paired-seeds",
            "The mean is right and the interval is not: 1.96 in place of Student's quantile halves it.",
            ("for key in gain):", 'for key in ("mean",)):'),
        ),
        mistake(
            "mean-decides",
            "a positive mean is a gain",
            "paired-seeds",
            "The verdict follows the mean. Half of all useless methods have a positive mean; the lower end of the "
            "interval decides.",
            ('(gain["low"] > 0)', '(gain["mean"] > 0)'),
        ),
        mistake(
            "verdict-unchecked",
            "the verdict is not looked at",
            "paired-seeds",
            "The numbers are right and the sentence drawn from them is not. Most readers read only the sentence.",
            (B_VERDICT, "\n"),
        ),
        mistake(
            "cause-unchecked",
            "the cause is not looked at",
            "when-it-helps",
            "The teacher learned from images that the student never saw. The gain is real, but 'soft targets' is not "
            "shown to be its cause.",
            (B_CAUSE, "return True"),
        ),
        mistake(
            "never-soft-targets",
            "soft targets are never the cause",
            "when-it-helps",
            "You refuse every report that credits soft targets. With a teacher that saw no more than the student the "
            "credit is fair, and a referee who refuses the honest is no referee.",
            (B_CAUSE, 'return record["cause"] != "soft targets"'),
        ),
    ),
    alternatives=(
        Alternative(
            "counts of right answers",
            "def believable_gain(record):\n"
            "    a, b = record['with'], record['without']\n"
            "    s, t = record['seeds']['with'], record['seeds']['without']\n"
            "    if s != t or not len(a) == len(b) == len(s) == len(set(s)) or len(s) <= 2:\n"
            "        return False\n"
            "    n = record['images']\n"
            "    possible = {round(100 * k / n, 2) for k in range(n + 1)}\n"
            "    g = paired_gain(a, b)\n"
            "    return (\n"
            "        len(set(record['steps'].values())) == 1\n"
            "        and len(set(record['labels'].values())) == 1\n"
            "        and record['chosen_on'] != record['measured_on']\n"
            "        and all(v in possible for v in a + b)\n"
            "        and all(math.isclose(round(g[k], 2), v, abs_tol=0.0101) for k, v in record['claim'].items())\n"
            "        and record['verdict'] == ('gain' if g['low'] > 0 else 'no gain shown')\n"
            "        and (record['cause'] != 'soft targets' or record['student_images'] >= record['teacher_images'])\n"
            "    )\n",
        ),
    ),
)

# 8. topk_targets


def topk_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "topk_targets")
    n, c = (4, 6) if visible else (7, 9)
    return [
        Case("the top 3 at T = 4", (normal(g, n, c), 3, 4.0), tags=tags("general")),
        Case("the top 2 at T = 1", (normal(g, n, c, scale=1.0), 2, 1.0), tags=tags("general")),
        Case("the top 1 at T = 2", (normal(g, n, c), 1, 2.0), tags=tags("general")),
        Case("all classes", (normal(g, n, c), c, 3.0), tags=tags("ends")),
        Case("many classes", (normal(g, 3, 200 if visible else 256), 5, 2.0), tags=tags("ends")),
        Case("in single precision", (normal(g, n, c).float(), 3, 4.0), tags=tags("general")),
    ]


TOPK_PROBS = "probs = soften(logits, temperature)\n"
TOPK_TOP = "top = probs.topk(k, dim=1)"
TOPK_BYTES = '"bytes": sum(array.numel() * array.element_size() for array in arrays.values())'
TOPK = Exercise(
    "topk_targets",
    points=6,
    difficulty=1,
    cases=topk_cases,
    properties=(
        Property("keeps the likeliest, in falling order", hold.keeps_the_likeliest, 2, tags=tags("general")),
        Property("stores their probabilities at T", hold.stores_probabilities, 2, tags=tags("general")),
        Property("keeps all, and few of many", hold.stores_probabilities, 1, tags=tags("ends")),
        Property("counts the bytes", hold.counts_bytes, 2),
    ),
    mistakes=(
        mistake(
            "renormalized",
            "the top k made to sum to one",
            "teacher-cache",
            "You take the softmax over the k kept logits, so what the teacher gave to all others is forgotten. The "
            "contract stores probabilities among all classes; the missing rest is information too.",
            (TOPK_TOP, "top = logits.topk(k, dim=1)"),
            ("top.values.half()", "soften(top.values, temperature).half()"),
        ),
        mistake(
            "temperature-forgotten",
            "stored at T = 1",
            "teacher-cache",
            "Probabilities at T = 1 cannot be softened afterwards when most of them were thrown away. Store them at "
            "the temperature at which they will be used.",
            (TOPK_PROBS, "probs = soften(logits, 1.0)\n"),
        ),
        mistake(
            "logits-stored",
            "logits instead of probabilities",
            "teacher-cache",
            "You store logits. Without the other logits nobody can turn them into probabilities: the sum in the "
            "denominator is gone.",
            ("top.values.half()", "logits.gather(1, top.indices).half()"),
        ),
        mistake(
            "least-likely",
            "the least likely kept",
            "teacher-cache",
            "You keep the k smallest probabilities, the part that hardly matters.",
            (TOPK_TOP, "top = probs.topk(k, dim=1, largest=False)"),
        ),
        mistake(
            "rising-order",
            "in rising order",
            "teacher-cache",
            "The order is turned: the contract wants the likeliest first, so that a reader can use the first j of k.",
            (TOPK_TOP, TOPK_TOP + "\n    top = type(top)((top.values.flip(1), top.indices.flip(1)))"),
        ),
        mistake(
            "bytes-of-values",
            "the places cost nothing",
            "teacher-cache",
            "You count the probabilities and not the indices. Something has to say which classes they belong to; it "
            "is the mistake of counting nonzeros in a sparse matrix.",
            (TOPK_BYTES, '"bytes": arrays["probs"].numel() * 2'),
        ),
        mistake(
            "four-byte-floats",
            "charged as float32",
            "teacher-cache",
            "You charge four bytes for a probability that you store in two. The bytes are those of the arrays that "
            "are really there.",
            (TOPK_BYTES, '"bytes": arrays["indices"].numel() + 4 * arrays["probs"].numel()'),
        ),
        mistake(
            "wide-indices",
            "eight bytes for each place",
            "teacher-cache",
            "You keep torch's 64-bit indices. For at most 256 classes one byte says the same; yours take four times "
            "as much as the probabilities themselves.",
            ("top.indices.to(torch.uint8)", "top.indices"),
        ),
        mistake(
            "full-precision",
            "probabilities in float32",
            "teacher-cache",
            "A probability in float16 is exact to three digits, far finer than a teacher is right. The contract asks "
            "for two bytes.",
            ("top.values.half()", "top.values.float()"),
        ),
    ),
    alternatives=(
        Alternative(
            "by sorting",
            "def topk_targets(logits, k, temperature):\n"
            "    order = logits.argsort(dim=1, descending=True)[:, :k]\n"
            "    chosen = torch.softmax(logits / temperature, 1).gather(1, order)\n"
            "    count = len(logits) * k\n"
            "    return {'probs': chosen.to(torch.float16), 'indices': order.byte(), 'bytes': 3 * count}\n",
        ),
    ),
)

# 9. sparse_kd_loss


def sparse_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "sparse_kd_loss")
    n, c = (5, 6) if visible else (8, 9)

    def stored(k: int, temperature: float, scale: float = 3.0) -> dict[str, torch.Tensor]:
        top = (normal(g, n, c, scale=scale) / temperature).softmax(1).topk(k, dim=1)
        return {"indices": top.indices.to(torch.uint8), "probs": top.values.half()}

    over = {
        "indices": torch.stack([torch.randperm(c, generator=g)[:2] for _ in range(n)]).to(torch.uint8),
        "probs": torch.tensor([[0.75, 0.2505]] * n).half(),  # sums to more than 1 in float16
    }
    certain = {"indices": torch.randint(0, c, (n, 1), generator=g).to(torch.uint8), "probs": torch.ones(n, 1).half()}
    return [
        Case("the top 3 at T = 4", (normal(g, n, c), stored(3, 4.0), 4.0), tags=tags("general")),
        Case("the top 2 at T = 2", (normal(g, n, c), stored(2, 2.0), 2.0), tags=tags("general")),
        Case("the top 1 at T = 1", (normal(g, n, c), stored(1, 1.0, 1.0), 1.0), tags=tags("general")),
        Case("all classes", (normal(g, n, c), stored(c, 3.0), 3.0), tags=tags("all")),
        Case("a sure teacher", (normal(g, n, c), certain, 2.0), tags=tags("sure")),
        Case("a sum above 1", (normal(g, n, c), over, 3.0), tags=tags("sure")),
        Case("logits of thousands", (normal(g, n, c, scale=3000.0), stored(2, 2.0), 2.0), tags=tags("large")),
    ]


S_REST = "rest = (1 - kept.sum(1, keepdim=True)).clamp(min=0)"
S_BASE = "base = (rest / max(others, 1)).expand(student.shape)"
S_SCALE = "    p = p / p.sum(1, keepdim=True)\n"
S_TERMS = "terms = torch.xlogy(p, p) - p * F.log_softmax(student / temperature, dim=1)"
S_RETURN = "return temperature**2 * terms.sum(1).mean()"
SPARSE = Exercise(
    "sparse_kd_loss",
    points=6,
    difficulty=2,
    cases=sparse_cases,
    properties=(
        Property("the loss from the top k", hold.same_number, 3, tags=tags("general")),
        Property("all classes stored", hold.same_number, 1, tags=tags("all")),
        Property("nothing left to spread", hold.same_number, 2, tags=tags("sure")),
        Property("stands logits of thousands", hold.same_number, 1, tags=tags("large")),
    ),
    mistakes=(
        mistake(
            "rest-dropped",
            "the rest counts as zero",
            "teacher-cache",
            "You give the classes that were not stored no probability and divide by the sum: the teacher looks surer "
            "than it was. Its rest belongs to the others.",
            (S_REST, "rest = 0 * kept.sum(1, keepdim=True)"),
        ),
        mistake(
            "rest-lost",
            "the target does not sum to one",
            "teacher-cache",
            "You leave the rest out and do not divide: your target is no distribution, and each image counts by how "
            "much of it happened to be stored.",
            (S_REST, "rest = 0 * kept.sum(1, keepdim=True)"),
            (S_SCALE, ""),
        ),
        mistake(
            "rest-to-each",
            "the whole rest for each class",
            "teacher-cache",
            "Every class that was not stored gets the whole rest. It has to be shared: divide by the number of those "
            "classes.",
            (S_BASE, "base = rest.expand(student.shape)"),
        ),
        mistake(
            "spread-over-all",
            "the rest spread over all classes",
            "teacher-cache",
            "You divide the rest by the number of all classes and give it to those that were not stored. Part of it "
            "is lost on the way.",
            (S_BASE, "base = (rest / student.shape[1]).expand(student.shape)"),
        ),
        mistake(
            "added-on-top",
            "the rest is added to the stored ones too",
            "teacher-cache",
            "The stored probabilities are known and stay as they are; you add a share of the rest to them.",
            ("base.scatter(1, ", "base.scatter_add(1, "),
        ),
        mistake(
            "zero-log-zero",
            "0 log 0 is not a number",
            "teacher-cache",
            "When nothing is left to spread, the others have probability 0, and 0 times the logarithm of 0 is not a "
            "number. Its limit is 0: torch.xlogy knows.",
            ("torch.xlogy(p, p)", "p * p.log()"),
        ),
        mistake(
            "negative-rest",
            "a negative rest",
            "teacher-cache",
            "Rounded to 16 bits the stored probabilities may sum to more than 1. Then your rest is negative, and a "
            "logarithm of it is not a number.",
            (S_REST, "rest = 1 - kept.sum(1, keepdim=True)"),
        ),
        mistake(
            "no-t-squared",
            "the factor T² is missing",
            "t-squared",
            "The targets are softened, so their gradient needs the same factor T² as in kd_loss.",
            (S_RETURN, "return terms.sum(1).mean()"),
        ),
        mistake(
            "student-not-softened",
            "the student at T = 1",
            "temperature",
            "The stored targets are at temperature T; the student has to be softened in the same way before they are "
            "compared.",
            ("F.log_softmax(student / temperature, dim=1)", "F.log_softmax(student, dim=1)"),
        ),
        mistake(
            "entropy-left-in",
            "the targets' entropy is left in",
            "soft-targets",
            "This is a cross-entropy. The gradient is right, the value is not: a perfect student would not reach 0.",
            (S_TERMS, "terms = -p * F.log_softmax(student / temperature, dim=1)"),
        ),
        mistake(
            "summed",
            "summed over the images",
            "soft-targets",
            "The loss is a mean over the images.",
            (S_RETURN, "return temperature**2 * terms.sum()"),
        ),
    ),
    alternatives=(
        Alternative(
            "row by row",
            "def sparse_kd_loss(student, targets, temperature):\n"
            "    total, classes = 0.0, student.shape[1]\n"
            "    for z, places, probs in zip(student, targets['indices'].tolist(), targets['probs']):\n"
            "        probs = probs.to(student.dtype)\n"
            "        left = max(float(1 - probs.sum()), 0.0)\n"
            "        row = torch.full((classes,), left / max(classes - len(places), 1), dtype=student.dtype)\n"
            "        row[places] = probs\n"
            "        row = row / row.sum()\n"
            "        log_q = torch.log_softmax(z / temperature, 0)\n"
            "        some = row > 0\n"
            "        total = total + (row[some] * (row[some].log() - log_q[some])).sum()\n"
            "    return temperature**2 * total / len(student)\n",
        ),
    ),
)

# 10. feature_loss


def feature_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "feature_loss")
    n, cs, ct, h, w = (2, 3, 4, 3, 2) if visible else (3, 4, 6, 3, 5)

    def maps(channels: int, scale: float = 1.5) -> torch.Tensor:
        return normal(g, n, channels, h, w, scale=scale)

    dead = maps(cs)
    dead[0] = 0.0
    return [
        Case("a hint", (maps(cs), maps(ct), "hint", normal(g, ct, cs, scale=1.0)), tags=tags("hint")),
        Case("a hint, as many channels", (maps(cs), maps(cs), "hint", normal(g, cs, cs, scale=1.0)), tags=tags("hint")),
        Case("attention", (maps(cs), maps(ct), "attention"), tags=tags("attention")),
        Case("attention, as many channels", (maps(cs), maps(cs, 4.0), "attention"), tags=tags("attention")),
        Case("attention to a map of zeros", (dead, maps(ct), "attention"), tags=tags("zeros")),
    ]


F_HINT = "return (guided - teacher).square().mean()"
F_MAPS = "maps = [features.square().sum(1).flatten(1) for features in (student, teacher)]"
F_NORM = "ours, theirs = (F.normalize(m, dim=1) for m in maps)"
F_RETURN = "return (ours - theirs).square().sum(1).mean()"
FEATURE = Exercise(
    "feature_loss",
    points=8,
    difficulty=2,
    cases=feature_cases,
    properties=(
        Property("the hint", hold.same_number, 3, tags=tags("hint")),
        Property("attention", hold.same_number, 3, tags=tags("attention")),
        Property("a map of zeros stays zero", hold.same_number, 1, tags=tags("zeros")),
    ),
    mistakes=(
        mistake(
            "hint-summed",
            "the hint is summed",
            "hints",
            "You sum the squares, so the loss grows with the size of the map and needs another weight for each layer. "
            "The contract takes the mean over all elements.",
            (F_HINT, "return (guided - teacher).square().sum()"),
        ),
        mistake(
            "hint-per-image",
            "the hint divided by the images only",
            "hints",
            "You divide by the number of images but sum over channels and positions.",
            (F_HINT, "return (guided - teacher).square().flatten(1).sum(1).mean()"),
        ),
        mistake(
            "hint-absolute",
            "absolute differences",
            "hints",
            "A hint is a squared distance (FitNets, equation 3); you took absolute values.",
            (F_HINT, "return (guided - teacher).abs().mean()"),
        ),
        mistake(
            "projection-transposed",
            "the projection transposed",
            "hints",
            "The projection has shape (teacher's channels, student's channels) and maps the student to the teacher. "
            "With equal numbers of channels the transposed one runs as well, and is another map.",
            ('"tc,nchw->nthw"', '"ct,nchw->nthw"'),
        ),
        mistake(
            "activations-not-squared",
            "absolute values for attention",
            "attention-transfer",
            "You sum absolute activations. The map is the sum of *squares*: strong activations count more.",
            (F_MAPS, "maps = [features.abs().sum(1).flatten(1) for features in (student, teacher)]"),
        ),
        mistake(
            "signed-sum",
            "activations cancel",
            "attention-transfer",
            "You square the sum over channels: positive and negative channels cancel before they are counted. Square "
            "first, then sum.",
            (F_MAPS, "maps = [features.sum(1).square().flatten(1) for features in (student, teacher)]"),
        ),
        mistake(
            "not-normalized",
            "the maps are not normalized",
            "attention-transfer",
            "A teacher of more channels has larger sums. Without dividing each map by its norm, the student learns "
            "to be loud, not where to look.",
            (F_NORM, "ours, theirs = maps"),
        ),
        mistake(
            "normalized-to-sum",
            "divided by the sum",
            "attention-transfer",
            "You divide a map by its sum, as for probabilities. The contract divides by its Euclidean norm.",
            (F_NORM, "ours, theirs = (F.normalize(m, p=1, dim=1) for m in maps)"),
        ),
        mistake(
            "normalized-over-images",
            "normalized over the batch",
            "attention-transfer",
            "You normalize each position over the images, so one image's map depends on the others in the batch. "
            "Each image has its own norm.",
            (F_NORM, "ours, theirs = (F.normalize(m, dim=0) for m in maps)"),
        ),
        mistake(
            "divided-by-zero",
            "a map of zeros is divided by zero",
            "attention-transfer",
            "After a ReLU a map may be all zero. Its norm is 0, and 0/0 is not a number: one dead image spoils the "
            "batch.",
            (F_NORM, "ours, theirs = (m / m.norm(dim=1, keepdim=True) for m in maps)"),
        ),
        mistake(
            "distance-not-squared",
            "the distance is not squared",
            "attention-transfer",
            "You take the Euclidean distance. The contract squares it; for unit vectors that is two minus twice "
            "their cosine.",
            (F_RETURN, "return (ours - theirs).norm(dim=1).mean()"),
        ),
        mistake(
            "mean-over-positions",
            "averaged over the positions",
            "attention-transfer",
            "You take the mean over positions as well. Published code does so, and its weight of 1,000 makes up for "
            "it. Here the squared distance is a sum over positions.",
            (F_RETURN, "return (ours - theirs).square().mean()"),
        ),
    ),
    alternatives=(
        Alternative(
            "a convolution and cosines",
            "def feature_loss(student, teacher, kind, projection=None):\n"
            "    if kind == 'hint':\n"
            "        return F.mse_loss(F.conv2d(student, projection[:, :, None, None]), teacher)\n"
            "    a, b = ((f * f).sum(1).reshape(len(f), -1) for f in (student, teacher))\n"
            "    a = a / a.norm(dim=1, keepdim=True).clamp(min=1e-12)\n"
            "    b = b / b.norm(dim=1, keepdim=True).clamp(min=1e-12)\n"
            "    return ((a - b) ** 2).sum() / len(a)\n",
        ),
    ),
)

# 11. specialize


def specialize_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "specialize")
    n = 14 if visible else 25

    def about(classes: list[int], total: int = 10) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        labels = torch.randint(0, total, (n,), generator=g)
        where = torch.randperm(n, generator=g)[: 2 * len(classes)]
        labels[where] = torch.tensor(classes * 2)  # each class occurs
        return labels, normal(g, n, total), classes

    return [
        Case("footwear", about([5, 7, 9]), tags=tags("rising")),
        Case("upper body", about([0, 2, 4, 6]), tags=tags("rising")),
        Case("in another order", about([9, 5, 7]), tags=tags("order")),
        Case("two classes, the larger first", about([3, 1], 5), tags=tags("order")),
    ]


SPECIAL_NEW = "new = matches[rows].int().argmax(1)"
SPECIAL_ROWS = "rows = matches.any(1).nonzero().flatten()"
SPECIAL_LOGITS = '"logits": logits[rows][:, classes]'
SPECIALIZE = Exercise(
    "specialize",
    points=5,
    difficulty=1,
    cases=specialize_cases,
    properties=(
        Property("finds the images", hold.same_rows, 1),
        Property("labels them anew", hold.same_labels, 2, tags=tags("rising")),
        Property("labels follow the order of the classes", hold.same_labels, 1, tags=tags("order")),
        Property("keeps the teacher's outputs of these classes", hold.same_logits, 2, tags=tags("rising")),
        Property("outputs follow the order of the classes", hold.same_logits, 1, tags=tags("order")),
    ),
    mistakes=(
        mistake(
            "old-labels",
            "the old labels are kept",
            "specialists",
            "A specialist for classes 5, 7 and 9 has three outputs, and label 7 is none of them. Cross-entropy would "
            "raise, or with ten outputs quietly learn seven classes that never come.",
            (SPECIAL_NEW, "new = labels[rows]"),
        ),
        mistake(
            "sorted-labels",
            "labels in sorted order",
            "specialists",
            "You number the classes in rising order, but the outputs are in the order of the list. Sorted lists hide "
            "it.",
            (
                SPECIAL_NEW,
                "new = torch.tensor([sorted(classes).index(label) for label in labels[rows].tolist()])",
            ),
        ),
        mistake(
            "sorted-outputs",
            "outputs in sorted order",
            "specialists",
            "The labels follow the order of the list, and the teacher's outputs do not: each class is taught to be "
            "another.",
            (SPECIAL_LOGITS, '"logits": logits[rows][:, sorted(classes)]'),
        ),
        mistake(
            "first-columns",
            "the first columns",
            "specialists",
            "You keep the first outputs of the teacher, those of T-shirts and trousers. Select the columns of the "
            "classes asked for.",
            (SPECIAL_LOGITS, '"logits": logits[rows][:, : len(classes)]'),
        ),
        mistake(
            "all-outputs",
            "all outputs of the teacher",
            "specialists",
            "The student has as many outputs as it has classes; leave the teacher's others out.",
            (SPECIAL_LOGITS, '"logits": logits[rows]'),
        ),
        mistake(
            "first-rows",
            "logits of other images",
            "specialists",
            "You take the logits of the first images instead of those that were chosen. Shapes agree, so nothing "
            "warns you.",
            (SPECIAL_LOGITS, '"logits": logits[: len(rows)][:, classes]'),
        ),
        mistake(
            "class-by-class",
            "images sorted by class",
            "specialists",
            "You collect the images class by class. The contract keeps their order; a subset by position should not "
            "change what comes first.",
            (SPECIAL_ROWS, "rows = torch.cat([matches[:, j].nonzero().flatten() for j in range(len(classes))])"),
        ),
        mistake(
            "probabilities",
            "probabilities instead of logits",
            "specialists",
            "You take the softmax over all classes and then three of its values: they no longer sum to one. Leave "
            "the outputs out before the softmax, then it shares all probability among the classes that are left.",
            (SPECIAL_LOGITS, '"logits": torch.softmax(logits, 1)[rows][:, classes]'),
        ),
    ),
    alternatives=(
        Alternative(
            "with a dictionary",
            "def specialize(labels, logits, classes):\n"
            "    place = {c: j for j, c in enumerate(classes)}\n"
            "    rows = torch.tensor([i for i, y in enumerate(labels.tolist()) if y in place])\n"
            "    new = torch.tensor([place[y] for y in labels[rows].tolist()])\n"
            "    return {'rows': rows, 'labels': new, 'logits': logits[rows].index_select(1, torch.tensor(classes))}\n",
        ),
    ),
)

# 12. design_student


def design_cases(seed: int, visible: bool) -> list[Case]:
    count, start = (128, 0) if visible else (256, 256 * (1 + seed % 60))
    calibration = Ref("images", {"split": "train", "count": count, "start": start})
    wanted = Ref("logits", {"model": "teacher60", "split": "train", "count": count, "start": start})
    nets = {"S5": Ref("model", {"name": "s5"}), "S6": Ref("model", {"name": "s6"})}
    where = "validation images" if visible else "test images"
    # In the hidden exam neither the first nor the last file fits everywhere.
    budgets = (30_000, 6_000) if visible else (30_000, 7_000, 5_600, 28_000)
    return [Case(f"{budget:,} bytes, {where}", (nets, calibration, wanted, budget)) for budget in budgets]


D_BITS = "for bits in range(2, 9)]"
D_FITS = "(data for data in files if len(data) <= budget)"
D_NETS = "for net in candidates.values():"
D_RETURN = "return torch.frombuffer(bytearray(best), dtype=torch.uint8)"
DESIGN = Exercise(
    "design_student",
    points=14,
    difficulty=3,
    cases=design_cases,
    properties=(
        Property("every file fits its budget and can be read", hold.fits_the_budget, 0, gate=True),
        Property("as good as the front", hold.near_the_front, 1),
    ),
    mistakes=(
        mistake(
            "header-free",
            "only the weights are counted",
            "design",
            "You compare the codes of the weights with the budget. Scales, normalization, the list of layers and the "
            "header are in the file too, three thousand bytes of it, and the file does not fit.",
            (D_FITS, "(data for data in files if len(data) - 3000 <= budget)"),
        ),
        mistake(
            "binary-kilobytes",
            "1,024 bytes in a kilobyte",
            "design",
            "Your kilobytes have 1,024 bytes, so you allow yourself 2.4 % more than there are. A budget in bytes "
            "leaves no room for that.",
            (D_FITS, "(data for data in files if len(data) <= 1.024 * budget)"),
        ),
        mistake(
            "small-network-only",
            "the small network for every budget",
            "design",
            "You always take S5. At 30,000 bytes the larger network with fewer bits is several points better: bits "
            "are cheaper than channels, down to about four.",
            (D_NETS, 'for net in [candidates["S5"]]:'),
        ),
        mistake(
            "large-network-only",
            "the large network for every budget",
            "design",
            "At two bits without training the large network knows nothing any more. For a small budget the small "
            "network with more bits wins, or nothing fits at all.",
            (D_NETS, 'for net in [candidates["S6"]]:'),
        ),
        mistake(
            "fewest-bits",
            "two bits everywhere",
            "design",
            "You use two bits for everything. Rounded to three values without training, the weights lose what they "
            "had learned; the budget stays unused.",
            (D_BITS, "for bits in (2, 2)]"),
        ),
        mistake(
            "worst-chosen",
            "the largest loss is chosen",
            "design",
            "You keep the candidate that is farthest from the teacher. A loss is to be small.",
            ("loss < least", "loss > (least if least < math.inf else -1.0)"),
        ),
        mistake(
            "smallest-files",
            "the smallest files are compared",
            "design",
            "You compare the three smallest files that fit. The budget is there to be used: accuracy grows with "
            "bytes.",
            ("key=len)[-3:]", "key=len)[:3]"),
        ),
        mistake(
            "one-size",
            "the same file for every budget",
            "design",
            "You build for 5,600 bytes whatever the budget. A front has several points.",
            (D_FITS, "(data for data in files if len(data) <= min(budget, 5_600))"),
        ),
        mistake(
            "numbers-for-bytes",
            "bytes as 64-bit integers",
            "design",
            "Your tensor holds the bytes as 64-bit integers, eight times as much. A file is a tensor of uint8.",
            (D_RETURN, D_RETURN + ".long()"),
        ),
    ),
    alternatives=(
        Alternative(
            "labels decide",
            "def design_student(candidates, calibration, wanted, budget):\n"
            "    x, y = calibration\n"
            "    def score(data):\n"
            "        with torch.no_grad():\n"
            "            return float(F.cross_entropy(read_student(data)(x), y))\n"
            "    options = []\n"
            "    for net in candidates.values():\n"
            "        for bits in range(3, 9):\n"
            "            for last in (bits, max(bits - 1, 2)):\n"
            "                names = [n for n, m in net.named_children() if isinstance(m, (nn.Conv2d, nn.Linear))]\n"
            "                plan = {n: bits for n in names}\n"
            "                plan['fc1'] = last\n"
            "                data = student_file(net, plan)\n"
            "                if len(data) <= budget:\n"
            "                    options.append(data)\n"
            "    options.sort(key=len, reverse=True)\n"
            "    best = min(options[:4], key=score)\n"
            "    return torch.tensor(list(best), dtype=torch.uint8)\n",
        ),
    ),
    seconds=10.0,
    same_form=False,
    may_change_inputs=True,
)


EXAM = Exam(
    "03-distillation",
    (SOFTEN, LOSS, GRADIENT, CLOSEST, DISTILL, GAIN, BELIEVABLE, TOPK, SPARSE, FEATURE, SPECIALIZE, DESIGN),
)
