"""Rows as JSON: what the console, programs and MQTT clients see. The fields are documented in docs/station-api.md."""

import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from protocol import adpcm, ident, kinds
from station.model import (
    NOT_READY,
    Alarm,
    AlarmCapture,
    AlarmIncident,
    Badge,
    BadgeEvent,
    Entry,
    Hearing,
    Hub,
    Link,
    Mark,
    Packet,
    Sighting,
    Supervision,
    Visit,
)

Json = dict[str, Any]

LEVELS = {
    kinds.RECEIVED: "received",
    kinds.CLAIMED: "claimed",
    kinds.LISTENING: "listening",
    kinds.CLOSED: "closed",
}
PACKET_SECONDS = adpcm.SAMPLES / adpcm.RATE


def alarm(db: Session, row: Alarm) -> Json:
    """ALARM."""
    events = list(db.scalars(select(BadgeEvent).where(BadgeEvent.alarm_id == row.id).order_by(BadgeEvent.received_at)))
    sightings = list(
        db.scalars(
            select(Sighting)
            .join(BadgeEvent, (BadgeEvent.badge == Sighting.badge) & (BadgeEvent.ident == Sighting.ident))
            .where(BadgeEvent.alarm_id == row.id)
            .order_by(Sighting.at)
        )
    )
    signals = [
        {
            "identity": ident.text(e.badge, e.ident),
            "kind": kinds.name(e.kind),
            "raised_at": e.raised_at,
            "received_at": e.received_at,
            "via": e.via,
            "hub": e.hub,
        }
        for e in events
    ]
    if row.identity.startswith("station/"):
        signals.insert(
            0,
            {
                "identity": row.identity,
                "kind": row.kind,
                "raised_at": row.raised_at,
                "received_at": row.received_at,
                "via": "station",
                "hub": None,
            },
        )
    incidents = db.scalars(select(AlarmIncident.ident).where(AlarmIncident.alarm_id == row.id))
    return {
        "id": row.id,
        "badge": row.badge,
        "wearer": row.wearer.name,
        "kind": row.kind,
        "identity": row.identity,
        "identities": list(dict.fromkeys(s["identity"] for s in signals)),
        "incident": row.incident,
        "incidents": [ident.text(row.badge, i) for i in incidents],
        "open": row.closed_at is None,
        "level": LEVELS[row.level],
        "owner": row.owner,
        "new_signal": new_signal(db, row),
        "priority": row.priority,
        "silent": row.silent,
        "escalated_at": row.escalated_at,
        "escalation": row.escalation,
        "raised_at": row.raised_at,
        "uncertain": row.uncertain,
        "received_at": row.received_at,
        "seen_at": row.seen_at,
        "claimed_at": row.claimed_at,
        "listening_at": row.listening_at,
        "closed_at": row.closed_at,
        "cancelled_at": row.cancelled_at,
        "outcome": row.outcome,
        "welfare": row.welfare,
        "via": row.via,
        "hub": row.hub,
        "signals": signals,
        "hubs": [{"hub": s.hub, "via": s.via, "at": s.at, "rssi": s.rssi} for s in sightings],
        "place": _newest_place(sightings),
        "told": {"level": LEVELS.get(row.told_level), "at": row.told_at},
        "visit": row.visit_id,
        "audio": sound(db, row.id),
        "version": row.version,
    }


def new_signal(db: Session, row: Alarm) -> bool:
    """Whether there is a signal that its owner had not on the screen when they claimed it: it rings again until they
    claim it once more."""
    if row.owner is None or row.closed_at is not None:
        return False
    if row.missed_version > row.owner_saw:
        return True
    signal = select(BadgeEvent.ident).where(
        BadgeEvent.alarm_id == row.id, BadgeEvent.kind.in_(kinds.ALARMS), BadgeEvent.alarm_version > row.owner_saw
    )
    return db.scalar(signal.limit(1)) is not None


def _newest_place(sightings: list[Sighting]) -> Json | None:
    places = [s.place for s in sightings if s.place]
    return max(places, key=lambda p: float(p.get("at") or 0.0)) if places else None


def public_alarm(row: Alarm) -> bytes:
    """What any MQTT client with the right to read may know: nothing about the person; empty once it is closed."""
    if row.closed_at is not None:
        return b""
    data = {
        "incident": row.incident,
        "alarm": row.id,
        "badge": row.badge,
        "kind": row.kind,
        "level": LEVELS[row.level],
        "priority": row.priority,
        "silent": row.silent,
        "via": row.via,
        "hub": row.hub,
        "raised_at": row.raised_at,
        "received_at": row.received_at,
        "claimed_at": row.claimed_at,
        "listening_at": row.listening_at,
        "cancelled_at": row.cancelled_at,
        "escalated": row.escalated_at is not None,
        "url": f"/alarms/{row.id}",
    }
    return json.dumps(data).encode()


def timeline(db: Session, alarm_id: int) -> list[Json]:
    """The ENTRYs of an alarm, oldest first."""
    rows = db.scalars(select(Entry).where(Entry.alarm_id == alarm_id).order_by(Entry.at, Entry.id))
    return [{"at": e.at, "what": e.what, "who": e.who, "text": e.text} for e in rows]


