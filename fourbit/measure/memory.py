"""What a process holds in memory: now, and at most since it began.

Resident bytes count the pages of mapped files too, so a model that is read in place counts as what of it was touched.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident() -> int:
    """Return the bytes that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def settled() -> int:
    """Return what this process holds when all that it has freed is given back, which is asked for on Linux (glibc)."""
    gc.collect()
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    return resident()


def peak_resident() -> int:
    """Return the most bytes that this process held at once, since it began or since :func:`reset_peak`."""
    if _STATUS.exists():  # ru_maxrss would begin with the parent's, which fork leaves to a child
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def reset_peak() -> bool:
    """Let the peak begin anew at what is held now; False where the system cannot (all but Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
