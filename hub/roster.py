"""All badges that this hub hears, and the connections to them.

An enrolled badge is dialled as soon as it is heard. Others are dialled only for a reason: to enrol one in its pairing
window, or to hand over, as a guest, what the station sealed for it. Alarms go first wherever something waits its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bleak.backends.device import BLEDevice

from hub.badges import FADED_MS, FRESH_MS, Event, Machine, State
from hub.clock import Clock
from hub.contact import Contact, Purpose
from hub.radio import Radio
from protocol import kinds
from protocol.beacon import Beacon

logger = logging.getLogger("hub.badges")

DIALS = 3  # connections in the making: one is answered while others find their services
CONNECTIONS = 24  # more than any adapter holds; the simulated air has no limit
GUESTS = 2  # of them for badges of other hubs, which have hubs of their own
STRANGERS = 64  # badges without a key here that are remembered
LETTERS = 8  # sealed messages that wait for one badge
LETTER_MS = 10_000  # the badge believes nothing that answers an older uplink (protocol.fresh.ALARM_MS)
ENROL_PAUSE_MS = 4000  # until a badge that gave its ENROL event is asked again: the station answers in a second
KEY_DOUBTED = 3  # failures in a row after which a badge that asks to be enrolled has perhaps been given new keys
KEEP_MS = 1000


@dataclass
class Entry:
    """What the hub knows of one badge."""

    machine: Machine
    device: BLEDevice | None = None
    heard_ms: int = -(10**9)
    rssi: int | None = None
    beacon: Beacon | None = None
    battery: int | None = None
    contact: Contact | None = None
    task: asyncio.Task[None] | None = None
    letters: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=LETTERS))
    enrol_ms: int = -(10**9)
    undelivered: bool = False

    @property
    def urgent(self) -> bool:
        """Whether it announces an alarm."""
        return self.beacon is not None and kinds.priority(self.beacon.kind) == kinds.PRIORITY_ALARM


class Roster:
    """The badges by number. Everything happens on the event loop; times are ms of the hub's clock.

    `on_message(badge, type, body)`: what a badge says. `on_established(badge, boot)`: a session works.
    `on_undelivered(badge)`: what the station had for a badge did not reach it in time. `passkeys(badge)`: what it is to
    be paired with at its enrolment, if at all.
    """

    def __init__(
        self,
        radio: Radio,
        hub_id: bytes,
        clock: Clock,
        links: Callable[[], dict[int, bytes]],
        enrols: Callable[[int], bool],
        on_message: Callable[[int, int, bytes], None],
        on_established: Callable[[int, bytes], None],
        on_undelivered: Callable[[int], None],
        passkeys: Callable[[int], int | None] = lambda _badge: None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.uplink = False
        self._radio = radio
        self._hub_id = hub_id
        self._clock = clock
        self._links = links
        self._enrols = enrols
        self._on_message = on_message
        self._on_established = on_established
        self._on_undelivered = on_undelivered
        self._passkeys = passkeys
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._closing = False

    # ------------------------------------------------------------------ what the rest of the hub asks

    def entries(self) -> dict[int, Entry]:
        """All badges that are known, by number."""
        return dict(self._entries)

    def established(self, badge: int) -> bool:
        """Whether a session with this badge works."""
        entry = self._entries.get(badge)
        return entry is not None and entry.machine.state is State.ESTABLISHED

    def proved_within(self, badge: int, ms: int) -> bool:
        """Whether its session works, and something authentic has come on it in this time."""
        entry = self._entries.get(badge)
        return entry is not None and entry.contact is not None and entry.contact.proved_within(ms)

    def rssi(self, badge: int) -> int | None:
        """Signal strength of the last advertisement, dBm."""
        entry = self._entries.get(badge)
        return entry.rssi if entry else None

    def send(self, badge: int, kind: int, body: bytes) -> bool:
        """Say something to a badge in its session; False where there is none."""
        entry = self._entries.get(badge)
        return bool(entry and entry.contact and entry.contact.send(kind, body))

    def deliver(self, badge: int, blob: bytes) -> None:
        """Hand a badge what the station sealed for it, by whatever way there is."""
        entry = self._entry(badge)
        if entry.contact is not None and entry.contact.open:
            entry.contact.station(blob)
            return
        entry.letters.append((self._clock.now_ms(), blob))
        self._consider(entry)

    def heard(self, beacon: Beacon, new: bool, device: BLEDevice, rssi: int) -> None:
        """A beacon that routes."""
        now = self._clock.now_ms()
        entry = self._entry(beacon.badge)
        moved = entry.device is not None and entry.device.address != device.address
        entry.device, entry.heard_ms, entry.rssi = device, now, rssi
        if new:
            entry.beacon = beacon
        if moved and entry.contact is not None and not entry.contact.linked and entry.task is not None:
            # nobody answers there any more; hanging up is quick, and _over() dials the new address
            if entry.machine.change(Event.MOVED, now):
                entry.task.cancel()
            return
        if not entry.machine.change(Event.HEARD, now) and entry.urgent and self._wanted(entry):
            waited = now - entry.machine.since_ms
            if waited >= entry.machine.rest_s(urgent=True) * 1000:
                entry.machine.change(Event.URGENT, now)
        self._consider(entry)

    def battery(self, badge: int, percent: int) -> None:
        """What a badge said of its battery."""
        self._entry(badge).battery = percent

    def said_uplink(self, proof: bool, body: bytes, kind: int) -> None:
        """Whether there is proof of the station has changed: every session is told."""
        self.uplink = proof
        for entry in self._entries.values():
            if entry.contact is not None:
                entry.contact.send(kind, body)

    def enrolling(self, badge: int) -> None:
        """A badge has given its ENROL event: it is not asked again before the station had time for it."""
        self._entry(badge).enrol_ms = self._clock.now_ms()

    def keys_changed(self) -> None:
        """The station sent keys: sessions under revoked keys end, new ones begin."""
        links = self._links()
        for badge, entry in list(self._entries.items()):
            contact = entry.contact
            if contact is not None and contact.purpose is Purpose.ENROL and badge in links:
                contact.enrolled(links[badge], self.uplink)
            elif contact is not None and contact.purpose is Purpose.SESSION and badge not in links and entry.task:
                entry.task.cancel()
            self._consider(entry)

    async def run(self) -> None:
        """Housekeeping for ever; cancel it to hang up everywhere."""
        try:
            while True:
                await asyncio.sleep(KEEP_MS / 1000)
                self._keep()
        finally:
            self._closing = True
            tasks = [entry.task for entry in self._entries.values() if entry.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------ whom to dial

    def _entry(self, badge: int) -> Entry:
        entry = self._entries.get(badge)
        if entry is None:
            entry = self._entries[badge] = Entry(Machine(badge, self._clock.now_ms()))
            self._make_room()
        self._entries.move_to_end(badge)
        return entry

    def _make_room(self) -> None:
        links = self._links()
        strangers = [b for b, e in self._entries.items() if b not in links and e.task is None]
        for badge in strangers[: max(0, len(strangers) - STRANGERS)]:
            del self._entries[badge]

    def _wanted(self, entry: Entry) -> Purpose | None:
        """Why this badge should be dialled, if it should."""
        now = self._clock.now_ms()
        badge = entry.machine.badge
        key = self._links().get(badge)
        in_window = entry.beacon is not None and entry.beacon.kind == kinds.ENROL
        if in_window and (key is None or entry.machine.failures >= KEY_DOUBTED) and self._enrols(badge):
            if now - entry.enrol_ms >= ENROL_PAUSE_MS:
                return Purpose.ENROL
            return None
        if key is not None:
            return Purpose.SESSION
        return Purpose.GUEST if self._letters(entry) else None

    def _letters(self, entry: Entry) -> bool:
        """Whether something waits for this badge; what is too old is thrown away and reported."""
        oldest = self._clock.now_ms() - LETTER_MS
        late = False
        while entry.letters and entry.letters[0][0] < oldest:
            entry.letters.popleft()
            late = True
        if late and not entry.undelivered:
            entry.undelivered = True
            self.counters["undelivered"] += 1
            self._on_undelivered(entry.machine.badge)
        return bool(entry.letters)

    def _consider(self, entry: Entry) -> None:
        """Dial this badge, if there is a reason, an address and a free place."""
        now = self._clock.now_ms()
        if entry.machine.state is not State.SEEN or entry.task is not None:
            return
        if self._closing or not self._radio.usable:
            return
        if entry.device is None or now - entry.heard_ms > FRESH_MS:
            return
        purpose = self._wanted(entry)
        if purpose is None or not self._place(entry, purpose):
            return
        device = entry.device
        entry.machine.change(Event.DIALLED, now, purpose.value)
        badge = entry.machine.badge
        entry.contact = contact = Contact(
            self._radio,
            self._hub_id,
            badge,
            purpose,
            self._links().get(badge),
            self._clock,
            lambda kind, body: self._on_message(badge, kind, body),
            lambda event, reason: self._changed(entry, event, reason),
            self._passkeys(badge) if purpose is Purpose.ENROL else None,
        )
        entry.task = asyncio.create_task(contact.run(device, self.uplink))
        entry.task.add_done_callback(lambda task: self._over(entry, task))

    def _place(self, entry: Entry, purpose: Purpose) -> bool:
        """Whether one more may be dialled now. Alarms find a place where others do not."""
        busy = [e for e in self._entries.values() if e.task is not None]
        dialling = sum(e.machine.state in (State.CONNECTING, State.PAIRING) for e in busy)
        guests = sum(e.contact is not None and e.contact.purpose is Purpose.GUEST for e in busy)
        spare = 1 if entry.urgent else 0
        if purpose is Purpose.ENROL and any(e.contact and e.contact.pairs for e in busy):
            return False  # BlueZ pairs with one at a time, and an adapter does not scan meanwhile
        if purpose is Purpose.GUEST and guests >= GUESTS + spare:
            return False
        return dialling < DIALS + spare and len(busy) < CONNECTIONS + spare

    # ------------------------------------------------------------------ what happens to a connection

    def _changed(self, entry: Entry, event: Event, reason: str) -> None:
        now = self._clock.now_ms()
        entry.machine.change(event, now, reason)
        contact = entry.contact
        if event is Event.CONNECTED and contact is not None:
            while self._letters(entry):
                contact.station(entry.letters.popleft()[1])
            entry.undelivered = False
        elif event is Event.PROVED and contact is not None:
            self._on_established(entry.machine.badge, contact.boot)

    def _over(self, entry: Entry, task: asyncio.Task[None]) -> None:
        now = self._clock.now_ms()
        if entry.contact is not None:
            self.counters.update(entry.contact.counters())
        entry.contact = entry.task = None
        machine = entry.machine
        if not task.cancelled() and (problem := task.exception()):
            logger.error("badge %d: %s: %s", machine.badge, type(problem).__name__, problem, exc_info=problem)
        if machine.state not in (State.SEEN, State.LOST, State.BACKOFF):
            # cancelled, or ended without a word
            machine.change(Event.FAILED, now, "ended")
        if machine.state is State.LOST:
            machine.change(Event.HUNG_UP, now)
        if machine.state is State.BACKOFF:
            rest = machine.rest_s(entry.urgent)
            asyncio.get_running_loop().call_later(rest, self._rested, entry)
        for other in sorted(self._entries.values(), key=lambda e: (not e.urgent, e.machine.since_ms)):
            self._consider(other)

    def _rested(self, entry: Entry) -> None:
        if entry.machine.state is State.BACKOFF and entry.task is None:
            entry.machine.change(Event.RESTED, self._clock.now_ms())
            self._consider(entry)

    def _keep(self) -> None:
        now = self._clock.now_ms()
        for entry in list(self._entries.values()):
            self._letters(entry)
            if now - entry.heard_ms > FADED_MS:
                entry.machine.change(Event.FADED, now)
            self._consider(entry)
