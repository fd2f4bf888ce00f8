"""A bleak backend on a Bumble device, for a hub whose Bluetooth controller is in the simulated air.

bleak takes a backend class for its scanner and its client; these two make the hub's real code, written against
bleak alone, run where there is no radio. The controller sits behind a TCP port: one line with the device's name,
from then on HCI packets in H4 framing.

Traps of Bumble 0.0.236 that are met here: its accumulators of advertisements grow by one for every address ever
heard; a request that waits when the connection ends is *cancelled*, which must not look like the caller's own
cancellation; every packet is formatted for debug logs that nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from bleak.args import SizedBuffer
from bleak.assigned_numbers import CharacteristicPropertyName
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, AdvertisementDataCallback, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bumble import att, core, hci
from bumble.device import AdvertisingType, Connection, ConnectionParametersPreferences, Device, Peer
from bumble.gatt_client import CharacteristicProxy, Client
from bumble.host import Host
from bumble.keys import MemoryKeyStore
from bumble.transport.common import StreamPacketSink, StreamPacketSource

from hub.bumble_discovery import characteristics, descriptors, wanted_services

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROPERTIES: tuple[CharacteristicPropertyName, ...] = (
    "broadcast",
    "read",
    "write-without-response",
    "write",
    "notify",
    "indicate",
    "authenticated-signed-writes",
    "extended-properties",
)
MTU = 247  # 244 bytes of value fit one link-layer packet of 251
BROADCAST_MS = 100.0
INTERVAL_MS = 30.0  # what the badges' figures are given for
SUPERVISION_MS = 4000
OPEN_WAIT = 5.0  # s until the air must have answered
CANCEL_WAIT = 1.0  # s until a controller that was told to stop connecting must have said so
REMEMBERED = 256  # devices that a scanner lists; addresses rotate, so a full list is only a leak


class Radio:
    """A Bumble device on the air, and the two backend classes that are bound to it.

    `lost` is set when the air has gone away; every connection is reported as ended then, and a new Radio is needed.
    """

    def __init__(self, device: _Device, transport: asyncio.WriteTransport) -> None:
        self.device = device
        self.lost = asyncio.Event()
        self.clients: set[BumbleClient] = set()
        self.dialling = asyncio.Lock()  # a controller makes one connection at a time
        self._transport = transport
        self.scanner: type[BumbleScanner] = type("BumbleScanner", (BumbleScanner,), {"radio": self})
        self.client: type[BumbleClient] = type("BumbleClient", (BumbleClient,), {"radio": self})

    @classmethod
    async def open(cls, address: str, name: str) -> Radio:
        """Reach the air at "host:port" as the device `name`. Raises OSError or BleakError when it is not there."""
        quiet_formatting()
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_WAIT):
                transport, source = await loop.create_connection(_Source, host, int(port))
                transport.write(f"hci {name}\n".encode())
                device = _Device(
                    name=name,
                    address=hci.Address.generate_static_address(),
                    host=Host(source, StreamPacketSink(transport)),
                )
                device.keystore = MemoryKeyStore()
                radio = cls(device, transport)
                source.on_lost = radio._on_lost
                try:
                    await device.power_on()
                except (core.BaseBumbleError, hci.HCI_Error) as error:
                    transport.close()
                    raise BleakError(f"the controller does not answer: {error}") from error
                except BaseException:
                    transport.close()
                    raise
        except TimeoutError as error:
            raise BleakError(f"the air at {address} does not answer") from error
        return radio

    def _on_lost(self) -> None:
        self.lost.set()
        for client in list(self.clients):
            client.forget()

    async def broadcast(self, data: bytes) -> None:
        """Advertise up to 31 bytes without taking connections, every BROADCAST_MS; b"" ends it. Raises BleakError."""
        if not data:
            await _hci(self.device.stop_advertising())
            return
        await _hci(
            self.device.start_advertising(
                AdvertisingType.UNDIRECTED,
                advertising_data=data,
                advertising_interval_min=BROADCAST_MS,
                advertising_interval_max=BROADCAST_MS,
            )
        )

    async def close(self) -> None:
        """Leave the air."""
        self._transport.close()


class _Source(StreamPacketSource):
    on_lost: Callable[[], None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):  # a command that waited and was cancelled
            self.on_transport_lost()
        if self.on_lost:
            self.on_lost()


class _Device(Device):
    """A device that hands on each advertisement as it is heard, without remembering who sent it."""

    on_report: Callable[[Any], None] | None = None

    def on_advertising_report(self, report: Any) -> None:
        if self.on_report:
            self.on_report(report)


class BumbleScanner(BaseBleakScanner):
    """bleak's scanner on a Bumble device. Use `Radio.scanner`, which knows its radio."""

    radio: ClassVar[Radio]

    def __init__(
        self,
        detection_callback: AdvertisementDataCallback | None,
        service_uuids: list[str] | None,
        scanning_mode: str = "active",
        **kwargs: Any,
    ) -> None:
        super().__init__(detection_callback, service_uuids)

    async def start(self) -> None:
        """Listen; every advertisement is reported, also a repeated one."""
        self.seen_devices = {}
        self.radio.device.on_report = self._on_report
        # always passive: badges have no scan response, and an active scanner would wait for one
        await _hci(self.radio.device.start_scanning(legacy=True, active=False, filter_duplicates=False))

    async def stop(self) -> None:
        """Stop listening."""
        self.radio.device.on_report = None
        if not self.radio.lost.is_set():
            await _hci(self.radio.device.stop_scanning(legacy=True))

    def _on_report(self, report: Any) -> None:
        data = bytes(report.data)
        name, manufacturer, services = _parse(data)
        advertisement = AdvertisementData(name, manufacturer, {}, services, None, report.rssi, (report,))
        address = report.address.to_string(False)
        if len(self.seen_devices) >= REMEMBERED and address not in self.seen_devices:
            del self.seen_devices[next(iter(self.seen_devices))]
        device = self.create_or_update_device(address, address, name, report.address, advertisement)
        if self.is_allowed_uuid(services):
            self.call_detection_callbacks(device, advertisement)


