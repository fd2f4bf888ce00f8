"""What the station says to badges and hubs: sealed, numbered, and echoing what it answers.

Every message to a badge takes the badge's next number and names the newest uplink that the station has heard, so
that the badge can tell a fresh answer from a delayed one (protocol.fresh). It leaves by every hub that heard the
badge lately; a second copy changes nothing there.
"""

import os

from sqlalchemy import func, select

from protocol import downlink, kinds, relay
from protocol.answer import seal_answer
from protocol.crypto import NONCE_LENGTH
from protocol.ident import NONE
from station.model import Alarm, AlarmIncident, Badge, BadgeEvent, Boot, Hearing, Hub
from station.work import Send, Work

RECENT = 15.0  # seconds since a hub heard the badge: three of its STATUS intervals


def hub_message(work: Work, hub: Hub, kind: int, payload: bytes) -> None:
    """Sign a message for a hub and send it after the commit."""
    hub.down_number += 1
    signed = relay.pack_down(work.core.vault.sign, relay.Down(kind, bytes.fromhex(hub.id), hub.down_number, payload))
    work.send(Send(f"tocsin/1/hub/{hub.id}/down", signed))


def newest_echo(boot: Boot) -> int:
    """What to echo of a boot: the last uplink, or the beacon where that was heard later."""
    if boot.rotation_at > boot.uplink_at:
        return downlink.BEACON | boot.rotation
    return max(boot.uplink, 0)


def seal(work: Work, badge: Badge, kind: int, boot: bytes, echo: int, body: bytes) -> bytes | None:
    """A sealed message for a badge under its next number; None for one whose keys are revoked."""
    found = work.core.keyring.of_badge(work.db, badge.number)
    if found is None:
        return None
    badge.down_number += 1
    message = downlink.Down(kind, badge.down_number, boot, echo, body)
    return downlink.seal_down(found[1].down, badge.number, os.urandom(NONCE_LENGTH), message)


def hubs_near(work: Work, badge: int) -> list[Hub]:
    """Hubs that heard the badge lately, the last one first; where none did, the one that heard it last."""
    rows = work.db.execute(
        select(Hub, Hearing.at)
        .join(Hearing, Hearing.hub == Hub.id)
        .where(Hearing.badge == badge, Hub.accepted_at.is_not(None), Hub.revoked_at.is_(None))
        .order_by(Hearing.at.desc())
    ).all()
    recent = [hub for hub, at in rows if work.now - at <= RECENT]
    return recent or [hub for hub, _ in rows[:1]]


def tell(work: Work, badge: Badge, kind: int, body: bytes) -> bool:
    """Say something to a badge by all hubs near it; False when there is no way or no boot to answer."""
    boot = work.find(Boot, badge.number, badge.boot) if badge.boot else None
    hubs = hubs_near(work, badge.number)
    if boot is None or not hubs:
        return False
    blob = seal(work, badge, kind, boot.boot, newest_echo(boot), body)
    if blob is None:
        return False
    for hub in hubs:
        hub_message(work, hub, relay.DOWN, relay.pack_down_badge(badge.number, blob))
    return True


def answer(work: Work, badge: Badge, hub: Hub, boot: Boot, kind: int, body: bytes) -> None:
    """Say something to a badge by the hub that just brought an uplink of it."""
    blob = seal(work, badge, kind, boot.boot, newest_echo(boot), body)
    if blob is not None:
        hub_message(work, hub, relay.DOWN, relay.pack_down_badge(badge.number, blob))


def broadcast(work: Work, badge: Badge, boot: Boot, hubs: list[Hub], ident: bytes, level: int) -> None:
    """An answer for hubs to advertise, where the badge is heard by beacon only: felt without any connection.

    `ident` is the incident, or the event whose wearer waits for its receipt.
    """
    found = work.core.keyring.of_badge(work.db, badge.number)
    if found is None or boot.rotation < 0:
        return
    group = work.core.keyring.beacons(work.db, work.now)[0]
    data = seal_answer(group, found[1].answer, badge.number, boot.boot, ident, level, boot.rotation)
    for hub in hubs:
        hub_message(work, hub, relay.ANSWER, relay.pack_down_badge(badge.number, data))


def by_beacon_only(boot: Boot) -> bool:
    """Whether the last that was heard of a badge is a beacon."""
    return bool(newest_echo(boot) & downlink.BEACON)


# --- the state of an incident -----------------------------------------------------------------------------------


