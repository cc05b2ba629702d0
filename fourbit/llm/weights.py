"""A model's weights as its file stores them: matrices that the kernels read in place, vectors in float32.

A matrix is a view of the mapped file: nothing is decoded and nothing copied, so that a 4-bit model takes its file's
size in memory and pages come in as they are used. What no kernel reads, and checkpoint folders, are held as float16
or float32; `notes` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fourbit import kernels
from fourbit.errors import KernelError, ModelError
from fourbit.kernels import Matrix
from fourbit.llm.artifact import ArtifactFile
from fourbit.llm.config import LlmConfig
from fourbit.llm.folder import CheckpointFolder
from fourbit.llm.gguf_file import GgufFile
from fourbit.llm.registry import MODELS, locate
from fourbit.llm.tokenizer import Tokenizer

_HALF_STEP = 2.0**-25  # of the smallest float16 above 0


@dataclass(frozen=True)
class LayerWeights:
    """One layer: matrices (out, in), gains (width,), and the biases of queries, keys and values if it has them."""

    input_gain: Tensor
    qkv: tuple[Matrix, Matrix, Matrix]
    biases: tuple[Tensor, Tensor, Tensor] | None
    output: tuple[Matrix]
    post_gain: Tensor
    gate_up: tuple[Matrix, Matrix]
    down: tuple[Matrix]


@dataclass(frozen=True)
class Weights:
    """A whole model. `paired` says that the two channels of a rotated pair are neighbors, as in llama's GGUF files."""

    path: Path
    config: LlmConfig
    tokenizer: Tokenizer
    embeddings: Matrix
    layers: tuple[LayerWeights, ...]
    gain: Tensor
    head: tuple[Matrix]
    paired: bool
    notes: tuple[str, ...]

    def matrices(self) -> list[Matrix]:
        """Return all matrices, each once."""
        found = {id(self.embeddings): self.embeddings, id(self.head[0]): self.head[0]}
        for layer in self.layers:
            found |= {id(m): m for m in (*layer.qkv, *layer.output, *layer.gate_up, *layer.down)}
        return list(found.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices as they are held."""
        return sum(matrix.nbytes for matrix in self.matrices())


def open_weights(name: str | Path) -> Weights:
    """Open a model by its registry name, a GGUF file, an artifact of lab 04, or a checkpoint folder.

    Raises:
        ModelError: when it is not there (the message has the command that fetches it), damaged, or not supported.
    """
    registered = isinstance(name, str) and name.lower() in {model.name for model in MODELS}
    path = Path(name) if Path(name).exists() and not registered else locate(str(name))
    try:
        if path.is_dir():
            return _assemble(path, _Folder(path))
        return _assemble(path, _Artifact(path) if path.suffix == ".safetensors" else _Gguf(path))
    except KernelError as error:
        raise ModelError(f"{path} has a matrix that the kernels cannot read: {error}") from None


class _Source(Protocol):
    config: LlmConfig
    paired: bool
    notes: list[str]

    def tokenizer(self) -> Tokenizer: ...
    def vector(self, name: str) -> Tensor: ...
    def matrix(self, name: str) -> Matrix: ...


class _Gguf:
    def __init__(self, path: Path) -> None:
        self._file, self.notes = GgufFile(path), list[str]()
        self.config, self.paired = self._file.config, self._file.config.architecture != "qwen2"

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_gguf(self._file.metadata)

    def vector(self, name: str) -> Tensor:
        return self._file.stored(name).decoded()

    def matrix(self, name: str) -> Matrix:
        packed = self._file.stored(name)
        if packed.kind.name in kernels.KINDS:
            return Matrix.from_packed(packed)
        matrix = _plain(packed.decoded())
        self.notes.append(f"{name} is {packed.kind.name}, which no kernel reads: held as {matrix.kind}")
        return matrix


class _Artifact:
    def __init__(self, path: Path) -> None:
        self._file, self.notes = ArtifactFile(path), list[str]()
        self.config, self.paired = self._file.config, False

    def tokenizer(self) -> Tokenizer:
        return self._file.tokenizer()

    def vector(self, name: str) -> Tensor:
        return self._file.tensor(name)

    def matrix(self, name: str) -> Matrix:
        parts = self._file.packed(name)
        if parts is None:
            return _plain(self._file.tensor(name))
        rows, columns = self.config.shapes()[name]
        return Matrix.from_artifact(parts, self._file.bits, self._file.group, (rows, columns))


class _Folder:
    def __init__(self, path: Path) -> None:
        self._file, self._path = CheckpointFolder(path), path
        self.config, self.paired, self.notes = self._file.config, False, list[str]()

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self._path)

    def vector(self, name: str) -> Tensor:
        return self._file.tensor(name)

    def matrix(self, name: str) -> Matrix:
        return _plain(self._file.tensor(name))


def _plain(values: Tensor) -> Matrix:
    """Hold numbers as float16 if none moves by more than half its smallest step (no bfloat16 does), else as float32."""
    fits = bool(((values.half().float() - values).abs() <= _HALF_STEP).all())
    return Matrix.from_tensor(values, "F16" if fits else "F32")


def _assemble(path: Path, source: _Source) -> Weights:
    config = source.config
    embeddings = source.matrix("embed_tokens.weight")
    layers = tuple(_layer(config, source.matrix, source.vector, f"layers.{i}") for i in range(config.layers))
    head = embeddings if config.tied else source.matrix("lm_head.weight")
    gain, tokenizer = source.vector("norm.weight"), source.tokenizer()
    return Weights(path, config, tokenizer, embeddings, layers, gain, (head,), source.paired, tuple(source.notes))


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
        (matrix(f"{at}.self_attn.o_proj.weight"),),
        vector(f"{at}.post_attention_layernorm.weight"),
        (matrix(f"{at}.mlp.gate_proj.weight"), matrix(f"{at}.mlp.up_proj.weight")),
        (matrix(f"{at}.mlp.down_proj.weight"),),
    )
