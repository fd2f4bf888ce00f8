"""bleak on the simulated air: the hub's real code against a Bumble peripheral through the air's own process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bumble import core, hci
from bumble.device import Device, Peer
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.host import Host
from neighbours import GUARD_S, free_port, until

from firmware.emulator.air.client import open_hci
from hub.bumble_backend import Radio
from hub.radio import Radio as HubRadio
from protocol import beacon, link

OTHER = "7a0c00ff-5e2f-4b0e-9a54-c1d0b7e6f100"
SECRET = "7a0c00fe-5e2f-4b0e-9a54-c1d0b7e6f100"
ADVERTISEMENT = beacon.advertisement(bytes(range(24)))


@contextlib.asynccontextmanager
async def air_process(port: int = 0) -> AsyncIterator[int]:
    """tocsin-air; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "firmware.emulator.air.cli", "run", "--port", str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["port"]
    finally:
        process.kill()
        await process.wait()


class Peripheral:
    """A device with the badge's service and one more characteristic that can be read."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        rx: Characteristic[bytes] = Characteristic(
            link.RX,
            Characteristic.Properties.WRITE | Characteristic.Properties.WRITE_WITHOUT_RESPONSE,
            Characteristic.WRITEABLE,
            CharacteristicValue[bytes](write=lambda _connection, value: self.written.append(bytes(value))),
        )
        self.tx = Characteristic(link.TX, Characteristic.Properties.NOTIFY, Characteristic.Permissions(0), b"")
        other = Characteristic(OTHER, Characteristic.Properties.READ, Characteristic.READABLE, b"readable")
        secret = Characteristic(
            SECRET,
            Characteristic.Properties.READ,
            Characteristic.READABLE | Characteristic.READ_REQUIRES_AUTHENTICATION,
            b"secret",
        )
        self.service = Service(link.SERVICE, [rx, other, secret, self.tx])
        self.device: Any = None

    async def join(self, port: int) -> Peripheral:
        transport = await open_hci("127.0.0.1", port, "badge:p")
        self.device = Device(
            name="p", address=hci.Address.generate_static_address(), host=Host(transport.source, transport.sink)
        )
        self.device.add_service(self.service)
        await self.device.power_on()
        await self.advertise()
        return self

    async def advertise(self) -> None:
        await self.device.start_advertising(
            auto_restart=True, advertising_data=ADVERTISEMENT, advertising_interval_min=50, advertising_interval_max=50
        )


async def find(radio: Radio) -> tuple[BLEDevice, AdvertisementData]:
    heard: asyncio.Queue[tuple[BLEDevice, AdvertisementData]] = asyncio.Queue()
    async with BleakScanner(lambda device, data: heard.put_nowait((device, data)), backend=radio.scanner):
        async with asyncio.timeout(GUARD_S):
            return await heard.get()


def client(radio: Radio, device: BLEDevice | str, gone: list[str] | None = None, **options: Any) -> BleakClient:
    return BleakClient(
        device,
        lambda _client: gone.append("gone") if gone is not None else None,
        backend=radio.client,
        **{"timeout": 20.0, **options},
    )


def test_it_is_bleak_scan_connect_read_write_notify_disconnect() -> None:
    async def story() -> None:
        async with air_process() as port:
            peripheral = await Peripheral().join(port)
            radio = await Radio.open(f"127.0.0.1:{port}", "hub:test")
            device, heard = await find(radio)
            assert heard.manufacturer_data == {beacon.COMPANY: bytes(range(24))}
            assert -100 < heard.rssi < 0
            for options in ({"services": [link.SERVICE]}, {}):
                gone: list[str] = []
                c = client(radio, device, gone, **options)
                started = time.monotonic()
                await c.connect()
                assert time.monotonic() - started < 6, "at once, but for a machine that stalls"
                assert c.mtu_size == 247
                with pytest.raises(BleakError, match="already connected"):
                    await c.connect()
                values: list[bytes] = []
                await c.start_notify(link.TX, lambda _, value, to=values: to.append(bytes(value)))  # type: ignore[misc]
                await c.write_gatt_char(link.RX, b"x" * 244, response=False)
                await c.write_gatt_char(link.RX, b"answered", response=True)
                assert peripheral.written[-2:] == [b"x" * 244, b"answered"]
                for number in range(20):
                    await peripheral.device.notify_subscribers(peripheral.tx, bytes([number]) * 244)
                await until(lambda to=values: len(to) == 20)  # type: ignore[misc]
                assert [value[0] for value in values] == list(range(20))
                assert await c.read_gatt_char(OTHER) == b"readable"
                with pytest.raises(BleakGATTProtocolError):
                    await c.read_gatt_char(SECRET)
                await c.stop_notify(link.TX)
                await c.disconnect()
                assert not c.is_connected
                assert gone == ["gone"]
                with pytest.raises(BleakError):
                    await c.write_gatt_char(link.RX, b"too late", response=False)
            await radio.close()

    asyncio.run(story())


def test_what_goes_wrong_is_bleaks_exceptions_and_leaves_a_working_radio() -> None:
    async def story() -> None:
        async with air_process() as port:
            peripheral = await Peripheral().join(port)
            radio = await Radio.open(f"127.0.0.1:{port}", "hub:test")
            device, _ = await find(radio)
            with pytest.raises(BleakDeviceNotFoundError):
                await client(radio, "F0:00:00:00:00:01", timeout=0.3).connect()
            attempt = asyncio.create_task(client(radio, "F0:00:00:00:00:01").connect())
            await asyncio.sleep(0.1)
            attempt.cancel()
            await asyncio.wait({attempt})
            assert attempt.cancelled()
            # one waits for the controller while another is answered
            slow = asyncio.create_task(client(radio, "F0:00:00:00:00:01", timeout=0.5).connect())
            gone: list[str] = []
            c = client(radio, device, gone)
            await c.connect()
            with pytest.raises(BleakDeviceNotFoundError):
                await slow
            # the other side hangs up while a request waits: that is an error, not our cancellation
            reading = asyncio.create_task(c.read_gatt_char(OTHER))
            await asyncio.sleep(0)
            await next(iter(peripheral.device.connections.values())).disconnect()
            await asyncio.wait({reading})
            assert not reading.cancelled()
            assert isinstance(reading.exception(), BleakError) or reading.result() == b"readable"
            await until(lambda: gone == ["gone"])
            await c.connect()
            await radio.close()
            await until(lambda: radio.lost.is_set() and gone == ["gone", "gone"])
            with pytest.raises(BleakError, match="the air is gone"):
                await c.connect()

    asyncio.run(story())


def test_who_stops_connecting_in_the_instant_of_the_answer_leaves_neither_connection_nor_complaint() -> None:
    complaints: list[str] = []

    async def attempt(radio: Radio, device: BLEDevice | str, event: str, instead: Any = None) -> asyncio.Task[Any]:
        """Connect, and stop as soon as the controller has said how it went."""
        connecting = asyncio.create_task(client(radio, device).connect())

        def stop(*_: Any) -> None:
            asyncio.get_running_loop().call_soon(connecting.cancel)

        radio.device.once(event, stop)
        if instead is not None:
            await asyncio.sleep(0.05)
            radio.device.emit(event, instead)
        await asyncio.wait({connecting}, timeout=GUARD_S)
        return connecting

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        async with air_process() as port:
            peripheral = await Peripheral().join(port)
            radio = await Radio.open(f"127.0.0.1:{port}", "hub:test")
            device, _ = await find(radio)
            connected = await attempt(radio, device, Device.EVENT_CONNECTION)
            assert connected.cancelled()
            await until(lambda: not peripheral.device.connections and not radio.device.connections)
            failure = core.ConnectionError(  # type: ignore[no-untyped-call]
                hci.HCI_CONNECTION_FAILED_TO_BE_ESTABLISHED_ERROR,
                transport=core.PhysicalTransport.LE,
                peer_address=hci.Address("F0:00:00:00:00:01"),
            )
            refused = await attempt(radio, "F0:00:00:00:00:01", Device.EVENT_CONNECTION_FAILURE, failure)
            assert refused.cancelled()
            del connected, refused, failure
            gc.collect()
            await radio.close()

    asyncio.run(story())
    assert complaints == []


def test_who_hangs_up_in_the_instant_of_their_answer_is_an_error_of_bluetooth(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Peer.request_mtu

    async def story() -> None:
        async with air_process() as port:
            peripheral = await Peripheral().join(port)
            radio = await Radio.open(f"127.0.0.1:{port}", "hub:test")
            device, _ = await find(radio)

            async def and_gone(peer: Peer, mtu: int) -> int:
                size: int = await answered(peer, mtu)
                await next(iter(peripheral.device.connections.values())).disconnect()
                await until(lambda: not radio.device.connections)
                return size

            monkeypatch.setattr(Peer, "request_mtu", and_gone)
            with pytest.raises(BleakError, match="Not connected"):
                await client(radio, device).connect()
            await radio.close()

    asyncio.run(story())


def test_an_air_that_is_not_there_is_an_error_and_not_a_hang() -> None:
    async def story() -> None:
        with pytest.raises(OSError, match="Connect"):
            await Radio.open(f"127.0.0.1:{free_port()}", "hub:test")
        mute = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        with pytest.raises(BleakError):
            await Radio.open(f"127.0.0.1:{mute.sockets[0].getsockname()[1]}", "hub:test")
        mute.close()

    asyncio.run(story())


def test_the_hubs_radio_comes_back_with_the_air() -> None:
    async def story() -> None:
        port = free_port()
        heard: list[float] = []
        radio = HubRadio(None, f"127.0.0.1:{port}", "hub:test", lambda *_: heard.append(time.monotonic()))
        task = asyncio.create_task(radio.run())
        await until(lambda: radio.problem)
        for _ in range(2):
            async with air_process(port):
                await until(lambda: radio.usable)
                peripheral = await Peripheral().join(port)
                known = len(heard)
                await until(lambda known=known: len(heard) > known)  # type: ignore[misc]
                assert radio.problem == ""
            await until(lambda: not radio.usable)
            with pytest.raises(BleakError, match="gone"):
                radio.connection(BLEDevice("x", None, None), lambda: None)
            del peripheral
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())
