"""The numbers of the chapter on kernels, and what its figures share: see values.py."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fourbit.measure.traffic import replay

Data = Mapping[str, Any]

WEIGHTS = 11008 * 4096
DENSE, PACKED = 4.0, 37 / 64  # bytes a weight: float32, and 32 bytes of codes, a float32 scale and a zero for 64
MATERIALIZED = PACKED + 2 * DENSE
BYTES = {"dense": DENSE, "materialize": MATERIALIZED}  # all others are fused
BYTES |= {"onnxruntime": 36.5 / 64, "fourbit.kernels": 35 / 64}  # zeros of half a byte; scales of 16 bits
NAMES = {  # of the file, of the values, of the figures
    "materialize": ("materialize", "dequantize in torch, then multiply"),
    "C, loops": ("loops", "plain 4-bit loops"),
    "dense": ("dense", "dense float32"),
    "numba, length at run time": ("any", "numba, length known at run time"),
    "numba, layout": ("layout", "numba, layout"),
    "numba, 64-bit integers": ("growing", "numba, integers that grow to 64 bits"),
    "numba, integers": ("integers", "numba, integers of 32 bits"),
    "C, plain": ("plain", "C, plain loops over the layout"),
    "C, intrinsics": ("fast", "C, intrinsics"),
    "onnxruntime": ("onnx", "ONNX Runtime"),
    "fourbit.kernels": ("engine", "fourbit.kernels"),
}
COUNTED = {"4-bit loops": "C, loops", "dense float32": "dense"} | {name: name for name in ("C, plain", "C, intrinsics")}
TILES = (1, 2, 4, 8, 16, 32, 64, 128)
PROMPT, HELD_ROWS, CACHE = 128, 256, 2**18
ROW_BYTES, TOKEN_BYTES = 37 * 64, 72 * 64  # 4,096 inputs: packed weights, and codes, scales and sums of activations


def measured() -> dict[str, Any]:
    """What measure_kernels.py found."""
    data: dict[str, Any] = json.loads((Path(__file__).parent / "kernels.json").read_text(encoding="utf-8"))
    return data


def cycles(data: Data, name: str) -> float:
    """Clock cycles of a weight."""
    return float(data["ladder"]["ms"][name] * 1e-3 * data["ladder"]["clock"] / WEIGHTS)


def fetched(tile: int) -> float:
    """Bytes fetched for each weight when `tile` of the prompt's tokens are held at a time."""
    plan = [(0, HELD_ROWS, t, min(t + tile, PROMPT)) for t in range(0, PROMPT, tile)]
    return replay(plan, ROW_BYTES, TOKEN_BYTES, CACHE) / (HELD_ROWS * 4096)


def predicted(tile: float) -> float:
    """The same by the formula, for tiles that fit."""
    return PROMPT / tile * PACKED + PROMPT * TOKEN_BYTES / (HELD_ROWS * 4096)


def numbers() -> dict[str, str]:
    """Return {key: text}, as values.py does for the other chapters."""
    data = measured()
    parts = (bytes_moved, times, counted, integers, tiles, roofs)
    return {f"kn.{key}": text for part in parts for key, text in part(data).items()}


def bytes_moved(_: Data) -> dict[str, str]:
    return {
        "bytes.fused": f"{PACKED:.3f}",
        "bits.fused": f"{8 * PACKED:.3f}",
        "bits.half": f"{8 * 35 / 64:.3f}",
        "bytes.materialize": f"{MATERIALIZED:.3f}",
        "bytes.ratio": f"{DENSE / PACKED:.1f}",
        "bytes.worse": f"{MATERIALIZED / PACKED:.0f}",
        "mb.dense": f"{DENSE * WEIGHTS / 1e6:.0f}",
        "mb.packed": f"{PACKED * WEIGHTS / 1e6:.0f}",
    }


