"""Transactions on a gradebook whose server may go away in the middle: waited for, then done again from the start."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from autograder.results import GradingError, plain

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Transactions:
    """Runs actions on a gradebook.

    Attributes:
        gradebook: nbgrader's.
        name: what the database is called in messages; holds no password.
        patience: seconds to wait for a database that has gone away, before giving up.
        tell: called with a line for the user for every attempt that failed.
    """

    gradebook: Any
    name: str
    patience: float
    tell: Callable[[str], None]

    def run(self, action: Callable[[], _T]) -> _T:
        """Do `action` in one transaction; it has to be such that doing it twice is doing it once.

        Raises:
            GradingError: when the database does not come back, or refuses.
        """
        from sqlalchemy.exc import SQLAlchemyError

        deadline, pause = time.monotonic() + self.patience, _FIRST_PAUSE
        while True:
            try:
                answer = action()
                self.gradebook.db.commit()
                self.gradebook.db.remove()
                return answer
            except SQLAlchemyError as error:
                self._forget_connection()
                reason = plain(getattr(error, "orig", None) or error, 300).strip().partition("\n")[0]
                if not is_passing(error) or time.monotonic() > deadline:
                    raise GradingError(
                        f"the gradebook {self.name} cannot be used: {reason}. All that was graded before is stored. "
                        "Mend the database, then run the same command again: it goes on from here"
                    ) from None
                self.tell(f"waiting for the gradebook {self.name} ({reason}); grading goes on when it is back")
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except BaseException:
                self._forget_connection()
                raise

    def _forget_connection(self) -> None:
        """Give up an unfinished transaction and the connection that it was on."""
        from sqlalchemy.exc import SQLAlchemyError

        with suppress(SQLAlchemyError):
            self.gradebook.db.rollback()
        with suppress(SQLAlchemyError):
            self.gradebook.db.remove()
        self.gradebook.engine.dispose()


def is_passing(error: BaseException) -> bool:
    """Whether a failure of the database is one that time mends: a lost connection, a restart, a lock."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    if not isinstance(error, DBAPIError):
        return False
    if type(error.orig).__module__.startswith("sqlite3"):
        return any(word in str(error.orig) for word in ("locked", "busy"))
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
