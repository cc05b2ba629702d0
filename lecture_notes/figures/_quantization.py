"""The numbers of the chapter on quantization, and what its figures share: see values.py."""

from __future__ import annotations

import heapq
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourbit.models import build
from fourbit.recipes.mixed_precision import read_front
from fourbit.sparsity import prunable

Data = Mapping[str, Any]
GROUPS = ("tensor", "channel")
LARGEST = 3.3  # standard deviations of a channel of conv4 at which its largest weight lies, in the middle

# The same network before its checkpoint was final, in ONNX Runtime 1.32 on an AMD EPYC of the Zen 3 generation (AVX2,
# no VNNI), one thread: times in ms of float32 and int8 (fastest tenths of 30 runs) in two sessions of an hour, and
# accuracies on all test images. Kept here since measure_quantization.py measures one processor at a time.
WITHOUT_VNNI: Mapping[str, Any] = {
    "64": ((7.76, 5.04), (8.81, 6.49)),
    "accuracy": {"float32": 90.21, "int8": 89.37, "int8, 7-bit weights": 90.30},
}


def measured() -> dict[str, Any]:
    """What measure_quantization.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "quantization.json").read_text(encoding="utf-8"))
    return data


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    return (
        theory()
        | accuracies(data)
        | learned(data)
        | activations(data)
        | integers(data)
        | front(read_front())
        | artifact(data["artifact"])
        | coded(data["artifact"])
        | speeds(data["speed"])
    )


def theory() -> dict[str, str]:
    """Decibels of a grid, the best range for a Laplace distribution, widths of accumulators and files."""
    decibels = {bits: 20 * math.log10(2**bits - 2) for bits in (8, 4)}  # uniform values, symmetric grid
    found = {f"q.db.{bits}": f"{value:.0f}" for bits, value in decibels.items()}
    found["q.db.bit"] = f"{20 * math.log10(2):.2f}"
    found |= {f"q.laplace.{bits}": f"{best_clip(bits):.1f}" for bits in (2, 4, 8)}
    inputs = build("T4", seed=0).get_submodule("fc1").weight.shape[1]
    worst = inputs * 255 * 127
    sizes = {name: w.numel() for name, w in prunable(build("T4", seed=0)).items()}
    normal = statistics.NormalDist()
    for values, half in ((3, 1 / 2), (4, 1 / 3)):  # half a step, in largest magnitudes
        found[f"q.zeros.{values}"] = f"{100 * (2 * normal.cdf(half * LARGEST) - 1):.0f}"
    return found | {
        "q.acc.inputs": f"{inputs:,}",
        "q.acc.worst": f"{worst:,}",
        "q.acc.bits": f"{math.ceil(math.log2(worst))}",
        "q.fc1.3": f"{sizes['fc1'] * 3 // 8:,}",
        "q.fc1.8": f"{sizes['fc1']:,}",
        "q.group.32": f"{32 / 32:g}",
        "q.group.128": f"{32 / 128:g}",
    }


def best_clip(bits: int) -> float:
    """t with t exp(t) = 3 * 4^bits by Newton's method: the best range in units of a Laplace distribution's scale."""
    t, target = 1.0, math.log(3 * 4**bits)
    for _ in range(50):
        t -= (t + math.log(t) - target) / (1 + 1 / t)
    return t


def accuracies(data: Data) -> dict[str, str]:
    rows = data["grids"]
    found: dict[str, str] = {}
    for kind in ("tensor", "channel", "32", "affine", "codebook"):
        found |= {f"q.{kind}.{bits}": f"{a:.1f}" for bits, a in zip(rows["bits"], rows[kind], strict=True)}
    for name, row in rows["three bits"].items():
        found |= {f"q.three.{name}.{kind}": f"{a:.1f}" for kind, a in row.items()}
        found[f"q.three.{name}.gain"] = f"{row['channel'] - row['tensor']:.1f}"
    noise, folded = data["noise"], data["folding"]
    largest = noise["largest"]
    assert largest["of a channel, its standard deviations"] == LARGEST
    found |= {f"q.conv4.{kind}.{b}": f"{noise[kind][noise['bits'].index(b)]:.0f}" for kind in GROUPS for b in (8, 4)}
    found |= {
        "q.conv4.largest": f"{largest['of all, standard deviations']}",
        "q.conv4.typical": f"{LARGEST:g}",
        "q.fold.layers": f"{folded['layers'][0]}",
        "q.fold.left": f"{folded['layers'][1]}",
        "q.fold.gains": f"{max(folded['gains'].values()):.1f}",
    }
    for when in ("before", "after"):
        found |= {f"q.fold.{when}.{key.replace(' ', '.')}": f"{a:.1f}" for key, a in folded[when].items()}
    return found


def learned(data: Data) -> dict[str, str]:
    rows, found = data["training"], {}
    for key in ("codebook 4", "codebook 2", "grid 2"):
        name, runs = key.replace(" ", "."), rows[key]["after"]
        found[f"q.{name}.before"] = f"{rows[key]['before']:.1f}"
        found[f"q.{name}.after"] = f"{statistics.fmean(runs):.1f}"
        found[f"q.{name}.spread"] = f"{max(runs) - min(runs):.1f}"
    found |= {f"q.changed.{name}": f"{share:.0f}" for name, share in rows["changed"].items()}
    return found | {f"q.rate.{lr}": f"{a:.1f}" for lr, a in data["rates"].items()}


def activations(data: Data) -> dict[str, str]:
    rows = data["calibration"]
    found: dict[str, str] = {}
    for kind in ("minmax", "percentile", "mse"):
        found |= {f"q.{kind}.{bits}": f"{a:.1f}" for bits, a in zip(rows["bits"], rows[kind], strict=True)}
    for bits, errors in rows["error"].items():
        found[f"q.share.{bits}"] = f"{100 * rows['share'][errors.index(min(errors))]:.0f}"
        found[f"q.waste.{bits}"] = f"{errors[-1] / min(errors):.1f}"
    return found


def integers(data: Data) -> dict[str, str]:
    rows = data["integers"]
    assert rows["bit for bit"] is True
    return {
        "q.int.images": f"{rows['images']}",
        "q.int.codes": f"{10 * rows['images']:,}",
        "q.int.differ": f"{rows['usual codes that differ, %']:.1f}",
        "q.int.one_in": f"{100 / rows['usual codes that differ, %']:.0f}",
        "q.int.classes": f"{rows['usual classes that differ']}",
        "q.int.accuracy": f"{rows['accuracy']:.1f}",
    }


def front(stored: Data) -> dict[str, str]:
    """Numbers of the stored front: validation accuracies."""
    uniform = {row["bits"]: row for row in stored["uniform"]}
    found = {f"q.uniform.{bits}": f"{row['accuracy']:.1f}" for bits, row in uniform.items()}
    found |= {f"q.uniform.{bits}.bytes": f"{row['bytes']:,}" for bits, row in uniform.items()}
    least = uniform[2]["bytes"]
    for percent in (3, 7, 15):
        best = [row for row in stored["front"] if row["bytes"] <= least * (1 + percent / 100)][-1]
        found |= {f"q.front.{percent}": f"{best['accuracy']:.1f}", f"q.front.{percent}.bytes": f"{best['bytes']:,}"}
    alone = {name: row["2"] for name, row in stored["sensitivity"].items()}
    dense = uniform[8]["accuracy"]
    found |= {f"q.alone.{name}": f"{a:.1f}" for name, a in alone.items()}
    found["q.alone.sum"] = f"{sum(dense - a for a in alone.values()):.0f}"
    found["q.alone.all"] = f"{dense - uniform[2]['accuracy']:.0f}"
    return found | {"q.front.plans": f"{6 ** len(stored['layers']):,}", "q.front.count": f"{len(stored['front'])}"}


def stages(data: Data) -> dict[str, dict[str, float]]:
    """Bytes of the artifact after each stage, by what they hold; the last one is the file that was written."""
    kept, ledger = data["kept"], data["ledger"]
    count = sum(kept.values())
    code_bits = sum(n * (5 if name.startswith("conv") else 4) for name, n in kept.items())
    rest = float(ledger["dense"] + ledger["headers"])
    weights = sum(w.numel() for w in prunable(build("T4", seed=0)).values())
    return {
        "float32": {"values": 4.0 * weights, "positions": 0.0, "rest": data["bytes"]["float32"] - 4.0 * weights},
        "pruned": {"values": 4.0 * count, "positions": 1.0 * count, "rest": rest},
        "shared": {"values": code_bits / 8, "positions": 1.0 * count, "rest": rest + ledger["codebooks"]},
        "Huffman": {
            "values": float(ledger["codes"]),
            "positions": float(ledger["gaps"]),
            "rest": rest + ledger["codebooks"] + ledger["tables"],
        },
    }


def artifact(data: Data) -> dict[str, str]:
    found = {f"q.dc.{name}": f"{a:.1f}" for name, a in data["accuracy"].items()}
    whole, file = data["bytes"]["float32"], data["bytes"]["file"]
    kept, shapes = data["kept"], {name: w.numel() for name, w in prunable(build("T4", seed=0)).items()}
    assert data["same bits"] is True
    assert sum(data["ledger"].values()) == file
    found |= {f"q.dc.stage.{name}": f"{whole / sum(parts.values()):.1f}" for name, parts in stages(data).items()}
    found |= {f"q.dc.ledger.{name}": f"{size:,}" for name, size in data["ledger"].items()}
    return found | {
        "q.dc.bytes": f"{file:,}",
        "q.dc.float": f"{whole:,}",
        "q.dc.ratio": f"{whole / file:.1f}",
        "q.dc.loss": f"{data['accuracy']['dense'] - data['accuracy']['decoded']:.1f}",
        "q.dc.loss.control": f"{data['accuracy']['control'] - data['accuracy']['decoded']:.1f}",
        "q.dc.weights": f"{sum(kept.values()):,}",
        "q.dc.fc1": f"{100 * kept['fc1'] / shapes['fc1']:.1f}",
        "q.dc.conv0": f"{100 * kept['conv0'] / shapes['conv0']:.0f}",
        "q.dc.fc1.share": f"{100 * (shapes['fc1'] - kept['fc1']) / (sum(shapes.values()) - sum(kept.values())):.0f}",
    }


def entropy(counts: Sequence[int]) -> float:
    """Bits per symbol that no code can go below."""
    total = sum(counts)
    return -sum(n / total * math.log2(n / total) for n in counts if n)


def mean_length(counts: Sequence[int]) -> float:
    """Bits per symbol of the best prefix code: the sum of all joined counts, over the number of symbols."""
    heap, cost = [n for n in counts if n], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    return cost / sum(counts)


def coded(data: Data) -> dict[str, str]:
    found = {}
    for name in ("codes", "gaps"):
        found[f"q.huffman.{name}.entropy"] = f"{entropy(data[name]):.2f}"
        found[f"q.huffman.{name}.length"] = f"{mean_length(data[name]):.2f}"
    return found


def speeds(data: Data) -> dict[str, str]:
    found = {}
    for name, key in (("float32", "float"), ("int8", "int8"), ("int8, 7-bit weights", "seven"),
                      ("PyTorch float32", "torch")):  # fmt: skip
        for count, row in data["ms"].items():
            found[f"q.ms.{key}.{count}"] = f"{row[name]['median']:.2f}"
            found[f"q.speed.{key}.{count}"] = f"{row['float32']['median'] / row[name]['median']:.1f}"
        if name in data["accuracy"]:
            found |= {f"q.engine.{key}": f"{data['accuracy'][name]:.1f}", f"q.file.{key}": f"{data['bytes'][name]:,}"}
    assert data["VNNI"] is True, "the chapter says that this processor has VNNI"
    ratios = [slow / fast for slow, fast in WITHOUT_VNNI["64"]]
    older = WITHOUT_VNNI["accuracy"]
    found |= {"q.avx2.low": f"{min(ratios):.1f}", "q.avx2.high": f"{max(ratios):.1f}"}
    found |= {"q.avx2.float": f"{older['float32']:.1f}", "q.avx2.int8": f"{older['int8']:.1f}"}
    found["q.avx2.seven"] = f"{older['int8, 7-bit weights']:.1f}"
    return found | {"q.file.ratio": f"{data['bytes']['float32'] / data['bytes']['int8']:.1f}"}
