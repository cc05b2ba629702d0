"""Every generated number of the notes, as it is written there; redraw.py puts them into values.json."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import _architectures
import _claims
import _deployment
import _distillation
import _energy
import _four_bits
import _inference
import _kernels
import _long_context
import _outliers
import _quantization
import _quantization_training
import _sparse_training
import torch

from fourbit.measure import HOROWITZ45, file_size, total_macs
from fourbit.models import build, count_parameters, load_checkpoint
from fourbit.sparsity import prunable

N_IN, N_OUT = 4096, 11008  # the first feed-forward layer of Llama-2-7B
CHAPTERS = (
    _sparse_training, _quantization, _quantization_training, _distillation, _outliers, _four_bits, _kernels, _inference,
    _deployment, _long_context, _energy, _claims, _architectures,
)  # fmt: skip


def values() -> dict[str, str]:
    """Return {key: text} for the marks ``<!--=key-->`` behind numbers."""
    own = network() | statistics_of_medians() | rooflines() | energies() | decoding() | sparse() | measured()
    for chapter in CHAPTERS:
        own |= chapter.numbers()
    return own


def network() -> dict[str, str]:
    """The course's own network and two counting examples."""
    model = build("T4", seed=0)
    small = build("S5", seed=0)
    image = torch.zeros(1, 1, 28, 28)
    size = file_size(model.state_dict())
    params, macs, macs_small = count_parameters(model), total_macs(model, image), total_macs(small, image)
    gpt2 = 12 * (12 * 768 * 768 + 13 * 768) + 2 * 768 + 1024 * 768  # blocks, last norm, positions
    embedding = 50257 * 768
    return {
        "t4.params": f"{params:,}",
        "t4.macs": f"{macs:,}",
        "t4.flops": f"{2 * macs:,}",
        "t4.weight_bytes": f"{4 * params:,}",
        "t4.file_bytes": f"{size.total:,}",
        "t4.extra_bytes": f"{size.total - 4 * params:,}",
        "t4.header_bytes": f"{size.header:,}",
        "t4.small_tensors": f"{100 * (1 - sum(w.numel() for w in prunable(model).values()) / params):.1f}",
        "t4.macs_ratio": f"{macs / macs_small:.0f}",
        "s5.macs": f"{macs_small:,}",
        "t4.fc1_weights": f"{100 * model.get_submodule('fc1').weight.numel() / params:.0f}",
        "t4.fc1_macs": f"{100 * model.get_submodule('fc1').weight.numel() / macs:.0f}",
        "cascade.macs": f"{(macs_small + 0.2 * macs) / 1e6:.2f}",
        "cascade.saving": f"{macs / (macs_small + 0.2 * macs):.1f}",
        "gpt2.once": f"{(gpt2 + embedding) / 1e6:.1f}",
        "gpt2.twice": f"{(gpt2 + 2 * embedding) / 1e6:.1f}",
        "conv0.macs": f"{32 * 14 * 14 * 9:,}",
        "conv0.wrong": f"{32 * 28 * 28 * 9:,}",
    }


