"""Tools for pruned networks that the labs use and do not ask for: rebuilt layers, schedules, recipes, files.

A *recipe* says how to prune a given network: a magnitude threshold for each layer, and the batch-normalization
statistics that go with it. :func:`apply_recipe` follows one, and :func:`file_bytes` is the length of the file that
:func:`pack` writes, in which a layer is stored by values and gaps as in Deep Compression (Han et al.,
arXiv:1510.00149, section 2).
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from fourbit.errors import FourbitError

# {"thresholds": {layer: float}, "batch_norm": {layer: (running mean (channels,), running variance (channels,))}}
Recipe = Mapping[str, Mapping[str, Any]]

_FORM = struct.Struct("<BI")  # stored densely (0) or by gaps (1); number of entries
_MAX_GAP = 255
_INDEX_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


def prunable(model: nn.Sequential) -> dict[str, torch.Tensor]:
    """Return the weights that may be pruned, by layer name: those of Conv2d and Linear, detached, not copied."""
    kinds = (nn.Conv2d, nn.Linear)
    return {name: layer.weight.detach() for name, layer in model.named_children() if isinstance(layer, kinds)}


def masked(model: nn.Sequential, masks: Mapping[str, torch.Tensor]) -> nn.Sequential:
    """Return a copy of `model` in which the weights of each layer in `masks` are zero where its mask is False."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).get_parameter("weight").mul_(mask)
    return model


def resized(layer: nn.Module, **tensors: torch.Tensor | None) -> nn.Module:
    """Return a new layer with the settings of `layer` (stride, padding, eps, ...) and these tensors; sizes follow them.

    Args:
        layer: Conv2d (groups = 1), Linear or BatchNorm2d.
        tensors: its parameters and buffers by name; those left out are a fresh layer's. ``bias=None`` means no bias.

    Raises:
        FourbitError: for another kind of layer, or a tensor that does not fit.
    """
    weight = tensors.get("weight")
    if weight is None:
        raise FourbitError("resized() needs the new weight: its shape sets the size of the layer")
    new = _blank(layer, weight, tensors.get("bias") is not None)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            slot = getattr(new, name)
            if slot.shape != tensor.shape:
                raise FourbitError(f"{name} has shape {tuple(tensor.shape)}, the layer needs {tuple(slot.shape)}")
            slot.copy_(tensor)
    return new.train(layer.training)


def _blank(layer: nn.Module, weight: torch.Tensor, bias: bool) -> nn.Module:
    options: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    if isinstance(layer, nn.Conv2d) and layer.groups == 1:
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        settings: dict[str, Any] = {name: getattr(layer, name) for name in names}
        return nn.Conv2d(weight.shape[1], weight.shape[0], bias=bias, **settings, **options)
    if isinstance(layer, nn.Linear):
        return nn.Linear(weight.shape[1], weight.shape[0], bias=bias, **options)
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(weight.shape[0], eps=layer.eps, momentum=layer.momentum, **options)
    raise FourbitError(f"resized() takes Conv2d with one group, Linear and BatchNorm2d, not {layer}")


def cubic_sparsity(step: int, steps: int, final: float, initial: float = 0.0) -> float:
    """Return the sparsity after `step` of `steps` pruning steps: fast at first, slow at the end.

    ``final + (initial - final) (1 - step / steps)^3``, Zhu and Gupta, arXiv:1710.01878, equation 1.
    """
    left = 1.0 - min(max(step / steps, 0.0), 1.0)
    return final + (initial - final) * left**3


def index_dtype(largest: int) -> torch.dtype:
    """Return the smallest of uint8, int16, int32 and int64 that holds `largest`.

    Example:
        >>> index_dtype(255), index_dtype(256)
        (torch.uint8, torch.int16)
    """
    return next(dtype for dtype in _INDEX_DTYPES if largest <= torch.iinfo(dtype).max)


def apply_recipe(model: nn.Sequential, recipe: Recipe) -> nn.Sequential:
    """Return a copy of `model` in eval mode, pruned and repaired as `recipe` says.

    Weights w with |w| <= threshold become zero; layers that the recipe does not name stay as they are.

    Raises:
        FourbitError: when the recipe names a layer that `model` does not have, or statistics of another size.
    """
    model = copy.deepcopy(model).eval()
    layers = dict(model.named_children())
    unknown = [name for part in ("thresholds", "batch_norm") for name in recipe[part] if name not in layers]
    if unknown:
        raise FourbitError(f"the recipe names {', '.join(map(str, unknown))}; the network has {', '.join(layers)}")
    with torch.no_grad():
        for name, threshold in recipe["thresholds"].items():
            weight = layers[name].get_parameter("weight")
            weight.mul_(weight.abs() > float(threshold))
        for name, (mean, variance) in recipe["batch_norm"].items():
            _set_buffer(layers[name], name, "running_mean", mean)
            _set_buffer(layers[name], name, "running_var", variance)
    return model


