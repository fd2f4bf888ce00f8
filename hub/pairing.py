"""Pairing with one badge: LE Secure Connections, with the passkey on its card, at its enrolment.

Pairing adds privacy; trust is our own keys (docs/security.md). The agent below lives for one pairing, on a bus
connection of its own, and is not the system's default agent: BlueZ asks it for nothing but what was begun here, and a
stranger who asks this machine to pair meets no agent at all.

No `from __future__ import annotations` here: dbus-fast reads the annotations.
"""

import contextlib

from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusObjectPath, DBusStr, DBusUInt16, DBusUInt32
from dbus_fast.errors import DBusError
from dbus_fast.service import ServiceInterface, dbus_method

from hub.bluez import DEVICE, PROPERTIES, BluezFailed, call, open_bus

PATH = "/uk/tocsin/agent"
MANAGER = "org.bluez.AgentManager1"
PAIR_S = 35.0  # BlueZ's own limit is 30 s; an exchange takes a tenth of a second
REJECTED = "org.bluez.Error.Rejected"


class PairingFailed(Exception):
    """The badge is not paired. The text says why, for a technician."""


class Agent(ServiceInterface):
    """Gives the passkey for one device, and refuses everything else (doc/org.bluez.Agent.rst)."""

    def __init__(self, device: str, passkey: int) -> None:
        super().__init__("org.bluez.Agent1")
        self.asked = False
        self._device = device
        self._passkey = passkey

    @dbus_method()
    def RequestPasskey(self, device: DBusObjectPath) -> DBusUInt32:
        if device != self._device:
            raise DBusError(REJECTED, "not this one")
        self.asked = True
        return self._passkey

    @dbus_method()
    def RequestPinCode(self, device: DBusObjectPath) -> DBusStr:
        raise DBusError(REJECTED, "only LE Secure Connections")

    @dbus_method()
    def DisplayPasskey(self, device: DBusObjectPath, passkey: DBusUInt32, entered: DBusUInt16) -> None:
        raise DBusError(REJECTED, "nothing is shown here")

    @dbus_method()
    def RequestConfirmation(self, device: DBusObjectPath, passkey: DBusUInt32) -> None:
        raise DBusError(REJECTED, "only with a passkey")

    @dbus_method()
    def RequestAuthorization(self, device: DBusObjectPath) -> None:
        raise DBusError(REJECTED, "only with a passkey")

    @dbus_method()
    def AuthorizeService(self, device: DBusObjectPath, uuid: DBusStr) -> None:
        raise DBusError(REJECTED, "a hub has no services")

    @dbus_method()
    def Cancel(self) -> None:
        """BlueZ has given up."""

    @dbus_method()
    def Release(self) -> None:
        """BlueZ does not need it any more."""


async def pair(device: str, passkey: int, bus_address: str | None = None) -> None:
    """Pair with a device (its D-Bus path), and connect to it first where need be. Raises PairingFailed."""
    try:
        bus = await open_bus(bus_address)
    except BluezFailed as failed:
        raise PairingFailed(str(failed)) from failed
    try:
        await _pair(bus, device, Agent(device, passkey))
    except BluezFailed as failed:
        raise PairingFailed(_told(failed)) from failed
    finally:
        bus.disconnect()  # the agent goes with it


async def _pair(bus: MessageBus, device: str, agent: Agent) -> None:
    bus.export(PATH, agent)
    await call(bus, "/org/bluez", MANAGER, "RegisterAgent", "os", PATH, "KeyboardOnly")
    over = False
    try:
        with contextlib.suppress(_AlreadyPaired):
            try:
                await call(bus, device, DEVICE, "Pair", seconds=PAIR_S)
            except BluezFailed as failed:
                if failed.name.endswith("AlreadyExists"):
                    raise _AlreadyPaired from failed
                raise
            if not agent.asked:
                # a kernel without its random number generator has been seen to answer success without having paired
                raise PairingFailed("BlueZ says that it has paired, and did not ask for the passkey")
        (paired,) = await call(bus, device, PROPERTIES, "Get", "ss", DEVICE, "Paired")
        if not paired.value:
            raise PairingFailed("BlueZ says that it has paired, and has not")
        over = True
    finally:
        if not over:
            # also when it was cancelled: while BlueZ believes that it pairs it does not scan
            with contextlib.suppress(BluezFailed):
                await call(bus, device, DEVICE, "CancelPairing")
        with contextlib.suppress(BluezFailed):
            await call(bus, "/org/bluez", MANAGER, "UnregisterAgent", "o", PATH)


class _AlreadyPaired(Exception):
    pass


def _told(failed: BluezFailed) -> str:
    reason = failed.name.rpartition(".")[2]
    if reason == "AuthenticationFailed":
        return "the badge refuses: wrong passkey, or its pairing window is closed"
    if reason in ("AuthenticationCanceled", "AuthenticationTimeout", "ConnectionAttemptFailed"):
        return "the badge went away while pairing"
    return str(failed)
