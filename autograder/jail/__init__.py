"""The walls around a submission: namespaces, Landlock, a system call filter and limits, by ctypes alone, as root and
as an ordinary user."""

from autograder.jail.libc import JailError
from autograder.jail.limits import Limits
from autograder.jail.policy import JailMode, JailPolicy, interpreter_paths
from autograder.jail.probe import JailReport, describe, detect
from autograder.jail.warden import confine, enter

__all__ = [
    "JailError", "JailMode", "JailPolicy", "JailReport", "Limits", "confine", "describe", "detect", "enter",
    "interpreter_paths",
]  # fmt: skip
