"""A hub's facts as the station uses them: whatever a hub sends, only what makes sense is taken, as plain text."""

import json
from typing import Any

from protocol import relay
from station.plain import clean


def facts_of(up: relay.Up) -> dict[str, Any]:
    """A hub's facts; empty where they are not a JSON object."""
    try:
        facts = clean(json.loads(up.facts or b"{}"))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def place_of(facts: dict[str, Any], at: float) -> dict[str, Any] | None:
    """The place in a hub's facts, with the moment of its fix (Unix seconds); None where there is none to use.

    `at` is when the hub made the facts; lat and lon in degrees (WGS 84), accuracy in metres.
    """
    given = facts.get("place") or facts.get("location") or facts
    if not isinstance(given, dict):
        return None
    lat, lon = _number(given.get("lat"), -90, 90), _number(given.get("lon"), -180, 180)
    text = given.get("text")
    text = text[:200] if isinstance(text, str) else ""
    if (lat is None or lon is None) and not text:
        return None
    return {
        "text": text,
        "lat": lat,
        "lon": lon,
        "source": str(given.get("source") or "")[:32],
        "accuracy": _number(given.get("accuracy"), 0, 1e7),
        "at": at - (_number(given.get("age"), 0, 1e9) or 0.0),
    }


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    return None
