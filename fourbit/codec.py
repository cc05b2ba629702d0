"""A closed codec for the values that cross between a notebook, an exam pack and the examiner.

One value becomes one safetensors buffer: tensors are its tensors, everything else is a JSON tree in its
metadata. Only the kinds listed in :func:`encode` exist, so decoding untrusted bytes can run no code: there is
no pickle, no import by name and no attribute access. Sizes, depth and node counts are bounded on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from fourbit.errors import CodecError

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32
MAX_NODES = 200_000
_MAX_INT = 2**256

_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)

# Each layer kind with the constructor options that, with its tensors, describe it completely.
_LAYERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "Conv2d": (nn.Conv2d, ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")),
    "Linear": (nn.Linear, ("in_features", "out_features")),
    "Embedding": (nn.Embedding, ("num_embeddings", "embedding_dim")),
    "BatchNorm1d": (nn.BatchNorm1d, ("num_features", "eps", "momentum", "affine", "track_running_stats")),
    "BatchNorm2d": (nn.BatchNorm2d, ("num_features", "eps", "momentum", "affine", "track_running_stats")),
    "LayerNorm": (nn.LayerNorm, ("normalized_shape", "eps")),
    "ReLU": (nn.ReLU, ("inplace",)),
    "ReLU6": (nn.ReLU6, ("inplace",)),
    "GELU": (nn.GELU, ()),
    "SiLU": (nn.SiLU, ("inplace",)),
    "Sigmoid": (nn.Sigmoid, ()),
    "Tanh": (nn.Tanh, ()),
    "MaxPool2d": (nn.MaxPool2d, ("kernel_size", "stride", "padding")),
    "AvgPool2d": (nn.AvgPool2d, ("kernel_size", "stride", "padding")),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "Flatten": (nn.Flatten, ("start_dim", "end_dim")),
    "Dropout": (nn.Dropout, ("p",)),
    "Identity": (nn.Identity, ()),
    "Sequential": (nn.Sequential, ()),
}
_HAS_BIAS = {"Conv2d", "Linear"}


@dataclass(frozen=True)
class Ref:
    """A named fixture (a shipped checkpoint, images, a fake clock) that the receiving side builds itself.

    Example:
        ``Ref("images", {"split": "val", "count": 512})`` costs a few bytes where the images would cost 1.6 MB.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def encode(value: object, *, opaque: bool = False) -> bytes:
    """Return `value` as one safetensors buffer.

    Kinds: None, bool, int, float, str, list, tuple, dict (keys: None, bool, int, float, str or tuples of them),
    dense ``torch.Tensor`` and ``numpy.ndarray`` of the usual dtypes, ``nn.Sequential`` chains of the usual
    layers (tied weights stay tied), and :class:`Ref`. NumPy scalars become Python numbers.

    Args:
        opaque: encode objects of other kinds as a mark instead of raising; for fingerprints only.

    Raises:
        CodecError: for any other kind, for cycles deeper than 32, or beyond 64 MiB.
    """
    writer = _Writer(opaque)
    tree = writer.node(value, 0)
    text = json.dumps(tree, separators=(",", ":"))
    data = save_safetensors(writer.tensors, {"tree": text})
    if len(data) > MAX_BYTES:
        raise CodecError(f"a value of {len(data):,} bytes is over the limit of {MAX_BYTES:,}; return a smaller one")
    return data


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the value that `data` holds; tensors are fresh and writable, chains are new modules.

    Raises:
        CodecError: when `data` is too large or is not what :func:`encode` writes.
    """
    if len(data) > max_bytes:
        raise CodecError(f"a value of {len(data):,} bytes is over the limit of {max_bytes:,}")
    try:
        length = int.from_bytes(data[:8], "little")
        tree = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tree"])
        return _Reader(load_safetensors(data)).value(tree, 0)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"these bytes are not an encoded value ({type(error).__name__}: {error})") from None


class _Writer:
    """Collects tensors while it turns a value into a JSON tree."""

    def __init__(self, opaque: bool) -> None:
        self.opaque = opaque
        self.tensors: dict[str, torch.Tensor] = {}
        self._seen: dict[int, tuple[int, object]] = {}
        self._nodes = 0

    def node(self, value: Any, depth: int) -> Any:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH} or of more than {MAX_NODES:,} parts")
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._int(int(value))
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, list):
            return [self.node(item, depth + 1) for item in value]
        return self._tagged(value, depth)

    def _tagged(self, value: Any, depth: int) -> Any:
        if isinstance(value, tuple):
            return {"$": "tuple", "items": [self.node(item, depth + 1) for item in value]}
        if isinstance(value, dict):
            pairs = [[self.node(k, depth + 1), self.node(v, depth + 1)] for k, v in value.items()]
            return {"$": "dict", "items": pairs}
        if isinstance(value, torch.Tensor):
            return {"$": "tensor", "id": self.tensor(value)}
        if isinstance(value, np.ndarray):
            return {"$": "array", "id": self.tensor(_from_numpy(value))}
        if isinstance(value, nn.Sequential):
            return self.chain(value, depth)
        if isinstance(value, Ref):
            return {"$": "ref", "name": value.name, "kwargs": self.node(dict(value.kwargs), depth + 1)}
        if self.opaque:
            return {"$": "opaque", "type": type(value).__name__}
        raise CodecError(
            f"a value of type {type(value).__name__} cannot leave the notebook; "
            "return tensors, numbers, strings, lists, tuples, dicts or an nn.Sequential of them"
        )

    def _int(self, value: int) -> int:
        if abs(value) >= _MAX_INT:
            raise CodecError("an integer of more than 256 bits cannot leave the notebook")
        return value

    def tensor(self, tensor: torch.Tensor) -> int:
        if id(tensor) in self._seen:
            return self._seen[id(tensor)][0]
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _DTYPES:
            raise CodecError(f"only dense tensors of the usual dtypes can leave the notebook, not {tensor.dtype}")
        # as_subclass drops a tensor subclass, so that nothing but its plain contents travels.
        plain = tensor.detach().as_subclass(torch.Tensor).cpu()
        number = len(self.tensors)
        self.tensors[str(number)] = plain.clone(memory_format=torch.contiguous_format)
        self._seen[id(tensor)] = (number, tensor)  # keeps the tensor alive, so its id stays unique
        return number

    def chain(self, chain: nn.Sequential, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise CodecError(f"modules nested deeper than {MAX_DEPTH}")
        layers = [self.layer(name, layer, depth) for name, layer in nn.Module.named_children(chain)]
        # named_children skips a module that appears twice, but the forward pass runs it twice.
        if len(layers) != len(chain):
            raise CodecError("a module that appears twice in an nn.Sequential cannot leave the notebook")
        return {"$": "chain", "layers": layers, "training": bool(chain.training)}

    def layer(self, name: str, layer: nn.Module, depth: int) -> Any:
        kind = type(layer).__name__
        if kind not in _LAYERS or type(layer) is not _LAYERS[kind][0]:
            raise CodecError(f"a layer of type {kind} cannot leave the notebook; use {', '.join(_LAYERS)}")
        if kind == "Sequential":
            assert isinstance(layer, nn.Sequential)
            return {"name": name, "kind": kind, "chain": self.chain(layer, depth + 1)}
        options = {option: self.node(getattr(layer, option), depth + 1) for option in _LAYERS[kind][1]}
        if kind in _HAS_BIAS:
            options["bias"] = layer.bias is not None
        parameters = {
            key: None if p is None else {"id": self.tensor(p), "grad": bool(p.requires_grad)}
            for key, p in layer._parameters.items()
        }
        buffers = {key: None if b is None else self.tensor(b) for key, b in layer._buffers.items()}
        state = {"options": options, "parameters": parameters, "buffers": buffers, "training": bool(layer.training)}
        return {"name": name, "kind": kind, **state}


class _Reader:
    """Rebuilds a value from its JSON tree and tensors."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.parameters: dict[int, nn.Parameter] = {}
        self._nodes = 0

    def value(self, tree: Any, depth: int) -> Any:
        self._nodes += 1
        if depth > 2 * MAX_DEPTH or self._nodes > MAX_NODES:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH} or of more than {MAX_NODES:,} parts")
        if isinstance(tree, list):
            return [self.value(item, depth + 1) for item in tree]
        if not isinstance(tree, dict):
            return tree
        kind = tree["$"]
        if kind == "tuple":
            return tuple(self.value(item, depth + 1) for item in tree["items"])
        if kind == "dict":
            return {self.value(k, depth + 1): self.value(v, depth + 1) for k, v in tree["items"]}
        if kind == "tensor":
            return self.tensors[str(tree["id"])]
        if kind == "array":
            return self.tensors[str(tree["id"])].numpy()
        if kind == "chain":
            return self.chain(tree, depth)
        if kind == "ref":
            return Ref(str(tree["name"]), self.value(tree["kwargs"], depth + 1))
        raise CodecError(f"an encoded value of unknown kind {kind!r}")

    def chain(self, tree: Any, depth: int) -> nn.Sequential:
        if depth > 2 * MAX_DEPTH:
            raise CodecError(f"modules nested deeper than {MAX_DEPTH}")
        chain = nn.Sequential()
        for item in tree["layers"]:
            nested = item["kind"] == "Sequential"
            layer = self.chain(item["chain"], depth + 1) if nested else self.layer(item, depth)
            chain.add_module(str(item["name"]), layer)
        chain.training = bool(tree["training"])
        return chain

    def layer(self, item: Any, depth: int) -> nn.Module:
        cls, _ = _LAYERS[item["kind"]]
        options = {str(k): self.value(v, depth + 1) for k, v in item["options"].items()}
        if cls is nn.Embedding:  # initializing one on the meta device would import torch's compiler
            size = options["num_embeddings"], options["embedding_dim"]
            options["_weight"] = torch.empty(size, device="meta")
        with torch.device("meta"):
            layer = cls(**options)
        for key, parameter in layer._parameters.items():
            layer._parameters[key] = self._parameter(item["parameters"][key], parameter)
        for key, buffer in layer._buffers.items():
            given = item["buffers"][key]
            layer._buffers[key] = None if given is None else _same_shape(self.tensors[str(given)], buffer)
        layer.training = bool(item["training"])
        return layer

    def _parameter(self, given: Any, blank: nn.Parameter | None) -> nn.Parameter | None:
        if given is None or blank is None:
            return None
        number = int(given["id"])
        if number not in self.parameters:
            tensor = _same_shape(self.tensors[str(number)], blank)
            self.parameters[number] = nn.Parameter(tensor, requires_grad=bool(given["grad"]))
        return self.parameters[number]


def _same_shape(tensor: torch.Tensor, blank: torch.Tensor | None) -> torch.Tensor:
    if blank is None or tensor.shape != blank.shape:
        raise CodecError(f"a layer whose tensor of shape {tuple(tensor.shape)} does not fit its options")
    return tensor


def _from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    try:
        return torch.from_numpy(np.array(array))  # a copy: views may have strides that torch refuses
    except TypeError:
        raise CodecError(f"a numpy array of dtype {array.dtype} cannot leave the notebook") from None
