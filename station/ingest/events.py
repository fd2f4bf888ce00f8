"""Events and beacons of badges: taken once each, in any order, by any hub, and answered every time.

The identity is the key: the first arrival makes the event, later ones add their hub's facts. A beacon that comes
first makes an event of which only the kind is known; its sealed envelope completes it. The answer is a signed
RECEIPT that retires the hub's row and carries the badge-sealed one: which event, and how the incident stands.
"""

import json
from typing import Any

from protocol import beacon as beacons
from protocol import downlink, events, kinds, relay, restart
from protocol.crypto import Forged
from protocol.events import Malformed
from protocol.ident import NONE
from station import alarms, archive, audit, downlinks, enrol, supervision, views, visits
from station.ingest import facts as common
from station.ingest.place import place_of
from station.model import NOT_READY, Alarm, Badge, BadgeEvent, Boot, Hub, Identity, Sighting, Visit
from station.work import Work

_SECOND_PATH = "second path"
_VISIT_KINDS = (kinds.VISIT_START, kinds.VISIT_END, kinds.CHECK_IN, kinds.EXTEND, kinds.VISIT_ARMED)


def take_event(work: Work, hub: Hub, up: relay.Up, facts: dict[str, Any]) -> None:
    """An event that came over a connection. Raises Malformed for a payload that is none."""
    number, _, row_ident, _, _, _, blob = relay.unpack_event(up.payload)
    badge = work.badge(number)
    found = work.core.keyring.of_badge(work.db, number) if badge else None
    if badge is None or found is None:
        work.count("badge unknown")
        _reject(work, hub, number, row_ident)
        return
    try:
        event, boot, uplink = events.open_event(found[1].events, number, blob)
    except Forged:
        work.count("event forged")
        _reject(work, hub, number, row_ident)
        return
    except Malformed:
        work.count("event malformed")
        _reject(work, hub, number, row_ident)
        return
    held = up.held_ms / 1000
    run, _ = common.uplink(work, badge, hub, boot, uplink, held)
    common.battery(work, badge, event.battery)
    arrived = BadgeEvent(
        badge=number,
        ident=event.ident,
        kind=event.kind,
        incident=event.incident,
        body=event.body,
        flags=event.flags,
        battery=event.battery,
        # a badge that lost power since does not know when it was: it was before it came here
        raised_at=work.now - held - (0 if event.age_ms == events.AGE_MAX else event.age_ms / 1000),
        uncertain=bool(facts.get("uncertain")) or event.age_ms == events.AGE_MAX,
        received_at=work.now,
        via="connection",
        hub=hub.id,
    )
    try:
        taken = _take(work, badge, hub, arrived, sealed=True)
    except Malformed:
        # authentic and not understood: nobody will ever understand it, and the badge should stop sending it
        work.count("event malformed")
        blob_down = downlinks.seal(work, badge, downlink.REJECTED, boot, downlinks.newest_echo(run), event.ident)
        _reject(work, hub, number, row_ident, blob_down or b"")
        return
    _sight(work, taken, hub, "connection", common.signal_strength(work, badge, hub, facts), up, facts)
    _receipt(work, badge, hub, run, row_ident, taken, ready=_ready(work, hub, taken, facts))


