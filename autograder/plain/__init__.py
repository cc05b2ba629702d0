"""Plain test cells of any nbgrader course, run in a process that no line of a student's enters.

`plan` decides by the instructor's text which cells can, `calibrate` proves it on the instructor's own solution,
`court` runs one, `answer` and `link` are the two ends of what crosses, by `codec`.
"""
