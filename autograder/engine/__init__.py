"""Running notebooks of strangers fast: a preloaded zygote, forked runners in a jail, restore points, sessions for
exams."""

from autograder.engine.client import Zygote
from autograder.engine.outcome import CellOutcome, EngineError, SessionReply
from autograder.engine.runner import Runner, Session

__all__ = ["CellOutcome", "EngineError", "Runner", "Session", "SessionReply", "Zygote"]