def find_alarm(work: Work, badge: int, incident: bytes) -> Alarm | None:
    """The alarm that an incident of a badge belongs to."""
    if incident == NONE:
        return None
    row = work.find(AlarmIncident, badge, incident)
    return work.alarm(row.alarm_id) if row else None


def open_alarm(work: Work, badge: int) -> Alarm | None:
    """The newest open alarm of a badge that the badge itself knows of."""
    return work.db.scalar(
        select(Alarm)
        .where(Alarm.badge == badge, Alarm.closed_at.is_(None), Alarm.ident != NONE)
        .order_by(Alarm.raised_at.desc(), Alarm.id.desc())
        .limit(1)
    )


def level_of(work: Work, alarm: Alarm, incident: bytes) -> int:
    """The custody level that holds for an incident of the alarm.

    One that joins an alarm which somebody has already rings until they have seen it, and its wearer is not told before
    that somebody is with them. So it is with the first signal after a cancel, which badges raise in the same incident:
    whoever has the alarm believes that it was taken back. A miss that the station's own clock has raised is one
    incident with what the badge then says of it.
    """
    if alarm.level not in (kinds.CLAIMED, kinds.LISTENING) or alarm.owner is None:
        return alarm.level
    if alarm.cancelled_at is not None and _unseen_after_cancel(work, alarm):
        return kinds.RECEIVED
    if alarm.via == "station":
        return alarm.level
    first = work.db.scalar(
        select(func.min(BadgeEvent.alarm_version)).where(
            BadgeEvent.alarm_id == alarm.id,
            BadgeEvent.kind.in_(kinds.ALARMS),
            (BadgeEvent.ident == incident) | (BadgeEvent.incident == incident),
        )
    )
    return kinds.RECEIVED if first is not None and first > alarm.owner_saw else alarm.level


def _unseen_after_cancel(work: Work, alarm: Alarm) -> bool:
    """Whether signals have come since the wearer's newest cancel, and the alarm's owner has seen none of them."""
    told = list(work.db.scalars(select(BadgeEvent).where(BadgeEvent.alarm_id == alarm.id)))
    cancels = [event for event in told if event.kind == kinds.CANCEL]
    since = [
        event.alarm_version
        for event in told
        if event.kind in kinds.ALARMS and all(_comes_after(event, cancel) for cancel in cancels)
    ]
    return bool(cancels and since) and min(since) > alarm.owner_saw


def _comes_after(event: BadgeEvent, other: BadgeEvent) -> bool:
    """Whether the badge raised it later: by its own count, which no delay on the way can change."""
    if event.ident[:6] == other.ident[:6]:
        return event.ident > other.ident
    return event.raised_at > other.raised_at


def state_of(work: Work, alarm: Alarm | None, incident: bytes) -> tuple[bytes, int, int]:
    """Incident, level and flags as protocol.downlink.pack_state takes them."""
    if alarm is None:
        return incident, kinds.RAISED, 0
    flags = downlink.RETURNED if alarm.returned else 0
    if work.now - alarm.raised_at < downlink.YOUNG_S:
        flags |= downlink.YOUNG
    return incident, level_of(work, alarm, incident), flags


def state_body(work: Work, badge: int, incident: bytes) -> bytes:
    """The state of the incident that the badge names, or of its open alarm where it names none."""
    alarm = find_alarm(work, badge, incident)
    if incident == NONE:
        alarm = open_alarm(work, badge)
        incident = alarm.ident if alarm else NONE
    return downlink.pack_state(*state_of(work, alarm, incident))


def tell_state(work: Work, alarm: Alarm) -> None:
    """Custody changed: the badge hears it at once. What is lost on the way is repeated on its next STATUS."""
    badge = work.badge(alarm.badge)
    if badge is None:
        return
    incident = alarm.ident
    if badge.incident and find_alarm(work, badge.number, badge.incident) is alarm:
        incident = badge.incident
    if incident == NONE:
        return
    tell(work, badge, downlink.STATE, downlink.pack_state(*state_of(work, alarm, incident)))
    boot = work.find(Boot, badge.number, badge.boot) if badge.boot else None
    # an answer can be read by any hub of the council: that somebody handles a duress must not show
    if boot is not None and by_beacon_only(boot) and not alarm.silent and not alarm.returned:
        broadcast(work, badge, boot, hubs_near(work, badge.number), incident, level_of(work, alarm, incident))