def times(data: Data) -> dict[str, str]:
    spans = data["ladder"]["ms"]
    found: dict[str, str] = {}
    for name, (key, _) in NAMES.items():
        ms = spans[name]
        found |= {
            f"{key}.ms": f"{ms:.0f}" if ms >= 20 else f"{ms:.1f}" if ms >= 2 else f"{ms:.2f}",
            f"{key}.gbs": f"{BYTES.get(name, PACKED) * WEIGHTS / ms / 1e6:.1f}",
            f"{key}.gain": f"{spans['dense'] / ms:.1f}" if ms < spans["dense"] else f"{spans['dense'] / ms:.2f}",
            f"{key}.loss": f"{ms / spans['dense']:.0f}",
            f"{key}.cycles": f"{cycles(data, name):.2f}",
        }
    found["ladder"] = f"{spans['materialize'] / spans['C, intrinsics']:.0f}"
    found["growing.over"] = f"{spans['numba, 64-bit integers'] / spans['numba, integers']:.1f}"
    found["any.slower"] = f"{spans['numba, length at run time'] / spans['numba, layout']:.1f}"
    found["clock"] = f"{data['ladder']['clock'] / 1e9:.2f}"
    found["fma"] = f"{data['ladder']['fma_cycles']:.1f}"
    return found


def counted(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for counted_as, name in COUNTED.items():
        one, key = data["counts"][counted_as], NAMES[name][0]
        found[f"{key}.instructions"] = f"{one['instructions']:.2f}"
        found[f"{key}.lines"] = f"{64 * one['lines']:.3f}"
        found[f"{key}.ipc"] = f"{one['instructions'] / cycles(data, name):.1f}"
    return found


def integers(data: Data) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, key in (("self_attn.q_proj", "q"), ("mlp.down_proj", "down")):
        one = data["activations"][name]
        found |= {f"{key}.{part}": f"{100 * one[part]:.1f}" for part in ("weights", "groups", "token")}
        found |= {f"{key}.saturated": f"{100 * one['saturated']:.2f}"}
        found |= {f"{key}.{part}": f"{100 * one[part]:.1f}" for part in ("error_saturated", "error_wide")}
    most = 2 * 15 * 127
    return found | {
        "pair.4": f"{most:,}",
        "pair.8": f"{2 * 255 * 127:,}",
        "pairs.safe": f"{32767 // most}",
        "dot.largest": f"{64 * 15 * 127:,}",
        "added": f"{100 * data['ladder']['error']['C, intrinsics']:.1f}",
        "rounding": f"{100 * data['ladder']['error']['dense']:.0f}",
    }


def tiles(data: Data) -> dict[str, str]:
    found = {f"tile.{tile}": f"{fetched(tile):.1f}" for tile in TILES}
    fits = (CACHE - ROW_BYTES) // TOKEN_BYTES
    found |= {"tile.fits": f"{fits}", "tile.least": f"{fetched(fits):.1f}"}
    found |= {f"unpack.{tile}": f"{value:.2f}" for tile, value in data["prefill"].items()}
    found["unpack.gain"] = f"{data['prefill']['1'] / data['prefill']['32']:.1f}"
    return found


def roofs(data: Data) -> dict[str, str]:
    one = data["ladder"]
    roof, spans = one["roof"], one["ms"]
    llama = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    found = {"roof": f"{roof / 1e9:.1f}", "roof.cycles": f"{PACKED / roof * one['clock']:.2f}"}
    found["roof.dense"] = f"{DENSE / roof * one['clock']:.2f}"
    for name in ("C, intrinsics", "onnxruntime", "fourbit.kernels", "numba, integers"):
        share = BYTES.get(name, PACKED) * WEIGHTS / (spans[name] * 1e-3) / roof
        found[f"{NAMES[name][0]}.share"] = f"{100 * share:.0f}"
    for name in ("numba, integers", "C, plain", "C, intrinsics"):
        key, rate = NAMES[name][0], 1e9 / one["cached_ns"][name]
        found[f"{key}.rate"] = f"{rate / 1e9:.1f}"
        found[f"{key}.cores"] = f"{math.ceil(roof / PACKED / rate)}"
        found[f"{key}.tokens"] = f"{1 / max(llama * PACKED / roof, llama / rate):.2f}"
    found["llama"] = f"{llama / 1e9:.2f}"
    found["roof.tokens"] = f"{roof / (llama * PACKED):.1f}"
    found["loops.tokens"] = f"{WEIGHTS / (spans['C, loops'] * 1e-3) / llama:.2f}"
    return found
