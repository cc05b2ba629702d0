"""The real speed of int8 on this processor, with a maintained engine: ONNX Runtime's static quantization.

Weights get 8 bits per output channel, activations 8 bits from the ranges that calibration images show; the network
runs as QuantizeLinear and DequantizeLinear pairs that the engine fuses into integer kernels. Processors without
VNNI add two int8 products in 16 bits, which saturates; `reduce_range` takes 7 bits for weights and avoids it.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fourbit.errors import FourbitError

_OPSET = 17


def export(model: nn.Sequential) -> bytes:
    """Return `model` as an ONNX file of any batch size: input "x" float32 (N, C, H, W), output logits (N, classes).

    Takes chains of Conv2d, ReLU, MaxPool2d, Flatten and Linear; fold batch normalization first.

    Raises:
        FourbitError: for another kind of layer.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, value = [], [], "x"
    for name, layer in model.named_children():
        kind, options = _operator(name, layer)
        inputs = [value]
        for key, parameter in layer.named_parameters():
            tensors.append(numpy_helper.from_array(parameter.detach().contiguous().numpy(), f"{name}.{key}"))
            inputs.append(f"{name}.{key}")
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **options))
        value = name
    first = next(layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear))
    width = first.in_channels if isinstance(first, nn.Conv2d) else first.in_features
    shape: list[str | int | None] = ["N", width, "H", "W"] if isinstance(first, nn.Conv2d) else ["N", width]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", None])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return bytes(made.SerializeToString())


def _operator(name: str, layer: nn.Module) -> tuple[str, dict[str, Any]]:
    if isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str):
        pads = [*layer.padding, *layer.padding]
        options = {"strides": list(layer.stride), "pads": pads, "dilations": list(layer.dilation)}
        return "Conv", {**options, "group": layer.groups, "kernel_shape": list(layer.kernel_size)}
    if isinstance(layer, nn.MaxPool2d):
        size, stride, pad = (
            2 * [v] if isinstance(v, int) else list(v) for v in (layer.kernel_size, layer.stride, layer.padding)
        )
        return "MaxPool", {"kernel_shape": size, "strides": stride, "pads": [*pad, *pad]}
    if isinstance(layer, nn.Linear):
        return "Gemm", {"transB": 1}
    if isinstance(layer, nn.Flatten):
        return "Flatten", {"axis": 1}
    if isinstance(layer, nn.ReLU):
        return "Relu", {}
    raise FourbitError(f"{name} ({type(layer).__name__}) cannot be exported here; fold batch normalization first")


def quantize_static(file: bytes, images: torch.Tensor, *, reduce_range: bool) -> bytes:
    """Return an ONNX file with int8 weights (per channel) and activations (uint8), calibrated on `images`.

    Args:
        images: float32 (N, C, H, W), of the training split.
        reduce_range: 7 bits for weights, which avoids 16-bit saturation on processors without VNNI.
    """
    from onnxruntime.quantization import (  # type: ignore[import-untyped]
        CalibrationDataReader,
        QuantFormat,
        QuantType,
    )
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(images.split(64))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"x": batch.numpy()}

    logger = logging.getLogger()
    level = logger.level
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(file)
        logger.setLevel(logging.ERROR)  # the engine recommends a preprocessing that has nothing to do here
        try:
            quantize(
                source,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logger.setLevel(level)
        return target.read_bytes()


def session(file: bytes, threads: int = 1) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that runs an ONNX file: images float32 (N, C, H, W) to logits float32 (N, classes)."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    runner = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(runner.run(None, {"x": x.numpy()})[0])

    return run
