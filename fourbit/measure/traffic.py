"""Arrays that count the bytes a kernel reads and writes, whatever machine it runs on.

A kernel in plain Python runs on `Traced` arrays as it would on NumPy's; each access by index adds its bytes to a
`Ledger`. There is no cache in this model: a byte that is read twice counts twice, as it does on a machine whose cache
is too small to keep it. :func:`replay` has one: it plays a list of tiles against a memory of limited size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fourbit.errors import FourbitError

Array = np.ndarray[Any, Any]


@dataclass
class Ledger:
    """Bytes by the name of an array; `total` is their sum.

    Attributes:
        read, written: {name: bytes}.
    """

    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.read.values()) + sum(self.written.values())

    def trace(self, **arrays: Array) -> list[Traced]:
        """Wrap arrays by name, in order."""
        return [Traced(array, name, self) for name, array in arrays.items()]


class Traced:
    """An array whose accesses by index are counted.

    Example:
        >>> ledger = Ledger()
        >>> (x,) = ledger.trace(x=np.zeros((4, 3), np.float32))
        >>> _ = x[1], x[0, 0]
        >>> ledger.read
        {'x': 16}
    """

    def __init__(self, array: Array, name: str, ledger: Ledger) -> None:
        self._array, self._name, self._ledger = array, name, ledger
        ledger.read.setdefault(name, 0)
        ledger.written.setdefault(name, 0)

    def __getitem__(self, index: Any) -> Any:
        value = self._array[index]
        self._ledger.read[self._name] += value.nbytes
        return value

    def __setitem__(self, index: Any, value: Any) -> None:
        self._array[index] = value
        self._ledger.written[self._name] += self._array[index].nbytes

    def __len__(self) -> int:
        return len(self._array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def array(self) -> Array:
        """The array itself, whose use is not counted."""
        return self._array


def replay(tiles: Iterable[tuple[int, int, int, int]], row_bytes: int, token_bytes: int, cache: int) -> int:
    """Bytes fetched when tiles of a matrix product are computed one after the other, with a cache of `cache` bytes.

    A tile (row, row_stop, token, token_stop) multiplies some rows of the weights with some tokens. It goes through its
    rows, and for each row through its tokens. A row or token that the cache does not hold is fetched whole; what was
    used longest ago makes room. Results are not counted: each is written once, in any order.

    Raises:
        FourbitError: when the cache cannot hold one row and one token.
    """
    if cache < row_bytes + token_bytes:
        raise FourbitError(f"a cache of {cache} bytes holds no row of {row_bytes} and token of {token_bytes} bytes")
    held: OrderedDict[tuple[str, int], int] = OrderedDict()
    fetched = used = 0
    for row, row_stop, token, token_stop in tiles:
        for r in range(row, row_stop):
            for key in (("row", r), *(("token", t) for t in range(token, token_stop))):
                if key in held:
                    held.move_to_end(key)
                    continue
                held[key] = row_bytes if key[0] == "row" else token_bytes
                fetched, used = fetched + held[key], used + held[key]
                while used > cache:
                    used -= held.popitem(last=False)[1]
    return fetched
