"""Lab 00: its exam tells right from wrong, its reference agrees with other sources, its examples run."""

from __future__ import annotations

import doctest
import inspect
import math
import random

import pytest
import torch
from safetensors.torch import save
from torch import nn

from fourbit.exam.matrix import kill_matrix
from fourbit.exam.reference import load_lab
from fourbit.measure import HOROWITZ45, Timing, total_macs
from fourbit.models import PLANS, build, load_checkpoint
from tests.lab_checks import assert_published

EXERCISES = (
    "count_params", "conv_macs", "count_macs", "file_bytes", "summarize",
    "linear_roofline", "energy", "decode_bound", "believable", "doubt",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(root):
    return load_lab(root / "solutions/00-measure")


@pytest.fixture(scope="module")
def reference(lab):
    return lab.namespace()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6940, 20])
def test_the_kill_matrix_is_complete(root, lab, tmp_path, seed):
    rows = kill_matrix(root / "solutions/00-measure", tmp_path, seed)
    assert [row for row in rows if row.complaint] == []
    assert {row.exercise for row in rows} == set(EXERCISES)
    assert_published(lab, rows, seed)


def test_each_exercise_has_its_mistakes_and_an_alternative(lab):
    for exercise in lab.exam.exercises:
        assert len(exercise.mistakes) >= 6, exercise.name
        assert exercise.alternatives, exercise.name
        assert len({m.name for m in exercise.mistakes}) == len(exercise.mistakes)


def test_the_hidden_cases_are_other_cases(lab):
    for exercise in lab.exam.exercises:
        visible, hidden = exercise.cases(6940, True), exercise.cases(6940, False)
        assert visible
        assert hidden
        assert not {_text(case) for case in visible} & {_text(case) for case in hidden}, exercise.name


def _text(case) -> str:
    return repr((case.args, dict(case.kwargs)))


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_docstring_examples_run(reference, exercise):
    examples = doctest.DocTestParser().get_doctest(inspect.getdoc(reference[exercise]), reference, exercise, None, 0)
    assert examples.examples
    result = doctest.DocTestRunner().run(examples)
    assert result.failed == 0


@pytest.mark.parametrize("name", PLANS)
def test_counted_macs_agree_with_the_operators_that_ran(reference, name):
    image = torch.zeros(2, 1, 28, 28)
    assert sum(reference["count_macs"](build(name, seed=0), image).values()) == total_macs(build(name, seed=0), image)


def test_a_vgg_for_cifar_has_its_published_numbers(reference):
    """9.2 million parameters and 606 million MACs: the network of MIT 6.5940, Lab 0."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    vgg = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    assert round(reference["count_params"](vgg)["trainable"] / 1e6, 1) == 9.2
    assert round(sum(reference["count_macs"](vgg, torch.zeros(1, 3, 32, 32)).values()) / 1e6) == 606


@pytest.mark.parametrize("seed", range(20))
def test_computed_file_sizes_are_those_of_written_files(reference, seed):
    kinds = {
        torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int8: "I8",
        torch.uint8: "U8", torch.bool: "BOOL", torch.float64: "F64", torch.int32: "I32", torch.int16: "I16",
    }  # fmt: skip
    assert set(kinds.values()) == set(reference["DTYPES"])
    rng = random.Random(seed)
    tensors = {}
    for _ in range(rng.randint(1, 9)):
        name = "".join(rng.choice("abz.09_öß层") for _ in range(rng.randint(1, 12)))
        shape = tuple(rng.randint(1, 40) for _ in range(rng.randint(0, 3)))
        tensors[name] = torch.zeros(shape, dtype=rng.choice(list(kinds)))
    written = save(tensors)
    header = 8 + int.from_bytes(written[:8], "little")
    computed = reference["file_bytes"]({name: (kinds[t.dtype], tuple(t.shape)) for name, t in tensors.items()})
    assert computed == {"header": header, "data": len(written) - header, "total": len(written)}


def test_the_ledger_of_the_shipped_network_is_its_file(reference, root):
    state = load_checkpoint("teacher20").state_dict()
    plan = {name: ("I64" if t.dtype == torch.int64 else "F32", tuple(t.shape)) for name, t in state.items()}
    assert reference["file_bytes"](plan)["data"] == sum(t.numel() * t.element_size() for t in state.values())


def test_the_exact_interval_is_never_wider_than_the_large_sample_one(reference):
    rng = random.Random(7)
    for count in range(6, 80):
        samples = [rng.lognormvariate(0, 1) for _ in range(count)]
        low, median, high = reference["summarize"](samples, 0)
        wide_low, wide_high = Timing(tuple(samples)).interval
        assert wide_low <= low <= median <= high <= wide_high


def test_the_interval_covers_the_true_median_with_its_confidence(reference):
    rng = random.Random(11)
    trials, hits = 3000, 0
    for _ in range(trials):
        low, _, high = reference["summarize"]([rng.lognormvariate(0, 1) for _ in range(15)], 0, 0.9)
        hits += low <= 1.0 <= high
    # Ranks 4 and 12 of 15 cover the median with 0.9648; three standard errors are 0.010.
    assert abs(hits / trials - (1 - 2 * sum(math.comb(15, i) for i in range(4)) / 2**15)) < 0.011


def test_known_answers_of_the_arithmetic(reference):
    assert round(reference["decode_bound"](7_000_000_000, 4, 50.0, group=32), 1) == 12.7  # 4.5 bits a weight
    bill = reference["energy"](5_533_312, "fp32", {"dram": 4 * 436_906}, HOROWITZ45)
    assert (round(bill["mac"], 1), round(bill["dram"], 1)) == (25.5, 279.6)  # microjoules
    gemv = reference["linear_roofline"](1, 4096, 4096, 4.0, 1e12, 1e10)
    assert math.isclose(gemv["intensity"], 0.5, rel_tol=1e-3)


def test_the_cascade_is_worth_designing(lab, reference):
    """The reference beats a random choice by far, on images that nobody chose anything on."""
    cases = [c for c in lab.exam["doubt"].cases(6940, False) if "images" in c.tags]
    from fourbit.exam.fixtures import images, logits

    _, y = images("test", 6000)
    small, large = (logits(name, "test", 6000).argmax(1) == y for name in ("s5", "teacher20"))
    gain = large.double() - small.double()
    assert [len(c.args[0]) for c in cases] == [2800, 3200]
    start = 0
    for case in cases:
        part = gain[start : start + len(case.args[0])]
        start += len(part)
        order = reference["doubt"](case.args[0]).argsort(descending=True, stable=True)
        handed = len(part) // 5
        assert part[order[:handed]].sum() > 2.5 * part.sum() / 5  # a fifth of the images, more than half of the gain
