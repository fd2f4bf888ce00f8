"""An air with Bumble hosts on it, in one process and on a clock that jumps: four seconds pass at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from bumble import hci
from bumble.core import UUID
from bumble.device import Connection, Device, Peer
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.host import Host
from bumble.keys import MemoryKeyStore
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport.common import AsyncPipeSink

from firmware.emulator.air.controller import AirController
from firmware.emulator.air.faults import Fault
from firmware.emulator.air.link import Air

SERVICE = UUID("7a0c0001-5e2f-4b0e-9a54-c1d0b7e6f100")
RX = UUID("7a0c0002-5e2f-4b0e-9a54-c1d0b7e6f100")
TX = UUID("7a0c0003-5e2f-4b0e-9a54-c1d0b7e6f100")
BADGE, HUB = "F0:F1:F2:F3:F4:F5", "C0:00:00:00:00:01"


class _Jump(selectors.DefaultSelector):
    """Instead of waiting it moves the loop's clock to when something is due."""

    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout:
            self.loop.now += timeout
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only where everybody waits."""

    def __init__(self) -> None:
        selector = _Jump()
        selector.loop = self
        self.now = 1000.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function on a jumping clock."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(story())


class Passkey(PairingDelegate):
    """Shows or types the same passkey."""

    async def generate_passkey(self) -> int:
        return 123456

    async def get_number(self) -> int:
        return 123456


class Party:
    """A host and its controller."""

    def __init__(self, air: Air, name: str, address: str) -> None:
        self.controller: AirController = air.join(name)
        self.name = name
        self.device = Device(
            name=name,
            address=hci.Address(address),
            host=Host(self.controller, AsyncPipeSink(self.controller)),
        )
        self.device.keystore = MemoryKeyStore()
        self.io = PairingDelegate.NO_OUTPUT_NO_INPUT
        self.device.pairing_config_factory = lambda _connection: PairingConfig(
            sc=True,
            mitm=True,
            bonding=True,
            delegate=Passkey(self.io),
            identity_address_type=PairingConfig.AddressType.RANDOM,
        )
        self.connections: list[Connection] = []
        self.ended: list[tuple[float, int]] = []
        self.heard: list[tuple[float, str, bytes]] = []
        self.device.on("connection", self._connected)
        self.device.on("advertisement", self._advertisement)

    def _connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        connection.on("disconnection", lambda reason: self.ended.append((now(), reason)))

    def _advertisement(self, advertisement: Any) -> None:
        self.heard.append((now(), str(advertisement.address), bytes(advertisement.data_bytes)))

    async def listen(self) -> None:
        """Scan all the time."""
        await self.device.start_scanning(legacy=True, active=False, filter_duplicates=False)


class Badge(Party):
    """A peripheral with our two characteristics."""

    def __init__(self, air: Air, name: str = "badge:a", address: str = BADGE) -> None:
        super().__init__(air, name, address)
        self.received: list[bytes] = []
        p = Characteristic.Properties
        rx: Characteristic[bytes] = Characteristic(
            RX,
            p.WRITE | p.WRITE_WITHOUT_RESPONSE,
            Characteristic.WRITEABLE,
            CharacteristicValue(write=lambda _connection, value: self.received.append(bytes(value))),
        )
        self.tx: Characteristic[bytes] = Characteristic(TX, p.NOTIFY, Characteristic.READABLE, b"")
        self.device.add_service(Service(SERVICE, [rx, self.tx]))

    async def advertise(self, payload: bytes = bytes(31)) -> None:
        """Connectable, every 100 ms."""
        await self.device.start_advertising(
            advertising_data=payload, advertising_interval_min=100, advertising_interval_max=100
        )

    async def new_address(self) -> str:
        """Change the random address; not while advertising."""
        address = hci.Address.generate_static_address()
        await self.device.host.send_sync_command(hci.HCI_LE_Set_Random_Address_Command(random_address=address))
        self.device.random_address = address
        return str(address)

    async def notify(self, value: bytes) -> None:
        """To everybody who subscribed."""
        await self.device.notify_subscribers(self.tx, value)


class Linked:
    """A hub's end of a connection, discovered and subscribed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.peer = Peer(connection)
        self.notified: list[bytes] = []
        self.rx: Any = None

    async def discover(self) -> None:
        """MTU, services, subscription."""
        await self.peer.request_mtu(247)
        await self.peer.discover_services()
        await self.peer.discover_characteristics()
        self.rx = self.peer.get_characteristics_by_uuid(RX)[0]
        tx = self.peer.get_characteristics_by_uuid(TX)[0]
        await self.peer.subscribe(tx, lambda value: self.notified.append(bytes(value)))

    async def write(self, value: bytes, *, answered: bool = False) -> None:
        """To the badge's RX."""
        await self.rx.write_value(value, with_response=answered)


class World:
    """One badge, one hub, and whoever else is invited."""

    def __init__(self, seed: int = 1) -> None:
        self.air = Air(seed)
        self.badge = Badge(self.air)
        self.hub = Party(self.air, "hub:h", HUB)

    async def begin(self) -> None:
        """Both are on, the badge advertises, the hub scans."""
        for party in (self.badge, self.hub):
            await party.device.power_on()
        await self.badge.advertise()
        await self.hub.listen()

    async def connect(self) -> Linked:
        """The hub connects and subscribes."""
        linked = Linked(await self.hub.device.connect(self.badge.device.random_address))
        await linked.discover()
        return linked

    def fault(self, number: int = 1, a: str = "badge:a", b: str = "hub:h", **what: Any) -> None:
        """A fault between badge and hub begins."""
        self.air.faults.set(number, Fault.parse({"a": a, "b": b, **what}))
        self.air.changed()

    def clear(self, number: int = 1) -> None:
        """A fault ends."""
        self.air.faults.clear(number)
        self.air.changed()


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something to become true."""
    end = now() + seconds
    while not true():
        assert now() < end, "it did not happen"
        await asyncio.sleep(0.005)


async def fails(work: Awaitable[Any]) -> Exception:
    """The exception that something ends with."""
    try:
        await work
    except Exception as problem:
        return problem
    raise AssertionError("it did not fail")
