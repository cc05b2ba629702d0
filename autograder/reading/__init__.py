"""What was handed in: read as bytes that may be anything, and put back into the instructor's template."""
