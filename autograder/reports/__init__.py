"""What graders and students read: class table, class report, ``grades.csv`` and a feedback page for each student.

Everything here reads and nothing grades. Records come from the journal, and what humans decided (manual scores,
comments, extra credit, late penalties) from the gradebook, which has the last word.
"""

from autograder.reports.feedback import write_feedback
from autograder.reports.rows import Row, class_rows, common_mistakes
from autograder.reports.table import class_table, mistakes_table
from autograder.reports.wide import write_csv

__all__ = ["Row", "class_rows", "class_table", "common_mistakes", "mistakes_table", "write_csv", "write_feedback"]
