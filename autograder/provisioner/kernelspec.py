"""The kernelspec "Python 3 (jailed)": a folder with kernel.json that names the provisioner, beside IPython's icons."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import make_ipkernel_cmd, write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_data_dir

from autograder.provisioner import PROVISIONER
from fourbit.errors import FourbitError

NAME = "python3-jailed"
DISPLAY_NAME = "Python 3 (jailed)"


class KernelspecError(FourbitError):
    """A kernelspec that cannot be installed or removed; the message says what is in the way."""


@dataclass(frozen=True)
class Installed:
    """``folder`` holds the kernelspec now; ``action`` is created, updated or unchanged."""

    folder: Path
    action: str


def folder_of(*, user: bool) -> Path:
    """Where the kernelspec lies: among the user's own, or in this Python's environment."""
    base = Path(jupyter_data_dir()) if user else Path(sys.prefix) / "share" / "jupyter"
    return base / "kernels" / NAME


def install(*, user: bool = False) -> Installed:
    """Write the kernelspec for this Python.

    Raises:
        KernelspecError: when a kernelspec of that name is there which is not ours, or the folder cannot be written.
    """
    folder = folder_of(user=user)
    there = folder.exists()
    if there and _contents(folder) == _content():
        return Installed(folder, "unchanged")
    if there:
        _require_ours(folder)
    try:
        with tempfile.TemporaryDirectory() as place:
            made = write_kernel_spec(Path(place) / NAME, overrides=_content())
            KernelSpecManager().install_kernel_spec(made, NAME, user=user, prefix=None if user else sys.prefix)
    except OSError as error:
        raise KernelspecError(f"{folder} cannot be written ({error.strerror}). `--user` needs no rights.") from None
    return Installed(folder, "updated" if there else "created")


def uninstall(*, user: bool = False) -> Path | None:
    """Remove the kernelspec; None when there is none. Raises :class:`KernelspecError` when it is not ours."""
    folder = folder_of(user=user)
    if not folder.exists():
        return None
    _require_ours(folder)
    shutil.rmtree(folder)
    return folder


def _content() -> dict[str, Any]:
    return {
        "argv": make_ipkernel_cmd(),
        "display_name": DISPLAY_NAME,
        "language": "python",
        "metadata": {"debugger": False, "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": {}}},
        "kernel_protocol_version": "5.5",
    }


def _contents(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "kernel.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _require_ours(folder: Path) -> None:
    metadata = (_contents(folder) or {}).get("metadata")
    provisioner = metadata.get("kernel_provisioner") if isinstance(metadata, dict) else None
    if not isinstance(provisioner, dict) or provisioner.get("provisioner_name") != PROVISIONER:
        raise KernelspecError(f"{folder} holds a kernelspec that is not Fourbit's. Rename or remove it first.")
