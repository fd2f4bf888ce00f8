"""A badge and a hub as the station sees them: real keys, real seals, real signatures, and no radio."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocol import adpcm, audio, downlink, events, ident, kinds, relay
from protocol import beacon as beacons
from protocol.keys import BadgeKeys

NONE = ident.NONE


@dataclass
class Badge:
    """Seals as the firmware does. `group` is the council's key."""

    number: int
    root: bytes
    group: bytes
    boot: bytes = field(default_factory=lambda: ident.boot_bytes(1, os.urandom(4)))
    uplink: int = 0
    seq: int = 0
    rotation: int = 0
    battery: int = 88

    def __post_init__(self) -> None:
        self.keys = BadgeKeys(self.root)

    def restart(self) -> None:
        """The next boot."""
        self.boot = ident.boot_bytes(int.from_bytes(self.boot[:2], "big") + 1, os.urandom(4))
        self.uplink = self.seq = self.rotation = 0

    def event(self, kind: int, incident: bytes | None = None, body: bytes = b"", age_ms: int = 0) -> events.Event:
        """A new event; an alarm opens its own incident unless one is given."""
        self.seq += 1
        name = ident.pack(self.boot, self.seq)
        opens = kind in kinds.ALARMS and incident is None
        return events.Event(kind, name, age_ms, self.battery, 0, name if opens else incident or NONE, body)

    def seal(self, event: events.Event) -> bytes:
        """Sealed with a fresh uplink number, as every sending is."""
        self.uplink += 1
        return events.seal_event(self.keys.events, self.number, self.boot, self.uplink, event)

    def status(
        self,
        incident: bytes = NONE,
        level: int = 0,
        visit: int = 0,
        settings: int = 0,
        last_down: int = 0,
        refused: int = 0,
        group: int = 0,
    ) -> bytes:
        """A sealed STATUS."""
        body = events.pack_status(last_down, level, visit, settings, 40_000, refused, group)
        event = events.Event(kinds.STATUS, NONE, 0, self.battery, 0, incident, body)
        return self.seal(event)

    def beacon(self, event: events.Event, imitates: int | None = None) -> beacons.Beacon:
        """The beacon that announces an event."""
        self.rotation += 1
        _, seq = ident.unpack(event.ident)
        data = beacons.seal_beacon(
            beacons.Group(self.group),
            self.keys.beacon,
            self.number,
            self.boot,
            seq,
            event.kind,
            event.kind if imitates is None else imitates,
            self.battery,
            self.rotation,
        )
        heard = beacons.route([beacons.Group(self.group)], data)
        assert heard is not None
        return heard

    def sound(self, capture: int, first: int, count: int, level: int = 4000) -> list[tuple[int, bytes]]:
        """Sealed packets of a tone."""
        packets = []
        for index in range(first, first + count):
            wave = [level if (i // 20) % 2 else -level for i in range(adpcm.SAMPLES)]
            packet, _, _ = adpcm.encode_packet(wave, 0, 40)
            packets.append((index, audio.seal_audio(self.keys.audio, self.number, self.boot, capture, index, packet)))
        return packets

    def open(self, blob: bytes) -> downlink.Down:
        """What the station sealed for this badge."""
        return downlink.open_down(self.keys.down, self.number, blob)


class Hub:
    """Signs as the hub does, and opens what the station sends it."""

    def __init__(self, boot: int = 1) -> None:
        self._identity = Ed25519PrivateKey.generate()
        self._box = X25519PrivateKey.generate()
        self.key = self._identity.public_key().public_bytes_raw()
        from station.enrol import hub_id

        self.name = hub_id(self.key)
        self.id = bytes.fromhex(self.name)
        self.boot = boot
        self.number = 0

    def topic(self, kind: str) -> str:
        """`event`, `status` or `audio`: the topic that it goes to."""
        return f"tocsin/1/hub/{self.name}/" + (kind if kind in ("hello", "state") else f"up/{kind}")

    def up(self, kind: int, payload: bytes, held_ms: int = 0, **facts: Any) -> bytes:
        """A signed message."""
        self.number += 1
        text = json.dumps(facts).encode()
        message = relay.Up(kind, self.id, self.boot, self.number, held_ms, 0, text, payload)
        return relay.pack_up(self._identity.sign, message)

    def hello(self) -> bytes:
        """Its public keys."""
        return self.up(relay.HELLO, self.key + self._box.public_key().public_bytes_raw(), name="bag")

    def event(self, badge: Badge, event: events.Event, held_ms: int = 0, **facts: Any) -> bytes:
        """An event of a badge, sealed anew."""
        shown = event.body[0] if event.kind == kinds.DURESS else event.kind
        payload = relay.pack_event(
            badge.number, shown, event.ident, event.age_ms, event.battery, event.flags, badge.seal(event)
        )
        return self.up(relay.EVENT, payload, held_ms, **facts)

    def beacon(self, badge: Badge, event: events.Event, imitates: int | None = None, **facts: Any) -> bytes:
        """An event of a badge, heard as a beacon."""
        return self.up(relay.BEACON, relay.pack_beacon(badge.beacon(event, imitates)), **facts)

    def status(self, badge: Badge, blob: bytes, **facts: Any) -> bytes:
        """A badge's STATUS."""
        return self.up(relay.TELEMETRY, relay.pack_telemetry(badge.number, badge.battery, blob), **facts)

    def sound(self, badge: Badge, capture: int, packets: list[tuple[int, bytes]]) -> bytes:
        """A batch of sealed sound."""
        return self.up(relay.AUDIO, relay.pack_audio(badge.number, badge.boot, capture, packets))

    def open(self, station_key: bytes, data: bytes) -> relay.Down:
        """A message of the station for this hub."""

        def good(signature: bytes, text: bytes) -> bool:
            Ed25519PublicKey.from_public_bytes(station_key).verify(signature, text)
            return True

        return relay.unpack_down(good, self.id, data)

    def keys(self, payload: bytes) -> dict[str, Any]:
        """The keys in a KEYS message."""
        text = relay.open_keys(
            lambda ephemeral: self._box.exchange(X25519PublicKey.from_public_bytes(ephemeral)), self.id, payload
        )
        found: dict[str, Any] = json.loads(text)
        return found
