"""From one percent-format source to the student's notebook, the instructor's nbgrader source and the exam packs.

`source` reads, `rules` checks, `metadata` expands, `release` clears with nbgrader's own preprocessors, `pack` asks the
exam machinery, `write` writes without losing anybody's work, and `build` puts them in a row.
"""

from autograder.builder.build import BuildReport, build_all, build_lab, lab_names
from autograder.builder.pack import DEFAULT_SEED, ExamSeed, find_seed
from autograder.builder.source import SourceError

__all__ = ["DEFAULT_SEED", "BuildReport", "ExamSeed", "SourceError", "build_all", "build_lab", "find_seed", "lab_names"]
