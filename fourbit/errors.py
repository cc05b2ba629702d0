"""The exception family: every message says what went wrong, where, and what to do next."""

from __future__ import annotations


class FourbitError(Exception):
    """Base of all errors that Fourbit raises on purpose; the command line prints them without a traceback."""


class CodecError(FourbitError):
    """A value that cannot cross between processes, or bytes that are no such value."""


class ExamError(FourbitError):
    """An exam pack that is missing, unreadable or of another version, or an exercise that it does not hold."""


class DataError(FourbitError):
    """A data set, checkpoint or other asset that is missing, damaged or of the wrong form."""


class ModelError(FourbitError):
    """A language model that is missing, damaged, or of a kind that is not supported."""


class KernelError(FourbitError):
    """Kernels that cannot be built or loaded, or arguments that they do not take."""
