"""Images and labels as tensors, split so that nothing is ever selected on test images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fourbit.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Labeled images: `x` uint8 (N, C, H, W), `y` int64 (N,).

    Raises:
        DataError: if shapes or dtypes are other than these.
    """

    x: torch.Tensor
    y: torch.Tensor

    def __post_init__(self) -> None:
        if self.x.dtype != torch.uint8 or self.x.ndim != 4:
            raise DataError(f"images must be uint8 (N, C, H, W), not {self.x.dtype} {tuple(self.x.shape)}")
        if self.y.dtype != torch.int64 or self.y.shape != self.x.shape[:1]:
            found = f"{self.y.dtype} {tuple(self.y.shape)}"
            raise DataError(f"labels of {len(self.x)} images must be int64 ({len(self.x)},), not {found}")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: slice | torch.Tensor) -> Split:
        """Return the images and labels of `rows` (a slice, an index tensor or a boolean mask)."""
        return Split(self.x[rows], self.y[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its three splits: learn on `train`, choose on `val`, report on `test`."""

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]


def to_float(x: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32 in [0, 1]: x / 255, same shape, channels_last if `x` is.

    No mean is subtracted: a pixel is then already an 8-bit quantized value with scale 1/255 and zero point 0, and
    the batch normalization after the first convolution does the rest.

    Raises:
        DataError: if `x` is not uint8; images that are already floating point must not be divided twice.
    """
    if x.dtype != torch.uint8:
        raise DataError(f"to_float takes uint8 images, not {x.dtype}; these look converted already")
    return x.to(torch.float32).div_(255.0)
