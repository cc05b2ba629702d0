"""Thirty test images of Fashion-MNIST, logits of a teacher and a student for them, and what PyTorch softens them to."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fourbit.data import load
from fourbit.models import load_checkpoint
from fourbit.training import predict_logits

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
RANKS = (0.0, 0.1, 0.5)  # of the teacher's sureness within a class: one image that puzzles it, one between, a usual one
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)


def files() -> dict[str, Any]:
    torch.set_num_threads(1)
    test = load("fashion-20k").test
    teacher, student = (predict_logits(load_checkpoint(name), test.x) for name in ("teacher60", "s5"))
    chosen = choose(teacher, test.y)
    rows = [[round(float(value), 4) for value in row] for row in torch.cat([teacher[chosen], student[chosen]])]
    logits = {"teacher": rows[: len(chosen)], "student": rows[len(chosen) :]}
    pixels = test.x[chosen].mul(255).round().to(torch.uint8)
    about = {"classes": list(CLASSES), "labels": test.y[chosen].tolist(), "places": chosen}
    return {
        "temperature.json": about | logits,
        "temperature.bin": pixels.numpy().tobytes(),
        "temperature-vectors.json": vectors(*(torch.tensor(v, dtype=torch.float64) for v in logits.values())),
    }


def choose(logits: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """Places of the images: for each rank one of each class, among the test images that the teacher gets right."""
    sure = logits.softmax(1).max(1).values
    right = logits.argmax(1) == labels
    chosen = []
    for rank in RANKS:
        for label in range(len(CLASSES)):
            places = torch.nonzero(right & (labels == label)).flatten()
            order = places[sure[places].argsort(stable=True)]
            chosen.append(int(order[int(rank * (len(order) - 1))]))
    return chosen


def vectors(teacher: torch.Tensor, student: torch.Tensor) -> dict[str, Any]:
    """Entropy, largest probability, divergence, and autograd's gradient of the divergence by the student's logits."""
    return {"cases": [softened(teacher, student, temperature) for temperature in TEMPERATURES]}


def softened(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> dict[str, Any]:
    """Of each image, at one temperature; the gradient is the norm without the factor T^2."""
    s = student.clone().requires_grad_()
    p = (teacher / temperature).softmax(1)
    divergence = F.kl_div((s / temperature).log_softmax(1), p, reduction="none").sum(1)
    (gradient,) = torch.autograd.grad(divergence.sum(), s)
    return {
        "temperature": temperature,
        "entropy": torch.special.entr(p).sum(1).tolist(),
        "first": p.argmax(1).tolist(),
        "largest": p.max(1).values.tolist(),
        "divergence": divergence.tolist(),
        "gradient": gradient.norm(dim=1).tolist(),
    }