def take_beacon(work: Work, hub: Hub, up: relay.Up, facts: dict[str, Any]) -> None:
    """An event, or mere presence, that was heard as a beacon. Raises Malformed for a payload that is none."""
    heard = relay.unpack_beacon(up.payload)
    badge = work.badge(heard.badge)
    found = work.core.keyring.of_badge(work.db, heard.badge) if badge else None
    kind = beacons.verify(found[1].beacon, heard) if found else None
    if badge is None or kind is None:
        work.count("beacon forged" if found else "badge unknown")
        _reject(work, hub, heard.badge, heard.ident, form=relay.BEACON)
        return
    held = up.held_ms / 1000
    run = common.beacon(work, badge, hub, heard.boot, heard.rotation, held)
    rssi = common.signal_strength(work, badge, hub, facts)
    if not beacons.announces(kind):
        body = downlinks.state_body(work, badge.number, NONE)
        _answer(work, badge, hub, run, heard.ident, downlink.PROOF, body, relay.BEACON)
        return
    arrived = BadgeEvent(
        badge=heard.badge,
        ident=heard.ident,
        kind=kind,
        incident=NONE,
        # a duress carries no body here; what it imitates is what the hub was shown
        body=bytes((heard.kind,)) if kind == kinds.DURESS else b"",
        flags=events.ON_BEACON,
        battery=None,
        raised_at=work.now - held,
        uncertain=True,
        received_at=work.now,
        via="beacon",
        hub=hub.id,
    )
    taken = _take(work, badge, hub, arrived, sealed=False)
    _sight(work, taken, hub, "beacon", rssi, up, facts)
    if kind == kinds.TEST and _grave(facts):
        # this way there is no room to say so: what has no answer is not passed
        downlinks.hub_message(
            work, hub, relay.RECEIPT, relay.pack_receipt(badge.number, heard.ident, b"", relay.BEACON)
        )
        return
    _receipt(work, badge, hub, run, heard.ident, taken, relay.BEACON)


def take_second_path(work: Work, hub: Hub, up: relay.Up) -> None:
    """A hub told an alarm by text message, because it had no receipt. Raises Malformed for a payload that is none."""
    number, ident, flags, asked, sent, waited = relay.unpack_second_path(up.payload)
    at = work.now - up.held_ms / 1000
    event = work.find(BadgeEvent, number, ident)
    alarm = work.alarm(event.alarm_id) if event is not None and event.alarm_id is not None else None
    who = f"hub:{hub.id}"
    if not audit.has(work.db, who, _SECOND_PATH, ident.hex()):
        # kept also where no badge raised what the hub heard: somebody was alarmed by it
        told = {"sent": sent, "asked": asked, "flags": flags, "waited": waited}
        work.audit(who, _SECOND_PATH, f"badge:{number}", ident=ident.hex(), sent_at=round(at, 3), **told)
        if alarm is not None:
            _told_before(work, alarm, hub, at, **told)
    downlinks.hub_message(work, hub, relay.RECEIPT, relay.pack_receipt(number, ident, b"", relay.SECOND_PATH))


def _told_before(work: Work, alarm: Alarm, hub: Hub, at: float, sent: int, asked: int, flags: int, waited: int) -> None:
    text = f"hub {hub.name or hub.id}: {sent} of {asked} agreed numbers, after {waited / 1000:.0f} s without an answer"
    if flags & relay.BY_BEACON_ONLY:
        text += ", marked unverified"
    if flags & relay.PERHAPS_TWICE:
        text += ", perhaps twice"
    work.log(alarm, "second_path", f"hub:{hub.id}", text, at)
    if sent and at < alarm.received_at:
        alarm.via = "second_path"  # how the first word of it came out


def _earlier_word(work: Work, event: BadgeEvent) -> None:
    """The report of a text message may have been taken before the alarm that it is about."""
    alarm = work.alarm(event.alarm_id) if event.alarm_id is not None else None
    if alarm is None:
        return
    for row in audit.recent(work.db, _SECOND_PATH, f"badge:{event.badge}", event.ident.hex()):
        hub = work.hub(row.who.removeprefix("hub:"))
        if hub is not None:
            said = json.loads(row.detail)
            _told_before(work, alarm, hub, said["sent_at"], said["sent"], said["asked"], said["flags"], said["waited"])


def _take(work: Work, badge: Badge, hub: Hub, arrived: BadgeEvent, sealed: bool) -> BadgeEvent:
    """The event of this identity: the one that just came, or the one that was known. Raises Malformed."""
    known = work.find(Identity, badge.number, arrived.ident)
    event = work.find(BadgeEvent, badge.number, arrived.ident)
    if known is not None and (known.sealed or not sealed):
        work.count("duplicate")
        if event is not None and event.kind == kinds.ENROL and event.body.hex() == hub.id:
            enrol.enrolled(work, badge, event.body)  # it has not got its keys, or was not accepted at the first time
        # purged: its identity is all that is left, and enough to answer
        return event if event is not None else arrived
    _check(arrived)
    if known is None:
        work.add(Identity(badge=badge.number, ident=arrived.ident, received_at=work.now, sealed=sealed))
        work.add(arrived)
        event = arrived
    else:
        known.sealed = True
        if event is None:
            return arrived
        # the envelope knows what its beacon could not say; when it arrived first stays
        event.incident, event.body, event.flags = arrived.incident, arrived.body, arrived.flags
        event.battery, event.kind = arrived.battery, arrived.kind
        event.raised_at, event.uncertain = arrived.raised_at, arrived.uncertain
    _apply(work, badge, hub, event, first=known is None)
    return event