def coverage(n: int, rank: int) -> float:
    """Probability that the rank-th and the (n + 1 - rank)-th of n sorted samples enclose the median."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(rank)) / 2**n


def statistics_of_medians() -> dict[str, str]:
    cases = ((5, 1), (10, 2), (10, 3), (20, 6))
    return {f"coverage.{n}.{j}": f"{100 * coverage(n, j):.1f}" for n, j in cases}


def rooflines() -> dict[str, str]:
    def intensity(batch: int, width: float) -> float:
        return 2 * batch * N_IN * N_OUT / (N_IN * N_OUT * width + 4 * batch * (N_IN + N_OUT))

    return {
        "ai.fp32.1": f"{intensity(1, 4):.2f}",
        "ai.fp32.8": f"{intensity(8, 4):.2f}",
        "ai.fp32.512": f"{intensity(512, 4):.0f}",
        "ai.4bit.1": f"{intensity(1, 0.5):.2f}",
        "a100.ridge": f"{312e12 / 2039e9:.0f}",
        "gemv.ms": f"{1e3 * 4 * N_IN * N_OUT / 20e9:.1f}",
        "gemv.compute_ms": f"{1e3 * 2 * N_IN * N_OUT / 100e9:.1f}",
    }


def energies() -> dict[str, str]:
    params, macs = count_parameters(build("T4", seed=0)), int(network()["t4.macs"].replace(",", ""))
    mult, add, access = HOROWITZ45["mult"], HOROWITZ45["add"], HOROWITZ45["access"]
    fp32, int8 = mult["fp32"] + add["fp32"], mult["int8"] + add["int32"]
    dram, sram = access["dram"] / 8, access["sram 1 MB"] / 8  # per byte
    bills = {
        "fp32": (macs * fp32 / 1e6, 4 * params * dram / 1e6),
        "int8": (macs * int8 / 1e6, params * dram / 1e6),
        "sram": (macs * int8 / 1e6, params * sram / 1e6),
    }
    found = {
        "pj.mult.fp32": f"{mult['fp32']:g}",
        "pj.add.fp32": f"{add['fp32']:g}",
        "pj.mult.int8": f"{mult['int8']:g}",
        "pj.add.int32": f"{add['int32']:g}",
        "pj.mac.fp32": f"{fp32:.1f}",
        "pj.mac.int8": f"{int8:.1f}",
        "pj.dram_over_mac": f"{4 * dram / fp32:.0f}",
        "pj.dram_over_add": f"{4 * dram / add['int32']:,.0f}",
        "uj.ratio": f"{bills['fp32'][1] / bills['fp32'][0]:.0f}",
        "uj.int8_gain": f"{sum(bills['fp32']) / sum(bills['int8']):.1f}",
        "uj.sram_gain": f"{sum(bills['int8']) / sum(bills['sram']):.0f}",
    }
    for name, (arithmetic, moving) in bills.items():
        found |= {f"uj.{name}.mac": f"{arithmetic:.1f}", f"uj.{name}.move": f"{moving:.1f}"}
    return found


def decoding() -> dict[str, str]:
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    embedding, norms = 32000 * 4096, 65 * 4096
    total = linear + 2 * embedding + norms
    kv = 2 * 32 * 4096 * 2
    fp16, four = 2 * (total - embedding), linear * 4.25 / 8 + 2 * embedding
    bandwidth = 1008e9
    return {
        "llama.params": f"{total:,}",
        "llama.billion": f"{total / 1e9:.2f}",
        "llama.fp16_gb": f"{2 * total / 1e9:.2f}",
        "llama.fp16_gib": f"{2 * total / 2**30:.2f}",
        "llama.read_fp16": f"{fp16 / 1e9:.2f}",
        "llama.read_4bit": f"{four / 1e9:.2f}",
        "llama.kv_bytes": f"{kv:,}",
        "llama.kv_4096": f"{4096 * kv / 1e9:.2f}",
        "tok.50": f"{50e9 / (7e9 * 4.5 / 8):.1f}",
        "tok.50.fp16": f"{50e9 / (7e9 * 2):.1f}",
        "ms.fp16.bound": f"{1e3 * fp16 / bandwidth:.1f}",
        "ms.4bit.bound": f"{1e3 * four / bandwidth:.1f}",
        "share.fp16": f"{100 * 1e3 * fp16 / bandwidth / 15.50:.0f}",
        "share.4bit": f"{100 * 1e3 * four / bandwidth / 5.28:.0f}",
        "speedup.bytes": f"{fp16 / four:.1f}",
        "speedup.measured": f"{15.50 / 5.28:.1f}",
        "bits.4.64": f"{4 + 16 / 64:g}",
        "bits.4.32": f"{4 + 16 / 32:g}",
    }


def entropy(p: float) -> float:
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def sparse() -> dict[str, str]:
    rows, columns, density = 256, 1152, 0.1
    kept = round(density * rows * columns)
    dense, values_only = 4 * rows * columns, 4 * kept
    bitmap, csr = values_only + rows * columns // 8, values_only + 2 * kept + 2 * (rows + 1)
    return {
        "fc1.dense": f"{dense:,}",
        "fc1.values": f"{values_only:,}",
        "fc1.bitmap": f"{bitmap:,}",
        "fc1.csr": f"{csr:,}",
        "fc1.ratio_claimed": f"{dense / values_only:.1f}",
        "fc1.ratio_bitmap": f"{dense / bitmap:.1f}",
        "fc1.ratio_csr": f"{dense / csr:.1f}",
        "cross.8": f"{100 / 8:.1f}",
        "cross.16": f"{100 / 16:.2f}",
        "entropy.10": f"{entropy(0.1):.2f}",
        "entropy.1": f"{entropy(0.01):.3f}",
        "bits4.bitmap.10": f"{4 * 0.1 + 1:.1f}",
        "bits4.ratio.10": f"{4 / (4 * 0.1 + 1):.1f}",
        "two_four.32": f"{16 + 1:g}",
        "two_four.ratio32": f"{32 / 17:.2f}",
        "two_four.ratio4": f"{4 / (2 + 1):.2f}",
        "cubic.half": f"{100 * 0.9 * (1 - 0.5**3):.0f}",
    }


def measured() -> dict[str, str]:
    """What measure_pruning.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "pruning.json").read_text(encoding="utf-8"))
    found = {"dense": f"{data['dense']:.1f}"}
    curves = data["one_shot"]
    for i, sparsity in enumerate(curves["sparsity"]):
        found |= {f"{kind}.{sparsity:g}": f"{curves[kind][i]:.1f}" for kind in ("global", "uniform", "refreshed")}
    for sparsity, runs in (data["fine_tuned"] | data.get("gradual", {})).items():
        sparsity = sparsity.replace(" ", ".")
        found[f"tuned.{sparsity}"] = f"{statistics.fmean(runs):.1f}"
        found[f"tuned.{sparsity}.spread"] = f"{max(runs) - min(runs):.1f}"
    for layer, row in data["sensitivity"]["accuracy"].items():
        found[f"scan.{layer}.0.9"] = f"{row[data['sensitivity']['sparsity'].index(0.9)]:.1f}"
        found[f"scan.{layer}.0.95"] = f"{row[data['sensitivity']['sparsity'].index(0.95)]:.1f}"
    rows = data["granularity"]
    half = rows["sparsity"].index(0.5)
    for name in ("weight", "four inputs", "kernel", "channel"):
        found[f"group.{name.replace(' ', '_')}"] = f"{rows[name][half]:.1f}"
    found["group.2-4"] = f"{rows['2:4']:.1f}"
    times = {name: timing["median"] for name, timing in data["latency"].items()}
    found |= {f"ms.{name.replace(' ', '_')}": f"{value:.1f}" for name, value in times.items()}
    found |= collapse()
    found["speed.half"] = f"{times['zeros 0'] / times['channels 0.5']:.1f}"
    found["speed.quarter"] = f"{times['zeros 0'] / times['channels 0.25']:.1f}"
    return found


def collapse() -> dict[str, str]:
    """What one threshold leaves of the largest layer at 99 %, and how good the luckiest of 20 equal networks looks."""
    weights = prunable(load_checkpoint("teacher20"))
    magnitudes = torch.cat([w.abs().flatten() for w in weights.values()]).sort().values
    threshold = magnitudes[round(0.99 * len(magnitudes)) - 1]
    error = 100 * math.sqrt(0.905 * 0.095 / 10_000)
    grid = [-6 + 0.001 * i for i in range(12_000)]
    normal = statistics.NormalDist()
    best_of_20 = sum(x * 20 * normal.pdf(x) * normal.cdf(x) ** 19 * 0.001 for x in grid)  # in standard errors
    return {
        "collapse.fc1": str(int((weights["fc1"].abs() > threshold).sum())),
        "collapse.of": f"{weights['fc1'].numel():,}",
        "se.test": f"{error:.1f}",
        "se.best": f"{error * best_of_20:.1f}",
    }
