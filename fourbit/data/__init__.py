"""Data sets under one call, :func:`load`: fashion-20k comes with Fourbit; fashion-60k and cifar-10 are fetched once."""

from __future__ import annotations

from collections.abc import Callable

import fourbit.threads as _threads  # noqa: F401  (sets one thread)
from fourbit.data.cifar import load_cifar10
from fourbit.data.download import ChecksumError
from fourbit.data.fashion import load_fashion_20k, load_fashion_60k
from fourbit.data.splits import Dataset, Split, to_float
from fourbit.errors import DataError

__all__ = ["EMBEDDED", "ONLINE", "ChecksumError", "Dataset", "Split", "load", "to_float"]

EMBEDDED = ("fashion-20k",)  # the pocket tier: always there
ONLINE = ("fashion-60k", "cifar-10")  # the real tier: fetched once, then in the cache
_LOADERS: dict[str, Callable[..., Dataset]] = {"fashion-60k": load_fashion_60k, "cifar-10": load_cifar10}


def load(name: str, *, mirror: str | None = None, progress: bool = True) -> Dataset:
    """Return the data set `name`, with its splits `train`, `val` and `test` (see :class:`Split` for shapes).

    Args:
        mirror: base address of a web server that has ``<mirror>/<name>/<file>``; default: the environment variable
            FOURBIT_MIRROR, else the data set's own addresses.
        progress: draw a bar on stderr while downloading.

    Raises:
        ChecksumError: if what was downloaded is not the expected file; nothing in it has been used.
        DataError: for an unknown name, or if the data set is neither here nor can be fetched.
    """
    if name in EMBEDDED:
        return load_fashion_20k()
    if name not in _LOADERS:
        raise DataError(f"no data set is called {name!r}; there are {', '.join((*EMBEDDED, *ONLINE))}")
    try:
        return _LOADERS[name](mirror=mirror, progress=progress)
    except DataError as error:
        hint = f'load("{EMBEDDED[0]}") comes with Fourbit and works offline'
        raise type(error)(f"{name} is not available: {error}. Without it, {hint}") from None
