"""Tools of the distillation lab that it uses and does not ask for: student files, stored results, quantiles.

A *student file* is a safetensors file from which :func:`read_student` rebuilds the whole network: its metadata lists
the layers, each weight is integer codes on a symmetric grid with one scale for each output channel (Jacob et al.,
arXiv:1712.05877), everything else is in half precision. What a student costs is the length of that file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from fourbit.data.assets import FOLDER, read_asset
from fourbit.errors import DataError, FourbitError

FRONT = "distillation-front"  # the asset

# 0.975 quantiles of Student's t distribution, by degrees of freedom.
T_QUANTILES: Mapping[int, float] = {
    1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646, 8: 2.3060, 9: 2.2622,
    10: 2.2281, 11: 2.2010, 12: 2.1788, 13: 2.1604, 14: 2.1448, 15: 2.1314, 16: 2.1199, 17: 2.1098, 18: 2.1009,
    19: 2.0930, 20: 2.0860,
}  # fmt: skip

_OPTIONS = {
    "Conv2d": ("stride", "padding", "dilation", "groups"),
    "Linear": (),
    "BatchNorm2d": ("eps",),
    "ReLU": (),
    "MaxPool2d": ("kernel_size", "stride", "padding"),
    "AdaptiveAvgPool2d": ("output_size",),
    "Flatten": (),
}
_SKIPPED = "num_batches_tracked"
BITS = (*range(2, 9), 32)


@dataclass(frozen=True)
class Results:
    """What the recipe measured that does not fit into the notebook; accuracies in %.

    `paired`: test accuracy for each seed without ("ce") and with ("kd") a teacher, by "setting", "student", "teacher",
    "labels" and "unlabelled". `composition`: "order" of the steps, "bytes" and validation "accuracy". `front`:
    "student", "bits", "sparsity", "distilled", "bytes" and validation "accuracy" of files. `specialist`: "group",
    "classes", "student", "teacher" ("" for none), "classes_known", "bytes" and test "accuracies" on these classes.
    """

    recipe: str
    paired: tuple[Mapping[str, Any], ...]
    composition: tuple[Mapping[str, Any], ...]
    front: tuple[Mapping[str, Any], ...]
    specialist: tuple[Mapping[str, Any], ...]


def stored_results(folder: Path = FOLDER) -> Results:
    """Return the stored results of this lab.

    Raises:
        DataError: if the file is missing or damaged.
    """
    data = read_asset(FRONT, folder)
    try:
        fields = json.loads(data)
        parts = {name: tuple(fields[name]) for name in ("paired", "composition", "front", "specialist")}
        return Results(fields["recipe"], **parts)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the asset {FRONT} does not hold the results of lab 03 ({error})") from None


def pareto(rows: tuple[Mapping[str, Any], ...] | list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that no other row beats in both "bytes" and "accuracy", smallest first."""
    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["bytes"], -row["accuracy"])):
        if not front or row["accuracy"] > front[-1]["accuracy"]:
            front.append(row)
    return front


def student_file(model: nn.Sequential, bits: int | Mapping[str, int]) -> bytes:
    """Return `model` as the bytes of a student file; each weight w becomes scale * round(w / scale).

    The scale of an output channel is its largest magnitude over 2^(bits-1) - 1. Where many weights round to zero,
    a bitmap says which do not and only those have a code; the smaller of the two forms is written.

    Args:
        model: chain of Conv2d, Linear, BatchNorm2d, ReLU, MaxPool2d, AdaptiveAvgPool2d and Flatten layers.
        bits: of each weight, 2 to 8, or 32 for float32 as it is; one number for all layers or {layer name: number}.

    Raises:
        FourbitError: for another layer, a missing or impossible number of bits, or values that are not finite.
    """
    tensors: dict[str, torch.Tensor] = {}
    layers = []
    for name, layer in model.named_children():
        kind = type(layer).__name__
        if kind not in _OPTIONS:
            raise FourbitError(f"a student file holds {', '.join(_OPTIONS)}; {name} is {kind}")
        spec = {option: getattr(layer, option) for option in _OPTIONS[kind]}
        for key, tensor in layer.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise FourbitError(f"{name}.{key} holds values that are not finite")
            if key == "weight" and kind in ("Conv2d", "Linear"):
                width = bits if isinstance(bits, int) else bits.get(name, 0)
                spec |= {"shape": list(tensor.shape), "bits": width}
                tensors |= _coded(name, tensor.detach().to(torch.float32), width)
            elif not key.endswith(_SKIPPED):
                tensors[f"{name}.{key}"] = _half(f"{name}.{key}", tensor)
        layers.append([name, kind, spec])
    return save_tensors(tensors, {"layers": json.dumps(layers, separators=(",", ":"))})


