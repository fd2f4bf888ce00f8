"""MQTT messages from hubs, from their topics to the committed change.

Whatever the bytes, nothing here raises for them: what is not authentic or not understood is counted and dropped,
and where a hub's outbox row would otherwise stay for ever it is answered with a signed REJECTED.

Messages that came close together are one transaction: its rows are looked up and written together, it is one
wait for the disk, and only then every receipt goes out. Dying in between costs nothing: hubs repeat what has no
receipt, and a known event is answered again.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from protocol import kinds, relay
from protocol.crypto import Forged
from protocol.events import Malformed
from station import enrol, supervision
from station.ingest import events, sound, status
from station.ingest.place import facts_of, place_of
from station.model import Badge, BadgeEvent, Hub, Identity, Sighting
from station.work import Core, Work

PREFIX = "tocsin/1/hub/"
PAYLOAD_MAX = 65536  # bytes; the largest message of a hub is a batch of sound, far below

Message = tuple[str, bytes]  # topic, payload

# What is taken first. What a hub calls an alarm may be none, which costs the others a moment and no more.
ALARM, HUB, REST, SOUND = range(4)


def urgency(topic: str, payload: bytes) -> int:
    """ALARM, HUB, REST or SOUND, by what the sender claims: nothing is verified yet."""
    what = topic.removeprefix(PREFIX).partition("/")[2]
    if what != "up/event":
        return {"hello": HUB, "state": HUB, "up/audio": SOUND}.get(what, REST)
    try:
        up = _unverified(payload)
        if up.type == relay.EVENT:
            kind = relay.unpack_event(up.payload)[1]
        elif up.type == relay.BEACON:
            kind = relay.unpack_beacon(up.payload).kind
        else:
            return REST
    except Malformed:
        return REST
    return ALARM if kinds.priority(kind) == kinds.PRIORITY_ALARM else REST


def _unverified(payload: bytes) -> relay.Up:
    return relay.unpack_up(lambda _signature, _text: True, payload)


def handle(core: Core, topic: str, payload: bytes) -> None:
    """Take one message: afterwards it is committed and answered, or counted as dropped."""
    take(core, [(topic, payload)])


def take(core: Core, messages: Sequence[Message], go_on: Callable[[], bool] = lambda: True) -> int:
    """Take messages in one transaction, in order; how many of them: after the first `go_on()` is asked before each.

    Afterwards those are committed and answered, or counted as dropped. Several that do not go together raise what
    stood in the way (Malformed, or an error of the database), and nothing of them holds: each is then to be taken
    alone. One alone raises only errors of the database.
    """
    taken = 0
    try:
        with core.work() as work:
            _look_up(work, messages)
            for topic, payload in messages:
                if taken and not go_on():
                    break
                work.now = core.clock.now()
                _take(work, topic, payload)
                taken += 1
    except Malformed:
        # found out only after something was changed
        if len(messages) > 1:
            raise
        core.count("hub malformed")
        taken = 1
    return taken


def _look_up(work: Work, messages: Sequence[Message]) -> None:
    """Lock and look up at once what the messages name; what they are worth is seen later."""
    hubs: set[str] = set()
    names: set[tuple[int, bytes]] = set()
    badges: set[int] = set()
    sightings: set[tuple[int, bytes, str, str]] = set()
    for topic, payload in messages:
        hub = topic.removeprefix(PREFIX).partition("/")[0]
        try:
            hubs.add(relay.sender(payload).hex())
            up = _unverified(payload)
            if up.type == relay.EVENT:
                number, _, ident, *_ = relay.unpack_event(up.payload)
                sightings.add((number, ident, hub, "connection"))
            elif up.type == relay.BEACON:
                heard = relay.unpack_beacon(up.payload)
                number, ident = heard.badge, heard.ident
                sightings.add((number, ident, hub, "beacon"))
            elif up.type == relay.TELEMETRY:
                badges.add(relay.unpack_telemetry(up.payload)[0])
                continue
            else:
                continue
        except Malformed:
            continue
        badges.add(number)
        names.add((number, ident))
    work.lock(Hub, hubs)
    work.lock(Badge, badges)
    work.look_up(Identity, names)
    work.look_up(BadgeEvent, names)
    work.look_up(Sighting, sightings)


def _take(work: Work, topic: str, payload: bytes) -> None:
    parts = topic.removeprefix(PREFIX).split("/")
    if not topic.startswith(PREFIX) or len(parts) < 2:
        work.count("topic unknown")
    elif len(payload) > PAYLOAD_MAX:
        work.count("too long")
    elif parts[1] == "state":
        _state(work, parts[0], payload)
    elif parts[1] in ("up", "hello"):
        _relay(work, parts[0], payload)
    else:
        work.count("topic unknown")


def _relay(work: Work, name: str, payload: bytes) -> None:
    try:
        if relay.sender(payload).hex() != name:
            work.count("hub not the topic's")
            return
        hub = work.hub(name)
        key = hub.key if hub is not None else _own_key(payload, name)
        if key is None:
            work.count("hub unknown")
            return
        up = relay.unpack_up(lambda signature, text: enrol.verify(key, signature, text), payload)
    except Forged:
        work.count("hub forged")
        return
    except Malformed:
        work.count("hub malformed")
        return
    if up.type == relay.HELLO:
        _hello(work, up)
    elif hub is None or not enrol.active(hub):
        work.count("hub not accepted")
    else:
        _accepted(work, hub, up)


def _own_key(payload: bytes, name: str) -> bytes | None:
    """The key inside a HELLO, if it is the one that its sender's name is made of."""
    try:
        up = _unverified(payload)
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


def _state(work: Work, name: str, payload: bytes) -> None:
    """What the broker says of a hub's connection: unsigned, so it is shown and nothing is decided by it."""
    try:
        data = json.loads(payload or b"{}")
        boot, online = int(data["boot"]), bool(data["online"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        work.count("hub state malformed")
        return
    hub = work.hub(name)
    # a late will must not overwrite a newer "online"
    if hub is None or not 0 <= boot < 1 << 62 or (boot < hub.state_boot and not online):
        return
    hub.state_boot, hub.online = boot, online
    if online:
        supervision.settle(work, f"hub:{name}", "offline")
    elif enrol.active(hub):
        supervision.raise_entry(work, f"hub:{name}", "offline", "its connection to the broker ended")
