"""Tools around quantization that lab 02 uses and does not ask for: networks of integers, and compressed files.

A compressed file holds a network as Deep Compression does (Han et al., arXiv:1510.00149): of each layer only the
nonzero weights, each as an index into a codebook and a gap to the one before, both Huffman coded with a canonical
code whose lengths stand in the file. :func:`read_compressed` restores every weight from the bits alone.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fourbit.errors import FourbitError

Lengths = Callable[[list[int]], list[int]]  # counts of the symbols -> bits of their codes, 0 where the count is 0

_SHARED = struct.Struct("<BHI")  # 1, codebook entries, Huffman-coded pairs (gap, code)
_DENSE = b"\x00"
_MAX_CODEBOOK = 256
_SKIP = 255  # the gap symbol that says: 255 zeros and no weight
_TABLE_BITS = 6  # bits in which the length of a symbol's code is written


def replaced(model: nn.Sequential, weights: Mapping[str, torch.Tensor]) -> nn.Sequential:
    """Return a copy of `model` in evaluation mode with these weights, by layer name; all else stays."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, weight in weights.items():
            slot = model.get_submodule(name).get_parameter("weight")
            if slot.shape != weight.shape:
                raise FourbitError(f"{name} has a weight of {tuple(slot.shape)}, not {tuple(weight.shape)}")
            slot.copy_(weight)
    return model


def unpack_codes(data: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return the first `count` codes, uint8 (count,), of a little-endian bit stream of `bits` bits each.

    Args:
        data: uint8 (bytes,); code i stands in bits i * bits to (i + 1) * bits - 1, least significant first.

    Raises:
        FourbitError: when the stream is too short for them.
    """
    stream = np.unpackbits(data.numpy(), bitorder="little")
    if len(stream) < count * bits:
        raise FourbitError(f"{count} codes of {bits} bits need {-(-count * bits // 8)} bytes, here are {len(data)}")
    codes = np.packbits(stream[: count * bits].reshape(count, bits), axis=1, bitorder="little")
    return torch.from_numpy(codes[:, 0].copy())


# Networks of integers


@dataclass(frozen=True, eq=False)
class Grid:
    """Codes q stand for scale * (q - zero_point); `scale` is a float32 number."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class IntegerWeight:
    """A layer's weight: `codes` int8 of the weight's shape, `scale` float32 (out,), `bias` float32 (out,)."""

    codes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor


# x codes int8 (N, in), weight codes int8 (out, in), bias, x scale, x zero point, weight scale, y scale, y zero point
IntegerLayer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, int, torch.Tensor, float, int], torch.Tensor]


