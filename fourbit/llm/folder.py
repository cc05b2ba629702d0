"""Hugging Face checkpoint folders: config.json and safetensors files, one or several with an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ModelError: when it is missing or damaged.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; a checkpoint folder has one") from None
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object; fetch it again")
    return found


class CheckpointFolder:
    """A checkpoint folder: `config`, and its tensors by name.

    Raises:
        ModelError: when a file is missing or damaged, or the architecture is not supported.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        described = read_json(self.path / "config.json")
        try:
            self.config = LlmConfig.from_hf(described)
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from None
        self._files = self._find()
        expected = {self._stored(name) for name in self.names()}
        ignored = (".inv_freq", "lm_head.weight")  # computed here; a tied head that is stored all the same
        other = sorted(name for name in self._files if name not in expected and not name.endswith(ignored))
        if other:
            raise ModelError(f"{self.path} has tensors that no supported model has: {', '.join(other[:4])}")

    def _find(self) -> dict[str, str]:
        """Return {stored name of a tensor: file}."""
        if not (self.path / INDEX).is_file():
            return dict.fromkeys(self._keys(SINGLE), SINGLE)
        files = read_json(self.path / INDEX).get("weight_map")
        if not isinstance(files, dict):
            raise ModelError(f"{self.path / INDEX} has no weight_map; fetch it again")
        return files

    @staticmethod
    def _stored(name: str) -> str:
        return name if name.startswith("lm_head.") else f"model.{name}"

    def _keys(self, file: str) -> list[str]:
        with self._open(file) as tensors:
            return list(tensors.keys())

    def _open(self, file: str) -> Any:
        try:
            return safe_open(self.path / file, framework="pt")
        except (FileNotFoundError, SafetensorError, OSError) as error:
            raise ModelError(f"{self.path / file} is missing or damaged ({error}); fetch it again") from None

    def names(self) -> list[str]:
        """Return the names of the model's tensors, in the order of the model."""
        return list(self.config.shapes())

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as float32.

        Raises:
            ModelError: when it is missing or of another shape than config.json asks for.
        """
        stored = self._stored(name)
        if stored not in self._files:
            raise ModelError(f"{self.path} has no tensor {stored}; fetch the folder again")
        with self._open(self._files[stored]) as tensors:
            if stored not in tensors.keys():  # noqa: SIM118 (an open file, not a dict)
                raise ModelError(f"{self.path / self._files[stored]} has no tensor {stored}; fetch it again")
            values: Tensor = tensors.get_tensor(stored)
        wanted = self.config.shapes()[name]
        if values.shape != wanted:
            raise ModelError(f"{self.path}: {stored} has shape {tuple(values.shape)}; config.json asks for {wanted}")
        return values.to(torch.float32)
