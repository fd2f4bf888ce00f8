"""A badge's STATUS: the proof of life that is answered with a proof of the station, and what is still to be told."""

import json
from typing import Any

from sqlalchemy import select

from protocol import downlink, events, kinds, relay
from protocol.crypto import Forged
from protocol.events import Malformed
from station import alarms, downlinks, supervision, views, visits
from station.ingest import facts as common
from station.model import Badge, BadgeEvent, Hub
from station.work import Work

TEST_WAITS = 600.0  # seconds after which a self-test's answer is not looked for any more


def take_status(work: Work, hub: Hub, up: relay.Up, facts: dict[str, Any]) -> None:
    """Answer a STATUS. Raises Malformed for a payload that is none; what is forged or old is counted."""
    number, _, blob = relay.unpack_telemetry(up.payload)
    badge = work.badge(number)
    found = work.core.keyring.of_badge(work.db, number) if badge else None
    if badge is None or found is None:
        work.count("badge unknown")
        return
    try:
        event, boot, uplink = events.open_event(found[1].events, number, blob)
    except Forged:
        work.count("status forged")
        return
    if event.kind != kinds.STATUS:
        raise Malformed(f"telemetry of kind {event.kind}")
    last_down, level, visit, settings, _, refused, group = events.unpack_status(event.body)
    run, newer = common.uplink(work, badge, hub, boot, uplink, up.held_ms / 1000)
    if not newer:
        work.count("status old")
        return
    if not run.status_seen:
        # a wiped badge counts its boots from the beginning: what lives now is the current one
        run.status_seen = True
        badge.boot = boot
    common.signal_strength(work, badge, hub, facts)
    common.battery(work, badge, event.battery)
    badge.settings_known = settings
    _knows(work, badge, event.incident, level, last_down)
    if not work.core.intake.answers:
        # room for this, and perhaps none for an alarm: any word to the badge would tell it that it is protected
        work.count("status unanswered")
        return
    state = downlinks.state_body(work, number, event.incident)
    downlinks.answer(work, badge, hub, run, downlink.PROOF, state)
    for order in visits.orders_for(work, badge, visit):
        downlinks.answer(work, badge, hub, run, downlink.VISIT, order)
    version = badge.settings_version & 0xFFFF
    what = f"badge:{number}"
    if refused and refused == version != settings:
        # sending them again would change nothing: somebody must set something else
        supervision.raise_entry(work, what, supervision.REFUSED, f"it does not take its settings (version {version})")
    else:
        supervision.settle(work, what, supervision.REFUSED)
    if group and group != work.core.keyring.tag(work.db, work.now):
        key = work.core.keyring.groups(work.db, work.now)[0][1]
        downlinks.answer(work, badge, hub, run, downlink.GROUP_KEY, key)
    if settings != version != refused and badge.settings:
        body = (badge.settings_version & 0xFFFF).to_bytes(2, "big") + json.dumps(badge.settings).encode()
        downlinks.answer(work, badge, hub, run, downlink.SETTINGS, body)


def _knows(work: Work, badge: Badge, incident: bytes, level: int, last_down: int) -> None:
    """What the badge says that it knows: of its alarm, and up to which message of the station."""
    badge.incident = incident
    alarm = downlinks.find_alarm(work, badge.number, incident)
    if alarm is not None:
        alarms.told(work, alarm, level)
    waiting = (
        select(BadgeEvent)
        .where(
            BadgeEvent.badge == badge.number,
            BadgeEvent.kind == kinds.TEST,
            BadgeEvent.answered_at.is_(None),
            BadgeEvent.received_at > work.now - TEST_WAITS,
        )
        .limit(8)
    )
    for event in work.db.scalars(waiting):
        if event.receipt is not None and event.receipt <= last_down:
            event.answered_at = badge.tested_at = work.now
            work.notice("test", views.test(work.db, event))