def read_student(data: bytes) -> nn.Sequential:
    """Return the network of a student file, in float32 and evaluation mode.

    Raises:
        FourbitError: when `data` is not a student file.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        layers = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["layers"])
        tensors = load_tensors(data)
        model = nn.Sequential()
        for name, kind, spec in layers:
            model.add_module(name, _layer(name, kind, spec, tensors))
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise FourbitError(f"these bytes are no student file ({error}); write one with student_file()") from None
    return model.eval()


def _half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.detach().half()
    if not torch.isfinite(half).all():
        raise FourbitError(f"{name} holds {tensor.abs().max():.3g}, beyond half precision (65,504)")
    return half


def _coded(name: str, weight: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    """Bit planes of the codes (all lowest bits first), with a bitmap of those that are not zero where that pays."""
    if bits not in BITS:
        raise FourbitError(f"{name} is to have {bits} bits; a student file takes 2 to 8, or 32")
    if bits == 32:
        return {f"{name}.plain": weight.contiguous()}
    top = 2 ** (bits - 1) - 1
    rows = weight.flatten(1)
    scales = (rows.abs().amax(1) / top).half()
    divisor = torch.where(scales == 0, 1.0, scales.float())
    codes = (rows / divisor[:, None]).round().clamp(-top, top).to(torch.int16).flatten().numpy()
    kept = codes != 0
    parts = {f"{name}.scales": scales}
    if (kept.size + 7) // 8 + bits * ((int(kept.sum()) + 7) // 8) < bits * ((kept.size + 7) // 8):
        parts[f"{name}.kept"] = torch.from_numpy(np.packbits(kept, bitorder="little"))
        codes = codes[kept]
    offset = (codes + top).astype(np.uint16)  # 0 to 2 top
    planes = [np.packbits((offset >> plane & 1).astype(np.uint8), bitorder="little") for plane in range(bits)]
    return parts | {f"{name}.planes": torch.from_numpy(np.stack(planes))}


def _decoded(name: str, spec: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    shape, bits = spec["shape"], int(spec["bits"])
    if bits == 32:
        return tensors[f"{name}.plain"]
    size = int(np.prod(shape))
    kept = np.ones(size, bool)
    if f"{name}.kept" in tensors:
        kept = np.unpackbits(tensors[f"{name}.kept"].numpy(), count=size, bitorder="little").astype(bool)
    planes = tensors[f"{name}.planes"].numpy()
    digits = np.unpackbits(planes, axis=1, count=int(kept.sum()), bitorder="little").astype(np.int16)  # (bits, kept)
    flat = np.zeros(size, np.int16)
    flat[kept] = (digits << np.arange(bits, dtype=np.int16)[:, None]).sum(0) - (2 ** (bits - 1) - 1)
    codes = torch.from_numpy(flat.astype(np.float32)).view(shape[0], -1)
    return (codes * tensors[f"{name}.scales"].float()[:, None]).view(shape)


def _layer(name: str, kind: str, spec: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """One layer from its entry in the metadata; kinds come from a closed list, so a file can name no other class."""
    options = {option: _tupled(spec[option]) for option in _OPTIONS[kind]}
    state = {key.split(".", 1)[1]: value.float() for key, value in tensors.items() if key.startswith(f"{name}.")}
    for coded in ("planes", "scales", "kept", "plain"):
        state.pop(coded, None)
    if kind == "Conv2d":
        out, per_group, *kernel = spec["shape"]
        layer: nn.Module = nn.Conv2d(
            per_group * options["groups"], out, tuple(kernel), bias="bias" in state, **options
        )
    elif kind == "Linear":
        layer = nn.Linear(spec["shape"][1], spec["shape"][0], bias="bias" in state)
    elif kind == "BatchNorm2d":
        layer = nn.BatchNorm2d(len(state["weight"]), **options)
    else:
        kinds = {"ReLU": nn.ReLU, "MaxPool2d": nn.MaxPool2d, "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d}
        return {**kinds, "Flatten": nn.Flatten}[kind](**options)
    if kind in ("Conv2d", "Linear"):
        state["weight"] = _decoded(name, spec, tensors)
    layer.load_state_dict({**state, **_counter(layer)})
    return layer


def _counter(layer: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value for key, value in layer.state_dict().items() if key.endswith(_SKIPPED)}


def _tupled(option: Any) -> Any:
    return tuple(option) if isinstance(option, list) else option


def quantized(model: nn.Sequential, bits: int | Mapping[str, int]) -> nn.Sequential:
    """Return what :func:`read_student` would make of ``student_file(model, bits)``."""
    return read_student(student_file(copy.deepcopy(model), bits))
