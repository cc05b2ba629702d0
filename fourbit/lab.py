"""Find a lab, and open it in JupyterLab with the student profile.

The profile is two JSON files in ``labconfig/``, which JupyterLab reads from every folder on JUPYTER_CONFIG_PATH. It
hides nbgrader's instructor tools where nbgrader is installed, and its Validate button too: that one reruns the whole
notebook inside the Jupyter server and reports no points, while `check(...)` in the notebook answers at once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from fourbit.errors import FourbitError

PROFILE = Path(__file__).resolve().parent  # holds labconfig/
LAB_NAME = re.compile(r"\d\d-[a-z0-9-]+")


class LabError(FourbitError):
    """A lab or notebook that is not there, or cannot be read."""


def find_root(start: Path | None = None) -> Path:
    """Return the folder that holds ``labs/``: the nearest from `start` (the working directory) up, else this checkout.

    Raises:
        LabError: if there is no such folder.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, PROFILE.parent):
        if list_labs(folder):
            return folder
    raise LabError(
        f"no labs/ folder with a lab in it at {here} or above. "
        "Change into the folder that you cloned, or build the labs with `fourbit build`."
    )


def list_labs(root: Path) -> list[str]:
    """Names of the labs under `root`, in order: ["00-measure", "01-pruning"]."""
    folder = root / "labs"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and LAB_NAME.fullmatch(entry.name))


def find_notebook(what: str, start: Path | None = None) -> Path:
    """Return the notebook that `what` names: a file, a folder that holds one, or a lab's number or name.

    Raises:
        LabError: if nothing, or more than one thing, has that name.
    """
    path = Path(what).expanduser()
    if path.suffix == ".ipynb" or path.is_file():
        return _existing_notebook(path)
    if path.is_dir():
        return notebook_in(path)
    root = find_root(start)
    labs = list_labs(root)
    number = f"{int(what):02d}-" if what.isdecimal() else None
    matches = [lab for lab in labs if lab == what or (number and lab.startswith(number))]
    if len(matches) != 1:
        raise LabError(f"no lab {what!r} in {root / 'labs'}; there are {', '.join(labs)}. A path works, too.")
    return notebook_in(root / "labs" / matches[0])


def notebook_in(folder: Path) -> Path:
    """Return the notebook of a lab's folder: the one of the folder's name, else the only one."""
    named = folder / f"{folder.resolve().name}.ipynb"
    if named.is_file():
        return named
    found = sorted(path for path in folder.glob("*.ipynb") if path.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise LabError(f"{folder} holds no notebook (*.ipynb). Name a lab's folder, such as labs/00-measure.")
    raise LabError(f"{folder} holds {len(found)} notebooks: {', '.join(p.name for p in found)}. Name one of them.")


def _existing_notebook(path: Path) -> Path:
    if not path.is_file():
        raise LabError(f"there is no notebook {path}. `fourbit lab --list` names the labs.")
    if path.suffix != ".ipynb":
        raise LabError(f"{path} is not a notebook (*.ipynb).")
    return path


def lab_environment() -> dict[str, str]:
    """Environment variables under which JupyterLab shows the student profile."""
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    profile = str(PROFILE) if not others else os.pathsep.join((str(PROFILE), others))
    return {**os.environ, "JUPYTER_CONFIG_PATH": profile}


def lab_command(notebook: Path, *, browser: bool = True, port: int | None = None) -> list[str]:
    """The command that serves `notebook`'s course folder, with the notebook open."""
    notebook = notebook.resolve()
    # Where lecture notes stand beside labs/, links between them open inside JupyterLab.
    root = notebook.parents[2] if notebook.parents[1].name == "labs" else notebook.parent
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command.append(f"--LabApp.default_url=/lab/tree/{notebook.relative_to(root).as_posix()}")
    if not browser:
        command.append("--no-browser")
    if port is not None:
        command.append(f"--ServerApp.port={port}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers and CI; the server still listens on localhost alone
    return command


def open_lab(notebook: Path, *, browser: bool = True, port: int | None = None) -> int:
    """Run JupyterLab on `notebook` until it is stopped; return its exit status, where this process outlives it."""
    command, environment = lab_command(notebook, browser=browser, port=port), lab_environment()
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(command[0], command, environment)  # a signal to this process is then one to JupyterLab
    try:
        return subprocess.run(command, env=environment).returncode
    except KeyboardInterrupt:
        return 0
