"""The link model: who hears whose advertisements, and connections made of connection events.

Advertising: each event reaches every other device independently; it may be lost, spoilt, repeated, delayed.

A connection is a grid of connection events, one interval apart. In an event each side sends up to
`PDUS_PER_EVENT` packets in order. A packet that is lost ends that side's turn and is tried again in the next
event, so the link layer loses and reorders nothing; it only gets slower, until nothing was heard for
`SUPERVISION_S` and the connection is over on both sides. While a connection is idle and the air is clear,
events would exchange empty packets that always arrive: they are not simulated.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter, deque
from typing import Any

from bumble import hci, ll

from firmware.emulator.air import values
from firmware.emulator.air.controller import (
    LINK_PDU,
    SCAN_RESPONSE,
    SCANNABLE,
    AirConnection,
    AirController,
)
from firmware.emulator.air.faults import Conditions, Faults

INTERVAL_UNIT_S = 0.001_25
DEFAULT_INTERVAL_UNITS = 24  # 30 ms
INTERVAL_RANGE = (6, 3200)  # Core Vol 6 Part B 4.5.1: 7.5 ms to 4 s
PDUS_PER_EVENT = 6
HELD_S = 0.100  # a packet held back to be overtaken goes on after this anyway
EVENTS_TO_ESTABLISH = 6  # Core Vol 6 Part B 4.5.2
Packet = bytes | ll.ControlPdu


class End:
    """One side of a connection: what waits to be sent to the other side, and when that was last heard."""

    contact: Contact
    connection: AirConnection

    def __init__(self, controller: AirController) -> None:
        self.controller = controller
        self.outgoing: deque[tuple[Packet, int]] = deque()
        self.held: Packet | None = None
        self.heard = 0.0
        self.alive = True
        self.inbox: deque[tuple[float, Packet]] = deque()
        self.timer: asyncio.TimerHandle | None = None

    def send(self, packet: Packet, completes: int) -> None:
        """Queue a packet; `completes` host packets are reported when it has been delivered."""
        self.outgoing.append((packet, completes))
        self.contact.kick()

    def vanish(self) -> None:
        """This side is silent from now on."""
        self.alive = False
        self.outgoing.clear()
        self.contact.changed()


class Contact:
    """A connection between two devices."""

    def __init__(
        self,
        air: Air,
        central: AirController,
        peripheral: AirController,
        addresses: tuple[hci.Address, hci.Address],
        interval_units: int,
    ) -> None:
        self.air = air
        self.interval_units = interval_units
        self.ends = (End(central), End(peripheral))
        self.rng = air.faults.random(central.name, peripheral.name)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._anchor = self._loop.time() + self.rng.uniform(0.0, self.interval)
        self._over = False
        roles = (hci.Role.CENTRAL, hci.Role.PERIPHERAL)
        for end in self.ends:
            end.contact = self
            end.heard = self._loop.time()
        # The peripheral's host first: the central's will talk at once.
        for i in (1, 0):
            end = self.ends[i]
            end.connection = end.controller.connected(roles[i], addresses[i], addresses[1 - i], self)
            end.connection.end = end
        self.changed()

    @property
    def interval(self) -> float:
        """Seconds between connection events."""
        return self.interval_units * INTERVAL_UNIT_S

    @property
    def names(self) -> tuple[str, str]:
        """Central's and peripheral's name."""
        return self.ends[0].controller.name, self.ends[1].controller.name

    @property
    def silent(self) -> bool:
        """Whether one side has left without saying so."""
        return not (self.ends[0].alive and self.ends[1].alive)

    def changed(self) -> None:
        """The air between the two, or one of them, has changed."""
        if self._over:
            return
        if not (self.ends[0].alive or self.ends[1].alive):
            self._finish()
            return
        conditions = self.air.faults.between(*self.names)
        if not conditions.connect:
            self.close(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)
        elif self._timer is None:
            # Nothing was simulated while all was well: until now each heard the other.
            for end in self.ends:
                end.heard = self._loop.time()
            self.kick()

    def kick(self) -> None:
        """See to it that the next connection event takes place."""
        if self._timer is None and not self._over:
            now = self._loop.time()
            events = max(0, math.ceil((now - self._anchor) / self.interval))
            self._anchor += events * self.interval
            self._timer = self._loop.call_at(self._anchor, self._event)

    def _event(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._anchor += self.interval
        conditions = self.air.faults.between(*self.names)
        passable = not (conditions.down or self.silent)
        if passable:
            for sender, receiver in (self.ends, self.ends[::-1]):
                self._turn(sender, receiver, conditions, now)
                if self._over:
                    return
        if now - min(end.heard for end in self.ends if end.alive) >= self.air.SUPERVISION_S:
            self.air.count["supervision timeouts"] += 1
            self.close(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)
        elif not passable or conditions.loss or any(end.outgoing for end in self.ends):
            self.kick()

    def _turn(self, sender: End, receiver: End, conditions: Conditions, now: float) -> None:
        """What one side sends in one connection event."""
        room, completed = PDUS_PER_EVENT, 0
        while room > 0:
            if conditions.loss and self.rng.random() < conditions.loss:
                self.air.count["packets lost"] += 1
                break
            receiver.heard = now
            if not sender.outgoing:
                break
            packet, completes = sender.outgoing.popleft()
            completed += completes
            room -= math.ceil(len(packet) / LINK_PDU) if isinstance(packet, bytes) else 1
            self._arrive(sender, receiver, packet, conditions, now)
            if self._over:
                return
        if completed:
            sender.controller.completed(sender.connection, completed)

    def _arrive(self, sender: End, receiver: End, packet: Packet, conditions: Conditions, now: float) -> None:
        """A packet got through the link layer: spoil it above that, if it is one of ours."""
        self.air.count["packets"] += 1
        if not isinstance(packet, bytes) or not values.carries_value(packet):
            self._release(sender, receiver, now)
            self._pass(sender, receiver, packet, conditions, now)
            return
        if conditions.corrupt and self.rng.random() < conditions.corrupt:
            self.air.count["values corrupted"] += 1
            packet = values.corrupted(packet, self.rng)
        if conditions.reorder and sender.held is None and self.rng.random() < conditions.reorder:
            self.air.count["values reordered"] += 1
            sender.held = packet
            self._loop.call_later(HELD_S, self._release, sender, receiver, None, packet)
            return
        self._pass(sender, receiver, packet, conditions, now)
        if conditions.duplicate and self.rng.random() < conditions.duplicate:
            self.air.count["values duplicated"] += 1
            self._pass(sender, receiver, values.repeated(packet), conditions, now)
        self._release(sender, receiver, now)

    def _release(self, sender: End, receiver: End, now: float | None, only: Packet | None = None) -> None:
        """Send on what was held back to be overtaken (only this packet, when the time for it is up)."""
        packet = sender.held
        if packet is not None and (only is None or only is packet) and not self._over:
            sender.held = None
            conditions = self.air.faults.between(*self.names)
            self._pass(sender, receiver, packet, conditions, now or self._loop.time())

    def _pass(self, sender: End, receiver: End, packet: Packet, conditions: Conditions, now: float) -> None:
        if conditions.delay_ms or receiver.inbox:
            due = now + conditions.delay_ms / 1000
            if receiver.inbox:
                due = max(due, receiver.inbox[-1][0])
            receiver.inbox.append((due, packet))
            if receiver.timer is None:
                receiver.timer = self._loop.call_at(due, self._due, sender, receiver)
        else:
            self._receive(sender, receiver, packet)

    def _due(self, sender: End, receiver: End) -> None:
        receiver.timer = None
        while receiver.inbox and receiver.inbox[0][0] <= self._loop.time() and not self._over:
            self._receive(sender, receiver, receiver.inbox.popleft()[1])
        if receiver.inbox and not self._over:
            receiver.timer = self._loop.call_at(receiver.inbox[0][0], self._due, sender, receiver)

    def _receive(self, sender: End, receiver: End, packet: Packet) -> None:
        if isinstance(packet, ll.TerminateInd):
            self._finish()
            receiver.controller.disconnected(receiver.connection, packet.error_code)
            sender.controller.disconnected(
                sender.connection, hci.HCI_ErrorCode.CONNECTION_TERMINATED_BY_LOCAL_HOST_ERROR
            )
        elif isinstance(packet, ll.ConnectionUpdateInd):
            self.interval_units = min(max(packet.interval, INTERVAL_RANGE[0]), INTERVAL_RANGE[1])
            for end in self.ends:
                end.controller.updated(end.connection, packet)
        else:
            receiver.controller.received(receiver.connection, packet)

    def close(self, reason: int) -> None:
        """End the connection on both sides."""
        self._finish()
        for end in self.ends:
            if end.alive:
                end.controller.disconnected(end.connection, reason)

    def _finish(self) -> None:
        self._over = True
        self.air.contacts.discard(self)
        for timer in (self._timer, *(end.timer for end in self.ends)):
            if timer:
                timer.cancel()
        self._timer = None


class Air:
    """All devices in range of each other, the connections between them, and the faults."""

    SUPERVISION_S = 4.0
    RSSI = -52

    def __init__(self, seed: int = 0) -> None:
        self.faults = Faults(seed)
        self.devices: list[AirController] = []
        self.contacts: set[Contact] = set()
        self.count: Counter[str] = Counter()

    def join(self, name: str) -> AirController:
        """A new device on the air."""
        device = AirController(name, self)
        self.devices.append(device)
        return device

    def leave(self, device: AirController) -> None:
        """A device vanishes: its peers find out by their supervision timeout."""
        device.gone = True
        device.silence()
        self.devices.remove(device)

    def on_address_changed(self, controller: AirController) -> None:
        """Nothing here goes by address (part of Bumble's interface of a link)."""

    def changed(self) -> None:
        """Faults were set, cleared or reseeded."""
        for contact in list(self.contacts):
            contact.rng = self.faults.random(*contact.names)
            contact.changed()

    def advertise(self, sender: AirController) -> None:
        """One advertising event: everybody in range may hear it, and somebody may connect."""
        self.count["advertisements"] += 1
        advertiser = sender.le_legacy_advertiser
        kind, address, data = advertiser.advertising_type, advertiser.address, advertiser.advertising_data
        for device in list(self.devices):
            if device is sender or not (device.le_scan_enable or device.pending_le_connection):
                continue
            conditions = self.faults.between(sender.name, device.name)
            rng = self.faults.random(sender.name, device.name)
            if conditions.down or (conditions.loss and rng.random() < conditions.loss):
                self.count["advertisements lost"] += 1
                continue
            heard = data
            if conditions.corrupt and heard and rng.random() < conditions.corrupt:
                self.count["advertisements corrupted"] += 1
                spoilt = bytearray(heard)
                spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
                heard = bytes(spoilt)
            times = 2 if conditions.duplicate and rng.random() < conditions.duplicate else 1
            if not device.pending_le_connection and not self._open(device, rng):
                continue
            for _ in range(times):
                if conditions.delay_ms:
                    asyncio.get_running_loop().call_later(
                        conditions.delay_ms / 1000, self._hear, device, kind, address, heard
                    )
                else:
                    self._hear(device, kind, address, heard)
            if device.le_scan_enable and device.le_scan_type and kind in SCANNABLE:
                device.report(SCAN_RESPONSE, address, advertiser.scan_response_data, self.RSSI)
            pending = device.pending_le_connection
            if pending and advertiser.connectable and pending.peer_address == address:
                self._connect(device, sender, pending, conditions)

    def _hear(self, device: AirController, kind: int, address: hci.Address, data: bytes) -> None:
        device.report(kind, address, data, self.RSSI)

    def _open(self, device: AirController, rng: random.Random) -> bool:
        """Whether a scanner's window is open just now."""
        return device.le_scan_window >= device.le_scan_interval or (
            rng.random() < device.le_scan_window / device.le_scan_interval
        )

    def _connect(self, central: AirController, peripheral: AirController, pending: Any, conditions: Conditions) -> None:
        """A connection request, which nobody acknowledges: it gets through or the central waits in vain."""
        units = min(max(pending.connection_interval_max, INTERVAL_RANGE[0]), INTERVAL_RANGE[1])
        lost = conditions.loss and self.faults.random(central.name, peripheral.name).random() < conditions.loss
        if lost or not conditions.connect:
            self.count["connections refused"] += 1
            asyncio.get_running_loop().call_later(
                EVENTS_TO_ESTABLISH * units * INTERVAL_UNIT_S,
                central.connection_failed,
                pending,
                hci.HCI_ErrorCode.CONNECTION_FAILED_TO_BE_ESTABLISHED_ERROR,
            )
            return
        own = central.random_address
        if pending.own_address_type == hci.OwnAddressType.PUBLIC:
            own = central.public_address
        advertiser = peripheral.le_legacy_advertiser
        advertiser.stop()
        central.pending_le_connection = None
        self.count["connections"] += 1
        self.contacts.add(Contact(self, central, peripheral, (own, advertiser.address), units))

    def stats(self) -> dict[str, Any]:
        """Counters, devices and connections, for people and drills."""
        return {
            "counters": dict(self.count),
            "devices": [device.name for device in self.devices],
            "connections": [
                {"central": c.names[0], "peripheral": c.names[1], "interval_ms": c.interval * 1000}
                for c in self.contacts
            ],
        }
