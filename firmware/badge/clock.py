"""Milliseconds since the badge started, that never run backwards and never wrap."""

from time import ticks_diff, ticks_ms, ticks_us

_last = ticks_ms()
_total = 0
MASK = (1 << 30) - 1  # the period of ticks_ms on the badge; on a laptop it goes further and is cut to the same


def ticks() -> int:
    """ticks_ms as a plain number, 0..MASK. Allocates nothing."""
    return ticks_ms() & MASK  # type: ignore[operator]


def ticks_micro() -> int:
    """ticks_us likewise; differences modulo MASK + 1."""
    return ticks_us() & MASK  # type: ignore[operator]


def now_ms() -> int:
    """Milliseconds since start. Must be asked at least once in six days (half the period of ticks_ms)."""
    global _last, _total
    ticks = ticks_ms()
    step = ticks_diff(ticks, _last)
    if step > 0:
        _total += step
        _last = ticks
    return _total
