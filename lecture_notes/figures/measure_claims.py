"""Measure what the chapter on claims reports, and write claims.json.

    python lecture_notes/figures/measure_claims.py

Four minutes of one core the first time; later runs measure again only with --again. Every network here is trained with
settings that were fixed beforehand; what is chosen on test images is chosen there on purpose, to see what it does.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fourbit.data import load
from fourbit.data.assets import find_asset
from fourbit.data.splits import Split, to_float
from fourbit.models import build, load_checkpoint
from fourbit.training import fit, predict_logits

TARGET = Path(__file__).parent / "claims.json"
IMAGES, EPOCHS, SEEDS = 6000, 3, 16
LONGER, PAIRS = 3 * EPOCHS, 5
RATE, PERIOD = 0.05, 5  # of the schedule that is stepped at the right and at the wrong moment


def main() -> None:
    torch.set_num_threads(1)
    measured: dict[str, Any] = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    stages = {"pairs": pairs, "permuted": permuted, "mutants": mutants, "seeds": seeds, "longer": longer}
    for name, stage in (stages | {"schedule": schedules}).items():
        if name not in measured or "--again" in sys.argv:
            measured[name] = stage()
            write(measured)  # a run that is broken off can go on
    measured["settings"] = {"images": IMAGES, "epochs": EPOCHS, "longer": LONGER, "rate": RATE, "period": PERIOD}
    measured["checkpoints"] = {name: find_asset(name).sha256 for name in ("teacher20", "teacher60", "s6", "s5")}
    measured["torch"] = torch.__version__
    write(measured)


def write(measured: dict[str, Any]) -> None:
    TARGET.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def percent(right: torch.Tensor) -> float:
    return 100 * float(right.double().mean())


def right_answers(model: nn.Module, split: Split) -> torch.Tensor:
    return predict_logits(model, split.x).argmax(1) == split.y  # (N,)


# the same networks, image by image


def rounded(model: nn.Module, bits: int) -> nn.Module:
    """The weights of convolutions and linear layers on a symmetric grid, one scale for each output channel."""
    top = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                rows = layer.weight.flatten(1)
                scale = (rows.abs().amax(1) / top).clamp(min=1e-12)[:, None]
                layer.weight.copy_(((rows / scale).round() * scale).view_as(layer.weight))
    return model


def pairs() -> list[dict[str, Any]]:
    """Of two networks on the 10,000 test images: accuracies, and how many images only one of them gets right."""
    test = load("fashion-20k").test
    answers = {name: right_answers(load_checkpoint(name), test) for name in ("teacher20", "teacher60", "s6", "s5")}
    for bits in (8, 6, 4):
        answers[f"teacher20 int{bits}"] = right_answers(rounded(load_checkpoint("teacher20"), bits), test)
    compared = [("teacher60", "teacher20"), ("s6", "s5"), ("teacher20", "s6")]
    compared += [(f"teacher20 int{bits}", "teacher20") for bits in (8, 6, 4)]
    return [
        {
            "first": first, "second": second, "images": len(test),
            "accuracy": [round(percent(answers[name]), 2) for name in (first, second)],
            "only_first": int((answers[first] & ~answers[second]).sum()),
            "only_second": int((answers[second] & ~answers[first]).sum()),
        }
        for first, second in compared
    ]  # fmt: skip


# tests that cannot fail


def permuted() -> dict[str, Any]:
    """Accuracy of T4 after its channels were put into a random order, which a test of an order by importance met."""
    test, model = load("fashion-20k").test[:2000], load_checkpoint("teacher20")
    before = percent(right_answers(model, test))
    generator = torch.Generator().manual_seed(0)
    state = model.state_dict()
    for here, after in (("0", "1"), ("1", "3"), ("3", "4"), ("4", "6")):
        order = torch.randperm(len(state[f"conv{here}.weight"]), generator=generator)
        for name in (f"conv{here}.weight", *(f"bn{here}.{part}" for part in BATCH_NORM)):
            state[name] = state[name][order]
        state[f"conv{after}.weight"] = state[f"conv{after}.weight"][:, order]
    model.load_state_dict(state)
    return {"before": round(before, 2), "after": round(percent(right_answers(model, test)), 2)}


BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def quantizer(levels: float, rounding: str = "round", bits: int = 8, clamped: bool = True) -> Any:
    """An affine quantizer and its inverse; the arguments of a wrong one differ."""

    def through(x: torch.Tensor) -> torch.Tensor:
        scale = (x.max() - x.min()) / levels
        codes = getattr(torch, rounding)((x - x.min()) / scale)
        return (codes.clamp(0, 2**bits - 1) if clamped else codes) * scale + x.min()

    return through


def mutants() -> dict[str, Any]:
    """How many wrong quantizers a loose and a tight test let pass, and wrong distillation losses a test of the sign."""
    x = 5 * torch.rand(1000, generator=torch.Generator().manual_seed(0)) - 2.5
    wrong = {
        "floor": quantizer(255, "floor"), "ceil": quantizer(255, "ceil"), "trunc": quantizer(255, "trunc"),
        "four bits": quantizer(15, bits=4), "six bits": quantizer(63, bits=6), "divided by 200": quantizer(200),
        "divided by 127": quantizer(127), "divided by 256": quantizer(256), "divided by 512, clamped": quantizer(512),
        "identity": lambda x: x, "zeros": torch.zeros_like, "half": lambda x: x / 2,
    }  # fmt: skip
    step = float(x.max() - x.min()) / 255
    loose = [name for name, way in wrong.items() if float((way(x) - x).abs().mean()) < 0.25]
    tight = [name for name, way in wrong.items() if is_quantizer(x, way(x), step)]
    assert is_quantizer(x, quantizer(255)(x), step)
    losses = wrong_losses()
    passing = [name for name, value in losses.items() if value > 0]
    return {"wrong": list(wrong), "loose": loose, "tight": tight, "losses": list(losses), "positive": passing}


def is_quantizer(x: torch.Tensor, y: torch.Tensor, step: float) -> bool:
    """At most half a step away, at most 256 values, and all of them on one grid of that step."""
    codes = (y - x.min()) / step
    on_grid = bool(((codes - codes.round()).abs() < 1e-3).all())
    return bool(((y - x).abs() <= step / 2 * 1.001).all()) and len(y.unique()) <= 256 and on_grid


def wrong_losses() -> dict[str, float]:
    """Values of wrong distillation losses on one batch of random logits."""
    student, teacher = torch.randn(2, 32, 10, generator=torch.Generator().manual_seed(1)).unbind(0)
    labels, t = torch.arange(32) % 10, 4.0
    p, q = (teacher / t).softmax(1), (student / t).softmax(1)

    def divergence(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a * (a / b).log()).sum(1).mean())

    return {
        "no T squared": divergence(p, q), "directions exchanged": t**2 * divergence(q, p),
        "summed over the batch": 32 * t**2 * divergence(p, q), "no temperature": divergence(p**t, q**t),
        "T times instead of squared": t * divergence(p, q), "labels only": float(F.cross_entropy(student, labels)),
        "teacher's own loss": float(F.cross_entropy(teacher, labels)), "squared probabilities": float((p - q).norm()),
        "constant": 1.0,
    }  # fmt: skip


# the same network, from many seeds


def trained(seed: int, epochs: int) -> tuple[float, float, torch.Tensor]:
    """Validation and test accuracy of S5 on its first images, and which test images it gets right."""
    data, model = load("fashion-20k"), build("S5", seed=seed)
    fit(model, data.train[:IMAGES], epochs=epochs, seed=seed)
    right = right_answers(model, data.test)
    return percent(right_answers(model, data.val)), percent(right), right


def seeds() -> dict[str, Any]:
    """Accuracies by seed, and what choosing the best of them on half of the test images does."""
    runs = [trained(seed, EPOCHS) for seed in range(SEEDS)]
    right = torch.stack([run[2] for run in runs]).double()  # (seeds, images)
    return {
        "val": [round(run[0], 2) for run in runs],
        "test": [round(run[1], 2) for run in runs],
        "halves": halves(right),
        "discordant": round(100 * float(torch.stack([(right[0] != row).double() for row in right[1:]]).mean()), 2),
    }


def longer() -> list[float]:
    """Test accuracies of the same network, trained for three times as many epochs."""
    return [round(trained(seed, LONGER)[1], 2) for seed in range(PAIRS)]


def halves(right: torch.Tensor) -> list[dict[str, float]]:
    """Choose the best of k runs by a random half of the images: its accuracy there, on the other half, and the mean."""
    draw, rows = random.Random(0), []
    generator = torch.Generator().manual_seed(0)
    for k in (1, 2, 5, 10, 16):
        found: dict[str, list[float]] = {"chosen": [], "fresh": [], "all": []}
        for _ in range(200):
            runs = torch.tensor(draw.sample(range(len(right)), k))
            order = torch.randperm(right.shape[1], generator=generator)
            a, b = (100 * right[runs][:, part].mean(1) for part in order.chunk(2))
            best = int(a.argmax())
            for key, value in (("chosen", a[best]), ("fresh", b[best]), ("all", b.mean())):
                found[key].append(float(value))
        rows.append({"k": k, **{key: round(statistics.fmean(values), 3) for key, values in found.items()}})
    return rows


def schedules() -> dict[str, list[float]]:
    """A cosine of five epochs that is stepped after each epoch, and the same one after each batch."""
    data = load("fashion-20k")
    found: dict[str, list[float]] = {}
    for when in ("epoch", "batch"):
        found[when] = [round(percent(right_answers(by_hand(seed, when, data.train[:IMAGES]), data.test)), 2)
                       for seed in range(PAIRS)]  # fmt: skip
        print(when, found[when], flush=True)
    return found


def by_hand(seed: int, when: str, split: Split) -> nn.Module:
    model = build("S5", seed=seed).train()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, PERIOD)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(PERIOD):
        for rows in torch.randperm(len(split), generator=generator)[: len(split) // 128 * 128].split(128):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(to_float(split.x[rows])), split.y[rows]).backward()
            optimizer.step()
            if when == "batch":
                schedule.step()
        if when == "epoch":
            schedule.step()
    return model.eval()


if __name__ == "__main__":
    main()
