"""``fourbit kernel``: put the jailed kernel among Jupyter's kernels, and take it away again.

Nothing heavy is imported here: `fourbit --help` loads this module.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

HELP = "\n\n".join(
    (
        "A kernel in the grader's sandbox for JupyterLab, nbclient, nbgrader and every other Jupyter client.",
        "[bold]fourbit kernel install[/] adds it as 'Python 3 (jailed)': choose it in JupyterLab, or give its name, "
        "[bold]python3-jailed[/], to a command.",
        "No installation is needed to run all Python kernels of one command in it: "
        "[bold]JUPYTER_DEFAULT_PROVISIONER_NAME=fourbit-jail nbgrader autograde ps1[/]",
        "A notebook sees a copy of the files beside it and writes nothing back; limits are those of "
        "[bold]c.FourbitGrade[/] in nbgrader_config.py or jupyter_config.py.",
    )
)

app = typer.Typer(help=HELP, rich_markup_mode="rich", no_args_is_help=True)

User = Annotated[
    bool,
    typer.Option("--user/--sys-prefix", help="Among your own kernels, or in the environment of this Python."),
]


@app.command()
def install(user: User = False) -> None:
    """Add the kernel 'Python 3 (jailed)'. Another's kernel of the same name is never overwritten."""
    from autograder.cli import describe_sandbox, grading_tools

    with grading_tools(linux=True):
        from autograder.provisioner.kernelspec import DISPLAY_NAME, NAME
        from autograder.provisioner.kernelspec import install as write

        done = write(user=user)
        console = Console()
        said = "was there already" if done.action == "unchanged" else f"is {done.action}"
        console.print(f"The kernel {DISPLAY_NAME!r} ({NAME}) {said} in {done.folder}", soft_wrap=True, highlight=False)
        isolated, words = describe_sandbox()
        if not isolated:
            console.print(f"It will start only with c.FourbitGrade.jail = 'plain'. {words}", soft_wrap=True)


@app.command()
def uninstall(user: User = False) -> None:
    """Remove the kernel that `install` added."""
    from autograder.cli import grading_tools

    with grading_tools():
        from autograder.provisioner.kernelspec import folder_of
        from autograder.provisioner.kernelspec import uninstall as remove

        gone = remove(user=user)
        said = f"Removed {gone}" if gone else f"Nothing to remove: there is no {folder_of(user=user)}"
        Console().print(said, soft_wrap=True, highlight=False)
