"""A model's weights as its file stores them: matrices that the kernels read in place, vectors in float32.

Nothing is decoded and nothing copied: a matrix is a view of the mapped file, so that a 4-bit model takes its file's
size in memory and pages come in as they are used. The exceptions (formats without a kernel) are named in `notes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fourbit import kernels
from fourbit.errors import ModelError
from fourbit.kernels import Matrix
from fourbit.llm.artifact import ArtifactFile
from fourbit.llm.config import LlmConfig
from fourbit.llm.gguf_file import GgufFile
from fourbit.llm.registry import MODELS, locate
from fourbit.llm.tokenizer import Tokenizer


@dataclass(frozen=True)
class LayerWeights:
    """One layer: matrices (out, in), gains (width,), and the biases of queries, keys and values if it has them."""

    input_gain: Tensor
    qkv: tuple[Matrix, Matrix, Matrix]
    biases: tuple[Tensor, Tensor, Tensor] | None
    output: Matrix
    post_gain: Tensor
    gate_up: tuple[Matrix, Matrix]
    down: Matrix


@dataclass(frozen=True)
class Weights:
    """A whole model. `paired` says that the two channels of a rotated pair are neighbors, as in llama's GGUF files."""

    path: Path
    config: LlmConfig
    tokenizer: Tokenizer
    embeddings: Matrix
    layers: tuple[LayerWeights, ...]
    gain: Tensor
    head: Matrix
    paired: bool
    notes: tuple[str, ...]

    def matrices(self) -> list[Matrix]:
        """Return all matrices, each once."""
        found = {id(self.embeddings): self.embeddings, id(self.head): self.head}
        for layer in self.layers:
            found |= {id(m): m for m in (*layer.qkv, layer.output, *layer.gate_up, layer.down)}
        return list(found.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices as they are held."""
        return sum(matrix.nbytes for matrix in self.matrices())


def open_weights(name: str | Path) -> Weights:
    """Open a model by its registry name, a GGUF file, or an artifact of lab 04.

    Raises:
        ModelError: when it is not there, damaged, or of a kind that is run by `fourbit.llm.load` only.
    """
    registered = isinstance(name, str) and name.lower() in {model.name for model in MODELS}
    path = Path(name) if Path(name).exists() and not registered else locate(str(name))
    if path.is_dir():
        raise ModelError(
            f"{path} is a checkpoint folder; the engine runs GGUF files and lab 04's artifacts "
            "(`save_artifact` makes one from it)"
        )
    source = _Artifact(path) if path.suffix == ".safetensors" else _Gguf(path)
    return _assemble(path, source)


@dataclass
class _Gguf:
    path: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = GgufFile(self.path)
        self.config, self.paired = self.file.config, self.file.config.architecture != "qwen2"

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_gguf(self.file.metadata)

    def vector(self, name: str) -> Tensor:
        return self.file.stored(name).decoded()

    def matrix(self, name: str) -> Matrix:
        packed = self.file.stored(name)
        rows, columns = packed.shape
        if packed.kind.name in kernels.KINDS:
            data = packed.data.view(np.uint8).reshape(rows, -1)
            return Matrix(packed.kind.name, rows, columns, data)
        self.notes.append(f"{name} is stored as {packed.kind.name}, for which there is no kernel: held as float16")
        return _half(packed.decoded())


@dataclass
class _Artifact:
    path: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = ArtifactFile(self.path)
        self.config, self.paired = self.file.config, False

    def tokenizer(self) -> Tokenizer:
        return self.file.tokenizer()

    def vector(self, name: str) -> Tensor:
        return self.file.tensor(name)

    def matrix(self, name: str) -> Matrix:
        rows, columns = self.config.shapes()[name]
        packed = self.file.packed(name)
        if packed is None:
            return _half(self.file.tensor(name))
        bits, group = self.file.bits, self.file.group
        if group % 32:
            self.notes.append(f"{name} has groups of {group}, no multiple of the kernels' 32: held as float16")
            return _half(self.file.tensor(name))
        codes = packed["codes"]
        if bits not in (4, 8):
            self.notes.append(f"{name} has codes of {bits} bits, for which there is no kernel: held in 8 bits each")
            quantized = self.file.quantized(name)
            assert quantized is not None
            codes = quantized["codes"]
        parts: dict[str, Any] = {"scale": packed["scale"].numpy(), "zero": packed["zero"].numpy(), "group": group}
        return Matrix("A4" if bits == 4 else "A8", rows, columns, codes.numpy(), **parts)


def _half(values: Tensor) -> Matrix:
    rows, columns = values.shape
    return Matrix("F16", rows, columns, values.half().contiguous().numpy().view(np.uint8))


def _assemble(path: Path, source: _Gguf | _Artifact) -> Weights:
    config = source.config
    embeddings = source.matrix("embed_tokens.weight")
    layers = tuple(_layer(config, source.matrix, source.vector, f"layers.{i}") for i in range(config.layers))
    return Weights(
        path, config, source.tokenizer(), embeddings, layers, source.vector("norm.weight"),
        embeddings if config.tied else source.matrix("lm_head.weight"), source.paired, tuple(source.notes),
    )  # fmt: skip


def _layer(
    config: LlmConfig, matrix: Callable[[str], Matrix], vector: Callable[[str], Tensor], at: str
) -> LayerWeights:
    query, key, value = (f"{at}.self_attn.{part}_proj" for part in "qkv")
    biases = None
    if config.qkv_bias:
        biases = (vector(f"{query}.bias"), vector(f"{key}.bias"), vector(f"{value}.bias"))
    return LayerWeights(
        vector(f"{at}.input_layernorm.weight"),
        (matrix(f"{query}.weight"), matrix(f"{key}.weight"), matrix(f"{value}.weight")),
        biases,
        matrix(f"{at}.self_attn.o_proj.weight"),
        vector(f"{at}.post_attention_layernorm.weight"),
        (matrix(f"{at}.mlp.gate_proj.weight"), matrix(f"{at}.mlp.up_proj.weight")),
        matrix(f"{at}.mlp.down_proj.weight"),
    )
