"""Shapes, formats and constants of the planner, and plans and verdicts that `fourbit.llm` makes of many models."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from typing import Any

from _deployment import BESIDE, LLAMA_2_7B, NAMES, SEVENS

from fourbit.errors import ModelError
from fourbit.llm import fit, plan, sizes
from fourbit.llm.catalog import MODELS, find
from fourbit.llm.config import LlmConfig

SHAPE = ("layers", "width", "ff", "heads", "kv_heads", "head_width", "vocabulary", "tied", "qkv_bias", "context")
CASES = 60
FORMS = ("F32", "F16", "Q8_0", "Q4_1", "Q4_K_M", "Q4_K", "Q4_0", sizes.NF4)


def files() -> dict[str, Any]:
    return {"fit.json": constants(), "fit-vectors.json": {"cases": [outcome(case) for case in cases()]}}


def constants() -> dict[str, Any]:
    """What the page needs to plan: the same numbers as the Python modules, taken from them."""
    models = [{"name": NAMES[key], "config": shape(config)} for key, config in SEVENS.items()]
    models.insert(0, {"name": "pocket model (SmolLM2-135M)", "config": shape(find("smollm2").config)})
    return {
        "blocks": {name: list(size) for name, size in sizes.BLOCKS.items()},
        "cache": {name: list(size) for name, size in sizes.CACHE.items()},
        "nf4_tables": sizes._TABLES,
        "chunk": plan.CHUNK,
        "gpu_chunk": plan.GPU_CHUNK,
        "first_use": plan.FIRST_USE,
        "per_token_of_vocabulary": plan.PER_TOKEN_OF_VOCABULARY,
        "cuda_context": plan.CUDA_CONTEXT,
        "step": fit._STEP,
        "least": fit._LEAST,
        "forms": list(fit._FORMS),
        "baseline": BESIDE,
        "models": models,
        "registry": [
            {"name": model.name, "bytes": model.bytes, "folder": model.folder, "config": shape(model.config)}
            for model in MODELS
        ],
    }


def shape(config: LlmConfig) -> dict[str, Any]:
    """The parts of a shape on which its bytes depend."""
    fields = asdict(config)
    return {name: fields[name] for name in SHAPE}


def cases() -> list[dict[str, Any]]:
    """Models by name and shapes by chance, in every format, on devices of which some are too small."""
    draw, found = random.Random(6), []
    for number in range(CASES):
        known = number % 2 == 0
        config = draw.choice(list(SEVENS.values())) if known else random_config(draw)
        form = draw.choice(FORMS)
        kv = draw.choice(["f16", "f32", "q8", "q4"])
        memory = round(10 ** draw.uniform(9.6, 10.1) if known else 10 ** draw.uniform(8, 10))
        bandwidth = draw.choice([20e9, 50e9, 400e9])
        context = draw.randrange(600, config.context + 1)
        found.append(case(config, form, context, kv, memory, bandwidth, gpu=draw.random() < 0.5))
    found.append(case(LLAMA_2_7B, "Q4_K_M", 5000, "f16", 8 * 10**9, 50e9, gpu=False))
    found.append(case(replace(LLAMA_2_7B, head_width=48), "Q4_0", 2048, "q8", 8 * 10**9, 50e9, gpu=False))
    found.append(case(replace(LLAMA_2_7B, width=4100), "Q4_0", 2048, "f16", 8 * 10**9, 50e9, gpu=False))
    found.append(case(replace(LLAMA_2_7B, width=4128), "Q4_K_M", 2048, "f16", 8 * 10**9, 50e9, gpu=False))
    return found


def case(
    config: LlmConfig, form: str, context: int, kv: str, memory: int, bandwidth: float, *, gpu: bool
) -> dict[str, Any]:
    device = {"name": "the device", "memory": memory, "bandwidth": bandwidth, "gpu": gpu}
    asked = {"config": shape(config), "form": form, "context": context, "kv": kv, "baseline": BESIDE}
    return asked | {"name": "the model", "device": device}


def random_config(draw: random.Random) -> LlmConfig:
    """A shape by chance; every second one has rows that each format's blocks fill."""
    even, shared, heads = draw.random() < 0.5, draw.randint(1, 8), draw.randint(1, 8)
    step, head_width = (256, 256) if even else (draw.choice([64, 96]), draw.choice([64, 80, 128]))
    return LlmConfig(
        architecture="llama", layers=draw.randint(1, 48), width=step * draw.randint(2, 16),
        ff=step * draw.randint(2, 60), heads=shared * heads, kv_heads=heads, head_width=head_width,
        vocabulary=draw.randint(500, 200_000), rope_theta=1e4, norm_eps=1e-5, tied=draw.random() < 0.5,
        qkv_bias=draw.random() < 0.5, context=draw.choice([2048, 8192, 131_072]),
    )  # fmt: skip


def outcome(asked: dict[str, Any]) -> dict[str, Any]:
    """The case with what Python answers: a plan, its verdict and bound, or the words of a refusal."""
    config = LlmConfig("llama", **asked["config"], rope_theta=1e4, norm_eps=1e-5)
    device = fit.Device(**asked["device"])
    try:
        if asked["form"] == sizes.NF4:
            found = plan.nf4_plan(config, asked["context"], name=asked["name"])
        else:
            found = plan.plan(
                config, asked["form"], asked["context"], asked["kv"], baseline=asked["baseline"], name=asked["name"]
            )
        judged = fit.verdict(found, device)
    except ModelError as error:
        return asked | {"error": str(error)}
    return asked | {
        "plan": planned(found),
        "parameters": config.parameters(),
        "bits_per_weight": found.bits_per_weight,
        "fits": judged.fits,
        "reason": judged.reason,
        "options": [{"text": option.text} | planned(option.plan) for option in judged.options],
        "tokens": device.tokens_per_second(found),
        "gpu_layers": fit.gpu_layers(found, device.memory),
    }


def planned(found: plan.Plan) -> dict[str, Any]:
    names = ("form", "context", "kv", "weights", "layer", "per_token", "kv_cache", "activations", "overhead", "total")
    return {name: getattr(found, name) for name in names}