def _check(event: BadgeEvent) -> None:
    """Raise Malformed for a body that its kind does not have, before anything is stored."""
    if event.kind >= len(kinds.NAMES):
        raise Malformed(f"kind {event.kind}")
    if event.kind in (kinds.AUDIO_START, kinds.AUDIO_END):
        events.unpack_audio(event.body)
    elif event.kind == kinds.DURESS:
        events.unpack_duress(event.body)
    elif event.kind == kinds.ENROL:
        if len(event.body) != relay.HUB_ID:
            raise Malformed("enrol")
    elif event.kind == kinds.BOOTED and event.body:
        events.unpack_booted(event.body)
    elif event.kind in _VISIT_KINDS and event.body and not _goes_before(event):
        events.unpack_visit(event.body)


def _goes_before(event: BadgeEvent) -> bool:
    """A check-in that only goes before the start or end of a visit, so that a duress can stand in its place."""
    return event.kind == kinds.CHECK_IN and event.body in (bytes((kinds.VISIT_START,)), bytes((kinds.VISIT_END,)))


def _apply(work: Work, badge: Badge, hub: Hub, event: BadgeEvent, first: bool) -> None:
    kind = event.kind
    if kind == kinds.DURESS:
        imitates, number, ref = events.unpack_duress(event.body)
        visit = _visit_of_duress(work, badge, event, imitates, number, ref, first)
        alarms.signal(work, badge, event, "duress", visit)
    elif kind == kinds.MISSED_CHECK_IN:
        visits.missed_on_badge(work, badge, event)
    elif kind in kinds.ALARMS:
        alarms.signal(work, badge, event, kinds.name(kind), visits.current(work, badge.number))
    elif kind == kinds.CANCEL:
        alarms.cancel(work, badge, event)
    elif kind in _VISIT_KINDS:
        # what a beacon already did for the current visit is not done again by the envelope
        if (first or kind == kinds.VISIT_START) and not _goes_before(event):
            visits.from_badge(work, badge, event, kind, event.body)
    elif kind == kinds.ENROL:
        enrol.enrolled(work, badge, event.body)
    elif kind == kinds.TEST:
        work.notice("test", views.test(work.db, event))
    elif kind in (kinds.AUDIO_START, kinds.AUDIO_END):
        archive.announced(work, badge, event)
    elif kind == kinds.BOOTED:
        alarm = downlinks.open_alarm(work, badge.number)
        if alarm is not None and first:
            work.log(alarm, "signal", text="the badge restarted", at=event.raised_at)
        if first:
            _restarted(work, badge, event.body)
    elif kind == kinds.OFF_DUTY and first:
        supervision.raise_entry(work, f"badge:{badge.number}", supervision.OFF_DUTY, "its wearer put it to sleep")
    if first:
        _earlier_word(work, event)


def _restarted(work: Work, badge: Badge, body: bytes) -> None:
    """A badge's last words: kept in the log, and shown where nobody wanted it to begin anew."""
    if not body:
        return
    said = events.unpack_booted(body)
    text = restart.words(*said)
    work.audit(f"badge:{badge.number}", "badge restarted", f"badge:{badge.number}", why=text)
    if restart.worrying(*said[:3]):
        supervision.settle(work, f"badge:{badge.number}", supervision.RESTARTED)
        supervision.raise_entry(work, f"badge:{badge.number}", supervision.RESTARTED, text)


def _visit_of_duress(
    work: Work, badge: Badge, event: BadgeEvent, imitates: int, number: int, ref: bytes, first: bool
) -> Visit | None:
    """To anybody present the imitated act must work as ever: the timer restarts, the visit ends."""
    body = b""
    if number or ref != NONE:
        body = events.pack_visit(number, ref, 0, 0, 0)[:12]
    visit = visits.find(work, badge.number, body)
    if first and imitates in (kinds.CHECK_IN, kinds.EXTEND, kinds.VISIT_END):
        visits.from_badge(work, badge, event, imitates, body)
    return visit