def _set_buffer(layer: nn.Module, name: str, key: str, values: torch.Tensor) -> None:
    buffer = layer.get_buffer(key)
    if values.shape != buffer.shape:
        raise FourbitError(f"{key} of {name} has shape {tuple(values.shape)}; the layer has {tuple(buffer.shape)}")
    buffer.copy_(values)


def pack(model: nn.Sequential) -> bytes:
    """Return `model` as the bytes of a file, from which :func:`unpack` restores every tensor exactly.

    Each tensor is stored in float32 in the smaller of two forms, after 5 bytes that say which and how many entries:
    dense, 4 bytes a value; or by gaps, 5 bytes an entry: the number of zeros before it (one byte) and its value. Where
    more than 255 zeros stand in a row, an entry of gap 255 and value 0 fills in.
    """
    return b"".join(_pack_tensor(tensor) for _, tensor in _stored(model))


def unpack(data: bytes, like: nn.Sequential) -> nn.Sequential:
    """Return a copy of `like` (which gives the layers and their shapes) with the tensors of the file `data`.

    Raises:
        FourbitError: when the file is longer or shorter than these layers.
    """
    model, offset = copy.deepcopy(like), 0
    for name, tensor in _stored(model):
        try:
            by_gaps, count = _FORM.unpack_from(data, offset)
            offset += _FORM.size
            flat, used = _unpack_tensor(data[offset:], by_gaps, count, tensor.numel())
        except (struct.error, ValueError, IndexError):
            raise FourbitError(
                f"the file does not hold {name} of {tuple(tensor.shape)}; is it of this network?"
            ) from None
        offset += used
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(flat).view(tensor.shape))
    if offset != len(data):
        raise FourbitError(f"the file has {len(data) - offset} bytes left over; is it of this network?")
    return model


def file_bytes(model: nn.Sequential) -> int:
    """Return ``len(pack(model))`` without writing the file."""
    return sum(_FORM.size + min(4 * t.numel(), 5 * len(_entries(t)[0])) for _, t in _stored(model))


def _stored(model: nn.Sequential) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and running statistic, in the network's order."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not name.endswith("num_batches_tracked"):
            yield name, tensor.detach()


def _entries(tensor: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values of the entries of the gap form, filler zeros included."""
    flat = tensor.to(torch.float32).flatten().numpy()
    kept = np.flatnonzero(flat)
    gaps = np.diff(kept, prepend=-1) - 1
    fillers = gaps // (_MAX_GAP + 1)
    if not fillers.any():
        return kept, flat[kept]
    starts = np.repeat(kept - gaps - 1, fillers)
    order = np.arange(len(starts)) - np.repeat(np.cumsum(fillers) - fillers, fillers) + 1
    positions = np.sort(np.concatenate([kept, starts + order * (_MAX_GAP + 1)]))
    return positions, flat[positions]


def _pack_tensor(tensor: torch.Tensor) -> bytes:
    positions, values = _entries(tensor)
    if 5 * len(positions) >= 4 * tensor.numel():
        flat = tensor.to(torch.float32).flatten().numpy()
        return _FORM.pack(0, flat.size) + flat.astype("<f4").tobytes()
    gaps = (np.diff(positions, prepend=-1) - 1).astype(np.uint8)
    return _FORM.pack(1, len(positions)) + gaps.tobytes() + values.astype("<f4").tobytes()


def _unpack_tensor(data: bytes, by_gaps: int, count: int, size: int) -> tuple[np.ndarray, int]:
    if not by_gaps:
        if count != size:
            raise ValueError(count)
        return np.frombuffer(data, "<f4", count).astype(np.float32), 4 * count
    gaps = np.frombuffer(data, np.uint8, count).astype(np.int64)
    flat = np.zeros(size, np.float32)
    flat[np.cumsum(gaps + 1) - 1] = np.frombuffer(data, "<f4", count, offset=count)
    return flat, 5 * count
