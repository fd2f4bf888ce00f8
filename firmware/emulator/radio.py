"""The badge's radio: a Bumble peripheral on the air, driven by the `bluetooth` shim over the child link.

It stands for NimBLE and the controller of an ESP32. Where Bumble knows more than the real port tells its
application (subscriptions, for one) the shim is not told.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import struct
from collections import deque
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any

from bumble import att, hci
from bumble.core import UUID
from bumble.device import AdvertisingType, Connection, Device, DeviceConfiguration
from bumble.gatt import Characteristic, CharacteristicValue, Descriptor, Service
from bumble.host import Host
from bumble.transport.common import Transport

from firmware.emulator.air.client import open_hci
from firmware.emulator.childlink import ChildLink
from firmware.emulator.events import Bus
from firmware.emulator.pairing import Bonds, Pairing

logger = logging.getLogger("radio")

CONNECT, DISCONNECT, SCAN_RESULT, SCAN_DONE, INDICATE_DONE, MTU_EXCHANGED = 1, 2, 5, 6, 20, 21
CONNECTION_UPDATE, ENCRYPTION_UPDATE = 27, 28
PUBLIC, RANDOM, RESOLVABLE, NON_RESOLVABLE = range(4)  # addr_mode
DEFAULT_MTU = 256
ANSWER_S = 1.0  # how long a peer's read waits for the application
JOB_S = 5.0  # a controller answers within milliseconds, or not at all


@dataclass(frozen=True)
class _Job:
    """Work that takes its time. If it is `answered` the badge waits for what it returns; b"" tells it of a failure."""

    work: Coroutine[Any, Any, bytes | None]
    answered: bool


class Radio:
    """One badge's radio. `name` is what it is called on the air."""

    def __init__(self, air: tuple[str, int], name: str, link: ChildLink, bus: Bus) -> None:
        self._air = air
        self._name = name
        self._link = link
        self._bus = bus
        self._transport: Transport | None = None
        self.device: Device | None = None
        self._mtu = DEFAULT_MTU
        self._gap_name = b"MPY ESP32"
        self._address_mode = PUBLIC
        self._random: hci.Address | None = None
        self._pool: deque[int] = deque()  # of each notification in flight: the queue's count when it is through
        self._values: dict[int, bytes] = {}
        self._characteristics: dict[int, Any] = {}
        self._answers: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._token = 0
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._job: asyncio.Task[bytes | None] | None = None
        self._scan_end: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self.pairing = Pairing(link)
        link.handlers.update(
            {
                "A": lambda body: self._later(self._on_active(body), answered=True),
                "C": lambda body: self._later(self._on_config(body), answered=body[:1] == b"a"),
                "V": lambda body: self._later(self._on_advertise(body)),
                "Q": lambda body: self._later(self._on_scan(body)),
                "S": lambda body: self._later(self._on_services(body), answered=True),
                "N": self._on_notify,
                "I": self._on_indicate,
                "D": self._on_disconnect,
                "P": self._on_pair,
                "K": self.pairing.on_passkey,
                "W": self._on_value,
                "R": self._on_answer,
                "Z": lambda _body: self._later(self.off()),
            }
        )

    # ------------------------------------------------------------------ on and off

    def start(self) -> None:
        """Begin to serve the child."""
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Leave the air for good."""
        if self._worker:
            self._worker.cancel()
        await self.off()

    def _later(self, work: Coroutine[Any, Any, bytes | None], *, answered: bool = False) -> None:
        self._jobs.put_nowait(_Job(work, answered))

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            self._job = asyncio.create_task(self._timed(job.work))
            await asyncio.wait((self._job,))
            answer = None
            if self._job.cancelled():
                pass
            elif problem := self._job.exception():
                # one failed command must not end the radio
                text = f"{type(problem).__name__}: {problem}"
                logger.warning("%s", text)
                self._bus.emit("log", text=f"radio: {text}")
            else:
                answer = self._job.result()
            if job.answered:
                self._link.send("r", answer or b"")

    async def _timed(self, work: Coroutine[Any, Any, bytes | None]) -> bytes | None:
        async with asyncio.timeout(JOB_S):
            return await work

    async def off(self) -> None:
        """The radio loses power: peers notice by their supervision timeout."""
        if self._job is not asyncio.current_task():
            # The board was reset: nobody waits for an answer. What follows a job is the badge's, and is done in turn.
            while not self._jobs.empty():
                self._jobs.get_nowait().work.close()
            if self._job and not self._job.done():
                self._job.cancel()
                await asyncio.wait((self._job,))
        device, self.device = self.device, None
        transport, self._transport = self._transport, None
        if self._scan_end:
            self._scan_end.cancel()
            self._scan_end = None
        self._pool.clear()
        self._values.clear()
        self._characteristics.clear()
        for answer in self._answers.values():
            answer.cancel()
        self._answers.clear()
        if device or transport:
            self._bus.emit("radio", on=False, advertising=False, connections=0)
        if transport:
            await transport.close()

    async def _on_active(self, body: bytes) -> bytes:
        await self.off()
        if not body[0]:
            return bytes(6)
        try:
            transport = await open_hci(*self._air, self._name)
        except OSError as problem:
            self._bus.emit("log", text=f"the air cannot be reached: {problem}")
            return bytes(6)
        self._transport = transport
        transport.source.terminated.add_done_callback(lambda _done: self._air_gone(transport))
        host = Host(transport.source, transport.sink)
        self._random = hci.Address.generate_static_address()
        config = DeviceConfiguration(
            name=self._gap_name.decode(errors="replace"), address=self._random, gap_service_enabled=True
        )
        device = Device(config=config, host=host)
        device.keystore = Bonds(self._ask, self.pairing.keep)
        device.pairing_config_factory = self.pairing.config
        device.gatt_server.max_mtu = self._mtu
        device.on("connection", self._on_connection)
        host.on("advertising_report", self._on_report)
        await device.power_on()
        self.device = device
        queue = host.le_acl_packet_queue
        if queue:
            queue.on("flow", self._on_flow)
        self._bus.emit("radio", on=True, advertising=False, connections=0)
        return self._mac()

    def _air_gone(self, transport: Transport) -> None:
        if self._transport is transport:
            self._bus.emit("log", text="the air has gone")
            self._later(self.off())

    def _mac(self) -> bytes:
        """The address in use, as the application writes it: most significant byte first."""
        if self.device is None:
            return bytes(6)
        public = self._address_mode == PUBLIC
        address = self.device.public_address if public else self.device.random_address
        return bytes(address)[::-1]

    async def _on_config(self, body: bytes) -> bytes | None:
        key, value = body[:1], body[1:]
        if key == b"n":
            self._gap_name = value
        elif key == b"m":
            self._mtu = int.from_bytes(value, "big")
            if self.device:
                self.device.gatt_server.max_mtu = self._mtu
        elif key == b"a":
            self._address_mode = value[0]
            if self.device and self._address_mode != PUBLIC:
                await self._new_address(self.device)
            return self._mac()
        else:
            self.pairing.configure(key, value[0])
        return None

    async def _new_address(self, device: Device) -> None:
        if self._address_mode == RANDOM:
            address = hci.Address.generate_static_address()
        elif self._address_mode == RESOLVABLE:
            address = hci.Address.generate_private_address(device.irk)
        else:
            raw = bytearray(secrets.token_bytes(6))
            raw[5] &= 0x3F
            address = hci.Address(bytes(raw), hci.Address.RANDOM_DEVICE_ADDRESS)
        await device.host.send_sync_command(hci.HCI_LE_Set_Random_Address_Command(random_address=address))
        device.random_address = address

    async def _on_advertise(self, body: bytes) -> None:
        device = self.device
        if device is None:
            return
        (interval_us,) = struct.unpack_from(">I", body)
        if not interval_us:
            await device.stop_advertising()
            return
        connectable, size = body[4], body[5]
        kind = AdvertisingType.UNDIRECTED_CONNECTABLE_SCANNABLE if connectable else AdvertisingType.UNDIRECTED
        own = hci.OwnAddressType.PUBLIC if self._address_mode == PUBLIC else hci.OwnAddressType.RANDOM
        await device.start_advertising(
            advertising_type=kind,
            own_address_type=own,
            advertising_data=body[6 : 6 + size],
            scan_response_data=body[6 + size :],
            advertising_interval_min=interval_us / 1000,
            advertising_interval_max=interval_us / 1000,
        )
        self._bus.emit("advertise", interval_ms=interval_us / 1000, connectable=bool(connectable), size=size)

    async def _on_scan(self, body: bytes) -> None:
        device = self.device
        if device is None:
            return
        if self._scan_end:
            self._scan_end.cancel()
            self._scan_end = None
        if device.is_scanning:
            await device.stop_scanning(legacy=True)
        if not body[0]:
            self._event(SCAN_DONE, b"")
            return
        _, duration_ms, interval_us, window_us, active = struct.unpack(">BIIIB", body)
        await device.start_scanning(
            legacy=True,
            active=bool(active),
            scan_interval=interval_us // 1000,
            scan_window=window_us // 1000,
            filter_duplicates=False,
        )
        if duration_ms:
            loop = asyncio.get_running_loop()
            self._scan_end = loop.call_later(duration_ms / 1000, lambda: self._later(self._on_scan(b"\0")))

    def _on_report(self, report: hci.HCI_LE_Advertising_Report_Event.Report) -> None:
        kind = 1 if report.address.is_random else 0
        body = struct.pack(">BBb", kind, report.event_type, report.rssi) + bytes(report.address)[::-1]
        self._event(SCAN_RESULT, body + report.data)

    # ------------------------------------------------------------------ connections

    def _event(self, number: int, body: bytes) -> None:
        self._link.send("e", bytes((number,)) + body)

    def _tell(self, connection: Connection, number: int) -> None:
        peer = connection.peer_address
        kind = 1 if peer.is_random else 0
        self._event(number, struct.pack(">HB", connection.handle, kind) + bytes(peer)[::-1])

    def _state(self) -> None:
        device = self.device
        if device:
            self._bus.emit("radio", on=True, connections=len(device.connections))

    def _on_connection(self, connection: Connection) -> None:
        def gone(_reason: int) -> None:
            asyncio.get_running_loop().call_soon(self._on_flow)  # its packets are flushed after this event
            self._tell(connection, DISCONNECT)
            self._state()

        def mtu() -> None:
            self._event(MTU_EXCHANGED, struct.pack(">HH", connection.handle, connection.att_mtu))

        def encryption() -> None:
            flags = (connection.is_encrypted, connection.authenticated, self.pairing.bonded(connection), 16)
            self._event(ENCRYPTION_UPDATE, struct.pack(">HBBBB", connection.handle, *flags))

        def parameters() -> None:
            p = connection.parameters
            units = (round(p.connection_interval / 1.25), p.peripheral_latency, round(p.supervision_timeout / 10))
            self._event(CONNECTION_UPDATE, struct.pack(">HHHHH", connection.handle, *units, 0))

        connection.on("disconnection", gone)
        connection.on("connection_att_mtu_update", mtu)
        connection.on("connection_encryption_change", encryption)
        connection.on("connection_encryption_key_refresh", encryption)
        connection.on("connection_parameters_update", parameters)
        self._tell(connection, CONNECT)
        self._state()

    def _connection(self, body: bytes) -> Connection | None:
        handle = int.from_bytes(body[:2], "big")
        return self.device.connections.get(handle) if self.device else None

    def _on_disconnect(self, body: bytes) -> None:
        if connection := self._connection(body):
            self._background(connection.disconnect())

    def _on_pair(self, body: bytes) -> None:
        if connection := self._connection(body):
            connection.request_pairing()

    def _background(self, work: Awaitable[Any]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception as problem:  # the peer has gone meanwhile
                logger.debug("radio: %s", problem)

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------ GATT

    async def _on_services(self, body: bytes) -> bytes:
        device = self.device
        handles: list[int] = []
        if device is None:
            return b""
        reader = _Reader(body)
        services = []
        order: list[Any] = []
        for _ in range(reader.byte()):
            uuid = reader.uuid()
            characteristics = []
            for _ in range(reader.byte()):
                c_uuid, flags = reader.uuid(), reader.short()
                descriptors = []
                for _ in range(reader.byte()):
                    d = Descriptor(reader.uuid(), _permissions(reader.short()))
                    d.value = self._served(d)
                    descriptors.append(d)
                c: Characteristic[bytes] = Characteristic(
                    c_uuid, Characteristic.Properties(flags & 0xFF), _permissions(flags), None, descriptors
                )
                c.value = self._served(c)
                characteristics.append(c)
                order += [c, *descriptors]
            services.append(Service(uuid, characteristics))
        device.gatt_server.add_services(services)
        for attribute in order:
            handles.append(attribute.handle)
            self._values[attribute.handle] = b""
            self._characteristics[attribute.handle] = attribute
        return struct.pack(f">{len(handles)}H", *handles)

    def _served(self, attribute: Any) -> CharacteristicValue[bytes]:
        async def read(connection: Connection) -> bytes:
            status, value = await self._ask("q", struct.pack(">HH", connection.handle, attribute.handle))
            if status:
                raise att.ATT_Error(att.ErrorCode(status), attribute.handle)
            return value

        def write(connection: Connection, value: bytes) -> None:
            self._values[attribute.handle] = value
            self._link.send("w", struct.pack(">HH", connection.handle, attribute.handle) + value)

        return CharacteristicValue(read=read, write=write)

    async def _ask(self, kind: str, body: bytes) -> tuple[int, bytes]:
        """Ask the application and wait for its answer: a status and bytes."""
        self._token = self._token + 1 & 0xFFFF
        token = self._token
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._answers[token] = future
        self._link.send(kind, struct.pack(">H", token) + body)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError:
            return (att.ErrorCode.UNLIKELY_ERROR, b"")
        finally:
            self._answers.pop(token, None)

    def _on_answer(self, body: bytes) -> None:
        future = self._answers.get(int.from_bytes(body[:2], "big"))
        if future and not future.done():
            future.set_result((body[2], body[3:]))

    def _on_value(self, body: bytes) -> None:
        self._values[int.from_bytes(body[:2], "big")] = body[2:]

    def _on_notify(self, body: bytes) -> None:
        # Sent whether or not the peer has subscribed: the real port cannot know either.
        connection, queue = self._connection(body), self._queue()
        if connection is None or queue is None:
            self._link.send("n", b"\x01")
            return
        connection.send_l2cap_pdu(att.ATT_CID, b"\x1b" + body[3:1:-1] + body[4:])
        self._pool.append(queue.queued)

    def _on_indicate(self, body: bytes) -> None:
        connection, queue = self._connection(body), self._queue()
        handle = int.from_bytes(body[2:4], "big")
        attribute = self._characteristics.get(handle)
        if connection is None or queue is None or attribute is None or self.device is None:
            self._link.send("n", b"\x01")
            return
        server = self.device.gatt_server

        async def indicate() -> None:
            status = 0
            try:
                await server.indicate_subscriber(connection, attribute, body[4:], force=True)
            except TimeoutError:
                status = 13  # BLE_HS_ETIMEOUT
            self._link.send("n", b"\x01")
            self._event(INDICATE_DONE, struct.pack(">HHB", connection.handle, handle, status))

        self._background(indicate())

    def _queue(self) -> Any:
        return self.device.host.le_acl_packet_queue if self.device else None

    def _on_flow(self) -> None:
        queue = self._queue()
        free = 0
        while queue and self._pool and self._pool[0] <= queue.completed:
            self._pool.popleft()
            free += 1
        if free:
            self._link.send("n", bytes((free,)))


class _Reader:
    """Reads what the shim wrote of the services to register."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def short(self) -> int:
        return self.byte() << 8 | self.byte()

    def uuid(self) -> UUID:
        size = self.byte()
        self._at += size
        return UUID.from_bytes(self._data[self._at - size : self._at])


def _permissions(flags: int) -> att.Attribute.Permissions:
    """Permissions of a characteristic from the flags of gatts_register_services."""
    p = att.Attribute.Permissions
    table = {
        0x0002: p.READABLE,
        0x0004: p.WRITEABLE,
        0x0008: p.WRITEABLE,
        0x0200: p.READ_REQUIRES_ENCRYPTION,
        0x0400: p.READ_REQUIRES_AUTHENTICATION,
        0x1000: p.WRITE_REQUIRES_ENCRYPTION,
        0x2000: p.WRITE_REQUIRES_AUTHENTICATION,
    }
    permissions = p(0)
    for flag, permission in table.items():
        if flags & flag:
            permissions |= permission
    return permissions
