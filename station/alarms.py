"""Alarms as operators handle them: one alarm per incident, one owner, an honest custody level, a closing that says
how it ended.

Theory. Signals come in any order, by several hubs, as events and as beacons; those of one incident are one alarm.
Which signals belong together is said by the badge (`incident` in the sealed event), or by the visit that was
missed. A beacon says neither: it joins the open alarm of the same badge and boot if there is one, because ringing
twice for one incident is worse there than once for two, and a new signal always rings again: where somebody has the
alarm already, at all consoles until its owner says that they saw it, by claiming it once more, or another takes over.

The level rises RECEIVED, CLAIMED, LISTENING, CLOSED. It falls only when the owner's console died: the promise
"a person is with you" is then no longer true, and the badge is told so.
"""

from sqlalchemy import select

from protocol import ident, kinds
from protocol.ident import NONE
from station import archive, audit, downlinks, views
from station.model import (
    Alarm,
    AlarmCapture,
    AlarmIncident,
    Badge,
    BadgeEvent,
    Capture,
    Identity,
    Operator,
    StepDone,
    Visit,
)
from station.steps import steps_for
from station.work import Work

# The graver first. An alarm with several signals is of the gravest kind.
GRAVITY = ("duress", "sos", "lanyard", "fall", "missed_check_in", "loss_of_contact")
PRIORITY = {"duress": 0, "sos": 0, "lanyard": 0, "fall": 1, "missed_check_in": 2, "loss_of_contact": 3}

OUTCOMES = {
    "help_given": "Help was given",
    "police_attended": "The police attended",
    "resolved": "Resolved without attendance",
    "accidental": "Set off by accident",
    "false_activation": "False activation",
    "equipment_fault": "Equipment fault",
    "training": "Training or drill",
}
WELFARE = {
    "spoke_to_wearer": "Spoke to the wearer",
    "safe_word": "The wearer gave the safe word",
    "seen_in_person": "Seen in person",
    "police_confirmed": "Confirmed by the police",
    "contact_confirmed": "Confirmed by the agreed contact",
}
# why an alarm is escalated that somebody has, or may believe to be over
AFTER_CANCEL = "a new signal came after the wearer's cancel"
AFTER_CLAIM = "a new signal came after it was claimed"
UNSEEN = "a new signal came that was not on its owner's screen when they claimed it"
MISSED_AGAIN = "the check-in was missed once more"
_PLAIN_WELFARE = ("true", "confirmed", "yes", "on", "1")
NOTE_MAX = 2000


class Refused(Exception):
    """A rule forbids it now. `owner` is who has the alarm, where that is the reason."""

    def __init__(self, text: str, owner: str | None = None) -> None:
        super().__init__(text)
        self.owner = owner


class Invalid(Exception):
    """What was asked for is incomplete or has no meaning; the text says what is needed."""


# --- signals ----------------------------------------------------------------------------------------------------


def signal(work: Work, badge: Badge, event: BadgeEvent, kind: str, visit: Visit | None = None) -> Alarm:
    """An event of a badge that alarms: the alarm it belongs to, made if there is none."""
    incident = event.incident if event.incident != NONE else event.ident
    alarm = _belongs_to(work, badge, event, kind, visit)
    # what was raised before the closing and is only late in coming is part of what was dealt with
    if alarm is not None and alarm.closed_at is not None and _after(event, alarm.closed_at):
        alarm = None
    if alarm is None:
        alarm = _open(work, badge, event, kind, visit)
        _know(work, alarm, incident)
        _know(work, alarm, event.ident)
        work.audit(audit.STATION, "alarm raised", f"alarm:{alarm.id}", kind=kind, identity=alarm.identity)
        work.log(alarm, "raised", text=kind, at=event.raised_at)
        if work.now - event.raised_at > work.core.config.alarms.receive_target:
            escalate(work, alarm, f"it arrived {work.now - event.raised_at:.0f} s after it was raised")
    else:
        _join(work, alarm, event, kind, visit, incident)
    if event.alarm_id != alarm.id:
        event.alarm_id, event.alarm_version = alarm.id, work.next_version(alarm)
    alarm.silent = alarm.silent or kind == "duress"
    _earlier_cancel(work, alarm, incident)
    work.alarm_changed(alarm, "signal")
    return alarm


