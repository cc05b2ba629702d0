"""The numbers of the chapter on deployment, and what its figures share: see values.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.plan import nf4_plan, plan
from fourbit.recipes.deployments import CACHES, CANDIDATES, FORMATS, cache_bytes, deployments

Data = Mapping[str, Any]

LLAMA_2_7B = LlmConfig("llama", 32, 4096, 11_008, 32, 32, 128, 32_000, 1e4, 1e-5, False, False, 4096)
SEVENS = {"llama2": LLAMA_2_7B} | {
    key: next(c.config for c in CANDIDATES if c.name == name)
    for key, name in (("mistral", "Mistral-7B"), ("qwen", "Qwen2.5-7B"), ("llama3", "Llama-3-8B"))
}
NAMES = {"llama2": "Llama-2-7B", "mistral": "Mistral-7B", "qwen": "Qwen2.5-7B", "llama3": "Llama-3-8B"}
BESIDE = 400_000_000  # bytes: Python and torch, without a model
GPU = {"reserved": 700_000_000, "bandwidth": 400.0}  # a laptop's GPU: bytes taken before, GB/s
MEMORY, HOP = 40.0, 5e-5  # GB/s of the computer's memory; seconds of one crossing
# Llama-3.1-8B on one GPU, llama.cpp's tools/quantize/README.md: GiB and tokens per second
README = {"F16": (14.96, 29.17), "Q8_0": (7.95, 50.93), "Q4_K_M": (4.58, 71.93), "Q4_0": (4.34, None)}
PICOJOULES_PER_BIT = 1280 / 64  # DRAM, Horowitz 2014
WATTS, BATTERY = 30, 60  # of a processor that decodes, assumed; watt-hours


def measured() -> dict[str, Any]:
    """What measure_deployment.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "deployment.json").read_text(encoding="utf-8"))
    return data


