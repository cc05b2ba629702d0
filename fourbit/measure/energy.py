"""Energy of single operations and memory accesses in a 45 nm process at 0.9 V: a model, not a measurement.

Newer processes are several times better at arithmetic and much less so at moving data, so the *ratios* here
understate today's imbalance; use them to compare designs, never to predict a battery.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_HOROWITZ = 'Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014'

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "mult": _HOROWITZ,
        "add": _HOROWITZ,
        "access": f"{_HOROWITZ}: pJ per 64-bit word, caches by size; DRAM at the low end of its 1.3-2.6 nJ, "
        "which is the 640 pJ per 32-bit word of Han et al., EIE, ISCA 2016",
        "accumulator": "usual in hardware: products are added in a wider type, so that sums do not overflow",
    }
)

# A plain dict, because it travels through exams as data. Energies in picojoules.
HOROWITZ45: dict[str, Any] = {
    "mult": {"int8": 0.2, "int32": 3.1, "fp16": 1.1, "fp32": 3.7},
    "add": {"int8": 0.03, "int32": 0.1, "fp16": 0.4, "fp32": 0.9},
    "accumulator": {"int8": "int32", "int32": "int32", "fp16": "fp32", "fp32": "fp32"},
    "access": {"sram 8 KB": 10.0, "sram 32 KB": 20.0, "sram 1 MB": 100.0, "dram": 1280.0},
    "word_bits": 64,
}
