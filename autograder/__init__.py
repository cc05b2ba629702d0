"""Building labs and grading them: builder, ingest, engine, jail, examiner, store, fleet and reports.

Works for any nbgrader course; only :mod:`autograder.exams` knows Fourbit's own exams. Grading needs Linux.
"""

import sys

# jsonschema, which checks notebooks, would compile a grammar of web addresses on import, for a second of CPU time
# that every grading process would pay and none needs.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
