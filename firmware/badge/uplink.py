"""Everything that the badge says to its station, whichever way it goes: numbered, sealed, announced, repeated.

One run of the badge (a boot) has one count of events, one of uplinks and one of beacons; none ever goes back. An event
leaves by every session at once, and those that matter are in the beacon too, from the first moment until the station's
receipt. The beacon changes with its address every 2 to 8 seconds, at random, whether or not anything happens.
"""

import gc

from micropython import const

from protocol import answer, beacon, downlink, events, kinds, link
from protocol import ident as identity
from protocol.fresh import Uplinks
from protocol.ident import NONE
from protocol.keys import BadgeKeys

from . import trace
from .clock import now_ms
from .outbox import Outbox, Pending

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

    from .links import Links
    from .radio import Radio

_ROTATE_LEAST_MS = const(2000)
_ROTATE_MOST_MS = const(8000)
_STATUS_MS = const(5000)
_STATUS_ALARM_MS = const(2000)
_ROTATION_END = const(0xFFFF)  # in a boot; then a new one begins, or, while an alarm is open, they go round
_ANNOUNCED = const(8)  # beacons that are remembered by what they announced: an answer is felt for 10 s


class Uplink:
    """The badge's voice. `boot` 6 bytes; `rotation` is the number of the first beacon of this run."""

    def __init__(
        self, keys: BadgeKeys, badge: int, group_key: bytes, boot: bytes, rotation: int, radio: "Radio", links: "Links"
    ) -> None:
        self.badge = badge
        self.boot = boot
        self.former_boot = b""  # of an alarm that a reset interrupted; its beacons still carry it
        self.outbox = Outbox()
        self.sent = Uplinks()
        self.rotation = rotation & _ROTATION_END
        self._made = 0  # beacons of this boot
        # the event, by the beacon's number modulo the length; copied, so that no old identity stays in memory
        self._announced = bytearray(8 * _ANNOUNCED)
        self._announced_by = [-1] * _ANNOUNCED  # that number
        self.pairing = False
        self.hurried = False  # an alarm is open that its wearer may feel: a status every 2 s
        self.battery: "Callable[[], int]"
        self.flags: "Callable[[], int]"
        self.status: "Callable[[], tuple[bytes, bytes]]"  # incident, body of a STATUS
        self._keys = keys
        self._group = beacon.Group(group_key)
        self._radio = radio
        self._links = links
        self._number = 0
        self._seq = 0
        self._rotate_ms = 0
        self._status_ms = 0
        self._repeat_ms = 0
        links.event_body = self._event_body
        links.status_body = self._status_body

    @property
    def group_tag(self) -> int:
        """Which group key the badge has (protocol.beacon.Group.tag)."""
        return self._group.tag

    @property
    def worn_out(self) -> bool:
        """The beacons of this boot are used up: a new boot should begin."""
        return self._made >= _ROTATION_END

    def regroup(self, group_key: bytes) -> None:
        """The council has a new group key."""
        self._group = beacon.Group(group_key)
        self.rotate()

    # --- events

    def next_seq(self) -> int:
        """The number of the next event. Allocates nothing."""
        self._seq += 1
        return self._seq

    def raise_event(
        self, kind: int, shown: "int | None" = None, incident: bytes = NONE, body: bytes = b"", seq: int = 0
    ) -> Pending:
        """Something happened: say it now, and again until the station has it. `shown`: what a hub may see.

        An event without incident that is an alarm opens its own. `seq`: a number that was taken before.
        """
        event = self.make_event(kind, shown, incident, body, seq)
        self.say(event)
        return event

    def make_event(self, kind: int, shown: "int | None", incident: bytes, body: bytes, seq: int) -> Pending:
        """The event, not said yet."""
        ident = identity.pack(self.boot, seq or self.next_seq())
        event = Pending(kind, ident, now_ms(), kind if shown is None else shown, incident, body)
        if incident == NONE and kind in kinds.ALARMS:
            event.incident = ident
        return event

    def say(self, event: Pending) -> None:
        """Let an event wait for its receipt, and send it at once by both ways."""
        self.outbox.add(event)
        try:
            self._links.offer(event)
            self._links.hurry()
        except Exception as error:  # it waits and is repeated; what else an alarm does must not stop here
            gc.collect()
            trace.fault("send", error)
        if event.priority == kinds.PRIORITY_ALARM:
            self._announce()

    def repeat(self, event: Pending) -> None:
        """The wearer insists: send it again now."""
        self._links.offer(event)
        self._links.hurry()
        self._announce()

    def _announce(self) -> None:
        """Put the newest event into the beacon. A radio that refuses must not stop what else an alarm does."""
        try:
            self.rotate(newest=True)
        except Exception as error:
            gc.collect()
            trace.fault("radio", error)
            self._rotate_ms = 0  # tried again at the next tick, which restarts the radio if need be

    def _number_next(self) -> int:
        self._number += 1
        self.sent.sent(self._number, now_ms())
        return self._number

    def seal(self, event: Pending) -> bytes:
        """The envelope of an event, sealed afresh."""
        return events.seal_event(
            self._keys.events,
            self.badge,
            self.boot,
            self._number_next(),
            events.Event(
                event.kind,
                event.ident,
                event.age_ms(now_ms()),
                self.battery(),
                self.flags(),
                event.incident,
                event.body,
            ),
        )

    def _event_body(self, event: Pending) -> bytes:
        # the hub's flags say no more than what any hub may know: nothing of visits, sound or what was felt
        return link.pack_event(event.shown, event.ident, event.age_ms(now_ms()), self.battery(), 0, self.seal(event))

    def _status_body(self) -> bytes:
        incident, body = self.status()
        event = Pending(kinds.STATUS, identity.pack(self.boot, 0), now_ms(), kinds.STATUS, incident, body)
        return link.pack_telemetry(self.battery(), self.seal(event))

    def ask(self) -> None:
        """Send a status now, to be answered with how things stand."""
        if self._links.offer_status():
            self._status_ms = now_ms()

    # --- beacons

    def rotate(self, newest: bool = False) -> None:
        """A new beacon under a new address. Raises radio.RadioFailed."""
        event = self.outbox.announced(newest)
        boot = self.boot
        if event is not None:
            boot, seq = identity.unpack(event.ident)
            kind, shown = event.kind, event.shown
        else:
            seq = 0
            kind = shown = kinds.ENROL if self.pairing else kinds.STATUS
        self.rotation = (self.rotation + 1) & _ROTATION_END
        self._made += 1
        at = self.rotation % _ANNOUNCED
        self._announced[8 * at : 8 * at + 8] = NONE if event is None else event.ident
        self._announced_by[at] = self.rotation
        now = now_ms()
        data = beacon.seal_beacon(
            self._group, self._keys.beacon, self.badge, boot, seq, kind, shown, self.battery(), self.rotation
        )
        self._radio.advertise(beacon.advertisement(data))
        self.sent.sent(downlink.BEACON | self.rotation, now)
        span = _ROTATE_MOST_MS - _ROTATE_LEAST_MS
        self._rotate_ms = now + _ROTATE_LEAST_MS + int.from_bytes(self._radio.random(2), "big") * span // 0xFFFF

    def open_answer(self, data: bytes) -> "tuple[bytes, int, int | None, bytes] | None":
        """A hub's broadcast for this badge: identity, level, how old the beacon is that it answers, and which event
        that one announced (zeros: none, or long ago)."""
        inside = beacon.parse_advertisement(data)
        found = None
        for boot in (self.boot, self.former_boot):  # what a reset interrupted is announced under the boot of before
            if inside and boot and not found:
                found = answer.open_answer(self._group, self._keys.answer, self.badge, boot, inside)
        if not found:
            return None
        ident, level, rotation = found
        at = rotation % _ANNOUNCED
        announced = bytes(self._announced[8 * at : 8 * at + 8]) if self._announced_by[at] == rotation else NONE
        return ident, level, self.sent.age(downlink.BEACON | rotation, now_ms()), announced

    # --- time

    def tick(self, now: int) -> None:
        """What is due: repetitions, a status, the next beacon. Raises radio.RadioFailed."""
        if now >= self._repeat_ms:
            due = self.outbox.due(now)
            if due:
                self._repeat_ms = now + 200
                for event in due:
                    self._links.offer(event)
        if now - self._status_ms >= (_STATUS_ALARM_MS if self.hurried else _STATUS_MS):
            self.ask()
        if now >= self._rotate_ms:
            self.rotate()

    # --- answers

    def names_this_run(self, down: downlink.Down) -> bool:
        """Whether a message from the station speaks of this run of the badge, and not of an earlier one.

        A beacon that still announces an interrupted alarm carries that alarm's boot; its number is this run's.
        """
        if down.boot == self.boot:
            return True
        return bool(self.former_boot) and down.boot == self.former_boot and down.echo >= downlink.BEACON
