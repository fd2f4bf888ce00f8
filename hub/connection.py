"""A connection to a badge as bytes: values out, notifications in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

from hub.bluez import CALL_S
from protocol import link

if TYPE_CHECKING:
    from hub.adapter import Adapter

logger = logging.getLogger("hub.radio")

GONE_S = 1.0  # to put away a connection that has ended; the badge is waiting to be dialled anew
DOUBT_S = 1.0  # that a badge may take, until bluetoothd is asked whether it is not that which does not answer
HANG_UP_S = 6.0  # BlueZ takes up to 2.6 s, a dead link its supervision timeout of 4 s


class Connection:
    """One connection on one adapter. `dropped` is called once, when it ends by itself."""

    client: BleakClient

    def __init__(self, adapter: Adapter, device: BLEDevice, dropped: Callable[[], None]) -> None:
        self.answered = False  # the badge has, though its services may not be known yet
        self.quiet = asyncio.Event()  # set: a scan has to be out of its way only until the badge answers
        self.proved = False  # by its own keys; set by whoever holds the session
        self._adapter = adapter
        self._device = device
        self._dropped = dropped
        self._over = False
        self._found = False  # its services are, and nothing that was asked of it since was answered
        self._rx: BleakGATTCharacteristic | None = None

    @property
    def path(self) -> str:
        """What BlueZ calls the device; empty elsewhere."""
        details = self._device.details
        return str(details.get("path", "")) if isinstance(details, dict) else ""

    @property
    def linked(self) -> bool:
        """Whether the badge has answered at all."""
        return self.answered or self.client.is_connected

    @property
    def payload(self) -> int:
        """Bytes that one value may have. BlueZ knows it only here; its mtu_size says 23."""
        return self._rx.max_write_without_response_size if self._rx else 20

    def ended(self) -> None:
        """It has ended, or is as good as ended."""
        self.answered = self.proved = False
        if not self._over:
            self._over = True
            self._dropped()

    async def connect(self, passkey: int | None = None, answers: Callable[[], None] = lambda: None) -> None:
        """Connect and find the badge's service, with a passkey pair first. Raises BleakError, TimeoutError.

        `answers` is called when the badge has answered. Pairing comes before everything else: who has proved nothing
        after three seconds is disconnected, and BlueZ takes half of them to find the service.
        """
        if passkey is None:
            self.quiet.set()
        await self._adapter.dial(self, lambda: self._make(passkey), answers)
        self.answered = True
        self._rx = self.client.services.get_characteristic(link.RX)
        if self._rx is None:
            raise BleakError("it has no service of ours")
        self._found = True

    async def _make(self, passkey: int | None) -> None:
        if passkey is not None:
            await self._pair(passkey)
        self.quiet.set()
        await self.client.connect()

    async def _pair(self, passkey: int) -> None:
        from hub.pairing import PairingFailed, pair

        if self._adapter.bluez is None:
            raise BleakError("pairing with a passkey needs BlueZ")
        try:
            await pair(self.path, passkey)
        except PairingFailed as failed:
            raise BleakError(str(failed)) from failed

    async def listen(self, notified: Callable[[bytes], None]) -> None:
        """Subscribe. `notified` is called with each value."""

        def callback(_characteristic: BleakGATTCharacteristic, value: bytearray) -> None:
            notified(bytes(value))

        # BlueZ's other way (AcquireNotify) loses what comes before the socket is read; elsewhere this is ignored
        async with self._answered_in_time("a subscription"):
            await self.client.start_notify(link.TX, callback, bluez={"use_start_notify": True})

    async def write(self, value: bytes) -> None:
        """Write one value, without response: what is said is acknowledged above. Raises BleakError, TimeoutError."""
        assert self._rx is not None
        async with self._answered_in_time("a write"):
            await self.client.write_gatt_char(self._rx, value, response=False)

    @contextlib.asynccontextmanager
    async def _answered_in_time(self, what: str) -> AsyncIterator[None]:
        """bleak waits for ever for a bluetoothd that hangs: a session would stand, and prove that all is well.

        But bluetoothd itself waits for the badge, half a minute for a subscription, and anybody can be silent. So it is
        asked meanwhile for something of its own.
        """
        doubts: list[asyncio.Task[bool]] = []

        def doubt() -> None:
            doubts.append(asyncio.ensure_future(self._adapter.service_hangs(CALL_S - DOUBT_S)))

        later = asyncio.get_running_loop().call_later(DOUBT_S, doubt)
        try:
            async with asyncio.timeout(CALL_S):
                yield
        except TimeoutError:
            self._adapter.unanswered_call(what, bool(doubts) and await doubts[0])
            raise TimeoutError(f"{what} has no answer") from None
        except BleakError:
            if self._found:
                self._adapter.unanswered_call(what, hangs=False)
            raise
        finally:
            later.cancel()
            for task in doubts:
                task.cancel()
        if self._found:
            self._found = False
            self._adapter.passes()

    async def hang_up(self) -> None:
        """End the connection, whatever state it is in; never raises."""
        self._over = ended = True
        gone = not self.client.is_connected
        try:
            async with asyncio.timeout(GONE_S if gone else HANG_UP_S):
                await self.client.disconnect()
        except TimeoutError:
            ended = gone
        except (BleakError, OSError, EOFError) as problem:
            logger.debug("hanging up: %s", problem)
        finally:
            self._adapter.left(self, ended)
