"""One MQTT message from a hub, from its topic to the committed change.

Whatever the bytes, nothing here raises for them: what is not authentic or not understood is counted and dropped,
and where a hub's outbox row would otherwise stay for ever it is answered with a signed REJECTED.
"""

import json
from typing import Any

from protocol import relay
from protocol.crypto import Forged
from protocol.events import Malformed
from station import enrol, supervision
from station.ingest import events, sound, status
from station.ingest.place import facts_of, place_of
from station.model import Hub
from station.work import Core, Work

PREFIX = "tocsin/1/hub/"
PAYLOAD_MAX = 65536  # bytes; the largest message of a hub is a batch of sound, far below


def handle(core: Core, topic: str, payload: bytes) -> None:
    """Take one message: afterwards it is committed and answered, or counted as dropped."""
    parts = topic.removeprefix(PREFIX).split("/")
    if not topic.startswith(PREFIX) or len(parts) < 2:
        core.count("topic unknown")
    elif len(payload) > PAYLOAD_MAX:
        core.count("too long")
    elif parts[1] == "state":
        _state(core, parts[0], payload)
    elif parts[1] in ("up", "hello"):
        _relay(core, parts[0], payload)
    else:
        core.count("topic unknown")


def _relay(core: Core, name: str, payload: bytes) -> None:
    try:
        if relay.sender(payload).hex() != name:
            core.count("hub not the topic's")
            return
        with core.work() as work:
            hub = work.hub(name)
            key = hub.key if hub is not None else _own_key(payload, name)
            if key is None:
                core.count("hub unknown")
                return
            up = relay.unpack_up(lambda signature, text: enrol.verify(key, signature, text), payload)
            if up.type == relay.HELLO:
                _hello(work, up)
            elif hub is None or not enrol.active(hub):
                core.count("hub not accepted")
            else:
                _accepted(work, hub, up)
    except Forged:
        core.count("hub forged")
    except Malformed:
        core.count("hub malformed")


def _own_key(payload: bytes, name: str) -> bytes | None:
    """The key inside a HELLO, if it is the one that its sender's name is made of."""
    try:
        up = relay.unpack_up(lambda _signature, _text: True, payload)
    except Malformed:
        return None
    key = up.payload[:32]
    return key if up.type == relay.HELLO and len(up.payload) == 64 and enrol.hub_id(key) == name else None


def _hello(work: Work, up: relay.Up) -> None:
    if len(up.payload) != 64 or enrol.hub_id(up.payload[:32]) != up.hub.hex():
        raise Malformed("hello")
    enrol.hello(work, up)
    hub = work.hub(up.hub.hex())
    if hub is not None and not hub.name:
        name = facts_of(up).get("name")
        hub.name = name[:60] if isinstance(name, str) else ""


def _accepted(work: Work, hub: Hub, up: relay.Up) -> None:
    facts = facts_of(up)
    if (up.boot, up.number) > (hub.boot, hub.number):
        hub.boot, hub.number = up.boot, up.number
        supervision.hub_heard(work, hub)
        place = place_of(facts, work.now - up.held_ms / 1000)
        if place is not None:
            hub.place = place
    if up.type == relay.EVENT:
        events.take_event(work, hub, up, facts)
    elif up.type == relay.BEACON:
        events.take_beacon(work, hub, up, facts)
    elif up.type == relay.TELEMETRY:
        status.take_status(work, hub, up, facts)
    elif up.type == relay.AUDIO:
        sound.take_sound(work, hub, up)
    elif up.type == relay.SECOND_PATH:
        events.take_second_path(work, hub, up)
    elif up.type == relay.HEALTH:
        _health(work, hub, facts)
    else:
        work.count("hub message unknown")


def _health(work: Work, hub: Hub, facts: dict[str, Any]) -> None:
    hub.facts = facts
    if isinstance(facts.get("name"), str) and not hub.name:
        hub.name = facts["name"][:60]
    percent = facts.get("battery")
    if isinstance(percent, int) and not isinstance(percent, bool):
        supervision.battery(work, f"hub:{hub.id}", percent)


def _state(core: Core, name: str, payload: bytes) -> None:
    """What the broker says of a hub's connection: unsigned, so it is shown and nothing is decided by it."""
    try:
        data = json.loads(payload or b"{}")
        boot, online = int(data["boot"]), bool(data["online"])
    except (ValueError, KeyError, TypeError, RecursionError):
        core.count("hub state malformed")
        return
    with core.work() as work:
        hub = work.hub(name)
        # a late will must not overwrite a newer "online"
        if hub is None or not 0 <= boot < 1 << 62 or (boot < hub.state_boot and not online):
            return
        hub.state_boot, hub.online = boot, online
        if online:
            supervision.settle(work, f"hub:{name}", "offline")
        elif enrol.active(hub):
            supervision.raise_entry(work, f"hub:{name}", "offline", "its connection to the broker ended")
