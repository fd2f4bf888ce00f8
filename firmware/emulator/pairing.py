"""Pairing and bonds of the emulated badge: the application shows passkeys and keeps the secrets.

As on the ESP32 the application is asked for secrets and told to keep them through IRQs, and an attempt to pair, by
anybody, first deletes the bond with that peer.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

from bumble import hci
from bumble.device import Connection
from bumble.keys import KeyStore, PairingKeys
from bumble.pairing import PairingConfig, PairingDelegate

from firmware.emulator.childlink import ChildLink

OUR_SECURITY, PEER_SECURITY = 1, 2  # sec_type of NimBLE's store
ACTION_NONE, ACTION_INPUT, ACTION_DISPLAY, ACTION_COMPARE = 0, 2, 3, 4
PASSKEY_ACTION = 31
PASSKEY_S = 30.0
_BOND_VERSION = 1
_BOND_LENGTH = 35
_IO = (
    PairingDelegate.DISPLAY_OUTPUT_ONLY,
    PairingDelegate.DISPLAY_OUTPUT_AND_YES_NO_INPUT,
    PairingDelegate.KEYBOARD_INPUT_ONLY,
    PairingDelegate.NO_OUTPUT_NO_INPUT,
    PairingDelegate.DISPLAY_OUTPUT_AND_KEYBOARD_INPUT,
)


class Bonds(KeyStore):
    """Bumble's key store, kept by the application on the badge."""

    def __init__(
        self,
        ask: Callable[[str, bytes], Awaitable[tuple[int, bytes]]],
        keep: Callable[[int, bytes, bytes], None],
    ) -> None:
        self._ask = ask
        self._keep = keep

    async def get(self, name: str) -> PairingKeys | None:
        """The keys of a peer, or None."""
        status, value = await self._ask("g", bytes((PEER_SECURITY, 0)) + _key(name))
        return None if status else _unpack(value)

    async def update(self, name: str, keys: PairingKeys) -> None:
        """Have a bond kept."""
        self._keep(PEER_SECURITY, _key(name), _pack(keys))

    async def delete(self, name: str) -> None:
        """Have a bond deleted."""
        self._keep(PEER_SECURITY, _key(name), b"")

    async def get_all(self) -> list[tuple[str, PairingKeys]]:
        """Nothing: peers are looked up one by one."""
        return []

    async def get_resolving_keys(self) -> list[tuple[bytes, hci.Address]]:
        """Nothing: no peer of ours uses resolvable addresses."""
        return []


def _pack(keys: PairingKeys) -> bytes:
    """A bond of LE Secure Connections as opaque bytes, about as long as the structure of the real port."""
    ltk = keys.ltk or PairingKeys.Key(bytes(16))
    irk = keys.irk.value if keys.irk else bytes(16)
    return bytes((_BOND_VERSION, keys.address_type or 0, ltk.authenticated)) + ltk.value + irk


def _unpack(secret: bytes) -> PairingKeys | None:
    """The bond, or None for what another firmware kept, or a spoilt one."""
    if len(secret) != _BOND_LENGTH or secret[0] != _BOND_VERSION or secret[1] > 1:
        return None
    keys = PairingKeys()
    keys.address_type = hci.AddressType(secret[1])
    keys.ltk = PairingKeys.Key(secret[3:19], authenticated=bool(secret[2]))
    keys.irk = PairingKeys.Key(secret[19:35], authenticated=bool(secret[2]))
    return keys


def _key(name: str) -> bytes:
    return bytes.fromhex(name.split("/")[0].replace(":", ""))


class _Delegate(PairingDelegate):
    def __init__(self, pairing: Pairing, connection: Connection) -> None:
        super().__init__(_IO[pairing.io])
        self.pairing = pairing
        self.connection = connection

    async def accept(self) -> bool:
        self.pairing.forget(self.connection)
        return True

    async def generate_passkey(self) -> int:
        answer = await self.pairing.passkey(self.connection, ACTION_DISPLAY, 0)
        return 0 if answer is None else answer

    async def display_number(self, number: int, digits: int) -> None:
        return

    async def get_number(self) -> int | None:
        return await self.pairing.passkey(self.connection, ACTION_INPUT, 0)

    async def compare_numbers(self, number: int, digits: int) -> bool:
        return bool(await self.pairing.passkey(self.connection, ACTION_COMPARE, number))


class Pairing:
    """Settings of `BLE.config` that concern pairing, and the passkeys on their way."""

    def __init__(self, link: ChildLink) -> None:
        self._link = link
        self.bond = False
        self.mitm = False
        self.secure = False
        self.io = 3
        self._waiting: dict[int, asyncio.Future[int]] = {}

    def configure(self, key: bytes, value: int) -> None:
        """One setting: b(ond), m(itm), l(e_secure) or i(o)."""
        if key == b"b":
            self.bond = bool(value)
        elif key == b"p":
            self.mitm = bool(value)
        elif key == b"l":
            self.secure = bool(value)
        elif key == b"i":
            self.io = value if value < len(_IO) else 3

    def config(self, connection: Connection) -> PairingConfig:
        """What Bumble pairs by."""
        return PairingConfig(
            sc=self.secure,
            mitm=self.mitm,
            bonding=self.bond,
            delegate=_Delegate(self, connection),
            identity_address_type=PairingConfig.AddressType.RANDOM,
        )

    def bonded(self, connection: Connection) -> bool:
        """Whether the encryption of a connection comes from a bond."""
        return self.bond and connection.is_encrypted

    def forget(self, connection: Connection) -> None:
        """Delete the bond with a peer."""
        key = bytes(connection.peer_address)[::-1]
        self._link.send("k", bytes((PEER_SECURITY, len(key))) + key)

    def keep(self, kind: int, key: bytes, value: bytes) -> None:
        """Have the application keep a secret, or delete it when there is no value."""
        self._link.send("k", bytes((kind, len(key))) + key + value)

    async def passkey(self, connection: Connection, action: int, number: int) -> int | None:
        """Ask the application for (or show it) a passkey."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[connection.handle] = future
        self._link.send("e", bytes((PASSKEY_ACTION,)) + struct.pack(">HBI", connection.handle, action, number))
        try:
            async with asyncio.timeout(PASSKEY_S):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(connection.handle, None)

    def on_passkey(self, body: bytes) -> None:
        """The application's answer."""
        handle, _action, number = struct.unpack(">HBI", body)
        future = self._waiting.get(handle)
        if future and not future.done():
            future.set_result(number)
