"""Train the small networks s6 and s5 on labels alone: python -m fourbit.recipes.students [--out FOLDER]

They are what distillation is compared with, so images are mirrored only: the teacher's cached logits know no shifts.
"""

from __future__ import annotations

from fourbit.recipes.checkpoints import Spec, make, options

RECIPE = "python -m fourbit.recipes.students"
SPECS = (
    Spec("s6", "S6", "fashion-20k", epochs=8, recipe=RECIPE),
    Spec("s5", "S5", "fashion-20k", epochs=8, recipe=RECIPE),
)


def main(arguments: list[str] | None = None) -> None:
    """Train both on the 18,000 training images of fashion-20k (under a minute of one core) and save them."""
    chosen = options(arguments, "Train the students s6 and s5 on fashion-20k.")
    for spec in SPECS:
        make(spec, chosen.out, limit=chosen.limit)


if __name__ == "__main__":
    main()
