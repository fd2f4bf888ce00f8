"""The station's own secrets: one file beside the database, and what is sealed with it.

The file holds 64 random bytes in hex: the seed of the station's Ed25519 identity and the key under which badges'
root keys and group keys lie in the database. A stolen database alone opens nothing. Lost, it cannot be replaced:
every badge would have to be provisioned again, so it belongs into the backup, apart from the database's.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from station.errors import CannotRun
from station.model import Meta
from station.store import Store

_SEED = 32
_NONCE = 12


class VaultError(CannotRun):
    """The key file cannot be used, or does not belong to this database."""


def _make(path: Path) -> None:
    """A new key file, whole or not at all, and never over another one that a second worker makes meanwhile."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(os.urandom(2 * _SEED).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


class Vault:
    """Seals what lies in the database and signs what the station says. `secret`: 64 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 2 * _SEED:
            raise VaultError("the key file must hold 64 bytes in hex")
        self._identity = Ed25519PrivateKey.from_private_bytes(secret[:_SEED])
        self._at_rest = AESGCM(secret[_SEED:])
        self.public_key = self._identity.public_key().public_bytes_raw()

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """Read the key file, making it (mode 0600) where there is none. Raises VaultError."""
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _make(path)
            return cls(bytes.fromhex(path.read_text().strip()))
        except (OSError, ValueError) as error:
            raise VaultError(f"{path}: the station's key file cannot be used: {error}") from error

    def sign(self, data: bytes) -> bytes:
        """64 bytes of Ed25519 signature by which hubs know the station."""
        return self._identity.sign(data)

    def seal(self, what: str, plain: bytes) -> bytes:
        """Seal for storage; `what` names the row, so that sealed values cannot be exchanged for each other."""
        nonce = os.urandom(_NONCE)
        return nonce + self._at_rest.encrypt(nonce, plain, what.encode())

    def open_sealed(self, what: str, sealed: bytes) -> bytes:
        """The inverse of seal(); raises VaultError."""
        try:
            return self._at_rest.decrypt(sealed[:_NONCE], sealed[_NONCE:], what.encode())
        except (InvalidTag, ValueError) as error:
            raise VaultError(f"{what} was not sealed with this key file") from error

    def belongs_to(self, store: Store) -> None:
        """Bind key file and database to each other at the first start. Raises VaultError for a strange pair."""
        with store.write() as db:
            row = db.get(Meta, "station key")
            if row is None:
                db.add(Meta(name="station key", value=self.public_key.hex()))
            elif row.value != self.public_key.hex():
                raise VaultError(
                    "the key file does not belong to this database: restore the station.key that was made with it"
                )
