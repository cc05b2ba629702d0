"""Matrix products of the kernels on the shapes of a 7B, against onnxruntime and against reading memory.

    python benchmarks/kernels.py [--threads 1] [--tokens 1] [--rounds 25] [--kinds Q4_0,Q4_K,...]

One token reads every weight once, so copies are rotated that together exceed the caches, and results are GB/s of
weights and their share of the roof: the rate at which this machine reads memory in plain order (the best of two page
sizes). All contestants take turns, so that neighbors disturb them alike; times are CPU time on one thread, wall time on
several; medians.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper

sys.path.insert(0, str(Path(__file__).parent.parent))
from fourbit import kernels
from fourbit.kernels.build import compilers
from tests.kernel_matrices import known

SHAPES = ((11008, 4096), (4096, 4096))
WORKING_SET = 160 << 20  # several times the largest last-level caches of laptops
ROOF = """
#include <stdint.h>
#include <stddef.h>
typedef uint64_t wide __attribute__((vector_size(64)));
uint64_t read_all(const wide *p, size_t n) {
    wide a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 4 <= n; i += 4) a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
    a += b + c + d;
    return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}
"""


def reader() -> Callable[[], int]:
    """A function that reads WORKING_SET bytes and returns their number."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "roof.c", Path(folder) / "roof.so"
        source.write_text(ROOF)
        options = ["-O3", "-march=native", "-shared", "-fPIC", "-Wno-psabi"]
        subprocess.run([*compilers()[0], *options, str(source), "-o", str(target)], check=True)
        library = ctypes.CDLL(str(target))
    library.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    data = np.ones(WORKING_SET + 64, np.uint8)  # numpy asks for large pages
    start = -(-data.ctypes.data // 64) * 64

    def read() -> int:
        library.read_all(start, WORKING_SET // 64)
        return data.nbytes

    return read


def ours(k: kernels.Kernels, kind: str, rows: int, columns: int, tokens: int) -> tuple[Callable[[], object], int]:
    one = known(kind, rows, columns, 0).matrix
    count = max(2, WORKING_SET // one.nbytes) if tokens == 1 else 2
    copies = [kernels.Matrix(kind, one.shape, one.data.copy(), one.scale, one.zero, one.group) for _ in range(count)]
    x, out, turn = torch.randn(tokens, columns), torch.empty(tokens, rows), [0]

    def run() -> None:
        turn[0] = (turn[0] + 1) % count
        k.matmul([copies[turn[0]]], x, [out])

    return run, one.nbytes


def onnx_runtime(rows: int, columns: int, tokens: int, threads: int) -> tuple[Callable[[], object], int]:
    """MatMulNBits in blocks of 32 with 8-bit activations (accuracy level 4)."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (rows, columns // 32, 16), np.uint8)
    scales = np.full(rows * (columns // 32), 0.01, np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", K=columns, N=rows, bits=4,
        block_size=32, accuracy_level=4,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "layer",
        [helper.make_tensor_value_info("x", 1, [tokens, columns])],
        [helper.make_tensor_value_info("y", 1, [tokens, rows])],
        [onnx.numpy_helper.from_array(codes, "codes"), onnx.numpy_helper.from_array(scales, "scales")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    size = codes.nbytes + scales.nbytes
    count = max(2, WORKING_SET // size) if tokens == 1 else 2
    sessions = [onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(count)]
    x, turn = np.random.default_rng(1).standard_normal((tokens, columns)).astype(np.float32), [0]

    def run() -> None:
        turn[0] = (turn[0] + 1) % count
        sessions[turn[0]].run(None, {"x": x})

    return run, size


def race(shape: tuple[int, int], kinds: list[str], tokens: int, threads: int, rounds: int) -> list[dict[str, object]]:
    """Time all contestants in turn; return a row for each."""
    k, (rows, columns) = kernels.load(threads), shape
    runners = {kind: ours(k, kind, rows, columns, tokens) for kind in kinds}
    runners["onnxruntime"] = onnx_runtime(rows, columns, tokens, threads)
    runners["read"] = reader(), WORKING_SET
    clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, (run, _size) in runners.items():
            run()  # who comes after `read` finds page tables and code gone from the caches; the weights are never there
            begin = clock()
            run()
            times[name].append(clock() - begin)
    roof = WORKING_SET / statistics.median(times["read"])
    found: list[dict[str, object]] = []
    for name, (_run, size) in runners.items():
        seconds = statistics.median(times[name])
        row = {"shape": list(shape), "name": name, "isa": k.isa, "tokens": tokens, "threads": threads}
        row |= {"seconds": seconds, "GB/s": size / seconds / 1e9, "of the roof": size / seconds / roof}
        row |= {} if name == "read" else {"GMAC/s": rows * columns * tokens / seconds / 1e9}
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--kinds", default="Q4_0,Q4_1,Q4_K,Q6_K,Q8_0,GROUP4")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    table = []
    for shape in SHAPES:
        table += race(shape, chosen.kinds.split(","), chosen.tokens, chosen.threads, chosen.rounds)
    for row in table:
        rate = f"{row['GMAC/s']:7.1f} GMAC/s" if "GMAC/s" in row else ""
        print(
            f"{row['shape'][0]:6d} x {row['shape'][1]}  {row['name']:12s} {row['seconds'] * 1e3:9.3f} ms "  # type: ignore[index, operator]
            f"{row['GB/s']:6.1f} GB/s {row['of the roof']:5.0%} {rate}"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
