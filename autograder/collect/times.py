"""Times as learning management systems write them, in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from autograder.nbgrader_course import NbgraderCourse
from autograder.results import GradingError, plain

_NUMBERS = re.compile(r"\s*(\d{4})\D(\d{1,2})\D(\d{1,2})(?:\D+(\d{1,2})\D(\d{1,2})(?:\D(\d{1,2})(?:\.\d+)?)?)?\s*")


def parse_time(text: object, zone: tzinfo) -> datetime | None:
    """Return the time that `text` holds, in UTC; None when it holds none.

    Args:
        zone: where the clock hangs that a time without a zone was read from.
    """
    if isinstance(text, datetime):
        moment = text
    elif found := _NUMBERS.fullmatch(str(text)):
        try:
            moment = datetime(*(int(part) for part in found.groups(default="0")))  # type: ignore[arg-type]
        except ValueError:
            return None
    else:
        parsed = _parse_words(str(text))
        if parsed is None:
            return None
        moment = parsed
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def course_zone(course: NbgraderCourse, name: str | None = None) -> tzinfo:
    """Return the time zone called `name`, else the one that nbgrader's exchange is configured for, else UTC.

    Raises:
        GradingError: when this machine knows no such zone.
    """
    wanted = name or str(course.config.get("Exchange", {}).get("timezone", "UTC"))
    try:
        return UTC if wanted == "UTC" else ZoneInfo(wanted)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise GradingError(
            f"no time zone {plain(wanted, 80)!r} is known here; write it like Europe/Berlin or America/New_York"
        ) from None


def _parse_words(text: str) -> datetime | None:
    """Read what people and their systems write: "Friday, 20 November 2026, 11:59 PM", "2026-11-20 23:59:01 UTC"."""
    from dateutil import parser  # type: ignore[import-untyped]

    if not re.search(r"\d", text) or len(text) > 100:
        return None
    try:
        moment = parser.parse(text, tzinfos=_zone)
    except (ValueError, OverflowError, TypeError, ArithmeticError):
        return None
    return moment if isinstance(moment, datetime) else None


def _zone(name: str | None, offset: int | None) -> Any:
    """Return the zone that a time is written with: an offset in seconds, a name, or none."""
    from dateutil import tz

    return offset if offset is not None or not name else tz.gettz(name)
