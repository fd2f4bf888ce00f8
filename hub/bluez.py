"""BlueZ over D-Bus, for what bleak does not do: power, stale devices, and being told when bluetoothd is gone.

bleak keeps what it knew when bluetoothd is killed, and believes its connections to stand; `gone` says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

with contextlib.suppress(ImportError):  # there is none but on Linux, where alone this is used
    from dbus_fast.aio import MessageBus
    from dbus_fast.auth import AuthExternal
    from dbus_fast.constants import BusType, MessageType
    from dbus_fast.errors import DBusError
    from dbus_fast.message import Message
    from dbus_fast.signature import Variant

SERVICE = "org.bluez"
ADAPTER = "org.bluez.Adapter1"
DEVICE = "org.bluez.Device1"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECTS = "org.freedesktop.DBus.ObjectManager"
DBUS = "org.freedesktop.DBus"
CALL_S = 5.0  # switching an adapter takes half a second; longer means that it never will
NOT_THERE = ("org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner")
UNKNOWN = ("org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod")


class BluezFailed(Exception):
    """A call came to nothing. `name`: D-Bus's name of the error, empty where there was no answer."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name

    @property
    def no_service(self) -> bool:
        """Whether there is nobody to answer: no D-Bus, or no bluetoothd on it."""
        return self.name in NOT_THERE or self.name == "no bus"


async def open_bus(address: str | None = None) -> MessageBus:
    """The system bus, or the one at `address`. Raises BluezFailed where there is none.

    BLEAK_DBUS_AUTH_UID, which bleak obeys, is obeyed here as well: in a container one's own number may be another's.
    """
    uid = os.environ.get("BLEAK_DBUS_AUTH_UID", "")
    auth = AuthExternal(uid=int(uid)) if uid.isdecimal() else None
    try:
        return await MessageBus(bus_address=address, bus_type=BusType.SYSTEM, auth=auth).connect()
    except (OSError, EOFError, DBusError, ValueError) as problem:
        raise BluezFailed(f"no D-Bus: {problem}", "no bus") from problem


async def call(
    bus: MessageBus, path: str, interface: str, member: str, signature: str = "", *body: Any, seconds: float = CALL_S
) -> list[Any]:
    """Call bluetoothd; what it answers. Raises BluezFailed."""
    message = Message(
        destination=DBUS if interface == DBUS else SERVICE,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=list(body),
    )
    try:
        async with asyncio.timeout(seconds):
            answer = await bus.call(message)
    except TimeoutError:
        raise BluezFailed(f"{member}: no answer within {seconds:g} s") from None
    except (OSError, EOFError, DBusError) as problem:
        raise BluezFailed(f"{member}: D-Bus: {problem}", "no bus") from problem
    if answer is None or answer.message_type is MessageType.ERROR:
        name = (answer.error_name if answer else None) or "no answer"
        text = str(answer.body[0]) if answer and answer.body else ""
        raise BluezFailed(f"{member}: {name.rpartition('.')[2]}{f' ({text})' if text else ''}", name)
    return list(answer.body)


class Bluez:
    """A connection to bluetoothd that notices when it goes.

    `on_gone(path)`: an adapter has gone, with "" all of them.
    """

    def __init__(self, bus: MessageBus, on_gone: Callable[[str], None]) -> None:
        self.bus = bus
        self._on_gone = on_gone
        self._linked: dict[str, Callable[[bool], None]] = {}
        bus.add_message_handler(self._handle)

    @classmethod
    async def open(cls, on_gone: Callable[[str], None], address: str | None = None) -> Bluez:
        """Reach the system bus. Raises BluezFailed."""
        bus = await open_bus(address)
        made = cls(bus, on_gone)
        try:
            for rule in (
                f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{SERVICE}'",
                f"type='signal',sender='{SERVICE}',interface='{OBJECTS}',member='InterfacesRemoved'",
            ):
                await made._match("AddMatch", rule)
        except BluezFailed:
            bus.disconnect()
            raise
        return made

    @property
    def open_still(self) -> bool:
        """Whether the bus is there."""
        return bool(self.bus.connected)

    def close(self) -> None:
        """Leave the bus."""
        self.bus.disconnect()

    async def _match(self, member: str, rule: str) -> None:
        await call(self.bus, "/org/freedesktop/DBus", DBUS, member, "s", rule)

    def _handle(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "NameOwnerChanged" and message.body[0] == SERVICE and not message.body[2]:
            self._on_gone("")
        elif message.member == "InterfacesRemoved" and ADAPTER in message.body[1]:
            self._on_gone(message.body[0])
        elif message.member == "PropertiesChanged" and message.body[0] == DEVICE:
            changed, told = message.body[1].get("Connected"), self._linked.get(message.path or "")
            if told and changed is not None:
                told(bool(changed.value))

    @contextlib.asynccontextmanager
    async def _watched(self, path: str, told: Callable[[bool], None]) -> Any:
        rule = f"type='signal',sender='{SERVICE}',interface='{PROPERTIES}',path='{path}'"
        await self._match("AddMatch", rule)
        self._linked[path] = told
        try:
            yield
        finally:
            self._linked.pop(path, None)
            with contextlib.suppress(BluezFailed):
                await self._match("RemoveMatch", rule)

    def watched(self, path: str, told: Callable[[bool], None]) -> contextlib.AbstractAsyncContextManager[None]:
        """While this lasts `told(connected)` hears of a device's connection, before its services are known."""
        return self._watched(path, told)

    async def objects(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All objects of BlueZ: path, interface, property, value. Raises BluezFailed."""
        (found,) = await call(self.bus, "/", OBJECTS, "GetManagedObjects")
        return {
            path: {name: {k: v.value for k, v in properties.items()} for name, properties in interfaces.items()}
            for path, interfaces in found.items()
        }

    async def adapters(self) -> dict[str, bool]:
        """Adapters by name, and whether each is powered. Raises BluezFailed."""
        return {
            path.rpartition("/")[2]: bool(interfaces[ADAPTER].get("Powered"))
            for path, interfaces in sorted((await self.objects()).items())
            if ADAPTER in interfaces
        }

    async def powered(self, adapter: str, seconds: float = CALL_S) -> bool:
        """Whether an adapter is on. Raises BluezFailed."""
        path, names = f"/org/bluez/{adapter}", (ADAPTER, "Powered")
        (found,) = await call(self.bus, path, PROPERTIES, "Get", "ss", *names, seconds=seconds)
        return bool(found.value)

    async def power(self, adapter: str, on: bool) -> None:
        """Switch an adapter. Raises BluezFailed."""
        await call(self.bus, f"/org/bluez/{adapter}", PROPERTIES, "Set", "ssv", ADAPTER, "Powered", Variant("b", on))

    async def drop(self, adapter: str, ours: Callable[[str, dict[str, Any]], bool]) -> list[str]:
        """Have BlueZ forget devices of an adapter for which `ours(path, properties)`; gives their paths.

        Bonded ones are disconnected and stay known. Raises BluezFailed.
        """
        dropped = []
        for path, interfaces in (await self.objects()).items():
            properties = interfaces.get(DEVICE)
            if properties is None or not path.startswith(f"/org/bluez/{adapter}/") or not ours(path, properties):
                continue
            dropped.append(path)
            with contextlib.suppress(BluezFailed):  # it may have gone by itself
                if properties.get("Connected"):
                    await call(self.bus, path, DEVICE, "Disconnect")
                if not (properties.get("Bonded") or properties.get("Paired")):
                    await call(self.bus, f"/org/bluez/{adapter}", ADAPTER, "RemoveDevice", "o", path)
        return dropped
