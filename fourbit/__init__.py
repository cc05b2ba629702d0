"""Fourbit's toolkit: what the labs import (data, models, training, measuring, exams) and the `fourbit` command."""

__version__ = "0.1.0"
