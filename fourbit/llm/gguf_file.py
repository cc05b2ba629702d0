"""GGUF files, read and written through the `gguf` package (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Tensors carry Hugging Face's names here, and Hugging Face's order of rows. Files of architecture "llama" store the rows
of the query and key matrices so that the two channels of a rotated pair are neighbors; the model wants them half a head
apart, so rows are moved on reading and moved back on writing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.gguf_names import ROPE_FACTORS, gguf_name, paired, rotated_heads

READ = (
    Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1,
    Kind.Q4_K, Kind.Q5_K, Kind.Q6_K,
)  # fmt: skip
WRITE = (Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1)
_OURS = ("general.architecture", "general.file_type", "general.quantization_version", "general.alignment")


@dataclass(frozen=True)
class Packed:
    """A tensor as a GGUF file stores it: its type, its shape in weights, and its rows of bytes (or of numbers)."""

    kind: Kind
    shape: tuple[int, ...]
    data: np.ndarray[Any, Any]

    def decoded(self) -> Tensor:
        """Return the values, float32."""
        values = np.require(gguf.dequantize(self.data, self.kind), np.float32, "W")
        return torch.from_numpy(values).reshape(self.shape)


class GgufFile:
    """An open GGUF file: `config`, `metadata` (key -> Python value), and its tensors by Hugging Face's names.

    Raises:
        ModelError: when the file is missing, cut off, no GGUF file, or of a model that is not supported.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        reader = _open(self.path)
        self._stored = {tensor.name: tensor for tensor in reader.tensors}
        self.metadata = _Metadata(reader.fields)
        if self.metadata.get("split.count", 0) > 1:
            raise ModelError(f"{self.path} is one part of several; join them with `llama-gguf-split --merge`")
        try:
            self.config = LlmConfig.from_gguf(self.metadata, frozenset(self._stored))
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from None
        other = sorted(set(self._stored) - {ROPE_FACTORS} - {gguf_name(name) for name in self.names()})
        if other:
            raise ModelError(f"{self.path} has tensors that no supported model has: {', '.join(other[:4])}")
        if ROPE_FACTORS in self._stored:
            self.config = replace(self.config, rope_scaling=tuple(self._stored[ROPE_FACTORS].data.tolist()))

    def names(self) -> list[str]:
        """Return the names of the model's tensors, in the order of the model."""
        return list(self.config.shapes())

    def packed(self, name: str) -> Packed:
        """Return a tensor in its stored type, its rows in Hugging Face's order.

        Raises:
            ModelError: as :meth:`stored` does.
        """
        packed, heads = self.stored(name), rotated_heads(self.config, name)
        return replace(packed, data=_moved(packed.data, heads, apart=True)) if heads else packed

    def stored(self, name: str) -> Packed:
        """Return a tensor as the file has it, a view of its mapped bytes.

        Raises:
            ModelError: when it is missing, of another shape, or of a type that is not supported.
        """
        stored, wanted = self._stored.get(gguf_name(name)), self.config.shapes()[name]
        if stored is None:
            raise ModelError(f"{self.path} has no tensor {gguf_name(name)} ({name}); fetch the file again")
        kind, shape = Kind(stored.tensor_type), tuple(int(n) for n in reversed(stored.shape))
        if kind not in READ:
            known = ", ".join(known.name for known in READ)
            raise ModelError(f"{self.path}: {gguf_name(name)} is of type {kind.name}; supported are {known}")
        if shape != wanted:
            raise ModelError(f"{self.path}: {gguf_name(name)} has shape {shape}; the metadata ask for {wanted}")
        return Packed(kind, shape, stored.data)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, float32, of the shape that `config.shapes()` gives.

        Raises:
            ModelError: as :meth:`packed` does.
        """
        return self.packed(name).decoded()


class _Reader(gguf.GGUFReader):
    """The package's reader on a plain array: a vocabulary takes 300,000 slices, and those of a memmap are slow."""

    @property  # type: ignore[override]
    def data(self) -> np.ndarray[Any, Any]:
        return self._plain

    @data.setter
    def data(self, mapped: np.ndarray[Any, Any]) -> None:
        self._plain = np.asarray(mapped)

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> np.ndarray[Any, Any]:
        """Read numbers, and stop where the file ends: the package goes on with empty ones, up to 2^64 of them."""
        found: np.ndarray[Any, Any] = super()._get(offset, dtype, count, override_order)
        if len(found) < count:
            raise ValueError("it ends early")
        return found


