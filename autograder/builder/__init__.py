"""From one percent-format source to the student's notebook, the instructor's nbgrader source and the exam packs.

In the order in which a lab passes through: `source` reads it, `rules` (with `names`) checks it, `metadata` (with `ids`)
expands it, `release` clears it with nbgrader's own preprocessors, `pack` (with `cache`) asks the exam machinery for
exam packs, `write` writes without losing anybody's work, and `build` puts them in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograder.builder.build import BuildReport, build_all, build_lab, lab_names
    from autograder.builder.pack import ExamSeed, find_seed

__all__ = ["BuildReport", "ExamSeed", "build_all", "build_lab", "find_seed", "lab_names"]


def __getattr__(name: str) -> Any:
    # Every nbgrader command in a course imports this package for `release` alone, and need not wait for torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autograder.builder import build

    return getattr(build, name)
