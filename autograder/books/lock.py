"""One grader at a time in a course: a lock that the system takes back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from autograder.results import GradingError, plain


class CourseLock:
    """The lock of one course, held from its making to :meth:`release`.

    The file stays where it is when nobody holds the lock; removing it would let two processes lock two files.

    Raises:
        GradingError: while somebody else is grading in the course; the message says who.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open while the lock is held
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            self._stream.close()
            raise GradingError(
                f"{path.parent.parent} is being graded already{holder}. Wait until that is done, or end it; "
                "what it has graded is kept"
            ) from None
        except OSError as error:
            self._stream.close()
            raise GradingError(
                f"{path} cannot be locked: {error}. Put the course on a file system with locks"
            ) from None
        self._stream.truncate(0)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self._stream.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": started}) + "\n")
        self._stream.flush()

    def release(self) -> None:
        """Let others grade."""
        self._stream.close()

    def _holder(self) -> str:
        self._stream.seek(0)
        try:
            entry = json.loads(self._stream.read(1000))
            return plain(f", by process {entry['pid']} on {entry['host']} since {entry['since']}", 300)
        except (ValueError, KeyError, TypeError):
            return ""