def _after(event: BadgeEvent, at: float) -> bool:
    return event.uncertain or event.raised_at > at


def _belongs_to(work: Work, badge: Badge, event: BadgeEvent, kind: str, visit: Visit | None) -> Alarm | None:
    # by its own identity first: its beacon may have opened an alarm after that of its incident was closed
    for name in (event.ident, event.incident):
        alarm = downlinks.find_alarm(work, badge.number, name)
        if alarm is not None:
            return alarm
    if visit is not None and visit.alarm_id is not None and kind == "missed_check_in":
        alarm = work.alarm(visit.alarm_id)
        if alarm is not None and alarm.closed_at is None:
            return alarm
    same_boot = [a for a in _open_ones(work, badge.number) if a.ident[:6] == event.ident[:6]]
    if event.incident == NONE:
        return same_boot[0] if same_boot else None
    # the envelope of what opened the incident, after a beacon of something later in it
    return next((a for a in same_boot if not _sealed_signal(work, a)), None)


def _open_ones(work: Work, badge: int) -> list[Alarm]:
    return list(
        work.db.scalars(
            select(Alarm)
            .where(Alarm.badge == badge, Alarm.closed_at.is_(None), Alarm.ident != NONE)
            .order_by(Alarm.id.desc())
        )
    )


def _sealed_signal(work: Work, alarm: Alarm) -> bool:
    found = work.db.scalar(
        select(Identity.sealed)
        .join(BadgeEvent, (BadgeEvent.badge == Identity.badge) & (BadgeEvent.ident == Identity.ident))
        # a cancel is no signal: it may be the first of its incident whose envelope comes
        .where(BadgeEvent.alarm_id == alarm.id, BadgeEvent.kind.in_(kinds.ALARMS), Identity.sealed.is_(True))
        .limit(1)
    )
    return bool(found)


def _open(work: Work, badge: Badge, event: BadgeEvent, kind: str, visit: Visit | None) -> Alarm:
    named = event.incident if event.incident != NONE else event.ident
    alarm = Alarm(
        badge=badge.number,
        wearer_id=badge.wearer_id,
        kind=kind,
        priority=PRIORITY[kind],
        silent=kind == "duress",
        identity=ident.text(badge.number, event.ident),
        incident=ident.text(badge.number, named).replace("/", "-"),
        ident=named,
        visit_id=visit.id if visit else None,
        level=kinds.RECEIVED,
        raised_at=event.raised_at,
        uncertain=event.uncertain,
        received_at=event.received_at,
        via=event.via,
        hub=event.hub,
    )
    _store(work, alarm, visit)
    return alarm


def _store(work: Work, alarm: Alarm, visit: Visit | None) -> None:
    work.db.add(alarm)
    work.db.flush()
    if visit is not None:
        if alarm.kind == "missed_check_in":
            visit.alarm_id = alarm.id
        # a spoken note at the start of the visit helps whoever handles its alarm
        for capture in work.db.scalars(
            select(Capture).where(
                Capture.badge == alarm.badge,
                Capture.alarm_id.is_(None),
                Capture.first_at >= (visit.started_at or work.now),
            )
        ):
            archive.link(work, capture, alarm.id)


def _know(work: Work, alarm: Alarm, incident: bytes) -> None:
    row = work.find(AlarmIncident, alarm.badge, incident)
    if row is None:
        work.add(AlarmIncident(badge=alarm.badge, ident=incident, alarm_id=alarm.id))
    else:
        row.alarm_id = alarm.id
    # one that has ended stays with the alarm that it was heard in
    for capture in work.db.scalars(
        select(Capture).where(
            Capture.badge == alarm.badge,
            Capture.incident == incident,
            Capture.alarm_id.is_(None) | Capture.ended_at.is_(None),
        )
    ):
        archive.link(work, capture, alarm.id)


