"""The barest chain there can be: an advertisement heard by bleak, published by paho, received by paho.

No seal, no disk, no receipt: what the radio and the broker take by themselves. The full chain is compared with it,
over the same air and the same broker.
"""

import asyncio
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from bleak import BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bumble.device import Device
from bumble.hci import Address
from bumble.host import Host
from paho.mqtt.enums import CallbackAPIVersion

from firmware.emulator.air.client import open_hci
from hub.bumble_backend import Radio

TOPIC = "bench/barest"
COMPANY = 0xFFFF
PAYLOAD = 24
# the badge's own advertising interval is taken, so that both chains wait as long for the air
ADVERTISING_MS = 100.0


@dataclass
class Trip:
    """Instants of one advertisement on CLOCK_MONOTONIC, in seconds."""

    sent: float
    heard: float = 0.0
    received: float = 0.0


class _Wire:
    """A paho client with its own thread, connected to the broker before it is returned."""

    def __init__(self, name: str, port: int) -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name)
        connected = threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        if not connected.wait(10):
            raise RuntimeError("the broker does not answer")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


async def measure(air_port: int, broker_port: int, count: int) -> list[Trip]:
    """Sends `count` advertisements, one after the other has arrived."""
    loop = asyncio.get_running_loop()
    trips: dict[int, Trip] = {}
    arrived = asyncio.Event()
    publisher, subscriber = _Wire("bench-out", broker_port), _Wire("bench-in", broker_port)

    def on_message(_client: Any, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        (number,) = struct.unpack_from(">I", message.payload)
        trips[number].received = time.monotonic()
        loop.call_soon_threadsafe(arrived.set)

    granted = threading.Event()
    subscriber.client.on_message = on_message
    subscriber.client.on_subscribe = lambda *_: granted.set()
    subscriber.client.subscribe(TOPIC, qos=1)
    await asyncio.to_thread(granted.wait, 10)

    def heard(_device: BLEDevice, advertisement: AdvertisementData) -> None:
        data = advertisement.manufacturer_data.get(COMPANY, b"")
        if len(data) != PAYLOAD:
            return
        (number,) = struct.unpack_from(">I", data)
        trip = trips.get(number)
        if trip is not None and not trip.heard:
            trip.heard = time.monotonic()
            publisher.client.publish(TOPIC, data, qos=1)

    radio = await Radio.open(f"127.0.0.1:{air_port}", "hub:barest")
    scanner = BleakScanner(detection_callback=heard, backend=radio.scanner)
    transport = await open_hci("127.0.0.1", air_port, "badge:barest")
    badge = Device(
        name="barest",
        address=Address.generate_static_address(),
        host=Host(transport.source, transport.sink),
    )
    try:
        await badge.power_on()
        await scanner.start()
        for number in range(count):
            payload = struct.pack(">I", number).ljust(PAYLOAD, b"\0")
            field = struct.pack("<BBH", PAYLOAD + 3, 0xFF, COMPANY) + payload
            arrived.clear()
            trips[number] = Trip(time.monotonic())
            await badge.start_advertising(
                advertising_data=b"\x02\x01\x06" + field,
                advertising_interval_min=ADVERTISING_MS,
                advertising_interval_max=ADVERTISING_MS,
            )
            async with asyncio.timeout(10):
                await arrived.wait()
            await badge.stop_advertising()
        await scanner.stop()
    finally:
        await transport.close()
        await radio.close()
        publisher.close()
        subscriber.close()
    return list(trips.values())
