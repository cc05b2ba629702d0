"""Products of 4-bit matrices with 8-bit activations, and what else a transformer computes, in C or in numba.

    k = kernels.load(threads=2)
    k.matmul([query, key, value], x, [q, k, v])     # three Matrix that share one input (T, in)

The C sources in `c/` are compiled on first use by the system's compiler; where there is none, numba runs the same
operations. Matrices stay as their file has them, in GGUF blocks or lab 04's codes, mapped into memory.
"""

from fourbit.kernels.cache_layer import CACHE_KINDS, CacheLayer, cache_row_bytes
from fourbit.kernels.matrix import KINDS, Matrix
from fourbit.kernels.operations import Kernels, load

__all__ = ["CACHE_KINDS", "KINDS", "CacheLayer", "Kernels", "Matrix", "cache_row_bytes", "load"]
