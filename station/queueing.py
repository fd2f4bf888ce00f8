"""The order of the alarm queue: what nobody has claimed before what somebody has, then the gravest, then the oldest."""

from typing import Any

from sqlalchemy import ColumnElement

from station.model import Alarm


def open_first() -> tuple[ColumnElement[Any], ...]:
    """ORDER BY for open alarms; escalated ones come first among the unclaimed."""
    return (
        Alarm.owner.is_not(None),
        Alarm.escalated_at.is_(None),
        Alarm.priority.asc(),
        Alarm.received_at.asc(),
        Alarm.id.asc(),
    )
