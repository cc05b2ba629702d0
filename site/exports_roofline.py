"""The operations on the roofline, and FLOP and bytes of each as PyTorch counts them."""

from __future__ import annotations

from typing import Any

import torch
from _deployment import LLAMA_2_7B
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fourbit.llm.plan import plan

LINEAR = {"kind": "linear", "inputs": 4096, "outputs": 11_008}
CONVOLUTION = {"kind": "convolution", "channels": 64, "size": 28, "kernel": 3}
OPERATIONS: tuple[dict[str, Any], ...] = (
    *(
        {"name": f"GEMV, {bits} bits", "short": f"{bits} bits"} | LINEAR | {"rows": 1, "bits": bits}
        for bits in (32, 16, 8, 4)
    ),
    {"name": "GEMM, 512 tokens of a prompt, 32 bits", "short": "GEMM"} | LINEAR | {"rows": 512, "bits": 32},
    {"name": "convolution, 3×3, 64 channels, 28×28", "short": "convolution"} | CONVOLUTION | {"groups": 1},
    {"name": "depthwise convolution of the same size", "short": "depthwise"} | CONVOLUTION | {"groups": 64},
)
BATCHES = (1, 2, 8, 64, 512)
FORMS = ("F32", "F16", "Q8_0", "Q4_0")
MACHINES = ((100e9, 20e9), (1.2e12, 60e9), (312e12, 2.039e12))  # FLOP/s and bytes/s


def files() -> dict[str, Any]:
    plans = {form: plan(LLAMA_2_7B, form, 4096, baseline=0) for form in FORMS}
    decode = [{"form": form, "bytes": found.per_token} for form, found in plans.items()]
    weights = LLAMA_2_7B.parameters() - LLAMA_2_7B.vocabulary * LLAMA_2_7B.width  # all but the embeddings' rows
    return {
        "roofline.json": {"operations": list(OPERATIONS), "decode": decode, "weights": weights},
        "roofline-vectors.json": {"operations": [counted(one, b) for one in OPERATIONS for b in BATCHES]}
        | {"bounds": [bound(machine, b, one, weights) for machine in MACHINES for b in BATCHES for one in decode]},
    }


def counted(operation: dict[str, Any], batch: int) -> dict[str, Any]:
    """FLOP by PyTorch's own counter, bytes by the sizes of the tensors that come and go."""
    if operation["kind"] == "linear":
        layer: nn.Module = nn.Linear(operation["inputs"], operation["outputs"], bias=False, device="meta")
        x = torch.empty(batch * operation["rows"], operation["inputs"], device="meta")
    else:
        channels, size, kernel = operation["channels"], operation["size"], operation["kernel"]
        layer = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=operation["groups"], bias=False, device="meta"
        )
        x = torch.empty(batch, channels, size, size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        y = layer(x)
    weights = layer.weight.numel() * operation.get("bits", 32) // 8
    found = {"name": operation["name"], "batch": batch, "flops": counter.get_total_flops()}
    return found | {"bytes": weights + x.nbytes + y.nbytes}


def bound(machine: tuple[float, float], batch: int, one: dict[str, Any], weights: int) -> dict[str, Any]:
    """Tokens per second of a batch at most: its weights are read once, and each token multiplies by all of them."""
    flops, bandwidth = machine
    rate = batch / max(one["bytes"] / bandwidth, 2 * batch * weights / flops)
    return {"flops": flops, "bandwidth": bandwidth, "batch": batch, "form": one["form"], "tokens": rate}
