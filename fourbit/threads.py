"""One PyTorch thread by default.

On a machine that does something else as well, two threads wait for each other: an epoch of the reference network
that takes 12 s on one idle core took 27 s on one thread and 318 s on two when six other jobs ran. One thread also
makes results reproducible bit for bit on one machine. So `fourbit.data`, `fourbit.models` and `fourbit.training`
import this module, and its first import sets one thread, or the number in the environment variable FOURBIT_THREADS.
Call :func:`use_threads` afterwards to choose another number.
"""

from __future__ import annotations

import os

import torch

from fourbit.errors import FourbitError

VARIABLE = "FOURBIT_THREADS"


def use_threads(count: int) -> None:
    """Let each PyTorch operation use `count` threads from now on, in this process.

    Raises:
        FourbitError: if `count` is less than 1.
    """
    if count < 1:
        raise FourbitError(f"cannot use {count} threads; give 1 or more")
    torch.set_num_threads(count)


def _from_environment() -> int:
    text = os.environ.get(VARIABLE, "1")
    try:
        return int(text)
    except ValueError:
        raise FourbitError(f"the environment variable {VARIABLE} is {text!r}; set it to a whole number") from None


use_threads(_from_environment())
