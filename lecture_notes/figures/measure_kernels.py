"""Measure what the chapter on kernels reports, on one core, and write kernels.json.

    python lecture_notes/figures/measure_kernels.py [PART ...]     all parts, or these alone; the others stay

Five minutes. The kernels are lab 05's reference solutions, so that the chapter reports what the lab computes. Times are
CPU times of one thread, medians of contestants that take turns; matrices come in copies, more than a cache holds. What
others do on the machine slows whoever waits for memory, so of several sessions the quietest stands.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit

from fourbit import kernels
from fourbit.exam.reference import load_lab
from fourbit.llm.loading import load
from fourbit.llm.texts import EVALUATION, novel
from fourbit.measure.callgrind import MAIN, count
from fourbit.measure.native import HEADER, compile_c
from fourbit.measure.race import interleaved
from fourbit.measure.reading import LOOPS, Reader
from fourbit.measure.rivals import onnx_matmul

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(__file__).parent / "kernels.json"
ROWS, COLUMNS, GROUP, COPIES, ROUNDS, SESSIONS = 11008, 4096, 64, 4, 21, 5
Lab = Mapping[str, Any]
Array = np.ndarray[Any, Any]


class Layer:
    """The matrix of the lab: random weights, rounded to nearest, in the forms that contestants take."""

    def __init__(self, lab: Lab) -> None:
        generator = torch.Generator().manual_seed(5)
        self.dense = torch.randn(ROWS, COLUMNS, generator=generator) * 0.02
        self.x = torch.randn(COLUMNS, generator=generator).numpy()
        rounded = load_lab(ROOT / "solutions/04-llm-quantization").namespace()["round_to_nearest"](self.dense, 4, GROUP)
        self.codes, self.zero = rounded["codes"].numpy(), rounded["zero"].numpy()
        self.half = rounded["scale"]
        self.scale = self.half.float().numpy()
        self.pairs = self.codes[:, ::2] | self.codes[:, 1::2] << 4
        self.packed = [lab["repack"](self.codes) for _ in range(COPIES)]
        self.groups = self.x.reshape(-1, GROUP)
        self.sums = self.groups.sum(1)
        q = lab["quantize_activations"](self.x)
        self.integers = (q["codes"], q["scale"], q["sum"])
        self.turn = itertools.cycle(range(COPIES))

    def taking_turns(self, gemv: Callable[..., Array], *arguments: Array) -> Callable[[], Array]:
        return lambda: gemv(self.packed[next(self.turn)], self.scale, self.zero, *arguments)

    def floats(self, gemv: Callable[..., Array]) -> Callable[[], Array]:
        return self.taking_turns(gemv, self.groups, self.sums)

    def whole(self, gemv: Callable[..., Array]) -> Callable[[], Array]:
        return self.taking_turns(gemv, *self.integers)


@njit
def gemv_loops(pairs: Array, scale: Array, zero: Array, x: Array) -> Array:
    """The plain loop of the lab's second section."""
    y = np.zeros(len(pairs), np.float32)
    for row in range(len(pairs)):
        for j in range(len(x)):
            byte = pairs[row, j // 2]
            code = byte >> 4 if j % 2 else byte & 15
            y[row] += (np.float32(code) - np.float32(zero[row, j // 64])) * scale[row, j // 64] * x[j]
    return y


@njit(fastmath=True)
def gemv_any_length(packed: Array, scale: Array, zero: Array, x: Array, sums: Array) -> Array:
    """The lab's numba kernel, whose inner loop learns its length when it runs."""
    rows, groups, half = packed.shape
    y = np.zeros(rows, np.float32)
    for row in range(rows):
        total = np.float32(0)
        for g in range(groups):
            dot = np.float32(0)
            for j in range(half):
                byte = packed[row, g, j]
                dot += np.float32(byte & 15) * x[g, j] + np.float32(byte >> 4) * x[g, j + half]
            total += scale[row, g] * (dot - np.float32(zero[row, g]) * sums[g])
        y[row] = total
    return y


@njit
def gemv_growing(packed: Array, scale: Array, zero: Array, codes: Array, code_scale: Array, code_sum: Array) -> Array:
    """The lab's numba kernel with integers, whose sum is not cast back to 32 bits."""
    rows, groups, _ = packed.shape
    y = np.zeros(rows, np.float32)
    for row in range(rows):
        total = np.float32(0)
        for g in range(groups):
            dot = np.int32(0)
            for j in range(32):
                byte = packed[row, g, j]
                dot += np.int32(byte & 15) * np.int32(codes[g, j]) + np.int32(byte >> 4) * np.int32(codes[g, j + 32])
            total += scale[row, g] * code_scale[g] * np.float32(dot - np.int32(zero[row, g]) * code_sum[g])
        y[row] = total
    return y


def texts(lab: Lab) -> dict[str, str]:
    """The lab's C kernel, and the same without intrinsics."""
    source = HEADER + lab["gemv_fast"]._write("c")
    return {"C, intrinsics": source, "C, plain": source.replace("#ifdef __AVX2__", "#if 0")}


def called(source: str) -> Callable[..., Array]:
    gemv = compile_c(source).gemv
    gemv.restype = None

    def run(*arrays: Array) -> Array:
        rows, groups = arrays[1].shape
        y = np.empty(rows, np.float32)
        sizes = ctypes.c_int64(rows), ctypes.c_int64(groups)
        gemv(*[ctypes.c_void_p(array.ctypes.data) for array in (*arrays, y)], *sizes)
        return y

    return run


def loops_in_c(lab: Lab) -> Callable[..., Array]:
    """The plain loop that :func:`counts` counts."""
    source = "#define ROWS 1\n#define COLUMNS 1\n" + texts(lab)["C, intrinsics"] + MAIN
    loops = compile_c(source.replace("static void loops", "void loops")).loops
    loops.restype = None

    def run(*arrays: Array) -> Array:
        y = np.empty(ROWS, np.float32)
        sizes = ctypes.c_int64(ROWS), ctypes.c_int64(COLUMNS)
        loops(*[ctypes.c_void_p(array.ctypes.data) for array in (*arrays, y)], *sizes)
        return y

    return run


CHAINS = """
#include <math.h>
#include <stdint.h>
uint64_t products(uint64_t x, uint64_t k, int64_t n) {
    while (n--) { x *= k; __asm__ volatile("" : "+r"(x)); }  /* nobody may compute ahead */
    return x;
}
float sums(float x, float k, int64_t n) {
    while (n--) { x = __builtin_fmaf(k, k, x); __asm__ volatile("" : "+x"(x)); }
    return x;
}
"""


def clock_rate(steps: int = 10**8) -> dict[str, float]:
    """Cycles per second, by a chain of integer products, each of which takes three cycles on x86 cores, and the cycles
    of a fused multiply-add in a chain of such."""
    library = compile_c(CHAINS)
    library.products.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64]
    library.sums.argtypes = [ctypes.c_float, ctypes.c_float, ctypes.c_int64]
    library.sums.restype = ctypes.c_float

    def seconds(chain: Callable[..., Any], *start: float) -> float:
        taken = []
        for _ in range(5):
            begun = time.thread_time()
            chain(*start, steps)
            taken.append(time.thread_time() - begun)
        return min(taken) / steps

    clock = 3 / seconds(library.products, 3, 5)
    return {"clock": clock, "fma_cycles": clock * seconds(library.sums, 0.5, 0.25)}


def materialize(layer: Layer) -> Callable[[], torch.Tensor]:
    pairs, x = torch.from_numpy(layer.pairs), torch.from_numpy(layer.x)
    scale, zero = torch.from_numpy(layer.scale)[..., None], torch.from_numpy(layer.zero).float()[..., None]

    def run() -> torch.Tensor:
        codes = torch.stack([pairs & 15, pairs >> 4], -1).view(ROWS, -1, GROUP).float()
        return torch.mv(((codes - zero) * scale).view(ROWS, COLUMNS), x)

    return run


def engine(layer: Layer) -> Callable[[], torch.Tensor]:
    """The course's own kernels on lab 04's artifact: 16-bit scales."""
    codes = torch.from_numpy(layer.pairs)
    parts = {"codes": codes, "scale": layer.half, "zero": torch.from_numpy(layer.zero)}
    backend = kernels.load(threads=1)
    matrices = [kernels.Matrix.from_artifact({k: v.clone() for k, v in parts.items()}, 4, GROUP, (ROWS, COLUMNS))
                for _ in range(COPIES)]  # fmt: skip
    x, out = torch.from_numpy(layer.x)[None], torch.empty(1, ROWS)

    def run() -> torch.Tensor:
        backend.matmul([matrices[next(layer.turn)]], x, [out])
        return out[0]

    return run


def ladder(lab: Lab) -> dict[str, Any]:
    """Milliseconds of each rung, and of others."""
    layer = Layer(lab)
    c = {name: called(source) for name, source in texts(lab).items()}
    integers = lab["gemv_fast"]._write("numba")
    sessions = [onnx_matmul(layer.codes, layer.scale, layer.zero, GROUP) for _ in range(COPIES)]
    fast = {
        "dense": lambda: torch.mv(layer.dense, torch.from_numpy(layer.x)),
        "numba, length at run time": layer.floats(gemv_any_length),
        "numba, layout": layer.floats(lab["gemv_numba"]),
        "numba, 64-bit integers": layer.whole(gemv_growing),
        "numba, integers": layer.whole(integers),
        "C, plain": layer.whole(c["C, plain"]),
        "C, intrinsics": layer.whole(c["C, intrinsics"]),
        "onnxruntime": lambda: sessions[next(layer.turn)](layer.x),
        "fourbit.kernels": engine(layer),
    }
    plain = loops_in_c(lab)
    slow = {
        "C, loops": lambda: plain(layer.pairs, layer.scale, layer.zero, layer.x),
        "materialize": materialize(layer),
        "loops": lambda: gemv_loops(layer.pairs, layer.scale, layer.zero, layer.x),
    }
    exact = materialize(layer)().numpy()
    apart = {}
    for name, run in {**fast, **slow}.items():
        y = np.asarray(run())
        apart[name] = float(np.linalg.norm(y - exact) / np.linalg.norm(exact))
        assert name == "dense" or apart[name] < 0.02, name
    seconds = interleaved(fast, ROUNDS) | interleaved(slow, 5)
    small = slice(0, 1024)  # 2.4 MB: stays in a cache
    cut = layer.packed[0][small].copy(), layer.scale[small].copy(), layer.zero[small].copy()
    repeated = {
        "numba, layout": lambda: [lab["gemv_numba"](*cut, layer.groups, layer.sums) for _ in range(10)],
        "numba, integers": lambda: [integers(*cut, *layer.integers) for _ in range(10)],
        "C, plain": lambda: [c["C, plain"](*cut, *layer.integers) for _ in range(10)],
        "C, intrinsics": lambda: [c["C, intrinsics"](*cut, *layer.integers) for _ in range(10)],
    }
    cached = {name: s / (10 * 1024 * COLUMNS) for name, s in interleaved(repeated, ROUNDS).items()}
    roof = read_roof()
    return {
        "ms": {n: 1e3 * s for n, s in seconds.items()},
        "error": apart,
        "cached_ns": {n: 1e9 * s for n, s in cached.items()},
        "roof": roof,
        **clock_rate(),
        "processor": processor(),
    }


def quietest(sessions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The session in which the dense product was the quickest, with the roof that any of them reached."""
    found = min(sessions, key=lambda one: float(one["ms"]["dense"]))
    return {**found, "roof": max(one["roof"] for one in sessions)}


def read_roof(repeats: int = 8) -> float:
    """Bytes per second that one core reads, by its own time: the best of the loops of fourbit/measure/reading.py."""
    reader, best = Reader(1), 0.0
    library, address = reader._library, reader._block.ctypes.data
    assert library is not None
    for _, (streams, ahead) in itertools.product(range(repeats), LOOPS):
        start = time.thread_time()
        library.read_block(address, reader._size, streams, ahead)
        best = max(best, reader._size / (time.thread_time() - start))
    return best


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.is_file() else []
    return names[0] if names else platform.processor()


def counts(lab: Lab) -> dict[str, dict[str, float]]:
    """Instructions and lines for each weight, as valgrind counts them."""
    found = {}
    for name, source in texts(lab).items():
        for kernel, one in count(source).items():
            found[name if kernel == "yours" else kernel] = {"instructions": one.instructions, "lines": one.lines}
    return found


@njit
def gemm_tiled(
    packed: Array, scale: Array, zero: Array, codes: Array, code_scale: Array, code_sum: Array, y: Array, tile: int
) -> None:
    """The lab's tiled product: each group is unpacked once for the tokens of a tile."""
    rows, groups, _ = packed.shape
    unpacked = np.empty(64, np.int16)
    for first in range(0, len(codes), tile):
        stop = min(first + tile, len(codes))
        for row in range(rows):
            y[first:stop, row] = 0
            for g in range(groups):
                for j in range(32):
                    unpacked[j], unpacked[j + 32] = packed[row, g, j] & 15, packed[row, g, j] >> 4
                for t in range(first, stop):
                    dot = np.int32(0)
                    for j in range(64):
                        dot = np.int32(dot + np.int32(unpacked[j]) * np.int32(codes[t, g, j]))
                    centered = np.float32(dot - np.int32(zero[row, g]) * code_sum[t, g])
                    y[t, row] += scale[row, g] * code_scale[t, g] * centered


def prefill(lab: Lab) -> dict[str, Any]:
    """Nanoseconds of a weight and token when so many tokens share its unpacking."""
    layer, tokens = Layer(lab), 32
    part = slice(0, ROWS // 16)
    draw = torch.randn(tokens, COLUMNS, generator=torch.Generator().manual_seed(6)).numpy()
    prompt = [lab["quantize_activations"](x) for x in draw]
    stacked = [np.stack([one[key] for one in prompt]) for key in ("codes", "scale", "sum")]
    y = np.empty((tokens, ROWS // 16), np.float32)

    def run(tile: int) -> None:
        gemm_tiled(layer.packed[0][part], layer.scale[part], layer.zero[part], *stacked, y, tile)

    run(1)
    seconds = interleaved({str(t): lambda t=t: run(t) for t in (1, 2, 4, 8, 16, 32)}, 7)  # type: ignore[misc]
    return {tile: 1e9 * s / (tokens * COLUMNS * (ROWS // 16)) for tile, s in seconds.items()}


def activations(lab: Lab) -> dict[str, Any]:
    """On the pocket model, layer 15: what 8-bit activations add to the error of 4-bit weights, and what saturates."""
    llm = load("smollm2")
    tokens = torch.tensor(llm.tokenizer.encode(novel(EVALUATION))[20_000:20_128])[None]
    rounding = load_lab(ROOT / "solutions/04-llm-quantization").namespace()["round_to_nearest"]
    found: dict[str, Any] = {}
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        seen: list[torch.Tensor] = []
        module = llm.model.get_submodule(f"layers.15.{name}")
        hook = module.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0][0]))
        with torch.no_grad():
            llm.model(tokens)
        hook.remove()
        assert isinstance(module, torch.nn.Linear)
        found[name] = _errors(lab, module.weight.data, seen[0].numpy(), rounding)
    return found


def _errors(lab: Lab, weight: torch.Tensor, inputs: Array, rounding: Callable[..., Any]) -> dict[str, float]:
    rounded = rounding(weight, 4, GROUP)
    scale, zero = rounded["scale"].float().numpy(), rounded["zero"].numpy()
    packed = lab["repack"](rounded["codes"].numpy())
    back = lab["dequantized"](packed, scale, zero)

    def mean(products: Array, exact: Array) -> float:
        apart = np.linalg.norm(products - exact, axis=1) / np.linalg.norm(exact, axis=1)
        return float(np.median(apart))

    exact, wanted = inputs @ weight.numpy().T, inputs @ back.T
    grouped = np.stack([lab["int8_gemv"](packed, scale, zero, lab["quantize_activations"](x))["y"] for x in inputs])
    step = np.abs(inputs).max(1, keepdims=True) / 127
    whole = (np.rint(inputs / step) * step) @ back.T
    return {"weights": mean(wanted, exact), "groups": mean(grouped, wanted), "token": mean(whole, wanted),
            **_saturation(weight.numpy(), inputs, exact)}  # fmt: skip


def _saturation(weight: Array, inputs: Array, exact: Array) -> dict[str, float]:
    """8-bit codes around a zero point of 128, scales for groups of both, multiplied in pairs of 16 bits."""
    groups = weight.reshape(len(weight), -1, GROUP)
    scale = np.abs(groups).max(-1, keepdims=True) / 127
    u = np.rint(groups / scale).astype(np.int32) + 128  # (rows, groups, 64), 1 to 255
    share: list[float] = []
    products: list[Array] = []
    wide: list[Array] = []
    for x in inputs[:32].reshape(32, -1, GROUP):
        step = np.abs(x).max(-1, keepdims=True) / 127
        a = np.rint(x / step).astype(np.int32)
        pairs = u[..., ::2] * a[:, ::2] + u[..., 1::2] * a[:, 1::2]
        clipped = np.clip(pairs, -32768, 32767)
        share.append((clipped != pairs).mean())
        for kept, sums in ((products, clipped), (wide, pairs)):
            kept.append(((sums.sum(-1) - 128 * a.sum(-1)) * scale[..., 0] * step[:, 0]).sum(1))

    def error(found: list[Array]) -> float:
        apart = np.linalg.norm(np.stack(found) - exact[:32], axis=1) / np.linalg.norm(exact[:32], axis=1)
        return float(np.median(apart))

    return {"saturated": float(np.mean(share)), "error_saturated": error(products), "error_wide": error(wide)}


PARTS = {
    "ladder": lambda lab: quietest([ladder(lab) for _ in range(SESSIONS)]),
    "counts": counts,
    "prefill": prefill,
    "activations": activations,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    names = parser.parse_args().parts or list(PARTS)
    torch.set_num_threads(1)
    lab = load_lab(ROOT / "solutions/05-kernels").namespace()
    results = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.is_file() else {}
    for name in names:
        results[name] = PARTS[name](lab)
        print(name, json.dumps(results[name], indent=1))
        TARGET.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
