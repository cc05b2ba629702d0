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

*Python 3.11 or newer and two cores. No lab needs a GPU.* Labs 00 to 03 work offline from the first minute; those that read a
language model fetch it once. Data and models come in three tiers, and every lab runs on the first:

| tier | is | comes from | used for |
|---|---|---|---|
| **pocket** | Fashion-MNIST, small trained networks, three novels; SmolLM2-135M-Instruct, 93 MB | the archive or the clone; the model from the network, once: `fourbit models fetch smollm2` | everything that is graded |
| **real** | CIFAR-10, models of up to 7 billion parameters, a GGUF file of yours | the network, if you ask for it | seeing the same cells on something larger |
| **hollow** | the shape of any model with random weights | made on your machine in seconds, without a network | memory, loading and speed of a 7B |

`fourbit doctor` says which of them work on your machine.

The time is that of the cells of the reference solution, measurements and figures included, on one core; yours begins
with thinking. Points that a machine gives are those of the hidden exam, which asks the same properties on other inputs.
How well each exam tells right from wrong stands at the end of each lab's page.
"""


def lab_index(labs: tuple[Lab, ...], sizes: dict[str, int]) -> str:
    """The page; `sizes` are the archives' bytes by the lab's name."""
    rows = [row(lab, sizes[lab.name]) for lab in labs]
    head = ["| lab | questions | points | cells run in | network | archive |", "|---|--:|--:|--:|---|--:|"]
    return f"{INTRO}\n" + "\n".join([*head, *rows]) + f"\n\n{TIERS}"


def row(lab: Lab, size: int) -> str:
    """One line of the table."""
    network = "once" if lab.needs_model else "no"
    archive = f"[zip]({lab.name}/{lab.name}.zip), {size / 1e6:.0f} MB"
    return (
        f"| [{lab.title}]({lab.name}.md) | {len(lab.questions)} | {lab.points:g} | about {lab.minutes} min "
        f"| {network} | {archive} |"
    )
