"""Building labs and grading them: builder, ingest, engine, jail, examiner, store, fleet and reports.

Works for any nbgrader course; only :mod:`autograder.exams` knows Fourbit's own exams. Grading needs Linux.
"""
