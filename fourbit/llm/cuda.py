"""Which GPU there is, what it can, and how much of its memory is left for a model."""

from __future__ import annotations

import functools
import subprocess
import sys

import torch

from fourbit.errors import ModelError
from fourbit.llm.fit import Device, this_machine
from fourbit.llm.plan import CUDA_CONTEXT

_OLDEST = (6, 0)  # compute capability that bitsandbytes' NF4 needs
_BFLOAT16 = (8, 0)  # from which on there are tensor cores for bfloat16
_SECONDS = 120  # that the measuring process may take; importing torch is most of it


def find_device(name: str = "cuda") -> torch.device:
    """Return a device by name, "cuda", "cuda:1" or "cpu", after looking whether it can run NF4.

    Raises:
        ModelError: when it cannot; the message says what to do instead.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"{name!r} is no device; use cuda, cuda:0 or cpu") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ModelError(f"NF4 runs on CUDA GPUs here, not on {name}; `fourbit chat` runs a GGUF file on the CPU")
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else f"; this PyTorch ({torch.__version__}) is built without CUDA"
        raise ModelError(
            f"PyTorch sees no CUDA GPU{built}. Where there is one, install its driver and the CUDA build "
            "(https://pytorch.org/get-started/locally); without one, `fourbit chat` runs a GGUF file on the CPU"
        )
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise ModelError(f"there is no GPU {index}; this computer has {torch.cuda.device_count()}, counted from 0")
    ability = torch.cuda.get_device_capability(index)
    if ability < _OLDEST:
        raise ModelError(
            f"{torch.cuda.get_device_name(index)} has compute capability {ability[0]}.{ability[1]}, and NF4 needs "
            f"{_OLDEST[0]}.{_OLDEST[1]}; `fourbit chat` runs a GGUF file on the CPU"
        )
    return torch.device("cuda", index)


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the type of the products: bfloat16, or float16 on a GPU older than it (before compute capability 8)."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _BFLOAT16:
        return torch.float16
    return torch.bfloat16


def free_memory(device: torch.device) -> Device:
    """Return a device with the bytes that a plan may use: those that are free, and CUDA's own, which plans count."""
    if device.type == "cpu":
        return this_machine()
    free, _ = torch.cuda.mem_get_info(device)
    inside = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch's, and not in use
    return Device(torch.cuda.get_device_name(device), free + inside + context_bytes(device.index or 0), gpu=True)


@functools.cache
def context_bytes(index: int = 0) -> int:
    """Return what CUDA, cuBLAS and bitsandbytes' kernels take on a GPU before a model is there.

    Measured once, by nvidia-smi, in a process of its own: in this one CUDA may have begun long ago. Where nvidia-smi
    does not answer, `CUDA_CONTEXT` is assumed.
    """
    command = [sys.executable, "-c", f"from fourbit.llm import cuda; print(cuda._measured({index}))"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        return int(done.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return CUDA_CONTEXT


def used_bytes(index: int = 0) -> int:
    """Return the bytes of a GPU that all programs use together, as nvidia-smi counts them.

    Raises:
        ModelError: when nvidia-smi does not answer.
    """
    query = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=True)
        return 2**20 * int(done.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise ModelError(f"nvidia-smi does not say how much memory is in use ({error})") from None


def _measured(index: int) -> int:
    """Begin with CUDA, run each kind of kernel once, and return what the GPU has less than before."""
    from bitsandbytes.nn import Linear4bit

    before = used_bytes(index)
    device = torch.device("cuda", index)
    linear = Linear4bit(256, 256, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4").to(device)
    x = torch.ones(1, 64, 256, device=device, dtype=torch.bfloat16)
    heads = x.view(1, 64, 2, 128).transpose(1, 2)
    with torch.inference_mode():
        torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        for rows in (x, x[:, :1]):
            (linear(rows) @ x[0].T).float().cpu()
    return max(used_bytes(index) - before - torch.cuda.memory_reserved(device), 0)
