"""What this machine can do: `fourbit doctor` in one screen.

The best case of a language model follows from the roofline (Williams et al. 2009): decoding one token for one reader
reads every weight once, so tokens per second cannot exceed memory bandwidth divided by the bytes of the weights.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path

import psutil
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fourbit.errors import FourbitError
from fourbit.measure import Roofline, probe_machine

SANDBOX = "fourbit.sandbox"  # entry-point group: a function that describes the isolation in force

WEIGHTS_7B = 7.0e9
BITS_PER_WEIGHT = 4.5  # 4-bit codes in groups of 32 that share one 16-bit scale: 4 + 16 / 32
BYTES_7B = WEIGHTS_7B * BITS_PER_WEIGHT / 8

_GPU_COPY = 2**28  # bytes of one array: larger than the last-level cache of a GPU


@dataclass(frozen=True)
class Gpu:
    """An accelerator that PyTorch can use; sizes in bytes, `bandwidth` in bytes per second, None when not measured."""

    name: str
    memory: int
    bandwidth: float | None = None


@dataclass(frozen=True)
class Tier:
    """A tier of models and data, and whether it works here; `detail` says why, or what to do."""

    name: str
    works: bool
    detail: str


@dataclass(frozen=True)
class MachineReport:
    """What was found; sizes in bytes, 1 GB = 1e9 bytes. `rooflines` holds one thread first, then all cores."""

    system: str
    python: str
    cores: int
    memory: int
    free_memory: int
    free_disk: int
    gpu: Gpu | None
    kernels: str
    sandbox: str
    sandbox_works: bool
    rooflines: tuple[Roofline, ...]
    tiers: tuple[Tier, ...]

    @property
    def bandwidth(self) -> float | None:
        """The best measured memory bandwidth of the CPU in bytes per second."""
        return max((r.peak_bandwidth for r in self.rooflines), default=None)


def tokens_per_second(bandwidth: float, model_bytes: float = BYTES_7B) -> float:
    """Upper bound on decoded tokens per second: every token reads all weights once."""
    return bandwidth / model_bytes


def examine_machine(measure: bool = True) -> MachineReport:
    """Look at this machine; with `measure`, time its memory and arithmetic too, for about five seconds."""
    memory, free = memory_limits()
    cores = usable_cores()
    sandbox_works, sandbox = describe_sandbox()
    threads = sorted({1, cores})
    return MachineReport(
        system=f"{platform.system()} {platform.release()} on {platform.machine()}",
        python=f"Python {platform.python_version()}, PyTorch {version('torch')}",
        cores=cores,
        memory=memory,
        free_memory=free,
        free_disk=shutil.disk_usage(Path.cwd()).free,
        gpu=find_gpu(measure),
        kernels=describe_kernels(),
        sandbox=sandbox,
        sandbox_works=sandbox_works,
        rooflines=tuple(probe_machine(threads=n) for n in threads) if measure else (),
        tiers=find_tiers(free),
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limits() -> tuple[int, int]:
    """Total and free memory in bytes, a container's limit included."""
    seen = psutil.virtual_memory()
    total, free = int(seen.total), int(seen.available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return total, free
    return min(total, limit), min(free, max(limit - used, 0))


def describe_kernels() -> str:
    """What the 4-bit kernels are on this machine: compiled C and its instruction set, or numba and why."""
    from fourbit.kernels.build import compilers, library
    from fourbit.kernels.native import isas

    if not compilers():
        return "numba, several times slower than C: no C compiler on the PATH (cc, gcc, clang, or pip install ziglang)"
    try:
        library()
        return f"C for {list(isas())[-1]}, compiled here"
    except FourbitError as error:
        return f"numba, several times slower than C: {str(error).splitlines()[0]}"


def describe_sandbox() -> tuple[bool, str]:
    """Whether submissions can be graded in isolation here, and by what."""
    if sys.platform != "linux":
        return False, f"grading needs Linux, and this is {platform.system()}; labs and checks work here"
    for entry in entry_points(group=SANDBOX):
        try:
            works, text = entry.load()()
        except ImportError as error:
            return False, f"the grading tools are not installed ({error}); `make demo` installs them"
        return bool(works), str(text)
    return False, "the grading tools are not installed; `make demo` installs them"


def find_gpu(measure: bool) -> Gpu | None:
    """The accelerator that PyTorch sees, if any, with its copy bandwidth where `measure` is set."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        bandwidth = copy_bandwidth("cuda") if measure else None
        return Gpu(properties.name, properties.total_memory, bandwidth)
    if torch.backends.mps.is_available():
        bandwidth = copy_bandwidth("mps") if measure else None
        return Gpu("Apple GPU (MPS)", torch.mps.recommended_max_memory(), bandwidth)
    return None


def copy_bandwidth(device: str, repeats: int = 20) -> float:
    """Bytes per second that a copy within the accelerator's memory moves, reads and writes counted."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else torch.mps.synchronize
    source = torch.ones(_GPU_COPY // 4, device=device)
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    wait()
    started = time.perf_counter()
    for _ in range(repeats):
        target.copy_(source)
    wait()
    return 2 * _GPU_COPY * repeats / (time.perf_counter() - started)


def find_tiers(free_memory: int) -> tuple[Tier, ...]:
    """The tiers of data and models: embedded, downloaded, and made to the right shapes."""
    return (pocket_tier(), real_tier(), hollow_tier(free_memory))


def pocket_tier() -> Tier:
    """Embedded data and checkpoints, which need no network; every file is compared with its hash."""
    from fourbit.data.assets import list_assets, read_asset

    try:
        names, size = [], 0
        for asset in list_assets():
            size += len(read_asset(asset.name))
            names.append(asset.name)
    except FourbitError as error:
        return Tier("pocket", False, str(error))
    return Tier("pocket", True, f"{', '.join(names)}: {size / 1e6:.1f} MB, hashes right, no network needed")


def real_tier() -> Tier:
    """The data sets that are fetched once: which of them are here already."""
    from fourbit.data import ONLINE
    from fourbit.data.cache import cache_folder

    here = [name for name in ONLINE if any(f.suffix != ".part" for f in (cache_folder() / name).glob("*"))]
    if here:
        return Tier("real", True, f"{' and '.join(here)} in {cache_folder()}")
    names = " or ".join(f'load("{name}")' for name in ONLINE)
    return Tier("real", False, f"nothing fetched yet; {names} from fourbit.data needs a network once")


def hollow_tier(free_memory: int) -> Tier:
    """A 7B's shapes with random codes: speed and memory are real, its answers are not."""
    fits = free_memory > 1.25 * BYTES_7B  # weights, and a quarter more for activations and the KV cache
    need = f"a 7B's {BYTES_7B / 1e9:.1f} GB of 4-bit weights in {free_memory / 1e9:.1f} GB of free memory"
    return Tier("hollow", fits, f"{'room for' if fits else 'no room for'} {need}")


def render(report: MachineReport) -> RenderableType:
    """The report as one screen for a terminal."""
    return Group(_machine_table(report), Text(), _tier_table(report), Text(), _best_case(report))


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True, min_width=10)
    table.add_column(overflow="fold")
    return table


def _machine_table(report: MachineReport) -> Table:
    table = _table("This machine")
    table.add_row("system", f"{report.system}; {report.python}")
    table.add_row("cores", str(report.cores))
    table.add_row("memory", f"{report.memory / 1e9:.1f} GB, {report.free_memory / 1e9:.1f} GB of it free")
    table.add_row("disk", f"{report.free_disk / 1e9:.0f} GB free here")
    table.add_row("GPU", _describe_gpu(report.gpu))
    for roofline in report.rooflines:
        table.add_row("roofline", str(roofline))
    table.add_row("kernels", report.kernels)
    table.add_row("sandbox", _marked(report.sandbox_works, report.sandbox))
    return table


def _describe_gpu(gpu: Gpu | None) -> str:
    if gpu is None:
        return "none that PyTorch can use; no lab needs one"
    speed = f", {gpu.bandwidth / 1e9:.0f} GB/s" if gpu.bandwidth else ""
    return f"{gpu.name}, {gpu.memory / 1e9:.1f} GB{speed}"


def _tier_table(report: MachineReport) -> Table:
    table = _table("Data and models")
    for tier in report.tiers:
        table.add_row(tier.name, _marked(tier.works, tier.detail))
    return table


def _marked(works: bool, text: str) -> Text:
    return Text.assemble(("yes  ", "green") if works else ("no   ", "red"), text)


def _best_case(report: MachineReport) -> Table:
    table = _table("A 7B language model in 4 bits, at best")
    table.add_row(
        "bytes",
        f"{WEIGHTS_7B:.1e} weights x {BITS_PER_WEIGHT} bits (4-bit codes, a 16-bit scale for every 32) / 8 "
        f"= {BYTES_7B / 1e9:.2f} GB, all read for every token",
    )
    for name, bandwidth in _bandwidths(report):
        speed = tokens_per_second(bandwidth)
        table.add_row(name, f"{bandwidth / 1e9:.1f} GB/s / {BYTES_7B / 1e9:.2f} GB = {speed:.1f} tokens/s")
    if not report.rooflines:
        table.add_row("speed", "not measured (--quick)")
    if report.free_memory < BYTES_7B:
        table.add_row("memory", f"{report.free_memory / 1e9:.1f} GB free: it does not fit beside what runs now")
    return table


def _bandwidths(report: MachineReport) -> Iterator[tuple[str, float]]:
    if report.bandwidth:
        yield "CPU", report.bandwidth
    if report.gpu and report.gpu.bandwidth and report.gpu.memory > BYTES_7B:
        yield "GPU", report.gpu.bandwidth
