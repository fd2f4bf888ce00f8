"""The hub's ear and voice: bleak, on the machine's own adapter or, where there is none, on the simulated air.

Everything above this file is the same for both. Scanning goes on while connections are made and used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from bleak import BleakClient, BleakScanner
from bleak.args.bluez import BlueZClientArgs, BlueZScannerArgs
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakError

from protocol import beacon, link

if TYPE_CHECKING:
    from hub.bluez_advertiser import BluezAdvertiser

logger = logging.getLogger("hub.radio")

CONNECT_S = 2.0  # to be answered: eight advertisements of a badge; then as long again for its services
HANG_UP_S = 6.0  # BlueZ takes up to 2.6 s, a dead link its supervision timeout of 4 s
SCAN_CHECK_S = 60.0  # no advertisement at all in this time, where there is any radio traffic: start scanning anew
SCAN_CHECKS = 10  # and after so many in any case: a scanner remembers every rotating address that it heard
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # until a radio that could not be opened is tried again

Heard = Callable[[BLEDevice, dict[int, bytes], int], None]


class Air(Protocol):
    """What a simulated radio offers (hub.bumble_backend.Radio)."""

    scanner: type[Any]
    client: type[Any]
    lost: asyncio.Event

    async def broadcast(self, data: bytes) -> None:
        """Advertise 31 bytes without taking connections; b"" ends it."""

    async def close(self) -> None:
        """Leave the air."""


class Connection:
    """A connection to a badge as bytes: values out, notifications in."""

    def __init__(self, client: BleakClient) -> None:
        self._client = client
        self._rx: BleakGATTCharacteristic | None = None

    @property
    def payload(self) -> int:
        """Bytes that one value may have. BlueZ knows it only here; its mtu_size says 23."""
        return self._rx.max_write_without_response_size if self._rx else 20

    @property
    def linked(self) -> bool:
        """Whether the badge has answered at all."""
        return self._client.is_connected

    async def connect(self) -> None:
        """Connect and find the badge's service. Raises BleakError, TimeoutError."""
        await self._client.connect()
        self._rx = self._client.services.get_characteristic(link.RX)
        if self._rx is None:
            raise BleakError("it has no service of ours")

    async def listen(self, notified: Callable[[bytes], None]) -> None:
        """Subscribe. `notified` is called with each value."""

        def callback(_characteristic: BleakGATTCharacteristic, value: bytearray) -> None:
            notified(bytes(value))

        # BlueZ's other way (AcquireNotify) loses what comes before the socket is read; elsewhere this is ignored
        await self._client.start_notify(link.TX, callback, bluez={"use_start_notify": True})

    async def write(self, value: bytes) -> None:
        """Write one value, without response: what is said is acknowledged above."""
        assert self._rx is not None
        await self._client.write_gatt_char(self._rx, value, response=False)

    async def hang_up(self) -> None:
        """End the connection, whatever state it is in; never raises."""
        try:
            async with asyncio.timeout(HANG_UP_S):
                await self._client.disconnect()
        except (BleakError, OSError, TimeoutError, EOFError) as problem:
            logger.debug("hanging up: %s", problem)


class Radio:
    """The adapter or the simulated air. `on_heard(device, manufacturer data, rssi)` for every advertisement."""

    def __init__(self, adapter: str | None, air: str | None, air_name: str, on_heard: Heard) -> None:
        self.ready = asyncio.Event()
        self.problem = "not started"
        self._heard_anything = False
        self._adapter = adapter
        self._address = air
        self._name = air_name
        self._on_heard = on_heard
        self._air: Air | None = None
        self._advertiser: BluezAdvertiser | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a radio now."""
        return self.ready.is_set()

    def connection(self, device: BLEDevice, dropped: Callable[[], None]) -> Connection:
        """A connection to be made to a badge that was heard. `dropped` is called when it ends by itself.

        Raises BleakError when the simulated air has just gone.
        """
        if self._address and self._air is None:
            raise BleakError("the air is gone")
        backend: type[BaseBleakClient] | None = self._air.client if self._air else None
        bluez: BlueZClientArgs = {"adapter": self._adapter} if self._adapter else {}
        return Connection(
            BleakClient(
                device, lambda _client: dropped(), [link.SERVICE], timeout=CONNECT_S, bluez=bluez, backend=backend
            )
        )

    async def broadcast(self, data: bytes) -> None:
        """Advertise 24 bytes as an answer of ours, instead of an earlier one; b"" ends it.

        Raises BleakError where the radio cannot.
        """
        if not self.usable:
            if data:
                raise BleakError("no radio")
        elif self._air is not None:
            await self._air.broadcast(beacon.advertisement(data) if data else b"")
        elif sys.platform.startswith("linux"):
            await self._broadcast_by_bluez(data)
        elif data:
            raise BleakError("this system's Bluetooth does not advertise for a program")

    async def _broadcast_by_bluez(self, data: bytes) -> None:
        from hub.bluez_advertiser import AdvertiserFailed, BluezAdvertiser

        try:
            if self._advertiser is None:
                self._advertiser = await BluezAdvertiser.open(self._adapter)
            if data:
                await self._advertiser.show(data)
            else:
                await self._advertiser.hide()
        except AdvertiserFailed as failed:
            if self._advertiser is not None:
                self._advertiser.close()
            self._advertiser = None
            raise BleakError(str(failed)) from failed

    async def run(self) -> None:
        """Scan for ever, and open the radio again when it is lost; cancel it to stop."""
        failures = 0
        while True:
            try:
                await self._scan()
                failures = 0
            except (BleakError, OSError, TimeoutError, EOFError) as problem:
                self.ready.clear()
                text = self._told(problem)
                logger.log(logging.DEBUG if text == self.problem else logging.WARNING, "no radio: %s", text)
                self.problem = text
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1

    def _told(self, problem: Exception) -> str:
        """What is wrong, for somebody who can do something about it."""
        if isinstance(problem, OSError) and self._address:
            return f"the air at {self._address}: {problem.strerror or problem}"
        if isinstance(problem, FileNotFoundError):
            return "there is no D-Bus, and so no BlueZ: is the bluetooth service installed and running?"
        return str(problem) or type(problem).__name__

    async def _scan(self) -> None:
        if self._address:
            # imported here so that a hub with an adapter needs no simulator installed
            from hub.bumble_backend import Radio as BumbleRadio

            self._air = await BumbleRadio.open(self._address, self._name)
        backend: type[BaseBleakScanner] | None = self._air.scanner if self._air else None
        bluez: BlueZScannerArgs = {"adapter": self._adapter} if self._adapter else {}
        try:
            while True:
                async with BleakScanner(self._heard, bluez=bluez, backend=backend):
                    self.problem = ""
                    self.ready.set()
                    await self._listen()
        finally:
            self.ready.clear()
            if self._air:
                with contextlib.suppress(BleakError, OSError):
                    await self._air.close()
                self._air = None

    async def _listen(self) -> None:
        """Until it is time to start scanning anew. Raises BleakError when the radio is gone."""
        for _ in range(SCAN_CHECKS):
            self._heard_anything = False
            try:
                async with asyncio.timeout(SCAN_CHECK_S):
                    await (self._air.lost.wait() if self._air else asyncio.sleep(SCAN_CHECK_S + 1))
            except TimeoutError:
                if not self._heard_anything:
                    return  # scanners are known to die without a word
                continue
            raise BleakError("the air is gone")

    def _heard(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        self._heard_anything = True
        self._on_heard(device, advertisement.manufacturer_data, advertisement.rssi)
