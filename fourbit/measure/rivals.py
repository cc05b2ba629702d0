"""Maintained 4-bit kernels to race against: ONNX Runtime's on one matrix, llama.cpp's on a whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fourbit.errors import FourbitError

Array = np.ndarray[Any, Any]


def onnx_matmul(codes: Array, scale: Array, zero: Array, group: int, threads: int = 1) -> Callable[[Array], Array]:
    """Return ONNX Runtime's product of a 4-bit matrix with float32 vectors, by 8-bit activations (accuracy level 4).

    Args:
        codes: uint8 (rows, columns), 0 to 15; scale: float32 (rows, groups); zero: uint8 (rows, groups).
        group: inputs that share a scale, a power of two from 16; columns is a multiple of it.
    """
    import onnxruntime  # type: ignore[import-untyped]
    from onnx import TensorProto, helper, numpy_helper

    rows, columns = codes.shape
    blob = (codes[:, ::2] | codes[:, 1::2] << 4).reshape(rows, columns // group, group // 2)
    points = np.pad(zero, ((0, 0), (0, zero.shape[1] % 2)))
    points = points[:, ::2] | points[:, 1::2] << 4
    shape = {"K": columns, "N": rows, "bits": 4, "block_size": group, "accuracy_level": 4}
    names = ["x", "codes", "scales", "points"]
    node = helper.make_node("MatMulNBits", names, ["y"], domain="com.microsoft", **shape)
    tensors = {"codes": blob, "scales": scale.reshape(-1), "points": points.reshape(-1)}
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(x: Array) -> Array:
        y: Array = session.run(None, {"x": x.reshape(1, -1)})[0][0]
        return y

    return run


def llama_cpp_rate(model: str | Path, tokens: int = 48, threads: int = 1) -> float | None:
    """Bytes of weights that llama.cpp reads in a second of decoding, None where it or the model is missing.

    Args:
        model: a name of the registry, or a GGUF file.
        tokens: how many to decode; by the engine's own clock, which is the wall's.
    """
    try:
        import xllamacpp
    except ImportError:
        return None
    path = _file(model)
    if path is None:
        return None
    options = xllamacpp.CommonParams()
    options.model.path = str(path)
    options.n_ctx, options.n_parallel, options.warmup, options.verbosity = 256, 1, True, 0
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(options)
    asked = {"prompt": [1, 100, 200], "n_predict": tokens, "temperature": 0, "ignore_eos": True}
    answer = server.handle_completions(asked)
    return _weights(path) * float(answer["timings"]["predicted_per_second"])


def _file(model: str | Path) -> Path | None:
    from fourbit.llm.registry import locate

    if Path(model).suffix == ".gguf":
        return Path(model) if Path(model).is_file() else None
    try:
        return locate(str(model))
    except FourbitError:
        return None


def _weights(path: Path) -> int:
    """Bytes of the tensors that every token reads: all but an embedding that has a separate output matrix."""
    from gguf import GGUFReader

    sizes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(str(path)).tensors}
    return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)
