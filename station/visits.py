"""Visits and their timers: the station's clock decides when one is overdue, also when nobody can reach it.

A visit has an interval and a grace. A check-in restarts the whole interval, an extension adds to it, and interval
plus grace without one raises a missed check-in. What the badge did counts from the moment when it was done on the
badge (arrival minus age); a mark older than the one that the interval counts from changes nothing, so that any
order of arrival gives the same timer.

A badge is on one visit at a time, and the one that began last counts: a start that is only late in coming ends
nothing that began after it. Where nobody knows when a visit began, its timer runs beside the other's until its
envelope says, because a false alarm is better than none. So it is with what a clock that was set back since has left
in the future.

A planned visit arms the badge by a VISIT message, repeated with each STATUS until the badge says that it knows.
Where the badge stays silent the timer runs all the same, and the wearer is told that they are not protected, as far
as they can be reached.
"""

from typing import Any

from sqlalchemy import select

from protocol import downlink, events, kinds
from protocol.ident import NONE
from station import alarms, audit, downlinks, settings, supervision
from station.clock import STEP_S
from station.model import Badge, BadgeEvent, Mark, Visit
from station.work import Work

ARM_WITHIN = 15.0  # seconds after the planned start: three STATUS intervals, then the badge counts as silent
PROMPT = 60.0  # seconds: a start that is told within them is of now, whatever an earlier clock said of another's
ORDERS = 3  # times that a change by an operator is repeated: the badge's STATUS does not say when it is due
MINUTES_MIN, MINUTES_MAX = 0.01, 1440.0  # products allow up to a day
TEXT_MAX = 200


def _open(work: Work, badge: int) -> list[Visit]:
    rows = work.db.scalars(
        select(Visit).where(Visit.badge == badge, Visit.ended_at.is_(None)).order_by(Visit.id.desc())
    )
    return list(rows)


def _running(work: Work, badge: int) -> list[Visit]:
    """Begun and not ended, the one that began last first."""
    begun = [(v.started_at, v.id, v) for v in _open(work, badge) if v.started_at is not None]
    return [v for _, _, v in sorted(begun, reverse=True, key=lambda row: row[:2])]


def current(work: Work, badge: int) -> Visit | None:
    """The visit that a badge is on: begun and not ended."""
    return next(iter(_running(work, badge)), None)


def _named(body: bytes) -> bool:
    return len(body) >= 12 and any(body[:12])


def find(work: Work, badge: int, body: bytes) -> Visit | None:
    """The visit that an event speaks of: by the station's number, by its start's identity, else the current one."""
    number, ref = 0, NONE
    if len(body) >= 12:
        number, ref = int.from_bytes(body[:4], "big"), bytes(body[4:12])
    if number:
        visit = work.db.get(Visit, number)
        if visit is not None and visit.badge == badge:
            return visit
    if ref != NONE:
        return work.db.scalar(select(Visit).where(Visit.badge == badge, Visit.ref == ref).limit(1))
    return current(work, badge)


# --- planned at the station -------------------------------------------------------------------------------------


def plan(work: Work, who: str, badge: Badge, wanted: dict[str, Any]) -> Visit:
    """Plan a visit: minutes, grace, place, with, starts_at, note, audio. Raises alarms.Invalid."""
    defaults = work.core.config.visits
    interval = _minutes(wanted, "minutes", defaults.minutes)
    grace = _minutes(wanted, "grace", defaults.grace)
    starts_at = _number(wanted, "starts_at", work.now + 60 * _number(wanted, "starts_in", 0.0))
    running = current(work, badge.number)
    if running is not None and starts_at < (running.started_at or 0.0) <= work.now + STEP_S:
        raise alarms.Invalid("a visit of this badge began after that: end it first, or let this one begin later")
    agreed = wanted.get("audio", settings.on(badge.settings, "missed_check_in_audio"))
    visit = Visit(
        badge=badge.number,
        origin="planned",
        ref=NONE,
        place=_text(wanted, "place"),
        company=_text(wanted, "with"),
        note=_text(wanted, "note"),
        audio=agreed in (True, "true", "on", "1", "yes"),
        interval=interval,
        grace=grace,
        starts_at=starts_at,
        due_at=starts_at + interval,
    )
    work.db.add(visit)
    work.db.flush()
    work.audit(who, "plan visit", f"visit:{visit.id}", badge=badge.number, starts_at=starts_at)
    work.visit_changed(visit, "planned")
    if starts_at <= work.now:
        _start(work, visit, starts_at)
    return visit


def _minutes(wanted: dict[str, Any], name: str, default: float) -> float:
    minutes = _number(wanted, name, default)
    if not MINUTES_MIN <= minutes <= MINUTES_MAX:
        raise alarms.Invalid(f"{name} must be {MINUTES_MIN:g} to {MINUTES_MAX:g} minutes")
    return minutes * 60