def _join(work: Work, alarm: Alarm, event: BadgeEvent, kind: str, visit: Visit | None, incident: bytes) -> None:
    sealed = event.incident != NONE
    first = event.alarm_id is None
    if alarm.ident == NONE or (sealed and event.ident == incident and not _sealed_signal(work, alarm)):
        alarm.ident = incident
    if not sealed and alarm.cancelled_at is not None and first:
        # after a cancel the badge opens a new incident: this beacon announces it
        alarm.ident = event.ident
    _know(work, alarm, incident)
    _know(work, alarm, event.ident)
    if event.raised_at < alarm.raised_at or (alarm.uncertain and not event.uncertain and event.ident == incident):
        alarm.raised_at, alarm.uncertain = event.raised_at, event.uncertain
    if GRAVITY.index(kind) < GRAVITY.index(alarm.kind):
        alarm.kind, alarm.priority = kind, PRIORITY[kind]
    if visit is not None and alarm.visit_id is None:
        alarm.visit_id = visit.id
    if first:
        work.log(alarm, "signal", text=kind, at=event.raised_at)
        if alarm.closed_at is not None:
            return
        if alarm.cancelled_at is not None and event.raised_at > alarm.cancelled_at:
            escalate(work, alarm, AFTER_CANCEL)
        elif alarm.owner is not None:
            escalate(work, alarm, AFTER_CLAIM)


def missed_check_in(work: Work, visit: Visit) -> Alarm:
    """The station's own clock says that a visit is overdue."""
    badge = work.badge(visit.badge)
    assert badge is not None
    due = visit.due_at + visit.grace
    alarm = Alarm(
        badge=badge.number,
        wearer_id=badge.wearer_id,
        kind="missed_check_in",
        priority=PRIORITY["missed_check_in"],
        identity=f"station/{visit.id}",
        incident=f"station-{visit.id}",
        ident=NONE,
        visit_id=visit.id,
        level=kinds.RECEIVED,
        raised_at=due,
        received_at=work.now,
        via="station",
        hub=None,
    )
    _store(work, alarm, visit)
    work.audit(audit.STATION, "alarm raised", f"alarm:{alarm.id}", kind=alarm.kind, identity=alarm.identity)
    work.log(alarm, "raised", text="missed_check_in", at=due)
    return alarm


def missed_again(work: Work, alarm: Alarm) -> None:
    """The station's own clock says that the visit of an open alarm is overdue once more."""
    alarm.missed_version = work.next_version(alarm)
    work.alarm_changed(alarm, "escalated")  # a version that shows it, also where it is escalated for that already
    escalate(work, alarm, MISSED_AGAIN)


def cancel(work: Work, badge: Badge, event: BadgeEvent) -> Alarm | None:
    """The wearer cancelled: shown, and never a closing. Before its alarm it waits for it."""
    alarm = downlinks.find_alarm(work, badge.number, event.incident)
    if alarm is None and event.incident == NONE:
        alarm = next((a for a in _open_ones(work, badge.number) if a.ident[:6] == event.ident[:6]), None)
    if alarm is not None:
        event.alarm_id = alarm.id
        _cancelled(work, alarm, event)
    return alarm


def _cancelled(work: Work, alarm: Alarm, event: BadgeEvent) -> None:
    if alarm.cancelled_at is None:
        alarm.cancelled_at = event.raised_at
        work.log(alarm, "cancelled", text="by the wearer", at=event.raised_at)


def _earlier_cancel(work: Work, alarm: Alarm, incident: bytes) -> None:
    event = work.db.scalar(
        select(BadgeEvent)
        .where(
            BadgeEvent.badge == alarm.badge,
            BadgeEvent.kind == kinds.CANCEL,
            BadgeEvent.incident == incident,
            BadgeEvent.alarm_id.is_(None),
        )
        .limit(1)
    )
    if event is not None:
        event.alarm_id = alarm.id
        _cancelled(work, alarm, event)


def told(work: Work, alarm: Alarm, level: int) -> None:
    """The badge itself said which custody level it knows."""
    if level > alarm.told_level and level in (kinds.RECEIVED, kinds.CLAIMED, kinds.LISTENING, kinds.CLOSED):
        alarm.told_level, alarm.told_at = level, work.now
        work.log(alarm, "told", text=kinds.LEVEL_NAMES[level])


# --- operators --------------------------------------------------------------------------------------------------


