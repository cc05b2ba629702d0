"""The matrices of a model's layers, multiplied with one token's activations by libraries that hold them in 4 bits.

onnxruntime and bitsandbytes have no engine of their own for these files on a CPU, so what is timed is the products
alone: no attention, norms, embeddings or head. The shapes are the model's, the contents random; all contestants hold
`count` layers, enough that no cache has them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fourbit.llm.config import LlmConfig

Run = Callable[[], object]
_LEAST = 96 * 2**20  # bytes in 4 bits: more than a laptop's last-level cache


def stack(config: LlmConfig) -> tuple[int, list[tuple[int, int]]]:
    """Return how many layers are multiplied, and the shapes (out, in) of the matrices of one."""
    shapes = [shape for name, shape in config.linears().items() if name.startswith("layers.0.")]
    one = sum(rows * columns for rows, columns in shapes) // 2
    return min(config.layers, max(1, -(-_LEAST // one))), shapes


def inputs(shapes: list[tuple[int, int]]) -> dict[int, torch.Tensor]:
    """Return {in: activations (1, in) float32}."""
    random = torch.Generator().manual_seed(0)
    return {columns: torch.randn(1, columns, generator=random) for _, columns in shapes}


def onnxruntime_stack(config: LlmConfig, threads: int) -> Run:
    """Products in blocks of 32 with 8-bit activations (accuracy level 4): what is fastest there."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    count, shapes = stack(config)
    random = np.random.default_rng(0)
    nodes, weights, outs = [], [], []
    for i in range(count):
        for j, (rows, columns) in enumerate(shapes):
            name = f"{i}.{j}"
            codes = random.integers(0, 256, (rows, columns // 32, 16), np.uint8)
            scales = np.full(rows * (columns // 32), 0.01, np.float32)
            weights += [onnx.numpy_helper.from_array(codes, f"{name}.codes")]
            weights += [onnx.numpy_helper.from_array(scales, f"{name}.scales")]
            nodes.append(helper.make_node(
                "MatMulNBits", [f"x{columns}", f"{name}.codes", f"{name}.scales"], [f"{name}.y"],
                domain="com.microsoft", K=columns, N=rows, bits=4, block_size=32, accuracy_level=4,
            ))  # fmt: skip
            outs.append(helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, [1, rows]))
    given = inputs(shapes)
    ins = [helper.make_tensor_value_info(f"x{columns}", TensorProto.FLOAT, [1, columns]) for columns in given]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "layers", ins, outs, weights), opset_imports=opsets, ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {f"x{columns}": x.numpy() for columns, x in given.items()}
    return lambda: session.run(None, feed)


def bitsandbytes_stack(config: LlmConfig, threads: int) -> Run:
    """NF4 with double quantization and bfloat16 products, on the CPU."""
    from bitsandbytes.nn import Linear4bit

    torch.set_num_threads(threads)
    count, shapes = stack(config)
    linears: list[list[Linear4bit]] = []
    for _ in range(count):
        layer = [
            Linear4bit(columns, rows, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
            for rows, columns in shapes
        ]
        linears.append([linear.to(torch.bfloat16).to("cpu").requires_grad_(False).eval() for linear in layer])
    given = {columns: x.bfloat16() for columns, x in inputs(shapes).items()}

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for layer in linears:
                for linear, (_, columns) in zip(layer, shapes, strict=True):
                    linear(given[columns])

    return run


def fourbit_stack(config: LlmConfig, threads: int) -> Run:
    """Ours, in Q4_0 blocks: matrices that share an input in one call, as the engine calls them."""
    from fourbit import kernels

    count, shapes = stack(config)
    random = np.random.default_rng(0)
    kernel, given = kernels.load(threads=threads), inputs(shapes)
    groups = ((0, 1, 2), (3,), (4, 5), (6,))
    layers = []
    for _ in range(count):
        matrices = []
        for rows, columns in shapes:
            blocks = random.integers(0, 256, (rows, columns // 32, 18), np.uint8)
            blocks[:, :, :2] = np.full(1, 0.01, "<f2").view(np.uint8)
            matrices.append(kernels.Matrix("Q4_0", (rows, columns), blocks.reshape(rows, -1)))
        layers.append(matrices)
    outs = [torch.empty(1, rows) for rows, _ in shapes]

    def run() -> None:
        for matrices in layers:
            for group in groups:
                x = given[shapes[group[0]][1]]
                kernel.matmul([matrices[i] for i in group], x, [outs[i] for i in group])

    return run


STACKS: dict[str, Callable[[LlmConfig, int], Run]] = {
    "fourbit": fourbit_stack,
    "onnxruntime": onnxruntime_stack,
    "bitsandbytes": bitsandbytes_stack,
}
