"""Milliseconds since the badge started, that never run backwards and never wrap."""

from time import ticks_diff, ticks_ms

_last = ticks_ms()
_total = 0


def now_ms() -> int:
    """Milliseconds since start. Must be asked at least once in six days (half the period of ticks_ms)."""
    global _last, _total
    ticks = ticks_ms()
    step = ticks_diff(ticks, _last)
    if step > 0:
        _total += step
        _last = ticks
    return _total