def claim(work: Work, alarm: Alarm, operator: str, shown: int | None = None) -> None:
    """Make the operator the owner; by the owner: the new signal was seen. Raises Refused when it is closed or somebody
    else's.

    `shown` is the version of the alarm that the operator had on the screen, None for the present one. What came later
    they have not seen: the alarm is theirs and rings on.
    """
    _still_open(alarm)
    if alarm.owner == operator and not views.new_signal(work.db, alarm):
        return
    if alarm.owner not in (None, operator):
        raise Refused(f"{alarm.owner} has claimed this alarm; take it over if you must", alarm.owner)
    _own(work, alarm, operator, shown)
    work.log(alarm, "claimed", operator)
    work.audit(operator, "claim", f"alarm:{alarm.id}")
    downlinks.tell_state(work, alarm)


def take_over(work: Work, alarm: Alarm, operator: str, reason: str = "", shown: int | None = None) -> None:
    """Become the owner of an alarm that somebody else has; `shown` as in claim(). Raises Refused when it is closed."""
    _still_open(alarm)
    before = alarm.owner
    if before is None or before == operator:
        claim(work, alarm, operator, shown)
        return
    _own(work, alarm, operator, shown)
    work.log(alarm, "taken_over", operator, f"from {before}" + (f": {reason}" if reason else ""))
    work.audit(operator, "take over", f"alarm:{alarm.id}", owner_before=before, reason=reason)
    downlinks.tell_state(work, alarm)


def _own(work: Work, alarm: Alarm, operator: str, shown: int | None) -> None:
    saw = work.next_version(alarm) if shown is None else min(shown, alarm.version)
    # a page that was left behind takes back nothing that the same person has said they saw
    alarm.owner_saw = max(saw, alarm.owner_saw) if alarm.owner == operator else saw
    alarm.owner, alarm.owner_since = operator, work.now
    alarm.claimed_at = alarm.claimed_at or work.now
    alarm.level = max(alarm.level, kinds.CLAIMED)
    alarm.returned = False
    why = alarm.escalation
    alarm.escalated_at = alarm.escalation = None  # somebody acts now; the timeline keeps that and why it was
    if views.new_signal(work.db, alarm):
        # but not on what they have not seen
        alarm.escalated_at = work.now
        alarm.escalation = why if why in (AFTER_CANCEL, AFTER_CLAIM, MISSED_AGAIN) else UNSEEN
    tick(work, operator)


def _still_open(alarm: Alarm) -> None:
    if alarm.closed_at is not None:
        raise Refused("this alarm is closed")


def listening(work: Work, alarm: Alarm, operator: str) -> None:
    """Sound has reached a listening client of this operator."""
    if alarm.closed_at is not None:
        return
    if alarm.listening_at is None:
        alarm.listening_at = work.now
        work.log(alarm, "listening", operator)
    if alarm.owner is not None and alarm.level == kinds.CLAIMED:
        alarm.level = kinds.LISTENING
        work.alarm_changed(alarm, "listening")
        downlinks.tell_state(work, alarm)


def note(work: Work, alarm: Alarm, operator: str, text: str) -> None:
    """Add a note to the timeline; also to a closed alarm. Raises Invalid."""
    text = text.strip()
    if not text or len(text) > NOTE_MAX:
        raise Invalid(f"a note has 1 to {NOTE_MAX} characters")
    work.log(alarm, "note", operator, text)
    work.audit(operator, "note", f"alarm:{alarm.id}")


def next_step(work: Work, alarm: Alarm, operator: str) -> None:
    """Mark the next step of the agreed protocol as done; after the last one it begins again. Raises Refused."""
    _still_open(alarm)
    done = len(list(work.db.scalars(select(StepDone).where(StepDone.alarm_id == alarm.id))))
    steps = steps_for(alarm.kind, alarm.wearer)
    work.db.add(StepDone(alarm_id=alarm.id, number=done, at=work.now, who=operator))
    work.log(alarm, "step", operator, steps[done % len(steps)])
    work.audit(operator, "step", f"alarm:{alarm.id}", number=done)


