"""A matrix of weights as its file stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fourbit.errors import KernelError

if TYPE_CHECKING:
    from fourbit.llm.gguf_file import Packed

Array = np.ndarray[Any, Any]
# {kind: (bytes, columns)} of a block. The order is that of `enum Kind` in c/common.h.
BLOCKS = {
    "F32": (4, 1), "F16": (2, 1), "Q8_0": (34, 32), "Q4_0": (18, 32), "Q4_1": (20, 32), "Q4_K": (144, 256),
    "Q5_K": (176, 256), "Q6_K": (210, 256), "GROUP4": (1, 2), "GROUP8": (1, 1),
}  # fmt: skip
KINDS = tuple(BLOCKS)
_GROUPED = {4: "GROUP4", 8: "GROUP8"}


@dataclass(frozen=True, eq=False)
class Matrix:
    """Weights (out, in) in one of the KINDS; nothing is copied, so a mapped file stays on disk until it is read.

    F32, F16 and the Q kinds are GGUF's: `data` uint8 (out, bytes of a row). GROUP4 and GROUP8 are lab 04's artifact: 4
    or 8 bits a code, column 2j in the low half of byte j; `scale` float16 and `zero` uint8 (out, groups); a weight is
    (code - zero) * scale, and `group` columns share both (the last group of a row may be shorter).

    Raises:
        KernelError: for an unknown kind, or arrays of other shapes and types.
    """

    kind: str
    shape: tuple[int, int]
    data: Array
    scale: Array | None = None
    zero: Array | None = None
    group: int = 0

    def __post_init__(self) -> None:
        if self.kind not in BLOCKS:
            raise KernelError(f"there is no kernel for matrices of kind {self.kind}; there are {', '.join(KINDS)}")
        rows, columns = self.shape
        size, block = BLOCKS[self.kind]
        if rows < 1 or columns < 1 or (columns % block and self.kind != "GROUP4"):
            raise KernelError(f"a matrix {self.shape} cannot be {self.kind}, whose blocks have {block} columns")
        self._refuse("data", self.data, (rows, -(-columns // block) * size), np.uint8)
        grouped = self.kind in _GROUPED.values()
        if grouped != (self.group > 0 and self.scale is not None and self.zero is not None):
            raise KernelError(f"{self.kind} {'needs' if grouped else 'has no'} scale, zero and group")
        if self.scale is not None and self.zero is not None:
            groups = (rows, -(-columns // self.group))
            self._refuse("scale", self.scale, groups, np.float16)
            self._refuse("zero", self.zero, groups, np.uint8)

    def _refuse(self, name: str, array: Array, shape: tuple[int, int], dtype: type) -> None:
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise KernelError(
                f"{name} of a {self.kind} matrix {self.shape} is {array.dtype} {array.shape}"
                f"{'' if array.flags.c_contiguous else ', not contiguous'}; it must be {np.dtype(dtype)} {shape}"
            )

    @classmethod
    def from_packed(cls, packed: Packed) -> Matrix:
        """Return a GGUF tensor as a matrix, a view of the same bytes.

        Raises:
            KernelError: for a type without a kernel.
        """
        rows, columns = packed.shape
        return cls(packed.kind.name, (rows, columns), packed.data.view(np.uint8).reshape(rows, -1))

    @classmethod
    def from_artifact(cls, parts: Mapping[str, Tensor], bits: int, group: int, shape: tuple[int, int]) -> Matrix:
        """Return a matrix of lab 04's artifact from its parts "codes" (packed), "scale" and "zero".

        Codes of 4 and 8 bits are views of the same bytes; others are repacked in memory, up to 3 bits to 4, up to 7
        to 8.

        Raises:
            KernelError: for parts of other shapes.
        """
        from fourbit.llm.artifact import pack, unpack

        codes = parts["codes"]
        if bits not in _GROUPED:
            codes, bits = unpack(codes, bits, shape[1]), 4 if bits < 4 else 8
            codes = pack(codes, 4) if bits == 4 else codes
        arrays = codes.numpy(), parts["scale"].numpy(), parts["zero"].numpy()
        return cls(_GROUPED[bits], shape, *arrays, group)

    @classmethod
    def from_tensor(cls, values: Tensor, kind: str = "F16") -> Matrix:
        """Return values (out, in) held as F32 or F16.

        Raises:
            KernelError: for another kind.
        """
        if kind not in ("F32", "F16"):
            raise KernelError(f"a tensor is held as F32 or F16, not {kind}; fourbit.llm.gguf_file.encoded packs others")
        numbers = (values.float() if kind == "F32" else values.half()).contiguous().numpy()
        return cls(kind, (values.shape[0], values.shape[1]), numbers.view(np.uint8))

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Inputs."""
        return self.shape[1]

    @cached_property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        extra = sum(array.nbytes for array in (self.scale, self.zero) if array is not None)
        return self.data.nbytes + extra