def _sight(
    work: Work, event: BadgeEvent, hub: Hub, via: str, rssi: int | None, up: relay.Up, facts: dict[str, Any]
) -> None:
    """Keep what this hub knows of the event: each one's first facts."""
    if work.find(Sighting, event.badge, event.ident, hub.id, via) is not None:
        return
    place = place_of(facts, work.now - up.held_ms / 1000) or hub.place
    work.add(Sighting(badge=event.badge, ident=event.ident, hub=hub.id, via=via, at=work.now, rssi=rssi, place=place))
    alarm = work.alarm(event.alarm_id) if event.alarm_id is not None else None
    if alarm is not None:
        work.alarm_changed(alarm, "signal")


# --- self-tests -------------------------------------------------------------------------------------------------


def _grave(facts: dict[str, Any]) -> list[str]:
    """What the hub lacks without which an alarm might not get through."""
    given = facts.get("grave")
    return [what[:40] for what in given[:8] if isinstance(what, str)] if isinstance(given, list) else []


def _ready(work: Work, hub: Hub, event: BadgeEvent, facts: dict[str, Any]) -> bool:
    """Whether a self-test is passed as far as its hub goes; the first verdict holds, as its wearer feels one."""
    if event.kind != kinds.TEST or event.receipt is not None:
        return True
    if not event.flags & NOT_READY:
        what, grave = f"hub:{hub.id}", _grave(facts)
        supervision.settle(work, what, supervision.NOT_READY)
        if grave:
            event.flags |= NOT_READY
            supervision.raise_entry(work, what, supervision.NOT_READY, f"not ready to leave: {', '.join(grave)}")
            work.notice("test", views.test(work.db, event))
    return not event.flags & NOT_READY


# --- answers ----------------------------------------------------------------------------------------------------


def _receipt(
    work: Work,
    badge: Badge,
    hub: Hub,
    run: Boot,
    row_ident: bytes,
    event: BadgeEvent,
    form: int = relay.EVENT,
    ready: bool = True,
) -> None:
    alarm = work.db.get(Alarm, event.alarm_id) if event.alarm_id is not None else None
    incident = event.incident
    if incident == NONE and alarm is not None:
        # by beacon the badge has not said which incident this is
        incident = alarm.ident if alarm.ident != NONE else event.ident
    if alarm is None:
        alarm = downlinks.find_alarm(work, badge.number, incident)
    incident, level, flags = downlinks.state_of(work, alarm, incident)
    known = work.find(Identity, badge.number, event.ident)
    if form == relay.BEACON and not (known is not None and known.sealed):
        flags |= downlink.BY_BEACON
    if not ready:
        flags |= downlink.NOT_READY
    body = downlink.pack_receipt(event.ident, incident, level, flags)
    _answer(work, badge, hub, run, row_ident, downlink.RECEIPT, body, form)
    if downlinks.by_beacon_only(run):
        # a duress is answered as the act that it imitates: an event that is taken, and nothing more
        loud = alarm is not None and event.kind in kinds.ALARMS and event.kind != kinds.DURESS
        downlinks.broadcast(
            work, badge, run, [hub], incident if loud else event.ident, level if loud else kinds.RECEIVED
        )
    if event.receipt is None and event.kind == kinds.TEST and ready:
        event.receipt = badge.down_number


def _answer(work: Work, badge: Badge, hub: Hub, run: Boot, row_ident: bytes, kind: int, body: bytes, form: int) -> None:
    blob = downlinks.seal(work, badge, kind, run.boot, downlinks.newest_echo(run), body) or b""
    downlinks.hub_message(work, hub, relay.RECEIPT, relay.pack_receipt(badge.number, row_ident, blob, form))


def _reject(work: Work, hub: Hub, badge: int, ident: bytes, blob: bytes = b"", form: int = relay.EVENT) -> None:
    downlinks.hub_message(work, hub, relay.REJECTED, relay.pack_receipt(badge, ident, blob, form))