def _number(wanted: dict[str, Any], name: str, default: float) -> float:
    given = wanted.get(name)
    if given is None or given == "":
        return default
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise alarms.Invalid(f"{name} must be a number, not {given!r}") from None
    if not -1e12 < number < 1e12:
        raise alarms.Invalid(f"{name} must be a number, not {given!r}")
    return number


def _text(wanted: dict[str, Any], name: str) -> str:
    given = wanted.get(name) or ""
    if not isinstance(given, str) or len(given) > TEXT_MAX:
        raise alarms.Invalid(f"{name} must be text of at most {TEXT_MAX} characters")
    return given.strip()


def _start(work: Work, visit: Visit, at: float, uncertain: bool = False) -> None:
    """A visit begins; told late, it may be over already. Who does not know when it began ends no other visit."""
    visit.started_at = visit.marked_at = at
    visit.due_at = at + visit.interval
    work.visit_changed(visit, "started")
    if not uncertain:
        _one_at_a_time(work, visit, at)
    badge = work.badge(visit.badge)
    if badge is not None and visit.ended_at is None:
        downlinks.tell(work, badge, downlink.VISIT, order(work, visit))


def _one_at_a_time(work: Work, visit: Visit, at: float) -> None:
    """Of two visits of a badge the earlier one ended when the later one began; an overdue one keeps its alarm."""
    beside = _of_an_earlier_clock(work, visit, at)
    later = work.db.scalar(
        select(Visit)
        .where(
            Visit.badge == visit.badge,
            Visit.id != visit.id,
            Visit.started_at > at,
            # one that is over counts where the badge itself was on it: what only the station began says nothing of it
            Visit.ended_at.is_(None) | (Visit.origin == "badge") | Visit.armed_at.is_not(None),
        )
        .order_by(Visit.started_at)
        .limit(1)
    )
    if later is not None and later.started_at is not None:
        _end(work, visit, later.started_at, f"visit:{later.id} began")
    for other in _running(work, visit.badge):
        if other is not visit and other not in beside and (other.started_at or 0.0) <= at:
            _end(work, other, at, f"visit:{visit.id} began")


def _of_an_earlier_clock(work: Work, visit: Visit, at: float) -> list[Visit]:
    """Put right what a clock that was set back since has left in the future: it began no later than this visit.

    Gives those that run on beside it: of what is told late nobody can say which of the two began last.
    """
    beside = []
    for other in work.db.scalars(
        select(Visit).where(Visit.badge == visit.badge, Visit.id != visit.id, Visit.started_at > work.now + STEP_S)
    ):
        work.audit(audit.STATION, "visit from the future", f"visit:{other.id}", started_at=other.started_at)
        other.started_at = at
        if other.ended_at is None and work.now - at > PROMPT:
            beside.append(other)
    return beside


def order(work: Work, visit: Visit) -> bytes:
    """The visit as the badge is told of it."""
    ended = visit.ended_at is not None
    flags = (downlink.VISIT_ENDED if ended else 0) | (downlink.VISIT_AUDIO if visit.audio else 0)
    remaining = 0 if ended else max(round((visit.due_at - work.now) * 1000), 0)
    return downlink.pack_visit(
        visit.id, visit.ref, remaining, round(visit.interval * 1000), round(visit.grace * 1000), flags
    )


def by_operator(work: Work, who: str, visit: Visit, what: str) -> None:
    """An operator ends, extends or checks in for the wearer who is on the telephone. Raises alarms.Refused."""
    if visit.ended_at is not None:
        raise alarms.Refused("this visit has ended")
    work.audit(who, f"visit {what}", f"visit:{visit.id}")
    if what == "end":
        if visit.started_at is None:
            visit.cancelled = True
        _end(work, visit, work.now, who)
    elif visit.started_at is None:
        raise alarms.Refused("this visit has not begun")
    elif what == "extend":
        if not _extend(work, visit, work.now, None, who):
            raise alarms.Refused("this visit has been extended as often as is allowed")
    else:
        _restart(work, visit, work.now, who)
    badge = work.badge(visit.badge)
    visit.orders = ORDERS
    if badge is not None:
        downlinks.tell(work, badge, downlink.VISIT, order(work, visit))


def orders_for(work: Work, badge: Badge, known: int) -> list[bytes]:
    """VISIT messages that a badge needs which says that it is on visit number `known` (0: none of ours)."""
    wanted = []
    visit = current(work, badge.number)
    if visit is not None:
        if known == visit.id:
            armed(work, visit)
        if known != visit.id or visit.orders > 0:
            visit.orders = max(visit.orders - 1, 0)
            wanted.append(order(work, visit))
    elif known:
        gone = work.db.get(Visit, known)
        if gone is not None and gone.badge == badge.number and gone.ended_at is not None:
            wanted.append(order(work, gone))
    return wanted