class BumbleClient(BaseBleakClient):
    """bleak's client on a Bumble device. Use `Radio.client`, which knows its radio."""

    radio: ClassVar[Radio]

    def __init__(
        self,
        address_or_ble_device: BLEDevice | str,
        *,
        disconnected_callback: Callable[[], None] | None,
        timeout: float = 30.0,
        services: set[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(address_or_ble_device, disconnected_callback=disconnected_callback, timeout=timeout)
        self._wanted = services
        self._target: hci.Address | None = None
        if isinstance(address_or_ble_device, BLEDevice):
            self._target = address_or_ble_device.details
        self._connection: Connection | None = None
        self._peer: Peer | None = None
        self._subscriptions: dict[int, Callable[[bytes], None]] = {}

    @property
    def name(self) -> str:
        """The address: badges have no name on the air."""
        return self.address.replace(":", "-")

    @property
    def mtu_size(self) -> int:
        """ATT_MTU of the connection, 23 before it is negotiated."""
        return self._connection.att_mtu if self._connection else 23

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands."""
        return self._connection is not None

    async def connect(self, pair: bool, **kwargs: Any) -> None:
        """Connect within the timeout; then, within it once more, negotiate the MTU, discover the wanted services.

        Raises BleakDeviceNotFoundError when the device does not answer, BleakError for anything else.
        """
        if self._connection is not None:
            raise BleakError("already connected")
        if self._target is None:
            self._target = hci.Address(self.address, hci.AddressType.RANDOM_DEVICE)
        async with self.radio.dialling:
            connection = await self._establish(self._target)
        self._connection = connection
        self.radio.clients.add(self)
        connection.on(connection.EVENT_DISCONNECTION, lambda reason: self.forget())
        peer = self._peer = Peer(connection)
        try:
            async with asyncio.timeout(self._timeout):
                await self._attribute(peer.request_mtu(MTU))
                if pair:
                    await self.pair()
                self._connected()  # the other side may have ended it in this instant, without an error to anybody
                self.services = await self._attribute(self._discover(peer))
        except TimeoutError:
            await self.disconnect()
            raise BleakError("connected, but its services were not found in time") from None
        except BaseException:
            await self.disconnect()
            raise

    async def _establish(self, target: hci.Address) -> Connection:
        if self.radio.lost.is_set():
            raise BleakError("the air is gone")
        device = self.radio.device
        preferences = ConnectionParametersPreferences(
            connection_interval_min=INTERVAL_MS,
            connection_interval_max=INTERVAL_MS,
            max_latency=0,
            supervision_timeout=SUPERVISION_MS,
        )
        attempt = asyncio.ensure_future(
            device.connect(target, connection_parameters_preferences={hci.Phy.LE_1M: preferences}, timeout=None)
        )
        try:
            await asyncio.wait({attempt}, timeout=self._timeout)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(attempt))
            raise
        if not attempt.done():
            await asyncio.shield(self._give_up(attempt))
            raise self._unanswered()
        if attempt.cancelled():
            raise self._unanswered()
        if error := attempt.exception():
            if isinstance(error, core.ConnectionError):
                raise self._unanswered() from error
            raise BleakError(f"cannot connect: {error}") from error
        return attempt.result()

    def _unanswered(self) -> BleakError:
        if self.radio.lost.is_set():
            return BleakError("the air is gone")
        return BleakDeviceNotFoundError(self.address, f"{self.address} does not answer")

    async def _give_up(self, attempt: asyncio.Future[Connection]) -> None:
        """Tell the controller to stop trying; a connection or an error that came in the same instant is let go."""
        if not attempt.done():
            with contextlib.suppress(BleakError):
                await _hci(self.radio.device.send_command(hci.HCI_LE_Create_Connection_Cancel_Command()))
            await asyncio.wait({attempt}, timeout=CANCEL_WAIT)
            attempt.cancel()
            await asyncio.wait({attempt}, timeout=CANCEL_WAIT)
        if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
            with contextlib.suppress(BleakError):
                await _hci(attempt.result().disconnect())

    async def _discover(self, peer: Peer) -> BleakGATTServiceCollection:
        found = BleakGATTServiceCollection()
        gatt: Client = peer.gatt_client
        services = await wanted_services(gatt, self._wanted) if self._wanted else list(await peer.discover_services())
        for service in services:
            gatt_service = BleakGATTService(service, service.handle, _uuid(service.uuid))
            found.add_service(gatt_service)
            for characteristic in await characteristics(gatt, service):
                properties = [name for bit, name in enumerate(PROPERTIES) if characteristic.properties >> bit & 1]
                gatt_characteristic = BleakGATTCharacteristic(
                    characteristic,
                    characteristic.handle,
                    _uuid(characteristic.uuid),
                    properties,
                    lambda: self.mtu_size - 3,
                    gatt_service,
                )
                found.add_characteristic(gatt_characteristic)
                for descriptor in await descriptors(gatt, characteristic):
                    found.add_descriptor(
                        BleakGATTDescriptor(descriptor, descriptor.handle, _uuid(descriptor.type), gatt_characteristic)
                    )
        return found

    def forget(self) -> None:
        """The connection is gone."""
        if self._connection is None:
            return
        self._connection = self._peer = None
        self.services = None
        self._subscriptions.clear()
        self.radio.clients.discard(self)
        if self._disconnected_callback:
            self._disconnected_callback()

    async def disconnect(self) -> None:
        """End the connection; does nothing where there is none."""
        connection = self._connection
        if connection is not None and not self.radio.lost.is_set():
            with contextlib.suppress(BleakError, TimeoutError):
                async with asyncio.timeout(SUPERVISION_MS / 1000 + 1):
                    await _hci(connection.disconnect())
        self.forget()

    async def pair(self, *args: Any, **kwargs: Any) -> None:
        """Pair (LE Secure Connections), or encrypt with the bond that exists."""
        connection = self._connected()
        if await self.radio.device.keystore.get(str(connection.peer_address)):  # type: ignore[union-attr]
            await self._attribute(connection.encrypt())
        else:
            await self._attribute(connection.pair())

    async def unpair(self) -> None:
        """Forget the bond and disconnect."""
        await self.disconnect()
        store = self.radio.device.keystore
        if store is not None and self._target is not None:
            with contextlib.suppress(KeyError):
                await store.delete(str(self._target))

    async def read_gatt_char(
        self, characteristic: BleakGATTCharacteristic, *, use_cached: bool = False, **kwargs: Any
    ) -> bytearray:
        """Read a value. Raises BleakGATTProtocolError for an error of the peer."""
        return bytearray(await self._attribute(self._gatt().read_value(characteristic.obj)))

    async def read_gatt_descriptor(
        self, descriptor: BleakGATTDescriptor, *, use_cached: bool = False, **kwargs: Any
    ) -> bytearray:
        """Read a descriptor. Raises BleakGATTProtocolError for an error of the peer."""
        return bytearray(await self._attribute(self._gatt().read_value(descriptor.obj)))

    async def write_gatt_char(self, characteristic: BleakGATTCharacteristic, data: SizedBuffer, response: bool) -> None:
        """Write a value, at most MTU - 3 bytes without response."""
        await self._attribute(self._gatt().write_value(characteristic.obj, bytes(data), with_response=response))

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: SizedBuffer) -> None:
        """Write a descriptor."""
        await self._attribute(self._gatt().write_value(descriptor.obj, bytes(data), with_response=True))

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **kwargs: Any
    ) -> None:
        """Subscribe to notifications, or to indications where there are none."""

        def notified(value: bytes) -> None:
            callback(bytearray(value))

        proxy: CharacteristicProxy[bytes] = characteristic.obj
        self._subscriptions[characteristic.handle] = notified
        await self._attribute(self._gatt().subscribe(proxy, notified, prefer_notify=True))

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        """End a subscription."""
        notified = self._subscriptions.pop(characteristic.handle, None)
        await self._attribute(self._gatt().unsubscribe(characteristic.obj, notified))

    def _connected(self) -> Connection:
        if self._connection is None:
            raise BleakError("Not connected")
        return self._connection

    def _gatt(self) -> Any:
        if self._peer is None:
            raise BleakError("Not connected")
        return self._peer.gatt_client

    async def _attribute(self, call: Coroutine[Any, Any, T]) -> T:
        """Await an attribute operation; what ends it becomes bleak's exceptions."""
        try:
            return await call
        except att.ATT_Error as error:
            raise BleakGATTProtocolError(error.error_code) from error
        except (core.BaseBumbleError, hci.HCI_Error) as error:
            raise BleakError(str(error) or type(error).__name__) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._connection is None and task is not None and not task.cancelling():
                raise BleakError("disconnected") from None
            raise


async def _hci(call: Coroutine[Any, Any, T]) -> T:
    """Await a command to the controller; what ends it becomes BleakError."""
    try:
        return await call
    except (core.BaseBumbleError, hci.HCI_Error) as error:
        raise BleakError(str(error) or type(error).__name__) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise BleakError("the air is gone") from None
        raise


def _uuid(value: core.UUID) -> str:
    return str(uuid.UUID(bytes=bytes(value.to_bytes(force_128=True))[::-1]))


def _parse(data: bytes) -> tuple[str | None, dict[int, bytes], list[str]]:
    """Name, manufacturer data and 128-bit services of an advertisement; whatever is malformed is left out.

    Bumble's own parser makes objects for every field, which at a thousand strangers a second is most of the work.
    """
    name: str | None = None
    manufacturer: dict[int, bytes] = {}
    services: list[str] = []
    at = 0
    while at + 1 < len(data):
        length = data[at]
        if length == 0 or at + 1 + length > len(data):
            break
        kind, value = data[at + 1], data[at + 2 : at + 1 + length]
        at += 1 + length
        if kind == 0xFF and len(value) >= 2:
            manufacturer[value[0] | value[1] << 8] = value[2:]
        elif kind in (0x08, 0x09):
            name = value.decode(errors="replace")
        elif kind in (0x06, 0x07):
            for start in range(0, len(value) - 15, 16):
                services.append(str(uuid.UUID(bytes=value[start : start + 16][::-1])))
    return name, manufacturer, services


_quiet = False


def quiet_formatting() -> None:
    """Stop Bumble from formatting every packet for a debug log that is off (five times the throughput)."""
    global _quiet
    if _quiet or logging.getLogger("bumble").isEnabledFor(logging.DEBUG):
        return
    _quiet = True

    def everything(base: type) -> list[type]:
        below: list[type] = base.__subclasses__()
        return [base, *(kind for sub in below for kind in everything(sub))]

    for kind in everything(hci.HCI_Packet) + everything(att.ATT_PDU):
        if "__str__" in vars(kind):
            kind.__str__ = object.__repr__  # type: ignore[method-assign,assignment]