def activations(model: nn.Sequential, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what each convolution or linear layer of `model` puts out for `x`, after its ReLU if one follows.

    Batch normalization between the two counts to the layer. Under "input" stands `x` itself.
    """
    values, owner = {"input": x}, ""
    with torch.no_grad():
        for name, layer in model.named_children():
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                owner = name
            if owner and isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.ReLU):
                values[owner] = x
    return values


def run_integer(
    model: nn.Sequential,
    weights: Mapping[str, IntegerWeight],
    grids: Mapping[str, Grid],
    codes: torch.Tensor,
    layer_function: IntegerLayer,
) -> torch.Tensor:
    """Run the plan of `model` on integers alone and return the codes of its logits, int8 (N, classes).

    Args:
        model: convolutions (one group), linear layers, ReLU, max pooling and flatten; no batch normalization. Only
            the settings of its layers are used, never its weights.
        weights: for each convolution and linear layer.
        grids: of the input (under "input") and of each layer's output, after its ReLU; see :func:`activations`.
        codes: the input, int8 (N, C, H, W).
        layer_function: the arithmetic of one layer as a matrix product; convolutions reach it as rows of patches.

    Raises:
        FourbitError: for a layer that has no integer form here.
    """
    grid = grids["input"]
    for name, layer in model.named_children():
        if name in weights:
            codes, grid = _integer_layer(layer, weights[name], grid, grids[name], codes, layer_function), grids[name]
        elif isinstance(layer, nn.ReLU):
            codes = codes.clamp(min=grid.zero_point)
        elif isinstance(layer, nn.MaxPool2d):
            codes = layer(codes.float()).to(torch.int8)
        elif isinstance(layer, nn.Flatten):
            codes = layer(codes)
        else:
            raise FourbitError(f"{name} ({type(layer).__name__}) has no integer form here; fold batch normalization")
    return codes


def _integer_layer(
    layer: nn.Module, weight: IntegerWeight, x: Grid, y: Grid, codes: torch.Tensor, function: IntegerLayer
) -> torch.Tensor:
    matrix = weight.codes.flatten(1)  # (out, in)
    if isinstance(layer, nn.Linear):
        rows = codes
    else:
        assert isinstance(layer, nn.Conv2d)
        rows, size = _patches(codes, layer, x.zero_point)
    out = function(rows, matrix, weight.bias, x.scale, x.zero_point, weight.scale, y.scale, y.zero_point)
    if isinstance(layer, nn.Linear):
        return out
    return out.view(len(codes), -1, len(matrix)).transpose(1, 2).reshape(len(codes), len(matrix), *size)


def _patches(codes: torch.Tensor, layer: nn.Conv2d, zero_point: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """The patches of a convolution as rows, int8 (N * H * W, C * kh * kw); the border is the code of zero."""
    padding = layer.padding
    if layer.groups != 1 or isinstance(padding, str) or layer.padding_mode != "zeros":
        raise FourbitError("integer convolutions need one group and a padding with zeros, given in pixels")
    padded = F.pad(codes.float(), (padding[1], padding[1], padding[0], padding[0]), value=float(zero_point))
    kernel = (layer.kernel_size[0], layer.kernel_size[1])
    stride, dilation = (layer.stride[0], layer.stride[1]), (layer.dilation[0], layer.dilation[1])
    columns = F.unfold(padded, kernel, dilation=dilation, stride=stride)  # (N, C * kh * kw, H * W)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    height, width = ((padded.shape[2 + i] - reach[i]) // stride[i] + 1 for i in (0, 1))
    return columns.transpose(1, 2).reshape(-1, columns.shape[1]).to(torch.int8), (height, width)


# Compressed files


def write_compressed(model: nn.Sequential, lengths: Lengths) -> bytes:
    """Return `model` as the bytes of a compressed file.

    A weight of a convolution or linear layer with at most 256 different nonzero values is stored by codebook, gaps
    and Huffman codes, everything else (biases, statistics, other weights) in float32.

    Args:
        lengths: Huffman code lengths from the counts of the symbols.

    Raises:
        FourbitError: when these lengths belong to no prefix code.
    """
    return b"".join(data for _, _, data in _parts(model, lengths))


def compressed_ledger(model: nn.Sequential, lengths: Lengths) -> dict[str, int]:
    """Return the bytes of the compressed file by what they hold; they sum to its length.

    Keys: "codes" and "gaps" (they share one bit stream, whose last, partly used bytes count as gaps), "codebooks",
    "tables" (code lengths), "headers", "dense" (float32).
    """
    ledger = dict.fromkeys(("codes", "gaps", "codebooks", "tables", "headers", "dense"), 0)
    for _, parts, data in _parts(model, lengths):
        assert sum(parts.values()) == len(data)
        for key, size in parts.items():
            ledger[key] += size
    return ledger


def read_compressed(data: bytes, like: nn.Sequential) -> nn.Sequential:
    """Return a copy of `like` (which gives the layers and their shapes) with the tensors of a compressed file.

    Raises:
        FourbitError: when the file is not one of this network.
    """
    model, offset = copy.deepcopy(like).eval(), 0
    for name, tensor in _stored(model):
        try:
            flat, offset = _read_tensor(data, offset, tensor.numel())
        except (struct.error, ValueError, IndexError, KeyError):
            raise FourbitError(
                f"the file does not hold {name} of {tuple(tensor.shape)}; is it of this network?"
            ) from None
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(flat).view(tensor.shape))
    if offset != len(data):
        raise FourbitError(f"the file has {len(data) - offset} bytes left over; is it of this network?")
    return model


def _stored(model: nn.Sequential) -> Iterator[tuple[str, torch.Tensor]]:
    # By name: a parametrization that was removed leaves a layer's weight behind its bias.
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if not name.endswith("num_batches_tracked"):
            yield name, tensor.detach()


def _parts(model: nn.Sequential, lengths: Lengths) -> Iterator[tuple[str, dict[str, int], bytes]]:
    """(name, bytes by kind, bytes) of each tensor, in the order of names."""
    for name, tensor in _stored(model):
        flat = tensor.to(torch.float32).flatten().numpy()
        book, codes = np.unique(flat[flat != 0], return_inverse=True)
        if tensor.ndim < 2 or not 0 < len(book) <= _MAX_CODEBOOK:
            yield name, {"headers": 1, "dense": 4 * flat.size}, _DENSE + flat.astype("<f4").tobytes()
        else:
            yield (name, *_shared(book, codes, np.flatnonzero(flat), lengths))


def _shared(book: np.ndarray, codes: np.ndarray, places: np.ndarray, lengths: Lengths) -> tuple[dict[str, int], bytes]:
    gaps = np.diff(places, prepend=-1) - 1
    skips = gaps // _SKIP
    symbols = np.full(len(gaps) + int(skips.sum()), _SKIP)  # every gap symbol in order, skips included
    last = np.cumsum(skips + 1) - 1
    symbols[last] = gaps % _SKIP
    gap_code, code_code = (
        _Code.of(np.bincount(a, minlength=n), lengths) for a, n in ((symbols, 256), (codes, len(book)))
    )
    gap_bits, code_bits = gap_code.encode(symbols), code_code.encode(codes)
    ends = np.cumsum(gap_code.lengths[symbols])
    pieces, start = [], 0
    for end, code in zip(ends[last], np.split(code_bits, np.cumsum(code_code.lengths[codes]))[:-1], strict=True):
        pieces += [gap_bits[start:end], code]
        start = end
    stream = np.packbits(np.concatenate(pieces), bitorder="little").tobytes()
    tables = np.packbits(np.concatenate([gap_code.table(), code_code.table()]), bitorder="little").tobytes()
    head = _SHARED.pack(1, len(book), len(codes))
    kinds = {
        "headers": len(head),
        "codebooks": 4 * len(book),
        "tables": len(tables),
        "codes": len(code_bits) // 8,
        "gaps": len(stream) - len(code_bits) // 8,
    }
    return kinds, head + book.astype("<f4").tobytes() + tables + stream


def _read_tensor(data: bytes, offset: int, size: int) -> tuple[np.ndarray, int]:
    if data[offset : offset + 1] == _DENSE:
        return np.frombuffer(data, "<f4", size, offset + 1).astype(np.float32), offset + 1 + 4 * size
    form, entries, pairs = _SHARED.unpack_from(data, offset)
    if form != 1 or pairs > size:
        raise ValueError(form)
    offset += _SHARED.size
    book = np.frombuffer(data, "<f4", entries, offset)
    offset += 4 * entries
    table_bytes = -(-(256 + entries) * _TABLE_BITS // 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8, table_bytes, offset), bitorder="little")
    table = bits[: (256 + entries) * _TABLE_BITS].reshape(-1, _TABLE_BITS) @ (1 << np.arange(_TABLE_BITS))
    offset += table_bytes
    gap_code, code_code = (_Code(part).decoder() for part in (table[:256], table[256:]))
    stream = np.unpackbits(np.frombuffer(data, np.uint8, offset=offset), bitorder="little").tolist()
    flat, place, at = np.zeros(size, np.float32), -1, 0
    for _ in range(pairs):
        symbol = _SKIP
        while symbol == _SKIP:
            symbol, at = _next(stream, at, gap_code)
            place += symbol
        place += 1
        code, at = _next(stream, at, code_code)
        flat[place] = book[code]
    return flat, offset + -(-at // 8)


def _next(stream: Sequence[int], at: int, decoder: Mapping[tuple[int, int], int]) -> tuple[int, int]:
    """The symbol that begins at bit `at`, and where the next one begins."""
    value = length = 0
    while True:
        value, length = 2 * value + stream[at], length + 1
        at += 1
        if (length, value) in decoder:
            return decoder[length, value], at


class _Code:
    """A canonical prefix code: symbols in the order of (length, symbol) get consecutive code words."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths.astype(np.int64)
        if lengths.max(initial=0) >= 1 << _TABLE_BITS or sum(2.0 ** -float(n) for n in lengths if n) > 1:
            raise FourbitError(f"no prefix code has the lengths {lengths.tolist()}; the sum of 2^-length is above 1")
        self.words: dict[int, int] = {}
        word = previous = 0
        for length, symbol in sorted((int(n), s) for s, n in enumerate(lengths) if n):
            word <<= length - previous
            self.words[symbol] = word
            word, previous = word + 1, length

    @classmethod
    def of(cls, counts: np.ndarray, lengths: Lengths) -> _Code:
        found = np.array(lengths([int(n) for n in counts]))
        if found.shape != counts.shape or ((found == 0) & (counts > 0)).any():
            raise FourbitError("a symbol that occurs has no code; Huffman lengths are positive where the count is")
        return cls(found)

    def encode(self, symbols: np.ndarray) -> np.ndarray:
        """The bits of these symbols, most significant bit of each code word first."""
        words = {s: [w >> i & 1 for i in range(int(self.lengths[s]) - 1, -1, -1)] for s, w in self.words.items()}
        return np.array([bit for s in symbols.tolist() for bit in words[s]], np.uint8)

    def table(self) -> np.ndarray:
        return (self.lengths[:, None] >> np.arange(_TABLE_BITS) & 1).astype(np.uint8).ravel()

    def decoder(self) -> dict[tuple[int, int], int]:
        return {(int(self.lengths[s]), word): s for s, word in self.words.items()}
