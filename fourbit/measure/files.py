"""What a set of tensors really costs on disk, read off the file that they make.

The format is safetensors: eight bytes of length, a JSON header, then the raw data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save


@dataclass(frozen=True)
class FileSize:
    """Bytes of one file: `header` (length field included) + `data` = `total`."""

    header: int
    data: int

    @property
    def total(self) -> int:
        """Bytes of the whole file, as ``os.stat`` reports them."""
        return self.header + self.data


def file_size(tensors: Mapping[str, torch.Tensor]) -> FileSize:
    """Return the exact size of the safetensors file of `tensors`, by writing it in memory.

    Tied weights are stored once per name; drop one of the names to store them once.
    """
    written = save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})
    header = 8 + int.from_bytes(written[:8], "little")
    return FileSize(header=header, data=len(written) - header)