def sound(db: Session, alarm_id: int) -> Json:
    """How much sound of an alarm is archived, and the holes in it."""
    captures = packets = gaps = missing = 0
    for capture in db.scalars(select(AlarmCapture.capture_id).where(AlarmCapture.alarm_id == alarm_id)):
        captures += 1
        count, first, last = db.execute(
            select(func.count(), func.min(Packet.number), func.max(Packet.number)).where(Packet.capture_id == capture)
        ).one()
        packets += count
        if count and last - first + 1 != count:
            missing += last - first + 1 - count
            gaps += _holes(db, capture)
    return {
        "captures": captures,
        "seconds": round(packets * PACKET_SECONDS, 3),
        "gaps": gaps,
        "gap_seconds": round(missing * PACKET_SECONDS, 3),
    }


def _holes(db: Session, capture_id: int) -> int:
    """Holes between the first and the last packet: a packet with none before it begins a run."""
    before = aliased(Packet)
    runs = db.scalar(
        select(func.count())
        .select_from(Packet)
        .outerjoin(before, (before.capture_id == Packet.capture_id) & (before.number == Packet.number - 1))
        .where(Packet.capture_id == capture_id, before.number.is_(None))
    )
    return max((runs or 0) - 1, 0)


def visit_state(row: Visit) -> str:
    """planned, running, overdue, ended or cancelled."""
    if row.cancelled:
        return "cancelled"
    if row.ended_at is not None:
        return "ended"
    if row.overdue_at is not None:
        return "overdue"
    return "planned" if row.started_at is None else "running"


def visit(db: Session, row: Visit) -> Json:
    """VISIT."""
    marks = list(db.scalars(select(Mark).where(Mark.visit_id == row.id).order_by(Mark.at)))
    wearer = db.get_one(Badge, row.badge).wearer
    return {
        "id": row.id,
        "badge": row.badge,
        "wearer": wearer.name,
        "state": visit_state(row),
        "origin": row.origin,
        "place": row.place,
        "with": row.company,
        "note": row.note,
        "audio": row.audio,
        "minutes": row.interval / 60,
        "grace": row.grace / 60,
        "starts_at": row.starts_at,
        "started_at": row.started_at,
        "due_at": row.due_at,
        "overdue_at": row.overdue_at,
        "checked_in_at": [m.at for m in marks if m.what == "check_in"],
        "extended_at": [m.at for m in marks if m.what == "extended"],
        "armed_at": row.armed_at,
        "ended_at": row.ended_at,
        "alarm": row.alarm_id,
    }


def test(db: Session, row: BadgeEvent) -> Json:
    """TEST: a self-test as the station saw it. Passed once the badge has shown that it holds the answer."""
    wearer = db.get_one(Badge, row.badge).wearer
    return {
        "badge": row.badge,
        "wearer": wearer.name,
        "identity": ident.text(row.badge, row.ident),
        "at": row.raised_at,
        "received_at": row.received_at,
        "answered_at": row.answered_at,
        "passed": row.answered_at is not None,
        "ready": not row.flags & NOT_READY,
        "seconds": None if row.answered_at is None else round(row.answered_at - row.raised_at, 3),
        "via": row.via,
        "hub": row.hub,
    }


def supervision(row: Supervision) -> Json:
    """An entry of supervision."""
    return {"what": row.what, "state": row.state, "at": row.at, "until": row.until, "text": row.text}


def badge(db: Session, row: Badge, protected_after: float) -> Json:
    """A badge with what was last heard of it; protected when it was heard after `protected_after`."""
    return {
        "badge": row.number,
        "wearer": row.wearer.name,
        "battery": row.battery,
        "last_heard_at": row.heard_at,
        "hub": row.heard_hub,
        "boot": None if row.boot is None else int.from_bytes(row.boot[:2], "big"),
        "protected": row.heard_at is not None and row.heard_at >= protected_after,
        "revoked_at": row.revoked_at,
        "tested_at": row.tested_at,
        "settings": row.settings,
        "settings_known": row.settings_known >= row.settings_version,
        "links": list(db.scalars(select(Link.hub).where(Link.badge == row.number).order_by(Link.hub))),
        "heard_by": [
            {"hub": h.hub, "at": h.at, "via": h.via, "rssi": h.rssi}
            for h in db.scalars(select(Hearing).where(Hearing.badge == row.number).order_by(Hearing.at.desc()))
        ],
    }


def hub(db: Session, row: Hub) -> Json:
    """A hub with what was last heard of it."""
    return {
        "hub": row.id,
        "name": row.name,
        "key": row.key.hex(),
        "accepted": row.accepted_at is not None and row.revoked_at is None,
        "accepted_at": row.accepted_at,
        "revoked_at": row.revoked_at,
        "online": row.online,
        "last_heard_at": row.heard_at,
        "place": row.place,
        "battery": row.facts.get("battery"),
        "queue": row.facts.get("queue"),
        "links": list(db.scalars(select(Link.badge).where(Link.hub == row.id).order_by(Link.badge))),
    }
