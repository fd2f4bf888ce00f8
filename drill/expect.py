"""Whether what a drill's file expects was held by what happened.

`kind` and `via` (and `after` and `by`) choose what an expectation speaks of; an alarm is of each kind that is among its
signals. There must be at least one such thing, or exactly `count`, or none if `absent`; and `received_within` and
`claimed_within` must hold for every one.
"""

from drill.report import Alarm, Failed, Report
from drill.scenario import AlarmExpect, Expect, HapticExpect


def judge(expects: tuple[Expect, ...], report: Report) -> list[Failed]:
    """The expectations that do not hold, each with a sentence that says what was found instead."""
    failed = []
    for expect in expects:
        text = _alarm(expect, report) if isinstance(expect, AlarmExpect) else _haptic(expect, report)
        if text is not None:
            failed.append(Failed(expect.place, text))
    return failed


def _number(found: int, count: int | None, absent: bool, what: str) -> str | None:
    if absent:
        return f"there should be no {what}, but there were {found}" if found else None
    if count is not None:
        return f"there should be {count} of {what}, but there were {found}" if found != count else None
    return None if found else f"there was no {what}"


def _alarm(expect: AlarmExpect, report: Report) -> str | None:
    of_kind = [alarm.as_kind(expect.kind) for alarm in report.alarms if alarm.badge == expect.badge]
    chosen = [alarm for alarm in of_kind if alarm is not None and expect.via in (None, alarm.via)]
    what = f"{expect.kind or 'any'} alarm of {expect.badge}"
    if expect.via is not None:
        what += f" by {expect.via}"
    wrong = _number(len(chosen), expect.count, expect.absent, what)
    if wrong is not None:
        others = ", ".join(f"{a.kind} by {a.via}" for a in report.alarms if a.badge == expect.badge)
        return f"{wrong} (alarms of this badge: {others or 'none'})"
    for alarm in chosen:
        late = _late(alarm, "received", alarm.station_received_at, expect.received_within)
        late = late or _late(alarm, "claimed", alarm.claimed_at, expect.claimed_within)
        if late is not None:
            return late
    return None


def _late(alarm: Alarm, verb: str, at: float | None, within: float | None) -> str | None:
    if within is None:
        return None
    if at is None or alarm.pressed_at is None:
        return f"{alarm.kind} {alarm.identity} of {alarm.badge} was never {verb}"
    took = at - alarm.pressed_at
    if took > within:
        which = f"{alarm.kind} {alarm.identity} of {alarm.badge}"
        return f"{which} was {verb} after {took:.3f} s, not within {within:g} s"
    return None


def _haptic(expect: HapticExpect, report: Report) -> str | None:
    times = [haptic.at for haptic in report.haptics if (haptic.badge, haptic.pattern) == (expect.badge, expect.pattern)]
    chosen = [
        at for at in times if (expect.after is None or at >= expect.after) and (expect.by is None or at <= expect.by)
    ]
    what = f"{expect.pattern} felt by {expect.badge}"
    if expect.after is not None:
        what += f" after {expect.after:g} s"
    if expect.by is not None:
        what += f" by {expect.by:g} s"
    wrong = _number(len(chosen), expect.count, expect.absent, what)
    if wrong is None:
        return None
    return f"{wrong} (felt at: {', '.join(f'{at:.2f}' for at in times) or 'never'})"
