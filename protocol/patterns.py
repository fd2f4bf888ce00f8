"""What the wearer feels: each pattern, what it promises, and the proof it needs.

A pattern is a row of (on ms, off ms) pulses of the motor. They differ in number and length of pulses, so that a
person tells them apart without looking and a machine can name one from the motor alone. Between two patterns the
motor rests at least GAP_MS.
"""

PRESSED = "pressed"
STATION_HAS_IT = "station_has_it"
OPERATOR_WITH_YOU = "operator_with_you"
NOT_DELIVERED = "not_delivered"
CHECK_IN_DUE = "check_in_due"
CHECKED_IN = "checked_in"
NOT_PROTECTED = "not_protected"
PROTECTED = "protected"
BATTERY_LOW = "battery_low"
TEST_PASSED = "test_passed"
TEST_FAILED = "test_failed"

GAP_MS = 500

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any

    from .meanings import match as match

    TABLE: "dict[str, tuple[tuple[tuple[int, int], ...], str, str]]"

# name: its pulses, each as (on, off) in hundredths of a second. In bytes, because the badge keeps them in flash; TABLE
# has them with what they mean (protocol/meanings.py).
_PULSES = {
    PRESSED: b"\x09\x00",
    STATION_HAS_IT: b"\x23\x0f\x23\x00",
    OPERATOR_WITH_YOU: b"\x46\x0f\x09\x0b\x09\x0b\x09\x00",
    NOT_DELIVERED: b"\x09\x0b\x09\x0b\x09\x0b\x09\x0b\x09\x0b\x09\x00",
    CHECK_IN_DUE: b"\x16\x16\x16\x16\x16\x00",
    CHECKED_IN: b"\x09\x0b\x09\x00",
    NOT_PROTECTED: b"\x46\x14\x23\x14\x09\x00",
    PROTECTED: b"\x09\x14\x23\x14\x46\x00",
    BATTERY_LOW: b"\x09\x23\x09\x23\x09\x00",
    TEST_PASSED: b"\x16\x0b\x09\x0b\x16\x00",
    TEST_FAILED: b"\x46\x1e\x46\x00",
}


def pulses(name: str) -> "tuple[tuple[int, int], ...]":
    """The (on ms, off ms) pulses of a pattern; raises KeyError."""
    raw = _PULSES[name]
    return tuple([(10 * raw[i], 10 * raw[i + 1]) for i in range(0, len(raw), 2)])


def duration_ms(name: str) -> int:
    """How long a pattern takes, without the gap after it."""
    return 10 * sum(_PULSES[name])


def __getattr__(name: str) -> "Any":
    # TABLE is name: (pulses, meaning, proof needed). Loaded where it is asked for, which is never on a badge
    if name == "TABLE":
        from .meanings import MEANINGS

        return {known: (pulses(known),) + MEANINGS[known] for known in _PULSES}
    if name == "match":
        from .meanings import match

        return match
    raise AttributeError(name)