def close(work: Work, alarm: Alarm, operator: str, outcome: str, welfare: str, text: str = "") -> None:
    """Close it with an outcome and how the wearer's welfare was confirmed. Raises Invalid; Refused also while its owner
    has not said that they saw the newest signal."""
    welfare = "spoke_to_wearer" if welfare.lower() in _PLAIN_WELFARE else welfare
    if outcome not in OUTCOMES:
        raise Invalid(f"closing needs an outcome: one of {', '.join(OUTCOMES)}")
    if welfare not in WELFARE:
        raise Invalid(f"closing needs how the wearer's welfare was confirmed: one of {', '.join(WELFARE)}")
    _still_open(alarm)
    if alarm.owner != operator:
        text = f"{alarm.owner} has claimed this alarm" if alarm.owner else "claim the alarm before you close it"
        raise Refused(text, alarm.owner)
    if views.new_signal(work.db, alarm):
        # its badge has the receipt already, and would take the closing for the answer to it
        raise Refused('a new signal has come: say "I have seen the new signal" (claim it once more), then close')
    if text.strip():
        note(work, alarm, operator, text)
    alarm.outcome, alarm.welfare, alarm.closed_at = outcome, welfare, work.now
    alarm.level, alarm.returned = kinds.CLOSED, False
    work.log(alarm, "closed", operator, f"{OUTCOMES[outcome]}. {WELFARE[welfare]}.")
    work.audit(operator, "close", f"alarm:{alarm.id}", outcome=outcome, welfare=welfare)
    downlinks.tell_state(work, alarm)


# --- the station's own watch ------------------------------------------------------------------------------------


def tick(work: Work, operator: str) -> None:
    """A console of this operator is alive."""
    row = work.db.get(Operator, operator)
    if row is not None:
        row.ticked_at = work.now


def seen(work: Work, alarm_ids: list[int], operator: str) -> None:
    """A console shows these alarms."""
    for alarm_id in alarm_ids:
        alarm = work.alarm(alarm_id)
        if alarm is not None and alarm.seen_at is None:
            alarm.seen_at = work.now
            work.log(alarm, "seen", operator)


def escalate(work: Work, alarm: Alarm, reason: str) -> None:
    """Put it before the others, and say why."""
    if alarm.escalation == reason:
        return
    alarm.escalated_at = alarm.escalated_at or work.now
    alarm.escalation = reason
    work.log(alarm, "escalated", text=reason)
    work.audit(audit.STATION, "escalate", f"alarm:{alarm.id}", reason=reason)


def watch(work: Work) -> None:
    """Give back alarms whose owner's console died, and escalate those that wait too long."""
    limits = work.core.config.alarms
    for alarm in work.db.scalars(select(Alarm).where(Alarm.closed_at.is_(None)).with_for_update(of=Alarm)):
        if alarm.owner is not None and _console_dead(work, alarm, limits.console_dead):
            _give_back(work, alarm)
        elif alarm.owner is None and work.now - alarm.received_at > limits.claim_target:
            if alarm.escalated_at is None:
                escalate(work, alarm, f"nobody claimed it within {limits.claim_target:.0f} s")
        elif (
            alarm.owner is not None
            and alarm.listening_at is None
            and work.now - alarm.received_at > limits.listen_target
            and alarm.escalated_at is None
            and work.db.scalar(select(AlarmCapture.capture_id).where(AlarmCapture.alarm_id == alarm.id).limit(1))
        ):
            escalate(work, alarm, f"there is sound, and nobody listened within {limits.listen_target:.0f} s")


def _console_dead(work: Work, alarm: Alarm, limit: float) -> bool:
    owner = work.db.get(Operator, alarm.owner)
    # while the station itself was down no console could tick
    alive = max(owner.ticked_at or 0.0 if owner else 0.0, alarm.owner_since or 0.0, work.core.started_at)
    return work.now - alive > limit


def _give_back(work: Work, alarm: Alarm) -> None:
    owner = alarm.owner
    alarm.owner = alarm.owner_since = None
    alarm.level, alarm.returned = kinds.RECEIVED, True
    # the badge's knowledge of the higher level is what RETURNED takes back
    alarm.told_level = min(alarm.told_level, kinds.RECEIVED)
    alarm.escalation = None
    escalate(work, alarm, f"the console of {owner} is gone: nobody is with the wearer")
    downlinks.tell_state(work, alarm)
