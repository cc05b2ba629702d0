"""A quantized model in one safetensors file: codes, scales and zeros of its matrices, all else in float16.

For a matrix `NAME` (out, in) the file holds `NAME.codes`, uint8 (out, ceil(in * bits / 8)): the codes of a row, the
lowest bit first, the last byte filled up with zeros; `NAME.scale`, float16 (out, groups); and `NAME.zero`, uint8 (out,
groups). A weight is (code - zero) * scale. The header says bits and group size, the shape of the model, and what its
tokenizer is made from, so that the file needs no other.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig, plausible
from fourbit.llm.gguf_file import GgufFile, Packed, encoded, write_gguf
from fourbit.llm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from fourbit.llm.loading import Loaded

FORMAT = "fourbit 1"
PARTS = {"codes": "codes", "scale": "scales", "zero": "zeros"}
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
Codes = Mapping[str, Tensor]


def pack(codes: Tensor, bits: int) -> Tensor:
    """Return codes (rows, columns) uint8, each below 2**bits, as bytes (rows, ceil(columns * bits / 8))."""
    each = np.unpackbits(codes.numpy()[..., None], axis=-1, bitorder="little")[..., :bits]
    return torch.from_numpy(np.packbits(each.reshape(len(codes), -1), axis=1, bitorder="little"))


def unpack(data: Tensor, bits: int, columns: int) -> Tensor:
    """Return the codes (rows, columns) uint8 that :func:`pack` packed."""
    each = np.unpackbits(data.numpy(), axis=1, count=columns * bits, bitorder="little")
    return torch.from_numpy(np.packbits(each.reshape(len(data), columns, bits), axis=-1, bitorder="little")[..., 0])


def save_artifact(
    path: Path | str,
    loaded: Loaded,
    quantized: Mapping[str, Codes],
    bits: int,
    group: int,
    changed: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model with some of its matrices quantized. The file appears under its name when it is complete.

    Args:
        loaded: where the configuration, the tokenizer and all other tensors come from.
        quantized: {name: {"codes": uint8 (out, in); "scale": float16 (out, groups); "zero": uint8 (out, groups)}}.
        bits: 1 to 8; group: inputs that share a scale; the last group of a row may be shorter.
        changed: {name: tensor} that takes the place of the model's, as folded norms do.

    Raises:
        ModelError: for a name or a shape that the model does not have, or when the file cannot be written.
    """
    config, path = loaded.config, Path(path)
    values = dict(loaded.model.state_dict()) | dict(changed or {})
    tensors: dict[str, Tensor] = {}
    for name in quantized:
        if name not in config.shapes():
            raise ModelError(f"{name} is no tensor of this model; matrices are named as in config.shapes()")
    for name, shape in config.shapes().items():
        if name in quantized:
            _refuse_other_shapes(f"{name} to be saved", quantized[name], shape, group)
            tensors[f"{name}.codes"] = pack(quantized[name]["codes"], bits)
            tensors |= {f"{name}.{part}": quantized[name][part].contiguous() for part in ("scale", "zero")}
        elif values[name].shape == shape:
            tensors[name] = values[name].half().contiguous()
        else:
            raise ModelError(f"{name} has shape {tuple(values[name].shape)}; the model needs {shape}")
    about = {
        "format": FORMAT,
        "bits": str(bits),
        "group": str(group),
        "config": json.dumps(asdict(config)),
        "tokenizer": json.dumps(_tokenizer_source(loaded.path), ensure_ascii=False),
    }
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        save_file(tensors, part, about)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be written ({error})") from None
    finally:
        part.unlink(missing_ok=True)


