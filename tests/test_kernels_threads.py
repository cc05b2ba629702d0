"""The pool of threads: idle it sleeps, a fork does not break it, and callers do not get in each other's way."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fourbit import kernels
from fourbit.kernels.native import NativeKernels
from tests.kernel_matrices import BACKENDS, all_awake, known

SCRIPT = """
import os, resource, sys, time
import torch
from fourbit import kernels
from tests.kernel_matrices import BACKENDS, all_awake, known

k = all_awake(kernels.load(4, sys.argv[1]))
m, x = known("Q4_0", 4096, 512, 0).matrix, torch.ones(1, 512)

def product():
    out = torch.empty(1, 4096)
    k.matmul([m], x, [out])
    return out

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
"""
IDLE = """
product()
before = used()
time.sleep(1)
print(used() - before)
"""
FORK = """
before = product()
child = os.fork()
if child == 0:  # the child has none of its parent's threads
    same = all(torch.equal(product(), before) for _ in range(20))
    if os.fork() == 0:
        os._exit(0 if torch.equal(product(), before) else 1)
    os._exit(0 if same and os.wait()[1] == 0 else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(product(), before)
print("whole")
"""


def run(root: Path, script: str, backend: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT + script, backend]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="the CPU time of a process is read with getrusage")
@pytest.mark.parametrize("backend", BACKENDS)
def test_idle_threads_use_no_cpu_time(root: Path, backend: str) -> None:
    # Seconds of CPU in one second of rest; a pool of three that spin takes up to three.
    assert float(run(root, IDLE, backend)) < 0.05


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fork_of_a_process_with_threads_has_working_kernels(root: Path, backend: str) -> None:
    assert run(root, FORK, backend) == "whole\n"


def test_small_products_wake_nobody() -> None:
    k = kernels.load(8, "c")
    assert isinstance(k, NativeKernels)
    assert [k._awake(n * k.worth) for n in (0, 1, 3, 100)] == [1, 2, 4, 8]


@pytest.mark.parametrize("backend", BACKENDS)
def test_callers_in_several_threads_all_get_their_results(backend: str) -> None:
    k = all_awake(kernels.load(3, backend))
    m = known("Q4_0", 1000, 256, 1).matrix
    inputs = [torch.from_numpy(np.random.default_rng(i).standard_normal((1, 256)).astype(np.float32)) for i in range(6)]
    outs = [torch.empty(1, 1000) for _ in inputs]
    alone = [torch.empty(1, 1000) for _ in inputs]
    for x, out in zip(inputs, alone, strict=True):
        k.matmul([m], x, [out])

    def work(x: torch.Tensor, out: torch.Tensor) -> None:
        for _ in range(200 if backend == "c" else 10):
            k.matmul([m], x, [out])

    callers = [threading.Thread(target=work, args=pair) for pair in zip(inputs, outs, strict=True)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(torch.equal(a, b) for a, b in zip(outs, alone, strict=True))
