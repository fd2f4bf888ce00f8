"""What each pattern of protocol.patterns promises its wearer, and the proof that it needs."""

from . import patterns

# name: (meaning, proof needed)
MEANINGS = {
    patterns.PRESSED: ("the badge took your press", "none: it claims nothing about anybody else"),
    patterns.STATION_HAS_IT: ("the station has your alarm", "fresh receipt sealed by the station"),
    patterns.OPERATOR_WITH_YOU: ("a person is with you", "fresh claim sealed by the station"),
    patterns.NOT_DELIVERED: ("nobody has it yet: the badge goes on trying", "8 s without a receipt"),
    patterns.CHECK_IN_DUE: ("check in, please", "the badge's own timer"),
    patterns.CHECKED_IN: ("the station knows", "fresh receipt sealed by the station"),
    patterns.NOT_PROTECTED: ("no path to the station", "20 s without proof from the station"),
    patterns.PROTECTED: ("protected: the station answers", "fresh proof sealed by the station"),
    patterns.BATTERY_LOW: ("charge the badge", "the badge's own battery"),
    patterns.TEST_PASSED: ("the whole path works", "fresh receipt sealed by the station"),
    patterns.TEST_FAILED: (
        "something is missing: do not rely on it",
        "8 s without a receipt of the test, or a fresh one that says *not ready*",
    ),
}
