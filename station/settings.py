"""What may be set on a badge: the station takes no value that the badge would refuse, and believes no stored one.

The badge's own table is firmware/badge/settings.py, which the station does not import; a test holds the two together.
A setting that the badge refuses arms nobody, and its default is what the wearer then has.
"""

from typing import Any

# name: least and most; what is true or false has no range
TABLE: dict[str, tuple[float, float] | None] = {
    "hold_to_sos": (0.5, 4.0),  # seconds
    "visit_minutes": (0.05, 1440),
    "grace_minutes": (0.02, 60),
    "extend_minutes": (0.05, 240),
    "missed_check_in_audio": None,
    "audio_max_minutes": (0.1, 240),
    "amber_seconds": (1, 600),
    "fall_alarm": None,
    "battery_low": (5, 50),  # percent
}


def fault(name: str, value: object) -> str:
    """What is wrong with a setting, as a sentence that says what is allowed; empty if nothing is."""
    if name not in TABLE:
        return f"no setting is called {name!r}; known: {', '.join(TABLE)}"
    limits = TABLE[name]
    if limits is None:
        return "" if isinstance(value, bool) else f"{name} must be true or false, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} must be a number, not {value!r}"
    # not (a <= b <= c): what is not a number (NaN) is refused too
    return "" if limits[0] <= value <= limits[1] else f"{name} must be {limits[0]:g} to {limits[1]:g}, not {value!r}"


def sound(stored: dict[str, Any]) -> dict[str, Any]:
    """Those of the stored settings that a badge takes: a database may hold some from before they were checked."""
    return {name: value for name, value in stored.items() if not fault(name, value)}


def number(stored: dict[str, Any], name: str, default: float) -> float:
    """A stored setting in its own unit, or the default where there is none or it is no good."""
    return float(stored[name]) if name in stored and not fault(name, stored[name]) else default


def on(stored: dict[str, Any], name: str) -> bool:
    """A stored setting that is true or false; false where there is none or it is no good."""
    return stored.get(name) is True
