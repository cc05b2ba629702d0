"""The idx format of the MNIST family: a big-endian header, then raw bytes.

Header: two zero bytes, a type code (8 = unsigned byte), the number of dimensions, then one uint32 per dimension.
Reference: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from fourbit.errors import DataError

_UNSIGNED_BYTE = 8


def read_idx(data: bytes | memoryview, *, what: str = "idx data") -> tuple[npt.NDArray[np.uint8], int]:
    """Return the array at the start of `data` (a view, any shape) and the number of bytes it occupies.

    Raises:
        DataError: if the header is not that of unsigned bytes or the data are shorter than it promises.
    """
    head = bytes(data[:4])
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTE or not 1 <= head[3] <= 4:
        raise DataError(f"{what}: not an idx file of unsigned bytes (it starts with {head.hex(' ') or 'nothing'})")
    start = 4 + 4 * head[3]
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], dtype=">u4")) if len(data) >= start else ()
    if len(data) < start or len(data) - start < prod(shape):
        raise DataError(f"{what}: cut short, {len(data):,} bytes are fewer than its header promises")
    return np.frombuffer(data, dtype=np.uint8, count=prod(shape), offset=start).reshape(shape), start + prod(shape)


def write_idx(array: npt.NDArray[np.uint8]) -> bytes:
    """Return `array` (uint8, 1 to 4 dimensions) as the bytes of an idx file."""
    if array.dtype != np.uint8 or not 1 <= array.ndim <= 4:
        raise DataError(f"idx holds uint8 arrays of 1 to 4 dimensions here, not {array.dtype} {array.shape}")
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.tobytes()
