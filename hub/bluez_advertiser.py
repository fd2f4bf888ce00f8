"""Advertising through BlueZ: org.bluez.LEAdvertisingManager1, for the station's answers to badges without a session.

bleak scans and connects but does not advertise. The D-Bus object below is what BlueZ reads when it is registered
(doc/org.bluez.LEAdvertisement.rst); a broadcast takes no connections and carries no flags.

No `from __future__ import annotations` here: dbus-fast reads the annotations.
"""

from typing import Annotated

from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusSignature, DBusStr
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property
from dbus_fast.signature import Variant

from hub.bluez import BluezFailed, call, open_bus
from protocol.beacon import COMPANY

PATH = "/uk/tocsin/answer"
INTERVAL_MS = 100
MANAGER = "org.bluez.LEAdvertisingManager1"

_DATA = Annotated[dict[int, Variant], DBusSignature("a{qv}")]
_MS = Annotated[int, DBusSignature("u")]


class AdvertiserFailed(Exception):
    """BlueZ cannot or will not advertise. The text says why."""


class _Advertisement(ServiceInterface):
    def __init__(self) -> None:
        super().__init__("org.bluez.LEAdvertisement1")
        self.data = b""

    @dbus_property(access=PropertyAccess.READ)
    def Type(self) -> DBusStr:
        return "broadcast"

    @dbus_property(access=PropertyAccess.READ)
    def ManufacturerData(self) -> _DATA:
        return {COMPANY: Variant("ay", self.data)}

    @dbus_property(access=PropertyAccess.READ)
    def MinInterval(self) -> _MS:
        return INTERVAL_MS

    @dbus_property(access=PropertyAccess.READ)
    def MaxInterval(self) -> _MS:
        return INTERVAL_MS

    @dbus_method()
    def Release(self) -> None:
        """BlueZ has removed it, because the adapter went away."""


class BluezAdvertiser:
    """One advertisement on one adapter."""

    def __init__(self, bus: MessageBus, adapter: str) -> None:
        self._bus = bus
        self._adapter = f"/org/bluez/{adapter}"
        self._advertisement = _Advertisement()
        self._registered = False
        bus.export(PATH, self._advertisement)

    @classmethod
    async def open(cls, adapter: str | None, bus_address: str | None = None) -> "BluezAdvertiser":
        """Reach BlueZ. Raises AdvertiserFailed where there is no system bus."""
        try:
            bus = await open_bus(bus_address)
        except BluezFailed as failed:
            raise AdvertiserFailed(str(failed)) from failed
        return cls(bus, adapter or "hci0")

    async def show(self, data: bytes) -> None:
        """Advertise these 24 bytes instead of what was there. Raises AdvertiserFailed."""
        await self.hide()
        self._advertisement.data = data
        await self._call("RegisterAdvertisement", "oa{sv}", [PATH, {}])
        self._registered = True

    async def hide(self) -> None:
        """Stop advertising. Raises AdvertiserFailed."""
        if self._registered:
            self._registered = False
            await self._call("UnregisterAdvertisement", "o", [PATH])

    def close(self) -> None:
        """Leave the bus; BlueZ removes what is still there."""
        self._bus.disconnect()

    async def _call(self, member: str, signature: str, body: list[object]) -> None:
        try:
            await call(self._bus, self._adapter, MANAGER, member, signature, *body)
        except BluezFailed as failed:
            raise AdvertiserFailed(f"BlueZ does not advertise: {failed}") from failed
