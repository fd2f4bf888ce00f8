"""The radio: Bluetooth brought up, connections noted, advertisements made, values notified. Knows no protocol.

What MicroPython's BLE asks for, and issues behind it:
- One exception that leaves the handler silently removes it, so its whole body is wrapped; it copies what it was given
  (memoryviews die on return), notes it in a ring made beforehand, sets a flag and returns. It is set again every so
  often, should something else have removed it.
- Attribute buffers hold 20 bytes and cut silently: gatts_set_buffer. The receiving one appends, so that two writes
  which come before one is read are not lost; it is read inside the handler, while it holds that one write alone.
- Bonds and handler are there before active(True), else a fixed key makes private addresses trackable.
- Advertising stops when somebody connects, and may be started again: the badge advertises all the time.
- The payload and the address can only change while not advertising; both change together.
"""

import asyncio
import os
from errno import ENOMEM

import bluetooth
from micropython import const

from protocol import link

from . import trace
from .bonds import Bonds

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any

_ADVERTISE_US = const(100_000)  # a hub that scans all the time hears it within two of them, lost ones included
CONNECTIONS = 3  # what the ESP32's NimBLE is built with
_BUFFER = const(512)
_MTU = const(247)  # 244 bytes of value: one link-layer packet of 251
_RING = const(40)
_RESERVED = const(8)  # of the ring, for connects and disconnects
_SCAN_INTERVAL_US = const(60_000)
_SCAN_WINDOW_US = const(30_000)  # half the time: the other half is for the beacon and the connections

_IRQ_CENTRAL_CONNECT = const(1)
_IRQ_CENTRAL_DISCONNECT = const(2)
_IRQ_GATTS_WRITE = const(3)
_IRQ_SCAN_RESULT = const(5)
_IRQ_MTU_EXCHANGED = const(21)
_IRQ_GET_SECRET = const(29)
_IRQ_SET_SECRET = const(30)
_IRQ_PASSKEY_ACTION = const(31)
_ADDR_RANDOM = const(1)
_IO_DISPLAY_ONLY = const(0)

CONNECTED = _IRQ_CENTRAL_CONNECT
DISCONNECTED = _IRQ_CENTRAL_DISCONNECT
WRITTEN = _IRQ_GATTS_WRITE
MTU_CHANGED = _IRQ_MTU_EXCHANGED
PASSKEY = _IRQ_PASSKEY_ACTION
HEARD = _IRQ_SCAN_RESULT

_SERVICE = (
    bluetooth.UUID(link.SERVICE),
    (
        (bluetooth.UUID(link.RX), bluetooth.FLAG_WRITE | bluetooth.FLAG_WRITE_NO_RESPONSE),
        (bluetooth.UUID(link.TX), bluetooth.FLAG_NOTIFY),
    ),
)


class RadioFailed(Exception):
    """The radio refused something that it must do; restarting it is the remedy."""


