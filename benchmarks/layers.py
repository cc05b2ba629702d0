"""The matrices of one layer, multiplied with one token's activations by each library that can hold them in 4 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from bitsandbytes.nn import Linear4bit
from onnx import TensorProto, helper

from fourbit import kernels
from fourbit.llm.weights import open_weights


def layer_of(path: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Return a function for each contestant; the shapes are those of the file's first layer, the contents random."""
    layer = open_weights(path).layers[0]
    ours = [layer.qkv, (layer.output,), layer.gate_up, (layer.down,)]
    shapes = [(m.rows, m.columns) for together in ours for m in together]
    inputs = {columns: torch.randn(1, columns) for _, columns in shapes}
    sessions = [_session(rows, columns, threads) for rows, columns in shapes]
    linears = [_linear(rows, columns) for rows, columns in shapes]
    dense = [torch.randn(rows, columns) for rows, columns in shapes]

    def fourbit() -> None:
        for together in ours:
            kernels.multiply(together, inputs[together[0].columns])

    def onnx_runtime() -> None:
        for session, (_, columns) in zip(sessions, shapes, strict=True):
            session.run(None, {"x": inputs[columns].numpy()})

    def bitsandbytes() -> None:
        with torch.no_grad():
            for linear, (_, columns) in zip(linears, shapes, strict=True):
                linear(inputs[columns])

    def torch_dense() -> None:
        for matrix, (_, columns) in zip(dense, shapes, strict=True):
            torch.mv(matrix, inputs[columns][0])

    return {
        "fourbit": fourbit,
        "onnxruntime MatMulNBits, int8": onnx_runtime,
        "bitsandbytes NF4": bitsandbytes,
        "torch fp32": torch_dense,
    }


def _session(rows: int, columns: int, threads: int) -> onnxruntime.InferenceSession:
    """A 4-bit matrix product in blocks of 32 with 8-bit activations (accuracy level 4)."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (rows, columns // 32, 16), np.uint8)
    scales = np.full(rows * (columns // 32), 0.01, np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", K=columns, N=rows, bits=4,
        block_size=32, accuracy_level=4,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows])],
        [onnx.numpy_helper.from_array(codes, "codes"), onnx.numpy_helper.from_array(scales, "scales")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _linear(rows: int, columns: int) -> Linear4bit:
    linear = Linear4bit(columns, rows, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    return linear.to("cpu").requires_grad_(False)