def split(layers: int, layer: int, cache: int, head: int, gib: float, mixed: float = MEMORY) -> tuple[int, float]:
    """Layers on the GPU, and the tokens per second at most, as lab 07's split_layers counts them."""
    room = gib * 2**30 - GPU["reserved"]
    count = min(layers, max(0, int((room - head) // (layer + cache)))) if head <= room else 0
    there = head + count * (layer + cache) if head <= room else 0
    here = head + layers * (layer + cache) - there
    seconds = there / (GPU["bandwidth"] * 1e9) + here / (mixed * 1e9) + (HOP if there and here else 0)
    return count, 1 / seconds


def parts(config: LlmConfig, context: int, kv: str = "f16") -> tuple[int, int, int]:
    """Bytes of a layer, of its full cache, and of the head, in Q4_K_M."""
    planned = plan(config, "Q4_K_M", context, kv, baseline=0)
    head = config.vocabulary * config.width * 210 // 256
    embedding = config.vocabulary * config.width * 144 // 256
    return (planned.weights - head - embedding) // config.layers, planned.kv_cache // config.layers, head


def nats(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    found: dict[str, str] = {}
    for part in (files, formats, plans, speeds, splits, conversions, choices, energies):
        found |= part(data)
    return {f"dp.{key}": text for key, text in found.items()}


def files(data: Data) -> dict[str, str]:
    found = {}
    for name, one in data["anatomy"].items():
        found |= {
            f"file.{name}": f"{one['bytes'] / 1e6:,.0f}",
            f"file.{name}.gb": f"{one['bytes'] / 1e9:.2f}",
            f"file.{name}.header": f"{one['header'] / 1e6:.1f}",
            f"file.{name}.header.share": f"{100 * one['header'] / one['bytes']:.2g}",
            f"file.{name}.tensors": f"{one['tensors']:,}",
            f"file.{name}.entries": f"{one['entries']}",
            f"file.{name}.grown": f"{one['grown'] / 1e6:.0f}",
        }
    return found


def formats(_: Data) -> dict[str, str]:
    blocks = {"Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q4_K": (256, 144), "Q6_K": (256, 210)}
    found = {f"bits.{name}": f"{8 * size / values:g}" for name, (values, size) in blocks.items()}
    found["k.scales"] = f"{8 * (12 + 4) / 256:g}"
    found["k.pair"] = f"{(16 + 16) / 32:g}"  # a float16 scale and minimum for each 32
    return found


def plans(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, config in SEVENS.items():
        p, q = plan(config, "Q4_K_M", 4096, baseline=BESIDE), nf4_plan(config, 4096)
        words = (1 if config.tied else 2) * config.vocabulary * config.width
        found |= {
            f"{key}.parameters": f"{config.parameters() / 1e9:.2f}",
            f"{key}.heads": f"{config.heads}/{config.kv_heads}",
            f"{key}.weights": f"{p.weights / 1e9:.2f}",
            f"{key}.nf4": f"{q.weights / 1e9:.2f}",
            f"{key}.words": f"{100 * words / config.parameters():.0f}",
            f"{key}.token": f"{p.kv_cache / 4096 / 1024:.0f}",
            f"{key}.cache": f"{p.kv_cache / 1e9:.2f}",
            f"{key}.buffers": f"{p.activations / 1e6:.0f}",
            f"{key}.total": f"{p.total / 1e9:.2f}",
            f"{key}.nf4.total": f"{q.total / 2**30:.1f}",
        }
        try:
            found[f"{key}.total.32k"] = f"{plan(config, 'Q4_K_M', 32_768, baseline=BESIDE).total / 1e9:.1f}"
        except ModelError:  # a model that has no such context
            found[f"{key}.total.32k"] = "–"
    found["llama2.per2048"] = f"{2048 * 2 * 32 * 4096 * 2 / 2**30:g}"
    found["gqa.ratio"] = f"{28 // 4}"
    for one in data["memory"]:
        key = f"mem.{one['model'].replace(' ', '')}.{one['context']}.{one['kv']}"
        found |= {
            f"{key}.total": f"{one['total'] / 1e9:.3f}",
            f"{key}.measured": f"{one['measured'] / 1e9:.3f}",
            f"{key}.off": f"{100 * (one['measured'] / one['total'] - 1):+.1f}".replace("-", "−"),
            f"{key}.weights": f"{one['weights'] / 1e9:.3f}",
            f"{key}.kv": f"{one['kv_cache'] / 1e9:.3f}",
            f"{key}.buffers": f"{one['activations'] / 1e9:.3f}",
            f"{key}.overhead": f"{one['overhead'] / 1e9:.3f}",
        }
    return found


def speeds(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, config in SEVENS.items():
        p = plan(config, "Q4_K_M", 4096, baseline=BESIDE)
        for name, bandwidth in (("laptop", 50), ("gpu", 400)):
            found[f"{key}.{name}"] = f"{bandwidth * 1e9 / (p.per_token + p.kv_cache):.1f}"
            found[f"{key}.{name}.empty"] = f"{bandwidth * 1e9 / p.per_token:.1f}"
    one = data["speed"]
    bound = one["roof"] / one["bytes"]
    found |= {
        "speed.roof": f"{one['roof'] / 1e9:.1f}",
        "speed.bound": f"{bound:.1f}",
        "speed.core": f"{one['core']:.1f}",
        "speed.core.share": f"{100 * one['core'] / bound:.0f}",
        "speed.isa": one["isa"],
    }
    for name, (gib, rate) in README.items():
        if rate is not None:
            found[f"readme.{name}.gbs"] = f"{gib * 2**30 * rate / 1e9:.0f}"
    found["readme.bytes"] = f"{README['F16'][0] / README['Q4_K_M'][0]:.1f}"
    found["readme.faster"] = f"{README['Q4_K_M'][1] / README['F16'][1]:.1f}"  # type: ignore[operator]
    return found


def splits(_: Data) -> dict[str, str]:
    shares = (50, 75, 90, 95, 100)
    found = {f"split.{share}": f"{1 / ((100 - share) / 100 + share / 1000):.1f}" for share in shares}
    for key in ("llama2", "mistral", "qwen"):
        config = SEVENS[key]
        layer, cache, head = parts(config, 4096)
        whole = head + config.layers * (layer + cache) + GPU["reserved"]
        found[f"{key}.whole"] = f"{whole / 2**30:.1f}"
        for gib in (4, 6, 8):
            count, speed = split(config.layers, layer, cache, head, gib)
            found |= {f"{key}.on.{gib}": f"{count}", f"{key}.speed.{gib}": f"{speed:.0f}"}
    layer, cache, head = parts(LLAMA_2_7B, 4096, "q8")
    count, speed = split(32, layer, cache, head, 6)
    found |= {"llama2.q8.on.6": f"{count}", "llama2.q8.speed.6": f"{speed:.0f}"}
    return found


def conversions(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for group in ("caches", "conversions"):
        for name, one in data[group].items():
            key = f"kl.{name.replace(' ', '.')}"
            spread = statistics.stdev(one["windows"])
            found |= {key: nats(one["mean"]), f"{key}.worst": nats(one["worst"]), f"{key}.spread": nats(spread)}
    found["kl.q4.alone"] = nats(data["caches"]["q4"]["mean"] - data["caches"]["f16"]["mean"])
    found["kl.q8.alone"] = nats(data["caches"]["q8"]["mean"] - data["caches"]["f16"]["mean"])
    found["kl.base.more"] = nats(data["conversions"]["base"]["mean"] - data["conversions"]["right"]["mean"])
    found["kl.base.times"] = f"{data['conversions']['exact base']['mean'] / data['conversions']['exact']['mean']:.0f}"
    wrong = data["positions"]["wrong"]
    found["kl.early"], found["kl.late"] = (nats(statistics.fmean(part)) for part in (wrong[:256], wrong[-256:]))
    return found


def choices(_: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for candidate in CANDIDATES:
        key = candidate.name.lower().replace(".", "").replace("-", "")
        weights = candidate.config.parameters() * FORMATS["Q4_K_M"].bits / 8
        found |= {
            f"choice.{key}.gb": f"{weights / 1e9:.1f}",
            f"choice.{key}.kv": f"{cache_bytes(candidate.config, 'f16') / 1024:.0f}",
            f"choice.{key}.speed": f"{50e9 / (weights + 8192 * cache_bytes(candidate.config, 'f16')):.1f}",
        }
    for name, stored in FORMATS.items():
        found |= {f"format.{name}.bits": f"{stored.bits:.2f}", f"format.{name}.kl": f"{stored.divergence:.4f}"}
    found["format.q4cache"] = nats(CACHES["q4"].divergence)
    found["choices"] = f"{len(list(deployments(50, 8192)))}"
    return found


def energies(_: Data) -> dict[str, str]:
    layer_bytes = plan(LLAMA_2_7B, "Q4_K_M", 4096, baseline=0).per_token
    moving = layer_bytes * 8 * PICOJOULES_PER_BIT * 1e-12
    arithmetic = LLAMA_2_7B.parameters() * (0.2 + 0.1) * 1e-12  # int8 products, int32 sums, Horowitz 2014
    rate = 50e9 / layer_bytes
    token = WATTS / rate
    return {
        "energy.gb": f"{layer_bytes / 1e9:.1f}",
        "energy.moving": f"{moving:.2f}",
        "energy.arithmetic": f"{1e3 * arithmetic:.0f}",
        "energy.rate": f"{rate:.0f}",
        "energy.token": f"{token:.1f}",
        "energy.share": f"{100 * moving / token:.0f}",
        "energy.tokens": f"{BATTERY * 3600 / token / 1000:.0f}",
        "energy.hours": f"{BATTERY / WATTS:.0f}",
    }