class Radio:
    """The one radio. `flag` is set whenever next() has something."""

    def __init__(self, bonds: Bonds) -> None:
        self.flag = asyncio.ThreadSafeFlag()
        self.lost = 0  # what the handler could not note
        self.handler_faults = 0
        self.restarts = 0
        self.listening = False
        self.bonds = bonds
        self._ble: "Any" = bluetooth.BLE()  # the stubs take handles for buffers
        self._rx = 0
        self._tx = 0
        self._kinds = bytearray(_RING)
        self._connections = [0] * _RING
        self._data: "list[Any]" = [None] * _RING
        self._head = 0
        self._tail = 0

    def start(self) -> None:
        """Bring it up. Raises OSError."""
        ble = self._ble
        ble.irq(self._irq)
        try:
            ble.config(bond=True, mitm=True, le_secure=True, io=_IO_DISPLAY_ONLY)
        except (OSError, ValueError) as error:  # a build without pairing: privacy is less, trust is not
            trace.fault("bonds", error)
        ble.active(True)
        ble.config(mtu=_MTU, gap_name="")
        ble.config(addr_mode=_ADDR_RANDOM)
        ((self._rx, self._tx),) = ble.gatts_register_services((_SERVICE,))
        ble.gatts_set_buffer(self._rx, _BUFFER, True)
        ble.gatts_set_buffer(self._tx, _BUFFER)

    def restart(self) -> None:
        """Take it down and bring it up again: the cure for a stack that no longer answers. Raises OSError."""
        self.restarts += 1
        self._ble.active(False)
        self._head = self._tail = 0
        self.listening = False
        self.start()

    def stop(self) -> None:
        """Take it down: nothing is sent and nothing heard any more."""
        try:
            self._ble.gap_advertise(None)
            self._ble.active(False)
        except OSError as error:
            trace.fault("radio", error)

    def watch(self) -> None:
        """Set the handler again, in case it was removed."""
        self._ble.irq(self._irq)

    # --- what happened

    def _irq(self, event: int, data: "tuple[Any, ...]") -> "Any":
        try:
            if event == _IRQ_GATTS_WRITE:
                if data[1] == self._rx:
                    self._note(event, data[0], self._ble.gatts_read(self._rx), _RESERVED)
            elif event == _IRQ_CENTRAL_CONNECT or event == _IRQ_CENTRAL_DISCONNECT:
                self._note(event, data[0], None, 0)
            elif event == _IRQ_MTU_EXCHANGED:
                self._note(event, data[0], data[1], 0)
            elif event == _IRQ_SCAN_RESULT:
                # only what has the head of ours, with flags or without
                heard = data[4]
                at = len(heard) - 28
                if at in (0, 3) and heard[at] == 27 and heard[at + 1] == heard[at + 2] == heard[at + 3] == 255:
                    self._note(event, 0, bytes(heard), 2 * _RESERVED)
            elif event == _IRQ_PASSKEY_ACTION:
                self._note(event, data[0], data[1], _RESERVED)
            elif event == _IRQ_GET_SECRET:
                return self.bonds.get(data[0], data[1], data[2])
            elif event == _IRQ_SET_SECRET:
                return self.bonds.put(data[0], data[1], data[2])
        except Exception:
            self.handler_faults += 1
        return None

    def _note(self, kind: int, connection: int, data: "Any", spare: int) -> None:
        head = self._head
        if (self._tail - head - 1) % _RING <= spare:
            self.lost += 1
            return
        self._kinds[head] = kind
        self._connections[head] = connection
        self._data[head] = data
        self._head = (head + 1) % _RING
        self.flag.set()

    def next(self) -> "tuple[int, int, Any] | None":
        """What happened: kind, connection, and what was written or the new _MTU."""
        tail = self._tail
        if tail == self._head:
            return None
        found = self._kinds[tail], self._connections[tail], self._data[tail]
        self._data[tail] = None
        self._tail = (tail + 1) % _RING
        return found

    # --- what is done

    def random(self, count: int) -> bytes:
        """Random bytes; truly so only while the radio is on (facts of the ESP32)."""
        return os.urandom(count)

    def advertise(self, payload: bytes) -> None:
        """From now on advertise these 31 bytes from a new random address. Raises RadioFailed.

        With all connections taken the stack refuses to be connectable; the beacon goes out all the same.
        """
        ble = self._ble
        listening = self.listening
        try:
            ble.gap_advertise(None)
            self.listen(False)
            ble.config(addr_mode=_ADDR_RANDOM)
            try:
                ble.gap_advertise(_ADVERTISE_US, adv_data=payload, connectable=True)
            except OSError as error:
                if error.errno != ENOMEM:
                    raise
                ble.gap_advertise(_ADVERTISE_US, adv_data=payload, connectable=False)
        except OSError as error:
            raise RadioFailed("advertise: %r" % error)
        finally:
            self.listen(listening)

    def listen(self, on: bool) -> None:
        """Hear advertisements, or not. A radio that cannot is said, and does without."""
        if on == self.listening:
            return
        self.listening = on
        try:
            if on:
                self._ble.gap_scan(0, _SCAN_INTERVAL_US, _SCAN_WINDOW_US, False)
            else:
                self._ble.gap_scan(None)
        except (OSError, AttributeError) as error:
            trace.fault("scan", error)

    def notify(self, connection: int, value: bytes) -> "bool | None":
        """Hand a value to the stack: True when it took it, False when its buffers are full, None when it never will."""
        try:
            self._ble.gatts_notify(connection, self._tx, value)
            return True
        except OSError as error:
            return False if error.errno == ENOMEM else None

    def disconnect(self, connection: int) -> None:
        """End a connection; whether it still was there is of no interest."""
        try:
            self._ble.gap_disconnect(connection)
        except OSError:
            pass  # it is gone, which is what was wanted

    def passkey(self, connection: int, action: int, passkey: int) -> None:
        """Answer a pairing peer with the passkey on the card."""
        try:
            self._ble.gap_passkey(connection, action, passkey)
        except OSError as error:
            trace.fault("pairing", error)