class ArtifactFile:
    """An open artifact: `config`, `bits`, `group`, and its tensors by Hugging Face's names.

    Raises:
        ModelError: when the file is missing, cut off, or none of these.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self._tensors = safe_open(self.path, framework="pt")
        except FileNotFoundError:
            raise ModelError(f"{self.path} does not exist; `save_artifact` of lab 04 writes one") from None
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{self.path} is cut off or no safetensors file ({error}); save it again") from None
        self._about: dict[str, str] = self._tensors.metadata() or {}
        if self._about.get("format") != FORMAT:
            raise ModelError(f"{self.path} is no artifact of lab 04; a checkpoint is loaded by the path of its folder")
        try:
            self.bits, self.group = int(self._about["bits"]), int(self._about["group"])
            described = json.loads(self._about["config"])
            slower = described.get("rope_scaling")
            config = LlmConfig(**described | {"rope_scaling": None if slower is None else tuple(map(float, slower))})
            self.config = plausible(config)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ModelError(f"{self.path} has a damaged header ({error}); save it again") from None
        if not (1 <= self.bits <= 8 and self.group >= 1):
            raise ModelError(f"{self.path} claims {self.bits} bits in groups of {self.group}; save it again")
        self._stored = set(self._tensors.keys())

    def names(self) -> list[str]:
        """Return the names of the model's tensors, in the order of the model."""
        return list(self.config.shapes())

    def quantized(self, name: str) -> dict[str, Tensor] | None:
        """Return {"codes" (out, in), "scale", "zero" (out, groups)} of a matrix; None for what is kept in float16.

        Raises:
            ModelError: when parts are missing or of other shapes.
        """
        found = self.packed(name)
        if found is not None:
            found["codes"] = unpack(found["codes"], self.bits, self.config.shapes()[name][1])
        return found

    def packed(self, name: str) -> dict[str, Tensor] | None:
        """Return the parts of a matrix as the file has them, views of its mapped bytes: codes as :func:`pack` packs.

        Raises:
            ModelError: when parts are missing, or have other shapes or types.
        """
        if f"{name}.codes" not in self._stored:
            return None
        rows, columns = self.config.shapes()[name]
        data = self._stored_tensor(f"{name}.codes")
        if data.shape != (rows, -(-columns * self.bits // 8)) or data.dtype != torch.uint8:
            raise ModelError(f"{self.path}: the codes of {name} have shape {tuple(data.shape)}; save the file again")
        found = {part: self._stored_tensor(f"{name}.{part}") for part in ("scale", "zero")}
        groups = (rows, -(-columns // self.group))
        for part, dtype in (("scale", torch.float16), ("zero", torch.uint8)):
            size, held = tuple(found[part].shape), found[part].dtype
            if (size, held) != (groups, dtype):
                raise ModelError(f"{self.path}: {name} has {part} of shape {size} {held}; {groups} {dtype} fit")
        return {"codes": data} | found

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, float32.

        Raises:
            ModelError: when it is missing or of another shape than the model's.
        """
        q = self.quantized(name)
        if q is None:
            values, wanted = self._stored_tensor(name), self.config.shapes()[name]
            if values.shape != wanted:
                raise ModelError(f"{self.path}: {name} has shape {tuple(values.shape)}; the model needs {wanted}")
            return values.float()
        scale, zero = (
            q[part].float().repeat_interleave(self.group, 1)[:, : q["codes"].shape[1]] for part in ("scale", "zero")
        )
        return (q["codes"].float() - zero) * scale

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that the header describes."""
        source = self.tokenizer_source()
        if "gguf" in source:
            return Tokenizer.from_gguf(source["gguf"])
        if "folder" not in source:
            raise ModelError(f"{self.path} has no tokenizer in its header; save it again")
        with tempfile.TemporaryDirectory() as folder:
            for name in _FILES:
                if name in source["folder"]:
                    (Path(folder) / name).write_text(source["folder"][name], encoding="utf-8")
            return Tokenizer.from_folder(folder)

    def tokenizer_source(self) -> dict[str, Any]:
        """Return {"gguf": metadata} or {"folder": {file: text}}.

        Raises:
            ModelError: when the header has neither.
        """
        try:
            source: dict[str, Any] = json.loads(self._about["tokenizer"])
        except (KeyError, ValueError) as error:
            raise ModelError(f"{self.path} has no tokenizer in its header ({error}); save it again") from None
        return source

    def _stored_tensor(self, name: str) -> Tensor:
        if name not in self._stored:
            raise ModelError(f"{self.path} has no tensor {name}; save the file again")
        values: Tensor = self._tensors.get_tensor(name)
        return values


def ledger(path: Path | str) -> dict[str, int]:
    """Return the bytes of a file's "codes", "scales", "zeros", of the "rest" and of the "header": together the file.

    Raises:
        ModelError: when the file is no artifact.
    """
    file = ArtifactFile(path)
    found = dict.fromkeys((*PARTS.values(), "rest"), 0)
    for name in file._stored:
        values = file._stored_tensor(name)
        _, _, part = name.rpartition(".")
        found[PARTS.get(part, "rest")] += values.numel() * values.element_size()
    return found | {"header": file.path.stat().st_size - sum(found.values())}


def export_gguf(path: Path | str, target: Path | str) -> Path:
    """Write an artifact as a GGUF file, matrices as Q4_1 blocks of 32 weights, and return its path.

    A block of Q4_1 has a scale d and a minimum m in float16, and weights code * d + m. Here d is the scale of the group
    and m is -scale * zero rounded to float16, so a weight changes by at most 2**-11 of scale * zero.

    Raises:
        ModelError: for more than 4 bits, groups or rows that are no multiple of 32, or a tokenizer that does not come
            from a GGUF file.
    """
    file, target = ArtifactFile(path), Path(target)
    metadata = file.tokenizer_source().get("gguf")
    if metadata is None:
        raise ModelError(f"{path} has its tokenizer from a checkpoint folder; GGUF export needs one from a GGUF file")
    if file.bits > 4 or file.group % 32:
        raise ModelError(f"{path} has {file.bits} bits in groups of {file.group}; Q4_1 holds 4 bits in blocks of 32")
    tensors: dict[str, Tensor | Packed] = {}
    for name in file.names():
        q = file.quantized(name)
        if q is not None:
            tensors[name] = _q4_1(name, q, file.group)
        else:
            values = file.tensor(name)
            tensors[name] = encoded(values, "F16") if values.ndim == 2 else values
    write_gguf(target, file.config, tensors, metadata)
    return target


def _q4_1(name: str, q: Codes, group: int) -> Packed:
    """Blocks of d, m and 16 bytes, each with code i in its low and code i + 16 in its high half."""
    rows, columns = q["codes"].shape
    if columns % 32:
        raise ModelError(f"{name} has rows of {columns} weights, no multiple of the 32 that Q4_1 packs together")
    scale = q["scale"].repeat_interleave(group // 32, 1)[:, : columns // 32].numpy()
    zero = q["zero"].repeat_interleave(group // 32, 1)[:, : columns // 32].numpy()
    codes = q["codes"].view(rows, -1, 2, 16).numpy()
    least = (-scale.astype(np.float32) * zero).astype(np.float16)
    numbers = np.stack([scale, least], -1).view(np.uint8)
    data = np.concatenate([numbers, codes[:, :, 0] | codes[:, :, 1] << 4], -1)
    return Packed(Kind.Q4_1, (rows, columns), data.reshape(rows, -1))


def _refuse_other_shapes(what: str, q: Codes, shape: tuple[int, ...], group: int) -> None:
    rows, columns = shape
    groups = -(-columns // group)
    wanted = {
        "codes": ((rows, columns), torch.uint8),
        "scale": ((rows, groups), torch.float16),
        "zero": ((rows, groups), torch.uint8),
    }
    for part, (size, dtype) in wanted.items():
        if q[part].shape != size or q[part].dtype != dtype:
            raise ModelError(f"{what} has {part} of shape {tuple(q[part].shape)} {q[part].dtype}; {size} {dtype} fit")


def _tokenizer_source(path: Path) -> dict[str, Any]:
    """What the tokenizer of a model at a path is made from, as the header keeps it."""
    if path.is_dir():
        files = (path / name for name in _FILES)
        return {"folder": {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}}
    if path.suffix == ".safetensors":
        return ArtifactFile(path).tokenizer_source()
    metadata = GgufFile(path).metadata
    kept = [key for key in metadata if key.startswith(("tokenizer.", "general."))]
    return {"gguf": {key: metadata[key] for key in kept}}