def _open(path: Path) -> gguf.GGUFReader:
    try:
        return _Reader(path)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; `fourbit models` lists what can be fetched") from None
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise ModelError(f"{path} is cut off or no GGUF file ({error}); fetch it again") from None


def _moved(rows: np.ndarray[Any, Any], heads: int, *, apart: bool) -> np.ndarray[Any, Any]:
    """Move rows as `paired` does, packed or not."""
    order = paired(torch.arange(len(rows)), heads, apart=apart).numpy()
    moved: np.ndarray[Any, Any] = rows[order]
    return moved


class _Metadata(Mapping[str, Any]):
    """The file's metadata as Python values, decoded when asked for: a vocabulary takes a while."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._values: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            field = self._fields[key]
            try:
                self._values[key] = field.contents()
            except (ValueError, IndexError) as error:  # a text that is no UTF-8, an array of no type
                raise ModelError(f"the metadata's {key} is damaged ({error}); fetch the file again") from None
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def encoded(values: Tensor, kind: str) -> Packed:
    """Return values (rows, columns) in one of the types F32, F16, Q8_0, Q4_0, Q4_1, rounded as llama.cpp rounds them.

    Raises:
        ModelError: for another type, or when the columns are no multiple of the type's block.
    """
    chosen = Kind[kind] if kind in Kind.__members__ else None
    if chosen not in WRITE:
        raise ModelError(f"type {kind} cannot be written; {', '.join(k.name for k in WRITE)} can")
    block, _ = gguf.GGML_QUANT_SIZES[chosen]
    if values.shape[-1] % block:
        raise ModelError(f"rows of {values.shape[-1]} values are no multiple of the {block} that {kind} packs together")
    numbers = values.detach().to("cpu", torch.float32).contiguous().numpy()
    return Packed(chosen, tuple(values.shape), gguf.quants.quantize(numbers, chosen))


def write_gguf(
    path: Path | str, config: LlmConfig, tensors: Mapping[str, Tensor | Packed], metadata: Mapping[str, Any]
) -> None:
    """Write a model: tensors by Hugging Face's names, those not packed as float32.

    `metadata` are another file's: what it says about the model's origin and its tokenizer is copied. The file appears
    under its name when it is complete.

    Raises:
        ModelError: when a tensor of the model is missing or has another shape, or the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    writer = gguf.GGUFWriter(part, "llama" if config.architecture == "mistral" else config.architecture)
    describe(writer, config)
    for key, value in metadata.items():
        if key.startswith(("tokenizer.", "general.")) and key not in _OURS:
            _add(writer, key, value)
    for name in config.shapes():
        packed = _as_stored(config, name, tensors)
        raw = None if packed.kind in (Kind.F32, Kind.F16) else packed.kind
        writer.add_tensor(gguf_name(name), packed.data, raw_dtype=raw)
    if config.rope_scaling is not None:
        writer.add_tensor(ROPE_FACTORS, np.array(config.rope_scaling, np.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(part, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror})") from None
    finally:
        writer.close()
        part.unlink(missing_ok=True)


def _as_stored(config: LlmConfig, name: str, tensors: Mapping[str, Tensor | Packed]) -> Packed:
    if name not in tensors:
        raise ModelError(f"{name} is missing; a file needs the {len(config.shapes())} tensors of config.shapes()")
    value, wanted = tensors[name], config.shapes()[name]
    packed = value if isinstance(value, Packed) else encoded(value, "F32")
    if packed.shape != wanted:
        raise ModelError(f"{name} has shape {packed.shape}; the model needs {wanted}")
    heads = rotated_heads(config, name)
    return replace(packed, data=_moved(packed.data, heads, apart=False)) if heads else packed


def describe(writer: gguf.GGUFWriter, config: LlmConfig) -> None:
    """Write a model's sizes and constants into the metadata."""
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.ff)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocabulary)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)
