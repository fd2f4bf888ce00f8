"""A stranger's device: advertises a badge's beacons, offers the badge's service, and answers no subscription."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from bumble import hci
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, Service
from bumble.host import Host

from firmware.emulator.air.client import open_hci
from firmware.tools.provision import Record
from protocol import beacon, ident, kinds, link
from protocol.keys import BadgeKeys

ROTATE_S = 8.0  # as a badge does


class SilentPeer:
    """It stands in for the badge of `record`. `asked`: subscriptions that it was asked for."""

    def __init__(self, record: Record) -> None:
        self.asked = 0
        self._record = record
        self._boot = ident.boot_bytes(1, os.urandom(4))
        self._rotation = 0
        self._transport: Any = None
        self._task: asyncio.Task[None] | None = None

    async def join(self, port: int) -> None:
        """Come on the air at `port` and advertise."""
        self._transport = await open_hci("127.0.0.1", port, "stranger")
        address = hci.Address.generate_static_address()
        host = Host(self._transport.source, self._transport.sink)
        self._device = Device(name="stranger", address=address, host=host)
        rx: Characteristic[bytes] = Characteristic(
            link.RX,
            Characteristic.Properties.WRITE | Characteristic.Properties.WRITE_WITHOUT_RESPONSE,
            Characteristic.WRITEABLE,
            b"",
        )
        tx: Characteristic[bytes] = Characteristic(
            link.TX, Characteristic.Properties.NOTIFY, Characteristic.Permissions(0), b""
        )
        self._device.add_service(Service(link.SERVICE, [rx, tx]))
        self._device.gatt_server.on_att_write_request = self._ignore
        self._device.on("connection", self._connected)
        await self._device.power_on()
        self._task = asyncio.create_task(self._rotate())

    async def leave(self) -> None:
        """Vanish."""
        if self._task:
            self._task.cancel()
        await self._transport.close()

    def _ignore(self, *_: object) -> None:
        self.asked += 1

    def _connected(self, _connection: Connection) -> None:
        self._device.legacy_advertiser = None  # a controller ends it with the connection

    async def _rotate(self) -> None:
        while True:
            self._rotation += 1
            keys, group = BadgeKeys(self._record.root), beacon.Group(self._record.group_key)
            sealed = beacon.seal_beacon(
                group, keys.beacon, self._record.badge, self._boot, 0, kinds.STATUS, kinds.STATUS, 80, self._rotation
            )
            if self._device.legacy_advertiser:
                await self._device.stop_advertising()
            address = hci.Address.generate_static_address()
            self._device.random_address = address
            await self._device.send_sync_command(hci.HCI_LE_Set_Random_Address_Command(random_address=address))
            await self._device.start_advertising(
                auto_restart=False,
                advertising_data=beacon.advertisement(sealed),
                advertising_interval_min=100,
                advertising_interval_max=100,
            )
            await asyncio.sleep(ROTATE_S)
