"""What each pattern of protocol.patterns promises its wearer, the proof that it needs, and which one pulses make."""

from . import patterns

# name: (meaning, proof needed)
MEANINGS = {
    patterns.PRESSED: ("the badge took your press", "none: it claims nothing about anybody else"),
    patterns.STATION_HAS_IT: ("the station has your alarm", "fresh receipt sealed by the station"),
    patterns.OPERATOR_WITH_YOU: ("a person is with you", "fresh claim sealed by the station"),
    patterns.NOT_DELIVERED: ("nobody has it yet: the badge goes on trying", "7.5 s without a receipt"),
    patterns.CHECK_IN_DUE: ("check in, please", "the badge's own timer"),
    patterns.CHECKED_IN: ("the station knows", "fresh receipt sealed by the station"),
    patterns.NOT_PROTECTED: ("no path to the station", "20 s without proof from the station"),
    patterns.PROTECTED: ("protected: the station answers", "fresh proof sealed by the station"),
    patterns.BATTERY_LOW: ("charge the badge", "the badge's own battery"),
    patterns.TEST_PASSED: ("the whole path works", "fresh receipt sealed by the station"),
    patterns.TEST_FAILED: (
        "something is missing: do not rely on it",
        "7.5 s without a receipt of the test, or a fresh one that says *not ready*",
    ),
}

# Four lengths of a pulse, and no two patterns with the same lengths in the same order. A motor that is switched off
# late makes a pulse longer and never shorter (firmware/badge/haptic.py), so each is the longest of 90, 220, 350 and
# 700 ms that it can be: up to here. Pauses tell nothing apart; one as long as the rest between two patterns ends one.
_BETWEEN_MS = (205, 335, 650, 1100)
_LENGTHS_MS = (90, 220, 350, 700)
_SHORTEST_MS = 40  # of a pause; of a pulse twice that


def match(felt: "list[tuple[int, int]]") -> "str | None":
    """The pattern that pulses of (on ms, off ms) make, the last off ignored; None when they are none of ours."""
    lengths = []
    for i in range(len(felt)):
        on, off = felt[i]
        if not 2 * _SHORTEST_MS <= on < _BETWEEN_MS[-1] or (
            i < len(felt) - 1 and not _SHORTEST_MS <= off < patterns.GAP_MS
        ):
            return None
        nearest = 0
        while on >= _BETWEEN_MS[nearest]:
            nearest += 1
        lengths.append(_LENGTHS_MS[nearest])
    for name in MEANINGS:
        if [on for on, _ in patterns.pulses(name)] == lengths:
            return name
    return None
