"""Building and grading labs; grading works for any nbgrader course. Only :mod:`autograder.exams` knows Fourbit's exams.

    builder     a lab's source to its notebook and exams          course      a course folder for them
    collect     what a learning system delivered, put into place  reading     a submission, rebuilt in its template
    engine      cells in a warm process, forked for each          jail        the walls around it
    judging     what a submission earns                           plain       test cells, in a process of their own
    grade       an assignment: read, grade, write                 class_run   one pass over its class
    workers     processes of this machine                         cluster     seats of a Dask cluster
    books       gradebook and journal, by one writer              late        a policy for late work
    terminal    what whoever started it sees                      reports     feedback, tables, the class report
    exports     grades for other systems                          provisioner the jail for any Jupyter client
    cli         the instructor's commands                         demo        all of it, with a simulated class

A course's configuration is read by `nbgrader_course` and `settings`; a submission's result is a record of `results`.
Grading needs Linux.
"""

import sys

# jsonschema, which checks notebooks, would compile a grammar of web addresses on import, for a second of CPU time
# that every grading process would pay and none needs.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
