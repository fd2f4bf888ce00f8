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

# name: (pulses, meaning, proof needed)
TABLE = {
    PRESSED: (((90, 0),), "the badge took your press", "none: it claims nothing about anybody else"),
    STATION_HAS_IT: (
        ((350, 150), (350, 0)),
        "the station has your alarm",
        "fresh receipt sealed by the station",
    ),
    OPERATOR_WITH_YOU: (
        ((700, 150), (90, 110), (90, 110), (90, 0)),
        "a person is with you",
        "fresh claim sealed by the station",
    ),
    NOT_DELIVERED: (
        ((90, 110), (90, 110), (90, 110), (90, 110), (90, 110), (90, 0)),
        "nobody has it yet: the badge goes on trying",
        "8 s without a receipt",
    ),
    CHECK_IN_DUE: (((220, 220), (220, 220), (220, 0)), "check in, please", "the badge's own timer"),
    CHECKED_IN: (((90, 110), (90, 0)), "the station knows", "fresh receipt sealed by the station"),
    NOT_PROTECTED: (
        ((700, 200), (350, 200), (90, 0)),
        "no path to the station",
        "20 s without proof from the station",
    ),
    PROTECTED: (
        ((90, 200), (350, 200), (700, 0)),
        "protected: the station answers",
        "fresh proof sealed by the station",
    ),
    BATTERY_LOW: (((90, 350), (90, 350), (90, 0)), "charge the badge", "the badge's own battery"),
    TEST_PASSED: (
        ((220, 110), (90, 110), (220, 0)),
        "the whole path works",
        "fresh receipt sealed by the station",
    ),
    TEST_FAILED: (((700, 300), (700, 0)), "the test did not come back", "8 s without a receipt"),
}

# A motor is switched by tasks that wake up late: a pulse is rather too long than too short. The pulses of two patterns
# differ by 130 ms.
_SHORT_MS = 45
_LONG_MS = 60


def pulses(name: str) -> "tuple[tuple[int, int], ...]":
    """The (on ms, off ms) pulses of a pattern; raises KeyError."""
    return TABLE[name][0]


def duration_ms(name: str) -> int:
    """How long a pattern takes, without the gap after it."""
    return sum(on + off for on, off in TABLE[name][0])


def match(felt: "list[tuple[int, int]]") -> "str | None":
    """The pattern that pulses of (on ms, off ms) make, the last off ignored; None when they are none of ours."""
    for name in TABLE:
        wanted = TABLE[name][0]
        if len(wanted) != len(felt):
            continue
        same = True
        for i in range(len(wanted)):
            if not -_SHORT_MS <= felt[i][0] - wanted[i][0] <= _LONG_MS:
                same = False
            if i < len(wanted) - 1 and not -_LONG_MS <= felt[i][1] - wanted[i][1] <= _LONG_MS:
                same = False
        if same:
            return name
    return None
