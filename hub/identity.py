"""Who this hub is, and the keys that it was given: two files that only the hub's own user can read.

`identity.json` is made at the first start and never changes: an Ed25519 key that signs what the hub says, and an
X25519 key to which the station seals other keys. `keys.json` is what the station sent: group keys, by which beacons
are routed, and one link key for each badge that is enrolled here. Neither file opens a word of speech or a sealed
event; with both, a thief could pretend to be this hub until the station revokes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocol import relay
from protocol.beacon import Group
from protocol.crypto import Forged
from protocol.events import Malformed

logger = logging.getLogger("hub.identity")

IDENTITY = "identity.json"
KEYS = "keys.json"
BOOT = "boot"
GROUPS_MAX = 16  # a council rotates its key; older ones are accepted for 90 days
LINKS_MAX = 10_000


class IdentityError(Exception):
    """The hub's identity cannot be read or made. The text says which file and why."""


class Identity:
    """The hub's own keys. `hub_id`: 8 bytes of the SHA-256 of the public signing key."""

    def __init__(self, signing: Ed25519PrivateKey, exchange: X25519PrivateKey) -> None:
        self._signing = signing
        self._exchange = exchange
        self.public = signing.public_key().public_bytes_raw()
        self.exchange_public = exchange.public_key().public_bytes_raw()
        self.hub_id = sha256(self.public).digest()[: relay.HUB_ID]

    def sign(self, text: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return self._signing.sign(text)

    def shared(self, ephemeral: bytes) -> bytes:
        """The X25519 secret shared with the owner of a public key (32 bytes). Raises ValueError for a bad one."""
        return self._exchange.exchange(X25519PublicKey.from_public_bytes(ephemeral))

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read the identity, or make one where there is none. Raises IdentityError."""
        path = folder / IDENTITY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o077:
                folder.chmod(0o700)  # what waits in the outbox says where somebody is
            if not path.exists():
                fresh = {"ed25519": secrets.token_hex(32), "x25519": secrets.token_hex(32)}
                write_private(path, json.dumps(fresh).encode())
            stored = json.loads(path.read_bytes())
            return cls(
                Ed25519PrivateKey.from_private_bytes(bytes.fromhex(stored["ed25519"])),
                X25519PrivateKey.from_private_bytes(bytes.fromhex(stored["x25519"])),
            )
        except OSError as problem:
            raise IdentityError(f"{path}: {problem.strerror or problem}") from problem
        except (ValueError, KeyError, TypeError) as problem:
            raise IdentityError(
                f"{path}: damaged; restore it from a copy, or remove it and let a supervisor accept the hub anew"
            ) from problem


def verifier(public: bytes) -> Callable[[bytes, bytes], bool]:
    """A function verify(signature, text) for an Ed25519 public key. Raises ValueError for a bad key."""
    key = Ed25519PublicKey.from_public_bytes(public)

    def verify(signature: bytes, text: bytes) -> bool:
        try:
            key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return verify


class KeyRing:
    """What the station gave this hub. `number` increases with every word of the station.

    `file` is where they are stored; `problem` why they could not be read at the start, or "".
    """

    def __init__(self, folder: Path) -> None:
        self.file = PrivateFile(folder / KEYS)
        self.number = -1
        self.groups: list[Group] = []
        self.links: dict[int, bytes] = {}
        self.problem = ""
        path = self.file.path
        try:
            self._take(json.loads(path.read_bytes()))
        except FileNotFoundError:
            pass
        except OSError as problem:
            self.problem = f"{path}: {problem.strerror or problem}"
        except (ValueError, KeyError, TypeError, AttributeError):
            # the station sends them again as soon as it hears the hub's hello
            self.problem = f"{path}: damaged, waiting for the station to send the keys again"

    def open(self, identity: Identity, payload: bytes) -> bool:
        """Take what the station sealed to this hub; False for older keys than those here.

        Raises Forged or Malformed. They hold from now on, and are stored as soon as the disk takes them.
        """
        try:
            text = relay.open_keys(identity.shared, identity.hub_id, payload)
        except ValueError as problem:
            raise Forged from problem
        try:
            stored = json.loads(text)
            if int(stored["number"]) < self.number:
                return False
            self._take(stored)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise Malformed("keys from the station") from problem
        # stored also when nothing but the number is new: a word that never reached this hub may lie between the number
        # on disk and this one, and whoever recorded it could undo a revocation with it after a restart. A hub that is
        # killed before the disk has it says hello when it starts, and gets the latest word again
        self.file.put(text)
        self.problem = ""
        return True

    def _take(self, stored: dict[str, object]) -> None:
        group, links, number = stored["group"], stored["links"], stored["number"]
        if not isinstance(group, list) or not isinstance(links, dict) or not isinstance(number, int):
            raise TypeError
        if len(group) > GROUPS_MAX or len(links) > LINKS_MAX:
            raise ValueError
        groups = [Group(bytes.fromhex(key)) for key in group]
        keys = {int(badge): bytes.fromhex(key) for badge, key in links.items()}
        if any(len(key) != 16 for key in keys.values()):
            raise ValueError
        self.groups, self.links, self.number = groups, keys, number


def next_boot(folder: Path) -> int:
    """A number for this start of the hub, larger than those of earlier starts: 1..2^32-1.

    It is counted in a file, and at least the Unix time: so that it also grows when the file is lost or the disk is
    full, unless the clock went back at the same time.
    """
    path = folder / BOOT
    try:
        last = int(path.read_text())
    except (OSError, ValueError):
        last = 0
    boot = max(last + 1, int(time.time())) & 0xFFFFFFFF
    with contextlib.suppress(OSError):
        write_private(path, str(boot).encode())
    return boot


class PrivateFile:
    """A file that is replaced in a thread of its own, always by its latest content: a disk that hangs stops nobody.

    What comes while the disk is busy takes the place of what has not been begun. What it fails to take is logged, once,
    and given up: the next content is tried again. `path` is the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._next: bytes | None = None
        self._put = self._ended = 0  # how many contents there were, and up to which the disk has taken or refused them
        self._writing = False
        self._waiters: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._hung = -1  # for what has been waited in vain
        self._failed = False

    def put(self, content: bytes) -> None:
        """Replace the file soon. Never raises, never waits for the disk."""
        with self._lock:
            self._next = content
            self._put += 1
            if self._writing:
                return
            try:
                threading.Thread(target=self._write, name=f"write {self.path.name}", daemon=True).start()
                self._writing = True
            except RuntimeError:
                logger.warning("%s: not stored, there is no room for another thread", self.path)

    async def settled(self, seconds: float) -> bool:
        """Wait until the disk has taken, or refused, everything that was put before; False when it does neither.

        A disk that hangs is waited for once: until it moves again, further calls give False at once.
        """
        with self._lock:
            if self._ended >= self._put:
                return True
            if not self._writing or self._hung == self._ended:
                return False
            waiter = (self._put, asyncio.get_running_loop(), asyncio.Event())
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter[2].wait()
            return True
        except TimeoutError:
            with self._lock:
                if self._ended >= waiter[0]:
                    return True
                self._hung = self._ended
            logger.warning("%s: the disk hangs; going on without it", self.path)
            return False
        finally:
            with self._lock:
                self._waiters = [other for other in self._waiters if other is not waiter]

    def _write(self) -> None:
        while True:
            with self._lock:
                content, number = self._next, self._put
                self._next = None
                if content is None:
                    self._writing = False
                    return
            failed: Exception | None = None
            try:
                write_private(self.path, content)
            except Exception as problem:
                failed = problem
            if failed is not None and not self._failed:
                words = failed.strerror if isinstance(failed, OSError) else None
                logger.warning("%s: not stored, kept in memory: %s", self.path, words or failed)
            self._failed = failed is not None
            with self._lock:
                self._ended = number
                for wanted, loop, event in self._waiters:
                    if wanted <= number:
                        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                            loop.call_soon_threadsafe(event.set)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step, readable by its owner alone. Raises OSError, and leaves the old one then."""
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    with contextlib.suppress(OSError):  # some file systems have no directory to synchronise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
