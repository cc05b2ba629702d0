"""What whoever started the grading sees: a live display, JSON lines, logs."""
