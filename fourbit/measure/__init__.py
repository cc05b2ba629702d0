"""Measuring: honest timings, this machine's roofline, MACs, bytes on disk and an energy table.

Lab 00 lets you write the counting and the statistics yourself; these are the instruments that later labs,
``fourbit doctor`` and the benchmarks use. They go other ways than the exercises do (they observe where an
exercise derives), so each can serve to check the other.
"""

from fourbit.measure.energy import HOROWITZ45, SOURCES
from fourbit.measure.files import FileSize, file_size
from fourbit.measure.probe import Roofline, probe_machine
from fourbit.measure.timing import Timing, measure, measure_together
from fourbit.measure.work import total_macs

__all__ = [
    "HOROWITZ45",
    "SOURCES",
    "FileSize",
    "Roofline",
    "Timing",
    "file_size",
    "measure",
    "measure_together",
    "probe_machine",
    "total_macs",
]