# --- what the badge says ----------------------------------------------------------------------------------------


def from_badge(work: Work, badge: Badge, event: BadgeEvent, kind: int, body: bytes) -> Visit | None:
    """An event about a visit; `kind` is what it is or, for a duress, imitates."""
    if kind == kinds.VISIT_START:
        return _started_on_badge(work, badge, event, body)
    visit = find(work, badge.number, body)
    if visit is None or (visit.ended_at is not None and kind != kinds.VISIT_END):
        work.count("visit unknown")
        return None
    if not event.uncertain and event.raised_at < (visit.started_at or 0.0) and not _named(body):
        work.count("visit unknown")  # it speaks of no visit, and the one that runs had not begun
        return None
    if kind == kinds.VISIT_ARMED:
        armed(work, visit)
    elif kind == kinds.CHECK_IN:
        _restart(work, visit, event.raised_at, None)
    elif kind == kinds.EXTEND:
        remaining = events.unpack_visit(body)[2] / 1000 if len(body) == 20 else None
        _extend(work, visit, event.raised_at, remaining, None)
    elif kind == kinds.VISIT_END:
        _end(work, visit, event.raised_at, "badge")
    return visit


def _started_on_badge(work: Work, badge: Badge, event: BadgeEvent, body: bytes) -> Visit:
    visit = work.db.scalar(select(Visit).where(Visit.badge == badge.number, Visit.ref == event.ident).limit(1))
    defaults = work.core.config.visits
    interval = settings.number(badge.settings, "visit_minutes", defaults.minutes) * 60
    grace = settings.number(badge.settings, "grace_minutes", defaults.grace) * 60
    if len(body) == 20:
        _, _, _, interval_s, grace_s = events.unpack_visit(body)
        interval, grace = float(interval_s or interval), float(grace_s)
    if visit is not None:
        # known by its beacon: now the badge's own times, unless a later mark has moved them already
        visit.interval, visit.grace = interval, grace
        if visit.marked_at == visit.started_at:
            visit.marked_at = event.raised_at
            visit.due_at = event.raised_at + interval
        visit.started_at = event.raised_at
        work.visit_changed(visit, "started")
        if not event.uncertain:
            _one_at_a_time(work, visit, event.raised_at)
        return visit
    visit = Visit(
        badge=badge.number,
        origin="badge",
        ref=event.ident,
        audio=settings.on(badge.settings, "missed_check_in_audio"),
        interval=interval,
        grace=grace,
        starts_at=event.raised_at,
        due_at=event.raised_at + interval,
        armed_at=work.now,
    )
    work.db.add(visit)
    work.db.flush()
    _start(work, visit, event.raised_at, event.uncertain)
    _late_marks(work, visit)
    return visit


def _late_marks(work: Work, visit: Visit) -> None:
    """Events about this visit that came before its start did."""
    for event in work.db.scalars(
        select(BadgeEvent)
        .where(
            BadgeEvent.badge == visit.badge,
            BadgeEvent.kind.in_((kinds.CHECK_IN, kinds.EXTEND, kinds.VISIT_END)),
            BadgeEvent.raised_at >= visit.starts_at,
        )
        .order_by(BadgeEvent.raised_at)
    ):
        if len(event.body) == 20 and event.body[4:12] == visit.ref:
            badge = work.badge(visit.badge)
            assert badge is not None
            from_badge(work, badge, event, event.kind, event.body)


def armed(work: Work, visit: Visit) -> None:
    """The badge says that it knows the visit."""
    if visit.armed_at is None:
        visit.armed_at = work.now
        supervision.settle(work, f"badge:{visit.badge}", "not_protected")
        work.visit_changed(visit, "armed")


def _mark(work: Work, visit: Visit, at: float, what: str, who: str | None) -> bool:
    known = select(Mark.id).where(Mark.visit_id == visit.id, Mark.what == what, Mark.at == at)
    if work.db.scalar(known.limit(1)) is not None:
        return False
    work.db.add(Mark(visit_id=visit.id, at=at, what=what, who=who))
    return True


def _restart(work: Work, visit: Visit, at: float, who: str | None) -> None:
    if not _mark(work, visit, at, "check_in", who):
        return
    if visit.marked_at is None or at >= visit.marked_at:
        visit.marked_at = at
        visit.due_at = at + visit.interval
        _settle_overdue(work, visit)
    _tell_alarm(work, visit, "check-in on the visit", at, who)
    work.visit_changed(visit, "check_in")


