"""Run a notebook in a fresh kernel, as `fourbit check` and `fourbit run` do.

Cells run in the notebook's own folder. A cell that raises, or runs too long, costs that cell; one that ends the kernel,
or does not stop when it is interrupted, ends the run, and the result says which cell that was.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.util import ensure_async

from fourbit.lab import LabError

SKIP = "skip-execution"  # the builder's tag on demonstration and measurement cells
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STARTUP_SECONDS = 120

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class CellFailure:
    """A cell that did not end well; `number` counts the notebook's cells from 1."""

    number: int
    name: str
    error: str

    def __str__(self) -> str:
        return f"cell {self.number}{f' ({self.name})' if self.name else ''}: {self.error}"


@dataclass(frozen=True)
class Execution:
    """What happened when a notebook ran.

    Attributes:
        notebook: the notebook with its outputs.
        failures: cells that raised or were stopped, in order.
        ended_at: the cell after which nothing could run, or None when the run reached the end.
        seconds: wall time, the kernel's start included.
    """

    notebook: nbformat.NotebookNode
    failures: tuple[CellFailure, ...]
    ended_at: CellFailure | None
    seconds: float


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook, upgraded to the current format.

    Raises:
        LabError: when the file is missing or is no notebook.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # nbformat raises many kinds for what is not a notebook
        raise LabError(
            f"{path} is not a notebook: {str(error).splitlines()[0][:200]}. "
            "Take a fresh copy of the lab, or restore the file from Jupyter's .ipynb_checkpoints folder."
        ) from None
    return notebook


class _PatientClient(NotebookClient):
    """A client that interrupts a slow cell once, and gives up when that does not help."""

    interrupted = False

    async def _async_handle_timeout(self, timeout: int, cell: nbformat.NotebookNode | None = None) -> Any:
        assert cell is not None
        assert self.km is not None
        if self.interrupted:
            raise CellTimeoutError.error_from_timeout_and_cell("the cell did not stop", timeout, cell)
        self.interrupted = True
        await ensure_async(self.km.interrupt_kernel())
        return None


def execute(
    path: Path,
    *,
    skip_measurements: bool,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total, name: None,
) -> Execution:
    """Run the code cells of the notebook at `path`, and return it with outputs; the file itself is not written.

    Args:
        skip_measurements: leave out cells that carry the tag "skip-execution".
        seconds: limit for one cell.
        environment: variables for the kernel, besides this process's own.
        progress: called as (cells done, cells in all, name of the cell) before each cell.

    Raises:
        LabError: when the file is no notebook, or no kernel starts.
    """
    started = time.monotonic()
    notebook = read_notebook(path)
    cells = [(i, c) for i, c in enumerate(notebook.cells) if _runs(c, skip_measurements)]
    failures: list[CellFailure] = []
    ended: CellFailure | None = None
    with _kernel(notebook, path, seconds, environment or {}) as client:
        for done, (index, cell) in enumerate(cells):
            name = cell_name(cell)
            progress(done, len(cells), name)
            failure, over = _run_cell(client, cell, index)
            if failure:
                failures.append(CellFailure(index + 1, name, failure))
            if over:
                ended = failures[-1]
                break
    return Execution(notebook, tuple(failures), ended, time.monotonic() - started)


def cell_name(cell: nbformat.NotebookNode) -> str:
    """What a person calls a cell: its nbgrader id, or nothing."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def _runs(cell: nbformat.NotebookNode, skip_measurements: bool) -> bool:
    tags = cell.metadata.get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and not (skip_measurements and SKIP in tags)


@contextmanager
def _kernel(
    notebook: nbformat.NotebookNode, path: Path, seconds: float, environment: Mapping[str, str]
) -> Iterator[_PatientClient]:
    client = _PatientClient(
        notebook,
        timeout=seconds,
        startup_timeout=_STARTUP_SECONDS,
        kernel_name="python3",  # this interpreter's, whatever the file says
        skip_cells_with_tag="",
        extra_arguments=["--log-level=ERROR"],  # the kernel's own log would run into the panels
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    client.log.setLevel("CRITICAL")  # what it would log is in the result
    try:
        with client.setup_kernel(env={**os.environ, **environment}):
            yield client
    except RuntimeError as error:
        raise LabError(f"no Python kernel starts here: {error}. `python -m ipykernel --version` shows why.") from None


def _run_cell(client: _PatientClient, cell: nbformat.NotebookNode, index: int) -> tuple[str, bool]:
    """Run one cell; return what went wrong, or "", and whether nothing can run after it."""
    client.interrupted = False
    try:
        client.execute_cell(cell, index)
    except CellExecutionError as error:
        if client.interrupted:
            return f"stopped after {client.timeout:g} s", False
        return f"{error.ename}: {_ANSI.sub('', error.evalue).strip()[:300]}", False
    except CellTimeoutError:
        return f"did not stop after {client.timeout:g} s, though it was interrupted", True
    except DeadKernelError:
        return "ended the Python process (os._exit, a crash, or no memory left)", True
    return "", False


def printed(cell: nbformat.NotebookNode) -> str:
    """The text that a cell printed to standard output."""
    outputs: list[Any] = cell.get("outputs", [])
    return "".join(o.get("text", "") for o in outputs if o.output_type == "stream" and o.name == "stdout")
