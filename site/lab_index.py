"""The page that lists the labs: what each is worth, takes and needs, and where its archive is."""

from __future__ import annotations

from notebooks import Lab

INTRO = """\
# Labs

Each lab is a notebook that checks itself while you work: write a function, run the cell below it, and read which
property fails, on which input, and, when it is a known one, the name of the mistake. Read a lab here as it is handed
out; [download](../start.md) it to work in it.

<div class="course-progress" data-kind="labs"></div>
"""

TIERS = """\
## What the labs need

Python 3.11 or newer and two cores. No lab needs a GPU. Labs 00 to 03 work offline once they are installed; those that
read a language model fetch it once. Data and models come in three tiers, and every lab runs on the first:

* **pocket**: Fashion-MNIST, small trained networks, novels by Jane Austen, all in the archive and the clone; and
  SmolLM2-135M-Instruct (93 MB), once from the network: `fourbit models fetch smollm2`. What is graded runs on these.
* **real**: CIFAR-10, models of up to 7 billion parameters from the network, or a GGUF file of yours, if you ask for it.
  The same cells on something larger.
* **hollow**: the shape of any model with random weights, made on your machine in seconds and without a network. Memory,
  loading and speed of a 7B are real, its answers are not.

`fourbit doctor` says which of them work on your machine.

The time is that of the cells of the reference solution, measurements and figures included, on one core; yours begins
with thinking. Points that a machine gives are those of the hidden exam, which asks the same properties on other inputs.
How well each exam tells right from wrong stands at the end of each lab's page.
"""


def lab_index(labs: tuple[Lab, ...], sizes: dict[str, int]) -> str:
    """The page; `sizes` are the archives' bytes by the lab's name."""
    rows = [row(lab, sizes[lab.name]) for lab in labs]
    head = ["| lab | points | cells run in | network | archive |", "|---|--:|--:|---|--:|"]
    return f"{INTRO}\n" + "\n".join([*head, *rows]) + f"\n\n{TIERS}"


def row(lab: Lab, size: int) -> str:
    """One line of the table."""
    network = "once" if lab.needs_model else "no"
    archive = f"[zip]({lab.name}/{lab.name}.zip), {size / 1e6:.0f}&nbsp;MB"
    return f"| [{lab.title}]({lab.name}.md) | {lab.points:g} | about {lab.minutes} min | {network} | {archive} |"
