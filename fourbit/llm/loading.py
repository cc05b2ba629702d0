"""From a name or a path to a model that answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fourbit.llm.artifact import ArtifactFile
from fourbit.llm.config import LlmConfig
from fourbit.llm.folder import CheckpointFolder
from fourbit.llm.gguf_file import GgufFile
from fourbit.llm.model import Transformer, frequencies
from fourbit.llm.registry import MODELS, locate
from fourbit.llm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model in float32, in evaluation mode, with its tokenizer."""

    model: Transformer
    tokenizer: Tokenizer
    path: Path

    @property
    def config(self) -> LlmConfig:
        return self.model.config


def load(name: str | Path) -> Loaded:
    """Load a model by its registry name, from a GGUF file, an artifact of lab 04, or a Hugging Face folder.

    Raises:
        ModelError: when it is not there (the message has the command that fetches it), damaged, or not supported.
    """
    registered = isinstance(name, str) and name.lower() in {model.name for model in MODELS}
    path = Path(name) if Path(name).exists() and not registered else locate(str(name))
    if path.is_dir():
        return Loaded(assemble(CheckpointFolder(path)), Tokenizer.from_folder(path), path)
    if path.suffix == ".safetensors":
        artifact = ArtifactFile(path)
        return Loaded(assemble(artifact), artifact.tokenizer(), path)
    file = GgufFile(path)
    return Loaded(assemble(file), Tokenizer.from_gguf(file.metadata), path)


def assemble(source: GgufFile | CheckpointFolder | ArtifactFile) -> Transformer:
    """Build the model and fill it from a file, without initializing its weights first."""
    with torch.device("meta"):
        model = Transformer(source.config)
    weights = {name: source.tensor(name) for name in source.names()}
    if source.config.tied:
        weights["lm_head.weight"] = weights["embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    model.register_buffer("turns", frequencies(source.config), persistent=False)
    if source.config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model.requires_grad_(False).eval()
