"""From one percent-format source to the student's notebook, the instructor's nbgrader source and the exam packs.

`build` is the way in: ``build_lab`` and ``build_all``. In the order in which a lab passes through: `source` reads it,
`rules` (with `names`) checks it, `metadata` (with `ids`) expands it, `release` clears it with nbgrader's own
preprocessors, `pack` asks the exam machinery for exam packs, `write` writes without losing anybody's work.
"""
