"""A stolen hub: everything on its disk opens no speech, forges no event and no acknowledgement (B7).

The thief here has the whole folder after a run with alarms and sound, and knows the protocol. Every key that could be
on it is tried: each sixteen bytes at any place of any file, as they are and read as hexadecimal digits, and what the
protocol derives from them. A last test gives the same thief the badge's root key, and then he succeeds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from neighbours import until
from pocket import SPEECH, Badge, Pocket, pocket

from hub.identity import Identity
from protocol import audio, downlink, events, ident, kinds, relay
from protocol.crypto import Forged, hkdf
from protocol.events import Event, seal_event
from station.ingest.dispatch import handle

INFOS = [f"tocsin 1 {name}".encode() for name in ("events", "down", "audio", "beacon", "answer", "check", "session")]


class Loot:
    """What the thief has: the files, and what they hold."""

    def __init__(self, folder: Path) -> None:
        self.hub_id = Identity.load(folder).hub_id
        self.files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        with sqlite3.connect(folder / "audio.db") as database:
            self.packets = [
                (badge, boot, number, position, sealed)
                for badge, boot, number, position, sealed in database.execute(
                    "SELECT badge, boot, number, position, sealed FROM packets JOIN captures ON id = capture"
                )
            ]
        database.close()
        with sqlite3.connect(folder / "outbox.db") as database:
            self.events = [row[0] for row in database.execute("SELECT payload FROM outbox WHERE form = 1")]
        database.close()

    def secrets(self) -> set[bytes]:
        """Everything in the files that could be a key, and what follows from it."""
        found: set[bytes] = set()
        for name, content in self.files.items():
            if name == "reserve":
                assert not any(content), "nothing but zeros"
                continue
            if name.endswith(".json"):
                for digits in re.findall(rb"[0-9a-fA-F]{32,}", content):
                    raw = bytes.fromhex(digits.decode())
                    found |= {raw, *(raw[at : at + 16] for at in range(len(raw) - 15))}
        for secret in list(found):
            for info in INFOS:
                found.add(hkdf(secret, info))
            found.add(hkdf(secret, b"tocsin 1 link" + self.hub_id))
        return {secret for secret in found if len(secret) == 16}

    def windows(self) -> Iterator[bytes]:
        """Each sixteen bytes at any place of any file."""
        for name, content in self.files.items():
            if name != "reserve":
                for at in range(len(content) - 15):
                    yield content[at : at + 16]


async def stolen(chain: Pocket) -> Loot:
    """A hub that was taken away while an alarm with sound waited in it."""
    badge = chain.badges[0]
    chain.gate.close()
    names = [badge.raise_event(kind) for kind in (kinds.SOS, kinds.CHECK_IN)]
    for index in range(12):
        badge.speak(1, index)
    await until(lambda: set(names) <= badge.held and len(badge.acked) == 12, what="held")
    await chain.kill()
    return Loot(chain.folder / "hub")


def opens(key: bytes, badge: Badge, loot: Loot) -> bool:
    """Whether this key opens a packet of sound."""
    number, boot, capture, index, sealed = loot.packets[0]
    nonce = boot + capture.to_bytes(2, "big") + index.to_bytes(4, "big") + b"\0"
    try:
        AESCCM(key, tag_length=8).decrypt(nonce, sealed, b"\x01A" + number.to_bytes(3, "big"))
    except InvalidTag:
        return False
    assert number == badge.number
    return True


def forged_event(chain: Pocket, badge: Badge, key: bytes, identity: Identity, number: int) -> bool:
    """Whether the station takes an SOS that was sealed with this key and brought by the stolen hub itself."""
    name = ident.pack(badge.boot, 50_000 + number)
    blob = seal_event(key, badge.number, badge.boot, 50_000 + number, Event(kinds.SOS, name, incident=name))
    payload = relay.pack_event(badge.number, kinds.SOS, name, 0, 80, 0, blob)
    up = relay.Up(relay.EVENT, identity.hub_id, 2**31, number, 0, 0, b"{}", payload)
    handle(chain.station.core, f"tocsin/1/hub/{identity.hub_id.hex()}/up/event", relay.pack_up(identity.sign, up))
    return (badge.number, name) in chain.at_station()


def forged_receipt(badge: Badge, key: bytes) -> bool:
    """Whether the badge believes a "station has it" that was sealed with this key."""
    message = downlink.Down(downlink.RECEIPT, 2**31, badge.boot, 1, bytes(18))
    blob = downlink.seal_down(key, badge.number, os.urandom(13), message)
    try:
        downlink.open_down(badge.keys.down, badge.number, blob)
    except Forged:
        return False
    return True


def test_what_a_thief_finds_opens_no_speech_and_forges_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with pocket(tmp_path, 1) as chain:
            badge = chain.badges[0]
            loot = await stolen(chain)
            assert len(loot.packets) == 12
            assert len(loot.events) == 2
            identity = Identity.load(tmp_path / "hub")
            secrets = loot.secrets()
            assert len(secrets) > 50, "the hub's own keys, the group key, a link key, and what follows from them"

            tried = sum(1 for _ in loot.windows())
            for key in itertools.chain(secrets, set(loot.windows())):
                assert not opens(key, badge, loot)
            assert tried > 100_000
            for name, content in loot.files.items():
                if name != "reserve":
                    assert SPEECH not in content, name

            before = len(chain.at_station())
            for number, key in enumerate(secrets):
                assert not forged_event(chain, badge, key, identity, number)
                assert not forged_receipt(badge, key)
            # what waits in the outbox cannot be altered either: one flipped bit, and the station refuses
            for payload in loot.events:
                for at in range(18, len(payload), 7):
                    bent = bytearray(payload)
                    bent[at] ^= 1
                    up = relay.Up(relay.EVENT, identity.hub_id, 2**31, 9000 + at, 0, 0, b"{}", bytes(bent))
                    handle(
                        chain.station.core,
                        f"tocsin/1/hub/{identity.hub_id.hex()}/up/event",
                        relay.pack_up(identity.sign, up),
                    )
            assert len(chain.at_station()) == before

    asyncio.run(story())


def test_the_same_thief_with_the_badges_root_key_succeeds(tmp_path: Path) -> None:
    """So what is shown above is not shown by a check that cannot fail."""

    async def story() -> None:
        async with pocket(tmp_path, 1) as chain:
            badge = chain.badges[0]
            loot = await stolen(chain)
            keys = badge.keys  # what follows from the root key, and from nothing else
            assert opens(keys.audio, badge, loot)
            packet = loot.packets[0]
            assert audio.open_audio(keys.audio, packet[0], packet[1], packet[2], packet[3], packet[4]) == SPEECH
            assert forged_event(chain, badge, keys.events, Identity.load(tmp_path / "hub"), 1)
            assert forged_receipt(badge, keys.down)
            assert events.open_event(keys.events, badge.number, loot.events[0][18:])

    asyncio.run(story())


def test_nobody_but_the_hubs_own_user_reads_its_folder(tmp_path: Path) -> None:
    async def story() -> None:
        async with pocket(tmp_path, 1) as chain:
            await stolen(chain)
        folder = tmp_path / "hub"
        assert folder.stat().st_mode & 0o077 == 0
        for name in ("identity.json", "keys.json", "boot"):
            assert (folder / name).stat().st_mode & 0o777 == 0o600
        assert set(json.loads((folder / "identity.json").read_bytes())) == {"ed25519", "x25519"}
        assert set(json.loads((folder / "keys.json").read_bytes())) == {"group", "links", "number"}

    asyncio.run(story())
