"""Grades for other programs: spreadsheets, Canvas and Moodle. Nothing is guessed: who cannot be matched is listed."""