def _extend(work: Work, visit: Visit, at: float, remaining: float | None, who: str | None) -> bool:
    limits = work.core.config.visits
    marks = list(work.db.scalars(select(Mark.at).where(Mark.visit_id == visit.id, Mark.what == "extended")))
    if len(marks) >= limits.extend_max:
        work.count("extension refused")
        work.audit(who or audit.STATION, "extension refused", f"visit:{visit.id}", extensions=len(marks))
        return False
    if not _mark(work, visit, at, "extended", who):
        return True
    badge = work.badge(visit.badge)
    minutes = settings.number(badge.settings if badge else {}, "extend_minutes", limits.extend_minutes)
    if visit.marked_at is None or at >= visit.marked_at:
        visit.marked_at = at
        # by the badge's own count where it says so: a check-in that is still on its way is in it
        most = visit.interval + (len(marks) + 1) * minutes * 60
        visit.due_at = max(visit.due_at, at) + minutes * 60 if remaining is None else at + min(remaining, most)
        _settle_overdue(work, visit)
    _tell_alarm(work, visit, "the visit was extended", at, who)
    work.visit_changed(visit, "extended")
    return True


def _settle_overdue(work: Work, visit: Visit) -> None:
    if visit.overdue_at is not None and _deadline(visit) > work.now:
        visit.overdue_at = None  # running again; its alarm stays open until somebody closes it


def _tell_alarm(work: Work, visit: Visit, text: str, at: float, who: str | None) -> None:
    alarm = work.alarm(visit.alarm_id) if visit.alarm_id is not None else None
    if alarm is not None and alarm.closed_at is None:
        work.log(alarm, "signal", who, text, at=at)


def _end(work: Work, visit: Visit, at: float, by: str) -> None:
    if visit.ended_at is not None:
        if by == "badge" and at < visit.ended_at:
            # the wearer had ended it before it was ended here, and that came late
            visit.ended_at = at
            work.visit_changed(visit, "ended")
        return
    visit.ended_at = at
    work.audit(by, "visit ended", f"visit:{visit.id}")
    text = "the wearer ended the visit" if by == "badge" else f"the visit was ended ({by})"
    _tell_alarm(work, visit, text, at, None)
    goes_on = current(work, visit.badge)
    if goes_on is None or goes_on.armed_at is not None:
        supervision.settle(work, f"badge:{visit.badge}", "not_protected")
    work.visit_changed(visit, "ended")


def missed_on_badge(work: Work, badge: Badge, event: BadgeEvent) -> None:
    """The badge's own timer ran out: an alarm, and its visit marked overdue so that the station raises no second one.

    Marked only for the interval that runs: a miss that comes after the check-in which followed it is an alarm all the
    same, and the next deadline stands. So it does where the miss is part of what was dealt with and closed.
    """
    visit = find(work, badge.number, event.body)
    alarm = alarms.signal(work, badge, event, "missed_check_in", visit)
    if visit is None or visit.ended_at is not None or _raised(visit) or alarm.closed_at is not None:
        return
    # the grace is what the badge's clock and the station's may differ
    if event.raised_at >= visit.due_at:
        visit.overdue_at = max(work.now, _deadline(visit))
        work.visit_changed(visit, "overdue")


def _deadline(visit: Visit) -> float:
    return visit.due_at + visit.grace


def _raised(visit: Visit) -> bool:
    """Whether the deadline that stands now has been raised; one that was moved since has not."""
    return visit.overdue_at is not None and visit.overdue_at >= _deadline(visit)


# --- time passes ------------------------------------------------------------------------------------------------


def watch(work: Work) -> None:
    """Start what was planned, raise what is overdue, and say where a badge is silent."""
    for visit in work.db.scalars(select(Visit).where(Visit.ended_at.is_(None)).with_for_update()):
        if visit.ended_at is not None:
            continue  # just now, by another that began
        if visit.started_at is None:
            if visit.starts_at <= work.now:
                _start(work, visit, visit.starts_at)
            continue
        if work.now >= _deadline(visit) and not _raised(visit):
            visit.overdue_at = work.now
            alarm = work.alarm(visit.alarm_id) if visit.alarm_id is not None else None
            if alarm is None or alarm.closed_at is not None:
                alarms.missed_check_in(work, visit)
            else:
                alarms.missed_again(work, alarm)
            work.visit_changed(visit, "overdue")
        if visit.armed_at is None and visit.told_at is None and work.now > visit.started_at + ARM_WITHIN:
            visit.told_at = work.now
            badge = work.badge(visit.badge)
            told = badge is not None and downlinks.tell(
                work, badge, downlink.NOT_PROTECTED, visit.id.to_bytes(4, "big")
            )
            text = "the badge was silent when the visit began; the timer runs" + (
                "" if told else "; the wearer could not be told"
            )
            supervision.raise_entry(work, f"badge:{visit.badge}", "not_protected", text)
